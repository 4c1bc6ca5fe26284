//! What keeps a catalog small and whole: files that nothing needs, records that nobody asks for any
//! more, snapshots of the service's tables, metadata files that are gone.

use super::{
    Catalog,
    due_files::DueFiles,
    trash::{RETRY_MS, is_no_file},
    writers::WRITER_KNOWN_MS,
};
use crate::{error::CatalogError, location::Location, metastore::FeedRetention};
use futures::{StreamExt, stream};
use tracing::warn;

/// How long a repeat of a request is recognised by its `Idempotency-Key`: 30 minutes.
pub const REQUEST_LIFETIME_MS: i64 = 30 * 60 * 1000;
/// How much longer one is kept: several processes' clocks differ, and a repeat may be under way.
const REQUEST_SLACK_MS: i64 = 10 * 60 * 1000;
/// How many of the newest refusals and staged tables are among them.
pub const REQUESTS_WITHOUT_EFFECT_KEPT: u32 = 100_000;
/// How many of the newest changes the events feed can go back to.
pub const EVENTS_KEPT: u64 = 100_000;
/// Most bytes of them: few changes with long updates must not fill the metastore either.
pub const EVENT_BYTES_KEPT: u64 = 256 << 20;
/// Files deleted at the same time. Each commit leaves some four, and a store takes tens of milliseconds
/// for one.
const DELETES: usize = 32;
/// Failures in a row after which the others are left for later: each takes a store that does not answer
/// its time, and these may be a thousand.
const FAILURES_MAX: usize = 32;

/// Files that wait to be deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitingDeletions {
    /// How many.
    pub files: u64,
    /// How many of these a backup holds.
    pub held: u64,
}

/// What became of files whose time has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DueDeletions {
    /// How many were deleted.
    pub deleted: usize,
    /// How many are due no more: those, others that left the queue, and those that are tried again later.
    pub settled: usize,
}

/// The upkeep of a catalog, for whoever does it now and then.
#[derive(Clone, Copy, Debug)]
pub struct Upkeep<'a>(pub(super) &'a Catalog);

impl Catalog {
    /// Its upkeep.
    #[must_use]
    pub fn upkeep(&self) -> Upkeep<'_> {
        Upkeep(self)
    }
}

impl Upkeep<'_> {
    /// Forgets requests that no client repeats any more, old changes, leases that have ended, and loads
    /// of long ago.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn forget_records(self) -> Result<(), CatalogError> {
        let remembered = FeedRetention {
            requests_since_ms: self.0.now_ms() - REQUEST_LIFETIME_MS - REQUEST_SLACK_MS,
            without_effect: REQUESTS_WITHOUT_EFFECT_KEPT,
            events: EVENTS_KEPT,
            event_bytes: EVENT_BYTES_KEPT,
        };
        self.0.metastore().forget_records(remembered).await?;
        self.0.metastore().forget_leases(self.0.now_ms()).await?;
        let writers_since_ms = self.0.now_ms().saturating_sub(WRITER_KNOWN_MS);
        self.0.metastore().forget_writer_loads(writers_since_ms).await
    }

    /// Has the files of a folder that wait to be deleted go at this time at the latest.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn hasten_deletion(
        self,
        folder: &Location,
        not_before_ms: i64,
    ) -> Result<(), CatalogError> {
        self.0.metastore().hasten_obsolete(folder.as_str(), not_before_ms).await
    }

    /// How many files of a folder are still to be deleted of those that go by `until_ms`, with those whose
    /// deletion failed and is tried again.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn deletions_below(
        self,
        folder: &Location,
        until_ms: i64,
    ) -> Result<WaitingDeletions, CatalogError> {
        self.queued_below(folder, None, until_ms).await
    }

    /// The same of a table's folder without its folder `metadata`: each commit may add a metadata file to those that
    /// go, so they are never all gone of a table that is written to.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn data_deletions_below(
        self,
        folder: &Location,
        until_ms: i64,
    ) -> Result<WaitingDeletions, CatalogError> {
        let metadata = format!("{}/metadata", folder.as_str());
        self.queued_below(folder, Some(&metadata), until_ms).await
    }

    async fn queued_below(
        self,
        folder: &Location,
        without: Option<&str>,
        until_ms: i64,
    ) -> Result<WaitingDeletions, CatalogError> {
        let until_ms = until_ms.max(self.0.now_ms().saturating_add(RETRY_MS));
        let metastore = self.0.metastore();
        let (files, held) = metastore.queued_below(folder.as_str(), without, until_ms).await?;
        Ok(WaitingDeletions { files, held })
    }

    /// Deletes at most `limit` files whose time has come, as [`Upkeep::work_off_obsolete`], and says how many
    /// it deleted.
    ///
    /// # Errors
    /// As [`Upkeep::work_off_obsolete`].
    pub async fn delete_obsolete(self, limit: u32) -> Result<usize, CatalogError> {
        Ok(self.work_off_obsolete(limit).await?.deleted)
    }

    /// Deletes at most `limit` files whose time has come and says what became of them. One that
    /// cannot be deleted now is tried again later, and after many of them it tries no more. A file that a
    /// branch or tag of its table has leaves the queue and stays; of a table that does not read, they are
    /// tried again later.
    ///
    /// # Errors
    /// `Metastore`; `Storage` when nothing at all could be deleted.
    pub async fn work_off_obsolete(self, limit: u32) -> Result<DueDeletions, CatalogError> {
        let due = self.0.metastore().obsolete(self.0.now_ms(), limit).await?;
        let DueFiles { unneeded, live, unknown } = Box::pin(self.0.look_at_due(&due)).await?;
        let deletes = unneeded.into_iter().map(|location| async move {
            let deleted = self.0.inner.storage.delete(&location).await;
            (location, deleted)
        });
        let mut deletes = stream::iter(deletes).buffer_unordered(DELETES);
        let (mut gone, mut put_off, mut failure) = (Vec::new(), unknown, None);
        let (mut deleted, mut in_a_row) = (0, 0);
        while in_a_row < FAILURES_MAX
            && let Some((location, result)) = deletes.next().await
        {
            let Err(cause) = result else {
                (deleted, in_a_row) = (deleted + 1, 0);
                gone.push(location);
                continue;
            };
            let error = &cause as &dyn std::error::Error;
            if is_no_file(&cause) {
                warn!(
                    location,
                    error, "a location that is not a file of the warehouse is not deleted"
                );
                gone.push(location);
            } else {
                warn!(location, error, "cannot delete a file yet");
                in_a_row += 1;
                put_off.push(location);
                failure = Some(cause);
            }
        }
        drop(deletes);
        let failure = failure.filter(|_| gone.is_empty());
        gone.extend(live);
        self.0.metastore().forget_obsolete(&gone).await?;
        self.0.metastore().put_off_obsolete(&put_off, self.0.now_ms() + RETRY_MS).await?;
        let settled = gone.len() + put_off.len();
        failure.map_or(Ok(DueDeletions { deleted, settled }), Err)
    }
}
