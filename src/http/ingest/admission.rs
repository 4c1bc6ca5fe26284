//! Which events of a body their sender may send, and where the dead letters of the others go. Pure.
//!
//! Its one invariant: nothing of what a sender may not send, and no dead letter of it, gets into a
//! namespace that the sender may not send to.

use crate::{
    http::{default_namespace, guard::levels},
    ingest::{RefusedEvent, refusal::forbidden},
};
use icecore_catalog::access::{Action, Principal};
use icecore_lake::event::{DecodedBody, RejectedEvent};
use icecore_schemas::names::Namespace;

/// Namespaces for dead letters that cannot lie in their own, the best first: the request's, the
/// token's, `default`, and whatever else the sender may send to.
pub(in crate::http) fn shelters(principal: &Principal, request: &Namespace) -> Vec<Namespace> {
    let home = principal.home().and_then(|home| Namespace::parse(home).ok());
    let targets = principal.namespaces(Action::Ingest);
    let targets = targets.filter_map(|levels| match levels.as_slice() {
        [name] => Namespace::parse(name).ok(),
        _ => None,
    });
    let wanted = [Some(request.clone()), home, Some(default_namespace())];
    let mut shelters: Vec<Namespace> = Vec::new();
    for namespace in wanted.into_iter().flatten().chain(targets) {
        let is_open = principal.may(Action::Ingest, &levels(&namespace));
        if is_open && !shelters.contains(&namespace) {
            shelters.push(namespace);
        }
    }
    shelters
}

/// Takes out of `decoded` what the principal may not send. Its dead letters go to the first of the
/// shelters; without one there are none, and what is refused comes back.
pub(in crate::http) fn turn_away(
    decoded: &mut DecodedBody,
    principal: &Principal,
    shelters: &[Namespace],
) -> Vec<RefusedEvent> {
    if principal.may_everywhere(Action::Ingest) {
        return Vec::new();
    }
    let may = |namespace: &Namespace| principal.may(Action::Ingest, &levels(namespace));
    let (open, closed): (Vec<_>, Vec<_>) = std::mem::take(&mut decoded.accepted)
        .into_iter()
        .partition(|events| may(&events.namespace));
    decoded.accepted = open;
    let (kept, foreign): (Vec<RejectedEvent>, Vec<RejectedEvent>) =
        std::mem::take(&mut decoded.rejected).into_iter().partition(|one| may(&one.namespace));
    decoded.rejected = kept;
    let closed = closed.iter().flat_map(|events| forbidden(events, &decoded.source));
    let foreign: Vec<RejectedEvent> = foreign.into_iter().chain(closed).collect();
    if let Some(shelter) = shelters.first() {
        let moved =
            foreign.into_iter().map(|one| RejectedEvent { kept_in: Some(shelter.clone()), ..one });
        decoded.rejected.extend(moved);
        decoded.rejected.sort_by_key(|one| one.index);
        return Vec::new();
    }
    let refused = |one: RejectedEvent| RefusedEvent {
        index: one.index,
        id: one.id,
        code: one.code,
        actual_version: one.actual_version,
        reason: one.reason,
        dead_letter: None,
    };
    foreign.into_iter().map(refused).collect()
}
