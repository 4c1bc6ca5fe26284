//! Whether this server takes events: its log is the one that they are taken into, and nothing else
//! is in the way.
//!
//! The metastore has the truth of the log, a fence that every commit of events is checked against;
//! this is what this process knows of it, so that it takes no events that it could not commit. Its
//! one invariant: what was lost does not come back within a process.
//!
//! What else is in the way (stores that disagree, files that are missing) is kept here by topic, in
//! one list that `/readyz` tells.

mod log_owner;

pub use log_owner::{LogOwner, OwnerClaim};

use crate::tasks::{Job, Progress};
use icecore_catalog::{
    error::CatalogError,
    metastore::{Metastore, Watermark},
};
use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tracing::{error, info, warn};
use uuid::Uuid;

/// What stands in the way while the metastore does not answer.
const METASTORE: &str = "metastore";
/// What stands in the way while its file is not the one that was opened.
const METASTORE_FILE: &str = "metastore-file";
/// A metastore that answers later than this counts as one that does not.
const METASTORE_ANSWER_MAX: Duration = Duration::from_secs(5);

/// Why this server takes no events.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotOwner(Arc<str>);

/// What this process knows of the owner. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogOwnership {
    inner: Arc<OwnershipInner>,
}

#[derive(Debug)]
struct OwnershipInner {
    /// None only in tests of parts that have none.
    metastore: Option<Metastore>,
    /// This server's log, and the epochs under which it is the owner.
    log: Uuid,
    since: u64,
    epoch: u64,
    /// All of its numbers are above this one.
    seq_after: u64,
    lost: OnceLock<NotOwner>,
    /// How many losses of acknowledged events an operator accepted before this start.
    losses: OnceLock<u64>,
    obstacles: Mutex<Vec<ReadinessObstacle>>,
    /// Whether one of them keeps events out.
    is_closed: AtomicBool,
}

/// Why this server is not ready.
#[derive(Clone, Debug)]
struct ReadinessObstacle {
    topic: &'static str,
    text: String,
    /// Whether events are refused, too.
    is_closing: bool,
}

impl LogOwnership {
    /// What follows for `log` from the row that its start found or made.
    #[must_use]
    pub fn new(metastore: Metastore, log: Uuid, owner: &LogOwner) -> Self {
        let ownership = Self::with(Some(metastore), log, owner);
        ownership.compare(owner);
        ownership
    }

    fn with(metastore: Option<Metastore>, log: Uuid, owner: &LogOwner) -> Self {
        let LogOwner { since, epoch, seq_after, .. } = *owner;
        let (lost, obstacles) = (OnceLock::new(), Mutex::default());
        let is_closed = AtomicBool::new(false);
        let losses = OnceLock::new();
        let inner = OwnershipInner {
            metastore,
            log,
            since,
            epoch,
            seq_after,
            lost,
            losses,
            obstacles,
            is_closed,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Notes how many losses of acknowledged events an operator has accepted.
    pub fn note_losses(&self, count: u64) {
        // Set once, at the start.
        let _ = self.inner.losses.set(count);
    }

    /// How many those are: after another one, an answer that was given before may have events that are nowhere
    /// any more.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.inner.losses.get().copied().unwrap_or(0)
    }

    /// What a number of an event means: its log, and how many losses that had. The same number means another event
    /// after each of them.
    #[must_use]
    pub fn origin(&self) -> String {
        // Most logs have none, and say nothing of them.
        match self.losses() {
            0 => self.log().to_string(),
            losses => format!("{} after {losses} losses", self.log()),
        }
    }

    /// Takes no events, moves none to tables, and is not ready, until this is started again or the
    /// topic is cleared. `text` says what is wrong and what to do.
    pub fn refuse(&self, topic: &'static str, text: String) {
        error!(topic, "this server takes no events: {text}");
        self.add(ReadinessObstacle { topic, text, is_closing: true });
    }

    /// Is not ready until the topic is cleared, and takes events all the same.
    pub fn delay(&self, topic: &'static str, text: String) {
        warn!(topic, "this server is not ready: {text}");
        self.add(ReadinessObstacle { topic, text, is_closing: false });
    }

    /// As [`LogOwnership::delay`], for what is over in a moment.
    pub fn wait_for(&self, topic: &'static str, text: String) {
        self.add(ReadinessObstacle { topic, text, is_closing: false });
    }

    /// What was in the way of this topic is not any more.
    pub fn clear(&self, topic: &'static str) {
        let mut obstacles = self.obstacles();
        obstacles.retain(|obstacle| obstacle.topic != topic);
        self.note_closed(&obstacles);
    }

    /// Everything that keeps this server from being ready, beside a log that is not the owner.
    #[must_use]
    pub fn obstacle_texts(&self) -> Vec<String> {
        self.obstacles().iter().map(|obstacle| obstacle.text.clone()).collect()
    }

    /// What they are about, one word each.
    #[must_use]
    pub fn obstacle_topics(&self) -> Vec<&'static str> {
        self.obstacles().iter().map(|obstacle| obstacle.topic).collect()
    }

