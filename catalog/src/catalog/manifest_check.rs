//! Reads what a client's snapshots name, before they are committed: each manifest list, each
//! manifest in it that is new, each file in those.
//!
//! Its one invariant: no file is opened whose location has not been found inside the table. Manifests
//! are read value by value, so that none is too new or too odd to be looked at. A file may change
//! after this look, so whoever reads or deletes what a manifest names checks it again.

use super::{Catalog, cache::MetadataCache, managed_table_rules};
use crate::{
    commit,
    error::CatalogError,
    location::Location,
    snapshot::{
        NewSnapshot, ReadManifests,
        changes::{FileKey, SnapshotChanges},
        entries::{self, FileEntry, LastSchema, ListedManifest},
    },
    storage,
};
use futures::{StreamExt, stream};
use iceberg::{
    TableUpdate,
    spec::{Snapshot, TableMetadata},
};
use std::{
    collections::{HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

/// Most manifests that a commit may add.
const MANIFESTS_MAX: usize = 2_000;
/// Largest manifest or manifest list of a commit.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of manifests that a commit may add.
const BYTES_MAX: usize = 512 << 20;
/// Manifests read at the same time.
pub(super) const READS_AT_ONCE: usize = 4;
/// How many times its bytes in memory a list weighs in a cache, so that all take 32 MiB at most.
const LIST_WEIGHT: usize = 4;
/// Lists of more manifests are not remembered.
const LISTED_MAX: usize = 10_000;
/// Most manifests and snapshots that are remembered as looked at.
const SEEN_MAX: usize = 100_000;

/// Manifests and snapshots that were looked at, each with its table's location. A set that is full
/// starts anew, which costs some reads.
#[derive(Default)]
pub(super) struct CheckedManifests(Mutex<HashSet<u128>>);

impl CheckedManifests {
    fn key(own: &Location, file: &str) -> u128 {
        xxhash_rust::xxh3::xxh3_128(format!("{own}\n{file}").as_bytes())
    }

    fn has(&self, own: &Location, file: &str) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.contains(&Self::key(own, file))
    }

    fn add(&self, own: &Location, file: &str) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if SEEN_MAX <= seen.len() {
            seen.clear();
        }
        seen.insert(Self::key(own, file));
    }

    fn remove(&self, own: &Location, file: &str) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.remove(&Self::key(own, file));
    }
}

/// Manifest lists of snapshots that were committed here, by location: each is the parent's of the
/// next commit. One that comes with a commit is read each time, since its writer may have written it
/// anew, and is kept once its snapshot is part of a table.
#[derive(Default)]
pub(super) struct ManifestLists {
    examined: MetadataCache<Vec<ListedManifest>>,
    committed: MetadataCache<Vec<ListedManifest>>,
    /// Lists of all tables are alike.
    schema: Arc<LastSchema>,
}

impl ManifestLists {
    /// Notes what a commit's own list has.
    fn note(&self, list: &str, listed: &[ListedManifest]) {
        if listed.len() <= LISTED_MAX {
            let bytes: usize = listed.iter().map(|it| size_of_val(it) + it.path.len()).sum();
            self.examined.insert(list, &Arc::new(listed.to_vec()), bytes * LIST_WEIGHT);
        }
    }

    /// A snapshot is part of a table.
    pub(super) fn keep(&self, list: &str) {
        let (examined, weight) = (self.examined.get(list), self.examined.weight(list));
        self.forget(list);
        if let Some((examined, weight)) = examined.zip(weight) {
            self.committed.insert(list, &examined, weight);
        }
    }

    /// The file may be another one.
    pub(super) fn forget(&self, list: &str) {
        self.examined.remove(list);
        self.committed.remove(list);
    }
}

impl Catalog {
    /// Checks every file that the snapshots of `updates` add to a table at `new`'s location, and that
    /// they bring back nothing that others removed. Gives what the last one does, if it was not
    /// looked at before, with the paths that all of them add.
    pub(super) async fn check_contents(
        &self,
        base: Option<&TableMetadata>,
        new: &TableMetadata,
        updates: &[TableUpdate],
    ) -> Result<Option<SnapshotChanges>, CatalogError> {
        let own = self.inner.storage.normalize(new.location())?;
        let mut added: HashMap<i64, &Snapshot> = HashMap::new();
        let (mut last, mut paths) = (None, Vec::new());
        for snapshot in commit::added(updates) {
            let parent = parent_of(snapshot, base, &added);
            let checked = self.check_snapshot(&own, new, snapshot, parent).await;
            last = checked.map_err(|cause| match (parent, snapshot.parent_snapshot_id()) {
                (None, Some(gone)) => without_parent(cause, gone),
                _ => cause,
            })?;
            if let Some(changes) = &mut last {
                paths.append(&mut changes.added_paths);
            }
            added.insert(snapshot.snapshot_id(), snapshot);
        }
        if let Some(changes) = &mut last {
            changes.added_paths = paths;
        }
        Ok(last)
    }

