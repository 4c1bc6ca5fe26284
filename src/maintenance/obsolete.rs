//! Deletes files that commits and dropped tables have made unneeded, once their time has come, and
//! forgets old requests and changes.
//!
//! Which files those are, and when, is the catalog's to know; a file leaves the queue only after
//! it is deleted.

use crate::tasks::{Job, Progress};
use icecore_catalog::{catalog::Catalog, error::CatalogError};
use icecore_lake::faults::Failpoints;
use std::io;

/// Most dropped tables of one tick.
const TABLES_MAX: u32 = 10;
/// Most files of one tick: a second or two of a store that is asked for each.
const FILES_MAX: u32 = 1_000;

/// Why a tick failed.
#[derive(Debug, thiserror::Error)]
pub enum DeletionError {
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A planned fault of a test.
    #[error("delete obsolete files")]
    Fault(#[from] io::Error),
}

/// The job that works off the catalog's queue of files to delete.
#[derive(Debug)]
pub struct DeleteObsolete {
    catalog: Catalog,
    faults: Failpoints,
}

impl DeleteObsolete {
    /// Works off the queue of `catalog`.
    #[must_use]
    pub fn new(catalog: Catalog) -> Self {
        Self { catalog, faults: Failpoints::default() }
    }

    /// The same job, with the faults of a test.
    #[must_use]
    pub fn with_faults(self, faults: Failpoints) -> Self {
        Self { faults, ..self }
    }
}

impl Job for DeleteObsolete {
    const NAME: &'static str = "delete-obsolete";
    type Error = DeletionError;

    async fn tick(&mut self) -> Result<Progress, DeletionError> {
        // The metastore that comes in place of one that is gone may need what its queue has.
        self.catalog.metastore().check_file()?;
        let emptied = self.catalog.trash().empty(TABLES_MAX).await?;
        if 0 < emptied {
            self.faults.hit("obsolete.after_trash")?;
        }
        self.catalog.upkeep().forget_records().await?;
        let done = self.catalog.upkeep().work_off_obsolete(FILES_MAX).await?;
        if 0 < done.deleted {
            self.faults.hit("obsolete.after_deletion")?;
        }
        // Files that stay, or wait for their table, hold up no others.
        let was_full = usize::try_from(FILES_MAX).is_ok_and(|max| max <= done.settled);
        Ok(Progress::of(0 < emptied + done.deleted, was_full))
    }
}
