//! What is known of each namespace besides its ids: counters, types, and who owns which catalog
//! name.
//!
//! Kept in memory; a copy is written with each file of the id index, and the log has what is newer.
//! Counters only grow, so no `seq` is given twice.

use crate::ingest::dedup::run::FreezeSpan;
use icecore_lake::wal::WalError;
use icecore_schemas::{
    names::Namespace,
    service_table::{RecordKind, known_tables},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
};
use tracing::{debug, warn};
use uuid::Uuid;

const FILE: &str = "namespaces.json";
/// How the next one is called until it is whole.
const NEXT: &str = "next";
/// What is kept for the next ledger; one of a few hundred namespaces fits.
const ROOM_BYTES: u64 = 64 << 10;
/// How the last acknowledged `seq` is called beside the numbers of the tables.
const ACKNOWLEDGED: &str = "acknowledged";

/// One namespace's counters and types.
#[derive(Debug, Default)]
pub(super) struct NamespaceCounters {
    /// Highest number given to a row, by table; what is missing is at `start`.
    numbers: BTreeMap<RecordKind, u64>,
    /// What every counter begins with.
    start: u64,
    /// Highest `seq` that was made durable. In a ledger of an earlier version a group that failed has
    /// used its numbers up, too.
    acknowledged: u64,
    /// Types of its events.
    pub(super) types: HashSet<String>,
}

#[derive(Debug, Default)]
pub(super) struct NamespaceLedger {
    entries: HashMap<Namespace, NamespaceCounters>,
    owners: HashMap<String, Namespace>,
    /// Files of the id index when the ledger was written, and when the last id of each arrived.
    files: Vec<(FreezeSpan, i64)>,
    /// Whether there was no file to open.
    is_new: bool,
    /// The log whose ids these are; none in what earlier versions wrote.
    log: Option<Uuid>,
    /// The age of ids when it was written, ms since 1970; 0 where that is not known.
    age_ms: i64,
    /// What every counter begins with.
    seq_after: u64,
}

/// A ledger as its file has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedLedger {
    namespaces: Vec<SavedEntry>,
    /// Missing in what earlier versions wrote.
    #[serde(default)]
    files: Vec<SavedFile>,
    #[serde(default)]
    log: Option<Uuid>,
    #[serde(default)]
    age_ms: i64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedFile {
    low: u64,
    high: u64,
    last_ms: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedEntry {
    namespace: String,
    #[serde(flatten)]
    numbers: BTreeMap<String, u64>,
    types: BTreeSet<String>,
}

impl NamespaceCounters {
    /// Highest number given to a row of this kind.
    pub(super) fn last(&self, kind: RecordKind) -> u64 {
        self.numbers.get(&kind.counted_as()).copied().unwrap_or(self.start)
    }

    /// Gives so many new rows their numbers: the first one.
    pub(super) fn give(&mut self, kind: RecordKind, rows: usize) -> u64 {
        let last = self.last_mut(kind);
        let first = *last + 1;
        *last += rows as u64;
        first
    }

    /// Takes numbers back: this one, and those that were given after it.
    pub(super) fn take_back(&mut self, kind: RecordKind, first: u64) {
        let last = self.last_mut(kind);
        *last = (*last).min(first - 1);
    }

    fn last_mut(&mut self, kind: RecordKind) -> &mut u64 {
        self.numbers.entry(kind.counted_as()).or_insert(self.start)
    }
}

impl NamespaceLedger {
    /// The ledger of the last [`SavedLedger::write`]; empty when there was none.
    pub(super) fn open(folder: &Path) -> Result<Self, WalError> {
        keep_room(folder);
        let path = folder.join(FILE);
        let failed =
            |source| WalError::Io { operation: "read namespaces", path: path.clone(), source };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { is_new: true, ..Self::default() });
            }
            Err(cause) => return Err(failed(cause)),
        };
        let saved: SavedLedger = match serde_json::from_slice(&bytes) {
            Ok(saved) => saved,
            Err(error) => {
                warn!(path = %path.display(), %error, "the ledger of the ids is damaged, and counts as lost");
                return Ok(Self { is_new: true, ..Self::default() });
            }
        };
        let mut ledger = Self { log: saved.log, age_ms: saved.age_ms, ..Self::default() };
        for SavedFile { low, high, last_ms } in saved.files {
            ledger.files.push((FreezeSpan { low, high }, last_ms));
        }
        for saved in saved.namespaces {
            let namespace = Namespace::parse(&saved.namespace)
                .map_err(|cause| failed(io::Error::new(io::ErrorKind::InvalidData, cause)))?;
            if let Ok(entry) = ledger.claim(&namespace) {
                for table in known_tables() {
                    if let Some(last) = saved.numbers.get(table.name) {
                        *entry.last_mut(table.kind) = *last;
                    }
                }
                entry.acknowledged = saved.numbers.get(ACKNOWLEDGED).copied().unwrap_or(0);
                entry.types = saved.types.into_iter().collect();
            }
        }
        Ok(ledger)
    }

    /// Whether nothing was ever written, or what was written is lost.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// The log whose ids these are, where that is known.
    pub(super) fn log(&self) -> Option<Uuid> {
        self.log
    }

    /// The age of ids when the ledger was written; 0 where that is not known.
    pub(super) fn age_ms(&self) -> i64 {
        self.age_ms
    }

    /// From now on these are the ids of `log`.
    pub(super) fn set_log(&mut self, log: Option<Uuid>) {
        self.log = log.or(self.log);
    }

    /// Files that the id index had, and when the last id of each arrived.
    pub(super) fn files(&self) -> &[(FreezeSpan, i64)] {
        &self.files
    }

    /// The namespace's entry, made when this is its first use.
    ///
    /// # Errors
    /// The namespace that owns the catalog name.
    pub(super) fn claim(
        &mut self,
        namespace: &Namespace,
    ) -> Result<&mut NamespaceCounters, Namespace> {
        if !self.entries.contains_key(namespace) {
            if let Some(owner) = self.owners.get(namespace.name()) {
                return Err(owner.clone());
            }
            self.owners.insert(namespace.name().to_owned(), namespace.clone());
        }
        let start = self.seq_after;
        let new = || NamespaceCounters { start, ..NamespaceCounters::default() };
        Ok(self.entries.entry(namespace.clone()).or_insert_with(new))
    }

    /// Begins every counter above `last`, also those of namespaces that are not there yet.
    pub(super) fn start_after(&mut self, last: u64) {
        self.seq_after = last;
        for entry in self.entries.values_mut() {
            entry.start = last.max(entry.start);
            entry.numbers.values_mut().for_each(|number| *number = last.max(*number));
        }
    }

    /// Gives up a claim that nothing came of.
    pub(super) fn release(&mut self, namespace: &Namespace) {
        if self.entries.remove(namespace).is_some() {
            self.owners.remove(namespace.name());
        }
    }

    pub(super) fn has(&self, namespace: &Namespace) -> bool {
        self.entries.contains_key(namespace)
    }

    /// The entry of a namespace that was claimed.
    pub(super) fn entry(&mut self, namespace: &Namespace) -> &mut NamespaceCounters {
        self.entries.get_mut(namespace).expect("the namespace was claimed before")
    }

    /// Raises a counter: the row `last` is in the log or in a table.
    pub(super) fn raise(&mut self, kind: RecordKind, namespace: &Namespace, last: u64) {
        if let Ok(entry) = self.claim(namespace) {
            let counter = entry.last_mut(kind);
            *counter = last.max(*counter);
            if kind.counted_as() == RecordKind::Events {
                entry.acknowledged = last.max(entry.acknowledged);
            }
        }
    }

    /// Notes that events up to `last` are durable.
    pub(super) fn acknowledge(&mut self, namespace: &Namespace, last: u64) {
        let entry = self.entry(namespace);
        entry.acknowledged = last.max(entry.acknowledged);
    }

    /// Highest `seq` of each namespace's events that was made durable; nothing of what earlier
    /// versions wrote.
    pub(super) fn acknowledged(&self) -> HashMap<Namespace, u64> {
        let last = |entry: &NamespaceCounters| entry.acknowledged;
        self.entries.iter().map(|(namespace, entry)| (namespace.clone(), last(entry))).collect()
    }

    /// Highest `seq` of each namespace's events.
    pub(super) fn event_counters(&self) -> HashMap<Namespace, u64> {
        let counters = self.entries.iter();
        let events = |entry: &NamespaceCounters| entry.last(RecordKind::Events);
        counters.map(|(namespace, entry)| (namespace.clone(), events(entry))).collect()
    }

    /// A copy to be written later.
    pub(super) fn save(&self) -> SavedLedger {
        let mut namespaces: Vec<_> = self
            .entries
            .iter()
            .map(|(namespace, entry)| SavedEntry {
                namespace: namespace.text().to_owned(),
                numbers: known_tables()
                    .map(|table| (table.name.to_owned(), entry.last(table.kind)))
                    .chain([(ACKNOWLEDGED.to_owned(), entry.acknowledged)])
                    .collect(),
                types: entry.types.iter().cloned().collect(),
            })
            .collect();
        namespaces.sort_by(|a, b| a.namespace.cmp(&b.namespace));
        SavedLedger { namespaces, files: Vec::new(), log: self.log, age_ms: self.age_ms }
    }
}

