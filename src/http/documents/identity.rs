//! What a keyed write is known by when it is sent again, and what became of it the first time.
//!
//! Only its `Idempotency-Key` names a request. Its document and the version that it expects do not: two writers that
//! count one up from the same version send the same words.

use super::{DocumentPlace, WriteOutcome};
use crate::http::{
    AppState,
    branches::append::BranchHead,
    error::ApiError,
    rows::{number_at, text_at},
    state_rows::{self, first_row},
    turns::joined,
};
use axum::http::HeaderMap;
use icecore_schemas::{error_code::ErrorCode, query::SqlRequest};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

/// The header that names a request.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Longest of them, in bytes.
const KEY_BYTES_MAX: usize = 256;

/// What is asked for.
#[derive(Debug)]
pub(super) struct WriteRequest {
    /// The document; none to delete it.
    pub(super) doc: Option<String>,
    /// The version that it must have; 0 for none.
    pub(super) expected: Option<u64>,
    /// What its client calls the request, for who looks for it; no repeat is known by it.
    pub(super) request_id: Option<String>,
}

/// The name that a client gave its request.
#[derive(Debug)]
pub(in crate::http) struct RequestKey(pub(in crate::http) String);

impl RequestKey {
    /// The key in the headers, if there is one.
    ///
    /// # Errors
    /// 400 for one that is not valid.
    pub(in crate::http) fn of(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
        let text = value.to_str().ok().filter(|text| (1..=KEY_BYTES_MAX).contains(&text.len()));
        let text = text.ok_or_else(|| {
            let text = format!(
                "the header Idempotency-Key must have 1 to {KEY_BYTES_MAX} printable ASCII characters"
            );
            ApiError::new(ErrorCode::InvalidRequest, text)
        })?;
        Ok(Some(Self(text.to_owned())))
    }
}

/// The id of the event of a request with this key. Events that are copied into another namespace are no requests there.
pub(super) fn of_key(
    DocumentPlace { namespace, collection, key, branch, .. }: &DocumentPlace,
    RequestKey(name): &RequestKey,
) -> String {
    let mut texts = vec!["key", namespace.name(), collection.as_str(), key.as_str(), name.as_str()];
    // A branch has the events of `main` up to its fork, and they are no requests to it.
    texts.extend(branch.as_deref());
    format!("doc-{:032x}", xxh3_128(&joined(&texts)))
}

/// What became of a request of this key; none where there was none.
///
/// # Errors
/// 409 where the key is another request's.
pub(super) async fn named(
    app: &AppState,
    (document, head): (&DocumentPlace, Option<&BranchHead>),
    request: &WriteRequest,
    key: &RequestKey,
) -> Result<Option<WriteOutcome>, ApiError> {
    let id = of_key(document, key);
    let Some(event) = stored(app, (document, head), &id).await? else { return Ok(None) };
    let is_same = match &request.doc {
        Some(doc) => says_the_same(event.after.as_deref(), doc),
        None => event.after.is_none(),
    };
    if !is_same {
        let text = format!("Idempotency-Key `{}` was used for another request", key.0);
        return Err(ApiError::new(ErrorCode::Conflict, text));
    }
    Ok(Some(event.outcome(id, head)))
}

/// The event of an earlier request.
#[derive(Debug)]
struct StoredWrite {
    seq: u64,
    after: Option<String>,
    version: u64,
}

impl StoredWrite {
    fn outcome(&self, event_id: String, head: Option<&BranchHead>) -> WriteOutcome {
        WriteOutcome {
            seq: self.seq,
            version: self.version,
            event_id,
            is_repeat: true,
            snapshot: head.map(|head| head.snapshot),
        }
    }
}

async fn stored(
    app: &AppState,
    (DocumentPlace { levels, .. }, head): (&DocumentPlace, Option<&BranchHead>),
    id: &str,
) -> Result<Option<StoredWrite>, ApiError> {
    let request = SqlRequest {
        sql: "SELECT seq, after, meta FROM events WHERE id = CAST($1 AS text) ORDER BY seq LIMIT 1"
            .to_owned(),
        params: vec![id.into()],
        as_of: head.map(|head| json!(head.snapshot)),
        ..SqlRequest::default()
    };
    let batches = state_rows::rows(app, levels, request).await?;
    let Some(row) = first_row(&batches) else { return Ok(None) };
    let meta = text_at(&row, "meta", 0).and_then(|meta| serde_json::from_str::<Value>(&meta).ok());
    let version = meta.and_then(|meta| meta["version"].as_u64()).unwrap_or(0);
    let after = text_at(&row, "after", 0);
    Ok(number_at(&row, "seq", 0).map(|seq| StoredWrite { seq, after, version }))
}

/// Whether two documents are the same, but for white space. Numbers are compared as they are written, so none is rounded.
fn says_the_same(stored: Option<&str>, sent: &str) -> bool {
    stored.is_some_and(|stored| stored == sent || compact(stored) == compact(sent))
}

/// A JSON text without the white space between its tokens.
fn compact(text: &str) -> String {
    let (mut is_in_text, mut is_escaped) = (false, false);
    let is_kept = |char: &char| {
        let is_kept = is_in_text || !char.is_ascii_whitespace();
        if *char == '"' && !is_escaped {
            is_in_text = !is_in_text;
        }
        is_escaped = is_in_text && *char == '\\' && !is_escaped;
        is_kept
    };
    text.chars().filter(is_kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use icecore_schemas::names::Namespace;

    #[test]
    fn documents_are_the_same_but_for_white_space() {
        let stored = "{\"a b\": [1, 10000000000000000000001], \"c\\\" \": null}";
        assert!(says_the_same(
            Some(stored),
            "{ \"a b\":[1,10000000000000000000001],\n\"c\\\" \":null }"
        ));
        for other in [
            "{\"ab\":[1,10000000000000000000001],\"c\\\" \":null}",
            "{\"a b\":[1,10000000000000000000002],\"c\\\" \":null}",
            "{\"a b\":[1,10000000000000000000001],\"c\\\"\":null}",
        ] {
            assert!(!says_the_same(Some(stored), other), "{other}");
        }
        assert!(!says_the_same(None, "{}"));
    }

    #[test]
    fn a_request_is_known_by_its_namespace_its_document_and_its_key() {
        let place = |namespace: &str, collection: &str, key: &str| DocumentPlace {
            levels: vec![namespace.to_owned()],
            namespace: Namespace::parse(namespace).unwrap(),
            collection: collection.to_owned(),
            key: key.to_owned(),
            branch: None,
        };
        let id = |namespace: &str, collection: &str, key: &str, name: &str| {
            of_key(&place(namespace, collection, key), &RequestKey(name.to_owned()))
        };
        let first = id("shop", "users", "1", "a");
        assert_eq!(first, id("shop", "users", "1", "a"));
        for other in [
            id("shop", "users", "2", "a"),
            id("shop", "users", "1", "b"),
            id("shop", "orders", "1", "a"),
            id("copy", "users", "1", "a"),
            id("shop", "users", "1a", ""),
            id("shop", "users1", "", "a"),
        ] {
            assert_ne!(first, other);
        }
        let of_branch =
            DocumentPlace { branch: Some("try".to_owned()), ..place("shop", "users", "1") };
        assert_ne!(first, of_key(&of_branch, &RequestKey("a".to_owned())));
    }
}
