//! The rows of the table for tags of namespaces.

use crate::http::{
    guard::RouteNeed::InCatalog,
    namespace_tags,
    routes::{Route, delete, get, post},
};
use axum::routing::on;
use icecore_catalog::access::Action::{Read, Write};
use icecore_schemas::namespace_tags::{
    NamespaceTag, NamespaceTagDropped, NamespaceTagList, NewNamespaceTag,
};

const TAGS: &str = "/v1/{namespace}/tags";
const TAG: &str = "/v1/{namespace}/tags/{name}";
const TOO_MANY: (u16, &str) = (422, "Too many tables");

/// Their rows of the table.
pub(super) const TAG_ROUTES: &[Route] = &[
    get(TAGS, InCatalog(Read), |m| on(m, namespace_tags::list))
        .about("The tags of the tables of a namespace")
        .answers::<NamespaceTagList>(&[(200, "By name, each with the tables that have it")])
        .refuses(&[(404, "No such namespace"), TOO_MANY]),
    post(TAGS, InCatalog(Write), |m| on(m, namespace_tags::create))
        .about("Give a snapshot of every table of a namespace the same tag, in one commit: of now, or of a point")
        .takes::<NewNamespaceTag>()
        .answers::<NamespaceTag>(&[(201, "Durable; the tables that have it, and those that could not get it")])
        .refuses(&[
            (400, "Not a valid name or point"),
            (404, "No such namespace or point, or no snapshot for it"),
            (409, "A table has a branch or tag of the name"),
            (410, "The point was removed; `nearest` of the details has those around it"),
            TOO_MANY,
            (503, "Cannot now; send again after Retry-After"),
        ]),
    get(TAG, InCatalog(Read), |m| on(m, namespace_tags::show))
        .about("A tag, and the tables that have it")
        .answers::<NamespaceTag>(&[(200, "Its tables")])
        .refuses(&[(404, "No table has it"), TOO_MANY]),
    delete(TAG, InCatalog(Write), |m| on(m, namespace_tags::remove))
        .about("Drop a tag of all tables that have it, in one commit; of the service's tables with the scope `admin`")
        .answers::<NamespaceTagDropped>(&[(200, "Durable; the tables that had it")])
        .refuses(&[(404, "No table has it"), (409, "Another change came first"), TOO_MANY]),
];
