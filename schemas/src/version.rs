//! The answer of `GET /version`.

use serde::{Deserialize, Serialize};

/// What answers here.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Version {
    /// Always `icecore`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The name of the build, such as a commit, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
}
