//! Bodies of the routes on dead letters: events that were refused.

use serde::{Deserialize, Serialize};

/// Which page of the letters.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LetterPage {
    /// Only those refused for this reason.
    pub reason: Option<String>,
    /// Only those in this state, pending or redriven.
    pub status: Option<String>,
    /// Only those after this id, which an earlier page gave as `next`.
    pub after: Option<String>,
    /// Most of a page; 100 when left out.
    #[cfg_attr(test, schemars(range(min = 1, max = 1000)))]
    pub limit: Option<usize>,
}

/// A page of letters, the oldest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LetterList {
    /// The letters, without their bytes.
    pub dead_letters: Vec<Letter>,
    /// What the next page comes after, while there may be more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A refused event, without its bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Letter {
    /// Its id, which the reply to the event had as `deadLetter`.
    pub id: String,
    /// The namespace that it was sent to.
    pub ns: String,
    /// When it first came, RFC 3339.
    pub received_at: String,
    /// Why it was refused, as an error code.
    pub reason: String,
    /// Why, and what to change.
    pub detail: String,
    /// The event's type, where it could be read, as below.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    /// The event's id.
    pub event_id: Option<String>,
    /// The batch it came in.
    pub batch_id: Option<String>,
    /// The event's source.
    pub source: Option<String>,
    /// The `x-correlation-id` of the request it came in.
    #[serde(default)]
    pub correlation_id: Option<String>,
    /// How often it was sent again.
    pub retries: i32,
    /// pending, or redriven once it was taken.
    pub status: String,
    /// When this last changed, RFC 3339.
    pub changed_at: String,
}

/// What is discarded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DiscardLetters {
    /// What was received before this RFC 3339 time.
    #[cfg_attr(test, schemars(required))]
    pub before: Option<String>,
    /// Only count.
    #[serde(default)]
    pub dry_run: bool,
}

/// How many letters were discarded.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DiscardReply {
    /// The letters.
    pub purged: u64,
    /// Whether they were only counted.
    pub dry_run: bool,
}

/// Which letters are sent again: exactly one of `ids`, `reason` and `all`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RetryLetters {
    /// These.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(length(max = 2000)))]
    pub ids: Option<Vec<String>>,
    /// All that are pending and were refused for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// All that are pending.
    #[serde(default)]
    pub all: bool,
    /// Only say what would become of them.
    #[serde(default)]
    pub dry_run: bool,
}

/// How letters are judged that are sent again.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RetryParameters {
    /// Take events however old they are.
    #[serde(default)]
    pub backfill: bool,
}

/// Letters by what became of them, all durable.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RetryReply {
    /// All that were sent again.
    pub retried: u64,
    /// Those whose event was taken.
    pub accepted: u64,
    /// Those whose event had been taken before.
    pub duplicates: u64,
    /// Those that were refused again.
    pub rejected: u64,
    /// Ids of the request that no letter has, or one that was discarded.
    pub missing: u64,
    /// Whether nothing was stored.
    pub dry_run: bool,
}
