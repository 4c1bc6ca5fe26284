//! Takes compaction back where a late commit names files that it replaced.
//!
//! A compaction has the same rows in other files, so a commit that was built before it holds on the files
//! from before. These are on disk as long as the snapshots are retained that list them, and all snapshots
//! between the base of a late commit and the head are, or it would not be known to be late. So the groups
//! of files that the commit needs go back to what they were: their inputs are live again with their
//! snapshots and sequence numbers, their outputs are not. That is a snapshot of ours, of operation
//! `replace`, for whoever reads changes passes over it; the commit itself comes on top of it, in the same
//! swap.
//!
//! Its one invariant: every row is there as often as before. So all outputs are live, no input is, nobody
//! has deleted rows of an output by their place, which is another one in the inputs, and every delete file
//! that reached an input is there. Deletes by value need no more: they reach what has a lower number. What a
//! compaction itself says of places in its outputs goes with these: it stands for deletes of the inputs.

mod history;

use self::history::{CompactedGroup, CompactionHistory};
use super::{
    ClientWork, LateCommit, guard,
    manifest_reads::{live_entries, missing_from},
    row_delta,
    work::NamedFiles,
};
use crate::{
    ancestors, commit,
    error::CatalogError,
    location::Location,
    row_sum::{self, RowChange},
    snapshot::{self, changes::FileKey, entries::FileEntry, manifests, summary},
    storage::Storage,
};
use iceberg::{
    TableUpdate,
    spec::{
        DataFile, MAIN_BRANCH, ManifestContentType, ManifestEntry, ManifestFile, Operation,
        Snapshot, SnapshotRef, Summary, TableMetadata,
    },
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// Most files that one commit has live again.
const FILES_MAX: usize = 50_000;

/// A compaction that is taken back, written but not yet committed.
#[derive(Debug)]
pub(crate) struct RevertedCompaction {
    /// What to apply before the commit that needs it.
    pub(crate) updates: Vec<TableUpdate>,
    /// The table with that.
    pub(crate) metadata: TableMetadata,
    /// The files that were written.
    pub(crate) written: Vec<String>,
    /// The data and delete files that are live again.
    pub(crate) restored: Vec<String>,
}

/// Takes back what compaction did since a late commit was built to the files that the commit names; none
/// where compaction is not what they went by.
///
/// # Errors
/// [`CatalogError::CommitFailed`] says why the compaction of which file cannot be taken back;
/// [`CatalogError::Storage`], [`CatalogError::Iceberg`] for what the table itself refers to.
pub(crate) async fn revert(
    storage: &Storage,
    base: &TableMetadata,
    late: &LateCommit<'_>,
    works: &[ClientWork],
    now_ms: i64,
) -> Result<Option<RevertedCompaction>, CatalogError> {
    let parent = late.parent().and_then(|parent| base.snapshot_by_id(parent));
    let (Some(parent), Some(head)) = (parent, base.current_snapshot()) else { return Ok(None) };
    // Compaction works on `main` alone. Mostly there was none, and then nothing is read.
    let is_compacted = ancestors::of(base, Some(head.snapshot_id()))
        .take_while(|snapshot| snapshot.snapshot_id() != parent.snapshot_id())
        .any(guard::is_compaction);
    if late.branch != MAIN_BRANCH || !is_compacted {
        return Ok(None);
    }
    let named = NamedFiles::of(late, works)?;
    if named.is_empty() {
        return Ok(None);
    }
    let own = storage.normalize(base.location())?;
    let before = manifests::read_list(storage, base, parent).await?;
    let now = manifests::read_list(storage, base, head).await?;
    let lost = row_delta::lost(storage, &own, (&before, &now), &named).await?;
    if lost.is_empty() {
        return Ok(None);
    }
    let table = TableHead { storage, base, own, head, before, now };
    let history = CompactionHistory::needed(&table, parent, &lost).await?;
    let Some(mut plan) = RevertPlan::of(history, &lost) else { return Ok(None) };
    let holders = plan.check(&table).await?;
    plan.write(&table, &holders, now_ms).await.map(Some)
}

/// The table as a late commit finds it.
struct TableHead<'a> {
    storage: &'a Storage,
    base: &'a TableMetadata,
    own: Location,
    head: &'a SnapshotRef,
    /// What the base of the commit lists.
    before: Vec<ManifestFile>,
    /// What the head lists.
    now: Vec<ManifestFile>,
}

