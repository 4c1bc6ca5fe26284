//! What a failed rewrite means for the files that it was of.

use crate::table::{compaction::rewrite::RewriteError, reader::ReadError, writer::WriteError};

impl RewriteError {
    /// The data files that are in the way, where they are known.
    #[must_use]
    pub fn data_files(&self) -> Vec<&str> {
        match self {
            Self::Read(ReadError::File(cause)) => vec![cause.location()],
            Self::Refused { locations, .. } => locations.iter().map(String::as_str).collect(),
            Self::Unsorted { location } | Self::TooLarge { location } => vec![location],
            Self::Plan(_)
            | Self::Read(_)
            | Self::Deletes(_)
            | Self::Write(_)
            | Self::Miscounted { .. }
            | Self::RowsDiffer { .. } => Vec::new(),
        }
    }

    /// Whether fewer of the files may do: not where deletes are what does not read.
    #[must_use]
    pub fn may_be_of_one_file(&self) -> bool {
        let is_of_rows = matches!(self, Self::Miscounted { .. } | Self::RowsDiffer { .. });
        is_of_rows || (matches!(self, Self::Write(_)) && !self.is_of_store())
    }

    /// Whether another try fails as well: the file is as it is.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::Unsorted { .. }
                | Self::TooLarge { .. }
                | Self::Miscounted { .. }
                | Self::RowsDiffer { .. }
        )
    }

    /// Whether the store takes no file: it takes none of others then.
    #[must_use]
    pub fn is_of_store(&self) -> bool {
        matches!(self, Self::Write(WriteError::Store(_)))
    }
}
