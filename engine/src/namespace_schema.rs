//! The tables of a namespace for DataFusion.
//!
//! Metadata tables are found by name and not listed: `information_schema` shows what the catalog has.

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
    listed: Mutex<TablesByName>,
    hidden: Mutex<TablesByName>,
}

type TablesByName = BTreeMap<String, Arc<dyn TableProvider>>;

impl NamespaceSchema {
    /// Adds a table that is listed.
    pub(super) fn list(&self, name: &str, table: Arc<dyn TableProvider>) {
        lock(&self.listed).insert(name.to_owned(), table);
    }

    /// Adds a table that is found by its name alone. A listed one of this name is found before it.
    pub(super) fn hide(&self, name: &str, table: Arc<dyn TableProvider>) {
        lock(&self.hidden).insert(name.to_owned(), table);
    }
}

fn lock(tables: &Mutex<TablesByName>) -> MutexGuard<'_, TablesByName> {
    tables.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl SchemaProvider for NamespaceSchema {
    fn table_names(&self) -> Vec<String> {
        lock(&self.listed).keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let listed = lock(&self.listed).get(name).cloned();
        Ok(listed.or_else(|| lock(&self.hidden).get(name).cloned()))
    }

    fn register_table(
        &self,
        name: String,
        table: Arc<dyn TableProvider>,
    ) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        Ok(lock(&self.listed).insert(name, table))
    }

    fn table_exist(&self, name: &str) -> bool {
        lock(&self.listed).contains_key(name) || lock(&self.hidden).contains_key(name)
    }
}
