//! Every route outside the catalog, in one table: the router is built from it, and each route is
//! guarded by the right that its row names.
//!
//! Its one invariant: there is no other list of routes, so none is answered without its guard.

mod branch_merge;
mod branches;
mod calls;
mod collections;
mod documents;
mod tags;

use crate::http::{
    AppState, admin, conservation, dead_letters, erasures, fsck,
    guard::{self, RouteNeed},
    health, holds, ingest, jobs, materialized,
    openapi::RouteOperation,
    query, table_admin, tables, views, webhooks,
};
use RouteNeed::{AnyToken, Everywhere, In, InCatalog, Open, Somewhere};
use axum::{
    Router,
    http::Method,
    middleware,
    routing::{MethodFilter, MethodRouter, on},
};
use icecore_catalog::access::Action::{Admin, Ingest, Read, Write};
use icecore_schemas::{
    batch::{IngestParameters, IngestReply},
    conservation::EventsAudit,
    dead_letters::{
        DiscardLetters, DiscardReply, LetterList, LetterPage, RetryLetters, RetryParameters,
        RetryReply,
    },
    erasure::{ErasureList, ErasureReport, NewErasure},
    fsck::{FsckParameters, FsckReport},
    holds::{HoldEntry, HoldList, HoldRemoved, NewHold},
    jobs::{JobList, JobParameters, JobReport},
    materialized::{MaterializedEntry, MaterializedRemoved, NewMaterialized},
    query::SqlRequest,
    snapshot_id::SnapshotIds,
    tables::{
        CommitAllReply, CommitReply, DropRef, DropTable, DroppedList, FastForward, NamespaceList,
        NewRef, NewTableName, ProtectedList, Protection, RefDropped, RefList, RefReply, Rollback,
        SnapshotList, SnapshotPage, TableDropped, TableList, TableName, TablePurging, TableStats,
    },
    tokens::{AuditPage, AuditRecords, NewToken, TokenList, TokenReply, TokenRevoked},
    version::Version,
    views::{NewView, ViewEntry, ViewRemoved},
    webhooks::{DeliveryTarget, NewSecret, WebhookDeleted, WebhookEntry, WebhookList},
};

/// A route: what it is called by, what it asks of its caller, and who answers.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The method; GET answers HEAD too.
    pub method: &'static str,
    /// The path, with names of its parts in braces.
    pub path: &'static str,
    /// The right that the caller needs.
    pub need: RouteNeed,
    /// What it is for readers.
    pub operation: RouteOperation,
    handler: Handler,
}

type Handler = fn(MethodFilter) -> MethodRouter<AppState>;

const fn get(path: &'static str, need: RouteNeed, handler: Handler) -> Route {
    Route { method: "GET", path, need, operation: RouteOperation::new(), handler }
}

const fn post(path: &'static str, need: RouteNeed, handler: Handler) -> Route {
    Route { method: "POST", path, need, operation: RouteOperation::new(), handler }
}

const fn put(path: &'static str, need: RouteNeed, handler: Handler) -> Route {
    Route { method: "PUT", path, need, operation: RouteOperation::new(), handler }
}

const fn delete(path: &'static str, need: RouteNeed, handler: Handler) -> Route {
    Route { method: "DELETE", path, need, operation: RouteOperation::new(), handler }
}

const fn options(path: &'static str, need: RouteNeed, handler: Handler) -> Route {
    Route { method: "OPTIONS", path, need, operation: RouteOperation::new(), handler }
}

/// What a sender of CloudEvents asks before it sends.
const HANDSHAKE: &str = "The handshake of a sender of CloudEvents, which asks whether it may send";
const HANDSHAKE_ANSWER: &[(u16, &str)] =
    &[(200, "WebHook-Allowed-Origin and WebHook-Allowed-Rate where it said who it is")];
const NO_TABLE: &[(u16, &str)] = &[(404, "No such table")];
const NO_MATERIALIZED: &[(u16, &str)] = &[(404, "No such materialised table")];
const NO_VIEW: &[(u16, &str)] = &[(404, "No such view")];

/// The table.
pub const ROUTES: &[Route] = &{
    let mut all = [OTHER_ROUTES[0]; ROUTE_COUNT];
    let (mut part, mut row, mut at) = (0, 0, 0);
    while at < all.len() {
        if row == PARTS[part].len() {
            (part, row) = (part + 1, 0);
        }
        all[at] = PARTS[part][row];
        (row, at) = (row + 1, at + 1);
    }
    all
};

