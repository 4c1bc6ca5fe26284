//! What the manifests of a snapshot say: its data files with their counts and bounds.
//!
//! Manifest lists and manifests never change once written, so parsed ones are kept, reduced to what
//! planning needs. A snapshot's delete files are listed here and applied in [`crate::sql::deletes`].

use crate::sql::SqlError;
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{
    DataContentType, DataFile, Manifest, ManifestContentType, ManifestEntry, ManifestFile,
    ManifestList, PrimitiveLiteral, Struct, TableMetadata,
};
use icecore_catalog::{location::Location, storage::Storage};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Most data files whose descriptions are kept; each takes about 5 KiB.
const CACHED_FILES_MAX: usize = 20_000;
/// Most manifest lists that are kept.
const CACHED_LISTS_MAX: usize = 256;
/// Manifests read at the same time.
const READS_AT_ONCE: usize = 8;

/// A live data or delete file.
#[derive(Clone, Debug)]
pub struct PlannedFile {
    /// Where it is, as the manifest has it.
    pub location: String,
    /// What its rows are.
    pub content: DataContentType,
    /// Its size.
    pub bytes: u64,
    /// How many rows it has.
    pub rows: u64,
    /// Id of the partition spec it was written with.
    pub spec_id: i32,
    /// Its partition.
    pub partition: Struct,
    /// When its rows became part of the table; deletes reach files that are not younger.
    pub sequence: i64,
    /// Counts and bounds by field id, ascending.
    columns: Vec<ColumnBounds>,
}

/// What is known of one column of a file.
#[derive(Clone, Debug)]
pub struct ColumnBounds {
    id: i32,
    /// Rows without a value.
    pub nulls: Option<u64>,
    /// Whether a value may be NaN, which no bound covers.
    pub may_be_nan: bool,
    /// Not above any value.
    pub lower: Option<PrimitiveLiteral>,
    /// Not below any value.
    pub upper: Option<PrimitiveLiteral>,
}

impl PlannedFile {
    /// What is known of a column; none when the file may lack it.
    #[must_use]
    pub fn column(&self, field_id: i32) -> Option<&ColumnBounds> {
        let at = self.columns.binary_search_by_key(&field_id, |column| column.id).ok()?;
        self.columns.get(at)
    }

    fn new(entry: &ManifestEntry, manifest: &ManifestFile) -> Self {
        let file = entry.data_file();
        Self {
            location: file.file_path().to_owned(),
            content: file.content_type(),
            bytes: file.file_size_in_bytes(),
            rows: file.record_count(),
            spec_id: manifest.partition_spec_id,
            partition: file.partition().clone(),
            // An entry without one was added with the manifest.
            sequence: entry.sequence_number().unwrap_or(manifest.sequence_number),
            columns: columns(file),
        }
    }
}

fn columns(file: &DataFile) -> Vec<ColumnBounds> {
    let mut ids: Vec<i32> = file.value_counts().keys().copied().collect();
    ids.extend(file.null_value_counts().keys().chain(file.lower_bounds().keys()));
    ids.sort_unstable();
    ids.dedup();
    let literal = |bounds: &HashMap<i32, iceberg::spec::Datum>, id: &i32| {
        bounds.get(id).map(|bound| bound.literal().clone())
    };
    ids.into_iter()
        .map(|id| ColumnBounds {
            id,
            nulls: file.null_value_counts().get(&id).copied(),
            may_be_nan: file.nan_value_counts().get(&id) != Some(&0),
            lower: literal(file.lower_bounds(), &id),
            upper: literal(file.upper_bounds(), &id),
        })
        .collect()
}

/// Files of a manifest or a snapshot.
pub type Files = Vec<Arc<PlannedFile>>;

/// Parsed manifests by location. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ManifestCache {
    lists: Arc<Mutex<HashMap<String, Arc<Vec<ManifestFile>>>>>,
    files: Arc<Mutex<HashMap<String, Arc<Files>>>>,
}

