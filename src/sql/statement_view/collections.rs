//! Collections that a statement names: which events and which base make their documents.
//!
//! `cdc_users` is a collection where a table of that name is its base, or nothing else has the name. Its one
//! invariant: a base is read only where it has no event that the statement does not see.

use crate::sql::{
    points::{QueryPoints, TableRead},
    statement_view::ViewDraft,
    view::{self, ResolvedNamespace, history::main_part},
    visibility,
};
use iceberg::spec::TableMetadata;
use icecore_catalog::ancestors;
use icecore_engine::{
    collections::{collection_of, events_name, is_path},
    error::SqlError,
    metadata_tables::MetadataTable,
    view::{CollectionView, TableView, View},
};
use icecore_lake::{
    branch::{MainPart, branch_of},
    collection::table_name,
    table::{as_of, documents::AppliedChanges, typed_columns::TypedColumns},
};
use icecore_schemas::{as_of::AsOf, service_table::EVENTS_TABLE};

/// What a name in FROM may mean as a collection's.
struct CollectionName {
    /// The name without a point.
    table: String,
    /// What the view has the events by, at the same point.
    events: String,
}

/// A collection that is there.
struct FoundCollection {
    /// Its name, as events have it.
    collection: String,
    /// What the view has its events by.
    events: String,
    /// Its base as it is now.
    base: Option<TableView>,
}

/// What a name may mean, the likeliest first.
fn meanings(points: &QueryPoints, name: &str) -> Vec<CollectionName> {
    let of = |table: &str| {
        let events = events_name(name, table)?;
        Some(CollectionName { table: table.to_owned(), events })
    };
    if let Some((table, _)) = points.versions.get(name) {
        return of(table).into_iter().collect();
    }
    // A collection may have the sign in its name.
    let reference = name.rsplit_once('@').filter(|_| !is_path(name)).map(|(table, _)| table);
    [Some(name), reference].into_iter().flatten().filter_map(of).collect()
}

