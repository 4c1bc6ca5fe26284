//! Which tables of a namespace an erasure looks through, and what it says of the others.

use crate::{
    maintenance::{
        erasure::{EraseError, Erasures},
        planned::RunRequest,
        scope::tables_of,
    },
    store::StoredErasure,
};
use icecore_catalog::{
    catalog::LoadedTable,
    error::{CatalogError, with_causes},
    retention::is_managed,
};
use icecore_lake::{
    event::subject::Subject,
    table::{erasure::foreign, schema::TableIdent},
};

/// The tables of a namespace.
#[derive(Debug, Default)]
pub(super) struct ErasureTables {
    /// Those whose rows are erased: the service's own, and those of other engines that ask for it.
    pub(super) erased: Vec<(TableIdent, LoadedTable)>,
    /// What stays in tables of other engines, as sentences.
    pub(super) limits: Vec<String>,
}

impl Erasures {
    /// The tables of an erasure's namespace, as they are now.
    pub(super) async fn tables(
        &self,
        erasure: &StoredErasure,
    ) -> Result<ErasureTables, EraseError> {
        let subject = Subject::parse(&erasure.report.subject).map_err(EraseError::Invalid)?;
        let levels = Some(erasure.levels.clone());
        let request = RunRequest { levels, ..RunRequest::default() };
        let catalog = &self.parts.catalog;
        let mut found = ErasureTables::default();
        let names = match tables_of(catalog, &request).await {
            // It was dropped: nothing is left to erase.
            Err(CatalogError::NoSuchNamespace(_)) => Vec::new(),
            names => names?,
        };
        for table in names {
            let loaded = match catalog.tables().load(&table).await {
                Ok(loaded) => loaded,
                // It was dropped meanwhile.
                Err(CatalogError::NoSuchTable(_)) => continue,
                Err(cause) => {
                    let (table, reason) = (table.to_string(), with_causes(&cause));
                    return Err(EraseError::Table { table, reason });
                }
            };
            if !is_managed(&loaded.metadata) {
                let name = &table.name;
                if let Some(stays) = foreign::obstacle(&loaded.metadata, subject.person()) {
                    found.limits.push(format!("the table `{name}` {stays}"));
                    continue;
                }
                found.limits.push(format!(
                    "files of the table `{name}` that are outside of its folder are not deleted"
                ));
            }
            found.erased.push((table, loaded));
        }
        Ok(found)
    }
}
