//! Commits of one table each that wait at the same time are one transaction of the database: they
//! share its COMMIT, and so one sync of its disk.
//!
//! Its one invariant: each of them is made whole or not at all, by itself. One that cannot be made
//! is taken back to the savepoint before it, and the others go on. None is answered before the
//! transaction that it is part of has ended; when that fails, all of them have failed.
//!
//! There is no timer. The first commit that comes to an empty queue starts a task that leads: it takes
//! what waits, makes it one transaction, answers, and takes again what came meanwhile. So a commit that
//! is alone waits for nobody, and under load a group is as large as what comes during one sync.
//!
//! A transaction goes through its commits in one order in all processes: first the lock on places, then
//! new tables, then tables by identity. Whoever waits for a row holds only rows before it in that order,
//! so transactions never wait in a circle.

use super::{
    ChangeOrigin, ChangeSet, Metastore, NewTable, ObsoleteFile, SnapshotRow, TableOrigin,
    Watermark, database::RowLock, failed, fence, namespaces, outbox, outbox::RequestChanges,
    places, tables, transaction,
};
use crate::{background, error::CatalogError, row_sum::RowSum};
use sqlx::{Any, AnyConnection, Connection, Transaction};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::oneshot;
use uuid::Uuid;

/// One table's part of a commit.
#[derive(Clone, Debug)]
pub struct PointerSwap {
    /// Which table.
    pub uuid: Uuid,
    /// The version the new metadata was built on.
    pub expected_version: i64,
    /// Where the new metadata is, already durable.
    pub metadata_location: String,
    /// The table's new location, if the commit gives it one.
    pub moved_to: Option<String>,
    /// The new watermark, if the commit moves it.
    pub watermark: Option<Watermark>,
    /// The sum of the rows that the watermark moves over, where it is known.
    pub acked: Option<RowSum>,
    /// The sum of all rows of the holder that the table has then, where `main` goes back.
    pub acked_anew: Option<RowSum>,
    /// Snapshots this commit adds: id, time in ms, first and last number of the rows where known.
    pub snapshots: Vec<SnapshotRow>,
    /// Snapshots this commit removes; they leave the snapshot index.
    pub removed_snapshots: Vec<i64>,
    /// Files nobody needs once this commit stands; deleted at the given time or later.
    pub obsolete: Vec<ObsoleteFile>,
    /// The commits that are folded into this one; none when it is one commit of the caller's.
    pub parts: Vec<CommitPart>,
    /// What it is made of, when it is one commit of the caller's.
    pub changes: ChangeSet,
}

/// One of several commits that move a pointer together.
#[derive(Clone, Debug)]
pub struct CommitPart {
    /// Whose it is.
    pub origin: ChangeOrigin,
    /// The snapshots it adds.
    pub snapshots: Vec<i64>,
    /// What it is made of.
    pub changes: ChangeSet,
}

/// How a commit ended when it did not fail outright.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwapOutcome {
    /// Everything changed.
    Done,
    /// Nothing changed: this table has moved on, or is gone.
    Lost(Uuid),
    /// Nothing changed: the fence was raised to a higher epoch.
    Deposed(Uuid),
    /// Nothing changed: the request of this key was carried out before.
    Repeated(Uuid),
}

/// Most commits of one transaction: whoever comes next waits for all of them.
const GROUP_MAX: usize = 64;
/// Most commits that wait for their transaction; more are refused until some are done.
const WAITING_MAX: usize = 4096;

