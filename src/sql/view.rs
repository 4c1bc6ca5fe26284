//! How a view is taken of the stores.
//!
//! The order of steps makes it exact: pin the log, list its records, then load each table with its
//! watermark in one read, then drop the records that the table has. A record that was trimmed
//! before it could be listed is in the table that is loaded later; one that was listed is told
//! apart by the watermark. So each acknowledged row is in exactly one of the two.

pub(super) mod history;

use crate::{
    owner::LogOwnership,
    sql::{
        points::{QueryPoints, TableRead},
        statement_view::StatementReader,
    },
};
use history::{check_reached, last_seq_of, oldest_of_main, seq_of, snapshot_back};
use iceberg::{
    NamespaceIdent, TableIdent,
    spec::{PrimitiveType, Type},
};
use icecore_catalog::{
    catalog::{Catalog, LoadedTable},
    error::CatalogError,
    retention,
};
use icecore_engine::{
    error::SqlError,
    references::{StatementTables, WantedTables},
    seq_range::{SEQ_COLUMN, SeqRange},
    view::{TableView, View},
};
use icecore_lake::{
    faults::Failpoints,
    table::{as_of, evolve::SchemaFit},
    wal::{LogPin, Wal},
};
use icecore_schemas::{
    as_of::AsOf,
    names::Namespace,
    service_table::{RecordKind, ServiceTable, ServiceTables},
};

/// Where views are taken from.
#[derive(Clone, Copy, Debug)]
pub struct ViewSources<'a> {
    /// The log.
    pub wal: &'a Wal,
    /// Whether its records are rows of the tables.
    pub owner: &'a LogOwnership,
    /// The tables.
    pub catalog: &'a Catalog,
    /// Which of them are ours.
    pub tables: &'a ServiceTables,
    /// Failpoints, for tests.
    pub faults: &'a Failpoints,
}

impl ViewSources<'_> {
    /// Takes a view of one namespace, and the pin that keeps it readable.
    ///
    /// # Errors
    /// [`SqlError::NoNamespace`]; [`SqlError::NotFound`] when a point is not there;
    /// [`SqlError::Invalid`] for a table that is not, and for a time in the future.
    pub async fn view(
        self,
        levels: &[String],
        wanted: &WantedTables,
        points: &QueryPoints,
    ) -> Result<(View, LogPin), SqlError> {
        let reader = StatementReader { levels, principal: None, points, filters_rows: false };
        let tables = StatementTables::of(wanted.clone());
        Box::pin(self.of_statement(reader, &tables)).await
    }
}

/// A namespace that is there: in the catalog, in the log, or both.
pub(super) struct ResolvedNamespace {
    /// Its levels in the catalog.
    pub(super) levels: Vec<String>,
    /// Whose events its tables have or may get; none where only other engines have tables.
    events: Option<Namespace>,
    /// Whether events came: their tables are there then, also before they are in the catalog.
    pub(super) has_events: bool,
}

/// Whose events have the catalog name of this namespace, which is theirs for good, whether they are in
/// a table already or only in the log. Two texts may mean one catalog name: the one that came first
/// has it.
///
/// # Errors
/// The metastore's.
pub async fn claim(
    wal: &Wal,
    catalog: &Catalog,
    asked: &Namespace,
) -> Result<Option<Namespace>, CatalogError> {
    Ok(claim_of(wal, catalog, &[asked.name().to_owned()], Some(asked)).await?.0)
}

/// The same, and whether the catalog has the name at all.
async fn claim_of(
    wal: &Wal,
    catalog: &Catalog,
    levels: &[String],
    asked: Option<&Namespace>,
) -> Result<(Option<Namespace>, bool), CatalogError> {
    // Before the catalog is asked: what is committed meanwhile is gone from the log.
    let waiting = match levels {
        [name] => wal.namespaces_named(name),
        _ => Vec::new(),
    };
    let logged = waiting.into_iter().max_by_key(|found| Some(found) == asked);
    let levels = levels.to_vec();
    let properties = catalog.metastore().namespace(&levels).await?;
    let noted = properties.as_ref();
    let owner = noted.and_then(|properties| Namespace::from_properties(&levels, properties));
    Ok((owner.or(logged), properties.is_some()))
}

impl ResolvedNamespace {
    /// The namespace of these levels, if it is there.
    pub(super) async fn find(
        ViewSources { wal, catalog, .. }: ViewSources<'_>,
        levels: &[String],
    ) -> Result<Option<Self>, SqlError> {
        let claim = claim_of(wal, catalog, levels, None).await;
        let (owner, is_there) = claim.map_err(|cause| internal(&cause))?;
        if owner.is_none() && !is_there {
            return Ok(None);
        }
        let own = || match levels {
            [level] => Namespace::parse(level).ok().filter(|own| own.name() == level),
            _ => None,
        };
        let has_events = owner.is_some();
        Ok(Some(Self { levels: levels.to_vec(), events: owner.or_else(own), has_events }))
    }

