//! Leases of the snapshots that clients got with a table.
//!
//! A client that loaded a table works on with the snapshot that was current then, for minutes or an
//! hour, and some fail when it, or one between it and the current one, is gone. A load writes that
//! down, if no load shortly before did for the same line of snapshots.
//!
//! Its one invariant: a load never fails for want of a lease, and waits for one at most
//! [`LEASE_WAIT_MAX`].

use super::{Catalog, LoadedTable, TableChange, Upkeep};
use crate::{
    ancestors, background, commit,
    error::CatalogError,
    metadata_file::refs::SnapshotRefs,
    metastore::SnapshotLease,
    retention::{
        self,
        lease::{LEASED_LINE_MAX, LeasedIds, LeasedSnapshots},
    },
};
use iceberg::{
    TableIdent, TableUpdate,
    spec::{Datum, MAIN_BRANCH, SnapshotRef, TableMetadata},
};
use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;
use tracing::debug;
use uuid::Uuid;

/// How long a snapshot stays for a client that loaded it, unless something else is set: as long as the
/// keys that clients get. In that time come 720 commits at the usual interval, and so many may stay.
pub const SNAPSHOT_LEASE_MS: i64 = 60 * 60 * 1000;
/// The leases of one table are written so often in the time of one, while clients load it again and
/// again. Each is longer by the time between two, so it is good for the loads in between.
const WRITES_PER_LEASE: i64 = 120;
/// Least time between two writes for one table.
const WRITE_EVERY_MIN_MS: i64 = 5_000;
/// Longest a load waits for its lease.
const LEASE_WAIT_MAX: Duration = Duration::from_secs(2);
/// Most branches and tags of a load that are leased beside `main`, those with the newest snapshots.
const REFS_MAX: usize = 20;
/// Most tables whose last lease is remembered. One that is forgotten is written once more.
const TABLES_MAX: usize = 10_000;
/// The last time that an error text gives, the end of the year 9999, ms since 1970.
const TOLD_MAX_MS: i64 = 253_402_300_799_999;

/// The leases of tables that this process wrote last.
#[derive(Debug, Default)]
pub(super) struct WrittenLeases(Mutex<HashMap<Uuid, WrittenLease>>);

/// The heads of a table that were leased together.
#[derive(Debug)]
struct WrittenLease {
    at_ms: i64,
    heads: LoadedHeads,
    durable: watch::Receiver<bool>,
}

/// Who writes the lease of a load.
#[derive(Debug)]
enum LeaseClaim {
    /// Another load does, or did; whether it is durable. Closed before that, it failed.
    Others(watch::Receiver<bool>),
    /// This one, which tells the others when it is durable.
    Own(watch::Sender<bool>),
}

/// What a load hands out as current.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LoadedHeads {
    /// The head of `main`.
    main: Option<i64>,
    /// Snapshots that other branches and tags are at.
    others: Vec<i64>,
}

impl LoadedHeads {
    fn of(metadata: &TableMetadata, refs: &SnapshotRefs) -> Self {
        let mut others: Vec<(i64, i64)> = refs
            .iter()
            .filter(|(name, _)| name.as_str() != MAIN_BRANCH)
            .filter_map(|(_, reference)| metadata.snapshot_by_id(reference.snapshot_id))
            .map(|snapshot| (snapshot.sequence_number(), snapshot.snapshot_id()))
            .collect();
        others.sort_unstable_by_key(|snapshot| Reverse(*snapshot));
        others.dedup();
        others.truncate(REFS_MAX);
        let main = metadata.current_snapshot_id();
        Self { main, others: others.into_iter().map(|(_, id)| id).collect() }
    }

    fn is_empty(&self) -> bool {
        self.main.is_none() && self.others.is_empty()
    }