    /// Forgets that the snapshots of a change were looked at in an attempt before this one: their files may
    /// have been queued for deletion since.
    pub(super) fn look_again(
        &self,
        base: &TableMetadata,
        updates: &[TableUpdate],
    ) -> Result<(), CatalogError> {
        let own = self.inner.storage.normalize(base.location())?;
        let mut added: HashMap<i64, &Snapshot> = HashMap::new();
        for snapshot in commit::added(updates) {
            let parent = parent_of(snapshot, Some(base), &added);
            self.inner.seen.remove(&own, &both(snapshot, parent));
            added.insert(snapshot.snapshot_id(), snapshot);
        }
        Ok(())
    }

    /// Refuses files that are to be deleted: nothing would take them out of the queue, and with them
    /// live rows would go. The same for orphans that were deleted, unless they were written again.
    ///
    /// What is queued for a table is queued by a change of its version, so whoever looks after the state
    /// that a commit is built on is known has seen all of it.
    pub(super) async fn check_not_queued(
        &self,
        own: &Location,
        added: &[String],
    ) -> Result<(), CatalogError> {
        let locations = added.iter().filter_map(|path| own.admit(path).ok());
        // Some clients decode a name when they write the file, and commit it as it was.
        let spellings = |location: Location| [location.decoded(), Some(location.to_string())];
        let files: Vec<String> = locations.flat_map(spellings).flatten().collect();
        if files.is_empty() {
            return Ok(());
        }
        if let Some(file) = self.metastore().first_obsolete(&files).await? {
            return Err(CatalogError::Invalid(format!(
                "`{file}` is about to be deleted, since no snapshot that is kept has it any more: add \
                 a copy of it under another name"
            )));
        }
        for file in self.metastore().removed_orphans(&files).await? {
            if !self.inner.storage.exists(&file).await? {
                return Err(CatalogError::Invalid(format!(
                    "`{file}` was deleted, since no snapshot had it for longer than `orphans.grace`: \
                     write the files of this commit again under other names"
                )));
            }
        }
        Ok(())
    }

    /// As [`Catalog::check_not_queued`], for the manifest lists and statistics that a change names, whether
    /// they were looked at before or not.
    pub(super) async fn check_named_files(
        &self,
        new: &TableMetadata,
        updates: &[TableUpdate],
    ) -> Result<(), CatalogError> {
        let lists = commit::added(updates).map(|snapshot| snapshot.manifest_list().to_owned());
        let statistics = updates.iter().filter_map(|update| match update {
            TableUpdate::SetStatistics { statistics } => Some(statistics.statistics_path.clone()),
            TableUpdate::SetPartitionStatistics { partition_statistics } => {
                Some(partition_statistics.statistics_path.clone())
            }
            _ => None,
        });
        let named: Vec<String> = lists.chain(statistics).collect();
        if named.is_empty() {
            return Ok(());
        }
        let own = self.inner.storage.normalize(new.location())?;
        self.check_not_queued(&own, &named).await
    }

    /// Refuses a snapshot of ours whose files were written so long ago that they were taken for orphans.
    pub(super) async fn check_own_files(
        &self,
        table: &TableMetadata,
        new: &NewSnapshot,
        read: &ReadManifests,
    ) -> Result<(), CatalogError> {
        let own = self.inner.storage.normalize(table.location())?;
        let of_specs = new.deletes.iter().chain(&new.added_of_spec).map(|(_, file)| file);
        let files = new.added.iter().chain(of_specs);
        let mut written: Vec<String> = files.map(|file| file.file_path().to_owned()).collect();
        written.extend_from_slice(&read.written);
        self.check_not_queued(&own, &written).await
    }

    /// Checks every file that a table from elsewhere names, and that none of them is to be deleted.
    pub(super) async fn check_adopted_contents(
        &self,
        metadata: &TableMetadata,
    ) -> Result<(), CatalogError> {
        let own = self.inner.storage.normalize(metadata.location())?;
        for snapshot in metadata.snapshots() {
            let list = snapshot.manifest_list();
            self.inner.lists.forget(list);
            if !self.inner.options.checks_contents || self.inner.seen.has(&own, list) {
                continue;
            }
            let mut listed = self.listed(&own, list).await?;
            listed.retain(|manifest| !self.inner.seen.has(&own, &manifest.path));
            let changes = SnapshotChanges::between(&[], &listed);
            self.read_new(&own, snapshot, changes).await?;
            self.inner.seen.add(&own, list);
        }
        self.check_files_stay(metadata).await
    }