    /// Whether the metastore answered when it was asked last.
    #[must_use]
    pub fn has_metastore(&self) -> bool {
        !self.obstacle_topics().contains(&METASTORE)
    }

    fn add(&self, obstacle: ReadinessObstacle) {
        let mut obstacles = self.obstacles();
        obstacles.retain(|other| other.topic != obstacle.topic);
        obstacles.push(obstacle);
        self.note_closed(&obstacles);
    }

    fn note_closed(&self, obstacles: &[ReadinessObstacle]) {
        let is_closed = obstacles.iter().any(|obstacle| obstacle.is_closing);
        self.inner.is_closed.store(is_closed, Ordering::SeqCst);
    }

    fn obstacles(&self) -> MutexGuard<'_, Vec<ReadinessObstacle>> {
        self.inner.obstacles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The owner under epoch 1, for tests of what needs no metastore.
    #[cfg(test)]
    pub(crate) fn first() -> Self {
        Self::of_epochs(0, 1)
    }

    #[cfg(test)]
    pub(crate) fn of_epochs(since: u64, epoch: u64) -> Self {
        Self::above(since, epoch, 0)
    }

    /// The owner of a log that begins above a `seq`.
    #[cfg(test)]
    pub(crate) fn above(since: u64, epoch: u64, seq_after: u64) -> Self {
        let log = Uuid::nil();
        Self::with(None, log, &LogOwner { log, since, epoch, seq_after })
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

    /// The `seq` that all of this log's are above.
    #[must_use]
    pub fn seq_after(&self) -> u64 {
        self.inner.seq_after
    }

    /// The first epoch under which this log was the owner.
    #[must_use]
    pub fn since(&self) -> u64 {
        self.inner.since
    }

    /// Whether this server takes events: nothing is in the way, and its log is the owner as far as
    /// is known here.
    ///
    /// # Errors
    /// [`NotOwner`] says what is, and what to do.
    pub fn check(&self) -> Result<(), NotOwner> {
        if self.inner.is_closed.load(Ordering::SeqCst) {
            let obstacles = self.obstacles();
            let closing = obstacles.iter().filter(|obstacle| obstacle.is_closing);
            let told: Vec<&str> = closing.map(|obstacle| obstacle.text.as_str()).collect();
            return Err(NotOwner(told.join("; ").into()));
        }
        self.check_owner()
    }

    /// Whether this log is the owner, as far as is known here.
    ///
    /// # Errors
    /// [`NotOwner`] says who is, and what to do.
    pub fn check_owner(&self) -> Result<(), NotOwner> {
        self.inner.lost.get().map_or(Ok(()), |lost| Err(lost.clone()))
    }

    /// How far this log is in a table of this watermark: 0 for another log's. None when a later
    /// owner wrote it, and then nothing is known of this log's records.
    #[must_use]
    pub fn committed(&self, watermark: Option<Watermark>) -> Option<u64> {
        if self.check_owner().is_err() {
            return None;
        }
        match watermark {
            None => Some(0),
            Some(held) if self.inner.epoch < held.epoch => None,
            Some(held) if held.epoch < self.inner.since => Some(0),
            Some(held) => Some(held.position),
        }
    }

    /// Takes no events while the file of the metastore is gone or replaced: what is committed then is gone
    /// with the process.
    fn look_at_file(&self) {
        let Some(metastore) = &self.inner.metastore else { return };
        let is_told = self.obstacle_topics().contains(&METASTORE_FILE);
        match metastore.database().look() {
            Err(missing) if !is_told => self.refuse(METASTORE_FILE, missing.to_string()),
            Ok(()) if is_told => {
                self.clear(METASTORE_FILE);
                info!("the file of the metastore is back");
            }
            Ok(()) | Err(_) => (),
        }
    }

    /// Asks the metastore.
    ///
    /// # Errors
    /// It does not answer; what is known stays.
    pub async fn refresh(&self) -> Result<(), CatalogError> {
        let Some(metastore) = &self.inner.metastore else { return Ok(()) };
        if let Some(owner) = LogOwner::of(metastore).await? {
            self.compare(&owner);
        }
        Ok(())
    }

    fn compare(&self, owner: &LogOwner) {
        let OwnershipInner { log, epoch, lost, .. } = &*self.inner;
        let text = if owner.log != *log {
            format!(
                "events are taken by the server with log {}, since epoch {}: send them there; if \
                 that server is gone for good, stop this one, run `icecore wal take-over` with \
                 this server's settings and start it again",
                owner.log, owner.since
            )
        } else if owner.epoch != *epoch {
            format!(
                "a second server was started with a copy of this server's log {log}: send events \
                 to that server, stop this one, and give it a data folder of its own"
            )
        } else {
            return;
        };
        if lost.set(NotOwner(text.as_str().into())).is_ok() && owner.epoch != *epoch {
            error!(
                "this server no longer takes events; records that are in no table stay in its log, \
                 and `icecore wal export` reads them: {text}"
            );
        }
    }
}

/// The job that learns of a take-over, and of a metastore that does not answer or whose file is gone.
#[derive(Debug)]
pub struct WatchOwner(pub LogOwnership);

impl Job for WatchOwner {
    const NAME: &'static str = "watch-owner";
    type Error = Infallible;

