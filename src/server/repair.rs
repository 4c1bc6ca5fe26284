//! A metastore that was lost, rebuilt from the warehouse and the log of a server that does not run.
//!
//! What the warehouse has comes from the catalog; here it is joined with the log: which table has which of
//! its rows. Its one invariant: a row of the log is in a table, or above the mark of that table, so the next
//! start lands each acknowledged row once. Nothing is deleted, and a run that was killed is repeated.

mod rows;
pub mod table;

use crate::{
    config::{Config, MetastoreUrl},
    server::{
        StartError, backup,
        claim::{self, marks_path},
        is_missing, make_data_folder, open_metastore,
        stopped::{existing_catalog, lacks_warehouse},
    },
};
use icecore_catalog::{
    catalog::{
        Catalog,
        recovery::{RecoveredCatalog, RecoveredTable, RecoveryNote, RecoveryOptions},
    },
    error::CatalogError,
    metastore::{Levels, Metastore, MetastoreContents, NameKind, Properties},
};
use icecore_lake::{
    blocking::blocking,
    clock::Clock,
    ids::IdGenerator,
    wal::{
        LogPosition, RecordRef,
        folder::LogFolder,
        inspect,
        marks::{NotedMarks, RowMark},
    },
};
use icecore_schemas::{
    names::Namespace,
    service_table::{RecordKind, ServiceTable, known_tables},
};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// Who the catalog's feed says it was that brought things back.
const ACTOR: &str = "icecore/repair";

/// What no warehouse has.
const LOST: [&str; 6] = [
    "tokens and the rights of namespaces",
    "secrets of webhooks",
    "the audit log",
    "idempotency keys of requests",
    "the feed of changes, which begins anew under another id",
    "the queue of files to delete: what was in it is left in the warehouse",
];

/// How a metastore is rebuilt.
#[derive(Clone, Copy, Debug, Default)]
pub struct MetastoreRepair {
    /// Whether tables come back that were dropped, as far as is known.
    pub with_dropped: bool,
    /// Whether the log of this folder is taken for the one whose rows the tables have, whatever is known.
    pub is_forced: bool,
    /// Reads everything and changes nothing.
    pub is_dry: bool,
}

