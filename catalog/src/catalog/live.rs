//! No silent resurrection: whether a client's snapshot takes over, removes and deletes from only what
//! is live in the snapshot that it comes after.
//!
//! Clients look for conflicts themselves, and some do not: one that lost a race puts its old work on
//! the new head, and rows that others deleted are back. So it is looked at here, by what the manifests
//! say. A snapshot is compared with its parent and with nothing else, which is why this can be done
//! while nobody waits for the table; that the parent is the branch's head is for [`crate::commit::check_heads`].
//! Its one invariant: every file that passes as taken over or removed is in a manifest that the
//! snapshot replaces, every data file of such a manifest is said to be taken over or removed, or counted
//! as removed, and every data file that a delete file names is live with it.

use super::{Catalog, manifest_check::READS_AT_ONCE};
use crate::{
    error::CatalogError,
    location::Location,
    snapshot::{
        self,
        changes::{DeleteFile, FileKey, SnapshotChanges},
        entries::{FileEntry, ListedManifest},
    },
};
use futures::{StreamExt, stream};
use iceberg::spec::{
    Datum, FieldSummary, ManifestContentType, ManifestFile, Operation, Snapshot, TableMetadata,
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
};

/// Data files that a rewrite replaces, with their rows.
type ReplacedFiles = BTreeMap<String, u64>;

/// Entry of a snapshot summary: how many data files it removes.
const DELETED_DATA_FILES: &str = "deleted-data-files";

impl Catalog {
    /// Checks what a snapshot does to its parent.
    pub(super) async fn check_live(
        &self,
        own: &Location,
        table: &TableMetadata,
        snapshot: &Snapshot,
        parent: Option<&Snapshot>,
        changes: &SnapshotChanges,
    ) -> Result<(), CatalogError> {
        if parent.is_some() {
            let replaced = self.check_replaced(own, snapshot, changes).await?;
            self.check_rewrite(own, snapshot, changes, &replaced).await?;
        }
        self.check_deletes(own, table, snapshot, changes).await
    }

    /// Checks that the files which the snapshot takes over or removes are in manifests that it leaves
    /// out, and that it says of each data file there what becomes of it, or counts those of which it does
    /// not: a list that was made of an older head does neither. Gives the data files that a rewrite
    /// replaces. Reads none of the manifests of a commit that only adds.
    async fn check_replaced(
        &self,
        own: &Location,
        snapshot: &Snapshot,
        changes: &SnapshotChanges,
    ) -> Result<ReplacedFiles, CatalogError> {
        let mut replaced = ReplacedFiles::new();
        let mut missing: HashSet<FileKey> =
            changes.existing.keys().chain(&changes.removed).copied().collect();
        let is_rewrite = is_rewrite(snapshot, changes);
        if missing.is_empty() && changes.dropped.is_empty() {
            return Ok(replaced);
        }
        let (mut gone, mut untold) = (0, None);
        let dropped = changes.dropped.iter();
        let reads: Vec<_> = dropped.map(|manifest| self.live_files(own, manifest)).collect();
        let mut reads = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
        while let Some(files) = reads.next().await {
            for file in files? {
                let key = FileKey::of(&file.path);
                missing.remove(&key);
                if !file.is_data() {
                    continue;
                }
                let is_told = changes.tells_of(&key);
                gone += u64::from(!is_told || changes.removed.contains(&key));
                if !is_told {
                    untold.get_or_insert_with(|| file.path.clone());
                }
                if is_rewrite && !changes.existing.contains_key(&key) {
                    replaced.insert(file.path, file.rows);
                }
            }
        }
        if let Some(path) = untold.filter(|_| !is_counted(snapshot, changes, gone)) {
            let why = format!("leaves out `{path}` and does not say that it removes it");
            return Err(conflict(snapshot, &why));
        }
        let Some(key) = missing.into_iter().next() else { return Ok(replaced) };
        let does = if changes.removed.contains(&key) { "removes" } else { "lists" };
        let path = self.path_of(own, &changes.new, key).await?;
        Err(conflict(snapshot, &format!("{does} `{path}`, which is not live any more")))
    }

