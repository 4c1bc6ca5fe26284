//! The compactions since the base of a late commit that replaced files which it needs, by groups.
//!
//! A compaction merges files of one partition at a time, and has several groups in one snapshot. What
//! belongs together is told by the partitions of the files that its manifests add and remove. Where that
//! does not tell, all of its files are one group.

use super::TableHead;
use crate::{
    ancestors,
    commit::{COMPACTION, TAKEN_BACK},
    error::CatalogError,
    snapshot::{
        entries::FileEntry,
        manifests,
        rebase::{
            guard,
            manifest_reads::{all_entries, missing_from},
        },
    },
};
use iceberg::spec::{
    DataFile, ManifestContentType, ManifestFile, ManifestStatus, SnapshotRef, Struct,
};
use std::collections::{HashMap, HashSet};

/// Most compactions that are looked through for one commit.
const COMPACTIONS_MAX: usize = 64;

/// Files that were replaced together.
#[derive(Debug, Default)]
pub(super) struct CompactedGroup {
    /// Data files that were merged.
    pub(super) inputs: HashSet<String>,
    /// What was written in their place.
    pub(super) outputs: HashMap<String, DataFile>,
    /// Delete files that went with the inputs, each with the data file that it is about.
    pub(super) deletes: HashMap<String, String>,
    /// Delete files of the outputs that came with them: they have for their places what others had deleted of
    /// the inputs meanwhile.
    pub(super) carried: HashMap<String, DataFile>,
}

impl CompactedGroup {
    /// Where the outputs are.
    pub(super) fn output_paths(&self) -> impl Iterator<Item = &String> {
        self.outputs.keys()
    }

    fn is_needed(&self, needed: &HashSet<String>) -> bool {
        self.inputs.iter().chain(self.deletes.keys()).any(|path| needed.contains(path))
    }
}

/// A compaction with groups that are to be taken back.
#[derive(Debug)]
struct CompactionLists {
    number: i64,
    /// What its parent lists.
    before: Vec<ManifestFile>,
    /// What of that it does not.
    dropped: Vec<ManifestFile>,
}

/// What is to be taken back.
#[derive(Debug, Default)]
pub(super) struct CompactionHistory {
    pub(super) groups: Vec<CompactedGroup>,
    compactions: Vec<CompactionLists>,
}

impl CompactionHistory {
    /// The groups that replaced `lost` files, and those that replaced what these wrote, oldest first.
    pub(super) async fn needed(
        table: &TableHead<'_>,
        parent: &SnapshotRef,
        lost: &HashSet<String>,
    ) -> Result<Self, CatalogError> {
        let line = ancestors::of(table.base, Some(table.head.snapshot_id()));
        let mut compactions: Vec<&SnapshotRef> = line
            .take_while(|snapshot| snapshot.snapshot_id() != parent.snapshot_id())
            .filter(|snapshot| guard::is_compaction(snapshot))
            .collect();
        compactions.reverse();
        let (mut history, mut needed) = (Self::default(), lost.clone());
        if COMPACTIONS_MAX < compactions.len() {
            return Ok(history);
        }
        for compaction in compactions {
            let before = compaction.parent_snapshot_id();
            let Some(before) = before.and_then(|id| table.base.snapshot_by_id(id)) else {
                return Ok(Self::default());
            };
            let before = manifests::read_list(table.storage, table.base, before).await?;
            let listed = manifests::read_list(table.storage, table.base, compaction).await?;
            let kind = compaction.summary().additional_properties.get(COMPACTION);
            if kind.is_some_and(|kind| kind == TAKEN_BACK) {
                let own = own_manifests(compaction, &before, &listed, ManifestContentType::Data);
                let read = all_entries(table.storage, &table.own, own).await?;
                let (live, gone): (Vec<_>, Vec<_>) =
                    read.into_iter().map(|(entry, _)| entry).partition(FileEntry::is_live);
                let paths = |entries: Vec<FileEntry>| -> HashSet<String> {
                    entries.into_iter().map(|entry| entry.path).collect()
                };
                history.leave_out(paths(gone), &paths(live));
                continue;
            }
            let groups = ReadFiles::of(table, compaction, &before, &listed).await?.groups();
            let mut groups: Vec<CompactedGroup> =
                groups.into_iter().filter(|group| group.is_needed(&needed)).collect();
            if groups.is_empty() {
                continue;
            }
            needed.extend(groups.iter().flat_map(CompactedGroup::output_paths).cloned());
            history.groups.append(&mut groups);
            let kinds = [ManifestContentType::Data, ManifestContentType::Deletes];
            let dropped = kinds.into_iter().flat_map(|kind| missing_from(&before, &listed, kind));
            let (number, dropped) = (compaction.sequence_number(), dropped.collect());
            history.compactions.push(CompactionLists { number, before, dropped });
        }
        Ok(history)
    }

    /// The number of the first of them: no delete of what they wrote is older.
    pub(super) fn first_number(&self) -> i64 {
        self.compactions.iter().map(|compaction| compaction.number).min().unwrap_or_default()
    }

    /// What was listed before each of them.
    pub(super) fn lists(&self) -> impl Iterator<Item = &[ManifestFile]> {
        self.compactions.iter().map(|compaction| compaction.before.as_slice())
    }

