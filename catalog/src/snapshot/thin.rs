//! What thinning takes from a table's history.

use super::{READER_GRACE_MS, obsolete};
use crate::{location::Location, metastore::ObsoleteFile, retention, storage::Storage};
use iceberg::{TableUpdate, spec::TableMetadata};

/// Snapshots that go, on the very state that they were worked out on.
#[derive(Debug)]
pub(crate) struct SnapshotThinning {
    pub(crate) updates: Vec<TableUpdate>,
    /// How many snapshots they remove.
    pub(crate) removed: usize,
    /// Files that nothing retained refers to.
    pub(crate) obsolete: Vec<ObsoleteFile>,
}

/// Works out what a table of ours has too much; none when its history is within its bounds. Reads
/// manifest lists and changes nothing.
pub(crate) async fn thin(
    storage: &Storage,
    base: &TableMetadata,
    now_ms: i64,
) -> Option<SnapshotThinning> {
    let snapshot_ids = retention::snapshots_to_remove(base, now_ms);
    if snapshot_ids.is_empty() {
        return None;
    }
    let history = obsolete::history(base);
    let not_before_ms = now_ms.saturating_add(READER_GRACE_MS);
    let own = Location::parse(base.location());
    // The queue has locations in their normal form.
    let admitted = |file: String| Some(own.as_ref()?.admit(&file).ok()?.to_string());
    let obsolete = obsolete::files(storage, base, &snapshot_ids, history)
        .await
        .into_iter()
        .filter_map(admitted)
        .map(|location| ObsoleteFile { location, not_before_ms })
        .collect();
    let removed = snapshot_ids.len();
    let mut updates: Vec<TableUpdate> =
        obsolete::mark(base, history, &snapshot_ids).into_iter().collect();
    updates.push(TableUpdate::RemoveSnapshots { snapshot_ids });
    Some(SnapshotThinning { updates, removed, obsolete })
}
