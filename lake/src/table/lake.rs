//! Tables for tests, with data and delete files as other engines write them.

use crate::table::partition::FIELD_ID;
use arrow::{
    array::{ArrayRef, Int64Array, StringArray},
    datatypes::{Field, Schema as ArrowSchema},
    record_batch::RecordBatch,
};
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, FormatVersion, Literal,
    ManifestFile, ManifestListWriter, ManifestWriterBuilder, NestedField, Operation, PrimitiveType,
    Schema, Snapshot, SnapshotReference, SnapshotRetention, SortOrder, Struct, Summary,
    TableMetadata, TableMetadataBuilder, Transform, Type, UnboundPartitionSpec,
};
use icecore_catalog::{
    scan::{Deadline, ManifestSource, ScanPlan, filter::Filter, manifests::ManifestCache},
    storage::{S3Options, Storage},
};
use parquet::{
    arrow::ArrowWriter,
    file::properties::{EnabledStatistics, WriterProperties},
};
use std::{collections::HashMap, sync::Arc};

/// A column of a file: its field id, its name, its values.
pub(crate) type FileColumn<'a> = (i32, &'a str, ArrayRef);

/// A table whose commits are applied at once, without a catalog.
pub(crate) struct TestLake {
    pub(crate) storage: Storage,
    pub(crate) metadata: TableMetadata,
    cache: ManifestCache,
    manifests: Vec<ManifestFile>,
    written: u32,
    /// Rows of a row group.
    pub(crate) group_rows: Option<usize>,
    /// Rows of a page; without it, as many as the writer takes.
    pub(crate) page_rows: Option<usize>,
    /// Whether footers say nothing of values, not even how long they are.
    pub(crate) is_silent: bool,
    _folder: tempfile::TempDir,
}

/// A column that may lack values.
pub(crate) fn optional(id: i32, name: &str, kind: PrimitiveType) -> NestedField {
    NestedField::optional(id, name, Type::Primitive(kind))
}

pub(crate) fn schema(fields: impl IntoIterator<Item = NestedField>) -> Schema {
    Schema::builder().with_fields(fields.into_iter().map(Arc::new)).build().unwrap()
}

pub(crate) fn longs(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Int64Array>())
}

pub(crate) fn texts<'a>(values: impl IntoIterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

/// A partition with one text.
pub(crate) fn within(text: &str) -> Struct {
    Struct::from_iter([Some(Literal::string(text))])
}

impl TestLake {
    /// `id` long, `name` string, `city` string; in one partition a city or in none.
    pub(crate) fn of_people(by_city: bool) -> Self {
        let columns = schema([
            optional(1, "id", PrimitiveType::Long),
            optional(2, "name", PrimitiveType::String),
            optional(3, "city", PrimitiveType::String),
        ]);
        let spec = UnboundPartitionSpec::builder();
        let spec = match by_city {
            true => spec.add_partition_field(3, "city", Transform::Identity).unwrap(),
            false => spec,
        };
        Self::new(columns, spec.build())
    }