impl ViewDraft<'_> {
    /// A collection whose base has the name, or that is named whatever tables there are.
    pub(super) async fn add_based_collection(
        &mut self,
        schema: &str,
        space: &ResolvedNamespace,
        name: &str,
    ) -> Result<bool, SqlError> {
        if self.has_collection(schema, name) {
            return Ok(true);
        }
        if !space.has_events || !self.points(schema).has(name) {
            return Ok(false);
        }
        for CollectionName { table, events } in meanings(self.points(schema), name) {
            let found = if is_path(&table) {
                self.found_by_name(space, &table, events).await?
            } else {
                let based = space.base(self.sources, &table).await?;
                based.map(|(collection, base)| FoundCollection {
                    collection,
                    events,
                    base: Some(base),
                })
            };
            if let Some(found) = found {
                return Box::pin(self.add_collection(schema, space, name, found)).await;
            }
        }
        Ok(false)
    }

    /// A collection by a name that nothing else has.
    pub(super) async fn add_folded_collection(
        &mut self,
        schema: &str,
        space: &ResolvedNamespace,
        name: &str,
    ) -> Result<bool, SqlError> {
        let is_metadata = MetadataTable::split(name).is_some();
        if is_metadata || !space.has_events || !self.points(schema).has(name) {
            return Ok(false);
        }
        // Behind the sign is a point, unless a base says that it is of the name.
        let Some(CollectionName { table, events }) = meanings(self.points(schema), name).pop()
        else {
            return Ok(false);
        };
        // A view has no versions.
        if table != name && space.has_view(self.sources, &table).await? {
            return Ok(false);
        }
        match self.found_by_name(space, &table, events).await? {
            Some(found) => Box::pin(self.add_collection(schema, space, name, found)).await,
            None => Ok(false),
        }
    }

    fn has_collection(&self, schema: &str, name: &str) -> bool {
        let is_it = |known: &CollectionView| known.namespace == schema && known.name == name;
        self.view.collections.iter().any(is_it)
    }

    /// The collection that is written so, and its base if it has one.
    async fn found_by_name(
        &self,
        space: &ResolvedNamespace,
        table: &str,
        events: String,
    ) -> Result<Option<FoundCollection>, SqlError> {
        let Some(collection) = collection_of(table) else { return Ok(None) };
        let based = space.base(self.sources, &table_name(collection)).await?;
        let base = based.filter(|(of, _)| of == collection).map(|(_, base)| base);
        Ok(Some(FoundCollection { collection: collection.to_owned(), events, base }))
    }

    /// Puts a collection into the view, with its events and its base. Which snapshot of the base is read follows
    /// once it is known which events are.
    async fn add_collection(
        &mut self,
        schema: &str,
        space: &ResolvedNamespace,
        name: &str,
        FoundCollection { collection, events, base }: FoundCollection,
    ) -> Result<bool, SqlError> {
        if self.values_seen(space).is_some() {
            // What is folded has parts of events of every visibility.
            return Err(visibility::of_all(name));
        }
        check_is_state(self.points(schema), name)?;
        self.count_behind_views()?;
        let own = base.as_ref().and_then(|base| {
            let now_ms = self.sources.catalog.now_ms();
            own_snapshot(self.points(schema), (name, events.as_str()), base, now_ms)
        });
        let added = match self.has(schema, &events) {
            true => Ok(true),
            false => self.add_table(schema, space, &events).await,
        };
        let is_of_events = match (added, own) {
            (Ok(true), _) => true,
            // The point is one of the base, as its tags are.
            (Ok(false) | Err(SqlError::NotFound(_) | SqlError::Gone { .. }), Some(_)) => false,
            (Ok(false), None) => return Ok(false),
            (Err(cause), _) => return Err(cause),
        };
        let mut view = CollectionView {
            namespace: schema.to_owned(),
            name: name.to_owned(),
            collection,
            events: is_of_events.then_some(events),
            applied_seq: None,
            until: None,
            typed: TypedColumns::default(),
            has_typed: false,
        };
        if let Some(base) = base {
            let snapshot_id = if is_of_events { base.snapshot_id } else { own };
            let metadata = base.metadata.as_deref();
            view.typed = metadata.map(TypedColumns::of).unwrap_or_default();
            if !is_of_events {
                let applied = metadata.and_then(|it| Some((it, AppliedChanges::of(it, own)?)));
                view.applied_seq = applied.as_ref().map(|(_, applied)| applied.seq);
                view.has_typed =
                    applied.is_some_and(|(it, applied)| applied.has_columns_of_now(it));
                view.until = view.applied_seq;
            }
            let base = TableView { name: name.to_owned(), snapshot_id, ..base };
            let (tables, _) = self.view.namespace_mut(schema);
            match tables.iter().position(|table| table.name == name) {
                // Its metadata tables are read, too.
                Some(at) if view::collection_of(&tables[at]).is_some() => {
                    let inspected = std::mem::take(&mut tables[at].inspected);
                    tables[at] = TableView { inspected, ..base };
                }
                Some(_) => (),
                None => tables.push(base),
            }
        }
        self.view.collections.push(view);
        Ok(true)
    }
}

/// Refuses a collection of a range of events.
fn check_is_state(points: &QueryPoints, name: &str) -> Result<(), SqlError> {
    let table = points.versions.get(name).map_or(name, |(table, _)| table.as_str());
    match points.point_of(name) {
        Some(TableRead::Now(Some(range))) if range.first != 0 => Err(SqlError::Invalid(format!(
            "`{table}` has documents and no events: write FOR SEQ AS OF {}, or read `{EVENTS_TABLE}` for the events of a range",
            range.last
        ))),
        _ => Ok(()),
    }
}

