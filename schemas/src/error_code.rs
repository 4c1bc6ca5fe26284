//! Every error a user can meet outside the catalog, and what each one means for the sender.

use serde::{Deserialize, Serialize};

/// The `code` of an error body and of a refused event. Alone it decides the HTTP status and
/// whether a retry can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// The body or one event is not valid JSON (or NDJSON, CloudEvents, Avro).
    InvalidJson,
    /// A member has a wrong type or value.
    InvalidEvent,
    /// The event has no type.
    MissingType,
    /// The type has other characters or length than allowed.
    InvalidType,
    /// The timestamp does not parse.
    InvalidTimestamp,
    /// The timestamp is outside the accepted window.
    TsWindow,
    /// The namespace is not valid or its catalog name is taken by another.
    InvalidNamespace,
    /// The event is larger than allowed.
    EventTooLarge,
    /// The JSON is nested deeper than allowed.
    TooDeep,
    /// The namespace has as many distinct types as allowed.
    TooManyTypes,
    /// The id is taken by an event with other content.
    Conflict,
    /// The document has another version than was expected; `actual` has it, also that of the details.
    VersionMismatch,
    /// Another event of an atomic batch was refused.
    BatchAborted,
    /// A request is malformed (parameter, header, SQL text).
    InvalidRequest,
    /// The SQL statement does not parse, plan or run.
    InvalidSql,
    /// There is no token, or none that is valid.
    Unauthenticated,
    /// The token does not allow it.
    Forbidden,
    /// Nothing of that name.
    NotFound,
    /// A point of a table's history that was removed; `nearest` of the details has those around it.
    Gone,
    /// The path knows other methods.
    MethodNotAllowed,
    /// The body came too slowly, or not at all.
    RequestTimeout,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// The body has more events than allowed.
    TooManyEvents,
    /// The body's media type or encoding is not understood.
    UnsupportedMediaType,
    /// The query went over its time, memory or row limit.
    QueryLimit,
    /// What the query wants to see is not there yet.
    NotYet,
    /// The sender is too fast.
    TooManyRequests,
    /// The server cannot take it now: starting, stopping, full, or its disk fails.
    Unavailable,
    /// The server failed; its log has the reason under the request id.
    Internal,
}

impl ErrorCode {
    /// HTTP status of a reply that carries this code.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidJson
            | Self::InvalidEvent
            | Self::MissingType
            | Self::InvalidType
            | Self::InvalidTimestamp
            | Self::TsWindow
            | Self::InvalidNamespace
            | Self::EventTooLarge
            | Self::TooDeep
            | Self::TooManyTypes
            | Self::BatchAborted
            | Self::InvalidRequest
            | Self::InvalidSql => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::Conflict | Self::VersionMismatch => 409,
            Self::Gone => 410,
            Self::BodyTooLarge | Self::TooManyEvents => 413,
            Self::UnsupportedMediaType => 415,
            Self::QueryLimit => 422,
            Self::TooManyRequests => 429,
            Self::Internal => 500,
            Self::NotYet | Self::Unavailable => 503,
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::RequestTimeout
                | Self::NotYet
                | Self::TooManyRequests
                | Self::Unavailable
                | Self::Internal
        )
    }

    /// The code as it stands in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "INVALID_JSON",
            Self::InvalidEvent => "INVALID_EVENT",
            Self::MissingType => "MISSING_TYPE",
            Self::InvalidType => "INVALID_TYPE",
            Self::InvalidTimestamp => "INVALID_TIMESTAMP",
            Self::TsWindow => "TS_WINDOW",
            Self::InvalidNamespace => "INVALID_NAMESPACE",
            Self::EventTooLarge => "EVENT_TOO_LARGE",
            Self::TooDeep => "TOO_DEEP",
            Self::TooManyTypes => "TOO_MANY_TYPES",
            Self::Conflict => "CONFLICT",
            Self::VersionMismatch => "VERSION_MISMATCH",
            Self::BatchAborted => "BATCH_ABORTED",
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::InvalidSql => "INVALID_SQL",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::Gone => "GONE",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::RequestTimeout => "REQUEST_TIMEOUT",
            Self::BodyTooLarge => "BODY_TOO_LARGE",
            Self::TooManyEvents => "TOO_MANY_EVENTS",
            Self::UnsupportedMediaType => "UNSUPPORTED_MEDIA_TYPE",
            Self::QueryLimit => "QUERY_LIMIT",
            Self::NotYet => "NOT_YET",
            Self::TooManyRequests => "TOO_MANY_REQUESTS",
            Self::Unavailable => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
        }
    }
}

/// The body of every error reply outside the catalog.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Error"))]
pub struct ErrorBody {
    /// What is wrong and what to change, for a person.
    pub error: String,
    /// The same for a program.
    pub code: ErrorCode,
    /// More about it, where there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
    /// The version of the document, where another one was expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<u64>,
}
