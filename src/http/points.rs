//! What a point in the history of documents stands for: the last event that counts. Everything that is read at a
//! point is read at that `seq`, so that the answer can be had again.
//!
//! It is found by statements as the caller could send them, with the caller's rights.

pub(super) mod basis;
mod branches;

use crate::http::{
    AppState, body,
    error::ApiError,
    guard::CatalogNamespace,
    json, query,
    rows::{number_at, text_at, time_at, written_time},
};
use crate::sql::document_lookup::DocumentLookup;
use axum::{
    body::Body,
    extract::{Extension, State},
    http::HeaderMap,
    response::Response,
};
use futures::StreamExt;
use icecore_catalog::{access::Principal, body::parse_object};
use icecore_engine::{QueryAnswer, collections::events_at};
use icecore_lake::event::bookmark::moment_seq;
use icecore_schemas::{
    collections::{PointRequest, ResolvedPoint, TimeBasis},
    error_code::ErrorCode,
    point::{HistoryPoint, MAIN_BRANCH},
    query::{QueryBasis, SqlRequest},
    service_table::EVENTS_TABLE,
};
use serde_json::{Value, json};
use std::sync::Arc;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundPoint {
    /// The last event that counts; none for everything that is acknowledged, which `main` alone has.
    pub(super) seq: Option<u64>,
    /// The snapshot of `events` that the point names, where it names one.
    pub(super) snapshot: Option<i64>,
    /// The branch whose event that is; none for `main`.
    pub(super) branch: Option<Arc<str>>,
}

impl FoundPoint {
    /// Everything that is acknowledged.
    pub(super) const NOW: Self = Self { seq: None, snapshot: None, branch: None };

    fn at(seq: u64) -> Self {
        Self { seq: Some(seq.min(SEQ_MAX)), ..Self::NOW }
    }

    /// An event of the branch that this point is of.
    pub(super) fn with_seq(&self, seq: u64) -> Self {
        Self { branch: self.branch.clone(), ..Self::at(seq) }
    }

    /// The events up to this point, as a statement names them in FROM.
    pub(super) fn events(&self) -> String {
        match (&self.branch, self.seq) {
            (None, None) => EVENTS_TABLE.to_owned(),
            (branch, seq) => events_at(branch.as_deref(), seq.unwrap_or(SEQ_MAX)),
        }
    }

    /// The events of the branch of this point, also those behind it where it is of `main`.
    pub(super) fn events_of_branch(&self) -> String {
        match &self.branch {
            None => EVENTS_TABLE.to_owned(),
            Some(_) => self.events(),
        }
    }

