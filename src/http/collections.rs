//! `/v1/{ns}/collections/…`: documents as they are and as they were, the versions of one, and what is different
//! between two points. Everything is a statement over the relation of a collection, as anybody could send it.
//!
//! Its one invariant: everything is bounded. A page ends after so many rows or bytes, and the statements have the
//! limits of every query.

pub mod anomalies;
mod bases;
pub mod diff;
pub mod history;
pub mod list;
mod merge_patch;
mod parts;
mod statements;

use crate::http::{
    AppState,
    error::ApiError,
    guard::CatalogNamespace,
    json,
    points::{self, FoundPoint, ReadCaller, statement, texts},
    query_string::{QueryParameters, page_size},
    rows::{RowPage, json_at, number_at, page, text_at, time_at},
};
use crate::sql::document_lookup::DocumentLookup;
use arrow::record_batch::RecordBatch;
use axum::{
    extract::{Extension, Path, State},
    response::Response,
};
use icecore_catalog::access::Principal;
use icecore_engine::{QueryAnswer, collections::IS_CHANGE};
use icecore_schemas::{
    collections::{DocumentEntry, DocumentList, DocumentPage, DocumentReply, PointParameters},
    error_code::ErrorCode,
    point::HistoryPoint,
    query::{QueryBasis, SqlRequest},
};
use statements::DOCUMENT_COLUMNS;

/// Documents of a page that names no limit, and most of any page.
const PAGE_DOCUMENTS: usize = 100;
const PAGE_DOCUMENTS_MAX: usize = 1000;
/// Longest name of a collection, and longest key, in bytes: both stand in a statement.
pub(super) const NAME_BYTES_MAX: usize = 1024;
const KEY_BYTES_MAX: usize = 16 << 10;

/// `GET /v1/{ns}/collections/{collection}/docs/{key}?at=&branch=`: a document at a point.
///
/// # Errors
/// 400 for what is no point, 404 where there is no such document then, 410 for a point that was removed, 422 and 429
/// as queries.
pub(super) async fn document(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    Path((_, collection, key)): Path<(String, String, String)>,
    QueryParameters(wanted): QueryParameters<PointParameters>,
) -> Result<Response, ApiError> {
    let caller = ReadCaller { app: &app, principal: &principal, levels: &levels };
    let PointParameters { at, basis, branch } = wanted;
    let (point, branch) = (points::parse("at", at.as_deref())?, branch.as_deref());
    let place = DocumentPlace::new(&collection, &key)?;
    caller.check_events().await?;
    let found = match point {
        HistoryPoint::Back(back) => {
            let head = Box::pin(caller.find_on(branch, &HistoryPoint::Now, basis)).await?;
            Box::pin(caller.version_back(place, &head, back)).await?
        }
        point => Box::pin(caller.find_on(branch, &point, basis)).await?,
    };
    match Box::pin(caller.document(place, found.clone())).await? {
        (Some(document), basis) => Ok(json(200, &reply(&collection, document, basis))),
        (None, _) => Err(place.missing(&found)),
    }
}

/// `GET /v1/{ns}/collections/{collection}/docs?at=&after=&limit=&branch=`: documents in the order of their keys.
///
/// # Errors
/// As for one document; 404 for a collection that is not there.
pub(super) async fn documents(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    Path((_, collection)): Path<(String, String)>,
    QueryParameters(wanted): QueryParameters<DocumentPage>,
) -> Result<Response, ApiError> {
    let caller = ReadCaller { app: &app, principal: &principal, levels: &levels };
    let DocumentPage { at, basis, after, limit, branch } = wanted;
    let limit = page_size(limit, PAGE_DOCUMENTS, PAGE_DOCUMENTS_MAX)?;
    let point = points::parse("at", at.as_deref())?;
    check_collection(&collection)?;
    caller.check_events().await?;
    let found = Box::pin(caller.find_on(branch.as_deref(), &point, basis)).await?;
    let relation = statements::relation(&collection, &found);
    let (condition, params) = statements::key_condition(None, after.as_deref());
    let sql = format!(
        "SELECT {DOCUMENT_COLUMNS} FROM {relation}{condition} ORDER BY key LIMIT {}",
        limit + 1
    );
    let answer = caller.ask_of(&collection, &found, statement(&sql, params)).await?;
    let RowPage { rows: docs, has_more, basis } = page(answer, limit, document_at).await?;
    if docs.is_empty() && after.is_none() {
        caller.check_known(&collection, &found).await?;
    }
    let next = docs.last().filter(|_| has_more).map(|last| last.key.clone());
    Ok(json(200, &DocumentList { docs, next, basis: found.basis(basis)? }))
}

/// Where a document is.
#[derive(Clone, Copy, Debug)]
pub(super) struct DocumentPlace<'a> {
    collection: &'a str,
    key: &'a str,
}

impl<'a> DocumentPlace<'a> {
    /// The place of a key in a collection.
    ///
    /// # Errors
    /// 400 for what is too long for both.
    pub(super) fn new(collection: &'a str, key: &'a str) -> Result<Self, ApiError> {
        check_place(collection, key)?;
        Ok(Self { collection, key })
    }

    /// The error for a document that is not there at a point.
    pub(super) fn missing(self, point: &FoundPoint) -> ApiError {
        let Self { collection, key } = self;
        let mut then = point.seq.map(|seq| format!(" at seq {seq}")).unwrap_or_default();
        if let Some(branch) = &point.branch {
            then.push_str(&format!(" of branch `{branch}`"));
        }
        let text = format!("collection `{collection}` has no document `{key}`{then}");
        ApiError::new(ErrorCode::NotFound, text)
    }
}

