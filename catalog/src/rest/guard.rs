//! Lets a request through to its handler: who is calling, may they, and the record of it.
//!
//! [`ROUTES`] says what each route needs. Its one invariant: with access control on, a route that
//! is not in the table answers nobody, and a refusal depends on names alone, so what is foreign and
//! what is missing answer alike. [`Principal`] is in the extensions of every request that passes,
//! and a [`crate::audit::AuditedCall`] in those of a change.

use super::{
    REQUEST_BYTES_MAX, RestState,
    error::RestError,
    request::{ObjectName, levels, names, parse_body, utf8_body},
};
use crate::{
    access::{Action, IdentityError, Principal, request_entry},
    audit::AuditEntry,
    body::whole,
    error::CatalogError,
    metastore::Levels,
};
use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Deserialize;
use std::sync::Arc;

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AccessNeed {
    /// Nothing: it is how one gets a token.
    Open,
    /// Any valid token; the handler shows only what the caller may see.
    Anyone,
    /// This action in the namespace that the path names.
    In(Action),
    /// This action in every namespace.
    Everywhere(Action),
    /// To write in the namespace that the path names, where the body names what is made.
    Makes,
    /// To write the namespace that the body names, which may not be there yet.
    Creates,
    /// To write in both namespaces that the body names.
    Renames,
    /// To write in every namespace that the body names.
    Commits,
}

const READ: AccessNeed = AccessNeed::In(Action::Read);
const WRITE: AccessNeed = AccessNeed::In(Action::Write);

/// Every route below `/v1`, with `{}` for any parameter. A method that is not listed is not allowed.
pub(super) const ROUTES: &[(&str, &str, AccessNeed)] = &[
    ("GET", "/config", AccessNeed::Anyone),
    ("POST", "/oauth/tokens", AccessNeed::Open),
    ("GET", "/namespaces", AccessNeed::Anyone),
    ("POST", "/namespaces", AccessNeed::Creates),
    ("GET", "/namespaces/{}", READ),
    ("HEAD", "/namespaces/{}", READ),
    ("DELETE", "/namespaces/{}", WRITE),
    ("POST", "/namespaces/{}/properties", WRITE),
    ("GET", "/namespaces/{}/tables", READ),
    ("POST", "/namespaces/{}/tables", AccessNeed::Makes),
    ("POST", "/namespaces/{}/register", AccessNeed::Makes),
    ("GET", "/namespaces/{}/tables/{}", READ),
    ("HEAD", "/namespaces/{}/tables/{}", READ),
    ("POST", "/namespaces/{}/tables/{}", WRITE),
    ("DELETE", "/namespaces/{}/tables/{}", WRITE),
    // What a reader reports about its scan.
    ("POST", "/namespaces/{}/tables/{}/metrics", READ),
    ("GET", "/namespaces/{}/tables/{}/credentials", READ),
    ("POST", "/namespaces/{}/tables/{}/plan", READ),
    ("GET", "/namespaces/{}/tables/{}/plan/{}", READ),
    ("DELETE", "/namespaces/{}/tables/{}/plan/{}", READ),
    ("POST", "/namespaces/{}/tables/{}/tasks", READ),
    ("POST", "/tables/rename", AccessNeed::Renames),
    ("POST", "/transactions/commit", AccessNeed::Commits),
    ("GET", "/namespaces/{}/views", READ),
    ("POST", "/namespaces/{}/views", AccessNeed::Makes),
    ("GET", "/namespaces/{}/views/{}", READ),
    ("HEAD", "/namespaces/{}/views/{}", READ),
    ("POST", "/namespaces/{}/views/{}", WRITE),
    ("DELETE", "/namespaces/{}/views/{}", WRITE),
    ("POST", "/namespaces/{}/register-view", AccessNeed::Makes),
    ("POST", "/views/rename", AccessNeed::Renames),
    ("POST", "/namespaces/{}/tables/{}/unregister", WRITE),
    ("GET", "/namespaces/{}/tables/{}/metrics", READ),
    // What is signed for a reader only reads.
    ("POST", "/namespaces/{}/tables/{}/sign", READ),
    ("GET", "/events", AccessNeed::Everywhere(Action::Read)),
    // A search, which changes nothing.
    ("POST", "/events", AccessNeed::Everywhere(Action::Read)),
];

