//! The audit log's rows.
//!
//! Its one invariant: there is one chain, whichever process writes. Whoever extends or cuts it
//! holds the row of its head until the end of the transaction.

use super::{
    Metastore,
    database::{Dialect, RowLock},
    failed,
};
use crate::{
    audit::{
        AuditEntry, AuditRange, AuditedCall, CUT, ChainEnds, ChainHead, ChainRecord, DONE,
        LinkedRecord,
    },
    error::CatalogError,
};
use sqlx::{AnyConnection, AssertSqlSafe};
use uuid::Uuid;

/// Records are deleted for their age when the oldest is older by this than it has to be, so that
/// the records of that are few.
const CUT_EVERY_MS: i64 = 24 * 3_600_000;
/// Columns of a record.
const FIELDS: usize = 11;
/// Most records that are deleted in one transaction.
const CUT_RECORDS_MAX: i64 = 10_000;

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

/// The last record that was deleted for its age; the times that queries ask for.
pub(super) const CUT_STEP: &str = r#"
CREATE TABLE audit_start (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    number BIGINT NOT NULL,
    hash TEXT NOT NULL
);
INSERT INTO audit_start VALUES (1, 0, '');
CREATE INDEX audit_by_time ON audit (time_ms);
"#;

/// An entry on its way into the log.
#[derive(Clone, Debug)]
pub(crate) struct AuditWrite {
    /// Its own key.
    pub(crate) key: String,
    pub(crate) entry: AuditEntry,
}

type AuditRow = (i64, i64, String, String, String, String, String, String, String, String);

impl Metastore {
    /// Appends entries in this order, durable on return; those that are there already are left
    /// out.
    pub(crate) async fn append_audit(&self, entries: &[AuditWrite]) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        let mut head = end(&mut tx, "audit_head", RowLock::Update).await?;
        let mut records = Vec::with_capacity(entries.len());
        for one in entries {
            if !is_there(&mut tx, &one.key).await? {
                records.push((one.key.as_str(), head.append(one.entry.clone())));
            }
        }
        extend(&mut tx, &records, &head).await?;
        tx.commit().await.map_err(failed("extend the audit log"))
    }

    /// Deletes a bounded number of records of before `before_ms`, once there are enough of them.
    pub(crate) async fn cut_audit(&self, before_ms: i64, now_ms: i64) -> Result<(), CatalogError> {
        let oldest: Option<i64> =
            sqlx::query_scalar("SELECT time_ms FROM audit ORDER BY number LIMIT 1")
                .fetch_optional(&self.database.readers)
                .await
                .map_err(failed("read the audit log"))?;
        if oldest.is_none_or(|oldest| before_ms < oldest.saturating_add(CUT_EVERY_MS)) {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let mut head = end(&mut tx, "audit_head", RowLock::Update).await?;
        let start = end(&mut tx, "audit_start", RowLock::None).await?;
        let kept: Option<i64> =
            sqlx::query_scalar("SELECT min(number) FROM audit WHERE time_ms >= $1")
                .bind(before_ms)
                .fetch_one(&mut *tx)
                .await
                .map_err(failed("cut the audit log"))?;
        let last = kept.map_or(head.number, |kept| kept - 1).min(start.number + CUT_RECORDS_MAX);
        if last <= start.number {
            return Ok(());
        }
        let hash: String = sqlx::query_scalar("SELECT hash FROM audit WHERE number = $1")
            .bind(last)
            .fetch_one(&mut *tx)
            .await
            .map_err(failed("cut the audit log"))?;
        sqlx::query("DELETE FROM audit WHERE number <= $1")
            .bind(last)
            .execute(&mut *tx)
            .await
            .map_err(failed("cut the audit log"))?;
        let record = head.append(cut(start.number + 1, last, &hash, now_ms));
        extend(&mut tx, &[(&Uuid::new_v4().to_string(), record)], &head).await?;
        set_end(&mut tx, "audit_start", &ChainHead { number: last, hash }).await?;
        tx.commit().await.map_err(failed("cut the audit log"))
    }

    /// At most `limit` records after number `after`, in order.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn audit(&self, after: i64, limit: u32) -> Result<Vec<ChainRecord>, CatalogError> {
        let rows: Vec<AuditRow> = sqlx::query_as(
            "SELECT number, time_ms, principal, address, request, action, object, outcome, details,
                    hash
             FROM audit WHERE number > $1 ORDER BY number LIMIT $2",
        )
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&self.database.readers)
        .await
        .map_err(failed("read the audit log"))?;
        Ok(rows.into_iter().map(record).collect())
    }

    /// At most `limit` records of a range, the newest first.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn newest_audit(
        &self,
        AuditRange { numbers, times_ms }: AuditRange,
        limit: u32,
    ) -> Result<Vec<LinkedRecord>, CatalogError> {
        type LinkedRow =
            (i64, i64, String, String, String, String, String, String, String, String, String);
        let rows: Vec<LinkedRow> = sqlx::query_as(
            "SELECT one.number, one.time_ms, one.principal, one.address, one.request,
                        one.action, one.object, one.outcome, one.details, one.hash,
                        coalesce(before.hash, (SELECT hash FROM audit_start))
                 FROM audit AS one LEFT JOIN audit AS before ON before.number = one.number - 1
                 WHERE one.number BETWEEN $1 AND $2 AND one.time_ms BETWEEN $3 AND $4
                 ORDER BY one.number DESC LIMIT $5",
        )
        .bind(numbers.0)
        .bind(numbers.1)
        .bind(times_ms.0)
        .bind(times_ms.1)
        .bind(i64::from(limit))
        .fetch_all(&self.database.readers)
        .await
        .map_err(failed("read the audit log"))?;
        let linked = |(n, t, a, b, c, d, e, f, g, h, previous_hash)| LinkedRecord {
            record: record((n, t, a, b, c, d, e, f, g, h)),
            previous_hash,
        };
        Ok(rows.into_iter().map(linked).collect())
    }

    /// Where the log begins and ends. What lies between is there unless it is cut meanwhile.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn audit_ends(&self) -> Result<ChainEnds, CatalogError> {
        let mut connection = self.database.readers.acquire().await.map_err(failed("connect"))?;
        let start = end(&mut connection, "audit_start", RowLock::None).await?;
        let head = end(&mut connection, "audit_head", RowLock::None).await?;
        Ok(ChainEnds { start, head })
    }

    /// Runs a statement as somebody would who has the database.
    #[cfg(test)]
    pub(crate) async fn tamper(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.database.writer).await.unwrap();
    }
}

