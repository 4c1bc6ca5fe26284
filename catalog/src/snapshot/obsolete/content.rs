//! Data and delete files that go with the manifests that list them.
//!
//! Its one invariant: a file that is live in a manifest of a compared snapshot is never named.

use super::UnlistedManifests;
use crate::{
    error::CatalogError,
    snapshot::{changes::FileKey, entries},
    storage::Storage,
};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::{ErrorKind, spec::TableMetadata};
use std::collections::HashMap;

/// Manifests that are read at a time.
const READS_AT_ONCE: usize = 4;

/// Files that are live in manifests that go and in none that stays.
pub(super) async fn unneeded(
    storage: &Storage,
    base: &TableMetadata,
    unlisted: &UnlistedManifests,
) -> Result<Vec<String>, CatalogError> {
    if !unlisted.may_drop_files || unlisted.manifests.is_empty() {
        return Ok(Vec::new());
    }
    let read =
        |manifest: &String| live(storage.clone(), base.location().to_owned(), manifest.clone());
    let reads: Vec<_> = unlisted.manifests.iter().map(read).collect();
    let mut found: HashMap<FileKey, String> = HashMap::new();
    let mut reads = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
    while let Some(paths) = reads.try_next().await? {
        found.extend(paths.into_iter().map(|path| (FileKey::of(&path), path)));
    }
    let reads: Vec<_> = unlisted.retained.iter().map(read).collect();
    let mut reads = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
    while !found.is_empty()
        && let Some(paths) = reads.try_next().await?
    {
        for path in paths {
            found.remove(&FileKey::of(&path));
        }
    }
    Ok(found.into_values().collect())
}

/// The files that are live in a manifest.
async fn live(
    storage: Storage,
    table: String,
    manifest: String,
) -> Result<Vec<String>, CatalogError> {
    let location = storage.normalize(&table)?.admit(&manifest)?;
    let bytes = storage.get(location.as_str()).await?;
    let read = tokio::task::spawn_blocking(move || entries::live(&bytes)).await;
    let files = read.unwrap_or_else(|_| Err("it cannot be read".to_owned()));
    let files = files.map_err(|cause| CatalogError::Iceberg {
        operation: "read a manifest of a removed snapshot",
        source: iceberg::Error::new(ErrorKind::DataInvalid, cause),
    })?;
    Ok(files.into_iter().map(|file| file.path).collect())
}
