//! Lists of what a table has in the log.
//!
//! A table may have a million records there, and the writer waits while the index is read. So a
//! list is read in steps, each after the position that the one before ended at. In between records
//! may be added, which belong to the list as well, and the table's first ones may be trimmed: their
//! table has them by then.

use crate::wal::{LogPosition, RecordRef, TableBacklog, Wal};
use icecore_schemas::{names::Namespace, service_table::RecordKind};

/// Most records that are copied while the writer waits.
pub(crate) const LISTED_AT_ONCE: usize = 1024;

impl Wal {
    /// The durable records of one table after `after` that are not trimmed, in order.
    #[must_use]
    pub fn records(
        &self,
        kind: RecordKind,
        namespace: &Namespace,
        after: LogPosition,
    ) -> Vec<RecordRef> {
        self.records_within(kind, namespace, after, u64::MAX).0
    }

    /// The same, the first ones with at most `bytes_max` payload bytes (one record at least), and
    /// the record after them, where there is one.
    #[must_use]
    pub fn records_within(
        &self,
        kind: RecordKind,
        namespace: &Namespace,
        after: LogPosition,
        bytes_max: u64,
    ) -> (Vec<RecordRef>, Option<RecordRef>) {
        let (mut records, mut bytes) = (Vec::<RecordRef>::new(), 0);
        loop {
            let after = records.last().map_or(after, |last| last.position);
            let next = self.inner.index().records(kind, namespace, after, LISTED_AT_ONCE);
            let is_end = next.len() < LISTED_AT_ONCE;
            for record in next {
                bytes += u64::from(record.length);
                if bytes_max < bytes && !records.is_empty() {
                    return (records, Some(record));
                }
                records.push(record);
            }
            if is_end {
                return (records, None);
            }
        }
    }

    /// What waits for tables of the kinds that `counts` names, a line a table, in no order. The writer waits
    /// meanwhile, and the records of ids alone are as many lines as there are namespaces.
    #[must_use]
    pub fn pending_of(&self, counts: impl Fn(RecordKind) -> bool) -> Vec<TableBacklog> {
        self.inner.index().pending(counts)
    }

    /// Position of the last record that waits for tables of the kinds that `counts` names, of the namespaces
    /// whose name in the catalog this is; none where nothing waits.
    #[must_use]
    pub fn last_position(
        &self,
        name: &str,
        counts: impl Fn(RecordKind) -> bool,
    ) -> Option<LogPosition> {
        self.inner.index().last_position(name, counts)
    }

    /// The namespaces with records that are not trimmed whose name in the catalog this is; one may
    /// be there several times.
    #[must_use]
    pub fn namespaces_named(&self, name: &str) -> Vec<Namespace> {
        self.inner.index().namespaces_named(name)
    }

    /// Position of the first record of one table that is not trimmed.
    #[must_use]
    pub fn first_position(&self, kind: RecordKind, namespace: &Namespace) -> Option<LogPosition> {
        self.inner.index().first_position(kind, namespace)
    }
}
