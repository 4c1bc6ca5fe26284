//! The integration tests: one binary, so that they are linked once.

#![allow(clippy::panic, clippy::unwrap_used, missing_docs)]

mod access;
mod admin;
mod answers;
mod audit;
mod backup;
mod backup_postgres;
mod calls;
mod clocks;
mod cloud_events;
mod command_line;
mod compressed;
mod contract;
mod dead_letters;
mod debezium;
mod event_shapes;
mod exactly_once;
mod exported;
mod files;
mod flipped_bits;
mod harness;
mod health;
mod histories;
mod hostile_http;
mod hostile_sql;
mod jobs;
mod lost_ids;
mod messages;
mod moved;
mod namespaces;
mod openapi;
mod outages;
mod own_tables;
mod owner;
mod parquet;
mod postgres;
mod process;
mod query_failures;
mod restores;
mod rights;
mod stopped;
mod tidy;
mod time_travel;
mod upgrades;
mod webhooks;
