//! The metadata tables of manifests, and of the partitions that their files are in.

use super::{
    MetadataRows, MetadataSource,
    entries::{EntryReader, EntryRow, long},
    failed,
    layout::{self, TableLayout},
    snapshots::{integers, longs, nothing, texts, times},
    values::{batch, column, timestamptz},
};
use crate::error::SqlError;
use arrow::{
    array::{ArrayRef, BooleanArray, ListArray, StructArray},
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{DataType, Field, Fields, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use datafusion::{error::DataFusionError, execution::memory_pool::MemoryReservation};
use futures::{StreamExt, stream};
use iceberg::spec::{
    DataContentType, Datum, FieldSummary, Literal, ManifestContentType, ManifestFile,
    PrimitiveLiteral, Struct, TableMetadata, Transform,
};
use std::{collections::HashMap, sync::Arc};

/// Most partitions of one snapshot: each is kept until the last file was read.
const PARTITIONS_MAX: usize = 200_000;

/// The columns of `manifests`.
pub(super) fn columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        column("content", DataType::Int32),
        column("path", DataType::Utf8),
        column("length", DataType::Int64),
        column("partition_spec_id", DataType::Int32),
        column("added_snapshot_id", DataType::Int64),
        column("added_data_files_count", DataType::Int32),
        column("existing_data_files_count", DataType::Int32),
        column("deleted_data_files_count", DataType::Int32),
        column("added_delete_files_count", DataType::Int32),
        column("existing_delete_files_count", DataType::Int32),
        column("deleted_delete_files_count", DataType::Int32),
        column("partition_summaries", DataType::List(Arc::new(summary_item()))),
    ]))
}

fn summary_item() -> Field {
    Field::new_list_field(DataType::Struct(summary_fields()), true)
}

fn summary_fields() -> Fields {
    Fields::from(vec![
        column("contains_null", DataType::Boolean),
        column("contains_nan", DataType::Boolean),
        column("lower_bound", DataType::Utf8),
        column("upper_bound", DataType::Utf8),
    ])
}

/// The rows of `manifests`.
pub(super) fn rows(source: Arc<MetadataSource>, schema: SchemaRef) -> MetadataRows {
    stream::once(async move {
        let (Some(metadata), Some(id)) = (&source.metadata, source.snapshot_id) else {
            return Ok(RecordBatch::new_empty(schema));
        };
        let listed = source.manifests(metadata).listed(id).await;
        manifests(metadata, &listed.map_err(|cause| failed(&cause))?, &schema)
    })
    .boxed()
}

fn manifests(
    metadata: &TableMetadata,
    listed: &[ManifestFile],
    schema: &SchemaRef,
) -> Result<RecordBatch, DataFusionError> {
    let count = |content: ManifestContentType, of: fn(&ManifestFile) -> Option<u32>| {
        integers(listed.iter().map(move |one| {
            let count = of(one).and_then(|count| i32::try_from(count).ok());
            if one.content == content { count } else { Some(0) }
        }))
    };
    let (data, deletes) = (ManifestContentType::Data, ManifestContentType::Deletes);
    batch(schema, listed.len(), |field| {
        let rows = listed.iter();
        Ok(match field.name().as_str() {
            "content" => integers(rows.map(|one| Some(one.content as i32))),
            "path" => texts(rows.map(|one| Some(one.manifest_path.as_str()))),
            "length" => longs(rows.map(|one| Some(one.manifest_length))),
            "partition_spec_id" => integers(rows.map(|one| Some(one.partition_spec_id))),
            "added_snapshot_id" => longs(rows.map(|one| Some(one.added_snapshot_id))),
            "added_data_files_count" => count(data, |one| one.added_files_count),
            "existing_data_files_count" => count(data, |one| one.existing_files_count),
            "deleted_data_files_count" => count(data, |one| one.deleted_files_count),
            "added_delete_files_count" => count(deletes, |one| one.added_files_count),
            "existing_delete_files_count" => count(deletes, |one| one.existing_files_count),
            "deleted_delete_files_count" => count(deletes, |one| one.deleted_files_count),
            "partition_summaries" => summaries(metadata, listed)?,
            _ => nothing(field, listed.len()),
        })
    })
}

