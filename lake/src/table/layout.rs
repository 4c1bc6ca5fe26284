//! How a table's files are laid out, and why rows could not be written that way.
//!
//! What splits rows, what encodes them and what writes them need both.

use crate::table::{promoted::Promotions, schema};
use iceberg::spec::{PartitionSpecRef, SchemaRef, SortOrderRef, TableMetadata};
use icecore_catalog::error::CatalogError;
use std::sync::Arc;

/// A data file is about as long as this at most, unless the table's [`TARGET_FILE_BYTES`] says
/// otherwise: readers divide their work by files.
const FILE_BYTES: usize = 128 << 20;
/// Iceberg's property for the size of data files.
const TARGET_FILE_BYTES: &str = "write.target-file-size-bytes";
/// The smallest wish that is followed: a file costs every reader a request and a place in a
/// manifest, and whoever writes `128` means megabytes.
const FILE_BYTES_MIN: usize = 8 << 20;

/// Why rows could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Encoding failed: the rows do not fit the table.
    #[error("encode rows as Parquet")]
    Encode(#[source] parquet::errors::ParquetError),
    /// Sorting or splitting failed.
    #[error("split rows into partitions")]
    Split(#[source] arrow::error::ArrowError),
    /// The file could not be stored.
    #[error("store data file")]
    Store(#[source] CatalogError),
    /// The data file's description does not fit the table.
    #[error("describe data file")]
    Describe(#[source] iceberg::Error),
    /// The rows are of more partitions than are written in one commit.
    #[error(
        "the rows make more than {0} files; sort them by the table's partitions, or write them in parts"
    )]
    TooManyFiles(usize),
}

/// What of a table's metadata decides how its files are laid out.
#[derive(Clone, Debug)]
pub struct FileLayout {
    /// The current columns.
    pub schema: SchemaRef,
    /// The default partition spec.
    pub spec: PartitionSpecRef,
    /// How the rows of a file are sorted.
    pub sort_order: SortOrderRef,
    /// The table's folder, without a trailing slash.
    pub location: String,
    /// About the longest that a file may be, at least 8 MiB.
    pub file_bytes: usize,
    /// Columns that are computed from the JSON of the rows.
    pub promoted: Arc<Promotions>,
}

impl FileLayout {
    /// The layout of a table as it stands.
    #[must_use]
    pub fn of(table: &TableMetadata) -> Self {
        Self {
            schema: Arc::clone(table.current_schema()),
            spec: Arc::clone(table.default_partition_spec()),
            sort_order: Arc::clone(schema::file_order(table)),
            location: table.location().trim_end_matches('/').to_owned(),
            file_bytes: file_bytes(table),
            promoted: Arc::new(Promotions::of(table)),
        }
    }
}

/// What another engine wrote there and is no number of bytes does not stop a flush, and neither does
/// one that is too small: rows that are acknowledged have to go somewhere.
fn file_bytes(table: &TableMetadata) -> usize {
    let wanted: Option<usize> =
        table.properties().get(TARGET_FILE_BYTES).and_then(|text| text.parse().ok());
    wanted.filter(|bytes| 0 < *bytes).map_or(FILE_BYTES, |bytes| bytes.max(FILE_BYTES_MIN))
}
