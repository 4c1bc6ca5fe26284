//! Clients' commits that came too late, on the newest state of their table.
//!
//! Its one invariant: files that compaction had replaced become live again only if none of them waits for
//! its deletion, by the queue as it is once the state is known that the commit is built on. What is queued
//! for a table is queued by a commit to it, so a later one has this swap fail.

use super::{
    Catalog,
    commit_work::{ChangeContents, ExaminedChange},
    location_rules,
};
use crate::{
    commit,
    error::CatalogError,
    snapshot::rebase::{self, LateCommit, RebasedCommit, RevertedCompaction},
};
use iceberg::{
    TableUpdate,
    spec::{Snapshot, TableMetadata},
};
use std::collections::{HashMap, HashSet};
use tracing::info;

impl Catalog {
    /// The change on the table's newest state if it is one of files that came too late for the one
    /// it was built on; none when it needs no rebase. `held` says whether its requirements do.
    pub(super) async fn rebased(
        &self,
        base: &TableMetadata,
        ExaminedChange { change, contents, .. }: &ExaminedChange,
        held: Result<(), CatalogError>,
    ) -> Result<Option<RebasedCommit>, CatalogError> {
        let Some(late) = rebase::late(base, &change.requirements, &change.updates) else {
            return held.map(|()| None);
        };
        // The client's own manifests are checked before they become part of another list.
        location_rules::check(&self.inner.storage, base, &change.updates)?;
        self.check_contents(Some(base), base, &change.updates).await?;
        // The examination before the turn read them mostly.
        let unread;
        let contents = match (late.only(), contents) {
            (Some(snapshot), ChangeContents::Unread) => {
                unread = ChangeContents::of(self.changes_on(base, snapshot).await);
                &unread
            }
            (_, read) => read,
        };
        let adds = match contents {
            ChangeContents::OnlyAdds(adds) => Some(adds),
            ChangeContents::Unread | ChangeContents::DoesMore => None,
        };
        let storage = &self.inner.storage;
        let works = match rebase::work_of(storage, base, &late, adds).await {
            // What does not read cannot be put on top of anything: the commit is late, and no more.
            Err(cause) if cause.is_damage() => None,
            works => works?,
        };
        let Some(works) = works else { return held.map(|()| None) };
        let reverted = rebase::revert(storage, base, &late, &works, self.now_ms()).await?;
        let rebased = match &reverted {
            Some(reverted) => {
                let rebased = self.on_reverted(&late, &works, reverted).await;
                if rebased.is_err() {
                    self.discard(&reverted.written).await;
                }
                rebased?
            }
            None => rebase::rebase(storage, base, &late, &works, self.now_ms()).await?,
        };
        if let Some(reverted) = &reverted {
            let (table, files) = (&change.table, reverted.restored.len());
            info!(%table, files, "compaction is taken back for a commit that was built before it");
        }
        self.trust_all(base, &rebased.updates)?;
        Ok(Some(rebased))
    }

    /// A late commit on the state in which the files that it names are live again.
    async fn on_reverted(
        &self,
        late: &LateCommit<'_>,
        works: &[rebase::ClientWork],
        reverted: &RevertedCompaction,
    ) -> Result<RebasedCommit, CatalogError> {
        let (storage, base) = (&self.inner.storage, &reverted.metadata);
        let own = storage.normalize(base.location())?;
        let normal = |path: &String| Some(own.admit(path).ok()?.to_string());
        let files: Vec<String> = reverted.restored.iter().filter_map(normal).collect();
        if let Some(file) = self.metastore().first_obsolete(&files).await? {
            return Err(CatalogError::CommitFailed(format!(
                "Commit failed: files that it names were merged since, and `{file}` is about to be \
                 deleted: load the table again and repeat"
            )));
        }
        let mut rebased = rebase::rebase(storage, base, late, works, self.now_ms()).await?;
        rebased.updates.splice(0..0, reverted.updates.iter().cloned());
        rebased.written.extend_from_slice(&reverted.written);
        Ok(rebased)
    }

    /// The client's lists that nothing refers to any more, in their normal form: whoever looks for a file in
    /// the queue does so by that. One that is another snapshot's, whatever the client says, is not deleted.
    pub(super) fn replaced_lists(
        &self,
        base: &TableMetadata,
        rebased: &RebasedCommit,
    ) -> Vec<String> {
        let normal = |list: &str| Some(self.inner.storage.normalize(list).ok()?.to_string());
        let lists = base.snapshots().map(|snapshot| snapshot.manifest_list());
        let in_use: HashSet<String> = lists.filter_map(normal).collect();
        let replaced = rebased.replaced.iter().filter_map(|list| normal(list));
        replaced.filter(|list| !in_use.contains(list)).collect()
    }

    /// Notes that the snapshots of a rebased commit were made here of what was looked at.
    fn trust_all(&self, base: &TableMetadata, updates: &[TableUpdate]) -> Result<(), CatalogError> {
        let mut made: HashMap<i64, &Snapshot> = HashMap::new();
        for snapshot in commit::added(updates) {
            let parent = snapshot.parent_snapshot_id().and_then(|id| {
                let there = base.snapshot_by_id(id).map(AsRef::as_ref);
                made.get(&id).copied().or(there)
            });
            self.trust(base, snapshot, parent)?;
            made.insert(snapshot.snapshot_id(), snapshot);
        }
        Ok(())
    }
}
