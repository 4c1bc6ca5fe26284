//! Bodies of the routes on legal holds.

use serde::{Deserialize, Serialize};

/// Why a namespace is held.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewHold {
    /// Why, for whoever finds it later.
    #[cfg_attr(test, schemars(length(max = 1024)))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A legal hold: while there is one, nothing of its namespace is deleted for its age.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HoldEntry {
    /// The namespace of the catalog; its levels are separated by dots.
    pub namespace: String,
    /// Its name in the namespace.
    pub name: String,
    /// Why, where somebody said so.
    pub reason: Option<String>,
    /// Since when, RFC 3339.
    pub since: String,
}

/// The holds of a namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HoldList {
    /// By name.
    pub holds: Vec<HoldEntry>,
}

/// That a hold was removed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HoldRemoved {
    /// Its name.
    pub removed: String,
    /// The namespace.
    pub namespace: String,
}
