//! Dropped tables that can be restored, and tables that cannot be dropped; each function is part of
//! the caller's transaction.
//!
//! A table is in the trash or among the tables, never in both, and one that is being purged stays
//! in the trash until all its files are queued for deletion.

use super::{
    Levels, Metastore, NameKind, NewTable, ObjectKey, SEPARATOR, TableRow, database::RowLock,
    failed, outbox, places, tables,
};
use crate::error::CatalogError;
use sqlx::{AnyConnection, AssertSqlSafe};
use uuid::Uuid;

/// What becomes of a dropped table's name and files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropTerms {
    /// When it was dropped, ms since 1970.
    pub dropped_ms: i64,
    /// Until when it can be restored.
    pub until_ms: i64,
    /// Whether its files are deleted after that time; they stay otherwise.
    pub purge: bool,
}

/// A dropped table that can be restored, or whose files are being deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrashRow {
    /// Its identity.
    pub uuid: Uuid,
    /// The namespace it was in.
    pub levels: Levels,
    /// The name it had.
    pub name: String,
    /// Its last metadata.
    pub metadata_location: String,
    /// The folder that was the table's.
    pub location: String,
    /// When it goes, and how.
    pub trash: DropTerms,
    /// Its files are being queued for deletion: there is no way back.
    pub is_purging: bool,
}

impl Metastore {
    /// Removes a table as [`Metastore::drop_table`] does, and remembers what can be restored.
    pub(crate) async fn trash_table(
        &self,
        levels: &Levels,
        name: &str,
        trash: &DropTerms,
    ) -> Result<TableRow, CatalogError> {
        let key = ObjectKey { levels, name };
        let mut tx = self.begin_change().await?;
        add(&mut tx, key, trash).await?;
        let row = tables::drop(&mut tx, NameKind::Table, key).await?;
        let told = outbox::dropped(key, &row, trash.purge);
        self.end(tx, "drop a table", told).await?;
        Ok(row)
    }

    /// At most `limit` tables of the trash, the last dropped first.
    pub(crate) async fn trash(&self, limit: u32) -> Result<Vec<TrashRow>, CatalogError> {
        let query = format!("{SELECT} ORDER BY dropped_ms DESC, uuid LIMIT $1");
        let rows: Vec<DroppedRow> = sqlx::query_as(AssertSqlSafe(query))
            .bind(i64::from(limit))
            .fetch_all(&self.database.readers)
            .await
            .map_err(failed("read the trash"))?;
        rows.into_iter().map(into_row).collect()
    }

