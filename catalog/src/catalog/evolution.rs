//! Columns and partition fields that change with a snapshot of ours.
//!
//! Its one invariant: the ids that a table gives them are those that the snapshot's files were written with.

use super::Catalog;
use crate::{
    commit,
    error::CatalogError,
    snapshot::{NewSnapshot, TableEvolution},
};
use iceberg::{TableIdent, spec::TableMetadata};
use std::sync::Arc;

impl Catalog {
    /// The table that a snapshot is built on: with the columns and partition fields that come with it.
    pub(super) async fn evolved(
        &self,
        base: &Arc<TableMetadata>,
        table: &TableIdent,
        new: &NewSnapshot,
        now_ms: i64,
    ) -> Result<Arc<TableMetadata>, CatalogError> {
        let Some(TableEvolution { requirements, updates }) = &new.evolution else {
            return Ok(Arc::clone(base));
        };
        commit::check_requirements(requirements, Some(base))?;
        if updates.is_empty() {
            return Ok(Arc::clone(base));
        }
        let evolved = commit::apply_updates_at(base, None, updates, now_ms)?;
        let spec_id = evolved.default_partition_spec_id();
        if new.added_of_spec.iter().any(|(id, _)| *id != spec_id) {
            return Err(CatalogError::CommitFailed(format!(
                "{table} got another partition spec since files were written for it"
            )));
        }
        self.check_commit(table, Some(base), &evolved, updates).await?;
        Ok(Arc::new(evolved))
    }
}