/// Which files come, and which go.
struct RevertPlan {
    history: CompactionHistory,
    /// Inputs to have live again: those that are no outputs of others.
    inputs: HashSet<String>,
    /// Delete files of these, to have live again.
    deletes: HashSet<String>,
    /// All outputs.
    outputs: HashSet<String>,
    /// Those of them that are to go: the others were inputs of a later compaction.
    live_outputs: HashMap<String, DataFile>,
    /// Delete files that compactions wrote for outputs, in the place of those of the inputs. All of them go.
    carried: HashMap<String, DataFile>,
}

impl RevertPlan {
    /// What to do for files that went; none where compaction is not what all of them went by.
    fn of(history: CompactionHistory, lost: &HashSet<String>) -> Option<Self> {
        let groups = &history.groups;
        let outputs: HashSet<String> =
            groups.iter().flat_map(CompactedGroup::output_paths).cloned().collect();
        let merged: HashSet<String> =
            groups.iter().flat_map(|group| &group.inputs).cloned().collect();
        let inputs: HashSet<String> = merged.difference(&outputs).cloned().collect();
        let carried: HashMap<String, DataFile> =
            groups.iter().flat_map(|group| group.carried.clone()).collect();
        let removed = groups.iter().flat_map(|group| group.deletes.keys());
        let deletes: HashSet<String> =
            removed.filter(|path| !carried.contains_key(*path)).cloned().collect();
        let live_outputs = groups
            .iter()
            .flat_map(|group| &group.outputs)
            .filter(|(path, _)| !merged.contains(path.as_str()))
            .map(|(path, file)| (path.clone(), file.clone()))
            .collect();
        let is_whole = lost.iter().all(|path| inputs.contains(path) || deletes.contains(path));
        is_whole.then_some(Self { history, inputs, deletes, outputs, live_outputs, carried })
    }

    /// Checks that the plan changes no row of the head; gives the manifests that have what compactions wrote.
    async fn check(&mut self, table: &TableHead<'_>) -> Result<HashSet<String>, CatalogError> {
        if FILES_MAX < self.inputs.len() + self.deletes.len() {
            return Err(self.conflict(&format!("it has more than {FILES_MAX} files")));
        }
        // By their places in an output: places in the inputs are others.
        let removed = self.history.groups.iter().flat_map(|group| &group.deletes);
        let mut of_others = removed.filter(|(delete, _)| !self.carried.contains_key(*delete));
        let of_output = of_others.find(|(_, about)| self.outputs.contains(about.as_str()));
        if let Some((delete, _)) = of_output {
            return Err(self.conflict(&format!("`{delete}` deleted rows of what it wrote")));
        }
        let mut holders = self.check_data(table).await?;
        let live = self.check_new_deletes(table, &mut holders).await?;
        self.check_old_deletes(table, &live).await?;
        let is_of_live = |file: &DataFile| {
            let about = file.referenced_data_file();
            about.is_some_and(|about| self.live_outputs.contains_key(&about))
        };
        let mut gone = self.carried.iter().filter(|(path, _)| !live.contains(*path));
        if let Some((path, _)) = gone.find(|(_, file)| is_of_live(file)) {
            return Err(self.conflict(&format!("`{path}`, which deleted rows of it, was removed")));
        }
        // Others went with outputs that were merged again.
        self.carried.retain(|path, _| live.contains(path));
        Ok(holders)
    }

    /// All outputs are live, and no input is.
    async fn check_data(&self, table: &TableHead<'_>) -> Result<HashSet<String>, CatalogError> {
        let (mut holders, mut found) = (HashSet::new(), HashSet::new());
        for (entry, manifest) in table.new_entries(ManifestContentType::Data).await? {
            if self.inputs.contains(&entry.path) {
                return Err(self.conflict(&format!("`{}` is live again already", entry.path)));
            }
            if self.live_outputs.contains_key(&entry.path) {
                holders.insert(manifest.manifest_path.clone());
                found.insert(entry.path);
            }
        }
        let missing = self.live_outputs.keys().filter(|path| !found.contains(*path)).min();
        match missing {
            Some(path) => {
                Err(self.conflict(&format!("`{path}`, which it wrote, was removed or rewritten")))
            }
            None => Ok(holders),
        }
    }

