//! How data files are merged: the settings `compaction.*`.

use crate::config::{ConfigError, SettingTexts, cron::CronTimes};

/// Compaction as it is set.
#[derive(Clone, Debug)]
pub struct CompactionConfig {
    /// Whether the server does it by itself.
    pub enabled: bool,
    /// About how long a merged file is.
    pub file_bytes: u64,
    /// Most rows of a merged file.
    pub file_rows: u64,
    /// Small files of a partition that are left alone while rows still come.
    pub files_max: usize,
    /// Closed days that are merged however few files they have.
    pub days_back: i32,
    /// Share of one processor.
    pub cpu_share: f64,
    /// When days that are over are merged; none for by hand alone.
    pub day_cron: Option<CronTimes>,
    /// When files of hours that are over are merged; none for by hand alone.
    pub hour_cron: Option<CronTimes>,
}

impl SettingTexts {
    pub(super) fn compaction(&self) -> Result<CompactionConfig, ConfigError> {
        let number = |key: &'static str, least: u64, most: u64| {
            let number: u64 = self.parsed(key, "is not a whole number")?;
            match least <= number && number <= most {
                true => Ok(number),
                false => Err(self.wrong(key, &format!("is not between {least} and {most}"))),
            }
        };
        let share: f64 = self.parsed("compaction.cpu_share", "is not a number")?;
        if !(0.01..=1.0).contains(&share) {
            return Err(self.wrong("compaction.cpu_share", "is not between 0.01 and 1"));
        }
        let files_max = number("compaction.files_max", 2, 1000)?;
        let days_back = number("compaction.days_back", 0, 36_500)?;
        Ok(CompactionConfig {
            enabled: self.switch("compaction.enabled")?,
            file_bytes: self.bytes("compaction.file_bytes", 1_000_000, 128 << 20)?,
            file_rows: number("compaction.file_rows", 1_000, 1_000_000_000)?,
            files_max: usize::try_from(files_max).unwrap_or(usize::MAX),
            days_back: i32::try_from(days_back).unwrap_or(i32::MAX),
            cpu_share: share,
            day_cron: self.cron("compaction.day_cron")?,
            hour_cron: self.cron("compaction.hour_cron")?,
        })
    }
}
