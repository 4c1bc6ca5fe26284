//! Parts of a metadata file that are kept for the next one, because they cost much to encode and a
//! commit changes little of them: branches and tags, and the snapshots' JSON. A short file is kept
//! whole: it is written, it is the answer to its commit, and the next load has it too.
//!
//! The one invariant: what is kept is what would be encoded anew.

use super::{
    SnapshotV2, TableV2,
    refs::{self, SnapshotRefs},
};
use crate::metadata_file;
use iceberg::{
    TableUpdate,
    spec::{FormatVersion, Snapshot, TableMetadata},
};
use serde_json::value::{RawValue, to_raw_value};
use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

/// Longest file that is kept whole. With as many tables as a cache holds these are 64 MiB.
const WHOLE_BYTES_MAX: usize = 64 << 10;

/// The parts of one metadata file.
#[derive(Clone, Debug, Default)]
pub(crate) struct EncodedParts {
    pub(crate) refs: SnapshotRefs,
    /// By snapshot id. Empty where the format version has a form of its own.
    snapshots: HashMap<i64, Arc<RawValue>>,
    /// The file, once it was encoded.
    whole: OnceLock<Arc<RawValue>>,
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
            return Self { refs, ..Self::default() };
        }
        let text = |snapshot: &Arc<Snapshot>| {
            let id = snapshot.snapshot_id();
            let text = known.get(&id).map_or_else(|| text_of(snapshot), Arc::clone);
            (id, text)
        };
        Self { refs, snapshots: metadata.snapshots().map(text).collect(), ..Self::default() }
    }

    /// The JSON of a snapshot of the metadata that this belongs to.
    pub(crate) fn snapshot(&self, id: i64) -> &RawValue {
        self.snapshots.get(&id).expect("there is one for each snapshot")
    }

    /// The JSON of the metadata that this belongs to, in format version 2; none if it is long.
    pub(crate) fn whole(&self, metadata: &TableMetadata) -> Option<&RawValue> {
        if WHOLE_BYTES_MAX < metadata_file::length_estimate(metadata) {
            return None;
        }
        let encode = || {
            let file = TableV2::new(metadata, self, |_| true);
            to_raw_value(&file).expect("metadata has only string keys").into()
        };
        Some(self.whole.get_or_init(encode))
    }
}

fn text_of(snapshot: &Snapshot) -> Arc<RawValue> {
    to_raw_value(&SnapshotV2::new(snapshot)).expect("a snapshot has only string keys").into()
}