    /// That the metastore does not answer is told by `/readyz` and is no failure of the job, whose pauses
    /// would grow: it is asked each second until it answers.
    async fn tick(&mut self) -> Result<Progress, Infallible> {
        let Self(owner) = self;
        owner.look_at_file();
        // An outage that is told is asked about until it is over.
        if owner.check_owner().is_err() && owner.has_metastore() {
            return Ok(Progress::Idle);
        }
        let failure = match tokio::time::timeout(METASTORE_ANSWER_MAX, owner.refresh()).await {
            Ok(asked) => asked.err().map(|cause| cause.to_string()),
            Err(_) => Some(format!("no answer within {METASTORE_ANSWER_MAX:?}")),
        };
        let is_out = !owner.has_metastore();
        match failure {
            Some(cause) if !is_out => {
                let text =
                    format!("the metastore does not answer, events wait in the log: {cause}");
                owner.delay(METASTORE, text);
            }
            None if is_out => {
                owner.clear(METASTORE);
                info!("the metastore answers");
            }
            _ => (),
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
        let own = LogOwnership::of_epochs(4, 6);
        let found = [None, at(3), at(4), at(6), at(7)].map(|held| own.committed(held));
        assert_eq!(found, [Some(0), Some(0), Some(70), Some(70), None]);
    }

    #[test]
    fn what_is_in_the_way_is_told_by_topic_until_it_is_cleared() {
        let own = LogOwnership::of_epochs(4, 6);
        own.delay("files", "files are looked for".to_owned());
        own.check().unwrap();
        own.refuse("stores", "put it back".to_owned());
        own.refuse("stores", "put that back".to_owned());
        assert_eq!(own.obstacle_texts(), ["files are looked for", "put that back"]);
        assert_eq!(own.obstacle_topics(), ["files", "stores"]);
        assert_eq!(own.check().unwrap_err().to_string(), "put that back");
        assert_eq!(own.committed(at(6)), Some(70), "queries go on");
        own.clear("stores");
        own.check().unwrap();
        own.clear("files");
        assert!(own.obstacle_texts().is_empty());
    }

    #[test]
    fn events_have_another_origin_after_a_loss() {
        let of = |losses| {
            let own = LogOwnership::of_epochs(4, 6);
            own.note_losses(losses);
            own.origin()
        };
        assert_eq!(of(0), Uuid::nil().to_string());
        assert!(of(1) != of(0) && of(1) != of(2));
    }

    #[test]
    fn what_was_lost_does_not_come_back() {
        let own = LogOwnership::of_epochs(4, 6);
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
        let own = LogOwnership::of_epochs(4, 6);
        own.compare(&LogOwner { log: Uuid::nil(), since: 4, epoch: 9, seq_after: 0 });
        let text = own.check().unwrap_err().to_string();
        assert!(text.contains("a copy of this server's log"), "{text}");
    }
}
