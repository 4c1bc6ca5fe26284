//! The ledger of erasures: whose rows were to be erased, and how far each erasure is. It is kept for ever,
//! since a restored backup has the rows again.

use super::{Store, StoreError, failed};
use icecore_lake::collection::erased_documents::ErasedDocuments;
use icecore_schemas::erasure::{ErasureReport, ErasureStatus};

pub(super) const STEP: &str = r#"
CREATE TABLE service_erasures (
    id TEXT NOT NULL PRIMARY KEY,
    namespace TEXT NOT NULL,
    requested_ms BIGINT NOT NULL,
    status TEXT NOT NULL,
    passes BIGINT NOT NULL,
    until_ms BIGINT NOT NULL,
    report TEXT NOT NULL
);
CREATE INDEX service_erasures_of ON service_erasures (namespace, id);
"#;

/// Documents that the erased events made.
pub(super) const DOCUMENTS_STEP: &str = r#"
ALTER TABLE service_erasures ADD COLUMN documents TEXT;
"#;

/// Most erasures of one answer.
const LISTED_MAX: i64 = 1_000;

/// An erasure as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredErasure {
    /// The namespace.
    pub levels: Vec<String>,
    /// When it was asked for, ms since 1970.
    pub requested_ms: i64,
    /// How often what was left was found to have rows.
    pub passes: i64,
    /// When files with rows are deleted at the latest, ms since 1970; before that, when the removal of the
    /// history began, 0 for not yet.
    pub until_ms: i64,
    /// What is known of it, with its id and status.
    pub report: ErasureReport,
    /// Documents that its events made: noted before these events go, since nothing tells of them afterwards.
    pub documents: ErasedDocuments,
}

/// Namespace, time, passes, end of the grace, report, documents.
type ErasureRow = (String, i64, i64, i64, String, Option<String>);

impl Store {
    /// Writes an erasure down, durable on return. One that is there already stays as it is.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn add_erasure(&self, erasure: &StoredErasure) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO service_erasures VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        )
        .bind(&erasure.report.erasure)
        .bind(path(&erasure.levels))
        .bind(erasure.requested_ms)
        .bind(erasure.report.status.name())
        .bind(erasure.passes)
        .bind(erasure.until_ms)
        .bind(text(&erasure.report))
        .bind(documents_text(&erasure.documents))
        .execute(self.database.writer())
        .await
        .map(|_| ())
        .map_err(failed("write an erasure down"))
    }

    /// Notes what an erasure has become that was at `before`; false where it is elsewhere by now.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn note_erasure(
        &self,
        erasure: &StoredErasure,
        before: ErasureStatus,
    ) -> Result<bool, StoreError> {
        let noted = sqlx::query(
            "UPDATE service_erasures SET status = $1, passes = $2, until_ms = $3, report = $4, documents = $5
             WHERE id = $6 AND status = $7",
        )
        .bind(erasure.report.status.name())
        .bind(erasure.passes)
        .bind(erasure.until_ms)
        .bind(text(&erasure.report))
        .bind(documents_text(&erasure.documents))
        .bind(&erasure.report.erasure)
        .bind(before.name())
        .execute(self.database.writer())
        .await
        .map_err(failed("note how far an erasure is"))?;
        Ok(noted.rows_affected() == 1)
    }

    /// An erasure of a namespace.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn erasure(
        &self,
        levels: &[String],
        id: &str,
    ) -> Result<Option<StoredErasure>, StoreError> {
        let row: Option<ErasureRow> = sqlx::query_as(
            "SELECT namespace, requested_ms, passes, until_ms, report, documents FROM service_erasures
             WHERE id = $1 AND namespace = $2",
        )
        .bind(id)
        .bind(path(levels))
        .fetch_optional(self.database.readers())
        .await
        .map_err(failed("read an erasure"))?;
        Ok(row.and_then(read))
    }

    /// The erasures of a namespace, the newest first, at most 1 000.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn erasures(&self, levels: &[String]) -> Result<Vec<StoredErasure>, StoreError> {
        let rows: Vec<ErasureRow> = sqlx::query_as(
            "SELECT namespace, requested_ms, passes, until_ms, report, documents FROM service_erasures
             WHERE namespace = $1 ORDER BY id DESC LIMIT $2",
        )
        .bind(path(levels))
        .bind(LISTED_MAX)
        .fetch_all(self.database.readers())
        .await
        .map_err(failed("list erasures"))?;
        Ok(rows.into_iter().filter_map(read).collect())
    }

    /// The erasures that have not ended, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn open_erasures(&self) -> Result<Vec<StoredErasure>, StoreError> {
        let rows: Vec<ErasureRow> = sqlx::query_as(
            "SELECT namespace, requested_ms, passes, until_ms, report, documents FROM service_erasures
             WHERE status <> $1 AND status <> $2 ORDER BY id LIMIT $3",
        )
        .bind(ErasureStatus::Done.name())
        .bind(ErasureStatus::Failed.name())
        .bind(LISTED_MAX)
        .fetch_all(self.database.readers())
        .await
        .map_err(failed("read the erasures that go on"))?;
        Ok(rows.into_iter().filter_map(read).collect())
    }

    /// Every erasure, by its id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn all_erasures(&self) -> Result<Vec<StoredErasure>, StoreError> {
        let rows: Vec<ErasureRow> = sqlx::query_as(
            "SELECT namespace, requested_ms, passes, until_ms, report, documents FROM service_erasures
             ORDER BY id",
        )
        .fetch_all(self.database.readers())
        .await
        .map_err(failed("read the ledger of erasures"))?;
        Ok(rows.into_iter().filter_map(read).collect())
    }
}

/// A namespace as the table has it: whatever its levels are, another one is written otherwise.
fn path(levels: &[String]) -> String {
    serde_json::to_string(levels).expect("texts serialize")
}

fn text(report: &ErasureReport) -> String {
    serde_json::to_string(report).expect("a report has texts and numbers alone")
}

/// Nothing for most erasures.
fn documents_text(documents: &ErasedDocuments) -> Option<String> {
    let is_some = *documents != ErasedDocuments::default();
    is_some.then(|| serde_json::to_string(documents).expect("texts and numbers serialize"))
}

/// One of a later version may not read here; that version goes on with it.
fn read(row: ErasureRow) -> Option<StoredErasure> {
    let (namespace, requested_ms, passes, until_ms, report, documents) = row;
    let levels = serde_json::from_str(&namespace).ok()?;
    let report = serde_json::from_str(&report).ok()?;
    let documents = match documents {
        Some(text) => serde_json::from_str(&text).ok()?,
        None => ErasedDocuments::default(),
    };
    Some(StoredErasure { levels, requested_ms, passes, until_ms, report, documents })
}
