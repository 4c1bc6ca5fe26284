//! The rows of the table for what writes documents: one by its key, and collections by what they were.

use crate::http::{
    documents,
    guard::RouteNeed::InCatalog,
    restore,
    routes::{Route, delete, post, put},
};
use axum::routing::on;
use icecore_catalog::access::Action::Write;
use icecore_schemas::restore::{
    CollectionRestore, DocumentParameters, DocumentWritten, NamespaceRestore, RestoreReport,
};

const DOCUMENT: &str = "/v1/{namespace}/collections/{collection}/docs/{key}";
const KEYED: &str = "Names the request, so that a repeat is answered and not carried out again";
const WRITTEN: &[(u16, &str)] = &[(200, "Durable; its event, and the version of the document")];
const RESTORED: &[(u16, &str)] = &[(200, "Durable; how many documents changed")];
const NOT_RESTORED: &[(u16, &str)] = &[
    (400, "Not a valid point"),
    (404, "No such point, or no events"),
    (409, "`into` has documents, the Idempotency-Key is of another request, or an erasure goes on"),
    (410, "The point was removed; `nearest` of the details has those around it"),
    (422, "Too many changes, or over the limits of a query"),
    (429, "Too many queries or restores at once"),
    (503, "Cannot now; send again after Retry-After"),
];

/// Their rows of the table.
pub(super) const DOCUMENT_ROUTES: &[Route] = &[
    put(DOCUMENT, InCatalog(Write), |m| on(m, documents::put))
        .about("Write a document, a JSON object, as an event that inserts or updates it; with `expected_version` only on that version, 0 for none")
        .query::<DocumentParameters>()
        .header("Idempotency-Key", KEYED)
        .takes_media(&["application/json"])
        .answers::<DocumentWritten>(WRITTEN)
        .refuses(&[
            (400, "The body is not a JSON object"),
            (409, "The document has another version: `actual` of the details"),
            (429, "Too many writes wait"),
            (503, "Cannot now; send again after Retry-After"),
        ]),
    delete(DOCUMENT, InCatalog(Write), |m| on(m, documents::delete))
        .about("Delete a document by an event; with `expected_version` only of that version")
        .query::<DocumentParameters>()
        .header("Idempotency-Key", KEYED)
        .answers::<DocumentWritten>(WRITTEN)
        .refuses(&[
            (404, "No such document"),
            (409, "The document has another version: `actual` of the details"),
            (429, "Too many writes wait"),
            (503, "Cannot now; send again after Retry-After"),
        ]),
    post("/v1/{namespace}/collections/{collection}/restore", InCatalog(Write), |m| {
        on(m, restore::collection)
    })
    .about("Put a collection, or with `into` another one, to what it was at a point, by ordinary changes")
    .header("Idempotency-Key", KEYED)
    .takes::<CollectionRestore>()
    .answers::<RestoreReport>(RESTORED)
    .refuses(NOT_RESTORED),
    post("/v1/{namespace}/restore", InCatalog(Write), |m| on(m, restore::namespace))
        .about("Put every collection of a namespace to what it was at a point")
        .header("Idempotency-Key", KEYED)
        .takes::<NamespaceRestore>()
        .answers::<RestoreReport>(RESTORED)
        .refuses(NOT_RESTORED),
];
