//! Bodies of the routes on materialised tables.

use serde::{Deserialize, Serialize};

/// A table to make, and the query that it has the rows of.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewMaterialized {
    /// The query, at most 64 KiB, without parameters. It sees the tables of its own namespace.
    pub sql: String,
    /// When it is run again: a cron expression with five fields, in UTC.
    pub every: String,
}

/// A table with the rows of a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MaterializedEntry {
    /// The namespace of the catalog; its levels are separated by dots.
    pub namespace: String,
    /// Its name in the namespace.
    pub name: String,
    /// The query.
    pub sql: String,
    /// When it is run again.
    pub every: String,
    /// Whether a refresh reads the events alone that came since the last one, and not all of them.
    pub is_incremental: bool,
    /// When its rows were replaced last, milliseconds since 1970; null where no retained snapshot tells.
    pub refreshed_ms: Option<i64>,
    /// The last event that its rows could have; null where no retained snapshot tells.
    pub seq: Option<u64>,
}

/// That a table is not refreshed any more. The table stays.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MaterializedRemoved {
    /// Its name.
    pub removed: String,
    /// The namespace.
    pub namespace: String,
}
