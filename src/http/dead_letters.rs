//! `/v1/{ns}/dead-letters`: refused events as a list, as their bytes, sent again, discarded.
//!
//! The table is only appended to, so every look resolves the rows of an id to its newest. What is
//! read is the log's tail and the table, as SQL reads them: a letter is there once its refusal was
//! answered. Nothing here holds more than a page of letters.

mod retry;
mod rows;

use crate::{
    http::{
        AppState,
        error::ApiError,
        guard::levels,
        health::not_taken,
        json, parse_namespace,
        query_string::{QueryParameters, page_size},
    },
    ingest::{LetterChange, Submission},
};
use axum::{
    extract::{Extension, Path, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, SecondsFormat};
use icecore_catalog::access::Principal;
use icecore_schemas::{
    dead_letters::{self as bodies, DiscardLetters, DiscardReply, LetterList, LetterPage},
    error_code::ErrorCode,
    names::Namespace,
    service_table::DEAD_LETTERS_TABLE,
};
pub(super) use retry::retry;
use rows::{LetterCursor, LetterFilter, NewestLetter, newest, page_of_ids, payload};
use ulid::Ulid;

/// Letters of a page that names no limit, and most of any page.
const PAGE_LETTERS: usize = 100;
const PAGE_LETTERS_MAX: usize = 1000;
/// Letters that are discarded in one append to the log.
const DISCARD_LETTERS_MAX: usize = 500;

/// `GET /v1/{ns}/dead-letters?reason=&status=&after=&limit=`: the oldest first, without payloads.
///
/// # Errors
/// 400, 404 for a namespace that is not there, 429 and 503 as queries.
pub async fn list(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Path(namespace): Path<String>,
    QueryParameters(page): QueryParameters<LetterPage>,
) -> Result<Response, ApiError> {
    let namespace = parse_namespace(&namespace)?;
    app.sql.check_sees_all(&principal, &levels(&namespace), DEAD_LETTERS_TABLE)?;
    let limit = page_size(page.limit, PAGE_LETTERS, PAGE_LETTERS_MAX)?;
    let after = page.after.map(|after| {
        let text = "query parameter `after`: it must be the `next` of an earlier page";
        let id = Ulid::from_string(&after);
        id.map_err(|_| ApiError::new(ErrorCode::InvalidRequest, text))
    });
    let after = after.transpose()?.map(|id| id.to_string());
    let wanted =
        LetterFilter { reason: page.reason, status: page.status, ..LetterFilter::default() };
    let mut cursor = LetterCursor::after(after);
    let mut listed: Vec<NewestLetter> = Vec::new();
    // A page of ids may have letters whose reason is another by now.
    while !cursor.is_at_end && listed.len() < limit {
        let ids = page_of_ids(&app, &namespace, &wanted, &mut cursor, limit - listed.len()).await?;
        let letters = newest(&app, &namespace, &ids).await?;
        listed.extend(letters.into_iter().filter(|letter| wanted.includes(letter)));
    }
    let next = (!cursor.is_at_end).then_some(cursor.after);
    Ok(json(200, &LetterList { dead_letters: listed.into_iter().map(describe).collect(), next }))
}

/// `GET /v1/{ns}/dead-letters/{id}`: the event's bytes as they came; what else is known of the
/// letter is in headers `x-icecore-*`.
///
/// # Errors
/// 404 for one that is not there or was discarded.
pub async fn show(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Path((namespace, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let namespace = parse_namespace(&namespace)?;
    app.sql.check_sees_all(&principal, &levels(&namespace), DEAD_LETTERS_TABLE)?;
    let gone = || {
        let text = "no such dead letter, or it was discarded; GET /v1/{ns}/dead-letters lists them";
        ApiError::new(ErrorCode::NotFound, text)
    };
    let letters = newest(&app, &namespace, std::slice::from_ref(&id)).await?;
    let mut letter = letters.into_iter().next().filter(|letter| !letter.is_discarded());
    let letter = letter.as_mut().ok_or_else(gone)?;
    letter.row.payload = payload(&app, &namespace, &id).await?.ok_or_else(gone)?;
    let bytes = letter.row.bytes().into_owned();
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok();
    let media = if is_json { "application/json" } else { "application/octet-stream" };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    // A page that a browser shows must not become what somebody sent.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    for (name, text) in [
        ("x-icecore-reason", letter.row.reason.clone()),
        ("x-icecore-status", letter.row.status.as_str().to_owned()),
        ("x-icecore-received-at", time(letter.first_us)),
    ] {
        if let Ok(text) = HeaderValue::from_str(&text) {
            headers.insert(name, text);
        }
    }
    Ok((headers, bytes).into_response())
}

/// `DELETE /v1/{ns}/dead-letters?before=TIME`: discards what was received before that time.
///
/// Their newest rows say `discarded` on return. The rows that have the bytes stay in the table's
/// files until those are rewritten.
///
/// # Errors
/// 400, 404 for a namespace that is not there, 503.
pub async fn purge(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Path(namespace): Path<String>,
    QueryParameters(purge): QueryParameters<DiscardLetters>,
) -> Result<Response, ApiError> {
    let before = purge.before.as_deref().map(DateTime::parse_from_rfc3339);
    let Some(Ok(before)) = before else {
        let text = "set `before`: before=2026-11-20T12:00:00Z discards what arrived earlier";
        return Err(ApiError::new(ErrorCode::InvalidRequest, text));
    };
    app.owner.check().map_err(|reason| not_taken(Some(&principal), &reason))?;
    let namespace = parse_namespace(&namespace)?;
    let wanted =
        LetterFilter { before_us: Some(before.timestamp_micros()), ..LetterFilter::until(&app) };
    let mut cursor = LetterCursor::after(None);
    let mut purged = 0;
    while !cursor.is_at_end {
        let ids = page_of_ids(&app, &namespace, &wanted, &mut cursor, DISCARD_LETTERS_MAX).await?;
        purged += ids.len() as u64;
        if purge.dry_run {
            continue;
        }
        let letters = newest(&app, &namespace, &ids).await?;
        for (namespace, letters) in by_namespace(&namespace, letters) {
            let letters = LetterChange::Discarded(namespace, letters);
            app.ingest.append(Submission { letters, ..Submission::default() }).await?;
        }
    }
    Ok(json(200, &DiscardReply { purged, dry_run: purge.dry_run }))
}

/// Letters by the namespace that their new rows are written for: the one that they name, as long as
/// its table is this one.
fn by_namespace(
    asked: &Namespace,
    letters: Vec<NewestLetter>,
) -> Vec<(Namespace, Vec<icecore_lake::event::dead_letter::DeadLetter>)> {
    let mut parts: Vec<(Namespace, Vec<_>)> = Vec::new();
    for letter in letters {
        let namespace = letter.namespace(asked);
        match parts.iter_mut().find(|(other, _)| *other == namespace) {
            Some((_, letters)) => letters.push(letter.row),
            None => parts.push((namespace, vec![letter.row])),
        }
    }
    parts
}

fn describe(letter: NewestLetter) -> bodies::Letter {
    let (first_us, newest_us, row) = (letter.first_us, letter.newest_us, letter.row);
    bodies::Letter {
        id: row.id,
        ns: row.namespace,
        received_at: time(first_us),
        reason: row.reason,
        detail: row.detail,
        event_type: row.event_type,
        event_id: row.event_id,
        batch_id: row.batch_id,
        source: row.source,
        correlation_id: row.correlation_id,
        retries: row.retries.unwrap_or(0),
        status: row.status.as_str().to_owned(),
        changed_at: time(newest_us),
    }
}

fn time(us: i64) -> String {
    let time = DateTime::from_timestamp_micros(us).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}
