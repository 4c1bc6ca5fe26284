//! What a failure of DataFusion means for the one who asked.

use crate::sql::SqlError;
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;

/// What DataFusion puts before its messages, which tells the asker nothing.
const PREFIXES: &[&str] = &[
    "Error during planning: ",
    "Schema error: ",
    "Execution error: ",
    "Invalid or Unsupported Configuration: ",
    "Arrow error: ",
];

/// The error to answer with. What is not the asker's doing is logged and answered in general terms.
pub(super) fn of(cause: &DataFusionError) -> SqlError {
    let root = cause.find_root();
    if let DataFusionError::External(inner) = root
        && let Some(own) = inner.downcast_ref::<SqlError>()
    {
        return own.clone();
    }
    match root {
        DataFusionError::ResourcesExhausted(text) => {
            // What follows names the memory of other queries.
            let text = text.split(" with top memory consumers").next().unwrap_or(text);
            SqlError::Limit(format!("the query needs more memory than it may use: {text}"))
        }
        DataFusionError::Plan(_)
        | DataFusionError::SQL(..)
        | DataFusionError::SchemaError(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Configuration(_)
        | DataFusionError::Execution(_)
        | DataFusionError::Diagnostic(..) => SqlError::Invalid(message(root)),
        DataFusionError::Collection(causes) => causes.first().map_or_else(|| internal(cause), of),
        DataFusionError::ArrowError(arrow, _) if is_of_values(arrow) => {
            SqlError::Invalid(message(root))
        }
        DataFusionError::External(cause) if is_of_regex(&cause.to_string()) => {
            SqlError::Invalid(cause.to_string())
        }
        _ => internal(cause),
    }
}

/// The error after a panic in DataFusion: the query is lost, the server is not.
pub(super) fn of_panic() -> SqlError {
    tracing::error!("a query panicked");
    SqlError::Internal("the query failed inside the server".to_owned())
}

fn internal(cause: &DataFusionError) -> SqlError {
    tracing::error!(error = cause as &dyn std::error::Error, "a query failed");
    SqlError::Internal("the query failed inside the server".to_owned())
}

/// Whether the query's values are at fault: a cast, a division, an overflow.
fn is_of_values(arrow: &ArrowError) -> bool {
    matches!(
        arrow,
        ArrowError::CastError(_)
            | ArrowError::ParseError(_)
            | ArrowError::ComputeError(_)
            | ArrowError::DivideByZero
            | ArrowError::ArithmeticOverflow(_)
            | ArrowError::InvalidArgumentError(_)
            | ArrowError::NotYetImplemented(_)
    ) || matches!(arrow, ArrowError::ExternalError(cause) if is_of_regex(&cause.to_string()))
}

/// Whether a regular expression of the query is broken, or too large once it is compiled. The
/// library's own type is not at hand here.
fn is_of_regex(text: &str) -> bool {
    text.starts_with("regex parse error") || text.starts_with("Compiled regex exceeds size limit")
}

fn message(root: &DataFusionError) -> String {
    let text = root.strip_backtrace();
    let mut text = text.as_str();
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest;
    }
    text.trim().to_owned()
}
