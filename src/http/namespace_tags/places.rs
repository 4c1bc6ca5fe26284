//! Which snapshot of each table of a namespace a tag names.
//!
//! `events` decides: the tables of collections have no change behind the last event that it has at the tag. Its one
//! invariant: a table is in the answer, with its snapshot or with the reason why it gets none.

use icecore_catalog::{
    catalog::{Catalog, LoadedTable, NewTag, TagChange},
    error::CatalogError,
    retention,
};
use icecore_lake::table::{
    as_of,
    schema::{TableIdent, foreign_ident},
    tagged::{documents_until, events_until, last_seq},
};
use icecore_schemas::{as_of::AsOf, namespace_tags::LeftOutTable, service_table::EVENTS_TABLE};
use std::collections::HashMap;

/// Why a collection's table gets no tag.
const NO_DOCUMENTS: &str = "none of its kept snapshots has the documents as of that event, of the log that takes events now: refresh the collection, or tag a later point";
/// Why `events` gets none.
const NO_EVENTS: &str =
    "none of its kept snapshots ends at that event or before it: tag a later point";
/// Why a table that is not made of events gets none.
const NO_TIME: &str = "the event of that point is gone, so it is not known when it was: tag a time";
const NO_SNAPSHOT: &str = "it has no snapshot yet";

/// The moment that a tag is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum TagMoment {
    /// What the tables have.
    Now,
    /// A point in the history of the namespace.
    Past {
        /// The last event that counts.
        seq: u64,
        /// The snapshot of `events` that the point names, where it names one.
        snapshot: Option<i64>,
        /// When it was, ms since 1970, as far as it is known.
        ms: Option<i64>,
    },
}

impl TagMoment {
    fn seq(self) -> u64 {
        match self {
            Self::Now => u64::MAX,
            Self::Past { seq, .. } => seq,
        }
    }
}

/// A table, and the snapshot of it that a tag names.
#[derive(Clone, Debug)]
pub(in crate::http) struct TagPlace {
    pub(in crate::http) table: TableIdent,
    pub(in crate::http) base: LoadedTable,
    pub(in crate::http) snapshot: i64,
}

impl TagPlace {
    /// The change that gives the table a tag. One that is to stay for so many ms does so from now on, however old its
    /// snapshot is.
    pub(in crate::http) fn tagging(
        &self,
        name: &str,
        retain_ms: Option<i64>,
        now_ms: i64,
    ) -> TagChange {
        let made = self.base.metadata.snapshot_by_id(self.snapshot);
        let age_ms = made.map_or(0, |made| now_ms.saturating_sub(made.timestamp_ms()).max(0));
        let max_age_ms = retain_ms.map(|retain| retain.saturating_add(age_ms));
        let set = vec![NewTag { name: name.to_owned(), snapshot: self.snapshot, max_age_ms }];
        let (table, base) = (self.table.clone(), self.base.clone());
        TagChange { table, base, set, removed: Vec::new(), properties: HashMap::new() }
    }
}

/// What a tag names.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct TagPlaces {
    /// The last event that `events` has at the tag; none where it gets no tag.
    pub(in crate::http) seq: Option<u64>,
    pub(in crate::http) places: Vec<TagPlace>,
    pub(in crate::http) left_out: Vec<LeftOutTable>,
}

/// Where a tag is to be set.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct TagScope<'a> {
    pub(in crate::http) catalog: &'a Catalog,
    /// The log that takes events: numbers of another one's say nothing.
    pub(in crate::http) log: &'a str,
    pub(in crate::http) levels: &'a [String],
    pub(in crate::http) moment: TagMoment,
}

impl TagScope<'_> {
    /// What a tag names of the tables with these names. One that is gone by now is in no list.
    ///
    /// # Errors
    /// Where the stores do not answer. A table whose own metadata does not read is left out.
    pub(in crate::http) async fn places(
        self,
        names: Vec<String>,
    ) -> Result<TagPlaces, CatalogError> {
        let tables = self.catalog.tables();
        let mut found = TagPlaces::default();
        let (events, others): (Vec<String>, Vec<String>) =
            names.into_iter().partition(|name| name == EVENTS_TABLE);
        for name in events.into_iter().chain(others) {
            let Some(table) = foreign_ident(self.levels, &name) else { continue };
            let base = match tables.load(&table).await {
                Ok(base) => base,
                Err(CatalogError::NoSuchTable(_)) => continue,
                Err(cause) => match tables.why_unreadable(&table, &cause).await? {
                    Some(reason) => {
                        found.left_out.push(LeftOutTable { table: name, reason });
                        continue;
                    }
                    None => return Err(cause),
                },
            };
            match self.snapshot(&name, &base, found.seq) {
                Ok((snapshot, seq)) => {
                    found.seq = found.seq.or(seq);
                    found.places.push(TagPlace { table, base, snapshot });
                }
                Err(reason) => found.left_out.push(LeftOutTable { table: name, reason }),
            }
        }
        Ok(found)
    }

    /// The snapshot of a table, and of `events` the last event in it. `events_seq` is that one for the other tables.
    fn snapshot(
        self,
        name: &str,
        base: &LoadedTable,
        events_seq: Option<u64>,
    ) -> Result<(i64, Option<u64>), String> {
        let metadata = &base.metadata;
        if is_events(name, base) {
            return self.of_events(base).ok_or_else(|| NO_EVENTS.to_owned());
        }
        if retention::collection_of(metadata).is_some() {
            let seq = events_seq.unwrap_or(self.moment.seq());
            let found = documents_until(metadata, self.log, seq);
            return found.map(|id| (id, None)).ok_or_else(|| NO_DOCUMENTS.to_owned());
        }
        let found = match self.moment {
            TagMoment::Now => metadata.current_snapshot_id().ok_or_else(|| NO_SNAPSHOT.to_owned()),
            TagMoment::Past { ms: None, .. } => Err(NO_TIME.to_owned()),
            TagMoment::Past { ms: Some(ms), .. } => {
                let now_ms = self.catalog.now_ms();
                let found = as_of::resolve(&AsOf::Time(ms), name, Some(metadata), now_ms);
                found.map_err(|cause| cause.to_string())
            }
        };
        found.map(|id| (id, None))
    }

    fn of_events(self, base: &LoadedTable) -> Option<(i64, Option<u64>)> {
        let metadata = &base.metadata;
        match self.moment {
            TagMoment::Now => {
                let id = metadata.current_snapshot_id()?;
                let of_mark = || base.watermark.map(|mark| mark.last_seq);
                Some((id, last_seq(metadata, id).or_else(of_mark)))
            }
            TagMoment::Past { seq, snapshot, .. } => {
                // It may be one of before a gap in the history, which the walk from now on does not come to.
                let named = snapshot.and_then(|id| {
                    let last = metadata.snapshot_by_id(id).and_then(|_| last_seq(metadata, id));
                    last.filter(|last| *last <= seq).map(|last| (id, last))
                });
                let found = named.or_else(|| events_until(metadata, seq));
                found.map(|(id, last)| (id, Some(last)))
            }
        }
    }
}

/// Whether a table is that of the events of its namespace.
pub(in crate::http) fn is_events(name: &str, base: &LoadedTable) -> bool {
    name == EVENTS_TABLE && retention::is_managed(&base.metadata)
}
