//! What the manifests of a snapshot say: its files with their counts and bounds.
//!
//! Manifest lists and manifests never change once written, so parsed ones are kept, reduced to what
//! planning needs. Its one invariant: no location is read or handed out that lies outside of the table's own.

use super::{Deadline, ScanError};
use crate::{
    byte_cache::ByteCache,
    location::Location,
    manifest_file,
    storage::{self, Storage},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{
    DataContentType, DataFile, DataFileFormat, Datum, Manifest, ManifestContentType, ManifestEntry,
    ManifestFile, ManifestStatus, PrimitiveLiteral, Struct, TableMetadata,
};
use std::sync::Arc;

/// Most bytes of descriptions of files that are kept; one takes about 5 KiB.
const FILES_BYTES_MAX: usize = 96 << 20;
/// Most bytes of manifest lists that are kept.
const LISTS_BYTES_MAX: usize = 8 << 20;
/// Manifests read at the same time.
const READS_AT_ONCE: usize = 8;

/// A live data or delete file.
#[derive(Clone, Debug)]
pub struct PlannedFile {
    /// Where it is, as the manifest has it.
    pub location: String,
    /// What its rows are.
    pub content: DataContentType,
    /// How they are written.
    pub format: DataFileFormat,
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
    /// The snapshot that added it, where this manifest is the one it was added with.
    pub added_by: Option<i64>,
    /// Where a reader may split it.
    pub split_offsets: Option<Vec<i64>>,
    /// How its rows are sorted.
    pub sort_order_id: Option<i32>,
    /// What its encryption needs.
    pub key_metadata: Option<Vec<u8>>,
    /// Id of its first row.
    pub first_row_id: Option<i64>,
    /// Columns that an equality delete compares.
    pub equality_ids: Option<Vec<i32>>,
    /// The only data file that a delete file is about.
    pub referenced_data_file: Option<String>,
    /// Where in the file a deletion vector is.
    pub content_offset: Option<i64>,
    /// How long it is.
    pub content_bytes: Option<i64>,
    /// Counts and bounds by field id, ascending.
    columns: Vec<ColumnBounds>,
}

/// What is known of one column of a file.
#[derive(Clone, Debug)]
pub struct ColumnBounds {
    /// Its field id.
    pub id: i32,
    /// Its size in the file.
    pub bytes: Option<u64>,
    /// Its values, with missing ones and such that are not a number.
    pub values: Option<u64>,
    /// Rows without a value.
    pub nulls: Option<u64>,
    /// Values that are not a number, which no bound covers.
    pub nans: Option<u64>,
    /// Not above any value.
    pub lower: Option<Datum>,
    /// Not below any value.
    pub upper: Option<Datum>,
}

impl PlannedFile {
    /// What is known of a column; none when the file may lack it.
    #[must_use]
    pub fn column(&self, field_id: i32) -> Option<&ColumnBounds> {
        let at = self.columns.binary_search_by_key(&field_id, |column| column.id).ok()?;
        self.columns.get(at)
    }

    /// What is known of its columns, by ascending field id.
    #[must_use]
    pub fn columns(&self) -> &[ColumnBounds] {
        &self.columns
    }

    /// About how much memory it takes.
    fn memory_bytes(&self) -> usize {
        let columns = self.columns.iter().map(|column| {
            let bounds = [&column.lower, &column.upper].into_iter().flatten();
            size_of::<ColumnBounds>() + bounds.map(bytes_of_bound).sum::<usize>()
        });
        let splits =
            self.split_offsets.as_ref().map_or(0, |offsets| size_of_val(offsets.as_slice()));
        let partition = size_of_val(self.partition.fields());
        size_of::<Self>() + self.location.len() + splits + partition + columns.sum::<usize>()
    }

    fn new(entry: &ManifestEntry, manifest: &ManifestFile, first_row_id: Option<i64>) -> Self {
        let file = entry.data_file();
        let is_added = entry.status() == ManifestStatus::Added;
        Self {
            location: file.file_path().to_owned(),
            content: file.content_type(),
            format: file.file_format(),
            bytes: file.file_size_in_bytes(),
            rows: file.record_count(),
            spec_id: manifest.partition_spec_id,
            partition: file.partition().clone(),
            // An entry without one was added with the manifest.
            sequence: entry.sequence_number().unwrap_or(manifest.sequence_number),
            added_by: is_added.then(|| entry.snapshot_id().unwrap_or(manifest.added_snapshot_id)),
            split_offsets: file.split_offsets().map(<[i64]>::to_vec),
            sort_order_id: file.sort_order_id(),
            key_metadata: file.key_metadata().map(<[u8]>::to_vec),
            first_row_id,
            equality_ids: file.equality_ids(),
            referenced_data_file: file.referenced_data_file(),
            content_offset: file.content_offset(),
            content_bytes: file.content_size_in_bytes(),
            columns: columns(file),
        }
    }
}

fn columns(file: &DataFile) -> Vec<ColumnBounds> {
    let mut ids: Vec<i32> = file.value_counts().keys().copied().collect();
    ids.extend(file.null_value_counts().keys().chain(file.lower_bounds().keys()));
    ids.extend(file.column_sizes().keys().chain(file.upper_bounds().keys()));
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter()
        .map(|id| ColumnBounds {
            id,
            bytes: file.column_sizes().get(&id).copied(),
            values: file.value_counts().get(&id).copied(),
            nulls: file.null_value_counts().get(&id).copied(),
            nans: file.nan_value_counts().get(&id).copied(),
            lower: file.lower_bounds().get(&id).cloned(),
            upper: file.upper_bounds().get(&id).cloned(),
        })
        .collect()
}

/// Files of a manifest or a snapshot.
pub type PlannedFiles = Vec<Arc<PlannedFile>>;

/// Parsed manifests by location. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ManifestCache {
    lists: Arc<ByteCache<String, Arc<Vec<ManifestFile>>>>,
    files: Arc<ByteCache<String, Arc<PlannedFiles>>>,
}

