//! Everything that runs beside requests: named, watched, and stopped together.
//!
//! A [`Job`] is bounded work without input whose state is in storage. A tick that fails is logged
//! and repeated after a pause; a panic stops the whole process, because a half-running server
//! would acknowledge what it can no longer store.

use std::{future::Future, sync::Arc, time::Duration};
use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

/// Longest pause between two tries of a failing job.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// First pause after a failure; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// What a tick achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is left to do until the next wake-up.
    Idle,
    /// There is more to do at once.
    More,
}

/// Background work that can be stopped between two ticks.
pub trait Job: Send + 'static {
    /// The name in logs.
    const NAME: &'static str;
    /// Why a tick failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Does one bounded step; doing it twice does no harm.
    fn tick(&mut self) -> impl Future<Output = Result<Progress, Self::Error>> + Send;
}

/// Tells a task when to end.
#[derive(Clone, Debug)]
pub struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Returns when everything should end. Cancel-safe.
    pub async fn asked(&mut self) {
        // The sender lives as long as any task's handle; without it there is nothing to wait for.
        drop(self.0.wait_for(|stop| *stop).await);
    }
}

/// Starts tasks and ends them.
#[derive(Clone, Debug)]
pub struct Tasks {
    stop: Arc<watch::Sender<bool>>,
    running: Arc<watch::Sender<usize>>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { stop: Arc::new(watch::channel(false).0), running: Arc::new(watch::channel(0).0) }
    }
}

impl Tasks {
    /// Runs `future` until it ends. It must heed [`Tasks::stopping`] itself.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.running.send_modify(|count| *count += 1);
        let running = Arc::clone(&self.running);
        let task = tokio::spawn(future);
        tokio::spawn(async move {
            if let Err(ended) = task.await
                && ended.is_panic()
            {
                error!(name, "task panicked, stopping the process");
                std::process::abort();
            }
            running.send_modify(|count| *count -= 1);
        });
    }

    /// Runs `job` every `every`, at once when `wake` is notified, and until [`Tasks::stop`].
    pub fn run<J: Job>(&self, mut job: J, every: Duration, wake: Arc<Notify>) {
        let mut stopping = self.stopping();
        self.spawn(J::NAME, async move {
            let mut pause = every;
            loop {
                // Cancel-safe: nothing is held across these waits.
                tokio::select! {
                    () = tokio::time::sleep(pause) => (),
                    () = wake.notified() => (),
                    () = stopping.asked() => break,
                }
                pause = next_pause(&mut job, pause, every).await;
            }
        });
    }

    /// What ends when everything should end.
    #[must_use]
    pub fn stopping(&self) -> Stopping {
        Stopping(self.stop.subscribe())
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

/// One tick, and how long to wait for the next.
async fn next_pause<J: Job>(job: &mut J, pause: Duration, every: Duration) -> Duration {
    match job.tick().await {
        Ok(Progress::More) => Duration::ZERO,
        Ok(Progress::Idle) => every,
        Err(cause) => {
            let next = (pause * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
            warn!(job = J::NAME, error = &cause as &dyn std::error::Error, ?next, "tick failed");
            next
        }
    }
}
