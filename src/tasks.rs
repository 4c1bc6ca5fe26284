//! Everything that runs beside requests: named, watched, and stopped together.
//!
//! A [`Job`] is bounded work without input whose state is in storage; `maintenance` runs all of
//! them. A panic of any task stops the whole process, because a half-running server would
//! acknowledge what it can no longer store.
//!
//! The program runs jobs on threads of their own ([`job_threads`]), so that a request never waits for a
//! thread that encodes a table's metadata. Tests run both on one.

use std::{future::Future, sync::Arc, time::Duration};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::watch,
};
use tracing::{error, info, warn};

/// What a tick achieved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There was nothing to do.
    Idle,
    /// Something was done, and nothing is left to do until the next wake-up.
    Done,
    /// There is more to do at once.
    More,
    /// There will be more to do in a few seconds, which is sooner than the next tick.
    Soon {
        /// Whether something was done now.
        did_something: bool,
    },
    /// There may be something to do, and for this reason it is not done.
    Skipped(String),
}

impl Progress {
    /// The end of a tick that did something or did not, and left more to do or did not.
    #[must_use]
    pub fn of(did_something: bool, is_more: bool) -> Self {
        match (did_something, is_more) {
            (_, true) => Self::More,
            (true, false) => Self::Done,
            (false, false) => Self::Idle,
        }
    }
}

/// Background work that can be stopped between two ticks.
pub trait Job: Send + 'static {
    /// The name of its line in the table of all jobs.
    const NAME: &'static str;
    /// Why a tick failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Does one bounded step; doing it twice does no harm.
    fn tick(&mut self) -> impl Future<Output = Result<Progress, Self::Error>> + Send;
}

/// Threads for jobs, as many as there are processors.
///
/// A pool gives a connection that a job opened to requests as well, and these threads wake whoever waits for
/// it. So they end only after the server has stopped and closed what it has open; then they wait for files
/// that a job reads or writes.
///
/// # Errors
/// The system has no more threads.
pub fn job_threads() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().thread_name("jobs").enable_all().build()
}

/// Tells a task when to end.
#[derive(Clone, Debug)]
pub struct ShutdownSignal(watch::Receiver<bool>);

impl ShutdownSignal {
    /// Returns when everything should end. Cancel-safe.
    pub async fn asked(&mut self) {
        // The sender lives as long as any task's handle; without it there is nothing to wait for.
        drop(self.0.wait_for(|stop| *stop).await);
    }

    /// Whether everything should end.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        *self.0.borrow()
    }
}

/// Starts tasks and ends them.
#[derive(Clone, Debug)]
pub struct Tasks {
    stop: Arc<watch::Sender<bool>>,
    running: Arc<watch::Sender<usize>>,
    /// What runs them; none for what runs the one who spawns.
    threads: Option<Handle>,
}

impl Default for Tasks {
    fn default() -> Self {
        let (stop, running) = (Arc::new(watch::channel(false).0), Arc::new(watch::channel(0).0));
        Self { stop, running, threads: None }
    }
}

impl Tasks {
    /// Spawns tasks that are stopped together with these, on other threads if there are some: work of
    /// milliseconds that does not wait would hold up the answers of whoever shares a thread with it.
    #[must_use]
    pub fn on(&self, threads: Option<Handle>) -> Self {
        Self { threads, ..self.clone() }
    }

    /// Runs `future` until it ends. It must heed [`Tasks::stopping`] itself.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.running.send_modify(|count| *count += 1);
        let running = Arc::clone(&self.running);
        let threads = self.threads.clone().unwrap_or_else(Handle::current);
        let task = threads.spawn(future);
        threads.spawn(async move {
            if let Err(ended) = task.await
                && ended.is_panic()
            {
                error!(name, "task panicked, stopping the process");
                std::process::abort();
            }
            running.send_modify(|count| *count -= 1);
        });
    }

    /// What ends when everything should end.
    #[must_use]
    pub fn stopping(&self) -> ShutdownSignal {
        ShutdownSignal(self.stop.subscribe())
    }

    /// Asks every task to end and waits for them, at most `patience`.
    pub async fn stop(&self, patience: Duration) {
        self.stop.send_replace(true);
        let mut running = self.running.subscribe();
        let ended = tokio::time::timeout(patience, running.wait_for(|count| *count == 0)).await;
        match ended {
            Ok(_) => info!("every task ended"),
            Err(_) => warn!("some tasks did not end in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[test]
    fn tasks_run_on_the_threads_that_they_are_given_and_stop_with_the_others() {
        let jobs = job_threads().unwrap();
        let requests = Builder::new_current_thread().enable_all().build().unwrap();
        requests.block_on(async {
            let tasks = Tasks::default();
            let beside = tasks.on(Some(jobs.handle().clone()));
            for (tasks, expected) in [(&tasks, false), (&beside, true)] {
                let (answer, answered) = oneshot::channel();
                let mut stopping = tasks.stopping();
                tasks.spawn("test", async move {
                    let is_job = std::thread::current().name() == Some("jobs");
                    answer.send(is_job).unwrap();
                    stopping.asked().await;
                });
                assert_eq!(answered.await, Ok(expected));
            }
            tasks.stop(Duration::MAX).await;
            assert_eq!(*tasks.running.borrow(), 0);
        });
    }
}
