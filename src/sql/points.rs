//! Which state of each table a query reads: now, a point of its own, the `as_of` of the request, or the basis
//! of an earlier answer.
//!
//! What a statement says of a point is an expression, so it is worked out before the view is taken: times by the
//! engine, bookmarks by a look into the table.

mod bookmarks;
mod namespaces;

use crate::sql::{SqlInner, basis};
use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::TimestampMicrosecondType,
    record_batch::RecordBatch,
};
use chrono::DateTime;
use futures::TryStreamExt;
use icecore_catalog::access::Principal;
use icecore_engine::{
    EngineQuery, QueryControls,
    audit::AuditPages,
    change_views,
    collections::events_name,
    error::SqlError,
    guard::{self, CheckedStatement},
    log_tail::TailSource,
    metadata_tables::MetadataTable,
    references::WantedTables,
    seq_range::SeqRange,
    stop::{QuerySignal, QueryStop},
    versions::{self, TableVersion, VersionPoint},
    view::View,
};
use icecore_schemas::{
    as_of::AsOf,
    point::{HistoryPoint, MAIN_BRANCH},
    query::{QueryBasis, SqlRequest},
    service_table::EVENTS_TABLE,
    snapshot_id::SnapshotId,
};
use namespaces::other_namespace;
use std::{collections::HashMap, sync::Arc};

/// Who asks for points, and in which namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct PointReader<'a> {
    /// The levels of the query's namespace.
    pub(super) levels: &'a [String],
    /// Whose rows may have a point; with none every row may.
    pub(super) principal: Option<&'a Principal>,
}

/// Which state of a table is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableRead {
    /// What is acknowledged, or those events of it.
    Now(Option<SeqRange>),
    /// A snapshot.
    AsOf(AsOf),
    /// The snapshot so many before the current one.
    Back(u32),
    /// Events of a branch.
    Branch {
        /// Its name.
        branch: String,
        /// The last one.
        until: u64,
        /// The snapshot of the branch that an earlier answer saw; none for its head.
        snapshot: Option<i64>,
    },
    /// What an earlier answer saw.
    Basis {
        /// Its snapshot, if there was one.
        snapshot: Option<i64>,
        /// The last event that it saw.
        until: Option<u64>,
        /// Those that the statement wants of it; none for all.
        seqs: Option<SeqRange>,
    },
}

/// Which state of each table a query reads.
#[derive(Clone, Debug, Default)]
pub struct QueryPoints {
    /// That of tables without a point of their own.
    pub as_of: Option<AsOf>,
    /// Tables with one, by the names that the statement has for them.
    pub versions: HashMap<String, (String, TableRead)>,
    /// What the answer is to be made of.
    pub basis: Option<QueryBasis>,
    /// Those of tables of other namespaces, as the statement writes these: of namespaces that have any of their own.
    pub others: HashMap<String, QueryPoints>,
    /// The read of every table that has no point of its own; only behind a view of the catalog that has one.
    pub every: Option<TableRead>,
    /// Those of tables behind views of the catalog with a point, by the words of that.
    pub behind_views: HashMap<String, QueryPoints>,
}

