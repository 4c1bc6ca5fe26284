//! What a branch has of the events of a body, by their ids.

use crate::http::{
    AppState,
    branches::no_events,
    error::ApiError,
    guard,
    rows::{number_at, text_at},
    state_rows,
};
use arrow::{array::AsArray, record_batch::RecordBatch};
use futures::StreamExt;
use icecore_lake::{
    blocking::blocking,
    event::{DecodedBody, NamespaceEvents, same::says_the_same, stored_key},
};
use icecore_schemas::query::SqlRequest;
use serde_json::json;
use std::{collections::HashMap, sync::Arc};

/// Most ids that one statement looks for, and most bytes of them, so that it is no longer than statements may be.
const IDS_MAX: usize = 500;
const IDS_BYTES_MAX: usize = 32 << 10;

/// The event that a branch has with the id of one of a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredEvent {
    pub(super) seq: u64,
    /// Whether both say the same.
    pub(super) is_same: bool,
}

/// What a snapshot has of the events of a body, for each of them. Stored rows are compared as they come: all of them
/// may be many times as long as the body.
///
/// # Errors
/// As queries.
pub(super) async fn stored(
    app: &AppState,
    decoded: &Arc<DecodedBody>,
    snapshot: i64,
) -> Result<Vec<Option<StoredEvent>>, ApiError> {
    let events = &decoded.accepted[0];
    let levels = guard::levels(&events.namespace);
    let ids = events.rows.column_by_name("id").and_then(|ids| ids.as_string_opt::<i32>());
    let ids: Vec<String> = ids
        .into_iter()
        .flat_map(|ids| ids.iter().flatten())
        .map(|id| format!("'{}'", id.replace('\'', "''")))
        .collect();
    let mut places: HashMap<u128, Vec<usize>> = HashMap::new();
    for (row, key) in events.keys.iter().enumerate() {
        places.entry(key.id).or_default().push(row);
    }
    let places = Arc::new(places);
    let mut stored = vec![None; events.keys.len()];
    for part in parts(&ids) {
        let request = SqlRequest {
            sql: format!("SELECT * FROM events WHERE id IN ({})", part.join(", ")),
            as_of: Some(json!(snapshot)),
            ..SqlRequest::default()
        };
        let answer = state_rows::ask(app, &levels, request).await?;
        let mut answer = answer.ok_or_else(|| no_events(&events.namespace))?;
        while let Some(batch) = answer.batches.next().await {
            let batch = batch?;
            let (decoded, places) = (Arc::clone(decoded), Arc::clone(&places));
            let found = blocking(move || found_in(&batch, &decoded.accepted[0], &places)).await;
            for (row, event) in found {
                stored[row] = Some(event);
            }
        }
    }
    Ok(stored)
}

/// The events of a body that stored rows have the ids of. `places` are where each key is in the body.
fn found_in(
    batch: &RecordBatch,
    events: &NamespaceEvents,
    places: &HashMap<u128, Vec<usize>>,
) -> Vec<(usize, StoredEvent)> {
    let mut found = Vec::new();
    for at in 0..batch.num_rows() {
        let (Some(id), Some(seq)) = (text_at(batch, "id", at), number_at(batch, "seq", at)) else {
            continue;
        };
        let (source, payload) = (text_at(batch, "source", at), text_at(batch, "payload", at));
        let key = stored_key(&events.namespace, &id, source.as_deref(), payload.as_deref());
        let Some(rows) = places.get(&key) else { continue };
        let row_of_id = batch.slice(at, 1);
        found.extend(rows.iter().map(|row| {
            (*row, StoredEvent { seq, is_same: says_the_same(&row_of_id, events, *row) })
        }));
    }
    found
}

/// Ids in parts that fit into a statement, each of one id at least.
fn parts(ids: &[String]) -> Vec<&[String]> {
    let mut parts = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, id) in ids.iter().enumerate() {
        let is_full = IDS_MAX <= at - start || IDS_BYTES_MAX < bytes + id.len();
        if is_full && start < at {
            parts.push(&ids[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += id.len();
    }
    if start < ids.len() {
        parts.push(&ids[start..]);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_looked_for_in_parts_that_fit() {
        let ids: Vec<String> = (0..IDS_MAX * 2 + 1).map(|id| id.to_string()).collect();
        let lengths: Vec<usize> = parts(&ids).iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [IDS_MAX, IDS_MAX, 1]);
        let long = vec!["x".repeat(IDS_BYTES_MAX); 3];
        assert_eq!(parts(&long).len(), 3);
        assert!(parts(&[]).is_empty());
    }
}