impl Default for ManifestCache {
    fn default() -> Self {
        Self::with_share(1)
    }
}

impl ManifestCache {
    /// A cache of the usual bytes divided by `share`.
    ///
    /// # Panics
    /// `share` is zero.
    #[must_use]
    pub fn with_share(share: usize) -> Self {
        Self {
            lists: Arc::new(ByteCache::new(LISTS_BYTES_MAX / share)),
            files: Arc::new(ByteCache::new(FILES_BYTES_MAX / share)),
        }
    }

    /// The manifests of a snapshot that have live files.
    ///
    /// # Errors
    /// [`ScanError::NoSuchSnapshot`] when the snapshot is gone, [`ScanError::Damaged`] or
    /// [`ScanError::Catalog`] when its list does not read.
    pub async fn manifests(
        &self,
        storage: &Storage,
        metadata: &TableMetadata,
        snapshot_id: i64,
    ) -> Result<Arc<Vec<ManifestFile>>, ScanError> {
        let Some(snapshot) = metadata.snapshot_by_id(snapshot_id) else {
            return Err(ScanError::NoSuchSnapshot(snapshot_id));
        };
        let own = storage.normalize(metadata.location())?;
        let location = own.admit(snapshot.manifest_list())?;
        let location = location.as_str();
        if let Some(list) = self.lists.get(location) {
            return Ok(list);
        }
        let bytes = stored(storage, location).await?;
        let list = manifest_file::parse_list(&bytes, metadata.format_version())
            .map_err(damaged(location))?;
        let live = |manifest: &ManifestFile| {
            manifest.added_files_count != Some(0) || manifest.existing_files_count != Some(0)
        };
        let list = Arc::new(list.consume_entries().into_iter().filter(live).collect::<Vec<_>>());
        let bytes = location.len() + list.iter().map(bytes_of_manifest).sum::<usize>();
        self.lists.insert(location.to_owned(), Arc::clone(&list), bytes);
        Ok(list)
    }

