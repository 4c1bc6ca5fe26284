//! A writer of another engine: it reads a table, writes files of its own, and commits them over the Iceberg
//! REST protocol. Its data files are copies of files of the table, so that rows are there several times.

use crate::maintenance_model::{
    disk::{DiskReader, is_data},
    model::{RowChange, RowCounts},
};
use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, ManifestContentType,
    ManifestEntryRef, ManifestFile, ManifestListWriter, ManifestWriterBuilder, Snapshot,
    TableMetadata,
};
use icecore_catalog::snapshot::SNAPSHOT_ID_END;
use parquet::arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use std::sync::Arc;

/// What one commit of another engine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForeignWork {
    /// Adds the rows of a data file once more.
    Copy,
    /// Deletes some rows of a data file by their places.
    DeleteRows,
    /// Takes a whole data file out.
    RemoveFile,
    /// Deletes some rows and adds others.
    Update,
}

/// A commit that is written and not sent.
#[derive(Debug)]
pub(crate) struct ForeignCommit {
    pub(crate) id: i64,
    pub(crate) change: RowChange,
    pub(crate) body: Value,
    files: ForeignFiles,
}

/// The files of a commit.
#[derive(Debug, Default)]
struct ForeignFiles {
    added: Vec<DataFile>,
    deletes: Vec<DataFile>,
    removed: Option<ManifestEntryRef>,
    change: RowChange,
}

/// Writes one commit to a branch of a table.
pub(crate) struct ForeignWriter<'a> {
    pub(crate) disk: &'a mut DiskReader,
    pub(crate) metadata: &'a TableMetadata,
    pub(crate) branch: &'a str,
}

