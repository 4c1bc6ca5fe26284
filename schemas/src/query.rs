//! The request of `POST /v1/{ns}/sql`.

use serde::{Deserialize, Deserializer, Serialize};

/// A request that sends this header as `trailer`, and `TE: trailers`, gets a trailer of that name
/// which says how the query ended: `ok`, or an error body in percent-encoding.
pub const OUTCOME_HEADER: &str = "x-icecore-outcome";

/// One SQL query.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SqlRequest {
    /// The statement, at most 64 KiB.
    pub sql: String,
    /// A snapshot id, tag, branch or RFC 3339 time: what was committed then, nothing newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(extend("type" = ["integer", "string"])))]
    pub as_of: Option<serde_json::Value>,
    /// Answer only from a state that includes this `seq`. It is waited for, at most 5 s and as long as the
    /// query may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_seq: Option<u64>,
    /// Values for `$1`, `$2`, … in order.
    #[serde(default, deserialize_with = "none_or_list", skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<serde_json::Value>,
    /// Most rows of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Milliseconds the query may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// `null` is no list, as it is no number in the other members.
fn none_or_list<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<serde_json::Value>, D::Error> {
    Option::deserialize(value).map(Option::unwrap_or_default)
}
