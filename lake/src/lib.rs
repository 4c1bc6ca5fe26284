//! Events as values, the log that makes them durable, and the files of the tables that they end in;
//! below these the clock, ids, failpoints, metrics and the load of ingest.
//!
//! The service and its query engine build on it. It knows neither, and no protocol: it has rows,
//! records and files, and its callers say when they are written, committed and trimmed.

pub mod blocking;
pub mod branch;
pub mod clock;
pub mod collection;
pub mod event;
pub mod faults;
pub mod ids;
pub mod load;
pub mod metrics;
pub mod table;
pub mod wal;
