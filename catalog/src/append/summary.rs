//! The summary of an append: what it added, and the table's totals with it.

use super::Append;
use iceberg::spec::{DataFile, Summary};
use std::collections::{HashMap, HashSet};

/// How the new manifest list came about.
///
/// The counts tell a later thinning where manifests went out of use without reading every list.
#[derive(Clone, Copy, Debug)]
pub(super) struct ManifestCounts {
    /// Manifests written for this snapshot.
    pub(super) created: usize,
    /// Manifests taken over from the parent.
    pub(super) kept: usize,
    /// Manifests of the parent that a created one stands for.
    pub(super) replaced: usize,
}

/// Summary key of [`ManifestCounts::replaced`].
pub(super) const MANIFESTS_REPLACED: &str = "manifests-replaced";

/// The summary's entries but for `operation`: the append's own, then Iceberg's, which win.
pub(super) fn entries(
    parent: Option<&Summary>,
    append: &Append,
    manifests: ManifestCounts,
) -> HashMap<String, String> {
    let files = append.files.len() as u64;
    let records: u64 = append.files.iter().map(DataFile::record_count).sum();
    let bytes: u64 = append.files.iter().map(DataFile::file_size_in_bytes).sum();
    let partitions: HashSet<_> = append.files.iter().map(DataFile::partition).collect();
    let partitions = partitions.len() as u64;

    let mut entries: HashMap<String, String> =
        append.summary.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    for (key, value) in [
        ("added-data-files", files),
        ("added-records", records),
        ("added-files-size", bytes),
        ("changed-partition-count", partitions),
        ("manifests-created", manifests.created as u64),
        ("manifests-kept", manifests.kept as u64),
        (MANIFESTS_REPLACED, manifests.replaced as u64),
    ] {
        entries.insert(key.to_owned(), value.to_string());
    }
    for (key, added) in [
        ("total-data-files", files),
        ("total-records", records),
        ("total-files-size", bytes),
        ("total-delete-files", 0),
        ("total-position-deletes", 0),
        ("total-equality-deletes", 0),
    ] {
        match total(parent, key, added) {
            Some(total) => entries.insert(key.to_owned(), total.to_string()),
            None => entries.remove(key),
        };
    }
    entries
}

/// A total with what was added; none when the parent does not tell its own, since a guess would
/// be taken for a fact ever after.
pub(super) fn total(parent: Option<&Summary>, key: &str, added: u64) -> Option<u64> {
    let before = match parent {
        Some(parent) => parent.additional_properties.get(key)?.parse().ok()?,
        None => 0u64,
    };
    before.checked_add(added)
}
