//! A database, and what differs between SQLite and PostgreSQL: how to connect, begin, lock, make
//! tables, and ask how a commit ended.
//!
//! The metastore is in it, and the service that the catalog is part of may have tables of its own
//! there, in a [`DatabaseLayout`] of their own.

use super::{Metastore, failed};
use crate::{
    error::CatalogError,
    metastore::{
        file::{DatabaseFile, MissingDatabase},
        transaction::LostCommit,
    },
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sqlx::{
    Any, AnyConnection, AnyPool, AssertSqlSafe, Connection, Transaction,
    any::{AnyConnectOptions, AnyPoolOptions},
};
use std::{
    fs::OpenOptions, io, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc, time::Duration,
};

/// Connections that read an SQLite file; a look-up takes well below a millisecond.
const SQLITE_READERS: u32 = 4;
/// Connections to PostgreSQL, for reading and writing.
const POSTGRES_CONNECTIONS: u32 = 8;
/// Longest wait for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// The connection that writes to an SQLite file. It waits at most ten seconds for another process
/// (a backup, a shell) that holds the file. Its journal is moved to the file every 64 pages, see
/// [`Metastore::SQLITE_START_BYTES`].
const SQLITE_WRITER: &str = "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; \
                             PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
                             PRAGMA wal_autocheckpoint = 64";
/// Errors of SQLite that are about the file, see <https://www.sqlite.org/rescode.html>.
const SQLITE_READONLY: u32 = 8;
const SQLITE_CORRUPT: u32 = 11;
const SQLITE_CANTOPEN: u32 = 14;
const SQLITE_NOTADB: u32 = 26;
/// A file of more bytes is not read through when it is opened: that would take seconds.
const SQLITE_CHECKED_BYTES_MAX: u64 = 256 << 20;
/// Connections that read one.
const SQLITE_READER: &str = "PRAGMA busy_timeout = 10000; PRAGMA query_only = ON";
/// Every connection to PostgreSQL: a commit is durable, and no statement waits for ever.
const POSTGRES_SETTINGS: &str = "SET synchronous_commit = on; SET lock_timeout = '10s'; \
                                 SET statement_timeout = '30s'; \
                                 SET idle_in_transaction_session_timeout = '30s'";
/// How often a commit that PostgreSQL still works on is asked for.
const OUTCOME_ASKS: u32 = 50;
/// Time between two of them.
const OUTCOME_PAUSE: Duration = Duration::from_millis(100);
/// Only the first process that opens a database makes its tables.
const POSTGRES_LOCK: &str = "SELECT pg_advisory_xact_lock(5283040761123)";
/// What a path needs escaped in a URL.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

impl Metastore {
    /// Most bytes that opening an SQLite file and one small change take of its disk: the file grows
    /// by what its journal has (64 pages of 4 KiB; twice as much where that failed once for want of
    /// room), and the journal and its index by some pages.
    pub const SQLITE_START_BYTES: usize = (512 << 10) + (256 << 10);
}

/// One database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    pub(super) dialect: Dialect,
    pub(super) writer: AnyPool,
    pub(super) readers: AnyPool,
    /// Of SQLite.
    file: Option<Arc<DatabaseFile>>,
}

/// Tables, made and changed in steps that each run once.
///
/// A step never changes after a release: what has to change comes as a step of its own at the end.
#[derive(Clone, Copy, Debug)]
pub struct DatabaseLayout {
    /// The table that has a row for each step that was made.
    pub table: &'static str,
    /// The steps in order, as PostgreSQL reads them.
    pub steps: &'static [&'static str],
}

impl Database {
    /// Opens an SQLite file, which is made when missing (its folder is not).
    pub(super) async fn sqlite(path: &Path) -> Result<Self, CatalogError> {
        let (writer, readers, file) = open_sqlite(path).await.map_err(name_file(path))?;
        Ok(Self { dialect: Dialect::Sqlite, writer, readers, file: Some(file) })
    }

    /// Opens a PostgreSQL database.
    pub(super) async fn postgres(url: &str) -> Result<Self, CatalogError> {
        let pool = open_postgres(url).await?;
        let (dialect, writer) = (Dialect::Postgres, pool.clone());
        Ok(Self { dialect, writer, readers: pool, file: None })
    }

