//! The metastore in an SQL database: an SQLite file or PostgreSQL, with one set of statements.
//!
//! Its one invariant: what a transaction reads to decide cannot change before it writes. SQLite has
//! one writer, PostgreSQL locks those rows. A change is on the disk when its COMMIT returns.

pub mod access;
pub mod audit;
pub mod backups;
mod dialect;
mod group;
pub mod moved;
mod namespaces;
mod obsolete;
mod outbox;
pub mod owner;
mod places;
mod reports;
mod requests;
mod schema;
mod tables;
mod transaction;
mod trash;

use crate::{
    error::CatalogError,
    location::Location,
    metastore::{
        DoneRequest, Event, Feed, Kind, Levels, Metastore, NamespaceMarks, NewTable, Obsolete,
        Origin, Page, PointerSwap, Properties, Remembered, Report, RequestKey, SnapshotRow,
        SwapOutcome, TableRow, Trash, TrashRow,
    },
    names,
};
use async_trait::async_trait;
use dialect::{Dialect, Lock};
use group::Group;
use outbox::Told;
use serde_json::json;
use sqlx::{Any, AnyPool, Transaction, pool::PoolConnection};
use std::{path::Path, sync::Arc};
use uuid::Uuid;

/// Separates the levels of a namespace in its key.
const SEPARATOR: char = '\u{1f}';

/// A metastore in one database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SqlMetastore {
    dialect: Dialect,
    writer: AnyPool,
    readers: AnyPool,
    /// Whom changes are made for.
    origin: Origin,
    group: Group,
    #[cfg(test)]
    pub(crate) faults: faults::Faults,
}

impl SqlMetastore {
    /// Opens an SQLite file, which is made when missing (its folder is not).
    ///
    /// # Errors
    /// [`CatalogError::Metastore`]; [`CatalogError::Invalid`] of a newer program's or a damaged file.
    pub async fn sqlite(path: &Path) -> Result<Self, CatalogError> {
        let (writer, readers) = dialect::sqlite(path).await?;
        let opened = Self::unmade(Dialect::Sqlite, writer, readers).made().await;
        opened.map_err(dialect::name_damaged(path))
    }

    /// Opens the database of a `postgres://user:password@host:port/database` URL; its tables are
    /// made when missing. Several processes may use it at once.
    ///
    /// # Errors
    /// As [`SqlMetastore::sqlite`].
    pub async fn postgres(url: &str) -> Result<Self, CatalogError> {
        Self::unmade_postgres(url).await?.made().await
    }

    async fn reader(&self) -> Result<PoolConnection<Any>, CatalogError> {
        self.readers.acquire().await.map_err(failed("connect"))
    }

    async fn begin(&self) -> Result<Transaction<'static, Any>, CatalogError> {
        self.dialect.begin(&self.writer).await.map_err(failed("begin"))
    }
}

#[async_trait]
impl Metastore for SqlMetastore {
    fn on_behalf_of(&self, origin: Origin) -> Arc<dyn Metastore> {
        Arc::new(Self { origin, ..self.clone() })
    }

    async fn create_namespace(
        &self,
        levels: &Levels,
        properties: &Properties,
    ) -> Result<(), CatalogError> {
        names::check_new_namespace(levels)?;
        let mut tx = self.begin_change().await?;
        namespaces::create(&mut tx, levels, properties).await?;
        self.end(tx, "create a namespace", outbox::made_namespace(levels, properties)).await
    }

    async fn namespace(&self, levels: &Levels) -> Result<Option<Properties>, CatalogError> {
        namespaces::get(&mut *self.reader().await?, levels, Lock::None).await
    }

    async fn namespaces_of(
        &self,
        parent: &Levels,
        page: Page<'_>,
    ) -> Result<Vec<Levels>, CatalogError> {
        let mut tx = self.readers.begin().await.map_err(failed("begin"))?;
        if !parent.is_empty() {
            namespaces::require(&mut tx, parent, Lock::None).await?;
        }
        namespaces::list(&mut tx, parent, page).await
    }

