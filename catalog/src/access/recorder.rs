//! Takes audit entries into the log: whoever comes first writes for all who wait.
//!
//! Its one invariant: a call whose record might not fit is refused before it does anything, and
//! what was taken on is kept until it is written. A call that has been carried out is never
//! answered as failed because its record could not be written.

use super::{audit::Entry, lock};
use crate::{
    catalog::NowMs,
    error::CatalogError,
    metastore::sql::{SqlMetastore, audit::Writing},
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

/// Most records that wait to be written, and calls under way that will be recorded.
const WAITING_MAX: usize = 1024;
/// Most records of one transaction.
const BATCH_MAX: usize = 256;
/// Longest that a reply waits for its record.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest text of a field, in bytes.
const FIELD_BYTES_MAX: usize = 1024;
/// The outcome of a call whose caller went away.
const UNANSWERED: &str = "unanswered";

/// Room for one record.
#[derive(Debug)]
pub struct Room {
    _permit: OwnedSemaphorePermit,
}

/// The way into the audit log.
#[derive(Debug)]
pub(super) struct Recorder {
    store: SqlMetastore,
    room: Arc<Semaphore>,
    waiting: Mutex<VecDeque<(Writing, Room)>>,
    /// Held while a batch is written.
    writing: tokio::sync::Mutex<()>,
}

impl Recorder {
    pub(super) fn new(store: SqlMetastore) -> Self {
        Self {
            store,
            room: Arc::new(Semaphore::new(WAITING_MAX)),
            waiting: Mutex::default(),
            writing: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) fn room(&self) -> Option<Room> {
        Arc::clone(&self.room).try_acquire_owned().ok().map(|permit| Room { _permit: permit })
    }

    /// Writes everything that waits, or gives up after [`PATIENCE`]; then a later call writes it.
    pub(super) async fn write_soon(&self) {
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

    /// Writes everything that waits.
    pub(super) async fn write(&self) -> Result<(), CatalogError> {
        let _turn = self.writing.lock().await;
        loop {
            let batch: Vec<Writing> = {
                let mut waiting = lock(&self.waiting);
                let batch = waiting.iter_mut().take(BATCH_MAX);
                batch.map(|(one, _)| std::mem::replace(one, one.tried())).collect()
            };
            if batch.is_empty() {
                return Ok(());
            }
            self.store.append_audit(&batch).await?;
            lock(&self.waiting).drain(..batch.len());
        }
    }
}

impl Writing {
    fn tried(&self) -> Self {
        Self { was_tried: true, ..self.clone() }
    }
}

/// A record of a call that is under way.
#[derive(Debug)]
pub struct Recording<'a> {
    recorder: &'a Recorder,
    now: Now<'a>,
    /// None once it is in the queue.
    open: Option<(Entry, Room)>,
}

struct Now<'a>(&'a NowMs);

impl std::fmt::Debug for Now<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Now")
    }
}

impl<'a> Recording<'a> {
    pub(super) fn new(
        recorder: &'a Recorder,
        room: Room,
        mut entry: Entry,
        now: &'a NowMs,
    ) -> Self {
        UNANSWERED.clone_into(&mut entry.outcome);
        Self { recorder, now: Now(now), open: Some((entry, room)) }
    }

    /// How the call ended, said before [`super::Control::record`].
    #[must_use]
    pub fn with_outcome(mut self, outcome: &str) -> Self {
        if let Some((entry, _)) = &mut self.open {
            outcome.clone_into(&mut entry.outcome);
        }
        self
    }

    /// Puts it into the queue, which dropping does.
    pub(super) fn finish(self) {}
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        let Some((mut entry, room)) = self.open.take() else { return };
        entry.time_ms = (self.now.0)();
        for field in [
            &mut entry.principal,
            &mut entry.address,
            &mut entry.request,
            &mut entry.action,
            &mut entry.object,
        ] {
            shorten(field);
        }
        let key = Uuid::new_v4().to_string();
        let writing = Writing { key, was_tried: false, entry };
        lock(&self.recorder.waiting).push_back((writing, room));
    }
}

/// A text that every database takes: bounded, and without the NUL that PostgreSQL refuses.
fn shorten(text: &mut String) {
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
    }
    text.truncate(text.floor_char_boundary(FIELD_BYTES_MAX));
}
