//! Writes records of calls that changed nothing, and what is left to do for the log.
//!
//! The record of a change is in the change's own transaction; see [`crate::audit`]. Whoever comes
//! first here writes for all who wait. Runs of jobs are recorded here, too. Its one invariant: a call
//! whose record might not fit is refused before it does anything, and what was taken on is kept until
//! it is written.

use super::{lock, refusals::RefusalCounter};
use crate::{
    audit::{AuditEntry, AuditedCall, DONE},
    clock::NowMs,
    error::CatalogError,
    metastore::{Metastore, audit::AuditWrite},
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most records that wait to be written, and calls under way that may need one.
const WAITING_MAX: usize = 1024;
/// Most records of one transaction.
const BATCH_MAX: usize = 256;
/// Longest that a reply waits for its record.
const PATIENCE: Duration = Duration::from_secs(2);
/// The outcome of a call whose caller went away.
const UNANSWERED: &str = "unanswered";
/// The outcome of refused calls that are told of together.
const REFUSED: &str = "refused";

/// The way into the audit log.
pub struct AuditRecorder {
    store: Metastore,
    now: NowMs,
    room: Arc<Semaphore>,
    waiting: Mutex<VecDeque<WaitingRecord>>,
    /// Held while a batch is written.
    writing: tokio::sync::Mutex<()>,
    refusals: RefusalCounter,
}

struct WaitingRecord {
    writing: AuditWrite,
    _room: OwnedSemaphorePermit,
}

impl std::fmt::Debug for AuditRecorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditRecorder").finish_non_exhaustive()
    }
}

impl AuditRecorder {
    pub(super) fn new(store: Metastore, now: NowMs) -> Self {
        Self {
            store,
            now,
            room: Arc::new(Semaphore::new(WAITING_MAX)),
            waiting: Mutex::default(),
            writing: tokio::sync::Mutex::new(()),
            refusals: RefusalCounter::default(),
        }
    }

    /// Where the log is.
    #[must_use]
    pub fn store(&self) -> &Metastore {
        &self.store
    }

    /// Begins the record of a call; none when too many wait to be written: then the call is not to
    /// be carried out. Dropped before its end, it says `unanswered`.
    #[must_use]
    pub fn begin(&self, entry: AuditEntry) -> Option<CallRecording<'_>> {
        let room = Arc::clone(&self.room).try_acquire_owned().ok()?;
        let call = AuditedCall::new(entry, Arc::clone(&self.now));
        Some(CallRecording { recorder: self, call, room: Some(room) })
    }

    /// Records what the service has done by itself. Waits a bounded time for room and until the record is
    /// written; without room it is lost, and the log of the server says so.
    pub async fn record_done(&self, entry: AuditEntry) {
        let room = Arc::clone(&self.room).acquire_owned();
        match tokio::time::timeout(PATIENCE, room).await {
            Ok(Ok(room)) => {
                self.push(&AuditedCall::new(entry, Arc::clone(&self.now)), DONE, room);
                self.write_soon().await;
            }
            Ok(Err(_)) | Err(_) => {
                tracing::error!(?entry, "the audit log is behind: a record is lost");
            }
        }
    }

    /// Counts a call without a valid token: of these there is a record a minute for each of a
    /// bounded number of addresses.
    pub fn count_unknown(&self, address: &str) {
        self.refusals.unknown(address, (self.now)());
    }

    /// Deletes records older than `kept`, a bounded number of them; the chain goes on from the last
    /// one, and a record says so.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn cut(&self, kept: Duration) -> Result<(), CatalogError> {
        let now_ms = (self.now)();
        let kept_ms = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
        self.store.cut_audit(now_ms.saturating_sub(kept_ms), now_ms).await
    }

    /// Writes what waits, and what refused calls of the last minute are told of together.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`]; the next step tries again.
    pub(super) async fn tick(&self) -> Result<(), CatalogError> {
        self.tell_refusals((self.now)());
        self.write().await
    }

    /// As [`AuditRecorder::tick`], for the last time.
    pub(super) async fn finish(&self) -> Result<(), CatalogError> {
        self.tell_refusals(i64::MAX);
        self.write().await
    }

    fn tell_refusals(&self, until_ms: i64) {
        for entry in self.refusals.take(until_ms) {
            let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
                tracing::warn!(?entry, "the audit log is behind: a count of refused calls is lost");
                continue;
            };
            self.push(&AuditedCall::new(entry, Arc::clone(&self.now)), REFUSED, room);
        }
    }

    fn push(&self, call: &AuditedCall, outcome: &str, room: OwnedSemaphorePermit) {
        call.set_tried();
        let writing = AuditWrite { key: call.key().to_owned(), entry: call.entry(outcome) };
        lock(&self.waiting).push_back(WaitingRecord { writing, _room: room });
    }

    /// Writes everything that waits, or gives up after [`PATIENCE`]; then a later call writes it.
    async fn write_soon(&self) {
        let problem = match tokio::time::timeout(PATIENCE, self.write()).await {
            Ok(Ok(())) => return,
            Ok(Err(cause)) => Some(cause),
            Err(_) => None,
        };
        tracing::error!(
            error = problem.as_ref().map(|cause| cause as &dyn std::error::Error),
            "audit records wait to be written"
        );
    }

    async fn write(&self) -> Result<(), CatalogError> {
        let _turn = self.writing.lock().await;
        loop {
            let batch: Vec<AuditWrite> = {
                let waiting = lock(&self.waiting);
                waiting.iter().take(BATCH_MAX).map(|one| one.writing.clone()).collect()
            };
            if batch.is_empty() {
                return Ok(());
            }
            self.store.append_audit(&batch).await?;
            lock(&self.waiting).drain(..batch.len());
        }
    }
}

/// A record of a call that is under way.
#[derive(Debug)]
pub struct CallRecording<'a> {
    recorder: &'a AuditRecorder,
    call: Arc<AuditedCall>,
    /// None once its end is known.
    room: Option<OwnedSemaphorePermit>,
}

impl CallRecording<'_> {
    /// The call, for whoever carries it out.
    #[must_use]
    pub fn call(&self) -> &Arc<AuditedCall> {
        &self.call
    }

    /// The call was answered with this status. Unless its change has written the record, this does,
    /// and waits for it a bounded time; what cannot be written now is kept and tried again.
    pub async fn end(mut self, status: u16) {
        let Some(room) = self.room.take() else { return };
        let is_refused = matches!(status, 401 | 403 | 404);
        let recorder = self.recorder;
        if self.call.is_written()
            || is_refused && !recorder.refusals.is_alone(&self.call.principal(), (recorder.now)())
        {
            return;
        }
        recorder.push(&self.call, &status.to_string(), room);
        recorder.write_soon().await;
    }
}

impl Drop for CallRecording<'_> {
    fn drop(&mut self) {
        if let Some(room) = self.room.take()
            && !self.call.is_written()
        {
            self.recorder.push(&self.call, UNANSWERED, room);
        }
    }
}
