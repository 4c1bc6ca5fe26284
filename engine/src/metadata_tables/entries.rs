//! The metadata tables of files: one row for each entry of a snapshot's manifests, read one manifest after
//! the other.

use super::{
    MetadataRows, MetadataSource, MetadataTable, failed,
    layout::{LeafColumn, TableLayout},
    snapshots::{integers, longs, nothing, texts},
    values::{self, batch, byte_maps, column, data_type, map, number_maps},
};
use arrow::{
    array::{ArrayRef, BinaryArray, Int32Builder, Int64Builder, ListBuilder, StructArray},
    datatypes::{DataType, Field, Fields, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use datafusion::error::DataFusionError;
use futures::{StreamExt, stream};
use iceberg::spec::{
    DataContentType, DataFile, Datum, Manifest, ManifestEntry, ManifestFile, ManifestStatus, Struct,
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

/// Most entries of one batch: the bounds of a file may take kilobytes.
const BATCH_ENTRIES: usize = 1_024;
/// The sequence number of tables that have none.
const UNNUMBERED: i64 = 0;

/// The columns of `files` and `all_files`.
pub(super) fn file_columns(layout: &TableLayout) -> SchemaRef {
    let mut fields = data_file_fields(layout);
    fields.extend(metrics_field(layout));
    Arc::new(Schema::new(fields))
}

/// The columns of `entries`.
pub(super) fn entry_columns(layout: &TableLayout) -> SchemaRef {
    let mut fields = vec![
        column("status", DataType::Int32),
        column("snapshot_id", DataType::Int64),
        column("sequence_number", DataType::Int64),
        column("file_sequence_number", DataType::Int64),
        column("data_file", DataType::Struct(data_file_fields(layout).into())),
    ];
    fields.extend(metrics_field(layout));
    Arc::new(Schema::new(fields))
}

fn data_file_fields(layout: &TableLayout) -> Vec<Field> {
    let counts = || map(DataType::Int32, DataType::Int64);
    let bounds = || map(DataType::Int32, DataType::Binary);
    let mut fields = vec![
        column("content", DataType::Int32),
        column("file_path", DataType::Utf8),
        column("file_format", DataType::Utf8),
        column("spec_id", DataType::Int32),
    ];
    // Without it where no spec has a field: a struct has at least one.
    if layout.is_partitioned() {
        fields.push(column("partition", layout.partition_type()));
    }
    fields.extend([
        column("record_count", DataType::Int64),
        column("file_size_in_bytes", DataType::Int64),
        column("column_sizes", counts()),
        column("value_counts", counts()),
        column("null_value_counts", counts()),
        column("nan_value_counts", counts()),
        column("lower_bounds", bounds()),
        column("upper_bounds", bounds()),
        column("key_metadata", DataType::Binary),
        column("split_offsets", DataType::new_list(DataType::Int64, true)),
        column("equality_ids", DataType::new_list(DataType::Int32, true)),
        column("sort_order_id", DataType::Int32),
        column("first_row_id", DataType::Int64),
        column("referenced_data_file", DataType::Utf8),
        column("content_offset", DataType::Int64),
        column("content_size_in_bytes", DataType::Int64),
    ]);
    fields
}

/// What is known of each column of a file; none where the table has no column yet.
fn metrics_field(layout: &TableLayout) -> Option<Field> {
    if layout.leaves.is_empty() {
        return None;
    }
    let fields =
        layout.leaves.iter().map(|leaf| column(&leaf.name, DataType::Struct(metrics(leaf))));
    let fields = DataType::Struct(fields.collect::<Vec<_>>().into());
    Some(column("readable_metrics", fields))
}

fn metrics(leaf: &LeafColumn) -> Fields {
    Fields::from(vec![
        column("column_size", DataType::Int64),
        column("value_count", DataType::Int64),
        column("null_value_count", DataType::Int64),
        column("nan_value_count", DataType::Int64),
        column("lower_bound", data_type(&leaf.kind)),
        column("upper_bound", data_type(&leaf.kind)),
    ])
}

/// The rows of `files`, `all_files` or `entries`.
pub(super) fn rows(
    kind: MetadataTable,
    source: Arc<MetadataSource>,
    schema: SchemaRef,
) -> MetadataRows {
    let snapshots = match (&source.metadata, kind) {
        (None, _) => VecDeque::new(),
        (Some(metadata), MetadataTable::AllFiles) => {
            let snapshots = metadata.snapshots();
            let mut numbered: Vec<(i64, i64)> =
                snapshots.map(|one| (one.sequence_number(), one.snapshot_id())).collect();
            numbered.sort_unstable();
            numbered.into_iter().map(|(_, id)| id).collect()
        }
        (Some(_), _) => source.snapshot_id.into_iter().collect(),
    };
    let with_deleted = kind == MetadataTable::Entries;
    let reader = EntryReader {
        source,
        snapshots,
        seen: HashSet::new(),
        manifests: VecDeque::new(),
        open: None,
        with_deleted,
    };
    stream::try_unfold((reader, schema), |(mut reader, schema)| async move {
        let Some(rows) = reader.next().await? else { return Ok::<_, DataFusionError>(None) };
        let batch = rows_batch(&rows, &reader.source.layout, &schema)?;
        Ok(Some((batch, (reader, schema))))
    })
    .boxed()
}

/// An entry of a manifest.
#[derive(Debug)]
pub(super) struct EntryRow {
    entry: Arc<ManifestEntry>,
    manifest: Arc<ManifestFile>,
    first_row_id: Option<i64>,
}

impl EntryRow {
    /// The file.
    pub(super) fn file(&self) -> &DataFile {
        self.entry.data_file()
    }

    /// The spec of its partition.
    pub(super) fn spec_id(&self) -> i32 {
        self.manifest.partition_spec_id
    }

    /// Its partition.
    fn partition(&self) -> (i32, &Struct) {
        (self.spec_id(), self.file().partition())
    }

    /// The snapshot that added or deleted it.
    pub(super) fn snapshot_id(&self) -> i64 {
        self.entry.snapshot_id().unwrap_or(self.manifest.added_snapshot_id)
    }

    // A number that is not there is that of the manifest, if the entry came with it.
    fn inherited(&self, number: Option<i64>) -> Option<i64> {
        let is_its = self.entry.status() == ManifestStatus::Added
            || self.manifest.sequence_number == UNNUMBERED;
        number.or_else(|| is_its.then_some(self.manifest.sequence_number))
    }
}

/// Reads the entries of snapshots.
pub(super) struct EntryReader {
    source: Arc<MetadataSource>,
    /// Snapshots whose manifests are to be listed.
    snapshots: VecDeque<i64>,
    /// Manifests that were met: most snapshots share most of them.
    seen: HashSet<String>,
    manifests: VecDeque<ManifestFile>,
    open: Option<OpenManifest>,
    /// Whether entries of deleted files are rows too.
    with_deleted: bool,
}

struct OpenManifest {
    parsed: Manifest,
    manifest: Arc<ManifestFile>,
    /// Entries that were read.
    at: usize,
    /// Id of the first row of the next file that is numbered by its manifest.
    next_row_id: Option<i64>,
}

impl EntryReader {
    /// Reads the live entries of the snapshot that is shown.
    pub(super) fn live(source: Arc<MetadataSource>) -> Self {
        let snapshots = match &source.metadata {
            None => VecDeque::new(),
            Some(_) => source.snapshot_id.into_iter().collect(),
        };
        let (seen, manifests) = (HashSet::new(), VecDeque::new());
        Self { source, snapshots, seen, manifests, open: None, with_deleted: false }
    }

    /// Some of the next entries; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<EntryRow>>, DataFusionError> {
        loop {
            if let Some(open) = &mut self.open {
                let rows = open.take(self.with_deleted);
                if !rows.is_empty() {
                    return Ok(Some(rows));
                }
                self.open = None;
            }
            if !self.open_next().await? {
                return Ok(None);
            }
        }
    }

    /// Reads the next manifest, or list of manifests; false at the end.
    async fn open_next(&mut self) -> Result<bool, DataFusionError> {
        let source = Arc::clone(&self.source);
        let Some(metadata) = &source.metadata else { return Ok(false) };
        let manifests = source.manifests(metadata);
        if let Some(manifest) = self.manifests.pop_front() {
            let parsed = manifests.manifest(&manifest).await.map_err(|cause| failed(&cause))?;
            let next_row_id = manifest.first_row_id.and_then(|id| i64::try_from(id).ok());
            let manifest = Arc::new(manifest);
            self.open = Some(OpenManifest { parsed, manifest, at: 0, next_row_id });
            return Ok(true);
        }
        let Some(snapshot) = self.snapshots.pop_front() else { return Ok(false) };
        let listed = manifests.listed(snapshot).await.map_err(|cause| failed(&cause))?;
        let seen = &mut self.seen;
        let new = listed.into_iter().filter(|one| seen.insert(one.manifest_path.clone()));
        self.manifests.extend(new);
        Ok(true)
    }
}

impl OpenManifest {
    fn take(&mut self, with_deleted: bool) -> Vec<EntryRow> {
        let mut rows = Vec::new();
        let entries = self.parsed.entries();
        while rows.len() < BATCH_ENTRIES
            && let Some(entry) = entries.get(self.at)
        {
            self.at += 1;
            let mut first_row_id = entry.data_file().first_row_id();
            // As the specification has it: what the manifest brought is numbered in its order.
            if let (None, Some(next), true) = (first_row_id, self.next_row_id, entry.is_alive()) {
                first_row_id = Some(next);
                let count = i64::try_from(entry.record_count()).unwrap_or(i64::MAX);
                self.next_row_id = Some(next.saturating_add(count));
            }
            if entry.is_alive() || with_deleted {
                let (entry, manifest) = (Arc::clone(entry), Arc::clone(&self.manifest));
                rows.push(EntryRow { entry, manifest, first_row_id });
            }
        }
        rows
    }
}

fn rows_batch(
    rows: &[EntryRow],
    layout: &TableLayout,
    schema: &SchemaRef,
) -> Result<RecordBatch, DataFusionError> {
    batch(schema, rows.len(), |field| {
        let entries = rows.iter();
        Ok(match field.name().as_str() {
            "status" => integers(entries.map(|row| Some(row.entry.status() as i32))),
            "snapshot_id" => longs(entries.map(|row| Some(row.snapshot_id()))),
            "sequence_number" => {
                longs(entries.map(|row| row.inherited(row.entry.sequence_number())))
            }
            "file_sequence_number" => {
                longs(entries.map(|row| row.inherited(row.entry.file_sequence_number)))
            }
            "data_file" => {
                let DataType::Struct(fields) = field.data_type() else {
                    return Ok(nothing(field, rows.len()));
                };
                let arrays = fields.iter().map(|field| file_array(field, rows, layout));
                let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
                Arc::new(StructArray::try_new(fields.clone(), arrays, None)?)
            }
            "readable_metrics" => readable(rows, layout, field)?,
            _ => file_array(field, rows, layout)?,
        })
    })
}

/// One member of the files of entries.
fn file_array(
    field: &Field,
    rows: &[EntryRow],
    layout: &TableLayout,
) -> Result<ArrayRef, DataFusionError> {
    let files = rows.iter().map(EntryRow::file);
    let counts =
        |of: fn(&DataFile) -> &HashMap<i32, u64>| {
            number_maps(rows.iter().map(move |row| {
                of(row.file()).iter().map(|(id, count)| (*id, long(*count))).collect()
            }))
        };
    let bounds = |of: fn(&DataFile) -> &HashMap<i32, Datum>| {
        byte_maps(rows.iter().map(move |row| {
            let bounds = of(row.file()).iter();
            // A bound that has no form in bytes is none.
            bounds
                .filter_map(|(id, bound)| Some((*id, bound.to_bytes().ok()?.into_vec())))
                .collect()
        }))
    };
    Ok(match field.name().as_str() {
        "content" => integers(files.map(|file| Some(content(file.content_type())))),
        "file_path" => texts(files.map(|file| Some(file.file_path()))),
        "file_format" => {
            texts(files.map(|file| Some(file.file_format().to_string().to_uppercase())))
        }
        "spec_id" => integers(rows.iter().map(|row| Some(row.spec_id()))),
        "partition" => layout.partitions(&rows.iter().map(EntryRow::partition))?,
        "record_count" => longs(files.map(|file| Some(long(file.record_count())))),
        "file_size_in_bytes" => longs(files.map(|file| Some(long(file.file_size_in_bytes())))),
        "column_sizes" => counts(DataFile::column_sizes)?,
        "value_counts" => counts(DataFile::value_counts)?,
        "null_value_counts" => counts(DataFile::null_value_counts)?,
        "nan_value_counts" => counts(DataFile::nan_value_counts)?,
        "lower_bounds" => bounds(DataFile::lower_bounds)?,
        "upper_bounds" => bounds(DataFile::upper_bounds)?,
        "key_metadata" => Arc::new(files.map(DataFile::key_metadata).collect::<BinaryArray>()),
        "split_offsets" => {
            let mut lists = ListBuilder::new(Int64Builder::new());
            for file in files {
                lists.append_option(file.split_offsets().map(|all| all.iter().copied().map(Some)));
            }
            Arc::new(lists.finish())
        }
        "equality_ids" => {
            let mut lists = ListBuilder::new(Int32Builder::new());
            for file in files {
                lists.append_option(file.equality_ids().map(|all| all.into_iter().map(Some)));
            }
            Arc::new(lists.finish())
        }
        "sort_order_id" => integers(files.map(DataFile::sort_order_id)),
        "first_row_id" => longs(rows.iter().map(|row| row.first_row_id)),
        "referenced_data_file" => texts(files.map(DataFile::referenced_data_file)),
        "content_offset" => longs(files.map(DataFile::content_offset)),
        "content_size_in_bytes" => longs(files.map(DataFile::content_size_in_bytes)),
        _ => nothing(field, rows.len()),
    })
}

fn content(content: DataContentType) -> i32 {
    content as i32
}

pub(super) fn long(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What is known of each column, with bounds as values.
fn readable(
    rows: &[EntryRow],
    layout: &TableLayout,
    field: &Field,
) -> Result<ArrayRef, DataFusionError> {
    let DataType::Struct(fields) = field.data_type() else {
        return Ok(nothing(field, rows.len()));
    };
    let arrays = layout.leaves.iter().map(|leaf| {
        let id = leaf.id;
        let count = |of: fn(&DataFile) -> &HashMap<i32, u64>| {
            longs(rows.iter().map(move |row| of(row.file()).get(&id).copied().map(long)))
        };
        let bound = |of: fn(&DataFile) -> &HashMap<i32, Datum>| {
            let bounds = rows.iter().map(move |row| of(row.file()).get(&id).map(Datum::literal));
            values::values(&leaf.kind, bounds)
        };
        let members = vec![
            count(DataFile::column_sizes),
            count(DataFile::value_counts),
            count(DataFile::null_value_counts),
            count(DataFile::nan_value_counts),
            bound(DataFile::lower_bounds)?,
            bound(DataFile::upper_bounds)?,
        ];
        let array: ArrayRef = Arc::new(StructArray::try_new(metrics(leaf), members, None)?);
        Ok::<_, DataFusionError>(array)
    });
    let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(StructArray::try_new(fields.clone(), arrays, None)?))
}
