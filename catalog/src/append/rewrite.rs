//! Snapshots of ours that take files out of a table: rewrites, overwrites and deletes of rows.
//!
//! They are built on the head of `main` as it is, whatever was committed since the snapshot that was
//! read for them. Its one invariant: a rewrite is refused if a file that it takes out is not live any
//! more, or may have had rows deleted since it was read; data files that others added stay.

use super::{
    BuiltAppend,
    changes::FileKey,
    check,
    entries::{self, FileEntry},
    finish, manifests,
    summary::{self, ManifestCounts, SummaryCounts},
    timestamp_ms, unused_id,
};
use crate::{error::CatalogError, storage::Storage};
use futures::{StreamExt, stream};
use iceberg::{
    ErrorKind,
    spec::{
        DataContentType, DataFile, FormatVersion, ManifestContentType, ManifestFile, Operation,
        Snapshot, Summary, TableMetadata,
    },
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Manifests that are looked through at a time.
const READS_AT_ONCE: usize = 4;

/// What a snapshot that takes files out does to the rows of its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewriteKind {
    /// None changes: the files that come have the rows of those that go. They keep the sequence number
    /// of the snapshot that was read, so that equality deletes since then reach them.
    Replace,
    /// The files that come have other rows than those that go.
    Overwrite,
    /// Rows go, with their files or by position delete files that come.
    Delete,
}

/// Files that come and files that go in one snapshot.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// What becomes of the rows.
    pub kind: RewriteKind,
    /// The snapshot of `main` that was read for it.
    pub read: i64,
    /// Data files that go, and delete files that are of no use without them: each as a manifest of the
    /// table has it.
    pub removed: Vec<DataFile>,
    /// Data files that come, already durable, of the table's default partition spec.
    pub added: Vec<DataFile>,
    /// Position delete files that come, already durable, each about one data file, with the partition
    /// spec of that.
    pub deletes: Vec<(i32, DataFile)>,
    /// Entries of the snapshot summary beyond Iceberg's own.
    pub summary: BTreeMap<String, String>,
}

/// Writes manifests and manifest list for `rewrite` on top of `base`, as [`super::build`] does.
///
/// # Errors
/// [`CatalogError::CommitFailed`] names a file that is not live any more, or that got deletes since it
/// was read; beside these as [`super::build`].
pub async fn build_rewrite(
    storage: &Storage,
    base: &TableMetadata,
    rewrite: &Rewrite,
    now_ms: i64,
) -> Result<BuiltAppend, CatalogError> {
    check(base, &rewrite.added)?;
    if base.format_version() != FormatVersion::V2 {
        // Entries of version 3 have row ids that the iceberg crate does not carry over.
        let text = "cannot rewrite files of a table that is not of format version 2";
        return Err(CatalogError::Invalid(text.to_owned()));
    }
    for (_, file) in &rewrite.deletes {
        if file.content_type() != DataContentType::PositionDeletes
            || file.referenced_data_file().is_none()
        {
            return Err(CatalogError::Invalid(format!(
                "`{}` is no position delete file of one data file",
                file.file_path()
            )));
        }
    }
    let mut writer = manifests::SnapshotWriter::new(storage, base, unused_id(base));
    let written = write(storage, base, rewrite, now_ms, &mut writer).await;
    finish(storage, base, writer, written).await
}

async fn write(
    storage: &Storage,
    base: &TableMetadata,
    rewrite: &Rewrite,
    now_ms: i64,
    writer: &mut manifests::SnapshotWriter<'_>,
) -> Result<Snapshot, CatalogError> {
    let read = base.snapshot_by_id(rewrite.read).map(|read| read.sequence_number());
    let (Some(read), Some(parent)) = (read, base.current_snapshot()) else {
        return Err(conflict(&format!(
            "snapshot {}, which was read for it, is gone",
            rewrite.read
        )));
    };
    let listed = manifests::read_list(storage, base, parent).await?;
    check_deletes_since(storage, (&listed, read), rewrite).await?;
    let holders = find(storage, &listed, rewrite).await?;
    let removed: HashSet<FileKey> = keys(&rewrite.removed).collect();
    let (mut kept, mut rewritten) = (Vec::new(), Vec::new());
    for manifest in listed {
        match holders.contains(&manifest.manifest_path) {
            true => rewritten.push(writer.without(manifest, &removed, rewritten.len()).await?),
            false => kept.push(manifest),
        }
    }
    let number = (rewrite.kind == RewriteKind::Replace).then_some(read);
    let mut added = Vec::from_iter(writer.add(&rewrite.added, number).await?);
    added.extend(writer.add_deletes(&rewrite.deletes).await?);
    let merged = writer.merge(kept).await?;
    let counts = ManifestCounts {
        created: added.len() + rewritten.len() + usize::from(merged.merged.is_some()),
        kept: merged.kept.len(),
        replaced: rewritten.len() + merged.replaced,
    };
    let deletes = rewrite.deletes.iter().map(|(_, file)| file);
    let files = SummaryCounts::of(rewrite.added.iter().chain(deletes), rewrite.removed.iter());
    let entries = summary::entries(Some(parent.summary()), (&rewrite.summary, &files), counts);
    let all = added.into_iter().chain(rewritten).chain(merged.merged).chain(merged.kept);
    writer.list(all, Some(parent.snapshot_id())).await?;
    let operation = match rewrite.kind {
        RewriteKind::Replace => Operation::Replace,
        RewriteKind::Overwrite => Operation::Overwrite,
        RewriteKind::Delete => Operation::Delete,
    };
    Ok(Snapshot::builder()
        .with_snapshot_id(writer.snapshot_id())
        .with_parent_snapshot_id(Some(parent.snapshot_id()))
        .with_sequence_number(base.next_sequence_number())
        .with_timestamp_ms(timestamp_ms(base, now_ms))
        .with_manifest_list(writer.list_location())
        .with_summary(Summary { operation, additional_properties: entries })
        .with_schema_id(base.current_schema_id())
        .build())
}

