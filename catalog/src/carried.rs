//! What is carried from one metadata file of a table to the next, because it is dear to get from
//! the metadata and a commit changes little of it: branches and tags, and the snapshots' JSON.
//!
//! The one invariant: what is carried is what would be got anew.

use crate::{
    metadata_file::SnapshotV2,
    refs::{self, Refs},
};
use iceberg::{
    TableUpdate,
    spec::{FormatVersion, Snapshot, TableMetadata},
};
use serde_json::value::{RawValue, to_raw_value};
use std::{collections::HashMap, sync::Arc};

/// Belongs to one metadata file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Carried {
    pub(crate) refs: Refs,
    /// By snapshot id. Empty where the format version has a form of its own.
    snapshots: HashMap<i64, Arc<RawValue>>,
}

impl Carried {
    pub(crate) fn of(metadata: &TableMetadata) -> Self {
        Self::with(refs::of(metadata), metadata, &HashMap::new())
    }

    /// What this becomes by `updates`, which made `metadata` of the table that had it.
    pub(crate) fn after(&self, updates: &[TableUpdate], metadata: &TableMetadata) -> Self {
        Self::with(refs::after(&self.refs, updates, metadata), metadata, &self.snapshots)
    }

    fn with(refs: Refs, metadata: &TableMetadata, known: &HashMap<i64, Arc<RawValue>>) -> Self {
        if metadata.format_version() != FormatVersion::V2 {
            return Self { refs, snapshots: HashMap::new() };
        }
        let text = |snapshot: &Arc<Snapshot>| {
            let id = snapshot.snapshot_id();
            let text = known.get(&id).map_or_else(|| text_of(snapshot), Arc::clone);
            (id, text)
        };
        Self { refs, snapshots: metadata.snapshots().map(text).collect() }
    }

    /// The JSON of a snapshot of the metadata that this belongs to.
    pub(crate) fn snapshot(&self, id: i64) -> &RawValue {
        self.snapshots.get(&id).expect("there is one for each snapshot")
    }
}

fn text_of(snapshot: &Snapshot) -> Arc<RawValue> {
    to_raw_value(&SnapshotV2::new(snapshot)).expect("a snapshot has only string keys").into()
}
