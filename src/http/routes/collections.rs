//! The rows of the table for what reads documents and events.

use crate::http::{
    collection_refresh, collection_schema,
    collections::{self, anomalies, diff, history, list},
    events,
    guard::RouteNeed::InCatalog,
    points,
    routes::{Route, get, post, put},
    search, things,
};
use axum::routing::on;
use icecore_catalog::access::Action::{Read, Write};
use icecore_schemas::{
    collection_refresh::{RefreshParameters, RefreshReply},
    collection_schema::{CollectionSchema, SchemaParameters, SchemaRegistration},
    collections::{
        AnomalyList, AnomalyPage, CollectionDiff, CollectionList, CollectionPage,
        CollectionParameters, CollectionReply, DiffParameters, DocumentHistory, DocumentList,
        DocumentPage, DocumentReply, EventList, EventPage, HistoryPage, PointParameters,
        PointRequest, ResolvedPoint, ThingParameters,
    },
    search::{FacetParameters, FoundThings, SearchParameters, ThingFacets},
};

const SEARCH_REFUSED: &[(u16, &str)] = &[
    (400, "A parameter is not valid; the text names it"),
    (422, "Over the time, memory or row limit"),
    (429, "Too many queries at once"),
];
const POINT_REFUSED: &[(u16, &str)] = &[
    (400, "A parameter or a point is not valid; the text says how it is written"),
    (404, "No such collection or document, or none at that point; or no such point"),
    (410, "The point was removed; `nearest` has those around it"),
    (422, "Over the time, memory or row limit"),
    (429, "Too many queries at once"),
];
const THING_REFUSED: &[(u16, &str)] = &[
    (400, "A version is not valid; the text says how it is written"),
    (404, "No such document, or none at that point"),
    (409, "Several collections have a document of this key; `collections` has them"),
    (410, "The point was removed; `nearest` has those around it"),
    (422, "Over the time, memory or row limit"),
    (429, "Too many queries at once"),
];
const THING_FOUND: &[(u16, &str)] = &[(200, "The document, and what the answer was made of")];

