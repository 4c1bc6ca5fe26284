//! Notes beside the log which change of the metastore was the last, so that a start with an older
//! copy of the metastore is noticed.

use crate::tasks::{Job, Progress};
use icecore_catalog::{catalog::Catalog, error::CatalogError};
use icecore_lake::wal::{Wal, marks::MetastoreMark};

/// The job that notes what others change, beside the commits of this server's own tables.
#[derive(Debug)]
pub struct NoteMetastore {
    wal: Wal,
    catalog: Catalog,
}

impl NoteMetastore {
    /// Notes the metastore of `catalog` beside `wal`.
    #[must_use]
    pub fn new(wal: &Wal, catalog: &Catalog) -> Self {
        Self { wal: wal.clone(), catalog: catalog.clone() }
    }
}

impl Job for NoteMetastore {
    const NAME: &'static str = "note-metastore";
    type Error = CatalogError;

    async fn tick(&mut self) -> Result<Progress, CatalogError> {
        note(&self.wal, &self.catalog).await.map(|()| Progress::Idle)
    }
}

/// Notes the last change that is durable.
///
/// # Errors
/// [`CatalogError::Metastore`].
pub(super) async fn note(wal: &Wal, catalog: &Catalog) -> Result<(), CatalogError> {
    if wal.is_noted() {
        let feed = catalog.metastore().feed().await?;
        wal.note_metastore(MetastoreMark { id: feed.id, last: feed.last });
    }
    Ok(())
}