    /// Notes that a snapshot was made here of what was looked at.
    pub(super) fn trust(
        &self,
        table: &TableMetadata,
        snapshot: &Snapshot,
        parent: Option<&Snapshot>,
    ) -> Result<(), CatalogError> {
        let own = self.inner.storage.normalize(table.location())?;
        self.inner.seen.add(&own, &both(snapshot, parent));
        Ok(())
    }

    async fn check_snapshot(
        &self,
        own: &Location,
        table: &TableMetadata,
        snapshot: &Snapshot,
        parent: Option<&Snapshot>,
    ) -> Result<Option<SnapshotChanges>, CatalogError> {
        let (seen, both) = (&self.inner.seen, both(snapshot, parent));
        if !self.inner.options.checks_contents || seen.has(own, &both) {
            return Ok(None);
        }
        let changes = self.changes(own, snapshot, parent).await?;
        self.check_live(own, table, snapshot, parent, &changes).await?;
        self.check_not_queued(own, &changes.added_paths).await?;
        managed_table_rules::check_added(table, own, &changes)?;
        seen.add(own, &both);
        Ok(Some(changes))
    }

    /// What a snapshot does to its parent. Every file that its new manifests name is in the table.
    pub(super) async fn changes(
        &self,
        own: &Location,
        snapshot: &Snapshot,
        parent: Option<&Snapshot>,
    ) -> Result<SnapshotChanges, CatalogError> {
        let listed = self.listed(own, snapshot.manifest_list()).await?;
        let before = match parent.map(Snapshot::manifest_list) {
            Some(list) if list == snapshot.manifest_list() => Arc::new(listed.clone()),
            Some(list) => match self.inner.lists.committed.get(list) {
                Some(known) => known,
                None => Arc::new(self.listed(own, list).await?),
            },
            None => Arc::default(),
        };
        self.inner.lists.note(snapshot.manifest_list(), &listed);
        let changes = SnapshotChanges::between(&before, &listed);
        let mut changes = self.read_new(own, snapshot, changes).await?;
        changes.added_paths.extend(changes.new.iter().map(|manifest| manifest.path.clone()));
        Ok(changes)
    }

    /// Reads the new manifests of a snapshot.
    async fn read_new(
        &self,
        own: &Location,
        snapshot: &Snapshot,
        mut changes: SnapshotChanges,
    ) -> Result<SnapshotChanges, CatalogError> {
        let (id, new) = (snapshot.snapshot_id(), changes.new.clone());
        if MANIFESTS_MAX < new.len() {
            return Err(CatalogError::Invalid(format!(
                "snapshot {id} adds {} manifests, but at most {MANIFESTS_MAX} are checked: commit \
                 in several steps",
                new.len()
            )));
        }
        let mut left = BYTES_MAX;
        let is_first = changes.is_first;
        let reads = new.into_iter().map(|manifest| self.changes_of(own, (id, is_first), manifest));
        let mut reads = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
        while let Some(read) = reads.next().await {
            let (one, bytes) = read?;
            left = left.checked_sub(bytes).ok_or_else(|| {
                CatalogError::Invalid(format!(
                    "snapshot {id} adds more than {BYTES_MAX} bytes of manifests: commit in several \
                     steps"
                ))
            })?;
            changes.absorb(one);
        }
        Ok(changes)
    }

    async fn changes_of(
        &self,
        own: &Location,
        (snapshot_id, is_first): (i64, bool),
        manifest: ListedManifest,
    ) -> Result<(SnapshotChanges, usize), CatalogError> {
        let path = manifest.path.clone();
        let within = self.inner.options.checks_contents.then(|| own.clone());
        let read = move |bytes: &[u8]| {
            let mut changes = SnapshotChanges::new(is_first);
            let mut outside = None;
            entries::each(bytes, &mut |entry| {
                if let Some(own) = &within {
                    outside = outside.take().or_else(|| own.admit(&entry.path).err());
                }
                changes.take(snapshot_id, &manifest, entry);
            })?;
            Ok((changes, outside))
        };
        let ((changes, outside), bytes) = self.read_avro(own, &path, read).await?;
        if let Some(outside) = outside {
            return Err(outside);
        }
        self.inner.seen.add(own, &path);
        Ok((changes, bytes))
    }

