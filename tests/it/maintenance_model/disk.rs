//! Reads a table's snapshots from its files: manifest lists, manifests, Parquet, position deletes. It shares
//! no reader with the server, so that the two can be held against each other.
//!
//! Files never change, so each is read once; that one is still there is for others to look at.

use crate::maintenance_model::model::{RowCounts, RowKey};
use arrow::{
    array::AsArray,
    compute::cast,
    datatypes::{DataType, Int64Type},
};
use bytes::Bytes;
use iceberg::spec::{
    DataContentType, FormatVersion, ManifestEntryRef, ManifestFile, ManifestList, Snapshot,
};
use icecore_catalog::storage::Storage;
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// The sequence number of the newest delete of each deleted row, by data file and place.
type DeletedRows = HashMap<(String, i64), i64>;

/// Reads snapshots, each file once.
pub(crate) struct DiskReader {
    pub(crate) storage: Storage,
    lists: HashMap<String, Arc<Vec<ManifestFile>>>,
    manifests: HashMap<String, Arc<Vec<ManifestEntryRef>>>,
    /// The two columns of data files, and of position delete files.
    files: HashMap<String, Arc<Vec<RowKey>>>,
    /// What a snapshot shows that has these live files.
    shown: HashMap<Vec<String>, Arc<RowCounts>>,
}

impl DiskReader {
    pub(crate) fn new(storage: Storage) -> Self {
        Self {
            storage,
            lists: HashMap::new(),
            manifests: HashMap::new(),
            files: HashMap::new(),
            shown: HashMap::new(),
        }
    }

    /// The manifests of a snapshot.
    pub(crate) async fn manifests(&mut self, snapshot: &Snapshot) -> Arc<Vec<ManifestFile>> {
        let list = snapshot.manifest_list();
        if let Some(known) = self.lists.get(list) {
            return Arc::clone(known);
        }
        let bytes = self.storage.get(list).await.unwrap();
        let read = ManifestList::parse_with_version(&bytes, FormatVersion::V2).unwrap();
        let read = Arc::new(read.entries().to_vec());
        self.lists.insert(list.to_owned(), Arc::clone(&read));
        read
    }

    /// The live files of a manifest.
    pub(crate) async fn entries(&mut self, manifest: &ManifestFile) -> Arc<Vec<ManifestEntryRef>> {
        if let Some(known) = self.manifests.get(&manifest.manifest_path) {
            return Arc::clone(known);
        }
        let read = manifest.load_manifest(&self.storage.file_io()).await.unwrap();
        let (mut entries, _) = read.into_parts();
        entries.retain(|entry| entry.is_alive());
        let entries = Arc::new(entries);
        self.manifests.insert(manifest.manifest_path.clone(), Arc::clone(&entries));
        entries
    }

    /// The live files of a snapshot.
    pub(crate) async fn live(&mut self, snapshot: &Snapshot) -> Vec<ManifestEntryRef> {
        let mut live = Vec::new();
        let manifests = self.manifests(snapshot).await;
        for manifest in manifests.iter() {
            live.extend(self.entries(manifest).await.iter().map(Arc::clone));
        }
        live
    }

    /// Every file that a reader of a snapshot opens.
    pub(crate) async fn named(&mut self, snapshot: &Snapshot) -> Vec<String> {
        let mut named = vec![snapshot.manifest_list().to_owned()];
        let manifests = self.manifests(snapshot).await;
        for manifest in manifests.iter() {
            named.push(manifest.manifest_path.clone());
            let entries = self.entries(manifest).await;
            named.extend(entries.iter().map(|entry| entry.file_path().to_owned()));
        }
        named
    }