    /// The table of ours of this name, where the namespace may have it.
    fn service_table<'a>(&self, tables: &'a ServiceTables, name: &str) -> Option<&'a ServiceTable> {
        self.events.as_ref().and_then(|_| tables.named(name))
    }

    /// As its events name it, or as the catalog does.
    pub(super) fn name(&self) -> String {
        self.events
            .as_ref()
            .map_or_else(|| self.levels.join("."), |events| events.text().to_owned())
    }

    /// Every table there is, ours also before they are in the catalog.
    pub(super) async fn table_names(
        &self,
        sources: ViewSources<'_>,
    ) -> Result<Vec<String>, SqlError> {
        let mut names = match sources.catalog.metastore().tables(&self.levels).await {
            Ok(names) => names,
            Err(CatalogError::NoSuchNamespace(_)) => Vec::new(),
            Err(cause) => return Err(internal(&cause)),
        };
        if self.has_events {
            names.extend(sources.tables.iter().map(|ours| ours.name.to_owned()));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Whether the catalog has a view of this name.
    pub(super) async fn has_view(
        &self,
        sources: ViewSources<'_>,
        name: &str,
    ) -> Result<bool, SqlError> {
        let Ok(levels) = NamespaceIdent::from_vec(self.levels.clone()) else { return Ok(false) };
        let view = TableIdent::new(levels, name.to_owned());
        sources.catalog.views().has(&view).await.map_err(|cause| internal(&cause))
    }

    /// The error for a table that is not there.
    pub(super) async fn unknown_table(
        &self,
        sources: ViewSources<'_>,
        name: &str,
    ) -> Result<SqlError, SqlError> {
        let mut names = self.table_names(sources).await?;
        match sources.catalog.views().names(&self.levels).await {
            Ok(views) => names.extend(views),
            Err(CatalogError::NoSuchNamespace(_)) => {}
            Err(cause) => return Err(internal(&cause)),
        }
        names.sort();
        let mut listed: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        if listed.is_empty() {
            listed.push("no tables".to_owned());
        }
        Ok(SqlError::Invalid(format!(
            "table `{name}` does not exist in namespace `{}`; it has {}",
            self.name(),
            listed.join(", ")
        )))
    }

    /// The table that is called `name` in the statement, at its point.
    pub(super) async fn at_point(
        &self,
        sources: ViewSources<'_>,
        name: &str,
        points: &QueryPoints,
    ) -> Result<Option<TableView>, SqlError> {
        let (table, read) = points.of(name)?;
        let mut found = Box::pin(self.state(sources, table, read)).await?;
        if found.is_none()
            && let Some((table, read)) = self.written_point(sources, name, points).await?
        {
            found = Box::pin(self.state(sources, table, read)).await?;
        }
        Ok(found.map(|found| TableView { name: name.to_owned(), ..found }))
    }

    /// The table and its point in a name such as `events@v17`. A ref that has the name goes first.
    async fn written_point<'a>(
        &self,
        sources: ViewSources<'_>,
        name: &'a str,
        points: &QueryPoints,
    ) -> Result<Option<(&'a str, TableRead)>, SqlError> {
        if let Some((table, point, read)) = points.of_address(name)? {
            let loaded = Box::pin(self.load(sources.catalog, table)).await?;
            let named = loaded.as_ref().and_then(|it| it.metadata.snapshot_for_ref(point));
            if named.is_none() {
                return Ok(Some((table, read)));
            }
        }
        points.of_reference(name)
    }

    /// One state of a table.
    async fn state(
        &self,
        sources: ViewSources<'_>,
        name: &str,
        read: TableRead,
    ) -> Result<Option<TableView>, SqlError> {
        let as_of = match read {
            TableRead::AsOf(as_of) => as_of,
            TableRead::Now(seqs) => {
                let Some(now) = self.table(sources, name, None).await? else { return Ok(None) };
                return cut(now, seqs).map(Some);
            }
            TableRead::Basis { snapshot, until, seqs } => {
                let Some(now) = self.table(sources, name, None).await? else { return Ok(None) };
                return cut(repeated(now, snapshot, until)?, seqs).map(Some);
            }
            TableRead::Branch { branch, until, snapshot } => {
                let as_of =
                    snapshot.map_or_else(|| AsOf::Reference(branch.clone()), AsOf::Snapshot);
                let found = self.table(sources, name, Some(&as_of)).await?;
                return found.map(|found| of_branch(found, &branch, until, snapshot)).transpose();
            }
            TableRead::Back(count) => {
                let Some(now) = self.table(sources, name, None).await? else { return Ok(None) };
                AsOf::Snapshot(snapshot_back(&now, count)?)
            }
        };
        self.table(sources, name, Some(&as_of)).await
    }

    /// The base of a collection that is called `name`, as it is now, and the collection.
    pub(super) async fn base(
        &self,
        sources: ViewSources<'_>,
        name: &str,
    ) -> Result<Option<(String, TableView)>, SqlError> {
        let found = Box::pin(self.table(sources, name, None)).await?;
        Ok(found.and_then(|base| Some((collection_of(&base)?.to_owned(), base))))
    }

    async fn table(
        &self,
        ViewSources { wal, owner, catalog, tables, faults }: ViewSources<'_>,
        name: &str,
        as_of: Option<&AsOf>,
    ) -> Result<Option<TableView>, SqlError> {
        let named = self.service_table(tables, name);
        // The log first, see above.
        let mut tail = match (named, &self.events) {
            (Some(table), Some(events)) if as_of.is_none() => wal.records(table.kind, events, 0),
            _ => Vec::new(),
        };
        faults.hit("sql.after_list").map_err(|cause| SqlError::Internal(cause.to_string()))?;
        let loaded = self.load(catalog, name).await?;
        if loaded.is_none() && named.is_none() {
            return Ok(None);
        }
        let fit = named.zip(loaded.as_ref()).map(|(ours, it)| SchemaFit::of(ours, &it.metadata));
        let mismatch = fit.and_then(Result::err);
        let ours = named.filter(|_| mismatch.is_none()).map(|table| table.kind);
        let watermark = loaded.as_ref().and_then(|loaded| loaded.watermark);
        // What a log holds that another one followed is no part of the tables until it is sent again.
        let committed = owner.committed(watermark).unwrap_or(u64::MAX);
        tail.retain(|record| committed < record.position);
        // Rows of the log do not go to a table of somebody else, whatever its name; and an answer
        // without them would lack what was acknowledged.
        if let Some(cause) = mismatch.filter(|_| !tail.is_empty()) {
            return Err(SqlError::Withheld(format!(
                "table `{}.{name}` cannot show the rows of the log that belong to it; rename it, and the service creates a new one: {cause}",
                self.name()
            )));
        }
        let (metadata, metadata_location) =
            loaded.map(|loaded| (loaded.metadata, loaded.metadata_location)).unzip();
        let snapshot_id = match as_of {
            None => metadata.as_ref().and_then(|table| table.current_snapshot_id()),
            Some(as_of) => {
                Some(as_of::resolve(as_of, name, metadata.as_deref(), catalog.now_ms())?)
            }
        };
        let has_past_columns = as_of
            .zip(metadata.as_deref())
            .is_some_and(|(as_of, table)| as_of::has_past_columns(as_of, table));
        let last_seq = match (as_of, tail.last()) {
            (_, Some(record)) => record.first_seq + u64::from(record.rows).saturating_sub(1),
            (None, None) => watermark.map_or(0, |watermark| watermark.last_seq),
            (Some(as_of), None) => {
                metadata.as_ref().map_or(0, |table| last_seq_of(table, as_of, snapshot_id))
            }
        };
        let name = name.to_owned();
        Ok(Some(TableView {
            name,
            metadata,
            snapshot_id,
            has_past_columns,
            ours,
            tail,
            last_seq,
            metadata_location,
            inspected: Vec::new(),
            seqs: None,
            later: None,
        }))
    }

    /// A table as it is in the catalog, if it is there.
    pub(super) async fn load(
        &self,
        catalog: &Catalog,
        name: &str,
    ) -> Result<Option<LoadedTable>, SqlError> {
        let Ok(levels) = NamespaceIdent::from_vec(self.levels.clone()) else { return Ok(None) };
        let table = TableIdent::new(levels, name.to_owned());
        match catalog.tables().load(&table).await {
            Ok(loaded) => Ok(Some(loaded)),
            Err(CatalogError::NoSuchTable(_)) => Ok(None),
            Err(cause) => match catalog.tables().why_unreadable(&table, &cause).await {
                Ok(Some(why)) => {
                    Err(SqlError::Unreadable(format!("table `{name}` cannot be read: {why}")))
                }
                Ok(None) | Err(_) => Err(internal(&cause)),
            },
        }
    }
}

