//! The metadata tables that are answered from a table's metadata alone.

use super::{
    MetadataRows, MetadataSource, MetadataTable,
    values::{batch, column, map, text_maps, timestamptz},
};
use arrow::{
    array::{
        ArrayRef, BooleanArray, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
        new_null_array,
    },
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use datafusion::error::DataFusionError;
use futures::{StreamExt, stream};
use iceberg::spec::{SnapshotRef, SnapshotReference, SnapshotRetention, TableMetadata};
use icecore_catalog::ancestors;
use icecore_lake::event::rows::UTC;
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

/// The columns of `snapshots`.
pub(super) fn snapshot_columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        column("committed_at", timestamptz()),
        column("snapshot_id", DataType::Int64),
        column("parent_id", DataType::Int64),
        column("operation", DataType::Utf8),
        column("manifest_list", DataType::Utf8),
        column("summary", map(DataType::Utf8, DataType::Utf8)),
    ]))
}

/// The columns of `history`.
pub(super) fn history_columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        column("made_current_at", timestamptz()),
        column("snapshot_id", DataType::Int64),
        column("parent_id", DataType::Int64),
        column("is_current_ancestor", DataType::Boolean),
    ]))
}

/// The columns of `refs`.
pub(super) fn ref_columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        column("name", DataType::Utf8),
        column("type", DataType::Utf8),
        column("snapshot_id", DataType::Int64),
        column("max_reference_age_in_ms", DataType::Int64),
        column("min_snapshots_to_keep", DataType::Int32),
        column("max_snapshot_age_in_ms", DataType::Int64),
    ]))
}

/// The columns of `metadata_log_entries`.
pub(super) fn log_columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        column("timestamp", timestamptz()),
        column("file", DataType::Utf8),
        column("latest_snapshot_id", DataType::Int64),
        column("latest_schema_id", DataType::Int32),
        column("latest_sequence_number", DataType::Int64),
    ]))
}

/// The rows of one of them.
pub(super) fn rows(
    kind: MetadataTable,
    source: &MetadataSource,
    schema: &SchemaRef,
) -> MetadataRows {
    let batch = match &source.metadata {
        None => Ok(RecordBatch::new_empty(Arc::clone(schema))),
        Some(metadata) => match kind {
            MetadataTable::Snapshots => snapshots(metadata, schema),
            MetadataTable::History => history(metadata, schema),
            MetadataTable::Refs => refs(metadata, schema),
            MetadataTable::MetadataLogEntries => log(metadata, source.location.as_deref(), schema),
            // These are in manifests.
            MetadataTable::Files
            | MetadataTable::AllFiles
            | MetadataTable::Manifests
            | MetadataTable::Partitions
            | MetadataTable::Entries => Ok(RecordBatch::new_empty(Arc::clone(schema))),
        },
    };
    stream::iter([batch]).boxed()
}

/// Times of milliseconds.
pub(super) fn times(rows: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    let micros = rows.map(|ms| ms.map(|ms| ms.saturating_mul(1_000)));
    Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone(UTC))
}

pub(super) fn longs(rows: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(rows.collect::<Int64Array>())
}

pub(super) fn integers(rows: impl Iterator<Item = Option<i32>>) -> ArrayRef {
    Arc::new(rows.collect::<Int32Array>())
}

pub(super) fn texts<T: AsRef<str>>(rows: impl Iterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(rows.collect::<StringArray>())
}

/// A column that has no value.
pub(super) fn nothing(field: &Field, rows: usize) -> ArrayRef {
    new_null_array(field.data_type(), rows)
}

fn snapshots(metadata: &TableMetadata, schema: &SchemaRef) -> Result<RecordBatch, DataFusionError> {
    let mut all: Vec<&SnapshotRef> = metadata.snapshots().collect();
    all.sort_by_key(|snapshot| (snapshot.sequence_number(), snapshot.timestamp_ms()));
    batch(schema, all.len(), |field| {
        let rows = all.iter();
        Ok(match field.name().as_str() {
            "committed_at" => times(rows.map(|one| Some(one.timestamp_ms()))),
            "snapshot_id" => longs(rows.map(|one| Some(one.snapshot_id()))),
            "parent_id" => longs(rows.map(|one| one.parent_snapshot_id())),
            "operation" => texts(rows.map(|one| Some(one.summary().operation.as_str()))),
            "manifest_list" => texts(rows.map(|one| Some(one.manifest_list()))),
            "summary" => text_maps(rows.map(|one| {
                let properties = one.summary().additional_properties.iter();
                properties.map(|(key, value)| (key.as_str(), value.as_str())).collect()
            }))?,
            _ => nothing(field, all.len()),
        })
    })
}

