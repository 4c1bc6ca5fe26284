//! Settings `webhooks.{provider}.secret`.

use crate::config::{ConfigError, SettingTexts, settings::SETTINGS};
use icecore_lake::event::webhook::{check_secret, check_standard_secret};
use std::collections::BTreeMap;

/// What each of them means.
pub(super) const SECRET: &str = "signing secret of this provider, for namespaces without their own; a list of two, [\"old\", \"new\"], during a rotation";

/// Providers that sign as Standard Webhooks says.
const STANDARD_PROVIDERS: &[&str] = &["standard-webhooks", "svix"];

/// The provider whose secret this setting is.
pub(super) fn provider(key: &str) -> Option<&str> {
    key.strip_prefix("webhooks.")?.strip_suffix(".secret")
}

impl SettingTexts {
    /// The secrets that are set, by provider.
    pub(super) fn webhook_secrets(&self) -> Result<BTreeMap<String, Vec<String>>, ConfigError> {
        let mut by_provider = BTreeMap::new();
        for (key, ..) in SETTINGS {
            let Some(provider) = provider(key) else { continue };
            let text = self.text(key);
            let mut secrets: Vec<String> =
                serde_json::from_str(text).unwrap_or_else(|_| vec![text.to_owned()]);
            secrets.retain(|secret| !secret.is_empty());
            let is_standard = STANDARD_PROVIDERS.contains(&provider);
            let checked = secrets.iter().try_for_each(|secret| {
                check_secret(secret)?;
                if is_standard { check_standard_secret(secret) } else { Ok(()) }
            });
            checked.map_err(|problem| self.wrong(key, problem))?;
            if !secrets.is_empty() {
                by_provider.insert(provider.to_owned(), secrets);
            }
        }
        Ok(by_provider)
    }
}
