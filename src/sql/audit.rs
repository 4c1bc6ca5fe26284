//! The audit log's pages, for a query that asks for them.

use icecore_catalog::metastore::Metastore;
use icecore_engine::{audit::PageRequest, error::SqlError};

/// Answers a query that wants records.
pub(super) async fn answer(store: &Metastore, PageRequest { range, limit, reply }: PageRequest) {
    let page = store.newest_audit(range, limit).await.map_err(|cause| {
        tracing::error!(error = &cause as &dyn std::error::Error, "no audit records to query");
        SqlError::Internal("the audit log cannot be read".to_owned())
    });
    if reply.send(page).is_err() {
        tracing::debug!("a query ended while it waited for audit records");
    }
}
