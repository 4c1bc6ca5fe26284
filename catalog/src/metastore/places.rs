//! Which folder belongs to which table; each function is part of the caller's transaction.
//!
//! Its one invariant: no table's location contains another's. Whoever takes one holds the row
//! `places` of the counters until the end of the transaction, so that two tables that are made at
//! the same time see each other.

use super::{
    Metastore, NameKind,
    database::RowLock,
    failed,
    obsolete::{FILES_AT_ONCE, places},
    tables::word,
};
use crate::{error::CatalogError, location::Location};
use sqlx::{AnyConnection, AssertSqlSafe};
use std::fmt::Write;
use uuid::Uuid;

/// A table's location is what its metadata file is in, two folders up.
pub(super) const STEP: &str = r#"
ALTER TABLE tables ADD COLUMN location TEXT COLLATE "C";
UPDATE tables SET location = rtrim(metadata_location, replace(metadata_location, '/', ''));
UPDATE tables SET location = substr(location, 1, length(location) - length('/metadata/'));
CREATE INDEX tables_by_location ON tables (location);
INSERT INTO counters VALUES ('places', 0);
"#;

impl Metastore {
    /// Whether no table lies at this location, above it or below it.
    /// The table `but` does not count, whether it is there or dropped.
    pub(crate) async fn is_free(
        &self,
        location: &Location,
        but: Uuid,
    ) -> Result<bool, CatalogError> {
        let mut connection = self.database.readers.acquire().await.map_err(failed("connect"))?;
        Ok(overlapping(&mut connection, but, location).await? == 0)
    }

    /// The tables that lie at one of these folders, each with its location and its metadata file. Dropped ones
    /// that can be restored are among them.
    pub(crate) async fn tables_at(
        &self,
        folders: &[&str],
    ) -> Result<Vec<(Uuid, String, String)>, CatalogError> {
        let broken =
            |cause| failed("look for the tables of files")(sqlx::Error::Decode(Box::new(cause)));
        let mut found = Vec::new();
        for folders in folders.chunks(FILES_AT_ONCE) {
            let query = format!(
                "SELECT uuid, location, metadata_location FROM (
                     SELECT uuid, location, metadata_location FROM tables WHERE kind = $1
                     UNION ALL
                     SELECT uuid, location, metadata_location FROM trash WHERE purging = 0
                 ) AS there WHERE location IN ({})",
                places(2, folders.len())
            );
            let mut query = sqlx::query_as(AssertSqlSafe(query)).bind(word(NameKind::Table));
            for folder in folders {
                query = query.bind((*folder).to_owned());
            }
            let rows: Vec<(String, String, String)> = query
                .fetch_all(&self.database.readers)
                .await
                .map_err(failed("look for the tables of files"))?;
            for (uuid, location, metadata_location) in rows {
                let uuid = Uuid::parse_str(&uuid).map_err(broken)?;
                found.push((uuid, location, metadata_location));
            }
        }
        Ok(found)
    }
}

/// Keeps everybody else from taking a location until the transaction ends. Comes before any lock
/// on a table, so that nobody waits in a circle.
pub(super) async fn lock(tx: &mut AnyConnection) -> Result<(), CatalogError> {
    let query =
        format!("SELECT value FROM counters WHERE name = 'places'{}", RowLock::Update.clause(tx));
    let locked: Result<i64, _> = sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(tx).await;
    locked.map(|_| ()).map_err(failed("wait for others who make tables"))
}

/// Refuses the location of a table that overlaps another's. It does not say whose: the asker may
/// not be allowed to know.
pub(super) async fn check(
    tx: &mut AnyConnection,
    uuid: Uuid,
    location: &str,
) -> Result<(), CatalogError> {
    // What is no location was not made by this catalog, and nothing can be said about it.
    let Some(parsed) = Location::parse(location) else { return Ok(()) };
    if overlapping(tx, uuid, &parsed).await? == 0 {
        return Ok(());
    }
    Err(CatalogError::Invalid(format!(
        "location `{location}` overlaps that of another table: choose one that neither contains \
         nor is inside another table's"
    )))
}

/// How many tables other than `but` lie at a location, above it or below it. Dropped ones that can be
/// restored are among them.
pub(super) async fn overlapping(
    connection: &mut AnyConnection,
    but: Uuid,
    location: &Location,
) -> Result<i64, CatalogError> {
    let folders: Vec<&str> = location.folders().collect();
    let mut query = "SELECT count(*) FROM (SELECT uuid, location FROM tables \
                     UNION ALL SELECT uuid, location FROM trash) AS taken WHERE uuid <> $1 AND \
                     (location = $2 OR location >= $3 AND location < $4 OR location IN ('no'"
        .to_owned();
    for number in 5..folders.len() + 5 {
        write!(query, ", ${number}").expect("a string takes everything");
    }
    query.push_str("))");
    let mut query = sqlx::query_scalar(AssertSqlSafe(query))
        .bind(but.to_string())
        .bind(location.to_string())
        // Everything that starts with the location and a slash: `0` is the character after it.
        .bind(format!("{location}/"))
        .bind(format!("{location}0"));
    for folder in folders {
        query = query.bind(folder.to_owned());
    }
    query.fetch_one(connection).await.map_err(failed("look for tables at a location"))
}