    async fn logged(&self) -> Result<Vec<NamespaceMarks>, CatalogError> {
        namespaces::logged(&mut *self.reader().await?).await
    }

    async fn update_namespace(
        &self,
        levels: &Levels,
        set: &Properties,
        remove: &[String],
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin_change().await?;
        let before = namespaces::update(&mut tx, levels, set, remove).await?;
        let (removed, missing): (Vec<&String>, Vec<&String>) =
            remove.iter().partition(|key| before.contains_key(*key));
        let told = json!({
            "operation-type": "update-namespace-properties",
            "namespace": levels,
            "updated": set.keys().collect::<Vec<_>>(),
            "removed": removed,
            "missing": missing,
        });
        self.end(tx, "update a namespace", told).await
    }

    async fn drop_namespace(&self, levels: &Levels) -> Result<(), CatalogError> {
        let mut tx = self.begin_change().await?;
        namespaces::drop(&mut tx, levels).await?;
        let told = json!({"operation-type": "drop-namespace", "namespace": levels});
        self.end(tx, "drop a namespace", told).await
    }

    async fn table(&self, levels: &Levels, name: &str) -> Result<Option<TableRow>, CatalogError> {
        tables::by_name(&mut *self.reader().await?, Kind::Table, (levels, name), Lock::None).await
    }

    async fn names(
        &self,
        kind: Kind,
        levels: &Levels,
        page: Page<'_>,
    ) -> Result<Vec<String>, CatalogError> {
        let mut tx = self.readers.begin().await.map_err(failed("begin"))?;
        namespaces::require(&mut tx, levels, Lock::None).await?;
        tables::list(&mut tx, kind, levels, page).await
    }

    async fn drop_table(&self, levels: &Levels, name: &str) -> Result<TableRow, CatalogError> {
        let mut tx = self.begin().await?;
        let row = tables::drop(&mut tx, Kind::Table, (levels, name)).await?;
        // The table that left may be the answer.
        self.claim_once(&mut tx, Some((row.uuid, &row.metadata_location))).await?;
        self.end(tx, "drop a table", outbox::dropped((levels, name), &row, false)).await?;
        Ok(row)
    }

    async fn trash_table(
        &self,
        levels: &Levels,
        name: &str,
        trash: &Trash,
    ) -> Result<TableRow, CatalogError> {
        let mut tx = self.begin_change().await?;
        trash::add(&mut tx, (levels, name), trash).await?;
        let row = tables::drop(&mut tx, Kind::Table, (levels, name)).await?;
        let told = outbox::dropped((levels, name), &row, trash.purge);
        self.end(tx, "drop a table", told).await?;
        Ok(row)
    }

    async fn trash(&self, limit: u32) -> Result<Vec<TrashRow>, CatalogError> {
        trash::list(&mut *self.reader().await?, limit).await
    }

    async fn dropped(&self, uuid: Uuid) -> Result<Option<TrashRow>, CatalogError> {
        trash::get(&mut *self.reader().await?, uuid, Lock::None).await
    }

    async fn undrop(&self, table: &NewTable) -> Result<(), CatalogError> {
        let mut tx = self.begin_change().await?;
        places::lock(&mut tx).await?;
        trash::require(&mut tx, table.uuid).await?;
        // Whoever puts it back may put it elsewhere, so it is no table of the trash any more.
        trash::forget(&mut tx, table.uuid).await?;
        tables::create(&mut tx, table).await?;
        self.end(tx, "undrop a table", outbox::created(table)).await
    }

