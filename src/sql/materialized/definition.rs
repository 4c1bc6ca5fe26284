//! What a table says of the query that it has the rows of, and a snapshot of how far it has them.

use crate::{cron::CronTimes, sql::writes::target::invalid};
use iceberg::spec::{Operation, SnapshotRef, TableMetadata};
use icecore_catalog::{ancestors, retention::expiry::MAX_SNAPSHOT_AGE};
use icecore_engine::{QueryAnswer, error::SqlError, guard, incremental::IncrementalAggregate};
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

/// The table property with the query.
const SQL: &str = "icecore.materialize.sql";
/// The one with its times.
const CRON: &str = "icecore.materialize.cron";
/// Snapshot summary: the rows are those of the query, and events up to this `seq` are in them.
const SEQ: &str = "icecore.materialize.seq";
/// Snapshot summary: the [`QueryOrigin`] of the rows, as a hash.
const QUERY: &str = "icecore.materialize.query";
/// Snapshot summary: which erasures the namespace had had; left out while one went on.
const ERASURES: &str = "icecore.materialize.erasures";
/// From so many snapshots on, a table of a held namespace is refreshed every [`HELD_REFRESH_MS`] at most.
const HELD_SNAPSHOTS: usize = 1_000;
/// The least time between its refreshes then: 24 more snapshots a day, however long the hold is.
const HELD_REFRESH_MS: i64 = 60 * 60 * 1000;
/// How old snapshots of a new table become, ms: each refresh makes one.
const SNAPSHOT_AGE_MS: &str = "86400000";

/// A query that is run again at its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaterializedQuery {
    /// As it was written, without semicolons at its end.
    pub sql: String,
    /// When it is run again, in UTC.
    pub every: CronTimes,
}

impl MaterializedQuery {
    /// Reads a query, and its times as a cron expression.
    ///
    /// # Errors
    /// [`SqlError`] says what to change.
    pub fn parse(sql: &str, every: &str) -> Result<Self, SqlError> {
        let sql = sql.trim_start().trim_end_matches(|c: char| c == ';' || c.is_whitespace());
        let checked = guard::check(sql)?;
        if !checked.is_query || checked.is_summary {
            return Err(invalid("a materialised table has the rows of a query: write SELECT …"));
        }
        if 0 < checked.params_max {
            let text = "the query of a materialised table has no parameters: write their values";
            return Err(invalid(text));
        }
        let times = CronTimes::parse(every);
        let every = times.map_err(|cause| invalid(format!("`{every}` {cause}")))?;
        Ok(Self { sql: sql.to_owned(), every })
    }

    /// That of a table; none where it is no materialised one.
    ///
    /// # Errors
    /// As [`MaterializedQuery::parse`], for properties that somebody wrote.
    pub fn of(table: &TableMetadata) -> Result<Option<Self>, SqlError> {
        let Some(sql) = table.properties().get(SQL) else { return Ok(None) };
        let every = table.properties().get(CRON).map(String::as_str).unwrap_or_default();
        Self::parse(sql, every)
            .map(Some)
            .map_err(|cause| invalid(format!("its properties `{SQL}` and `{CRON}`: {cause}")))
    }

    /// Whether a table says that it is a materialised one.
    #[must_use]
    pub fn is_noted(table: &TableMetadata) -> bool {
        table.properties().contains_key(SQL)
    }

    /// Whether a refresh reads the events alone that came since the last one.
    #[must_use]
    pub fn is_incremental(&self) -> bool {
        self.aggregate().is_some()
    }

    /// The aggregate that it is, if it adds up.
    pub(in crate::sql) fn aggregate(&self) -> Option<IncrementalAggregate> {
        IncrementalAggregate::of(&self.sql)
    }

    /// What a table says of it.
    #[must_use]
    pub fn properties(&self) -> HashMap<String, String> {
        [(SQL, self.sql.clone()), (CRON, self.every.to_string())]
            .map(|(key, value)| (key.to_owned(), value))
            .into()
    }

    /// The names of those properties.
    #[must_use]
    pub fn property_names() -> Vec<String> {
        [SQL, CRON].map(str::to_owned).into()
    }
}

/// What else decides which rows a query has: rows of another origin are not merged with.
#[derive(Clone, Copy, Debug)]
pub(in crate::sql) struct QueryOrigin<'a> {
    /// Whoever may write may change it.
    pub(in crate::sql) query: &'a MaterializedQuery,
    /// The levels of the table's namespace, which a rename changes: `seq` counts in each.
    pub(in crate::sql) namespace: &'a [String],
    /// The log that the events came from. What it had in no table is gone with it, or sent again.
    pub(in crate::sql) log: Uuid,
    /// Whether `visibility.filter` is on.
    pub(in crate::sql) filters_visibility: bool,
    /// How many losses of acknowledged events an operator accepted: rows may have events that were given up.
    pub(in crate::sql) losses: u64,
}

