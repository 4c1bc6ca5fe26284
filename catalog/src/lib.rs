//! An Apache Iceberg REST catalog: metastore, commit logic, durable storage and the HTTP protocol.
//!
//! It knows nothing of events and needs no query engine. In-process callers use
//! [`catalog::Catalog`]; everyone else goes through [`rest::router`].

pub mod access;
pub mod append;
mod carried;
pub mod catalog;
mod columns;
pub mod commit;
pub mod defaults;
pub mod error;
pub mod location;
pub mod manifest_file;
pub mod metadata_file;
pub mod metastore;
pub mod names;
pub mod refs;
pub mod relocate;
pub mod rest;
pub mod retention;
pub mod scan;
pub mod storage;
pub mod view;
