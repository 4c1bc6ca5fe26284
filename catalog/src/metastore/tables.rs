//! Tables and views and the snapshot index; each function is part of the caller's transaction.

use super::{
    Levels, Metastore, NameKind, NamePage, NewTable, ObjectKey, PointerSwap, SEPARATOR,
    SwapOutcome, TableOrigin,
    database::RowLock,
    failed, fence, limit, namespaces, obsolete, orphans, outbox,
    outbox::{FormerState, RequestChanges},
    path, places, row_accounts, snapshots, stored, trash,
};
use crate::error::CatalogError;
use sqlx::{AnyConnection, AssertSqlSafe};
use uuid::Uuid;

/// How far the holder of the [fence](mod@super::fence) is in a table, in numbers of its own: the catalog
/// keeps them with the table and compares epochs alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The epoch under which it moved; a commit under another one than the fence's is refused.
    pub epoch: u64,
    /// The last position whose rows the table holds.
    pub position: u64,
    /// The highest number of a row that the table holds.
    pub last_seq: u64,
}

/// A table's or a view's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRow {
    /// The table's identity, stable across renames.
    pub uuid: Uuid,
    /// Where the current metadata is.
    pub metadata_location: String,
    /// The folder that is the table's. What the metadata file says of it is a client's word where
    /// clients may write the table's files.
    pub location: String,
    /// Grows by one with every commit, and never shrinks: a table that comes back after it was dropped
    /// goes on from there.
    pub version: i64,
    /// How far the holder of the fence is in it; none for a table that others write.
    pub watermark: Option<Watermark>,
}

impl Metastore {
    /// A table's row, or none.
    pub(crate) async fn table(
        &self,
        levels: &Levels,
        name: &str,
    ) -> Result<Option<TableRow>, CatalogError> {
        let key = ObjectKey { levels, name };
        by_name(&mut *self.reader().await?, NameKind::Table, key, RowLock::None).await
    }

    /// Names of the tables or views in a namespace, in order; `NoSuchNamespace`.
    pub(crate) async fn names(
        &self,
        kind: NameKind,
        levels: &Levels,
        page: NamePage<'_>,
    ) -> Result<Vec<String>, CatalogError> {
        let mut tx = self.database.readers.begin().await.map_err(failed("begin"))?;
        namespaces::require(&mut tx, levels, RowLock::None).await?;
        list(&mut tx, kind, levels, page).await
    }

    /// Names of all tables in a namespace.
    ///
    /// # Errors
    /// `NoSuchNamespace`, `Metastore`.
    pub async fn tables(&self, levels: &Levels) -> Result<Vec<String>, CatalogError> {
        self.names(NameKind::Table, levels, NamePage::ALL).await
    }

    /// Removes a table and gives back its row. Its watermark and its version are kept, and are there
    /// again when a table of this identity is.
    ///
    /// # Errors
    /// `NoSuchTable`, `Protected`, `Metastore`.
    pub async fn drop_table(&self, levels: &Levels, name: &str) -> Result<TableRow, CatalogError> {
        let key = ObjectKey { levels, name };
        let mut tx = self.begin().await?;
        let row = drop(&mut tx, NameKind::Table, key).await?;
        // The table that left may be the answer.
        self.claim_once(&mut tx, Some((row.uuid, &row.metadata_location))).await?;
        self.end(tx, "drop a table", outbox::dropped(key, &row, false)).await?;
        Ok(row)
    }

