//! The basis of an answer: what it was made of, so that it can be made again.

use crate::sql::points::QueryPoints;
use chrono::{DateTime, SecondsFormat};
use icecore_engine::{
    error::SqlError,
    view::{NamespaceView, TableView, View},
};
use icecore_schemas::{query::QueryBasis, service_table::RecordKind, snapshot_id::SnapshotId};

/// The basis of an answer over this view, when `now()` is `clock_ms`: the one that was sent, if there is one. None
/// for an answer over several namespaces, as `seq` counts in each of them.
///
/// # Errors
/// [`SqlError::Invalid`] for a basis that was sent with a statement over several namespaces.
pub(super) fn of(
    view: &View,
    sent: Option<QueryBasis>,
    clock_ms: i64,
) -> Result<Option<QueryBasis>, SqlError> {
    // A namespace that is only looked into for a name has nothing in the answer.
    let has_tables =
        |other: &&NamespaceView| !other.tables.is_empty() || !other.unreadable.is_empty();
    match (view.others.iter().find(has_tables), sent) {
        (None, Some(sent)) => Ok(Some(sent)),
        (None, None) => Ok(Some(made(view, clock_ms))),
        (Some(_), None) => Ok(None),
        (Some(other), Some(_)) => Err(SqlError::Invalid(format!(
            "the statement reads namespace `{}`, and a basis is of the tables of one namespace; send the statement without it",
            other.namespace
        ))),
    }
}

fn made(view: &View, clock_ms: i64) -> QueryBasis {
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
    let has_version = |namespace: &str, table: &TableView| {
        namespace == view.namespace && points.versions.contains_key(&table.name)
    };
    let tables = view.all_tables().filter(|(namespace, table)| !has_version(namespace, table));
    let times = tables.filter_map(|(_, table)| {
        let snapshot = table.metadata.as_ref()?.snapshot_by_id(table.snapshot_id?)?;
        Some(snapshot.timestamp_ms())
    });
    times.max()
}
