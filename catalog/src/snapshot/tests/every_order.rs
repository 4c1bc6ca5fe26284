//! Every order of a few steps of those who work on one table: a writer, a compactor, a client that comes late,
//! an expirer and a cleaner. The states are searched breadth first, each of them once.
//!
//! What they do is done by the functions that commits run: [`build`], [`obsolete`], and [`rebase`], which takes
//! compaction back for the client. The cleaner deletes at once what a commit leaves to it, without the grace
//! that readers have.

mod state;

use super::*;
use crate::snapshot::{
    changes::{DeleteFile, OnlyAdds},
    obsolete, rebase,
};
use iceberg::{
    TableRequirement,
    spec::{MAIN_BRANCH, SnapshotRef},
};
use state::{
    ACTIONS, FileContents, PendingDelete, PendingRewrite, TableAction, TableState, drop_ref,
    set_ref,
};
use std::collections::BTreeSet;

/// Steps after the start; with `LARGE=1` there are more of them.
const DEPTH: usize = 5;
const LARGE_DEPTH: usize = 7;
const OTHER_BRANCH: &str = "other";
const TAG: &str = "kept";

/// The files of a snapshot as a reader finds them.
#[derive(Clone, Debug, Default)]
struct SnapshotFiles {
    /// The manifest list and the manifests.
    metadata: Vec<String>,
    /// The live data and delete files.
    live: Vec<String>,
}

/// Takes steps, and counts what became of them.
struct OrderSearch {
    storage: Storage,
    known: HashMap<String, SnapshotFiles>,
    taken: HashMap<&'static str, usize>,
}

impl OrderSearch {
    fn count(&mut self, what: &'static str) {
        *self.taken.entry(what).or_default() += 1;
    }

    async fn files(&mut self, state: &TableState, id: i64) -> SnapshotFiles {
        let snapshot = state.snapshot(id);
        let list = snapshot.manifest_list();
        if let Some(known) = self.known.get(list) {
            return known.clone();
        }
        let mut files = SnapshotFiles { metadata: vec![list.to_owned()], live: Vec::new() };
        let listed = manifests::read_list(&self.storage, &state.metadata, snapshot).await.unwrap();
        for manifest in listed {
            let read = manifest.load_manifest(&self.storage.file_io()).await.unwrap();
            let live = read.entries().iter().filter(|entry| entry.is_alive());
            files.live.extend(live.map(|entry| entry.file_path().to_owned()));
            files.metadata.push(manifest.manifest_path);
        }
        self.known.insert(list.to_owned(), files.clone());
        files
    }

    /// The state after a step; none where it cannot happen.
    async fn after(&mut self, before: &TableState, action: TableAction) -> Option<TableState> {
        let taken = before.trail.iter().filter(|taken| **taken == action).count();
        if action.times() <= taken {
            return None;
        }
        let mut state = before.clone();
        let is_possible = match action {
            TableAction::Append => self.append(&mut state).await,
            TableAction::BeginRewrite => self.begin_rewrite(&mut state).await,
            TableAction::EndRewrite => self.end_rewrite(&mut state).await,
            TableAction::BeginDelete => self.begin_delete(&mut state).await,
            TableAction::EndDelete => self.end_delete(&mut state).await,
            TableAction::Tag => {
                let tag = SnapshotRetention::Tag { max_ref_age_ms: None };
                state.apply(&[set_ref(TAG, state.head(), tag)]);
                true
            }
            TableAction::Untag => drop_ref(&mut state, TAG),
            TableAction::Fork => self.fork(&mut state).await,
            TableAction::DropBranch => drop_ref(&mut state, OTHER_BRANCH),
            TableAction::ExpireOne => {
                let removed = state.unnamed().into_iter().take(1).collect();
                self.expire(&mut state, removed).await
            }
            TableAction::ExpireAll => {
                let removed = state.unnamed();
                // One alone is the step above.
                1 < removed.len() && self.expire(&mut state, removed).await
            }
            TableAction::Clean => {
                let queued = std::mem::take(&mut state.queued);
                let is_any = !queued.is_empty();
                state.deleted.extend(queued);
                is_any
            }
        };
        state.trail.push(action);
        is_possible.then_some(state)
    }

