//! The service's small rows that change in place: leases, the last runs of jobs, how far their plans
//! are, and the ledger of erasures.
//!
//! They are in tables of their own beside the catalog's, in its database: an SQLite file or
//! PostgreSQL, with one set of statements. Its one invariant: a row is changed by one statement that
//! names what it is changed from, or in a transaction that holds the lease it is written under.

mod erasures;
mod lease;
mod runs;
mod times;

pub use erasures::StoredErasure;
pub use lease::{Lease, LeaseFence};

use icecore_catalog::{
    error::CatalogError,
    metastore::database::{Database, DatabaseLayout},
};
use icecore_lake::clock::Clock;
use std::sync::Arc;

/// The tables, made and changed in steps that each run once.
const LAYOUT: DatabaseLayout = DatabaseLayout {
    table: "service_layout",
    steps: &[
        lease::STEP,
        runs::STEP,
        times::STEP,
        erasures::STEP,
        runs::USAGE_STEP,
        erasures::DOCUMENTS_STEP,
    ],
};

/// Makes the tables that a database lacks.
///
/// # Errors
/// [`CatalogError::Metastore`]; [`CatalogError::Invalid`] of a newer program's tables.
pub async fn make_tables(database: &Database) -> Result<(), CatalogError> {
    database.make(&LAYOUT).await
}

/// Why a row could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database.
    #[error("{operation} in the service's store")]
    Database {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: sqlx::Error,
    },
    /// Another process has the lease by now: what depends on it must not be written.
    #[error("the lease `{0}` has gone to another process")]
    Fenced(Arc<str>),
}

/// The rows of a server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database,
    clock: Clock,
    /// Who writes them: the same after a restart, and no other process at a time.
    server: Arc<str>,
}

impl Store {
    /// The rows of `server` in this database, whose tables [`make_tables`] has made. No two processes
    /// run as one server at a time, and one that starts again is the same.
    #[must_use]
    pub fn new(database: Database, clock: Clock, server: &str) -> Self {
        Self { database, clock, server: server.into() }
    }
}

fn failed(operation: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Database { operation, source }
}

#[cfg(test)]
mod tests;
