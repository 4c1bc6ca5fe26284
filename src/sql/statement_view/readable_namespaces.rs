//! The namespaces that a statement is told of when it asks which ones there are: those that its sender may read.

use crate::sql::{statement_view::ViewDraft, view::internal};
use icecore_catalog::access::Action;
use icecore_engine::error::SqlError;
use std::collections::BTreeSet;

/// Most namespaces that a statement is told of.
const NAMESPACES_MAX: usize = 10_000;

impl ViewDraft<'_> {
    /// Notes each namespace that the sender may read, without its tables.
    pub(super) async fn add_namespaces(&mut self) -> Result<(), SqlError> {
        let Some(principal) = self.reader.principal else { return Ok(()) };
        let metastore = self.sources.catalog.metastore();
        // Before the catalog is asked: what is committed meanwhile is gone from the log.
        let logged = self.sources.wal.pending().into_iter().filter(|table| table.kind.is_rows());
        let logged: Vec<Vec<String>> =
            logged.map(|table| vec![table.namespace.name().to_owned()]).collect();
        let mut found: BTreeSet<Vec<String>> = BTreeSet::new();
        let tops: Vec<&Vec<String>> = principal.namespaces(Action::Read).collect();
        for top in tops {
            let listed = metastore.namespaces_from(top, NAMESPACES_MAX + 1).await;
            found.extend(listed.map_err(|cause| internal(&cause))?);
            if NAMESPACES_MAX < found.len() {
                return Err(SqlError::Limit(format!(
                    "there are more than {NAMESPACES_MAX} namespaces; list them in pages with GET /catalog/v1/namespaces"
                )));
            }
        }
        found.extend(logged.into_iter().filter(|levels| principal.may(Action::Read, levels)));
        for levels in found {
            let name = levels.join(".");
            // The session has a schema of the namespaces that are in the view.
            self.view.namespace_mut(&name);
            if levels != self.reader.levels {
                self.view.other_levels.insert(levels);
            }
        }
        Ok(())
    }
}