impl QueryOrigin<'_> {
    fn hash(&self) -> String {
        let Self { query, namespace, log, filters_visibility, losses } = self;
        let text = format!("{log} {filters_visibility} {namespace:?} {}", query.sql);
        // Most logs have none, and say nothing of them.
        let text = if *losses == 0 { text } else { format!("{losses} losses {text}") };
        format!("{:016x}", xxh3_64(text.as_bytes()))
    }
}

/// The properties of a new table with the rows of a query.
pub(in crate::sql) fn first_properties(query: &MaterializedQuery) -> HashMap<String, String> {
    let mut properties = query.properties();
    properties.insert(MAX_SNAPSHOT_AGE.to_owned(), SNAPSHOT_AGE_MS.to_owned());
    properties
}

/// What the summary of a snapshot says that has the rows of this answer.
pub(in crate::sql) fn notes(
    origin: QueryOrigin<'_>,
    answer: &QueryAnswer,
    erasures: Option<&str>,
) -> BTreeMap<String, String> {
    let mut notes = BTreeMap::from([
        (SEQ.to_owned(), seq_of(answer).to_string()),
        (QUERY.to_owned(), origin.hash()),
    ]);
    if let Some(erasures) = erasures {
        notes.insert(ERASURES.to_owned(), erasures.to_owned());
    }
    notes
}

/// The last event of `main` that an answer could have; zero for one that has none.
pub(super) fn seq_of(answer: &QueryAnswer) -> u64 {
    let basis = answer.basis.as_ref().filter(|basis| basis.branch.is_none());
    basis.and_then(|basis| basis.seq).unwrap_or(0)
}

/// How far a table has the events of its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoldedEvents {
    /// The last one.
    pub(super) seq: u64,
    /// Which erasures there had been.
    pub(super) erasures: Option<String>,
}

impl FoldedEvents {
    /// What the current rows of a table are; none where they are not of this origin alone.
    pub(super) fn of(table: &TableMetadata, origin: QueryOrigin<'_>) -> Option<Self> {
        for snapshot in ancestors::of(table, table.current_snapshot_id()) {
            let entries = &snapshot.summary().additional_properties;
            if let Some(seq) = entries.get(SEQ) {
                let seq = seq.parse().ok()?;
                let is_same = entries.get(QUERY).is_some_and(|hash| *hash == origin.hash());
                let erasures = entries.get(ERASURES).cloned();
                return is_same.then_some(Self { seq, erasures });
            }
            // Merging files changes no row.
            if snapshot.summary().operation != Operation::Replace {
                return None;
            }
        }
        None
    }
}

/// The last snapshot that a refresh made.
fn last_refresh(table: &TableMetadata) -> Option<&SnapshotRef> {
    let mut snapshots = ancestors::of(table, table.current_snapshot_id());
    snapshots.find(|snapshot| snapshot.summary().additional_properties.contains_key(SEQ))
}

/// When a table was refreshed last, ms since 1970, and up to which event; none where no snapshot tells.
#[must_use]
pub fn refreshed(table: &TableMetadata) -> Option<(i64, u64)> {
    let snapshot = last_refresh(table)?;
    let seq = snapshot.summary().additional_properties.get(SEQ)?.parse().ok()?;
    Some((snapshot.timestamp_ms(), seq))
}

/// When the rows of a table are made anew, as one state of its metadata tells.
#[derive(Clone, Debug)]
pub struct RefreshSchedule {
    every: CronTimes,
    /// When the last refresh was, ms since 1970, and which origin its rows have.
    last: Option<(i64, Option<String>)>,
    /// The origin that rows have by now.
    origin: String,
    snapshots: usize,
}

/// A refresh that was tried, whatever became of it.
#[derive(Clone, Debug)]
pub struct RefreshAttempt {
    at_ms: i64,
    origin: String,
}

impl RefreshSchedule {
    pub(super) fn of(table: &TableMetadata, origin: QueryOrigin<'_>) -> Self {
        let last = last_refresh(table).map(|snapshot| {
            let entries = &snapshot.summary().additional_properties;
            (snapshot.timestamp_ms(), entries.get(QUERY).cloned())
        });
        let (every, snapshots) = (origin.query.every.clone(), table.snapshots().len());
        Self { every, last, origin: origin.hash(), snapshots }
    }

    /// That a refresh was tried at this time, ms since 1970.
    #[must_use]
    pub fn attempt(&self, at_ms: i64) -> RefreshAttempt {
        RefreshAttempt { at_ms, origin: self.origin.clone() }
    }

    /// Whether the rows are of another origin than rows are by now, and that was not tried to be mended: they may
    /// have what is hidden since, or events that were given up.
    #[must_use]
    pub fn is_of_other_origin(&self, tried: Option<&RefreshAttempt>) -> bool {
        let is_other =
            self.last.as_ref().is_some_and(|(_, origin)| origin.as_ref() != Some(&self.origin));
        is_other && tried.is_none_or(|tried| tried.origin != self.origin)
    }

