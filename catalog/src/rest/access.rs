//! Keys and signatures for a table's files.
//!
//! [`Caller::scope`] is the one place that decides what a caller may do with them.

use super::{
    Rest,
    error::Refused,
    request::{Body, TablePath, path_segment},
};
use crate::{
    access::{Action, Principal},
    catalog::LoadedTable,
    error::CatalogError,
    storage::{
        access::{Access, ClientAccess, Scope},
        sign::SignRequest,
    },
};
use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use iceberg::TableIdent;
use serde::Serialize;
use std::{collections::HashMap, convert::Infallible};

/// With which a client says how it wants to get at files.
const DELEGATION: &str = "x-iceberg-access-delegation";

/// Keys for what lies below a prefix.
#[derive(Debug, Serialize)]
pub(super) struct StorageCredential {
    prefix: String,
    config: HashMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct CredentialsAnswer {
    storage_credentials: Vec<StorageCredential>,
}

/// What a loaded table's answer says about its files.
#[derive(Debug, Default)]
pub(super) struct Delegated {
    pub(super) config: HashMap<String, String>,
    pub(super) storage_credentials: Vec<StorageCredential>,
    /// What sets this answer apart from others with the same metadata.
    pub(super) tag: String,
    /// Whether the answer is worth keeping: keys of a role are not.
    pub(super) lasts: bool,
}

/// Who asks, and how: what a table's answer depends on beside the table.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) headers: HeaderMap,
    principal: Principal,
}

impl Caller {
    pub(super) fn of(parts: &Parts) -> Self {
        let principal = parts.extensions.get::<Principal>().cloned();
        Self {
            headers: parts.headers.clone(),
            principal: principal.unwrap_or_else(Principal::anonymous),
        }
    }

    /// Who asks.
    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What the caller may do with a table's files.
    fn scope(&self, table: &TableIdent) -> Scope {
        match self.principal.may(Action::Write, table.namespace().as_ref()) {
            true => Scope::Write,
            false => Scope::Read,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}

/// How a table's answer helps its caller to the files.
struct Way {
    wants_keys: bool,
    /// What sets the answer apart from others with the same metadata.
    tag: String,
    lasts: bool,
}

/// None where the answer holds nothing but the table.
fn way(rest: &Rest, caller: &Caller, ident: &TableIdent) -> Option<Way> {
    let wants_keys = caller
        .headers
        .get_all(DELEGATION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|way| way.trim() == "vended-credentials"));
    let (kind, lasts) = match rest.catalog.storage().access() {
        Access::None => return None,
        // Keys are the role's holder's to ask for.
        Access::Role(_) if !wants_keys => return None,
        Access::Role(role) => {
            // A client that has the answer of an earlier time has keys that end soon.
            let half = i64::try_from(role.lifetime.as_millis() / 2).unwrap_or(i64::MAX).max(1);
            (format!("role{}", rest.catalog.now_ms() / half), false)
        }
        Access::StaticKeys => ("keys".to_owned(), true),
        Access::RemoteSigning => (format!("sign-{}", endpoint(ident)), true),
    };
    let hash = xxhash_rust::xxh3::xxh3_64(kind.as_bytes());
    let keys = if wants_keys { "v" } else { "" };
    let scope = match caller.scope(ident) {
        Scope::Read => "r",
        Scope::Write => "w",
    };
    Some(Way { wants_keys, tag: format!("-{hash:x}{keys}{scope}"), lasts })
}

/// The tag that [`delegated`] gives, without asking anybody for keys.
pub(super) fn tag(rest: &Rest, caller: &Caller, ident: &TableIdent) -> String {
    way(rest, caller, ident).map_or_else(String::new, |way| way.tag)
}

/// What to tell the caller with a table.
pub(super) async fn delegated(
    rest: &Rest,
    caller: &Caller,
    ident: &TableIdent,
    location: &str,
) -> Result<Delegated, CatalogError> {
    let Some(Way { wants_keys, tag, lasts }) = way(rest, caller, ident) else {
        return Ok(Delegated { lasts: true, ..Delegated::default() });
    };
    let (storage, scope) = (rest.catalog.storage(), caller.scope(ident));
    let own = storage.normalize(location)?;
    let ClientAccess { mut config, prefix } = storage.client_access(&own, scope).await?;
    if *storage.access() == Access::RemoteSigning {
        for key in ["s3.signer.endpoint", "signer.endpoint"] {
            config.insert(key.to_owned(), endpoint(ident));
        }
    }
    let credential = |prefix| StorageCredential { prefix, config: config.clone() };
    let storage_credentials = prefix.filter(|_| wants_keys).map(credential).into_iter().collect();
    Ok(Delegated { config, storage_credentials, tag, lasts })
}

/// Where a table's requests are signed, below the catalog's own address: how clients reach that is
/// theirs to know.
fn endpoint(table: &TableIdent) -> String {
    let levels: Vec<String> = table.namespace().iter().map(|level| path_segment(level)).collect();
    format!("v1/namespaces/{}/tables/{}/sign", levels.join("%1F"), path_segment(table.name()))
}

/// `GET /namespaces/{namespace}/tables/{table}/credentials`
pub(super) async fn credentials(
    State(rest): State<Rest>,
    TablePath(ident): TablePath,
    caller: Caller,
) -> Result<Json<CredentialsAnswer>, Refused> {
    let table = rest.catalog.load_table(&ident).await?;
    let storage = rest.catalog.storage();
    let own = storage.normalize(table.metadata.location())?;
    let ClientAccess { config, prefix } = storage.client_access(&own, caller.scope(&ident)).await?;
    let storage_credentials =
        prefix.map(|prefix| StorageCredential { prefix, config }).into_iter().collect();
    Ok(Json(CredentialsAnswer { storage_credentials }))
}

/// `POST /namespaces/{namespace}/tables/{table}/sign`
pub(super) async fn sign(
    State(rest): State<Rest>,
    TablePath(ident): TablePath,
    caller: Caller,
    request: Result<Body<SignRequest>, Refused>,
) -> Result<Response, Refused> {
    let storage = rest.catalog.storage();
    if *storage.access() != Access::RemoteSigning {
        let text = "this catalog signs no requests: clients have keys of their own";
        let kind = "UnsupportedOperationException";
        return Err(Refused::new(StatusCode::NOT_ACCEPTABLE, kind, text));
    }
    let Body(request) = request?;
    let LoadedTable { metadata, .. } = rest.catalog.load_table(&ident).await?;
    let own = storage.normalize(metadata.location())?;
    let signed = storage.sign(&own, caller.scope(&ident), request)?;
    // A signature is of one moment, and of one caller's rights.
    Ok(([(header::CACHE_CONTROL, "no-cache")], Json(signed)).into_response())
}
