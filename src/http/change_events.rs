//! Changes of documents that the service makes for its callers, as the events that anybody could send, and their way
//! into the log: all of a batch or none.
//!
//! Its one invariant: what a batch says of a document is the text of a state, so it is not measured by the limits of
//! what senders may send.

use crate::{
    http::{AppState, error::ApiError, guard, ingest::compare, parse_namespace, tables},
    ingest::{IngestError, Receipt, Submission, WatchedDocuments},
};
use bytes::Bytes;
use icecore_catalog::access::Principal;
use icecore_lake::{
    blocking::blocking,
    collection::ChangeOp,
    event::{BodyError, BodyFormat, DecodedBody, EventLimits, RequestContext, decode},
};
use icecore_schemas::{error_code::ErrorCode, names::Namespace};
use serde_json::Value;
use std::sync::Arc;

/// The visibility of what `admin` alone may see, as no scope names it: what a restore says of a whole collection, and
/// changes of documents whose own event is gone, so that nothing says any more who may see them.
pub(super) const ADMIN_VISIBILITY: &str = "admin";

/// The namespace whose events a path means. `levels` are where the caller has the right to write.
///
/// # Errors
/// 400, 404 where the path is of a namespace of the catalog whose name is another one's in events, 503.
pub(super) async fn namespace_of(
    app: &AppState,
    principal: &Principal,
    levels: &[String],
    text: &str,
) -> Result<Namespace, ApiError> {
    let namespace = tables::owner(app, principal, parse_namespace(text)?).await?;
    if guard::levels(&namespace).as_slice() == levels {
        return Ok(namespace);
    }
    let text = format!(
        "namespace `{}` of the catalog takes no events: name it as its events do",
        levels.join(".")
    );
    Err(ApiError::new(ErrorCode::NotFound, text))
}

/// One change of a document.
#[derive(Clone, Debug)]
pub(super) struct ChangeEvent<'a> {
    /// What a repeat of the change is known by.
    pub(super) id: &'a str,
    pub(super) op: ChangeOp,
    pub(super) collection: &'a str,
    pub(super) key: &'a str,
    pub(super) store: Option<&'a str>,
    /// Who sees it, where rows are told apart by that.
    pub(super) visibility: Option<&'a str>,
    /// The document before, as its column has it.
    pub(super) before: Option<&'a str>,
    /// The document after.
    pub(super) after: Option<&'a str>,
    /// What the service says of the change.
    pub(super) meta: &'a Value,
}

impl ChangeEvent<'_> {
    /// The event as JSON.
    pub(super) fn text(&self) -> String {
        let quoted = |text: &str| serde_json::to_string(text).expect("a text is JSON");
        let kind = match self.op {
            ChangeOp::Create => "cdc.insert",
            ChangeOp::Update => "cdc.update",
            ChangeOp::Delete => "cdc.delete",
            ChangeOp::Read => "cdc.read",
        };
        let mut text = format!(
            r#"{{"id":{},"type":"{kind}","op":"{}","collection":{},"key":{},"_meta":{}"#,
            quoted(self.id),
            self.op.code(),
            quoted(self.collection),
            quoted(self.key),
            self.meta,
        );
        let (store, visibility) = (self.store.map(quoted), self.visibility.map(quoted));
        let (before, after) = (self.before.map(document), self.after.map(document));
        for (name, value) in
            [("store", store), ("visibility", visibility), ("before", before), ("after", after)]
        {
            if let Some(value) = value {
                for part in [",\"", name, "\":", &value] {
                    text.push_str(part);
                }
            }
        }
        text.push('}');
        text
    }
}

/// A document as JSON that fills its column with this text again: the column has JSON as it was sent, a text with its
/// quotes. What is no JSON, as other engines may write it, becomes a text, and so does `null`, which would be no
/// document.
fn document(text: &str) -> String {
    let is_null = text.trim_ascii() == "null";
    match !is_null && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        true => text.to_owned(),
        false => Value::from(text).to_string(),
    }
}

/// Appends events, given as JSON, to the log: on return all of them are durable, those of a repeat once. They keep the
/// name that the client gave its request.
///
/// # Errors
/// What one of them is refused for; then none is taken. 429 and 503 as `POST /ingest`.
pub(super) async fn append(
    app: &AppState,
    namespace: &Namespace,
    events: &[String],
    request_id: Option<&str>,
) -> Result<Receipt, ApiError> {
    let _room = app.room.take(events.iter().map(String::len).sum())?;
    let submission = submission(app, namespace, events, request_id).await?;
    let received = submission.decoded.received as u64;
    let receipt = Box::pin(compare::append(app, submission)).await?;
    all_taken(app, received, receipt)
}

