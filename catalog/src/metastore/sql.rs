//! The metastore in an SQL database: an SQLite file or PostgreSQL, with one set of statements.
//!
//! Its one invariant: what a transaction reads to decide cannot change before it writes. SQLite has
//! one writing connection and `BEGIN IMMEDIATE`; PostgreSQL locks the rows that are decided upon.
//! Either way a change is on the disk when its COMMIT returns.

pub mod access;
pub(crate) mod audit;
mod dialect;
mod namespaces;
mod places;
mod reports;
mod schema;
mod tables;
mod trash;

use crate::{
    error::CatalogError,
    location::Location,
    metastore::{
        Kind, Levels, LostCommit, Metastore, NewTable, Obsolete, PointerSwap, Properties, Report,
        SnapshotRow, SwapOutcome, TableRow, Trash, TrashRow, outcome_of_lost_commit,
    },
};
use async_trait::async_trait;
use dialect::{Dialect, Lock, TransactionId};
use sqlx::{Any, AnyPool, Transaction};
use std::path::Path;
use tracing::warn;
use uuid::Uuid;

/// Separates the levels of a namespace in its key.
const SEPARATOR: char = '\u{1f}';

/// A metastore in one database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SqlMetastore {
    dialect: Dialect,
    writer: AnyPool,
    readers: AnyPool,
}

impl SqlMetastore {
    /// Opens an SQLite file, which is made when missing (its folder is not).
    ///
    /// # Errors
    /// [`CatalogError::Metastore`]; [`CatalogError::Invalid`] when a newer program made the file.
    pub async fn sqlite(path: &Path) -> Result<Self, CatalogError> {
        let (writer, readers) = dialect::sqlite(path).await?;
        Self::open(Dialect::Sqlite, writer, readers).await
    }

    /// Opens the database of a `postgres://user:password@host:port/database` URL; its tables are
    /// made when missing. Several processes may use it at once.
    ///
    /// # Errors
    /// As [`SqlMetastore::sqlite`].
    pub async fn postgres(url: &str) -> Result<Self, CatalogError> {
        let pool = dialect::postgres(url).await?;
        Self::open(Dialect::Postgres, pool.clone(), pool).await
    }

    async fn open(
        dialect: Dialect,
        writer: AnyPool,
        readers: AnyPool,
    ) -> Result<Self, CatalogError> {
        let metastore = Self { dialect, writer, readers };
        schema::migrate(metastore.begin().await?, dialect).await?;
        Ok(metastore)
    }

    async fn begin(&self) -> Result<Transaction<'static, Any>, CatalogError> {
        self.writer.begin_with(self.dialect.begin()).await.map_err(failed("begin"))
    }

    /// What became of a commit whose COMMIT failed.
    async fn find_out(
        &self,
        cause: sqlx::Error,
        transaction: TransactionId,
        new: &[NewTable],
        swaps: &[PointerSwap],
    ) -> Result<SwapOutcome, CatalogError> {
        warn!(error = &cause as &dyn std::error::Error, "commit failed, reading back");
        let outcome = match transaction {
            TransactionId::None => self.compare(new, swaps).await,
            TransactionId::Postgres(id) => dialect::outcome(&self.readers, &id).await,
        };
        match outcome {
            Ok(LostCommit::Happened) => Ok(SwapOutcome::Done),
            Ok(LostCommit::DidNotHappen) => Err(failed("commit")(cause)),
            Ok(LostCommit::Unknown) | Err(_) => {
                Err(CatalogError::CommitStateUnknown(cause.to_string()))
            }
        }
    }

    /// The outcome as the tables show it; nobody else writes to an SQLite file meanwhile.
    async fn compare(
        &self,
        new: &[NewTable],
        swaps: &[PointerSwap],
    ) -> Result<LostCommit, CatalogError> {
        let uuids = new.iter().map(|table| table.uuid).chain(swaps.iter().map(|swap| swap.uuid));
        let mut found = Vec::new();
        for uuid in uuids {
            found.push(self.table_by_uuid(uuid).await?);
        }
        Ok(outcome_of_lost_commit(new, swaps, &found))
    }
}

#[async_trait]
impl Metastore for SqlMetastore {
    async fn create_namespace(
        &self,
        levels: &Levels,
        properties: &Properties,
    ) -> Result<(), CatalogError> {
        namespaces::check(levels)?;
        let mut tx = self.begin().await?;
        namespaces::create(&mut tx, levels, properties).await?;
        tx.commit().await.map_err(failed("create a namespace"))
    }

