//! When jobs run that have times of day: the settings `….cron`.

use crate::config::{ConfigError, SettingTexts};
use icecore_catalog::error::with_causes;

// The type is below the modules that do the work, which do not know the settings.
pub use crate::cron::CronTimes;

impl SettingTexts {
    /// The times of a setting; none for the empty text, which is never.
    pub(super) fn cron(&self, key: &str) -> Result<Option<CronTimes>, ConfigError> {
        let text = self.text(key).trim();
        if text.is_empty() {
            return Ok(None);
        }
        let times = CronTimes::parse(text);
        times.map(Some).map_err(|cause| self.wrong(key, &with_causes(&cause)))
    }
}
