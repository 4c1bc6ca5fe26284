//! What the catalog can do, and the token route of a catalog without tokens.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// Every route that is supported, as the specification writes it.
pub(super) const ENDPOINTS: [&str; 18] = [
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
    "POST /v1/{prefix}/tables/rename",
    "POST /v1/{prefix}/transactions/commit",
    "GET /v1/{prefix}/events",
    "POST /v1/{prefix}/events",
];

/// [`crate::catalog::REQUEST_LIFETIME_MS`] as the specification writes it.
const REQUEST_LIFETIME: &str = "PT30M";

/// `GET /v1/config`: there is one warehouse, whatever name a client gives it.
pub(super) async fn config() -> Json<Value> {
    Json(json!({
        "defaults": {},
        "overrides": {},
        "endpoints": ENDPOINTS,
        "idempotency-key-lifetime": REQUEST_LIFETIME,
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
