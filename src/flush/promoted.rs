//! Columns for the JSON paths that a table's owner asks for: the flush after that adds them. Values are filled
//! in where rows are written, by `icecore_lake::table::promoted`.
//!
//! Its one invariant: a wish that cannot be met holds no rows up. The log tells of it, and the flush goes on.

use crate::flush::{
    FlushError,
    commit::{FlushTarget, TableFlush},
};
use iceberg::{TableIdent, spec::TableMetadata};
use icecore_catalog::error::CatalogError;
use icecore_lake::table::promoted::{PROMOTED_PATHS, PathRequests};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};
use tracing::{info, warn};

/// Why paths got no column at the last flush of their table, by `namespace.table`.
#[derive(Debug, Default)]
pub(super) struct PromotionFaults(Mutex<BTreeMap<String, String>>);

impl PromotionFaults {
    /// Notes what is wrong with the paths of a table, and tells the operator when that is news.
    fn note(&self, table: &TableIdent, fault: Option<String>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = table.to_string();
        let Some(fault) = fault else {
            known.remove(&key);
            return;
        };
        if known.get(&key) != Some(&fault) {
            warn!(%table, fault, "paths of the property `{PROMOTED_PATHS}` get no column");
            known.insert(key, fault);
        }
    }
}

impl TableFlush {
    /// The table with a column for every path that it asks for. They are added by a commit of their own,
    /// before a file names their ids. Where that is refused, also because others changed the columns
    /// meanwhile, the rows go on without, and the next flush asks again.
    pub(super) async fn with_promoted(
        &self,
        ident: &TableIdent,
        table: FlushTarget,
    ) -> Result<FlushTarget, FlushError> {
        let (requests, fault) = read(table.metadata());
        let is_new = matches!(table, FlushTarget::New { .. });
        if is_new || requests.missing().is_empty() {
            self.bounds.promotion_faults.note(ident, fault);
            return Ok(table);
        }
        let change = match requests.add_to(ident, table.metadata()) {
            Ok(change) => change,
            Err(cause) => {
                self.bounds.promotion_faults.note(ident, Some(cause.message().to_owned()));
                return Ok(table);
            }
        };
        match self.catalog.commit(change).await {
            Ok(changed) => {
                let columns = requests.missing().join(", ");
                info!(table = %ident, columns, "columns of promoted paths are added to a table");
                self.bounds.promotion_faults.note(ident, fault);
                self.faults.hit("flush.after_columns")?;
                Ok(FlushTarget::There(changed))
            }
            // It did not happen, and the rows have to go somewhere.
            Err(CatalogError::Invalid(reason) | CatalogError::CommitFailed(reason)) => {
                self.bounds.promotion_faults.note(ident, Some(reason));
                Ok(table)
            }
            Err(cause) => Err(cause.into()),
        }
    }
}

/// The paths of a table, and what is wrong with them.
fn read(table: &TableMetadata) -> (PathRequests, Option<String>) {
    match PathRequests::of(table) {
        Ok(requests) => {
            let taken = requests.left_out().join(", ");
            let fault = "the table has other columns of these names, or not the JSON column";
            let fault = (!taken.is_empty()).then(|| format!("{taken}: {fault}"));
            (requests, fault)
        }
        Err(cause) => (PathRequests::default(), Some(cause.to_string())),
    }
}