    /// Nobody deleted rows of an output by their place. Gives the delete files that are new since the base, and
    /// adds the manifests that have those of the compactions.
    async fn check_new_deletes(
        &self,
        table: &TableHead<'_>,
        holders: &mut HashSet<String>,
    ) -> Result<HashSet<String>, CatalogError> {
        let first = self.history.first_number();
        let mut live = HashSet::new();
        for (entry, manifest) in table.new_entries(ManifestContentType::Deletes).await? {
            if self.carried.contains_key(&entry.path) {
                holders.insert(manifest.manifest_path.clone());
                live.insert(entry.path);
                continue;
            }
            let is_since = first <= entry.number.unwrap_or(manifest.sequence_number);
            let may_delete = match entry.about() {
                Some(path) => self.outputs.contains(path),
                None => {
                    is_since
                        && entry.deletes_positions()
                        && self.outputs.iter().any(|path| entry.may_be_about(path))
                }
            };
            if may_delete {
                let why = format!("`{}` deletes rows of what it wrote", entry.path);
                return Err(self.conflict(&why));
            }
            if self.deletes.contains(&entry.path) {
                return Err(self.conflict(&format!("`{}` is live again already", entry.path)));
            }
            live.insert(entry.path);
        }
        Ok(live)
    }

    /// Whatever deleted rows of the inputs when they were merged still does, and no delete of an output went
    /// when that was merged again.
    async fn check_old_deletes(
        &self,
        table: &TableHead<'_>,
        live: &HashSet<String>,
    ) -> Result<(), CatalogError> {
        for listed in self.history.lists() {
            let gone = missing_from(listed, &table.now, ManifestContentType::Deletes);
            for (entry, _) in live_entries(table.storage, &table.own, gone).await? {
                // What a compaction wrote for an output says what others say of the inputs, which are there.
                let is_there = live.contains(&entry.path)
                    || self.deletes.contains(&entry.path)
                    || self.carried.contains_key(&entry.path);
                let is_merged =
                    |path: &str| self.inputs.contains(path) || self.outputs.contains(path);
                let may_reach = entry.about().is_none_or(is_merged);
                if !is_there && may_reach {
                    let why = format!("`{}`, which deleted rows of it, was removed", entry.path);
                    return Err(self.conflict(&why));
                }
            }
        }
        Ok(())
    }

    /// Writes the snapshot in which the inputs are live in the place of the outputs.
    async fn write(
        &self,
        table: &TableHead<'_>,
        holders: &HashSet<String>,
        now_ms: i64,
    ) -> Result<RevertedCompaction, CatalogError> {
        let restored = self.restored(table).await?;
        let (storage, base) = (table.storage, table.base);
        let id = snapshot::unused_id(base);
        let mut writer = manifests::SnapshotWriter::new(storage, base, id);
        let paths = restored.values().flatten().map(|entry| entry.file_path().to_owned()).collect();
        let made = match self.put(table, holders, restored, &mut writer, now_ms).await {
            Ok(snapshot) => snapshot::branch::onto(base, None, snapshot).and_then(|updates| {
                Ok((commit::apply_updates_at(base, None, &updates, now_ms)?, updates))
            }),
            Err(cause) => Err(cause),
        };
        let written = writer.into_written();
        match made {
            Ok((metadata, updates)) => {
                Ok(RevertedCompaction { updates, metadata, written, restored: paths })
            }
            Err(cause) => {
                snapshot::discard(storage, written).await;
                Err(cause)
            }
        }
    }

