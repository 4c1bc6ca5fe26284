//! Whether this server's log is the one that events are taken into.
//!
//! The metastore has the truth, one row that every commit of events is checked against; this is
//! what this process knows of it, so that it takes no events that it could not commit. Its one
//! invariant: what was lost does not come back within a process.

use crate::tasks::{Job, Progress};
use icecore_catalog::{
    error::CatalogError,
    metastore::{
        Watermark,
        sql::{SqlMetastore, owner::LogOwner},
    },
};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tracing::error;
use uuid::Uuid;

/// How often the metastore is asked who the owner is: for so long a server that nobody sends
/// anything to commits nothing, and does not know that another one took over.
pub const WATCH_TICK: Duration = Duration::from_secs(1);

/// Why this server takes no events.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotOwner(Arc<str>);

/// What this process knows of the owner. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ownership {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// None only in tests of parts that have none.
    metastore: Option<SqlMetastore>,
    /// This server's log, and the epochs under which it is the owner.
    log: Uuid,
    since: u64,
    epoch: u64,
    lost: OnceLock<NotOwner>,
}

impl Ownership {
    /// What follows for `log` from the row that its start found or made.
    #[must_use]
    pub fn new(metastore: SqlMetastore, log: Uuid, owner: &LogOwner) -> Self {
        let (since, epoch) = (owner.since, owner.epoch);
        let lost = OnceLock::new();
        let inner = Inner { metastore: Some(metastore), log, since, epoch, lost };
        let ownership = Self { inner: Arc::new(inner) };
        ownership.compare(owner);
        ownership
    }

    /// The owner under epoch 1, for tests of what needs no metastore.
    #[cfg(test)]
    pub(crate) fn first() -> Self {
        Self::of_epochs(0, 1)
    }

    #[cfg(test)]
    pub(crate) fn of_epochs(since: u64, epoch: u64) -> Self {
        let (log, lost) = (Uuid::nil(), OnceLock::new());
        Self { inner: Arc::new(Inner { metastore: None, log, since, epoch, lost }) }
    }

    /// This server's log.
    #[must_use]
    pub fn log(&self) -> Uuid {
        self.inner.log
    }

    /// The epoch of this log's commits.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.inner.epoch
    }

    /// The first epoch under which this log was the owner.
    #[must_use]
    pub fn since(&self) -> u64 {
        self.inner.since
    }

    /// Whether this log is the owner, as far as is known here.
    ///
    /// # Errors
    /// [`NotOwner`] says who is, and what to do.
    pub fn check(&self) -> Result<(), NotOwner> {
        self.inner.lost.get().map_or(Ok(()), |lost| Err(lost.clone()))
    }

    /// How far this log is in a table of this watermark: 0 for another log's. None when a later
    /// owner wrote it, and then nothing is known of this log's records.
    #[must_use]
    pub fn committed(&self, watermark: Option<Watermark>) -> Option<u64> {
        if self.check().is_err() {
            return None;
        }
        match watermark {
            None => Some(0),
            Some(held) if self.inner.epoch < held.epoch => None,
            Some(held) if held.epoch < self.inner.since => Some(0),
            Some(held) => Some(held.position),
        }
    }

    /// Asks the metastore.
    ///
    /// # Errors
    /// It does not answer; what is known stays.
    pub async fn refresh(&self) -> Result<(), CatalogError> {
        let Some(metastore) = &self.inner.metastore else { return Ok(()) };
        if let Some(owner) = metastore.log_owner().await? {
            self.compare(&owner);
        }
        Ok(())
    }

    fn compare(&self, owner: &LogOwner) {
        let Inner { log, epoch, lost, .. } = &*self.inner;
        let text = if owner.log != *log {
            format!(
                "events are taken by the server of log {}, since epoch {}: send them there; if \
                 that server is gone for good, stop this one, run `icecore wal take-over` with \
                 this one's settings and start it again",
                owner.log, owner.since
            )
        } else if owner.epoch != *epoch {
            format!(
                "a second server was started with a copy of this server's log {log}: send events \
                 to that one, stop this one, and give it a data folder of its own"
            )
        } else {
            return;
        };
        if lost.set(NotOwner(text.as_str().into())).is_ok() && owner.epoch != *epoch {
            error!(
                "this server takes no events any more; what its log holds and no table has stays \
                 there, and `icecore wal export` reads it: {text}"
            );
        }
    }
}

/// The job that learns of a take-over.
#[derive(Debug)]
pub struct WatchOwner(pub Ownership);

impl Job for WatchOwner {
    const NAME: &'static str = "watch-owner";
    type Error = CatalogError;

    async fn tick(&mut self) -> Result<Progress, CatalogError> {
        if self.0.check().is_ok() {
            self.0.refresh().await?;
        }
        Ok(Progress::Idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64) -> Option<Watermark> {
        Some(Watermark { epoch, position: 70, last_seq: 9 })
    }

    #[test]
    fn positions_count_only_under_the_epochs_of_this_log() {
        let own = Ownership::of_epochs(4, 6);
        let found = [None, at(3), at(4), at(6), at(7)].map(|held| own.committed(held));
        assert_eq!(found, [Some(0), Some(0), Some(70), Some(70), None]);
    }

    #[test]
    fn what_was_lost_does_not_come_back() {
        let own = Ownership::of_epochs(4, 6);
        let mine = LogOwner { log: Uuid::nil(), since: 4, epoch: 6, seq_after: 0 };
        own.compare(&mine);
        own.check().unwrap();
        own.compare(&LogOwner { log: Uuid::from_u128(1), since: 7, epoch: 7, seq_after: 0 });
        own.compare(&mine);
        let text = own.check().unwrap_err().to_string();
        assert!(text.contains("00000000-0000-0000-0000-000000000001"), "{text}");
        assert!(text.contains("icecore wal take-over"), "{text}");
        assert_eq!(own.committed(at(6)), None);
    }

    #[test]
    fn a_later_start_of_a_copy_of_the_log_takes_the_events() {
        let own = Ownership::of_epochs(4, 6);
        own.compare(&LogOwner { log: Uuid::nil(), since: 4, epoch: 9, seq_after: 0 });
        let text = own.check().unwrap_err().to_string();
        assert!(text.contains("a copy of this server's log"), "{text}");
    }
}
