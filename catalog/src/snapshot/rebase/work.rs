//! What a client's late snapshot does to the one it was built on, as far as it can be done to another.
//!
//! Its one invariant: what is found is all that the snapshot does. One that does more, such as taking
//! files out without saying so, or adding files under a number of their own, is not put on top of others.

use super::{LateCommit, conflict, manifest_reads};
use crate::{
    error::CatalogError,
    snapshot::{
        changes::{DeleteFile, FileKey, OnlyAdds},
        entries::FileEntry,
        manifests::{self, INHERITED},
        summary::SummaryFiles,
    },
    storage::Storage,
};
use iceberg::spec::{ManifestContentType, ManifestFile, Operation, Snapshot, TableMetadata};
use std::collections::{HashMap, HashSet};

/// Most manifests that a snapshot adds, and most that it leaves out.
const MANIFESTS_MAX: usize = 64;

/// What one snapshot of a client does.
#[derive(Debug, Default)]
pub(crate) struct ClientWork {
    /// Its manifests of files that it adds, to be numbered anew.
    pub(super) added: Vec<ManifestFile>,
    /// Delete files among them.
    pub(super) deletes: Vec<DeleteFile>,
    /// Files that it takes out, and whether they are data files.
    pub(super) removed: HashMap<String, bool>,
    /// Manifests that it leaves out.
    pub(super) dropped: HashSet<String>,
    /// The files that it adds, counted.
    pub(super) added_files: SummaryFiles,
    /// Those that it takes out.
    pub(super) removed_files: SummaryFiles,
}

/// The files of its base that a late commit takes out or deletes rows of.
#[derive(Debug, Default)]
pub(super) struct NamedFiles {
    paths: HashSet<String>,
    has_delete_files: bool,
}

impl NamedFiles {
    /// What a commit names.
    ///
    /// # Errors
    /// [`CatalogError::CommitFailed`] for a delete that does not name its one data file.
    pub(super) fn of(late: &LateCommit<'_>, works: &[ClientWork]) -> Result<Self, CatalogError> {
        let mut named = Self::default();
        for work in works {
            for delete in &work.deletes {
                let path = delete.about.clone().ok_or_else(|| {
                    let text =
                        format!("`{}` does not say which data file it applies to", delete.path);
                    conflict(late, &text)
                })?;
                named.paths.insert(path);
            }
            named.has_delete_files |= work.removed.values().any(|is_data| !is_data);
            named.paths.extend(work.removed.keys().cloned());
        }
        Ok(named)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.paths.contains(path)
    }

    /// The kinds of manifests that may have them.
    pub(super) fn contents(&self) -> impl Iterator<Item = ManifestContentType> {
        let deletes = self.has_delete_files.then_some(ManifestContentType::Deletes);
        [ManifestContentType::Data].into_iter().chain(deletes)
    }
}

impl ClientWork {
    /// That of a snapshot which only adds files; none when its manifests cannot be numbered anew.
    async fn adding(
        storage: &Storage,
        base: &TableMetadata,
        snapshot: &Snapshot,
        adds: &OnlyAdds,
    ) -> Option<Self> {
        let mut added = manifests::read_list(storage, base, snapshot).await.ok()?;
        // The others are those of its parent, in the place of which come those of the head.
        added.retain(|manifest| manifest.added_snapshot_id == snapshot.snapshot_id());
        let is_fit = added.iter().all(|manifest| is_fit(base, manifest));
        added.iter_mut().for_each(renumber);
        let (deletes, added_files) = (adds.deletes.clone(), adds.files);
        let work = Self { added, deletes, added_files, ..Self::default() };
        (is_fit && work.fits(&snapshot.summary().operation)).then_some(work)
    }