    /// The basis of what was read at this point, given that of the statement that read it.
    ///
    /// # Errors
    /// 404 for a point that is still to come.
    pub(super) fn basis(self, read: Option<QueryBasis>) -> Result<QueryBasis, ApiError> {
        let read = read.unwrap_or_default();
        let Some(seq) = self.seq else { return Ok(read) };
        // Of a branch it may be that no snapshot tells its last event.
        match read.seq.filter(|last| self.branch.is_none() || *last != 0) {
            Some(last) if last < seq => Err(still_to_come(seq, last)),
            _ => {
                let branch = self.branch.as_deref().map(str::to_owned);
                Ok(QueryBasis { seq: Some(seq), branch, ..read })
            }
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
    let PointRequest { at, basis, branch } = parse_object(&body.bytes).map_err(|problem| {
        let text = format!("the body is not {{\"at\": \"seq:17\"}}: {problem}");
        ApiError::new(ErrorCode::InvalidRequest, text)
    })?;
    let caller = ReadCaller { app: &app, principal: &principal, levels: &levels };
    let point = at.parse::<HistoryPoint>();
    let point = point.map_err(|problem| invalid(format!("member `at`: {problem}")))?;
    caller.check_events().await?;
    let found = Box::pin(caller.find_on(branch.as_deref(), &point, basis)).await?;
    let seq = Box::pin(caller.seq_of(found.clone())).await?;
    let (snapshot, found) = (found.snapshot, found.with_seq(seq));
    let sql = format!(
        "SELECT CAST(ingested_at AS bigint) AS acknowledged FROM {} WHERE seq = {seq}",
        found.events_of_branch()
    );
    let mut answer = caller.ask(SqlRequest { sql, ..SqlRequest::default() }).await?;
    let basis = found.basis(answer.basis.take())?;
    let mut ts = None;
    while let Some(batch) = answer.batches.next().await {
        let batch = batch?;
        if batch.num_rows() != 0 {
            ts = ts.or_else(|| time_at(&batch, "acknowledged", 0));
        }
    }
    Ok(json(200, &ResolvedPoint { seq, snapshot, ts, basis }))
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

    /// The same for a statement that has one document.
    ///
    /// # Errors
    /// As queries.
    pub(super) async fn look_up(self, lookup: DocumentLookup) -> Result<QueryAnswer, ApiError> {
        Box::pin(query::look_up(self.app, self.principal, self.levels, lookup)).await
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

    /// What a point of `main` stands for in this namespace, for who does something there.
    ///
    /// # Errors
    /// As [`Self::find_on`]; 400 for a point of a branch.
    pub(super) async fn find(
        self,
        point: &HistoryPoint,
        basis: TimeBasis,
    ) -> Result<FoundPoint, ApiError> {
        let found = Box::pin(self.find_on(None, point, basis)).await?;
        match &found.branch {
            Some(branch) => Err(invalid(format!(
                "the point is one of branch `{branch}`, and this takes one of `main`: name an event, a time or a tag of `main`"
            ))),
            None => Ok(found),
        }
    }

    /// What a point stands for among the events of a branch, for who reads. Without one they are those of `main`, but
    /// for a point that names a branch or one of its states. `~n` is of one document, so it is none here.
    ///
    /// # Errors
    /// 400 for one that cannot be, and for one of another branch; 404 for one, or a branch, that is not there, 410 for
    /// one that was removed; else as queries.
    pub(super) async fn find_on(
        self,
        branch: Option<&str>,
        point: &HistoryPoint,
        basis: TimeBasis,
    ) -> Result<FoundPoint, ApiError> {
        if let (Some(branch), HistoryPoint::Branch(other)) = (branch, point)
            && branch != other
        {
            return Err(invalid(format!(
                "the point is branch `{other}` and the request names `{branch}`: name one of them"
            )));
        }
        let head = match branch {
            None | Some(MAIN_BRANCH) => FoundPoint::NOW,
            Some(branch) => Box::pin(self.head_of(branch)).await?,
        };
        match point {
            HistoryPoint::Now => Ok(head),
            HistoryPoint::Seq(seq) => Ok(head.with_seq(*seq)),
            HistoryPoint::Snapshot(id) => self.referred_on(branch, &head, json!(id)).await,
            HistoryPoint::Tag(name) => self.referred_on(branch, &head, json!(name)).await,
            HistoryPoint::Branch(_) if branch.is_some() => Ok(head),
            HistoryPoint::Branch(name) if name == MAIN_BRANCH => Ok(head),
            HistoryPoint::Branch(name) => self.head_of(name).await,
            HistoryPoint::Bookmark(bookmark) => {
                Ok(head.with_seq(self.bookmark_on(&head, bookmark).await?))
            }
            HistoryPoint::Before(request) => self.before(&head, request).await,
            HistoryPoint::Time(us) => match basis {
                TimeBasis::Commit => self.acknowledged(&head, *us).await,
                TimeBasis::Event => self.happened(&head, *us).await,
            },
            HistoryPoint::Number(number) => match i64::try_from(*number) {
                Ok(id) => match self.referred_on(branch, &head, json!(id)).await {
                    Err(error) if error.code() == ErrorCode::NotFound => Ok(head.with_seq(*number)),
                    found => found,
                },
                Err(_) => Ok(head.with_seq(*number)),
            },
            HistoryPoint::Named(name) => match self.bookmark_on(&head, name).await {
                Ok(seq) => Ok(head.with_seq(seq)),
                Err(error) if error.code() == ErrorCode::NotFound => {
                    let found = self.referred_on(branch, &head, json!(name)).await;
                    found.map_err(|error| no_name(name, error))
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
        let FoundPoint { seq, branch, .. } = point;
        let last = match branch {
            None => last_of(self.ask(statement(NEWEST, Vec::new())).await?).await?,
            Some(branch) => self.head_of(&branch).await?.seq.unwrap_or(0),
        };
        match seq {
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

    /// What a snapshot, tag, branch or time of `events` stands for.
    async fn referred(self, as_of: Value) -> Result<FoundPoint, ApiError> {
        let request = SqlRequest { as_of: Some(as_of), ..statement(NEWEST, Vec::new()) };
        let answer = self.ask(request).await?;
        let snapshot = answer.snapshot;
        let branch = answer.basis.as_ref().and_then(|basis| basis.branch.as_deref());
        let branch = branch.map(Arc::from);
        Ok(FoundPoint { seq: Some(last_of(answer).await?), snapshot, branch })
    }

    /// The last event that was acknowledged up to a time: what was committed then, and what waited in the log.
    async fn acknowledged(self, head: &FoundPoint, us: i64) -> Result<FoundPoint, ApiError> {
        if head.branch.is_some() {
            return self.acknowledged_on(head, us).await;
        }
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
    async fn happened(self, head: &FoundPoint, us: i64) -> Result<FoundPoint, ApiError> {
        let time = time_text(us)?;
        let sql = format!(
            "SELECT CAST(min(seq) AS bigint) AS seq FROM {} WHERE ts > CAST('{time}' AS timestamptz)",
            head.events()
        );
        let later = self.number(statement(&sql, Vec::new())).await?;
        Ok(later.map_or_else(|| head.clone(), |seq| head.with_seq(seq.saturating_sub(1))))
    }

    /// The last event before those of a request, which is known by the names that its events keep.
    async fn before(self, head: &FoundPoint, request: &str) -> Result<FoundPoint, ApiError> {
        let sql = format!(
            "SELECT CAST(min(seq) AS bigint) AS seq FROM {} WHERE batch_id = $1 OR correlation_id = $1",
            head.events()
        );
        match self.number(statement(&sql, vec![request.into()])).await? {
            Some(seq) => Ok(head.with_seq(seq.saturating_sub(1))),
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
    fn a_point_of_a_branch_is_read_and_repeated_there() {
        let point = FoundPoint { branch: Some("tri'al".into()), ..FoundPoint::at(7) };
        assert_eq!(point.events(), "events FOR SEQ AS OF 7 OF BRANCH 'tri''al'");
        assert_eq!(point.events_of_branch(), point.events());
        let at_5 = FoundPoint::at(5);
        assert_eq!(
            (at_5.events().as_str(), at_5.events_of_branch().as_str()),
            ("events FOR SEQ AS OF 5", "events")
        );
        assert_eq!(FoundPoint::NOW.events(), "events");
        let read = |seq| Some(QueryBasis { seq: Some(seq), ..QueryBasis::default() });
        let basis = point.clone().basis(read(9)).unwrap();
        assert_eq!((basis.seq, basis.branch.as_deref()), (Some(7), Some("tri'al")));
        // The last event of the branch is not known.
        assert_eq!(point.clone().basis(read(0)).unwrap().seq, Some(7));
        assert_eq!(point.basis(read(3)).unwrap_err().code(), ErrorCode::NotFound);
    }

    #[test]
    fn a_parameter_that_is_no_point_is_named() {
        assert_eq!(parse("at", None).unwrap(), HistoryPoint::Now);
        let error = parse("from", Some("seq:x")).unwrap_err().to_string();
        assert!(error.starts_with("query parameter `from`: `x` is not a whole number"), "{error}");
    }
}
