//! Which versions the events of a batch expect their documents to have: what they say is read here, and the versions
//! that there are; the ingest thread compares them, as it alone knows which events are new.
//!
//! Its one invariant: from the look at the versions to the end of the append no other write that expects a version
//! changes one of these documents.

use crate::{
    http::{
        AppState, collections,
        error::ApiError,
        guard::levels,
        ingest::compare,
        rows::{integer_at, text_at},
        state_rows,
    },
    ingest::{
        Receipt, Submission,
        expected::{DocumentRow, ExpectedVersion, ExpectedVersions, RowEffect},
    },
};
use arrow::{
    array::{Array, AsArray, StringArray, TimestampMicrosecondArray},
    datatypes::TimestampMicrosecondType,
};
use icecore_catalog::access::{Action, Principal};
use icecore_engine::collections::relation;
use icecore_lake::{
    blocking::blocking,
    collection::{
        ChangeOp,
        version::{DocumentVersion, VersionChange},
    },
    event::{DecodedBody, NamespaceEvents, SourceBytes},
};
use icecore_schemas::{
    error_code::ErrorCode,
    query::SqlRequest,
    service_table::{EVENTS_TABLE, TRUNCATE_TYPE},
};
use serde_json::value::RawValue;
use std::{
    collections::{BTreeSet, HashMap},
    panic::resume_unwind,
};
use tokio::runtime::Handle;

/// The names of the member of an event that expects a version; where both are there, the first one counts.
const MEMBERS: [&str; 2] = ["expected_version", "expectedVersion"];
/// What types of changes begin with.
const CHANGE_TYPES: [&str; 2] = ["cdc.", "collection."];
/// Most documents of a batch of which events expect versions: the turns of all of them are held together.
const DOCUMENTS_MAX: usize = 1_000;
/// Bytes of keys that one statement names, at most, and what each costs besides. A plan has a key in some ten places,
/// and one with more than a MiB of constants is refused.
const KEYS_BYTES_MAX: usize = 64 << 10;
const KEY_BYTES: usize = 16;

/// Refuses a sender whose events expect versions of documents that it may not read: the answer tells them.
///
/// # Errors
/// 403.
pub(super) fn check_rights(
    app: &AppState,
    principal: &Principal,
    decoded: &DecodedBody,
) -> Result<(), ApiError> {
    for events in decoded.accepted.iter().filter(|events| has_any(events, &decoded.source)) {
        let levels = levels(&events.namespace);
        if !principal.may(Action::Read, &levels) {
            // Whoever may send there learns nothing by it, and 404 would be of the route.
            let name = levels.join(".");
            let text = format!(
                "the token may not ask for versions in namespace `{name}`: an event with `expected_version` needs the scope `read:{name}`, too"
            );
            return Err(ApiError::new(ErrorCode::Forbidden, text));
        }
        app.sql.check_sees_all(principal, &levels, EVENTS_TABLE)?;
    }
    Ok(())
}

/// Refuses events for a branch that expect versions: those of `main` alone are compared.
///
/// # Errors
/// 400.
pub(super) fn check_none(decoded: &DecodedBody) -> Result<(), ApiError> {
    if decoded.accepted.iter().any(|events| has_any(events, &decoded.source)) {
        let text = "events for a branch cannot have `expected_version`: write each such document by its key, with `branch`";
        return Err(ApiError::new(ErrorCode::InvalidRequest, text));
    }
    Ok(())
}

