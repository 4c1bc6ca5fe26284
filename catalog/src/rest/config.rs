//! What the catalog can do, and the token route of a catalog without tokens.

use super::Rest;
use crate::storage::access::Access;
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// Every route that is supported, as the specification writes it.
pub(super) const ENDPOINTS: [&str; 17] = [
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
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}/credentials",
    "POST /v1/{prefix}/namespaces/{namespace}/register",
    "POST /v1/{prefix}/tables/rename",
    "POST /v1/{prefix}/transactions/commit",
];

/// Supported where the warehouse's requests are signed.
const SIGN: &str = "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/sign";

/// `GET /v1/config`: there is one warehouse, whatever name a client gives it.
pub(super) async fn config(State(rest): State<Rest>) -> Json<Value> {
    let signs = *rest.catalog.storage().access() == Access::RemoteSigning;
    let endpoints: Vec<&str> = ENDPOINTS.into_iter().chain(signs.then_some(SIGN)).collect();
    Json(json!({"defaults": {}, "overrides": {}, "endpoints": endpoints}))
}

/// `POST /v1/oauth/tokens`: there are no tokens to get, said in OAuth's own error form.
pub(super) async fn token() -> Response {
    let body = json!({
        "error": "unsupported_grant_type",
        "error_description": "this catalog asks for no token: connect without authorization",
    });
    (StatusCode::NOT_IMPLEMENTED, Json(body)).into_response()
}
