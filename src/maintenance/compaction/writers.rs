//! Tables that other engines may be about to write: compaction by itself leaves them alone for a while.
//!
//! When that is the catalog knows, [`icecore_catalog::catalog::Upkeep::files_stay_until`]. Its one invariant:
//! nothing is committed by itself for such a table, also where the engine loaded it after its files were read.

use crate::maintenance::compaction::{Compaction, CompactionError, CompactionRequest};
use icecore_catalog::catalog::LoadedTable;
use icecore_lake::table::compaction::rewrite::RewrittenFiles;

/// Why files of such a table stay.
pub(super) const WRITER: &str = "Spark, Flink or Trino may be writing the table, and gives up if files \
     that it read are merged: the job waits for 2 minutes after a load of it, for 15 where it has committed, \
     at most for an hour on end; a run by hand does not wait";

impl CompactionRequest {
    /// Whether somebody asks for it.
    pub(super) fn is_by_hand(&self) -> bool {
        !self.leaves_foreign
    }
}

impl Compaction {
    /// Why the files of a table are to stay for an engine that may be about to write, if they are.
    pub(super) async fn writer_of(
        &self,
        table: &LoadedTable,
    ) -> Result<Option<&'static str>, CompactionError> {
        let until_ms = self.0.catalog.upkeep().files_stay_until(table).await?;
        Ok(until_ms.map(|_| WRITER))
    }

    /// Why these files are not committed but deleted: such an engine loaded the table since it was read.
    pub(super) async fn give_way(
        &self,
        table: &LoadedTable,
        request: &CompactionRequest,
        written: &[RewrittenFiles],
    ) -> Result<Option<&'static str>, CompactionError> {
        if request.is_by_hand() || written.is_empty() {
            return Ok(None);
        }
        let writer = self.writer_of(table).await;
        if !matches!(writer, Ok(None)) {
            self.delete(written).await;
        }
        writer
    }
}