    async fn namespace(&self, levels: &Levels) -> Result<Option<Properties>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(failed("connect"))?;
        namespaces::get(&mut connection, levels, Lock::None).await
    }

    async fn namespaces(&self, parent: &Levels) -> Result<Vec<Levels>, CatalogError> {
        let mut tx = self.readers.begin().await.map_err(failed("begin"))?;
        if !parent.is_empty() {
            namespaces::require(&mut tx, parent, Lock::None).await?;
        }
        namespaces::list(&mut tx, parent).await
    }

    async fn update_namespace(
        &self,
        levels: &Levels,
        set: &Properties,
        remove: &[String],
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        namespaces::update(&mut tx, levels, set, remove).await?;
        tx.commit().await.map_err(failed("update a namespace"))
    }

    async fn drop_namespace(&self, levels: &Levels) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        namespaces::drop(&mut tx, levels).await?;
        tx.commit().await.map_err(failed("drop a namespace"))
    }

    async fn table(&self, levels: &Levels, name: &str) -> Result<Option<TableRow>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(failed("connect"))?;
        tables::by_name(&mut connection, Kind::Table, (levels, name), Lock::None).await
    }

    async fn tables(&self, levels: &Levels) -> Result<Vec<String>, CatalogError> {
        let mut tx = self.readers.begin().await.map_err(failed("begin"))?;
        namespaces::require(&mut tx, levels, Lock::None).await?;
        tables::list(&mut tx, Kind::Table, levels).await
    }

    async fn drop_table(&self, levels: &Levels, name: &str) -> Result<TableRow, CatalogError> {
        let mut tx = self.begin().await?;
        let row = tables::drop(&mut tx, Kind::Table, (levels, name)).await?;
        tx.commit().await.map_err(failed("drop a table"))?;
        Ok(row)
    }

    async fn trash_table(
        &self,
        levels: &Levels,
        name: &str,
        trash: &Trash,
    ) -> Result<TableRow, CatalogError> {
        let mut tx = self.begin().await?;
        trash::add(&mut tx, (levels, name), trash).await?;
        let row = tables::drop(&mut tx, Kind::Table, (levels, name)).await?;
        tx.commit().await.map_err(failed("drop a table"))?;
        Ok(row)
    }

    async fn trash(&self, limit: u32) -> Result<Vec<TrashRow>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(failed("connect"))?;
        trash::list(&mut connection, limit).await
    }

    async fn dropped(&self, uuid: Uuid) -> Result<Option<TrashRow>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(failed("connect"))?;
        trash::get(&mut connection, uuid, Lock::None).await
    }

    async fn undrop(&self, table: &NewTable) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        places::lock(&mut tx).await?;
        trash::require(&mut tx, table.uuid).await?;
        tables::create(&mut tx, table).await?;
        tx.commit().await.map_err(failed("undrop a table"))
    }

    async fn change_trash(&self, uuid: Uuid, trash: &Trash) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        trash::change(&mut tx, uuid, trash).await?;
        tx.commit().await.map_err(failed("change the trash"))
    }

    async fn expire_trash(&self, now_ms: i64, limit: u32) -> Result<Vec<TrashRow>, CatalogError> {
        let mut tx = self.begin().await?;
        let expired = trash::expire(&mut tx, now_ms, limit).await?;
        tx.commit().await.map_err(failed("empty the trash"))?;
        Ok(expired)
    }

    async fn forget_trash(&self, uuid: Uuid) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        trash::forget(&mut tx, uuid).await?;
        tx.commit().await.map_err(failed("empty the trash"))
    }

    async fn protect_table(
        &self,
        levels: &Levels,
        name: &str,
        is_protected: bool,
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        trash::protect(&mut tx, levels, name, is_protected).await?;
        tx.commit().await.map_err(failed("protect a table"))
    }

    async fn is_protected(&self, uuid: Uuid) -> Result<bool, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(failed("connect"))?;
        trash::is_protected(&mut connection, uuid).await
    }

    async fn replace_table(&self, old: Uuid, new: NewTable) -> Result<SwapOutcome, CatalogError> {
        let name = (&new.levels, new.name.as_str());
        let mut tx = self.begin().await?;
        places::lock(&mut tx).await?;
        let found = tables::by_name(&mut tx, Kind::Table, name, Lock::Update).await?;
        if found.is_none_or(|found| found.uuid != old) {
            return Ok(SwapOutcome::Lost(old));
        }
        tables::drop(&mut tx, Kind::Table, name).await?;
        tables::create(&mut tx, &new).await?;
        let transaction = dialect::transaction_id(&mut tx).await?;
        match tx.commit().await {
            Ok(()) => Ok(SwapOutcome::Done),
            Err(cause) => self.find_out(cause, transaction, &[new], &[]).await,
        }
    }

    async fn rename_table(
        &self,
        from: (&Levels, &str),
        to: (&Levels, &str),
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        tables::rename(&mut tx, Kind::Table, from, to).await?;
        tx.commit().await.map_err(failed("rename a table"))
    }

    async fn view(&self, levels: &Levels, name: &str) -> Result<Option<TableRow>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(failed("connect"))?;
        tables::by_name(&mut connection, Kind::View, (levels, name), Lock::None).await
    }

    async fn views(&self, levels: &Levels) -> Result<Vec<String>, CatalogError> {
        let mut tx = self.readers.begin().await.map_err(failed("begin"))?;
        namespaces::require(&mut tx, levels, Lock::None).await?;
        tables::list(&mut tx, Kind::View, levels).await
    }

    async fn drop_view(&self, levels: &Levels, name: &str) -> Result<TableRow, CatalogError> {
        let mut tx = self.begin().await?;
        let row = tables::drop(&mut tx, Kind::View, (levels, name)).await?;
        tx.commit().await.map_err(failed("drop a view"))?;
        Ok(row)
    }

    async fn rename_view(
        &self,
        from: (&Levels, &str),
        to: (&Levels, &str),
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        tables::rename(&mut tx, Kind::View, from, to).await?;
        tx.commit().await.map_err(failed("rename a view"))
    }

    async fn is_free(&self, location: &Location) -> Result<bool, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(failed("connect"))?;
        Ok(places::overlapping(&mut connection, None, location).await? == 0)
    }

    async fn commit_with_new(
        &self,
        new: &[NewTable],
        swaps: &[PointerSwap],
    ) -> Result<SwapOutcome, CatalogError> {
        // Everybody locks tables in the same order, so nobody waits in a circle.
        let mut ordered: Vec<&PointerSwap> = swaps.iter().collect();
        ordered.sort_by_key(|swap| swap.uuid);
        let mut tx = self.begin().await?;
        if !new.is_empty() || swaps.iter().any(|swap| swap.moved_to.is_some()) {
            places::lock(&mut tx).await?;
        }
        for table in new {
            tables::create(&mut tx, table).await?;
        }
        for swap in ordered {
            match tables::swap(&mut tx, swap).await? {
                SwapOutcome::Done => (),
                // Dropping the transaction rolls it back.
                undone @ (SwapOutcome::Lost(_) | SwapOutcome::Deposed(_)) => return Ok(undone),
            }
        }
        let transaction = dialect::transaction_id(&mut tx).await?;
        match tx.commit().await {
            Ok(()) => Ok(SwapOutcome::Done),
            Err(cause) => self.find_out(cause, transaction, new, swaps).await,
        }
    }

    async fn table_by_uuid(&self, uuid: Uuid) -> Result<Option<TableRow>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(failed("connect"))?;
        tables::by_uuid(&mut connection, uuid, Lock::None).await
    }

    async fn highest_position(&self) -> Result<u64, CatalogError> {
        let position: i64 = sqlx::query_scalar(
            "SELECT coalesce(max(position), 0) FROM
                 (SELECT position FROM tables UNION ALL SELECT position FROM dropped) AS seen",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(failed("read the highest position"))?;
        Ok(position.cast_unsigned())
    }

    async fn next_epoch(&self) -> Result<u64, CatalogError> {
        let epoch: i64 = sqlx::query_scalar(
            "UPDATE counters SET value = value + 1 WHERE name = 'epoch' RETURNING value",
        )
        .fetch_one(&self.writer)
        .await
        .map_err(failed("take an epoch"))?;
        Ok(epoch.cast_unsigned())
    }

    async fn snapshots(&self, uuid: Uuid) -> Result<Vec<SnapshotRow>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(failed("connect"))?;
        tables::snapshots(&mut connection, uuid).await
    }

    async fn add_report(&self, uuid: Uuid, report: &Report, keep: u32) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        reports::add(&mut tx, uuid, report, keep).await?;
        tx.commit().await.map_err(failed("add a report"))
    }

    async fn reports(&self, uuid: Uuid) -> Result<Vec<Report>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(failed("connect"))?;
        reports::list(&mut connection, uuid).await
    }

    async fn add_obsolete(&self, files: &[Obsolete]) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        tables::add_obsolete(&mut tx, files).await?;
        tx.commit().await.map_err(failed("queue files for deletion"))
    }

    async fn obsolete(&self, now_ms: i64, limit: u32) -> Result<Vec<String>, CatalogError> {
        sqlx::query_scalar(
            "SELECT location FROM obsolete WHERE not_before_ms <= $1
             ORDER BY not_before_ms, location LIMIT $2",
        )
        .bind(now_ms)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await
        .map_err(failed("read the deletion queue"))
    }

    async fn forget_obsolete(&self, locations: &[String]) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        for location in locations {
            sqlx::query("DELETE FROM obsolete WHERE location = $1")
                .bind(location)
                .execute(&mut *tx)
                .await
                .map_err(failed("shorten the deletion queue"))?;
        }
        tx.commit().await.map_err(failed("shorten the deletion queue"))
    }
}

fn failed(operation: &'static str) -> impl FnOnce(sqlx::Error) -> CatalogError {
    move |source| CatalogError::Metastore { operation, source }
}

/// A namespace's key.
fn path(levels: &Levels) -> String {
    levels.join(SEPARATOR.encode_utf8(&mut [0; 4]))
}

/// The databases' integers are signed.
fn stored(number: u64) -> Result<i64, CatalogError> {
    i64::try_from(number).map_err(|_| CatalogError::Invalid(format!("{number} is out of range")))
}

#[cfg(test)]
pub(crate) mod tests;
