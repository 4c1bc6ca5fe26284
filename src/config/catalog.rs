//! The catalog's settings: its database, what dropping means, what it lets clients do.

use super::{
    ConfigError, DAY, SettingTexts,
    redaction::{has_sign_in, without_credentials},
    units,
};
use icecore_catalog::catalog::{CatalogOptions, DropPolicy, ReservedNames, VerifyAtLoad};
use icecore_schemas::names::{NAMESPACE_TEXT, RESERVED_NAMES};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// What only this service writes: what a namespace's events are called. Names of tables are free:
/// engines come with tables called `events`, and rows of ours go to none that is not ours.
const RESERVED: &[&str] = &[NAMESPACE_TEXT];
/// Shortest lease of a snapshot: a commit that was begun before a compaction is made at least so long.
const LEASE_MIN: Duration = Duration::from_secs(600);
/// Longest name of the catalog.
const NAME_BYTES_MAX: usize = 128;
/// What follows `/v1/` in the paths of the protocol.
const PATHS_OF_THE_PROTOCOL: &[&str] =
    &["config", "oauth", "namespaces", "tables", "views", "transactions", "events"];

/// Where the catalog's database is.
#[derive(Clone, PartialEq, Eq)]
pub enum MetastoreUrl {
    /// An SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database, with its password.
    Postgres(String),
}

impl std::fmt::Debug for MetastoreUrl {
    /// Shows no password: settings end up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            Self::Postgres(_) => f.write_str("Postgres"),
        }
    }
}

impl std::fmt::Display for MetastoreUrl {
    /// Shows no password, wherever the URL has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(text) => f.write_str(&without_credentials(text)),
        }
    }
}

impl SettingTexts {
    pub(super) fn metastore(&self, data_dir: &Path) -> Result<MetastoreUrl, ConfigError> {
        let text = self.text("metastore");
        if text.is_empty() {
            return Ok(MetastoreUrl::Sqlite(data_dir.join("icecore.db")));
        }
        if let Some(path) = text.strip_prefix("sqlite://")
            && !path.is_empty()
            && !has_sign_in(path)
        {
            return Ok(MetastoreUrl::Sqlite(PathBuf::from(path)));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(MetastoreUrl::Postgres(text.to_owned()));
        }
        Err(self.wrong("metastore", "must be sqlite://FILE or postgres://…"))
    }

    /// It is a part of the catalog's paths, beside those that the protocol has.
    pub(super) fn catalog_name(&self) -> Result<String, ConfigError> {
        let name = self.text("catalog.name");
        let is_plain = |c: char| !c.is_control() && !matches!(c, '/' | '\\' | '?' | '#' | '%');
        if PATHS_OF_THE_PROTOCOL.contains(&name) {
            return Err(
                self.wrong("catalog.name", "is a path of the catalog protocol; choose another")
            );
        }
        if !(1..=NAME_BYTES_MAX).contains(&name.len())
            || !name.chars().all(is_plain)
            || name.chars().all(|c| c == '.')
        {
            let text = format!(
                "must have 1 to {NAME_BYTES_MAX} bytes, without control characters and / \\ ? # %, and not only dots"
            );
            return Err(self.wrong("catalog.name", &text));
        }
        Ok(name.to_owned())
    }

    pub(super) fn catalog_options(&self) -> Result<CatalogOptions, ConfigError> {
        let window = self.duration("catalog.undrop_window", Duration::ZERO, DAY * 365)?;
        let drop_policy = DropPolicy {
            undrop_ms: i64::try_from(window.as_millis()).unwrap_or(i64::MAX),
            purge: self.parsed("catalog.purge", "must be true or false")?,
        };
        let checks_contents = match self.text("catalog.foreign_files") {
            "refuse" => true,
            "allow" => false,
            _ => return Err(self.wrong("catalog.foreign_files", "must be refuse or allow")),
        };
        let verify_at_load = match self.text("catalog.verify_at_load") {
            "always" => VerifyAtLoad::Always,
            "local" => VerifyAtLoad::OnLocalDisk,
            "never" => VerifyAtLoad::Never,
            _ => {
                return Err(self.wrong("catalog.verify_at_load", "must be always, local or never"));
            }
        };
        let reserved = ReservedNames {
            namespace_properties: RESERVED,
            namespaces: &RESERVED_NAMES,
            ..ReservedNames::default()
        };
        let lease = self.duration("catalog.snapshot_lease", LEASE_MIN, DAY)?;
        let snapshot_lease_ms = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        Ok(CatalogOptions {
            drop_policy,
            checks_contents,
            verify_at_load,
            snapshot_lease_ms,
            hides_rows: self.switch("visibility.filter")?,
            reserved,
        })
    }

    pub(super) fn namespace_separator(&self) -> Result<String, ConfigError> {
        units::parse_separator(self.text("catalog.namespace_separator")).ok_or_else(|| {
            self.wrong("catalog.namespace_separator", "must be one of . ~ : ; , | ! $ + *")
        })
    }
}