/// The same, but none where one of the watched documents was written; nothing is taken then.
///
/// # Errors
/// As [`append`].
pub(super) async fn append_unless_written(
    app: &AppState,
    namespace: &Namespace,
    events: &[String],
    watched: Option<Arc<WatchedDocuments>>,
) -> Result<Option<Receipt>, ApiError> {
    let _room = app.room.take(events.iter().map(String::len).sum())?;
    let submission = submission(app, namespace, events, None).await?;
    let received = submission.decoded.received as u64;
    let submission = Submission { unless_written: watched, ..submission };
    match Box::pin(compare::append(app, submission)).await {
        Ok(receipt) => all_taken(app, received, receipt).map(Some),
        Err(IngestError::Overtaken) => Ok(None),
        Err(cause) => Err(cause.into()),
    }
}

async fn submission(
    app: &AppState,
    namespace: &Namespace,
    events: &[String],
    request_id: Option<&str>,
) -> Result<Submission, ApiError> {
    let (decoded, bytes) = decoded(app, namespace, events, request_id).await?;
    Ok(Submission { decoded, atomic: true, bytes, ..Submission::default() })
}

/// Counts events, and gives their receipt where all were taken.
fn all_taken(app: &AppState, received: u64, receipt: Receipt) -> Result<Receipt, ApiError> {
    let refused = receipt.refused.len() as u64;
    app.metrics.count_events(received, receipt.duplicates, refused);
    // The others were refused because one was.
    let first = receipt.refused.iter().find(|one| one.code != ErrorCode::BatchAborted);
    match first.or(receipt.refused.first()) {
        Some(refused) => Err(ApiError::new(refused.code, refused.reason.clone())),
        None => Ok(receipt),
    }
}

/// Events, given as JSON, as they are written, with the bytes of their texts. They are not measured by the limits of
/// senders.
///
/// # Errors
/// What their text as a whole is refused for.
pub(super) async fn decoded(
    app: &AppState,
    namespace: &Namespace,
    events: &[String],
    request_id: Option<&str>,
) -> Result<(DecodedBody, usize), ApiError> {
    let body = Bytes::from(format!("[{}]", events.join(",")));
    let arrival = RequestContext {
        now_us: app.clock.now_us(),
        namespace: namespace.clone(),
        first_id: app.ids.first_of_run(),
        cloud_event: Vec::new(),
        correlation_id: None,
        request_id: request_id.map(str::to_owned),
        again: None,
    };
    let limits = EventLimits {
        event_bytes_max: usize::MAX,
        batch_events_max: usize::MAX,
        depth_max: usize::MAX,
        takes_merge_ids: true,
        ..app.limits.clone()
    };
    let bytes = body.len();
    let decoded = blocking(move || -> Result<DecodedBody, BodyError> {
        let (mut decoded, _) = decode::decode(&body, BodyFormat::Json, &arrival, &limits)?;
        decoded.source.bytes = body;
        Ok(decoded)
    });
    let decoded = decoded.await.map_err(|cause| ApiError::new(cause.code, cause.reason))?;
    Ok((decoded, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_says_the_texts_of_its_columns() {
        let meta = serde_json::json!({ "restore_of": "r-1" });
        let event = ChangeEvent {
            id: "a\"b",
            op: ChangeOp::Update,
            collection: "users",
            key: "1/\n",
            store: None,
            visibility: Some("team"),
            before: Some("\"a text\""),
            after: Some("{ \"n\": 1.0 }"),
            meta: &meta,
        };
        assert_eq!(
            event.text(),
            r#"{"id":"a\"b","type":"cdc.update","op":"u","collection":"users","key":"1/\n","_meta":{"restore_of":"r-1"},"visibility":"team","before":"a text","after":{ "n": 1.0 }}"#
        );
        for (text, expected) in [
            ("5", "5"),
            ("-1.50", "-1.50"),
            ("true", "true"),
            ("null", "\"null\""),
            ("\"a\"", "\"a\""),
            (" {\"a\": 1}", " {\"a\": 1}"),
            ("plain text", "\"plain text\""),
            ("{broken", "\"{broken\""),
            ("", "\"\""),
        ] {
            assert_eq!(document(text), expected, "{text}");
        }
    }
}
