//! Keeps web pages away from a server that lets everybody in.
//!
//! Without access control the server listens on a loopback address, but a browser on that machine
//! sends it whatever any page asks for, and reads it to a page whose name was made to point there.
//! Its one invariant: without access control, what is answered names a loopback host, and comes from
//! a page, if at all, that this server itself has sent.

use crate::http::{AppState, error::ApiError};
use axum::{
    Json,
    extract::Request,
    http::{HeaderMap, StatusCode, Uri, Version, header, uri::Authority},
    response::{IntoResponse, Response},
};
use icecore_schemas::error_code::ErrorCode;
use std::net::IpAddr;

const FOREIGN_HOST: &str = "without access control this server answers requests to localhost, 127.0.0.1 and [::1] only: use one of these names, or set `auth = on`";
const FOREIGN_PAGE: &str = "without access control this server rejects requests from web pages of another origin: set `auth = on`";

/// Why a request is not answered. With access control on, every one is: a page has no token.
pub fn refusal(app: &AppState, request: &Request) -> Option<Response> {
    if app.access.control().is_some() || is_probe(request) {
        return None;
    }
    let refused = check(request.uri(), request.headers()).err()?;
    Some(answer(request.uri().path(), refused))
}

/// Whether this is a load balancer's look at the server's health: in HTTP/1.0, without a host. No
/// browser sends that, and the answer has no data.
fn is_probe(request: &Request) -> bool {
    request.version() == Version::HTTP_10
        && matches!(request.uri().path(), "/healthz" | "/readyz")
        && ![header::HOST, header::ORIGIN].iter().any(|name| request.headers().contains_key(name))
}

fn check(uri: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()).ok_or(FOREIGN_HOST)?;
    let is_local = |authority: &Authority| is_loopback(authority.host());
    let named: Authority = host.parse().map_err(|_| FOREIGN_HOST)?;
    if !is_local(&named) || hosts.next().is_some() || !uri.authority().is_none_or(is_local) {
        return Err(FOREIGN_HOST);
    }
    let is_own = |origin: &str| {
        let (_, authority) = origin.split_once("://").unwrap_or_default();
        authority.eq_ignore_ascii_case(host)
    };
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match origins.all(|origin| origin.to_str().is_ok_and(is_own)) {
        true => Ok(()),
        false => Err(FOREIGN_PAGE),
    }
}

/// Whether this is a name of the machine itself, as a browser resolves it or as it is written.
fn is_loopback(host: &str) -> bool {
    let name = host.to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name == "localhost"
        || name.ends_with(".localhost")
        || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// In the form of the routes that the path is among.
fn answer(path: &str, text: &str) -> Response {
    if !path.starts_with("/catalog/") {
        return ApiError::new(ErrorCode::Forbidden, text).into_response();
    }
    let status = StatusCode::FORBIDDEN;
    let error = serde_json::json!({
        "message": text,
        "type": "ForbiddenException",
        "code": status.as_u16(),
    });
    (status, Json(serde_json::json!({ "error": error }))).into_response()
}

#[cfg(test)]
mod tests;
