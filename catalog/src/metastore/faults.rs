//! Faults of a COMMIT, for tests: the answer is lost before or after it took place.

use super::Metastore;
use sqlx::{Any, Transaction};
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitFault {
    /// The connection is lost before COMMIT arrives.
    Before,
    /// COMMIT takes place and the answer is lost.
    After,
    /// COMMIT takes place, the answer is lost, and the database cannot be asked.
    Deaf,
}

/// The fault of the next COMMIT, shared by all clones of a metastore.
#[derive(Clone, Debug, Default)]
pub(crate) struct CommitFaults(Arc<Mutex<Option<CommitFault>>>, Arc<Mutex<bool>>);

impl CommitFaults {
    pub(crate) fn set(&self, fault: CommitFault) {
        *self.0.lock().unwrap() = Some(fault);
    }

    pub(crate) fn take(&self) -> Option<CommitFault> {
        let fault = self.0.lock().unwrap().take();
        *self.1.lock().unwrap() = fault == Some(CommitFault::Deaf);
        fault
    }

    pub(super) fn is_deaf(&self) -> bool {
        *self.1.lock().unwrap()
    }
}

impl CommitFault {
    pub(super) async fn commit(self, tx: Transaction<'static, Any>) -> Result<(), sqlx::Error> {
        match self {
            Self::Before => tx.rollback().await?,
            Self::After | Self::Deaf => tx.commit().await?,
        }
        Err(sqlx::Error::WorkerCrashed)
    }
}

impl Metastore {
    /// Ends some connection to the database that is in use, or is not.
    pub(crate) async fn kill_a_connection(&self) {
        // The one that asks may be the one that another test kills.
        let _killed = sqlx::raw_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()
             ORDER BY random() LIMIT 1",
        )
        .execute(&self.database.readers)
        .await;
    }
}
