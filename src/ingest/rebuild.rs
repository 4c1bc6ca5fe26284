//! The id index after it was lost: from the tables' rows and from the log.
//!
//! Ids that a file still holds are left alone, so a rebuild that was cut short goes on where it
//! stopped. Its one invariant: the ledger names the rebuilt files only when all of them are on disk,
//! and until then the next start rebuilds again.

use crate::{
    clock::Clock,
    event::{codec, rows, stored_key},
    ingest::{
        IngestOptions,
        dedup::{IdIndex, IndexOptions, Seen, UNKNOWN_CONTENT, run::Times},
        ledger::Ledger,
        recover::{FRESH_MAX, window_ms},
    },
    wal::{RecordKind, Wal, WalError},
};
use arrow::array::{Array, AsArray, StringArray};
use icecore_schemas::names::Namespace;
use std::path::PathBuf;

/// A rebuild that has begun.
#[derive(Debug)]
pub struct Rebuild {
    index: IdIndex,
    ledger: Ledger,
    folder: PathBuf,
    since_ms: i64,
    /// When the ids in memory arrived.
    times: Option<Times>,
    found: u64,
}

impl Rebuild {
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
        let (folder, now_ms) = (options.dedup_folder.clone(), clock.now_ms());
        let window_ms = window_ms(options.dedup_window);
        let index = IndexOptions { folder: folder.clone(), window_ms, fresh_max: ids_max };
        let index = IdIndex::open(index, now_ms)?;
        let ledger = Ledger::open(&folder)?;
        let since_ms = now_ms.saturating_sub(window_ms);
        let _pin = wal.pin();
        let mut records = wal.all_records(0);
        records.retain(|record| record.kind == RecordKind::Events);
        let has_rows = !records.is_empty() || options.seq_floor.values().any(|last| 0 < *last);
        let is_missing =
            |(span, last_ms): &(_, i64)| since_ms <= *last_ms && !index.has_file(*span);
        let is_lost = (ledger.is_new() && has_rows) || ledger.files().iter().any(is_missing);
        if !is_lost {
            return Ok(None);
        }
        tracing::warn!(
            folder = %folder.display(),
            "the id index is lost or lacks a file: ids are read from the log and the tables"
        );
        let mut rebuild = Self { index, ledger, folder, since_ms, times: None, found: 0 };
        for record in records {
            let payload = record.read()?;
            let damaged = |reason: String| WalError::Damaged {
                path: record.path.to_path_buf(),
                offset: record.offset,
                reason,
            };
            let rows = codec::decode(&rows::event_schema(), &payload, record.first_seq)
                .map_err(|cause| damaged(format!("a record does not decode: {cause}")))?;
            let ids = rows.column_by_name("id").and_then(|ids| ids.as_string_opt::<i32>());
            let ids = ids.ok_or_else(|| damaged("a record has no ids".to_owned()))?;
            let texts = |name: &str| {
                rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>())
            };
            let (sources, payloads) = (texts("source"), texts("payload"));
            for (row, id) in ids.iter().flatten().enumerate() {
                let text = |column: Option<&'_ StringArray>| {
                    column.filter(|column| column.is_valid(row)).map(|it| it.value(row).to_owned())
                };
                let (source, payload) = (text(sources), text(payloads));
                let key = stored_key(&record.namespace, id, source.as_deref(), payload.as_deref());
                rebuild.add(key, record.first_seq + row as u64, record.durable_ms)?;
            }
        }
        Ok(Some(rebuild))
    }

    /// Ids that arrived before this time, in ms since 1970, are out of the window.
    #[must_use]
    pub fn since_ms(&self) -> i64 {
        self.since_ms
    }

    /// Adds the key ([`stored_key`]) of an event that a table has, unless it is known or out of the
    /// window. Blocking.
    ///
    /// # Errors
    /// The index cannot be read or written.
    pub fn add(&mut self, key: u128, seq: u64, arrived_ms: i64) -> Result<(), WalError> {
        if arrived_ms < self.since_ms || self.index.get(key)?.is_some() {
            return Ok(());
        }
        self.index.insert(key, Seen { content: UNKNOWN_CONTENT, seq });
        self.found += 1;
        let times = self.times.get_or_insert(Times { first: arrived_ms, last: arrived_ms });
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
        let mut saved = self.ledger.save();
        saved.set_files(self.index.files());
        saved.write(&self.folder)?;
        Ok(self.found)
    }
}
