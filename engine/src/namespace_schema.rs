//! The tables of a namespace for DataFusion: those that a statement names, or all where it asks what there is.

use async_trait::async_trait;
use datafusion::{
    catalog::{SchemaProvider, TableProvider},
    error::DataFusionError,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Such tables by name.
#[derive(Debug, Default)]
pub(super) struct NamespaceSchema {
    tables: Mutex<BTreeMap<String, Arc<dyn TableProvider>>>,
}

impl NamespaceSchema {
    /// Adds a table, in the place of a metadata table that is called the same.
    pub(super) fn add(&self, name: &str, table: Arc<dyn TableProvider>) {
        self.lock().insert(name.to_owned(), table);
    }

    /// Adds a metadata table, unless there is a table of its name.
    pub(super) fn add_metadata(&self, name: String, table: Arc<dyn TableProvider>) {
        self.lock().entry(name).or_insert(table);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<dyn TableProvider>>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SchemaProvider for NamespaceSchema {
    fn table_names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        Ok(self.lock().get(name).cloned())
    }

    fn register_table(
        &self,
        name: String,
        table: Arc<dyn TableProvider>,
    ) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        Ok(self.lock().insert(name, table))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }
}
