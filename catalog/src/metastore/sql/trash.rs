//! Dropped tables that can be had back, and tables that cannot be dropped; each function is part of
//! the caller's transaction.
//!
//! A table is in the trash or among the tables, never in both, and one that is being purged stays
//! in the trash until all its files are queued for deletion.

use super::{SEPARATOR, dialect::Lock, failed, tables};
use crate::{
    error::CatalogError,
    metastore::{Kind, Levels, Trash, TrashRow},
};
use sqlx::{AnyConnection, AssertSqlSafe};
use uuid::Uuid;

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

type Row = (String, String, String, String, String, i64, i64, i64, i64);

fn into_row(row: Row) -> Result<TrashRow, CatalogError> {
    let broken = |cause| failed("read the trash")(sqlx::Error::Decode(Box::new(cause)));
    let (uuid, namespace, name, metadata_location, location, dropped_ms, until_ms, purge, purging) =
        row;
    Ok(TrashRow {
        uuid: Uuid::parse_str(&uuid).map_err(broken)?,
        levels: namespace.split(SEPARATOR).map(str::to_owned).collect(),
        name,
        metadata_location,
        location,
        trash: Trash { dropped_ms, until_ms, purge: purge != 0 },
        is_purging: purging != 0,
    })
}

/// To be called before the table is dropped.
pub(super) async fn add(
    tx: &mut AnyConnection,
    name: (&Levels, &str),
    trash: &Trash,
) -> Result<(), CatalogError> {
    let Some(row) = tables::by_name(tx, Kind::Table, name, Lock::Update).await? else {
        return Err(tables::missing(Kind::Table, name));
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

pub(super) async fn list(
    connection: &mut AnyConnection,
    limit: u32,
) -> Result<Vec<TrashRow>, CatalogError> {
    let query = format!("{SELECT} ORDER BY dropped_ms DESC, uuid LIMIT $1");
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(query))
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await
        .map_err(failed("read the trash"))?;
    rows.into_iter().map(into_row).collect()
}

/// A table of the trash that can still be had back.
pub(super) async fn require(tx: &mut AnyConnection, uuid: Uuid) -> Result<TrashRow, CatalogError> {
    let found = get(tx, uuid, Lock::Update).await?;
    found.filter(|row| !row.is_purging).ok_or_else(|| {
        CatalogError::NoSuchTable(format!("{uuid} (no dropped table that can be had back)"))
    })
}

pub(super) async fn get(
    tx: &mut AnyConnection,
    uuid: Uuid,
    lock: Lock,
) -> Result<Option<TrashRow>, CatalogError> {
    let query = format!("{SELECT} WHERE uuid = $1{}", lock.clause(tx));
    let row: Option<Row> = sqlx::query_as(AssertSqlSafe(query))
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
    let Some(row) = get(tx, uuid, Lock::Update).await? else { return Ok(()) };
    if row.is_purging {
        return Err(CatalogError::Invalid(format!(
            "table {uuid} was dropped and its files are being deleted"
        )));
    }
    if row.levels != *levels {
        return Err(CatalogError::AlreadyExists(format!(
            "{uuid} is the identity of a table that was dropped from another namespace and can be \
             had back there"
        )));
    }
    forget(tx, uuid).await
}

pub(super) async fn change(
    tx: &mut AnyConnection,
    uuid: Uuid,
    trash: &Trash,
) -> Result<(), CatalogError> {
    require(tx, uuid).await?;
    sqlx::query("UPDATE trash SET dropped_ms = $1, until_ms = $2, purge = $3 WHERE uuid = $4")
        .bind(trash.dropped_ms)
        .bind(trash.until_ms)
        .bind(i64::from(trash.purge))
        .bind(uuid.to_string())
        .execute(tx)
        .await
        .map_err(failed("change the trash"))?;
    Ok(())
}

pub(super) async fn expire(
    tx: &mut AnyConnection,
    now_ms: i64,
    limit: u32,
) -> Result<Vec<TrashRow>, CatalogError> {
    let query = format!(
        "{SELECT} WHERE until_ms <= $1 ORDER BY until_ms, uuid LIMIT $2{}",
        Lock::Update.clause(tx)
    );
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(query))
        .bind(now_ms)
        .bind(i64::from(limit))
        .fetch_all(&mut *tx)
        .await
        .map_err(failed("empty the trash"))?;
    let mut purged = Vec::new();
    for row in rows.into_iter().map(into_row) {
        let row = row?;
        if !row.trash.purge {
            forget(tx, row.uuid).await?;
            continue;
        }
        sqlx::query("UPDATE trash SET purging = 1 WHERE uuid = $1")
            .bind(row.uuid.to_string())
            .execute(&mut *tx)
            .await
            .map_err(failed("empty the trash"))?;
        purged.push(TrashRow { is_purging: true, ..row });
    }
    Ok(purged)
}

pub(super) async fn forget(tx: &mut AnyConnection, uuid: Uuid) -> Result<(), CatalogError> {
    sqlx::query("DELETE FROM trash WHERE uuid = $1")
        .bind(uuid.to_string())
        .execute(tx)
        .await
        .map_err(failed("empty the trash"))?;
    Ok(())
}

pub(super) async fn protect(
    tx: &mut AnyConnection,
    levels: &Levels,
    name: &str,
    is_protected: bool,
) -> Result<(), CatalogError> {
    let named = (levels, name);
    let row = tables::by_name(tx, Kind::Table, named, Lock::Update).await?;
    let row = row.ok_or_else(|| tables::missing(Kind::Table, named))?;
    let statement = if is_protected {
        "INSERT INTO protected VALUES ($1) ON CONFLICT DO NOTHING"
    } else {
        "DELETE FROM protected WHERE uuid = $1"
    };
    sqlx::query(statement)
        .bind(row.uuid.to_string())
        .execute(tx)
        .await
        .map_err(failed("protect a table"))?;
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
    (levels, name): (&Levels, &str),
) -> Result<(), CatalogError> {
    if is_protected(tx, uuid).await? {
        return Err(CatalogError::Protected(format!("{}.{name}", levels.join("."))));
    }
    Ok(())
}
