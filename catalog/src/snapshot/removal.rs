//! The files that a snapshot of ours takes out: whether they are still live, and the manifests that are
//! written anew without them.
//!
//! Its one invariant: a snapshot is refused if a file that it takes out is not live any more, or may
//! have had rows deleted since it was read; data files that others added stay.
//!
//! A manifest never changes, so what was found in one for a head of `main` holds for every later head
//! that still lists it, and so does what was written in its place. That is why a removal is examined
//! before its turn, while others commit: in its turn only manifests that came since are read and written
//! anew.

use super::{
    NewSnapshot, branch,
    changes::FileKey,
    entries::{self, FileEntry},
    manifests::{self, SnapshotWriter},
    obsolete::{self, SnapshotHistory},
    unused_id,
};
use crate::{ancestors, error::CatalogError, storage::Storage, usage};
use bytes::Bytes;
use futures::{StreamExt, stream};
use iceberg::{
    ErrorKind,
    spec::{
        DataContentType, DataFile, ManifestContentType, ManifestFile, Operation, TableMetadata,
    },
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Manifests that are looked through at a time.
const READS_AT_ONCE: usize = 4;
/// Most bytes of manifests to write anew that are kept from the examination until the turn comes;
/// others are read once more.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// About the most files that one manifest lists as deleted, where several manifests become one.
const SPENT_FILES_MAX: u64 = 10_000;

/// What was found in manifests for one snapshot, by their paths, and what was written for it.
#[derive(Clone, Debug, Default)]
pub struct ReadManifests {
    /// The id that the snapshot gets, which what is written before its turn has.
    pub(super) snapshot_id: Option<i64>,
    /// Manifests that were written anew, by the paths of those that they stand for.
    rewritten: HashMap<String, ManifestFile>,
    /// Those that were written for several manifests.
    spent: Vec<SpentManifests>,
    /// All files that were written, to delete when the snapshot is definitely not made.
    pub(crate) written: Vec<String>,
    /// The files among those that it is about which are live in the manifest.
    live: HashMap<String, HashSet<FileKey>>,
    /// Manifests of deletes that delete nothing of what it takes out.
    without_deletes: HashSet<String>,
    /// Manifests to write anew.
    bytes: HashMap<String, Bytes>,
    kept_bytes: usize,
}

/// Manifests of which no file stays live, and the one that has their files as deleted.
#[derive(Clone, Debug)]
struct SpentManifests {
    sources: Vec<String>,
    manifest: ManifestFile,
}

impl ReadManifests {
    /// Whether one was written for the manifest at `path`.
    fn is_rewritten(&self, path: &str) -> bool {
        let of_spent = || self.spent.iter().flat_map(|spent| &spent.sources);
        self.rewritten.contains_key(path) || of_spent().any(|source| source == path)
    }

    /// The bytes of a manifest, if they were kept.
    fn take(&mut self, path: &str) -> Option<Bytes> {
        let bytes = self.bytes.remove(path)?;
        self.kept_bytes -= bytes.len();
        Some(bytes)
    }

    fn keep(&mut self, path: &str, bytes: Bytes) {
        if self.kept_bytes + bytes.len() <= KEPT_BYTES_MAX {
            self.kept_bytes += bytes.len();
            self.bytes.insert(path.to_owned(), bytes);
        }
    }
}

/// Reads what [`super::build`] needs of the manifests of `base`, for a snapshot whose turn has not come,
/// and writes those anew that have files to take out; tells whether there were any. On a later state it
/// goes on from what was found before.
///
/// # Errors
/// As [`super::build`]: what is not live in one head is in a later one only where compaction was taken back.
pub async fn examine(
    storage: &Storage,
    base: &TableMetadata,
    new: &NewSnapshot,
    read: &mut ReadManifests,
) -> Result<bool, CatalogError> {
    let seen = branch::seen(base, new)?;
    let (Some(head), false) = (seen.current_snapshot(), new.operation == Operation::Append) else {
        return Ok(false);
    };
    let listed = manifests::read_list(storage, &seen, head).await?;
    check(storage, &seen, &listed, new, read).await?;
    let id = *read.snapshot_id.get_or_insert_with(|| unused_id(base));
    let mut writer = SnapshotWriter::new(storage, &seen, id);
    let made = rewrite_before(&mut writer, listed, new, read).await;
    let written = writer.into_written();
    read.written.extend_from_slice(&written);
    made?;
    let names: Vec<&str> = written.iter().map(String::as_str).collect();
    storage.sync_names(&names).await?;
    Ok(!written.is_empty())
}

/// Writes the manifests anew that have files to take out and were not written before.
async fn rewrite_before(
    writer: &mut SnapshotWriter<'_>,
    mut listed: Vec<ManifestFile>,
    new: &NewSnapshot,
    read: &mut ReadManifests,
) -> Result<(), CatalogError> {
    listed.retain(|manifest| !read.is_rewritten(&manifest.manifest_path));
    let removed: HashSet<FileKey> = keys(&new.removed).collect();
    // Those of which nothing stays, by what one manifest can list.
    let mut spent = BTreeMap::new();
    let mut spent_files = 0;
    for (at, manifest) in listed.into_iter().enumerate() {
        let path = manifest.manifest_path.clone();
        let gone = read.live.get(&path).map_or(0, |live| live.intersection(&removed).count());
        if gone == 0 {
            continue;
        }
        let bytes = read.take(&path);
        if live_files(&manifest) == Some(gone as u64) && writer.joins_deleted() {
            let is_data = manifest.content == ManifestContentType::Data;
            let part = spent_files / SPENT_FILES_MAX;
            spent_files += gone as u64;
            let place = (manifest.partition_spec_id, is_data, part);
            spent.entry(place).or_insert_with(Vec::new).push((manifest, bytes));
            continue;
        }
        let rewritten = writer.without(manifest, bytes, &removed, at).await?;
        read.rewritten.insert(path, rewritten);
    }
    for (at, group) in spent.into_values().enumerate() {
        let sources = group.iter().map(|(manifest, _)| manifest.manifest_path.clone()).collect();
        let joined = writer.deleted(group, at).await?;
        read.spent.extend(joined.map(|manifest| SpentManifests { sources, manifest }));
    }
    Ok(())
}

/// How many live files a manifest has, where its list says so.
fn live_files(manifest: &ManifestFile) -> Option<u64> {
    let counts = manifest.added_files_count.zip(manifest.existing_files_count);
    counts.map(|(added, existing)| u64::from(added) + u64::from(existing))
}

/// Refuses to take out what is not live, or has deletes that were not read; gives the sequence number
/// that added files have, where it is not that of their snapshot.
pub(super) async fn check(
    storage: &Storage,
    base: &TableMetadata,
    listed: &[ManifestFile],
    new: &NewSnapshot,
    read: &mut ReadManifests,
) -> Result<Option<i64>, CatalogError> {
    if new.operation == Operation::Append {
        return Ok(None);
    }
    let number = number_of(base, new.read.unwrap_or_default())?;
    let known = match new.deletes_read {
        Some(id) => number_of(base, id)?.max(number),
        None => number,
    };
    check_deletes_since(storage, listed, known, new, read).await?;
    check_live(storage, listed, new, read).await?;
    Ok((new.operation == Operation::Replace).then_some(number))
}

/// The number of a snapshot that was read for a new one, and is of its line.
fn number_of(base: &TableMetadata, id: i64) -> Result<i64, CatalogError> {
    let Some(snapshot) = base.snapshot_by_id(id) else {
        return Err(conflict(&format!("snapshot {id}, which was read for it, is gone")));
    };
    // Deletes of a line that was left would be carried out for good. In a history of one line thinning may
    // have taken a snapshot between it and the head.
    if obsolete::history(base) != SnapshotHistory::OneLine
        && !ancestors::is_ancestor(base, id, base.current_snapshot_id())
    {
        return Err(conflict(&format!("snapshot {id}, which was read for it, is on another line")));
    }
    Ok(snapshot.sequence_number())
}

/// The manifests of a snapshot that takes files out.
#[derive(Debug, Default)]
pub(super) struct RewrittenManifests {
    /// Written anew without them.
    pub(super) rewritten: Vec<ManifestFile>,
    /// How many these stand for.
    pub(super) replaced: usize,
    /// The others, as they are.
    pub(super) kept: Vec<ManifestFile>,
    /// Locations of those that were written before its turn for manifests that are not listed any more.
    pub(super) unused: Vec<String>,
}

/// Writes the manifests anew that have files to take out, where that was not done before.
pub(super) async fn rewrite(
    writer: &mut SnapshotWriter<'_>,
    listed: Vec<ManifestFile>,
    new: &NewSnapshot,
    mut read: ReadManifests,
) -> Result<RewrittenManifests, CatalogError> {
    let removed: HashSet<FileKey> = keys(&new.removed).collect();
    let mut manifests = RewrittenManifests::default();
    let there: HashSet<&str> = listed.iter().map(|it| it.manifest_path.as_str()).collect();
    let mut spent = HashSet::new();
    for SpentManifests { sources, manifest } in read.spent {
        // Files of one that is not listed any more are in another one by now.
        match sources.iter().all(|source| there.contains(source.as_str())) {
            true => {
                manifests.rewritten.push(manifest);
                spent.extend(sources);
            }
            false => manifests.unused.push(manifest.manifest_path),
        }
    }
    manifests.replaced = spent.len();
    for manifest in listed {
        let path = &manifest.manifest_path;
        if spent.contains(path) {
            continue;
        }
        if read.live.get(path).is_none_or(|live| live.is_disjoint(&removed)) {
            manifests.kept.push(manifest);
            continue;
        }
        let at = manifests.rewritten.len();
        manifests.replaced += 1;
        manifests.rewritten.push(match read.rewritten.remove(path) {
            Some(rewritten) => rewritten,
            None => {
                let bytes = read.bytes.remove(path);
                writer.without(manifest, bytes, &removed, at).await?
            }
        });
    }
    let unused = read.rewritten.into_values().map(|manifest| manifest.manifest_path);
    manifests.unused.extend(unused);
    Ok(manifests)
}

/// Looks for all files to take out, and all that position deletes are about. The newest manifests are
/// looked through first, until all are found: what is rewritten is mostly young.
async fn check_live(
    storage: &Storage,
    listed: &[ManifestFile],
    new: &NewSnapshot,
    read: &mut ReadManifests,
) -> Result<(), CatalogError> {
    let removed: HashSet<FileKey> = keys(&new.removed).collect();
    let paths = new.removed.iter().map(|file| file.file_path().to_owned());
    let all: HashMap<FileKey, String> =
        paths.chain(about(new)).map(|path| (FileKey::of(&path), path)).collect();
    let mut missing: HashSet<FileKey> = all.keys().copied().collect();
    // What is known from before is of use only where the manifest is still listed.
    let (known, unread): (Vec<&ManifestFile>, Vec<&ManifestFile>) =
        listed.iter().partition(|manifest| read.live.contains_key(&manifest.manifest_path));
    for manifest in known {
        let live = &read.live[&manifest.manifest_path];
        missing.retain(|key| !live.contains(key));
    }
    let is_data = |file: &DataFile| file.content_type() == DataContentType::Data;
    let reads_deletes = !new.removed.iter().all(is_data);
    let may_have =
        |manifest: &&ManifestFile| manifest.content == ManifestContentType::Data || reads_deletes;
    let mut manifests: Vec<&ManifestFile> = unread.into_iter().filter(may_have).collect();
    manifests.sort_by_key(|manifest| std::cmp::Reverse(manifest.sequence_number));
    let reads: Vec<_> =
        manifests.into_iter().map(|manifest| live_entries(storage, manifest.clone())).collect();
    let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
    while !missing.is_empty()
        && let Some(found) = reads.next().await
    {
        let LiveEntries { manifest, bytes, files } = found?;
        let keys = files.iter().map(|file| FileKey::of(&file.path));
        let live: HashSet<FileKey> = keys.filter(|key| all.contains_key(key)).collect();
        missing.retain(|key| !live.contains(key));
        if !live.is_disjoint(&removed) {
            read.keep(&manifest.manifest_path, bytes);
        }
        read.live.insert(manifest.manifest_path, live);
    }
    match missing.iter().map(|key| &all[key]).min() {
        Some(path) => Err(conflict(&format!("`{path}` is not live any more"))),
        None => Ok(()),
    }
}

/// Refuses to take out data files that deletes may apply to which came since `number` was read.
async fn check_deletes_since(
    storage: &Storage,
    listed: &[ManifestFile],
    number: i64,
    new: &NewSnapshot,
    read: &mut ReadManifests,
) -> Result<(), CatalogError> {
    // Rows that are deleted twice are gone all the same.
    if new.operation == Operation::Delete {
        return Ok(());
    }
    let is_data = |file: &&DataFile| file.content_type() == DataContentType::Data;
    let mut about: HashSet<String> = about(new).collect();
    about.extend(new.removed.iter().filter(is_data).map(|file| file.file_path().to_owned()));
    let own: HashSet<&str> = new.removed.iter().map(DataFile::file_path).collect();
    for manifest in listed {
        // No entry of a manifest has a higher number than the snapshot that the manifest came with.
        let is_since =
            manifest.content == ManifestContentType::Deletes && number < manifest.sequence_number;
        if !is_since || read.without_deletes.contains(&manifest.manifest_path) {
            continue;
        }
        let LiveEntries { manifest, files, .. } = live_entries(storage, manifest.clone()).await?;
        for delete in files {
            let is_old = delete.number.unwrap_or(manifest.sequence_number) <= number;
            if is_old || own.contains(delete.path.as_str()) {
                continue;
            }
            let reached = match delete.about() {
                Some(path) => about.get(path),
                None if delete.deletes_positions() => {
                    about.iter().find(|path| delete.may_be_about(path))
                }
                None if new.operation == Operation::Overwrite => about.iter().next(),
                None => None,
            };
            if let Some(path) = reached {
                let deletes = &delete.path;
                return Err(conflict(&format!("`{deletes}` deletes rows of `{path}` since")));
            }
        }
        read.without_deletes.insert(manifest.manifest_path);
    }
    Ok(())
}

/// The data files of before that the position deletes of a snapshot are about: not those that come with it.
fn about(new: &NewSnapshot) -> impl Iterator<Item = String> {
    let of_specs = new.added_of_spec.iter().map(|(_, file)| file);
    let own: HashSet<&str> = new.added.iter().chain(of_specs).map(DataFile::file_path).collect();
    let all = new.deletes.iter().filter_map(|(_, file)| file.referenced_data_file());
    all.filter(move |path| !own.contains(path.as_str()))
}

fn keys(files: &[DataFile]) -> impl Iterator<Item = FileKey> {
    files.iter().map(|file| FileKey::of(file.file_path()))
}

/// A manifest and its live entries.
struct LiveEntries {
    manifest: ManifestFile,
    bytes: Bytes,
    files: Vec<FileEntry>,
}

async fn live_entries(
    storage: &Storage,
    manifest: ManifestFile,
) -> Result<LiveEntries, CatalogError> {
    let bytes = storage.get(&manifest.manifest_path).await?;
    let file = bytes.clone();
    let read = tokio::task::spawn_blocking(usage::carried(move || entries::live(&file))).await;
    let read = read.unwrap_or_else(|_| Err("it cannot be read".to_owned()));
    let files = read.map_err(|cause| CatalogError::Iceberg {
        operation: "read a manifest to rewrite",
        source: iceberg::Error::new(ErrorKind::DataInvalid, cause),
    })?;
    Ok(LiveEntries { manifest, bytes, files })
}

fn conflict(why: &str) -> CatalogError {
    CatalogError::CommitFailed(format!(
        "Commit failed: a rewrite of files is refused, because {why}"
    ))
}

#[cfg(test)]
mod tests;
