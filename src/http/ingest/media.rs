//! What a body of events is, by its media type. Emitters call the same few forms by many names.

use crate::http::error::ApiError;
use axum::http::{HeaderMap, header};
use icecore_lake::event::BodyFormat;
use icecore_schemas::error_code::ErrorCode;

/// How the body is written.
///
/// # Errors
/// 415 for other media types and character sets.
pub(super) fn body_format(headers: &HeaderMap) -> Result<BodyFormat, ApiError> {
    let text = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("application/json");
    let (media, parameters) = text.split_once(';').unwrap_or((text, ""));
    let media = media.trim().to_ascii_lowercase();
    // Binary mode: the data has a media type and character set of its own, the event is in the headers.
    let is_binary = headers.contains_key("ce-specversion");
    let format = known(&media);
    let is_cloud_event =
        matches!(format, Some(BodyFormat::CloudEvent | BodyFormat::CloudEventBatch));
    if is_binary && !is_cloud_event {
        return Ok(BodyFormat::CloudEvent);
    }
    // Of others the ASCII part is the same; what is not is found in the body.
    if let Some(charset) = charset(parameters).filter(|charset| is_wide(charset)) {
        let reason = format!("the body must be UTF-8, not {charset:?}");
        return Err(ApiError::new(ErrorCode::UnsupportedMediaType, reason));
    }
    format.ok_or_else(|| {
        ApiError::new(
            ErrorCode::UnsupportedMediaType,
            "Content-Type must be application/json, application/x-ndjson, application/json-seq, application/cloudevents+json, application/cloudevents-batch+json or application/avro",
        )
    })
}

fn known(media: &str) -> Option<BodyFormat> {
    Some(match media {
        "application/cloudevents+json" => BodyFormat::CloudEvent,
        "application/cloudevents-batch+json" => BodyFormat::CloudEventBatch,
        "application/avro" | "application/vnd.apache.avro" | "avro/binary" => BodyFormat::Avro,
        "" | "application/json" | "text/json" | "text/plain" => BodyFormat::Json,
        // What curl says of `-d` without another word.
        "application/x-www-form-urlencoded" => BodyFormat::Json,
        "application/stream+json" | "application/x-json-stream" | "application/json-stream" => {
            BodyFormat::JsonSequence
        }
        _ if media.ends_with("json-seq") => BodyFormat::JsonSequence,
        _ if is_lines(media) => BodyFormat::Ndjson,
        // RFC 6839: whatever else it is, it is JSON.
        _ if media.ends_with("+json") => BodyFormat::Json,
        _ => return None,
    })
}

/// `application/x-ndjson` and its many other names.
fn is_lines(media: &str) -> bool {
    let Some((kind, name)) = media.split_once('/') else { return false };
    let name = name.strip_prefix("x-").unwrap_or(name);
    let names =
        ["ndjson", "jsonl", "jsonlines", "json-lines", "json-l", "ldjson", "nd-json", "jsons"];
    ["application", "text"].contains(&kind)
        && (names.contains(&name) || name.ends_with("+ndjson") || name.ends_with("+jsonl"))
}

fn charset(parameters: &str) -> Option<&str> {
    parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_charset = name.trim().eq_ignore_ascii_case("charset");
        is_charset.then(|| value.trim().trim_matches('"').trim())
    })
}

/// Whether a character has more than one byte in the charset, also where it has one in UTF-8.
fn is_wide(charset: &str) -> bool {
    let charset = charset.to_ascii_lowercase();
    ["utf-16", "utf16", "utf-32", "utf32", "ucs-", "ucs2", "ucs4", "unicode"]
        .iter()
        .any(|name| charset.starts_with(name))
}
