//! What differs between tables of the service and those of other engines, and which are left alone.

use crate::maintenance::compaction::{Compaction, CompactionRequest, outcome::CompactionStep};
use icecore_catalog::{
    catalog::LoadedTable,
    retention,
    scan::{ManifestSource, ScanError, filter::Filter},
};
use icecore_lake::{
    ids::IdGenerator,
    table::{
        compaction::{
            choice::LiveFile,
            foreign,
            group::GroupRewrite,
            live_files_in, obstacle, order_fault,
            rewrite::{RewriteError, RewriteInput},
        },
        schema::TableIdent,
    },
};
use tracing::{info, warn};

impl Compaction {
    /// Leaves a table alone, which is logged once: as a warning where nobody can have meant it.
    pub(super) fn stay(
        &self,
        table: &TableIdent,
        loaded: &LoadedTable,
        why: String,
    ) -> CompactionStep {
        let is_news = self.noted().is_news(table, &why);
        let is_fault = || order_fault(&loaded.metadata).is_some_and(|fault| fault == why);
        if is_news && is_fault() {
            warn!(%table, %why, "the files of a table are not merged");
        } else if is_news {
            info!(%table, %why, "the files of a table are not merged");
        }
        CompactionStep::skip(why)
    }
}

/// Why no file of a table is written anew; none when they may be.
pub(super) fn obstacle_of(table: &LoadedTable, request: &CompactionRequest) -> Option<String> {
    let metadata = table.metadata.as_ref();
    match retention::is_managed(metadata) {
        true => obstacle(metadata),
        false => foreign::obstacle(metadata, request.names_a_table()),
    }
}

/// The live files of these partitions of a snapshot, as the choice needs them.
pub(super) async fn files_of(
    source: ManifestSource<'_>,
    snapshot_id: i64,
    partitions: &Filter,
) -> Result<Vec<LiveFile>, ScanError> {
    match retention::is_managed(source.metadata) {
        true => live_files_in(source, snapshot_id, partitions).await,
        false => foreign::live_files(source, snapshot_id, partitions).await,
    }
}

/// Opens a group in the way that is right for its table.
pub(super) async fn open_group<'a>(
    input: RewriteInput<'a>,
    ids: &'a IdGenerator,
) -> Result<GroupRewrite<'a>, RewriteError> {
    match retention::is_managed(input.source.metadata) {
        true => GroupRewrite::open(input, ids).await,
        false => GroupRewrite::open_foreign(input, ids).await,
    }
}