    /// Checks that a rewrite has seen the deletes of what it replaces: by the snapshot number that its
    /// files come with, as Iceberg's Java library does, and by the number of rows, which are never
    /// more than those that are left.
    async fn check_rewrite(
        &self,
        own: &Location,
        snapshot: &Snapshot,
        changes: &SnapshotChanges,
        replaced: &ReplacedFiles,
    ) -> Result<(), CatalogError> {
        if !is_rewrite(snapshot, changes) || (replaced.is_empty() && changes.added_rows == 0) {
            return Ok(());
        }
        // Delete files of one data file may name the same rows. Where the files come with a number it
        // tells which deletes were seen, and the longest is what is certain; where nothing does, each
        // is taken for rows of its own.
        let mut deleted: HashMap<&str, u64> = HashMap::new();
        let manifests = changes.kept.iter().chain(&changes.dropped).filter(|it| it.has_deletes);
        let reads: Vec<_> = manifests.map(|manifest| self.live_files_of(own, manifest)).collect();
        let mut reads = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
        while let Some((manifest, files)) = reads.next().await {
            for delete in files?.into_iter().filter(|file| file.deletes_positions()) {
                let number = delete.number.unwrap_or(manifest.number);
                let is_since = changes.made_at.is_some_and(|made_at| made_at < number);
                let found = match delete.about() {
                    Some(path) => replaced.get_key_value(path),
                    None => replaced.iter().find(|(path, _)| is_since && delete.may_be_about(path)),
                };
                let Some((path, _)) = found else { continue };
                if is_since {
                    let why = format!("rewrites `{path}`, of which `{}` deletes rows", delete.path);
                    return Err(conflict(snapshot, &format!("{why} since it was read")));
                }
                let rows = deleted.entry(path.as_str()).or_default();
                *rows = match changes.made_at {
                    Some(_) => delete.rows.max(*rows),
                    None => delete.rows.saturating_add(*rows),
                };
            }
        }
        let left = |(path, rows): (&String, &u64)| {
            rows.saturating_sub(deleted.get(path.as_str()).copied().unwrap_or_default())
        };
        let rows: u64 = replaced.iter().map(left).sum();
        if snapshot.summary().operation != Operation::Replace || changes.added_rows <= rows {
            return Ok(());
        }
        let added = changes.added_rows;
        Err(conflict(
            snapshot,
            &match deleted.keys().min() {
                Some(path) => format!(
                    "rewrites `{path}` without the deletes of its rows: it adds {added} rows in the \
                     place of {rows}"
                ),
                None => format!(
                    "adds {added} rows in the place of {rows}: a file that it rewrites is not live \
                     any more"
                ),
            },
        ))
    }

    /// Checks that each position delete file which names one data file reaches it: the file is live,
    /// and of the same partition spec. Readers that follow the specification pass over a delete of
    /// another spec, and readers that go by the file's name do not: the same snapshot would have two
    /// contents.
    async fn check_deletes(
        &self,
        own: &Location,
        table: &TableMetadata,
        snapshot: &Snapshot,
        changes: &SnapshotChanges,
    ) -> Result<(), CatalogError> {
        let mut open: HashMap<FileKey, &DeleteFile> = HashMap::new();
        for delete in &changes.deletes {
            let Some(about) = &delete.about else { continue };
            let key = FileKey::of(about);
            match changes.added.get(&key).or_else(|| changes.existing.get(&key)) {
                Some(spec_id) => check_spec(delete, *spec_id)?,
                None => drop(open.insert(key, delete)),
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        let manifests = self.likely_first(table, snapshot, changes).await;
        let manifests = manifests.into_iter();
        let reads: Vec<_> = manifests.map(|manifest| self.live_files_of(own, manifest)).collect();
        let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
        while let Some((manifest, files)) = reads.next().await {
            for file in files? {
                if let Some(delete) = open.remove(&FileKey::of(&file.path)) {
                    check_spec(delete, manifest.spec_id)?;
                }
            }
            if open.is_empty() {
                return Ok(());
            }
        }
        let lost = open.values().filter_map(|delete| delete.about.as_deref()).min();
        let path = lost.unwrap_or_default();
        Err(conflict(snapshot, &format!("deletes rows of `{path}`, which is not live any more")))
    }

    /// The data manifests that the snapshot takes over: first those of the partitions that its deletes
    /// are in, and of these the newest.
    async fn likely_first<'a>(
        &self,
        table: &TableMetadata,
        snapshot: &Snapshot,
        changes: &'a SnapshotChanges,
    ) -> Vec<&'a ListedManifest> {
        let mut data: Vec<&ListedManifest> =
            changes.kept.iter().filter(|manifest| !manifest.has_deletes).collect();
        // A list that the iceberg crate does not read is read in any order.
        let listed = snapshot::read_list(&self.inner.storage, table, snapshot).await;
        let listed = listed.unwrap_or_default();
        let new: HashSet<&str> =
            changes.new.iter().map(|manifest| manifest.path.as_str()).collect();
        let is_delete = |manifest: &&ManifestFile| {
            manifest.content == ManifestContentType::Deletes
                && new.contains(manifest.manifest_path.as_str())
        };
        let deletes: Vec<&ManifestFile> = listed.iter().filter(is_delete).collect();
        let likely: HashSet<&str> = listed
            .iter()
            .filter(|manifest| deletes.iter().any(|delete| overlap(table, delete, manifest)))
            .map(|manifest| manifest.manifest_path.as_str())
            .collect();
        data.sort_by_key(|manifest| {
            (!likely.contains(manifest.path.as_str()), Reverse(manifest.number))
        });
        data
    }

