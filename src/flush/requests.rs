//! Callers that wait for a commit: what they asked for, and their answers.
//!
//! A caller gets the outcome of an attempt that began after it asked. At most
//! [`REQUESTS_MAX`] and [`LOADS_MAX`] are registered; further callers wait for a place.

use crate::flush::FlushError;
use icecore_lake::wal::LogPosition;
use icecore_schemas::{names::Namespace, service_table::RecordKind};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, Semaphore, oneshot};

/// Most requests of callers that need the commit that are registered at a time.
const REQUESTS_MAX: usize = 1024;
/// Most requests of loads. They have places of their own: who may only read keeps nobody waiting
/// whose events are to be committed.
const LOADS_MAX: usize = 256;

type FlushAnswer = Result<(), Arc<FlushError>>;

/// The tables whose flush failed, by namespace.
pub(super) type FailedTables = HashMap<Namespace, Vec<(RecordKind, Arc<FlushError>)>>;

/// What is to be committed for a caller.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CommitScope {
    /// Every table of a namespace.
    Namespace(Namespace),
    /// One table, which a client loads since that time, ms since 1970.
    Loaded(RecordKind, Namespace, i64),
}

impl CommitScope {
    pub(super) fn namespace(&self) -> &Namespace {
        match self {
            Self::Namespace(namespace) | Self::Loaded(_, namespace, _) => namespace,
        }
    }

    /// Whether tables of this kind, in its namespace, are part of it.
    pub(super) fn has(&self, kind: RecordKind) -> bool {
        match self {
            Self::Namespace(_) => true,
            Self::Loaded(loaded, ..) => *loaded == kind,
        }
    }

    /// When a client asked for its table.
    pub(super) fn loaded_ms(&self) -> Option<i64> {
        match self {
            Self::Namespace(_) => None,
            Self::Loaded(_, _, at_ms) => Some(*at_ms),
        }
    }
}

/// The requests between the callers and the job.
#[derive(Debug)]
pub(super) struct FlushRequests {
    /// None once the job has ended.
    waiting: Mutex<Option<Vec<FlushRequest>>>,
    places: Semaphore,
    load_places: Semaphore,
    wake: Arc<Notify>,
}

#[derive(Debug)]
struct FlushRequest {
    scope: CommitScope,
    through: LogPosition,
    /// Whether the running attempt began after the request.
    attempted: bool,
    answer: oneshot::Sender<FlushAnswer>,
}

impl FlushRequests {
    /// No requests yet; each new one notifies `wake`.
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Self {
            waiting: Mutex::new(Some(Vec::new())),
            places: Semaphore::new(REQUESTS_MAX),
            load_places: Semaphore::new(LOADS_MAX),
            wake,
        }
    }

    /// Asks for a commit of `scope` up to `through` and waits for its outcome. A load gives up, with
    /// an error, when its table is paused.
    pub(super) async fn wait(&self, scope: CommitScope, through: LogPosition) -> FlushAnswer {
        let stopped = || Arc::new(FlushError::Stopped);
        let places = match scope {
            CommitScope::Namespace(_) => &self.places,
            CommitScope::Loaded(..) => &self.load_places,
        };
        let _place = places.acquire().await.map_err(|_| stopped())?;
        let (answer, outcome) = oneshot::channel();
        let request = FlushRequest { scope, through, attempted: false, answer };
        self.lock().as_mut().ok_or_else(stopped)?.push(request);
        self.wake.notify_one();
        outcome.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// What someone still waits for; the attempt that begins now is theirs. Nobody who loads a table
    /// waits for one that is paused: its flush has just failed.
    pub(super) fn wanted(
        &self,
        is_paused: impl Fn(RecordKind, &Namespace) -> bool,
    ) -> Vec<CommitScope> {
        let mut waiting = self.lock();
        let Some(waiting) = waiting.as_mut() else { return Vec::new() };
        waiting.retain(|request| match &request.scope {
            CommitScope::Loaded(kind, namespace, _) if is_paused(*kind, namespace) => false,
            CommitScope::Loaded(..) | CommitScope::Namespace(_) => !request.answer.is_closed(),
        });
        waiting.iter_mut().for_each(|request| request.attempted = true);
        let mut scopes: Vec<CommitScope> =
            waiting.iter().map(|request| request.scope.clone()).collect();
        scopes.sort_unstable();
        scopes.dedup();
        scopes
    }

    /// Answers everyone whose records are committed or whose attempt failed, and says whether
    /// anyone is left.
    pub(super) fn answer(
        &self,
        failed: &FailedTables,
        is_waiting: impl Fn(&CommitScope, LogPosition) -> bool,
    ) -> bool {
        let mut waiting = self.lock();
        let Some(waiting) = waiting.as_mut() else { return false };
        let mut unanswered = Vec::new();
        for request in waiting.drain(..) {
            let mut failures = failed.get(request.scope.namespace()).into_iter().flatten();
            let failure = failures.find(|(kind, _)| request.scope.has(*kind));
            let answer = match failure.filter(|_| request.attempted) {
                _ if !is_waiting(&request.scope, request.through) => Ok(()),
                Some((_, error)) => Err(Arc::clone(error)),
                None => {
                    unanswered.push(request);
                    continue;
                }
            };
            // A caller that has gone away needs no answer.
            let _ = request.answer.send(answer);
        }
        *waiting = unanswered;
        !waiting.is_empty()
    }

    /// Answers everyone whose attempt this was that nothing is committed.
    pub(super) fn refuse(&self, error: &Arc<FlushError>) {
        let mut waiting = self.lock();
        let Some(waiting) = waiting.as_mut() else { return };
        for request in waiting.extract_if(.., |request| request.attempted) {
            // A caller that has gone away needs no answer.
            let _ = request.answer.send(Err(Arc::clone(error)));
        }
    }

    /// Ends every wait, now and later: the job has ended.
    pub(super) fn close(&self) {
        *self.lock() = None;
        self.places.close();
        self.load_places.close();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<FlushRequest>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
