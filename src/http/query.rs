//! `POST /v1/{ns}/sql`: one statement in, a stream of rows out.

use crate::{
    http::{App, body, error::ApiError, parse_namespace},
    sql::{
        Reach,
        output::{Format, encode},
    },
};
use axum::{
    body::Body,
    extract::{Extension, Path, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use icecore_catalog::access::{Action, Principal};
use icecore_schemas::{error_code::ErrorCode, query::SqlRequest};
use tokio::time::Instant;

/// Runs a query. A client that goes away drops the stream, which cancels the query.
///
/// # Errors
/// 400 statement or request not valid, 404, 406 no such format, 422 over a limit, 429, 500.
pub async fn query(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let namespace = parse_namespace(&namespace)?;
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("application/json");
    let Some(format) = Format::from_accept(accept) else {
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "Accept must be application/json, application/x-ndjson, text/csv, application/vnd.apache.arrow.stream or application/vnd.apache.parquet",
        ));
    };
    let body = body::read(&app, &headers, body).await?;
    let request: SqlRequest = serde_json::from_slice(&body.bytes).map_err(|problem| {
        ApiError::new(
            ErrorCode::InvalidRequest,
            format!("the body is not {{\"sql\": \"…\"}}: {problem}"),
        )
    })?;
    app.counters.count_query();
    let reach = match principal.may_everywhere(Action::Admin) {
        true => Reach::System,
        false => Reach::Namespace,
    };
    let answer = app.sql.query(&namespace, reach, request).await?;
    let chunks = encode(answer, format, move || started.elapsed())?;
    let mut response = Body::from_stream(chunks).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    Ok(response)
}
