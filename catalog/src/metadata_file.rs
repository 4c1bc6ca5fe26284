//! Names and contents of `metadata.json` files.

#[cfg(test)]
mod tests;

pub mod cache;
pub mod refs;

use cache::EncodedParts;
use iceberg::spec::{
    FormatVersion, MetadataLog, PartitionSpec, PartitionStatisticsFile, Schema, Snapshot,
    SnapshotLog, SortOrder, StatisticsFile, Summary, TableMetadata,
};
use refs::SnapshotRefs;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::HashMap;
use uuid::Uuid;

/// What a packed file begins with.
pub(crate) const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The location of a table's `version`th metadata file: `<table>/metadata/00007-<uuid>.metadata.json`.
#[must_use]
pub fn location(table_location: &str, version: i64, unique: Uuid) -> String {
    format!("{table_location}/metadata/{}", name(version, unique))
}

/// The file's name alone.
#[must_use]
pub fn name(version: i64, unique: Uuid) -> String {
    format!("{version:05}-{unique}.metadata.json")
}

/// The file's bytes, of a table or a view.
///
/// # Panics
/// Never: metadata that was built always serializes.
#[must_use]
pub fn encode(metadata: &impl Serialize) -> Vec<u8> {
    encode_of(metadata, 0)
}

/// The bytes of what has metadata in it, of about this length.
pub(crate) fn encode_of(value: &impl Serialize, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length.min(RESERVED_BYTES_MAX));
    serde_json::to_writer(&mut bytes, value).expect("metadata has only string keys");
    bytes
}

/// The file's bytes of a table with its encoded parts: the same JSON as [`encode`]
/// gives. The crate's serializer copies every snapshot before it writes it, which for a table of
/// some hundred snapshots is most of what a commit costs; this one borrows.
pub(crate) fn encode_table(metadata: &TableMetadata, encoded: &EncodedParts) -> Vec<u8> {
    match metadata.format_version() {
        FormatVersion::V2 => match encoded.whole(metadata) {
            Some(whole) => whole.get().as_bytes().to_vec(),
            None => {
                let file = TableV2::new(metadata, encoded, |_| true);
                encode_of(&file, encoded.length(metadata))
            }
        },
        // Rare, and each with members of its own.
        FormatVersion::V1 | FormatVersion::V3 => encode(metadata),
    }
}

/// About how long the file is going to be, by what grows.
pub(crate) fn length_estimate(metadata: &TableMetadata) -> usize {
    metadata.snapshots().len() * SNAPSHOT_BYTES + length_without_snapshots(metadata)
}

fn length_without_snapshots(metadata: &TableMetadata) -> usize {
    let properties = metadata.properties().iter().map(|(key, value)| key.len() + value.len());
    let columns = metadata.schemas_iter().map(|schema| schema.field_id_to_name_map().len());
    metadata.history().len() * HISTORY_ENTRY_BYTES
        + metadata.metadata_log().len() * LOG_ENTRY_BYTES
        + columns.sum::<usize>() * COLUMN_BYTES
        + properties.sum::<usize>()
}

/// About what a snapshot, an entry of the logs and a column take.
const SNAPSHOT_BYTES: usize = 1_300;
const HISTORY_ENTRY_BYTES: usize = 64;
const LOG_ENTRY_BYTES: usize = 200;
const COLUMN_BYTES: usize = 60;

/// Most memory that is reserved by an estimate; what is longer grows as it is written.
const RESERVED_BYTES_MAX: usize = 16 << 20;

/// The members of a table's metadata in format version 2; lists are in order, snapshots oldest first.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct TableV2<'a> {
    format_version: u8,
    table_uuid: Uuid,
    location: &'a str,
    last_sequence_number: i64,
    last_updated_ms: i64,
    last_column_id: i32,
    schemas: Vec<&'a Schema>,
    current_schema_id: i32,
    partition_specs: Vec<&'a PartitionSpec>,
    default_spec_id: i32,
    last_partition_id: i32,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    properties: &'a HashMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_snapshot_id: Option<i64>,
    #[serde(skip_serializing_if = "<[SnapshotLog]>::is_empty")]
    snapshot_log: &'a [SnapshotLog],
    #[serde(skip_serializing_if = "<[MetadataLog]>::is_empty")]
    metadata_log: &'a [MetadataLog],
    sort_orders: Vec<&'a SortOrder>,
    default_sort_order_id: i64,
    refs: &'a SnapshotRefs,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    statistics: Vec<&'a StatisticsFile>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    partition_statistics: Vec<&'a PartitionStatisticsFile>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    snapshots: Vec<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct SnapshotV2<'a> {
    snapshot_id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_snapshot_id: Option<i64>,
    sequence_number: i64,
    timestamp_ms: i64,
    manifest_list: &'a str,
    summary: &'a Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_id: Option<i32>,
}

impl<'a> TableV2<'a> {
    pub(crate) fn new(
        metadata: &'a TableMetadata,
        encoded: &'a EncodedParts,
        is_wanted: impl Fn(i64) -> bool,
    ) -> Self {
        Self {
            format_version: 2,
            table_uuid: metadata.uuid(),
            location: metadata.location(),
            last_sequence_number: metadata.last_sequence_number(),
            last_updated_ms: metadata.last_updated_ms(),
            last_column_id: metadata.last_column_id(),
            schemas: in_order(metadata.schemas_iter().map(AsRef::as_ref), |s| s.schema_id()),
            current_schema_id: metadata.current_schema_id(),
            partition_specs: in_order(metadata.partition_specs_iter().map(AsRef::as_ref), |spec| {
                spec.spec_id()
            }),
            default_spec_id: metadata.default_partition_spec_id(),
            last_partition_id: metadata.last_partition_id(),
            properties: metadata.properties(),
            current_snapshot_id: metadata.current_snapshot_id(),
            snapshot_log: metadata.history(),
            metadata_log: metadata.metadata_log(),
            sort_orders: in_order(metadata.sort_orders_iter().map(AsRef::as_ref), |o| o.order_id),
            default_sort_order_id: metadata.default_sort_order_id(),
            refs: &encoded.refs,
            statistics: metadata.statistics_iter().collect(),
            partition_statistics: metadata.partition_statistics_iter().collect(),
            snapshots: encoded.snapshots(is_wanted),
        }
    }
}

fn in_order<T, K: Ord>(items: impl Iterator<Item = T>, key: impl FnMut(&T) -> K) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable_by_key(key);
    items
}

impl<'a> SnapshotV2<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot) -> Self {
        Self {
            snapshot_id: snapshot.snapshot_id(),
            parent_snapshot_id: snapshot.parent_snapshot_id(),
            sequence_number: snapshot.sequence_number(),
            timestamp_ms: snapshot.timestamp_ms(),
            manifest_list: snapshot.manifest_list(),
            summary: snapshot.summary(),
            schema_id: snapshot.schema_id(),
        }
    }
}
