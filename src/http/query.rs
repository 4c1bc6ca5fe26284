//! `POST /v1/{ns}/sql`: one statement in, a stream of rows out.

use crate::http::{
    AppState, body,
    compression::{AnswerCoding, compressed},
    error::ApiError,
    guard::CatalogNamespace,
    namespaces, parse_namespace,
    sql_writes::{self, StatementSender},
    views::{self, CreateStatement},
};
use crate::sql::document_lookup::DocumentLookup;
use axum::{
    body::Body,
    extract::{Extension, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use icecore_catalog::{
    access::{Action, Principal},
    body::parse_object,
};
use icecore_engine::{
    QueryAnswer,
    error::SqlError,
    output::{AnswerPiece, AnswerPieces, ErrorPlace, OutputFormat, encode, error_text},
    references::QueryScope,
    view_definition, write_statement,
};
use icecore_schemas::{
    error_code::ErrorCode,
    query::{BASIS_HEADER, OUTCOME_HEADER, QueryBasis, SqlRequest},
};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use tokio::time::Instant;
use tracing::{Span, debug, warn};

/// Asks for a trailer that says how the query ended, and is that trailer.
const OUTCOME: HeaderName = HeaderName::from_static(OUTCOME_HEADER);
/// What the trailer has encoded, beside all that is not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// The basis of the answer, where its format has no member for it.
pub(super) const BASIS: HeaderName = HeaderName::from_static(BASIS_HEADER);
/// Longest header with a basis. It is left out where a statement reads so many tables; JSON has it always.
const BASIS_BYTES_MAX: usize = 8 << 10;

/// Runs a query, or a statement that writes. The status is sent with the first rows, so it tells of every failure before them;
/// [`ErrorPlace`] says where a later one is told. A client that goes away drops the stream, which
/// cancels the query.
///
/// # Errors
/// 400 statement, its data, or request not valid, 403 it writes without the right to, 404, 406 no such
/// format, 409 it wrote and another one came first, 422 over a limit, 429, 500.
pub async fn query(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    request: Request,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("application/json");
    let Some(format) = OutputFormat::from_accept(accept) else {
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "Accept must be application/json, application/x-ndjson, text/csv, application/vnd.apache.arrow.stream or application/vnd.apache.parquet",
        ));
    };
    let body = body::read(&app, headers, body).await?;
    let request: SqlRequest = parse_object(&body.bytes).map_err(|problem| {
        ApiError::new(
            ErrorCode::InvalidRequest,
            format!("the body is not {{\"sql\": \"…\"}}: {problem}"),
        )
    })?;
    app.metrics.queries.inc();
    let (sender, levels) = (&principal, &levels);
    let answer = if let Some(view) = view_definition::parse(&request.sql)? {
        let (parts, body, request) = (&parts, &body.bytes[..], &request);
        let asked = CreateStatement { principal: sender, levels, parts, body, request };
        Box::pin(views::create(&app, &asked, &view)).await?
    } else if let Some(statement) = write_statement::take(&request.sql)? {
        let (body, reach) = (&body.bytes[..], reach(sender));
        let sender = StatementSender { parts: &parts, body, principal: sender, levels, reach };
        let report = sql_writes::write(&app, sender, statement, request).await?;
        if format == OutputFormat::Json {
            return Ok(sql_writes::in_json(report, started.elapsed()));
        }
        sql_writes::as_rows(report)
    } else {
        ask(&app, sender, levels, request).await?
    };
    let errors = error_place(headers);
    let basis = answer.basis.as_ref().filter(|_| format != OutputFormat::Json);
    let basis = basis.and_then(basis_header);
    let pieces = encode(answer, format, errors, move || started.elapsed()).await.map_err(failed)?;
    // A Parquet file is compressed within.
    let coding = AnswerCoding::of(headers).filter(|_| format != OutputFormat::Parquet);
    let pieces = match coding {
        Some(coding) => compressed(pieces, coding, errors.is_told(format)),
        None => pieces,
    };
    let frames = frames(pieces, format, errors);
    let mut response = Body::new(StreamBody::new(frames)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    if let Some(coding) = coding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    }
    if let Some(basis) = basis {
        headers.insert(BASIS, basis);
    }
    if errors == ErrorPlace::Trailer {
        headers.insert(header::TRAILER, OUTCOME.into());
    }
    Ok(response)
}

/// How far the queries of somebody reach.
fn reach(principal: &Principal) -> QueryScope {
    match principal.may_everywhere(Action::Admin) {
        true => QueryScope::System,
        false => QueryScope::Namespace,
    }
}