impl AccessNeed {
    /// Whether what it guards changes something, and is recorded.
    pub(super) fn is_change(self) -> bool {
        match self {
            Self::In(action) => action == Action::Write,
            Self::Makes | Self::Creates | Self::Renames | Self::Commits => true,
            Self::Open | Self::Anyone | Self::Everywhere(_) => false,
        }
    }
}

/// Something that a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RequestTarget {
    Namespace(Levels),
    NewNamespace(Levels),
    Table(Levels, String),
    View(Levels, String),
    /// A table or view that is to be there.
    New(Levels, String),
}

impl RequestTarget {
    fn levels(&self) -> &Levels {
        match self {
            Self::Namespace(levels)
            | Self::NewNamespace(levels)
            | Self::Table(levels, _)
            | Self::View(levels, _)
            | Self::New(levels, _) => levels,
        }
    }

    fn name(&self) -> Option<&String> {
        match self {
            Self::Namespace(_) | Self::NewNamespace(_) => None,
            Self::Table(_, name) | Self::View(_, name) | Self::New(_, name) => Some(name),
        }
    }

    /// As records have it: a level or name that could be taken for two is quoted.
    fn object(&self) -> String {
        let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
        let parts = self.levels().iter().chain(self.name()).map(|part| {
            match !part.is_empty() && part.chars().all(is_plain) {
                true => part.clone(),
                false => serde_json::json!(part).to_string(),
            }
        });
        parts.collect::<Vec<_>>().join(".")
    }

    fn text(&self) -> String {
        let parts: Vec<&str> =
            self.levels().iter().chain(self.name()).map(String::as_str).collect();
        parts.join(".")
    }

    /// The answer to who may not even know whether it is there: the same as when it is not.
    fn missing(&self) -> RestError {
        match self {
            Self::Namespace(levels) | Self::New(levels, _) => {
                RestError::no_such_namespace(&levels.join("."))
            }
            Self::Table(..) => CatalogError::NoSuchTable(self.text()).into(),
            Self::View(..) => RestError::new(
                StatusCode::NOT_FOUND,
                "NoSuchViewException",
                format!("View does not exist: {}", self.text()),
            ),
            Self::NewNamespace(levels) => match levels.split_last() {
                Some((_, parent)) if !parent.is_empty() => {
                    RestError::no_such_namespace(&parent.join("."))
                }
                _ => RestError::forbidden(format!("you may not create namespace {}", self.text())),
            },
        }
    }

    fn allow(&self, principal: &Principal, action: Action) -> Result<(), RestError> {
        if principal.may(action, self.levels()) {
            return Ok(());
        }
        let is_visible = match self {
            Self::NewNamespace(levels) => {
                levels.split_last().is_some_and(|(_, parent)| principal.sees(parent))
            }
            Self::Namespace(levels)
            | Self::Table(levels, _)
            | Self::View(levels, _)
            | Self::New(levels, _) => principal.sees(levels),
        };
        if !is_visible {
            return Err(self.missing());
        }
        let namespace = self.levels().join(".");
        Err(RestError::forbidden(format!("you may not {} in namespace {namespace}", action.name())))
    }
}

#[derive(Deserialize)]
struct NamespaceBody {
    namespace: Levels,
}

#[derive(Deserialize)]
struct MakesBody {
    name: String,
}

