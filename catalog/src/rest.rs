//! The Iceberg REST protocol over [`crate::catalog::Catalog`].
//!
//! It parses requests, calls the catalog and writes answers; the rules of tables and commits are
//! the catalog's. Its one invariant: every answer that is not a success has a body in the
//! specification's error form, and none of a server error says more than that there was one.

mod access;
mod change_context;
mod commit;
mod config;
mod error;
mod etag;
mod events;
mod guard;
mod idempotency;
mod lists;
mod metrics;
mod namespaces;
mod oauth;
mod ordered;
mod places;
mod plan;
mod request;
mod tables;
#[cfg(test)]
mod tests;
mod views;

use crate::{access::AccessControl, catalog::Catalog, scan::manifests::ManifestCache};
use axum::{
    Router, middleware,
    routing::{get, post},
};
use error::RestError;
use std::sync::Arc;

/// Largest body of a request: a commit of a client that adds very many snapshots or properties.
pub const REQUEST_BYTES_MAX: usize = 32 << 20;

/// What the handlers share.
#[derive(Clone, Debug)]
struct RestState {
    catalog: Catalog,
    access: AccessControl,
    answers: Arc<etag::AnswerCache>,
    manifests: ManifestCache,
    planning: plan::limits::PlanningLimits,
}

/// Every route of the protocol below `/v1`, to be nested where the catalog lives (`/catalog`).
///
/// Each is there twice: as it is, and below `/v1/{name of the catalog}` for clients that use that
/// name as the prefix.
///
/// Whoever calls may do everything, and nothing is recorded; see [`router_for`].
pub fn router(catalog: Catalog) -> axum::Router {
    router_for(catalog, AccessControl::off())
}

/// As [`router`], for callers that `access` lets in.
pub fn router_for(catalog: Catalog, access: AccessControl) -> axum::Router {
    router_over(RestState {
        catalog,
        access,
        answers: Arc::default(),
        manifests: ManifestCache::default(),
        planning: plan::limits::PlanningLimits::default(),
    })
}

fn router_over(rest: RestState) -> axum::Router {
    let prefix = request::path_segment(rest.catalog.name());
    Router::new()
        .route("/v1/config", get(config::config))
        .nest("/v1", routes())
        .nest(&format!("/v1/{prefix}"), routes())
        .route_layer(middleware::from_fn_with_state(rest.clone(), idempotency::once))
        // Whoever asks for a token is nobody yet, and no request of nobody is kept to be repeated.
        .route("/v1/oauth/tokens", post(oauth::token))
        .route_layer(middleware::from_fn_with_state(rest.clone(), guard::guard))
        .method_not_allowed_fallback(RestError::method)
        .fallback(RestError::route)
        .with_state(rest)
}

fn routes() -> Router<RestState> {
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
        .route(&format!("{table}/unregister"), post(tables::unregister))
        .route(&format!("{table}/metrics"), get(metrics::list).post(metrics::report))
        .route("/tables/rename", post(tables::rename))
        .route("/transactions/commit", post(commit::transaction))
        .route("/events", get(events::get).post(events::query))
        .route(&format!("{namespace}/views"), get(views::list).post(views::create))
        .route(
            &format!("{namespace}/views/{{view}}"),
            get(views::load).head(views::exists).post(views::commit).delete(views::drop),
        )
        .route(&format!("{namespace}/register-view"), post(views::register))
        .route("/views/rename", post(views::rename))
        .route(&format!("{table}/credentials"), get(access::credentials))
        .route(&format!("{table}/sign"), post(access::sign))
        .route(&format!("{table}/plan"), post(plan::plan))
        .route(&format!("{table}/plan/{{plan}}"), get(plan::fetch).delete(plan::cancel))
        .route(&format!("{table}/tasks"), post(plan::tasks))
}
