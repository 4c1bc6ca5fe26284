//! Takes requests apart: names in paths, query parameters, JSON bodies.
//!
//! It is lenient where real clients are sloppy: a body's content type is not looked at, unknown
//! members and parameters are ignored.

use super::{REQUEST_BYTES_MAX, RestState, error::RestError};
use crate::{
    body::{parse_object, whole},
    catalog::NAMESPACE_SEPARATOR,
    columns, defaults,
    error::CatalogError,
    metastore::Levels,
};
use axum::{
    extract::{FromRequest, FromRequestParts, MatchedPath, Query, Request},
    http::{HeaderMap, HeaderValue, header, request::Parts},
};
use bytes::Bytes;
use iceberg::{NamespaceIdent, TableIdent};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::HashMap;

/// How `name` is written as a segment of a path.
pub(super) fn path_segment(name: &str) -> String {
    const UNRESERVED: &percent_encoding::AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(name, UNRESERVED).to_string()
}

/// The levels of a namespace as a path or a parameter names it: with the separator that the catalog
/// announces, or with the one that every client knows.
pub(super) fn levels(rest: &RestState, name: &str) -> Levels {
    let separator = rest.catalog.namespace_separator();
    name.split(NAMESPACE_SEPARATOR)
        .flat_map(|part| part.split(separator))
        .map(str::to_owned)
        .collect()
}

/// The namespace in a request's path.
pub(super) struct NamespacePath(pub(super) Levels);

impl NamespacePath {
    /// A table in it.
    pub(super) fn table(&self, name: &str) -> Result<TableIdent, RestError> {
        ObjectName { namespace: self.0.clone(), name: name.to_owned() }.ident()
    }

    /// The name as error messages have it.
    pub(super) fn name(&self) -> String {
        self.0.join(".")
    }
}

impl FromRequestParts<RestState> for NamespacePath {
    type Rejection = RestError;

    async fn from_request_parts(parts: &mut Parts, rest: &RestState) -> Result<Self, RestError> {
        let names = names(parts)?;
        Ok(Self(levels(rest, names.get("namespace").map_or("", String::as_str))))
    }
}

/// The table in a request's path.
pub(super) struct TablePath(pub(super) TableIdent);

impl FromRequestParts<RestState> for TablePath {
    type Rejection = RestError;

    async fn from_request_parts(parts: &mut Parts, rest: &RestState) -> Result<Self, RestError> {
        let mut names = names(parts)?;
        let namespace = names.remove("namespace").unwrap_or_default();
        let name = names.remove("table").unwrap_or_default();
        ObjectName { namespace: levels(rest, &namespace), name }.ident().map(Self)
    }
}

/// The view in a request's path.
pub(super) struct ViewPath(pub(super) TableIdent);

impl FromRequestParts<RestState> for ViewPath {
    type Rejection = RestError;

    async fn from_request_parts(parts: &mut Parts, rest: &RestState) -> Result<Self, RestError> {
        let mut names = names(parts)?;
        let namespace = names.remove("namespace").unwrap_or_default();
        let name = names.remove("view").unwrap_or_default();
        ObjectName { namespace: levels(rest, &namespace), name }.ident().map(Self)
    }
}

/// Parameters of a path that are names of the catalog.
const NAMES: [&str; 3] = ["namespace", "table", "view"];

/// Clients that write a plus in a path as it is, by how their `User-Agent` begins: iceberg-go and
/// iceberg-rust. Java's client writes a space so, as in forms, and everybody else writes `%2B` and
/// `%20`.
const WRITES_PLUS: [&str; 2] = ["GoIceberg/", "iceberg-rs/"];

/// The parameters of a request's path.
pub(super) fn names(parts: &Parts) -> Result<HashMap<String, String>, RestError> {
    let matched = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let agent = parts.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let writes_plus =
        agent.is_some_and(|agent| WRITES_PLUS.iter().any(|client| agent.starts_with(client)));
    // A router in another sees the end of the path only.
    let segments = matched.rsplit('/').zip(parts.uri.path().rsplit('/'));
    let mut names = HashMap::new();
    for (pattern, written) in segments {
        let Some(name) = pattern.strip_prefix('{').and_then(|name| name.strip_suffix('}')) else {
            continue;
        };
        let spaced = match NAMES.contains(&name) && !writes_plus {
            true => written.replace('+', "%20"),
            false => written.to_owned(),
        };
        let decoded = percent_decode_str(&spaced).decode_utf8();
        let decoded = decoded
            .map_err(|_| RestError::bad_request(format!("the {name} in the path is not UTF-8")))?;
        names.insert(name.to_owned(), decoded.into_owned());
    }
    Ok(names)
}

