//! The queue of files to delete; each function is part of the caller's transaction.
//!
//! A file is in it once, and leaves it only when it is gone, or was found to be live.

use super::{Metastore, backups::IS_FREE, failed};
use crate::error::CatalogError;
use sqlx::{AnyConnection, AssertSqlSafe};
use std::collections::BTreeMap;

/// Files of one statement. A thinning queues tens of thousands, while others wait for its transaction.
pub(super) const FILES_AT_ONCE: usize = 500;

/// A file to delete later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObsoleteFile {
    /// Which file.
    pub location: String,
    /// Not before this time, ms since 1970.
    pub not_before_ms: i64,
}

impl Metastore {
    /// Queues files for deletion outside a commit.
    pub(crate) async fn add_obsolete(&self, files: &[ObsoleteFile]) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        add(&mut tx, files).await?;
        tx.commit().await.map_err(failed("queue files for deletion"))
    }

    /// One of these files that is in the queue, whenever its time comes.
    pub(crate) async fn first_obsolete(
        &self,
        files: &[String],
    ) -> Result<Option<String>, CatalogError> {
        first_queued(&mut *self.reader().await?, files).await
    }

    /// At most `limit` files whose time has come.
    pub(crate) async fn obsolete(
        &self,
        now_ms: i64,
        limit: u32,
    ) -> Result<Vec<String>, CatalogError> {
        let query = format!(
            "SELECT location FROM obsolete WHERE not_before_ms <= $1 AND {IS_FREE}
             ORDER BY not_before_ms, location LIMIT $2"
        );
        sqlx::query_scalar(AssertSqlSafe(query))
            .bind(now_ms)
            .bind(i64::from(limit))
            .fetch_all(&self.database.readers)
            .await
            .map_err(failed("read the deletion queue"))
    }

    /// Forgets files that have been deleted, or are not to be.
    pub(crate) async fn forget_obsolete(&self, locations: &[String]) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        forget(&mut tx, locations).await?;
        tx.commit().await.map_err(failed("shorten the deletion queue"))
    }

    /// Has files that are still in the queue wait until then.
    pub(crate) async fn put_off_obsolete(
        &self,
        files: &[String],
        until_ms: i64,
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        for files in files.chunks(FILES_AT_ONCE) {
            // Another process may have deleted one meanwhile: it stays out then.
            let update = format!(
                "UPDATE obsolete SET not_before_ms = $1 WHERE location IN ({})",
                places(2, files.len())
            );
            let mut update = sqlx::query(AssertSqlSafe(update)).bind(until_ms);
            for file in files {
                update = update.bind(file);
            }
            update.execute(&mut *tx).await.map_err(failed("order the deletion queue"))?;
        }
        tx.commit().await.map_err(failed("order the deletion queue"))
    }

    /// Has the files of a folder that wait for longer go at this time.
    pub(crate) async fn hasten_obsolete(
        &self,
        folder: &str,
        not_before_ms: i64,
    ) -> Result<(), CatalogError> {
        let (prefix, length) = prefix_of(folder);
        let mut tx = self.begin().await?;
        sqlx::query(
            "UPDATE obsolete SET not_before_ms = $1 WHERE not_before_ms > $1
                 AND substr(location, 1, CAST($2 AS INTEGER)) = $3",
        )
        .bind(not_before_ms)
        .bind(length)
        .bind(prefix)
        .execute(&mut *tx)
        .await
        .map_err(failed("hasten the deletion queue"))?;
        tx.commit().await.map_err(failed("hasten the deletion queue"))
    }

    /// How many files of a folder, but for those of a folder in it, that go by this time are in the queue,
    /// and how many of these a backup holds.
    pub(crate) async fn queued_below(
        &self,
        folder: &str,
        without: Option<&str>,
        until_ms: i64,
    ) -> Result<(u64, u64), CatalogError> {
        let (prefix, length) = prefix_of(folder);
        // No characters are no slash.
        let (left_out, left_out_length) = without.map_or(("/".to_owned(), 0), prefix_of);
        let query = format!(
            "SELECT count(*), coalesce(sum(CASE WHEN {IS_FREE} THEN 0 ELSE 1 END), 0)
             FROM obsolete WHERE not_before_ms <= $1
                 AND substr(location, 1, CAST($2 AS INTEGER)) = $3
                 AND substr(location, 1, CAST($4 AS INTEGER)) <> $5"
        );
        let (all, held): (i64, i64) = sqlx::query_as(AssertSqlSafe(query))
            .bind(until_ms)
            .bind(length)
            .bind(prefix)
            .bind(left_out_length)
            .bind(left_out)
            .fetch_one(&self.database.readers)
            .await
            .map_err(failed("read the deletion queue"))?;
        Ok((all.unsigned_abs(), held.unsigned_abs()))
    }

    /// How many files are in the queue, whenever their time comes.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn count_obsolete(&self) -> Result<u64, CatalogError> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM obsolete")
            .fetch_one(&self.database.readers)
            .await
            .map_err(failed("read the deletion queue"))?;
        Ok(count.unsigned_abs())
    }
}