fn summaries(
    metadata: &TableMetadata,
    listed: &[ManifestFile],
) -> Result<ArrayRef, DataFusionError> {
    let of = |one: &ManifestFile| one.partitions.clone().unwrap_or_default();
    let all: Vec<(i32, usize, FieldSummary)> = listed
        .iter()
        .flat_map(|one| {
            let summaries = of(one).into_iter().enumerate();
            summaries.map(move |(at, summary)| (one.partition_spec_id, at, summary))
        })
        .collect();
    let bound = |(spec, at, summary): &(i32, usize, FieldSummary), is_lower: bool| {
        let bytes = if is_lower { &summary.lower_bound } else { &summary.upper_bound };
        text_of(metadata, *spec, *at, bytes.as_ref()?)
    };
    let nulls = all.iter().map(|(_, _, summary)| Some(summary.contains_null));
    let nans = all.iter().map(|(_, _, summary)| summary.contains_nan);
    let members: Vec<ArrayRef> = vec![
        Arc::new(nulls.collect::<BooleanArray>()),
        Arc::new(nans.collect::<BooleanArray>()),
        texts(all.iter().map(|summary| bound(summary, true))),
        texts(all.iter().map(|summary| bound(summary, false))),
    ];
    let items = StructArray::try_new(summary_fields(), members, None)?;
    let lengths = listed.iter().map(|one| one.partitions.as_ref().map_or(0, Vec::len));
    let is_there: Vec<bool> = listed.iter().map(|one| one.partitions.is_some()).collect();
    Ok(Arc::new(ListArray::try_new(
        Arc::new(summary_item()),
        OffsetBuffer::from_lengths(lengths),
        Arc::new(items),
        Some(NullBuffer::from(is_there)),
    )?))
}

/// A bound of a partition field as people read it.
fn text_of(metadata: &TableMetadata, spec: i32, at: usize, bytes: &[u8]) -> Option<String> {
    let field = metadata.partition_spec_by_id(spec)?.fields().get(at)?;
    let kind = layout::type_of(metadata, field.source_id, field.transform)?;
    // What is thrown away has no bounds.
    if field.transform == Transform::Void {
        return None;
    }
    Some(Datum::try_from_bytes(bytes, kind).ok()?.to_human_string())
}

/// The columns of `partitions`.
pub(super) fn partition_columns(layout: &TableLayout) -> SchemaRef {
    let mut fields = Vec::new();
    // As in Iceberg's own: a table without partitions is one row.
    if layout.is_partitioned() {
        fields.push(column("partition", layout.partition_type()));
        fields.push(column("spec_id", DataType::Int32));
    }
    fields.extend([
        column("record_count", DataType::Int64),
        column("file_count", DataType::Int32),
        column("total_data_file_size_in_bytes", DataType::Int64),
        column("position_delete_record_count", DataType::Int64),
        column("position_delete_file_count", DataType::Int32),
        column("equality_delete_record_count", DataType::Int64),
        column("equality_delete_file_count", DataType::Int32),
        column("last_updated_at", timestamptz()),
        column("last_updated_snapshot_id", DataType::Int64),
    ]);
    Arc::new(Schema::new(fields))
}

/// What is counted of a partition.
#[derive(Clone, Debug, Default)]
struct PartitionCounts {
    rows: i64,
    files: i32,
    bytes: i64,
    position_delete_rows: i64,
    position_delete_files: i32,
    equality_delete_rows: i64,
    equality_delete_files: i32,
    /// When a file was added last, and by which snapshot, as far as that is known.
    updated: Option<(i64, i64)>,
}

impl PartitionCounts {
    fn add(&mut self, row: &EntryRow, metadata: &TableMetadata) {
        let file = row.file();
        let rows = long(file.record_count());
        match file.content_type() {
            DataContentType::Data => {
                self.rows = self.rows.saturating_add(rows);
                self.files = self.files.saturating_add(1);
                self.bytes = self.bytes.saturating_add(long(file.file_size_in_bytes()));
            }
            DataContentType::PositionDeletes => {
                self.position_delete_rows = self.position_delete_rows.saturating_add(rows);
                self.position_delete_files = self.position_delete_files.saturating_add(1);
            }
            DataContentType::EqualityDeletes => {
                self.equality_delete_rows = self.equality_delete_rows.saturating_add(rows);
                self.equality_delete_files = self.equality_delete_files.saturating_add(1);
            }
        }
        let snapshot = metadata.snapshot_by_id(row.snapshot_id());
        let updated = snapshot.map(|one| (one.timestamp_ms(), one.snapshot_id()));
        self.updated = self.updated.max(updated);
    }
}

