//! What the catalog can do, and the token route of a catalog without tokens.

use super::{Rest, request::path_segment};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// Every route that is supported, as the specification writes it.
pub(super) const ENDPOINTS: [&str; 25] = [
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
];

/// `GET /v1/config`: there is one warehouse, whatever name a client gives it. The separator of a
/// namespace's levels is said as it is written in a URL.
pub(super) async fn config(State(rest): State<Rest>) -> Json<Value> {
    let separator = path_segment(rest.catalog.namespace_separator());
    Json(json!({
        "defaults": {},
        "overrides": {"namespace-separator": separator},
        "endpoints": ENDPOINTS,
    }))
}

/// `POST /v1/oauth/tokens`: there are no tokens to get, said in OAuth's own error form.
pub(super) async fn token() -> Response {
    let body = json!({
        "error": "unsupported_grant_type",
        "error_description": "this catalog asks for no token: connect without authorization",
    });
    (StatusCode::NOT_IMPLEMENTED, Json(body)).into_response()
}
