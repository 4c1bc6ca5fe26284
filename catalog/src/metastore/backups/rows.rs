//! Every row of a metastore, read at one moment, in a metastore that has none yet: from PostgreSQL
//! to an SQLite file, which is what a backup has, and from such a file to PostgreSQL.
//!
//! Both sides have the tables of the same step of [`schema`]. Its one invariant: what was made is
//! committed as a whole, so a copy has all rows or is none.

use crate::error::CatalogError;
use crate::metastore::{Metastore, database::Dialect, failed, schema};
use futures::TryStreamExt;
use sqlx::{AnyConnection, AssertSqlSafe, Row, any::AnyRow};
use std::path::Path;

/// Most rows of one statement; the databases bound its parameters.
const ROWS_MAX: usize = 200;
/// About as many bytes of text as one statement may have.
const BYTES_MAX: usize = 1 << 20;
/// One moment of a PostgreSQL database.
const ONE_MOMENT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// A table of any size is one statement.
const NO_TIMEOUTS: &str =
    "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";
/// The foreign keys of all tables. Rows come in no order that keeps them at each statement.
const FOREIGN_KEYS: &str =
    "SELECT format('ALTER TABLE %s ALTER CONSTRAINT %I', conrelid::regclass, conname)
     FROM pg_constraint
     WHERE contype = 'f' AND connamespace = current_schema()::text::regnamespace";

/// A table of the metastore.
struct CopiedTable {
    name: String,
    columns: Vec<CopiedColumn>,
    /// The column that numbers its rows.
    numbered: Option<String>,
}

struct CopiedColumn {
    name: String,
    is_number: bool,
}

enum CopiedValue {
    Number(Option<i64>),
    Text(Option<String>),
}

/// Writes all of a PostgreSQL database, as it is at one moment, to a new SQLite file.
pub(super) async fn to_sqlite(from: &Metastore, file: &Path) -> Result<(), CatalogError> {
    let to = Metastore::sqlite(file).await?;
    let mut read = from.database.readers.begin_with(ONE_MOMENT).await.map_err(failed("begin"))?;
    run(&mut read, NO_TIMEOUTS).await?;
    let mut write = to.begin().await?;
    run(&mut write, "PRAGMA defer_foreign_keys = ON").await?;
    for table in tables(&mut write).await? {
        copy(&mut read, &mut write, &table).await?;
        let Some(column) = &table.numbered else { continue };
        let last = last_in_postgres(&mut read, &table.name, column).await?;
        sqlx::query("DELETE FROM sqlite_sequence WHERE name = $1")
            .bind(&table.name)
            .execute(&mut *write)
            .await
            .map_err(failed("copy the metastore"))?;
        sqlx::query("INSERT INTO sqlite_sequence VALUES ($1, $2)")
            .bind(&table.name)
            .bind(last)
            .execute(&mut *write)
            .await
            .map_err(failed("copy the metastore"))?;
    }
    write.commit().await.map_err(failed("copy the metastore"))?;
    to.close().await;
    Ok(())
}

/// Makes the tables of a PostgreSQL database that has none, with the rows of an SQLite file.
pub(super) async fn to_postgres(from: &Metastore, to: &Metastore) -> Result<(), CatalogError> {
    let mut read = from.database.readers.begin().await.map_err(failed("begin"))?;
    let tables = tables(&mut read).await?;
    let mut write = to.begin().await?;
    run(&mut write, NO_TIMEOUTS).await?;
    Dialect::Postgres.lock_layout(&mut write).await?;
    check_empty(&mut write).await?;
    schema::make(&mut write, Dialect::Postgres).await?;
    let keys: Vec<String> = sqlx::query_scalar(FOREIGN_KEYS)
        .fetch_all(&mut *write)
        .await
        .map_err(failed("read the tables"))?;
    for key in &keys {
        run(&mut write, &format!("{key} DEFERRABLE INITIALLY DEFERRED")).await?;
    }
    for table in &tables {
        copy(&mut read, &mut write, table).await?;
        let Some(column) = &table.numbered else { continue };
        let last: Option<i64> =
            sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = $1")
                .bind(&table.name)
                .fetch_optional(&mut *read)
                .await
                .map_err(failed("copy the metastore"))?;
        if let Some(last) = last.filter(|last| 0 < *last) {
            sqlx::query("SELECT setval(pg_get_serial_sequence($1, $2), $3)")
                .bind(&table.name)
                .bind(column)
                .bind(last)
                .execute(&mut *write)
                .await
                .map_err(failed("copy the metastore"))?;
        }
    }
    run(&mut write, "SET CONSTRAINTS ALL IMMEDIATE").await?;
    for key in &keys {
        run(&mut write, &format!("{key} NOT DEFERRABLE")).await?;
    }
    write.commit().await.map_err(failed("copy the metastore"))
}

