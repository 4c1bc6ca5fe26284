//! Settings `webhooks.{provider}.secret`.

use crate::config::{SettingTexts, settings::SETTINGS};
use std::collections::BTreeMap;

/// What each of them means.
pub(super) const SECRET: &str = "signing secret of this provider, for namespaces without their own; a list of two, [\"old\", \"new\"], during a rotation";

/// The provider whose secret this setting is.
pub(super) fn provider(key: &str) -> Option<&str> {
    key.strip_prefix("webhooks.")?.strip_suffix(".secret")
}

impl SettingTexts {
    /// The secrets that are set, by provider.
    pub(super) fn webhook_secrets(&self) -> BTreeMap<String, Vec<String>> {
        let secrets = |text: &str| -> Vec<String> {
            let listed = serde_json::from_str(text).unwrap_or_else(|_| vec![text.to_owned()]);
            listed.into_iter().filter(|secret| !secret.is_empty()).collect()
        };
        SETTINGS
            .iter()
            .filter_map(|(key, ..)| Some((provider(key)?.to_owned(), secrets(self.text(key)))))
            .filter(|(_, secrets)| !secrets.is_empty())
            .collect()
    }
}