    /// That of a snapshot after one that lists `before`; none when it does more than can be done to
    /// another.
    async fn read(
        storage: &Storage,
        base: &TableMetadata,
        before: &[ManifestFile],
        snapshot: &Snapshot,
        listed: &[ManifestFile],
    ) -> Result<Option<Self>, CatalogError> {
        let own = &storage.normalize(base.location())?;
        let both = |these: &[ManifestFile], others: &[ManifestFile]| -> Vec<ManifestFile> {
            let kinds = [ManifestContentType::Data, ManifestContentType::Deletes];
            kinds
                .into_iter()
                .flat_map(|kind| manifest_reads::missing_from(these, others, kind))
                .collect()
        };
        let (new, dropped) = (both(listed, before), both(before, listed));
        let is_own = |manifest: &ManifestFile| {
            manifest.added_snapshot_id == snapshot.snapshot_id() && is_fit(base, manifest)
        };
        if MANIFESTS_MAX < new.len().max(dropped.len()) || !new.iter().all(is_own) {
            return Ok(None);
        }
        let mut work = Self::default();
        let (mut existing, mut gone) = (HashSet::new(), HashSet::new());
        for manifest in new {
            let found = manifest_reads::all_entries(storage, own, vec![manifest.clone()]).await?;
            let is_new = |entry: &FileEntry| entry.is_live() && entry.is_added();
            if !found.iter().any(|(entry, _)| is_new(entry)) {
                for (entry, _) in found {
                    let told = if entry.is_live() { &mut existing } else { &mut gone };
                    told.insert(FileKey::of(&entry.path));
                }
                // Others are written in its place. It stays on disk: only the client says that it is its own.
                continue;
            }
            for (entry, _) in found {
                let is_plain = is_new(&entry)
                    && entry.number.is_none()
                    && entry.snapshot_id.is_none_or(|by| by == snapshot.snapshot_id());
                if !is_plain {
                    return Ok(None);
                }
                work.added_files.add(&entry);
                if !entry.is_data() {
                    let about = entry.about().map(str::to_owned);
                    let spec_id = i64::from(manifest.partition_spec_id);
                    work.deletes.push(DeleteFile { path: entry.path, about, spec_id });
                }
            }
            work.added.push(manifest);
        }
        work.added.iter_mut().for_each(renumber);
        for (entry, manifest) in manifest_reads::live_entries(storage, own, dropped).await? {
            let key = FileKey::of(&entry.path);
            work.dropped.insert(manifest.manifest_path.clone());
            if existing.remove(&key) {
                continue;
            }
            // What it leaves out without a word it may not have known of.
            if !gone.contains(&key) {
                return Ok(None);
            }
            work.removed_files.add(&entry);
            work.removed.insert(entry.path.clone(), entry.is_data());
        }
        let is_whole = existing.is_empty() && work.fits(&snapshot.summary().operation);
        Ok(is_whole.then_some(work))
    }

    /// Whether it does what its operation says. One that replaces what a filter finds and found nothing
    /// may find something now.
    fn fits(&self, operation: &Operation) -> bool {
        (*operation == Operation::Append) == (self.deletes.is_empty() && self.removed.is_empty())
    }
}

/// What each snapshot of a commit does; none where one does more than can be done to another state.
/// `adds` is what is known of a commit of one snapshot.
///
/// # Errors
/// [`CatalogError::Storage`], [`CatalogError::Iceberg`] for what the commit or the table refers to.
pub(crate) async fn work_of(
    storage: &Storage,
    base: &TableMetadata,
    late: &LateCommit<'_>,
    adds: Option<&OnlyAdds>,
) -> Result<Option<Vec<ClientWork>>, CatalogError> {
    if let (Some(snapshot), Some(adds)) = (late.only(), adds) {
        let work = ClientWork::adding(storage, base, snapshot, adds).await;
        return Ok(work.map(|work| vec![work]));
    }
    let Some(parent) = late.parent().and_then(|parent| base.snapshot_by_id(parent)) else {
        return Ok(None);
    };
    let mut before = manifests::read_list(storage, base, parent).await?;
    let mut works = Vec::new();
    for snapshot in &late.snapshots {
        let listed = manifests::read_list(storage, base, snapshot).await?;
        match ClientWork::read(storage, base, &before, snapshot, &listed).await? {
            Some(work) => works.push(work),
            None => return Ok(None),
        }
        before = listed;
    }
    Ok(Some(works))
}

/// Whether a manifest can be part of another list.
fn is_fit(base: &TableMetadata, manifest: &ManifestFile) -> bool {
    manifest.key_metadata.is_none()
        && base.partition_spec_by_id(manifest.partition_spec_id).is_some()
}

/// The writer of the list fills in the number of the snapshot, which is the table's next.
fn renumber(manifest: &mut ManifestFile) {
    manifest.sequence_number = INHERITED;
    manifest.min_sequence_number = INHERITED;
}