    /// The manifests of a list, each inside the table.
    async fn listed(
        &self,
        own: &Location,
        list: &str,
    ) -> Result<Vec<ListedManifest>, CatalogError> {
        let schema = Arc::clone(&self.inner.lists.schema);
        let read = move |bytes: &[u8]| entries::manifests(bytes, &schema);
        let (listed, _) = self.read_avro(own, list, read).await?;
        listed.iter().try_for_each(|manifest| own.admit(&manifest.path).map(drop))?;
        Ok(listed)
    }

    /// The live files of a manifest that is part of the table. One that does not read has none: a
    /// commit may be there to leave it out.
    pub(super) async fn live_files(
        &self,
        own: &Location,
        manifest: &ListedManifest,
    ) -> Result<Vec<FileEntry>, CatalogError> {
        match self.read_avro(own, &manifest.path, entries::live).await {
            Ok((files, _)) => Ok(files),
            Err(CatalogError::Invalid(_)) => Ok(Vec::new()),
            Err(cause) => Err(cause),
        }
    }

    /// The path of a file that is in one of these manifests.
    pub(super) async fn path_of(
        &self,
        own: &Location,
        manifests: &[ListedManifest],
        key: FileKey,
    ) -> Result<String, CatalogError> {
        for manifest in manifests {
            let find = move |bytes: &[u8]| {
                let mut found = None;
                entries::each(bytes, &mut |entry| {
                    found =
                        found.take().or((FileKey::of(&entry.path) == key).then_some(entry.path));
                })?;
                Ok(found)
            };
            if let (Some(path), _) = self.read_avro(own, &manifest.path, find).await? {
                return Ok(path);
            }
        }
        Ok("a file".to_owned())
    }

    /// What `read` makes of a manifest or list of a table, and the file's size.
    async fn read_avro<T: Send + 'static>(
        &self,
        own: &Location,
        file: &str,
        read: impl FnOnce(&[u8]) -> Result<T, String> + Send + 'static,
    ) -> Result<(T, usize), CatalogError> {
        let location = own.admit(file)?;
        // A file that makes the parser panic is as unreadable as any other.
        let parse = move |bytes: &[u8]| {
            let is_whole = u64::try_from(bytes.len()).is_ok_and(|size| size <= FILE_BYTES_MAX);
            let parsed = is_whole.then(|| catch_unwind(AssertUnwindSafe(|| read(bytes))));
            (parsed, bytes.len())
        };
        let storage = &self.inner.storage;
        let (parsed, size) =
            match storage.parse_range(location.as_str(), 0..FILE_BYTES_MAX + 1, parse).await {
                Err(cause) if storage::is_missing(&cause) => {
                    return Err(CatalogError::Invalid(format!(
                        "`{file}` does not exist: write a snapshot's files before committing it"
                    )));
                }
                parsed => parsed?,
            };
        let parsed = parsed.ok_or_else(|| {
            CatalogError::Invalid(format!(
                "`{file}` has more than {FILE_BYTES_MAX} bytes: write smaller manifests"
            ))
        })?;
        let parsed = parsed.unwrap_or_else(|_| Err("it cannot be read".to_owned()));
        let parsed = parsed.map_err(|cause| {
            CatalogError::Invalid(format!("`{file}` is not a manifest or manifest list: {cause}"))
        })?;
        Ok((parsed, size))
    }
}

/// A snapshot's parent, in the table or added before it by the same change.
fn parent_of<'a>(
    snapshot: &Snapshot,
    base: Option<&'a TableMetadata>,
    added: &HashMap<i64, &'a Snapshot>,
) -> Option<&'a Snapshot> {
    let id = snapshot.parent_snapshot_id()?;
    let there = base.and_then(|base| base.snapshot_by_id(id));
    added.get(&id).copied().or(there.map(AsRef::as_ref))
}

/// What is wrong with a snapshot whose parent the table does not have any more: it was built on a history
/// that was removed since, and names files that went with it. To its client that is a lost race.
fn without_parent(cause: CatalogError, parent: i64) -> CatalogError {
    match cause {
        CatalogError::Invalid(why) => CatalogError::CommitFailed(format!(
            "Commit failed: it was built on snapshot {parent}, which was removed from the table since \
             ({why}): load the table again and repeat"
        )),
        cause => cause,
    }
}

/// The name under which a snapshot is remembered as looked at beside its parent.
fn both(snapshot: &Snapshot, parent: Option<&Snapshot>) -> String {
    let parent = parent.map_or("", |parent| parent.manifest_list());
    format!("{}\n{parent}", snapshot.manifest_list())
}