impl SavedLedger {
    /// The age of ids that it notes.
    pub(super) fn age_ms(&self) -> i64 {
        self.age_ms
    }

    /// Notes the age of ids, which never falls back.
    pub(super) fn set_age(&mut self, age_ms: i64) {
        self.age_ms = age_ms.max(self.age_ms);
    }

    /// Notes the files of the id index, so that a lost one is missed.
    pub(super) fn set_files(&mut self, files: impl Iterator<Item = (FreezeSpan, i64)>) {
        let saved = |(span, last_ms): (FreezeSpan, i64)| SavedFile {
            low: span.low,
            high: span.high,
            last_ms,
        };
        self.files = files.map(saved).collect();
    }

    /// Returns when the file is on disk, whole.
    pub(super) fn write(&self, folder: &Path) -> Result<(), WalError> {
        let path = folder.join(FILE);
        self.write_to(folder, &path).map_err(|source| WalError::Io {
            operation: "write namespaces",
            path,
            source,
        })
    }

    fn write_to(&self, folder: &Path, path: &Path) -> io::Result<()> {
        let unfinished = path.with_extension(NEXT);
        let bytes = serde_json::to_vec(self)?;
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(false).open(&unfinished)?;
        file.write_all(&bytes)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(folder)?.sync_all()?;
        keep_room(folder);
        Ok(())
    }
}

/// Keeps room for the next ledger, which is written over it: on a full disk the log gets none from
/// what was moved to tables until a ledger says which ids are in files.
fn keep_room(folder: &Path) {
    let path = folder.join(FILE).with_extension(NEXT);
    if fs::metadata(&path).is_ok_and(|file| ROOM_BYTES <= file.len()) {
        return;
    }
    let kept = fs::create_dir_all(folder)
        .and_then(|()| File::create(&path))
        .and_then(|mut file| file.write_all(&[0; ROOM_BYTES as usize]));
    if let Err(error) = kept {
        debug!(path = %path.display(), %error, "no room is kept for a ledger");
    }
}
