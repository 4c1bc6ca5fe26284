//! What Icecore's users see and rely on: columns, names, error codes, request and reply bodies.
//!
//! No IO and no engine: the service and its clients both build on this crate.

pub mod as_of;
pub mod batch;
pub mod branch_merge;
pub mod branches;
pub mod collection_refresh;
pub mod collection_schema;
pub mod collections;
pub mod columns;
pub mod conservation;
pub mod dead_letters;
pub mod erasure;
pub mod error_code;
pub mod fsck;
pub mod generate;
pub mod holds;
pub mod jobs;
pub mod materialized;
pub mod names;
pub mod namespace_tags;
pub mod point;
pub mod query;
pub mod restore;
pub mod retention;
pub mod search;
pub mod service_table;
pub mod snapshot_id;
pub mod tables;
pub mod tokens;
pub mod version;
pub mod views;
pub mod webhooks;
