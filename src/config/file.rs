//! `icecore.toml`: its tables, flattened to the keys of settings.

use crate::config::{ConfigError, SettingOrigin, SettingTexts};
use std::path::Path;

impl SettingTexts {
    /// Takes over what a file says.
    pub(super) fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let table: toml::Table = text.parse().map_err(|problem| not_toml(path, &text, &problem))?;
        let origin = SettingOrigin::File(path.to_owned());
        table.into_iter().try_for_each(|(key, value)| self.set_from(&key, &value, &origin))
    }

    /// A value of the file; a table's members have their names after its own.
    fn set_from(
        &mut self,
        key: &str,
        value: &toml::Value,
        origin: &SettingOrigin,
    ) -> Result<(), ConfigError> {
        match value {
            toml::Value::Table(members) => members.iter().try_for_each(|(member, value)| {
                self.set_from(&format!("{key}.{member}"), value, origin)
            }),
            value => self.set(key, plain(value), origin.clone()),
        }
    }
}

fn not_toml(path: &Path, text: &str, problem: &toml::de::Error) -> ConfigError {
    let at = problem.span().map_or(0, |span| span.start);
    let line = 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
    ConfigError::Toml { path: path.to_owned(), line, problem: problem.message().to_owned() }
}

fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
