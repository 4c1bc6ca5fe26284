//! A table's branches and tags.
//!
//! The iceberg crate keeps them to itself and shows them only in its JSON, which costs as much as
//! writing the metadata. So they are read from there once and then carried along with each commit.
//! The one invariant: what is carried along is what the JSON of the new metadata says.

use crate::metadata_file;
use iceberg::{
    TableUpdate,
    spec::{SnapshotReference, TableMetadata},
};
use serde::Deserialize;
use std::collections::HashMap;

/// Branches and tags by name.
pub type SnapshotRefs = HashMap<String, SnapshotReference>;

/// The table's branches and tags, by way of the serialized form: not for every commit.
///
/// # Panics
/// Never: metadata that was built serializes, and what was serialized parses.
#[must_use]
pub fn of(metadata: &TableMetadata) -> SnapshotRefs {
    #[derive(Deserialize)]
    struct OnlyRefs {
        #[serde(default)]
        refs: SnapshotRefs,
    }
    let json = metadata_file::encode(metadata);
    serde_json::from_slice::<OnlyRefs>(&json).expect("serialized metadata parses").refs
}

/// What `refs` become by `updates`, which made `metadata` of the table that had them.
pub(crate) fn after(
    refs: &SnapshotRefs,
    updates: &[TableUpdate],
    metadata: &TableMetadata,
) -> SnapshotRefs {
    let mut refs = refs.clone();
    for update in updates {
        match update {
            TableUpdate::SetSnapshotRef { ref_name, reference } => {
                refs.insert(ref_name.clone(), reference.clone());
            }
            TableUpdate::RemoveSnapshotRef { ref_name } => {
                refs.remove(ref_name);
            }
            _ => (),
        }
    }
    // A ref goes with its snapshot.
    refs.retain(|_, reference| metadata.snapshot_by_id(reference.snapshot_id).is_some());
    refs
}
