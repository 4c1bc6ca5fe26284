//! Ids that the index lacks: from the tables' rows and from the log.
//!
//! The index was lost, or it is older than the tables and the log. Ids that a file still holds are
//! left alone, so a rebuild that was cut short goes on where it stopped. Its one invariant: the
//! ledger names the rebuilt files only when all of them are on disk, and until then the next start
//! rebuilds again.

use crate::ingest::{
    IngestOptions,
    age::IdClock,
    dedup::{IdIndex, IndexOptions, SeenId, UNKNOWN_CONTENT, run::ArrivalTimes},
    keys,
    ledger::NamespaceLedger,
    recover::{self, FRESH_MAX, window_ms},
};
use arrow::array::{Array, AsArray, StringArray};
use icecore_lake::{
    clock::Clock,
    event::{codec, rows, stored_key},
    wal::{
        RecordRef, Wal, WalError,
        ranges::{self, SeqInterval},
    },
};
use icecore_schemas::{names::Namespace, service_table::RecordKind};
use std::{collections::HashMap, fs, io, path::PathBuf};
use tracing::warn;

/// A rebuild that has begun.
#[derive(Debug)]
pub struct IndexRebuild {
    index: IdIndex,
    ledger: NamespaceLedger,
    folder: PathBuf,
    age: IdClock,
    since_ms: i64,
    lacks: MissingIds,
    /// How far the tables of events are.
    floors: Vec<(Namespace, u64)>,
    /// When the ids in memory arrived.
    times: Option<ArrivalTimes>,
    found: u64,
}

/// Which ids the index lacks.
#[derive(Debug, PartialEq, Eq)]
enum MissingIds {
    /// All of them, as far as is known.
    All,
    /// Those of these rows.
    Rows(HashMap<Namespace, Vec<SeqInterval>>),
}

impl MissingIds {
    fn has(&self, namespace: &Namespace, seq: u64) -> bool {
        let within = |(first, last): &SeqInterval| (*first..=*last).contains(&seq);
        match self {
            Self::All => true,
            Self::Rows(rows) => rows.get(namespace).is_some_and(|rows| rows.iter().any(within)),
        }
    }
}

impl IndexRebuild {
    /// None when the id index is whole; otherwise a rebuild that has the ids of the log already.
    /// Blocking.
    ///
    /// # Errors
    /// A damaged index file, or a log that does not read.
    pub fn start(
        options: &IngestOptions,
        wal: &Wal,
        clock: &Clock,
    ) -> Result<Option<Self>, WalError> {
        Self::start_with(options, wal, clock, FRESH_MAX)
    }

    /// The same with `ids_max` ids in memory.
    pub(super) fn start_with(
        options: &IngestOptions,
        wal: &Wal,
        clock: &Clock,
        ids_max: usize,
    ) -> Result<Option<Self>, WalError> {
        let folder = options.dedup_folder.clone();
        let window_ms = window_ms(options.dedup_window);
        let open = || {
            let folder = folder.clone();
            let index = IndexOptions { folder, window_ms, fresh_max: ids_max };
            recover::open(index, options, clock)
        };
        let (mut index, mut ledger, mut age) = open()?;
        if ledger.log().is_some_and(|log| !options.logs.is_empty() && !options.logs.contains(&log))
        {
            warn!(folder = %folder.display(), "the id index is another server's, and is removed");
            drop(index);
            remove(&folder)?;
            (index, ledger, age) = open()?;
        }
        let since_ms = age.now_ms().saturating_sub(window_ms);
        let _pin = wal.pin();
        let records = wal.all_records(0);
        let Some(lacks) = lacks(options, &index, &ledger, records.as_slice(), since_ms) else {
            return Ok(None);
        };
        ledger.set_log(options.logs.first().copied());
        let floors = options.seq_floor.iter().filter(|((kind, _), _)| *kind == RecordKind::Events);
        let floors = floors.map(|((_, namespace), floor)| (namespace.clone(), *floor)).collect();
        let mut rebuild =
            Self { index, ledger, folder, age, since_ms, lacks, floors, times: None, found: 0 };
        rebuild.add_records(&records)?;
        Ok(Some(rebuild))
    }