    pub(crate) fn new(columns: Schema, spec: UnboundPartitionSpec) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let warehouse = format!("file://{}", folder.path().display());
        let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
        let built = TableMetadataBuilder::new(
            columns,
            spec,
            SortOrder::unsorted_order(),
            format!("{}/t", storage.root()),
            FormatVersion::V2,
            HashMap::new(),
        );
        let metadata = built.unwrap().build().unwrap().metadata;
        let (cache, manifests) = (ManifestCache::default(), Vec::new());
        let (written, group_rows, page_rows, is_silent) = (0, None, None, false);
        Self {
            storage,
            metadata,
            cache,
            manifests,
            written,
            group_rows,
            page_rows,
            is_silent,
            _folder: folder,
        }
    }

    pub(crate) fn change(
        &mut self,
        change: impl FnOnce(TableMetadataBuilder) -> iceberg::Result<TableMetadataBuilder>,
    ) {
        let builder = change(self.metadata.clone().into_builder(None)).unwrap();
        self.metadata = builder.build().unwrap().metadata;
    }

    pub(crate) fn source(&self) -> ManifestSource<'_> {
        let (storage, cache, metadata) = (&self.storage, &self.cache, &self.metadata);
        ManifestSource { storage, cache, metadata, until: Deadline::NONE }
    }

    /// All files of the current snapshot.
    pub(crate) async fn plan(&self) -> ScanPlan {
        let id = self.metadata.current_snapshot_id().unwrap();
        self.source().plan(id, &Filter::True).await.unwrap()
    }

    fn place(&mut self, folder: &str) -> String {
        self.written += 1;
        format!("{}/{folder}/{:05}", self.metadata.location(), self.written)
    }

    /// Stores bytes as a file of no format.
    pub(crate) async fn put(&mut self, bytes: Vec<u8>) -> DataFileBuilder {
        let location = self.place("data");
        let mut file = DataFileBuilder::default();
        file.file_path(location.clone())
            .content(DataContentType::Data)
            .file_format(DataFileFormat::Parquet)
            .partition(Struct::empty())
            .partition_spec_id(self.metadata.default_partition_spec_id())
            .record_count(1)
            .file_size_in_bytes(bytes.len() as u64);
        self.storage.put(&location, bytes.into()).await.unwrap();
        file
    }

    /// Stores a Parquet file in no partition; columns with id 0 have none in it.
    pub(crate) async fn write(&mut self, columns: &[FileColumn<'_>]) -> DataFileBuilder {
        let fields = columns.iter().map(|(id, name, values)| {
            let metadata = (*id != 0).then(|| (FIELD_ID.to_owned(), id.to_string()));
            Field::new(*name, values.data_type().clone(), true)
                .with_metadata(metadata.into_iter().collect())
        });
        let fields = Arc::new(ArrowSchema::new(fields.collect::<Vec<_>>()));
        let values = columns.iter().map(|(_, _, values)| Arc::clone(values)).collect();
        let rows = RecordBatch::try_new(fields, values).unwrap();
        let mut bytes = Vec::new();
        let mut properties =
            WriterProperties::builder().set_max_row_group_row_count(self.group_rows);
        if let Some(rows) = self.page_rows {
            // Whether a page is full is looked at between batches.
            properties = properties.set_data_page_row_count_limit(rows).set_write_batch_size(rows);
        }
        if self.is_silent {
            properties = properties.set_statistics_enabled(EnabledStatistics::None);
        }
        let properties = properties.build();
        let mut parquet =
            ArrowWriter::try_new(&mut bytes, rows.schema(), Some(properties)).unwrap();
        parquet.write(&rows).unwrap();
        parquet.close().unwrap();
        let mut file = self.put(bytes).await;
        file.record_count(rows.num_rows() as u64);
        file
    }

    /// Stores an equality delete file that compares all of its columns.
    pub(crate) async fn equality(&mut self, columns: &[FileColumn<'_>]) -> DataFileBuilder {
        let mut file = self.write(columns).await;
        file.content(DataContentType::EqualityDeletes)
            .equality_ids(Some(columns.iter().map(|(id, ..)| *id).collect()));
        file
    }

    /// Stores a file of positions that are deleted.
    pub(crate) async fn positions(&mut self, rows: &[(&DataFile, i64)]) -> DataFileBuilder {
        let paths = texts(rows.iter().map(|(file, _)| Some(file.file_path())));
        let places = longs(rows.iter().map(|(_, place)| Some(*place)));
        let columns = [(2_147_483_546, "file_path", paths), (2_147_483_545, "pos", places)];
        let mut file = self.write(&columns).await;
        file.content(DataContentType::PositionDeletes);
        file
    }

    /// Adds one snapshot with these data and delete files, which are of the newest spec.
    pub(crate) async fn commit(&mut self, files: Vec<DataFile>) {
        let sequence = self.metadata.next_sequence_number();
        let id = 1_000 + sequence;
        let (data, deletes): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| file.content_type() == DataContentType::Data);
        for (files, is_data) in [(data, true), (deletes, false)] {
            if files.is_empty() {
                continue;
            }
            let location = format!("{}.avro", self.place("metadata"));
            let output = self.storage.file_io().new_output(location).unwrap();
            let spec = self.metadata.default_partition_spec().as_ref().clone();
            let columns = Arc::clone(self.metadata.current_schema());
            let writer = ManifestWriterBuilder::new(output, Some(id), columns, spec);
            let mut writer =
                if is_data { writer.build_v2_data() } else { writer.build_v2_deletes() };
            for file in files {
                writer.add_file(file, sequence).unwrap();
            }
            let mut manifest = writer.write_manifest_file().await.unwrap();
            manifest.sequence_number = sequence;
            manifest.min_sequence_number = sequence;
            self.manifests.push(manifest);
        }
        let parent = self.metadata.current_snapshot_id();
        let location = format!("{}.avro", self.place("metadata"));
        let list = self.storage.file_io().new_output(location.clone()).unwrap();
        let list = list.writer().await.unwrap();
        let mut writer = ManifestListWriter::v2(list, id, parent, sequence);
        writer.add_manifests(self.manifests.clone().into_iter()).unwrap();
        writer.close().await.unwrap();
        let summary =
            Summary { operation: Operation::Overwrite, additional_properties: HashMap::new() };
        let snapshot = Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(parent)
            .with_sequence_number(sequence)
            .with_timestamp_ms(self.metadata.last_updated_ms() + 1)
            .with_manifest_list(location)
            .with_summary(summary)
            .with_schema_id(self.metadata.current_schema_id())
            .build();
        let branch = SnapshotReference::new(id, SnapshotRetention::branch(None, None, None));
        self.change(|builder| builder.add_snapshot(snapshot)?.set_ref("main", branch));
    }
}
