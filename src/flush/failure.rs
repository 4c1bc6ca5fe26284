//! What a failed flush means for the tables that wait.

use crate::flush::FlushError;
use icecore_catalog::{error::CatalogError, storage};
use icecore_lake::table::writer::WriteError;

impl FlushError {
    /// What is wrong with the store of the files, where it is at fault.
    #[must_use]
    pub fn of_storage(&self) -> Option<String> {
        match self {
            Self::Write(WriteError::Store(cause)) | Self::Commit(cause) => {
                storage::probe::answer_of_store(cause)
            }
            Self::Table { source, .. } => source.of_storage(),
            Self::Wal(_)
            | Self::RowsDiffer { .. }
            | Self::Decode(_)
            | Self::Write(_)
            | Self::Fault(_)
            | Self::NamespaceTaken { .. }
            | Self::Foreign { .. }
            | Self::NotOwner(_)
            | Self::Deposed
            | Self::Stopped => None,
        }
    }

    /// Whether the table itself is at fault, so that it fails until somebody puts that right; false
    /// where the log, the store or the metastore fails, which concerns every table.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Write(WriteError::Store(cause)) | Self::Commit(cause) => match cause {
                CatalogError::Storage { .. } => storage::is_missing(cause),
                CatalogError::WarehouseOutage(_)
                | CatalogError::Metastore { .. }
                | CatalogError::Busy(_)
                | CatalogError::CommitStateUnknown(_) => false,
                _ => true,
            },
            Self::Table { source, .. } => source.is_lasting(),
            Self::Decode(_)
            | Self::RowsDiffer { .. }
            | Self::Write(_)
            | Self::NamespaceTaken { .. }
            | Self::Foreign { .. } => true,
            Self::Wal(_) | Self::Fault(_) | Self::NotOwner(_) | Self::Deposed | Self::Stopped => {
                false
            }
        }
    }
}