fn history(metadata: &TableMetadata, schema: &SchemaRef) -> Result<RecordBatch, DataFusionError> {
    let log = metadata.history();
    let current = ancestors::of(metadata, metadata.current_snapshot_id());
    let current: HashSet<i64> = current.map(|snapshot| snapshot.snapshot_id()).collect();
    let parent =
        |id| metadata.snapshot_by_id(id).and_then(|snapshot| snapshot.parent_snapshot_id());
    batch(schema, log.len(), |field| {
        let rows = log.iter();
        Ok(match field.name().as_str() {
            "made_current_at" => times(rows.map(|entry| Some(entry.timestamp_ms()))),
            "snapshot_id" => longs(rows.map(|entry| Some(entry.snapshot_id))),
            "parent_id" => longs(rows.map(|entry| parent(entry.snapshot_id))),
            "is_current_ancestor" => {
                let is_ancestor = rows.map(|entry| Some(current.contains(&entry.snapshot_id)));
                Arc::new(is_ancestor.collect::<BooleanArray>())
            }
            _ => nothing(field, log.len()),
        })
    })
}

/// Branches and tags by name. The metadata shows them in its form as JSON alone.
fn refs(metadata: &TableMetadata, schema: &SchemaRef) -> Result<RecordBatch, DataFusionError> {
    let form = serde_json::to_value(metadata)
        .map_err(|cause| DataFusionError::External(Box::new(cause)))?;
    let refs: BTreeMap<String, SnapshotReference> = match form.get("refs") {
        None | Some(Value::Null) => BTreeMap::new(),
        Some(refs) => BTreeMap::deserialize(refs)
            .map_err(|cause| DataFusionError::External(Box::new(cause)))?,
    };
    batch(schema, refs.len(), |field| {
        let rows = refs.iter();
        Ok(match field.name().as_str() {
            "name" => texts(rows.map(|(name, _)| Some(name))),
            "type" => {
                texts(rows.map(|(_, one)| Some(if one.is_branch() { "BRANCH" } else { "TAG" })))
            }
            "snapshot_id" => longs(rows.map(|(_, one)| Some(one.snapshot_id))),
            "max_reference_age_in_ms" => longs(rows.map(|(_, one)| match one.retention {
                SnapshotRetention::Branch { max_ref_age_ms, .. }
                | SnapshotRetention::Tag { max_ref_age_ms } => max_ref_age_ms,
            })),
            "min_snapshots_to_keep" => integers(rows.map(|(_, one)| match one.retention {
                SnapshotRetention::Branch { min_snapshots_to_keep, .. } => min_snapshots_to_keep,
                SnapshotRetention::Tag { .. } => None,
            })),
            "max_snapshot_age_in_ms" => longs(rows.map(|(_, one)| match one.retention {
                SnapshotRetention::Branch { max_snapshot_age_ms, .. } => max_snapshot_age_ms,
                SnapshotRetention::Tag { .. } => None,
            })),
            _ => nothing(field, refs.len()),
        })
    })
}

/// The metadata files of the log, and last the one that is read.
fn log(
    metadata: &TableMetadata,
    location: Option<&str>,
    schema: &SchemaRef,
) -> Result<RecordBatch, DataFusionError> {
    let past = metadata.metadata_log().iter();
    let mut files: Vec<(i64, &str)> =
        past.map(|entry| (entry.timestamp_ms, entry.metadata_file.as_str())).collect();
    files.extend(location.map(|location| (metadata.last_updated_ms(), location)));
    // The snapshot that was current then.
    let latest = |at_ms: i64| {
        let entry = metadata.history().iter().rev().find(|entry| entry.timestamp_ms() <= at_ms);
        entry.map(|entry| entry.snapshot_id)
    };
    let snapshot = |at_ms| latest(at_ms).and_then(|id| metadata.snapshot_by_id(id));
    batch(schema, files.len(), |field| {
        let rows = files.iter();
        Ok(match field.name().as_str() {
            "timestamp" => times(rows.map(|(at_ms, _)| Some(*at_ms))),
            "file" => texts(rows.map(|(_, file)| Some(*file))),
            "latest_snapshot_id" => longs(rows.map(|(at_ms, _)| latest(*at_ms))),
            "latest_schema_id" => {
                integers(rows.map(|(at_ms, _)| snapshot(*at_ms).and_then(|one| one.schema_id())))
            }
            "latest_sequence_number" => {
                longs(rows.map(|(at_ms, _)| snapshot(*at_ms).map(|one| one.sequence_number())))
            }
            _ => nothing(field, files.len()),
        })
    })
}