/// The rows.
pub(super) const COLLECTION_ROUTES: &[Route] = &[
    get("/v1/{namespace}/search", InCatalog(Read), |m| on(m, search::search))
        .about("Find things, documents as they are now, by their properties; `property` may be there several times")
        .query::<SearchParameters>()
        .answers::<FoundThings>(&[(200, "A page; `next` is there while there may be more")])
        .refuses(SEARCH_REFUSED),
    get("/v1/{namespace}/facets", InCatalog(Read), |m| on(m, search::facets))
        .about("Count things by their properties; `property` and `by` may be there several times")
        .query::<FacetParameters>()
        .answers::<ThingFacets>(&[(200, "Counts by type, collection and the properties in `by`")])
        .refuses(SEARCH_REFUSED),
    get("/v1/{namespace}/collections", InCatalog(Read), |m| on(m, list::list))
        .about("The collections of a namespace: documents, bytes, and how far their tables are")
        .query::<CollectionPage>()
        .answers::<CollectionList>(&[(200, "A page by name; `next` is there while there may be more")])
        .refuses(POINT_REFUSED),
    get("/v1/{namespace}/collections/{collection}", InCatalog(Read), |m| on(m, list::show))
        .about("A collection: documents, bytes, and how far its table is")
        .query::<CollectionParameters>()
        .answers::<CollectionReply>(&[(200, "Its numbers")])
        .refuses(&[
            (404, "No such collection"),
            (422, "Over the time, memory or row limit"),
            (429, "Too many queries at once"),
        ]),
    get("/v1/{namespace}/collections/{collection}/docs", InCatalog(Read), |m| {
        on(m, collections::documents)
    })
    .about("The documents of a collection at a point, in the order of their keys")
    .query::<DocumentPage>()
    .answers::<DocumentList>(&[(200, "A page; `next` is there while there may be more")])
    .refuses(POINT_REFUSED),
    get("/v1/{namespace}/collections/{collection}/docs/{key}", InCatalog(Read), |m| {
        on(m, collections::document)
    })
    .about("A document at a point")
    .query::<PointParameters>()
    .answers::<DocumentReply>(&[(200, "The document, and what the answer was made of")])
    .refuses(POINT_REFUSED),
    get("/v1/{namespace}/collections/{collection}/docs/{key}/history", InCatalog(Read), |m| {
        on(m, history::history)
    })
    .about("The versions of a document, the newest first, each with the one before it")
    .query::<HistoryPage>()
    .answers::<DocumentHistory>(&[(200, "A page; `next` is there while there may be more")])
    .refuses(POINT_REFUSED),
    get("/v1/{namespace}/collections/{collection}/anomalies", InCatalog(Read), |m| {
        on(m, anomalies::anomalies)
    })
    .about("Changes of a collection that do not fit what is known of their documents")
    .query::<AnomalyPage>()
    .answers::<AnomalyList>(&[(200, "Those of the documents of a page; `next` is there while there may be more")])
    .refuses(SEARCH_REFUSED),
    get("/v1/{namespace}/collections/{collection}/diff", InCatalog(Read), |m| on(m, diff::diff))
        .about("The documents of a collection that are not the same at two points")
        .query::<DiffParameters>()
        .answers::<CollectionDiff>(&[(200, "How many, and a page of them; `next` is there while there may be more")])
        .refuses(POINT_REFUSED),
    post("/v1/{namespace}/collections/{collection}/refresh", InCatalog(Write), |m| {
        on(m, collection_refresh::refresh)
    })
    .about("Have the table of a collection follow its events now; `full` makes it of all events again, `branch` writes the documents of a branch")
    .query::<RefreshParameters>()
    .answers::<RefreshReply>(&[(200, "Done; what the table has")])
    .refuses(&[
        (404, "No such collection or branch"),
        (409, "Another commit came first, or the table has another branch or tag of the name"),
        (429, "Too many queries at once"),
    ]),
    get("/v1/{namespace}/collections/{collection}/schema", InCatalog(Read), |m| {
        on(m, collection_schema::get)
    })
    .about("The JSON Schema of a collection, and the typed columns that it makes")
    .answers::<CollectionSchema>(&[(200, "The schema")])
    .refuses(&[(404, "None was registered")]),
    put("/v1/{namespace}/collections/{collection}/schema", InCatalog(Write), |m| {
        on(m, collection_schema::put)
    })
    .about("Register a JSON Schema, whose properties are typed columns of the table; with `dry_run` tell what would change")
    .query::<SchemaParameters>()
    .takes_media(&["application/json"])
    .answers::<SchemaRegistration>(&[(200, "Registered; the columns, and those that came or got wider")])
    .refuses(&[
        (400, "Not a schema that makes columns; the text says what to change"),
        (404, "No such namespace"),
        (409, "Columns would go or become narrower: `differences` of the details; or another commit came first"),
        (429, "Too many queries at once"),
        (503, "This server takes no events: ask the one that does"),
    ]),
    get("/v1/{namespace}/events", InCatalog(Read), |m| on(m, events::events))
        .about("Events by seq, bookmark, type or time; as JSON lines with Accept: application/x-ndjson")
        .query::<EventPage>()
        .answers::<EventList>(&[(200, "A page; `next` is there while there may be more")])
        .refuses(POINT_REFUSED),
    post("/v1/{namespace}/resolve", InCatalog(Read), |m| on(m, points::resolve))
        .about("What a point stands for: the last event that counts")
        .takes::<PointRequest>()
        .answers::<ResolvedPoint>(&[(200, "Its seq, time and snapshot")])
        .refuses(POINT_REFUSED),
    get("/v1/{namespace}/things/{thing}", InCatalog(Read), |m| on(m, things::thing))
        .about("A document by a key that one collection alone has, with `@version` behind it")
        .query::<ThingParameters>()
        .answers::<DocumentReply>(THING_FOUND)
        .refuses(THING_REFUSED),
    get("/v1/{namespace}/things/{thing}/{key}", InCatalog(Read), |m| on(m, things::thing))
        .about("A document by its collection and key, with `@version` behind it")
        .query::<ThingParameters>()
        .answers::<DocumentReply>(THING_FOUND)
        .refuses(THING_REFUSED),
];
