//! The fence: who may move the marks of tables.
//!
//! A mark says how far a writer is in a table, in numbers of its own. One row says who holds the
//! fence, since which epoch, and under which epoch now. Its one invariant: a mark moves only under
//! the epoch in that row, so every mark from the epoch `since` on is of that holder, and numbers of
//! another holder are never taken for its own.

use super::{Metastore, database::RowLock, failed, stored};
use crate::error::CatalogError;
use sqlx::{AnyConnection, AssertSqlSafe};
use uuid::Uuid;

/// The tables as they were first made, for one kind of holder.
pub(super) const STEP: &str = r#"
CREATE TABLE log_owner (
    name TEXT PRIMARY KEY CHECK (name = 'owner'),
    log TEXT NOT NULL,
    since BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    seq_after BIGINT NOT NULL
);
CREATE TABLE log_marks (
    log TEXT NOT NULL,
    namespace TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (log, namespace, name)
);
"#;

/// The same rows under names that say nothing of what a holder is.
pub(super) const NEUTRAL_STEP: &str = r#"
CREATE TABLE fences (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    since BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    base BIGINT NOT NULL
);
INSERT INTO fences SELECT 'marks', log, since, epoch, seq_after FROM log_owner;
DROP TABLE log_owner;
CREATE TABLE former_marks (
    holder TEXT NOT NULL,
    namespace TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (holder, namespace, name)
);
INSERT INTO former_marks SELECT log, namespace, name, position FROM log_marks;
DROP TABLE log_marks;
"#;

/// Who may move marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The holder.
    pub holder: Uuid,
    /// Marks of this epoch and later ones are the holder's.
    pub since: u64,
    /// The epoch to which the fence was raised last, under which alone marks move.
    pub epoch: u64,
    /// A number that belongs to the holder and means what it wants.
    pub base: u64,
}

/// What there is when the fence is about to be raised.
#[derive(Clone, Copy, Debug)]
pub struct FenceRaise {
    /// The fence so far; none before the first holder.
    pub held: Option<Fence>,
    /// The epoch to raise it to: higher than any before.
    pub epoch: u64,
    /// The highest `last_seq` of the marks of all tables, dropped ones included; 0 without marks.
    pub last_seq: u64,
}

/// How far a holder is in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderMark {
    /// The table's namespace, its levels joined by dots.
    pub namespace: String,
    /// The table's name.
    pub table: String,
    /// The position in its mark.
    pub position: u64,
}

impl Metastore {
    /// Puts the fence that `next` makes in the place of the one that is there, which no commit passes
    /// meanwhile, and gives it; when `next` gives back the one that is there, nothing has changed.
    /// Durable on return.
    ///
    /// A holder that is followed by another one leaves behind how far it was in each table.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn raise_fence(
        &self,
        next: impl FnOnce(FenceRaise) -> Fence + Send,
    ) -> Result<Fence, CatalogError> {
        let mut tx = self.begin().await?;
        // Who raises it comes one after the other: each changes this row first.
        let epoch = next_epoch(&mut tx).await?;
        let held = read(&mut tx, RowLock::Update).await?;
        let last_seq = highest_seq(&mut tx).await?;
        let fence = next(FenceRaise { held, epoch, last_seq });
        if held == Some(fence) {
            return Ok(fence);
        }
        if let Some(left) = held.filter(|held| held.holder != fence.holder) {
            keep_marks(&mut tx, &left).await?;
        }
        write(&mut tx, &fence).await?;
        tx.commit().await.map_err(failed("raise the fence"))?;
        Ok(fence)
    }

    /// The fence; none before it was first raised.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn fence(&self) -> Result<Option<Fence>, CatalogError> {
        read(&mut *self.reader().await?, RowLock::None).await
    }

    /// How far a holder is in the tables: the one of now by their marks, a former one by what it left
    /// behind; empty for one that never held the fence.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn marks_of(&self, holder: Uuid) -> Result<Vec<HolderMark>, CatalogError> {
        let held = self.fence().await?.filter(|fence| fence.holder == holder);
        let rows: Vec<(String, String, i64)> = match held {
            Some(fence) => {
                sqlx::query_as("SELECT namespace, name, position FROM tables WHERE epoch >= $1")
                    .bind(stored(fence.since)?)
                    .fetch_all(&self.database.readers)
                    .await
            }
            None => {
                sqlx::query_as(
                    "SELECT namespace, name, position FROM former_marks WHERE holder = $1",
                )
                .bind(holder.to_string())
                .fetch_all(&self.database.readers)
                .await
            }
        }
        .map_err(failed("read the marks of a holder"))?;
        let mark = |(namespace, table, position): (String, String, i64)| HolderMark {
            namespace: namespace.replace(super::SEPARATOR, "."),
            table,
            position: position.cast_unsigned(),
        };
        Ok(rows.into_iter().map(mark).collect())
    }

    /// The highest position of any mark, of dropped tables too; 0 when there is none.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn highest_position(&self) -> Result<u64, CatalogError> {
        let position: i64 = sqlx::query_scalar(
            "SELECT coalesce(max(position), 0) FROM
                 (SELECT position FROM tables UNION ALL SELECT position FROM dropped) AS seen",
        )
        .fetch_one(&self.database.readers)
        .await
        .map_err(failed("read the highest position"))?;
        Ok(position.cast_unsigned())
    }
}