    fn add_records(&mut self, records: &[RecordRef]) -> Result<(), WalError> {
        // What the log's own records of ids have is better: they know the content as well.
        for record in records.iter().filter(|record| record.kind == RecordKind::Keys) {
            let damaged = || damaged(record, recover::OTHER_VERSION.to_owned());
            let keys = keys::decode(&record.read()?, record.rows).ok_or_else(damaged)?;
            for (seq, key) in (record.first_seq..).zip(keys.keys) {
                let seen = SeenId { content: key.content, seq };
                self.insert(key.id, seen, record.durable_ms)?;
            }
            keys.types.iter().for_each(|text| self.add_type(&record.namespace, text));
        }
        for record in records.iter().filter(|record| record.kind == RecordKind::Events) {
            let seqs = record.first_seq..record.first_seq + u64::from(record.rows);
            self.covered(&record.namespace, seqs.end - 1);
            if !seqs.clone().any(|seq| self.lacks.has(&record.namespace, seq)) {
                continue;
            }
            let payload = record.read()?;
            let damaged = |reason| damaged(record, reason);
            let rows = codec::decode(&rows::known_event_schema(), &payload, record.first_seq)
                .map_err(|cause| damaged(format!("a record does not decode: {cause}")))?;
            let ids = rows.column_by_name("id").and_then(|ids| ids.as_string_opt::<i32>());
            let ids = ids.ok_or_else(|| damaged("a record has no ids".to_owned()))?;
            let texts = |name: &str| {
                rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>())
            };
            let (sources, payloads) = (texts("source"), texts("payload"));
            for (row, (seq, id)) in seqs.zip(ids.iter().flatten()).enumerate() {
                let text = |column: Option<&'_ StringArray>| {
                    column.filter(|column| column.is_valid(row)).map(|it| it.value(row).to_owned())
                };
                let (source, payload) = (text(sources), text(payloads));
                let key = stored_key(&record.namespace, id, source.as_deref(), payload.as_deref());
                self.add(&record.namespace, key, seq, record.durable_ms)?;
            }
        }
        Ok(())
    }

    /// Ids that arrived before this time, in ms since 1970, are out of the window.
    #[must_use]
    pub fn since_ms(&self) -> i64 {
        self.since_ms
    }

    /// The lowest `seq` of a namespace's rows whose ids are lacking; none when all are there.
    #[must_use]
    pub fn lowest_seq(&self, namespace: &Namespace) -> Option<u64> {
        match &self.lacks {
            MissingIds::All => Some(0),
            MissingIds::Rows(rows) => rows.get(namespace)?.first().map(|(first, _)| *first),
        }
    }

    /// Adds the key ([`stored_key`]) of an event that a table has, unless it is known or out of the
    /// window. Blocking.
    ///
    /// # Errors
    /// The index cannot be read or written.
    pub fn add(
        &mut self,
        namespace: &Namespace,
        key: u128,
        seq: u64,
        arrived_ms: i64,
    ) -> Result<(), WalError> {
        if !self.lacks.has(namespace, seq) {
            return Ok(());
        }
        self.covered(namespace, seq);
        self.insert(key, SeenId { content: UNKNOWN_CONTENT, seq }, arrived_ms)
    }

    /// Everything up to `seq` is in the index once this rebuild is finished.
    fn covered(&mut self, namespace: &Namespace, seq: u64) {
        self.ledger.raise(RecordKind::Events, namespace, seq);
    }

    fn insert(&mut self, key: u128, seen: SeenId, arrived_ms: i64) -> Result<(), WalError> {
        if arrived_ms < self.since_ms || self.index.get(key)?.is_some() {
            return Ok(());
        }
        self.index.insert(key, seen);
        self.found += 1;
        let times = self.times.get_or_insert(ArrivalTimes { first: arrived_ms, last: arrived_ms });
        times.first = times.first.min(arrived_ms);
        times.last = times.last.max(arrived_ms);
        if self.index.is_full() { self.write() } else { Ok(()) }
    }

    /// Adds a type that a namespace's events have.
    pub fn add_type(&mut self, namespace: &Namespace, text: &str) {
        // Without a claim the name belongs to another spelling, which owns the table too.
        if let Ok(entry) = self.ledger.claim(namespace) {
            entry.types.insert(text.to_owned());
        }
    }

    fn write(&mut self) -> Result<(), WalError> {
        match self.times.take() {
            Some(times) => self.index.write_fresh(times),
            None => Ok(()),
        }
    }

    /// Returns when the index is whole on disk; how many ids were found.
    ///
    /// # Errors
    /// It cannot be written; the next start tries again.
    pub fn finish(mut self) -> Result<u64, WalError> {
        self.write()?;
        for (namespace, floor) in std::mem::take(&mut self.floors) {
            self.covered(&namespace, floor);
        }
        let mut saved = self.ledger.save();
        saved.set_files(self.index.files());
        saved.set_age(self.age.now_ms());
        saved.write(&self.folder)?;
        Ok(self.found)
    }
}

