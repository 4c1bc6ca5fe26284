//! Every route outside the catalog, in one table: the router is built from it, and each route is
//! guarded by the right that its row names.
//!
//! Its one invariant: there is no other list of routes, so none is answered without its guard.

use crate::http::{
    App, admin, dead_letters,
    guard::{self, Need},
    health, ingest, operate, query, tables, webhooks,
};
use Need::{AnyToken, Everywhere, In, InCatalog, Open, Somewhere};
use axum::{
    Router,
    http::Method,
    middleware,
    routing::{MethodFilter, MethodRouter, on},
};
use icecore_catalog::access::Action::{Admin, Ingest, Read, Write};

/// A route: what it is called by, what it asks of its caller, and who answers.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The method; GET answers HEAD too.
    pub method: &'static str,
    /// The path, with names of its parts in braces.
    pub path: &'static str,
    /// The right that the caller needs.
    pub need: Need,
    handler: fn(MethodFilter) -> MethodRouter<App>,
}

type Handler = fn(MethodFilter) -> MethodRouter<App>;

const fn get(path: &'static str, need: Need, handler: Handler) -> Route {
    Route { method: "GET", path, need, handler }
}

const fn post(path: &'static str, need: Need, handler: Handler) -> Route {
    Route { method: "POST", path, need, handler }
}

const fn put(path: &'static str, need: Need, handler: Handler) -> Route {
    Route { method: "PUT", path, need, handler }
}

const fn delete(path: &'static str, need: Need, handler: Handler) -> Route {
    Route { method: "DELETE", path, need, handler }
}

const fn options(path: &'static str, need: Need, handler: Handler) -> Route {
    Route { method: "OPTIONS", path, need, handler }
}

/// The table.
pub const ROUTES: &[Route] = &[
    post("/ingest", Somewhere(Ingest), |m| on(m, ingest::ingest)),
    post("/ingest/", Somewhere(Ingest), |m| on(m, ingest::ingest)),
    post("/e", Somewhere(Ingest), |m| on(m, ingest::ingest)),
    post("/e/", Somewhere(Ingest), |m| on(m, ingest::ingest)),
    options("/ingest", Open, |m| on(m, webhooks::handshake)),
    options("/ingest/", Open, |m| on(m, webhooks::handshake)),
    options("/e", Open, |m| on(m, webhooks::handshake)),
    options("/e/", Open, |m| on(m, webhooks::handshake)),
    // The signature stands for the token.
    post("/webhooks/{provider}", Open, |m| on(m, webhooks::take)),
    options("/webhooks/{provider}", Open, |m| on(m, webhooks::handshake)),
    post("/v1/{namespace}/sql", In(Read), |m| on(m, query::query)),
    post("/v1/{namespace}/commit", In(Ingest), |m| on(m, tables::commit)),
    get("/v1/{namespace}/dead-letters", In(Read), |m| on(m, dead_letters::list)),
    delete("/v1/{namespace}/dead-letters", In(Admin), |m| on(m, dead_letters::purge)),
    get("/v1/{namespace}/dead-letters/{id}", In(Read), |m| on(m, dead_letters::show)),
    // What is sent again goes where its sender could send it anew.
    post("/v1/{namespace}/dead-letters/retry", In(Ingest), |m| on(m, dead_letters::retry)),
    get("/v1/namespaces", AnyToken, |m| on(m, tables::all_namespaces)),
    get("/v1/{namespace}/tables", InCatalog(Read), |m| on(m, tables::list)),
    get("/v1/{namespace}/tables/{table}/snapshots", InCatalog(Read), |m| on(m, tables::snapshots)),
    get("/v1/{namespace}/tables/{table}/stats", InCatalog(Read), |m| on(m, operate::stats)),
    delete("/v1/{namespace}/tables/{table}", InCatalog(Write), |m| on(m, operate::drop_table)),
    put("/v1/{namespace}/tables/{table}/protection", InCatalog(Admin), |m| on(m, operate::protect)),
    delete("/v1/{namespace}/tables/{table}/protection", InCatalog(Admin), |m| {
        on(m, operate::unprotect)
    }),
    post("/v1/{namespace}/tables/{table}/rename", InCatalog(Write), |m| on(m, operate::rename)),
    post("/v1/{namespace}/tables/{table}/rollback", InCatalog(Write), |m| on(m, operate::rollback)),
    get("/v1/{namespace}/tables/{table}/refs", InCatalog(Read), |m| on(m, operate::list_refs)),
    post("/v1/{namespace}/tables/{table}/refs", InCatalog(Write), |m| on(m, operate::create_ref)),
    // For a table that the service writes the handler asks for `admin`.
    delete("/v1/{namespace}/tables/{table}/refs/{name}", InCatalog(Write), |m| {
        on(m, operate::drop_ref)
    }),
    post("/v1/{namespace}/tables/{table}/refs/{name}/fast-forward", InCatalog(Write), |m| {
        on(m, operate::fast_forward)
    }),
    post("/admin/commit", Everywhere(Admin), |m| on(m, tables::commit_all)),
    get("/admin/protected", Everywhere(Admin), |m| on(m, operate::protected)),
    get("/admin/dropped", Everywhere(Admin), |m| on(m, operate::dropped)),
    delete("/admin/dropped/{uuid}", Everywhere(Admin), |m| on(m, operate::purge)),
    post("/admin/dropped/{uuid}/undrop", Everywhere(Admin), |m| on(m, operate::undrop)),
    // Of tokens and secrets a caller sees and changes those that it governs.
    get("/admin/tokens", Somewhere(Admin), |m| on(m, admin::tokens)),
    post("/admin/tokens", Somewhere(Admin), |m| on(m, admin::make_token)),
    delete("/admin/tokens/{id}", Somewhere(Admin), |m| on(m, admin::revoke_token)),
    get("/admin/webhooks", Somewhere(Admin), |m| on(m, webhooks::secrets::list)),
    put("/admin/webhooks/{namespace}/{provider}", In(Admin), |m| on(m, webhooks::secrets::set)),
    get("/admin/webhooks/{namespace}/{provider}", In(Admin), |m| on(m, webhooks::secrets::show)),
    delete("/admin/webhooks/{namespace}/{provider}", In(Admin), |m| {
        on(m, webhooks::secrets::remove)
    }),
    get("/admin/audit", Everywhere(Admin), |m| on(m, admin::audit)),
    get("/admin/jobs", Everywhere(Admin), |m| on(m, admin::jobs)),
    get("/healthz", Open, |m| on(m, health::healthz)),
    get("/readyz", Open, |m| on(m, health::readyz)),
    get("/metrics", Everywhere(Read), |m| on(m, health::metrics)),
    get("/version", Open, |m| on(m, health::version)),
    get("/openapi.json", Open, |m| on(m, health::openapi)),
];

/// A router of all of them, each behind its guard.
pub fn router(app: &App) -> Router<App> {
    ROUTES.iter().fold(Router::new(), |router, route| {
        let method = Method::from_bytes(route.method.as_bytes()).expect("methods are letters");
        let method = MethodFilter::try_from(method).expect("the table has known methods alone");
        let guard = middleware::from_fn_with_state((app.clone(), route.need), guard::guard);
        router.route(route.path, (route.handler)(method).route_layer(guard))
    })
}

#[cfg(test)]
mod tests;
