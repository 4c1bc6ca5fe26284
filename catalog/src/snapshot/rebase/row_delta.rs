//! Deletes of rows and removals of files that came too late: whether others changed the files they name.
//!
//! A position delete names a data file and rows of it, a copy-on-write names the files that it replaces.
//! Either holds on any later state that still has the file, and what it was decided on still stands as
//! long as nobody else deleted rows of the file: that is snapshot isolation, first committer wins. Its one
//! invariant: a commit passes only if every file it names is live and no delete since its base names one
//! of them or may.

use super::{
    LateCommit, conflict,
    manifest_reads::{live_entries, missing_from},
    work::{ClientWork, NamedFiles},
};
use crate::{error::CatalogError, location::Location, snapshot::manifests, storage::Storage};
use iceberg::spec::{ManifestContentType, ManifestFile, SnapshotRef, TableMetadata};
use std::collections::HashSet;

/// Checks that the head of a branch has not changed the files that a commit names which was built on an
/// earlier head.
pub(super) async fn check(
    storage: &Storage,
    base: &TableMetadata,
    late: &LateCommit<'_>,
    head: Option<&SnapshotRef>,
    works: &[ClientWork],
) -> Result<(), CatalogError> {
    // 1. What it names: each delete has to name its one data file.
    let named = NamedFiles::of(late, works)?;
    if named.is_empty() {
        return Ok(());
    }
    let parent = late.parent().and_then(|parent| base.snapshot_by_id(parent));
    let (Some(parent), Some(head)) = (parent, head) else {
        return Err(conflict(late, "the snapshot that it was built on is gone"));
    };
    let before = manifests::read_list(storage, base, parent).await?;
    let now = manifests::read_list(storage, base, head).await?;
    let since = parent.sequence_number();
    let own = &storage.normalize(base.location())?;
    // 2. Deletes that came since: in manifests that the base does not list, with a younger number than
    // the base. Entries that were carried over have their old one.
    let new = missing_from(&now, &before, ManifestContentType::Deletes);
    for (entry, manifest) in live_entries(storage, own, new).await? {
        if entry.number.unwrap_or(manifest.sequence_number) <= since {
            continue;
        }
        match entry.about() {
            Some(path) if named.has(path) => {
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
    // 3. Files that went since.
    match lost(storage, own, (&before, &now), &named).await?.into_iter().min() {
        Some(path) => Err(conflict(late, &format!("`{path}` was removed or rewritten since"))),
        None => Ok(()),
    }
}

/// The files among `named` that went between two lists: they are in manifests of the first that the second
/// does not have, and in none that only the second has. Manifests are merged and rewritten, with the files
/// of those that they stand for.
pub(super) async fn lost(
    storage: &Storage,
    own: &Location,
    (before, now): (&[ManifestFile], &[ManifestFile]),
    named: &NamedFiles,
) -> Result<HashSet<String>, CatalogError> {
    let mut lost = HashSet::new();
    for content in named.contents() {
        let gone = live_entries(storage, own, missing_from(before, now, content)).await?;
        let mut paths: HashSet<String> = gone.into_iter().map(|(entry, _)| entry.path).collect();
        paths.retain(|path| named.has(path));
        if paths.is_empty() {
            continue;
        }
        for (entry, _) in live_entries(storage, own, missing_from(now, before, content)).await? {
            paths.remove(&entry.path);
        }
        lost.extend(paths);
    }
    Ok(lost)
}