    /// What a snapshot shows.
    pub(crate) async fn rows(&mut self, snapshot: &Snapshot) -> Arc<RowCounts> {
        let live = self.live(snapshot).await;
        let mut files: Vec<String> =
            live.iter().map(|entry| entry.file_path().to_owned()).collect();
        files.sort_unstable();
        if let Some(known) = self.shown.get(&files) {
            return Arc::clone(known);
        }
        let deleted = self.deleted(&live).await;
        let mut rows = RowCounts::default();
        for entry in live.iter().filter(|entry| is_data(entry)) {
            for (_, row) in self.remaining(entry, &deleted).await {
                rows.add(row);
            }
        }
        let rows = Arc::new(rows);
        self.shown.insert(files, Arc::clone(&rows));
        rows
    }

    /// The rows of a data file that nobody has deleted by these live files, with their places.
    pub(crate) async fn remaining_rows(
        &mut self,
        entry: &ManifestEntryRef,
        live: &[ManifestEntryRef],
    ) -> Vec<(i64, RowKey)> {
        let deleted = self.deleted(live).await;
        self.remaining(entry, &deleted).await
    }

    /// All rows of a data file.
    pub(crate) async fn rows_of_file(&mut self, path: &str) -> Arc<Vec<RowKey>> {
        self.columns(path, ["id", "seq"]).await
    }

    /// Whether a data file of a snapshot has a row of one of these ids, also one that is deleted.
    pub(crate) async fn has_any(&mut self, snapshot: &Snapshot, ids: &BTreeSet<String>) -> bool {
        let live = self.live(snapshot).await;
        for entry in live.iter().filter(|entry| is_data(entry)) {
            let rows = self.rows_of_file(entry.file_path()).await;
            if rows.iter().any(|(id, _)| ids.contains(id)) {
                return true;
            }
        }
        false
    }

    async fn remaining(
        &mut self,
        entry: &ManifestEntryRef,
        deleted: &DeletedRows,
    ) -> Vec<(i64, RowKey)> {
        let path = entry.file_path().to_owned();
        let made = entry.sequence_number().unwrap();
        let rows = self.rows_of_file(&path).await;
        let placed = (0_i64..).zip(rows.iter());
        let is_there = |place: i64| deleted.get(&(path.clone(), place)).is_none_or(|at| *at < made);
        placed.filter(|(at, _)| is_there(*at)).map(|(at, row)| (at, row.clone())).collect()
    }

    async fn deleted(&mut self, live: &[ManifestEntryRef]) -> DeletedRows {
        let mut deleted = DeletedRows::new();
        for entry in live.iter().filter(|entry| !is_data(entry)) {
            assert_eq!(entry.content_type(), DataContentType::PositionDeletes, "{entry:?}");
            let made = entry.sequence_number().unwrap();
            let places = self.columns(entry.file_path(), ["file_path", "pos"]).await;
            for place in places.iter() {
                let newest = deleted.entry(place.clone()).or_insert(made);
                *newest = made.max(*newest);
            }
        }
        deleted
    }

    /// A column of texts and one of numbers.
    async fn columns(&mut self, path: &str, names: [&str; 2]) -> Arc<Vec<RowKey>> {
        if let Some(known) = self.files.get(path) {
            return Arc::clone(known);
        }
        let bytes = self.storage.get(path).await.unwrap();
        let read = Arc::new(read_columns(bytes, names));
        self.files.insert(path.to_owned(), Arc::clone(&read));
        read
    }
}

pub(crate) fn is_data(entry: &ManifestEntryRef) -> bool {
    entry.content_type() == DataContentType::Data
}

fn read_columns(bytes: Bytes, names: [&str; 2]) -> Vec<RowKey> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let mask = ProjectionMask::columns(builder.parquet_schema(), names);
    let mut read = Vec::new();
    for rows in builder.with_projection(mask).build().unwrap() {
        let rows = rows.unwrap();
        // A reader of Parquet may give texts in several forms.
        let texts = cast(rows.column_by_name(names[0]).unwrap(), &DataType::Utf8).unwrap();
        let texts = texts.as_string::<i32>().iter().map(|text| text.unwrap().to_owned());
        let numbers = rows.column_by_name(names[1]).unwrap().as_primitive::<Int64Type>();
        read.extend(texts.zip(numbers.values().iter().copied()));
    }
    read
}
