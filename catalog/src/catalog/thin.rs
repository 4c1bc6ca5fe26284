//! Thins the history of the service's own tables, and takes what has expired from any table's, in commits
//! of its own.
//!
//! Commits do not thin: one that leaves a table with too many snapshots notes it here, and whoever
//! does maintenance works the notes off. A note that a process takes with it when it ends is
//! written again by the table's next commit.
//!
//! What goes is worked out while others commit. In the table's turn it is only looked whether that still
//! holds, by what came since. Its one invariant: no snapshot or file goes that a branch, a tag, a client's
//! lease or a later snapshot of the very state that the commit replaces needs.

use super::{
    Catalog, LoadedTable, Upkeep,
    write::{TableWrite, check_made, lost_every_race},
};
use crate::{
    commit,
    error::{CatalogError, with_causes},
    metadata_file::refs::SnapshotRefs,
    metastore::ChangeSet,
    retention::{
        self,
        expiry::{self, ExpiredHistory, IN_FULL_MS, expired},
        lease::LeasedSnapshots,
    },
    row_sum::RecordedSums,
    snapshot::{
        obsolete::reads::{HistoryReader, HistoryReads},
        thin::{SnapshotThinning, expire, thin},
    },
};
use iceberg::{
    TableIdent, TableUpdate,
    spec::{SnapshotRef, TableMetadata},
};
use std::{
    collections::HashSet,
    iter,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;
use tracing::warn;

/// Most tables that are noted. One more is noted by its next commit after there is room.
const NOTED_MAX: usize = 10_000;
/// Most plans of one thinning: what others name or remove meanwhile makes one useless.
const PLANS_MAX: usize = 3;
/// A metadata file with so many snapshots more than the one after it is not kept for its sake.
const LONG_SNAPSHOTS: usize = 50;
/// How often a plan is made to follow the table before its turn.
const STEPS_MAX: usize = 3;

/// The tables whose history has grown past its bound.
#[derive(Debug, Default)]
pub(super) struct OvergrownTables {
    tables: Mutex<HashSet<TableIdent>>,
    wake: Arc<Notify>,
}

impl OvergrownTables {
    /// Notes the tables of these commits that have too many snapshots.
    pub(super) fn note(&self, writes: &[TableWrite]) {
        for write in writes.iter().filter(|write| retention::is_overgrown(&write.metadata)) {
            if self.add(&write.table) {
                self.wake.notify_one();
            }
        }
    }

    /// Whether it was not there.
    fn add(&self, table: &TableIdent) -> bool {
        let mut tables = self.lock();
        tables.len() < NOTED_MAX && tables.insert(table.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<TableIdent>> {
        // Whole names go in and out, so a panic elsewhere leaves nothing half done.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a table's history is looked through for what has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiryRequest {
    /// Whether an operator named the table: then Iceberg's default age holds for one of another engine.
    pub is_named: bool,
    /// Whether to change nothing.
    pub is_dry: bool,
}

/// What expired of a table, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryExpiry {
    /// How many snapshots.
    pub snapshots: usize,
    /// How many branches and tags.
    pub refs: usize,
    /// How many files nothing needs any more.
    pub files: usize,
    /// Why nothing of the table may go, where that is so.
    pub obstacle: Option<String>,
    /// Whether that is a value of a property which says nothing, and which nobody meant so.
    pub is_fault: bool,
}

impl HistoryExpiry {
    fn of(thinning: &SnapshotThinning) -> Self {
        let (snapshots, refs) = (thinning.removed.len(), thinning.refs.len());
        Self { snapshots, refs, files: thinning.files(), ..Self::default() }
    }

    /// Whether nothing goes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.snapshots == 0 && self.refs == 0
    }
}

/// Why snapshots go.
#[derive(Clone, Copy, Debug)]
enum RemovalCause {
    /// There are too many.
    Bound,
    /// They have expired.
    Expiry { is_named: bool },
    /// They have rows that are erased.
    Erasure,
}

/// What is to go of a table, and the state that this holds for.
struct ThinningPlan {
    base: LoadedTable,
    thinning: SnapshotThinning,
}

impl Upkeep<'_> {
    /// Takes at most so many of the tables whose history has grown past its bound by commits of
    /// this process. They are the caller's to thin: [`Upkeep::thin`] notes one that it could not.
    #[must_use]
    pub fn take_overgrown(self, limit: usize) -> Vec<TableIdent> {
        let mut tables = self.0.inner.overgrown.lock();
        let taken: Vec<TableIdent> = tables.iter().take(limit).cloned().collect();
        tables.retain(|table| !taken.contains(table));
        taken
    }

    /// Is notified when there is another one.
    #[must_use]
    pub fn overgrown_wake(self) -> Arc<Notify> {
        Arc::clone(&self.0.inner.overgrown.wake)
    }

    /// Removes old snapshots of one of the service's tables, and queues the files that only they
    /// need for deletion, in one commit; gives how many went. A table within its bounds, a gone one
    /// and another's stay as they are.
    ///
    /// # Errors
    /// [`CatalogError::CommitFailed`] when another process was faster; others as
    /// [`Catalog::commit`]. The table is noted again.
    pub async fn thin(self, table: &TableIdent) -> Result<usize, CatalogError> {
        let thinned = self.0.thin_once(table).await;
        if thinned.is_err() {
            self.0.inner.overgrown.add(table);
        }
        thinned
    }

    /// Removes the snapshots, branches and tags of a table that have expired, and queues the files that
    /// only they need for deletion, in one commit; gives what went. With very many files some stay for the
    /// next call. A gone table is as one of which nothing has expired. Nothing goes where the namespace is
    /// held right before the commit.
    ///
    /// # Errors
    /// [`CatalogError::CommitFailed`] when others changed the table again and again; others as
    /// [`Catalog::commit`].
    pub async fn expire(
        self,
        table: &TableIdent,
        request: ExpiryRequest,
    ) -> Result<HistoryExpiry, CatalogError> {
        self.0.expire_once(table, request).await
    }

    /// Removes every snapshot of a table up to this sequence number that no branch or tag is at and no
    /// client's lease holds, whatever its age, and queues the files that only they need for deletion, in
    /// one commit; gives what went. One stays on which a later one was made whose rows nobody summed up.
    /// With very many files some stay for the next call. The obstacle says what is left behind.
    ///
    /// # Errors
    /// As [`Upkeep::expire`].
    pub async fn forget_history(
        self,
        table: &TableIdent,
        until: i64,
    ) -> Result<HistoryExpiry, CatalogError> {
        self.0.forget_history_once(table, until).await
    }
}

impl Catalog {
    async fn thin_once(&self, table: &TableIdent) -> Result<usize, CatalogError> {
        let mut known = HistoryReads::default();
        for _ in 0..PLANS_MAX {
            let Some(plan) = self.plan_thinning(table, &mut known).await? else { return Ok(0) };
            if let Some(removed) =
                self.carry_out(table, plan, RemovalCause::Bound, &mut known).await?
            {
                return Ok(removed.snapshots);
            }
        }
        Err(lost_every_race(table))
    }

    async fn expire_once(
        &self,
        table: &TableIdent,
        ExpiryRequest { is_named, is_dry }: ExpiryRequest,
    ) -> Result<HistoryExpiry, CatalogError> {
        let mut known = HistoryReads::default();
        for _ in 0..PLANS_MAX {
            if let Some(held) = self.held(table).await? {
                return Ok(held);
            }
            let Some(base) = self.find(table).await? else { return Ok(HistoryExpiry::default()) };
            let refs = &self.encoded_parts(&base).refs;
            let leased = self.leased(&base).await?;
            let found = expired(&base.metadata, refs, &leased, self.now_ms(), is_named);
            let expired = match found {
                Ok(expired) => expired,
                Err(why) => {
                    let is_fault = expiry::has_fault(&base.metadata);
                    let obstacle = Some(why);
                    return Ok(HistoryExpiry { obstacle, is_fault, ..HistoryExpiry::default() });
                }
            };
            let (storage, metadata) = (&self.inner.storage, base.metadata.as_ref());
            let reader = HistoryReader { storage, base: metadata, known: &mut known };
            let Some(thinning) = expire(reader, expired).await? else {
                return Ok(HistoryExpiry::default());
            };
            if is_dry {
                return Ok(HistoryExpiry::of(&thinning));
            }
            let plan = ThinningPlan { base, thinning };
            let cause = RemovalCause::Expiry { is_named };
            if let Some(removed) = self.carry_out(table, plan, cause, &mut known).await? {
                if LONG_SNAPSHOTS <= removed.snapshots {
                    Box::pin(self.leave_long_file(table)).await?;
                }
                return Ok(removed);
            }
        }
        Err(lost_every_race(table))
    }

    /// Commits no change, so that the log of a table of ours does not name the metadata file any more from before
    /// many snapshots expired. It is long, and as the last one it would stay for as long as nobody writes to
    /// the table. Whoever does meanwhile moves the log on as well.
    async fn leave_long_file(&self, table: &TableIdent) -> Result<(), CatalogError> {
        let _table = self.inner.locks.lock(iter::once(table)).await;
        let Some(base) = self.find(table).await? else { return Ok(()) };
        let now_ms = self.now_ms().max(base.metadata.last_updated_ms().saturating_add(1));
        let since_ms = now_ms.saturating_sub(IN_FULL_MS);
        let last = base.metadata.metadata_log().last();
        let is_old = last.is_some_and(|last| last.timestamp_ms < since_ms);
        let is_ours = retention::is_managed(&base.metadata);
        if !is_old || !is_ours || !commit::versions::are_deleted(&base.metadata) {
            return Ok(());
        }
        let updates: [TableUpdate; 0] = [];
        let location = Some(base.metadata_location.as_str());
        let metadata = commit::apply_updates_at(&base.metadata, location, &updates, now_ms)?;
        let metadata = commit::versions::without_old_files(metadata, since_ms)?;
        let encoded = self.encoded_parts(&base).after(&updates, &metadata);
        let mut write = TableWrite::new(table.clone(), Some(base), metadata, now_ms);
        write.encoded = Some(Arc::new(encoded));
        write.changes = ChangeSet::making(&updates);
        let catalog = self.clone();
        self.to_the_end(async move { catalog.publish(&[write]).await }).await.map(|_| ())
    }

    /// That nothing of a table may go, where its namespace is held.
    async fn held(&self, table: &TableIdent) -> Result<Option<HistoryExpiry>, CatalogError> {
        let hold = self.metastore().hold_over(table.namespace.as_ref()).await?;
        let obstacle = hold.map(|hold| hold.obstacle());
        let held = |why| HistoryExpiry { obstacle: Some(why), ..HistoryExpiry::default() };
        Ok(obstacle.map(held))
    }

    async fn forget_history_once(
        &self,
        table: &TableIdent,
        until: i64,
    ) -> Result<HistoryExpiry, CatalogError> {
        let mut known = HistoryReads::default();
        for _ in 0..PLANS_MAX {
            let Some(base) = self.find(table).await? else { return Ok(HistoryExpiry::default()) };
            if let Some(why) = expiry::gc_obstacle(&base.metadata) {
                return Ok(HistoryExpiry { obstacle: Some(why), ..HistoryExpiry::default() });
            }
            let leased = self.leased(&base).await?;
            let encoded = self.encoded_parts(&base);
            let named = encoded.refs.values().map(|reference| reference.snapshot_id);
            let named = named.chain(base.metadata.current_snapshot_id());
            let named: HashSet<i64> = named.chain(compared_with(&base.metadata, until)).collect();
            let mut old: Vec<(i64, i64)> = base
                .metadata
                .snapshots()
                .map(|snapshot| (snapshot.sequence_number(), snapshot.snapshot_id()))
                .filter(|(number, id)| *number <= until && !named.contains(id) && !leased.has(*id))
                .collect();
            // Where not all go at once, the oldest do.
            old.sort_unstable();
            let snapshots = old.into_iter().map(|(_, id)| id).collect();
            let gone = ExpiredHistory { snapshots, ..ExpiredHistory::default() };
            let (storage, metadata) = (&self.inner.storage, base.metadata.as_ref());
            let reader = HistoryReader { storage, base: metadata, known: &mut known };
            let Some(thinning) = expire(reader, gone).await? else {
                return Ok(HistoryExpiry::default());
            };
            let damage = thinning.damage.as_ref().map(|damage| {
                format!("files of removed snapshots are left behind: {}", with_causes(damage))
            });
            let plan = ThinningPlan { base, thinning };
            let cause = RemovalCause::Erasure;
            if let Some(removed) = self.carry_out(table, plan, cause, &mut known).await? {
                return Ok(HistoryExpiry { obstacle: damage, ..removed });
            }
        }
        Err(lost_every_race(table))
    }

    /// Reads lists and manifests, which takes its time: others commit meanwhile.
    async fn plan_thinning(
        &self,
        table: &TableIdent,
        known: &mut HistoryReads,
    ) -> Result<Option<ThinningPlan>, CatalogError> {
        let Some(base) = self.find(table).await? else { return Ok(None) };
        let leased = self.leased(&base).await?;
        let storage = &self.inner.storage;
        let reader = HistoryReader { storage, base: base.metadata.as_ref(), known };
        let thinning = thin(reader, &leased, self.now_ms()).await?;
        Ok(thinning.map(|thinning| ThinningPlan { base, thinning }))
    }

    /// Removes the snapshots of a plan; none if it has to be made anew.
    async fn carry_out(
        &self,
        table: &TableIdent,
        mut plan: ThinningPlan,
        cause: RemovalCause,
        known: &mut HistoryReads,
    ) -> Result<Option<HistoryExpiry>, CatalogError> {
        // Each step looks at what came during the one before, so that little is left for the turn.
        for _ in 0..STEPS_MAX {
            let before = plan.base.metadata_location.clone();
            if !self.follow(table, &mut plan, cause, known).await? {
                return Ok(None);
            }
            if plan.base.metadata_location == before {
                break;
            }
        }
        let _table = self.inner.locks.lock(iter::once(table)).await;
        if !self.follow(table, &mut plan, cause, known).await? {
            return Ok(None);
        }
        if let RemovalCause::Expiry { .. } = cause
            && let Some(held) = self.held(table).await?
        {
            return Ok(Some(held));
        }
        let ThinningPlan { base, mut thinning } = plan;
        let (updates, removed) = (thinning.updates(&base.metadata), HistoryExpiry::of(&thinning));
        let now_ms = self.now_ms().max(base.metadata.last_updated_ms().saturating_add(1));
        let location = Some(base.metadata_location.as_str());
        let mut metadata = commit::apply_updates_at(&base.metadata, location, &updates, now_ms)?;
        if matches!(cause, RemovalCause::Expiry { .. }) && retention::is_managed(&metadata) {
            // They name the snapshots that go, and one of many snapshots is long.
            let since_ms = now_ms.saturating_sub(IN_FULL_MS);
            metadata = commit::versions::without_old_files(metadata, since_ms)?;
        }
        let encoded = self.encoded_parts(&base).after(&updates, &metadata);
        let damage = thinning.damage.take();
        let obsolete = thinning.obsolete(&base.metadata, self.now_ms());
        let mut write = TableWrite::new(table.clone(), Some(base), metadata, now_ms);
        write.encoded = Some(Arc::new(encoded));
        write.changes = ChangeSet::making(&updates);
        write.obsolete.extend(obsolete);
        // A job that loses its lease is dropped, and a commit is not.
        let catalog = self.clone();
        let published = self.to_the_end(async move { catalog.publish(&[write]).await });
        check_made(&published.await?, table)?;
        if let Some(damage) = damage {
            let error = &damage as &dyn std::error::Error;
            warn!(%table, error, "files of removed snapshots are left behind");
        }
        Ok(Some(removed))
    }

    /// Has a plan hold for the table as it is now; false if it does not.
    async fn follow(
        &self,
        table: &TableIdent,
        plan: &mut ThinningPlan,
        cause: RemovalCause,
        known: &mut HistoryReads,
    ) -> Result<bool, CatalogError> {
        let Some(now) = self.find(table).await? else { return Ok(false) };
        let leased = self.leased(&now).await?;
        if plan.thinning.removed.iter().any(|id| leased.has(*id)) {
            return Ok(false);
        }
        if now.metadata_location == plan.base.metadata_location {
            // The version may be another one: orphans that were queued leave the file as it is.
            plan.base = now;
            return Ok(true);
        }
        let refs = &self.encoded_parts(&now).refs;
        if let RemovalCause::Expiry { is_named } = cause
            && !still_expired(&plan.thinning, &now, (refs, &leased), (self.now_ms(), is_named))
        {
            return Ok(false);
        }
        let stay = refs.iter().filter(|(name, _)| !plan.thinning.refs.contains_key(*name));
        let named = stay.map(|(_, reference)| reference.snapshot_id).collect();
        let (storage, base) = (&self.inner.storage, now.metadata.as_ref());
        let reader = HistoryReader { storage, base, known };
        let holds = plan.thinning.follow(&plan.base.metadata, reader, &named).await?;
        plan.base = now;
        Ok(holds)
    }
}

/// The snapshots on which such were made after this sequence number whose rows nobody summed up: what these
/// did to the rows is found out by comparing the two.
fn compared_with(metadata: &TableMetadata, until: i64) -> impl Iterator<Item = i64> {
    let is_one = move |made: &&SnapshotRef| {
        until < made.sequence_number() && RecordedSums::of(made).basis == Some(made.snapshot_id())
    };
    metadata.snapshots().filter(is_one).filter_map(|made| made.parent_snapshot_id())
}

/// Whether what a plan takes has expired of the table as it is now, too.
fn still_expired(
    plan: &SnapshotThinning,
    now: &LoadedTable,
    (refs, leased): (&SnapshotRefs, &LeasedSnapshots),
    (now_ms, is_named): (i64, bool),
) -> bool {
    let expired = expired(&now.metadata, refs, leased, now_ms, is_named);
    let Ok(ExpiredHistory { snapshots, refs }) = expired else { return false };
    plan.refs.iter().all(|(name, found)| refs.get(name) == Some(found))
        && plan.removed.iter().all(|id| snapshots.binary_search(id).is_ok())
}
