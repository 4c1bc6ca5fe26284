//! Leases of the snapshots that clients got with a table.
//!
//! A client that loaded a table works on with the snapshot that was current then, for minutes or an
//! hour, and some fail when it, or one between it and the current one, is gone. A load writes that
//! down, if no load shortly before did for the same line of snapshots.
//!
//! Its one invariant: a load never fails for want of a lease, and waits for one at most
//! [`LEASE_WAIT_MAX`].

use super::{Catalog, LoadedTable, Upkeep};
use crate::{
    error::CatalogError,
    metadata_file::refs::SnapshotRefs,
    metastore::SnapshotLease,
    retention::lease::{LeasedIds, LeasedSnapshots},
};
use iceberg::{
    TableIdent,
    spec::{MAIN_BRANCH, TableMetadata},
};
use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
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

/// The leases of tables that this process wrote last.
#[derive(Debug, Default)]
pub(super) struct WrittenLeases(Mutex<HashMap<Uuid, WrittenLease>>);

/// The heads of a table that were leased together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct WrittenLease {
    at_ms: i64,
    heads: LoadedHeads,
}

/// What a load hands out as current.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LoadedHeads {
    /// The head of `main`, with its sequence number.
    main: Option<(i64, i64)>,
    /// Snapshots that other branches and tags are at.
    others: Vec<i64>,
}

impl LoadedHeads {
    fn of(metadata: &TableMetadata, refs: &SnapshotRefs) -> Self {
        let main = metadata.current_snapshot();
        let main = main.map(|head| (head.sequence_number(), head.snapshot_id()));
        let mut others: Vec<(i64, i64)> = refs
            .iter()
            .filter(|(name, _)| name.as_str() != MAIN_BRANCH)
            .filter_map(|(_, reference)| metadata.snapshot_by_id(reference.snapshot_id))
            .map(|snapshot| (snapshot.sequence_number(), snapshot.snapshot_id()))
            .collect();
        others.sort_unstable_by_key(|snapshot| Reverse(*snapshot));
        others.dedup();
        others.truncate(REFS_MAX);
        Self { main, others: others.into_iter().map(|(_, id)| id).collect() }
    }

    fn is_empty(&self) -> bool {
        self.main.is_none() && self.others.is_empty()
    }

    /// Whether leases of these heads hold for a load of `later` as well: what comes after the head of
    /// `main` stays with it.
    fn cover(&self, later: &Self) -> bool {
        let main = match (self.main, later.main) {
            (_, None) => true,
            (Some((held, _)), Some((number, _))) => held <= number,
            (None, Some(_)) => false,
        };
        main && later.others.iter().all(|id| self.others.contains(id))
    }
}

impl WrittenLeases {
    /// Whether the heads of a load are to be written; then they count as written from now on.
    fn claim(&self, table: Uuid, heads: &LoadedHeads, now_ms: i64, every_ms: i64) -> bool {
        let mut written = self.lock();
        if let Some(last) = written.get(&table) {
            let passed_ms = now_ms.saturating_sub(last.at_ms);
            let is_new = (0..WRITE_EVERY_MIN_MS.min(every_ms)).contains(&passed_ms);
            let holds = (0..every_ms).contains(&passed_ms) && last.heads.cover(heads);
            if is_new || holds {
                return false;
            }
        }
        if TABLES_MAX <= written.len() && !written.contains_key(&table) {
            written.clear();
        }
        written.insert(table, WrittenLease { at_ms: now_ms, heads: heads.clone() });
        true
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
    /// its tags, stay for the time of a lease, durable on return. Where that fails or takes too long,
    /// the log says so, and the next load tries again.
    pub(crate) async fn lease(&self, table: &LoadedTable) {
        let heads = LoadedHeads::of(&table.metadata, &self.encoded_parts(table).refs);
        let (uuid, now_ms) = (table.metadata.uuid(), self.now_ms());
        let lease_ms = self.inner.options.snapshot_lease_ms;
        let every_ms = (lease_ms / WRITES_PER_LEASE).max(WRITE_EVERY_MIN_MS);
        if lease_ms <= 0
            || heads.is_empty()
            || !self.inner.leases.claim(uuid, &heads, now_ms, every_ms)
        {
            return;
        }
        let until_ms = now_ms.saturating_add(lease_ms).saturating_add(every_ms);
        let main = heads.main.map(|(_, snapshot_id)| SnapshotLease {
            snapshot_id,
            until_ms,
            line_until_ms: until_ms,
        });
        let others = heads.others.into_iter().map(|snapshot_id| SnapshotLease {
            snapshot_id,
            until_ms,
            line_until_ms: 0,
        });
        let leases: Vec<SnapshotLease> = main.into_iter().chain(others).collect();
        let catalog = self.clone();
        // A client that goes away leaves no half of it.
        let written = self.to_the_end(async move {
            let written = catalog.metastore().lease_snapshots(uuid, &leases).await;
            if written.is_err() {
                catalog.inner.leases.forget(uuid);
            }
            written
        });
        match tokio::time::timeout(LEASE_WAIT_MAX, written).await {
            Ok(Ok(())) => (),
            Ok(Err(cause)) => {
                let error = &cause as &dyn std::error::Error;
                debug!(%uuid, error, "the snapshots of a load are not leased");
            }
            Err(_) => debug!(%uuid, "a load waits no longer for its lease"),
        }
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
}

impl Upkeep<'_> {
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
