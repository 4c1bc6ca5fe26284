//! Table metadata as answers hold it: its lists always in the same order, snapshots oldest first.
//!
//! The iceberg crate keeps these lists in maps and writes them in any order, while clients compare
//! what two loads say.

use crate::{
    metadata_file::cache::EncodedParts,
    metadata_file::{self, TableV2},
};
use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use iceberg::spec::{FormatVersion, TableMetadata};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

/// About what an answer has beside what grows in its metadata.
const ANSWER_BYTES: usize = 4 << 10;
const PARSES: &str = "serialized metadata parses";

/// Which of a table's snapshots an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SnapshotMode {
    All,
    /// Only those that a branch or tag names.
    Refs,
}

/// A table's metadata for a member of an answer.
#[derive(Clone, Debug)]
pub(super) struct OrderedMetadata {
    pub(super) metadata: Arc<TableMetadata>,
    pub(super) encoded: Arc<EncodedParts>,
    pub(super) snapshots: SnapshotMode,
}

/// The body of an answer with this metadata in it.
pub(super) fn encode(answer: &impl Serialize, metadata: &OrderedMetadata) -> Bytes {
    let length = match metadata.snapshots {
        SnapshotMode::All => ANSWER_BYTES + metadata.encoded.length(&metadata.metadata),
        SnapshotMode::Refs => ANSWER_BYTES,
    };
    metadata_file::encode_of(answer, length).into()
}

pub(super) fn json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

impl Serialize for OrderedMetadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_whole = self.snapshots == SnapshotMode::All
            && self.metadata.format_version() == FormatVersion::V2;
        if let Some(whole) = is_whole.then(|| self.encoded.whole(&self.metadata)).flatten() {
            return whole.serialize(serializer);
        }
        let refs = self.encoded.refs.values();
        let named: HashSet<i64> = refs.map(|reference| reference.snapshot_id).collect();
        let is_wanted = |id: i64| self.snapshots == SnapshotMode::All || named.contains(&id);
        match self.metadata.format_version() {
            FormatVersion::V2 => {
                TableV2::new(&self.metadata, &self.encoded, is_wanted).serialize(serializer)
            }
            FormatVersion::V1 | FormatVersion::V3 => {
                members(&self.metadata, is_wanted).serialize(serializer)
            }
        }
    }
}

/// What lists are ordered by, as far as an item has it, and what names a snapshot.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct ListItem {
    snapshot_id: i64,
    sequence_number: i64,
    timestamp_ms: i64,
    schema_id: i64,
    spec_id: i64,
    order_id: i64,
}

/// The members of the crate's JSON with their lists in order.
fn members(
    metadata: &TableMetadata,
    is_wanted: impl Fn(i64) -> bool,
) -> BTreeMap<String, Box<RawValue>> {
    let json = metadata_file::encode(metadata);
    let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(&json).expect(PARSES);
    for list in ["snapshots", "schemas", "partition-specs", "sort-orders"] {
        let Some(text) = members.get(list) else { continue };
        let texts: Vec<&RawValue> = serde_json::from_str(text.get()).expect(PARSES);
        let read = |text: &RawValue| serde_json::from_str::<ListItem>(text.get()).expect(PARSES);
        let mut items: Vec<(ListItem, &RawValue)> =
            texts.into_iter().map(|text| (read(text), text)).collect();
        items.retain(|(item, _)| list != "snapshots" || is_wanted(item.snapshot_id));
        items.sort_by_key(|(item, _)| match list {
            "snapshots" => (item.sequence_number, item.timestamp_ms),
            "schemas" => (item.schema_id, 0),
            "partition-specs" => (item.spec_id, 0),
            _ => (item.order_id, 0),
        });
        let texts: Vec<&RawValue> = items.into_iter().map(|(_, text)| text).collect();
        let texts = to_raw_value(&texts).expect("parts of JSON are JSON");
        members.insert(list.to_owned(), texts);
    }
    members
}
