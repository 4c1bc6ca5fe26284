//! Lists the names of the catalog in the warehouse: a metastore that is lost is rebuilt by them.
//!
//! What the list has, and when it is written, is the catalog's to know.

use crate::tasks::{Job, Progress};
use icecore_catalog::{
    catalog::{Catalog, ListedThrough},
    error::CatalogError,
};
use tracing::warn;

/// The job that keeps the list.
#[derive(Debug)]
pub struct ListNames {
    catalog: Catalog,
    listed: ListedThrough,
}

impl ListNames {
    /// Keeps the list of `catalog`.
    #[must_use]
    pub fn new(catalog: &Catalog) -> Self {
        Self { catalog: catalog.clone(), listed: ListedThrough::default() }
    }
}

/// The last step of a stop, for names that changed since the job ran.
pub async fn finish(catalog: &Catalog) {
    if let Err(cause) = ListNames::new(catalog).tick().await {
        warn!(error = &cause as &dyn std::error::Error, "cannot list the names of the catalog");
    }
}

impl Job for ListNames {
    const NAME: &'static str = "list-names";
    type Error = CatalogError;

    async fn tick(&mut self) -> Result<Progress, CatalogError> {
        let has_written = self.catalog.upkeep().list_names(&mut self.listed).await?;
        Ok(Progress::of(has_written, false))
    }
}