/// The collection whose base a table is; none for every other one.
pub(super) fn collection_of(table: &TableView) -> Option<&str> {
    retention::collection_of(table.metadata.as_deref()?)
}

/// The events of a branch up to one, of its head or of the snapshot that an earlier answer saw. They have the columns
/// of the table.
fn of_branch(
    table: TableView,
    branch: &str,
    until: u64,
    snapshot: Option<i64>,
) -> Result<TableView, SqlError> {
    if snapshot.is_none() && table.has_past_columns {
        return Err(SqlError::NotFound(format!(
            "`{branch}` is a tag of table `{}` and no branch: write FOR VERSION AS OF '{branch}'",
            table.name
        )));
    }
    if snapshot.is_none() {
        check_reached(&table, branch, until)?;
    }
    cut(TableView { has_past_columns: false, ..table }, Some(SeqRange::up_to(until)))
}

/// The events of a table that are wanted.
fn cut(table: TableView, seqs: Option<SeqRange>) -> Result<TableView, SqlError> {
    let Some(seqs) = seqs else { return Ok(table) };
    let has_seq = match &table.metadata {
        Some(metadata) => metadata
            .current_schema()
            .field_by_name(SEQ_COLUMN)
            .is_some_and(|field| *field.field_type == Type::Primitive(PrimitiveType::Long)),
        None => table.ours == Some(RecordKind::Events),
    };
    if !has_seq {
        return Err(SqlError::Invalid(format!(
            "table `{}` has no column `seq`: write FOR TIMESTAMP AS OF or FOR VERSION AS OF",
            table.name
        )));
    }
    Ok(narrowed(table, seqs))
}

