//! Table metadata as answers hold it: its lists always in the same order, snapshots oldest first.
//!
//! The iceberg crate keeps these lists in maps and writes them in any order, while clients compare
//! what two loads say. Metadata files keep the crate's order: nobody reads those by position.

use crate::metadata_file;
use iceberg::spec::TableMetadata;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use std::{collections::BTreeMap, sync::Arc};

/// Metadata by member.
pub(super) type Members = BTreeMap<String, Box<RawValue>>;

/// The numbers that lists are ordered by, as far as an item has them.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Place {
    sequence_number: i64,
    timestamp_ms: i64,
    schema_id: i64,
    spec_id: i64,
    order_id: i64,
}

pub(super) fn members(metadata: &TableMetadata) -> Members {
    const PARSES: &str = "serialized metadata parses";
    let json = metadata_file::encode(metadata);
    let mut members: Members = serde_json::from_slice(&json).expect(PARSES);
    for list in ["snapshots", "schemas", "partition-specs", "sort-orders"] {
        let Some(text) = members.get(list) else { continue };
        let mut items: Vec<&RawValue> = serde_json::from_str(text.get()).expect(PARSES);
        items.sort_by_cached_key(|item| {
            let place: Place = serde_json::from_str(item.get()).expect(PARSES);
            match list {
                "snapshots" => (place.sequence_number, place.timestamp_ms),
                "schemas" => (place.schema_id, 0),
                "partition-specs" => (place.spec_id, 0),
                _ => (place.order_id, 0),
            }
        });
        let items = to_raw_value(&items).expect("parts of JSON are JSON");
        members.insert(list.to_owned(), items);
    }
    members
}

/// For a member of an answer.
pub(super) fn serialize<S: Serializer>(
    metadata: &Arc<TableMetadata>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    members(metadata).serialize(serializer)
}
