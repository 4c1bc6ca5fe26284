//! What a point in the history of documents stands for: the last event that counts. Everything that is read at a
//! point is read at that `seq`, so that the answer can be had again.
//!
//! It is found by statements as the caller could send them, with the caller's rights.

use crate::http::{
    AppState, body,
    error::ApiError,
    guard::CatalogNamespace,
    json, query,
    rows::{number_at, text_at, time_at, written_time},
};
use axum::{
    body::Body,
    extract::{Extension, State},
    http::HeaderMap,
    response::Response,
};
use futures::StreamExt;
use icecore_catalog::{access::Principal, body::parse_object};
use icecore_engine::QueryAnswer;
use icecore_lake::event::bookmark::moment_seq;
use icecore_schemas::{
    collections::{PointRequest, ResolvedPoint, TimeBasis},
    error_code::ErrorCode,
    point::HistoryPoint,
    query::{QueryBasis, SqlRequest},
};
use serde_json::{Value, json};

/// The greatest `seq` that an event can have.
const SEQ_MAX: u64 = u64::MAX >> 1;
/// What the clock of snapshots counts in, microseconds.
const CLOCK_STEP_US: i64 = 1_000;
/// The last event of `events`, at a point or now.
const NEWEST: &str = "SELECT CAST(max(seq) AS bigint) AS seq FROM events";

/// Who reads which namespace.
#[derive(Clone, Copy)]
pub(super) struct ReadCaller<'a> {
    pub(super) app: &'a AppState,
    pub(super) principal: &'a Principal,
    pub(super) levels: &'a [String],
}

/// What a point stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoundPoint {
    /// The last event that counts; none for everything that is acknowledged.
    pub(super) seq: Option<u64>,
    /// The snapshot of `events` that the point names, where it names one.
    pub(super) snapshot: Option<i64>,
}

impl FoundPoint {
    /// Everything that is acknowledged.
    pub(super) const NOW: Self = Self { seq: None, snapshot: None };

    fn at(seq: u64) -> Self {
        Self { seq: Some(seq.min(SEQ_MAX)), snapshot: None }
    }

    /// The basis of what was read at this point, given that of the statement that read it.
    ///
    /// # Errors
    /// 404 for a point that is still to come.
    pub(super) fn basis(self, read: Option<QueryBasis>) -> Result<QueryBasis, ApiError> {
        let read = read.unwrap_or_default();
        let Some(seq) = self.seq else { return Ok(read) };
        match read.seq {
            Some(last) if last < seq => Err(still_to_come(seq, last)),
            _ => Ok(QueryBasis { seq: Some(seq), ..read }),
        }
    }
}

/// `POST /v1/{ns}/resolve`: what a point stands for.
///
/// # Errors
/// 400 for what is no point, 404 for one that is not there, 410 for one that was removed, 422 and 429 as queries.
pub(super) async fn resolve(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read(&app, &headers, body).await?;
    let PointRequest { at, basis } = parse_object(&body.bytes).map_err(|problem| {
        let text = format!("the body is not {{\"at\": \"seq:17\"}}: {problem}");
        ApiError::new(ErrorCode::InvalidRequest, text)
    })?;
    let caller = ReadCaller { app: &app, principal: &principal, levels: &levels };
    let point = at.parse::<HistoryPoint>();
    let point = point.map_err(|problem| invalid(format!("member `at`: {problem}")))?;
    caller.check_events().await?;
    let found = Box::pin(caller.find(&point, basis)).await?;
    let seq = Box::pin(caller.seq_of(found)).await?;
    let sql =
        format!("SELECT CAST(ingested_at AS bigint) AS acknowledged FROM events WHERE seq = {seq}");
    let mut answer = caller.ask(SqlRequest { sql, ..SqlRequest::default() }).await?;
    let basis = FoundPoint::at(seq).basis(answer.basis.take())?;
    let mut ts = None;
    while let Some(batch) = answer.batches.next().await {
        let batch = batch?;
        if batch.num_rows() != 0 {
            ts = ts.or_else(|| time_at(&batch, "acknowledged", 0));
        }
    }
    Ok(json(200, &ResolvedPoint { seq, snapshot: found.snapshot, ts, basis }))
}

/// The point that a parameter names; everything that is acknowledged without one.
///
/// # Errors
/// 400 with the parameter.
pub(super) fn parse(parameter: &str, text: Option<&str>) -> Result<HistoryPoint, ApiError> {
    let Some(text) = text else { return Ok(HistoryPoint::Now) };
    text.parse::<HistoryPoint>()
        .map_err(|problem| invalid(format!("query parameter `{parameter}`: {problem}")))
}