/// The commits that wait, shared by all clones of a metastore.
#[derive(Clone, Debug, Default)]
pub(super) struct CommitGroup {
    queue: Arc<Mutex<CommitQueue>>,
    transactions: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct CommitQueue {
    waiting: VecDeque<QueuedSwap>,
    /// Whether a task works them off.
    is_led: bool,
}

#[derive(Debug)]
struct QueuedSwap {
    commit: AtomicCommit,
    answer: oneshot::Sender<Result<SwapOutcome, CatalogError>>,
}

/// What is made whole or not at all.
#[derive(Debug)]
struct AtomicCommit {
    new: Vec<NewTable>,
    swaps: Vec<PointerSwap>,
    origin: ChangeOrigin,
}

impl CommitGroup {
    /// Counts a transaction that is going to be committed.
    pub(super) fn count(&self) {
        self.transactions.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds a commit, and says whether nobody works them off.
    fn push(&self, waiting: QueuedSwap) -> Result<bool, CatalogError> {
        let mut queue = self.lock();
        if WAITING_MAX <= queue.waiting.len() {
            return Err(CatalogError::Busy(format!(
                "more than {WAITING_MAX} commits are waiting for the metastore: try again later"
            )));
        }
        queue.waiting.push_back(waiting);
        // Under the same lock as `take`: no commit comes between the last look of a leader and its end.
        Ok(!std::mem::replace(&mut queue.is_led, true))
    }

    /// The next ones; nobody works them off any more when there are none.
    fn take(&self) -> Vec<QueuedSwap> {
        let mut queue = self.lock();
        let count = queue.waiting.len().min(GROUP_MAX);
        queue.is_led = 0 < count;
        queue.waiting.drain(..count).collect()
    }

    fn lock(&self) -> MutexGuard<'_, CommitQueue> {
        // Whole commits go in and out, so a panic elsewhere leaves nothing half done.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the queue of a task that panicked: those who wait learn that their outcome is unknown, and
/// the next commit starts another task.
struct QueueLeader<'a>(&'a CommitGroup);

impl Drop for QueueLeader<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.lock() = CommitQueue::default();
        }
    }
}

impl Metastore {
    /// Swaps every pointer or none.
    #[cfg(test)]
    pub(crate) async fn commit(&self, swaps: &[PointerSwap]) -> Result<SwapOutcome, CatalogError> {
        self.commit_with_new(&[], swaps).await
    }

    /// Adds every table and swaps every pointer, or does nothing; `NoSuchNamespace`,
    /// `AlreadyExists` (of a new table's name or identity, or of its namespace), `Invalid` when a
    /// table's location overlaps another's, a file of an adopted one is queued for deletion, or its
    /// identity is that of a table which was dropped elsewhere.
    ///
    /// Commits of one table each that wait at the same time share a transaction, each all or nothing
    /// by itself. A commit of several tables is alone in its transaction: tables are locked in the
    /// order of their identities, in which several such commits cannot follow one another.
    pub(crate) async fn commit_with_new(
        &self,
        new: &[NewTable],
        swaps: &[PointerSwap],
    ) -> Result<SwapOutcome, CatalogError> {
        let origin = self.origin.clone();
        let commit = AtomicCommit { new: new.to_vec(), swaps: swaps.to_vec(), origin };
        if 1 < new.len() + swaps.len() {
            return self.transact(&[&commit]).await?.remove(0);
        }
        let (answer, answered) = oneshot::channel();
        if self.group.push(QueuedSwap { commit, answer })? {
            let metastore = self.clone();
            background::run("transactions", async move { metastore.lead().await });
        }
        let ended = "the task that carried it out ended early";
        answered.await.unwrap_or_else(|_| Err(CatalogError::CommitStateUnknown(ended.to_owned())))
    }

    /// How many transactions that change names or tables were begun to be committed.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.group.transactions.load(Ordering::Relaxed)
    }

    /// How many commits wait for their transaction.
    #[must_use]
    pub fn waiting_commits(&self) -> usize {
        self.group.lock().waiting.len()
    }

    async fn lead(&self) {
        let leading = QueueLeader(&self.group);
        loop {
            // More commits gather while a transaction is on its way to the disk.
            let mut batch = leading.0.take();
            if batch.is_empty() {
                return;
            }
            // Everybody locks tables in the same order, so nobody waits in a circle; new ones first,
            // as their places are.
            batch.sort_by_key(|waiting| waiting.commit.first_swap());
            let commits: Vec<&AtomicCommit> = batch.iter().map(|waiting| &waiting.commit).collect();
            let answers = match self.transact(&commits).await {
                Ok(answers) => answers,
                Err(cause) => batch.iter().map(|_| Err(cause.copy())).collect(),
            };
            for (waiting, answer) in batch.into_iter().zip(answers) {
                // Whoever is gone learns from the table, or by sending the same again.
                let _gone = waiting.answer.send(answer);
            }
        }
    }

    /// Makes commits in one transaction; gives how each ended. An error is everybody's.
    async fn transact(
        &self,
        commits: &[&AtomicCommit],
    ) -> Result<Vec<Result<SwapOutcome, CatalogError>>, CatalogError> {
        let mut tx = self.begin().await?;
        if commits.iter().any(|commit| commit.takes_place()) {
            places::lock(&mut tx).await?;
        }
        let mut all = Vec::new();
        let mut answers = Vec::with_capacity(commits.len());
        for commit in commits {
            let made = match commits.len() {
                // Without the others there is nothing to go back to.
                1 => commit.make(&mut tx).await,
                _ => commit.make_apart(&mut tx).await?,
            };
            answers.push(made.map(|(outcome, told)| {
                all.extend(told);
                outcome
            }));
        }
        // One COMMIT, and one sync, for all that were made; what they changed is told in it too.
        if answers.iter().any(|answer| matches!(answer, Ok(SwapOutcome::Done))) {
            self.end_all(tx, "commit", &all).await?;
        }
        // Dropping the transaction rolls it back.
        Ok(answers)
    }
}

