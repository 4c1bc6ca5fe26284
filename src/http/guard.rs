//! Lets a request through to its handler: who is calling, and may they. The catalog has a guard of
//! its own, with the same principals.
//!
//! [`ROUTES`] says what each route needs. Its one invariant: with access control on, a route that
//! is not in the table answers nobody, and a refusal depends on names alone, so what is foreign and
//! what is missing answer alike. [`Principal`] is in the extensions of every request that passes.

use crate::http::{App, error::ApiError, namespaces, record};
use axum::{
    extract::{MatchedPath, RawPathParams, Request, State},
    http::{HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use icecore_catalog::{
    access::{Action, Principal, Unidentified},
    error::CatalogError,
};
use icecore_schemas::{error_code::ErrorCode, names::Namespace};

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Open,
    /// Any valid token; the handler shows only what the caller may see.
    Anyone,
    /// This action in the namespace that the path names.
    In(Action),
    /// This action in some namespace; the handler looks where.
    Somewhere(Action),
    /// This action in every namespace.
    Everywhere(Action),
}

/// Every route outside the catalog, as the router has it. A method that is not listed is not
/// allowed.
pub const ROUTES: &[(&str, &str, Need)] = &[
    ("POST", "/ingest", Need::Somewhere(Action::Ingest)),
    ("POST", "/ingest/", Need::Somewhere(Action::Ingest)),
    ("POST", "/e", Need::Somewhere(Action::Ingest)),
    ("POST", "/e/", Need::Somewhere(Action::Ingest)),
    ("OPTIONS", "/ingest", Need::Open),
    ("OPTIONS", "/ingest/", Need::Open),
    ("OPTIONS", "/e", Need::Open),
    ("OPTIONS", "/e/", Need::Open),
    // The signature stands for the token.
    ("POST", "/webhooks/{provider}", Need::Open),
    ("OPTIONS", "/webhooks/{provider}", Need::Open),
    ("POST", "/v1/{namespace}/sql", Need::In(Action::Read)),
    ("POST", "/v1/{namespace}/commit", Need::In(Action::Ingest)),
    ("GET", "/v1/namespaces", Need::Anyone),
    // These handlers look at the namespace as the catalog has it, which may have several levels.
    ("GET", "/v1/{namespace}/tables", Need::Anyone),
    ("GET", "/v1/{namespace}/tables/{table}/snapshots", Need::Anyone),
    ("DELETE", "/v1/{namespace}/tables/{table}", Need::Anyone),
    ("GET", "/v1/{namespace}/tables/{table}/stats", Need::Anyone),
    ("PUT", "/v1/{namespace}/tables/{table}/protection", Need::Anyone),
    ("DELETE", "/v1/{namespace}/tables/{table}/protection", Need::Anyone),
    ("POST", "/v1/{namespace}/tables/{table}/rename", Need::Anyone),
    ("POST", "/v1/{namespace}/tables/{table}/rollback", Need::Anyone),
    ("GET", "/v1/{namespace}/tables/{table}/refs", Need::Anyone),
    ("POST", "/v1/{namespace}/tables/{table}/refs", Need::Anyone),
    ("DELETE", "/v1/{namespace}/tables/{table}/refs/{name}", Need::Anyone),
    ("POST", "/v1/{namespace}/tables/{table}/refs/{name}/fast-forward", Need::Anyone),
    ("POST", "/admin/commit", Need::Everywhere(Action::Admin)),
    // What is sent again goes where its sender could send it anew.
    ("GET", "/v1/{namespace}/dead-letters", Need::In(Action::Read)),
    ("DELETE", "/v1/{namespace}/dead-letters", Need::In(Action::Admin)),
    ("GET", "/v1/{namespace}/dead-letters/{id}", Need::In(Action::Read)),
    ("POST", "/v1/{namespace}/dead-letters/retry", Need::In(Action::Ingest)),
    ("GET", "/admin/protected", Need::Everywhere(Action::Admin)),
    ("GET", "/admin/dropped", Need::Everywhere(Action::Admin)),
    ("DELETE", "/admin/dropped/{uuid}", Need::Everywhere(Action::Admin)),
    ("POST", "/admin/dropped/{uuid}/undrop", Need::Everywhere(Action::Admin)),
    ("GET", "/admin/tokens", Need::Somewhere(Action::Admin)),
    ("POST", "/admin/tokens", Need::Somewhere(Action::Admin)),
    ("DELETE", "/admin/tokens/{id}", Need::Somewhere(Action::Admin)),
    ("GET", "/admin/webhooks", Need::Somewhere(Action::Admin)),
    ("PUT", "/admin/webhooks/{namespace}/{provider}", Need::In(Action::Admin)),
    ("GET", "/admin/webhooks/{namespace}/{provider}", Need::In(Action::Admin)),
    ("DELETE", "/admin/webhooks/{namespace}/{provider}", Need::In(Action::Admin)),
    ("GET", "/admin/audit", Need::Everywhere(Action::Admin)),
    ("GET", "/healthz", Need::Open),
    ("GET", "/readyz", Need::Open),
    ("GET", "/metrics", Need::Everywhere(Action::Read)),
    ("GET", "/version", Need::Open),
    ("GET", "/openapi.json", Need::Open),
];

/// The layer around every route outside the catalog.
pub async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some(control) = app.access.control() else {
        return pass(&app, Principal::anonymous(), Ok(()), request, next).await;
    };
    let need = match need(&request) {
        Ok(Need::Open) => return next.run(request).await,
        Ok(need) => need,
        Err(allowed) => return not_listed(&allowed),
    };
    let header = request.headers().get(header::AUTHORIZATION);
    let principal = match control.identify(header.and_then(|value| value.to_str().ok())).await {
        Ok(principal) => principal,
        Err(cause) => {
            let unknown = !matches!(cause, Unidentified::Unavailable(_));
            if let Some(recorder) = app.access.recorder().filter(|_| unknown) {
                recorder.count_unknown(&record::address(request.extensions()));
            }
            return unidentified(cause);
        }
    };
    let (mut parts, body) = request.into_parts();
    let allowed = match need {
        Need::Open | Need::Anyone => Ok(()),
        Need::Somewhere(action) => allowed(principal.may_somewhere(action), action),
        Need::Everywhere(action) => allowed(principal.may_everywhere(action), action),
        Need::In(action) => {
            use axum::extract::FromRequestParts;
            let names = RawPathParams::from_request_parts(&mut parts, &()).await;
            let name = names.iter().flatten().find(|(name, _)| *name == "namespace");
            allow_in(&principal, action, name.map_or("", |(_, value)| value))
        }
    };
    let allowed = match allowed {
        // What it tells depends on the caller alone, whatever was asked for.
        Err(error) if error.code() == ErrorCode::NotFound => {
            Err(namespaces::with_others(&app, &principal, error).await)
        }
        allowed => allowed,
    };
    pass(&app, principal, allowed, Request::from_parts(parts, body), next).await
}