    async fn built(
        &self,
        state: &TableState,
        new: &NewSnapshot,
    ) -> Result<BuiltSnapshot, CatalogError> {
        let (base, read) = (&state.metadata, ReadManifests::default());
        build(&self.storage, base, new, &read, state.now_ms).await
    }

    async fn append(&self, state: &mut TableState) -> bool {
        let mut rows = state.shown[&state.head()].clone();
        let (file, row) = state.new_rows();
        let new = NewSnapshot { added: vec![file], ..NewSnapshot::default() };
        let built = self.built(state, &new).await.unwrap();
        rows.push(row);
        rows.sort_unstable();
        state.apply(&built.updates);
        state.shown.insert(built.snapshot_id, rows);
        true
    }

    async fn fork(&self, state: &mut TableState) -> bool {
        let mut rows = state.shown[&state.head()].clone();
        let (file, row) = state.new_rows();
        let new = NewSnapshot { added: vec![file], ..NewSnapshot::default() };
        let built = self.built(state, &new).await.unwrap();
        rows.push(row);
        rows.sort_unstable();
        let mut updates = built.updates;
        updates.retain(|update| matches!(update, TableUpdate::AddSnapshot { .. }));
        let branch = SnapshotRetention::branch(None, None, None);
        updates.push(set_ref(OTHER_BRANCH, built.snapshot_id, branch));
        state.apply(&updates);
        state.shown.insert(built.snapshot_id, rows);
        true
    }

    async fn begin_rewrite(&mut self, state: &mut TableState) -> bool {
        let (read, live) = (state.head(), self.files(state, state.head()).await.live);
        if state.rewrite.is_some() || live.len() < 2 {
            return false;
        }
        let removed = live.iter().map(|path| state.files[path].0.clone()).collect();
        let rows = state.rows_of(&live).into_iter().map(|(row, _)| row).collect();
        state.rewrite = Some(PendingRewrite { read, removed, rows });
        true
    }

    async fn end_rewrite(&mut self, state: &mut TableState) -> bool {
        let Some(PendingRewrite { read, removed, rows }) = state.rewrite.take() else {
            return false;
        };
        let file = state.new_file(FileContents::Rows(rows));
        let (operation, read, added) = (Operation::Replace, Some(read), vec![file]);
        // As compaction has it.
        let summary = BTreeMap::from([(commit::COMPACTION.to_owned(), commit::MERGED.to_owned())]);
        let new =
            NewSnapshot { operation, read, added, removed, summary, ..NewSnapshot::default() };
        match self.built(state, &new).await {
            Ok(built) => {
                let rows = state.shown[&state.head()].clone();
                state.apply(&built.updates);
                state.shown.insert(built.snapshot_id, rows);
                self.count("rewritten");
            }
            Err(CatalogError::CommitFailed(_)) => self.count("rewrites refused"),
            Err(cause) => panic!("{:?}: {cause}", state.trail),
        }
        true
    }

    async fn begin_delete(&mut self, state: &mut TableState) -> bool {
        let (base, live) = (state.head(), self.files(state, state.head()).await.live);
        let Some((row, about)) = state.rows_of(&live).into_iter().next() else { return false };
        let delete = state.new_file(FileContents::Delete(about.clone(), row));
        let file = delete.file_path().to_owned();
        let (operation, deletes) = (Operation::Delete, vec![(0, delete)]);
        let new = NewSnapshot { operation, read: Some(base), deletes, ..NewSnapshot::default() };
        let built = self.built(state, &new).await.unwrap();
        let mut updates = built.updates;
        // What else is built is the service's to say.
        updates.retain(|update| {
            matches!(update, TableUpdate::AddSnapshot { .. } | TableUpdate::SetSnapshotRef { .. })
        });
        let id = built.snapshot_id;
        state.delete = Some(PendingDelete { base, id, updates, file, about, row });
        true
    }

