//! Files of tables that no metadata names: marked when they are seen first, queued for deletion when they
//! are seen again, and remembered after that.
//!
//! Its one invariant: a file is queued together with a step of its table's version. A commit that was
//! looked at before loses its race then, and finds the file in the queue when it is looked at again; a
//! commit that came first makes the step fail.

use super::{
    Metastore, ObsoleteFile,
    database::RowLock,
    failed,
    obsolete::{self, FILES_AT_ONCE, places as parameters},
    places, tables,
};
use crate::{error::CatalogError, location::Location};
use sqlx::{AnyConnection, AssertSqlSafe};
use std::collections::HashMap;
use uuid::Uuid;

/// `queued_ms` is of files that were queued. Their rows stay, so that a commit which comes late and names
/// one is refused when the file and its place in the queue are gone.
pub(super) const STEP: &str = r#"
CREATE TABLE orphans (
    location TEXT COLLATE "C" PRIMARY KEY,
    uuid TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    modified_ms BIGINT NOT NULL,
    marked_ms BIGINT NOT NULL,
    queued_ms BIGINT
);
CREATE INDEX orphans_of_table ON orphans (uuid);
"#;

/// A file that was seen and that no metadata of its table named then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrphanMark {
    /// Which file.
    pub(crate) location: String,
    /// How long it was.
    pub(crate) bytes: i64,
    /// When it was written last, ms since 1970.
    pub(crate) modified_ms: i64,
    /// When it was seen first so.
    pub(crate) marked_ms: i64,
}

impl Metastore {
    /// The files of a table that are marked and not queued, by their locations.
    pub(crate) async fn orphan_marks(
        &self,
        table: Uuid,
    ) -> Result<HashMap<String, OrphanMark>, CatalogError> {
        let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(
            "SELECT location, bytes, modified_ms, marked_ms FROM orphans
             WHERE uuid = $1 AND queued_ms IS NULL",
        )
        .bind(table.to_string())
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(failed("read the marks of orphans"))?;
        let mark = |(location, bytes, modified_ms, marked_ms): (String, i64, i64, i64)| {
            (location.clone(), OrphanMark { location, bytes, modified_ms, marked_ms })
        };
        Ok(rows.into_iter().map(mark).collect())
    }

    /// Marks files of a table, each anew, but for those that were queued and not written since: they may
    /// have been deleted since they were seen. Durable on return.
    pub(crate) async fn mark_orphans(
        &self,
        table: Uuid,
        marks: &[OrphanMark],
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        put(&mut tx, table, marks, None).await?;
        tx.commit().await.map_err(failed("mark orphans"))
    }

    /// Forgets the marks of files that are not queued.
    pub(crate) async fn unmark_orphans(&self, locations: &[String]) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        for locations in locations.chunks(FILES_AT_ONCE) {
            let delete = format!(
                "DELETE FROM orphans WHERE queued_ms IS NULL AND location IN ({})",
                parameters(1, locations.len())
            );
            let mut delete = sqlx::query(AssertSqlSafe(delete));
            for location in locations {
                delete = delete.bind(location);
            }
            delete.execute(&mut *tx).await.map_err(failed("forget the marks of orphans"))?;
        }
        tx.commit().await.map_err(failed("forget the marks of orphans"))
    }

    /// Queues files of a table for deletion if it still has this version, which grows by one then. False
    /// when it has another one, or is not there: nothing changed. Durable on return.
    pub(crate) async fn queue_orphans(
        &self,
        (table, version): (Uuid, i64),
        marks: &[OrphanMark],
        (now_ms, not_before_ms): (i64, i64),
    ) -> Result<bool, CatalogError> {
        let mut tx = self.begin().await?;
        let row = tables::by_uuid(&mut tx, table, RowLock::Update).await?;
        if row.is_none_or(|row| row.version != version) {
            return Ok(false);
        }
        sqlx::query("UPDATE tables SET version = version + 1 WHERE uuid = $1")
            .bind(table.to_string())
            .execute(&mut *tx)
            .await
            .map_err(failed("queue orphans for deletion"))?;
        let file =
            |mark: &OrphanMark| ObsoleteFile { location: mark.location.clone(), not_before_ms };
        obsolete::add(&mut tx, &marks.iter().map(file).collect::<Vec<_>>()).await?;
        put(&mut tx, table, marks, Some(now_ms)).await?;
        tx.commit().await.map_err(failed("queue orphans for deletion"))?;
        Ok(true)
    }

    /// Queues the files of a folder for deletion if no table, view or dropped table lies in it or around it. False
    /// when one does: nothing changed. Durable on return.
    pub(crate) async fn queue_orphan_folder(
        &self,
        (uuid, folder): (Uuid, &Location),
        marks: &[OrphanMark],
        (now_ms, not_before_ms): (i64, i64),
    ) -> Result<bool, CatalogError> {
        let mut tx = self.begin().await?;
        // Nobody makes a table there meanwhile.
        places::lock(&mut tx).await?;
        if 0 < places::overlapping(&mut tx, Uuid::nil(), folder).await? {
            return Ok(false);
        }
        let file =
            |mark: &OrphanMark| ObsoleteFile { location: mark.location.clone(), not_before_ms };
        obsolete::add(&mut tx, &marks.iter().map(file).collect::<Vec<_>>()).await?;
        put(&mut tx, uuid, marks, Some(now_ms)).await?;
        tx.commit().await.map_err(failed("queue orphans for deletion"))?;
        Ok(true)
    }

    /// Which of these files were queued as orphans at some time.
    pub(crate) async fn removed_orphans(
        &self,
        files: &[String],
    ) -> Result<Vec<String>, CatalogError> {
        self.found("SELECT location FROM orphans WHERE queued_ms IS NOT NULL AND", files).await
    }

    /// Which of these files wait for their deletion.
    pub(crate) async fn queued_files(&self, files: &[String]) -> Result<Vec<String>, CatalogError> {
        self.found("SELECT location FROM obsolete WHERE", files).await
    }

    async fn found(
        &self,
        select: &'static str,
        files: &[String],
    ) -> Result<Vec<String>, CatalogError> {
        let mut all = Vec::new();
        for files in files.chunks(FILES_AT_ONCE) {
            let query = format!("{select} location IN ({})", parameters(1, files.len()));
            let mut query = sqlx::query_scalar(AssertSqlSafe(query));
            for file in files {
                query = query.bind(file);
            }
            let found: Vec<String> = query
                .fetch_all(&mut *self.reader().await?)
                .await
                .map_err(failed("look for files that were queued for deletion"))?;
            all.extend(found);
        }
        Ok(all)
    }

    /// The files below a folder that wait for their deletion, or were queued as orphans at some time.
    pub(crate) async fn deletions_in(
        &self,
        folder: &Location,
    ) -> Result<Vec<String>, CatalogError> {
        sqlx::query_scalar(
            "SELECT location FROM obsolete WHERE location >= $1 AND location < $2 UNION
             SELECT location FROM orphans
             WHERE queued_ms IS NOT NULL AND location >= $1 AND location < $2",
        )
        // Everything that starts with the folder and a slash: `0` is the character after it.
        .bind(format!("{folder}/"))
        .bind(format!("{folder}0"))
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(failed("look for files that were queued for deletion"))
    }

    /// Forgets all marks of files that are not queued: the tables of this copy may have been older, and what
    /// nothing named then may have been committed since.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn forget_orphan_marks(&self) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM orphans WHERE queued_ms IS NULL")
            .execute(&mut *tx)
            .await
            .map_err(failed("forget the marks of orphans"))?;
        tx.commit().await.map_err(failed("forget the marks of orphans"))
    }

    /// Forgets what was marked or queued before this time.
    pub(crate) async fn forget_orphans(&self, before_ms: i64) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM orphans WHERE coalesce(queued_ms, marked_ms) < $1")
            .bind(before_ms)
            .execute(&mut *tx)
            .await
            .map_err(failed("forget old orphans"))?;
        tx.commit().await.map_err(failed("forget old orphans"))
    }
}

