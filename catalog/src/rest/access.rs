//! Keys and signatures for a table's files.
//!
//! [`TableCaller::scope`] is the one place that decides what a caller may do with them.

use super::{
    RestState,
    error::RestError,
    request::{JsonBody, TablePath, path_segment},
};
use crate::{
    access::{Action, Principal},
    catalog::{LoadedTable, NAMESPACE_SEPARATOR},
    error::CatalogError,
    storage::{
        access::{ClientAccess, FileAccess, FileScope},
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
/// With which a client says which library it uses.
const CLIENT_VERSION: &str = "x-client-version";
/// How Iceberg's Java library begins that.
const JAVA_LIBRARY: &str = "Apache Iceberg";

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
pub(super) struct DelegatedAccess {
    pub(super) config: HashMap<String, String>,
    pub(super) storage_credentials: Vec<StorageCredential>,
    /// What sets this answer apart from others with the same metadata.
    pub(super) tag: String,
    /// Whether the answer is worth keeping: keys of a role are not.
    pub(super) lasts: bool,
}

/// Who asks, and how: what a table's answer depends on beside the table.
#[derive(Clone, Debug)]
pub(super) struct TableCaller {
    pub(super) headers: HeaderMap,
    principal: Principal,
}

impl TableCaller {
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

    /// Whether it may change rows of a table, and then looks at the table itself before it commits. Of other
    /// libraries than Iceberg's Java library none is known to.
    pub(super) fn validates_commits(&self, table: &TableIdent) -> bool {
        let library = self.headers.get(CLIENT_VERSION).and_then(|value| value.to_str().ok());
        library.is_some_and(|library| library.starts_with(JAVA_LIBRARY))
            && self.principal.may(Action::Write, table.namespace().as_ref())
    }

    /// What the caller may do with a table's files.
    fn scope(&self, table: &TableIdent) -> FileScope {
        match self.principal.may(Action::Write, table.namespace().as_ref()) {
            true => FileScope::Write,
            false => FileScope::Read,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TableCaller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}

/// How a table's answer helps its caller to the files.
struct DelegationMode {
    wants_keys: bool,
    /// What sets the answer apart from others with the same metadata.
    tag: String,
    lasts: bool,
}

/// Whether the caller may have the files of a table: not where the service shows its rows by who asks, and the
/// caller may not see all.
fn may_have_files(rest: &RestState, caller: &TableCaller, table: &TableIdent) -> bool {
    !rest.catalog.hides_rows(table)
        || caller.principal.may(Action::Admin, table.namespace().as_ref())
}

/// Refuses keys and signatures for the files of such a table.
fn check_files(
    rest: &RestState,
    caller: &TableCaller,
    table: &TableIdent,
) -> Result<(), CatalogError> {
    if may_have_files(rest, caller, table) {
        return Ok(());
    }
    Err(CatalogError::Forbidden(format!(
        "The files of {table} have rows of every visibility (visibility.filter is on): keys for them need the scope `admin`; read the rows by SQL"
    )))
}

/// None where the answer holds nothing but the table.
fn way(rest: &RestState, caller: &TableCaller, ident: &TableIdent) -> Option<DelegationMode> {
    if !may_have_files(rest, caller, ident) {
        return None;
    }
    let wants_keys = caller
        .headers
        .get_all(DELEGATION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|way| way.trim() == "vended-credentials"));
    let (kind, lasts) = match rest.catalog.storage().access() {
        FileAccess::None => return None,
        // Keys are the role's holder's to ask for.
        FileAccess::Role(_) if !wants_keys => return None,
        FileAccess::Role(role) => {
            // A client that has the answer of an earlier time has keys that end soon.
            let half = i64::try_from(role.lifetime.as_millis() / 2).unwrap_or(i64::MAX).max(1);
            (format!("role{}", rest.catalog.now_ms() / half), false)
        }
        FileAccess::StaticKeys => ("keys".to_owned(), true),
        FileAccess::RemoteSigning => (format!("sign-{}", endpoint(ident)), true),
    };
    let hash = xxhash_rust::xxh3::xxh3_64(kind.as_bytes());
    let keys = if wants_keys { "v" } else { "" };
    let scope = match caller.scope(ident) {
        FileScope::Read => "r",
        FileScope::Write => "w",
    };
    Some(DelegationMode { wants_keys, tag: format!("-{hash:x}{keys}{scope}"), lasts })
}

/// The tag that [`delegated`] gives, without asking anybody for keys.
pub(super) fn tag(rest: &RestState, caller: &TableCaller, ident: &TableIdent) -> String {
    way(rest, caller, ident).map_or_else(String::new, |way| way.tag)
}

/// What to tell the caller with a table.
pub(super) async fn delegated(
    rest: &RestState,
    caller: &TableCaller,
    ident: &TableIdent,
    location: &str,
) -> Result<DelegatedAccess, CatalogError> {
    let Some(DelegationMode { wants_keys, tag, lasts }) = way(rest, caller, ident) else {
        return Ok(DelegatedAccess { lasts: true, ..DelegatedAccess::default() });
    };
    let (storage, scope) = (rest.catalog.storage(), caller.scope(ident));
    let own = storage.normalize(location)?;
    let ClientAccess { mut config, prefix } = storage.client_access(&own, scope).await?;
    if *storage.access() == FileAccess::RemoteSigning {
        for key in ["s3.signer.endpoint", "signer.endpoint"] {
            config.insert(key.to_owned(), endpoint(ident));
        }
    }
    let credential = |prefix| StorageCredential { prefix, config: config.clone() };
    let storage_credentials = prefix.filter(|_| wants_keys).map(credential).into_iter().collect();
    Ok(DelegatedAccess { config, storage_credentials, tag, lasts })
}

/// Where a table's requests are signed, below the catalog's own address: how clients reach that is
/// theirs to know.
fn endpoint(table: &TableIdent) -> String {
    let namespace = path_segment(&table.namespace().join(NAMESPACE_SEPARATOR));
    format!("v1/namespaces/{namespace}/tables/{}/sign", path_segment(table.name()))
}

/// `GET /namespaces/{namespace}/tables/{table}/credentials`
pub(super) async fn credentials(
    State(rest): State<RestState>,
    TablePath(ident): TablePath,
    caller: TableCaller,
) -> Result<Json<CredentialsAnswer>, RestError> {
    check_files(&rest, &caller, &ident)?;
    let table = rest.catalog.tables().load(&ident).await?;
    let storage = rest.catalog.storage();
    let own = storage.normalize(table.metadata.location())?;
    let ClientAccess { config, prefix } = storage.client_access(&own, caller.scope(&ident)).await?;
    let storage_credentials =
        prefix.map(|prefix| StorageCredential { prefix, config }).into_iter().collect();
    Ok(Json(CredentialsAnswer { storage_credentials }))
}

/// `POST /namespaces/{namespace}/tables/{table}/sign`
pub(super) async fn sign(
    State(rest): State<RestState>,
    TablePath(ident): TablePath,
    caller: TableCaller,
    request: Result<JsonBody<SignRequest>, RestError>,
) -> Result<Response, RestError> {
    let storage = rest.catalog.storage();
    if *storage.access() != FileAccess::RemoteSigning {
        let text = "this catalog does not sign requests: clients use keys of their own";
        let kind = "UnsupportedOperationException";
        return Err(RestError::new(StatusCode::NOT_ACCEPTABLE, kind, text));
    }
    let JsonBody(request) = request?;
    check_files(&rest, &caller, &ident)?;
    let LoadedTable { metadata, .. } = rest.catalog.tables().load(&ident).await?;
    let own = storage.normalize(metadata.location())?;
    let signed = storage.sign(&own, caller.scope(&ident), request)?;
    // A signature is of one moment, and of one caller's rights.
    Ok(([(header::CACHE_CONTROL, "no-cache")], Json(signed)).into_response())
}
