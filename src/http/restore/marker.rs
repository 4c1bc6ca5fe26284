//! What the log itself keeps of a restore: an event where a large one begins, and one with its report behind the last
//! of its changes, in the same batch. A request that is sent again under its key finds them.

use crate::http::{
    AppState,
    change_events::ADMIN_VISIBILITY,
    error::ApiError,
    rows::{number_at, text_at},
    state_rows::{self, first_row},
    turns::joined,
};
use icecore_schemas::{
    batch::SeqRange, error_code::ErrorCode, names::Namespace, query::SqlRequest,
    restore::RestoreReport,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use xxhash_rust::xxh3::xxh3_128;

/// Types of the two events.
const BEGUN: &str = "restore.begun";
const COMPLETED: &str = "restore.completed";

/// What a restore of this key is called in a namespace. Events that are copied into another one tell of none there.
pub(super) fn restore_id(namespace: &Namespace, key: &str) -> String {
    format!("{:032x}", xxh3_128(&joined(&["restore", namespace.name(), key])))
}

/// A restore that began: what it goes on with after it broke off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BegunRestore {
    pub(super) restore: String,
    /// What was asked for.
    pub(super) request: String,
    /// The last event of the state that is put back.
    pub(super) to: u64,
    /// The last event before it.
    pub(super) head: u64,
}

/// A restore that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CompletedRestore {
    pub(super) restore: String,
    /// What was asked for.
    pub(super) request: String,
    /// The first event of batches before this one's.
    pub(super) first: Option<u64>,
    /// Events before this one in its batch.
    pub(super) before: u64,
    /// What was answered, without the `seq` of its events.
    pub(super) report: RestoreReport,
}

impl BegunRestore {
    /// The event.
    pub(super) fn text(&self) -> String {
        let id = format!("restore-{}-begun", self.restore);
        json!({ "id": id, "type": BEGUN, "visibility": ADMIN_VISIBILITY, "data": self }).to_string()
    }
}

impl CompletedRestore {
    /// The event.
    pub(super) fn text(&self) -> String {
        let id = format!("restore-{}-completed", self.restore);
        json!({ "id": id, "type": COMPLETED, "visibility": ADMIN_VISIBILITY, "data": self })
            .to_string()
    }
}

/// The beginning of the restore with this id, if the log has it.
///
/// # Errors
/// 409 where the id is of another request.
pub(super) async fn begun(
    app: &AppState,
    levels: &[String],
    id: &str,
    request: &str,
) -> Result<Option<BegunRestore>, ApiError> {
    let Some((_, data)) = stored(app, levels, &format!("restore-{id}-begun")).await? else {
        return Ok(None);
    };
    let Ok(begun) = serde_json::from_str::<BegunRestore>(&data) else { return Ok(None) };
    check(&begun.request, request)?;
    Ok(Some(begun))
}

/// The report of the restore with this id, if it was carried out.
///
/// # Errors
/// 409 where the id is of another request.
pub(super) async fn completed(
    app: &AppState,
    levels: &[String],
    id: &str,
    request: &str,
) -> Result<Option<RestoreReport>, ApiError> {
    let Some((seq, data)) = stored(app, levels, &format!("restore-{id}-completed")).await? else {
        return Ok(None);
    };
    let Ok(completed) = serde_json::from_str::<CompletedRestore>(&data) else { return Ok(None) };
    check(&completed.request, request)?;
    // The event was written before it had a number, and is the last one of its batch.
    let first = completed.first.unwrap_or_else(|| seq.saturating_sub(completed.before));
    let report = RestoreReport { seq: Some(SeqRange { first, last: seq }), ..completed.report };
    Ok(Some(report))
}

fn check(asked: &str, request: &str) -> Result<(), ApiError> {
    if asked == request {
        return Ok(());
    }
    let text =
        format!("the Idempotency-Key was used for another restore ({asked}): send another key");
    Err(ApiError::new(ErrorCode::Conflict, text))
}

/// The `seq` and the data of an event.
async fn stored(
    app: &AppState,
    levels: &[String],
    id: &str,
) -> Result<Option<(u64, String)>, ApiError> {
    let request = SqlRequest {
        sql: "SELECT seq, data FROM events WHERE id = CAST($1 AS text) ORDER BY seq LIMIT 1"
            .to_owned(),
        params: vec![id.into()],
        ..SqlRequest::default()
    };
    let row = first_row(&state_rows::rows(app, levels, request).await?);
    Ok(row.and_then(|row| number_at(&row, "seq", 0).zip(text_at(&row, "data", 0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_is_known_in_its_namespace_alone() {
        let [shop, copy] = ["shop", "copy"].map(|name| Namespace::parse(name).unwrap());
        assert_eq!(restore_id(&shop, "k"), restore_id(&shop, "k"));
        assert_ne!(restore_id(&shop, "k"), restore_id(&copy, "k"));
        assert_ne!(restore_id(&shop, "k"), restore_id(&shop, "l"));
    }
}
