//! Bodies of the routes on tokens and on the audit log.

use serde::{Deserialize, Serialize};

/// What a token is made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is for.
    pub name: String,
    /// ACTION:NAMESPACE, ACTION:* or, with `namespace`, ACTION; actions are ingest, read, write,
    /// admin, and read.user, read.org, read.team for rows of these visibilities.
    pub scopes: Vec<String>,
    /// Namespace of events that name none, and of scopes without one, as senders write it.
    pub namespace: Option<String>,
    /// Seconds that it lives; for ever when left out.
    pub expires_in: Option<u64>,
}

/// A token that was made.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TokenReply {
    /// Its id.
    pub id: String,
    /// The token; no other answer has it.
    pub token: String,
    /// When it ends, milliseconds since 1970; never when null.
    pub expires_ms: Option<i64>,
}

impl std::fmt::Debug for TokenReply {
    /// Shows no token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenReply").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The tokens that the caller governs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TokenList {
    /// Without the tokens themselves.
    pub tokens: Vec<TokenEntry>,
}

/// A token as it is listed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TokenEntry {
    /// Its id.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// Namespace of events that name none.
    pub namespace: Option<String>,
    /// What it may do, as ACTION:NAMESPACE.
    pub scopes: Vec<String>,
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
    /// When it ends, milliseconds since 1970; never when null.
    pub expires_ms: Option<i64>,
    /// When it was last used, milliseconds since 1970, to the minute or so.
    pub last_used_ms: Option<i64>,
}

/// A token that was revoked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TokenRevoked {
    /// Its id.
    pub revoked: String,
}

/// Which page of the audit log.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AuditPage {
    /// Only records after this number.
    pub after: Option<i64>,
    /// At most this many, up to 1000, which is also what is given when left out.
    #[cfg_attr(test, schemars(range(min = 1, max = 1000)))]
    pub limit: Option<u32>,
}

/// Audit records in order, and both ends of their chain, which were read before them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AuditRecords {
    /// The records.
    pub records: Vec<AuditRecord>,
    /// The last one of the log.
    pub head: AuditHead,
    /// The last one that was deleted for its age; number 0 before any.
    pub start: AuditHead,
}

/// Number and hash of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AuditHead {
    /// Its number.
    pub number: i64,
    /// Its hash, empty for number 0.
    pub hash: String,
}

/// A call that changed something, or was to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AuditRecord {
    /// From 1, without gaps.
    pub number: i64,
    /// When the call ended, milliseconds since 1970.
    pub time_ms: i64,
    /// Who called: token:…, oidc:… or anonymous.
    pub principal: String,
    /// From which address.
    pub address: String,
    /// The request's id, as its reply has it in `x-request-id`.
    pub request: String,
    /// Method and route.
    pub action: String,
    /// On what.
    pub object: String,
    /// done, else the status of the reply, or unanswered when the caller went away before it.
    pub outcome: String,
    /// SHA-256 of path, query and body.
    pub details: String,
    /// SHA-256 over the hash before it and all of the above.
    pub hash: String,
}
