//! Whether the warehouse has the metadata files that the metastore names, and no newer ones.

use super::Upkeep;
use crate::{
    error::CatalogError,
    metadata_file::GZIP,
    metastore::moved::{PlaceKind, TablePlace},
    storage,
};
use futures::{StreamExt, TryStreamExt, stream};
use serde::de::IgnoredAny;
use std::collections::{HashMap, hash_map::Entry};

/// Files that are looked for at the same time.
const LOOKS: usize = 64;
const MISSING: &str = "is not there";
const FILE: &str = ".metadata.json";
const FOLDER: &str = "/metadata/";

/// A table or view whose current metadata does not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableMetadata {
    /// Which one, and the file.
    pub place: TablePlace,
    /// What is wrong with the file.
    pub reason: String,
}

impl UnreadableMetadata {
    /// All of them, where the warehouse has no files.
    #[must_use]
    pub fn all(places: Vec<TablePlace>) -> Vec<Self> {
        let current = places.into_iter().filter(|place| place.of != PlaceKind::Dropped);
        current.map(|place| Self { place, reason: MISSING.to_owned() }).collect()
    }
}

impl Upkeep<'_> {
    /// Reads the current metadata file of each table, 64 at a time, and gives those that are not
    /// there or no JSON. A file that is not the catalog's to read is left out.
    ///
    /// # Errors
    /// [`CatalogError::Storage`]: the store fails, so nothing is known.
    pub async fn unreadable(
        self,
        tables: Vec<TablePlace>,
    ) -> Result<Vec<UnreadableMetadata>, CatalogError> {
        let looked =
            stream::iter(tables.into_iter().filter(|table| table.of != PlaceKind::Dropped))
                .map(|place| async move {
                    let reason = match self.0.storage().get(&place.metadata_location).await {
                        Ok(bytes) if bytes.starts_with(&GZIP) => None,
                        Ok(bytes) => serde_json::from_slice::<IgnoredAny>(&bytes)
                            .err()
                            .map(|cause| format!("is damaged ({cause})")),
                        Err(cause) if storage::is_missing(&cause) => Some(MISSING.to_owned()),
                        Err(CatalogError::LocationForbidden(_)) => None,
                        Err(cause) => return Err(cause),
                    };
                    Ok(reason.map(|reason| UnreadableMetadata { place, reason }))
                })
                .buffer_unordered(LOOKS);
        let found: Vec<Option<UnreadableMetadata>> = looked.try_collect().await?;
        let mut found: Vec<UnreadableMetadata> = found.into_iter().flatten().collect();
        found.sort_by(|a, b| a.place.metadata_location.cmp(&b.place.metadata_location));
        Ok(found)
    }

    /// The newest metadata file of each folder of the warehouse, where the metastore names none of
    /// that folder or an older one. One that a commit left which came to nothing may be among them.
    ///
    /// # Errors
    /// [`CatalogError::Storage`].
    pub async fn newer_metadata(self, tables: &[TablePlace]) -> Result<Vec<String>, CatalogError> {
        let mut named: HashMap<&str, u64> = HashMap::new();
        for table in tables {
            if let Some((folder, version)) = version(&table.metadata_location) {
                named.insert(folder, version);
            }
        }
        let files = self.0.storage().list(self.0.storage().root()).await?;
        let mut newest: HashMap<&str, (u64, &str)> = HashMap::new();
        for file in &files {
            let Some((folder, version)) = version(file) else { continue };
            if named.get(folder).is_some_and(|named| version <= *named) {
                continue;
            }
            match newest.entry(folder) {
                Entry::Occupied(mut held) if held.get().0 < version => {
                    held.insert((version, file));
                }
                Entry::Occupied(_) => (),
                Entry::Vacant(place) => {
                    place.insert((version, file));
                }
            }
        }
        let mut found: Vec<String> =
            newest.into_values().map(|(_, file)| file.to_owned()).collect();
        found.sort();
        Ok(found)
    }
}

/// The table's folder and the number in the name of a metadata file of the usual form.
fn version(location: &str) -> Option<(&str, u64)> {
    let (folder, name) = location.rsplit_once(FOLDER)?;
    let number = name.strip_suffix(FILE)?.split_once('-')?.0;
    Some((folder, number.parse().ok()?))
}