impl ReadCaller<'_> {
    /// Starts a query with the caller's rights.
    ///
    /// # Errors
    /// As queries.
    pub(super) async fn ask(self, request: SqlRequest) -> Result<QueryAnswer, ApiError> {
        Box::pin(query::ask(self.app, self.principal, self.levels, request)).await
    }

    /// Whether the namespace has events. One that is not there counts as one that has: a query of it says so.
    ///
    /// # Errors
    /// The catalog's.
    pub(super) async fn has_events(self) -> Result<bool, ApiError> {
        Ok(Box::pin(self.app.sql.has_things(self.levels)).await?)
    }

    /// Refuses a namespace without events.
    ///
    /// # Errors
    /// 404.
    pub(super) async fn check_events(self) -> Result<(), ApiError> {
        if self.has_events().await? {
            return Ok(());
        }
        let text = format!("namespace `{}` has no events", self.levels.join("."));
        Err(ApiError::new(ErrorCode::NotFound, text))
    }

    /// What a point stands for in this namespace. `~n` is of one document, so it is none here.
    ///
    /// # Errors
    /// 400 for one that cannot be, 404 for one that is not there, 410 for one that was removed; else as queries.
    pub(super) async fn find(
        self,
        point: &HistoryPoint,
        basis: TimeBasis,
    ) -> Result<FoundPoint, ApiError> {
        match point {
            HistoryPoint::Now => Ok(FoundPoint::NOW),
            HistoryPoint::Seq(seq) => Ok(FoundPoint::at(*seq)),
            HistoryPoint::Snapshot(id) => self.referred(json!(id)).await,
            HistoryPoint::Tag(name) => self.referred(json!(name)).await,
            HistoryPoint::Branch(name) => Err(no_branch(name)),
            HistoryPoint::Bookmark(bookmark) => Ok(FoundPoint::at(self.bookmark(bookmark).await?)),
            HistoryPoint::Before(request) => self.before(request).await,
            HistoryPoint::Time(us) => match basis {
                TimeBasis::Commit => self.acknowledged(*us).await,
                TimeBasis::Event => self.happened(*us).await,
            },
            HistoryPoint::Number(number) => match i64::try_from(*number) {
                Ok(id) => match self.referred(json!(id)).await {
                    Err(error) if error.code() == ErrorCode::NotFound => {
                        Ok(FoundPoint::at(*number))
                    }
                    found => found,
                },
                Err(_) => Ok(FoundPoint::at(*number)),
            },
            HistoryPoint::Named(name) => match self.bookmark(name).await {
                Ok(seq) => Ok(FoundPoint::at(seq)),
                Err(error) if error.code() == ErrorCode::NotFound => {
                    self.referred(json!(name)).await.map_err(|error| no_name(name, error))
                }
                Err(error) => Err(error),
            },
            HistoryPoint::Back(_) => {
                let text = "a point ~n counts versions of one document: name another point, such as seq:17";
                Err(invalid(text.to_owned()))
            }
        }
    }

    /// The last event that counts at a point, as a number.
    ///
    /// # Errors
    /// 404 for a point that is still to come; else as queries.
    pub(super) async fn seq_of(self, point: FoundPoint) -> Result<u64, ApiError> {
        let last = last_of(self.ask(statement(NEWEST, Vec::new())).await?).await?;
        match point.seq {
            Some(seq) if last < seq => Err(still_to_come(seq, last)),
            Some(seq) => Ok(seq),
            None => Ok(last),
        }
    }

    /// The last event with a bookmark.
    ///
    /// # Errors
    /// 404 where there is none, 410 where it was removed; else as queries.
    pub(super) async fn bookmark(self, bookmark: &str) -> Result<u64, ApiError> {
        let params = || vec![Value::from(bookmark)];
        let named = format!("{NEWEST} WHERE bookmark = $1");
        // Anybody could give an event the bookmark of a moment.
        if moment_seq(bookmark).is_none()
            && let Some(seq) = self.number(statement(&named, params())).await?
        {
            return Ok(seq);
        }
        // It says why there is none, and knows the moments that no event has.
        let moment = format!("{NEWEST} FOR BOOKMARK AS OF $1");
        Ok(self.number(statement(&moment, params())).await?.unwrap_or(0))
    }

    /// What a snapshot, tag or time of `events` stands for.
    async fn referred(self, as_of: Value) -> Result<FoundPoint, ApiError> {
        let request = SqlRequest { as_of: Some(as_of), ..statement(NEWEST, Vec::new()) };
        let answer = self.ask(request).await?;
        let snapshot = answer.snapshot;
        Ok(FoundPoint { seq: Some(last_of(answer).await?), snapshot })
    }

    /// The last event that was acknowledged up to a time: what was committed then, and what waited in the log.
    async fn acknowledged(self, us: i64) -> Result<FoundPoint, ApiError> {
        let time = time_text(us)?;
        let is_past = |code: ErrorCode| {
            let is_unknown = matches!(code, ErrorCode::NotFound | ErrorCode::Gone);
            is_unknown || (code == ErrorCode::InvalidSql && us <= self.app.clock.now_us())
        };
        // The clock of snapshots has no microseconds: one of this millisecond may have later events.
        let bound = time_text(us.saturating_sub(CLOCK_STEP_US))?;
        let committed = match self.referred(json!(bound)).await {
            Ok(found) => found,
            // Nothing was committed then, or it is not known what, as after a clock was wrong: the events tell.
            Err(error) if is_past(error.code()) => FoundPoint::at(0),
            Err(error) => return Err(error),
        };
        let from = committed.seq.unwrap_or(0);
        let sql =
            format!("{NEWEST} WHERE seq > {from} AND ingested_at <= CAST('{time}' AS timestamptz)");
        match self.number(statement(&sql, Vec::new())).await? {
            Some(seq) if from < seq => Ok(FoundPoint::at(seq)),
            _ => Ok(committed),
        }
    }

    /// The last event before the first one that happened later.
    async fn happened(self, us: i64) -> Result<FoundPoint, ApiError> {
        let time = time_text(us)?;
        let sql = format!(
            "SELECT CAST(min(seq) AS bigint) AS seq FROM events WHERE ts > CAST('{time}' AS timestamptz)"
        );
        let later = self.number(statement(&sql, Vec::new())).await?;
        Ok(later.map_or(FoundPoint::NOW, |seq| FoundPoint::at(seq.saturating_sub(1))))
    }

    /// The last event before those of a request, which is known by the names that its events keep.
    async fn before(self, request: &str) -> Result<FoundPoint, ApiError> {
        let sql = "SELECT CAST(min(seq) AS bigint) AS seq FROM events \
                   WHERE batch_id = $1 OR correlation_id = $1";
        match self.number(statement(sql, vec![request.into()])).await? {
            Some(seq) => Ok(FoundPoint::at(seq.saturating_sub(1))),
            None => {
                let text = format!(
                    "no event has `{request}` as its batch_id or correlation_id: `before:` takes the batchId of a body, or else the x-request-id that its client sent, or the x-correlation-id, so send one of them with each batch"
                );
                Err(ApiError::new(ErrorCode::NotFound, text))
            }
        }
    }

    async fn number(self, request: SqlRequest) -> Result<Option<u64>, ApiError> {
        first_number(self.ask(request).await?).await
    }
}

