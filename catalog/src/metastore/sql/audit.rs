//! The audit log's rows. There is one chain, whichever process writes: its head is locked.

use super::{SqlMetastore, dialect::Lock, failed};
use crate::{
    access::audit::{Entry, Head, Record},
    error::CatalogError,
};
use sqlx::{AnyConnection, AssertSqlSafe};

/// The tables of the audit log. `written` tells a record whose COMMIT had no answer from one that
/// was never written.
pub(super) const TABLES: &str = r#"
CREATE TABLE audit (
    number BIGINT PRIMARY KEY,
    written TEXT NOT NULL UNIQUE,
    time_ms BIGINT NOT NULL,
    principal TEXT NOT NULL,
    address TEXT NOT NULL,
    request TEXT NOT NULL,
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    outcome TEXT NOT NULL,
    details TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE TABLE audit_head (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    number BIGINT NOT NULL,
    hash TEXT NOT NULL
);
INSERT INTO audit_head VALUES (1, 0, '');
"#;

/// An entry on its way into the log.
#[derive(Clone, Debug)]
pub(crate) struct Writing {
    /// Its own key.
    pub(crate) key: String,
    /// Whether it was tried before, so that it may be there already.
    pub(crate) was_tried: bool,
    pub(crate) entry: Entry,
}

type Row = (i64, i64, String, String, String, String, String, String, String, String);

impl SqlMetastore {
    /// Appends entries in this order, durable on return.
    pub(crate) async fn append_audit(&self, entries: &[Writing]) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        let mut head = head(&mut tx, Lock::Update).await?;
        for one in entries {
            if one.was_tried && is_written(&mut tx, &one.key).await? {
                continue;
            }
            let record = head.append(one.entry.clone());
            insert(&mut tx, &one.key, &record).await?;
        }
        sqlx::query("UPDATE audit_head SET number = $1, hash = $2")
            .bind(head.number)
            .bind(&head.hash)
            .execute(&mut *tx)
            .await
            .map_err(failed("extend the audit log"))?;
        tx.commit().await.map_err(failed("extend the audit log"))
    }

    /// At most `limit` records after number `after`, in order.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn audit(&self, after: i64, limit: u32) -> Result<Vec<Record>, CatalogError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT number, time_ms, principal, address, request, action, object, outcome, details,
                    hash
             FROM audit WHERE number > $1 ORDER BY number LIMIT $2",
        )
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await
        .map_err(failed("read the audit log"))?;
        Ok(rows.into_iter().map(record).collect())
    }

    /// Where the log ends.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn audit_head(&self) -> Result<Head, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(failed("connect"))?;
        head(&mut connection, Lock::None).await
    }

    /// Runs a statement as somebody would who has the database.
    #[cfg(test)]
    pub(crate) async fn tamper(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.writer).await.unwrap();
    }
}

async fn head(connection: &mut AnyConnection, lock: Lock) -> Result<Head, CatalogError> {
    let query = format!("SELECT number, hash FROM audit_head{}", lock.clause(connection));
    let (number, hash): (i64, String) = sqlx::query_as(AssertSqlSafe(query))
        .fetch_one(connection)
        .await
        .map_err(failed("read the audit log's head"))?;
    Ok(Head { number, hash })
}

async fn is_written(tx: &mut AnyConnection, key: &str) -> Result<bool, CatalogError> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM audit WHERE written = $1")
        .bind(key)
        .fetch_one(tx)
        .await
        .map_err(failed("look for an audit record"))?;
    Ok(count != 0)
}

async fn insert(tx: &mut AnyConnection, key: &str, record: &Record) -> Result<(), CatalogError> {
    let entry = &record.entry;
    sqlx::query("INSERT INTO audit VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)")
        .bind(record.number)
        .bind(key)
        .bind(entry.time_ms)
        .bind(&entry.principal)
        .bind(&entry.address)
        .bind(&entry.request)
        .bind(&entry.action)
        .bind(&entry.object)
        .bind(&entry.outcome)
        .bind(&entry.details)
        .bind(&record.hash)
        .execute(tx)
        .await
        .map(|_| ())
        .map_err(failed("extend the audit log"))
}

fn record(row: Row) -> Record {
    let (number, time_ms, principal, address, request, action, object, outcome, details, hash) =
        row;
    let entry = Entry { time_ms, principal, address, request, action, object, outcome, details };
    Record { number, entry, hash }
}
