//! Bodies of the routes on views.

use serde::{Deserialize, Serialize};

/// A view to store.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewView {
    /// Its query, at most 64 KiB: a SELECT without parameters. Names without a namespace are of the view's own.
    pub sql: String,
}

/// A column of a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ViewColumn {
    /// Its name.
    pub name: String,
    /// Its type, as Iceberg calls it.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A view of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ViewEntry {
    /// The namespace of the catalog; its levels are separated by dots.
    pub namespace: String,
    /// Its name in the namespace.
    pub name: String,
    /// Its query, in our dialect if it has one in it.
    pub sql: String,
    /// The dialect of the query.
    pub dialect: String,
    /// Its columns when it was stored.
    pub columns: Vec<ViewColumn>,
    /// The number of its version.
    pub version: i32,
}

/// That a view was removed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ViewRemoved {
    /// Its name.
    pub removed: String,
    /// The namespace.
    pub namespace: String,
}