#[derive(Deserialize)]
struct RenameTarget {
    source: ObjectName,
    destination: ObjectName,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct CommitsBody {
    table_changes: Vec<ChangeBody>,
}

#[derive(Deserialize)]
struct ChangeBody {
    identifier: Option<ObjectName>,
}

/// The layer around every route.
pub(super) async fn guard(State(rest): State<RestState>, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let path = below_version(matched.unwrap_or_default(), rest.catalog.name());
    let need = find(request.method(), &path);
    let need = match need {
        Ok(AccessNeed::Open) => return next.run(request).await,
        Ok(need) => need,
        // Without access control the router says what it has.
        Err(_) if rest.access.control().is_none() => return next.run(request).await,
        Err(allowed) => {
            let (method, uri) = (request.method().clone(), request.uri().clone());
            return not_listed(method, uri, &allowed).await;
        }
    };
    let (mut parts, body) = request.into_parts();
    let principal = match rest.access.identify(&parts).await {
        Ok(principal) => principal,
        Err(cause) => return unidentified(cause),
    };
    parts.extensions.insert(principal.clone());
    if need.is_change() {
        return change(&rest, need, &path, Request::from_parts(parts, body), next).await;
    }
    if let AccessNeed::In(action) = need
        && let Err(refused) = allow_path(&rest, &parts, &principal, action)
    {
        return refused.into_response();
    }
    if let AccessNeed::Everywhere(action) = need
        && !principal.may_everywhere(action)
    {
        let text = format!("you may not {} in every namespace", action.name());
        return RestError::forbidden(text).into_response();
    }
    next.run(Request::from_parts(parts, body)).await
}

/// Carries out a call that changes something, if it may, and records it either way.
async fn change(
    rest: &RestState,
    need: AccessNeed,
    path: &str,
    request: Request,
    next: Next,
) -> Response {
    let Some(recorder) = rest.access.recorder() else { return next.run(request).await };
    let (mut parts, body) = request.into_parts();
    let whole = whole(&parts.headers, body, REQUEST_BYTES_MAX).await;
    let whole = whole.map_err(RestError::from).and_then(|body| utf8_body(&parts.headers, body));
    let (body, targets) = match whole {
        Ok(body) => {
            let targets = targets(rest, &parts, need, &body);
            (body, targets)
        }
        Err(refused) => (Bytes::new(), Err(refused)),
    };
    let objects: Vec<String> = targets.iter().flatten().map(RequestTarget::object).collect();
    let action = format!("{} /v1{path}", parts.method);
    let Some(recording) = recorder.begin(entry(&parts, action, &objects, &body)) else {
        let message = "the audit log is behind, try again";
        let kind = "ServiceUnavailableException";
        return RestError::new(StatusCode::SERVICE_UNAVAILABLE, kind, message).into_response();
    };
    let allowed = targets.and_then(|targets| {
        let principal = parts.extensions.get::<Principal>().expect("the guard puts it there");
        targets.iter().try_for_each(|target| target.allow(principal, Action::Write))
    });
    let response = match allowed {
        Err(refused) => refused.into_response(),
        Ok(()) => {
            parts.extensions.insert(Arc::clone(recording.call()));
            next.run(Request::from_parts(parts, Body::from(body))).await
        }
    };
    recording.end(response.status().as_u16()).await;
    response
}

fn allow_path(
    rest: &RestState,
    parts: &Parts,
    principal: &Principal,
    action: Action,
) -> Result<(), RestError> {
    path_target(rest, parts)?.allow(principal, action)
}

/// What a change is about.
fn targets(
    rest: &RestState,
    parts: &Parts,
    need: AccessNeed,
    body: &[u8],
) -> Result<Vec<RequestTarget>, RestError> {
    Ok(match need {
        AccessNeed::Open | AccessNeed::Anyone | AccessNeed::Everywhere(_) | AccessNeed::In(_) => {
            vec![path_target(rest, parts)?]
        }
        AccessNeed::Makes => {
            let target = path_target(rest, parts)?;
            // Who may not do it here is told that before what is wrong with the body.
            let named = serde_json::from_slice::<MakesBody>(body).ok();
            vec![match named {
                Some(MakesBody { name }) => RequestTarget::New(target.levels().clone(), name),
                None => target,
            }]
        }
        AccessNeed::Creates => {
            let NamespaceBody { namespace } = parse_body(body)?;
            vec![RequestTarget::NewNamespace(namespace)]
        }
        AccessNeed::Renames => {
            let RenameTarget { source, destination } = parse_body(body)?;
            let is_view = parts.uri.path().ends_with("/views/rename");
            let source = match is_view {
                true => RequestTarget::View(source.namespace, source.name),
                false => RequestTarget::Table(source.namespace, source.name),
            };
            vec![source, RequestTarget::New(destination.namespace, destination.name)]
        }
        AccessNeed::Commits => {
            let CommitsBody { table_changes } = parse_body(body)?;
            let named = table_changes.into_iter().filter_map(|change| change.identifier);
            named.map(|name| RequestTarget::Table(name.namespace, name.name)).collect()
        }
    })
}

fn path_target(rest: &RestState, parts: &Parts) -> Result<RequestTarget, RestError> {
    let mut names = names(parts)?;
    let levels = levels(rest, names.get("namespace").map_or("", String::as_str));
    Ok(match (names.remove("table"), names.remove("view")) {
        (Some(table), _) => RequestTarget::Table(levels, table),
        (None, Some(view)) => RequestTarget::View(levels, view),
        (None, None) => RequestTarget::Namespace(levels),
    })
}

fn entry(parts: &Parts, action: String, objects: &[String], body: &[u8]) -> AuditEntry {
    let principal = parts.extensions.get::<Principal>().expect("the guard puts it there");
    AuditEntry { action, object: objects.join(" "), ..request_entry(parts, principal, body) }
}

/// A route's path in the form of [`ROUTES`], from what the router matched.
pub(super) fn below_version(matched: &str, prefix: &str) -> String {
    let below = matched.split_once("/v1/").map_or("", |(_, below)| below);
    let prefix = super::request::path_segment(prefix);
    let below = below
        .strip_prefix(prefix.as_str())
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or(below);
    let segment = |segment: &str| if segment.starts_with('{') { "{}" } else { segment }.to_owned();
    below.split('/').fold(String::new(), |path, one| path + "/" + &segment(one))
}

/// What a route needs; otherwise the methods that its path does take.
pub(super) fn find(method: &Method, path: &str) -> Result<AccessNeed, Vec<&'static str>> {
    let rows = || ROUTES.iter().filter(|(_, known, _)| *known == path);
    let by_name = |name: &str| rows().find(|(known, ..)| *known == name);
    let row = by_name(method.as_str())
        .or_else(|| (method == Method::HEAD).then(|| by_name("GET")).flatten());
    row.map(|(.., need)| *need).ok_or_else(|| rows().map(|(known, ..)| *known).collect())
}

async fn not_listed(method: Method, uri: Uri, allowed: &[&'static str]) -> Response {
    if allowed.is_empty() {
        tracing::error!(%method, %uri, "a route is in no table of what it needs");
        return RestError::forbidden("no caller may use this route").into_response();
    }
    let mut response = RestError::method(method, uri).await.into_response();
    let allowed = HeaderValue::from_str(&allowed.join(",")).expect("methods are letters");
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}

fn unidentified(cause: IdentityError) -> Response {
    let (challenge, message) = (cause.challenge(), cause.to_string());
    match cause {
        IdentityError::Unavailable(cause) => RestError::from(cause).into_response(),
        IdentityError::NoToken | IdentityError::BadToken => {
            let kind = "NotAuthorizedException";
            let refused = RestError::new(StatusCode::UNAUTHORIZED, kind, message);
            ([(header::WWW_AUTHENTICATE, challenge.unwrap_or_default())], refused).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
