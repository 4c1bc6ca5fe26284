//! Keeps the last runs of this server's jobs, so that they are listed after a restart.

use crate::{
    maintenance::JobRegistry,
    store::StoreError,
    tasks::{Job, Progress},
};

/// The job that writes what was not written yet.
#[derive(Debug)]
pub struct KeepRuns(pub JobRegistry);

impl Job for KeepRuns {
    const NAME: &'static str = "keep-runs";
    type Error = StoreError;

    /// Is idle whatever it writes: otherwise its own run would be the next one to write.
    async fn tick(&mut self) -> Result<Progress, StoreError> {
        self.0.keep_runs().await.map(|()| Progress::Idle)
    }
}
