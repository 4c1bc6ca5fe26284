//! Takes requests apart: names in paths, query parameters, JSON bodies.
//!
//! It is lenient where real clients are sloppy: a body's content type is not looked at, unknown
//! members and parameters are ignored.

use super::{REQUEST_BYTES_MAX, Rest, body::whole, error::Refused};
use crate::{
    catalog::NAMESPACE_SEPARATOR, columns, defaults, error::CatalogError, metastore::Levels,
};
use axum::{
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::request::Parts,
};
use iceberg::{NamespaceIdent, TableIdent};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
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
pub(super) fn levels(rest: &Rest, name: &str) -> Levels {
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
    pub(super) fn table(&self, name: &str) -> Result<TableIdent, Refused> {
        Name { namespace: self.0.clone(), name: name.to_owned() }.ident()
    }

    /// The name as error messages have it.
    pub(super) fn name(&self) -> String {
        self.0.join(".")
    }
}

impl FromRequestParts<Rest> for NamespacePath {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, rest: &Rest) -> Result<Self, Refused> {
        let names = names(parts, rest).await?;
        Ok(Self(levels(rest, names.get("namespace").map_or("", String::as_str))))
    }
}

/// The table in a request's path.
pub(super) struct TablePath(pub(super) TableIdent);

impl FromRequestParts<Rest> for TablePath {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, rest: &Rest) -> Result<Self, Refused> {
        let mut names = names(parts, rest).await?;
        let namespace = names.remove("namespace").unwrap_or_default();
        let name = names.remove("table").unwrap_or_default();
        Name { namespace: levels(rest, &namespace), name }.ident().map(Self)
    }
}

/// The view in a request's path.
pub(super) struct ViewPath(pub(super) TableIdent);

impl FromRequestParts<Rest> for ViewPath {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, rest: &Rest) -> Result<Self, Refused> {
        let mut names = names(parts, rest).await?;
        let namespace = names.remove("namespace").unwrap_or_default();
        let name = names.remove("view").unwrap_or_default();
        Name { namespace: levels(rest, &namespace), name }.ident().map(Self)
    }
}

pub(super) async fn names(
    parts: &mut Parts,
    rest: &Rest,
) -> Result<HashMap<String, String>, Refused> {
    Path::from_request_parts(parts, rest)
        .await
        .map(|Path(names)| names)
        .map_err(|rejection| Refused::bad_request(rejection.body_text()))
}

/// A table's or view's name in a body.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Name {
    pub(super) namespace: Levels,
    pub(super) name: String,
}

impl Name {
    pub(super) fn ident(self) -> Result<TableIdent, Refused> {
        let namespace = NamespaceIdent::from_vec(self.namespace)
            .map_err(|_| Refused::bad_request("a table's namespace has at least one level"))?;
        Ok(TableIdent::new(namespace, self.name))
    }
}

/// The parameters after the `?`.
pub(super) struct Parameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        Query::from_request_parts(parts, state)
            .await
            .map(|Query(parameters)| Self(parameters))
            .map_err(|rejection| Refused::bad_request(rejection.body_text()))
    }
}

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        let (parts, body) = request.into_parts();
        parse_body(&whole(&parts.headers, body, REQUEST_BYTES_MAX).await?).map(Self)
    }
}

/// What a JSON body says.
pub(super) fn parse_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    let refused =
        |text: &dyn std::fmt::Display| Refused::bad_request(format!("request body: {text}"));
    defaults::check(bytes).map_err(|text| refused(&text))?;
    serde_json::from_slice(bytes).map_err(|error| match columns::explain(bytes) {
        Some(text) => refused(&text),
        None => refused(&error),
    })
}

/// Refuses names that no path could hold.
pub(super) fn check_levels(rest: &Rest, levels: &Levels) -> Result<(), Refused> {
    let separator = rest.catalog.namespace_separator();
    let fits = |level: &String| {
        !level.is_empty() && !level.contains(NAMESPACE_SEPARATOR) && !level.contains(separator)
    };
    if !levels.is_empty() && levels.iter().all(fits) {
        return Ok(());
    }
    Err(CatalogError::Invalid(format!("invalid namespace name: {levels:?}")).into())
}
