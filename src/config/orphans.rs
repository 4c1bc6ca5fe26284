//! How files are removed that no snapshot names: the settings `orphans.*`.

use crate::config::{ConfigError, DAY, SettingTexts, cron::CronTimes};
use std::time::Duration;

/// Removal of orphans as it is set.
#[derive(Clone, Debug)]
pub struct OrphansConfig {
    /// When it is done; none for by hand alone.
    pub cron: Option<CronTimes>,
    /// How old a file has to be, and how long it has to be known.
    pub grace: Duration,
}

impl SettingTexts {
    pub(super) fn orphans(&self) -> Result<OrphansConfig, ConfigError> {
        Ok(OrphansConfig {
            cron: self.cron("orphans.cron")?,
            // A writer may need nearly a day between its first file and its commit.
            grace: self.duration("orphans.grace", DAY, DAY * 30)?,
        })
    }
}