    /// Puts another table in the place of the one of this name, identity and version, as a drop and
    /// a create at once; `Lost` when it is not there so, `AlreadyExists` of the new identity. Both may
    /// lie in one folder, so files of the new one may have been queued for deletion with a step of the
    /// old one's version.
    pub(crate) async fn replace_table(
        &self,
        (old, version): (Uuid, i64),
        new: NewTable,
    ) -> Result<SwapOutcome, CatalogError> {
        let key = new.key();
        let mut tx = self.begin().await?;
        self.claim_once(&mut tx, Some((new.uuid, &new.metadata_location))).await?;
        places::lock(&mut tx).await?;
        let found = by_name(&mut tx, NameKind::Table, key, RowLock::Update).await?;
        if found.is_none_or(|found| (found.uuid, found.version) != (old, version)) {
            return Ok(SwapOutcome::Lost(old));
        }
        let row = drop(&mut tx, NameKind::Table, key).await?;
        create(&mut tx, &new).await?;
        let operations = vec![outbox::dropped(key, &row, false), outbox::created(&new)];
        let told = RequestChanges { origin: self.origin.clone(), operations };
        self.end_all(tx, "replace a table", &[told]).await.map(|()| SwapOutcome::Done)
    }

    /// Renames a table.
    ///
    /// # Errors
    /// `NoSuchTable`, `NoSuchNamespace` for the target's, `AlreadyExists`, `Protected`, `Metastore`.
    pub async fn rename_table(
        &self,
        from: ObjectKey<'_>,
        to: ObjectKey<'_>,
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin_change().await?;
        let row = rename(&mut tx, NameKind::Table, from, to).await?;
        self.end(tx, "rename a table", outbox::renamed(NameKind::Table, from, to, &row)).await
    }

    /// The row of a table by identity, to find out how an unknown commit ended.
    pub(crate) async fn table_by_uuid(&self, uuid: Uuid) -> Result<Option<TableRow>, CatalogError> {
        by_uuid(&mut *self.reader().await?, uuid, RowLock::None).await
    }

    /// The name of a table or view by identity.
    pub(crate) async fn name_of(
        &self,
        uuid: Uuid,
    ) -> Result<Option<(Levels, String)>, CatalogError> {
        let mut connection = self.database.readers.acquire().await.map_err(failed("connect"))?;
        let found = before(&mut connection, uuid, RowLock::None).await?;
        Ok(found.map(|before| (before.levels, before.name)))
    }
}

/// The last version of each table and view that left. One that comes back goes on from there: a
/// commit that was built on it before must not find its version again.
pub(super) const VERSIONS: &str = r"
CREATE TABLE versions (
    uuid TEXT PRIMARY KEY,
    version BIGINT NOT NULL
);
";

/// uuid, metadata location, location, version, epoch, position, last seq.
type PointerRow = (String, String, String, i64, Option<i64>, Option<i64>, Option<i64>);

const SELECT: &str =
    "SELECT uuid, metadata_location, location, version, epoch, position, last_seq FROM tables";

fn into_table(row: PointerRow) -> Result<TableRow, CatalogError> {
    let broken = |cause| failed("read a table")(sqlx::Error::Decode(Box::new(cause)));
    let (uuid, metadata_location, location, version, epoch, position, last_seq) = row;
    let watermark = match (epoch, position, last_seq) {
        (Some(epoch), Some(position), Some(last_seq)) => Some(Watermark {
            epoch: epoch.cast_unsigned(),
            position: position.cast_unsigned(),
            last_seq: last_seq.cast_unsigned(),
        }),
        _ => None,
    };
    let uuid = Uuid::parse_str(&uuid).map_err(broken)?;
    Ok(TableRow { uuid, metadata_location, location, version, watermark })
}

pub(super) async fn by_name(
    connection: &mut AnyConnection,
    kind: NameKind,
    key: ObjectKey<'_>,
    lock: RowLock,
) -> Result<Option<TableRow>, CatalogError> {
    if !namespaces::is_storable(key) {
        return Ok(None);
    }
    let lock = lock.clause(connection);
    let query = format!("{SELECT} WHERE namespace = $1 AND name = $2 AND kind = $3{lock}");
    let row: Option<PointerRow> = sqlx::query_as(AssertSqlSafe(query))
        .bind(path(key.levels))
        .bind(key.name)
        .bind(word(kind))
        .fetch_optional(connection)
        .await
        .map_err(failed("read a table"))?;
    row.map(into_table).transpose()
}

