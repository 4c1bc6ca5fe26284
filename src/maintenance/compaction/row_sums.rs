//! What other engines' commits add and remove, found out while their snapshots are retained.
//!
//! A commit of another engine has no sum of its rows. The audit of the rows would find it out, and may come
//! when the snapshot before it is thinned away; so a look at a table that has a new one comes first. Its one
//! invariant: nothing of a table changes, and a failure costs no more than a warning. A look ends after
//! [`TIME_MAX`], so that what is too large for it holds up no other table: that is left to the audit.

use crate::maintenance::{
    compaction::Compaction,
    row_sums::{self, SettleError},
};
use icecore_catalog::{catalog::LoadedTable, row_sum::RecordedSums, scan::Deadline};
use icecore_lake::table::schema::TableIdent;
use std::{error::Error, time::Duration};
use tokio::time::{Instant, timeout};
use tracing::warn;

/// Longest look at one table. The job rests for it as for any other work.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Settle(#[from] SettleError),
    #[error("the files that were changed take longer than {} s to read", TIME_MAX.as_secs())]
    TooSlow,
}

impl Compaction {
    /// Finds out what commits of other engines did since the last time; once for each newest of them, and
    /// after a pause where that failed.
    pub(super) async fn settle_rows(&self, table: &TableIdent, loaded: &LoadedTable) {
        let Some(head) = loaded.metadata.current_snapshot() else { return };
        let Some(basis) = RecordedSums::of(head).basis else { return };
        if !self.noted().is_unsettled(table, basis, self.0.clock.passed_ms()) {
            return;
        }
        let mut stopping = self.0.tasks.stopping();
        let until = Deadline::at(Instant::now() + TIME_MAX);
        let looked = Box::pin(row_sums::settle(&self.0.catalog, loaded, until));
        // Cancel-safe: it only reads, and what it notes is one transaction.
        let settled = tokio::select! {
            settled = timeout(TIME_MAX, looked) => settled,
            () = stopping.asked() => return,
        };
        let settled = match settled {
            Ok(settled) => settled.map_err(LookError::from),
            Err(_) => Err(LookError::TooSlow),
        };
        match settled {
            Ok(()) => self.noted().settle(table, basis),
            Err(cause) => {
                self.noted().fail_to_settle(table, self.0.clock.passed_ms());
                let error = &cause as &dyn Error;
                warn!(%table, error, "it is not known yet what other engines did to the rows");
            }
        }
    }
}
