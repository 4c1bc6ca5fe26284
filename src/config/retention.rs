//! How long rows and snapshots stay: the settings `retention.*`, `dead_letters.*` and `expire.*`; and how often tables of
//! collections follow: `collections.*`.

use crate::config::{ConfigError, DAY, SECOND, SettingTexts, cron::CronTimes};
use icecore_schemas::retention::{RetentionProblem, RetentionRules};
use std::time::Duration;

/// Retention as it is set.
#[derive(Clone, Debug)]
pub struct RetentionConfig {
    /// How long events are kept, by their types.
    pub events: RetentionRules,
    /// When old events are taken out; none for never.
    pub events_cron: Option<CronTimes>,
    /// How long dead letters are kept.
    pub letters_kept: Duration,
    /// When old dead letters are taken out; none for never.
    pub letters_cron: Option<CronTimes>,
    /// When expired snapshots are removed; none for never.
    pub expire_cron: Option<CronTimes>,
    /// How many tags of days stay; 0 for none.
    pub daily_tags: usize,
    /// How many tags of months stay; 0 for none.
    pub monthly_tags: usize,
}

/// How the tables of collections follow their changes, as it is set.
#[derive(Clone, Copy, Debug)]
pub struct CollectionsConfig {
    /// How often one with new changes is refreshed.
    pub refresh_interval: Duration,
    /// The part of the time that the refreshes of one table take.
    pub cpu_share: f64,
}

/// Most tags of days, and of months, that stay. Each keeps the files of its snapshot, and takes the place of a recent
/// one where a table is thinned.
const TAGS_MAX: usize = 100;

impl SettingTexts {
    pub(super) fn retention(&self) -> Result<RetentionConfig, ConfigError> {
        let events: Result<RetentionRules, RetentionProblem> =
            self.text("retention.events").parse();
        Ok(RetentionConfig {
            events: events.map_err(|problem| {
                self.wrong("retention.events", &format!("is not a list of rules: {problem}"))
            })?,
            events_cron: self.cron("retention.cron")?,
            letters_kept: self.duration("dead_letters.retention", DAY, DAY * 36_500)?,
            letters_cron: self.cron("dead_letters.cron")?,
            expire_cron: self.cron("expire.cron")?,
            daily_tags: self.tags("collections.daily_tags")?,
            monthly_tags: self.tags("collections.monthly_tags")?,
        })
    }

    pub(super) fn collections(&self) -> Result<CollectionsConfig, ConfigError> {
        let cpu_share: f64 = self.parsed("collections.cpu_share", "is not a number")?;
        if !(0.01..=1.0).contains(&cpu_share) {
            return Err(self.wrong("collections.cpu_share", "is not between 0.01 and 1"));
        }
        let refresh_interval = self.duration("collections.refresh_interval", SECOND, DAY)?;
        Ok(CollectionsConfig { refresh_interval, cpu_share })
    }

    /// How many tags stay.
    fn tags(&self, key: &str) -> Result<usize, ConfigError> {
        let count: usize = self.parsed(key, "is not a whole number")?;
        match count {
            0..=TAGS_MAX => Ok(count),
            _ => Err(self.wrong(key, &format!("must be from 0 to {TAGS_MAX}"))),
        }
    }
}
