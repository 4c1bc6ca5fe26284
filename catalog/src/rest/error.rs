//! Answers that refuse a request, in the specification's error form.

use crate::error::CatalogError;
use axum::{
    Json,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// A request that was not carried out.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl Refused {
    pub(super) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into() }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequestException", message)
    }

    pub(super) fn no_such_namespace(name: &str) -> Self {
        CatalogError::NoSuchNamespace(name.to_owned()).into()
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

    /// For every view: there are none.
    pub(super) async fn view(uri: Uri) -> Self {
        let message = format!("View does not exist: {}", uri.path());
        Self::new(StatusCode::NOT_FOUND, "NoSuchViewException", message)
    }

    /// For what the specification has and this catalog has not.
    pub(super) async fn unsupported(method: Method, uri: Uri) -> Self {
        let message = format!("this catalog does not support {method} {}", uri.path());
        Self::new(StatusCode::NOT_ACCEPTABLE, "UnsupportedOperationException", message)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = json!({"error": {
            "message": self.message,
            "type": self.kind,
            "code": self.status.as_u16(),
        }});
        (self.status, Json(body)).into_response()
    }
}

/// The only place where a catalog's error becomes a status.
impl From<CatalogError> for Refused {
    fn from(error: CatalogError) -> Self {
        let (status, kind) = match &error {
            CatalogError::NoSuchNamespace(_) => (StatusCode::NOT_FOUND, "NoSuchNamespaceException"),
            CatalogError::NoSuchTable(_) => (StatusCode::NOT_FOUND, "NoSuchTableException"),
            CatalogError::AlreadyExists(_) => (StatusCode::CONFLICT, "AlreadyExistsException"),
            CatalogError::NamespaceNotEmpty(_) => {
                (StatusCode::CONFLICT, "NamespaceNotEmptyException")
            }
            CatalogError::CommitFailed(_) => (StatusCode::CONFLICT, "CommitFailedException"),
            CatalogError::Repeated => (StatusCode::CONFLICT, "AlreadyDoneException"),
            CatalogError::Invalid(_) => (StatusCode::BAD_REQUEST, "BadRequestException"),
            CatalogError::LocationForbidden(_) => (StatusCode::FORBIDDEN, "ForbiddenException"),
            CatalogError::CommitStateUnknown(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "CommitStateUnknownException")
            }
            // `Generic` is what the store says for timeouts, refused connections and the like.
            CatalogError::Storage { source: object_store::Error::Generic { .. }, .. }
            | CatalogError::Metastore { .. }
            | CatalogError::Busy(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException")
            }
            CatalogError::Storage { .. } | CatalogError::Iceberg { .. } => {
                (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError")
            }
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
            StatusCode::SERVICE_UNAVAILABLE => "the catalog is not available now, try again",
            _ if matches!(error, CatalogError::CommitStateUnknown(_)) => {
                "the outcome of the commit is unknown: load the table to find out"
            }
            _ => "internal error, see the server's log",
        };
        Self::new(status, kind, message)
    }
}