impl ReadCaller<'_> {
    /// A document at a point, if it was there, and the basis of the answer.
    ///
    /// # Errors
    /// As queries.
    pub(super) async fn document(
        self,
        DocumentPlace { collection, key }: DocumentPlace<'_>,
        point: FoundPoint,
    ) -> Result<(Option<DocumentEntry>, QueryBasis), ApiError> {
        let relation = statements::relation(collection, &point);
        let sql = format!("SELECT {DOCUMENT_COLUMNS} FROM {relation} WHERE key = $1 LIMIT 1");
        let statement = statement(&sql, vec![key.into()]);
        let lookup = DocumentLookup { statement, key: key.to_owned() };
        let answer = self.look_up(lookup).await;
        let answer = self.of_known(collection, &point, answer).await?;
        let RowPage { rows, basis, .. } = page(answer, 1, document_at).await?;
        Ok((rows.into_iter().next(), point.basis(basis)?))
    }

    /// The point of a version of a document, counted back from the newest one of `head`'s branch.
    pub(super) async fn version_back(
        self,
        place: DocumentPlace<'_>,
        head: &FoundPoint,
        back: u32,
    ) -> Result<FoundPoint, ApiError> {
        let (versions, _) = Box::pin(history::versions(self, place, head)).await?;
        let wanted = usize::try_from(back).ok().and_then(|back| versions.get(back));
        let seq = wanted.map(|version| version.seq).ok_or_else(|| {
            let DocumentPlace { collection, key } = place;
            let text = format!(
                "document `{key}` of collection `{collection}` has no version ~{back}: it has {} in all",
                versions.len()
            );
            ApiError::new(ErrorCode::NotFound, text)
        })?;
        Ok(head.with_seq(seq))
    }

    /// Starts a query over a collection at a point; 404 where its branch has none of this name.
    async fn ask_of(
        self,
        collection: &str,
        point: &FoundPoint,
        request: SqlRequest,
    ) -> Result<QueryAnswer, ApiError> {
        let answer = self.ask(request).await;
        self.of_known(collection, point, answer).await
    }

    /// The answer of such a query.
    async fn of_known(
        self,
        collection: &str,
        point: &FoundPoint,
        answer: Result<QueryAnswer, ApiError>,
    ) -> Result<QueryAnswer, ApiError> {
        match answer {
            // It may be that nothing tells which table the name means.
            Err(error) if error.code() == ErrorCode::InvalidSql => {
                self.check_known(collection, point).await?;
                Err(error)
            }
            answer => answer,
        }
    }

    /// Refuses a collection that no change and no table names.
    ///
    /// # Errors
    /// 404; else as queries.
    async fn check_known(self, collection: &str, point: &FoundPoint) -> Result<(), ApiError> {
        let sql = format!(
            "SELECT 'known' AS known FROM {} WHERE collection = $1 AND {IS_CHANGE} LIMIT 1",
            point.events_of_branch()
        );
        let answer = self.ask(statement(&sql, vec![collection.into()])).await?;
        let is_known = !texts(answer, "known").await?.is_empty()
            || bases::of_namespace(self).await?.contains_key(collection);
        if is_known {
            return Ok(());
        }
        let text = format!(
            "there is no collection `{collection}`; GET /v1/{{namespace}}/collections lists all of them"
        );
        Err(ApiError::new(ErrorCode::NotFound, text))
    }
}

/// The answer for a document.
pub(super) fn reply(collection: &str, entry: DocumentEntry, basis: QueryBasis) -> DocumentReply {
    let DocumentEntry {
        key,
        doc,
        op,
        version,
        seq,
        bookmark,
        created_at,
        updated_at,
        actor,
        event_id,
    } = entry;
    DocumentReply {
        collection: collection.to_owned(),
        key,
        doc,
        op,
        version,
        seq,
        bookmark,
        created_at,
        updated_at,
        actor,
        event_id,
        basis,
    }
}

/// Refuses what is no place of a document, to who reads it and to who writes it.
///
/// # Errors
/// 400 for what is too long.
pub(super) fn check_place(collection: &str, key: &str) -> Result<(), ApiError> {
    check_collection(collection)?;
    if KEY_BYTES_MAX < key.len() {
        let text = format!("the key is longer than {KEY_BYTES_MAX} bytes");
        return Err(ApiError::new(ErrorCode::InvalidRequest, text));
    }
    Ok(())
}

/// Refuses a name that no collection has.
///
/// # Errors
/// 400.
pub(super) fn check_collection(name: &str) -> Result<(), ApiError> {
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains('\0') {
        return Ok(());
    }
    let text = format!("the name of a collection has 1 to {NAME_BYTES_MAX} bytes, and no NUL");
    Err(ApiError::new(ErrorCode::InvalidRequest, text))
}

/// A document of a page, and how long it is; none for a row without one.
fn document_at(batch: &RecordBatch, row: usize) -> Option<(DocumentEntry, usize)> {
    let doc = json_at(batch, "doc", row)?;
    let length = doc.get().len();
    let entry = DocumentEntry {
        key: text_at(batch, "key", row)?,
        doc,
        op: text_at(batch, "op", row),
        version: number_at(batch, "version", row)?,
        seq: number_at(batch, "seq", row)?,
        bookmark: text_at(batch, "bookmark", row),
        created_at: time_at(batch, "created_us", row),
        updated_at: time_at(batch, "updated_us", row),
        actor: text_at(batch, "actor", row),
        event_id: text_at(batch, "event_id", row),
    };
    Some((entry, length))
}
