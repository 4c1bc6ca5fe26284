//! Where everything lies that the metastore has, and how a table gets another place: for a
//! warehouse that was moved as a whole.

use super::{Metastore, SEPARATOR, failed, obsolete, orphans};
use crate::{
    error::CatalogError,
    location::Location,
    metastore::{Levels, ObsoleteFile, Properties},
};
use sqlx::{Any, Transaction};
use uuid::Uuid;

/// What lies at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceKind {
    /// A table.
    Table,
    /// A view.
    View,
    /// A dropped table that can be restored.
    Dropped,
}

/// Where a table or view lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePlace {
    /// Of what.
    pub of: PlaceKind,
    /// Its identity.
    pub uuid: Uuid,
    /// Its namespace.
    pub levels: Levels,
    /// Its name.
    pub name: String,
    /// Its folder.
    pub location: String,
    /// Its current metadata file.
    pub metadata_location: String,
}

type PlaceRow = (String, String, String, String, String, String);

impl Metastore {
    /// The places of all tables and views, dropped tables included, in the order of their names.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn places(&self) -> Result<Vec<TablePlace>, CatalogError> {
        let rows: Vec<PlaceRow> = sqlx::query_as(
            "SELECT kind, uuid, namespace, name, location, metadata_location FROM tables
             UNION ALL
             SELECT 'dropped', uuid, namespace, name, location, metadata_location FROM trash
             ORDER BY 3, 4, 2",
        )
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(failed("read the places of tables"))?;
        rows.into_iter().map(into_place).collect()
    }

    /// Gives a table or view another place and queues the files that nothing needs after that.
    /// False when it changed meanwhile. Durable on return.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn move_place(
        &self,
        place: &TablePlace,
        location: &str,
        metadata_location: &str,
        files: &[ObsoleteFile],
    ) -> Result<bool, CatalogError> {
        let statement = match place.of {
            PlaceKind::Table | PlaceKind::View => {
                "UPDATE tables SET location = $1, metadata_location = $2, version = version + 1
                 WHERE uuid = $3 AND metadata_location = $4"
            }
            PlaceKind::Dropped => {
                "UPDATE trash SET location = $1, metadata_location = $2
                 WHERE uuid = $3 AND metadata_location = $4"
            }
        };
        let mut tx = self.begin().await?;
        let changed = sqlx::query(statement)
            .bind(location)
            .bind(metadata_location)
            .bind(place.uuid.to_string())
            .bind(&place.metadata_location)
            .execute(&mut *tx)
            .await
            .map_err(failed("move a table"))?;
        if changed.rows_affected() != 1 {
            return Ok(false);
        }
        obsolete::add(&mut tx, files).await?;
        tx.commit().await.map_err(failed("move a table"))?;
        Ok(true)
    }

    /// Moves what is no table: the locations that namespaces have as a property, and the files that
    /// wait to be deleted. Gives how many of both moved.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn move_others(
        &self,
        from: &Location,
        to: &Location,
    ) -> Result<(u64, u64), CatalogError> {
        let mut tx = self.begin().await?;
        let namespaces = move_namespaces(&mut tx, from, to).await?;
        let queued: Vec<(String, i64)> =
            sqlx::query_as("SELECT location, not_before_ms FROM obsolete")
                .fetch_all(&mut *tx)
                .await
                .map_err(failed("read the deletion queue"))?;
        let mut files = 0;
        for (old, not_before_ms) in queued {
            let Some(location) = from.moved(&old, to) else { continue };
            obsolete::forget(&mut tx, &[old]).await?;
            obsolete::add(&mut tx, &[ObsoleteFile { location, not_before_ms }]).await?;
            files += 1;
        }
        // Whatever was seen at the old places is seen anew at the new ones.
        orphans::forget_all(&mut tx).await?;
        tx.commit().await.map_err(failed("move a warehouse"))?;
        Ok((namespaces, files))
    }
}

async fn move_namespaces(
    tx: &mut Transaction<'static, Any>,
    from: &Location,
    to: &Location,
) -> Result<u64, CatalogError> {
    let rows: Vec<(String, String)> = sqlx::query_as("SELECT path, properties FROM namespaces")
        .fetch_all(&mut **tx)
        .await
        .map_err(failed("read namespaces"))?;
    let mut moved = 0;
    for (path, properties) in rows {
        let broken = |cause| failed("read a namespace")(sqlx::Error::Decode(Box::new(cause)));
        let mut properties: Properties = serde_json::from_str(&properties).map_err(broken)?;
        let Some(location) = properties.get("location").and_then(|old| from.moved(old, to)) else {
            continue;
        };
        properties.insert("location".to_owned(), location);
        let text = serde_json::to_string(&properties).map_err(broken)?;
        sqlx::query("UPDATE namespaces SET properties = $1 WHERE path = $2")
            .bind(text)
            .bind(path)
            .execute(&mut **tx)
            .await
            .map_err(failed("move a namespace"))?;
        moved += 1;
    }
    Ok(moved)
}

fn into_place(row: PlaceRow) -> Result<TablePlace, CatalogError> {
    let (kind, uuid, namespace, name, location, metadata_location) = row;
    let broken = |cause| failed("read a table")(sqlx::Error::Decode(Box::new(cause)));
    Ok(TablePlace {
        of: match kind.as_str() {
            "view" => PlaceKind::View,
            "dropped" => PlaceKind::Dropped,
            _ => PlaceKind::Table,
        },
        uuid: Uuid::parse_str(&uuid).map_err(broken)?,
        levels: namespace.split(SEPARATOR).map(str::to_owned).collect(),
        name,
        location,
        metadata_location,
    })
}
