//! The earlier metadata files that a table's log names.

use super::{unreadable, void};
use crate::error::CatalogError;
use iceberg::spec::TableMetadata;
use serde_json::Value;

/// The table property that has metadata files deleted once the log does not name them any more.
pub(crate) const DELETED_AFTER_COMMIT: &str = "write.metadata.delete-after-commit.enabled";

/// Whether the table wants metadata files deleted that leave its log.
pub(crate) fn are_deleted(metadata: &TableMetadata) -> bool {
    metadata.properties().get(DELETED_AFTER_COMMIT).is_some_and(|wanted| wanted == "true")
}

/// The same metadata, whose log does not name files from before `since_ms`. The last one stays: a repair looks
/// for the file that the current one was built on. All stay where the table does not want them deleted: they
/// would be orphans.
pub(crate) fn without_old_files(
    metadata: TableMetadata,
    since_ms: i64,
) -> Result<TableMetadata, CatalogError> {
    let log = metadata.metadata_log();
    let old = log.iter().take_while(|entry| entry.timestamp_ms < since_ms).count();
    let gone = old.min(log.len().saturating_sub(1));
    // The crate does not read what it writes of void fields.
    if gone == 0 || !are_deleted(&metadata) || void::is_there(&metadata, &[]) {
        return Ok(metadata);
    }
    let mut json = serde_json::to_value(&metadata).map_err(unreadable)?;
    if let Some(log) = json.pointer_mut("/metadata-log").and_then(Value::as_array_mut) {
        log.drain(..gone);
    }
    serde_json::from_value(json).map_err(unreadable)
}