    /// The entries of the files to have live again, by the partition spec and kind of their manifests.
    async fn restored(&self, table: &TableHead<'_>) -> Result<RestoredEntries, CatalogError> {
        let (mut restored, mut found) = (RestoredEntries::new(), HashSet::new());
        let (mut rows, deletes) = (0u64, ManifestContentType::Deletes);
        for manifest in self.history.dropped() {
            let wanted = if manifest.content == deletes { &self.deletes } else { &self.inputs };
            let live = manifests::restore::live(table.storage, &table.own, manifest).await?;
            for entry in live {
                let path = entry.file_path();
                if !wanted.contains(path) || !found.insert(path.to_owned()) {
                    continue;
                }
                if manifest.content != deletes {
                    rows = rows.saturating_add(entry.record_count());
                }
                let key = (manifest.partition_spec_id, manifest.content == deletes);
                restored.entry(key).or_default().push(entry);
            }
        }
        let mut wanted = self.inputs.union(&self.deletes);
        if let Some(path) = wanted.find(|path| !found.contains(*path)) {
            return Err(self.conflict(&format!("`{path}` is in no manifest from before it")));
        }
        let written: u64 = self.live_outputs.values().map(DataFile::record_count).sum();
        if rows < written {
            return Err(self.conflict(&format!("it wrote {written} rows of {rows}")));
        }
        Ok(restored)
    }

    /// Writes manifests, list and summary.
    async fn put(
        &self,
        table: &TableHead<'_>,
        holders: &HashSet<String>,
        restored: RestoredEntries,
        writer: &mut manifests::SnapshotWriter<'_>,
        now_ms: i64,
    ) -> Result<Snapshot, CatalogError> {
        let (base, before) = (table.base, Some(table.head.summary()));
        let added: Vec<DataFile> =
            restored.values().flatten().map(|entry| entry.data_file().clone()).collect();
        let gone = self.live_outputs.keys().chain(self.carried.keys());
        let gone: HashSet<FileKey> = gone.map(|path| FileKey::of(path)).collect();
        let mut listed = Vec::new();
        for ((spec_id, is_of_deletes), entries) in restored {
            let content = match is_of_deletes {
                true => ManifestContentType::Deletes,
                false => ManifestContentType::Data,
            };
            let at = listed.len();
            listed.push(writer.restored(spec_id, content, entries, at).await?);
        }
        for (at, manifest) in table.now.iter().cloned().enumerate() {
            let manifest = match holders.contains(&manifest.manifest_path) {
                true => writer.without(manifest, None, &gone, at).await?,
                false => manifest,
            };
            listed.push(manifest);
        }
        writer.list(listed.into_iter(), Some(table.head.snapshot_id())).await?;
        let operation = Operation::Replace;
        let own = [(commit::COMPACTION.to_owned(), commit::TAKEN_BACK.to_owned())];
        let mut own = summary::own(before, &operation, &BTreeMap::from(own));
        // The table has the same rows, so their sum goes on.
        let sums =
            row_sum::entries(Some(table.head.as_ref()), &operation, Some(RowChange::default()));
        own.extend(sums.into_iter().map(|(key, value)| (key.to_owned(), value)));
        let removed = self.live_outputs.values().chain(self.carried.values());
        let files = summary::SummaryCounts::of(added.iter(), removed);
        Ok(Snapshot::builder()
            .with_snapshot_id(writer.snapshot_id())
            .with_parent_snapshot_id(Some(table.head.snapshot_id()))
            .with_sequence_number(base.next_sequence_number())
            .with_timestamp_ms(snapshot::timestamp_ms(base, now_ms))
            .with_manifest_list(writer.list_location())
            .with_summary(Summary {
                operation,
                additional_properties: summary::entries(before, &own, &files, holders.len()),
            })
            .with_schema_id(base.current_schema_id())
            .build())
    }

    fn conflict(&self, why: &str) -> CatalogError {
        let path = self.inputs.iter().min().map_or("a file", String::as_str);
        CatalogError::CommitFailed(format!(
            "Commit failed: `{path}` was merged with others since it was read, and the merge cannot be \
             taken back, because {why}: load the table again and repeat"
        ))
    }
}

/// Entries by the partition spec of their manifests, and whether these are of delete files.
type RestoredEntries = BTreeMap<(i32, bool), Vec<ManifestEntry>>;

impl TableHead<'_> {
    /// The live entries of manifests of a kind that are new since the base of the commit.
    async fn new_entries(
        &self,
        content: ManifestContentType,
    ) -> Result<Vec<(FileEntry, Arc<ManifestFile>)>, CatalogError> {
        let new = missing_from(&self.now, &self.before, content);
        live_entries(self.storage, &self.own, new).await
    }
}
