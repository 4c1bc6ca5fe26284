//! What the branch that is merged into keeps of a merge: an event where a large one begins, and one with its report
//! behind the last of its changes, in the same batch.
//!
//! A request that is sent again under its key finds them. So does every later merge, also where the server ended
//! before the merge was said of the branch: what was merged once is not compared again.

use super::{common::CommonPoint, statements::BranchState};
use crate::http::{
    AppState,
    change_events::ADMIN_VISIBILITY,
    error::ApiError,
    rows::{number_at, text_at},
    state_rows::{self, first_row},
    turns::joined,
};
use icecore_engine::collections::literal;
use icecore_lake::{
    branch::Branch,
    event::{MERGE_BEGUN, MERGE_COMPLETED, MERGE_ID},
};
use icecore_schemas::{
    batch::SeqRange, branch_merge::BranchMergeReport, error_code::ErrorCode, names::Namespace,
    query::SqlRequest,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Types of the two events.
const BEGUN: &str = "merge.begun";
const COMPLETED: &str = "merge.completed";

/// From where a merge goes where, as the ids of its events begin. A branch that was made again is another one.
pub(super) fn prefix(namespace: &Namespace, branch: &Branch, into: &str) -> String {
    let made = branch.created_at.to_string();
    let name = joined(&["merge", namespace.name(), &branch.name, &made, into]);
    format!("{MERGE_ID}{:016x}", xxh3_64(&name))
}

/// What a merge of this key is called.
pub(super) fn merge_id(namespace: &Namespace, key: &str) -> String {
    format!("{:032x}", xxh3_128(&joined(&["merge", namespace.name(), key])))
}

/// The merge that is looked for or carried out.
#[derive(Clone, Copy, Debug)]
pub(super) struct MergeName<'a> {
    /// See [`prefix`].
    pub(super) prefix: &'a str,
    /// What it is called.
    pub(super) id: &'a str,
    /// What was asked for.
    pub(super) request: &'a str,
}

/// A merge that began: what it goes on with after it broke off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BegunMerge {
    /// What was asked for.
    pub(super) request: String,
    /// The last event of the branch that is merged.
    pub(super) seq: u64,
    /// The last event of the other one before it.
    pub(super) into_seq: u64,
}

/// A merge that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CompletedMerge {
    /// What was asked for.
    pub(super) request: String,
    /// The first event of batches before this one's.
    pub(super) first: Option<u64>,
    /// Events before this one in its batch.
    pub(super) before: u64,
    /// What was answered, without the `seq` of its events.
    pub(super) report: BranchMergeReport,
}

impl BegunMerge {
    /// The event. A branch of one collection takes events of that one alone.
    pub(super) fn text(&self, name: MergeName<'_>, collection: Option<&str>) -> String {
        event(BEGUN, &format!("{}-{}{MERGE_BEGUN}", name.prefix, name.id), collection, self)
    }
}

impl CompletedMerge {
    /// The event.
    pub(super) fn text(&self, name: MergeName<'_>, collection: Option<&str>) -> String {
        event(COMPLETED, &format!("{}-{}{MERGE_COMPLETED}", name.prefix, name.id), collection, self)
    }
}

fn event(kind: &str, id: &str, collection: Option<&str>, data: &impl Serialize) -> String {
    let mut event = json!({ "id": id, "type": kind, "visibility": ADMIN_VISIBILITY, "data": data });
    if let Some(collection) = collection {
        event["collection"] = collection.into();
    }
    event.to_string()
}

/// The beginning of a merge, if `into` has it.
///
/// # Errors
/// 409 where its key is of another request; else as queries.
pub(super) async fn begun(
    app: &AppState,
    levels: &[String],
    into: BranchState<'_>,
    name: MergeName<'_>,
) -> Result<Option<BegunMerge>, ApiError> {
    let condition =
        format!("id = {}", literal(&format!("{}-{}{MERGE_BEGUN}", name.prefix, name.id)));
    let found = newest::<BegunMerge>(app, levels, into, &condition).await?;
    let Some((_, begun)) = found else { return Ok(None) };
    check(&begun.request, name.request)?;
    Ok(Some(begun))
}