impl ForeignWriter<'_> {
    /// Writes everything but the commit itself; none where the branch has too few files for it.
    pub(crate) async fn write(mut self, work: ForeignWork, seed: u64) -> Option<ForeignCommit> {
        let head = Arc::clone(self.metadata.snapshot_for_ref(self.branch)?);
        let mut random = StdRng::seed_from_u64(seed);
        let id = random.random_range(1..SNAPSHOT_ID_END);
        let live = self.disk.live(&head).await;
        let data: Vec<&ManifestEntryRef> = live.iter().filter(|entry| is_data(entry)).collect();
        let at = random.random_range(0..data.len().max(1));
        let (entry, next) = (*data.get(at)?, data[(at + 1) % data.len()]);
        let mut files = ForeignFiles::default();
        match work {
            ForeignWork::Copy => self.copy(entry, id, &mut files).await,
            ForeignWork::DeleteRows => {
                self.delete_rows(entry, &live, (id, &mut random), &mut files).await;
            }
            ForeignWork::RemoveFile if 1 < data.len() => {
                self.remove(entry, &live, &mut files).await;
            }
            ForeignWork::RemoveFile => (),
            ForeignWork::Update => {
                self.delete_rows(entry, &live, (id, &mut random), &mut files).await;
                self.copy(next, id, &mut files).await;
            }
        }
        if files.added.is_empty() && files.deletes.is_empty() && files.removed.is_none() {
            return None;
        }
        let list = self.list(&head, id, &files).await;
        let body = self.body(&head, id, &list, &files);
        Some(ForeignCommit { id, change: files.change.clone(), body, files })
    }

    /// Writes the metadata of a commit anew on top of the head, for the files that it had, as clients do that lost
    /// a race.
    pub(crate) async fn again(mut self, lost: &ForeignCommit, id: i64) -> Value {
        let head = Arc::clone(self.metadata.snapshot_for_ref(self.branch).unwrap());
        let list = self.list(&head, id, &lost.files).await;
        self.body(&head, id, &list, &lost.files)
    }

    /// Adds a copy of a data file, with all rows that are in it.
    async fn copy(&mut self, entry: &ManifestEntryRef, id: i64, files: &mut ForeignFiles) {
        let storage = &self.disk.storage;
        let location = format!("{}/data/foreign-{id}.parquet", self.metadata.location());
        let bytes = storage.get(entry.file_path()).await.unwrap();
        storage.put(&location, bytes).await.unwrap();
        let rows = self.disk.rows_of_file(entry.file_path()).await;
        files.change.added.add_all(&rows.iter().cloned().collect());
        let mut copy = self.described(entry.data_file(), DataContentType::Data, location);
        let (count, length) = (entry.record_count(), entry.file_size_in_bytes());
        copy.record_count(count).file_size_in_bytes(length);
        files.added.push(copy.build().unwrap());
    }

    /// Deletes about a third of the rows of a data file that are still there.
    async fn delete_rows(
        &mut self,
        entry: &ManifestEntryRef,
        live: &[ManifestEntryRef],
        (id, random): (i64, &mut StdRng),
        files: &mut ForeignFiles,
    ) {
        let rows = self.disk.remaining_rows(entry, live).await;
        let first = random.random_range(0..3);
        let gone: Vec<_> = rows.into_iter().skip(first).step_by(3).collect();
        if gone.is_empty() {
            return;
        }
        let places: Vec<i64> = gone.iter().map(|(at, _)| *at).collect();
        let location = format!("{}/data/foreign-{id}-deletes.parquet", self.metadata.location());
        let bytes = position_deletes(entry.file_path(), &places);
        let (count, length) = (places.len() as u64, bytes.len() as u64);
        self.disk.storage.put(&location, bytes.into()).await.unwrap();
        let removed: RowCounts = gone.into_iter().map(|(_, row)| row).collect();
        files.change.removed.add_all(&removed);
        let content = DataContentType::PositionDeletes;
        let mut deletes = self.described(entry.data_file(), content, location);
        deletes.record_count(count).file_size_in_bytes(length);
        deletes.referenced_data_file(Some(entry.file_path().to_owned()));
        files.deletes.push(deletes.build().unwrap());
    }

    /// Takes a data file out, and with it the rows that are still there.
    async fn remove(
        &mut self,
        entry: &ManifestEntryRef,
        live: &[ManifestEntryRef],
        files: &mut ForeignFiles,
    ) {
        let rows = self.disk.remaining_rows(entry, live).await;
        let removed: RowCounts = rows.into_iter().map(|(_, row)| row).collect();
        files.change.removed.add_all(&removed);
        files.removed = Some(Arc::clone(entry));
    }

    /// A file of the partition of another one.
    fn described(
        &self,
        like: &DataFile,
        content: DataContentType,
        location: String,
    ) -> DataFileBuilder {
        let mut file = DataFileBuilder::default();
        file.content(content)
            .file_path(location)
            .file_format(DataFileFormat::Parquet)
            .partition(like.partition().clone())
            .partition_spec_id(self.metadata.default_partition_spec_id());
        file
    }

    /// Writes the manifests and their list; gives its location.
    async fn list(&mut self, head: &Snapshot, id: i64, files: &ForeignFiles) -> String {
        let mut list: Vec<ManifestFile> = Vec::new();
        let listed = self.disk.manifests(head).await;
        for (number, manifest) in listed.iter().enumerate() {
            let entries = self.disk.entries(manifest).await;
            let removed = files.removed.as_ref().filter(|removed| {
                entries.iter().any(|entry| entry.file_path() == removed.file_path())
            });
            let Some(removed) = removed else {
                list.push(manifest.clone());
                continue;
            };
            let mut kept = self.manifest(id, &format!("kept-{number}")).build_v2_data();
            for entry in entries.iter() {
                let (file, number) = (entry.data_file().clone(), entry.sequence_number().unwrap());
                let of_file = entry.file_sequence_number;
                let written = match entry.file_path() == removed.file_path() {
                    true => kept.add_delete_file(file, number, of_file),
                    false => {
                        let made_by = entry.snapshot_id().unwrap();
                        kept.add_existing_file(file, made_by, number, of_file)
                    }
                };
                written.unwrap();
            }
            list.push(kept.write_manifest_file().await.unwrap());
        }
        for (content, added) in [
            (ManifestContentType::Data, &files.added),
            (ManifestContentType::Deletes, &files.deletes),
        ] {
            if added.is_empty() {
                continue;
            }
            let mut manifest = match content {
                ManifestContentType::Data => self.manifest(id, "data").build_v2_data(),
                ManifestContentType::Deletes => self.manifest(id, "deletes").build_v2_deletes(),
            };
            for file in added {
                manifest.add_file(file.clone(), -1).unwrap();
            }
            list.push(manifest.write_manifest_file().await.unwrap());
        }
        let location = format!("{}/metadata/{id}-list.avro", self.metadata.location());
        let output = self.disk.storage.file_io().new_output(&location).unwrap();
        let (parent, number) = (head.snapshot_id(), self.metadata.next_sequence_number());
        let writer = output.writer().await.unwrap();
        let mut written = ManifestListWriter::v2(writer, id, Some(parent), number);
        written.add_manifests(list.into_iter()).unwrap();
        written.close().await.unwrap();
        location
    }

    fn manifest(&self, id: i64, kind: &str) -> ManifestWriterBuilder {
        let location = format!("{}/metadata/{id}-{kind}.avro", self.metadata.location());
        let output = self.disk.storage.file_io().new_output(location).unwrap();
        let spec = self.metadata.default_partition_spec().as_ref().clone();
        ManifestWriterBuilder::new(
            output,
            Some(id),
            Arc::clone(self.metadata.current_schema()),
            spec,
        )
    }

    /// What is sent to commit it.
    fn body(&self, head: &Snapshot, id: i64, list: &str, files: &ForeignFiles) -> Value {
        let (branch, parent) = (self.branch, head.snapshot_id());
        let snapshot = json!({
            "snapshot-id": id,
            "parent-snapshot-id": parent,
            "sequence-number": self.metadata.next_sequence_number(),
            "timestamp-ms": self.metadata.last_updated_ms() + 1,
            "manifest-list": list,
            "schema-id": self.metadata.current_schema_id(),
            "summary": summary(head, files),
        });
        json!({
            "requirements": [
                {"type": "assert-ref-snapshot-id", "ref": branch, "snapshot-id": parent},
            ],
            "updates": [
                {"action": "add-snapshot", "snapshot": snapshot},
                {"action": "set-snapshot-ref", "ref-name": branch, "type": "branch",
                    "snapshot-id": id},
            ],
        })
    }
}