    /// Where a statement is run that changes something and needs no transaction.
    #[must_use]
    pub fn writer(&self) -> &AnyPool {
        &self.writer
    }

    /// Where a statement is run that only reads.
    #[must_use]
    pub fn readers(&self) -> &AnyPool {
        &self.readers
    }

    /// Whether an SQLite file is still the one that was opened. Blocks for a look at its folder.
    ///
    /// # Errors
    /// [`MissingDatabase`]; then no transaction begins that writes.
    pub fn look(&self) -> Result<(), MissingDatabase> {
        self.file.as_ref().map_or(Ok(()), |file| file.check())
    }

    /// Begins a transaction that writes.
    ///
    /// # Errors
    /// The database's, and of an SQLite file that is gone.
    pub async fn begin(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.look().map_err(|missing| sqlx::Error::Io(io::Error::other(missing)))?;
        self.dialect.begin(&self.writer).await
    }

    /// Brings tables to the last step of their layout, in one transaction.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`]; [`CatalogError::Invalid`] of tables of a newer program.
    pub async fn make(&self, layout: &DatabaseLayout) -> Result<(), CatalogError> {
        let mut tx = self.begin().await.map_err(failed("begin"))?;
        self.dialect.lock_layout(&mut tx).await?;
        self.dialect.make(&mut tx, layout).await?;
        tx.commit().await.map_err(failed("make tables"))
    }
}

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// Begins a transaction that writes.
    async fn begin(self, pool: &AnyPool) -> Result<Transaction<'static, Any>, sqlx::Error> {
        let begin = match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
        };
        match pool.begin_with(begin).await {
            // On a full disk SQLite ends a transaction at any statement, and its connection is
            // still counted as being in one.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                pool.acquire().await?.close().await?;
                pool.begin_with(begin).await
            }
            begun => begun,
        }
    }

    /// Keeps everybody else from making tables until the transaction ends.
    pub(super) async fn lock_layout(self, tx: &mut AnyConnection) -> Result<(), CatalogError> {
        if self == Self::Sqlite {
            return Ok(());
        }
        let locked = sqlx::raw_sql(POSTGRES_LOCK).execute(tx).await;
        locked.map(|_| ()).map_err(failed("wait for others who make tables"))
    }

    /// Brings tables to the last step of their layout, in the caller's transaction.
    pub(super) async fn make(
        self,
        tx: &mut AnyConnection,
        DatabaseLayout { table, steps }: &DatabaseLayout,
    ) -> Result<(), CatalogError> {
        let made =
            format!("CREATE TABLE IF NOT EXISTS {table} (step INTEGER NOT NULL PRIMARY KEY)");
        let made = sqlx::raw_sql(AssertSqlSafe(made)).execute(&mut *tx).await;
        made.map_err(failed("make tables"))?;
        let done: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
            .fetch_one(&mut *tx)
            .await
            .map_err(failed("read the layout"))?;
        let known = steps.len();
        let done = usize::try_from(done).unwrap_or(usize::MAX);
        if done > known {
            return Err(CatalogError::Invalid(format!(
                "the metastore has {table} {done}, but this program supports {known}: use a newer program"
            )));
        }
        for (step, statements) in steps.iter().enumerate().skip(done) {
            let statements = self.adapted(statements);
            let made = sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut *tx).await;
            made.map_err(failed("make tables"))?;
            sqlx::query(AssertSqlSafe(format!("INSERT INTO {table} VALUES ($1)")))
                .bind(i32::try_from(step + 1).unwrap_or(i32::MAX))
                .execute(&mut *tx)
                .await
                .map_err(failed("make tables"))?;
        }
        Ok(())
    }

    /// SQLite checks types only in tables that are STRICT, and those know no other integers. It
    /// orders text by its bytes without being told.
    pub(super) fn adapted(self, statements: &str) -> String {
        match self {
            Self::Postgres => statements.to_owned(),
            Self::Sqlite => statements
                .replace("BIGSERIAL", "INTEGER PRIMARY KEY AUTOINCREMENT")
                .replace("BIGINT", "INTEGER")
                .replace(" COLLATE \"C\"", "")
                .replace("\n);", "\n) STRICT;"),
        }
    }

    pub(super) fn of(connection: &AnyConnection) -> Self {
        if connection.backend_name() == "SQLite" { Self::Sqlite } else { Self::Postgres }
    }
}