pub(super) async fn by_uuid(
    connection: &mut AnyConnection,
    uuid: Uuid,
    lock: RowLock,
) -> Result<Option<TableRow>, CatalogError> {
    let query = format!("{SELECT} WHERE uuid = $1{}", lock.clause(connection));
    let row: Option<PointerRow> = sqlx::query_as(AssertSqlSafe(query))
        .bind(uuid.to_string())
        .fetch_optional(connection)
        .await
        .map_err(failed("read a table"))?;
    row.map(into_table).transpose()
}

/// A table or view as it is before a change.
pub(super) async fn before(
    tx: &mut AnyConnection,
    uuid: Uuid,
    lock: RowLock,
) -> Result<Option<FormerState>, CatalogError> {
    let lock = lock.clause(tx);
    let query = format!(
        "SELECT kind, namespace, name, metadata_location FROM tables WHERE uuid = $1{lock}"
    );
    let row: Option<(String, String, String, String)> = sqlx::query_as(AssertSqlSafe(query))
        .bind(uuid.to_string())
        .fetch_optional(tx)
        .await
        .map_err(failed("read a table"))?;
    Ok(row.map(|(kind, path, name, metadata_location)| FormerState {
        kind: if kind == word(NameKind::View) { NameKind::View } else { NameKind::Table },
        levels: path.split(SEPARATOR).map(str::to_owned).collect(),
        name,
        metadata_location,
    }))
}

pub(super) async fn list(
    connection: &mut AnyConnection,
    kind: NameKind,
    levels: &Levels,
    page: NamePage<'_>,
) -> Result<Vec<String>, CatalogError> {
    sqlx::query_scalar(
        "SELECT name FROM tables WHERE namespace = $1 AND kind = $2 AND name > $3
         ORDER BY name LIMIT $4",
    )
    .bind(path(levels))
    .bind(word(kind))
    .bind(page.after)
    .bind(limit(page))
    .fetch_all(connection)
    .await
    .map_err(failed("list tables"))
}

pub(super) async fn create(tx: &mut AnyConnection, table: &NewTable) -> Result<(), CatalogError> {
    namespaces::require(tx, &table.levels, RowLock::Share).await?;
    let added = sqlx::query(
        "INSERT INTO tables (uuid, namespace, name, metadata_location, version, epoch, position,
             last_seq, kind, location)
         SELECT uuid, $2, $3, $4, coalesce(version, 0) + 1, epoch, position, last_seq, $5, $6
         FROM (SELECT $1 AS uuid) AS new LEFT JOIN dropped USING (uuid)
             LEFT JOIN versions USING (uuid)
         WHERE true ON CONFLICT DO NOTHING",
    )
    .bind(table.uuid.to_string())
    .bind(path(&table.levels))
    .bind(&table.name)
    .bind(&table.metadata_location)
    .bind(word(table.kind))
    .bind(&table.location)
    .execute(&mut *tx)
    .await
    .map_err(failed("create a table"))?;
    if added.rows_affected() == 0 {
        let key = table.key();
        let taken_by_another = by_name(tx, other(table.kind), key, RowLock::None).await?.is_some();
        let is_taken =
            taken_by_another || by_name(tx, table.kind, key, RowLock::None).await?.is_some();
        if !is_taken && by_uuid(tx, table.uuid, RowLock::None).await?.is_some() {
            return Err(CatalogError::Registered(table.uuid));
        }
        return Err(CatalogError::AlreadyExists(match (table.kind, taken_by_another) {
            (NameKind::Table, false) => format!("Table already exists: {key}"),
            (NameKind::Table, true) => format!("View with same name already exists: {key}"),
            (NameKind::View, false) => format!("View already exists: {key}"),
            (NameKind::View, true) => format!("Table with same name already exists: {key}"),
        }));
    }
    match &table.comes {
        TableOrigin::Created => check_is_new(tx, table.uuid).await?,
        TableOrigin::OfHolder { watermark, acked, .. } => {
            check_is_new(tx, table.uuid).await?;
            move_watermark(tx, table.uuid, *watermark).await?;
            row_accounts::add_acked(tx, table.uuid, *acked).await?;
        }
        TableOrigin::Registered { needs } => {
            // Of a purged table nothing is left but its files, which wait for their deletion.
            if let Some(file) = obsolete::first_queued(tx, needs).await? {
                return Err(CatalogError::about_to_be_deleted(&file));
            }
            // A table of the trash that is registered again is back as well.
            trash::restored(tx, table.uuid, &table.levels).await?;
        }
    }
    places::check(tx, table.uuid, &table.location).await?;
    snapshots::add(tx, table.uuid, &table.snapshots).await
}

