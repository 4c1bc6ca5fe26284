//! What other engines did to the rows of a table, found out before its history goes, which alone tells it.

use crate::maintenance::{
    erasure::{EraseError, Erasures},
    row_sums::{self, SettleError},
};
use icecore_catalog::{catalog::LoadedTable, error::with_causes, scan::Deadline};
use icecore_lake::table::schema::TableIdent;
use std::error::Error;
use tracing::warn;

impl Erasures {
    /// Notes what commits of other engines did up to this state of a table. A file that does not read holds
    /// up no erasure: the next audit says then that its sums begin anew.
    pub(super) async fn settle_rows(
        &self,
        (table, loaded): &(TableIdent, LoadedTable),
    ) -> Result<(), EraseError> {
        let catalog = &self.parts.catalog;
        let mut work = self.parts.pace.begin();
        let settled = Box::pin(row_sums::settle(catalog, loaded, Deadline::NONE)).await;
        // It could not rest in its middle, where it may hold a connection to the metastore.
        work.settle().await;
        match settled {
            Ok(()) => Ok(()),
            Err(SettleError::Read(cause)) if catalog.storage().outage().is_none() => {
                let error = &cause as &dyn Error;
                warn!(
                    %table,
                    error,
                    "what other engines did to the rows is not found out, and its history goes"
                );
                Ok(())
            }
            Err(cause) => {
                let (table, reason) = (table.to_string(), with_causes(&cause));
                Err(EraseError::Table { table, reason })
            }
        }
    }
}
