//! Namespaces; each function is part of the caller's transaction.

use super::{
    Levels, Metastore, NamePage, ObjectKey, SEPARATOR, Watermark, access, database::RowLock,
    failed, limit, outbox, path,
};
use crate::{error::CatalogError, names};
use serde_json::json;
use sqlx::{AnyConnection, AssertSqlSafe};
use std::collections::BTreeMap;

/// A namespace at the top, and the watermarks of its tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceMarks {
    /// Which one.
    pub levels: Levels,
    /// Its properties.
    pub properties: Properties,
    /// The names of its tables that have a watermark, in order.
    pub tables: Vec<(String, Watermark)>,
}

/// Properties of a namespace.
pub type Properties = BTreeMap<String, String>;

impl Metastore {
    /// Adds a namespace.
    ///
    /// # Errors
    /// `AlreadyExists` when it is there, `NoSuchNamespace` when its parent is not; `Metastore`.
    pub async fn create_namespace(
        &self,
        levels: &Levels,
        properties: &Properties,
    ) -> Result<(), CatalogError> {
        names::check_new_namespace(levels)?;
        let mut tx = self.begin_change().await?;
        create(&mut tx, levels, properties).await?;
        self.end(tx, "create a namespace", outbox::made_namespace(levels, properties)).await
    }

    /// The properties of a namespace, or none when it is not there.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn namespace(&self, levels: &Levels) -> Result<Option<Properties>, CatalogError> {
        get(&mut *self.reader().await?, levels, RowLock::None).await
    }

    /// The namespaces directly below `parent` (empty: the top), in order. The page is one of their
    /// last levels.
    ///
    /// # Errors
    /// `NoSuchNamespace`, `Metastore`.
    pub async fn namespaces_of(
        &self,
        parent: &Levels,
        page: NamePage<'_>,
    ) -> Result<Vec<Levels>, CatalogError> {
        let mut tx = self.database.readers.begin().await.map_err(failed("begin"))?;
        if !parent.is_empty() {
            require(&mut tx, parent, RowLock::None).await?;
        }
        // What is below one parent is ordered by its last level.
        let mut after = parent.clone();
        after.push(page.after.to_owned());
        let paths: Vec<String> = sqlx::query_scalar(
            "SELECT path FROM namespaces WHERE parent = $1 AND path > $2 ORDER BY path LIMIT $3",
        )
        .bind(path(parent))
        .bind(path(&after))
        .bind(limit(page))
        .fetch_all(&mut *tx)
        .await
        .map_err(failed("list namespaces"))?;
        Ok(paths.iter().map(|path| path.split(SEPARATOR).map(str::to_owned).collect()).collect())
    }

    /// All namespaces directly below `parent`.
    ///
    /// # Errors
    /// `NoSuchNamespace`, `Metastore`.
    pub async fn namespaces(&self, parent: &Levels) -> Result<Vec<Levels>, CatalogError> {
        self.namespaces_of(parent, NamePage::ALL).await
    }

    /// A namespace and all below it, at most `limit` of them in order; of the empty one all there are. Nothing where
    /// it is not there.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn namespaces_from(
        &self,
        levels: &Levels,
        limit: usize,
    ) -> Result<Vec<Levels>, CatalogError> {
        let top = path(levels);
        // Paths below it begin with this, and the space is the next letter behind the separator.
        let below = format!("{top}{SEPARATOR}");
        let paths: Vec<String> = sqlx::query_scalar(
            "SELECT path FROM namespaces WHERE $1 = '' OR path = $1 OR (path > $2 AND path < $3)
             ORDER BY path LIMIT $4",
        )
        .bind(top.clone())
        .bind(below)
        .bind(format!("{top} "))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.database.readers)
        .await
        .map_err(failed("list namespaces"))?;
        Ok(paths.iter().map(|path| path.split(SEPARATOR).map(str::to_owned).collect()).collect())
    }

    /// The tables of all namespaces at the top, in order: one statement, however many there are.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn tables_at_the_top(&self) -> Result<Vec<(Levels, String)>, CatalogError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT n.path, t.name FROM namespaces AS n JOIN tables AS t
                 ON t.namespace = n.path AND t.kind = 'table'
             WHERE n.parent = '' ORDER BY n.path, t.name",
        )
        .fetch_all(&self.database.readers)
        .await
        .map_err(failed("list all tables"))?;
        Ok(rows.into_iter().map(|(path, name)| (vec![path], name)).collect())
    }

    /// All namespaces at the top, in order, with the watermarks of their tables: one statement, however
    /// many there are.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn marks(&self) -> Result<Vec<NamespaceMarks>, CatalogError> {
        let rows: Vec<MarkRow> = sqlx::query_as(
            "SELECT n.path, n.properties, t.name, t.epoch, t.position, t.last_seq
             FROM namespaces AS n LEFT JOIN tables AS t
                 ON t.namespace = n.path AND t.kind = 'table' AND t.epoch IS NOT NULL
             WHERE n.parent = '' ORDER BY n.path, t.name",
        )
        .fetch_all(&self.database.readers)
        .await
        .map_err(failed("read the watermarks"))?;
        let mut all: Vec<NamespaceMarks> = Vec::new();
        for (path, properties, name, epoch, position, last_seq) in rows {
            let levels = vec![path];
            if all.last().is_none_or(|last| last.levels != levels) {
                all.push(NamespaceMarks {
                    levels,
                    properties: decode(&properties)?,
                    tables: Vec::new(),
                });
            }
            if let (Some(name), Some(epoch), Some(position), Some(last_seq), Some(last)) =
                (name, epoch, position, last_seq, all.last_mut())
            {
                let watermark = Watermark {
                    epoch: epoch.cast_unsigned(),
                    position: position.cast_unsigned(),
                    last_seq: last_seq.cast_unsigned(),
                };
                last.tables.push((name, watermark));
            }
        }
        Ok(all)
    }

    /// Sets and removes properties.
    ///
    /// # Errors
    /// `NoSuchNamespace`, `Metastore`.
    pub async fn update_namespace(
        &self,
        levels: &Levels,
        set: &Properties,
        remove: &[String],
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin_change().await?;
        let mut properties = require(&mut tx, levels, RowLock::Update).await?;
        let before = properties.clone();
        properties.retain(|key, _| !remove.contains(key));
        properties.extend(set.clone());
        sqlx::query("UPDATE namespaces SET properties = $1 WHERE path = $2")
            .bind(encode(&properties))
            .bind(path(levels))
            .execute(&mut *tx)
            .await
            .map_err(failed("update a namespace"))?;
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

    /// Removes a namespace without tables, views and namespaces; `NoSuchNamespace`, `NamespaceNotEmpty`.
    pub(crate) async fn drop_namespace(&self, levels: &Levels) -> Result<(), CatalogError> {
        let mut tx = self.begin_change().await?;
        require(&mut tx, levels, RowLock::Update).await?;
        let path = path(levels);
        let used: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM tables WHERE namespace = $1)
                  + (SELECT count(*) FROM namespaces WHERE parent = $1)",
        )
        .bind(&path)
        .fetch_one(&mut *tx)
        .await
        .map_err(failed("drop a namespace"))?;
        if used != 0 {
            return Err(CatalogError::NamespaceNotEmpty(levels.join(".")));
        }
        access::forget_namespace(&mut tx, &path).await?;
        access::webhooks::forget_namespace(&mut tx, &path).await?;
        sqlx::query("DELETE FROM namespaces WHERE path = $1")
            .bind(&path)
            .execute(&mut *tx)
            .await
            .map_err(failed("drop a namespace"))?;
        let told = json!({"operation-type": "drop-namespace", "namespace": levels});
        self.end(tx, "drop a namespace", told).await
    }
}