/// What was, or would be, rebuilt.
#[derive(Debug, Serialize)]
pub struct MetastoreReport {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// How many namespaces there are.
    pub namespaces: usize,
    /// Tables and views, by name.
    pub tables: Vec<TableAnswer>,
    /// The log whose rows the tables have; none where nobody is known.
    pub log: Option<Uuid>,
    /// Whether that log is in this data folder.
    pub log_is_here: bool,
    /// Rows of the log that are in no table, which the next start lands.
    pub rows_in_log: u64,
    /// When the list of names was written that the names are from, ms since 1970; none without one.
    pub names_listed_ms: Option<i64>,
    /// What was left out or is in doubt.
    pub notes: Vec<NoteAnswer>,
    /// What does not come back.
    pub lost: [&'static str; 6],
}

/// A table or view that came back.
#[derive(Debug, Serialize)]
pub struct TableAnswer {
    /// Its namespace.
    pub ns: Levels,
    /// Its name.
    pub table: String,
    /// `table`, `view` or `dropped`.
    pub is: &'static str,
    /// Its metadata file.
    pub metadata_location: String,
    /// The last `seq` of the log's rows that it has; none of a table that others write.
    pub last_seq: Option<u64>,
}

/// Something that an operator should know.
#[derive(Debug, Serialize)]
pub struct NoteAnswer {
    /// The file or folder.
    pub location: String,
    /// What is with it.
    pub text: String,
}

/// The log in this server's folder.
struct LocalLog {
    /// Of a repair that changes something: no server starts meanwhile.
    _folder: Option<LogFolder>,
    log: Option<Uuid>,
    records: Vec<RecordRef>,
}

/// By table, the records of the log that are rows of it.
type LogRows<'a> = HashMap<(RecordKind, Namespace), Vec<&'a RecordRef>>;

/// Rebuilds a metastore that has nothing. No server may have the folder open.
///
/// # Errors
/// [`StartError`]; nothing was rebuilt, and the command may be given again.
pub async fn rebuild_metastore(
    config: &Config,
    clock: &Clock,
    repair: MetastoreRepair,
) -> Result<MetastoreReport, StartError> {
    let unfinished = backup::restore::check_finished(&config.data_dir);
    unfinished.map_err(|cause| StartError::Unfinished(cause.to_string()))?;
    if !repair.is_dry {
        // Before anything is made in a folder that may be a mistyped one.
        if lacks_warehouse(config) {
            return Err(no_warehouse(config));
        }
        make_data_folder(config)?;
        let metastore = open_metastore(config).await?;
        let report = rebuild(config, clock, repair, &metastore).await;
        metastore.close().await;
        return report;
    }
    match &config.metastore {
        MetastoreUrl::Sqlite(file) if is_missing(file) => {
            // What a run that is not dry would find in the one that it makes.
            let name = format!("icecore-{}", IdGenerator::new(clock.clone()).mint());
            let folder = std::env::temp_dir().join(name);
            let failed = |source| StartError::DataFolder { path: folder.clone(), source };
            std::fs::create_dir(&folder).map_err(failed)?;
            let report = async {
                let metastore = Metastore::sqlite(&folder.join("icecore.db")).await?;
                let report = rebuild(config, clock, repair, &metastore).await;
                metastore.close().await;
                report
            };
            let report = report.await;
            std::fs::remove_dir_all(&folder).map_err(failed)?;
            report
        }
        MetastoreUrl::Sqlite(_) | MetastoreUrl::Postgres(_) => {
            let metastore = open_metastore(config).await?;
            let report = rebuild(config, clock, repair, &metastore).await;
            metastore.close().await;
            report
        }
    }
}

async fn rebuild(
    config: &Config,
    clock: &Clock,
    repair: MetastoreRepair,
    metastore: &Metastore,
) -> Result<MetastoreReport, StartError> {
    metastore.check_is_empty().await?;
    let local = LocalLog::take(config, repair.is_dry).await?;
    let Some(catalog) = existing_catalog(config, metastore, clock).await? else {
        return Err(no_warehouse(config));
    };
    let catalog = catalog.on_behalf_of(ACTOR);
    let mut noted = NotedMarks::read(&marks_path(config))?;
    let options = RecoveryOptions { with_dropped: repair.with_dropped };
    let mut found = Box::pin(catalog.recovery().find(options)).await?;
    let holder = holder(config, &local, &noted, &found, repair.is_forced)?;
    Box::pin(rows::name_namespaces(&catalog, &mut found, &noted, &local.records)).await?;
    let is_here = holder.is_some_and(|(log, _)| local.log == Some(log));
    let rows = rows_of(&local.records);
    let mut known = HashMap::new();
    let RecoveredCatalog { names, notes, .. } = &mut found;
    for table in &mut names.tables {
        let Some((ours, namespace)) = owned(table, &names.namespaces) else { continue };
        let key = (ours.kind, namespace);
        let last_seq = match table.last_seq {
            Some(seq) => seq,
            None => {
                // A note may be behind, and the last rows may have been deleted.
                let noted = noted.tables.get(&key).map_or(0, |marks| marks.committed.seq);
                Box::pin(rows::last_seq(&catalog, table, ours, noted, notes)).await?
            }
        };
        let records = rows.get(&key).map_or(&[][..], Vec::as_slice);
        let mark = RowMark { seq: last_seq, position: position(records, last_seq, table.position) };
        if holder.is_some() && !is_here && table.position.is_none() {
            notes.push(without_position(table));
        }
        table.last_seq = Some(mark.seq);
        table.returning.mark = Some((mark.position, mark.seq));
        if table.returning.dropped.is_none() {
            known.insert(key, mark);
        }
    }
    let mut report = MetastoreReport::of(&found, holder, repair.is_dry);
    report.rows_in_log = rows_left(&rows, &known);
    report.log_is_here = is_here;
    if repair.is_dry {
        return Ok(report);
    }
    let contents = MetastoreContents {
        namespaces: found.names.namespaces.into_iter().collect(),
        tables: found.names.tables.into_iter().map(|table| table.returning).collect(),
        holds: found.names.holds,
        holder,
    };
    fail_at(config, "repair.before_marks")?;
    if !noted.log.is_nil() {
        // Before the metastore has anything: a start in between finds it empty and takes no events.
        take_back(&mut noted, &known, local.log.filter(|_| repair.is_forced && is_here));
        let path = marks_path(config);
        blocking(move || noted.write(&path)).await?;
    }
    fail_at(config, "repair.before_rebuild")?;
    catalog.metastore().rebuild(&contents).await?;
    fail_at(config, "repair.after_rebuild")?;
    list_names(&catalog, found.metastores).await;
    Ok(report)
}

fn no_warehouse(config: &Config) -> StartError {
    let text = format!("there is no warehouse at `{}`: set --warehouse", config.warehouse);
    CatalogError::Invalid(text).into()
}

/// Has a test end a repair here.
fn fail_at(config: &Config, point: &'static str) -> Result<(), StartError> {
    let failed = |source| StartError::DataFolder { path: config.data_dir.clone(), source };
    config.faults.hit(point).map_err(failed)
}

/// The lists of before are over: what is dropped from now on stays dropped in a later repair. Everything is
/// there by now, so a list that cannot be written is left to the server.
async fn list_names(catalog: &Catalog, metastores: Vec<u64>) {
    if let Err(cause) = catalog.recovery().list_names(metastores).await {
        let error = &cause as &dyn std::error::Error;
        tracing::warn!(error, "the names of the rebuilt metastore are not listed yet");
    }
}

impl LocalLog {
    /// The log of this folder, taken where something is going to be changed.
    async fn take(config: &Config, is_dry: bool) -> Result<Self, StartError> {
        let wal = config.data_dir.join("wal");
        if !wal.is_dir() {
            return Ok(Self { _folder: None, log: None, records: Vec::new() });
        }
        if is_dry {
            let held = blocking(move || inspect::records(&wal)).await;
            let held = held.map_err(|cause| claim::explain(config, cause))?;
            return Ok(Self { _folder: None, log: held.log, records: held.records });
        }
        let folder = claim::take(config).await?;
        let read = blocking(move || {
            let records = if folder.is_new() { Vec::new() } else { folder.records()? };
            Ok::<_, StartError>((folder, records))
        });
        let (folder, records) = read.await?;
        Ok(Self { log: Some(folder.log()), _folder: Some(folder), records })
    }
}

/// Whose rows the tables have, with the base that it has: who held the fence when the names were listed, or
/// whom the notes beside the log name, or the log that is here.
fn holder(
    config: &Config,
    local: &LocalLog,
    noted: &NotedMarks,
    found: &RecoveredCatalog,
    is_forced: bool,
) -> Result<Option<(Uuid, u64)>, StartError> {
    let listed = found.holder;
    let noted = Some(noted.log).filter(|log| !log.is_nil());
    let former = listed.or(noted.map(|log| (log, 0)));
    let here = local.log.filter(|_| !local.records.is_empty());
    match (former, here) {
        (Some((holder, base)), Some(log)) if holder != log => {
            if is_forced {
                return Ok(Some((log, base)));
            }
            let folder = config.data_dir.join("wal");
            Err(CatalogError::Invalid(format!(
                "`{}` has the log {log}, but the tables have rows of the log {holder}: run this with \
                 the data folder of that log, move the log away if that one is lost, or, if these are \
                 the same rows, add --force",
                folder.display()
            ))
            .into())
        }
        (Some(former), _) => Ok(Some(former)),
        (None, here) => Ok(here.map(|log| (log, 0))),
    }
}

/// Which table of the service this is, and of which namespace; none for what others write.
fn owned(
    table: &RecoveredTable,
    namespaces: &BTreeMap<Levels, Properties>,
) -> Option<(&'static ServiceTable, Namespace)> {
    if !table.is_managed {
        return None;
    }
    let new = &table.returning.table;
    let namespace = Namespace::from_properties(&new.levels, namespaces.get(&new.levels)?)?;
    known_tables().find(|ours| ours.name == new.name).map(|ours| (ours, namespace))
}

fn rows_of(records: &[RecordRef]) -> LogRows<'_> {
    let mut rows = LogRows::new();
    for record in records.iter().filter(|record| record.kind.is_rows() && 0 < record.rows) {
        rows.entry((record.kind, record.namespace.clone())).or_default().push(record);
    }
    rows
}