pub(super) async fn drop(
    tx: &mut AnyConnection,
    kind: NameKind,
    key: ObjectKey<'_>,
) -> Result<TableRow, CatalogError> {
    let row = by_name(tx, kind, key, RowLock::Update).await?;
    let row = row.ok_or_else(|| missing(kind, key))?;
    trash::check_unprotected(tx, row.uuid, key).await?;
    // The holder of the fence must not give out again the positions that a dropped table has seen,
    // and a table that is registered again must not take their rows twice.
    sqlx::query(
        "INSERT INTO dropped SELECT uuid, epoch, position, last_seq FROM tables
         WHERE uuid = $1 AND epoch IS NOT NULL
         ON CONFLICT (uuid) DO UPDATE SET epoch = excluded.epoch, position = excluded.position,
             last_seq = excluded.last_seq",
    )
    .bind(row.uuid.to_string())
    .execute(&mut *tx)
    .await
    .map_err(failed("drop a table"))?;
    sqlx::query(
        "INSERT INTO versions VALUES ($1, $2)
         ON CONFLICT (uuid) DO UPDATE SET version = excluded.version",
    )
    .bind(row.uuid.to_string())
    .bind(row.version)
    .execute(&mut *tx)
    .await
    .map_err(failed("drop a table"))?;
    sqlx::query("DELETE FROM tables WHERE uuid = $1")
        .bind(row.uuid.to_string())
        .execute(tx)
        .await
        .map_err(failed("drop a table"))?;
    Ok(row)
}

pub(super) async fn rename(
    tx: &mut AnyConnection,
    kind: NameKind,
    from: ObjectKey<'_>,
    to: ObjectKey<'_>,
) -> Result<TableRow, CatalogError> {
    let row = by_name(tx, kind, from, RowLock::Update).await?;
    let row = row.ok_or_else(|| missing(kind, from))?;
    trash::check_unprotected(tx, row.uuid, from).await?;
    namespaces::require(tx, to.levels, RowLock::Share).await?;
    if from == to {
        return Ok(row);
    }
    let taken_by = |what: &str| {
        CatalogError::AlreadyExists(format!("Cannot rename {from} to {to}. {what} already exists"))
    };
    for (other, what) in [(NameKind::Table, "Table"), (NameKind::View, "View")] {
        if by_name(tx, other, to, RowLock::None).await?.is_some() {
            return Err(taken_by(what));
        }
    }
    // A commit that looked the table up under its old name must not succeed under the new one.
    let renamed = sqlx::query(
        "UPDATE tables SET namespace = $1, name = $2, version = version + 1 WHERE uuid = $3",
    )
    .bind(path(to.levels))
    .bind(to.name)
    .bind(row.uuid.to_string())
    .execute(tx)
    .await;
    match renamed {
        Ok(_) => Ok(row),
        // Somebody else took the name since it was looked up.
        Err(cause) if is_taken(&cause) => Err(taken_by("Table or view")),
        Err(cause) => Err(failed("rename a table")(cause)),
    }
}