/// Refuses a database that has tables of a metastore.
pub(super) async fn check_empty(tx: &mut AnyConnection) -> Result<(), CatalogError> {
    let found: Option<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relnamespace = current_schema()::text::regnamespace
             AND relkind IN ('r', 'p') AND relname IN ('layout', 'counters', 'namespaces')
         LIMIT 1",
    )
    .fetch_optional(tx)
    .await
    .map_err(failed("look at the database"))?;
    match found {
        None => Ok(()),
        Some(table) => Err(CatalogError::Invalid(format!(
            "the database has a metastore already (table `{table}`): create a new, empty database \
             with CREATE DATABASE, and set --metastore"
        ))),
    }
}

async fn run(connection: &mut AnyConnection, statement: &str) -> Result<(), CatalogError> {
    let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await;
    done.map(|_| ()).map_err(failed("copy the metastore"))
}

/// All tables by an SQLite file, but the one with the steps that made them, and those of the service,
/// whose rows belong to processes that run.
async fn tables(sqlite: &mut AnyConnection) -> Result<Vec<CopiedTable>, CatalogError> {
    let rows: Vec<(String, String, String, i64)> = sqlx::query_as(
        "SELECT made.name, had.name, had.type, made.sql LIKE '%AUTOINCREMENT%' AND had.pk = 1
         FROM sqlite_master AS made, pragma_table_info(made.name) AS had
         WHERE made.type = 'table' AND made.name NOT LIKE 'sqlite%' AND made.name <> 'layout'
             AND made.name NOT LIKE 'service#_%' ESCAPE '#'
         ORDER BY made.name, had.cid",
    )
    .fetch_all(sqlite)
    .await
    .map_err(failed("read the tables"))?;
    let mut tables: Vec<CopiedTable> = Vec::new();
    for (table, name, kind, is_numbered) in rows {
        if tables.last().is_none_or(|last| last.name != table) {
            tables.push(CopiedTable { name: table, columns: Vec::new(), numbered: None });
        }
        let Some(last) = tables.last_mut() else { continue };
        if is_numbered == 1 {
            last.numbered = Some(name.clone());
        }
        last.columns.push(CopiedColumn { name, is_number: kind == "INTEGER" });
    }
    Ok(tables)
}

/// Replaces the rows of a table.
async fn copy(
    from: &mut AnyConnection,
    to: &mut AnyConnection,
    table: &CopiedTable,
) -> Result<(), CatalogError> {
    let name = &table.name;
    // What making the tables put there.
    run(to, &format!("DELETE FROM \"{name}\"")).await?;
    let column = |column: &CopiedColumn| match column.is_number {
        true => format!("CAST(\"{}\" AS BIGINT)", column.name),
        false => format!("\"{}\"", column.name),
    };
    let columns: Vec<String> = table.columns.iter().map(column).collect();
    let select = format!("SELECT {} FROM \"{name}\"", columns.join(", "));
    let mut rows = sqlx::query(AssertSqlSafe(select)).fetch(from);
    let (mut values, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.try_next().await.map_err(failed("copy the metastore"))? {
        for (at, column) in table.columns.iter().enumerate() {
            let value = value(&row, at, column).map_err(failed("copy the metastore"))?;
            if let CopiedValue::Text(Some(text)) = &value {
                bytes += text.len();
            }
            values.push(value);
        }
        if ROWS_MAX * table.columns.len() <= values.len() || BYTES_MAX <= bytes {
            insert(to, table, std::mem::take(&mut values)).await?;
            bytes = 0;
        }
    }
    insert(to, table, values).await
}

fn value(row: &AnyRow, at: usize, column: &CopiedColumn) -> Result<CopiedValue, sqlx::Error> {
    Ok(match column.is_number {
        true => CopiedValue::Number(row.try_get(at)?),
        false => CopiedValue::Text(row.try_get(at)?),
    })
}

async fn insert(
    to: &mut AnyConnection,
    table: &CopiedTable,
    values: Vec<CopiedValue>,
) -> Result<(), CatalogError> {
    if values.is_empty() {
        return Ok(());
    }
    let names: Vec<String> =
        table.columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
    let width = names.len();
    let row = |row: usize| {
        let places: Vec<String> =
            (1..=width).map(|column| format!("${}", row * width + column)).collect();
        format!("({})", places.join(", "))
    };
    let rows: Vec<String> = (0..values.len() / width).map(row).collect();
    let statement =
        format!("INSERT INTO \"{}\" ({}) VALUES {}", table.name, names.join(", "), rows.join(", "));
    let mut query = sqlx::query(AssertSqlSafe(statement));
    for value in values {
        query = match value {
            CopiedValue::Number(number) => query.bind(number),
            CopiedValue::Text(text) => query.bind(text),
        };
    }
    query.execute(to).await.map(|_| ()).map_err(failed("copy the metastore"))
}

/// The last number that a column was given, whether its row is still there or not.
async fn last_in_postgres(
    tx: &mut AnyConnection,
    table: &str,
    column: &str,
) -> Result<i64, CatalogError> {
    let sequence: String = sqlx::query_scalar("SELECT pg_get_serial_sequence($1, $2)")
        .bind(table)
        .bind(column)
        .fetch_one(&mut *tx)
        .await
        .map_err(failed("read the tables"))?;
    let last = format!("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}");
    sqlx::query_scalar(AssertSqlSafe(last)).fetch_one(tx).await.map_err(failed("read the tables"))
}
