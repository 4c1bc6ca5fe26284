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
}