fn narrowed(table: TableView, seqs: SeqRange) -> TableView {
    let both = Some(table.seqs.map_or(seqs, |before| before.and(seqs)));
    let later = table.later.map(|later| Box::new(narrowed(*later, seqs)));
    TableView { seqs: both, later, ..table }
}

/// The state that an earlier answer saw: its snapshot, and of what came after it the events up to the last one
/// that it saw, wherever they are now.
fn repeated(
    now: TableView,
    snapshot: Option<i64>,
    until: Option<u64>,
) -> Result<TableView, SqlError> {
    let lost = |what: String| SqlError::Gone {
        text: format!(
            "the basis cannot be repeated: {what}; ask without it, and tag what is to be read for longer"
        ),
        nearest: oldest_of_main(&now).map(|id| id.to_string()).into_iter().collect(),
    };
    let table = &now.name;
    let has_events = now.ours == Some(RecordKind::Events);
    let committed = match (snapshot, &now.metadata) {
        (None, _) => 0,
        (Some(id), Some(metadata)) if metadata.snapshot_by_id(id).is_some() => match has_events {
            true => seq_of(metadata, snapshot).ok_or_else(|| {
                lost(format!(
                    "which events snapshot {id} of table `{table}` has is not known any more"
                ))
            })?,
            false => 0,
        },
        (Some(id), _) => {
            return Err(lost(format!("table `{table}` does not have snapshot {id} any more")));
        }
    };
    let until = until.filter(|_| has_events).unwrap_or(0);
    if now.last_seq < until {
        return Err(SqlError::NotYet(format!(
            "the basis has events up to {until}, and this server sees those up to {}; try again",
            now.last_seq
        )));
    }
    let seqs = Some(SeqRange { first: committed + 1, last: until });
    let later = (committed < until).then(|| TableView { seqs, ..now.clone() });
    // Of a table that ended with another one.
    let is_cut = 0 < until && until < committed;
    Ok(match (snapshot, later) {
        (None, Some(later)) => TableView { last_seq: until, ..later },
        (snapshot, later) => TableView {
            snapshot_id: snapshot,
            // The answer had the columns of its own time, which later ones have, too.
            has_past_columns: false,
            tail: Vec::new(),
            last_seq: if is_cut { until } else { committed.max(until) },
            seqs: is_cut.then(|| SeqRange::up_to(until)),
            later: later.map(Box::new),
            ..now
        },
    })
}

/// Lets a table that is read twice as it is now end at the same event: its states are not taken at one moment.
pub(super) fn end_together(tables: &mut [TableView], points: &QueryPoints) {
    let reads_now =
        |table: &TableView| table.ours == Some(RecordKind::Events) && points.reads_now(&table.name);
    let end = tables.iter().filter(|table| reads_now(table)).map(|table| table.last_seq).min();
    let Some(end) = end.filter(|end| *end != 0) else { return };
    for table in tables {
        if reads_now(table) && end < table.last_seq {
            let seqs = SeqRange::up_to(end);
            table.seqs = Some(table.seqs.map_or(seqs, |before| before.and(seqs)));
            table.last_seq = end;
        }
    }
}

pub(super) fn internal(cause: &CatalogError) -> SqlError {
    tracing::error!(error = cause as &dyn std::error::Error, "cannot read a consistent view");
    match cause {
        CatalogError::WarehouseOutage(reason) => SqlError::Outage(reason.clone()),
        _ if cause.is_temporary() => SqlError::Unavailable,
        _ => SqlError::Internal("the catalog does not answer".to_owned()),
    }
}
