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
    collections::HashSet,
    sync::{Arc, OnceLock},
};

/// Longest file that is kept whole. With as many tables as a cache holds these are 64 MiB.
const WHOLE_BYTES_MAX: usize = 64 << 10;

/// The parts of one metadata file.
#[derive(Clone, Debug, Default)]
pub(crate) struct EncodedParts {
    pub(crate) refs: SnapshotRefs,
    /// As files have them, the oldest first. Empty where the format version has a form of its own.
    snapshots: Vec<EncodedSnapshot>,
    /// The file, once it was encoded.
    whole: OnceLock<Arc<RawValue>>,
}

/// The JSON of a snapshot, and where it belongs.
#[derive(Clone, Debug)]
struct EncodedSnapshot {
    sequence_number: i64,
    timestamp_ms: i64,
    id: i64,
    text: Arc<RawValue>,
}

impl EncodedParts {
    pub(crate) fn of(metadata: &TableMetadata) -> Self {
        Self::with(refs::of(metadata), metadata, Vec::new())
    }

    /// What this becomes by `updates`, which made `metadata` of the table that had it.
    pub(crate) fn after(&self, updates: &[TableUpdate], metadata: &TableMetadata) -> Self {
        let added: HashSet<i64> = updates
            .iter()
            .filter_map(|update| match update {
                TableUpdate::AddSnapshot { snapshot } => Some(snapshot.snapshot_id()),
                _ => None,
            })
            .collect();
        let stays = |it: &&EncodedSnapshot| {
            !added.contains(&it.id) && metadata.snapshot_by_id(it.id).is_some()
        };
        let mut snapshots: Vec<EncodedSnapshot> =
            self.snapshots.iter().filter(stays).cloned().collect();
        let new = added.iter().filter_map(|id| metadata.snapshot_by_id(*id));
        snapshots.extend(new.map(|it| EncodedSnapshot::of(it)));
        Self::with(refs::after(&self.refs, updates, metadata), metadata, snapshots)
    }

    /// Those of `snapshots` are different ones of the table.
    fn with(
        refs: SnapshotRefs,
        metadata: &TableMetadata,
        mut snapshots: Vec<EncodedSnapshot>,
    ) -> Self {
        if metadata.format_version() != FormatVersion::V2 {
            return Self { refs, ..Self::default() };
        }
        if snapshots.len() != metadata.snapshots().len() {
            snapshots = metadata.snapshots().map(|it| EncodedSnapshot::of(it)).collect();
        }
        // They are in order mostly, and then this looks at each once.
        snapshots.sort_by_key(|it| (it.sequence_number, it.timestamp_ms, it.id));
        Self { refs, snapshots, whole: OnceLock::new() }
    }

    /// The JSON of the wanted snapshots of the metadata that this belongs to, the oldest first.
    pub(crate) fn snapshots(&self, is_wanted: impl Fn(i64) -> bool) -> Vec<&RawValue> {
        let wanted = self.snapshots.iter().filter(|it| is_wanted(it.id));
        wanted.map(|it| it.text.as_ref()).collect()
    }

    /// About how long the metadata is as JSON.
    pub(crate) fn length(&self, metadata: &TableMetadata) -> usize {
        let texts = self.snapshots.iter().map(|it| it.text.get().len());
        metadata_file::length_without_snapshots(metadata) + texts.sum::<usize>()
    }

    /// The JSON of the metadata that this belongs to, in format version 2; none if it is long.
    pub(crate) fn whole(&self, metadata: &TableMetadata) -> Option<&RawValue> {
        if WHOLE_BYTES_MAX < self.length(metadata) {
            return None;
        }
        let encode = || {
            let file = TableV2::new(metadata, self, |_| true);
            to_raw_value(&file).expect("metadata has only string keys").into()
        };
        Some(self.whole.get_or_init(encode))
    }
}

impl EncodedSnapshot {
    fn of(snapshot: &Snapshot) -> Self {
        let text = to_raw_value(&SnapshotV2::new(snapshot));
        Self {
            sequence_number: snapshot.sequence_number(),
            timestamp_ms: snapshot.timestamp_ms(),
            id: snapshot.snapshot_id(),
            text: text.expect("a snapshot has only string keys").into(),
        }
    }
}