    /// A table of the trash.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn dropped(&self, uuid: Uuid) -> Result<Option<TrashRow>, CatalogError> {
        get(&mut *self.reader().await?, uuid, RowLock::None).await
    }

    /// Adds a table that is in the trash and not being purged, and takes it out of there;
    /// `NoSuchTable`, and what a creation of the table fails with.
    pub(crate) async fn undrop(&self, table: &NewTable) -> Result<(), CatalogError> {
        let mut tx = self.begin_change().await?;
        places::lock(&mut tx).await?;
        require(&mut tx, table.uuid).await?;
        // Whoever puts it back may put it elsewhere, so it is no table of the trash any more.
        forget(&mut tx, table.uuid).await?;
        tables::create(&mut tx, table).await?;
        self.end(tx, "undrop a table", outbox::created(table)).await
    }

    /// Changes when a table in the trash goes, and how; `NoSuchTable`.
    pub(crate) async fn change_trash(
        &self,
        uuid: Uuid,
        trash: &DropTerms,
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        require(&mut tx, uuid).await?;
        sqlx::query("UPDATE trash SET dropped_ms = $1, until_ms = $2, purge = $3 WHERE uuid = $4")
            .bind(trash.dropped_ms)
            .bind(trash.until_ms)
            .bind(i64::from(trash.purge))
            .bind(uuid.to_string())
            .execute(&mut *tx)
            .await
            .map_err(failed("change the trash"))?;
        self.commit_without_event(tx, "change the trash").await
    }

    /// Forgets at most `limit` tables whose time in the trash is over and whose files stay; gives
    /// at most `limit` of those whose files go, which from now on cannot be restored.
    pub(crate) async fn expire_trash(
        &self,
        now_ms: i64,
        limit: u32,
    ) -> Result<Vec<TrashRow>, CatalogError> {
        let mut tx = self.begin().await?;
        let query = format!(
            "{SELECT} WHERE until_ms <= $1 ORDER BY until_ms, uuid LIMIT $2{}",
            RowLock::Update.clause(&tx)
        );
        let rows: Vec<DroppedRow> = sqlx::query_as(AssertSqlSafe(query))
            .bind(now_ms)
            .bind(i64::from(limit))
            .fetch_all(&mut *tx)
            .await
            .map_err(failed("empty the trash"))?;
        let mut purged = Vec::new();
        for row in rows.into_iter().map(into_row) {
            let row = row?;
            if !row.trash.purge {
                forget(&mut tx, row.uuid).await?;
                continue;
            }
            sqlx::query("UPDATE trash SET purging = 1 WHERE uuid = $1")
                .bind(row.uuid.to_string())
                .execute(&mut *tx)
                .await
                .map_err(failed("empty the trash"))?;
            purged.push(TrashRow { is_purging: true, ..row });
        }
        tx.commit().await.map_err(failed("empty the trash"))?;
        Ok(purged)
    }

    /// Keeps a table whose files are not all queued out of [`Metastore::expire_trash`] until then.
    pub(crate) async fn put_off_purge(
        &self,
        uuid: Uuid,
        until_ms: i64,
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE trash SET until_ms = $1 WHERE uuid = $2 AND purging = 1")
            .bind(until_ms)
            .bind(uuid.to_string())
            .execute(&mut *tx)
            .await
            .map_err(failed("empty the trash"))?;
        tx.commit().await.map_err(failed("empty the trash"))
    }

    /// Forgets a table whose files are all queued for deletion.
    pub(crate) async fn forget_trash(&self, uuid: Uuid) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        forget(&mut tx, uuid).await?;
        tx.commit().await.map_err(failed("empty the trash"))
    }

    /// Makes dropping and renaming a table fail with `Protected`, or allows it again.
    ///
    /// # Errors
    /// `NoSuchTable`, `Metastore`.
    pub async fn protect_table(
        &self,
        levels: &Levels,
        name: &str,
        is_protected: bool,
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        let key = ObjectKey { levels, name };
        let row = tables::by_name(&mut tx, NameKind::Table, key, RowLock::Update).await?;
        let row = row.ok_or_else(|| tables::missing(NameKind::Table, key))?;
        let statement = if is_protected {
            "INSERT INTO protected VALUES ($1) ON CONFLICT DO NOTHING"
        } else {
            "DELETE FROM protected WHERE uuid = $1"
        };
        sqlx::query(statement)
            .bind(row.uuid.to_string())
            .execute(&mut *tx)
            .await
            .map_err(failed("protect a table"))?;
        self.commit_without_event(tx, "protect a table").await
    }

    /// At most `limit` protected tables, in order of their names.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn protected(&self, limit: u32) -> Result<Vec<(Levels, String)>, CatalogError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT namespace, name FROM tables JOIN protected ON protected.uuid = tables.uuid
             ORDER BY namespace, name LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.database.readers)
        .await
        .map_err(failed("read the protected tables"))?;
        let levels = |path: &str| path.split(SEPARATOR).map(str::to_owned).collect();
        Ok(rows.into_iter().map(|(path, name)| (levels(&path), name)).collect())
    }

    /// Whether a table is protected.
    pub(crate) async fn is_protected(&self, uuid: Uuid) -> Result<bool, CatalogError> {
        is_protected(&mut *self.reader().await?, uuid).await
    }
}

pub(super) const STEP: &str = r#"
CREATE TABLE trash (
    uuid TEXT PRIMARY KEY,
    namespace TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    metadata_location TEXT NOT NULL,
    location TEXT COLLATE "C" NOT NULL,
    dropped_ms BIGINT NOT NULL,
    until_ms BIGINT NOT NULL,
    purge BIGINT NOT NULL,
    purging BIGINT NOT NULL
);
CREATE INDEX trash_by_time ON trash (until_ms);
CREATE INDEX trash_by_location ON trash (location);
CREATE TABLE protected (
    uuid TEXT PRIMARY KEY REFERENCES tables (uuid) ON DELETE CASCADE
);
"#;

const SELECT: &str =
    "SELECT uuid, namespace, name, metadata_location, location, dropped_ms, until_ms, purge, purging
     FROM trash";

