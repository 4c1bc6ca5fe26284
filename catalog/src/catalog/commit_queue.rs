//! Commits to one table wait in one queue and are carried out together by a task of their own.
//!
//! Its one invariant: a commit that waits is carried out, or answered with an error, even when the
//! client that sent it is gone. The queues only save work: what keeps commits apart is the
//! metastore's swap.

use super::{Catalog, LoadedTable, commit_work::CommitWork};
use crate::{background, error::CatalogError, metastore::ChangeOrigin};
use iceberg::TableIdent;
use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// Most commits that become one metadata file.
pub(super) const BATCH_MAX: usize = 64;
/// Most commits that wait for one table; more are refused until some are done.
const QUEUE_MAX: usize = 1024;

/// A commit that waits.
pub(super) struct QueuedCommit {
    pub(super) work: CommitWork,
    pub(super) origin: ChangeOrigin,
    pub(super) answer: oneshot::Sender<Result<LoadedTable, CatalogError>>,
}

/// The queues of the tables that somebody commits to.
#[derive(Default)]
pub(super) struct CommitQueues {
    waiting: Mutex<HashMap<TableIdent, VecDeque<QueuedCommit>>>,
}

impl CommitQueues {
    /// Adds a commit, and says whether its table had no queue, that is nobody who works it off.
    fn push(&self, table: &TableIdent, commit: QueuedCommit) -> Result<bool, CatalogError> {
        let mut queues = self.lock();
        match queues.entry(table.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(VecDeque::from([commit]));
                Ok(true)
            }
            Entry::Occupied(mut queue) if queue.get().len() < QUEUE_MAX => {
                queue.get_mut().push_back(commit);
                Ok(false)
            }
            Entry::Occupied(_) => Err(CatalogError::Busy(format!(
                "more than {QUEUE_MAX} commits are waiting for {table}: try again later"
            ))),
        }
    }

    /// The next commits in order of arrival; the queue is gone when there are none.
    fn take(&self, table: &TableIdent) -> Vec<QueuedCommit> {
        let mut queues = self.lock();
        let Some(queue) = queues.get_mut(table) else { return Vec::new() };
        let batch: Vec<QueuedCommit> = queue.drain(..queue.len().min(BATCH_MAX)).collect();
        if batch.is_empty() {
            queues.remove(table);
        }
        batch
    }

    /// Puts commits back to the head of the queue.
    pub(super) fn put_back(&self, table: &TableIdent, commits: Vec<QueuedCommit>) {
        let mut queues = self.lock();
        let queue = queues.entry(table.clone()).or_default();
        for commit in commits.into_iter().rev() {
            queue.push_front(commit);
        }
    }

    fn count(&self) -> usize {
        self.lock().values().map(VecDeque::len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TableIdent, VecDeque<QueuedCommit>>> {
        // Whole entries go in and out, so a panic elsewhere leaves nothing half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a queue whose task panicked: those who wait learn that their outcome is unknown, and the
/// next commit starts another task.
struct QueueGuard<'a> {
    queues: &'a CommitQueues,
    table: &'a TableIdent,
}

impl Drop for QueueGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.queues.lock().remove(self.table);
        }
    }
}

impl Catalog {
    /// How many commits wait for others to the same table.
    #[must_use]
    pub fn waiting_commits(&self) -> usize {
        self.inner.queues.count()
    }

    /// Waits for its turn and until the commit is made or has failed.
    pub(super) async fn enqueue(
        &self,
        table: TableIdent,
        work: CommitWork,
    ) -> Result<LoadedTable, CatalogError> {
        let (answer, answered) = oneshot::channel();
        let commit = QueuedCommit { work, origin: self.origin.clone(), answer };
        // Whoever finds no queue starts the task that works it off; others only wait.
        if self.inner.queues.push(&table, commit)? {
            let catalog = self.clone();
            background::run("commits of a table", async move { catalog.lead(&table).await });
        }
        answered.await.unwrap_or_else(|_| Err(task_ended()))
    }

    async fn lead(&self, table: &TableIdent) {
        let leading = QueueGuard { queues: &self.inner.queues, table };
        loop {
            // Commits gather while others hold the table.
            let _table = self.inner.locks.lock(std::iter::once(table)).await;
            let batch = leading.queues.take(table);
            if batch.is_empty() {
                return;
            }
            self.commit_batch(table, batch).await;
        }
    }

    /// Carries out a change that is not left half way when the client is gone.
    pub(super) async fn to_the_end<T, F>(&self, change: F) -> Result<T, CatalogError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, CatalogError>> + Send + 'static,
    {
        background::run("change", change).await.unwrap_or_else(|_| Err(task_ended()))
    }
}

fn task_ended() -> CatalogError {
    CatalogError::CommitStateUnknown("the task that carried it out ended early".to_owned())
}

#[cfg(test)]
mod tests;