impl QueryPoints {
    /// The table that is called so in the statement, and what is read of it.
    ///
    /// # Errors
    /// [`SqlError::Invalid`] for a table that the basis does not have.
    pub fn of<'a>(&'a self, name: &'a str) -> Result<(&'a str, TableRead), SqlError> {
        let (table, read) = match (self.versions.get(name), &self.every, &self.as_of) {
            (Some((table, read)), ..) => (table.as_str(), read.clone()),
            (None, Some(read), _) => (name, read.clone()),
            (None, None, Some(as_of)) => (name, TableRead::AsOf(as_of.clone())),
            (None, None, None) => (name, TableRead::Now(None)),
        };
        Ok((table, self.repeated(name, read)?))
    }

    /// The same for `events@nightly`, where no table has this name; none for a name without a point.
    ///
    /// # Errors
    /// [`SqlError::Invalid`] for a table that the basis does not have.
    pub fn of_reference<'a>(
        &self,
        name: &'a str,
    ) -> Result<Option<(&'a str, TableRead)>, SqlError> {
        // `events@nightly$files` is a metadata table of `events@nightly`.
        if MetadataTable::split(name).is_some() {
            return Ok(None);
        }
        let parts = name.rsplit_once('@').filter(|(table, _)| !table.is_empty());
        let Some((table, point)) = parts else { return Ok(None) };
        let back = point.strip_prefix('~').and_then(|number| number.parse().ok());
        let read = match back {
            Some(back) => TableRead::Back(back),
            None => TableRead::AsOf(point.parse()?),
        };
        Ok(Some((table, self.repeated(name, read)?)))
    }

    /// The table, the point as it is written, and what that means in `events@v17` or `events@2024-01-08`, where the
    /// table has no ref of that name; none for a point of another form.
    ///
    /// # Errors
    /// [`SqlError::Invalid`] for a table that the basis does not have.
    pub fn of_address<'a>(
        &self,
        name: &'a str,
    ) -> Result<Option<(&'a str, &'a str, TableRead)>, SqlError> {
        let parts = name.rsplit_once('@').filter(|(table, _)| !table.is_empty());
        let Some((table, point)) = parts else { return Ok(None) };
        let read = match HistoryPoint::of_address(point) {
            Some(HistoryPoint::Seq(seq)) => TableRead::Now(Some(SeqRange::up_to(seq))),
            Some(HistoryPoint::Time(us)) => TableRead::AsOf(AsOf::Time(us.div_euclid(1_000))),
            // `main` is a ref, and `~1` is so many snapshots back. What has no such form is a ref.
            Some(
                HistoryPoint::Branch(_)
                | HistoryPoint::Back(_)
                | HistoryPoint::Now
                | HistoryPoint::Bookmark(_)
                | HistoryPoint::Snapshot(_)
                | HistoryPoint::Tag(_)
                | HistoryPoint::Before(_)
                | HistoryPoint::Number(_)
                | HistoryPoint::Named(_),
            )
            | None => return Ok(None),
        };
        Ok(Some((table, point, self.repeated(name, read)?)))
    }

    /// The point that a table has in the statement, or in the view of the catalog that reads it.
    #[must_use]
    pub fn point_of(&self, name: &str) -> Option<&TableRead> {
        self.versions.get(name).map(|(_, read)| read).or(self.every.as_ref())
    }

    /// Whether this is `events` in its state of now.
    #[must_use]
    pub fn reads_now(&self, name: &str) -> bool {
        let is_now = match self.point_of(name) {
            Some(read) => matches!(read, TableRead::Now(_)),
            None => self.as_of.is_none() && name == EVENTS_TABLE,
        };
        is_now && self.basis.is_none()
    }

    /// The tag or branch that a table is read at, as far as its name in the statement or the request tells.
    #[must_use]
    pub fn reference<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        match (self.point_of(name), name.rsplit_once('@'), &self.as_of) {
            (Some(TableRead::Branch { branch, .. }), ..) => Some(branch),
            (Some(TableRead::AsOf(as_of)), ..) | (None, None, Some(as_of)) => match as_of {
                AsOf::Reference(reference) => Some(reference),
                AsOf::Snapshot(_) | AsOf::Time(_) => None,
            },
            (None, Some((_, point)), _) => Some(point),
            (Some(TableRead::Now(_) | TableRead::Back(_) | TableRead::Basis { .. }), ..)
            | (None, None, None) => None,
        }
    }

    /// Whether an answer that is repeated had a table of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.basis.as_ref().is_none_or(|basis| basis.snapshots.contains_key(name))
    }

    /// Notes the point of a table. The events of a collection have a name that is made of its point.
    fn note(&mut self, name: String, table: &str, read: TableRead) -> Result<(), SqlError> {
        if self.versions.get(&name).is_some_and(|(_, known)| *known != read) {
            return Err(invalid(format!(
                "the versions of two tables are both written as `{name}`; write shorter expressions"
            )));
        }
        self.versions.insert(name, (table.to_owned(), read));
        Ok(())
    }

    fn repeated(&self, name: &str, read: TableRead) -> Result<TableRead, SqlError> {
        let Some(basis) = &self.basis else { return Ok(read) };
        let Some(snapshot) = basis.snapshots.get(name) else {
            return Err(invalid(format!(
                "the basis has no snapshot of table `{name}`; send it with the statement whose answer had it"
            )));
        };
        let snapshot = snapshot.map(|SnapshotId(id)| id);
        Ok(match (read, snapshot) {
            (TableRead::Now(seqs), snapshot) => {
                TableRead::Basis { snapshot, until: basis.seq, seqs }
            }
            (TableRead::Branch { branch, until, .. }, snapshot) => {
                TableRead::Branch { branch, until, snapshot }
            }
            (_, Some(id)) => TableRead::AsOf(AsOf::Snapshot(id)),
            (read, None) => read,
        })
    }
}

/// What a request says of time, before the stores are asked.
pub(super) struct RequestTime {
    /// The point of tables without one of their own.
    pub(super) as_of: Option<AsOf>,
    /// What `now()` is, ms since 1970, as far as the request tells.
    pub(super) clock_ms: Option<i64>,
}

