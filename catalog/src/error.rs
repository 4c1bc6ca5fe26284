//! What can go wrong in the catalog, and the Iceberg error each case is for a REST client.

use uuid::Uuid;

/// Why a catalog call failed. Each variant has one HTTP status and one Iceberg exception name.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The namespace is not there. 404 `NoSuchNamespaceException`.
    #[error("Namespace does not exist: {0}")]
    NoSuchNamespace(String),
    /// The table is not there. 404 `NoSuchTableException`.
    #[error("Table does not exist: {0}")]
    NoSuchTable(String),
    /// The view is not there. 404 `NoSuchViewException`.
    #[error("View does not exist: {0}")]
    NoSuchView(String),
    /// The table has no branch or tag of that name. 404 `NotFoundException`.
    #[error("there is no branch or tag `{0}`")]
    NoSuchReference(String),
    /// The name is taken. 409 `AlreadyExistsException`.
    #[error("{0}")]
    AlreadyExists(String),
    /// A metadata file of a table or view that the catalog has, under this or another name. 409
    /// `AlreadyExistsException`; the REST protocol names it to who may read it.
    #[error(
        "this catalog already has the table or view of this metadata file: drop that one first, or \
         register a copy with its own uuid"
    )]
    Registered(Uuid),
    /// An operator protected the table from being dropped or renamed. 409 `ProtectedException`.
    #[error("Table is protected: {0}; remove the protection first")]
    Protected(String),
    /// The namespace still has tables or namespaces. 409 `NamespaceNotEmptyException`.
    #[error("Namespace is not empty: {0}")]
    NamespaceNotEmpty(String),
    /// The commit definitely did not happen, because a requirement failed or a race was lost.
    /// 409 `CommitFailedException`.
    #[error("{0}")]
    CommitFailed(String),
    /// The commit may or may not have happened; no file was deleted. 500
    /// `CommitStateUnknownException`.
    #[error("the outcome of the commit is unknown: {0}")]
    CommitStateUnknown(String),
    /// Too many others wait for the same; nothing changed. 503 `ServiceUnavailableException`.
    #[error("{0}")]
    Busy(String),
    /// The request was carried out before, under the same `Idempotency-Key`; nothing changed. A
    /// REST client gets the answer of back then.
    #[error("the request was carried out before")]
    Repeated,
    /// The request is not valid. 400 `BadRequestException`.
    #[error("{0}")]
    Invalid(String),
    /// The request is well formed, but what it asks for makes no sense. 400
    /// `IllegalArgumentException`, which Java clients throw as their own.
    #[error("{0}")]
    IllegalArgument(String),
    /// The file that a table's pointer names is gone. 404 `NotFoundException`, in the words that
    /// Java's clients look for.
    #[error("Failed to open input stream for file: {0}")]
    MissingMetadata(String),
    /// A location lies outside the warehouse or the table's own prefix. 403 `ForbiddenException`.
    #[error("location `{0}` is outside the locations that this catalog may access")]
    LocationForbidden(String),
    /// The caller may change the table, but not so. 403 `ForbiddenException`.
    #[error("{0}")]
    Forbidden(String),
    /// The store of files failed. 503 when [`CatalogError::is_temporary`], else 500.
    #[error("{operation} `{location}`")]
    Storage {
        /// What was tried.
        operation: &'static str,
        /// On which object.
        location: String,
        /// Why it failed.
        #[source]
        source: object_store::Error,
    },
    /// The warehouse as a whole is not there, or refuses this server. 503.
    #[error("{0}")]
    WarehouseOutage(String),
    /// The metastore failed before anything changed. 503.
    #[error("metastore: {operation}")]
    Metastore {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: sqlx::Error,
    },
    /// Metadata, a manifest or a manifest list does not parse or build. 500, or 400 where the
    /// client sent it.
    #[error("{operation}")]
    Iceberg {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: iceberg::Error,
    },
}

