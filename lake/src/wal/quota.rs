//! Tables whose rows do not leave the log, and how much of it they may take.
//!
//! Its one invariant: what tables hold whose flush fails for a reason of their own is bounded, for
//! each namespace and for all together, so that the log goes on for everybody else. Where the store
//! or the metastore fails nothing is bounded but the log: then it is there to bridge that time.
//!
//! A single record keeps its whole segment on disk, so segments count as well as bytes. The bound is
//! looked at before a group is formed: it may be passed by one group.

use crate::wal::{Wal, WalError, WalOptions};
use icecore_schemas::{names::Namespace, service_table::RecordKind};
use std::collections::HashMap;

/// The part of the log that one such namespace may take before its events are refused.
const OF_A_NAMESPACE: u64 = 8;
/// The part that all of them may take.
const OF_ALL: u64 = 2;

/// A table that what waits for it cannot be moved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StuckTable {
    /// Which table of the namespace.
    pub kind: RecordKind,
    /// Which namespace.
    pub namespace: Namespace,
    /// When this was first found, ms since 1970.
    pub since_ms: i64,
    /// Which table, what is wrong with it, for those who send to it.
    pub reason: String,
    /// The table itself is at fault: it fails until somebody puts that right.
    pub is_lasting: bool,
}

/// What one table's records take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TableUsage {
    pub(crate) bytes: u64,
    pub(crate) segments: u64,
}

/// The bounds of the log that these follow from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogBounds {
    pub(crate) bytes_max: u64,
    pub(crate) segment_bytes: u64,
}

/// The failing tables that have records in the log.
#[derive(Debug, Default)]
pub(crate) struct StuckTables(HashMap<(RecordKind, Namespace), StuckTable>);

impl Wal {
    /// Remembers that what waits for a table cannot be moved there, until it is or [`Wal::trim`] has
    /// taken all of it.
    pub fn note_failing(&self, failing: StuckTable) {
        self.inner.index().note_failing(failing);
    }

    /// Says that a table takes rows again.
    pub fn note_flushed(&self, kind: RecordKind, namespace: &Namespace) {
        self.inner.index().note_flushed(kind, namespace);
    }

    /// The tables that cannot be flushed, the longest failing first.
    #[must_use]
    pub fn failing(&self) -> Vec<StuckTable> {
        self.inner.index().failing()
    }

    /// Whether records of these namespaces may be appended: a namespace whose table is itself at
    /// fault has a bound of its own.
    ///
    /// # Errors
    /// [`WalError::Held`] for the first that may not.
    pub fn check_room<'a>(
        &self,
        namespaces: impl Iterator<Item = &'a Namespace>,
    ) -> Result<(), WalError> {
        let WalOptions { bytes_max, segment_bytes, .. } = self.inner.options;
        self.inner.index().check_room(namespaces, LogBounds { bytes_max, segment_bytes })
    }
}

impl StuckTables {
    pub(crate) fn note(&mut self, failing: StuckTable) {
        let key = (failing.kind, failing.namespace.clone());
        let since_ms = self.0.get(&key).map_or(failing.since_ms, |before| before.since_ms);
        self.0.insert(key, StuckTable { since_ms, ..failing });
    }

    pub(crate) fn forget(&mut self, key: &(RecordKind, Namespace)) {
        self.0.remove(key);
    }

    /// The longest failing first.
    pub(crate) fn list(&self) -> Vec<StuckTable> {
        let mut all: Vec<StuckTable> = self.0.values().cloned().collect();
        all.sort_by(|a, b| {
            (a.since_ms, &a.namespace, a.kind).cmp(&(b.since_ms, &b.namespace, b.kind))
        });
        all
    }

    /// Refuses records of namespaces that have taken what they may; `held` says what a table holds.
    pub(crate) fn check<'a>(
        &self,
        namespaces: impl Iterator<Item = &'a Namespace>,
        room: LogBounds,
        held: impl Fn(&(RecordKind, Namespace)) -> TableUsage,
    ) -> Result<(), WalError> {
        if self.0.values().all(|failing| !failing.is_lasting) {
            return Ok(());
        }
        let mut by_namespace: HashMap<&Namespace, (u64, &StuckTable)> = HashMap::new();
        let mut all = 0;
        for (key, failing) in self.0.iter().filter(|(_, failing)| failing.is_lasting) {
            let TableUsage { bytes, segments } = held(key);
            all += bytes.max(segments * room.segment_bytes);
            // The first segment is there for others as well.
            let more = segments.saturating_sub(1) * room.segment_bytes;
            let entry = by_namespace.entry(&failing.namespace).or_insert((0, failing));
            entry.0 += bytes.max(more);
        }
        for namespace in namespaces {
            let Some((own, failing)) = by_namespace.get(namespace) else { continue };
            if room.bytes_max / OF_A_NAMESPACE <= *own || room.bytes_max / OF_ALL <= all {
                return Err(WalError::Held {
                    namespace: namespace.clone(),
                    reason: failing.reason.clone(),
                });
            }
        }
        Ok(())
    }
}
