//! The stores of this server held against one another: metastore, log, and what was noted of both.
//!
//! Each is believed of what it holds, none of what it does not hold: that could be a copy from
//! before. Its one invariant: a row that was acknowledged is in a table, in the log, given up by an
//! operator, or named here.

use crate::{
    config::{Config, MetastoreUrl},
    ingest,
    owner::LogOwner,
    server::{StartError, claim::marks_path, moved},
};
use icecore_catalog::{
    catalog::Catalog,
    error::CatalogError,
    metastore::{Metastore, NamespaceMarks},
};
use icecore_lake::wal::{
    LogPosition, RecordRef, WalError,
    marks::{MetastoreMark, NotedMarks, RowMark, TableMarks},
    ranges::{self, SeqInterval},
};
use icecore_schemas::{
    names::Namespace,
    service_table::{RecordKind, known_tables},
};
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};
use tracing::warn;
use uuid::Uuid;

/// What a server that takes no events because of this says it is about.
pub(super) const TOPIC: &str = "stores";
/// Most ranges, and most files, that a message names.
const NAMED_MAX: usize = 20;
/// Longest that newer metadata files are looked for.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// What the catalog knows of the namespaces whose events it has.
#[derive(Debug, Default)]
pub(super) struct CatalogState {
    pub(super) namespaces: Vec<Namespace>,
    /// The last row that each table has. A position of another log than the owner's is 0.
    pub(super) tables: HashMap<(RecordKind, Namespace), RowMark>,
    pub(super) metastore: MetastoreMark,
    /// Whether nobody ever made anything in it.
    pub(super) is_new: bool,
}

impl CatalogState {
    /// As far as it is of the server that has or had these logs: the tables of another one's have that
    /// one's rows, which say nothing of this one's.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub(super) async fn of_server(
        metastore: &Metastore,
        owner: Option<&LogOwner>,
        logs: [Uuid; 2],
    ) -> Result<Self, CatalogError> {
        let mut known = Self::ask(metastore, owner.map_or(0, |owner| owner.since)).await?;
        if owner.is_some_and(|owner| !logs.contains(&owner.log)) {
            known.tables.clear();
        }
        Ok(known)
    }

    /// Asks the metastore; `since` is the first epoch of the owner.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub(super) async fn ask(metastore: &Metastore, since: u64) -> Result<Self, CatalogError> {
        let feed = metastore.feed().await?;
        let mut known = Self {
            metastore: MetastoreMark { id: feed.id, last: feed.last },
            is_new: feed.last == 0,
            ..Self::default()
        };
        for NamespaceMarks { levels, properties, tables } in metastore.marks().await? {
            let Some(namespace) = Namespace::from_properties(&levels, &properties) else {
                continue; // A namespace that another engine made.
            };
            for (table, held) in tables {
                let Some(ours) = known_tables().find(|ours| ours.name == table) else { continue };
                let position = if held.epoch < since { 0 } else { held.position };
                let mark = RowMark { seq: held.last_seq, position };
                known.tables.insert((ours.kind, namespace.clone()), mark);
            }
            known.namespaces.push(namespace);
        }
        Ok(known)
    }
}

/// Rows that were acknowledged and are nowhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MissingRows {
    /// Their namespace.
    pub namespace: Namespace,
    /// Of which of its tables.
    pub kind: RecordKind,
    /// The lowest `seq` of them (of dead letters, the number).
    pub first: u64,
    /// The highest.
    pub last: u64,
}

/// What is wrong with the metastore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetastoreTrouble {
    /// It is a copy from before.
    Older {
        /// How many changes it has seen.
        has: u64,
        /// How many this server knew of.
        had: u64,
    },
    /// It is another one: made anew, or another server's.
    Other,
    /// It knows nothing yet, and the warehouse has tables.
    Empty,
}

/// What is wrong with the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTrouble {
    /// The folder has no record, and another log was there.
    Lost(Uuid),
    /// The folder has the records of another log.
    Foreign(Uuid),
}

