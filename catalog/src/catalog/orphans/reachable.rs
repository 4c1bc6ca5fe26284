//! Every file that the metadata of a table names, in all snapshots that it has.
//!
//! Its one invariant: what could not be read is an error, so that a file which is not found here is named
//! by nothing. Files are kept as hashes of their paths, 16 bytes each: at most [`FILES_MAX`] of them,
//! 160 MB, and twice as much for a moment.

use crate::{
    catalog::LoadedTable,
    error::CatalogError,
    location::{self, Location},
    snapshot::entries::{self, LastSchema},
    storage::Storage,
    usage,
};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::TableMetadata;
use std::{
    collections::{BTreeSet, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};
use xxhash_rust::xxh3::xxh3_128;

/// Most files of a table that is looked at.
const FILES_MAX: usize = 10_000_000;
/// Largest manifest or manifest list; larger ones do not come with a commit.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Lists or manifests that are read at a time.
const READS_AT_ONCE: usize = 4;

/// The files of a table.
#[derive(Default)]
pub(super) struct ReachableFiles {
    /// In order.
    keys: Vec<u128>,
    /// The lists and manifests that were read: they never change.
    read: HashSet<String>,
    /// Lists of all tables are alike.
    schema: Arc<LastSchema>,
}

impl ReachableFiles {
    /// Whether the table names this file, or the one that this is a checksum of.
    pub(super) fn has(&self, location: &str) -> bool {
        let has = |location: &str| self.keys.binary_search(&key(location)).is_ok();
        has(location) || checked_file(location).is_some_and(|file| has(&file))
    }

    /// Takes in what this state of the table names. What an earlier state named stays.
    ///
    /// # Errors
    /// A list or manifest does not read, or names a file outside the table's folder.
    pub(super) async fn take_in(
        &mut self,
        storage: &Storage,
        own: &Location,
        table: &LoadedTable,
    ) -> Result<(), CatalogError> {
        self.keys.push(key_of(&table.metadata_location)?);
        for entry in table.metadata.metadata_log() {
            self.keys.push(key_of(&entry.metadata_file)?);
        }
        self.take_in_snapshots(storage, own, &table.metadata).await
    }

    /// The same without metadata files.
    ///
    /// # Errors
    /// As [`ReachableFiles::take_in`].
    pub(super) async fn take_in_snapshots(
        &mut self,
        storage: &Storage,
        own: &Location,
        metadata: &TableMetadata,
    ) -> Result<(), CatalogError> {
        let statistics = metadata.statistics_iter().map(|file| file.statistics_path.as_str());
        let partitions =
            metadata.partition_statistics_iter().map(|file| file.statistics_path.as_str());
        let mut keys = Vec::new();
        for file in statistics.chain(partitions) {
            keys.push(key_of(file)?);
        }
        let manifests = self.read_lists(storage, own, metadata, &mut keys).await?;
        self.read_manifests(storage, own, manifests, &mut keys).await?;
        let mut all = std::mem::take(&mut self.keys);
        all.extend(keys);
        let sorted = tokio::task::spawn_blocking(usage::carried(move || {
            all.sort_unstable();
            all.dedup();
            all
        }));
        let stopped = |_| CatalogError::Busy("the process is about to end".to_owned());
        self.keys = sorted.await.map_err(stopped)?;
        Ok(())
    }

    /// The manifests of the snapshots whose lists were not read before.
    async fn read_lists(
        &mut self,
        storage: &Storage,
        own: &Location,
        metadata: &TableMetadata,
        keys: &mut Vec<u128>,
    ) -> Result<BTreeSet<String>, CatalogError> {
        let mut reads = Vec::new();
        for snapshot in metadata.snapshots() {
            let list = snapshot.manifest_list();
            keys.push(key_of(list)?);
            if self.read.insert(list.to_owned()) {
                let schema = Arc::clone(&self.schema);
                reads.push(manifests(storage.clone(), own.clone(), schema, list.to_owned()));
            }
        }
        let mut manifests = BTreeSet::new();
        let mut reads = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
        while let Some(listed) = reads.try_next().await? {
            for manifest in listed {
                keys.push(key_of(&manifest)?);
                manifests.insert(manifest);
            }
        }
        Ok(manifests)
    }

    /// Adds the live files of the manifests that were not read before.
    async fn read_manifests(
        &mut self,
        storage: &Storage,
        own: &Location,
        manifests: BTreeSet<String>,
        keys: &mut Vec<u128>,
    ) -> Result<(), CatalogError> {
        let mut reads = Vec::new();
        for manifest in manifests {
            if self.read.insert(manifest.clone()) {
                reads.push(live(storage.clone(), own.clone(), manifest));
            }
        }
        let mut reads = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
        while let Some(files) = reads.try_next().await? {
            keys.extend(files);
            if FILES_MAX < self.keys.len() + keys.len() {
                return Err(CatalogError::Invalid(format!(
                    "it has more than {FILES_MAX} files, and its orphans are not looked for: merge \
                     small files, or remove orphans with another engine"
                )));
            }
        }
        Ok(())
    }
}

/// The paths of a list's manifests.
async fn manifests(
    storage: Storage,
    own: Location,
    schema: Arc<LastSchema>,
    list: String,
) -> Result<Vec<String>, CatalogError> {
    let parse = move |bytes: &[u8]| {
        let listed = entries::manifests(bytes, &schema)?;
        Ok(listed.into_iter().map(|manifest| manifest.path).collect())
    };
    read(&storage, &own, &list, parse).await
}

/// The keys of a manifest's live files. A file that it only says is deleted is live in a manifest of
/// another snapshot, or in none. One that lies elsewhere by its name may be in the folder all the same.
async fn live(
    storage: Storage,
    own: Location,
    manifest: String,
) -> Result<Vec<u128>, CatalogError> {
    let folder = own.clone();
    let parse = move |bytes: &[u8]| {
        let (mut keys, mut outside) = (Vec::new(), None);
        entries::each(bytes, &mut |entry| {
            if entry.is_live() {
                match folder.admit(&entry.path) {
                    Ok(file) => keys.push(key(file.as_str())),
                    Err(_) => outside = Some(entry.path),
                }
            }
        })?;
        match outside {
            Some(path) => Err(format!("it names `{path}`, which is not in the table's folder")),
            None => Ok(keys),
        }
    };
    read(&storage, &own, &manifest, parse).await
}

async fn read<T: Send + 'static>(
    storage: &Storage,
    own: &Location,
    file: &str,
    parse: impl FnOnce(&[u8]) -> Result<T, String> + Send + 'static,
) -> Result<T, CatalogError> {
    let location = own.admit(file)?;
    let parse = move |bytes: &[u8]| {
        if u64::try_from(bytes.len()).is_ok_and(|length| FILE_BYTES_MAX < length) {
            return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
        }
        // A file that makes the parser panic is as unreadable as any other.
        let parsed = catch_unwind(AssertUnwindSafe(|| parse(bytes)));
        parsed.unwrap_or_else(|_| Err("it cannot be read".to_owned()))
    };
    let parsed = storage.parse_range(location.as_str(), 0..FILE_BYTES_MAX + 1, parse).await?;
    parsed.map_err(|cause| {
        CatalogError::Invalid(format!("`{file}` is not a manifest or manifest list: {cause}"))
    })
}

/// The key of a file as metadata names it.
fn key_of(file: &str) -> Result<u128, CatalogError> {
    let location = Location::parse(file).ok_or_else(|| {
        CatalogError::Invalid(format!(
            "its metadata names `{file}`, which does not say where that is"
        ))
    })?;
    Ok(key(location.as_str()))
}

/// The same for a location in its normal form. Some clients decode a name when they write the file and
/// some do not, and some disks do not tell `A` from `a`, so names that differ only by that are one file.
fn key(location: &str) -> u128 {
    let mut decoded = location::decoded(location);
    decoded.make_ascii_lowercase();
    xxh3_128(&decoded)
}

/// The file beside it that a checksum of Hadoop's is about.
pub(super) fn checked_file(location: &str) -> Option<String> {
    let (folder, name) = location.rsplit_once('/')?;
    let name = name.strip_prefix('.')?.strip_suffix(".crc")?;
    Some(format!("{folder}/{name}"))
}
