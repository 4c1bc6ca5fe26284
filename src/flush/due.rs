//! When the waiting rows of a table are committed by themselves: by size, and by an age that is short
//! when clients have read the table and grows while none does. Fewer commits make fewer and larger files,
//! and SQL reads the log anyway.
//!
//! Its one invariant: a row waits for at most `commit.interval_max`, and no wait makes the log keep
//! much more than it would with commits each `commit.interval`.

use crate::flush::{FlushJob, TICK_TABLES_MAX, requests::CommitScope};
use icecore_catalog::snapshot::SnapshotTime;
use icecore_lake::wal::TableBacklog;
use std::time::Duration;

/// A `commit.interval` below this holds whether or not anybody reads.
const SHORT_INTERVAL: Duration = Duration::from_secs(5);
/// A flush starts this much before the interval is over (a fifth of it when that is less), so that
/// the snapshot is there when it is.
const HEAD_START_MAX: Duration = Duration::from_secs(1);
/// Tables that nobody reads are committed in the last part of `commit.interval_max`, of so many, each
/// at a moment of its own: a thousand of them that got rows at once are not committed at once.
const SPREAD_PART: u32 = 4;
/// Rows of a table that was loaded wait for this part of the time since: each commit after a load comes after
/// twice the time of the one before it. Who loads it again has a commit for that.
const UNREAD_PART: i64 = 2;
/// A table waits no longer than `commit.interval` when so many segments came after its oldest record:
/// a few rows of one table keep all of them.
const SEGMENTS_SINCE_MAX: u64 = 8;
/// No table waits longer than that while the log is full to this part.
const LOG_PART: u64 = 4;
/// Nor while so many payload bytes wait for it: each query of the service reads them from the log.
const UNREAD_BYTES_MAX: u64 = 8 << 20;
/// Of the tables of one tick, so many are those that somebody asked for, whatever their age. The rest
/// goes by age alone: many loads keep no old rows of other tables waiting.
const ASKED_FIRST_MAX: usize = TICK_TABLES_MAX * 3 / 4;

/// How long rows wait, as the settings say.
#[derive(Clone, Copy, Debug)]
pub(super) struct CommitAges {
    interval: Duration,
    interval_max: Duration,
}

/// A table to flush now.
#[derive(Debug)]
pub(super) struct DueTable {
    pub(super) backlog: TableBacklog,
    /// What time its snapshot has.
    pub(super) time: SnapshotTime,
    is_wanted: bool,
}

impl CommitAges {
    /// Rows wait for at most `interval` when somebody has just read their table, and for at most
    /// `interval_max`, which is no less, when nobody has for long.
    pub(super) fn new(interval: Duration, interval_max: Duration) -> Self {
        let is_short = interval < SHORT_INTERVAL;
        let interval_max = if is_short { interval } else { interval_max.max(interval) };
        Self { interval, interval_max }
    }

    /// The age at which rows are due that clients read.
    fn of_read_ms(self) -> i64 {
        without_head_start_ms(self.interval)
    }

    /// The age at which rows of other tables in the catalog's namespace `name` are due.
    fn of_unread_ms(self, name: &str) -> i64 {
        let spread_ms = millis(self.interval_max / SPREAD_PART).max(1).unsigned_abs();
        let early_ms = xxhash_rust::xxh3::xxh3_64(name.as_bytes()) % spread_ms;
        let early_ms = i64::try_from(early_ms).unwrap_or(0);
        (without_head_start_ms(self.interval_max) - early_ms).max(self.of_read_ms())
    }
}

impl FlushJob {
    /// The tables to flush now: what was asked for first, then the oldest; see [`ASKED_FIRST_MAX`].
    pub(super) fn due(&self, now_ms: i64, wanted: &[CommitScope]) -> Vec<DueTable> {
        let is_filling = self.is_log_filling();
        let tables = self.tables.pending().into_iter();
        let mut due: Vec<DueTable> = tables
            .filter_map(|backlog| {
                let asked = wanted.iter().filter(|scope| {
                    scope.has(backlog.kind) && *scope.namespace() == backlog.namespace
                });
                let is_wanted = asked.clone().next().is_some();
                let loaded_ms = asked.filter_map(CommitScope::loaded_ms).min();
                let is_due = is_wanted
                    || (self.is_ripe(&backlog, now_ms, is_filling)
                        && !self.is_paused(backlog.kind, &backlog.namespace, now_ms));
                let time = loaded_ms
                    .map_or(SnapshotTime::Made, |asked_ms| SnapshotTime::BeforeLoad { asked_ms });
                is_due.then_some(DueTable { backlog, time, is_wanted })
            })
            .collect();
        due.sort_by_key(|table| (!table.is_wanted, table.backlog.oldest_ms));
        if let Some(others) = due.get_mut(ASKED_FIRST_MAX..) {
            others.sort_by_key(|table| table.backlog.oldest_ms);
        }
        due
    }

    /// Whether so many rows wait, or for so long, that they are committed without being asked for.
    fn is_ripe(&self, waiting: &TableBacklog, now_ms: i64, is_filling: bool) -> bool {
        if self.options.bytes_max <= waiting.bytes {
            return true;
        }
        let age_ms = now_ms.saturating_sub(waiting.oldest_ms);
        if age_ms < self.ages.of_read_ms() {
            return false;
        }
        let (kind, name) = (waiting.kind, waiting.namespace.name());
        is_filling
            || UNREAD_BYTES_MAX <= waiting.bytes
            || SEGMENTS_SINCE_MAX <= waiting.segments_since
            || waiting.is_purged
            || self.ages.of_unread_ms(name) <= age_ms
            || self
                .loads
                .unread_ms(kind, name, self.clock.passed_ms())
                .is_some_and(|unread_ms| unread_ms / UNREAD_PART <= age_ms)
            // The first rows since the start: nobody can load a table that is not there yet, and
            // what an earlier life of this process left has waited.
            || !self.committed.contains(&(kind, waiting.namespace.clone()))
    }

    fn is_log_filling(&self) -> bool {
        let wal = &self.tables.wal;
        wal.bytes_max() / LOG_PART <= wal.bytes() || wal.disk_left().is_some()
    }
}

fn without_head_start_ms(interval: Duration) -> i64 {
    millis(interval.saturating_sub((interval / 5).min(HEAD_START_MAX)))
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