/// In what the stores disagree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreFindings {
    /// In order.
    pub missing: Vec<MissingRows>,
    /// What is wrong with the metastore, if anything is.
    pub metastore: Option<MetastoreTrouble>,
    /// What is wrong with the log, if anything is.
    pub log: Option<LogTrouble>,
}

/// What there is to compare.
pub(super) struct StoreComparison<'a> {
    pub(super) noted: &'a NotedMarks,
    pub(super) known: &'a CatalogState,
    /// The log in the folder, and its records.
    pub(super) log: Uuid,
    pub(super) records: &'a [RecordRef],
    /// No row has this `seq` or a lower one but those that the tables have.
    pub(super) seq_after: u64,
    /// The highest `seq` of each namespace's events by the ledger of the ids: what is left to go by
    /// where nothing was noted, or what was noted is a copy from before.
    pub(super) ledger: HashMap<Namespace, u64>,
}

impl StoreComparison<'_> {
    /// Holds them against one another.
    pub(super) fn compare(&self) -> StoreFindings {
        let is_noted = !self.noted.log.is_nil();
        let is_other_log = is_noted && self.noted.log != self.log;
        let log = is_other_log.then_some(match self.records.is_empty() {
            true => LogTrouble::Lost(self.noted.log),
            false => LogTrouble::Foreign(self.noted.log),
        });
        let metastore = self.noted.metastore.and_then(|had| {
            let MetastoreMark { id, last: has } = self.known.metastore;
            if id != had.id {
                return Some(MetastoreTrouble::Other);
            }
            (has < had.last).then_some(MetastoreTrouble::Older { has, had: had.last })
        });
        // Records of another log are none of these rows.
        let records: &[RecordRef] = if is_other_log { &[] } else { self.records };
        let held = LogContents::of(records);
        let mut missing = Vec::new();
        for (key, marks) in &self.noted.tables {
            let base = self.base(key, marks, metastore.is_some());
            missing.extend(held.missing(key, base, marks.acknowledged));
        }
        if !is_other_log {
            missing.extend(self.missing_of_ledger(&held, metastore.is_some()));
        }
        missing.sort();
        StoreFindings { missing, metastore, log }
    }

    /// The last row that is in the table, or need not be anywhere.
    fn base(&self, key: &(RecordKind, Namespace), marks: &TableMarks, is_behind: bool) -> RowMark {
        let table = self.known.tables.get(key).copied().unwrap_or_default();
        let noted = if is_behind { RowMark::default() } else { marks.committed };
        let seq = table.seq.max(noted.seq).max(marks.accepted).max(self.seq_after);
        RowMark { seq, position: table.position.max(noted.position) }
    }

    /// By the ledger, which knows no positions: rows that neither table nor log reach.
    fn missing_of_ledger(&self, held: &LogContents, is_behind: bool) -> Vec<MissingRows> {
        let mut missing = Vec::new();
        for (namespace, given) in &self.ledger {
            let key = (RecordKind::Events, namespace.clone());
            let marks = self.noted.tables.get(&key).copied().unwrap_or_default();
            let base = self.base(&key, &marks, is_behind);
            let in_log =
                held.rows.get(&key).and_then(|rows| rows.last()).map_or(0, |row| row.seqs.1);
            // What was noted is looked at row by row.
            let first = base.seq.max(in_log).max(marks.acknowledged.seq) + 1;
            if first <= *given {
                let (namespace, kind) = (namespace.clone(), RecordKind::Events);
                missing.push(MissingRows { namespace, kind, first, last: *given });
            }
        }
        missing
    }
}

/// A record's place and rows.
#[derive(Clone, Copy, Debug)]
struct RecordRange {
    position: LogPosition,
    seqs: SeqInterval,
}

/// What the log holds.
#[derive(Debug, Default)]
struct LogContents {
    positions: BTreeSet<LogPosition>,
    /// In order of their positions.
    rows: HashMap<(RecordKind, Namespace), Vec<RecordRange>>,
}