impl ManifestCache {
    /// The manifests of a snapshot that have live files.
    ///
    /// # Errors
    /// [`SqlError::NotFound`] when the snapshot is gone, [`SqlError::Internal`] when its list does
    /// not read.
    pub async fn manifests(
        &self,
        storage: &Storage,
        metadata: &TableMetadata,
        snapshot_id: i64,
    ) -> Result<Arc<Vec<ManifestFile>>, SqlError> {
        let Some(snapshot) = metadata.snapshot_by_id(snapshot_id) else {
            return Err(SqlError::NotFound(format!("snapshot {snapshot_id} has expired")));
        };
        let own = folder(storage, metadata)?;
        let location = own.admit(snapshot.manifest_list()).map_err(|cause| unreadable(&cause))?;
        let location = location.as_str();
        if let Some(list) = self.lists.lock().unwrap_or_else(PoisonError::into_inner).get(location)
        {
            return Ok(Arc::clone(list));
        }
        let bytes = storage.get(location).await.map_err(|cause| unreadable(&cause))?;
        let list = ManifestList::parse_with_version(&bytes, metadata.format_version())
            .map_err(|cause| unreadable(&cause))?;
        let live = |manifest: &ManifestFile| {
            manifest.added_files_count != Some(0) || manifest.existing_files_count != Some(0)
        };
        let list = Arc::new(list.consume_entries().into_iter().filter(live).collect::<Vec<_>>());
        let mut cache = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if CACHED_LISTS_MAX <= cache.len() {
            cache.clear();
        }
        cache.insert(location.to_owned(), Arc::clone(&list));
        Ok(list)
    }

    /// The live files of these manifests, in their order. Each lies in the table's own folder.
    ///
    /// # Errors
    /// [`SqlError::Internal`] when a manifest does not read, or names a file elsewhere.
    pub async fn files(
        &self,
        storage: &Storage,
        metadata: &TableMetadata,
        manifests: &[&ManifestFile],
    ) -> Result<Files, SqlError> {
        let own = &folder(storage, metadata)?;
        let reads: Vec<_> =
            manifests.iter().map(|manifest| self.manifest(storage, own, manifest)).collect();
        let parsed: Vec<Arc<Files>> =
            stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
        Ok(parsed.iter().flat_map(|files| files.iter().map(Arc::clone)).collect())
    }

    async fn manifest(
        &self,
        storage: &Storage,
        own: &Location,
        manifest: &ManifestFile,
    ) -> Result<Arc<Files>, SqlError> {
        let admit = |file: &str| own.admit(file).map_err(|cause| unreadable(&cause));
        let location = admit(&manifest.manifest_path)?;
        let location = location.as_str();
        if let Some(files) = self.files.lock().unwrap_or_else(PoisonError::into_inner).get(location)
        {
            return Ok(Arc::clone(files));
        }
        let bytes = storage.get(location).await.map_err(|cause| unreadable(&cause))?;
        let parsed = Manifest::parse_avro(&bytes).map_err(|cause| unreadable(&cause))?;
        let live = parsed.entries().iter().filter(|entry| entry.is_alive());
        live.clone().try_for_each(|entry| admit(entry.file_path()).map(|_| ()))?;
        let files: Arc<Files> =
            Arc::new(live.map(|entry| Arc::new(PlannedFile::new(entry, manifest))).collect());
        let mut cache = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        // A full cache starts anew: the manifests in use are back after one query each.
        let kept: usize = cache.values().map(|files| files.len()).sum();
        if CACHED_FILES_MAX < kept + files.len() {
            cache.clear();
        }
        cache.insert(location.to_owned(), Arc::clone(&files));
        Ok(files)
    }
}

/// The folder that a table's files lie in. It was checked when they were committed, but a file may
/// have changed since, so it is checked again before anything is opened.
fn folder(storage: &Storage, metadata: &TableMetadata) -> Result<Location, SqlError> {
    storage.normalize(metadata.location()).map_err(|cause| unreadable(&cause))
}

/// Whether a manifest lists delete files.
#[must_use]
pub fn has_deletes(manifest: &ManifestFile) -> bool {
    manifest.content == ManifestContentType::Deletes
}

/// The error for files of ours that do not read; the log has the reason.
pub(super) fn unreadable(cause: &(dyn std::error::Error + 'static)) -> SqlError {
    tracing::error!(error = cause, "a snapshot's files do not read");
    SqlError::Internal("the snapshot's files cannot be read".to_owned())
}
