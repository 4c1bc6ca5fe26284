//! What queries may take: the settings `sql.*`.

use crate::config::{ConfigError, DAY, SettingTexts};
use std::time::Duration;

/// Most queries at once: each keeps some threads.
const CONCURRENT_MAX: usize = 256;

/// Bounds of queries as they are set.
#[derive(Clone, Copy, Debug)]
pub struct SqlConfig {
    /// Memory of all queries together.
    pub memory_bytes_max: usize,
    /// Longest a query may run.
    pub timeout_max: Duration,
    /// Most rows of an answer.
    pub rows_max: u64,
    /// Queries at once.
    pub concurrent_max: usize,
    /// Queries of one namespace at once.
    pub concurrent_per_namespace: usize,
    /// Queries of one token at once.
    pub concurrent_per_token: usize,
    /// Whether queries run in processes of their own.
    pub has_workers: bool,
    /// Whether a token sees only the rows whose visibility its scopes name.
    pub filters_visibility: bool,
    /// Most bytes that one of them may put on disk.
    pub spill_bytes_max: u64,
}

impl SettingTexts {
    pub(super) fn sql(&self) -> Result<SqlConfig, ConfigError> {
        let concurrent_max = self.count("sql.concurrent_max")?;
        if CONCURRENT_MAX < concurrent_max {
            let problem = format!("is more than {CONCURRENT_MAX}");
            return Err(self.wrong("sql.concurrent_max", &problem));
        }
        Ok(SqlConfig {
            memory_bytes_max: self.size("sql.memory_bytes_max", 1 << 24, 1 << 40)?,
            timeout_max: self.duration("sql.timeout_max", Duration::from_millis(10), DAY)?,
            rows_max: self.parsed("sql.rows_max", "is not a whole number")?,
            concurrent_max,
            concurrent_per_namespace: self.count("sql.concurrent_per_namespace")?,
            concurrent_per_token: self.count("sql.concurrent_per_token")?,
            has_workers: self.switch("sql.workers")?,
            filters_visibility: self.switch("visibility.filter")?,
            spill_bytes_max: self.bytes("sql.spill_bytes_max", 0, 1 << 44)?,
        })
    }
}