/// How many rows its parts have together.
const ROUTE_COUNT: usize = {
    let (mut count, mut part) = (0, 0);
    while part < PARTS.len() {
        count += PARTS[part].len();
        part += 1;
    }
    count
};

/// Its parts; none is empty.
const PARTS: &[&[Route]] = &[
    OTHER_ROUTES,
    calls::CALL_ROUTES,
    collections::COLLECTION_ROUTES,
    documents::DOCUMENT_ROUTES,
    tags::TAG_ROUTES,
    branch_merge::BRANCH_MERGE_ROUTES,
    branches::BRANCH_ROUTES,
];

/// Those that have no file of their own.
const OTHER_ROUTES: &[Route] = &[
    post("/ingest", Somewhere(Ingest), |m| on(m, ingest::ingest))
        .about("Take events; 2xx means durable. `/e` is the same route")
        .query::<IngestParameters>()
        .header("X-Namespace", "Namespace of events that name none; `default` when left out")
        .takes_media(&[
            "application/json",
            "application/x-ndjson",
            "application/cloudevents+json",
            "application/cloudevents-batch+json",
            "application/avro",
        ])
        .refuses(&[
            (413, "Body too large"),
            (415, "Media type or encoding not understood"),
            (503, "Cannot now; send again after Retry-After"),
        ])
        .answers::<IngestReply>(&[
            (200, "Every event was taken, or was there before"),
            (207, "Some events were not"),
            (400, "No event was"),
        ]),
    post("/ingest/", Somewhere(Ingest), |m| on(m, ingest::ingest)),
    post("/e", Somewhere(Ingest), |m| on(m, ingest::ingest)),
    post("/e/", Somewhere(Ingest), |m| on(m, ingest::ingest)),
    options("/ingest", Open, |m| on(m, webhooks::handshake))
        .about(HANDSHAKE)
        .answers_media(&[], HANDSHAKE_ANSWER),
    options("/ingest/", Open, |m| on(m, webhooks::handshake)),
    options("/e", Open, |m| on(m, webhooks::handshake)),
    options("/e/", Open, |m| on(m, webhooks::handshake)),
    post("/webhooks/{provider}", Open, |m| on(m, webhooks::take))
        .about("A provider's delivery, whose signature stands for the token; the body is kept byte for byte")
        .query::<DeliveryTarget>()
        .takes_media(&["application/json", "application/x-www-form-urlencoded"])
        .answers::<IngestReply>(&[(200, "The event was taken, or was there before")])
        .refuses(&[
            (401, "The signature is missing, wrong, or of a time more than 300 s away"),
            (404, "The namespace has no secret of this provider"),
        ]),
    options("/webhooks/{provider}", Open, |m| on(m, webhooks::handshake))
        .about(HANDSHAKE)
        .answers_media(&[], HANDSHAKE_ANSWER),
    post("/v1/{namespace}/sql", InCatalog(Read), |m| on(m, query::query))
        .about("Query a namespace; and `system.audit`, the audit log, for who is admin everywhere")
        .header("Idempotency-Key", "A UUID that names a statement that writes: a repeat is answered, and not carried out again")
        .takes::<SqlRequest>()
        .answers_media(
            &[
                "application/json",
                "application/x-ndjson",
                "text/csv",
                "application/vnd.apache.arrow.stream",
            ],
            &[(200, "Rows, in the format of Accept")],
        )
        .refuses(&[
            (400, "Not valid; the text says what to change"),
            (404, "No such snapshot"),
            (409, "Another one made the table first"),
            (422, "Over the time, memory or row limit"),
            (429, "Too many queries at once"),
            (503, "min_seq is not reached yet"),
        ]),
    post("/v1/{namespace}/commit", In(Ingest), |m| on(m, tables::commit))
        .about("Commit what is acknowledged")
        .answers::<CommitReply>(&[(200, "The seq and snapshots that hold it")])
        .refuses(&[(503, "Cannot now; send again after Retry-After")]),
    post("/v1/{namespace}/audit/events", In(Admin), |m| on(m, conservation::audit))
        .about("Hold the rows of the log and of the table against those that were acknowledged: each is there once")
        .answers::<EventsAudit>(&[(200, "The sums, whether they agree, and the first snapshot where they do not")])
        .refuses(&[
            (429, "Another audit goes on"),
            (503, "This server takes no events: run it on the one that does"),
        ]),
    get("/v1/{namespace}/dead-letters", In(Read), |m| on(m, dead_letters::list))
        .about("Refused events, the oldest first, without their bytes")
        .query::<LetterPage>()
        .answers::<LetterList>(&[(200, "A page; `next` is there while there may be more")]),
    delete("/v1/{namespace}/dead-letters", In(Admin), |m| on(m, dead_letters::purge))
        .about("Discard the events received before a time: their newest rows say so, their bytes stay in the table's files until those are rewritten")
        .query::<DiscardLetters>()
        .answers::<DiscardReply>(&[(200, "How many")])
        .refuses(&[(400, "No valid time")]),
    get("/v1/{namespace}/dead-letters/{id}", In(Read), |m| on(m, dead_letters::show))
        .about("A refused event, byte for byte as it came")
        .answers_media(
            &["application/json", "application/octet-stream"],
            &[(200, "The bytes; reason, state and time are in headers x-icecore-*")],
        )
        .refuses(&[(404, "No such dead letter, or a discarded one")]),
    // What is sent again goes where its sender could send it anew.
    post("/v1/{namespace}/dead-letters/retry", In(Ingest), |m| on(m, dead_letters::retry))
        .about("Send refused events again, each under its id and exactly once")
        .query::<RetryParameters>()
        .takes::<RetryLetters>()
        .answers::<RetryReply>(&[(200, "Letters by what became of them, all durable")])
        .refuses(&[
            (400, "None or several of ids, reason, all"),
            (503, "The log takes no events now; run it again"),
        ]),
    get("/v1/namespaces", AnyToken, |m| on(m, tables::all_namespaces))
        .about("Namespaces that the caller may see")
        .answers::<NamespaceList>(&[(200, "Name and original text of each")]),
    get("/v1/{namespace}/tables", InCatalog(Read), |m| on(m, tables::list))
        .about("Tables of a namespace")
        .answers::<TableList>(&[(200, "Records, files, bytes and snapshot of each")]),
    get("/v1/{namespace}/tables/{table}/snapshots", InCatalog(Read), |m| on(m, tables::snapshots))
        .about("Retained snapshots, newest first")
        .query::<SnapshotPage>()
        .answers::<SnapshotList>(&[(200, "Time, operation, counts and seq range of each")])
        .refuses(NO_TABLE),
    get("/v1/{namespace}/tables/{table}/stats", InCatalog(Read), |m| on(m, table_admin::stats))
        .about("Files, bytes, small files (below 32 MiB), deletes, snapshots and age")
        .answers::<TableStats>(&[(200, "Counts of the current snapshot")])
        .refuses(NO_TABLE),
    delete("/v1/{namespace}/tables/{table}", InCatalog(Write), |m| on(m, table_admin::drop_table))
        .about("Drop a table; undrop puts it back within catalog.undrop_window")
        .query::<DropTable>()
        .answers::<TableDropped>(&[(200, "Dropped; with the uuid that undrop takes")])
        .refuses(&[(404, "No such table"), (409, "The table is protected")]),
    put("/v1/{namespace}/tables/{table}/protection", InCatalog(Admin), |m| on(m, table_admin::protect))
        .about("Refuse dropping and renaming")
        .answers::<Protection>(&[(200, "Protected")])
        .refuses(NO_TABLE),
    delete("/v1/{namespace}/tables/{table}/protection", InCatalog(Admin), |m| {
        on(m, table_admin::unprotect)
    })
    .about("Allow dropping and renaming")
    .answers::<Protection>(&[(200, "Not protected")])
    .refuses(NO_TABLE),
    post("/v1/{namespace}/tables/{table}/rename", InCatalog(Write), |m| on(m, table_admin::rename))
        .about("Give a table another name or namespace, where the caller may write too")
        .takes::<NewTableName>()
        .answers::<TableName>(&[(200, "The new name")])
        .refuses(&[
            (404, "No such table"),
            (409, "The name is taken, or the table is protected"),
        ]),
    post("/v1/{namespace}/tables/{table}/rollback", InCatalog(Write), |m| on(m, table_admin::rollback))
        .about("Make an earlier state current; not for tables the service writes")
        .takes::<Rollback>()
        .answers::<SnapshotIds>(&[(200, "The snapshot")])
        .refuses(&[
            (400, "No ancestor, or a table the service writes"),
            (404, "No such table"),
        ]),
    get("/v1/{namespace}/tables/{table}/refs", InCatalog(Read), |m| on(m, table_admin::list_refs))
        .about("Branches and tags")
        .answers::<RefList>(&[(200, "Name, type and snapshot of each")])
        .refuses(NO_TABLE),
    post("/v1/{namespace}/tables/{table}/refs", InCatalog(Write), |m| on(m, table_admin::create_ref))
        .about("Name a snapshot")
        .takes::<NewRef>()
        .answers::<RefReply>(&[(200, "Name and snapshot")])
        .refuses(&[
            (400, "No such snapshot"),
            (404, "No such table"),
            (409, "The name is taken"),
        ]),
    // For a table that the service writes the handler asks for `admin`.
    delete("/v1/{namespace}/tables/{table}/refs/{name}", InCatalog(Write), |m| {
        on(m, table_admin::drop_ref)
    })
    .about("Drop a branch or tag; of a table the service writes, for `admin` alone")
    .query::<DropRef>()
    .answers::<RefDropped>(&[(200, "Dropped")])
    .refuses(&[
        (400, "main, or a name of another kind than `type` says"),
        (404, "No such table, branch or tag"),
    ]),
    post("/v1/{namespace}/tables/{table}/refs/{name}/fast-forward", InCatalog(Write), |m| {
        on(m, table_admin::fast_forward)
    })
    .about("Move a branch forward to another name")
    .takes::<FastForward>()
    .answers::<RefReply>(&[(200, "Name and snapshot")])
    .refuses(&[(400, "The branch has commits of its own"), (404, "No such table, branch or tag")]),
    post("/admin/commit", Everywhere(Admin), |m| on(m, tables::commit_all))
        .about("Commit what is acknowledged in every namespace")
        .answers::<CommitAllReply>(&[(200, "How many namespaces had something to commit")])
        .refuses(&[(503, "Cannot now; send again after Retry-After")]),
    get("/admin/protected", Everywhere(Admin), |m| on(m, table_admin::protected))
        .about("Tables that can be neither dropped nor renamed, at most 10 000")
        .answers::<ProtectedList>(&[(200, "Namespace and name of each")]),
    get("/admin/dropped", Everywhere(Admin), |m| on(m, table_admin::dropped))
        .about("Dropped tables that undrop can put back, the last dropped first, at most 10 000")
        .answers::<DroppedList>(&[(200, "The tables; how many files wait to be deleted")]),
    delete("/admin/dropped/{uuid}", Everywhere(Admin), |m| on(m, table_admin::purge))
        .about("Delete the files of a dropped table")
        .answers::<TablePurging>(&[(200, "Its files are queued for deletion")])
        .refuses(&[(404, "Not in the trash")]),
    post("/admin/dropped/{uuid}/undrop", Everywhere(Admin), |m| on(m, table_admin::undrop))
        .about("Put a dropped table back, under its name or, with both members, another")
        .takes::<NewTableName>()
        .answers::<TableName>(&[(200, "Its name")])
        .refuses(&[(404, "Not in the trash"), (409, "The name is taken")]),
    // Of tokens and secrets a caller sees and changes those that it governs.
    get("/admin/tokens", Somewhere(Admin), |m| on(m, admin::tokens))
        .about("Tokens that the caller governs, without their secrets")
        .answers::<TokenList>(&[(200, "The tokens")])
        .refuses(&[(404, "Access control is off")]),
    post("/admin/tokens", Somewhere(Admin), |m| on(m, admin::make_token))
        .about("Make a token; the reply is the only place that has it")
        .takes::<NewToken>()
        .answers::<TokenReply>(&[(200, "Id, token and end")])
        .refuses(&[
            (400, "Not a valid name or scope"),
            (403, "The caller has no admin where a scope reaches"),
            (404, "Access control is off"),
        ]),
    delete("/admin/tokens/{id}", Somewhere(Admin), |m| on(m, admin::revoke_token))
        .about("Revoke a token and every access token made from it")
        .answers::<TokenRevoked>(&[(200, "It is refused here from now on, elsewhere within a second")])
        .refuses(&[(404, "No such token that the caller governs")]),
    get("/admin/webhooks", Somewhere(Admin), |m| on(m, webhooks::secrets::list))
        .about("Which namespaces have secrets of which providers, without the secrets")
        .answers::<WebhookList>(&[(200, "Those of namespaces that the caller governs")]),
    put("/admin/webhooks/{namespace}/{provider}", In(Admin), |m| on(m, webhooks::secrets::set))
        .about("Set the secret; the one before it stays valid beside it")
        .takes::<NewSecret>()
        .answers::<WebhookEntry>(&[(200, "Since when which secrets are valid")])
        .refuses(&[(400, "Not a valid secret or scheme")]),
    get("/admin/webhooks/{namespace}/{provider}", In(Admin), |m| on(m, webhooks::secrets::show))
        .about("Whether there is a secret, and since when")
        .answers::<WebhookEntry>(&[(200, "Since when which secrets are valid")])
        .refuses(&[(404, "There is none")]),
    delete("/admin/webhooks/{namespace}/{provider}", In(Admin), |m| {
        on(m, webhooks::secrets::remove)
    })
    .about("Delete the secrets; deliveries are refused from then on")
    .answers::<WebhookDeleted>(&[(200, "Deleted")])
    .refuses(&[(404, "There is none")]),
    get("/v1/{namespace}/holds", InCatalog(Admin), |m| on(m, holds::list))
        .about("The legal holds of a namespace")
        .answers::<HoldList>(&[(200, "Those of the namespace itself, by name")]),
    put("/v1/{namespace}/holds/{hold}", InCatalog(Admin), |m| on(m, holds::set))
        .about("Hold a namespace: nothing of it is deleted for its age; the body may be empty")
        .takes::<NewHold>()
        .answers::<HoldEntry>(&[(200, "It is held; a hold that was there keeps its time")])
        .refuses(&[(400, "Not a valid name or reason"), (404, "No such namespace")]),
    delete("/v1/{namespace}/holds/{hold}", InCatalog(Admin), |m| on(m, holds::remove))
        .about("Remove a legal hold")
        .answers::<HoldRemoved>(&[(200, "Removed")])
        .refuses(&[(404, "There is none")]),
    get("/v1/{namespace}/erase", InCatalog(Admin), |m| on(m, erasures::list))
        .about("The erasures of a namespace, the newest first, at most 1 000")
        .answers::<ErasureList>(&[(200, "How far each is")]),
    post("/v1/{namespace}/erase", InCatalog(Admin), |m| on(m, erasures::begin))
        .about("Erase the rows of a subject from tables, branches, history and dead letters; with `dry_run` only count them")
        .takes::<NewErasure>()
        .answers::<ErasureReport>(&[(202, "It is written down and goes on by itself")])
        .refuses(&[
            (400, "Not a valid subject"),
            (404, "No such namespace"),
            (409, "A legal hold forbids it"),
            (429, "Too many erasures go on"),
            (503, "This server takes no events: ask the one that does"),
        ]),
    get("/v1/{namespace}/erase/{erasure}", InCatalog(Admin), |m| on(m, erasures::show))
        .about("How far an erasure is, what it found and what it cannot reach")
        .answers::<ErasureReport>(&[(200, "The report")])
        .refuses(&[(404, "There is none")]),
    get("/admin/audit", Everywhere(Admin), |m| on(m, admin::audit))
        .about("Audit records in order, and both ends of their chain")
        .query::<AuditPage>()
        .answers::<AuditRecords>(&[(200, "Records; the last one, and the last one that was deleted for its age")])
        .refuses(&[(404, "This server records nothing")]),
    get("/admin/jobs", Everywhere(Admin), |m| on(m, admin::jobs))
        .about("The jobs of this server, and what became of their last runs")
        .answers::<JobList>(&[(200, "Each with its last runs")]),
    post("/admin/jobs/{job}", Everywhere(Admin), |m| on(m, jobs::run))
        .about("Run a job now that the list of jobs has with `is_run_by_hand`, such as `compact`")
        .query::<JobParameters>()
        .answers::<JobReport>(&[
            (200, "What it did, and what it left with the reason"),
            (202, "It runs; with wait=false"),
        ])
        .refuses(&[
            (404, "No such job that is run by hand, or no such namespace"),
            (429, "A run of this job goes on already"),
            (503, "This server takes no events: run it on the one that does"),
        ]),
    post("/admin/fsck", Everywhere(Admin), |m| on(m, fsck::run))
        .about("Prove that tables are whole: every file, row and number; changes nothing, and ends when its client goes")
        .query::<FsckParameters>()
        .answers::<FsckReport>(&[(200, "What was found; `whole` says whether nothing is damaged")])
        .refuses(&[
            (404, "No such namespace or table"),
            (429, "A check goes on already"),
            (503, "The warehouse or the metastore does not answer, or the server stops"),
        ]),
    get("/v1/{namespace}/views/{view}", InCatalog(Read), |m| on(m, views::show))
        .about("A view, with its query in the dialect of this server if it has one")
        .answers::<ViewEntry>(&[(200, "Its query and columns")])
        .refuses(NO_VIEW),
    put("/v1/{namespace}/views/{view}", InCatalog(Write), |m| on(m, views::put))
        .about("Store a view, or another query of one; CREATE OR REPLACE VIEW does the same")
        .takes::<NewView>()
        .answers::<ViewEntry>(&[(200, "Stored")])
        .refuses(&[
            (400, "A query that is not valid here; the text says what to change"),
            (409, "A table has the name, or another change of the view was first"),
        ]),
    delete("/v1/{namespace}/views/{view}", InCatalog(Write), |m| on(m, views::remove))
        .about("Remove a view; its metadata files stay")
        .answers::<ViewRemoved>(&[(200, "Removed")])
        .refuses(NO_VIEW),
    get("/v1/{namespace}/materialized/{table}", InCatalog(Read), |m| on(m, materialized::show))
        .about("A table with the rows of a query, its times, and how far it has the events")
        .answers::<MaterializedEntry>(&[(200, "Its query and last refresh")])
        .refuses(NO_MATERIALIZED),
    put("/v1/{namespace}/materialized/{table}", InCatalog(Write), |m| on(m, materialized::put))
        .about("Make a table with the rows of a query that is run again at its times; or set other times of one")
        .takes::<NewMaterialized>()
        .answers::<MaterializedEntry>(&[(200, "Made; the rows are there")])
        .refuses(&[
            (400, "A query or times that are not valid here; the text says what to change"),
            (409, "Another table has the name"),
            (422, "Over the time, memory or row limit"),
            (429, "Too many queries or statements that write at once"),
        ]),
    delete("/v1/{namespace}/materialized/{table}", InCatalog(Write), |m| on(m, materialized::remove))
        .about("Refresh a table no more; it stays with its rows")
        .answers::<MaterializedRemoved>(&[(200, "Not refreshed any more")])
        .refuses(NO_MATERIALIZED),
    get("/healthz", Open, |m| on(m, health::healthz))
        .about("Alive")
        .answers_media(&["text/plain"], &[(200, "ok")]),
    get("/readyz", Open, |m| on(m, health::readyz))
        .about("Recovered and able to take writes")
        .answers_media(&["text/plain"], &[(200, "ready")])
        .refuses(&[(503, "Not ready; the text says why")]),
    get("/metrics", Everywhere(Read), |m| on(m, health::metrics))
        .about("Prometheus metrics")
        .answers_media(&["application/openmetrics-text"], &[(200, "Text")]),
    get("/version", Open, |m| on(m, health::version))
        .about("Name and version")
        .answers::<Version>(&[(200, "What answers here")]),
    get("/openapi.json", Open, |m| on(m, health::openapi))
        .about("This description")
        .answers_media(&["application/json"], &[(200, "OpenAPI 3.1")]),
];

/// A router of all of them, each behind its guard.
pub fn router(app: &AppState) -> Router<AppState> {
    ROUTES.iter().fold(Router::new(), |router, route| {
        let method = Method::from_bytes(route.method.as_bytes()).expect("methods are letters");
        let method = MethodFilter::try_from(method).expect("the table has known methods alone");
        let guard = middleware::from_fn_with_state((app.clone(), route.need), guard::guard);
        router.route(route.path, (route.handler)(method).route_layer(guard))
    })
}
