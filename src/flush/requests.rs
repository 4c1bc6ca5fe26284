//! Callers that wait for a commit: what they asked for, and their answers.
//!
//! A caller gets the outcome of an attempt that began after it asked. At most
//! [`REQUESTS_MAX`] are registered; further callers wait for a place.

use crate::flush::FlushError;
use icecore_lake::wal::LogPosition;
use icecore_schemas::names::Namespace;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, Semaphore, oneshot};

/// Most requests that are registered at a time.
const REQUESTS_MAX: usize = 1024;

type FlushAnswer = Result<(), Arc<FlushError>>;

/// The requests between the callers and the job.
#[derive(Debug)]
pub(super) struct FlushRequests {
    /// None once the job has ended.
    waiting: Mutex<Option<Vec<FlushRequest>>>,
    places: Semaphore,
    wake: Arc<Notify>,
}

#[derive(Debug)]
struct FlushRequest {
    namespace: Namespace,
    through: LogPosition,
    /// Whether the running attempt began after the request.
    attempted: bool,
    answer: oneshot::Sender<FlushAnswer>,
}

impl FlushRequests {
    /// No requests yet; each new one notifies `wake`.
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Self { waiting: Mutex::new(Some(Vec::new())), places: Semaphore::new(REQUESTS_MAX), wake }
    }

    /// Asks for a commit of `namespace` up to `through` and waits for its outcome.
    pub(super) async fn wait(&self, namespace: &Namespace, through: LogPosition) -> FlushAnswer {
        let stopped = || Arc::new(FlushError::Stopped);
        let _place = self.places.acquire().await.map_err(|_| stopped())?;
        let (answer, outcome) = oneshot::channel();
        let request =
            FlushRequest { namespace: namespace.clone(), through, attempted: false, answer };
        self.lock().as_mut().ok_or_else(stopped)?.push(request);
        self.wake.notify_one();
        outcome.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// The namespaces that someone still waits for; the attempt that begins now is theirs.
    pub(super) fn wanted(&self) -> Vec<Namespace> {
        let mut waiting = self.lock();
        let Some(waiting) = waiting.as_mut() else { return Vec::new() };
        waiting.retain(|request| !request.answer.is_closed());
        waiting.iter_mut().for_each(|request| request.attempted = true);
        let mut namespaces: Vec<Namespace> =
            waiting.iter().map(|request| request.namespace.clone()).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        namespaces
    }

    /// Answers everyone whose records are committed or whose attempt failed, and says whether
    /// anyone is left.
    pub(super) fn answer(
        &self,
        failed: &HashMap<Namespace, Arc<FlushError>>,
        is_waiting: impl Fn(&Namespace, LogPosition) -> bool,
    ) -> bool {
        let mut waiting = self.lock();
        let Some(waiting) = waiting.as_mut() else { return false };
        let mut unanswered = Vec::new();
        for request in waiting.drain(..) {
            let error = failed.get(&request.namespace).filter(|_| request.attempted);
            let answer = match error {
                _ if !is_waiting(&request.namespace, request.through) => Ok(()),
                Some(error) => Err(Arc::clone(error)),
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

    /// Ends every wait, now and later: the job has ended.
    pub(super) fn close(&self) {
        *self.lock() = None;
        self.places.close();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<FlushRequest>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