    async fn end_delete(&mut self, state: &mut TableState) -> bool {
        let Some(delete) = state.delete.take() else { return false };
        let PendingDelete { base, id, updates, file, about, row } = delete;
        let number = updates.iter().find_map(|update| match update {
            TableUpdate::AddSnapshot { snapshot } => Some(snapshot.sequence_number()),
            _ => None,
        });
        let is_newest =
            state.head() == base && state.metadata.last_sequence_number() < number.unwrap();
        let taken = match is_newest {
            true => Some(updates),
            false => {
                let adds = DeleteFile { path: file, about: Some(about), spec_id: 0 };
                Box::pin(self.rebased(state, (base, &updates), adds)).await
            }
        };
        let Some(updates) = taken else {
            self.count("deletes refused");
            return true;
        };
        self.count(if is_newest { "deletes in time" } else { "deletes rebased" });
        let mut rows = state.shown[&state.head()].clone();
        // A compaction that is taken back comes before the client's own snapshot, and changes no row.
        for update in &updates {
            if let TableUpdate::AddSnapshot { snapshot } = update {
                state.shown.insert(snapshot.snapshot_id(), rows.clone());
            }
        }
        let at = rows.iter().position(|other| *other == row);
        rows.remove(at.unwrap_or_else(|| panic!("{:?}: row {row} is not there", state.trail)));
        state.apply(&updates);
        state.shown.insert(id, rows);
        true
    }

    /// What is applied for a commit that came too late; none if it is refused.
    async fn rebased(
        &mut self,
        state: &TableState,
        (base, updates): (i64, &[TableUpdate]),
        adds: DeleteFile,
    ) -> Option<Vec<TableUpdate>> {
        let requirement = TableRequirement::RefSnapshotIdMatch {
            r#ref: MAIN_BRANCH.to_owned(),
            snapshot_id: Some(base),
        };
        let late = rebase::late(&state.metadata, &[requirement], updates)?;
        let files = crate::snapshot::summary::SummaryFiles::default();
        let adds = OnlyAdds { deletes: vec![adds], files };
        let (storage, now_ms) = (&self.storage, state.now_ms);
        let works = rebase::work_of(storage, &state.metadata, &late, Some(&adds)).await;
        let works = works.unwrap()?;
        let refused = |cause: CatalogError| match cause {
            CatalogError::CommitFailed(_) => None,
            cause => panic!("{:?}: {cause}", state.trail),
        };
        let reverted = match rebase::revert(storage, &state.metadata, &late, &works, now_ms).await {
            Ok(reverted) => reverted,
            Err(cause) => return refused(cause),
        };
        let (base, mut updates) = match &reverted {
            Some(reverted) => (&reverted.metadata, reverted.updates.clone()),
            None => (&state.metadata, Vec::new()),
        };
        match rebase::rebase(storage, base, &late, &works, now_ms).await {
            Ok(rebased) => updates.extend(rebased.updates),
            Err(cause) => return refused(cause),
        }
        if reverted.is_some() {
            self.count("compactions taken back");
        }
        Some(updates)
    }

    async fn expire(&mut self, state: &mut TableState, removed: Vec<i64>) -> bool {
        if removed.is_empty() {
            return false;
        }
        let known = &mut HistoryReads::default();
        let history = obsolete::history(&state.metadata);
        let mut reader = HistoryReader { storage: &self.storage, base: &state.metadata, known };
        let files = obsolete::files(&mut reader, &removed, history).await.unwrap();
        assert!(files.damage.is_none(), "{:?}: {:?}", state.trail, files.damage);
        let mark = obsolete::mark(&state.metadata, history, &removed);
        let removal = TableUpdate::RemoveSnapshots { snapshot_ids: removed };
        let updates: Vec<TableUpdate> = mark.into_iter().chain([removal]).collect();
        if !files.content.is_empty() {
            self.count("data files queued");
        }
        state.queued.extend(files.metadata);
        state.queued.extend(files.content.into_values());
        state.apply(&updates);
        true
    }

    /// No retained snapshot has lost a row or a file, has a row twice, or names a file that is to go.
    async fn check(&mut self, state: &TableState) {
        let ids: Vec<i64> = state.metadata.snapshots().map(|it| it.snapshot_id()).collect();
        for id in ids {
            let files = self.files(state, id).await;
            for file in files.metadata.iter().chain(&files.live) {
                assert!(!state.deleted.contains(file), "{:?}: {file} is gone", state.trail);
                assert!(!state.queued.contains(file), "{:?}: {file} is to go", state.trail);
            }
            let rows = state.rows_of(&files.live).into_iter().map(|(row, _)| row);
            assert_eq!(rows.collect::<Vec<_>>(), state.shown[&id], "{:?}", state.trail);
        }
    }

