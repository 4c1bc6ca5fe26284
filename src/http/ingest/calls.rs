//! The routes that the libraries of Segment and RudderStack post to: batches of calls, and single
//! calls by their type.
//!
//! Their one invariant: a library never hears of a batch of which some calls were taken that it
//! failed. It would send the whole batch again and again; what was refused of it is a dead letter.

use crate::http::{AppState, error::ApiError, ingest::take, query_string::QueryParameters};
use axum::{
    body::Body,
    extract::{Extension, MatchedPath, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use bytes::Bytes;
use icecore_catalog::access::Principal;
use icecore_schemas::batch::IngestParameters;
use serde::{Deserialize, Deserializer, de::IgnoredAny};

/// Takes the calls of a body. One without a type has that of its path.
///
/// # Errors
/// As [`super::ingest`].
pub(in crate::http) async fn calls(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    path: MatchedPath,
    QueryParameters(parameters): QueryParameters<IngestParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut answer =
        take(&app, &principal, parameters, &headers, body, of_path(path.as_str())).await?;
    if answer.status() == StatusCode::MULTI_STATUS {
        *answer.status_mut() = StatusCode::OK;
    }
    Ok(answer)
}

/// The type of a path's calls; none for a path of batches.
fn of_path(path: &str) -> Option<&'static str> {
    Some(match path.strip_prefix("/v1/")? {
        "track" | "t" => "track",
        "identify" | "i" => "identify",
        "page" | "p" => "page",
        "screen" | "s" => "screen",
        "group" | "g" => "group",
        "alias" | "a" => "alias",
        _ => return None,
    })
}

/// What tells a call without a type from other objects, which have their own type, or calls.
#[derive(Deserialize)]
struct CallSigns {
    #[serde(rename = "type", alias = "batch", alias = "events")]
    #[serde(default, deserialize_with = "is_there")]
    is_typed: bool,
}

/// A member is there whatever its value is.
fn is_there<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

/// The body with `kind` as its type, if it is an object without one. So a dead letter of it has the
/// type, too.
pub(super) fn with_type(body: Bytes, kind: &str) -> Bytes {
    let Some(rest) = body.trim_ascii_start().strip_prefix(b"{") else { return body };
    let signs = serde_json::from_slice::<CallSigns>(&body);
    let is_untyped = signs.is_ok_and(|signs| !signs.is_typed);
    if !is_untyped {
        return body;
    }
    let rest = rest.trim_ascii_start();
    let comma = if rest.starts_with(b"}") { "" } else { "," };
    let head = format!("{{\"type\":\"{kind}\"{comma}");
    [head.as_bytes(), rest].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_without_a_type_has_that_of_its_path() {
        let check = |body: &str, expected: &str| {
            let typed = with_type(Bytes::copy_from_slice(body.as_bytes()), "track");
            assert_eq!(typed, expected.as_bytes(), "{body}");
        };
        check(r#" { "event": "a"}"#, r#"{"type":"track","event": "a"}"#);
        check("{ }", r#"{"type":"track"}"#);
        check(
            r#"{"context":{"type":1,"batch":[]}}"#,
            r#"{"type":"track","context":{"type":1,"batch":[]}}"#,
        );
        for own in [
            r#"{"event":"a","type":"page"}"#,
            r#"{"type":null}"#,
            r#"{"type":"page","batch":[]}"#,
            r#"{"batch":[{"type":"track"}]}"#,
            r#"{"events":[],"type":"page"}"#,
            "{\"event\":\"a\"}\n{\"event\":\"b\"}",
            "[{}]",
            "{broken",
            "",
            "1",
        ] {
            check(own, own);
        }
    }
}
