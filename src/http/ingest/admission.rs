//! Which events of a body their sender may send. Pure.
//!
//! Its one invariant: nothing of what a sender may not send, and no dead letter of it, gets into a
//! namespace that the sender may not send to.

use crate::{
    event::{Decoded, Rejected},
    http::guard::levels,
    ingest::{Refused, refusal::forbidden},
};
use icecore_catalog::access::{Action, Principal};
use icecore_schemas::names::Namespace;

/// Takes out of `decoded` what the principal may not send. Its dead letters go to the request's own
/// namespace; if that is closed to the sender too there are none, and what is refused comes back.
pub(super) fn turn_away(
    decoded: &mut Decoded,
    principal: &Principal,
    request: &Namespace,
) -> Vec<Refused> {
    if principal.may_everywhere(Action::Ingest) {
        return Vec::new();
    }
    let may = |namespace: &Namespace| principal.may(Action::Ingest, &levels(namespace));
    let (open, closed): (Vec<_>, Vec<_>) = std::mem::take(&mut decoded.accepted)
        .into_iter()
        .partition(|events| may(&events.namespace));
    decoded.accepted = open;
    let (kept, foreign): (Vec<Rejected>, Vec<Rejected>) =
        std::mem::take(&mut decoded.rejected).into_iter().partition(|one| may(&one.namespace));
    decoded.rejected = kept;
    let foreign = foreign.into_iter().chain(closed.iter().flat_map(forbidden));
    if may(request) {
        let moved = foreign.map(|one| Rejected { namespace: request.clone(), ..one });
        decoded.rejected.extend(moved);
        decoded.rejected.sort_by_key(|one| one.index);
        return Vec::new();
    }
    let refused = |one: Rejected| Refused {
        index: one.index,
        id: one.id,
        code: one.code,
        reason: one.reason,
        dead_letter: None,
    };
    foreign.map(refused).collect()
}