/// Appends a submission; an event whose document has another version than it expects is refused.
///
/// Where versions are expected it is carried out to its end, also when nobody waits for the answer any more: the next
/// writer of a document gets its turn when it is known what became of this one.
///
/// # Errors
/// As `Ingest::append`; 400 422 for documents that are too many or have names that are too long; 503 where bodies in work
/// leave no room; as queries.
pub(in crate::http) async fn append(
    app: &AppState,
    submission: Submission,
) -> Result<Receipt, ApiError> {
    let DecodedBody { accepted, source, .. } = &submission.decoded;
    if !accepted.iter().any(|events| has_any(events, source)) {
        return Ok(compare::append(app, submission).await?);
    }
    // The request's own room is free again once its sender is gone.
    let room = app.room.take(submission.bytes)?;
    let read = move || {
        let DecodedBody { accepted, source, .. } = &submission.decoded;
        let groups: Vec<ExpectingGroup> =
            accepted.iter().map(|events| ExpectingGroup::of(events, source)).collect();
        (submission, groups)
    };
    let (submission, groups) = blocking(read).await;
    let documents = groups.iter().map(|group| group.documents.len()).sum::<usize>();
    if DOCUMENTS_MAX < documents {
        let text = format!(
            "the events expect versions of {documents} documents, at most {DOCUMENTS_MAX} of one batch may have one: send them in smaller batches"
        );
        return Err(ApiError::new(ErrorCode::QueryLimit, text));
    }
    for (collection, key) in groups.iter().flat_map(|group| &group.documents) {
        collections::check_place(collection, key)?;
    }
    let app = app.clone();
    let work = async move {
        let appended = Box::pin(append_in_turns(&app, submission, groups)).await;
        drop(room);
        appended
    };
    let done = Handle::current().spawn(work).await;
    done.unwrap_or_else(|ended| resume_unwind(ended.into_panic()))
}

/// Appends a submission while the turns of its documents are held.
async fn append_in_turns(
    app: &AppState,
    mut submission: Submission,
    groups: Vec<ExpectingGroup>,
) -> Result<Receipt, ApiError> {
    let mut names: Vec<[&str; 3]> = Vec::new();
    for (events, group) in submission.decoded.accepted.iter().zip(&groups) {
        let documents = group.documents.iter();
        names.extend(
            documents.map(|(it, key)| [events.namespace.name(), it.as_str(), key.as_str()]),
        );
    }
    let _turns = app.document_turns.take_all(&names).await?;
    drop(names);
    let mut expected = Vec::with_capacity(groups.len());
    for (events, group) in submission.decoded.accepted.iter().zip(groups) {
        let levels = levels(&events.namespace);
        let documents = Box::pin(versions(app, &levels, &group.documents)).await?;
        expected.push(ExpectedVersions { documents, rows: group.rows });
    }
    submission.expected = expected;
    Ok(Box::pin(compare::append(app, submission)).await?)
}

/// The versions that documents have, in their order.
async fn versions(
    app: &AppState,
    levels: &[String],
    documents: &[DocumentName],
) -> Result<Vec<Option<DocumentVersion>>, ApiError> {
    let mut versions = Vec::with_capacity(documents.len());
    for of_one in documents.chunk_by(|(one, _), (next, _)| one == next) {
        let longest = of_one.iter().map(|(_, key)| key.len()).max().unwrap_or(0);
        // All of a collection, but for very long keys.
        for part in of_one.chunks(KEYS_BYTES_MAX / (longest + KEY_BYTES)) {
            let found = versions_of(app, levels, part).await?;
            versions.extend(part.iter().map(|(_, key)| found.get(key).copied()));
        }
    }
    Ok(versions)
}

/// The versions that some documents of one collection have, by their keys.
async fn versions_of(
    app: &AppState,
    levels: &[String],
    documents: &[DocumentName],
) -> Result<HashMap<String, DocumentVersion>, ApiError> {
    let Some((collection, _)) = documents.first() else { return Ok(HashMap::new()) };
    let places: Vec<String> =
        (1..=documents.len()).map(|place| format!("CAST(${place} AS text)")).collect();
    let request = SqlRequest {
        sql: format!(
            "SELECT key, version, op, CAST(updated_at AS bigint) AS updated_us FROM {} WHERE key IN ({})",
            relation(collection),
            places.join(", ")
        ),
        params: documents.iter().map(|(_, key)| key.as_str().into()).collect(),
        ..SqlRequest::default()
    };
    let mut versions = HashMap::new();
    for batch in state_rows::rows(app, levels, request).await? {
        for row in 0..batch.num_rows() {
            let op = text_at(&batch, "op", row).and_then(|op| ChangeOp::from_code(&op));
            let (version, updated_at) =
                (integer_at(&batch, "version", row), integer_at(&batch, "updated_us", row));
            if let (Some(key), Some(version), Some(op), Some(updated_at)) =
                (text_at(&batch, "key", row), version, op, updated_at)
            {
                versions.insert(key, DocumentVersion { version, op, updated_at });
            }
        }
    }
    Ok(versions)
}

