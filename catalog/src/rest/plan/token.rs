//! Names of plans and of their parts: the request itself with where in it the part is.
//!
//! Nobody needs to keep a secret: a token says nothing that its holder could not ask for anyway,
//! and the table in the request's path is the one that is read. A sum tells damaged tokens.

use super::PlanBody;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A plan, or a part of one.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct PlanToken {
    /// Of which table.
    pub(super) table: Uuid,
    /// The schema that names in the request are of.
    pub(super) schema: i32,
    /// The request.
    pub(super) body: PlanBody,
    /// Which part of it; all when none.
    pub(super) part: Option<PlanPart>,
    /// Whether the request had a filter that is left to the client.
    #[serde(default)]
    pub(super) leaves_filter: bool,
}

/// A run of the manifests that a scan has to read.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct PlanPart {
    /// The first.
    pub(super) from: usize,
    /// The one after the last.
    pub(super) to: usize,
    /// What the list was when it was cut.
    pub(super) of: u64,
}

impl PlanToken {
    pub(super) fn write(&self) -> String {
        let json = serde_json::to_vec(self).expect("a request has only string keys");
        let sum = xxhash_rust::xxh3::xxh3_64(&json);
        format!("{sum:016x}{}", hex::encode(json))
    }

    /// None for a text that was not written here.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (sum, digits) = text.split_at_checked(16)?;
        let sum = u64::from_str_radix(sum, 16).ok()?;
        let json = hex::decode(digits).ok()?;
        let is_whole = xxhash_rust::xxh3::xxh3_64(&json) == sum;
        is_whole.then(|| serde_json::from_slice(&json).ok()).flatten()
    }
}
