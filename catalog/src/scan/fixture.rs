//! Tables for tests of scans: manifests as other engines write them, over data files that need not
//! be there.

use crate::{
    metadata_file,
    storage::{S3Options, Storage},
};
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, FormatVersion, ManifestFile,
    ManifestListWriter, ManifestWriterBuilder, Operation, Schema, Snapshot, SnapshotReference,
    SnapshotRetention, SortOrder, Struct, Summary, TableMetadata, TableMetadataBuilder,
    UnboundPartitionSpec,
};
use std::{collections::HashMap, sync::Arc};

/// A table whose commits are applied at once, without a catalog.
pub(crate) struct Lake {
    pub(crate) storage: Storage,
    pub(crate) metadata: TableMetadata,
    manifests: Vec<ManifestFile>,
    written: u32,
    _folder: Option<tempfile::TempDir>,
}

impl Lake {
    pub(crate) fn new(schema: Schema, spec: UnboundPartitionSpec) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let warehouse = format!("file://{}", folder.path().display());
        let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
        let location = format!("{}/t", storage.root());
        Self { _folder: Some(folder), ..Self::at(storage, location, schema, spec) }
    }

    /// A table in a warehouse that is there already.
    pub(crate) fn at(
        storage: Storage,
        location: String,
        schema: Schema,
        spec: UnboundPartitionSpec,
    ) -> Self {
        let unsorted = SortOrder::unsorted_order();
        let built = TableMetadataBuilder::new(
            schema,
            spec,
            unsorted,
            location,
            FormatVersion::V2,
            HashMap::new(),
        );
        let metadata = built.unwrap().build().unwrap().metadata;
        Self { storage, metadata, manifests: Vec::new(), written: 0, _folder: None }
    }

    pub(crate) fn change(
        &mut self,
        change: impl FnOnce(TableMetadataBuilder) -> iceberg::Result<TableMetadataBuilder>,
    ) {
        let builder = change(self.metadata.clone().into_builder(None)).unwrap();
        self.metadata = builder.build().unwrap().metadata;
    }

    /// A file in no partition, of ten rows, with a name of its own.
    pub(crate) fn file(&mut self, content: DataContentType) -> DataFileBuilder {
        self.written += 1;
        let mut file = DataFileBuilder::default();
        file.content(content)
            .file_path(format!("{}/data/{:05}.parquet", self.metadata.location(), self.written))
            .file_format(DataFileFormat::Parquet)
            .partition(Struct::empty())
            .partition_spec_id(self.metadata.default_partition_spec_id())
            .record_count(10)
            .file_size_in_bytes(1_000);
        file
    }

    fn output(&mut self, name: &str) -> iceberg::io::OutputFile {
        self.written += 1;
        let location =
            format!("{}/metadata/{:05}-{name}.avro", self.metadata.location(), self.written);
        self.storage.file_io().new_output(location).unwrap()
    }

    /// Adds one snapshot with a manifest for each list of files, which are of the newest spec and
    /// either data or deletes; its id.
    pub(crate) async fn commit(&mut self, operation: Operation, lists: Vec<Vec<DataFile>>) -> i64 {
        let sequence = self.metadata.next_sequence_number();
        let id = 1_000 + sequence;
        for files in lists {
            let spec = self.metadata.default_partition_spec().as_ref().clone();
            let schema = Arc::clone(self.metadata.current_schema());
            let writer = ManifestWriterBuilder::new(self.output("m"), Some(id), schema, spec);
            let mut writer = match files[0].content_type() {
                DataContentType::Data => writer.build_v2_data(),
                DataContentType::PositionDeletes | DataContentType::EqualityDeletes => {
                    writer.build_v2_deletes()
                }
            };
            for file in files {
                writer.add_file(file, sequence).unwrap();
            }
            let mut manifest = writer.write_manifest_file().await.unwrap();
            manifest.sequence_number = sequence;
            manifest.min_sequence_number = sequence;
            self.manifests.push(manifest);
        }
        let parent = self.metadata.current_snapshot_id();
        let list = self.output("list");
        let location = list.location().to_owned();
        let writer = list.writer().await.unwrap();
        let mut writer = ManifestListWriter::v2(writer, id, parent, sequence);
        writer.add_manifests(self.manifests.clone().into_iter()).unwrap();
        writer.close().await.unwrap();
        let snapshot = Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(parent)
            .with_sequence_number(sequence)
            .with_timestamp_ms(self.metadata.last_updated_ms() + 1)
            .with_manifest_list(location)
            .with_summary(Summary { operation, additional_properties: HashMap::new() })
            .with_schema_id(self.metadata.current_schema_id())
            .build();
        let branch = SnapshotReference::new(id, SnapshotRetention::branch(None, None, None));
        self.change(|builder| builder.add_snapshot(snapshot)?.set_ref("main", branch));
        id
    }

    /// Writes the metadata file and gives its location.
    pub(crate) async fn write_metadata(&self) -> String {
        let location = metadata_file::location(self.metadata.location(), 1, self.metadata.uuid());
        let bytes = metadata_file::encode(&self.metadata);
        self.storage.put(&location, bytes.into()).await.unwrap();
        location
    }
}
