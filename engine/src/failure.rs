//! What a failure of DataFusion means for the one who asked.

pub mod wording;

use crate::{error::SqlError, file_failure};
use arrow::error::ArrowError;
use datafusion::{common::SchemaError, error::DataFusionError};
use std::io::ErrorKind;
use wording::{cannot_run, in_other_words, in_sql, is_of_the_engine, of_resources};

/// What DataFusion puts before its messages, which tells the asker nothing.
const PREFIXES: &[&str] = &[
    "Error during planning: ",
    "Schema error: ",
    "Execution error: ",
    "Invalid or Unsupported Configuration: ",
    "Arrow error: ",
    "This feature is not implemented: ",
];

/// What the library of regular expressions says of one that is too large once it is compiled.
const REGEX_TOO_LARGE: &str = "Compiled regex exceeds size limit";

/// How alike a name is at least that is suggested, of 1.0.
const SIMILAR_MIN: f64 = 0.85;
/// Most columns that a message lists.
const COLUMNS_LISTED_MAX: usize = 12;

/// Longest message that is passed on.
const MESSAGE_BYTES_MAX: usize = 2_000;

/// For queries that name columns of the one around them where the planner has no join for it.
const NOT_DECORRELATED: &str = "Correlated queries of this form cannot be planned: write a JOIN, and give columns with the same name different aliases";

/// For queries that put rows on a disk without room.
const DISK_FULL: &str = "the query needs more memory, and the server's disk has no room to help out; select fewer columns or rows";

/// What DataFusion puts after its messages about itself.
const BUG_REPORT: &str = "\nThis issue was likely caused by a bug";

/// The error to answer with. What is not the asker's doing is logged and answered in general terms.
pub(super) fn of(cause: &DataFusionError) -> SqlError {
    let root = cause.find_root();
    if let DataFusionError::External(inner) = root
        && let Some(own) = inner.downcast_ref::<SqlError>()
    {
        return own.clone();
    }
    match root {
        _ if is_of_full_disk(root) => SqlError::Limit(DISK_FULL.to_owned()),
        DataFusionError::ResourcesExhausted(text) => SqlError::Limit(of_resources(text)),
        DataFusionError::SchemaError(schema, _) => {
            SqlError::Invalid(of_unknown_column(schema).unwrap_or_else(|| message(root)))
        }
        DataFusionError::Plan(_)
        | DataFusionError::SQL(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Configuration(_)
        | DataFusionError::Execution(_)
        | DataFusionError::Diagnostic(..) => SqlError::Invalid(message(root)),
        // Types that fit in one place and not in another, mostly. The statement is at fault as far as
        // its sender can do something about it: tried again, it fails again.
        DataFusionError::Internal(text) => {
            SqlError::Invalid(of_large_regex(text).unwrap_or_else(|| cannot_run(text)))
        }
        DataFusionError::Collection(causes) => causes.first().map_or_else(|| internal(cause), of),
        DataFusionError::ArrowError(arrow, _) if is_of_values(arrow) => {
            SqlError::Invalid(message(root))
        }
        DataFusionError::ParquetError(parquet) => match of_filter(&parquet.to_string()) {
            Some(error) => error,
            None => internal(cause),
        },
        DataFusionError::External(cause) if is_of_regex(&cause.to_string()) => {
            let text = cause.to_string();
            SqlError::Invalid(of_large_regex(&text).unwrap_or_else(|| shortened(&text)))
        }
        _ => internal(cause),
    }
}

/// The error of a plan that passed the planner: names it does not find are its own.
pub(super) fn of_optimizer(cause: &DataFusionError) -> SqlError {
    match cause.find_root() {
        DataFusionError::SchemaError(schema, _)
            if matches!(schema.as_ref(), SchemaError::FieldNotFound { .. }) =>
        {
            SqlError::Invalid(NOT_DECORRELATED.to_owned())
        }
        _ => of(cause),
    }
}

/// The error after a panic in DataFusion: the query is lost, the server is not. Values that nobody
/// there thought of do that, so the same statement fails again; the log has the panic itself.
#[must_use]
pub fn of_panic() -> SqlError {
    tracing::error!("a query panicked");
    SqlError::Invalid(
        "the query engine crashed on this statement (the server is unaffected); check for extreme or wrongly typed arguments".to_owned(),
    )
}

/// What a condition that runs inside the Parquet reader failed with; the reader hands it on as text.
fn of_filter(text: &str) -> Option<SqlError> {
    let (_, reason) = text.split_once("Error evaluating filter predicate: ")?;
    if reason.starts_with("ResourcesExhausted") {
        return Some(SqlError::Limit(
            "a condition needs more memory than the query may use".into(),
        ));
    }
    let text = without_debug(reason);
    let text = match of_large_regex(&text) {
        Some(text) => text,
        None if is_of_the_engine(reason) => return Some(SqlError::Invalid(cannot_run(reason))),
        None => shortened(&in_sql(&text)),
    };
    Some(SqlError::Invalid(format!("a condition fails: {text}")))
}

/// The text in `ArrowError(CastError("…"), Some(""))`, as the reader writes it.
fn without_debug(reason: &str) -> String {
    let inner = reason.split_once("Error(\"").and_then(|(_, rest)| rest.rsplit_once("\"), Some("));
    inner.map_or_else(|| reason.to_owned(), |(text, _)| text.replace("\\\"", "\""))
}

fn internal(cause: &DataFusionError) -> SqlError {
    tracing::error!(error = cause as &dyn std::error::Error, "a query failed");
    if let Some(error) = file_failure::of(cause) {
        return error;
    }
    SqlError::Internal("the query failed inside the server".to_owned())
}

/// Whether there was no room for rows that the query puts on disk: it writes nothing else.
fn is_of_full_disk(root: &DataFusionError) -> bool {
    let cause = match root {
        DataFusionError::IoError(cause) => cause,
        DataFusionError::ArrowError(arrow, _) => match &**arrow {
            ArrowError::IoError(_, cause) => cause,
            _ => return false,
        },
        _ => return false,
    };
    cause.kind() == ErrorKind::StorageFull
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
    text.starts_with("regex parse error") || text.starts_with(REGEX_TOO_LARGE)
}

fn message(root: &DataFusionError) -> String {
    let text = root.strip_backtrace();
    let mut text = text.split(BUG_REPORT).next().unwrap_or_default();
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest;
    }
    let text = text.trim();
    of_large_regex(text).or_else(|| in_other_words(text)).unwrap_or_else(|| {
        if is_of_the_engine(text) { cannot_run(text) } else { shortened(&in_sql(text)) }
    })
}