impl AtomicCommit {
    fn first_swap(&self) -> Option<Uuid> {
        self.swaps.first().map(|swap| swap.uuid)
    }

    fn takes_place(&self) -> bool {
        !self.new.is_empty() || self.swaps.iter().any(|swap| swap.moved_to.is_some())
    }

    /// As [`AtomicCommit::make`], and nothing has changed when it is not made. An error of the
    /// outer kind leaves a transaction that cannot be gone on with.
    async fn make_apart(
        &self,
        tx: &mut Transaction<'static, Any>,
    ) -> Result<Result<(SwapOutcome, Vec<RequestChanges>), CatalogError>, CatalogError> {
        // Within a transaction this is a savepoint, and its rollback goes back to that.
        let mut part = Connection::begin(&mut **tx).await.map_err(failed("begin"))?;
        let made = self.make(&mut part).await;
        let ended = match &made {
            Ok((SwapOutcome::Done, _)) => part.commit().await,
            _ => part.rollback().await,
        };
        ended.map_err(failed("commit")).map(|()| made)
    }

    /// Makes every change, and says what is to be told of them; after another outcome than `Done` or
    /// an error some may have been made.
    async fn make(
        &self,
        tx: &mut AnyConnection,
    ) -> Result<(SwapOutcome, Vec<RequestChanges>), CatalogError> {
        // First of all: a request that is sent again finds its key taken and changes nothing.
        if let Some(id) = self.claim(tx).await? {
            return Ok((SwapOutcome::Repeated(id), Vec::new()));
        }
        let mut all = Vec::new();
        let mut operations = Vec::new();
        for table in &self.new {
            if let TableOrigin::OfHolder { watermark, namespace, .. } = &table.comes {
                if !fence::lets_pass(tx, watermark.epoch).await? {
                    return Ok((SwapOutcome::Deposed(table.uuid), Vec::new()));
                }
                if let Some(properties) = namespace
                    && namespaces::ensure(tx, &table.levels, properties).await?
                {
                    operations.push(outbox::made_namespace(&table.levels, properties));
                }
            }
            tables::create(tx, table).await?;
            operations.push(outbox::created(table));
        }
        if !operations.is_empty() {
            all.push(RequestChanges { origin: self.origin.clone(), operations });
        }
        let mut ordered: Vec<&PointerSwap> = self.swaps.iter().collect();
        ordered.sort_by_key(|swap| swap.uuid);
        for swap in ordered {
            // The row is locked from here to the end: what is told of it is what the swap finds.
            let from = tables::before(tx, swap.uuid, RowLock::Update).await?;
            match tables::swap(tx, swap).await? {
                SwapOutcome::Done => (),
                undone @ (SwapOutcome::Lost(_)
                | SwapOutcome::Deposed(_)
                | SwapOutcome::Repeated(_)) => return Ok((undone, Vec::new())),
            }
            if let Some(from) = from {
                transaction::add_changes(&self.origin, swap, &from, &mut all);
            }
        }
        Ok((SwapOutcome::Done, all))
    }

    /// Takes the keys of all whose changes it has; gives one whose request was carried out before.
    async fn claim(&self, tx: &mut AnyConnection) -> Result<Option<Uuid>, CatalogError> {
        for swap in &self.swaps {
            for part in &swap.parts {
                let table = Some((swap.uuid, swap.metadata_location.as_str()));
                if let Some(id) = transaction::claim(tx, &part.origin, table).await? {
                    return Ok(Some(id));
                }
            }
        }
        if self.swaps.iter().any(|swap| !swap.parts.is_empty()) {
            return Ok(None);
        }
        let new = self.new.iter().map(|table| (table.uuid, table.metadata_location.as_str()));
        let swaps = self.swaps.iter().map(|swap| (swap.uuid, swap.metadata_location.as_str()));
        transaction::claim(tx, &self.origin, new.chain(swaps).next()).await
    }
}
