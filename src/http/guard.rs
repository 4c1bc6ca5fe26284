//! Lets a request through to its handler: who is calling, and may they. The catalog has a guard of
//! its own, with the same principals.
//!
//! The table [`ROUTES`](super::routes::ROUTES) says what each route needs. Its one invariant: a
//! refusal depends on names alone, so what is foreign and what is missing answer alike.
//! [`Principal`] is in the extensions of every request that passes, but for routes that ask nothing.

use crate::{
    http::{AppState, error::ApiError, namespaces, record},
    sql::view,
};
use axum::{
    extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State},
    http::{header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use icecore_catalog::{
    access::{Action, IdentityError, Principal},
    catalog::NAMESPACE_SEPARATOR,
    error::CatalogError,
};
use icecore_schemas::{error_code::ErrorCode, names::Namespace};

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteNeed {
    /// Nothing.
    Open,
    /// Any valid token; the handler shows only what the caller may see.
    AnyToken,
    /// This action in the namespace of events that the path names.
    In(Action),
    /// This action in the namespace of the catalog that the path names: as its events do, by its
    /// name, or by several levels. Its handler finds it as [`CatalogNamespace`].
    InCatalog(Action),
    /// This action in some namespace; the handler looks where.
    Somewhere(Action),
    /// This action in every namespace.
    Everywhere(Action),
}

/// The levels of the namespace that a path names, for a caller who may do there what the route
/// needs.
#[derive(Clone, Debug)]
pub struct CatalogNamespace(pub Vec<String>);

/// The layer around a route of this need.
pub async fn guard(
    State((app, need)): State<(AppState, RouteNeed)>,
    request: Request,
    next: Next,
) -> Response {
    if need == RouteNeed::Open {
        return next.run(request).await;
    }
    let reads_catalog =
        matches!(need, RouteNeed::InCatalog(_) | RouteNeed::In(Action::Read) | RouteNeed::AnyToken);
    // Each would wait for a connection, one after the other, to be told the same.
    if reads_catalog && !app.owner.has_metastore() {
        let text = "the metastore does not answer now; try again";
        return ApiError::new(ErrorCode::Unavailable, text).into_response();
    }
    let (mut parts, body) = request.into_parts();
    let principal = match app.access.identify(&parts).await {
        Ok(principal) => principal,
        Err(cause) => return unidentified(&cause),
    };
    let allowed = allow(&app, &principal, need, &mut parts).await;
    pass(&app, principal, need, allowed, Request::from_parts(parts, body), next).await
}

/// Lets a call of `principal` through if it is `allowed`; a change is recorded either way.
async fn pass(
    app: &AppState,
    principal: Principal,
    need: RouteNeed,
    allowed: Result<(), ApiError>,
    mut request: Request,
    next: Next,
) -> Response {
    request.extensions_mut().insert(principal.clone());
    let matched = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let is_recorded = record::is_recorded(request.method(), need, matched);
    let answer = match (app.access.recorder().filter(|_| is_recorded), allowed) {
        (Some(recorder), allowed) => {
            record::record(recorder, principal, allowed, request, next).await
        }
        (None, Ok(())) => Ok(next.run(request).await),
        (None, Err(refused)) => Err(refused),
    };
    answer.unwrap_or_else(IntoResponse::into_response)
}

/// Refuses a caller who has not the right.
async fn allow(
    app: &AppState,
    principal: &Principal,
    need: RouteNeed,
    parts: &mut Parts,
) -> Result<(), ApiError> {
    match need {
        RouteNeed::Open | RouteNeed::AnyToken => Ok(()),
        RouteNeed::Somewhere(action) => allowed(principal.may_somewhere(action), action),
        RouteNeed::Everywhere(action) => allowed(principal.may_everywhere(action), action),
        RouteNeed::In(action) => match Namespace::parse(&namespace_of(parts).await) {
            Ok(namespace) => allow_named(app, principal, action, &levels(&namespace)).await,
            // The handler says what is wrong with it.
            Err(_) => Ok(()),
        },
        RouteNeed::InCatalog(action) => {
            let name = namespace_of(parts).await;
            let levels = catalog_levels(app, principal, action, &name).await?;
            parts.extensions.insert(CatalogNamespace(levels));
            Ok(())
        }
    }
}

async fn namespace_of(parts: &mut Parts) -> String {
    let names = RawPathParams::from_request_parts(parts, &()).await;
    let name = names.iter().flatten().find(|(name, _)| *name == "namespace");
    name.map_or_else(String::new, |(_, value)| value.to_owned())
}

/// The levels of a namespace of the catalog where the caller may do this.
///
/// # Errors
/// 404 for who may not know of it, 403 for who may.
pub async fn catalog_levels(
    app: &AppState,
    principal: &Principal,
    action: Action,
    namespace: &str,
) -> Result<Vec<String>, ApiError> {
    let written: Vec<String> = namespace.split(NAMESPACE_SEPARATOR).map(str::to_owned).collect();
    // One level may be the text that events carry.
    let carried = Namespace::parse(namespace).ok().filter(|_| written.len() == 1);
    let found = match carried {
        Some(carried) if means_events(app, principal, action, &carried).await? => levels(&carried),
        _ => written,
    };
    allow_named(app, principal, action, &found).await?;
    Ok(found)
}

/// Whether a text means the namespace of the events that carry it, and not the catalog's of exactly
/// this name: where there are such events, or the catalog has no such name. Only who may use the
/// catalog's learns of it.
async fn means_events(
    app: &AppState,
    principal: &Principal,
    action: Action,
    carried: &Namespace,
) -> Result<bool, ApiError> {
    let written = vec![carried.text().to_owned()];
    if carried.text() == carried.name()
        || !principal.may(action, &written)
        || app.catalog.metastore().namespace(&written).await?.is_none()
    {
        return Ok(true);
    }
    if !principal.may(action, &levels(carried)) {
        return Ok(false);
    }
    let owner = view::claim(&app.wal, &app.catalog, carried).await?;
    Ok(owner.as_ref() == Some(carried))
}

/// As [`allow_levels`]; who may not know of the namespace is told which others there are.
async fn allow_named(
    app: &AppState,
    principal: &Principal,
    action: Action,
    levels: &[String],
) -> Result<(), ApiError> {
    match allow_levels(principal, action, levels) {
        // What it tells depends on the caller alone, whatever was asked for.
        Err(error)
            if error.code() == ErrorCode::NotFound && !principal.may(Action::Ingest, levels) =>
        {
            Err(namespaces::with_others(app, principal, error).await)
        }
        allowed => allowed,
    }
}

fn allowed(may: bool, action: Action) -> Result<(), ApiError> {
    if may {
        return Ok(());
    }
    let text = format!("the token does not allow this: it needs the scope `{}`", action.name());
    Err(ApiError::new(ErrorCode::Forbidden, text))
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
    let scope = format!("{}:{name}", action.name());
    if !principal.sees(levels) {
        let text = format!(
            "the token may only send events to namespace `{name}`: this needs the scope `{scope}`"
        );
        let error = ApiError::from(CatalogError::NoSuchNamespace(name));
        let may_send = principal.may(Action::Ingest, levels);
        return Err(if may_send { error.with_text(text) } else { error });
    }
    let text = format!("the token does not allow this: it needs the scope `{scope}`");
    Err(ApiError::new(ErrorCode::Forbidden, text))
}

/// The catalog's namespace of an event's.
#[must_use]
pub fn levels(namespace: &Namespace) -> Vec<String> {
    vec![namespace.name().to_owned()]
}

fn unidentified(cause: &IdentityError) -> Response {
    let Some(challenge) = cause.challenge() else {
        tracing::error!(error = cause as &dyn std::error::Error, "tokens cannot be looked up");
        let text = "cannot look up tokens now; send the request again";
        return ApiError::new(ErrorCode::Unavailable, text).into_response();
    };
    let refused = ApiError::new(ErrorCode::Unauthenticated, cause.to_string());
    ([(header::WWW_AUTHENTICATE, challenge)], refused).into_response()
}
