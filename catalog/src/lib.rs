//! An Apache Iceberg REST catalog: metastore, commit logic, durable storage and the HTTP protocol.
//!
//! It knows nothing of events and needs no query engine. In-process callers use
//! [`catalog::Catalog`]; everyone else goes through [`rest::router`].

pub mod access;
pub mod ancestors;
pub mod audit;
mod avro;
mod background;
pub mod body;
pub mod byte_cache;
pub mod catalog;
pub mod clock;
mod columns;
pub mod commit;
pub mod defaults;
mod digest;
pub mod error;
pub mod location;
pub mod manifest_file;
pub mod metadata_file;
pub mod metastore;
pub mod names;
pub mod principal;
pub mod relocate;
pub mod rest;
pub mod retention;
pub mod row_sum;
pub mod scan;
pub mod snapshot;
pub mod storage;
pub mod usage;
pub mod view;
