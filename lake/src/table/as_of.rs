//! Which snapshot of a table a point in its history means: the one answer, for queries and for
//! operators who go back to it.
//!
//! A time means the snapshot that was current then, as the table's snapshot log has it, which is how
//! Iceberg's spec, Spark and Trino read one. The log is of `main` alone and tells when it came to each
//! snapshot, by whatever way:
//!
//! - Of several entries at or before the time the last one holds, also where they are of the same
//!   millisecond.
//! - A snapshot that `main` left again (a rollback) is still the answer for the times when it was
//!   current. One that came in from a branch is not before it came in, whenever it was written.
//! - What is removed from the middle of the history cuts the log: nothing before the gap is left of it,
//!   as the spec has it. Snapshots before the gap may be kept, but not when each of them was current,
//!   so a time before the log's first entry is refused, and the nearest that can be read is named.
//! - A time that is still to come means nothing, whereas the clock of a snapshot's writer may be ahead.
//! - Where `main` came to a snapshot at a time that is still to come, a clock was wrong then, and the
//!   entries after it have no times of their own. What was current between the last right entry and now
//!   is not known, so it is refused.

use iceberg::spec::{SnapshotLog, TableMetadata};
use icecore_catalog::{ancestors, catalog::AHEAD_MAX_MS, metadata_file::refs};
use icecore_schemas::as_of::AsOf;
use std::collections::HashSet;

/// Why a table has no such point.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AsOfError {
    /// The time is still to come.
    #[error(
        "{} is in the future: the server's clock is at {}; omit the time to read the newest snapshot",
        written(*asked_ms), written(*now_ms)
    )]
    Future {
        /// The time, ms since 1970.
        asked_ms: i64,
        /// The server's.
        now_ms: i64,
    },
    /// It has no such snapshot.
    #[error("table `{table}` has no snapshot {id}")]
    NoSnapshot {
        /// The table.
        table: String,
        /// The snapshot.
        id: i64,
    },
    /// It had this snapshot, which was removed.
    #[error(
        "snapshot {id} of table `{table}` was removed; the next one that is kept is {} of {}",
        next.0, written(next.1)
    )]
    SnapshotRemoved {
        /// The table.
        table: String,
        /// The snapshot.
        id: i64,
        /// The first kept snapshot that was built on it, and when that was made.
        next: (i64, i64),
    },
    /// It had no snapshot then.
    #[error("table `{table}` has no snapshot at {}; {}", written(*asked_ms), known(*first_ms))]
    NoneThen {
        /// The table.
        table: String,
        /// The time, ms since 1970.
        asked_ms: i64,
        /// When it got its first one, as far as it is known.
        first_ms: Option<i64>,
    },
    /// Snapshots were removed, so it is not known which was current.
    #[error("which snapshot table `{table}` had at {} is not known: {}", written(*asked_ms), nearest(*next_ms, *kept))]
    Removed {
        /// The table.
        table: String,
        /// The time, ms since 1970.
        asked_ms: i64,
        /// The first time after it that can be read.
        next_ms: Option<i64>,
        /// The last kept snapshot before it, and when that was made.
        kept: Option<(i64, i64)>,
    },
    /// Snapshots of about then are dated in the future, so it is not known which was current.
    #[error(
        "which snapshot table `{table}` had at {} is not known: its snapshot {snapshot} is dated {}, \
         in the future, because a clock was wrong when it was made; name a snapshot by its id, or omit \
         the time to read the newest one",
        written(*asked_ms), written(*dated_ms)
    )]
    Misdated {
        /// The table.
        table: String,
        /// The time, ms since 1970.
        asked_ms: i64,
        /// The first snapshot that is dated in the future.
        snapshot: i64,
        /// When it says that it was made.
        dated_ms: i64,
    },
    /// It has no such branch or tag.
    #[error("table `{table}` has no branch or tag `{name}`{}", hint(name))]
    NoReference {
        /// The table.
        table: String,
        /// The name.
        name: String,
    },
}

impl AsOfError {
    /// The points around one that was removed, the nearest first; each is written as requests name one.
    #[must_use]
    pub fn nearest(&self) -> Vec<String> {
        match self {
            Self::Removed { next_ms, kept, .. } => {
                let kept = kept.map(|(id, _)| id.to_string());
                next_ms.map(written).into_iter().chain(kept).collect()
            }
            Self::SnapshotRemoved { next, .. } => vec![next.0.to_string()],
            Self::Future { .. }
            | Self::NoSnapshot { .. }
            | Self::NoneThen { .. }
            | Self::Misdated { .. }
            | Self::NoReference { .. } => Vec::new(),
        }
    }
}

/// The snapshot that this means in a table, whose metadata is none before its first commit.
///
/// # Errors
/// [`AsOfError`]
pub fn resolve(
    as_of: &AsOf,
    table: &str,
    metadata: Option<&TableMetadata>,
    now_ms: i64,
) -> Result<i64, AsOfError> {
    let table = table.to_owned();
    match as_of {
        AsOf::Snapshot(id) => metadata
            .and_then(|metadata| metadata.snapshot_by_id(*id))
            .map(|snapshot| snapshot.snapshot_id())
            .ok_or_else(|| match metadata.and_then(|metadata| next_of_removed(metadata, *id)) {
                Some(next) => AsOfError::SnapshotRemoved { table, id: *id, next },
                None => AsOfError::NoSnapshot { table, id: *id },
            }),
        AsOf::Time(ms) => {
            check_has_come(*ms, metadata, now_ms)?;
            if let Some(entry) = metadata.and_then(|table| misdated_after(table, *ms, now_ms)) {
                let (snapshot, dated_ms) = (entry.snapshot_id, entry.timestamp_ms);
                return Err(AsOfError::Misdated { table, asked_ms: *ms, snapshot, dated_ms });
            }
            let none =
                || AsOfError::NoneThen { table: table.clone(), asked_ms: *ms, first_ms: None };
            current_at(metadata.ok_or_else(none)?, &table, *ms)
        }
        AsOf::Reference(name) => metadata
            .and_then(|metadata| metadata.snapshot_for_ref(name))
            .map(|snapshot| snapshot.snapshot_id())
            .ok_or_else(|| AsOfError::NoReference { table, name: name.clone() }),
    }
}

