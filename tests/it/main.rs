//! The integration tests: one binary, so that they are linked once.

#![allow(clippy::panic, clippy::unwrap_used, missing_docs)]

mod access;
mod admin;
mod answers;
mod audit;
mod contract;
mod dead_letters;
mod exactly_once;
mod harness;
mod histories;
mod hostile_http;
mod lost_ids;
mod own_tables;
mod owner;
mod parquet;
mod process;
mod tidy;
mod time_travel;