/// What a transaction does with a row it reads.
#[derive(Clone, Copy, Debug)]
pub enum RowLock {
    /// Nothing.
    None,
    /// Keeps it from changing.
    Share,
    /// Is going to change it.
    Update,
}

impl RowLock {
    /// The end of a SELECT. SQLite needs none: its writers come one after the other.
    #[must_use]
    pub fn clause(self, connection: &AnyConnection) -> &'static str {
        match (Dialect::of(connection), self) {
            (Dialect::Sqlite, _) | (_, Self::None) => "",
            (Dialect::Postgres, Self::Share) => " FOR SHARE",
            (Dialect::Postgres, Self::Update) => " FOR UPDATE",
        }
    }
}

/// What a database that outlives this connection calls a transaction.
#[derive(Debug)]
pub(super) enum TransactionId {
    /// SQLite is in this process: what it shows after a failed COMMIT is final.
    None,
    /// PostgreSQL may still be busy with a COMMIT whose connection is gone.
    Postgres(String),
}

/// The connection that writes, those that read, and the file that they are of.
async fn open_sqlite(path: &Path) -> Result<(AnyPool, AnyPool, Arc<DatabaseFile>), CatalogError> {
    let text = path.to_str().ok_or_else(|| {
        CatalogError::Invalid(format!("metastore `{}` is not a UTF-8 path", path.display()))
    })?;
    make_private(path).map_err(|cause| {
        CatalogError::Invalid(format!("open the metastore file `{}`: {cause}", path.display()))
    })?;
    // The file is there: no connection makes another one, should it go.
    let options = options(&format!("sqlite:{}?mode=rw", utf8_percent_encode(text, PATH)))?;
    // A pool tries again and again, and then says no more than that its time is over.
    let mut tried = AnyConnection::connect_with(&options).await.map_err(failed("open"))?;
    check_sound(&mut tried, path).await?;
    // Not before: an overlay of folders gives a file another inode when it is first opened to be written.
    let file = DatabaseFile::of(path).map_err(|cause| not_open(path, &cause.to_string()))?;
    let file = Arc::new(file);
    let writer = pool(1, SQLITE_WRITER, Some(&file)).connect_with(options.clone()).await;
    let readers = pool(SQLITE_READERS, SQLITE_READER, Some(&file)).connect_lazy_with(options);
    // Closed only now: whoever closes a file last moves its journal.
    drop(tried.close().await);
    Ok((writer.map_err(failed("open"))?, readers, file))
}

/// Reads the file through, unless it is large: what is damaged is said now and not in the middle of
/// a commit.
async fn check_sound(tried: &mut AnyConnection, path: &Path) -> Result<(), CatalogError> {
    sqlx::raw_sql(SQLITE_WRITER).execute(&mut *tried).await.map_err(failed("open"))?;
    let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
    if SQLITE_CHECKED_BYTES_MAX < bytes {
        return Ok(());
    }
    let found: Option<String> = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_optional(tried)
        .await
        .map_err(failed("open"))?;
    match found {
        Some(found) if found != "ok" => Err(damaged(path, &found)),
        _ => Ok(()),
    }
}

/// Names the file where an error says that it may not be opened, or is no sound database.
pub(super) fn name_file(path: &Path) -> impl FnOnce(CatalogError) -> CatalogError {
    move |cause| {
        let CatalogError::Metastore { source: sqlx::Error::Database(found), .. } = &cause else {
            return cause;
        };
        let code = found.code().and_then(|code| code.parse::<u32>().ok());
        // What SQLite adds to a code is above its low byte.
        match code.map(|code| code & 0xff) {
            Some(SQLITE_CORRUPT | SQLITE_NOTADB) => damaged(path, found.message()),
            Some(SQLITE_READONLY | SQLITE_CANTOPEN) => not_open(path, found.message()),
            _ => cause,
        }
    }
}