    /// Whether leases of these heads hold for a load of `later` as well: what comes after the head of
    /// `main` stays with it. `descends` says whether the later `main` came from a snapshot.
    fn cover(&self, later: &Self, descends: impl Fn(i64) -> bool) -> bool {
        let main = match (self.main, later.main) {
            (_, None) => true,
            (Some(held), Some(_)) => descends(held),
            (None, Some(_)) => false,
        };
        main && later.others.iter().all(|id| self.others.contains(id))
    }

    /// The leases of these heads, in an order that is the same for everybody: servers that write some of
    /// the same rows wait for one another, and not in a circle.
    fn leases(&self, until_ms: i64) -> Vec<SnapshotLease> {
        let lease =
            |snapshot_id, line_until_ms| SnapshotLease { snapshot_id, until_ms, line_until_ms };
        let main = self.main.map(|id| lease(id, until_ms));
        let others = self.others.iter().filter(|id| self.main != Some(**id));
        let mut leases: Vec<SnapshotLease> =
            main.into_iter().chain(others.map(|id| lease(*id, 0))).collect();
        leases.sort_unstable_by_key(|lease| lease.snapshot_id);
        leases
    }
}

impl WrittenLeases {
    /// Who writes the heads of a load. Where it is this one, they count as written from now on.
    fn claim(
        &self,
        table: Uuid,
        heads: &LoadedHeads,
        descends: impl Fn(i64) -> bool,
        (now_ms, every_ms): (i64, i64),
    ) -> LeaseClaim {
        let mut written = self.lock();
        if let Some(last) = written.get(&table) {
            let passed_ms = now_ms.saturating_sub(last.at_ms);
            let is_new = (0..WRITE_EVERY_MIN_MS.min(every_ms)).contains(&passed_ms);
            if is_new || ((0..every_ms).contains(&passed_ms) && last.heads.cover(heads, descends)) {
                return LeaseClaim::Others(last.durable.clone());
            }
        }
        if TABLES_MAX <= written.len() && !written.contains_key(&table) {
            written.clear();
        }
        let (done, durable) = watch::channel(false);
        written.insert(table, WrittenLease { at_ms: now_ms, heads: heads.clone(), durable });
        LeaseClaim::Own(done)
    }

