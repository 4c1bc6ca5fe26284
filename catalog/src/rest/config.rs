//! What the catalog can do.

use super::{RestState, request::path_segment};
use crate::storage::access::FileAccess;
use axum::{Json, extract::State};
use serde_json::{Value, json};

/// Every route that is supported, as the specification writes it.
pub(super) const ENDPOINTS: [&str; 32] = [
    "GET /v1/{prefix}/namespaces",
    "POST /v1/{prefix}/namespaces",
    "GET /v1/{prefix}/namespaces/{namespace}",
    "HEAD /v1/{prefix}/namespaces/{namespace}",
    "DELETE /v1/{prefix}/namespaces/{namespace}",
    "POST /v1/{prefix}/namespaces/{namespace}/properties",
    "GET /v1/{prefix}/namespaces/{namespace}/tables",
    "POST /v1/{prefix}/namespaces/{namespace}/tables",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "DELETE /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/metrics",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/plan",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}/plan/{plan-id}",
    "DELETE /v1/{prefix}/namespaces/{namespace}/tables/{table}/plan/{plan-id}",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/tasks",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}/credentials",
    "POST /v1/{prefix}/namespaces/{namespace}/register",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/unregister",
    "POST /v1/{prefix}/tables/rename",
    "POST /v1/{prefix}/transactions/commit",
    "GET /v1/{prefix}/namespaces/{namespace}/views",
    "POST /v1/{prefix}/namespaces/{namespace}/views",
    "GET /v1/{prefix}/namespaces/{namespace}/views/{view}",
    "HEAD /v1/{prefix}/namespaces/{namespace}/views/{view}",
    "POST /v1/{prefix}/namespaces/{namespace}/views/{view}",
    "DELETE /v1/{prefix}/namespaces/{namespace}/views/{view}",
    "POST /v1/{prefix}/namespaces/{namespace}/register-view",
    "POST /v1/{prefix}/views/rename",
    "GET /v1/{prefix}/events",
    "POST /v1/{prefix}/events",
];

/// Supported where the warehouse's requests are signed.
const SIGN: &str = "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/sign";

/// [`crate::catalog::REQUEST_LIFETIME_MS`] as the specification writes it.
const REQUEST_LIFETIME: &str = "PT30M";

/// `GET /v1/config`: there is one warehouse, whatever name a client gives it. The separator of a
/// namespace's levels is said as it is written in a URL.
pub(super) async fn config(State(rest): State<RestState>) -> Json<Value> {
    let signs = *rest.catalog.storage().access() == FileAccess::RemoteSigning;
    let endpoints: Vec<&str> = ENDPOINTS.into_iter().chain(signs.then_some(SIGN)).collect();
    let separator = path_segment(rest.catalog.namespace_separator());
    Json(json!({
        "defaults": {},
        "overrides": {"namespace-separator": separator},
        "endpoints": endpoints,
        "idempotency-key-lifetime": REQUEST_LIFETIME,
    }))
}
