//! Answers that refuse a request, in the specification's error form.

use crate::{body::BodyReadError, error::CatalogError};
use axum::{
    Json,
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// A request that was not carried out.
#[derive(Debug)]
pub(super) struct RestError {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl RestError {
    pub(super) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into() }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequestException", message)
    }

    pub(super) fn no_such_namespace(name: &str) -> Self {
        CatalogError::NoSuchNamespace(name.to_owned()).into()
    }

    /// For who may know that it is there, but may not do that with it.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "ForbiddenException", message)
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// For a path that is no route.
    pub(super) async fn route(method: Method, uri: Uri) -> Self {
        let message = format!("no such route: {method} {}", uri.path());
        Self::new(StatusCode::NOT_FOUND, "NotFoundException", message)
    }

    /// For a route that has other methods.
    pub(super) async fn method(method: Method, uri: Uri) -> Self {
        let message = format!("{method} is not supported by {}", uri.path());
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowedException", message)
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        let body = json!({"error": {
            "message": self.message,
            "type": self.kind,
            "code": self.status.as_u16(),
        }});
        let mut response = (self.status, Json(body)).into_response();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<BodyReadError> for RestError {
    fn from(cause: BodyReadError) -> Self {
        let kind = match cause {
            BodyReadError::TooLarge(_) => "PayloadTooLargeException",
            BodyReadError::TooSlow => "RequestTimeoutException",
            BodyReadError::NoRoom => "ServiceUnavailableException",
            BodyReadError::BrokenOff => "BadRequestException",
        };
        Self::new(cause.status(), kind, cause.to_string())
    }
}

/// The only place where a catalog's error becomes a status.
impl From<CatalogError> for RestError {
    fn from(error: CatalogError) -> Self {
        let (status, kind) = match &error {
            CatalogError::NoSuchNamespace(_) => (StatusCode::NOT_FOUND, "NoSuchNamespaceException"),
            CatalogError::NoSuchTable(_) => (StatusCode::NOT_FOUND, "NoSuchTableException"),
            CatalogError::NoSuchView(_) => (StatusCode::NOT_FOUND, "NoSuchViewException"),
            CatalogError::AlreadyExists(_) | CatalogError::Registered(_) => {
                (StatusCode::CONFLICT, "AlreadyExistsException")
            }
            CatalogError::Protected(_) => (StatusCode::CONFLICT, "ProtectedException"),
            CatalogError::NamespaceNotEmpty(_) => {
                (StatusCode::CONFLICT, "NamespaceNotEmptyException")
            }
            CatalogError::CommitFailed(_) => (StatusCode::CONFLICT, "CommitFailedException"),
            CatalogError::Repeated => (StatusCode::CONFLICT, "AlreadyDoneException"),
            CatalogError::Invalid(_) => (StatusCode::BAD_REQUEST, "BadRequestException"),
            CatalogError::IllegalArgument(_) => {
                (StatusCode::BAD_REQUEST, "IllegalArgumentException")
            }
            CatalogError::NoSuchReference(_) | CatalogError::MissingMetadata(_) => {
                (StatusCode::NOT_FOUND, "NotFoundException")
            }
            CatalogError::LocationForbidden(_) | CatalogError::Forbidden(_) => {
                (StatusCode::FORBIDDEN, "ForbiddenException")
            }
            CatalogError::CommitStateUnknown(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "CommitStateUnknownException")
            }
            CatalogError::Storage { .. }
            | CatalogError::WarehouseOutage(_)
            | CatalogError::Metastore { .. }
            | CatalogError::Busy(_)
            | CatalogError::Iceberg { .. } => match error.is_temporary() {
                true => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException"),
                false => (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"),
            },
        };
        if !status.is_server_error() {
            return Self::new(status, kind, error.to_string());
        }
        tracing::error!(
            error = &error as &dyn std::error::Error,
            status = status.as_u16(),
            "a catalog request failed"
        );
        let message = match status {
            _ if matches!(error, CatalogError::WarehouseOutage(_)) => &error.to_string(),
            StatusCode::SERVICE_UNAVAILABLE => "the catalog is not available now, try again",
            _ if matches!(error, CatalogError::CommitStateUnknown(_)) => {
                "the outcome of the commit is unknown: load the table to find out"
            }
            _ => "internal error, see the server's log",
        };
        Self::new(status, kind, message)
    }
}
