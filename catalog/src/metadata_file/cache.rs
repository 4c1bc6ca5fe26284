//! Parts of a metadata file that are kept for the next one, because they cost much to encode and a
//! commit changes little of them: branches and tags, and the snapshots' JSON.
//!
//! The one invariant: what is kept is what would be encoded anew.

use super::{
    SnapshotV2,
    refs::{self, SnapshotRefs},
};
use iceberg::{
    TableUpdate,
    spec::{FormatVersion, Snapshot, TableMetadata},
};
use serde_json::value::{RawValue, to_raw_value};
use std::{collections::HashMap, sync::Arc};

/// The parts of one metadata file.
#[derive(Clone, Debug, Default)]
pub(crate) struct EncodedParts {
    pub(crate) refs: SnapshotRefs,
    /// By snapshot id. Empty where the format version has a form of its own.
    snapshots: HashMap<i64, Arc<RawValue>>,
}

impl EncodedParts {
    pub(crate) fn of(metadata: &TableMetadata) -> Self {
        Self::with(refs::of(metadata), metadata, &HashMap::new())
    }

    /// What this becomes by `updates`, which made `metadata` of the table that had it.
    pub(crate) fn after(&self, updates: &[TableUpdate], metadata: &TableMetadata) -> Self {
        Self::with(refs::after(&self.refs, updates, metadata), metadata, &self.snapshots)
    }

    fn with(
        refs: SnapshotRefs,
        metadata: &TableMetadata,
        known: &HashMap<i64, Arc<RawValue>>,
    ) -> Self {
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
