//! Loads of tables through the catalog: what waits for a table of ours is committed before a client
//! loads it. The catalog itself knows of no log.
//!
//! Its one invariant: only a caller who may read the table has anything committed.

use crate::http::AppState;
use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, header::AUTHORIZATION},
    middleware::Next,
    response::Response,
};
use icecore_catalog::access::{Action, Principal};
use percent_encoding::percent_decode_str;

/// How the catalog's route of one table ends, whatever prefix it has.
const TABLE_ROUTE: &str = "/namespaces/{namespace}/tables/{table}";

/// What a request loads.
struct LoadRequest {
    /// The namespace. Those of events have one level, so more of them name none of ours.
    namespace: String,
    table: String,
    /// Whether the table itself is asked for, and not only whether it is there.
    is_whole: bool,
    authorization: Option<String>,
}

/// The layer around the catalog's routes. The guard inside it refuses who may not load; what comes
/// before it is for who may.
pub async fn before_load(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let load = LoadRequest::of(&request);
    if let Some(load) = load
        // A metastore that does not answer would be waited for twice.
        && app.owner.has_metastore()
        && let Some(caller) = caller(&app, load.authorization.as_deref()).await
        && caller.may(Action::Read, std::slice::from_ref(&load.namespace))
    {
        if load.is_whole {
            Box::pin(app.flush.before_load(&load.namespace, &load.table)).await;
        } else {
            app.flush.note_load(&load.namespace, &load.table);
        }
    }
    next.run(request).await
}

/// Who asks; none when nobody is known by that token. The guard counts those.
async fn caller(app: &AppState, authorization: Option<&str>) -> Option<Principal> {
    match app.access.control() {
        Some(control) => control.identify(authorization).await.ok(),
        None => Some(Principal::anonymous()),
    }
}

impl LoadRequest {
    fn of(request: &Request) -> Option<Self> {
        let is_whole = match *request.method() {
            Method::GET => true,
            Method::HEAD => false,
            _ => return None,
        };
        let matched = request.extensions().get::<MatchedPath>()?;
        if !matched.as_str().ends_with(TABLE_ROUTE) {
            return None;
        }
        let mut segments = request.uri().path().rsplit('/');
        let table = decoded(segments.next()?)?;
        let namespace = decoded(segments.nth(1)?)?;
        let authorization = request.headers().get(AUTHORIZATION);
        let authorization = authorization.and_then(|header| header.to_str().ok());
        let authorization = authorization.map(str::to_owned);
        Some(Self { namespace, table, is_whole, authorization })
    }
}

fn decoded(segment: &str) -> Option<String> {
    percent_decode_str(segment).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}