    async fn live_files_of<'a>(
        &self,
        own: &Location,
        manifest: &'a ListedManifest,
    ) -> (&'a ListedManifest, Result<Vec<FileEntry>, CatalogError>) {
        (manifest, self.live_files(own, manifest).await)
    }
}

/// Whether a snapshot says that it changes no row, or adds files made of older ones.
fn is_rewrite(snapshot: &Snapshot, changes: &SnapshotChanges) -> bool {
    snapshot.summary().operation == Operation::Replace || changes.made_at.is_some()
}

/// Whether the summary of a snapshot that leaves files out without a word removes so many, as ClickHouse
/// and some libraries do it, or does not count them and the snapshot has no files at all. The summary
/// of a list that was made of an older head does not count what came since.
fn is_counted(snapshot: &Snapshot, changes: &SnapshotChanges, gone: u64) -> bool {
    let summary = snapshot.summary();
    let counted = summary.additional_properties.get(DELETED_DATA_FILES);
    matches!(summary.operation, Operation::Delete | Operation::Overwrite)
        && match counted {
            Some(count) => count.parse::<u64>() == Ok(gone),
            None => changes.kept.is_empty() && changes.new.is_empty(),
        }
}

fn check_spec(delete: &DeleteFile, spec_id: i64) -> Result<(), CatalogError> {
    if delete.spec_id == spec_id {
        return Ok(());
    }
    Err(CatalogError::Invalid(format!(
        "`{}` deletes rows of `{}`, which has partition spec {spec_id}, but itself has spec {}: by \
         the specification no reader applies it. Delete with an engine that writes deletes under \
         the spec of the data file, such as Spark, or rewrite the older files first",
        delete.path,
        delete.about.as_deref().unwrap_or_default(),
        delete.spec_id
    )))
}

fn conflict(snapshot: &Snapshot, why: &str) -> CatalogError {
    CatalogError::CommitFailed(format!(
        "Commit failed: snapshot {} {why}: read the table again and repeat",
        snapshot.snapshot_id()
    ))
}

/// Whether two manifests may have files of one partition.
fn overlap(table: &TableMetadata, one: &ManifestFile, other: &ManifestFile) -> bool {
    if one.partition_spec_id != other.partition_spec_id {
        return false;
    }
    let kinds = table
        .partition_spec_by_id(one.partition_spec_id)
        .and_then(|spec| spec.partition_type(table.current_schema()).ok());
    let (Some(kinds), Some(one), Some(other)) = (kinds, &one.partitions, &other.partitions) else {
        return true;
    };
    kinds.fields().iter().zip(one.iter().zip(other)).all(|(field, (one, other))| {
        let bound = |bytes: &[u8]| {
            let kind = field.field_type.as_primitive_type()?;
            Datum::try_from_bytes(bytes, kind.clone()).ok()
        };
        let ends_before = |one: &FieldSummary, other: &FieldSummary| {
            let upper = one.upper_bound.as_ref().and_then(|bytes| bound(bytes));
            let lower = other.lower_bound.as_ref().and_then(|bytes| bound(bytes));
            upper.zip(lower).is_some_and(|(upper, lower)| upper < lower)
        };
        !ends_before(one, other) && !ends_before(other, one)
    })
}
