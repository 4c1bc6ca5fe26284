//! The summary of a snapshot of ours: what it adds and removes, and the table's totals with it.

use super::entries::FileEntry;
use crate::commit::{LAST_SEQ, VALID_THROUGH};
use iceberg::spec::{DataContentType, DataFile, Operation, Summary};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Entries of what is added that are there even when it is nothing.
const DATA_ENTRIES: [&str; 3] = ["added-data-files", "added-records", "added-files-size"];

/// Entries of our own that a snapshot has from the one before it where no row comes with it: up to where
/// the table holds what was acknowledged.
const KEPT_WITHOUT_ROWS: [&str; 2] = [LAST_SEQ, VALID_THROUGH];

/// Summary key of how many manifests of the parent a new one stands for, or have no live file. It tells a later
/// thinning where manifests went out of use without reading every list.
pub(super) const MANIFESTS_REPLACED: &str = "manifests-replaced";

/// The total that says whether a table has any delete file.
const DELETE_FILES: &str = "total-delete-files";
/// Totals that are 0 without one, and left out then: each snapshot of a table has them, and every client that
/// loads it gets them all.
const DELETED_ROWS: [&str; 2] = ["total-position-deletes", "total-equality-deletes"];

/// How many files of each kind a snapshot adds and removes, with what is in them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SummaryCounts {
    partitions: usize,
    added: SummaryFiles,
    removed: SummaryFiles,
}

/// Files, and what is in them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SummaryFiles {
    data: u64,
    rows: u64,
    bytes: u64,
    deletes: u64,
    positions: u64,
    equalities: u64,
}

impl SummaryCounts {
    pub(super) fn of<'a>(
        added: impl Iterator<Item = &'a DataFile> + Clone,
        removed: impl Iterator<Item = &'a DataFile> + Clone,
    ) -> Self {
        let all = added.clone().chain(removed.clone());
        let partitions: HashSet<_> = all.map(DataFile::partition).collect();
        Self {
            partitions: partitions.len(),
            added: SummaryFiles::of(added),
            removed: SummaryFiles::of(removed),
        }
    }
}

impl SummaryFiles {
    fn of<'a>(files: impl Iterator<Item = &'a DataFile>) -> Self {
        let mut all = Self::default();
        for file in files {
            let rows = file.record_count();
            all.bytes += file.file_size_in_bytes();
            match file.content_type() {
                DataContentType::Data => {
                    all.data += 1;
                    all.rows += rows;
                }
                DataContentType::PositionDeletes => {
                    all.deletes += 1;
                    all.positions += rows;
                }
                DataContentType::EqualityDeletes => {
                    all.deletes += 1;
                    all.equalities += rows;
                }
            }
        }
        all
    }

    /// Counts one more file. A client may say of it what it likes, so the numbers end at the highest.
    pub(super) fn add(&mut self, file: &FileEntry) {
        self.bytes = self.bytes.saturating_add(file.bytes);
        if file.is_data() {
            self.data += 1;
            self.rows = self.rows.saturating_add(file.rows);
            return;
        }
        self.deletes += 1;
        let rows = match file.deletes_positions() {
            true => &mut self.positions,
            false => &mut self.equalities,
        };
        *rows = rows.saturating_add(file.rows);
    }

    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            data: self.data.saturating_add(other.data),
            rows: self.rows.saturating_add(other.rows),
            bytes: self.bytes.saturating_add(other.bytes),
            deletes: self.deletes.saturating_add(other.deletes),
            positions: self.positions.saturating_add(other.positions),
            equalities: self.equalities.saturating_add(other.equalities),
        }
    }

    /// The names of the entries for what is added, what is removed and what the table has then, each
    /// with the number.
    pub(super) fn named(self) -> [([&'static str; 3], u64); 6] {
        [
            (["added-data-files", "deleted-data-files", "total-data-files"], self.data),
            (["added-records", "deleted-records", "total-records"], self.rows),
            (["added-files-size", "removed-files-size", "total-files-size"], self.bytes),
            (["added-delete-files", "removed-delete-files", "total-delete-files"], self.deletes),
            (
                ["added-position-deletes", "removed-position-deletes", "total-position-deletes"],
                self.positions,
            ),
            (
                ["added-equality-deletes", "removed-equality-deletes", "total-equality-deletes"],
                self.equalities,
            ),
        ]
    }
}

/// The summary's entries but for `operation`: the writer's own, then Iceberg's, which win.
pub(super) fn entries(
    parent: Option<&Summary>,
    own: &BTreeMap<String, String>,
    files: &SummaryCounts,
    manifests_replaced: usize,
) -> HashMap<String, String> {
    let mut entries: HashMap<String, String> =
        own.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    for (key, value) in
        [("changed-partition-count", files.partitions), (MANIFESTS_REPLACED, manifests_replaced)]
    {
        entries.insert(key.to_owned(), value.to_string());
    }
    let removed = files.removed.named().map(|(_, removed)| removed);
    for (([adds, removes, sums], added), removed) in files.added.named().into_iter().zip(removed) {
        // What an append adds of data is told even when it is nothing.
        if 0 < added || DATA_ENTRIES.contains(&adds) {
            entries.insert(adds.to_owned(), added.to_string());
        }
        if 0 < removed {
            entries.insert(removes.to_owned(), removed.to_string());
        }
        let has_deletes = entries.get(DELETE_FILES).is_none_or(|count| count != "0");
        match total(parent, sums, added).and_then(|total| total.checked_sub(removed)) {
            // The totals of files come before those of rows.
            Some(0) if !has_deletes && DELETED_ROWS.contains(&sums) => entries.remove(sums),
            Some(total) => entries.insert(sums.to_owned(), total.to_string()),
            None => entries.remove(sums),
        };
    }
    entries
}

/// The writer's own entries; of all but an append also those of the parent that still hold.
pub(super) fn own(
    parent: Option<&Summary>,
    operation: &Operation,
    entries: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut own = entries.clone();
    if *operation != Operation::Append {
        for key in KEPT_WITHOUT_ROWS {
            let of_parent = parent.and_then(|parent| parent.additional_properties.get(key));
            if let Some(value) = of_parent {
                own.entry(key.to_owned()).or_insert_with(|| value.clone());
            }
        }
    }
    own
}

/// A total with what was added; none when the parent does not tell its own, since a guess would
/// be taken for a fact ever after.
pub(super) fn total(parent: Option<&Summary>, key: &str, added: u64) -> Option<u64> {
    let told = |parent: &Summary, key: &str| -> Option<u64> {
        parent.additional_properties.get(key)?.parse().ok()
    };
    let before = match parent {
        Some(parent) if DELETED_ROWS.contains(&key) => match told(parent, DELETE_FILES) {
            Some(0) => told(parent, key).unwrap_or(0),
            Some(_) | None => told(parent, key)?,
        },
        Some(parent) => told(parent, key)?,
        None => 0,
    };
    before.checked_add(added)
}
