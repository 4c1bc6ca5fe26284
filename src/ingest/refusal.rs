//! Events that are sound but not taken: from a row back to the event as it came.

use arrow::{
    array::{Array, AsArray},
    record_batch::RecordBatch,
};
use icecore_lake::event::{DecodedBody, NamespaceEvents, RejectedEvent, SourceBytes, dead_letter};
use icecore_schemas::{error_code::ErrorCode, names::Namespace};
use std::collections::HashSet;

/// Why a sound event is not taken.
#[derive(Clone, Debug)]
pub(super) enum RefusalReason {
    /// The id is taken by other content: of the event with this `seq`, or of one before it in a
    /// request that gives none.
    Conflict {
        seq: Option<u64>,
    },
    /// Another event of its atomic batch is refused.
    BatchAborted,
    TooManyTypes {
        types_max: usize,
    },
    /// Its document has another version than it expects.
    VersionMismatch {
        expected: u64,
        actual: u64,
    },
    /// A change of its document before it in the request expects a version, too, and is refused.
    BehindMismatch {
        actual: u64,
    },
    /// What it expects is no version.
    NoVersion,
    /// It expects a version and names no document.
    NoDocument,
    /// The catalog name is taken.
    NameTaken {
        owner: Namespace,
    },
    /// No new namespace gets this name.
    NameReserved,
    /// The sender may not send there.
    Forbidden,
}

impl RefusalReason {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Conflict { .. } => ErrorCode::Conflict,
            Self::BatchAborted => ErrorCode::BatchAborted,
            Self::TooManyTypes { .. } => ErrorCode::TooManyTypes,
            Self::VersionMismatch { .. } | Self::BehindMismatch { .. } => {
                ErrorCode::VersionMismatch
            }
            Self::NoVersion | Self::NoDocument => ErrorCode::InvalidEvent,
            Self::NameTaken { .. } | Self::NameReserved => ErrorCode::InvalidNamespace,
            Self::Forbidden => ErrorCode::Forbidden,
        }
    }

    /// The version that the document has, where another was expected.
    fn actual_version(&self) -> Option<u64> {
        match self {
            Self::VersionMismatch { actual, .. } | Self::BehindMismatch { actual } => Some(*actual),
            Self::Conflict { .. }
            | Self::BatchAborted
            | Self::TooManyTypes { .. }
            | Self::NoVersion
            | Self::NoDocument
            | Self::NameTaken { .. }
            | Self::NameReserved
            | Self::Forbidden => None,
        }
    }

    fn text(&self, namespace: &Namespace) -> String {
        match self {
            Self::Conflict { seq: None } => "the id belongs to an earlier event of this request, whose content differs; send changed content under a new id".to_owned(),
            Self::BatchAborted => "another event of the atomic batch was refused; correct that one and send the batch again".to_owned(),
            Self::Conflict { seq: Some(seq) } => format!(
                "the id belongs to the event with seq {seq}, whose content differs; send changed content under a new id"
            ),
            Self::TooManyTypes { types_max } => format!(
                "namespace `{namespace}` has {types_max} types already; use one of them, put what varies into `data`, or raise ingest.types_max"
            ),
            Self::VersionMismatch { expected, actual } => format!(
                "the document has version {actual}, not {expected}: read it again, and send the change of what is there"
            ),
            Self::BehindMismatch { actual } => format!(
                "an earlier change of the document in this request, which expects a version, was refused, so this one is, too: read the document, which has version {actual}, and send the changes of what is there"
            ),
            Self::NoVersion => "`expected_version` must be a whole number: the version that the document has, or 0 for none".to_owned(),
            Self::NoDocument => "`expected_version` is of one document: name it by `collection` and `key`, and leave the member out of a truncate".to_owned(),
            Self::NameTaken { owner } => format!(
                "namespace `{namespace}` has the catalog name `{}`, which belongs to `{owner}`; use that spelling or another name",
                namespace.name()
            ),
            Self::NameReserved => reserved(namespace),
            Self::Forbidden => format!(
                "the token may not send events to namespace `{namespace}`: that needs the scope `ingest:{}`",
                namespace.name()
            ),
        }
    }
}

/// Says that no new namespace gets this name.
#[must_use]
pub fn reserved(namespace: &Namespace) -> String {
    let name = namespace.name();
    format!("the name `{name}` is reserved in SQL: choose another one for namespace `{namespace}`")
}

/// Events of a sound body that its sender may not send, each as a refused one. `source` is
/// [`icecore_lake::event::DecodedBody::source`].
#[must_use]
pub fn forbidden(events: &NamespaceEvents, source: &SourceBytes) -> Vec<RejectedEvent> {
    (0..events.keys.len())
        .map(|row| refuse(events, source, row, &RefusalReason::Forbidden))
        .collect()
}

/// An event of a sound body whose id belongs to another content, as a refused one: that of the event with this `seq`,
/// or of one before it in the body.
#[must_use]
pub fn conflicting(
    events: &NamespaceEvents,
    source: &SourceBytes,
    row: usize,
    seq: Option<u64>,
) -> RejectedEvent {
    refuse(events, source, row, &RefusalReason::Conflict { seq })
}

/// The events of an atomic batch that fall with the `refused` ones.
#[must_use]
pub fn aborted(decoded: &DecodedBody, refused: &[RejectedEvent]) -> Vec<RejectedEvent> {
    let refused: HashSet<u32> = refused.iter().map(|one| one.index).collect();
    let of_group = |events: &NamespaceEvents| -> Vec<RejectedEvent> {
        let rows = (0..events.keys.len()).filter(|row| !refused.contains(&events.index[*row]));
        rows.map(|row| refuse(events, &decoded.source, row, &RefusalReason::BatchAborted)).collect()
    };
    decoded.accepted.iter().flat_map(of_group).collect()
}

/// One row as a refused event.
pub(super) fn refuse(
    events: &NamespaceEvents,
    source: &SourceBytes,
    row: usize,
    reason: &RefusalReason,
) -> RejectedEvent {
    let rows = &events.rows;
    let (payload, reason_text) =
        dead_letter::keep(&source.event(events, row), reason.text(&events.namespace));
    RejectedEvent {
        index: events.index[row],
        namespace: events.namespace.clone(),
        kept_in: None,
        code: reason.code(),
        actual_version: reason.actual_version(),
        reason: reason_text,
        id: text_at(rows, "id", row).map(str::to_owned),
        event_type: text_at(rows, "type", row).map(str::to_owned),
        source: text_at(rows, "source", row).map(str::to_owned),
        payload,
    }
}

/// A text column's value; none where there is no such column.
pub(super) fn text_at<'a>(rows: &'a RecordBatch, column: &str, row: usize) -> Option<&'a str> {
    let column = rows.column_by_name(column)?.as_string_opt::<i32>()?;
    column.is_valid(row).then(|| column.value(row))
}
