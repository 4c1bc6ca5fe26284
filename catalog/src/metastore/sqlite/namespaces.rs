//! Namespaces in SQLite; each function is part of the caller's transaction.

use super::{SEPARATOR, failed, path};
use crate::{
    error::CatalogError,
    metastore::{Levels, Properties},
};
use sqlx::SqliteConnection;

/// Refuses names that are no namespace.
pub(super) fn check(levels: &Levels) -> Result<(), CatalogError> {
    let fits = |level: &String| !level.is_empty() && !level.contains([SEPARATOR, '\0']);
    if levels.is_empty() || !levels.iter().all(fits) {
        return Err(CatalogError::Invalid(
            "Invalid namespace: it needs levels, and none may be empty".to_owned(),
        ));
    }
    Ok(())
}

pub(super) async fn create(
    tx: &mut SqliteConnection,
    levels: &Levels,
    properties: &Properties,
) -> Result<(), CatalogError> {
    let parent = levels[..levels.len() - 1].to_vec();
    if !parent.is_empty() {
        require(tx, &parent).await?;
    }
    let added = sqlx::query("INSERT OR IGNORE INTO namespaces VALUES (?, ?, ?)")
        .bind(path(levels))
        .bind(path(&parent))
        .bind(encode(properties))
        .execute(tx)
        .await
        .map_err(failed("create a namespace"))?;
    if added.rows_affected() == 0 {
        return Err(CatalogError::AlreadyExists(format!(
            "Namespace already exists: {}",
            levels.join(".")
        )));
    }
    Ok(())
}

pub(super) async fn get(
    connection: &mut SqliteConnection,
    levels: &Levels,
) -> Result<Option<Properties>, CatalogError> {
    let text: Option<String> =
        sqlx::query_scalar("SELECT properties FROM namespaces WHERE path = ?")
            .bind(path(levels))
            .fetch_optional(connection)
            .await
            .map_err(failed("read a namespace"))?;
    text.map(|text| decode(&text)).transpose()
}

pub(super) async fn require(
    connection: &mut SqliteConnection,
    levels: &Levels,
) -> Result<Properties, CatalogError> {
    let found = get(connection, levels).await?;
    found.ok_or_else(|| CatalogError::NoSuchNamespace(levels.join(".")))
}

pub(super) async fn list(
    connection: &mut SqliteConnection,
    parent: &Levels,
) -> Result<Vec<Levels>, CatalogError> {
    let paths: Vec<String> =
        sqlx::query_scalar("SELECT path FROM namespaces WHERE parent = ? ORDER BY path")
            .bind(path(parent))
            .fetch_all(connection)
            .await
            .map_err(failed("list namespaces"))?;
    Ok(paths.iter().map(|path| path.split(SEPARATOR).map(str::to_owned).collect()).collect())
}

pub(super) async fn update(
    tx: &mut SqliteConnection,
    levels: &Levels,
    set: &Properties,
    remove: &[String],
) -> Result<(), CatalogError> {
    let mut properties = require(tx, levels).await?;
    properties.retain(|key, _| !remove.contains(key));
    properties.extend(set.clone());
    sqlx::query("UPDATE namespaces SET properties = ? WHERE path = ?")
        .bind(encode(&properties))
        .bind(path(levels))
        .execute(tx)
        .await
        .map_err(failed("update a namespace"))?;
    Ok(())
}

pub(super) async fn drop(tx: &mut SqliteConnection, levels: &Levels) -> Result<(), CatalogError> {
    require(tx, levels).await?;
    let path = path(levels);
    let used: i64 = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM tables WHERE namespace = ?1)
             OR EXISTS (SELECT 1 FROM namespaces WHERE parent = ?1)",
    )
    .bind(&path)
    .fetch_one(&mut *tx)
    .await
    .map_err(failed("drop a namespace"))?;
    if used != 0 {
        return Err(CatalogError::NamespaceNotEmpty(levels.join(".")));
    }
    sqlx::query("DELETE FROM namespaces WHERE path = ?")
        .bind(&path)
        .execute(tx)
        .await
        .map_err(failed("drop a namespace"))?;
    Ok(())
}

fn encode(properties: &Properties) -> String {
    serde_json::to_string(properties).expect("a map of strings is JSON")
}

fn decode(text: &str) -> Result<Properties, CatalogError> {
    let broken = |cause| failed("read a namespace")(sqlx::Error::Decode(Box::new(cause)));
    serde_json::from_str(text).map_err(broken)
}