impl CatalogError {
    /// Whether nothing changed and the same call may succeed later: the store of files or the
    /// metastore did not answer.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        // `Generic` is what the store says for timeouts, refused connections, a full disk.
        matches!(
            self,
            Self::Storage { source: object_store::Error::Generic { .. }, .. }
                | Self::WarehouseOutage(_)
                | Self::Metastore { .. }
                | Self::Busy(_)
        )
    }

    /// Whether a file of a table is not there or does not read, whoever asks for it. A store that
    /// refuses or does not answer says nothing of its files.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Storage { source: object_store::Error::NotFound { .. }, .. }
                | Self::Iceberg { .. }
                | Self::LocationForbidden(_)
                | Self::Invalid(_)
        )
    }

    /// Whether nothing changed because the disk of an SQLite metastore is full.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        // SQLITE_FULL, and SQLITE_IOERR_SHMSIZE, which it is when the journal's index gets no room.
        let is_full = |code: &str| matches!(code, "13" | "4874");
        matches!(self, Self::Metastore { source: sqlx::Error::Database(cause), .. } if cause.code().is_some_and(|code| is_full(&code)))
    }

    /// For a file that nothing may point to any more.
    pub(crate) fn about_to_be_deleted(location: &str) -> Self {
        Self::Invalid(format!(
            "metadata file `{location}` and the files that it references are about to be deleted: \
             register a copy of the table, or a newer metadata file"
        ))
    }

    /// Whether nothing changed, for certain.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        !matches!(self, Self::CommitStateUnknown(_))
    }

    /// The same error for another of those whom it concerns; causes are kept as text.
    pub(crate) fn copy(&self) -> Self {
        match self {
            Self::NoSuchNamespace(text) => Self::NoSuchNamespace(text.clone()),
            Self::NoSuchTable(text) => Self::NoSuchTable(text.clone()),
            Self::NoSuchView(text) => Self::NoSuchView(text.clone()),
            Self::NoSuchReference(text) => Self::NoSuchReference(text.clone()),
            Self::Registered(uuid) => Self::Registered(*uuid),
            Self::Protected(text) => Self::Protected(text.clone()),
            Self::IllegalArgument(text) => Self::IllegalArgument(text.clone()),
            Self::MissingMetadata(text) => Self::MissingMetadata(text.clone()),
            Self::AlreadyExists(text) => Self::AlreadyExists(text.clone()),
            Self::NamespaceNotEmpty(text) => Self::NamespaceNotEmpty(text.clone()),
            Self::CommitFailed(text) => Self::CommitFailed(text.clone()),
            Self::CommitStateUnknown(text) => Self::CommitStateUnknown(text.clone()),
            Self::Busy(text) => Self::Busy(text.clone()),
            Self::Repeated => Self::Repeated,
            Self::Invalid(text) => Self::Invalid(text.clone()),
            Self::LocationForbidden(text) => Self::LocationForbidden(text.clone()),
            Self::Forbidden(text) => Self::Forbidden(text.clone()),
            Self::WarehouseOutage(reason) => Self::WarehouseOutage(reason.clone()),
            Self::Storage { operation, location, source } => {
                let cause = source.to_string().into();
                let source = match source {
                    object_store::Error::Generic { store, .. } => {
                        object_store::Error::Generic { store, source: cause }
                    }
                    _ => {
                        object_store::Error::Precondition { path: location.clone(), source: cause }
                    }
                };
                Self::Storage { operation, location: location.clone(), source }
            }
            Self::Metastore { operation, source } => {
                Self::Metastore { operation, source: sqlx::Error::Protocol(source.to_string()) }
            }
            Self::Iceberg { operation, source } => Self::Iceberg {
                operation,
                source: iceberg::Error::new(source.kind(), source.to_string()),
            },
        }
    }
}

/// An error with what caused it, as one sentence.
#[must_use]
pub fn with_causes(problem: &dyn std::error::Error) -> String {
    let mut text = problem.to_string();
    let mut cause = problem.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        // The errors of databases and of the file system repeat their cause in their own text.
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    text
}