impl RequestTime {
    /// Reads the request.
    ///
    /// # Errors
    /// [`SqlError::Invalid`] for members that are not valid, or not together.
    pub(super) fn of(request: &SqlRequest) -> Result<Self, SqlError> {
        let as_of = request.as_of.as_ref().map(AsOf::parse).transpose()?;
        let Some(basis) = &request.basis else {
            let clock_ms = match as_of {
                Some(AsOf::Time(ms)) => Some(checked_clock("as_of", ms)?),
                Some(AsOf::Snapshot(_) | AsOf::Reference(_)) | None => None,
            };
            return Ok(Self { as_of, clock_ms });
        };
        if as_of.is_some() {
            return Err(invalid(
                "send either as_of or basis: the basis says for each table which snapshot it is",
            ));
        }
        // That is an event of `main`, of which a basis of a branch says nothing.
        if let (Some(min_seq), Some(seq), None) = (request.min_seq, basis.seq, &basis.branch)
            && seq < min_seq
        {
            return Err(invalid(format!(
                "min_seq {min_seq} is beyond the basis, which has events up to {seq}; send one of them"
            )));
        }
        let clock = DateTime::parse_from_rfc3339(&basis.clock).map_err(|_| {
            invalid("basis.clock is no RFC 3339 time; send the basis as the answer has it")
        })?;
        let clock_ms = Some(checked_clock("basis.clock", clock.timestamp_millis())?);
        Ok(Self { as_of, clock_ms })
    }
}

/// A time that `now()` can be: the engine counts its nanoseconds in 64 bits.
fn checked_clock(member: &str, ms: i64) -> Result<i64, SqlError> {
    let time = DateTime::from_timestamp_millis(ms);
    match time.and_then(|time| time.timestamp_nanos_opt()) {
        Some(_) => Ok(ms),
        None => Err(invalid(format!(
            "{member} is the time of now(), which is from the year 1678 to 2261; send a time between"
        ))),
    }
}

impl SqlInner {
    /// Works out the points of a statement. `clock_ms` is what `now()` is in them.
    pub(super) async fn points(
        &self,
        reader: PointReader<'_>,
        statement: &CheckedStatement,
        request: &SqlRequest,
        (as_of, clock_ms): (Option<AsOf>, i64),
        signal: &Arc<QuerySignal>,
    ) -> Result<QueryPoints, SqlError> {
        let levels = reader.levels;
        let mut points =
            QueryPoints { as_of, basis: request.basis.clone(), ..QueryPoints::default() };
        points.repeat_others();
        for version in &statement.versions {
            let TableVersion { name, table, .. } = version;
            let namespace = other_namespace(version, &levels.join("."))?;
            let point = version.point.with_params(&request.params)?;
            let read = match &point {
                VersionPoint::Version(expr) => TableRead::AsOf(reference(expr)?),
                VersionPoint::Time(expr) => {
                    let found = Box::pin(self.instant(levels, expr, clock_ms, signal)).await;
                    TableRead::AsOf(AsOf::Time(found.map_err(|cause| of_table(table, cause))?))
                }
                VersionPoint::Bookmark(expr) => {
                    // Later events with the same bookmark are no part of an answer that is made again.
                    let until = request.basis.as_ref().and_then(|basis| basis.seq);
                    let found = self.seq_of(reader, table, expr, until, signal);
                    let found = Box::pin(found).await?;
                    TableRead::Now(Some(SeqRange::up_to(found)))
                }
                VersionPoint::Seq(expr) => TableRead::Now(Some(SeqRange::up_to(seq(expr)?))),
                VersionPoint::BranchSeq(last, branch) => of_branch(seq(last)?, branch)?,
                VersionPoint::SeqRange(first, last) => {
                    TableRead::Now(Some(SeqRange { first: seq(first)?, last: seq(last)? }))
                }
            };
            points.hold(version, &read)?;
            let points = points.of_namespace(namespace);
            let of_view = || change_views::events_name(name, table);
            if let Some(events) = events_name(name, table).or_else(of_view) {
                points.note(events, EVENTS_TABLE, read.clone())?;
            }
            points.note(name.clone(), table, read)?;
        }
        Ok(points)
    }

