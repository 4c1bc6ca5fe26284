//! The end of a query that its operators see: its deadline, or a reader who is gone.
//!
//! DataFusion ends a query by dropping its tasks, which works wherever they wait. Many operators
//! do not wait for as long as they have input: a join looks at each pair of rows in one go. So
//! every stream of a plan, every join's filter and every window function looks at the query's
//! [`QuerySignal`], and so do the steps of the optimizer.

mod operators;
mod rules;
mod spilling;
mod windows;

use crate::error::SqlError;
use datafusion::error::DataFusionError;
use std::{
    fmt::Debug,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};

pub use operators::stopping;
pub use rules::between_rules;
pub use spilling::TaskContexts;
pub use windows::stopping_windows;

/// Threads that one query works on at the same time. An operator may keep a thread until the query
/// ends, so the engine has as many for each query that may run.
pub const THREADS_MAX: usize = 4;

/// When a query is over, for all who work on it.
#[derive(Debug)]
pub struct QuerySignal {
    deadline: Instant,
    timeout: Duration,
    left: OnceLock<Instant>,
}

impl QuerySignal {
    /// The signal of a query that may run for `timeout` from now on.
    #[must_use]
    pub fn new(timeout: Duration) -> Arc<Self> {
        Self::since(Instant::now(), timeout)
    }

    /// The signal of a query that may run for `timeout` from `start` on.
    #[must_use]
    pub fn since(start: Instant, timeout: Duration) -> Arc<Self> {
        Arc::new(Self { deadline: start + timeout, timeout, left: OnceLock::new() })
    }

    /// When the query's time is up.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How long the query may run in all, as its sender is told.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// One that is over as this one is, and after `timeout` at the latest.
    #[must_use]
    pub fn within(self: &Arc<Self>, timeout: Duration) -> Arc<Self> {
        if self.deadline <= Instant::now() + timeout {
            Arc::clone(self)
        } else {
            Self::new(timeout)
        }
    }

    /// The reader is gone.
    pub fn leave(&self) {
        self.left.get_or_init(Instant::now);
    }

    /// Says that the query is over.
    ///
    /// # Errors
    /// [`SqlError::Limit`].
    pub fn check(&self) -> Result<(), SqlError> {
        if self.left.get().is_some() {
            return Err(SqlError::Limit("the query's client is gone".to_owned()));
        }
        if self.deadline <= Instant::now() { Err(self.too_slow()) } else { Ok(()) }
    }

    /// What a query answers when its time is up.
    #[must_use]
    pub fn too_slow(&self) -> SqlError {
        SqlError::Limit(format!(
            "the query took longer than {} ms; narrow it by type or ts",
            self.timeout.as_millis()
        ))
    }

    /// How long the query has been over.
    #[must_use]
    pub fn over_for(&self) -> Duration {
        let left = self.left.get().map_or(self.deadline, |left| self.deadline.min(*left));
        Instant::now().saturating_duration_since(left)
    }
}

/// What each part of a running query holds on to: when the last one is dropped, nothing of the
/// query runs any more, and what was held for it is let go.
#[derive(Debug)]
pub struct QueryStop {
    signal: Arc<QuerySignal>,
    /// One for each task of the query that runs at the moment.
    turns: Arc<Semaphore>,
    _held: Box<dyn Debug + Send + Sync>,
}

impl QueryStop {
    /// For a query that something is held for until nothing of it runs, such as a slot.
    #[must_use]
    pub fn new(signal: Arc<QuerySignal>, held: Box<dyn Debug + Send + Sync>) -> Arc<Self> {
        let turns = Arc::new(Semaphore::new(THREADS_MAX));
        Arc::new(Self { signal, turns, _held: held })
    }

    /// When the query is over.
    #[must_use]
    pub fn signal(&self) -> &Arc<QuerySignal> {
        &self.signal
    }

    fn check(&self) -> Result<(), DataFusionError> {
        self.signal.check().map_err(|over| DataFusionError::External(Box::new(over)))
    }
}
