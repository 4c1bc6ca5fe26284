//! The rows of the table for the libraries of Segment and RudderStack.

use crate::http::{
    guard::RouteNeed::Somewhere,
    ingest::calls::calls,
    routes::{Route, post},
};
use axum::routing::on;
use icecore_catalog::access::Action::Ingest;
use icecore_schemas::batch::{IngestParameters, IngestReply};

/// What the libraries of Segment and RudderStack hear.
const CALLS_TAKEN: &[(u16, &str)] = &[
    (200, "Some call was taken, or was there before; those that were not are dead letters"),
    (400, "No call was taken"),
];
const CALLS_REFUSED: &[(u16, &str)] =
    &[(413, "Body too large"), (503, "Cannot now; send again after Retry-After")];

/// The rows.
pub(super) const CALL_ROUTES: &[Route] = &[
    post("/v1/batch", Somewhere(Ingest), |m| on(m, calls))
        .about("Take calls of the libraries of Segment and RudderStack. `/v1/b` and `/v1/import` are the same route")
        .query::<IngestParameters>()
        .header("X-Namespace", "Namespace of the calls; the token's or `default` when left out")
        .takes_media(&["application/json"])
        .refuses(CALLS_REFUSED)
        .answers::<IngestReply>(CALLS_TAKEN),
    post("/v1/b", Somewhere(Ingest), |m| on(m, calls)),
    post("/v1/import", Somewhere(Ingest), |m| on(m, calls)),
    post("/v1/track", Somewhere(Ingest), |m| on(m, calls))
        .about("Take one call, whose type is the path's unless it says another: `identify`, `page`, `screen`, `group`, `alias`, and their first letters")
        .query::<IngestParameters>()
        .header("X-Namespace", "Namespace of the call; the token's or `default` when left out")
        .takes_media(&["application/json"])
        .refuses(CALLS_REFUSED)
        .answers::<IngestReply>(CALLS_TAKEN),
    post("/v1/t", Somewhere(Ingest), |m| on(m, calls)),
    post("/v1/identify", Somewhere(Ingest), |m| on(m, calls)),
    post("/v1/i", Somewhere(Ingest), |m| on(m, calls)),
    post("/v1/page", Somewhere(Ingest), |m| on(m, calls)),
    post("/v1/p", Somewhere(Ingest), |m| on(m, calls)),
    post("/v1/screen", Somewhere(Ingest), |m| on(m, calls)),
    post("/v1/s", Somewhere(Ingest), |m| on(m, calls)),
    post("/v1/group", Somewhere(Ingest), |m| on(m, calls)),
    post("/v1/g", Somewhere(Ingest), |m| on(m, calls)),
    post("/v1/alias", Somewhere(Ingest), |m| on(m, calls)),
    post("/v1/a", Somewhere(Ingest), |m| on(m, calls)),
];
