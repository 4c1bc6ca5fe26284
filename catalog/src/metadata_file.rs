//! Names and contents of `metadata.json` files.

use iceberg::spec::TableMetadata;
use uuid::Uuid;

/// The location of a table's `version`th metadata file: `<table>/metadata/00007-<uuid>.metadata.json`.
#[must_use]
pub fn location(table_location: &str, version: i64, unique: Uuid) -> String {
    format!("{table_location}/metadata/{version:05}-{unique}.metadata.json")
}

/// The file's bytes.
///
/// # Panics
/// Never: metadata that was built always serializes.
#[must_use]
pub fn encode(metadata: &TableMetadata) -> Vec<u8> {
    serde_json::to_vec(metadata).expect("table metadata has only string keys")
}