/// A request for a statement.
pub(super) fn statement(sql: &str, params: Vec<Value>) -> SqlRequest {
    SqlRequest { sql: sql.to_owned(), params, ..SqlRequest::default() }
}

/// The last event of the state that an answer is of. Rows of other engines may have greater numbers, and the
/// basis is without them.
async fn last_of(mut answer: QueryAnswer) -> Result<u64, ApiError> {
    let basis = answer.basis.take().and_then(|basis| basis.seq).filter(|seq| 0 < *seq);
    match basis {
        Some(seq) => Ok(seq),
        None => Ok(first_number(answer).await?.unwrap_or(0)),
    }
}

/// Column `seq` of the first row.
async fn first_number(mut answer: QueryAnswer) -> Result<Option<u64>, ApiError> {
    while let Some(batch) = answer.batches.next().await {
        let batch = batch?;
        if batch.num_rows() != 0 {
            return Ok(number_at(&batch, "seq", 0));
        }
    }
    Ok(None)
}

/// The text in column `name` of every row.
///
/// # Errors
/// As queries.
pub(super) async fn texts(mut answer: QueryAnswer, name: &str) -> Result<Vec<String>, ApiError> {
    let mut texts = Vec::new();
    while let Some(batch) = answer.batches.next().await {
        let batch = batch?;
        texts.extend((0..batch.num_rows()).filter_map(|row| text_at(&batch, name, row)));
    }
    Ok(texts)
}

fn time_text(us: i64) -> Result<String, ApiError> {
    written_time(us).ok_or_else(|| invalid("the time is beyond every calendar".to_owned()))
}

/// The error for a branch: a namespace has one.
pub(super) fn no_branch(name: &str) -> ApiError {
    let text = format!("there is no branch `{name}`: a namespace has `main` alone");
    ApiError::new(ErrorCode::NotFound, text)
}

fn no_name(name: &str, error: ApiError) -> ApiError {
    if error.code() != ErrorCode::NotFound {
        return error;
    }
    let text = format!(
        "`{name}` is no bookmark, tag or branch here: write seq:17, time:2026-11-20T12:00:00Z, or the name of one that is there"
    );
    error.with_text(text)
}

fn still_to_come(seq: u64, last: u64) -> ApiError {
    let text = format!("no event has seq {seq} yet: the last one has {last}");
    ApiError::new(ErrorCode::NotFound, text)
}

fn invalid(text: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_basis_of_a_point_has_its_seq() {
        let read = |seq| Some(QueryBasis { seq, ..QueryBasis::default() });
        assert_eq!(FoundPoint::NOW.basis(read(Some(7))).unwrap().seq, Some(7));
        assert_eq!(FoundPoint::at(5).basis(read(Some(7))).unwrap().seq, Some(5));
        assert_eq!(FoundPoint::at(7).basis(read(None)).unwrap().seq, Some(7));
        let error = FoundPoint::at(8).basis(read(Some(7))).unwrap_err();
        assert_eq!(error.code(), ErrorCode::NotFound);
        assert!(error.to_string().contains("the last one has 7"), "{error}");
    }

    #[test]
    fn a_parameter_that_is_no_point_is_named() {
        assert_eq!(parse("at", None).unwrap(), HistoryPoint::Now);
        let error = parse("from", Some("seq:x")).unwrap_err().to_string();
        assert!(error.starts_with("query parameter `from`: `x` is not a whole number"), "{error}");
    }
}
