//! Icecore's own tables: their Iceberg schema, partitioning, and how rows become data files.
//!
//! It leaves the commit to the catalog: what is written here is durable but nobody's until a
//! snapshot names it.

pub mod as_of;
pub mod compaction;
pub mod conservation;
pub mod deletes;
pub mod documents;
mod encode;
pub mod erasure;
pub mod evolve;
pub mod field_ids;
pub mod file_columns;
pub mod integrity;
pub mod known_ids;
#[cfg(test)]
pub(crate) mod lake;
mod layout;
pub mod moved_deletes;
mod pages;
pub mod partition;
pub mod promoted;
pub mod properties;
pub mod reader;
pub mod retention;
pub mod row_fit;
pub mod row_sum;
pub mod schema;
pub mod stats;
pub mod tagged;
pub mod typed_columns;
pub mod unused_numbers;
pub mod writer;