fn is_taken(cause: &sqlx::Error) -> bool {
    cause.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

pub(super) async fn swap(
    tx: &mut AnyConnection,
    swap: &PointerSwap,
) -> Result<SwapOutcome, CatalogError> {
    let Some(row) = by_uuid(tx, swap.uuid, RowLock::Update).await? else {
        return Ok(SwapOutcome::Lost(swap.uuid));
    };
    // A deposed writer learns that first: trying again would not help it.
    if let (Some(held), Some(offered)) = (row.watermark, swap.watermark)
        && offered.epoch < held.epoch
    {
        return Ok(SwapOutcome::Deposed(swap.uuid));
    }
    if let Some(offered) = swap.watermark
        && !fence::lets_pass(tx, offered.epoch).await?
    {
        return Ok(SwapOutcome::Deposed(swap.uuid));
    }
    if row.version != swap.expected_version {
        return Ok(SwapOutcome::Lost(swap.uuid));
    }
    let uuid = swap.uuid.to_string();
    sqlx::query("UPDATE tables SET metadata_location = $1, version = version + 1 WHERE uuid = $2")
        .bind(&swap.metadata_location)
        .bind(&uuid)
        .execute(&mut *tx)
        .await
        .map_err(failed("swap a pointer"))?;
    if let Some(location) = &swap.moved_to {
        sqlx::query("UPDATE tables SET location = $1 WHERE uuid = $2")
            .bind(location)
            .bind(&uuid)
            .execute(&mut *tx)
            .await
            .map_err(failed("move a table"))?;
        places::check(tx, swap.uuid, location).await?;
    }
    if let Some(watermark) = swap.watermark {
        move_watermark(tx, swap.uuid, watermark).await?;
        row_accounts::add_acked(tx, swap.uuid, swap.acked).await?;
    }
    if let Some(acked) = swap.acked_anew {
        row_accounts::begin_anew(tx, swap.uuid, acked).await?;
    }
    snapshots::add(tx, swap.uuid, &swap.snapshots).await?;
    for snapshot_id in &swap.removed_snapshots {
        sqlx::query("DELETE FROM snapshots WHERE uuid = $1 AND snapshot_id = $2")
            .bind(&uuid)
            .bind(snapshot_id)
            .execute(&mut *tx)
            .await
            .map_err(failed("shorten the snapshot index"))?;
    }
    obsolete::add(tx, &swap.obsolete).await?;
    Ok(SwapOutcome::Done)
}

async fn move_watermark(
    tx: &mut AnyConnection,
    uuid: Uuid,
    watermark: Watermark,
) -> Result<(), CatalogError> {
    sqlx::query("UPDATE tables SET epoch = $1, position = $2, last_seq = $3 WHERE uuid = $4")
        .bind(stored(watermark.epoch)?)
        .bind(stored(watermark.position)?)
        .bind(stored(watermark.last_seq)?)
        .bind(uuid.to_string())
        .execute(tx)
        .await
        .map(|_| ())
        .map_err(failed("move a watermark"))
}

/// Refuses an identity that a dropped table or view had, which may come back, and one whose files go.
async fn check_is_new(tx: &mut AnyConnection, uuid: Uuid) -> Result<(), CatalogError> {
    orphans::check_none_is_queued(tx, uuid).await?;
    let had: i64 = sqlx::query_scalar("SELECT count(*) FROM versions WHERE uuid = $1")
        .bind(uuid.to_string())
        .fetch_one(tx)
        .await
        .map_err(failed("create a table"))?;
    if had == 0 {
        return Ok(());
    }
    Err(CatalogError::AlreadyExists(format!(
        "{uuid} is the identity of a dropped table: let the catalog choose one, or restore the \
         dropped table"
    )))
}

/// How the database writes it.
pub(super) fn word(kind: NameKind) -> &'static str {
    match kind {
        NameKind::Table => "table",
        NameKind::View => "view",
    }
}

fn other(kind: NameKind) -> NameKind {
    match kind {
        NameKind::Table => NameKind::View,
        NameKind::View => NameKind::Table,
    }
}

pub(super) fn missing(kind: NameKind, key: ObjectKey<'_>) -> CatalogError {
    match kind {
        NameKind::Table => CatalogError::NoSuchTable(key.to_string()),
        NameKind::View => CatalogError::NoSuchView(key.to_string()),
    }
}
