//! The rows of the table for branches of a namespace.

use crate::http::{
    branches,
    guard::RouteNeed::InCatalog,
    routes::{Route, delete, get, post},
};
use axum::routing::on;
use icecore_catalog::access::Action::{Read, Write};
use icecore_schemas::branches::{
    BranchDropped, BranchEntry, BranchList, BranchSquashed, NewBranch,
};

const BRANCHES: &str = "/v1/{namespace}/branches";
const BRANCH: &str = "/v1/{namespace}/branches/{branch}";
const NO_BRANCH: (u16, &str) = (404, "No such branch; the text names those that are there");

/// Their rows of the table.
pub(super) const BRANCH_ROUTES: &[Route] = &[
    get(BRANCHES, InCatalog(Read), |m| on(m, branches::list))
        .about("Branches of a namespace, by name")
        .answers::<BranchList>(&[(200, "Where each begins, and where it is")])
        .refuses(&[(404, "The namespace has no events")]),
    post(BRANCHES, InCatalog(Write), |m| on(m, branches::create))
        .about("Make a branch of everything that is acknowledged, or of a point; it shares files with what it is made of")
        .takes::<NewBranch>()
        .answers::<BranchEntry>(&[(201, "The branch is there")])
        .refuses(&[
            (400, "Not a valid name or point"),
            (404, "No such point or branch, or no events"),
            (409, "The name is taken, there is no snapshot yet, or there are too many branches"),
            (410, "The point was removed; `nearest` of the details has the one before it"),
            (429, "Too many writes wait"),
            (503, "Cannot now; send again after Retry-After"),
        ]),
    get(BRANCH, InCatalog(Read), |m| on(m, branches::show))
        .about("A branch")
        .answers::<BranchEntry>(&[(200, "Where it begins, and where it is")])
        .refuses(&[NO_BRANCH]),
    delete(BRANCH, InCatalog(Write), |m| on(m, branches::remove))
        .about("Drop a branch and its events; files that only it needs go when its snapshots expire")
        .answers::<BranchDropped>(&[(200, "Dropped")])
        .refuses(&[NO_BRANCH, (409, "Others write to it again and again")]),
    post("/v1/{namespace}/branches/{branch}/squash", InCatalog(Write), |m| {
        on(m, branches::squash)
    })
    .about("Put one change for each document in the place of the branch's own; what it was stays under a tag")
    .answers::<BranchSquashed>(&[(200, "How many events it has now")])
    .refuses(&[
        NO_BRANCH,
        (409, "It was merged, another engine wrote to it, or others write to it now"),
        (410, "No snapshot from before its own events is retained"),
        (422, "Over the limits of a query"),
        (429, "Too many writes wait"),
        (503, "Cannot now; send again after Retry-After"),
    ]),
];