type DroppedRow = (String, String, String, String, String, i64, i64, i64, i64);

fn into_row(row: DroppedRow) -> Result<TrashRow, CatalogError> {
    let broken = |cause| failed("read the trash")(sqlx::Error::Decode(Box::new(cause)));
    let (uuid, namespace, name, metadata_location, location, dropped_ms, until_ms, purge, purging) =
        row;
    Ok(TrashRow {
        uuid: Uuid::parse_str(&uuid).map_err(broken)?,
        levels: namespace.split(SEPARATOR).map(str::to_owned).collect(),
        name,
        metadata_location,
        location,
        trash: DropTerms { dropped_ms, until_ms, purge: purge != 0 },
        is_purging: purging != 0,
    })
}

/// To be called before the table is dropped.
pub(super) async fn add(
    tx: &mut AnyConnection,
    key: ObjectKey<'_>,
    trash: &DropTerms,
) -> Result<(), CatalogError> {
    let Some(row) = tables::by_name(tx, NameKind::Table, key, RowLock::Update).await? else {
        return Err(tables::missing(NameKind::Table, key));
    };
    sqlx::query(
        "INSERT INTO trash
         SELECT uuid, namespace, name, metadata_location, location, $2, $3, $4, 0
         FROM tables WHERE uuid = $1",
    )
    .bind(row.uuid.to_string())
    .bind(trash.dropped_ms)
    .bind(trash.until_ms)
    .bind(i64::from(trash.purge))
    .execute(tx)
    .await
    .map_err(failed("drop a table"))?;
    Ok(())
}

/// A table of the trash that can still be restored.
pub(super) async fn require(tx: &mut AnyConnection, uuid: Uuid) -> Result<TrashRow, CatalogError> {
    let found = get(tx, uuid, RowLock::Update).await?;
    found.filter(|row| !row.is_purging).ok_or_else(|| {
        CatalogError::NoSuchTable(format!("{uuid} (no dropped table that can be restored)"))
    })
}

pub(super) async fn get(
    tx: &mut AnyConnection,
    uuid: Uuid,
    lock: RowLock,
) -> Result<Option<TrashRow>, CatalogError> {
    let query = format!("{SELECT} WHERE uuid = $1{}", lock.clause(tx));
    let row: Option<DroppedRow> = sqlx::query_as(AssertSqlSafe(query))
        .bind(uuid.to_string())
        .fetch_optional(tx)
        .await
        .map_err(failed("read the trash"))?;
    row.map(into_row).transpose()
}

/// A table of this identity is there again, in the namespace that it was dropped from: in another
/// it would be somebody else's.
pub(super) async fn restored(
    tx: &mut AnyConnection,
    uuid: Uuid,
    levels: &Levels,
) -> Result<(), CatalogError> {
    let Some(row) = get(tx, uuid, RowLock::Update).await? else { return Ok(()) };
    if row.is_purging {
        return Err(CatalogError::Invalid(format!(
            "table {uuid} was dropped and its files are being deleted"
        )));
    }
    if row.levels != *levels {
        return Err(CatalogError::AlreadyExists(format!(
            "{uuid} is the identity of a table that was dropped from another namespace and can be \
             restored there"
        )));
    }
    forget(tx, uuid).await
}

pub(super) async fn forget(tx: &mut AnyConnection, uuid: Uuid) -> Result<(), CatalogError> {
    sqlx::query("DELETE FROM trash WHERE uuid = $1")
        .bind(uuid.to_string())
        .execute(tx)
        .await
        .map_err(failed("empty the trash"))?;
    Ok(())
}

pub(super) async fn is_protected(
    connection: &mut AnyConnection,
    uuid: Uuid,
) -> Result<bool, CatalogError> {
    let found: i64 = sqlx::query_scalar("SELECT count(*) FROM protected WHERE uuid = $1")
        .bind(uuid.to_string())
        .fetch_one(connection)
        .await
        .map_err(failed("read a table"))?;
    Ok(found != 0)
}

/// Refuses what a protected table must not suffer.
pub(super) async fn check_unprotected(
    tx: &mut AnyConnection,
    uuid: Uuid,
    key: ObjectKey<'_>,
) -> Result<(), CatalogError> {
    if is_protected(tx, uuid).await? {
        return Err(CatalogError::Protected(key.to_string()));
    }
    Ok(())
}
