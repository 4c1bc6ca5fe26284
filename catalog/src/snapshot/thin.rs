//! What thinning takes from a table's history.

use super::{
    READER_GRACE_MS,
    obsolete::{self, reads::HistoryReader},
};
use crate::{error::CatalogError, location::Location, metastore::ObsoleteFile, retention};
use iceberg::TableUpdate;

/// About the most files that one thinning queues, while others wait for its transaction; a single snapshot
/// may be the last with more.
const FILES_MAX: usize = 20_000;

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
/// manifest lists and manifests, and changes nothing.
///
/// # Errors
/// The store does not answer.
pub(crate) async fn thin(
    mut reader: HistoryReader<'_>,
    now_ms: i64,
) -> Result<Option<SnapshotThinning>, CatalogError> {
    let base = reader.base;
    let mut snapshot_ids = retention::snapshots_to_remove(base, now_ms);
    if snapshot_ids.is_empty() {
        return Ok(None);
    }
    let history = obsolete::history(base);
    let not_before_ms = now_ms.saturating_add(READER_GRACE_MS);
    // A registered table may list files that lie elsewhere and belong to somebody else. The queue has
    // locations in their normal form.
    let own = Location::parse(base.location());
    let admitted = |file: String| Some(own.as_ref()?.admit(&file).ok()?.to_string());
    let mut files = obsolete::files(&mut reader, &snapshot_ids, history).await?;
    while FILES_MAX < files.len() && 1 < snapshot_ids.len() {
        // The others go in the next thinning.
        snapshot_ids.truncate(snapshot_ids.len() / 2);
        files = obsolete::files(&mut reader, &snapshot_ids, history).await?;
    }
    let obsolete = files
        .into_iter()
        .filter_map(admitted)
        .map(|location| ObsoleteFile { location, not_before_ms })
        .collect();
    let removed = snapshot_ids.len();
    let mut updates: Vec<TableUpdate> =
        obsolete::mark(base, history, &snapshot_ids).into_iter().collect();
    updates.push(TableUpdate::RemoveSnapshots { snapshot_ids });
    Ok(Some(SnapshotThinning { updates, removed, obsolete }))
}