/// Starts a query, whose errors say which namespaces there are where it names one that is not there.
pub(super) async fn ask(
    app: &AppState,
    principal: &Principal,
    levels: &[String],
    request: SqlRequest,
) -> Result<QueryAnswer, ApiError> {
    let asked = app.sql.query(levels, reach(principal), Some(principal), request).await;
    started(app, principal, levels, asked).await
}

/// The same for a statement that has one document.
pub(super) async fn look_up(
    app: &AppState,
    principal: &Principal,
    levels: &[String],
    lookup: DocumentLookup,
) -> Result<QueryAnswer, ApiError> {
    let asked = app.sql.look_up(levels, reach(principal), Some(principal), lookup).await;
    started(app, principal, levels, asked).await
}

/// A query that started, or why it did not.
async fn started(
    app: &AppState,
    principal: &Principal,
    levels: &[String],
    asked: Result<QueryAnswer, SqlError>,
) -> Result<QueryAnswer, ApiError> {
    match asked.map_err(refused) {
        Err(error @ SqlError::NoNamespace(_)) => {
            if let [level] = levels {
                parse_namespace(level)?;
            }
            Err(namespaces::with_others(app, principal, error.into()).await)
        }
        answer => Ok(answer?),
    }
}

/// A basis as a header: JSON in ASCII.
pub(super) fn basis_header(basis: &QueryBasis) -> Option<HeaderValue> {
    let text = serde_json::to_string(basis).ok()?;
    let mut ascii = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii() {
            ascii.push(letter);
            continue;
        }
        for unit in letter.encode_utf16(&mut [0; 2]) {
            ascii += &format!("\\u{unit:04x}");
        }
    }
    if BASIS_BYTES_MAX < ascii.len() {
        return None;
    }
    HeaderValue::from_str(&ascii).ok()
}

/// Errors are in a trailer only for a client that says it reads that trailer: any other would take
/// the body before it for a whole answer. A proxy that drops trailers drops `TE`, too.
fn error_place(headers: &HeaderMap) -> ErrorPlace {
    let says = |name: HeaderName, word: &str| {
        let value = headers.get(name).map_or(b"".as_slice(), HeaderValue::as_bytes);
        value.eq_ignore_ascii_case(word.as_bytes())
    };
    match says(header::TE, "trailers") && says(OUTCOME, "trailer") {
        true => ErrorPlace::Trailer,
        false => ErrorPlace::Body,
    }
}

/// The body as it is sent. One that cannot tell of an error breaks off, so that nobody takes it for
/// a whole one.
fn frames(
    pieces: AnswerPieces,
    format: OutputFormat,
    errors: ErrorPlace,
) -> impl Stream<Item = Result<Frame<Bytes>, SqlError>> + Send + 'static {
    let span = Span::current();
    stream::unfold(Some(pieces), move |pieces| {
        let span = span.clone();
        async move {
            let mut pieces = pieces?;
            match pieces.next().await {
                Some(AnswerPiece::Bytes(bytes)) => Some((Ok(Frame::data(bytes)), Some(pieces))),
                Some(AnswerPiece::Failed(error)) => {
                    let error = span.in_scope(|| failed(error));
                    if errors == ErrorPlace::Trailer {
                        return Some((Ok(outcome(&error_text(&error))), None));
                    }
                    if errors.is_told(format) {
                        return None;
                    }
                    // So that the rows before it are flushed.
                    tokio::task::yield_now().await;
                    Some((Err(error), None))
                }
                None if errors == ErrorPlace::Trailer => Some((Ok(outcome(b"ok")), None)),
                None => None,
            }
        }
    })
}

/// The trailer that says how a query ended.
fn outcome(text: &[u8]) -> Frame<Bytes> {
    let text = percent_encode(text, ENCODED).to_string();
    let value = HeaderValue::from_str(&text).expect("it is printable ASCII");
    Frame::trailers(HeaderMap::from_iter([(OUTCOME, value)]))
}

/// A query that did not start. Its sender is told, so the log has a line only for what costs time.
fn refused(error: SqlError) -> SqlError {
    if matches!(error, SqlError::Limit(_)) {
        return failed(error);
    }
    debug!(code = ?error.code(), %error, "query refused");
    error
}

/// A query that failed while it ran, whether its sender still hears of it or not.
fn failed(error: SqlError) -> SqlError {
    warn!(code = ?error.code(), %error, "query failed");
    error
}
