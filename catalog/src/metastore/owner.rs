//! Whose log the tables' events come from.
//!
//! One row says which log owns them, since which epoch, and in which epoch it lives now. Its one
//! invariant: a watermark moves only under the epoch in that row, so every watermark from the epoch
//! `since` on is of that log, and positions of another log are never taken for its own.

use super::{Metastore, dialect::Lock, failed, stored};
use crate::error::CatalogError;
use sqlx::{AnyConnection, AssertSqlSafe};
use uuid::Uuid;

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

/// How far above every `seq` in a table a new log begins: what the log before it gave out and no
/// table has is not known. A log of the default bound of bytes that held so many rows would have
/// two bytes for each; a `seq` below 2^53 lasts for two million new logs.
const SEQ_MARGIN: i64 = 1 << 32;

/// The log that events are taken into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOwner {
    /// Which log.
    pub log: Uuid,
    /// Watermarks of this epoch and later ones are of that log.
    pub since: u64,
    /// The epoch of its last start, which alone may move watermarks.
    pub epoch: u64,
    /// Every `seq` that it gives is above this one, in each namespace.
    pub seq_after: u64,
}

/// What a log brings along that asks to be the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It never had a record, so no table has anything of it. It becomes the owner where there is
    /// none.
    New,
    /// It has been there before: where no owner is known yet, the tables' watermarks are taken for
    /// its own.
    Known,
    /// It never had a record, and an operator says that it shall be the owner.
    TakeOver,
}

/// How far a log is in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogMark {
    /// The table's namespace, its levels joined by dots.
    pub namespace: String,
    /// The table's name.
    pub table: String,
    /// The last position of the log whose rows the table has.
    pub position: u64,
}

impl Metastore {
    /// The highest watermark position of any table that is or was there (0 when there is none):
    /// a log must never hand out a position at or below it.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn highest_position(&self) -> Result<u64, CatalogError> {
        let position: i64 = sqlx::query_scalar(
            "SELECT coalesce(max(position), 0) FROM
                 (SELECT position FROM tables UNION ALL SELECT position FROM dropped) AS seen",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(failed("read the highest position"))?;
        Ok(position.cast_unsigned())
    }
}

impl Metastore {
    /// Begins a life of `log` and gives the owner: this log, under a new epoch, when it was or now
    /// becomes the owner; otherwise the other log, and nothing has changed. Durable on return.
    ///
    /// An owner that is followed by another one leaves behind how far it was in each table.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn own_log(&self, log: Uuid, claim: Claim) -> Result<LogOwner, CatalogError> {
        let mut tx = self.begin().await?;
        // Claims come one after the other: each changes this row first.
        let epoch = next_epoch(&mut tx).await?;
        let held = read(&mut tx, Lock::Update).await?;
        let owner = match (held, claim) {
            (Some(held), _) if held.log == log => LogOwner { epoch, ..held },
            (Some(held), Claim::New | Claim::Known) => return Ok(held),
            (None, Claim::Known) => LogOwner { log, since: 0, epoch, seq_after: 0 },
            (None, Claim::New) | (_, Claim::TakeOver) => {
                let seq_after = seq_after(&mut tx, held.as_ref()).await?;
                LogOwner { log, since: epoch, epoch, seq_after }
            }
        };
        if let Some(left) = held.filter(|held| held.log != log) {
            keep_marks(&mut tx, &left).await?;
        }
        write(&mut tx, &owner).await?;
        tx.commit().await.map_err(failed("own the log"))?;
        Ok(owner)
    }

    /// The log that events are taken into; none before the first start.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn log_owner(&self) -> Result<Option<LogOwner>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(failed("connect"))?;
        read(&mut connection, Lock::None).await
    }

    /// How far a log is in the tables: the owner by their watermarks, a former one by what it left
    /// behind; empty for a log that was never the owner.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn log_marks(&self, log: Uuid) -> Result<Vec<LogMark>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(failed("connect"))?;
        let owner = read(&mut connection, Lock::None).await?.filter(|owner| owner.log == log);
        let rows: Vec<(String, String, i64)> = match owner {
            Some(owner) => {
                sqlx::query_as("SELECT namespace, name, position FROM tables WHERE epoch >= $1")
                    .bind(stored(owner.since)?)
                    .fetch_all(&mut *connection)
                    .await
            }
            None => {
                sqlx::query_as("SELECT namespace, name, position FROM log_marks WHERE log = $1")
                    .bind(log.to_string())
                    .fetch_all(&mut *connection)
                    .await
            }
        }
        .map_err(failed("read how far a log is"))?;
        let mark = |(namespace, table, position): (String, String, i64)| LogMark {
            namespace: namespace.replace(super::SEPARATOR, "."),
            table,
            position: position.cast_unsigned(),
        };
        Ok(rows.into_iter().map(mark).collect())
    }
}

