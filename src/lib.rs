//! Icecore: events over HTTP become Apache Iceberg tables, with SQL and time travel over them.
//!
//! `ARCHITECTURE.md` is the map: which module does what, and what none of them may do.

pub mod cli;
pub mod config;
pub mod cron;
pub mod flush;
pub mod http;
pub mod ingest;
pub mod maintenance;
pub mod owner;
pub mod server;
pub mod sql;
pub mod store;
pub mod tasks;
pub mod warehouse;