pub(super) async fn add(
    tx: &mut AnyConnection,
    files: &[ObsoleteFile],
) -> Result<(), CatalogError> {
    // A file that is queued twice waits for the later time; no statement may have it twice.
    let mut times: BTreeMap<&str, i64> = BTreeMap::new();
    for file in files {
        let time = times.entry(&file.location).or_insert(file.not_before_ms);
        *time = file.not_before_ms.max(*time);
    }
    let files: Vec<(&str, i64)> = times.into_iter().collect();
    for files in files.chunks(FILES_AT_ONCE) {
        let row = |at: usize| format!("(${}, ${})", 2 * at + 1, 2 * at + 2);
        let rows: Vec<String> = (0..files.len()).map(row).collect();
        let insert = format!(
            "INSERT INTO obsolete (location, not_before_ms) VALUES {} ON CONFLICT (location)
             DO UPDATE SET not_before_ms = excluded.not_before_ms
             WHERE obsolete.not_before_ms < excluded.not_before_ms",
            rows.join(", ")
        );
        let mut insert = sqlx::query(AssertSqlSafe(insert));
        for (location, not_before_ms) in files {
            insert = insert.bind((*location).to_owned()).bind(*not_before_ms);
        }
        insert.execute(&mut *tx).await.map_err(failed("queue files for deletion"))?;
    }
    Ok(())
}

/// What the locations of a folder's files begin with, and how many characters that has.
fn prefix_of(folder: &str) -> (String, i64) {
    let prefix = format!("{}/", folder.trim_end_matches('/'));
    let length = i64::try_from(prefix.chars().count()).unwrap_or(i64::MAX);
    (prefix, length)
}

/// So many placeholders of a list, from this number on.
pub(super) fn places(first: usize, count: usize) -> String {
    let places: Vec<String> = (first..first + count).map(|number| format!("${number}")).collect();
    places.join(", ")
}

pub(super) async fn first_queued(
    connection: &mut AnyConnection,
    files: &[String],
) -> Result<Option<String>, CatalogError> {
    for files in files.chunks(FILES_AT_ONCE) {
        let query = format!(
            "SELECT location FROM obsolete WHERE location IN ({}) LIMIT 1",
            places(1, files.len())
        );
        let mut query = sqlx::query_scalar(AssertSqlSafe(query));
        for file in files {
            query = query.bind(file);
        }
        let found: Option<String> = query
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed("read the deletion queue"))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

pub(super) async fn forget(
    tx: &mut AnyConnection,
    locations: &[String],
) -> Result<(), CatalogError> {
    for locations in locations.chunks(FILES_AT_ONCE) {
        let delete =
            format!("DELETE FROM obsolete WHERE location IN ({})", places(1, locations.len()));
        let mut delete = sqlx::query(AssertSqlSafe(delete));
        for location in locations {
            delete = delete.bind(location);
        }
        delete.execute(&mut *tx).await.map_err(failed("shorten the deletion queue"))?;
    }
    Ok(())
}
