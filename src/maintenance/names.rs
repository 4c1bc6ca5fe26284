//! Lists the names of the catalog in the warehouse: a metastore that is lost is rebuilt by them.
//!
//! What the list has, and when it is written, is the catalog's to know.

use crate::tasks::{Job, Progress};
use icecore_catalog::{
    catalog::{Catalog, ListedThrough},
    error::CatalogError,
};
use icecore_lake::faults::Failpoints;
use std::io;
use tracing::warn;

/// Why a tick failed.
#[derive(Debug, thiserror::Error)]
pub enum NameListError {
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A planned fault of a test.
    #[error("list the names of the catalog")]
    Fault(#[from] io::Error),
}

/// The job that keeps the list.
#[derive(Debug)]
pub struct ListNames {
    catalog: Catalog,
    listed: ListedThrough,
    faults: Failpoints,
}

impl ListNames {
    /// Keeps the list of `catalog`.
    #[must_use]
    pub fn new(catalog: &Catalog) -> Self {
        let (listed, faults) = (ListedThrough::default(), Failpoints::default());
        Self { catalog: catalog.clone(), listed, faults }
    }

    /// The same job, with the faults of a test.
    #[must_use]
    pub fn with_faults(self, faults: Failpoints) -> Self {
        Self { faults, ..self }
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
    type Error = NameListError;

    async fn tick(&mut self) -> Result<Progress, NameListError> {
        self.faults.hit("names.before_list")?;
        let has_written = self.catalog.upkeep().list_names(&mut self.listed).await?;
        if has_written {
            self.faults.hit("names.after_list")?;
        }
        Ok(Progress::of(has_written, false))
    }
}