/// Whether a watermark may move under this epoch. The owner stays the same until the end of the
/// transaction. Without an owner nobody has begun a life of a log, and every epoch may.
pub(super) async fn may_move(tx: &mut AnyConnection, epoch: u64) -> Result<bool, CatalogError> {
    let owner = read(tx, Lock::Share).await?;
    Ok(owner.is_none_or(|owner| owner.epoch <= epoch))
}

async fn read(
    connection: &mut AnyConnection,
    lock: Lock,
) -> Result<Option<LogOwner>, CatalogError> {
    let query =
        format!("SELECT log, since, epoch, seq_after FROM log_owner{}", lock.clause(connection));
    let row: Option<(String, i64, i64, i64)> = sqlx::query_as(AssertSqlSafe(query))
        .fetch_optional(connection)
        .await
        .map_err(failed("read whose log it is"))?;
    row.map(|(log, since, epoch, seq_after)| {
        Ok(LogOwner {
            log: Uuid::parse_str(&log).map_err(|cause| {
                failed("read whose log it is")(sqlx::Error::Decode(Box::new(cause)))
            })?,
            since: since.cast_unsigned(),
            epoch: epoch.cast_unsigned(),
            seq_after: seq_after.cast_unsigned(),
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

/// Above everything that the tables have and that earlier owners may have given out.
async fn seq_after(tx: &mut AnyConnection, held: Option<&LogOwner>) -> Result<u64, CatalogError> {
    let highest: i64 = sqlx::query_scalar(
        "SELECT coalesce(max(last_seq), 0) FROM
             (SELECT last_seq FROM tables UNION ALL SELECT last_seq FROM dropped) AS seen",
    )
    .fetch_one(tx)
    .await
    .map_err(failed("read the highest seq"))?;
    // A log that was there before may have given out what it never committed.
    match held {
        None if highest == 0 => Ok(0),
        None => Ok(highest.saturating_add(SEQ_MARGIN).cast_unsigned()),
        Some(held) => {
            let before = highest.max(stored(held.seq_after)?);
            Ok(before.saturating_add(SEQ_MARGIN).cast_unsigned())
        }
    }
}

async fn keep_marks(tx: &mut AnyConnection, left: &LogOwner) -> Result<(), CatalogError> {
    sqlx::query(
        "INSERT INTO log_marks SELECT $1, namespace, name, position FROM tables
         WHERE epoch >= $2
         ON CONFLICT (log, namespace, name) DO UPDATE SET position = excluded.position",
    )
    .bind(left.log.to_string())
    .bind(stored(left.since)?)
    .execute(tx)
    .await
    .map_err(failed("keep how far a log was"))?;
    Ok(())
}

async fn write(tx: &mut AnyConnection, owner: &LogOwner) -> Result<(), CatalogError> {
    sqlx::query(
        "INSERT INTO log_owner VALUES ('owner', $1, $2, $3, $4)
         ON CONFLICT (name) DO UPDATE SET log = excluded.log, since = excluded.since,
             epoch = excluded.epoch, seq_after = excluded.seq_after",
    )
    .bind(owner.log.to_string())
    .bind(stored(owner.since)?)
    .bind(stored(owner.epoch)?)
    .bind(stored(owner.seq_after)?)
    .execute(tx)
    .await
    .map_err(failed("own the log"))?;
    Ok(())
}

#[cfg(test)]
mod tests;
