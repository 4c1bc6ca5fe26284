//! What becomes of the files of a table, and why, for whoever asks.
//!
//! It is told of each partition once its groups are chosen, and decides nothing. Its one invariant: of the
//! partitions that it is told of each file counts once, as one that is merged or one that stays.

use crate::table::compaction::choice::{
    CompactionRules, FileGroup, GROUP_FILES_MAX, LiveFile, is_small,
};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

/// Why small files are merged.
pub const SMALL: &str =
    "small files of a partition become one, because each costs a reader a request";
/// Why files with deletes are written anew.
pub const DELETED: &str = "files with deleted rows are written anew without them";
/// Why files of days that are not over stay.
pub(super) const OPEN_DAY: &str =
    "files of days that are not over stay until then; run `compact` for them";
/// Why files of the hour that goes on stay.
pub(super) const OPEN_HOUR: &str =
    "files that were committed in this hour stay until it is over; run `compact` for them";
/// Why whole files stay.
pub(super) const LARGE: &str =
    "files are large enough: half of `compaction.file_bytes` or `compaction.file_rows`";
/// Why a file without others stays.
pub(super) const ALONE: &str = "the only small file of a partition has none to be merged with";
/// Why small files stay that the rule of sizes leaves, also where they are about equally large.
pub(super) const LONG: &str = "of the small files of a partition each is larger than all smaller ones \
    together: to merge them would write many rows anew for few requests less";
/// Why others stay for now.
pub(super) const LATER: &str =
    "a merged file would be too long with these too: the next step looks at them";
/// Most partitions that are described.
pub(super) const PARTITIONS_MAX: usize = 100;

/// How many files there are of each reason.
pub type ReasonCounts = BTreeMap<&'static str, u64>;

/// What becomes of the files of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChoiceReasons {
    /// Why files are merged.
    pub merged: ReasonCounts,
    /// Why files stay.
    pub kept: ReasonCounts,
    /// Partitions that change, some of them.
    changed: Vec<PartitionReasons>,
    /// Others.
    unchanged: Vec<PartitionReasons>,
    /// How many partitions there are.
    count: u64,
}

/// What becomes of the files of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionReasons {
    /// Which partition.
    pub name: Arc<str>,
    /// Its files that may be written anew.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are merged.
    pub merged: u64,
    /// Files in their place.
    pub groups: u64,
    /// Why files are merged, and why others stay.
    pub reasons: ReasonCounts,
}

impl ChoiceReasons {
    /// One file stays.
    pub(super) fn keep(&mut self, reason: &'static str) {
        *self.kept.entry(reason).or_default() += 1;
    }

    /// Of the files of a partition these are merged.
    pub(super) fn add(
        &mut self,
        files: &[&LiveFile],
        groups: &[FileGroup],
        rules: &CompactionRules,
    ) {
        let mut partition = PartitionReasons {
            name: files.first().map(|file| Arc::clone(&file.partition_name)).unwrap_or_default(),
            files: files.len() as u64,
            bytes: files.iter().map(|file| file.bytes).sum(),
            groups: groups.len() as u64,
            ..PartitionReasons::default()
        };
        for group in groups {
            let (reason, count) = (reason_of(group), group.files.len() as u64);
            partition.merged += count;
            for counts in [&mut partition.reasons, &mut self.merged] {
                *counts.entry(reason).or_default() += count;
            }
        }
        let locations = groups.iter().flat_map(|group| group.files.iter().map(String::as_str));
        let merged: HashSet<&str> = locations.collect();
        let left = files.iter().filter(|file| !merged.contains(file.location.as_str()));
        let small = left.clone().filter(|file| is_small(file, rules)).count();
        for file in left {
            let reason = match is_small(file, rules) {
                false => LARGE,
                true if small == 1 && merged.is_empty() => ALONE,
                true if is_next(file, groups, rules) => LATER,
                true => LONG,
            };
            *partition.reasons.entry(reason).or_default() += 1;
            self.keep(reason);
        }
        self.count += 1;
        let list = if groups.is_empty() { &mut self.unchanged } else { &mut self.changed };
        if list.len() < PARTITIONS_MAX {
            list.push(partition);
        }
    }

    /// Some partitions, those that change first, and how many there are beside them.
    #[must_use]
    pub fn into_partitions(self) -> (Vec<PartitionReasons>, u64) {
        let mut partitions = self.changed;
        partitions.extend(self.unchanged);
        partitions.truncate(PARTITIONS_MAX);
        let more = self.count - partitions.len() as u64;
        (partitions, more)
    }
}

fn reason_of(group: &FileGroup) -> &'static str {
    if group.is_for_deletes { DELETED } else { SMALL }
}

/// Whether a bound kept a file out of the group before it.
fn is_next(file: &LiveFile, groups: &[FileGroup], rules: &CompactionRules) -> bool {
    groups.iter().any(|group| {
        !group.is_for_deletes
            && (rules.file_bytes < group.bytes + file.bytes
                || rules.file_rows < group.rows + file.rows
                || GROUP_FILES_MAX <= group.files.len())
    })
}