/// The manifests that have the files to take out, once all of them and all that position deletes are
/// about are found. The newest manifests are looked through first: what is rewritten is mostly young.
async fn find(
    storage: &Storage,
    listed: &[ManifestFile],
    rewrite: &Rewrite,
) -> Result<HashSet<String>, CatalogError> {
    let removed: HashSet<FileKey> = keys(&rewrite.removed).collect();
    let mut missing: HashMap<FileKey, String> = HashMap::new();
    let paths = rewrite.removed.iter().map(|file| file.file_path().to_owned());
    for path in paths.chain(about(rewrite)) {
        missing.insert(FileKey::of(&path), path);
    }
    let is_data = |file: &DataFile| file.content_type() == DataContentType::Data;
    let reads_deletes = !rewrite.removed.iter().all(is_data);
    let may_have =
        |manifest: &&ManifestFile| manifest.content == ManifestContentType::Data || reads_deletes;
    let mut manifests: Vec<ManifestFile> = listed.iter().filter(may_have).cloned().collect();
    manifests.sort_by_key(|manifest| std::cmp::Reverse(manifest.sequence_number));
    let mut holders = HashSet::new();
    let reads: Vec<_> =
        manifests.into_iter().map(|manifest| live_entries(storage, manifest)).collect();
    let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
    while !missing.is_empty()
        && let Some(read) = reads.next().await
    {
        let (manifest, files) = read?;
        for file in files {
            let key = FileKey::of(&file.path);
            missing.remove(&key);
            if removed.contains(&key) {
                holders.insert(manifest.manifest_path.clone());
            }
        }
    }
    match missing.into_values().min() {
        Some(path) => Err(conflict(&format!("`{path}` is not live any more"))),
        None => Ok(holders),
    }
}

/// Refuses a rewrite of data files that deletes since it was made may apply to.
async fn check_deletes_since(
    storage: &Storage,
    (listed, read): (&[ManifestFile], i64),
    rewrite: &Rewrite,
) -> Result<(), CatalogError> {
    // Rows that are deleted twice are gone all the same.
    if rewrite.kind == RewriteKind::Delete {
        return Ok(());
    }
    let is_data = |file: &&DataFile| file.content_type() == DataContentType::Data;
    let mut about: HashSet<String> = about(rewrite).collect();
    about.extend(rewrite.removed.iter().filter(is_data).map(|file| file.file_path().to_owned()));
    let own: HashSet<&str> = rewrite.removed.iter().map(DataFile::file_path).collect();
    let is_since = |manifest: &&ManifestFile| {
        manifest.content == ManifestContentType::Deletes && read < manifest.sequence_number
    };
    for manifest in listed.iter().filter(is_since) {
        let (manifest, deletes) = live_entries(storage, manifest.clone()).await?;
        for delete in deletes {
            let is_old = delete.number.unwrap_or(manifest.sequence_number) <= read;
            if is_old || own.contains(delete.path.as_str()) {
                continue;
            }
            let reached = match delete.about() {
                Some(path) => about.get(path),
                None if delete.deletes_positions() => {
                    about.iter().find(|path| delete.may_be_about(path))
                }
                None if rewrite.kind == RewriteKind::Overwrite => about.iter().next(),
                None => None,
            };
            if let Some(path) = reached {
                let deletes = &delete.path;
                return Err(conflict(&format!("`{deletes}` deletes rows of `{path}` since")));
            }
        }
    }
    Ok(())
}

/// The data files that the position deletes of a rewrite are about.
fn about(rewrite: &Rewrite) -> impl Iterator<Item = String> {
    rewrite.deletes.iter().filter_map(|(_, file)| file.referenced_data_file())
}

fn keys(files: &[DataFile]) -> impl Iterator<Item = FileKey> {
    files.iter().map(|file| FileKey::of(file.file_path()))
}

async fn live_entries(
    storage: &Storage,
    manifest: ManifestFile,
) -> Result<(ManifestFile, Vec<FileEntry>), CatalogError> {
    let bytes = storage.get(&manifest.manifest_path).await?;
    let read = tokio::task::spawn_blocking(move || entries::live(&bytes)).await;
    let read = read.unwrap_or_else(|_| Err("it cannot be read".to_owned()));
    let files = read.map_err(|cause| CatalogError::Iceberg {
        operation: "read a manifest to rewrite",
        source: iceberg::Error::new(ErrorKind::DataInvalid, cause),
    })?;
    Ok((manifest, files))
}

fn conflict(why: &str) -> CatalogError {
    CatalogError::CommitFailed(format!(
        "Commit failed: a rewrite of files is refused, because {why}"
    ))
}
