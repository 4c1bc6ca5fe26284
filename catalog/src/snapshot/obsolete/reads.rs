//! Reads the lists and manifests of a table's history, each once.
//!
//! Neither ever changes, so what was read for one plan holds for the next one of the table, which may be
//! made while others wait for it.

use crate::{
    error::CatalogError,
    location::Location,
    snapshot::{changes::FileKey, entries, manifests},
    storage::Storage,
    usage,
};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::{
    ErrorKind,
    spec::{SnapshotRef, TableMetadata},
};
use std::collections::{BTreeSet, HashMap};

/// Lists that are read at a time.
const LISTS_AT_ONCE: usize = 8;
/// Manifests that are read at a time.
const MANIFESTS_AT_ONCE: usize = 4;
/// Most live files whose keys are kept for a later plan, 16 bytes each; manifests beyond are read again.
const KEYS_KEPT: usize = 4_000_000;
/// Most live files of manifests that go whose paths are kept so, some 200 bytes each.
const PATHS_KEPT: usize = 200_000;
/// The name of a manifest takes as much room as so many live files.
const FILES_OF_A_NAME: usize = 10;

/// What was read of a table for a plan.
#[derive(Debug, Default)]
pub(crate) struct HistoryReads {
    /// The manifests of each list.
    lists: HashMap<String, Vec<String>>,
    /// The files that are live in each manifest.
    live: HashMap<String, Vec<FileKey>>,
    keys_kept: usize,
    /// The same of manifests that go, as paths.
    going: HashMap<String, Vec<String>>,
    paths_kept: usize,
}

impl HistoryReads {
    /// Forgets the lists, and not the manifests.
    pub(crate) fn forget_lists(&mut self) {
        self.lists.clear();
    }

    /// Forgets the live files of all manifests but these.
    pub(crate) fn forget_all_but(&mut self, manifests: &BTreeSet<String>) {
        self.live.retain(|manifest, _| manifests.contains(manifest));
        self.keys_kept = self.live.values().map(Vec::len).sum();
    }

    /// About how much room the manifests take that stay, in live files.
    pub(crate) fn weight(&self) -> usize {
        self.keys_kept + FILES_OF_A_NAME * self.live.len()
    }
}

/// Reads what was not read yet.
pub(crate) struct HistoryReader<'a> {
    pub(crate) storage: &'a Storage,
    pub(crate) base: &'a TableMetadata,
    pub(crate) known: &'a mut HistoryReads,
}

impl HistoryReader<'_> {
    /// The manifests that snapshots list.
    pub(crate) async fn listed(
        &mut self,
        snapshots: &[SnapshotRef],
    ) -> Result<BTreeSet<String>, CatalogError> {
        let known = &self.known.lists;
        let unread = snapshots.iter().filter(|it| !known.contains_key(it.manifest_list()));
        let (storage, base) = (self.storage, self.base);
        let reads: Vec<_> =
            unread.map(|it| list(storage.clone(), base, SnapshotRef::clone(it))).collect();
        let mut reads = stream::iter(reads).buffer_unordered(LISTS_AT_ONCE);
        while let Some((list, manifests)) = reads.try_next().await? {
            self.known.lists.insert(list, manifests);
        }
        let known = &self.known.lists;
        let lists = snapshots.iter().filter_map(|it| known.get(it.manifest_list()));
        Ok(lists.flatten().cloned().collect())
    }

    /// The normal forms of the files inside the table that are live in these manifests.
    pub(super) async fn live(
        &mut self,
        manifests: &BTreeSet<String>,
    ) -> Result<HashMap<FileKey, String>, CatalogError> {
        let known = &self.known.going;
        let with_key = |path: &String| (FileKey::of(path), path.clone());
        let paths = manifests.iter().filter_map(|manifest| known.get(manifest)).flatten();
        let mut found: HashMap<FileKey, String> = paths.map(with_key).collect();
        let unread = manifests.iter().filter(|manifest| !known.contains_key(*manifest));
        let (storage, own) = (self.storage, self.own()?);
        let read = |manifest: &String| live(storage.clone(), own.clone(), manifest.clone());
        let reads: Vec<_> = unread.map(read).collect();
        let mut reads = stream::iter(reads).buffer_unordered(MANIFESTS_AT_ONCE);
        while let Some((manifest, paths)) = reads.try_next().await? {
            found.extend(paths.iter().map(with_key));
            if self.known.paths_kept + paths.len() <= PATHS_KEPT {
                self.known.paths_kept += paths.len();
                self.known.going.insert(manifest, paths);
            }
        }
        Ok(found)
    }

    /// Takes out the files that are live in any of these manifests.
    pub(crate) async fn take_out_live(
        &mut self,
        files: &mut HashMap<FileKey, String>,
        manifests: &BTreeSet<String>,
    ) -> Result<(), CatalogError> {
        let known = &self.known.live;
        for key in manifests.iter().filter_map(|manifest| known.get(manifest)).flatten() {
            files.remove(key);
        }
        let unread = manifests.iter().filter(|manifest| !known.contains_key(*manifest));
        let (storage, own) = (self.storage, self.own()?);
        let read = |manifest: &String| live(storage.clone(), own.clone(), manifest.clone());
        let reads: Vec<_> = unread.map(read).collect();
        let mut reads = stream::iter(reads).buffer_unordered(MANIFESTS_AT_ONCE);
        while !files.is_empty()
            && let Some((manifest, paths)) = reads.try_next().await?
        {
            let keys: Vec<FileKey> = paths.iter().map(|path| FileKey::of(path)).collect();
            for key in &keys {
                files.remove(key);
            }
            if self.known.keys_kept + keys.len() <= KEYS_KEPT {
                self.known.keys_kept += keys.len();
                self.known.live.insert(manifest, keys);
            }
        }
        Ok(())
    }

    pub(crate) fn own(&self) -> Result<Location, CatalogError> {
        self.storage.normalize(self.base.location())
    }
}

/// A manifest and the normal forms of its live files.
type LiveFiles = (String, Vec<String>);

async fn list(
    storage: Storage,
    base: &TableMetadata,
    snapshot: SnapshotRef,
) -> Result<(String, Vec<String>), CatalogError> {
    let listed = manifests::read_list(&storage, base, &snapshot).await?;
    let manifests = listed.into_iter().map(|manifest| manifest.manifest_path).collect();
    Ok((snapshot.manifest_list().to_owned(), manifests))
}

/// The files that are live in a manifest. Clients spell one location in several ways; of files outside the
/// table nothing is said.
async fn live(
    storage: Storage,
    own: Location,
    manifest: String,
) -> Result<LiveFiles, CatalogError> {
    let bytes = storage.get(own.admit(&manifest)?.as_str()).await?;
    let read = tokio::task::spawn_blocking(usage::carried(move || {
        let normal = |path: &str| Some(own.admit(path).ok()?.to_string());
        let files = entries::live(&bytes)?;
        Ok::<Vec<String>, String>(files.iter().filter_map(|file| normal(&file.path)).collect())
    }))
    .await;
    let files = read.unwrap_or_else(|_| Err("it cannot be read".to_owned()));
    let files = files.map_err(|cause| CatalogError::Iceberg {
        operation: "read a manifest of a removed snapshot",
        source: iceberg::Error::new(ErrorKind::DataInvalid, format!("`{manifest}`: {cause}")),
    })?;
    Ok((manifest, files))
}