    /// The live files of these manifests, in their order. Each lies in the table's own folder.
    ///
    /// # Errors
    /// [`ScanError::Catalog`] when a manifest does not read, or names a file elsewhere.
    pub async fn files(
        &self,
        storage: &Storage,
        metadata: &TableMetadata,
        manifests: &[&ManifestFile],
        until: Deadline,
    ) -> Result<PlannedFiles, ScanError> {
        // It was checked when the files were committed, but one may have changed since.
        let own = &storage.normalize(metadata.location())?;
        let read = |manifest| self.manifest(storage, own, manifest, until);
        let reads: Vec<_> = manifests.iter().map(|manifest| read(*manifest)).collect();
        let parsed: Vec<Arc<PlannedFiles>> =
            stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
        Ok(parsed.iter().flat_map(|files| files.iter().map(Arc::clone)).collect())
    }

    async fn manifest(
        &self,
        storage: &Storage,
        own: &Location,
        manifest: &ManifestFile,
        until: Deadline,
    ) -> Result<Arc<PlannedFiles>, ScanError> {
        let location = own.admit(&manifest.manifest_path)?;
        let location = location.as_str();
        if let Some(files) = self.files.get(location) {
            return Ok(files);
        }
        let bytes = stored(storage, location).await?;
        // One takes a moment, and a snapshot may have thousands.
        until.check()?;
        let parsed = manifest_file::parse(&bytes).map_err(damaged(location))?;
        let files = live_files(&parsed, manifest);
        for file in &files {
            own.admit(&file.location)?;
        }
        let files = Arc::new(files);
        let bytes = location.len() + files.iter().map(|file| file.memory_bytes()).sum::<usize>();
        self.files.insert(location.to_owned(), Arc::clone(&files), bytes);
        Ok(files)
    }
}

/// About how much memory what a list says of a manifest takes.
fn bytes_of_manifest(manifest: &ManifestFile) -> usize {
    let summaries = manifest.partitions.as_deref().unwrap_or_default().iter().map(|summary| {
        let bounds = [&summary.lower_bound, &summary.upper_bound];
        let bounds = bounds.into_iter().flatten().map(|bound| bound.len());
        size_of_val(summary) + bounds.sum::<usize>()
    });
    size_of::<ManifestFile>() + manifest.manifest_path.len() + summaries.sum::<usize>()
}

/// About how much memory a bound takes beside its own place.
fn bytes_of_bound(bound: &Datum) -> usize {
    match bound.literal() {
        PrimitiveLiteral::String(text) => text.len(),
        PrimitiveLiteral::Binary(bytes) => bytes.len(),
        _ => 0,
    }
}

/// The live files of a manifest, in its order; what an entry does not say of its file is the list's to
/// say.
#[must_use]
pub fn live_files(parsed: &Manifest, manifest: &ManifestFile) -> PlannedFiles {
    let mut next_row_id = manifest.first_row_id.and_then(|id| i64::try_from(id).ok());
    let mut files = PlannedFiles::new();
    for entry in parsed.entries() {
        let mut first_row_id = entry.data_file().first_row_id();
        // Files that were added with the manifest are numbered in its order.
        if let (None, Some(next), true) = (first_row_id, next_row_id, entry.is_alive()) {
            first_row_id = Some(next);
            let rows = i64::try_from(entry.record_count()).unwrap_or(i64::MAX);
            next_row_id = Some(next.saturating_add(rows));
        }
        if entry.is_alive() {
            files.push(Arc::new(PlannedFile::new(entry, manifest, first_row_id)));
        }
    }
    files
}

/// Whether a manifest lists delete files.
pub(super) fn has_deletes(manifest: &ManifestFile) -> bool {
    manifest.content == ManifestContentType::Deletes
}

pub(super) async fn stored(storage: &Storage, location: &str) -> Result<Bytes, ScanError> {
    storage.get(location).await.map_err(|cause| match storage::is_missing(&cause) {
        true => {
            ScanError::Damaged { location: location.to_owned(), reason: "is not there".to_owned() }
        }
        false => cause.into(),
    })
}

pub(super) fn damaged(location: &str) -> impl FnOnce(iceberg::Error) -> ScanError {
    move |cause| {
        let reason = format!("is damaged ({})", cause.message());
        ScanError::Damaged { location: location.to_owned(), reason }
    }
}
