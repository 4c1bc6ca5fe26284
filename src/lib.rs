//! Icecore: events over HTTP become Apache Iceberg tables, with SQL and time travel over them.
//!
//! `ARCHITECTURE.md` is the map: which module does what, and what none of them may do.

pub mod cli;
pub mod clock;
pub mod config;
pub mod engine;
pub mod event;
pub mod faults;
pub mod flush;
pub mod http;
pub mod ids;
pub mod ingest;
pub mod maintenance;
pub mod metrics;
pub mod owner;
pub mod server;
pub mod sql;
pub mod store;
pub mod table;
pub mod tasks;
pub mod wal;
pub mod warehouse;