impl LogContents {
    fn of(records: &[RecordRef]) -> Self {
        let mut held = Self::default();
        for record in records {
            held.positions.insert(record.position);
            if 0 < record.rows {
                let last = record.first_seq + u64::from(record.rows) - 1;
                let row = RecordRange { position: record.position, seqs: (record.first_seq, last) };
                let key = (record.kind, record.namespace.clone());
                held.rows.entry(key).or_default().push(row);
            }
        }
        held
    }

    /// Rows of a table after `base` that were acknowledged and that the log does not have. Numbers
    /// that an earlier version gave to a group which could not be written are none: no position of
    /// the log is missing there.
    fn missing(
        &self,
        (kind, namespace): &(RecordKind, Namespace),
        base: RowMark,
        acknowledged: RowMark,
    ) -> Vec<MissingRows> {
        let missing =
            |(first, last)| MissingRows { namespace: namespace.clone(), kind: *kind, first, last };
        let rows = self.rows.get(&(*kind, namespace.clone())).map_or(&[][..], Vec::as_slice);
        let covered: Vec<SeqInterval> = rows.iter().map(|row| row.seqs).collect();
        let mut found = Vec::new();
        let mut before = base;
        for row in rows.iter().filter(|row| base.position < row.position) {
            if before.seq + 1 < row.seqs.0 && !self.is_dense(before.position, row.position) {
                found.push((before.seq + 1, row.seqs.0 - 1));
            }
            before = RowMark { seq: row.seqs.1.max(before.seq), position: row.position };
        }
        if before.position < acknowledged.position && before.seq < acknowledged.seq {
            found.push((before.seq + 1, acknowledged.seq));
        }
        // Rows that the log has twice over are no loss.
        found.into_iter().flat_map(|range| ranges::without(range, &covered)).map(missing).collect()
    }

    /// Whether the log has every position between two.
    fn is_dense(&self, after: LogPosition, before: LogPosition) -> bool {
        let between = self.positions.range(after + 1..before).count() as u64;
        between == before - after - 1
    }
}

impl StoreFindings {
    /// Whether the stores agree.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.metastore.is_none() && self.log_is_right()
    }

    /// A log without records in place of one whose rows are all in tables is no loss.
    fn log_is_right(&self) -> bool {
        !matches!(self.log, Some(LogTrouble::Foreign(_)))
    }

    /// What is wrong, and what to do.
    pub(super) async fn describe(&self, config: &Config, catalog: Option<&Catalog>) -> String {
        let mut told = Vec::new();
        if let Some(trouble) = self.metastore {
            told.push(describe_metastore(trouble, config));
            let files = match catalog {
                Some(catalog) => newer_files(catalog).await,
                None => Vec::new(),
            };
            if !files.is_empty() {
                told.push(format!(
                    "the warehouse has metadata files that it does not know, or newer ones than it \
                     knows: {}",
                    named(files.into_iter())
                ));
            }
        }
        if !self.missing.is_empty() {
            told.push(format!(
                "acknowledged rows are in no table and in no log: {}",
                named(self.missing.iter().map(describe_missing))
            ));
        }
        told.extend(self.describe_log(config));
        format!(
            "{}. To give up what cannot be restored, stop the server and run, with its settings, \
             `icecore wal accept-loss --all --dry-run` to see it, then `icecore wal accept-loss \
             --ns NAMESPACE --through SEQ` or `--all`; after the next start, events that are sent \
             again are accepted. Until then the server takes no events; queries and the catalog \
             keep working",
            told.join("; ")
        )
    }

    fn describe_log(&self, config: &Config) -> Option<String> {
        let folder = config.data_dir.join("wal");
        let folder = folder.display();
        match self.log {
            Some(LogTrouble::Lost(log)) => Some(format!(
                "the log of this server, {log}, is not in `{folder}`: stop the server and restore \
                 that folder"
            )),
            Some(LogTrouble::Foreign(log)) => Some(format!(
                "`{folder}` has the log of another server: stop this one and restore the folder of \
                 log {log}"
            )),
            None if self.metastore.is_none() && !self.missing.is_empty() => Some(format!(
                "the log in `{folder}` is older than what was acknowledged: stop the server and \
                 restore the newer folder"
            )),
            None => None,
        }
    }
}

