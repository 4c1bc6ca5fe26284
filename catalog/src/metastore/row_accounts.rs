//! The account of a table's rows: the sum of what the holder of the fence put into it, and what was found
//! when its rows were last read.
//!
//! Its one invariant: the sum of the holder's rows changes in the transaction that moves the watermark
//! over them, or `main` back before them. It outlives a dropped table, as the watermark does, and is there
//! again when the table is.

use super::{Metastore, failed};
use crate::{
    error::CatalogError,
    row_sum::{InvalidRowSum, RowSum},
};
use sqlx::AnyConnection;
use uuid::Uuid;

/// What is known of a table's rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowAccount {
    /// The rows of the holder of the fence that the table was given since sums are kept, up to its
    /// watermark.
    pub acked: RowSum,
    /// What was found when the table was last read; none while nobody read it.
    pub checkpoint: Option<RowCheckpoint>,
}

/// What was found out of a table's rows that no commit told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowCheckpoint {
    /// A snapshot whose rows nobody summed up when it was made.
    pub basis: i64,
    /// The rows that it has.
    pub rows: RowSum,
    /// The rows that the table had before sums were kept.
    pub opening: RowSum,
    /// The rows that others added up to that snapshot.
    pub foreign: RowSum,
    /// The rows that were removed up to that snapshot.
    pub removed: RowSum,
}

/// The step that makes the table.
pub(super) const STEP: &str = r"
CREATE TABLE row_accounts (
    uuid TEXT PRIMARY KEY,
    acked TEXT NOT NULL,
    basis BIGINT,
    basis_rows TEXT,
    opening TEXT,
    added_by_others TEXT,
    removed TEXT
);
";

/// version of the table, acked, basis, rows of the basis, opening, added by others, removed.
type AccountRow = (
    i64,
    Option<String>,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
);

impl Metastore {
    /// The account of a table, with the version of the table that it is of; none for a table that is
    /// not there.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn row_account(&self, uuid: Uuid) -> Result<Option<(i64, RowAccount)>, CatalogError> {
        let row: Option<AccountRow> = sqlx::query_as(
            "SELECT t.version, a.acked, a.basis, a.basis_rows, a.opening, a.added_by_others, a.removed
             FROM tables AS t LEFT JOIN row_accounts AS a ON a.uuid = t.uuid WHERE t.uuid = $1",
        )
        .bind(uuid.to_string())
        .fetch_optional(&self.database.readers)
        .await
        .map_err(failed("read an account of rows"))?;
        row.map(into_account).transpose()
    }

    /// Notes what was found in a table, if it still has the checkpoint that this was found `since`.
    /// Another one that was noted meanwhile stays.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn note_rows(
        &self,
        uuid: Uuid,
        since: Option<RowCheckpoint>,
        found: &RowCheckpoint,
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO row_accounts (uuid, acked, basis, basis_rows, opening, added_by_others, removed)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (uuid) DO UPDATE SET basis = excluded.basis,
                 basis_rows = excluded.basis_rows, opening = excluded.opening,
                 added_by_others = excluded.added_by_others, removed = excluded.removed
             WHERE row_accounts.basis IS NOT DISTINCT FROM $8",
        )
        .bind(uuid.to_string())
        .bind(RowSum::default().to_string())
        .bind(found.basis)
        .bind(found.rows.to_string())
        .bind(found.opening.to_string())
        .bind(found.foreign.to_string())
        .bind(found.removed.to_string())
        .bind(since.map(|since| since.basis))
        .execute(&mut *tx)
        .await
        .map_err(failed("note the rows of a table"))?;
        tx.commit().await.map_err(failed("note the rows of a table"))
    }
}

fn into_account(row: AccountRow) -> Result<(i64, RowAccount), CatalogError> {
    let (version, acked, basis, rows, opening, foreign, removed) = row;
    let acked = acked.map_or(Ok(RowSum::default()), |text| sum(&text))?;
    let texts = (basis, rows, opening, foreign, removed);
    let checkpoint = match texts {
        (Some(basis), Some(rows), Some(opening), Some(foreign), Some(removed)) => {
            Some(RowCheckpoint {
                basis,
                rows: sum(&rows)?,
                opening: sum(&opening)?,
                foreign: sum(&foreign)?,
                removed: sum(&removed)?,
            })
        }
        _ => None,
    };
    Ok((version, RowAccount { acked, checkpoint }))
}

fn sum(text: &str) -> Result<RowSum, CatalogError> {
    let broken = |cause: InvalidRowSum| {
        failed("read an account of rows")(sqlx::Error::Decode(Box::new(cause)))
    };
    text.parse().map_err(broken)
}

/// Has an account begin anew with these rows of the holder. What was found in the table is forgotten: it may
/// be of snapshots that are no more part of its history.
pub(super) async fn begin_anew(
    tx: &mut AnyConnection,
    uuid: Uuid,
    rows: RowSum,
) -> Result<(), CatalogError> {
    sqlx::query(
        "INSERT INTO row_accounts (uuid, acked) VALUES ($1, $2)
         ON CONFLICT (uuid) DO UPDATE SET acked = excluded.acked, basis = NULL, basis_rows = NULL,
             opening = NULL, added_by_others = NULL, removed = NULL",
    )
    .bind(uuid.to_string())
    .bind(rows.to_string())
    .execute(tx)
    .await
    .map(|_| ())
    .map_err(failed("begin an account of rows"))
}

/// Adds rows that the watermark moves over. The caller holds the table's row.
pub(super) async fn add_acked(
    tx: &mut AnyConnection,
    uuid: Uuid,
    rows: Option<RowSum>,
) -> Result<(), CatalogError> {
    let Some(rows) = rows else { return Ok(()) };
    let before: Option<String> =
        sqlx::query_scalar("SELECT acked FROM row_accounts WHERE uuid = $1")
            .bind(uuid.to_string())
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed("read an account of rows"))?;
    let before = before.map_or(Ok(RowSum::default()), |text| sum(&text))?;
    sqlx::query(
        "INSERT INTO row_accounts (uuid, acked) VALUES ($1, $2)
         ON CONFLICT (uuid) DO UPDATE SET acked = excluded.acked",
    )
    .bind(uuid.to_string())
    .bind(before.merge(rows).to_string())
    .execute(tx)
    .await
    .map(|_| ())
    .map_err(failed("add to an account of rows"))
}
