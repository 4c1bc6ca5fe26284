//! Deletes of rows that came too late: whether others changed the data files they are about.
//!
//! A position delete names a data file and rows of it. It holds on any later state that still has
//! the file, and what it was decided on still stands as long as nobody else deleted rows of the file:
//! that is snapshot isolation, first committer wins. Its one invariant: a delete passes only if every
//! data file it names is live and no delete since its base names one of them or may.

use crate::{
    error::CatalogError,
    location::Location,
    snapshot::{
        changes::DeleteFile,
        entries::{self, FileEntry},
        manifests,
    },
    storage::Storage,
};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::{
    ErrorKind,
    spec::{ManifestContentType, ManifestFile, Snapshot, SnapshotRef, TableMetadata},
};
use std::collections::HashSet;

/// Manifests that are read at a time.
const READS_AT_ONCE: usize = 8;

/// Checks that the head of a branch has not changed what `deletes` of a snapshot that was built on an
/// earlier head are about.
pub(super) async fn check(
    storage: &Storage,
    base: &TableMetadata,
    late: &Snapshot,
    head: Option<&SnapshotRef>,
    deletes: &[DeleteFile],
) -> Result<(), CatalogError> {
    if deletes.is_empty() {
        return Ok(());
    }
    // 1. What the deletes are about: each has to name its one data file.
    let mut about = HashSet::new();
    for delete in deletes {
        let path = delete.about.as_deref().ok_or_else(|| {
            let text = format!("`{}` does not say which data file it applies to", delete.path);
            conflict(late, &text)
        })?;
        about.insert(path);
    }
    let parent = late.parent_snapshot_id().and_then(|parent| base.snapshot_by_id(parent));
    let (Some(parent), Some(head)) = (parent, head) else {
        return Err(conflict(late, "the snapshot that it deletes from is gone"));
    };
    let before = manifests::read_list(storage, base, parent).await?;
    let now = manifests::read_list(storage, base, head).await?;
    let since = parent.sequence_number();
    let own = &storage.normalize(base.location())?;
    let read = |manifests| live_entries(storage, own, manifests);
    // 2. Deletes that came since: in manifests that the base does not list, with a younger number than
    // the base. Entries that were carried over have their old one.
    let delete_files = read(missing_from(&now, &before, ManifestContentType::Deletes));
    for (entry, manifest) in delete_files.await? {
        if entry.number.unwrap_or(manifest.sequence_number) <= since {
            continue;
        }
        match entry.about() {
            Some(path) if about.contains(path) => {
                return Err(conflict(
                    late,
                    &format!("another commit deleted rows of `{path}` since"),
                ));
            }
            Some(_) => (),
            None => {
                let text = format!("`{}`, committed since, may delete the same rows", entry.path);
                return Err(conflict(late, &text));
            }
        }
    }
    // 3. Files that went since: in manifests of the base that are listed no more, unless a new one has
    // them.
    let gone = read(missing_from(&before, &now, ManifestContentType::Data)).await?;
    let mut lost: HashSet<&str> = gone.iter().map(|(entry, _)| entry.path.as_str()).collect();
    lost.retain(|path| about.contains(*path));
    if lost.is_empty() {
        return Ok(());
    }
    // Manifests are merged and rewritten, with the files of those that they stand for.
    for (entry, _) in read(missing_from(&now, &before, ManifestContentType::Data)).await? {
        lost.remove(entry.path.as_str());
    }
    match lost.into_iter().min() {
        Some(path) => Err(conflict(late, &format!("`{path}` was removed or rewritten since"))),
        None => Ok(()),
    }
}

fn conflict(late: &Snapshot, why: &str) -> CatalogError {
    CatalogError::CommitFailed(format!(
        "Commit failed: snapshot {} deletes rows, and {why}: read the table again and repeat",
        late.snapshot_id()
    ))
}

/// The manifests of a kind that are in one list and not in the other.
fn missing_from(
    these: &[ManifestFile],
    others: &[ManifestFile],
    content: ManifestContentType,
) -> Vec<ManifestFile> {
    let others: HashSet<&str> = others.iter().map(|other| other.manifest_path.as_str()).collect();
    let is_missing = |manifest: &&ManifestFile| {
        manifest.content == content && !others.contains(manifest.manifest_path.as_str())
    };
    these.iter().filter(is_missing).cloned().collect()
}

/// The live entries of manifests, each with its manifest.
async fn live_entries(
    storage: &Storage,
    own: &Location,
    manifests: Vec<ManifestFile>,
) -> Result<Vec<(FileEntry, ManifestFile)>, CatalogError> {
    let unreadable = |cause: String| CatalogError::Iceberg {
        operation: "read a manifest",
        source: iceberg::Error::new(ErrorKind::DataInvalid, cause),
    };
    let reads = manifests.into_iter().map(|manifest| async move {
        let bytes = storage.get(own.admit(&manifest.manifest_path)?.as_str()).await?;
        let live = entries::live(&bytes).map_err(unreadable)?;
        Ok(live.into_iter().map(|entry| (entry, manifest.clone())).collect::<Vec<_>>())
    });
    let read: Vec<Vec<_>> = stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
    Ok(read.into_iter().flatten().collect())
}