/// Refuses a time that is still to come: what is true then is not known.
fn check_has_come(
    asked_ms: i64,
    metadata: Option<&TableMetadata>,
    now_ms: i64,
) -> Result<(), AsOfError> {
    // Writers' clocks may be ahead, so the time of a snapshot is never too late.
    let newest = metadata.map_or(i64::MIN, TableMetadata::last_updated_ms);
    if asked_ms <= newest.max(now_ms.saturating_add(AHEAD_MAX_MS)) {
        return Ok(());
    }
    Err(AsOfError::Future { asked_ms, now_ms })
}

/// The entry that follows what `main` was at after the last right entry, if it is dated in the future.
fn misdated_after(metadata: &TableMetadata, ms: i64, now_ms: i64) -> Option<&SnapshotLog> {
    let log = metadata.history();
    let last = log.iter().rposition(|entry| entry.timestamp_ms <= ms);
    if last.is_some_and(|last| log[last].timestamp_ms == ms) {
        return None;
    }
    let next = log.get(last.map_or(0, |last| last + 1))?;
    (now_ms.saturating_add(AHEAD_MAX_MS) < next.timestamp_ms).then_some(next)
}

/// Whether a point is read with the columns that its snapshot was written with. A branch goes on, so it
/// has the table's columns of now.
#[must_use]
pub fn has_past_columns(as_of: &AsOf, metadata: &TableMetadata) -> bool {
    match as_of {
        AsOf::Snapshot(_) | AsOf::Time(_) => true,
        AsOf::Reference(name) => {
            !refs::of(metadata).get(name).is_some_and(|found| found.is_branch())
        }
    }
}

/// The snapshot that `main` was at.
fn current_at(metadata: &TableMetadata, table: &str, asked_ms: i64) -> Result<i64, AsOfError> {
    let log = metadata.history();
    let logged = log.iter().rev().find(|entry| entry.timestamp_ms <= asked_ms);
    let found = |entry: &SnapshotLog| metadata.snapshot_by_id(entry.snapshot_id);
    if let Some(snapshot) = logged.and_then(found) {
        return Ok(snapshot.snapshot_id());
    }
    let kept = kept_at(metadata, asked_ms);
    let has_parent =
        log.first().and_then(found).is_some_and(|it| it.parent_snapshot_id().is_some());
    let table = table.to_owned();
    if logged.is_none() && kept.is_none() && !has_parent {
        let first_ms = log.first().map(|entry| entry.timestamp_ms);
        return Err(AsOfError::NoneThen { table, asked_ms, first_ms });
    }
    let next = log.iter().find(|entry| asked_ms < entry.timestamp_ms && found(entry).is_some());
    let next_ms = next.map(|entry| entry.timestamp_ms);
    Err(AsOfError::Removed { table, asked_ms, next_ms, kept })
}

/// The last kept snapshot up to `ms`, and when it was made; one of main's own goes before one that may
/// be a branch's.
fn kept_at(metadata: &TableMetadata, ms: i64) -> Option<(i64, i64)> {
    let main = ancestors::of(metadata, metadata.current_snapshot_id());
    let main: HashSet<i64> = main.map(|snapshot| snapshot.snapshot_id()).collect();
    metadata
        .snapshots()
        .filter(|snapshot| snapshot.timestamp_ms() <= ms)
        .max_by_key(|snapshot| (main.contains(&snapshot.snapshot_id()), snapshot.sequence_number()))
        .map(|snapshot| (snapshot.snapshot_id(), snapshot.timestamp_ms()))
}

/// The first kept snapshot that was built on one that is not kept, and when it was made. None where nothing tells
/// that the table had it.
fn next_of_removed(metadata: &TableMetadata, id: i64) -> Option<(i64, i64)> {
    let built_on_it =
        metadata.snapshots().filter(|snapshot| snapshot.parent_snapshot_id() == Some(id));
    let first = built_on_it.min_by_key(|snapshot| snapshot.sequence_number())?;
    Some((first.snapshot_id(), first.timestamp_ms()))
}

fn nearest(next_ms: Option<i64>, kept: Option<(i64, i64)>) -> String {
    let next = next_ms.map_or_else(
        || "its snapshot log does not tell".to_owned(),
        |next| {
            format!("snapshots were removed; the next time that can be read is {}", written(next))
        },
    );
    let kept = kept.map(|(id, ms)| {
        format!(
            "; the nearest snapshot before it is {id} of {}, to be named by its id",
            written(ms)
        )
    });
    next + &kept.unwrap_or_default()
}

fn written(ms: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(ms).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

fn known(first_ms: Option<i64>) -> String {
    first_ms.map_or_else(
        || "it has none yet".to_owned(),
        |first| format!("the first one is from {}", written(first)),
    )
}

fn hint(name: &str) -> &'static str {
    let is_like_a_time = name.starts_with(|c: char| c.is_ascii_digit())
        || ["now", "today", "yesterday"].contains(&name.to_lowercase().as_str());
    if is_like_a_time { "; a time is written as 2026-11-20T12:00:00Z, with its zone" } else { "" }
}

#[cfg(test)]
mod tests;
