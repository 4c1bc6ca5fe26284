//! The basis of an answer: what it was made of, so that it can be made again.

use crate::sql::points::QueryPoints;
use chrono::{DateTime, SecondsFormat};
use icecore_engine::view::{TableView, View};
use icecore_schemas::{query::QueryBasis, service_table::RecordKind, snapshot_id::SnapshotId};

/// The basis of an answer over this view, when `now()` is `clock_ms`.
#[must_use]
pub(super) fn of(view: &View, clock_ms: i64) -> QueryBasis {
    let with_seq = view.tables.iter().filter(|table| table.ours == Some(RecordKind::Events));
    let snapshot = |table: &TableView| (table.name.clone(), table.snapshot_id.map(SnapshotId));
    QueryBasis {
        seq: with_seq.map(|table| table.last_seq).max(),
        snapshots: view.tables.iter().map(snapshot).collect(),
        clock: DateTime::from_timestamp_millis(clock_ms)
            .unwrap_or_default()
            .to_rfc3339_opts(SecondsFormat::Millis, true),
    }
}

/// When the newest snapshot was made that `as_of` stands for, ms since 1970.
#[must_use]
pub(super) fn newest_snapshot_ms(view: &View, points: &QueryPoints) -> Option<i64> {
    let tables = view.tables.iter().filter(|table| !points.versions.contains_key(&table.name));
    let times = tables.filter_map(|table| {
        let snapshot = table.metadata.as_ref()?.snapshot_by_id(table.snapshot_id?)?;
        Some(snapshot.timestamp_ms())
    });
    times.max()
}
