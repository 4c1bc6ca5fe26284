//! Where the catalog's small, transactional state is: names, table pointers, watermarks. It is in an
//! SQL database, an SQLite file or PostgreSQL, with one set of statements.
//!
//! Each file here has the calls of [`Metastore`] on one kind of rows; each call is one transaction. A
//! commit is one as well: each pointer is swapped only if its version is still the one the commit was
//! built on, and the watermark, the snapshot index and the queue of files to delete change with it or
//! not at all.
//!
//! Its one invariant: what a transaction reads to decide cannot change before it writes. SQLite has
//! one writer, PostgreSQL locks those rows. A change is on the disk when its COMMIT returns.

pub mod access;
pub mod audit;
pub mod backups;
mod changes;
pub mod database;
pub mod fence;
mod file;
mod group_commit;
pub mod holds;
mod leases;
pub mod moved;
mod namespaces;
mod new_table;
mod obsolete;
mod origin;
pub(crate) mod orphans;
mod outbox;
mod places;
mod rebuild;
mod reports;
mod requests;
mod row_accounts;
mod schema;
mod snapshots;
#[cfg(test)]
pub(crate) mod suite;
mod tables;
mod transaction;
mod trash;
mod views;
mod writer_loads;

pub use crate::{
    commit::SnapshotRow,
    names::{Levels, ObjectKey},
};
pub use changes::{CHANGES_BYTES_MAX, ChangeSet};
pub use file::MissingDatabase;
pub use group_commit::{CommitPart, PointerSwap, SwapOutcome};
pub use leases::SnapshotLease;
pub use namespaces::{NamespaceMarks, Properties};
pub use new_table::{NameKind, NewTable, TableOrigin};
pub use obsolete::ObsoleteFile;
pub use origin::{ANONYMOUS, ChangeOrigin, RecordedAnswer, RequestKey};
pub use outbox::{ChangeEvent, ChangeFeed, FeedRetention};
pub use rebuild::{CatalogNames, ListedName, MetastoreContents, NameState, ReturningTable};
pub use reports::MetricsReport;
pub use requests::{AnsweredRequest, AnsweredTable};
pub use row_accounts::{RowAccount, RowCheckpoint};
pub use tables::{TableRow, Watermark};
pub use trash::{DropTerms, TrashRow};
pub use writer_loads::{WriterLoad, WriterLoads};

use crate::error::CatalogError;
use database::Database;
use group_commit::CommitGroup;
use sqlx::{Any, Transaction, pool::PoolConnection};
use std::{path::Path, sync::Arc};

/// Separates the levels of a namespace in its key.
pub(crate) const SEPARATOR: &str = "\u{1f}";

/// The transactional store, in one database. Cheap to clone.
///
/// Every call fails with [`CatalogError::Metastore`] when the database does, and then nothing
/// has changed; a change whose COMMIT got no answer, and that cannot be looked up either, fails
/// with [`CatalogError::CommitStateUnknown`]. A change under an `Idempotency-Key` that was carried
/// out before changes nothing and fails with [`CatalogError::Repeated`].
#[derive(Clone, Debug)]
pub struct Metastore {
    database: Database,
    /// Whom changes are made for.
    origin: ChangeOrigin,
    group: CommitGroup,
    #[cfg(test)]
    pub(crate) faults: faults::CommitFaults,
}

/// A part of a list of names, in their order by bytes.
#[derive(Clone, Copy, Debug)]
pub struct NamePage<'a> {
    /// Only names greater than this; every name is greater than the empty one.
    pub after: &'a str,
    /// At most so many.
    pub limit: usize,
}

impl NamePage<'_> {
    /// The whole list.
    pub const ALL: Self = Self { after: "", limit: usize::MAX };
}

impl Metastore {
    /// Opens an SQLite file, which is made when missing (its folder is not).
    ///
    /// # Errors
    /// [`CatalogError::Metastore`]; [`CatalogError::Invalid`] of a newer program's or a damaged file.
    pub async fn sqlite(path: &Path) -> Result<Self, CatalogError> {
        let opened = Self::on(Database::sqlite(path).await?).made().await;
        opened.map_err(database::name_file(path))
    }

    /// Opens the database of a `postgres://user:password@host:port/database` URL; its tables are
    /// made when missing. Several processes may use it at once.
    ///
    /// # Errors
    /// As [`Metastore::sqlite`].
    pub async fn postgres(url: &str) -> Result<Self, CatalogError> {
        Self::on(Database::postgres(url).await?).made().await
    }

    /// A metastore without its tables.
    fn on(database: Database) -> Self {
        Self {
            database,
            // The time is the catalog's to give.
            origin: ChangeOrigin::anonymous(Arc::new(|| 0)),
            group: CommitGroup::default(),
            #[cfg(test)]
            faults: faults::CommitFaults::default(),
        }
    }

    /// The database that it is in, for tables of others beside its own.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Whether what was committed before is in the file that has the metastore's name. Blocks for a look at
    /// its folder; a PostgreSQL database has none.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`] with [`MissingDatabase`].
    pub fn check_file(&self) -> Result<(), CatalogError> {
        let looked = self.database.look();
        let failed = failed("look at the file");
        looked.map_err(|missing| failed(sqlx::Error::Io(std::io::Error::other(missing))))
    }

    /// The same store, for changes of this origin.
    #[must_use]
    pub(crate) fn on_behalf_of(&self, origin: ChangeOrigin) -> Self {
        Self { origin, ..self.clone() }
    }

    async fn reader(&self) -> Result<PoolConnection<Any>, CatalogError> {
        self.database.readers.acquire().await.map_err(failed("connect"))
    }

    async fn begin(&self) -> Result<Transaction<'static, Any>, CatalogError> {
        self.database.begin().await.map_err(failed("begin"))
    }
}

fn failed(operation: &'static str) -> impl FnOnce(sqlx::Error) -> CatalogError {
    move |source| CatalogError::Metastore { operation, source }
}

/// A namespace's key.
fn path(levels: &Levels) -> String {
    levels.join(SEPARATOR)
}

/// How many rows a query gives.
fn limit(page: NamePage<'_>) -> i64 {
    i64::try_from(page.limit).unwrap_or(i64::MAX)
}

/// The databases' integers are signed.
fn stored(number: u64) -> Result<i64, CatalogError> {
    i64::try_from(number).map_err(|_| CatalogError::Invalid(format!("{number} is out of range")))
}

#[cfg(test)]
pub(crate) mod faults;
#[cfg(test)]
pub(crate) mod tests;
