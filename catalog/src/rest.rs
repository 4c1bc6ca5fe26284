//! The Iceberg REST protocol over [`crate::catalog::Catalog`].
//!
//! It parses requests, calls the catalog and writes answers; the rules of tables and commits are
//! the catalog's. Its one invariant: every answer that is not a success has a body in the
//! specification's error form, and none of a server error says more than that there was one.

mod asked;
mod commit;
mod config;
mod error;
mod events;
mod namespaces;
mod request;
mod tables;
#[cfg(test)]
mod tests;

use crate::catalog::Catalog;
pub use asked::Actor;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{any, get, post},
};
use error::Refused;
use std::sync::Arc;

/// Largest body of a request: a commit of a client that adds very many snapshots or properties.
pub const REQUEST_BYTES_MAX: usize = 32 << 20;

/// What the handlers share.
#[derive(Clone, Debug)]
struct Rest {
    catalog: Catalog,
    answers: Arc<tables::Answers>,
}

/// Every route of the protocol below `/v1`, to be nested where the catalog lives (`/catalog`).
///
/// Each is there twice: as it is, and below `/v1/{name of the catalog}` for clients that use that
/// name as the prefix.
pub fn router(catalog: Catalog) -> axum::Router {
    let prefix = request::path_segment(catalog.name());
    let rest = Rest { catalog, answers: Arc::default() };
    Router::new()
        .route("/v1/config", get(config::config))
        .route("/v1/oauth/tokens", post(config::token))
        .nest("/v1", routes())
        .nest(&format!("/v1/{prefix}"), routes())
        .method_not_allowed_fallback(Refused::method)
        .fallback(Refused::route)
        .layer(middleware::from_fn_with_state(rest.clone(), asked::once))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(rest)
}

fn routes() -> Router<Rest> {
    let namespace = "/namespaces/{namespace}";
    let table = "/namespaces/{namespace}/tables/{table}";
    Router::new()
        .route("/namespaces", get(namespaces::list).post(namespaces::create))
        .route(namespace, get(namespaces::load).head(namespaces::exists).delete(namespaces::drop))
        .route(&format!("{namespace}/properties"), post(namespaces::update))
        .route(&format!("{namespace}/tables"), get(tables::list).post(tables::create))
        .route(&format!("{namespace}/register"), post(tables::register))
        .route(
            table,
            get(tables::load).head(tables::exists).post(commit::table).delete(tables::drop),
        )
        .route(&format!("{table}/metrics"), post(tables::metrics))
        .route("/tables/rename", post(tables::rename))
        .route("/transactions/commit", post(commit::transaction))
        .route("/events", get(events::get).post(events::query))
        // Engines ask for a view of that name before they give up on a table.
        .route(&format!("{namespace}/views"), any(Refused::view))
        .route(&format!("{namespace}/views/{{view}}"), any(Refused::view))
        .route(&format!("{table}/credentials"), any(Refused::unsupported))
        .route(&format!("{table}/plan"), any(Refused::unsupported))
        .route(&format!("{table}/plan/{{plan}}"), any(Refused::unsupported))
        .route(&format!("{table}/tasks"), any(Refused::unsupported))
}