/// A table's or view's name in a body.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct ObjectName {
    pub(super) namespace: Levels,
    pub(super) name: String,
}

impl ObjectName {
    pub(super) fn ident(self) -> Result<TableIdent, RestError> {
        let namespace = NamespaceIdent::from_vec(self.namespace)
            .map_err(|_| RestError::bad_request("a table's namespace has at least one level"))?;
        Ok(TableIdent::new(namespace, self.name))
    }
}

/// The parameters after the `?`.
pub(super) struct UrlParameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for UrlParameters<T> {
    type Rejection = RestError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, RestError> {
        Query::from_request_parts(parts, state)
            .await
            .map(|Query(parameters)| Self(parameters))
            .map_err(|rejection| RestError::bad_request(rejection.body_text()))
    }
}

/// A JSON body.
pub(super) struct JsonBody<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = RestError;

    async fn from_request(request: Request, _: &S) -> Result<Self, RestError> {
        let (parts, body) = request.into_parts();
        let bytes = whole(&parts.headers, body, REQUEST_BYTES_MAX).await?;
        parse_body(&utf8_body(&parts.headers, bytes)?).map(Self)
    }
}

/// With which Iceberg's Java client says its version.
const CLIENT_VERSION: &str = "x-client-version";

/// A body as UTF-8. Iceberg's Java client, up to at least 1.10, sends ISO-8859-1 and has no setting
/// for it: what is in that alphabet is read as it was meant. Of what is not only `?` is left.
pub(super) fn utf8_body(headers: &HeaderMap, bytes: Bytes) -> Result<Bytes, RestError> {
    let coding = headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
    if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        let text = "request body: it has a Content-Encoding; send it uncompressed";
        return Err(RestError::bad_request(text));
    }
    let version = headers.get(CLIENT_VERSION).and_then(|version| version.to_str().ok());
    let java = version.filter(|version| version.starts_with("Apache Iceberg"));
    let is_utf8 = std::str::from_utf8(&bytes).is_ok();
    match java {
        None if is_utf8 => Ok(bytes),
        None => {
            let text =
                "request body: it is not UTF-8; send JSON as UTF-8, whatever its Content-Type";
            Err(RestError::bad_request(text))
        }
        Some(java) if lost_characters(&bytes, is_utf8) => Err(RestError::bad_request(format!(
            "request body: it has `?` where a name seems to have had characters that the client \
             ({java}) cannot send, because it sends ISO-8859-1 and has no setting for that; use \
             names within Latin-1 there, or do this with another client, such as PyIceberg or DuckDB"
        ))),
        Some(_) if is_utf8 => Ok(bytes),
        Some(_) => Ok(bytes.iter().copied().map(char::from).collect::<String>().into()),
    }
}

/// Whether a body of ISO-8859-1 seems to have lost characters: it has any `?` beside letters beyond
/// ASCII, or a text of nothing else.
fn lost_characters(bytes: &[u8], is_utf8: bool) -> bool {
    if !is_utf8 {
        return bytes.contains(&b'?');
    }
    let mut texts = bytes.split(|byte| *byte == b'"');
    texts.any(|text| !text.is_empty() && text.iter().all(|byte| *byte == b'?'))
}

/// What a JSON body says.
pub(super) fn parse_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RestError> {
    let refused =
        |text: &dyn std::fmt::Display| RestError::bad_request(format!("request body: {text}"));
    defaults::check(bytes).map_err(|text| refused(&text))?;
    parse_object(bytes).map_err(|error| match columns::explain(bytes) {
        Some(text) => refused(&text),
        None => refused(&error),
    })
}

/// Refuses names that no path could hold.
pub(super) fn check_levels(rest: &RestState, levels: &Levels) -> Result<(), RestError> {
    let separator = rest.catalog.namespace_separator();
    let fits = |level: &String| {
        !level.is_empty() && !level.contains(NAMESPACE_SEPARATOR) && !level.contains(separator)
    };
    if !levels.is_empty() && levels.iter().all(fits) {
        return Ok(());
    }
    Err(CatalogError::Invalid(format!("invalid namespace name: {levels:?}")).into())
}
