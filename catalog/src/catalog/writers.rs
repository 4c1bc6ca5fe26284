//! Engines that look at a table themselves before they commit to it, and when their files stay.
//!
//! Iceberg's Java library (Spark, Flink, Trino) loads a table again before it commits a `MERGE`, a
//! `DELETE` or a rewrite, and gives up when a file that it read was merged meanwhile: no catalog is
//! asked, so nothing can be taken back for it. What helps is that its files stay until it has committed.
//! Who loads a table to read it and who loads it to write is not said, so this goes by time.
//!
//! Its one invariant: however often a table is loaded, in each 65 minutes there are five in which its
//! files may be merged.

use super::{Catalog, LoadedTable, Upkeep};
use crate::{
    background,
    error::CatalogError,
    metastore::{WriterLoad, WriterLoads},
};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tracing::debug;
use uuid::Uuid;

const MINUTE_MS: i64 = 60_000;
/// So long the files of a table stay after the load of an engine that may be about to write.
const LOAD_MS: i64 = 2 * MINUTE_MS;
/// The longest that they stay while such loads follow one another.
const LOADS_MS_MAX: i64 = 10 * MINUTE_MS;
/// The same where an engine has loaded the table again that it had, as it does before each commit: a long
/// statement of it may go on.
const WRITER_LOAD_MS: i64 = 15 * MINUTE_MS;
const WRITER_LOADS_MS_MAX: i64 = 60 * MINUTE_MS;
/// So long they may be merged after that, though loads go on.
const OPEN_MS: i64 = 5 * MINUTE_MS;
/// Loads that come later than this after the one before do not follow it.
pub const WRITER_PAUSE_MS: i64 = WRITER_LOAD_MS;
/// So long it is known that an engine loaded a table again: a statement of each night is known the next one.
pub(super) const WRITER_KNOWN_MS: i64 = 7 * 24 * 60 * MINUTE_MS;
/// A table that an engine opened is loaded again within this time without a commit: Spark without its cache of
/// tables does that to read. A commit that comes so early needs no more than [`LOAD_MS`].
const OPENING_MS: i64 = 10_000;
/// Loads of a table are written so often at most.
const NOTE_EVERY_MS: i64 = 10_000;
/// Longest a load waits until it is written.
const NOTE_WAIT_MAX: Duration = Duration::from_secs(2);
/// Most tables of which is remembered that a load was written. One that is forgotten is written once more.
const TABLES_MAX: usize = 10_000;

/// The loads of each table that this process knows of.
#[derive(Debug, Default)]
pub(super) struct NotedWriters(Mutex<HashMap<Uuid, NotedLoad>>);

/// The last loads of a table.
#[derive(Clone, Copy, Debug)]
struct NotedLoad {
    /// The last one that was written.
    written: WriterLoad,
    /// When an engine last opened the table, ms since 1970, if one did.
    opened_ms: Option<i64>,
}

impl NotedWriters {
    /// A load as it is to be written, if it is. Then it counts as written from now on.
    fn claim(&self, table: Uuid, load: WriterLoad) -> Option<WriterLoad> {
        // Whole entries go in and out, so a panic elsewhere leaves nothing half done.
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = noted.get(&table).copied();
        let opened_ms = last.and_then(|last| last.opened_ms);
        let is_opening = opened_ms.is_some_and(|opened_ms| {
            (0..OPENING_MS).contains(&load.at_ms.saturating_sub(opened_ms))
        });
        let opened_ms = if load.is_refresh { opened_ms } else { Some(load.at_ms) };
        let is_refresh = load.is_refresh && !is_opening;
        let load = WriterLoad { at_ms: load.at_ms, is_refresh };
        let written = last.map(|last| last.written).filter(|written| {
            let passed_ms = load.at_ms.saturating_sub(written.at_ms);
            (0..NOTE_EVERY_MS).contains(&passed_ms) && (written.is_refresh || !is_refresh)
        });
        if TABLES_MAX <= noted.len() && !noted.contains_key(&table) {
            noted.clear();
        }
        noted.insert(table, NotedLoad { written: written.unwrap_or(load), opened_ms });
        written.is_none().then_some(load)
    }

    /// The next load is written.
    fn forget(&self, table: Uuid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&table);
    }
}

/// Until when the files of a table stay for such loads, ms since 1970; none where they may be merged.
fn stay_until(loads: WriterLoads, now_ms: i64) -> Option<i64> {
    let WriterLoads { since_ms, loaded_ms, refreshed_ms } = loads;
    let is_writer = now_ms.saturating_sub(refreshed_ms) < WRITER_KNOWN_MS;
    let (load_ms, most_ms) = match is_writer {
        true => (WRITER_LOAD_MS, WRITER_LOADS_MS_MAX),
        false => (LOAD_MS, LOADS_MS_MAX),
    };
    // The clock of the server that wrote it may be another one.
    if load_ms.unsigned_abs() <= now_ms.abs_diff(loaded_ms) {
        return None;
    }
    let passed_ms = now_ms.saturating_sub(since_ms).max(0) % (most_ms + OPEN_MS);
    let left_ms = most_ms - passed_ms;
    if left_ms <= 0 {
        return None;
    }
    Some(loaded_ms.saturating_add(load_ms).min(now_ms.saturating_add(left_ms)))
}

impl Catalog {
    /// Notes that an engine has loaded a table which it may write and looks at before; `is_refresh` where it
    /// had it already. Durable on return, but where that fails or takes longer than [`NOTE_WAIT_MAX`].
    pub(crate) async fn note_writer(&self, table: &LoadedTable, is_refresh: bool) {
        let uuid = table.metadata.uuid();
        let load = WriterLoad { at_ms: self.now_ms(), is_refresh };
        let Some(load) = self.inner.writers.claim(uuid, load) else { return };
        let catalog = self.clone();
        let noted = background::run("writer-load", async move {
            let noted = catalog.metastore().note_writer_load(uuid, load, WRITER_PAUSE_MS).await;
            if let Err(cause) = noted {
                catalog.inner.writers.forget(uuid);
                let error = &cause as &dyn std::error::Error;
                debug!(%uuid, error, "a load is not noted: files of the table may be merged");
            }
        });
        if tokio::time::timeout(NOTE_WAIT_MAX, noted).await.is_err() {
            debug!(%uuid, "a load waits no longer until it is noted");
        }
    }
}

impl Upkeep<'_> {
    /// Until when the files of a table should stay as they are, because an engine may be about to commit
    /// that gives up when files are merged which it read, ms since 1970; none where they may be merged.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn files_stay_until(self, table: &LoadedTable) -> Result<Option<i64>, CatalogError> {
        let loads = self.0.metastore().writer_loads(table.metadata.uuid()).await?;
        Ok(loads.and_then(|loads| stay_until(loads, self.0.now_ms())))
    }
}

#[cfg(test)]
mod tests;