/// Lets a call of `principal` through if it is `allowed`; a change is recorded either way.
async fn pass(
    app: &App,
    principal: Principal,
    allowed: Result<(), ApiError>,
    mut request: Request,
    next: Next,
) -> Response {
    request.extensions_mut().insert(principal.clone());
    let matched = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let is_recorded = record::is_recorded(request.method(), matched);
    let answer = match (app.access.recorder().filter(|_| is_recorded), allowed) {
        (Some(recorder), allowed) => {
            record::record(recorder, principal, allowed, request, next).await
        }
        (None, Ok(())) => Ok(next.run(request).await),
        (None, Err(refused)) => Err(refused),
    };
    answer.unwrap_or_else(IntoResponse::into_response)
}

fn allowed(may: bool, action: Action) -> Result<(), ApiError> {
    if may {
        return Ok(());
    }
    let text = format!("the token does not allow this: it needs the scope `{}`", action.name());
    Err(ApiError::new(ErrorCode::Forbidden, text))
}

/// A name that is no namespace is left to the handler, which says what is wrong with it.
fn allow_in(principal: &Principal, action: Action, name: &str) -> Result<(), ApiError> {
    let Ok(namespace) = Namespace::parse(name) else { return Ok(()) };
    allow_levels(principal, action, &levels(&namespace))
}

/// Refuses who may not do this in a namespace of the catalog.
///
/// # Errors
/// 404 for who may not know of it, 403 for who may.
pub fn allow_levels(
    principal: &Principal,
    action: Action,
    levels: &[String],
) -> Result<(), ApiError> {
    if principal.may(action, levels) {
        return Ok(());
    }
    let name = levels.join(".");
    if !principal.sees(levels) {
        return Err(CatalogError::NoSuchNamespace(name).into());
    }
    let scope = format!("{}:{name}", action.name());
    let text = format!("the token does not allow this: it needs the scope `{scope}`");
    Err(ApiError::new(ErrorCode::Forbidden, text))
}

/// The catalog's namespace of an event's.
#[must_use]
pub fn levels(namespace: &Namespace) -> Vec<String> {
    vec![namespace.name().to_owned()]
}

fn need(request: &Request) -> Result<Need, Vec<&'static str>> {
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let rows = || ROUTES.iter().filter(|(_, path, _)| Some(*path) == matched);
    let by_name = |name: &str| rows().find(|(method, ..)| *method == name);
    let method = request.method();
    let row = by_name(method.as_str())
        .or_else(|| (method == Method::HEAD).then(|| by_name("GET")).flatten());
    row.map(|(.., need)| *need).ok_or_else(|| rows().map(|(method, ..)| *method).collect())
}

fn not_listed(allowed: &[&'static str]) -> Response {
    if allowed.is_empty() {
        return ApiError::new(ErrorCode::Forbidden, "this route is not open to anybody")
            .into_response();
    }
    let text = "this path does not take that method; see the Allow header";
    let mut response = ApiError::new(ErrorCode::MethodNotAllowed, text).into_response();
    let allowed = HeaderValue::from_str(&allowed.join(",")).expect("methods are letters");
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}

fn unidentified(cause: Unidentified) -> Response {
    let message = cause.to_string();
    let challenge = match cause {
        Unidentified::Unavailable(cause) => {
            tracing::error!(error = &cause as &dyn std::error::Error, "tokens cannot be looked up");
            let text = "tokens cannot be looked up now; send the request again";
            return ApiError::new(ErrorCode::Unavailable, text).into_response();
        }
        Unidentified::NoToken => "Bearer",
        Unidentified::BadToken => "Bearer error=\"invalid_token\"",
    };
    let mut response = ApiError::new(ErrorCode::Unauthenticated, message).into_response();
    let challenge = HeaderValue::from_static(challenge);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

#[cfg(test)]
mod tests;