    /// When the snapshot of `events` was made that `as_of` stands for, for a statement that names no table. None
    /// where there are no events.
    pub(super) async fn events_ms(
        &self,
        levels: &[String],
        points: &QueryPoints,
    ) -> Result<Option<i64>, SqlError> {
        let wanted = WantedTables::Named(vec![EVENTS_TABLE.to_owned()]);
        match Box::pin(self.sources().view(levels, &wanted, points)).await {
            Ok((view, _pin)) => Ok(basis::newest_snapshot_ms(&view, points)),
            // Such a statement needs no table.
            Err(SqlError::NoNamespace(_) | SqlError::Invalid(_)) => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    /// The time that an expression is, ms since 1970.
    async fn instant(
        &self,
        levels: &[String],
        expr: &versions::PointExpr,
        clock_ms: i64,
        signal: &Arc<QuerySignal>,
    ) -> Result<i64, SqlError> {
        if let Some(time) =
            versions::text_of(expr).and_then(|text| DateTime::parse_from_rfc3339(text).ok())
        {
            return Ok(time.timestamp_millis());
        }
        if versions::is_of_rows(expr) {
            return Err(invalid(
                "the time of a table is made of constants and now(), without columns and queries",
            ));
        }
        let expr = versions::with_zones(expr);
        let sql = format!("SELECT CAST({expr} AS TIMESTAMP WITH TIME ZONE)");
        let view = View::of(levels.join("."));
        let value = self.value(levels, &sql, view, clock_ms, signal).await?;
        let times = value.as_ref().and_then(|it| it.as_primitive_opt::<TimestampMicrosecondType>());
        match times {
            Some(times) if times.is_valid(0) => Ok(times.value(0).div_euclid(1_000)),
            _ => Err(invalid(format!("{expr} is no time"))),
        }
    }

    /// The only column of the only row of a query; none without a row. It runs to its end before the query
    /// around it starts.
    async fn value(
        &self,
        levels: &[String],
        sql: &str,
        view: View,
        clock_ms: i64,
        signal: &Arc<QuerySignal>,
    ) -> Result<Option<ArrayRef>, SqlError> {
        let statement = guard::check(sql)?;
        let (audit, _pages) = AuditPages::channel();
        // The query around it holds the slot.
        let stop = QueryStop::new(Arc::clone(signal), Box::new(()));
        let (counts, tail) = (Arc::default(), TailSource::Files);
        let controls = QueryControls { stop, counts, audit, tail };
        let query = EngineQuery { statement, params: Vec::new(), limit: None, view, clock_ms };
        let running = Box::pin(self.runner.start(levels, query, controls)).await?;
        let batches: Vec<RecordBatch> = running.rows.try_collect().await?;
        let row = batches.iter().find(|batch| batch.num_rows() != 0);
        Ok(row.and_then(|batch| batch.columns().first().cloned()))
    }
}

/// The snapshot, tag or branch that VERSION AS OF names.
fn reference(expr: &versions::PointExpr) -> Result<AsOf, SqlError> {
    if let Some(id) = versions::whole_number_of(expr) {
        return Ok(AsOf::Snapshot(id));
    }
    match versions::text_of(expr) {
        Some(text) => Ok(match text.parse() {
            Ok(id) => AsOf::Snapshot(id),
            Err(_) => AsOf::Reference(text.to_owned()),
        }),
        None => Err(invalid(format!(
            "VERSION AS OF takes the id of a snapshot, or a tag or branch in single quotes, not {expr}"
        ))),
    }
}

/// The events of a branch up to one; `main` has those that are acknowledged.
fn of_branch(until: u64, branch: &versions::PointExpr) -> Result<TableRead, SqlError> {
    match versions::text_of(branch) {
        Some(MAIN_BRANCH) => Ok(TableRead::Now(Some(SeqRange::up_to(until)))),
        Some(name) => Ok(TableRead::Branch { branch: name.to_owned(), until, snapshot: None }),
        None => Err(invalid(format!("OF BRANCH takes a branch in single quotes, not {branch}"))),
    }
}

fn seq(expr: &versions::PointExpr) -> Result<u64, SqlError> {
    let seq = versions::whole_number_of(expr).and_then(|seq| u64::try_from(seq).ok());
    seq.ok_or_else(|| invalid(format!("a seq is a whole number, not {expr}")))
}

/// The error for a version of something that is made of tables.
pub(super) fn without_versions(name: &str) -> SqlError {
    invalid(format!(
        "`{name}` has no versions: it is a view or a metadata table; send `as_of` with the statement, or write `\"events@nightly\".files` for the files of a version"
    ))
}

/// The error of a table that is not of the query's own namespace, with its namespace before its name.
pub(super) fn of_other_namespace(namespace: &str, cause: SqlError) -> SqlError {
    let named = |text: String| text.replacen("table `", &format!("table `{namespace}."), 1);
    match cause {
        SqlError::Invalid(text) => SqlError::Invalid(named(text)),
        SqlError::NotFound(text) => SqlError::NotFound(named(text)),
        SqlError::Gone { text, nearest } => SqlError::Gone { text: named(text), nearest },
        other => other,
    }
}

/// An error of a point, with the table that it is of.
fn of_table(table: &str, cause: SqlError) -> SqlError {
    match cause {
        SqlError::Invalid(text) => invalid(format!("the version of table `{table}`: {text}")),
        other => other,
    }
}

fn invalid(text: impl Into<String>) -> SqlError {
    SqlError::Invalid(text.into())
}

#[cfg(test)]
mod tests;
