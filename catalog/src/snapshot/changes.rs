//! What a snapshot does to the one it was built on, by its own manifests.

use super::{
    entries::{FileEntry, ListedManifest},
    summary::SummaryFiles,
};
use std::collections::{HashMap, HashSet};
use xxhash_rust::xxh3::xxh3_128;

/// Most manifests of a commit that is put on top of others.
const PLAIN_MANIFESTS_MAX: usize = 64;

/// Manifests and files that a snapshot takes over, adds and leaves out.
#[derive(Debug, Default)]
pub(crate) struct SnapshotChanges {
    /// Manifests of both.
    pub(crate) kept: Vec<ListedManifest>,
    /// Manifests of the parent that the snapshot leaves out.
    pub(crate) dropped: Vec<ListedManifest>,
    /// Manifests that the parent does not have.
    pub(crate) new: Vec<ListedManifest>,
    /// Live files of the new manifests that it does not add, each with its partition spec.
    pub(crate) existing: HashMap<FileKey, i64>,
    /// Files that the new manifests say it removes.
    pub(crate) removed: HashSet<FileKey>,
    /// Files that they say are removed, by whichever snapshot.
    gone: HashSet<FileKey>,
    /// Data files that it adds, each with its partition spec.
    pub(crate) added: HashMap<FileKey, i64>,
    /// Their rows.
    pub(crate) added_rows: u64,
    /// The data and delete files that it adds, counted.
    added_files: SummaryFiles,
    /// The paths of the data and delete files that it adds, and of its manifests once all are read. Of one
    /// that stands on no other's manifests all live files, since nothing else keeps them.
    pub(crate) added_paths: Vec<String>,
    /// Whether its parent has no manifests, or is not there.
    pub(crate) is_first: bool,
    /// The lowest sequence number that a data file comes with: what was read to make the file is of
    /// a snapshot of this number.
    pub(crate) made_at: Option<i64>,
    /// Delete files that it adds.
    pub(crate) deletes: Vec<DeleteFile>,
    /// Whether an entry does more than add a file under the number of the snapshot.
    does_more: bool,
}

/// A file's path in little room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileKey(u128);

impl FileKey {
    pub(crate) fn of(path: &str) -> Self {
        Self(xxh3_128(path.as_bytes()))
    }
}

/// A delete file that a commit adds.
#[derive(Clone, Debug)]
pub(crate) struct DeleteFile {
    pub(crate) path: String,
    /// The only data file it is about, where it says so.
    pub(crate) about: Option<String>,
    pub(crate) spec_id: i64,
}

/// What a commit adds that does nothing else.
#[derive(Clone, Debug)]
pub(crate) struct OnlyAdds {
    pub(crate) deletes: Vec<DeleteFile>,
    /// All files, counted.
    pub(super) files: SummaryFiles,
}

impl SnapshotChanges {
    /// None yet, of a snapshot that stands on another's manifests or on none.
    pub(crate) fn new(is_first: bool) -> Self {
        Self { is_first, ..Self::default() }
    }

    /// A snapshot's manifests beside its parent's.
    pub(crate) fn between(parent: &[ListedManifest], snapshot: &[ListedManifest]) -> Self {
        fn paths(list: &[ListedManifest]) -> HashSet<&str> {
            list.iter().map(|manifest| manifest.path.as_str()).collect()
        }
        let (before, now) = (paths(parent), paths(snapshot));
        let is_before = |manifest: &ListedManifest| before.contains(manifest.path.as_str());
        let (kept, new) = snapshot.iter().cloned().partition(is_before);
        let is_now = |manifest: &&ListedManifest| now.contains(manifest.path.as_str());
        let dropped = parent.iter().filter(|manifest| !is_now(manifest)).cloned().collect();
        Self { kept, dropped, new, is_first: parent.is_empty(), ..Self::default() }
    }

    /// Takes in an entry of a new manifest.
    pub(crate) fn take(&mut self, snapshot_id: i64, manifest: &ListedManifest, entry: FileEntry) {
        let is_own = manifest.added_by == snapshot_id;
        let key = FileKey::of(&entry.path);
        let is_plain = entry.number.is_none()
            && entry.snapshot_id.is_none_or(|by| by == snapshot_id)
            && entry.is_added();
        self.does_more |= !is_own || !is_plain;
        if !entry.is_live() {
            self.gone.insert(key);
            // Others' removals are history that a writer need not have left out.
            if is_own && entry.snapshot_id.is_none_or(|by| by == snapshot_id) {
                self.removed.insert(key);
            }
        } else if !is_own || !entry.is_added() {
            self.existing.insert(key, manifest.spec_id);
            if self.is_first {
                self.added_paths.push(entry.path);
            }
        } else if entry.is_data() {
            self.added_files.add(&entry);
            self.added.insert(key, manifest.spec_id);
            self.added_rows = self.added_rows.saturating_add(entry.rows);
            self.made_at = earlier(self.made_at, entry.number);
            self.added_paths.push(entry.path);
        } else {
            self.added_files.add(&entry);
            let about = entry.about().map(str::to_owned);
            self.added_paths.push(entry.path.clone());
            let (path, spec_id) = (entry.path, manifest.spec_id);
            self.deletes.push(DeleteFile { path, about, spec_id });
        }
    }

    /// Whether the new manifests say what becomes of a data file of a manifest that is left out.
    pub(crate) fn tells_of(&self, file: &FileKey) -> bool {
        self.existing.contains_key(file)
            || self.gone.contains(file)
            || self.added.contains_key(file)
    }

    /// Takes in what the entries of another new manifest came to.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.existing.extend(other.existing);
        self.removed.extend(other.removed);
        self.gone.extend(other.gone);
        self.added.extend(other.added);
        self.added_rows = self.added_rows.saturating_add(other.added_rows);
        self.added_files = self.added_files.and(other.added_files);
        self.made_at = earlier(self.made_at, other.made_at);
        self.added_paths.extend(other.added_paths);
        self.deletes.extend(other.deletes);
        self.does_more |= other.does_more;
    }

    /// What it adds; none when it does more than that, or adds too much to be put on top of others.
    pub(crate) fn only_adds(self) -> Option<OnlyAdds> {
        // A manifest that is left out takes its files out of the table.
        let is_plain =
            !self.does_more && self.dropped.is_empty() && self.new.len() <= PLAIN_MANIFESTS_MAX;
        is_plain.then_some(OnlyAdds { deletes: self.deletes, files: self.added_files })
    }
}

fn earlier(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
