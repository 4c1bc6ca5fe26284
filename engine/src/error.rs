//! Why a query fails, as its sender is told.

use icecore_lake::table::as_of::AsOfError;
use icecore_schemas::{as_of::InvalidAsOf, error_code::ErrorCode};
use serde::{Deserialize, Serialize};

/// Why a query failed.
#[derive(Clone, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum SqlError {
    /// The statement is not valid, or not a query. The text says what to change.
    #[error("{0}")]
    Invalid(String),
    /// The statement is no SQL from this place on; lines and columns count from 1.
    #[error("the statement does not parse at line {line}, column {column}: {reason}")]
    #[expect(missing_docs, reason = "the members are named in the text")]
    Syntax { reason: String, line: u64, column: u64 },
    /// The snapshot is not there.
    #[error("{0}")]
    NotFound(String),
    /// A point of a table's history was removed. `nearest` has those around it, each as `as_of` takes it.
    #[error("{text}")]
    #[expect(missing_docs, reason = "the members are named above")]
    Gone { text: String, nearest: Vec<String> },
    /// The namespace, named here, is not there.
    #[error("namespace `{0}` has no events")]
    NoNamespace(String),
    /// A table is there, but its metadata file is gone or broken. The text names the file.
    #[error("{0}")]
    Unreadable(String),
    /// Acknowledged rows wait in the log, and the table with the name of theirs is another's. The text
    /// says what to change.
    #[error("{0}")]
    Withheld(String),
    /// The asker may not see it. The text names the scope that it needs.
    #[error("{0}")]
    Forbidden(String),
    /// Over the time, memory or row limit.
    #[error("{0}")]
    Limit(String),
    /// What the query wants to see is not there yet.
    #[error("{0}")]
    NotYet(String),
    /// Too many queries at once.
    #[error("{0}")]
    Busy(String),
    /// The catalog does not answer now; the same query may succeed later.
    #[error("the catalog does not answer now; try again")]
    Unavailable,
    /// The warehouse is not there, or a file of it cannot be read now. The text says which.
    #[error("{0}")]
    Outage(String),
    /// The server failed.
    #[error("{0}")]
    Internal(String),
}

impl SqlError {
    /// What it is to a client.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid(_) | Self::Syntax { .. } => ErrorCode::InvalidSql,
            Self::NotFound(_) | Self::NoNamespace(_) | Self::Unreadable(_) => ErrorCode::NotFound,
            Self::Forbidden(_) => ErrorCode::Forbidden,
            Self::Gone { .. } => ErrorCode::Gone,
            Self::Limit(_) => ErrorCode::QueryLimit,
            Self::NotYet(_) => ErrorCode::NotYet,
            Self::Busy(_) => ErrorCode::TooManyRequests,
            Self::Unavailable | Self::Withheld(_) | Self::Outage(_) => ErrorCode::Unavailable,
            Self::Internal(_) => ErrorCode::Internal,
        }
    }
}

impl From<InvalidAsOf> for SqlError {
    fn from(cause: InvalidAsOf) -> Self {
        Self::Invalid(cause.to_string())
    }
}

impl From<AsOfError> for SqlError {
    fn from(cause: AsOfError) -> Self {
        let nearest = cause.nearest();
        match cause {
            AsOfError::Future { .. } | AsOfError::Misdated { .. } => {
                Self::Invalid(cause.to_string())
            }
            AsOfError::NoSnapshot { .. }
            | AsOfError::NoneThen { .. }
            | AsOfError::NoReference { .. } => Self::NotFound(cause.to_string()),
            AsOfError::Removed { .. } | AsOfError::SnapshotRemoved { .. } => {
                Self::Gone { text: cause.to_string(), nearest }
            }
        }
    }
}