/// The number of a record's last row.
fn last_of(record: &RecordRef) -> u64 {
    record.first_seq + u64::from(record.rows.saturating_sub(1))
}

/// The position up to which a table has the log's records: no record above it is in the table, and all
/// others are. What the table's snapshot `named` may be of another log, and counts only where it fits.
fn position(records: &[&RecordRef], last_seq: u64, named: Option<LogPosition>) -> LogPosition {
    let covered = records.iter().filter(|record| last_of(record) <= last_seq);
    let covered = covered.map(|record| record.position).max().unwrap_or(0);
    let left = records.iter().filter(|record| last_seq < last_of(record));
    let left = left.map(|record| record.position).min().unwrap_or(LogPosition::MAX);
    named.filter(|named| *named < left).map_or(covered, |named| named.max(covered))
}

/// A table whose mark is a guess.
fn without_position(table: &RecoveredTable) -> RecoveryNote {
    let text = "does not say which position of the log it has, and the log is not here: run this with the \
                data folder of the server that takes events, or that log lands rows of it twice";
    let location = table.returning.table.metadata_location.clone();
    RecoveryNote { location, text: text.to_owned() }
}

/// How many rows of the log are above the marks of their tables.
fn rows_left(rows: &LogRows<'_>, known: &HashMap<(RecordKind, Namespace), RowMark>) -> u64 {
    let left = rows.iter().flat_map(|(key, records)| {
        let mark = known.get(key).copied().unwrap_or_default();
        records.iter().filter(move |record| mark.position < record.position)
    });
    left.map(|record| u64::from(record.rows)).sum()
}