fn describe_metastore(trouble: MetastoreTrouble, config: &Config) -> String {
    let place = match &config.metastore {
        MetastoreUrl::Sqlite(path) => format!("the metastore `{}`", path.display()),
        MetastoreUrl::Postgres(_) => "the metastore in PostgreSQL".to_owned(),
    };
    match trouble {
        MetastoreTrouble::Older { has, had } => format!(
            "{place} is older than the data: it has {has} changes, but this server saw {had}; stop \
             the server and restore the newer one"
        ),
        MetastoreTrouble::Empty => format!(
            "{place} is new and has no tables, but the warehouse has some: stop the server and \
             restore the metastore of these tables, rebuild it with `icecore repair metastore`, or use \
             a warehouse of its own"
        ),
        MetastoreTrouble::Other => format!(
            "{place} is not the one that this server used: it was recreated or belongs to another \
             server; stop the server and restore its own, or, if that is lost, rebuild it with `icecore \
             repair metastore`"
        ),
    }
}

/// The metadata files that the metastore should know; none where the warehouse does not answer in
/// time.
pub(super) async fn newer_files(catalog: &Catalog) -> Vec<String> {
    let look = async {
        let tables = catalog.metastore().places().await?;
        catalog.upkeep().newer_metadata(&tables).await
    };
    match tokio::time::timeout(LOOK_MAX, look).await {
        Ok(Ok(files)) => files,
        Ok(Err(cause)) => {
            warn!(
                error = &cause as &dyn std::error::Error,
                "cannot search the warehouse for metadata files"
            );
            Vec::new()
        }
        Err(_) => {
            warn!("the warehouse has too many files to search now");
            Vec::new()
        }
    }
}

/// Refuses a start on tables that lie elsewhere, and says so where the metastore is another one.
///
/// # Errors
/// [`StartError::Moved`], or [`CatalogError::Invalid`] of another metastore.
pub(super) async fn check_places(config: &Config, catalog: &Catalog) -> Result<(), StartError> {
    let metastore = catalog.metastore();
    let Err(cause) = moved::check(metastore, catalog.storage()).await else { return Ok(()) };
    let had = NotedMarks::read(&marks_path(config))?.metastore;
    let id = metastore.feed().await?.id;
    if had.is_none_or(|had| had.id == id) {
        return Err(cause);
    }
    let other = describe_metastore(MetastoreTrouble::Other, config);
    Err(CatalogError::Invalid(format!("{other}; {cause}")).into())
}

/// The highest `seq` of each namespace by the ledger of the ids: the last acknowledged one, or the
/// last one given where nothing was noted.
///
/// # Errors
/// The ledger is there and does not open.
pub(super) fn ledger(
    config: &Config,
    noted: &NotedMarks,
) -> Result<HashMap<Namespace, u64>, WalError> {
    let folder = config.data_dir.join("ids");
    match noted.log.is_nil() {
        true => ingest::given(&folder),
        false => ingest::acknowledged(&folder, noted.log),
    }
}

/// As `namespace shop: seq 3..7`.
pub(super) fn describe_missing(missing: &MissingRows) -> String {
    let MissingRows { namespace, kind, first, last } = missing;
    let what = kind.table().map_or("seq", |table| table.numbers);
    let table = kind.table_name().unwrap_or("?");
    format!("namespace `{namespace}`, table {table}: {what} {first}..{last}")
}

/// The first of many.
pub(super) fn named(all: impl ExactSizeIterator<Item = String>) -> String {
    let count = all.len();
    let mut text = all.take(NAMED_MAX).collect::<Vec<_>>().join(", ");
    if NAMED_MAX < count {
        text.push_str(&format!(" and {} more", count - NAMED_MAX));
    }
    text
}

#[cfg(test)]
mod tests;