    async fn change_trash(&self, uuid: Uuid, trash: &Trash) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        trash::change(&mut tx, uuid, trash).await?;
        self.end_untold(tx, "change the trash").await
    }

    async fn expire_trash(&self, now_ms: i64, limit: u32) -> Result<Vec<TrashRow>, CatalogError> {
        let mut tx = self.begin().await?;
        let expired = trash::expire(&mut tx, now_ms, limit).await?;
        tx.commit().await.map_err(failed("empty the trash"))?;
        Ok(expired)
    }

    async fn put_off_purge(&self, uuid: Uuid, until_ms: i64) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        trash::put_off(&mut tx, uuid, until_ms).await?;
        tx.commit().await.map_err(failed("empty the trash"))
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
        self.end_untold(tx, "protect a table").await
    }

    async fn protected(&self, limit: u32) -> Result<Vec<(Levels, String)>, CatalogError> {
        trash::protected(&mut *self.reader().await?, limit).await
    }

    async fn is_protected(&self, uuid: Uuid) -> Result<bool, CatalogError> {
        trash::is_protected(&mut *self.reader().await?, uuid).await
    }

    async fn replace_table(&self, old: Uuid, new: NewTable) -> Result<SwapOutcome, CatalogError> {
        let name = (&new.levels, new.name.as_str());
        let mut tx = self.begin().await?;
        self.claim_once(&mut tx, Some((new.uuid, &new.metadata_location))).await?;
        places::lock(&mut tx).await?;
        let found = tables::by_name(&mut tx, Kind::Table, name, Lock::Update).await?;
        if found.is_none_or(|found| found.uuid != old) {
            return Ok(SwapOutcome::Lost(old));
        }
        let row = tables::drop(&mut tx, Kind::Table, name).await?;
        tables::create(&mut tx, &new).await?;
        let operations = vec![outbox::dropped(name, &row, false), outbox::created(&new)];
        let told = Told { origin: self.origin.clone(), operations };
        self.end_all(tx, "replace a table", &[told]).await.map(|()| SwapOutcome::Done)
    }

    async fn rename_table(
        &self,
        from: (&Levels, &str),
        to: (&Levels, &str),
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin_change().await?;
        let row = tables::rename(&mut tx, Kind::Table, from, to).await?;
        self.end(tx, "rename a table", outbox::renamed(Kind::Table, from, to, &row)).await
    }

    async fn view(&self, levels: &Levels, name: &str) -> Result<Option<TableRow>, CatalogError> {
        tables::by_name(&mut *self.reader().await?, Kind::View, (levels, name), Lock::None).await
    }

    async fn drop_view(&self, levels: &Levels, name: &str) -> Result<TableRow, CatalogError> {
        let mut tx = self.begin_change().await?;
        let row = tables::drop(&mut tx, Kind::View, (levels, name)).await?;
        self.end(tx, "drop a view", outbox::dropped_view((levels, name), &row)).await?;
        Ok(row)
    }

    async fn rename_view(
        &self,
        from: (&Levels, &str),
        to: (&Levels, &str),
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin_change().await?;
        let row = tables::rename(&mut tx, Kind::View, from, to).await?;
        self.end(tx, "rename a view", outbox::renamed(Kind::View, from, to, &row)).await
    }

    async fn is_free(&self, location: &Location, but: Uuid) -> Result<bool, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(failed("connect"))?;
        Ok(places::overlapping(&mut connection, but, location).await? == 0)
    }

    async fn commit_with_new(
        &self,
        new: &[NewTable],
        swaps: &[PointerSwap],
    ) -> Result<SwapOutcome, CatalogError> {
        self.commit_in_group(new, swaps).await
    }

    async fn table_by_uuid(&self, uuid: Uuid) -> Result<Option<TableRow>, CatalogError> {
        tables::by_uuid(&mut *self.reader().await?, uuid, Lock::None).await
    }

    async fn name_of(&self, uuid: Uuid) -> Result<Option<(Levels, String)>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(failed("connect"))?;
        let found = tables::before(&mut connection, uuid, Lock::None).await?;
        Ok(found.map(|before| (before.levels, before.name)))
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

    async fn snapshots(&self, uuid: Uuid) -> Result<Vec<SnapshotRow>, CatalogError> {
        tables::snapshots(&mut *self.reader().await?, uuid).await
    }

    async fn add_report(&self, uuid: Uuid, report: &Report, keep: u32) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        reports::add(&mut tx, uuid, report, keep).await?;
        tx.commit().await.map_err(failed("add a report"))
    }

    async fn reports(&self, uuid: Uuid) -> Result<Vec<Report>, CatalogError> {
        reports::list(&mut *self.reader().await?, uuid).await
    }

    async fn add_obsolete(&self, files: &[Obsolete]) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        obsolete::add(&mut tx, files).await?;
        tx.commit().await.map_err(failed("queue files for deletion"))
    }

    async fn first_obsolete(&self, files: &[String]) -> Result<Option<String>, CatalogError> {
        obsolete::first_queued(&mut *self.reader().await?, files).await
    }

    async fn obsolete(&self, now_ms: i64, limit: u32) -> Result<Vec<String>, CatalogError> {
        obsolete::due(&mut *self.reader().await?, now_ms, limit).await
    }

    async fn forget_obsolete(&self, locations: &[String]) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        obsolete::forget(&mut tx, locations).await?;
        tx.commit().await.map_err(failed("shorten the deletion queue"))
    }

    async fn put_off_obsolete(&self, files: &[String], until_ms: i64) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        obsolete::put_off(&mut tx, files, until_ms).await?;
        tx.commit().await.map_err(failed("order the deletion queue"))
    }

    async fn count_obsolete(&self) -> Result<u64, CatalogError> {
        obsolete::count(&mut *self.reader().await?).await
    }

    async fn request(&self, id: Uuid) -> Result<Option<DoneRequest>, CatalogError> {
        requests::get(&mut *self.reader().await?, id).await
    }

    async fn keep_request(&self, made: Option<(Uuid, &str)>) -> Result<(), CatalogError> {
        if self.origin.request.is_none() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        self.claim_once(&mut tx, made).await?;
        tx.commit().await.map_err(failed("keep a request"))
    }

    async fn refuse_request(
        &self,
        request: &RequestKey,
        status: u16,
        body: &str,
    ) -> Result<Option<DoneRequest>, CatalogError> {
        let mut tx = self.begin().await?;
        requests::refuse(&mut tx, request, (self.origin.now)(), (status, body)).await?;
        let kept = requests::get(&mut tx, request.id).await?;
        tx.commit().await.map_err(failed("keep a request"))?;
        Ok(kept)
    }

    async fn feed(&self) -> Result<Feed, CatalogError> {
        outbox::feed(&mut *self.reader().await?).await
    }

    async fn event_changes(
        &self,
        numbers: &[u64],
    ) -> Result<Vec<(u64, Option<String>)>, CatalogError> {
        outbox::changes(&mut *self.reader().await?, numbers).await
    }

    async fn events(&self, after: u64, limit: u32) -> Result<Vec<Event>, CatalogError> {
        outbox::list(&mut *self.reader().await?, after, limit).await
    }

    async fn events_before(&self, at_ms: i64) -> Result<u64, CatalogError> {
        outbox::before(&mut *self.reader().await?, at_ms).await
    }

    async fn forget_records(&self, remembered: Remembered) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        requests::forget(&mut tx, remembered).await?;
        outbox::forget(&mut tx, remembered).await?;
        tx.commit().await.map_err(failed("forget old records"))
    }

    fn transactions(&self) -> u64 {
        self.group.transactions()
    }
}

fn failed(operation: &'static str) -> impl FnOnce(sqlx::Error) -> CatalogError {
    move |source| CatalogError::Metastore { operation, source }
}

/// A namespace's key.
fn path(levels: &Levels) -> String {
    levels.join(SEPARATOR.encode_utf8(&mut [0; 4]))
}

/// How many rows a query gives.
fn limit(page: Page<'_>) -> i64 {
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