pub(super) async fn create(
    tx: &mut AnyConnection,
    levels: &Levels,
    properties: &Properties,
) -> Result<(), CatalogError> {
    let parent = levels[..levels.len() - 1].to_vec();
    if !parent.is_empty() {
        require(tx, &parent, RowLock::Share).await?;
    }
    let added = sqlx::query("INSERT INTO namespaces VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(path(levels))
        .bind(path(&parent))
        .bind(encode(properties))
        .execute(tx)
        .await
        .map_err(failed("create a namespace"))?;
    if added.rows_affected() == 0 {
        return Err(already_exists(levels));
    }
    Ok(())
}

/// Adds a namespace that is not there, and says so; `AlreadyExists` of one that has anything else.
pub(super) async fn ensure(
    tx: &mut AnyConnection,
    levels: &Levels,
    properties: &Properties,
) -> Result<bool, CatalogError> {
    match get(tx, levels, RowLock::Share).await? {
        None => create(tx, levels, properties).await.map(|()| true),
        Some(found) if found == *properties => Ok(false),
        Some(_) => Err(already_exists(levels)),
    }
}

fn already_exists(levels: &Levels) -> CatalogError {
    CatalogError::AlreadyExists(format!("Namespace already exists: {}", levels.join(".")))
}

pub(super) async fn get(
    connection: &mut AnyConnection,
    levels: &Levels,
    lock: RowLock,
) -> Result<Option<Properties>, CatalogError> {
    if !is_storable(ObjectKey { levels, name: "" }) {
        return Ok(None);
    }
    let lock = lock.clause(connection);
    let query = format!("SELECT properties FROM namespaces WHERE path = $1{lock}");
    let text: Option<String> = sqlx::query_scalar(AssertSqlSafe(query))
        .bind(path(levels))
        .fetch_optional(connection)
        .await
        .map_err(failed("read a namespace"))?;
    text.map(|text| decode(&text)).transpose()
}

/// Whether something may have this name: PostgreSQL has no text with a zero byte, and asking it for
/// one is an error there.
pub(super) fn is_storable(key: ObjectKey<'_>) -> bool {
    !key.levels.iter().map(String::as_str).chain([key.name]).any(|part| part.contains('\0'))
}

pub(super) async fn require(
    connection: &mut AnyConnection,
    levels: &Levels,
    lock: RowLock,
) -> Result<Properties, CatalogError> {
    let found = get(connection, levels, lock).await?;
    found.ok_or_else(|| CatalogError::NoSuchNamespace(levels.join(".")))
}

/// path, properties, and of a table with a watermark: name, epoch, position, last seq.
type MarkRow = (String, String, Option<String>, Option<i64>, Option<i64>, Option<i64>);

fn encode(properties: &Properties) -> String {
    serde_json::to_string(properties).expect("a map of strings is JSON")
}

fn decode(text: &str) -> Result<Properties, CatalogError> {
    let broken = |cause| failed("read a namespace")(sqlx::Error::Decode(Box::new(cause)));
    serde_json::from_str(text).map_err(broken)
}