/// The snapshot of a base that a point names by its id, or by a tag or a branch of the base. `events` is what the
/// view has the events by.
fn own_snapshot(
    points: &QueryPoints,
    (name, events): (&str, &str),
    base: &TableView,
    now_ms: i64,
) -> Option<i64> {
    // The answer that is repeated had the events. Where they are gone since, the base alone is not the same.
    if points.basis.is_some() && points.has(events) {
        return None;
    }
    let read = match points.of(name).ok()? {
        (_, read @ TableRead::AsOf(_)) => read,
        (_, TableRead::Basis { snapshot: Some(id), .. }) => TableRead::AsOf(AsOf::Snapshot(id)),
        _ => points.of_reference(name).ok()??.1,
    };
    match read {
        TableRead::AsOf(as_of @ (AsOf::Snapshot(_) | AsOf::Reference(_))) => {
            let metadata = base.metadata.as_deref();
            let id = as_of::resolve(&as_of, name, metadata, now_ms).ok()?;
            // Events tell of a branch. What tables still have of one that is gone is no point.
            let is_left = |branch: &str| matches!(&as_of, AsOf::Reference(name) if name == branch);
            let branch = metadata.and_then(|metadata| branch_of(metadata, id));
            (!branch.is_some_and(is_left)).then_some(id)
        }
        TableRead::AsOf(AsOf::Time(_))
        | TableRead::Now(_)
        | TableRead::Back(_)
        | TableRead::Branch { .. }
        | TableRead::Basis { .. } => None,
    }
}

/// Chooses the snapshots of the bases: of each the newest that has no event behind the last one that is seen. `log` is
/// where this server's events come from, where it takes them: of the events of another log, or of before a loss, some
/// may be in no table.
pub(super) fn choose_bases(view: &mut View, log: Option<&str>) {
    let mut collections = std::mem::take(&mut view.collections);
    for collection in &mut collections {
        let Some(events) = &collection.events else { continue };
        let (tables, _) = view.namespace_mut(&collection.namespace);
        let Some(events) = tables.iter().find(|table| table.name == *events) else { continue };
        collection.until = last_event(events);
        // A base has events of main alone.
        let until = collection.until.zip(main_part(events));
        let until = until.map(|(seq, part)| MainPart { seq: seq.min(part.seq), ..part });
        let base = tables.iter_mut().find(|table| table.name == collection.name);
        let named = collection.collection.as_str();
        let Some(base) = base.filter(|base| view::collection_of(base) == Some(named)) else {
            continue;
        };
        let metadata = base.metadata.clone();
        let found = until.zip(metadata).and_then(|(until, base)| newest(&base, until, log));
        collection.has_typed = found.as_ref().is_some_and(|found| found.has_typed);
        collection.applied_seq = found.as_ref().map(|found| found.applied_seq);
        base.snapshot_id = found.map(|found| found.snapshot_id);
    }
    view.collections = collections;
}

/// The last event of a table that is seen; none where it is not known.
fn last_event(events: &TableView) -> Option<u64> {
    let last = Some(events.last_seq).filter(|last| *last != 0)?;
    Some(events.seqs.map_or(last, |seqs| seqs.last.min(last)))
}

/// A snapshot of a base that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BaseSnapshot {
    snapshot_id: i64,
    /// The last event whose change it has.
    applied_seq: u64,
    /// Whether its rows have the typed columns of now.
    has_typed: bool,
}

/// The newest snapshot of a base without an event behind `until`. What is below a snapshot that is not of the documents
/// is of none: the base was set aside, or rows were taken out of it. One that was made after a branch was may have other
/// events than the branch under the same numbers: `main` may have lost some meanwhile, and others write to it.
fn newest(base: &TableMetadata, until: MainPart, log: Option<&str>) -> Option<BaseSnapshot> {
    for snapshot in ancestors::of(base, base.current_snapshot_id()) {
        let snapshot_id = snapshot.snapshot_id();
        let applied = AppliedChanges::of(base, Some(snapshot_id))?;
        let is_within = applied.seq <= until.seq && snapshot.timestamp_ms() <= until.taken_at;
        if is_within && log.is_none_or(|log| applied.log == log) {
            let (applied_seq, has_typed) = (applied.seq, applied.has_columns_of_now(base));
            return Some(BaseSnapshot { snapshot_id, applied_seq, has_typed });
        }
    }
    None
}

#[cfg(test)]
mod tests;
