//! Bodies of the routes on the secrets that webhook providers sign with.

use serde::{Deserialize, Serialize};

/// Where a delivery goes. Providers may add parameters of their own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DeliveryTarget {
    /// The namespace, which needs a secret of this provider; `default` when left out.
    pub ns: Option<String>,
    /// Refused: deliveries go to `main`.
    pub branch: Option<String>,
}

/// A secret, and how the provider signs with it.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewSecret {
    /// The secret, as the provider has it.
    #[cfg_attr(test, schemars(length(max = 1024)))]
    pub secret: String,
    /// How it signs: github, stripe, slack, standard-webhooks, shopify, linear, workos or generic; as
    /// its name says when left out, generic for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// The header with a delivery's id, of a generic provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_header: Option<String>,
    /// The member of the JSON body with a delivery's id, such as event.id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_member: Option<String>,
    /// Whether each delivery is an event of its own, those that are sent again too.
    #[serde(default)]
    pub no_id: bool,
}

impl std::fmt::Debug for NewSecret {
    /// Shows no secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewSecret").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

/// The providers with secrets, of namespaces that the caller governs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WebhookList {
    /// Without the secrets.
    pub webhooks: Vec<WebhookEntry>,
}

/// The secrets of a provider in a namespace, without themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WebhookEntry {
    /// The namespace, as its events name it.
    pub namespace: String,
    /// The provider.
    pub provider: String,
    /// How it signs.
    pub scheme: String,
    /// Since when the newest is valid, RFC 3339.
    pub since: String,
    /// Those that are valid, the newest first.
    pub secrets: Vec<SecretEntry>,
    /// Where a delivery's id is, of a generic provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_id: Option<String>,
}

/// A secret without itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SecretEntry {
    /// Since when it is valid, RFC 3339.
    pub since: String,
}

/// That the secrets of a provider were deleted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WebhookDeleted {
    /// The provider.
    pub deleted: String,
    /// The namespace.
    pub namespace: String,
}

/// What Slack is answered that asks whether an address is its owner's.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Challenge {
    /// What it sent.
    pub challenge: String,
}
