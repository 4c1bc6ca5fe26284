//! Namespaces that are there before their first table.

use super::Catalog;
use crate::{
    error::CatalogError,
    metastore::{Levels, Properties},
};

/// The namespaces of a catalog.
#[derive(Clone, Copy, Debug)]
pub struct Namespaces<'a>(&'a Catalog);

impl Catalog {
    /// Its namespaces.
    #[must_use]
    pub fn namespaces(&self) -> Namespaces<'_> {
        Namespaces(self)
    }
}

impl Namespaces<'_> {
    /// Adds a namespace with these properties if it is not there, and gives its properties.
    /// Namespaces above it that are missing are added without any.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn ensure(
        self,
        levels: &Levels,
        properties: &Properties,
    ) -> Result<Properties, CatalogError> {
        let metastore = self.0.metastore();
        if let Some(found) = metastore.namespace(levels).await? {
            return Ok(found);
        }
        let none = Properties::new();
        for depth in 1..=levels.len() {
            let properties = if depth == levels.len() { properties } else { &none };
            match metastore.create_namespace(&levels[..depth].to_vec(), properties).await {
                Ok(()) | Err(CatalogError::AlreadyExists(_)) => (),
                Err(cause) => return Err(cause),
            }
        }
        let found = metastore.namespace(levels).await?;
        found.ok_or_else(|| CatalogError::NoSuchNamespace(levels.join(".")))
    }
}
