//! The rows of the table for what compares a branch of a namespace and merges it.

use crate::http::{
    branches::{diff, merge},
    guard::RouteNeed::InCatalog,
    routes::{Route, get, post},
};
use axum::routing::on;
use icecore_catalog::access::Action::{Read, Write};
use icecore_schemas::branch_merge::{
    BranchDiff, BranchDiffParameters, BranchMergeReport, NewBranchMerge,
};

const KEYED: &str = "Names the request, so that a repeat is answered and not carried out again";

/// The rows.
pub(super) const BRANCH_MERGE_ROUTES: &[Route] = &[
    get("/v1/{namespace}/branches/{branch}/diff", InCatalog(Read), |m| on(m, diff::diff))
        .about("The documents that a branch has otherwise than at its last event in common with another one, or than that one has them")
        .query::<BranchDiffParameters>()
        .answers::<BranchDiff>(&[(200, "Counts of all, and a page of them")])
        .refuses(&[
            (400, "A parameter is not valid, or both branches are one"),
            (404, "No such branch, or no events"),
            (410, "Events were removed that the comparison needs"),
            (422, "Too many collections, or over the limits of a query"),
            (429, "Too many queries at once"),
        ]),
    post("/v1/{namespace}/branches/{branch}/merge", InCatalog(Write), |m| on(m, merge::merge))
        .about("Do what a branch changed to another one, member by member, by ordinary changes")
        .header("Idempotency-Key", KEYED)
        .takes::<NewBranchMerge>()
        .answers::<BranchMergeReport>(&[(200, "Durable; how many documents changed")])
        .refuses(&[
            (400, "Both branches are one, or have nothing in common"),
            (404, "No such branch, or no events"),
            (409, "Both changed the same: `conflicts` of the details; the Idempotency-Key is of another merge; or an erasure goes on"),
            (410, "Events were removed that the comparison needs"),
            (422, "Too many changes, or over the limits of a query"),
            (429, "Too many queries or merges at once"),
            (503, "Cannot now; send again after Retry-After"),
        ]),
];