/// What is noted beside the log claims no more than the rebuilt tables have, and no metastore.
fn take_back(
    noted: &mut NotedMarks,
    known: &HashMap<(RecordKind, Namespace), RowMark>,
    forced: Option<Uuid>,
) {
    if let Some(log) = forced.filter(|log| *log != noted.log) {
        noted.log = log;
        noted.tables.clear();
    }
    noted.metastore = None;
    for (key, marks) in &mut noted.tables {
        let table = known.get(key).copied().unwrap_or_default();
        marks.committed = RowMark::min(marks.committed, table);
    }
}

impl MetastoreReport {
    fn of(found: &RecoveredCatalog, holder: Option<(Uuid, u64)>, dry_run: bool) -> Self {
        let mut tables: Vec<TableAnswer> = found.names.tables.iter().map(TableAnswer::of).collect();
        tables.sort_by(|a, b| (&a.ns, &a.table, a.is).cmp(&(&b.ns, &b.table, b.is)));
        let note = |note: &RecoveryNote| NoteAnswer {
            location: note.location.clone(),
            text: note.text.clone(),
        };
        Self {
            dry_run,
            namespaces: found.names.namespaces.len(),
            tables,
            log: holder.map(|(log, _)| log),
            log_is_here: false,
            rows_in_log: 0,
            names_listed_ms: found.listed_ms,
            notes: found.notes.iter().map(note).collect(),
            lost: LOST,
        }
    }

    /// As text, a line each.
    #[must_use]
    pub fn text(&self) -> String {
        let done = if self.dry_run { "would come back" } else { "came back" };
        let mut lines = vec![format!(
            "{} namespaces, {} tables and views {done}",
            self.namespaces,
            self.tables.len()
        )];
        for TableAnswer { ns, table, is, last_seq, .. } in &self.tables {
            let through = last_seq.map_or_else(String::new, |seq| format!(", through seq {seq}"));
            lines.push(format!("  {is} {}.{table}{through}", ns.join(".")));
        }
        if 0 < self.rows_in_log {
            let rows = self.rows_in_log;
            lines
                .push(format!("{rows} rows of the log are in no table: the next start lands them"));
        }
        if let Some(log) = self.log.filter(|_| !self.log_is_here) {
            lines.push(format!(
                "the tables have rows of the log {log}, which is not in this data folder: start the server \
                 that has it, or, if it is lost, start this one (after `icecore wal take-over` where the \
                 metastore lies elsewhere)"
            ));
        }
        if self.names_listed_ms.is_none() {
            lines.push("the warehouse has no list of names: names are derived".to_owned());
        }
        if !self.notes.is_empty() {
            lines.push("to look at:".to_owned());
            lines.extend(
                self.notes
                    .iter()
                    .map(|NoteAnswer { location, text }| format!("  `{location}` {text}")),
            );
        }
        lines
            .push(format!("no warehouse has, so these do not come back: {}", self.lost.join("; ")));
        if self.dry_run {
            lines.push("nothing was changed".to_owned());
        }
        lines.join("\n")
    }
}

impl TableAnswer {
    fn of(table: &RecoveredTable) -> Self {
        let new = &table.returning.table;
        let is = match (new.kind, &table.returning.dropped) {
            (NameKind::Table, None) => "table",
            (NameKind::Table, Some(_)) => "dropped",
            (NameKind::View, _) => "view",
        };
        Self {
            ns: new.levels.clone(),
            table: new.name.clone(),
            is,
            metadata_location: new.metadata_location.clone(),
            last_seq: table.last_seq,
        }
    }
}

#[cfg(test)]
mod tests;