    /// Whether a time of the query has come since the last refresh, or since it was tried last.
    #[must_use]
    pub fn has_come(&self, tried: Option<&RefreshAttempt>, now_ms: i64) -> bool {
        let refreshed_ms = self.last.as_ref().map(|(at_ms, _)| *at_ms);
        let last_ms = refreshed_ms.max(tried.map(|tried| tried.at_ms));
        self.every.last(now_ms).is_some_and(|due_ms| last_ms.is_none_or(|last_ms| last_ms < due_ms))
    }

    /// Whether the table waits where its namespace is held: no snapshot of it goes then, and each refresh adds
    /// one.
    #[must_use]
    pub fn waits_under_hold(&self, now_ms: i64) -> bool {
        let is_recent = |at_ms: i64| now_ms.saturating_sub(at_ms) < HELD_REFRESH_MS;
        HELD_SNAPSHOTS <= self.snapshots
            && self.last.as_ref().is_some_and(|(at_ms, _)| is_recent(*at_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_a_query_and_times() {
        let query = MaterializedQuery::parse(" SELECT 1 AS x ; \n;", "@hourly").unwrap();
        assert_eq!(
            (query.sql.as_str(), query.every.to_string().as_str()),
            ("SELECT 1 AS x", "@hourly")
        );
        assert!(!query.is_incremental());
        for (sql, every, told) in [
            ("DROP TABLE t", "@hourly", "only queries"),
            ("EXPLAIN SELECT 1", "@hourly", "SELECT"),
            ("SELECT $1 AS x", "@hourly", "parameters"),
            ("SELECT 1 AS x", "hourly", "`hourly` is not five fields"),
        ] {
            let refused = MaterializedQuery::parse(sql, every).unwrap_err().to_string();
            assert!(refused.contains(told), "{sql}: {refused}");
        }
    }

    #[test]
    fn rows_of_another_query_namespace_log_filter_or_loss_are_of_another_origin() {
        let query = MaterializedQuery::parse("SELECT 1 AS x", "@hourly").unwrap();
        let other = MaterializedQuery::parse("SELECT 2 AS x", "@hourly").unwrap();
        let often = MaterializedQuery::parse("SELECT 1 AS x", "* * * * *").unwrap();
        let (log, [shop, bank]) = (Uuid::from_u128(1), ["shop", "bank"].map(|it| [it.to_owned()]));
        let origin = QueryOrigin {
            query: &query,
            namespace: &shop,
            log,
            filters_visibility: false,
            losses: 0,
        };
        assert_eq!(QueryOrigin { query: &often, ..origin }.hash(), origin.hash());
        for changed in [
            QueryOrigin { query: &other, ..origin },
            QueryOrigin { namespace: &bank, ..origin },
            QueryOrigin { log: Uuid::from_u128(2), ..origin },
            QueryOrigin { filters_visibility: true, ..origin },
            QueryOrigin { losses: 1, ..origin },
        ] {
            assert_ne!(changed.hash(), origin.hash(), "{changed:?}");
        }
    }

    fn schedule(every: &str, last: Option<(i64, &str)>, snapshots: usize) -> RefreshSchedule {
        let last = last.map(|(at_ms, origin)| (at_ms, Some(origin.to_owned())));
        let every = CronTimes::parse(every).unwrap();
        RefreshSchedule { every, last, origin: "now".to_owned(), snapshots }
    }

    #[test]
    fn rows_of_another_origin_are_made_anew_at_once_and_tried_once() {
        let other = schedule("0 0 1 1 *", Some((0, "then")), 1);
        assert!(other.is_of_other_origin(None));
        assert!(!other.is_of_other_origin(Some(&other.attempt(5))));
        let before = RefreshAttempt { at_ms: 5, origin: "before".to_owned() };
        assert!(other.is_of_other_origin(Some(&before)));
        assert!(!schedule("0 0 1 1 *", Some((0, "now")), 1).is_of_other_origin(None));
        assert!(!schedule("0 0 1 1 *", None, 0).is_of_other_origin(None));
    }

    #[test]
    fn a_time_that_came_since_the_last_refresh_or_attempt_is_due() {
        let hour_ms = 60 * 60 * 1000;
        let hourly = schedule("@hourly", Some((hour_ms, "now")), 1);
        assert!(!hourly.has_come(None, 2 * hour_ms - 1));
        assert!(hourly.has_come(None, 2 * hour_ms));
        assert!(!hourly.has_come(Some(&hourly.attempt(2 * hour_ms)), 3 * hour_ms - 1));
        assert!(schedule("@hourly", None, 0).has_come(None, hour_ms));
    }

    #[test]
    fn a_table_with_many_snapshots_waits_an_hour_where_none_may_go() {
        let of = |snapshots| schedule("* * * * *", Some((0, "now")), snapshots);
        assert!(!of(HELD_SNAPSHOTS - 1).waits_under_hold(1));
        assert!(of(HELD_SNAPSHOTS).waits_under_hold(HELD_REFRESH_MS - 1));
        assert!(!of(HELD_SNAPSHOTS).waits_under_hold(HELD_REFRESH_MS));
        assert!(!schedule("* * * * *", None, HELD_SNAPSHOTS).waits_under_hold(1));
    }
}