    /// The next load writes again.
    fn forget(&self, table: Uuid) {
        self.lock().remove(&table);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, WrittenLease>> {
        // Whole entries go in and out, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Catalog {
    /// Notes that a client gets this state of a table: the heads of its branches, and the snapshots of
    /// its tags, stay for the time of a lease, durable on return, whoever writes it. Where that fails or
    /// takes too long, the log says so, and the next load tries again.
    pub(crate) async fn lease(&self, table: &LoadedTable) {
        let metadata = table.metadata.as_ref();
        let heads = LoadedHeads::of(metadata, &self.encoded_parts(table).refs);
        let lease_ms = self.inner.options.snapshot_lease_ms;
        if lease_ms <= 0 || heads.is_empty() {
            return;
        }
        let (uuid, now_ms) = (metadata.uuid(), self.now_ms());
        let every_ms = (lease_ms / WRITES_PER_LEASE).max(WRITE_EVERY_MIN_MS);
        let descends = |held: i64| {
            let mut line = ancestors::of(metadata, heads.main).take(LEASED_LINE_MAX);
            line.any(|snapshot| snapshot.snapshot_id() == held)
        };
        let claim = self.inner.leases.claim(uuid, &heads, descends, (now_ms, every_ms));
        let mut durable = match claim {
            LeaseClaim::Others(durable) => durable,
            LeaseClaim::Own(done) => {
                let durable = done.subscribe();
                let until_ms = now_ms.saturating_add(lease_ms).saturating_add(every_ms);
                self.write_leases(uuid, heads.leases(until_ms), done);
                durable
            }
        };
        if *durable.borrow() {
            return;
        }
        let written = durable.wait_for(|is_durable| *is_durable);
        let is_late = tokio::time::timeout(LEASE_WAIT_MAX, written).await.is_err();
        if is_late {
            debug!(%uuid, "a load waits no longer for its lease");
        }
    }

    /// Writes leases, also where the client that they are for goes away meanwhile.
    fn write_leases(&self, uuid: Uuid, leases: Vec<SnapshotLease>, done: watch::Sender<bool>) {
        let catalog = self.clone();
        background::run("lease", async move {
            match catalog.metastore().lease_snapshots(uuid, &leases).await {
                Ok(()) => {
                    done.send_replace(true);
                }
                Err(cause) => {
                    catalog.inner.leases.forget(uuid);
                    let error = &cause as &dyn std::error::Error;
                    debug!(%uuid, error, "the snapshots of a load are not leased");
                }
            }
        });
    }

    /// The snapshots of a table that stay for its leases.
    pub(super) async fn leased(
        &self,
        table: &LoadedTable,
    ) -> Result<LeasedSnapshots, CatalogError> {
        let now_ms = self.now_ms();
        let leases = self.metastore().snapshot_leases(table.metadata.uuid(), now_ms).await?;
        Ok(LeasedSnapshots::of(&table.metadata, &ids(&leases, now_ms)))
    }

    /// Refuses a client's removal of snapshots that branches or tags are at, unless these go with the same commit,
    /// and of those of a table of the service that a lease or a legal hold keeps.
    /// Engines delete the files of the snapshots themselves as soon as the removal is committed, so only the
    /// refusal keeps them for readers. The load of the client itself leases the head and what comes after it,
    /// which it does not remove.
    pub(super) async fn check_removal(
        &self,
        change: &TableChange,
        base: &TableMetadata,
        refs: &SnapshotRefs,
    ) -> Result<(), CatalogError> {
        let removed: Vec<&SnapshotRef> =
            removed_ids(&change.updates).filter_map(|id| base.snapshot_by_id(id)).collect();
        if removed.is_empty() {
            return Ok(());
        }
        check_names_stay(change, base, refs)?;
        if !retention::is_managed(base) {
            return Ok(());
        }
        let table = &change.table;
        if let Some(hold) = self.metastore().hold_over(table.namespace.as_ref()).await? {
            let why = hold.obstacle();
            return Err(CatalogError::CommitFailed(format!(
                "Commit failed: {why}, so no snapshot of {table} is removed: remove the hold first"
            )));
        }
        let now_ms = self.now_ms();
        let leases = self.metastore().snapshot_leases(base.uuid(), now_ms).await?;
        let leased = LeasedSnapshots::of(base, &ids(&leases, now_ms));
        let held = removed.into_iter().filter(|snapshot| leased.has(snapshot.snapshot_id()));
        let held: Vec<&SnapshotRef> = held.collect();
        let Some(oldest) = held.iter().min_by_key(|snapshot| snapshot.timestamp_ms()) else {
            return Ok(());
        };
        // What comes after a leased snapshot has no lease of its own.
        let newest = held.iter().map(|snapshot| snapshot.sequence_number()).max();
        let holds = |lease: &&SnapshotLease| {
            let snapshot = base.snapshot_by_id(lease.snapshot_id);
            snapshot.is_some_and(|snapshot| Some(snapshot.sequence_number()) <= newest)
        };
        let until_ms = leases.iter().filter(holds).map(|lease| lease.until_ms).max();
        Err(CatalogError::CommitFailed(format!(
            "Commit failed: clients that loaded {table} work with snapshot {} and those after it, which are \
             leased until {}: expire only snapshots that are older than {}, or repeat it after the lease",
            oldest.snapshot_id(),
            told(until_ms.unwrap_or(now_ms)),
            told(oldest.timestamp_ms()),
        )))
    }
}

impl Upkeep<'_> {
    /// Leases a snapshot of a table for work of this process that reads it, for so long from now, durable on
    /// return. What came after it on `main` stays as well. A lease that ends later stays as it is.
    ///
    /// # Errors
    /// `Metastore`; `CommitStateUnknown`.
    pub async fn lease_snapshot(
        self,
        table: &LoadedTable,
        snapshot_id: i64,
        for_ms: i64,
    ) -> Result<(), CatalogError> {
        let until_ms = self.0.now_ms().saturating_add(for_ms);
        let lease = SnapshotLease { snapshot_id, until_ms, line_until_ms: until_ms };
        // Apart from the work, which may keep what is polled beside it waiting: all commits would wait for it.
        let (catalog, uuid) = (self.0.clone(), table.metadata.uuid());
        let write = async move { catalog.metastore().lease_snapshots(uuid, &[lease]).await };
        self.0.to_the_end(write).await
    }

    /// Until when leases hold snapshots of a table that are dated before `before_ms`, beside those that
    /// a branch or tag is at; none where they hold no such snapshot.
    ///
    /// # Errors
    /// `Metastore`; as [`super::Tables::load`].
    pub async fn leased_until(
        self,
        table: &TableIdent,
        before_ms: i64,
    ) -> Result<Option<i64>, CatalogError> {
        let Some(loaded) = self.0.find(table).await? else { return Ok(None) };
        let (now_ms, metadata) = (self.0.now_ms(), loaded.metadata.as_ref());
        let leases = self.0.metastore().snapshot_leases(metadata.uuid(), now_ms).await?;
        let is_old = |id: i64| {
            metadata.snapshot_by_id(id).is_some_and(|snapshot| snapshot.timestamp_ms() < before_ms)
        };
        let encoded = self.0.encoded_parts(&loaded);
        let named: HashSet<i64> = encoded
            .refs
            .values()
            .map(|reference| reference.snapshot_id)
            .chain(metadata.current_snapshot_id())
            .collect();
        let held = LeasedSnapshots::of(metadata, &ids(&leases, now_ms));
        if !held.ids().any(|id| is_old(id) && !named.contains(&id)) {
            return Ok(None);
        }
        let ends = leases.iter().filter(|lease| is_old(lease.snapshot_id));
        Ok(ends.map(|lease| lease.until_ms).max())
    }
}

/// Refuses to remove snapshots that branches or tags are at: as in the Java reference they would go as well,
/// and whoever reads by the name learns of it last. Java's own client refuses it before it commits.
fn check_names_stay(
    change: &TableChange,
    base: &TableMetadata,
    refs: &SnapshotRefs,
) -> Result<(), CatalogError> {
    // Where `main` of a table of the service may go is told by other rules: it is never removed.
    let is_told = |name: &str| name == MAIN_BRANCH && retention::is_managed(base);
    let lost = commit::lost_names(refs, &change.updates);
    let Some((name, reference)) = lost.into_iter().find(|(name, _)| !is_told(name)) else {
        return Ok(());
    };
    let kind = if reference.is_branch() { "branch" } else { "tag" };
    Err(CatalogError::CommitFailed(format!(
        "Commit failed: the {kind} `{name}` of {} is at snapshot {}, which is therefore not removed: leave \
         the snapshot out, or remove the {kind} first, in the same commit (`remove-snapshot-ref`)",
        change.table, reference.snapshot_id
    )))
}

/// The snapshots that updates remove.
fn removed_ids(updates: &[TableUpdate]) -> impl Iterator<Item = i64> {
    let removal = |update: &TableUpdate| match update {
        TableUpdate::RemoveSnapshots { snapshot_ids } => snapshot_ids.clone(),
        _ => Vec::new(),
    };
    updates.iter().flat_map(removal)
}

/// A time in ms since 1970, as an error text says it.
fn told(at_ms: i64) -> Datum {
    Datum::timestamptz_micros(at_ms.clamp(0, TOLD_MAX_MS) * 1_000)
}

/// The snapshots of leases that have not ended at `now_ms`.
fn ids(leases: &[SnapshotLease], now_ms: i64) -> LeasedIds {
    let mut ids = LeasedIds::default();
    for lease in leases {
        if now_ms < lease.line_until_ms {
            ids.main.insert(lease.snapshot_id);
        } else {
            ids.others.insert(lease.snapshot_id);
        }
    }
    ids
}

#[cfg(test)]
mod tests;