/// The rows of `partitions`, which are kept in `memory`.
pub(super) fn partitions(
    source: Arc<MetadataSource>,
    schema: SchemaRef,
    memory: MemoryReservation,
) -> MetadataRows {
    stream::once(async move {
        let Some(metadata) = source.metadata.clone() else {
            return Ok(RecordBatch::new_empty(schema));
        };
        let mut reader = EntryReader::live(Arc::clone(&source));
        let mut places: HashMap<(i32, Struct), usize> = HashMap::new();
        let mut counts: Vec<PartitionCounts> = Vec::new();
        while let Some(rows) = reader.next().await? {
            for row in rows {
                let key = (row.spec_id(), row.file().partition().clone());
                let place = match places.get(&key) {
                    Some(place) => *place,
                    None if PARTITIONS_MAX <= counts.len() => return Err(too_many()),
                    None => {
                        memory.try_grow(bytes_of(&key.1))?;
                        places.insert(key, counts.len());
                        counts.push(PartitionCounts::default());
                        counts.len() - 1
                    }
                };
                counts[place].add(&row, &metadata);
            }
        }
        let mut keys: Vec<((i32, Struct), usize)> = places.into_iter().collect();
        keys.sort_unstable_by_key(|(_, place)| *place);
        let keys: Vec<(i32, Struct)> = keys.into_iter().map(|(key, _)| key).collect();
        partition_batch(&keys, &counts, &source.layout, &schema)
    })
    .boxed()
}

/// The memory that a partition takes until the last file was read.
fn bytes_of(partition: &Struct) -> usize {
    let values = partition.fields().iter().map(|value| match value {
        Some(Literal::Primitive(PrimitiveLiteral::String(text))) => text.len(),
        Some(Literal::Primitive(PrimitiveLiteral::Binary(bytes))) => bytes.len(),
        _ => 0,
    });
    // In its key and in its row.
    let texts = values.sum::<usize>().saturating_mul(2);
    let fields = size_of_val(partition.fields()).saturating_mul(2);
    texts.saturating_add(fields).saturating_add(size_of::<PartitionCounts>())
}

fn too_many() -> DataFusionError {
    DataFusionError::External(Box::new(SqlError::Limit(format!(
        "the snapshot has more than {PARTITIONS_MAX} partitions; group the metadata table `files` by `partition` instead"
    ))))
}

fn partition_batch(
    keys: &[(i32, Struct)],
    counts: &[PartitionCounts],
    layout: &TableLayout,
    schema: &SchemaRef,
) -> Result<RecordBatch, DataFusionError> {
    batch(schema, counts.len(), |field| {
        let rows = counts.iter();
        Ok(match field.name().as_str() {
            "partition" => layout.partitions(&keys.iter().map(|(spec, one)| (*spec, one)))?,
            "spec_id" => integers(keys.iter().map(|(spec, _)| Some(*spec))),
            "record_count" => longs(rows.map(|one| Some(one.rows))),
            "file_count" => integers(rows.map(|one| Some(one.files))),
            "total_data_file_size_in_bytes" => longs(rows.map(|one| Some(one.bytes))),
            "position_delete_record_count" => longs(rows.map(|one| Some(one.position_delete_rows))),
            "position_delete_file_count" => {
                integers(rows.map(|one| Some(one.position_delete_files)))
            }
            "equality_delete_record_count" => longs(rows.map(|one| Some(one.equality_delete_rows))),
            "equality_delete_file_count" => {
                integers(rows.map(|one| Some(one.equality_delete_files)))
            }
            "last_updated_at" => times(rows.map(|one| one.updated.map(|(at_ms, _)| at_ms))),
            "last_updated_snapshot_id" => longs(rows.map(|one| one.updated.map(|(_, id)| id))),
            _ => nothing(field, counts.len()),
        })
    })
}