/// Whether a mark may move under this epoch. The fence stays the same until the end of the
/// transaction. Where it was never raised every epoch may.
pub(super) async fn lets_pass(tx: &mut AnyConnection, epoch: u64) -> Result<bool, CatalogError> {
    let fence = read(tx, RowLock::Share).await?;
    Ok(fence.is_none_or(|fence| fence.epoch <= epoch))
}

/// Gives the fence to a holder, whoever had it, and gives the epoch from which on marks are its own:
/// for a metastore that has no marks yet.
pub(super) async fn give(
    tx: &mut AnyConnection,
    holder: Uuid,
    base: u64,
) -> Result<u64, CatalogError> {
    let epoch = next_epoch(tx).await?;
    write(tx, &Fence { holder, since: epoch, epoch, base }).await?;
    Ok(epoch)
}

async fn read(
    connection: &mut AnyConnection,
    lock: RowLock,
) -> Result<Option<Fence>, CatalogError> {
    let lock = lock.clause(connection);
    let query = format!("SELECT holder, since, epoch, base FROM fences WHERE name = 'marks'{lock}");
    let row: Option<(String, i64, i64, i64)> = sqlx::query_as(AssertSqlSafe(query))
        .fetch_optional(connection)
        .await
        .map_err(failed("read the fence"))?;
    row.map(|(holder, since, epoch, base)| {
        Ok(Fence {
            holder: Uuid::parse_str(&holder)
                .map_err(|cause| failed("read the fence")(sqlx::Error::Decode(Box::new(cause))))?,
            since: since.cast_unsigned(),
            epoch: epoch.cast_unsigned(),
            base: base.cast_unsigned(),
        })
    })
    .transpose()
}

async fn next_epoch(tx: &mut AnyConnection) -> Result<u64, CatalogError> {
    let epoch: i64 = sqlx::query_scalar(
        "UPDATE counters SET value = value + 1 WHERE name = 'epoch' RETURNING value",
    )
    .fetch_one(tx)
    .await
    .map_err(failed("take an epoch"))?;
    Ok(epoch.cast_unsigned())
}

async fn highest_seq(tx: &mut AnyConnection) -> Result<u64, CatalogError> {
    let highest: i64 = sqlx::query_scalar(
        "SELECT coalesce(max(last_seq), 0) FROM
             (SELECT last_seq FROM tables UNION ALL SELECT last_seq FROM dropped) AS seen",
    )
    .fetch_one(tx)
    .await
    .map_err(failed("read the highest mark"))?;
    Ok(highest.cast_unsigned())
}

async fn keep_marks(tx: &mut AnyConnection, left: &Fence) -> Result<(), CatalogError> {
    sqlx::query(
        "INSERT INTO former_marks SELECT $1, namespace, name, position FROM tables
         WHERE epoch >= $2
         ON CONFLICT (holder, namespace, name) DO UPDATE SET position = excluded.position",
    )
    .bind(left.holder.to_string())
    .bind(stored(left.since)?)
    .execute(tx)
    .await
    .map_err(failed("keep the marks of a holder"))?;
    Ok(())
}

async fn write(tx: &mut AnyConnection, fence: &Fence) -> Result<(), CatalogError> {
    sqlx::query(
        "INSERT INTO fences VALUES ('marks', $1, $2, $3, $4)
         ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, since = excluded.since,
             epoch = excluded.epoch, base = excluded.base",
    )
    .bind(fence.holder.to_string())
    .bind(stored(fence.since)?)
    .bind(stored(fence.epoch)?)
    .bind(stored(fence.base)?)
    .execute(tx)
    .await
    .map_err(failed("raise the fence"))?;
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
