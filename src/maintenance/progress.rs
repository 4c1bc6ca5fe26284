//! How far a run by hand is, while it goes on.
//!
//! A run finds it beside the counter of what it costs, and tells what it knows; a run of which nobody asks
//! tells it to nobody. Its one invariant: what is done is never more than what was found.

use icecore_schemas::jobs::JobProgress;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

tokio::task_local! {
    /// How far the run is that goes on.
    static CURRENT: RunProgress;
}

/// How far a run is. Clones tell of the same run.
#[derive(Clone, Debug, Default)]
pub struct RunProgress(Arc<Mutex<JobProgress>>);

impl RunProgress {
    /// That of the run that goes on here; one that nobody sees where nobody asks.
    #[must_use]
    pub fn current() -> Self {
        CURRENT.try_with(Self::clone).unwrap_or_default()
    }

    /// Lets a run tell how far it is.
    pub(super) async fn told<F: Future>(&self, run: F) -> F::Output {
        Box::pin(CURRENT.scope(self.clone(), run)).await
    }

    /// How far it is; none where it did not tell yet.
    pub(super) fn read(&self) -> Option<JobProgress> {
        let progress = *self.inner();
        (0 < progress.tables).then_some(progress)
    }

    /// It looks at so many tables.
    pub(super) fn begin(&self, tables: usize) {
        *self.inner() = JobProgress { tables: tables as u64, ..JobProgress::default() };
    }

    /// It is done with one of them.
    pub(super) fn end_table(&self) {
        let mut progress = self.inner();
        progress.tables_done = (progress.tables_done + 1).min(progress.tables);
    }

    /// So much is left to do in the table that it is at.
    pub(super) fn find(&self, groups: u64, bytes: u64) {
        let mut progress = self.inner();
        progress.groups = progress.groups_done + groups;
        progress.bytes = progress.bytes_done + bytes;
    }

    /// So much of it is committed.
    pub(super) fn finish(&self, groups: u64, bytes: u64) {
        let mut progress = self.inner();
        progress.groups_done = (progress.groups_done + groups).min(progress.groups);
        progress.bytes_done = (progress.bytes_done + bytes).min(progress.bytes);
    }

    fn inner(&self) -> MutexGuard<'_, JobProgress> {
        // Whole numbers are put in, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_run_tells_how_far_it_is_and_never_more_than_it_found() {
        let progress = RunProgress::default();
        assert_eq!(progress.read(), None, "it has not told yet");
        let run = async {
            let here = RunProgress::current();
            here.begin(2);
            here.find(3, 300);
            here.finish(1, 100);
            // Half of what was found was changed by others meanwhile.
            here.find(1, 50);
            here.finish(2, 500);
            here.end_table();
        };
        progress.told(run).await;
        let told = progress.read().unwrap();
        assert_eq!((told.tables_done, told.tables), (1, 2));
        assert_eq!((told.groups_done, told.groups), (2, 2));
        assert_eq!((told.bytes_done, told.bytes), (150, 150));
        RunProgress::current().begin(9);
        assert_eq!(progress.read(), Some(told), "a run elsewhere is another one");
    }
}
