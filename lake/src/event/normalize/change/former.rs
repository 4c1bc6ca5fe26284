//! The identity that version 0.1.0 gave a change, exactly as it did: what it stored is still found
//! under it when a connector sends the change again after an upgrade.
//!
//! It goes once no folder of that version is left to be upgraded.

use super::origin::ChangeSource;
use xxhash_rust::xxh3::xxh3_128;

const POSITION: [&str; 14] = [
    "name",
    "db",
    "schema",
    "table",
    "collection",
    "file",
    "pos",
    "row",
    "lsn",
    "scn",
    "change_lsn",
    "event_serial_no",
    "ord",
    "txId",
];
const LOG_POSITION: [&str; 5] = ["lsn", "pos", "scn", "change_lsn", "ord"];

/// The id of a change with these images; none where that version made one up.
pub(super) fn id(origin: &ChangeSource<'_, '_>, op: &str, images: [&str; 2]) -> Option<String> {
    LOG_POSITION.into_iter().find_map(|name| origin.get(name))?;
    let mut text = op.to_owned();
    for name in POSITION {
        text.push('\0');
        text.push_str(origin.get(name).map_or("", |value| value.raw));
    }
    for image in images {
        text.push('\0');
        text.push_str(image);
    }
    Some(format!("{:032x}", xxh3_128(text.as_bytes())))
}
