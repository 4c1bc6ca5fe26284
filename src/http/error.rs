//! Every failure of a handler as one reply: the code decides the status, the text says what to do.

use crate::{
    flush::FlushError,
    http,
    ingest::IngestError,
    owner::NotOwner,
    sql::{collection_schema::CollectionSchemaError, writes::WriteFailure},
};
use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use icecore_catalog::error::{CatalogError, with_causes};
use icecore_engine::error::SqlError;
use icecore_lake::{
    table::{typed_columns::evolution::EvolutionError, writer::WriteError},
    wal::WalError,
};
use icecore_schemas::error_code::{ErrorBody, ErrorCode};
use serde_json::{Value, json};
use tracing::error;

/// Seconds a client should wait before it sends again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// An error reply.
#[derive(Clone, Debug)]
pub struct ApiError {
    code: ErrorCode,
    message: String,
    details: Option<Value>,
    actual: Option<u64>,
}

impl ApiError {
    /// A reply with this code and text.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: None, actual: None }
    }

    /// The same with another text.
    #[must_use]
    pub fn with_text(self, message: String) -> Self {
        Self { message, ..self }
    }

    /// The same with more for a program.
    #[must_use]
    pub fn with_details(self, details: Value) -> Self {
        Self { details: Some(details), ..self }
    }

    /// The same with the version that a document has, where another one was expected.
    #[must_use]
    pub fn with_actual(self, version: u64) -> Self {
        Self { actual: Some(version), ..self.with_details(json!({ "actual": version })) }
    }

    /// What it is to a client.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// A failure of the server: the log gets the cause, the client only the request's id.
    pub fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        error!(error = cause, "request failed");
        Self::new(
            ErrorCode::Internal,
            "the server failed; its log has the reason under this response's x-request-id",
        )
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            error: self.message,
            code: self.code,
            details: self.details,
            actual: self.actual,
        };
        let mut response = http::json(self.code.status(), &body);
        if self.code.is_retryable() {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

impl From<IngestError> for ApiError {
    fn from(cause: IngestError) -> Self {
        match &cause {
            IngestError::Busy | IngestError::Stopping => {
                Self::new(ErrorCode::Unavailable, format!("{cause}; send the batch again"))
            }
            IngestError::Overtaken => {
                Self::new(ErrorCode::Conflict, format!("{cause}; send it again"))
            }
            IngestError::Held(_) => Self::new(
                ErrorCode::Unavailable,
                format!(
                    "{cause}; nothing of this batch was accepted, send it again when that is fixed"
                ),
            ),
            IngestError::Unavailable(reason) => {
                error!(
                    error = reason.as_ref() as &dyn std::error::Error,
                    "the log takes no events"
                );
                let text = match reason.as_ref() {
                    WalError::Full { .. } => {
                        "the log is full: its disk has no more free than `wal.disk_free_min` leaves to others, or not a `wal.segment_bytes` more, or `wal.bytes_max` is reached; nothing of this batch was accepted, send it again when there is space"
                    }
                    _ => {
                        "the log does not accept events now; nothing of this batch was accepted, send it again"
                    }
                };
                Self::new(ErrorCode::Unavailable, text)
            }
        }
    }
}

impl From<SqlError> for ApiError {
    fn from(cause: SqlError) -> Self {
        match (&cause, cause.code()) {
            (_, ErrorCode::Internal) => Self::internal(&cause),
            (SqlError::Syntax { line, column, .. }, code) => Self::new(code, cause.to_string())
                .with_details(json!({ "line": line, "column": column })),
            (SqlError::Gone { nearest, .. }, code) => {
                Self::new(code, cause.to_string()).with_details(json!({ "nearest": nearest }))
            }
            (_, code) => Self::new(code, cause.to_string()),
        }
    }
}

impl From<WriteFailure> for ApiError {
    fn from(cause: WriteFailure) -> Self {
        match cause {
            WriteFailure::Query(cause) => cause.into(),
            WriteFailure::Fit(cause) => Self::new(ErrorCode::InvalidSql, with_causes(&cause)),
            WriteFailure::Files(WriteError::Store(cause)) | WriteFailure::Catalog(cause) => {
                cause.into()
            }
            WriteFailure::Files(cause @ WriteError::TooManyFiles(_)) => {
                Self::new(ErrorCode::QueryLimit, cause.to_string())
            }
            WriteFailure::Files(_) | WriteFailure::Replaced(_) => Self::internal(&cause),
        }
    }
}

impl From<CollectionSchemaError> for ApiError {
    fn from(cause: CollectionSchemaError) -> Self {
        match cause {
            CollectionSchemaError::Evolution(cause) => {
                let text = cause.to_string();
                match cause {
                    EvolutionError::Narrower(differences) => Self::new(ErrorCode::Conflict, text)
                        .with_details(json!({ "differences": differences })),
                    EvolutionError::Name(_) => Self::new(ErrorCode::InvalidRequest, text),
                }
            }
            CollectionSchemaError::Table(cause) => cause.into(),
        }
    }
}

impl From<NotOwner> for ApiError {
    fn from(cause: NotOwner) -> Self {
        Self::new(ErrorCode::Unavailable, cause.to_string())
    }
}

impl From<&FlushError> for ApiError {
    fn from(cause: &FlushError) -> Self {
        if let FlushError::NotOwner(not) = cause {
            return not.clone().into();
        }
        error!(error = cause as &dyn std::error::Error, "commit failed");
        let told = match (cause.is_lasting(), cause.of_storage()) {
            (true, _) => with_causes(cause),
            (false, Some(reason)) => {
                format!("the commit failed because {reason}")
            }
            (false, None) => "the commit failed".to_owned(),
        };
        Self::new(
            ErrorCode::Unavailable,
            format!("{told}; it is retried, and every acknowledged event is safe in the log"),
        )
    }
}

impl From<CatalogError> for ApiError {
    fn from(cause: CatalogError) -> Self {
        match &cause {
            CatalogError::NoSuchNamespace(_)
            | CatalogError::NoSuchTable(_)
            | CatalogError::NoSuchView(_)
            | CatalogError::NoSuchReference(_) => Self::new(ErrorCode::NotFound, cause.to_string()),
            CatalogError::AlreadyExists(_)
            | CatalogError::Registered(_)
            | CatalogError::Protected(_)
            | CatalogError::NamespaceNotEmpty(_)
            | CatalogError::CommitFailed(_) => Self::new(ErrorCode::Conflict, cause.to_string()),
            CatalogError::Invalid(_)
            | CatalogError::IllegalArgument(_)
            | CatalogError::LocationForbidden(_) => {
                Self::new(ErrorCode::InvalidRequest, cause.to_string())
            }
            CatalogError::Forbidden(_) => Self::new(ErrorCode::Forbidden, cause.to_string()),
            CatalogError::WarehouseOutage(_) => {
                Self::new(ErrorCode::Unavailable, cause.to_string())
            }
            _ if cause.is_temporary() => {
                error!(error = &cause as &dyn std::error::Error, "the catalog does not answer");
                Self::new(
                    ErrorCode::Unavailable,
                    "the catalog or its file store does not answer now; try again",
                )
            }
            CatalogError::CommitStateUnknown(_)
            | CatalogError::MissingMetadata(_)
            | CatalogError::Busy(_)
            | CatalogError::Repeated
            | CatalogError::Storage { .. }
            | CatalogError::Metastore { .. }
            | CatalogError::Iceberg { .. } => Self::internal(&cause),
        }
    }
}
