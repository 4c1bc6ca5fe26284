//! Requests that were carried out under an `Idempotency-Key`, and what they were answered.
//!
//! A key is claimed in the transaction that carries the request out: of two that carry the same key
//! one waits for the other, and then finds it done.
//!
//! A key is kept for as long as its client may send it again, however many there are. Refusals and
//! staged tables change nothing, so only the newest are kept: a repeat of an older one is looked at
//! anew.

use super::{FeedRetention, Metastore, RecordedAnswer, RequestKey, failed};
use crate::error::CatalogError;
use sqlx::AnyConnection;
use uuid::Uuid;

/// A request that was carried out, or refused for good, under an `Idempotency-Key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnsweredRequest {
    /// Names its contents.
    pub fingerprint: String,
    /// The HTTP status it was answered with.
    pub status: u16,
    /// The rest of the answer.
    pub answer: RecordedAnswer,
    /// The table or view it made.
    pub table: Option<AnsweredTable>,
}

/// A table or view as a request made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnsweredTable {
    /// Its identity.
    pub uuid: Uuid,
    /// The metadata file that the request wrote.
    pub metadata_location: String,
}

impl Metastore {
    /// What became of the request of this key; none when it was not carried out.
    pub(crate) async fn request(&self, id: Uuid) -> Result<Option<AnsweredRequest>, CatalogError> {
        get(&mut *self.reader().await?, id).await
    }

    /// Keeps the key of a request that changes nothing, with the table or view (identity and
    /// metadata location) that it is answered with; nothing for a request without one. `Repeated`.
    pub(crate) async fn keep_request(
        &self,
        made: Option<(Uuid, &str)>,
    ) -> Result<(), CatalogError> {
        if self.origin.request.is_none() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        self.claim_once(&mut tx, made).await?;
        tx.commit().await.map_err(failed("keep a request"))
    }

    /// Keeps the answer to a request that was refused, unless one of its key is kept already, and
    /// gives the one that is kept.
    pub(crate) async fn refuse_request(
        &self,
        request: &RequestKey,
        status: u16,
        body: &str,
    ) -> Result<Option<AnsweredRequest>, CatalogError> {
        let mut tx = self.begin().await?;
        insert(&mut tx, request, (self.origin.now)(), status, "json", body).await?;
        let kept = get(&mut tx, request.id).await?;
        tx.commit().await.map_err(failed("keep a request"))?;
        Ok(kept)
    }
}

pub(super) const STEP: &str = r"
CREATE TABLE requests (
    id TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    status INTEGER NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX requests_by_time ON requests (at_ms);
";

/// Finds what may be forgotten without reading the rest.
pub(super) const WITHOUT_EFFECT: &str = r"
CREATE INDEX requests_without_effect ON requests (at_ms) WHERE status >= 400 OR kind = 'staged';
";

/// fingerprint, status, kind, body.
type RequestRow = (String, i32, String, String);

/// Takes a key for the caller's transaction; false when its request was carried out before.
///
/// `table` is what the request makes: identity and metadata location.
pub(super) async fn claim(
    tx: &mut AnyConnection,
    request: &RequestKey,
    at_ms: i64,
    table: Option<(Uuid, &str)>,
) -> Result<bool, CatalogError> {
    let table = || table.map(|(uuid, file)| format!("{uuid} {file}")).unwrap_or_default();
    let (status, kind, body) = match &request.answer {
        RecordedAnswer::Empty => (204, "empty", String::new()),
        RecordedAnswer::Json(body) => (200, "json", body.clone()),
        RecordedAnswer::Table => (200, "table", table()),
        RecordedAnswer::Commit => (200, "commit", table()),
        RecordedAnswer::View => (200, "view", table()),
        RecordedAnswer::Staged(table) => (200, "staged", table.clone()),
    };
    insert(tx, request, at_ms, status, kind, &body).await
}

async fn insert(
    tx: &mut AnyConnection,
    request: &RequestKey,
    at_ms: i64,
    status: u16,
    kind: &str,
    body: &str,
) -> Result<bool, CatalogError> {
    let added = sqlx::query(
        "INSERT INTO requests VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING",
    )
    .bind(request.id.to_string())
    .bind(&request.fingerprint)
    .bind(at_ms)
    .bind(i32::from(status))
    .bind(kind)
    .bind(body)
    .execute(tx)
    .await
    .map_err(failed("keep a request"))?;
    Ok(added.rows_affected() == 1)
}

pub(super) async fn get(
    connection: &mut AnyConnection,
    id: Uuid,
) -> Result<Option<AnsweredRequest>, CatalogError> {
    let row: Option<RequestRow> =
        sqlx::query_as("SELECT fingerprint, status, kind, body FROM requests WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(connection)
            .await
            .map_err(failed("look for a request"))?;
    Ok(row.map(|(fingerprint, status, kind, body)| {
        let table = body.split_once(' ').and_then(|(uuid, file)| {
            let uuid = Uuid::parse_str(uuid).ok()?;
            Some(AnsweredTable { uuid, metadata_location: file.to_owned() })
        });
        let (answer, table) = match kind.as_str() {
            "json" => (RecordedAnswer::Json(body), None),
            "table" => (RecordedAnswer::Table, table),
            "commit" => (RecordedAnswer::Commit, table),
            "view" => (RecordedAnswer::View, table),
            "staged" => (RecordedAnswer::Staged(body), None),
            _ => (RecordedAnswer::Empty, None),
        };
        AnsweredRequest { fingerprint, status: u16::try_from(status).unwrap_or(500), answer, table }
    }))
}

pub(super) async fn forget(
    tx: &mut AnyConnection,
    remembered: FeedRetention,
) -> Result<(), CatalogError> {
    sqlx::query("DELETE FROM requests WHERE at_ms < $1")
        .bind(remembered.requests_since_ms)
        .execute(&mut *tx)
        .await
        .map_err(failed("forget requests"))?;
    sqlx::query(
        "DELETE FROM requests WHERE id IN
             (SELECT id FROM requests WHERE status >= 400 OR kind = 'staged'
              ORDER BY at_ms DESC LIMIT $1 OFFSET $2)",
    )
    .bind(i64::MAX)
    .bind(i64::from(remembered.without_effect))
    .execute(tx)
    .await
    .map(|_| ())
    .map_err(failed("forget requests"))
}