/// The contents of a file that deletes these rows of a data file.
fn position_deletes(data_file: &str, places: &[i64]) -> Vec<u8> {
    let column = |(name, id, kind): (&str, i32, DataType)| {
        let id = (PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string());
        Field::new(name, kind, false).with_metadata([id].into())
    };
    let columns =
        [("file_path", 2_147_483_546, DataType::Utf8), ("pos", 2_147_483_545, DataType::Int64)];
    let schema = Arc::new(Schema::new(columns.map(column).to_vec()));
    let files: ArrayRef = Arc::new(StringArray::from(vec![data_file; places.len()]));
    let places: ArrayRef = Arc::new(Int64Array::from(places.to_vec()));
    let rows = RecordBatch::try_new(schema, vec![files, places]).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    bytes
}

/// What the commit adds and takes, and the totals after it.
fn summary(head: &Snapshot, files: &ForeignFiles) -> Value {
    let ForeignFiles { added, deletes, removed, .. } = files;
    let operation = match (added.is_empty(), deletes.is_empty() && removed.is_none()) {
        (_, true) => "append",
        (true, false) => "delete",
        (false, false) => "overwrite",
    };
    let sum = |files: &[DataFile], of: fn(&DataFile) -> u64| -> u64 { files.iter().map(of).sum() };
    let gone: Vec<DataFile> = removed.iter().map(|entry| entry.data_file().clone()).collect();
    let size = DataFile::file_size_in_bytes;
    let counts: [(&str, Option<&str>, u64, u64); 6] = [
        ("data-files", Some("deleted-data-files"), added.len() as u64, gone.len() as u64),
        (
            "records",
            Some("deleted-records"),
            sum(added, DataFile::record_count),
            sum(&gone, DataFile::record_count),
        ),
        (
            "files-size",
            Some("removed-files-size"),
            sum(added, size) + sum(deletes, size),
            sum(&gone, size),
        ),
        ("delete-files", None, deletes.len() as u64, 0),
        ("position-deletes", None, sum(deletes, DataFile::record_count), 0),
        ("equality-deletes", None, 0, 0),
    ];
    let mut summary = json!({"operation": operation});
    for (what, key_of_gone, plus, minus) in counts {
        if 0 < plus {
            summary[format!("added-{what}")] = json!(plus.to_string());
        }
        if let Some(key) = key_of_gone.filter(|_| 0 < minus) {
            summary[key] = json!(minus.to_string());
        }
        let total = format!("total-{what}");
        let before = head.summary().additional_properties.get(&total);
        // What the head does not tell is not guessed.
        if let Some(before) = before.and_then(|text| text.parse::<u64>().ok()) {
            summary[total] = json!((before + plus - minus).to_string());
        }
    }
    summary
}