    /// The manifests that have the files which they replaced.
    pub(super) fn dropped(&self) -> impl Iterator<Item = &ManifestFile> {
        self.compactions.iter().flat_map(|compaction| &compaction.dropped)
    }

    /// Leaves out what was taken back before: the groups with these outputs, and those that wrote what
    /// these had merged, unless that is `live` again.
    fn leave_out(&mut self, mut outputs: HashSet<String>, live: &HashSet<String>) {
        while !outputs.is_empty() {
            let is_back = |group: &mut CompactedGroup| {
                group.output_paths().any(|path| outputs.contains(path))
            };
            let back: Vec<CompactedGroup> = self.groups.extract_if(.., is_back).collect();
            let inputs = back.into_iter().flat_map(|group| group.inputs);
            outputs = inputs.filter(|path| !live.contains(path)).collect();
        }
    }
}

/// The manifests of a kind that came with a compaction.
fn own_manifests(
    compaction: &SnapshotRef,
    before: &[ManifestFile],
    listed: &[ManifestFile],
    content: ManifestContentType,
) -> Vec<ManifestFile> {
    let mut new = missing_from(listed, before, content);
    new.retain(|manifest| manifest.added_snapshot_id == compaction.snapshot_id());
    new
}

/// The partition of a file, with its spec.
type FilePartition = (i32, Struct);

/// The files that a compaction adds and removes.
#[derive(Debug, Default)]
struct ReadFiles {
    inputs: HashMap<String, FilePartition>,
    outputs: Vec<(FilePartition, DataFile)>,
    deletes: HashMap<String, String>,
    /// Delete files that came with it, each with the output that it is about.
    carried: Vec<(String, DataFile)>,
}

impl ReadFiles {
    /// By the manifests that came with it.
    async fn of(
        table: &TableHead<'_>,
        compaction: &SnapshotRef,
        before: &[ManifestFile],
        listed: &[ManifestFile],
    ) -> Result<Self, CatalogError> {
        let (storage, own, id) = (table.storage, &table.own, compaction.snapshot_id());
        let mut read = Self::default();
        let mut data = own_manifests(compaction, before, listed, ManifestContentType::Data);
        // Others are merged of what was there before.
        data.retain(|manifest| manifest.has_added_files() || manifest.has_deleted_files());
        for manifest in data {
            for entry in manifests::restore::all(storage, own, &manifest).await? {
                if entry.snapshot_id() != Some(id) {
                    continue;
                }
                let file = entry.data_file();
                let partition = (manifest.partition_spec_id, file.partition().clone());
                match entry.status() {
                    ManifestStatus::Added => read.outputs.push((partition, file.clone())),
                    ManifestStatus::Deleted => {
                        read.inputs.insert(file.file_path().to_owned(), partition);
                    }
                    ManifestStatus::Existing => (),
                }
            }
        }
        let deletes = own_manifests(compaction, before, listed, ManifestContentType::Deletes);
        for manifest in deletes.iter().filter(|manifest| manifest.has_added_files()) {
            for entry in manifests::restore::all(storage, own, manifest).await? {
                let is_new =
                    entry.status() == ManifestStatus::Added && entry.snapshot_id() == Some(id);
                let file = entry.data_file();
                if let Some(about) = file.referenced_data_file().filter(|_| is_new) {
                    read.carried.push((about, file.clone()));
                }
            }
        }
        for (entry, _) in all_entries(storage, own, deletes).await? {
            let is_removed = !entry.is_live() && entry.snapshot_id == Some(id);
            if let Some(about) = entry.about().filter(|_| is_removed) {
                read.deletes.insert(entry.path.clone(), about.to_owned());
            }
        }
        Ok(read)
    }

    /// The files of each partition, or all of them where a partition has only inputs or only outputs.
    fn groups(self) -> Vec<CompactedGroup> {
        let inputs: HashSet<&FilePartition> = self.inputs.values().collect();
        let outputs: HashSet<&FilePartition> =
            self.outputs.iter().map(|(partition, _)| partition).collect();
        let is_told = inputs == outputs;
        let mut groups: HashMap<Option<FilePartition>, CompactedGroup> = HashMap::new();
        let of = |partition: &FilePartition| is_told.then(|| partition.clone());
        for (path, partition) in &self.inputs {
            groups.entry(of(partition)).or_default().inputs.insert(path.clone());
        }
        for (partition, file) in &self.outputs {
            let files = &mut groups.entry(of(partition)).or_default().outputs;
            files.insert(file.file_path().to_owned(), file.clone());
        }
        for (delete, about) in &self.deletes {
            if let Some(partition) = self.inputs.get(about) {
                let deletes = &mut groups.entry(of(partition)).or_default().deletes;
                deletes.insert(delete.clone(), about.clone());
            }
        }
        for (about, delete) in self.carried {
            let mut outputs = self.outputs.iter();
            let output = outputs.find(|(_, file)| file.file_path() == about);
            if let Some((partition, _)) = output {
                let carried = &mut groups.entry(of(partition)).or_default().carried;
                carried.insert(delete.file_path().to_owned(), delete);
            }
        }
        groups.into_values().collect()
    }
}
