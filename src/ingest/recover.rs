//! From the id folder and the log to where the last run stopped.
//!
//! What the ledger's file covers comes from the id files, the rest from the log's records of ids.
//! Reading a record twice does no harm.

use crate::ingest::{
    IngestOptions,
    admit::DedupState,
    age::IdClock,
    dedup::{IdIndex, IndexOptions, SeenId},
    derivation, keys,
    ledger::{NamespaceLedger, SavedLedger},
    letters,
    sequencer::UnsavedIds,
};
use icecore_lake::{
    clock::Clock,
    event::{codec, rows},
    ids::IdGenerator,
    wal::{LogPosition, RecordRef, Wal, WalError},
};
use icecore_schemas::{names::Namespace, service_table::RecordKind};
use std::{collections::HashMap, time::Duration};
use tracing::warn;

/// Ids in memory that are worth a file: the table's memory doubles just above.
pub(super) const FRESH_MAX: usize = 900_000;

/// What is said of a record of ids that does not decode.
pub(super) const OTHER_VERSION: &str = "a record of ids does not decode; another version wrote it";

/// Where the last run stopped.
pub(super) struct RecoveredState {
    /// Everything that verdicts rest on.
    pub(super) dedup: DedupState,
    /// Which namespaces have ids in the log alone.
    pub(super) unsaved: UnsavedIds,
    /// The ledger as its file has it.
    pub(super) saved: SavedLedger,
    pub(super) age: IdClock,
}

pub(super) fn recover(
    options: &IngestOptions,
    wal: &Wal,
    clock: &Clock,
    ids: IdGenerator,
) -> Result<RecoveredState, WalError> {
    let _pin = wal.pin();
    // The log's own records of ids stand in for the tables' records.
    wal.set_keep_after(LogPosition::MAX);
    let index = IndexOptions {
        folder: options.dedup_folder.clone(),
        window_ms: window_ms(options.dedup_window),
        fresh_max: FRESH_MAX,
    };
    let (index, mut ledger, age) = open(index, options, clock)?;
    ledger.set_log(options.logs.first().copied());
    // It says nothing of what the log has: that is read below.
    let saved = ledger.save();
    if ledger.is_new() && options.takes_events {
        // From now on its absence means that the folder was lost.
        let empty = saved.write(&options.dedup_folder);
        if let Err(cause) = empty {
            warn!(error = &cause as &dyn std::error::Error, "the id folder takes no files");
        }
    }
    let is_empty = ledger.is_new()
        && wal.all_records(0).is_empty()
        && options.seq_floor.values().all(|last| *last == 0);
    let window_ms = window_ms(options.dedup_window);
    let former_until_ms =
        derivation::former_until_ms(&options.dedup_folder, is_empty, clock.now_ms(), window_ms)?;
    let covered = ledger.event_counters();
    let (types_max, tables) = (options.types_max, options.tables.clone());
    let mut dedup = DedupState { index, ledger, types_max, ids, tables, former_until_ms };
    dedup.ledger.start_after(options.seq_after);
    let mut unsaved = UnsavedIds::default();
    let mut stale: HashMap<Namespace, LogPosition> = HashMap::new();
    for record in wal.all_records(0) {
        if record.rows == 0 {
            continue;
        }
        let last = record.first_seq + u64::from(record.rows) - 1;
        dedup.ledger.raise(record.kind, &record.namespace, last);
        if record.kind == RecordKind::DeadLetters {
            replay_letters(&mut dedup, &record)?;
        }
        if record.kind.is_rows() {
            continue;
        }
        if covered.get(&record.namespace).is_some_and(|covered| last <= *covered) {
            stale.insert(record.namespace, record.position);
        } else {
            replay(&mut dedup, &record)?;
            unsaved.namespaces.insert(record.namespace);
        }
    }
    for (namespace, through) in stale {
        wal.trim(RecordKind::Keys, &namespace, through)?;
    }
    for namespace in &options.namespaces {
        dedup.ledger.raise(RecordKind::Events, namespace, 0);
    }
    for ((kind, namespace), floor) in &options.seq_floor {
        dedup.ledger.raise(*kind, namespace, *floor);
    }
    Ok(RecoveredState { dedup, unsaved, saved, age })
}

/// The index, its ledger, and how old ids are.
pub(super) fn open(
    index: IndexOptions,
    options: &IngestOptions,
    clock: &Clock,
) -> Result<(IdIndex, NamespaceLedger, IdClock), WalError> {
    let window_ms = index.window_ms;
    let index = IdIndex::open(index, clock.now_ms())?;
    let ledger = NamespaceLedger::open(&options.dedup_folder)?;
    let last_ms = index.files().map(|(_, last_ms)| last_ms).max().unwrap_or(options.seen_ms);
    let seen_ms = if ledger.age_ms() == 0 { last_ms } else { ledger.age_ms() };
    let age = IdClock::start(clock, seen_ms, window_ms);
    Ok((index, ledger, age))
}

fn replay(dedup: &mut DedupState, record: &RecordRef) -> Result<(), WalError> {
    let payload = record.read()?;
    let keys = keys::decode(&payload, record.rows).ok_or_else(|| WalError::Damaged {
        path: record.path.to_path_buf(),
        offset: record.offset,
        reason: OTHER_VERSION.to_owned(),
    })?;
    for (seq, key) in (record.first_seq..).zip(keys.keys) {
        dedup.index.insert(key.id, SeenId { content: key.content, seq });
    }
    // Without a claim the name belongs to another spelling, and nothing of this one is taken.
    if let Ok(entry) = dedup.ledger.claim(&record.namespace) {
        entry.types.extend(keys.types);
    }
    Ok(())
}

/// Letters that are in a table alone when the server dies are not noted again: what of them is
/// refused once more has a second letter.
fn replay_letters(dedup: &mut DedupState, record: &RecordRef) -> Result<(), WalError> {
    let payload = record.read()?;
    match codec::decode(&rows::dead_letter_schema(), &payload, record.first_seq) {
        Ok(rows) => letters::replay(&mut dedup.index, dedup.ledger.log(), &record.namespace, &rows),
        Err(cause) => {
            warn!(
                error = &cause as &dyn std::error::Error,
                "dead letters of the log are not known"
            );
            Ok(())
        }
    }
}

pub(super) fn window_ms(window: Duration) -> i64 {
    i64::try_from(window.as_millis()).unwrap_or(i64::MAX)
}
