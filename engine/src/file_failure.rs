//! What it means for the one who asked that files of the warehouse do not read.

use crate::error::SqlError;
use datafusion::error::DataFusionError;
use icecore_catalog::{scan::ScanError, storage::probe};
use std::error::Error;

/// What the reader of data files says before a file's path and why its footer does not read.
const FOOTER: &str = "Failed to fetch metadata for file ";
/// What it says before the store's answer, and how that begins where the file is missing.
const STORE: &str = "Object Store error: ";
const NOT_FOUND: &str = "Object at location ";
/// What the text of an outage begins with.
const OUTAGE: &str = "the warehouse `";

/// The error for a snapshot whose files cannot be planned.
pub(super) fn of_scan(cause: &ScanError) -> SqlError {
    match cause {
        ScanError::NoSuchSnapshot(_) => SqlError::NotFound(cause.to_string()),
        ScanError::Invalid(text) | ScanError::Unsupported(text) => SqlError::Invalid(text.clone()),
        ScanError::Damaged { .. } => SqlError::Unreadable(cause.to_string()),
        ScanError::TooSlow => SqlError::Limit(
            "the time limit was reached while reading the table's manifests; filter on fewer partitions, or compact the table".into(),
        ),
        ScanError::Catalog(_) => unreadable(cause),
    }
}

/// The error for files of ours that do not read; the log has the reason.
#[must_use]
pub fn unreadable(cause: &(dyn Error + 'static)) -> SqlError {
    tracing::error!(error = cause, "cannot read the files of a snapshot");
    of(cause)
        .unwrap_or_else(|| SqlError::Internal("the snapshot's files cannot be read".to_owned()))
}

/// The error to answer with, where the store of files is at fault: the warehouse is not there, or a
/// file of it is missing or cannot be had.
pub(super) fn of(cause: &(dyn Error + 'static)) -> Option<SqlError> {
    let chain = || std::iter::successors(Some(cause), |cause| (*cause).source());
    probe::outage(cause)
        .map(SqlError::Outage)
        .or_else(|| chain().find_map(|cause| cause.downcast_ref()).map(of_store))
        .or_else(|| chain().find_map(|cause| of_footer(&cause.to_string())))
}

/// The error of a data file whose footer does not read, which its reader hands on as text.
fn of_footer(text: &str) -> Option<SqlError> {
    let (_, rest) = text.split_once(FOOTER)?;
    let (path, cause) = rest.split_once(": ")?;
    if let Some(at) = cause.find(OUTAGE) {
        return Some(SqlError::Outage(cause[at..].to_owned()));
    }
    Some(match cause.strip_prefix(STORE) {
        Some(answer) if answer.contains(probe::CUT_SHORT) => damaged(path, probe::CUT_SHORT),
        Some(answer) => {
            match answer.strip_prefix(NOT_FOUND).and_then(|it| it.split_once(" not found")) {
                Some((path, _)) => missing(path),
                None => SqlError::Outage(format!(
                    "file `{path}` of the table cannot be read now: {answer}"
                )),
            }
        }
        None => damaged(path, cause),
    })
}

/// The error of a data file whose footer was read here, with the file that its reader does not name; the
/// store names it itself.
pub(super) fn of_read_footer(
    path: &object_store::path::Path,
    cause: DataFusionError,
) -> DataFusionError {
    match of(&cause) {
        Some(_) => cause,
        None => DataFusionError::External(format!("{FOOTER}{path}: {cause}").into()),
    }
}

fn damaged(path: &str, why: &str) -> SqlError {
    SqlError::Unreadable(format!(
        "file `{path}` of the table is damaged ({why}): restore the file, or roll back to an \
         earlier snapshot"
    ))
}

fn missing(path: &str) -> SqlError {
    SqlError::Unreadable(format!(
        "file `{path}` of the table is not there: restore the file, or roll back to an earlier \
         snapshot"
    ))
}

fn of_store(cause: &object_store::Error) -> SqlError {
    let answer = probe::answer(cause);
    match cause {
        object_store::Error::NotFound { path, .. } => missing(path),
        object_store::Error::PermissionDenied { path, .. }
        | object_store::Error::Unauthenticated { path, .. } => SqlError::Outage(format!(
            "the warehouse does not let this server read `{path}`: {answer}"
        )),
        _ if answer.contains(probe::CUT_SHORT) => SqlError::Unreadable(format!(
            "the {answer}, so it is damaged: restore the file, or roll back to an earlier snapshot"
        )),
        _ => SqlError::Outage(format!(
            "a file of the table cannot be read now, try again: the warehouse answered {answer}"
        )),
    }
}