/// None when the index lacks nothing.
fn lacks(
    options: &IngestOptions,
    index: &IdIndex,
    ledger: &NamespaceLedger,
    records: &[RecordRef],
    since_ms: i64,
) -> Option<MissingIds> {
    let has_events = records.iter().any(|record| record.kind == RecordKind::Events);
    let has_rows = has_events || options.seq_floor.values().any(|last| 0 < *last);
    let is_missing = |(span, last_ms): &(_, i64)| since_ms <= *last_ms && !index.has_file(*span);
    if (ledger.is_new() && has_rows) || ledger.files().iter().any(is_missing) {
        warn!(
            folder = %options.dedup_folder.display(),
            "the id index is lost or lacks a file: ids are read from the log and the tables"
        );
        return Some(MissingIds::All);
    }
    let rows = uncovered(options, ledger, records);
    if rows.is_empty() {
        return None;
    }
    for (namespace, ranges) in &rows {
        let (first, last) = (ranges[0].0, ranges[ranges.len() - 1].1);
        warn!(
            %namespace, first, last,
            "the id index and the log's ids end before the rows that the table and the log have: \
             the ids of these rows are read from there"
        );
    }
    Some(MissingIds::Rows(rows))
}

/// Rows of tables and log whose ids neither the ledger's files nor the log's records of ids cover.
fn uncovered(
    options: &IngestOptions,
    ledger: &NamespaceLedger,
    records: &[RecordRef],
) -> HashMap<Namespace, Vec<SeqInterval>> {
    let mut covered: HashMap<&Namespace, Vec<SeqInterval>> = HashMap::new();
    let mut wanted: HashMap<&Namespace, Vec<SeqInterval>> = HashMap::new();
    for ((kind, namespace), floor) in &options.seq_floor {
        if *kind == RecordKind::Events {
            wanted.entry(namespace).or_default().push((1, *floor));
        }
    }
    for record in records.iter().filter(|record| 0 < record.rows) {
        let range = (record.first_seq, record.first_seq + u64::from(record.rows) - 1);
        // Of rows with a `seq` each has an id.
        let ranges = match (record.kind.is_rows(), record.kind.has_seq()) {
            (false, _) => &mut covered,
            (true, true) => &mut wanted,
            (true, false) => continue,
        };
        ranges.entry(&record.namespace).or_default().push(range);
    }
    let counters = ledger.event_counters();
    let mut rows = HashMap::new();
    for (namespace, wanted) in wanted {
        let mut covered = covered.remove(namespace).unwrap_or_default();
        covered.push((0, counters.get(namespace).copied().unwrap_or(0)));
        let last = wanted.iter().map(|(_, last)| *last).max().unwrap_or(0);
        // What nobody wants is as good as covered: numbers between two logs are no rows.
        let mut left = ranges::without((1, last), &covered);
        let others = ranges::without((1, last), &wanted);
        left = left.into_iter().flat_map(|range| ranges::without(range, &others)).collect();
        if !left.is_empty() {
            rows.insert(namespace.clone(), left);
        }
    }
    rows
}

fn damaged(record: &RecordRef, reason: String) -> WalError {
    WalError::Damaged { path: record.path.to_path_buf(), offset: record.offset, reason }
}

fn remove(folder: &PathBuf) -> Result<(), WalError> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(WalError::Io { operation: "remove", path: folder.clone(), source })
        }
        _ => Ok(()),
    }
}