/// The report of a merge, if it was carried out.
///
/// # Errors
/// 409 where its key is of another request; else as queries.
pub(super) async fn completed(
    app: &AppState,
    levels: &[String],
    into: BranchState<'_>,
    name: MergeName<'_>,
) -> Result<Option<BranchMergeReport>, ApiError> {
    let id = format!("{}-{}{MERGE_COMPLETED}", name.prefix, name.id);
    let found =
        newest::<CompletedMerge>(app, levels, into, &format!("id = {}", literal(&id))).await?;
    let Some((seq, completed)) = found else { return Ok(None) };
    check(&completed.request, name.request)?;
    // The event was written before it had a number, and is the last one of its batch.
    let first = completed.first.unwrap_or_else(|| seq.saturating_sub(completed.before));
    let seq = Some(SeqRange { first, last: seq });
    Ok(Some(BranchMergeReport { seq, ..completed.report }))
}

/// The newest merge of the branch behind an event of `into`, whether it was said of the branch or not.
///
/// # Errors
/// As queries.
pub(super) async fn last_merge(
    app: &AppState,
    levels: &[String],
    into: BranchState<'_>,
    prefix: &str,
    behind: u64,
) -> Result<Option<CommonPoint>, ApiError> {
    // Senders have no event with such an id.
    let condition = format!(
        "type = '{COMPLETED}' AND seq > {behind} AND id LIKE '{prefix}-%{MERGE_COMPLETED}'"
    );
    let found = newest::<CompletedMerge>(app, levels, into, &condition).await?;
    Ok(found.map(|(into_seq, completed)| CommonPoint {
        seq: completed.report.head_seq,
        into_seq,
        is_fork: false,
    }))
}

/// The last event of the branch that the newest merge of several batches began with, carried out or not; 0 without any.
///
/// # Errors
/// As queries.
pub(super) async fn last_begun(
    app: &AppState,
    levels: &[String],
    into: BranchState<'_>,
    prefix: &str,
) -> Result<u64, ApiError> {
    // Senders have no event with such an id.
    let condition = format!("type = '{BEGUN}' AND id LIKE '{prefix}-%{MERGE_BEGUN}'");
    let found = newest::<BegunMerge>(app, levels, into, &condition).await?;
    Ok(found.map_or(0, |(_, begun)| begun.seq))
}

fn check(asked: &str, request: &str) -> Result<(), ApiError> {
    if asked == request {
        return Ok(());
    }
    let text =
        format!("the Idempotency-Key was used for another merge ({asked}): send another key");
    Err(ApiError::new(ErrorCode::Conflict, text))
}

/// The newest event under a condition: its `seq`, and its data where it is readable.
async fn newest<T: DeserializeOwned>(
    app: &AppState,
    levels: &[String],
    into: BranchState<'_>,
    condition: &str,
) -> Result<Option<(u64, T)>, ApiError> {
    let events = into.events();
    let sql = format!("SELECT seq, data FROM {events} WHERE {condition} ORDER BY seq DESC LIMIT 1");
    let request = SqlRequest { sql, ..SqlRequest::default() };
    let Some(row) = first_row(&state_rows::rows(app, levels, request).await?) else {
        return Ok(None);
    };
    let Some((seq, data)) = number_at(&row, "seq", 0).zip(text_at(&row, "data", 0)) else {
        return Ok(None);
    };
    Ok(serde_json::from_str::<T>(&data).ok().map(|data| (seq, data)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_is_known_by_both_branches_and_its_key() {
        let shop = Namespace::parse("shop").unwrap();
        let branch = |name: &str, created_at: i64| Branch {
            name: name.to_owned(),
            forked_from: "main".to_owned(),
            fork_seq: 1,
            created_at,
            collection: None,
            merges: Vec::new(),
        };
        let trial = prefix(&shop, &branch("trial", 5), "main");
        assert_eq!(trial, prefix(&shop, &branch("trial", 5), "main"));
        for other in [
            prefix(&shop, &branch("trial", 6), "main"),
            prefix(&shop, &branch("trial2", 5), "main"),
            prefix(&shop, &branch("trial", 5), "other"),
            prefix(&Namespace::parse("copy").unwrap(), &branch("trial", 5), "main"),
        ] {
            assert_ne!(trial, other);
        }
        assert_ne!(merge_id(&shop, "a"), merge_id(&shop, "b"));
        let name = MergeName { prefix: &trial, id: "7", request: "trial" };
        let begun = BegunMerge { request: "trial".to_owned(), seq: 3, into_seq: 4 };
        let event: serde_json::Value =
            serde_json::from_str(&begun.text(name, Some("users"))).unwrap();
        assert_eq!(event["id"], format!("{trial}-7-begun"));
        assert_eq!(event["collection"], "users");
        assert_eq!(serde_json::from_value::<BegunMerge>(event["data"].clone()).unwrap(), begun);
    }
}
