//! Names and contents of `metadata.json` files.

use serde::Serialize;
use uuid::Uuid;

/// The location of a table's `version`th metadata file: `<table>/metadata/00007-<uuid>.metadata.json`.
#[must_use]
pub fn location(table_location: &str, version: i64, unique: Uuid) -> String {
    format!("{table_location}/metadata/{}", name(version, unique))
}

/// The file's name alone.
#[must_use]
pub fn name(version: i64, unique: Uuid) -> String {
    format!("{version:05}-{unique}.metadata.json")
}

/// The file's bytes, of a table or a view.
///
/// # Panics
/// Never: metadata that was built always serializes.
#[must_use]
pub fn encode(metadata: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(metadata).expect("metadata has only string keys")
}