    /// What tells a state from others, whatever its files and snapshots are called.
    async fn key(&mut self, state: &TableState) -> String {
        let mut snapshots: Vec<&SnapshotRef> = state.metadata.snapshots().collect();
        snapshots.sort_by_key(|snapshot| snapshot.sequence_number());
        let mut names: HashMap<String, usize> = HashMap::new();
        let mut parts = Vec::new();
        let mut name = |path: &str| {
            let next = names.len();
            *names.entry(path.to_owned()).or_insert(next)
        };
        for snapshot in snapshots {
            let files = self.files(state, snapshot.snapshot_id()).await;
            let parent = snapshot.parent_snapshot_id().map(|parent| name(&parent.to_string()));
            let id = name(&snapshot.snapshot_id().to_string());
            let metadata: Vec<usize> = files.metadata.iter().map(|file| name(file)).collect();
            let live: Vec<usize> = files.live.iter().map(|file| name(file)).collect();
            let rows = state.rows_of(&files.live);
            let rows: Vec<(u32, usize)> =
                rows.into_iter().map(|(row, file)| (row, name(&file))).collect();
            parts.push(format!("{parent:?} {id} {metadata:?} {live:?} {rows:?}"));
        }
        let refs = state.refs().into_iter().map(|(what, id)| (what, name(&id.to_string())));
        let refs: Vec<(String, usize)> = refs.collect();
        let rewrite = state.rewrite.as_ref().map(|rewrite| {
            let removed = rewrite.removed.iter().map(|file| name(file.file_path()));
            (removed.collect::<Vec<_>>(), name(&rewrite.read.to_string()))
        });
        let delete = state
            .delete
            .as_ref()
            .map(|delete| (name(&delete.base.to_string()), name(&delete.about), delete.row));
        let mut taken = state.trail.clone();
        taken.sort();
        let is_marked = state.metadata.properties().get(obsolete::FORKED);
        let waits = !state.queued.is_empty();
        format!("{parts:?} {refs:?} {rewrite:?} {delete:?} {taken:?} {is_marked:?} {waits}")
    }
}

#[tokio::test]
async fn no_order_of_steps_loses_or_doubles_a_row_or_deletes_a_file_in_use() {
    let table = Table::new(FormatVersion::V2, true);
    let (storage, metadata, now_ms) = (table.storage.clone(), table.metadata.clone(), table.now_ms);
    let (known, taken) = (HashMap::new(), HashMap::new());
    let mut search = OrderSearch { storage, known, taken };
    let mut start = TableState {
        metadata,
        now_ms,
        files: BTreeMap::new(),
        rows: 0,
        shown: BTreeMap::new(),
        rewrite: None,
        delete: None,
        queued: BTreeSet::new(),
        deleted: BTreeSet::new(),
        trail: Vec::new(),
    };
    let first = start.new_rows();
    let new = NewSnapshot { added: vec![first.0], ..NewSnapshot::default() };
    let built = search.built(&start, &new).await.unwrap();
    start.apply(&built.updates);
    start.shown.insert(built.snapshot_id, vec![first.1]);
    // A rewrite needs two files.
    search.append(&mut start).await;
    search.check(&start).await;

    let depth = if std::env::var_os("LARGE").is_some() { LARGE_DEPTH } else { DEPTH };
    let mut seen: HashSet<String> = HashSet::from([search.key(&start).await]);
    let mut states = vec![start];
    for left in (0..depth).rev() {
        let mut next = Vec::new();
        for state in &states {
            for action in ACTIONS {
                // What somebody begins at the very end changes nothing that is looked at.
                if left == 0 && action.is_beginning() {
                    continue;
                }
                let Some(after) = Box::pin(search.after(state, action)).await else { continue };
                search.check(&after).await;
                if 0 < left && seen.insert(search.key(&after).await) {
                    next.push(after);
                }
            }
        }
        states = next;
    }
    // Steps of which all were refused, or none, prove nothing.
    for what in [
        "rewritten",
        "rewrites refused",
        "deletes in time",
        "deletes rebased",
        "deletes refused",
        "compactions taken back",
        "data files queued",
    ] {
        assert!(search.taken.contains_key(what), "no {what} in {} states", seen.len());
    }
}