/// A collection and a key.
type DocumentName = (String, String);

/// What the events of one namespace expect.
#[derive(Debug, Default)]
struct ExpectingGroup {
    /// The documents of which one expects a version, in order.
    documents: Vec<DocumentName>,
    rows: Vec<DocumentRow>,
}

impl ExpectingGroup {
    fn of(events: &NamespaceEvents, source: &SourceBytes) -> Self {
        let Some(columns) = ChangeColumns::of(events, source) else { return Self::default() };
        let rows = 0..events.keys.len();
        let expected: HashMap<usize, ExpectedVersion> = rows
            .clone()
            .filter_map(|row| columns.expected(row).map(|expected| (row, expected)))
            .collect();
        let documents: BTreeSet<(&str, &str)> =
            expected.keys().filter_map(|row| columns.document(*row)).collect();
        let documents: Vec<(&str, &str)> = documents.into_iter().collect();
        let effect = |row: usize| -> Option<RowEffect> {
            if expected.contains_key(&row) && columns.document(row).is_none() {
                return Some(RowEffect::NoDocument);
            }
            if let Some(collection) = columns.truncated(row) {
                let first = documents.partition_point(|(it, _)| *it < collection);
                let last = documents.partition_point(|(it, _)| *it <= collection);
                return (first < last).then_some(RowEffect::Truncate { documents: first..last });
            }
            let document = documents.binary_search(&columns.document(row)?).ok()?;
            let expected = expected.get(&row).copied().unwrap_or(ExpectedVersion::Any);
            Some(RowEffect::Change { document, change: columns.change(row)?, expected })
        };
        let rows = rows.filter_map(|row| Some(DocumentRow { row, effect: effect(row)? })).collect();
        let named = |(it, key): &(&str, &str)| ((*it).to_owned(), (*key).to_owned());
        Self { documents: documents.iter().map(named).collect(), rows }
    }
}

/// Whether an event expects a version.
fn has_any(events: &NamespaceEvents, source: &SourceBytes) -> bool {
    let Some(columns) = ChangeColumns::of(events, source) else { return false };
    (0..events.keys.len()).any(|row| columns.expected(row).is_some())
}

/// The version that an event expects, as it is written there; none where it has no such member, or null. Of two members
/// of one name the last one counts, as of all members.
fn written_version<'a>(members: &HashMap<String, &'a RawValue>) -> Option<&'a str> {
    let written = |name: &&str| {
        let value: &'a RawValue = members.get(*name).copied()?;
        Some(value.get()).filter(|text| *text != "null")
    };
    MEMBERS.iter().find_map(written)
}