/// Refuses a new table whose folder was queued as one of no table: whoever writes its files looked before, and
/// their deletion may have been queued since. What is queued holds the row `places` too.
pub(super) async fn check_none_is_queued(
    tx: &mut AnyConnection,
    table: Uuid,
) -> Result<(), CatalogError> {
    let queued: Option<String> = sqlx::query_scalar(
        "SELECT location FROM orphans WHERE uuid = $1 AND queued_ms IS NOT NULL LIMIT 1",
    )
    .bind(table.to_string())
    .fetch_optional(tx)
    .await
    .map_err(failed("look for files that were queued for deletion"))?;
    match queued {
        None => Ok(()),
        Some(file) => Err(CatalogError::Invalid(format!(
            "`{file}` was taken for a file of no table, since the table was not made for days: write \
             its files again for a new one"
        ))),
    }
}

/// Forgets all of them: their places are others now.
pub(super) async fn forget_all(tx: &mut AnyConnection) -> Result<(), CatalogError> {
    let deleted = sqlx::query("DELETE FROM orphans").execute(tx).await;
    deleted.map(|_| ()).map_err(failed("forget the marks of orphans"))
}

/// Puts rows in the place of those of the same files. None of `marks` is there twice.
async fn put(
    tx: &mut AnyConnection,
    table: Uuid,
    marks: &[OrphanMark],
    queued_ms: Option<i64>,
) -> Result<(), CatalogError> {
    let table = table.to_string();
    for marks in marks.chunks(FILES_AT_ONCE) {
        // The first two are the same in all rows.
        let row = |at: usize| {
            let first = 4 * at + 3;
            format!("(${first}, $1, ${}, ${}, ${}, $2)", first + 1, first + 2, first + 3)
        };
        let rows: Vec<String> = (0..marks.len()).map(row).collect();
        let insert = format!(
            "INSERT INTO orphans (location, uuid, bytes, modified_ms, marked_ms, queued_ms)
             VALUES {} ON CONFLICT (location) DO UPDATE SET uuid = excluded.uuid,
                 bytes = excluded.bytes, modified_ms = excluded.modified_ms,
                 marked_ms = excluded.marked_ms, queued_ms = excluded.queued_ms
             WHERE excluded.queued_ms IS NOT NULL OR orphans.queued_ms IS NULL
                 OR orphans.bytes <> excluded.bytes OR orphans.modified_ms <> excluded.modified_ms",
            rows.join(", ")
        );
        let mut insert = sqlx::query(AssertSqlSafe(insert)).bind(&table).bind(queued_ms);
        for mark in marks {
            insert = insert
                .bind(&mark.location)
                .bind(mark.bytes)
                .bind(mark.modified_ms)
                .bind(mark.marked_ms);
        }
        insert.execute(&mut *tx).await.map_err(failed("mark orphans"))?;
    }
    Ok(())
}
