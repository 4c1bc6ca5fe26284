//! `POST /ingest?branch=`: a body of events for a branch, all or none.
//!
//! Its one invariant: what is refused is told and kept nowhere. A dead letter would be one of `main`.

use crate::{
    http::{
        AppState,
        branches::{
            append::{self, BranchOutcome},
            invalid,
        },
        error::ApiError,
        ingest::reply,
        parse_namespace, tables,
    },
    ingest::{Receipt, RefusedEvent},
};
use axum::response::Response;
use icecore_catalog::access::Principal;
use icecore_lake::event::{DecodedBody, RejectedEvent};
use icecore_schemas::{error_code::ErrorCode, names::Namespace};

/// A body whose sender may send it.
#[derive(Debug)]
pub(in crate::http) struct BranchBatch {
    pub(in crate::http) decoded: DecodedBody,
    /// What was refused before.
    pub(in crate::http) turned_away: Vec<RefusedEvent>,
    /// The reply's namespace where nothing is taken.
    pub(in crate::http) fallback: String,
}

/// Appends a body to a branch and says what became of it. On return the events that are taken are in its head.
///
/// # Errors
/// 400 for events of several namespaces, 404 without such a branch, 409, 429, 503.
pub(in crate::http) async fn answer(
    app: &AppState,
    principal: &Principal,
    branch: &str,
    BranchBatch { decoded, turned_away, fallback }: BranchBatch,
) -> Result<Response, ApiError> {
    let received = decoded.received as u64;
    let namespace = namespace_of(&decoded, &fallback)?;
    if tables::owner(app, principal, namespace.clone()).await? != namespace {
        let text = format!("namespace `{namespace}` has no branches: name it as its events do");
        return Err(ApiError::new(ErrorCode::NotFound, text));
    }
    let mut receipt =
        Receipt { duplicates: 0, ranges: Vec::new(), refused: turned_away, position: 0 };
    let mut snapshot = None;
    match Box::pin(append::take(app, &namespace, branch, decoded)).await? {
        // Without events of the body there is no range.
        BranchOutcome::Taken(taken) => {
            snapshot = taken.snapshot;
            receipt.duplicates = taken.duplicates;
            if taken.first != 0 {
                receipt.ranges.push((namespace, taken.first, taken.last));
            }
        }
        BranchOutcome::Moved => return Err(append::moved(branch)),
        BranchOutcome::Refused(refused) => receipt.refused.extend(refused.into_iter().map(told)),
    }
    receipt.refused.sort_by_key(|refused| refused.index);
    app.metrics.count_events(received, receipt.duplicates, receipt.refused.len() as u64);
    Ok(reply(received, &receipt, fallback, snapshot))
}

/// The one namespace of the events.
fn namespace_of(decoded: &DecodedBody, fallback: &str) -> Result<Namespace, ApiError> {
    match decoded.accepted.as_slice() {
        [] => parse_namespace(fallback),
        [events] => Ok(events.namespace.clone()),
        _ => {
            let text = "a branch is of one namespace: send the events of each namespace in a request of its own";
            Err(invalid(text.to_owned()))
        }
    }
}

fn told(one: RejectedEvent) -> RefusedEvent {
    RefusedEvent {
        index: one.index,
        id: one.id,
        code: one.code,
        actual_version: one.actual_version,
        reason: one.reason,
        dead_letter: None,
    }
}