/// Whether an event is a row that Debezium flattened, which its fields beside the columns tell: all other members are
/// columns of the row, whatever they are called.
fn is_flat_row(members: &HashMap<String, &RawValue>) -> bool {
    let written = |name: &str| members.get(name).map(|value| value.get());
    matches!(written("__op"), Some(r#""c""# | r#""u""# | r#""d""# | r#""r""# | r#""t""#))
        || matches!(written("__deleted"), Some("true" | "false" | r#""true""# | r#""false""#))
}

/// The columns of changes.
struct ChangeColumns<'e> {
    events: &'e NamespaceEvents,
    source: &'e SourceBytes,
    /// A column of events has no place for the member, so an event that has it is here whole.
    payload: &'e StringArray,
    op: Option<&'e StringArray>,
    kind: Option<&'e StringArray>,
    collection: Option<&'e StringArray>,
    key: Option<&'e StringArray>,
    after: Option<&'e StringArray>,
    patch: Option<&'e StringArray>,
    ts: Option<&'e TimestampMicrosecondArray>,
}

impl<'e> ChangeColumns<'e> {
    /// None where no event can expect anything: columns without a value are left out.
    fn of(events: &'e NamespaceEvents, source: &'e SourceBytes) -> Option<Self> {
        let text = |name: &str| events.rows.column_by_name(name)?.as_string_opt::<i32>();
        let ts = events.rows.column_by_name("ts");
        Some(Self {
            events,
            source,
            payload: text("payload")?,
            op: text("op"),
            kind: text("type"),
            collection: text("collection"),
            key: text("key"),
            after: text("after"),
            patch: text("patch"),
            ts: ts.and_then(|ts| ts.as_primitive_opt::<TimestampMicrosecondType>()),
        })
    }

    /// The version that a `c`, `u` or `d` expects, if it expects one. A truncate should expect none. An event of a type
    /// of its own that names neither collection nor key is no change, and the member is its sender's.
    fn expected(&self, row: usize) -> Option<ExpectedVersion> {
        let is_change = match self.op(row) {
            Some(ChangeOp::Create | ChangeOp::Update | ChangeOp::Delete) => true,
            Some(ChangeOp::Read) => false,
            None => value(self.kind, row) == Some(TRUNCATE_TYPE),
        };
        let is_change = is_change && (self.is_typed_change(row) || self.names_any(row));
        let payload = value(Some(self.payload), row).filter(|_| is_change)?;
        // A name may have its letters escaped.
        if !payload.contains("\\u") && !MEMBERS.iter().any(|name| payload.contains(*name)) {
            return None;
        }
        let expected = match serde_json::from_str::<HashMap<String, &RawValue>>(payload) {
            Ok(members) if is_flat_row(&members) => return None,
            Ok(members) => written_version(&members)?.parse::<u64>().ok(),
            // Something is wrong: rather none is taken than a wrong one.
            Err(_) => None,
        };
        let expected = expected.map_or(ExpectedVersion::Invalid, ExpectedVersion::Exactly);
        (!self.is_exported(row)).then_some(expected)
    }

    /// Whether an event came as the columns that it had in another log, with its text in one of them: that log took it
    /// on the version that it expected.
    fn is_exported(&self, row: usize) -> bool {
        let event = self.source.event(self.events, row);
        serde_json::from_slice::<HashMap<String, &RawValue>>(&event)
            .is_ok_and(|members| written_version(&members).is_none())
    }

    /// Whether the type is one of changes, given or derived.
    fn is_typed_change(&self, row: usize) -> bool {
        let kind = value(self.kind, row).unwrap_or_default();
        CHANGE_TYPES.iter().any(|prefix| kind.starts_with(prefix))
    }

    /// Whether a collection or a key is named.
    fn names_any(&self, row: usize) -> bool {
        value(self.collection, row).is_some() || value(self.key, row).is_some()
    }

    /// The document that a row changes.
    fn document(&self, row: usize) -> Option<(&'e str, &'e str)> {
        self.op(row)?;
        Some((value(self.collection, row)?, value(self.key, row)?))
    }

    fn op(&self, row: usize) -> Option<ChangeOp> {
        value(self.op, row).and_then(ChangeOp::from_code)
    }

    fn change(&self, row: usize) -> Option<VersionChange> {
        let ts = self.ts.map_or(0, |ts| ts.value(row));
        let (after, patch) = (value(self.after, row), value(self.patch, row));
        Some(VersionChange::new(self.op(row)?, ts, after, patch))
    }

    /// The collection that a row empties.
    fn truncated(&self, row: usize) -> Option<&'e str> {
        let is_truncate = value(self.kind, row) == Some(TRUNCATE_TYPE);
        let collection = value(self.collection, row)?;
        (is_truncate && value(self.key, row).is_none()).then_some(collection)
    }
}

/// A cell's text; none where it is null.
fn value(column: Option<&StringArray>, row: usize) -> Option<&str> {
    let column = column?;
    column.is_valid(row).then(|| column.value(row))
}

#[cfg(test)]
mod tests;