/// A column that is not there, with the one that may be meant. DataFusion lists all there are.
fn of_unknown_column(cause: &SchemaError) -> Option<String> {
    let SchemaError::FieldNotFound { field, valid_fields } = cause else { return None };
    let near = |name: &str| strsim::jaro_winkler(&field.name.to_lowercase(), &name.to_lowercase());
    let nearest = valid_fields
        .iter()
        .map(|valid| (near(&valid.name), &valid.name))
        .filter(|(score, _)| SIMILAR_MIN <= *score)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    let hint = match (nearest, valid_fields.as_slice()) {
        (Some((_, name)), _) => format!("did you mean `{name}`?"),
        (None, []) => "the statement reads no table".to_owned(),
        (None, few) if few.len() <= COLUMNS_LISTED_MAX => {
            let names: Vec<String> = few.iter().map(|valid| format!("`{}`", valid.name)).collect();
            format!("there are {}", names.join(", "))
        }
        (None, many) => {
            format!("there are {} columns; DESCRIBE lists those of a table", many.len())
        }
    };
    // Only a name in quotes has such letters, and what calls a function is of the planner.
    let is_odd = |c: char| c.is_uppercase() || !(c.is_alphanumeric() || c == '_');
    let is_text = nearest.is_none() && field.name.contains(is_odd) && !field.name.contains('(');
    let quotes = match is_text {
        true => format!("; a text is in single quotes: '{}'", field.name.replace('\'', "''")),
        false => String::new(),
    };
    Some(format!("no column `{}`; {hint}{quotes}", field.flat_name()))
}

/// A broken or too large regular expression, with what to change.
fn of_large_regex(text: &str) -> Option<String> {
    let is_large = text.contains(REGEX_TOO_LARGE) || text.contains("expression did not compile");
    is_large
        .then(|| format!("{}; correct it, or use fewer or smaller repetitions", shortened(text)))
}

/// Messages name expressions, which can be as long as a statement.
fn shortened(text: &str) -> String {
    if text.len() <= MESSAGE_BYTES_MAX {
        return text.to_owned();
    }
    format!("{} …", &text[..text.floor_char_boundary(MESSAGE_BYTES_MAX)])
}