fn not_open(path: &Path, found: &str) -> CatalogError {
    CatalogError::Invalid(format!(
        "cannot open the metastore file `{}` ({found}): this user must be able to read and write \
         it and its folder",
        path.display()
    ))
}

fn damaged(path: &Path, found: &str) -> CatalogError {
    let path = path.display();
    CatalogError::Invalid(format!(
        "the metastore file `{path}` is damaged ({found}): keep it and the files beside it, \
         restore a copy in its place (without the `-wal` and `-shm` files of the damaged one), and \
         start again; the server then reports what the copy lacks"
    ))
}

/// Makes the file when it is missing, for its owner alone: it has hashes of tokens and the audit
/// log. SQLite gives the files beside it the same rights.
fn make_private(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => Err(cause),
        _ => Ok(()),
    }
}

async fn open_postgres(url: &str) -> Result<AnyPool, CatalogError> {
    let options = options(url)?;
    // A pool tries again and again, and then says no more than that its time is over.
    let tried = AnyConnection::connect_with(&options);
    match tokio::time::timeout(ACQUIRE_TIMEOUT, tried).await {
        // It was opened only to see whether the database answers.
        Ok(Ok(connection)) => drop(connection.close().await),
        Ok(Err(cause)) => return Err(unreachable(&options, &cause.to_string())),
        Err(_) => return Err(unreachable(&options, "it does not answer")),
    }
    let pool = pool(POSTGRES_CONNECTIONS, POSTGRES_SETTINGS, None).connect_with(options).await;
    pool.map_err(failed("open"))
}

/// Names the server, never the password that the URL may have.
fn unreachable(options: &AnyConnectOptions, cause: &str) -> CatalogError {
    let url = &options.database_url;
    let host = url.host_str().unwrap_or("the local socket");
    let port = url.port().unwrap_or(5432);
    // The server adds the line of its own source.
    let cause = match cause.rsplit_once(" at line ") {
        Some((text, line)) if line.bytes().all(|byte| byte.is_ascii_digit()) => text,
        _ => cause,
    };
    CatalogError::Invalid(format!("cannot connect to PostgreSQL at {host}:{port}: {cause}"))
}

fn options(url: &str) -> Result<AnyConnectOptions, CatalogError> {
    sqlx::any::install_default_drivers();
    url.parse().map_err(failed("open"))
}

/// Connections come and go: none is used that opened another file than `file`.
fn pool(
    connections: u32,
    settings: &'static str,
    file: Option<&Arc<DatabaseFile>>,
) -> AnyPoolOptions {
    let file = file.cloned();
    AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| {
            // Before the first statement: it would write to an empty file, and remove the journal of the
            // one that was there.
            let looked = file.as_ref().map_or(Ok(()), |file| file.check());
            Box::pin(async move {
                looked.map_err(|missing| sqlx::Error::Io(io::Error::other(missing)))?;
                sqlx::raw_sql(settings).execute(connection).await.map(|_| ())
            })
        })
}

/// To be asked for before COMMIT.
pub(super) async fn transaction_id(tx: &mut AnyConnection) -> Result<TransactionId, CatalogError> {
    match Dialect::of(tx) {
        Dialect::Sqlite => Ok(TransactionId::None),
        Dialect::Postgres => sqlx::query_scalar("SELECT pg_current_xact_id()::text")
            .fetch_one(tx)
            .await
            .map(TransactionId::Postgres)
            .map_err(failed("begin")),
    }
}

/// How a transaction ended whose connection was lost during COMMIT.
pub(super) async fn outcome(pool: &AnyPool, id: &str) -> Result<LostCommit, CatalogError> {
    for _ in 0..OUTCOME_ASKS {
        let status: Option<String> = sqlx::query_scalar("SELECT pg_xact_status($1::text::xid8)")
            .bind(id)
            .fetch_one(pool)
            .await
            .map_err(failed("find out how a commit ended"))?;
        match status.as_deref() {
            Some("committed") => return Ok(LostCommit::Happened),
            Some("aborted") => return Ok(LostCommit::DidNotHappen),
            Some(_) => tokio::time::sleep(OUTCOME_PAUSE).await,
            // So long ago that the database forgot.
            None => break,
        }
    }
    Ok(LostCommit::Unknown)
}