/// Writes the records of the calls that a transaction carries out; to be called last before COMMIT,
/// as it holds up every other change.
pub(super) async fn write(
    tx: &mut AnyConnection,
    calls: &[&AuditedCall],
) -> Result<(), CatalogError> {
    if calls.iter().all(|call| call.is_written()) {
        return Ok(());
    }
    let mut head = end(tx, "audit_head", RowLock::Update).await?;
    let mut records: Vec<(&str, ChainRecord)> = Vec::with_capacity(calls.len());
    for call in calls.iter().filter(|call| !call.is_written()) {
        // A call may change several tables in one transaction.
        let is_again = records.iter().any(|(key, _)| *key == call.key());
        if is_again || call.set_tried() && is_there(tx, call.key()).await? {
            continue;
        }
        records.push((call.key(), head.append(call.entry(DONE))));
    }
    extend(tx, &records, &head).await
}

/// What tells of records that were deleted.
fn cut(first: i64, last: i64, hash: &str, now_ms: i64) -> AuditEntry {
    AuditEntry {
        time_ms: now_ms,
        principal: "retention".to_owned(),
        action: CUT.to_owned(),
        object: format!("{first} to {last}"),
        outcome: DONE.to_owned(),
        details: hash.to_owned(),
        ..AuditEntry::default()
    }
}

async fn end(
    connection: &mut AnyConnection,
    table: &'static str,
    lock: RowLock,
) -> Result<ChainHead, CatalogError> {
    let query = format!("SELECT number, hash FROM {table}{}", lock.clause(connection));
    let (number, hash): (i64, String) = sqlx::query_as(AssertSqlSafe(query))
        .fetch_one(connection)
        .await
        .map_err(failed("read the audit log's ends"))?;
    Ok(ChainHead { number, hash })
}

async fn set_end(
    tx: &mut AnyConnection,
    table: &'static str,
    end: &ChainHead,
) -> Result<(), CatalogError> {
    sqlx::query(AssertSqlSafe(format!("UPDATE {table} SET number = $1, hash = $2")))
        .bind(end.number)
        .bind(&end.hash)
        .execute(tx)
        .await
        .map(|_| ())
        .map_err(failed("extend the audit log"))
}

async fn is_there(tx: &mut AnyConnection, key: &str) -> Result<bool, CatalogError> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM audit WHERE written = $1")
        .bind(key)
        .fetch_one(tx)
        .await
        .map_err(failed("look for an audit record"))?;
    Ok(count != 0)
}

/// Adds records, each with its key, and moves the head to the last one.
async fn extend(
    tx: &mut AnyConnection,
    records: &[(&str, ChainRecord)],
    head: &ChainHead,
) -> Result<(), CatalogError> {
    let Some(count) = records.len().checked_mul(FIELDS).filter(|count| 0 < *count) else {
        return Ok(());
    };
    let row = |first: usize| {
        let fields: Vec<String> = (first..first + FIELDS).map(|n| format!("${n}")).collect();
        format!("({})", fields.join(", "))
    };
    let rows: Vec<String> = (1..=count).step_by(FIELDS).map(row).collect();
    let insert = format!("INSERT INTO audit VALUES {}", rows.join(", "));
    // Others wait for the head meanwhile, and each statement is a way there and back.
    let is_postgres = Dialect::of(tx) == Dialect::Postgres;
    let statement = match is_postgres {
        true => format!(
            "WITH added AS ({insert}) UPDATE audit_head SET number = ${}, hash = ${}",
            count + 1,
            count + 2
        ),
        false => insert,
    };
    // Of those with many rows each is another statement, and none is worth keeping.
    let mut query = sqlx::query(AssertSqlSafe(statement)).persistent(records.len() == 1);
    for (key, ChainRecord { number, entry, hash }) in records {
        query = query
            .bind(*number)
            .bind(*key)
            .bind(entry.time_ms)
            .bind(&entry.principal)
            .bind(&entry.address)
            .bind(&entry.request)
            .bind(&entry.action)
            .bind(&entry.object)
            .bind(&entry.outcome)
            .bind(&entry.details)
            .bind(hash);
    }
    if is_postgres {
        query = query.bind(head.number).bind(&head.hash);
    }
    query.execute(&mut *tx).await.map_err(failed("extend the audit log"))?;
    if is_postgres { Ok(()) } else { set_end(tx, "audit_head", head).await }
}

fn record(row: AuditRow) -> ChainRecord {
    let (number, time_ms, principal, address, request, action, object, outcome, details, hash) =
        row;
    let entry =
        AuditEntry { time_ms, principal, address, request, action, object, outcome, details };
    ChainRecord { number, entry, hash }
}

#[cfg(test)]
mod tests;
