//! Where the current metadata of every table and view is, for those who look at all of them.

use super::{SEPARATOR, SqlMetastore, failed};
use crate::{error::CatalogError, metastore::Levels};

/// A table's or view's name and the file that it is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// The namespace.
    pub levels: Levels,
    /// The name.
    pub name: String,
    /// Its current metadata file.
    pub metadata_location: String,
    /// Whether it was dropped and can be had back.
    pub is_dropped: bool,
}

impl SqlMetastore {
    /// Every table and view, the dropped ones that can be had back included.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn pointers(&self) -> Result<Vec<Pointer>, CatalogError> {
        let rows: Vec<(String, String, String, i64)> = sqlx::query_as(
            "SELECT namespace, name, metadata_location, CAST(0 AS BIGINT) FROM tables UNION ALL
             SELECT namespace, name, metadata_location, CAST(1 AS BIGINT) FROM trash",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(failed("read where metadata is"))?;
        let pointer =
            |(namespace, name, metadata_location, dropped): (String, String, String, i64)| {
                Pointer {
                    levels: namespace.split(SEPARATOR).map(str::to_owned).collect(),
                    name,
                    metadata_location,
                    is_dropped: dropped != 0,
                }
            };
        Ok(rows.into_iter().map(pointer).collect())
    }
}
