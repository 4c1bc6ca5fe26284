//! What manifest lists have in them: the manifests that two lists differ in, and the entries of some.
//!
//! Its one invariant: no manifest outside of the table's own location is read.

use crate::{
    error::CatalogError,
    location::Location,
    snapshot::entries::{self, FileEntry},
    storage::Storage,
};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::{
    ErrorKind,
    spec::{ManifestContentType, ManifestFile},
};
use std::{collections::HashSet, sync::Arc};

/// Manifests that are read at a time.
const READS_AT_ONCE: usize = 8;

/// The manifests of a kind that are in one list and not in the other.
pub(super) fn missing_from(
    these: &[ManifestFile],
    others: &[ManifestFile],
    content: ManifestContentType,
) -> Vec<ManifestFile> {
    let others: HashSet<&str> = others.iter().map(|other| other.manifest_path.as_str()).collect();
    let is_missing = |manifest: &&ManifestFile| {
        manifest.content == content && !others.contains(manifest.manifest_path.as_str())
    };
    these.iter().filter(is_missing).cloned().collect()
}

/// The live entries of manifests, each with its manifest.
pub(super) async fn live_entries(
    storage: &Storage,
    own: &Location,
    manifests: Vec<ManifestFile>,
) -> Result<Vec<(FileEntry, Arc<ManifestFile>)>, CatalogError> {
    let mut all = all_entries(storage, own, manifests).await?;
    all.retain(|(entry, _)| entry.is_live());
    Ok(all)
}

/// The entries of manifests, also of files that they say are gone, each with its manifest.
pub(super) async fn all_entries(
    storage: &Storage,
    own: &Location,
    manifests: Vec<ManifestFile>,
) -> Result<Vec<(FileEntry, Arc<ManifestFile>)>, CatalogError> {
    let unreadable = |cause: String| CatalogError::Iceberg {
        operation: "read a manifest",
        source: iceberg::Error::new(ErrorKind::DataInvalid, cause),
    };
    let reads = manifests.into_iter().map(|manifest| async move {
        let bytes = storage.get(own.admit(&manifest.manifest_path)?.as_str()).await?;
        let (mut found, manifest) = (Vec::new(), Arc::new(manifest));
        let read = entries::each(&bytes, &mut |entry| found.push((entry, Arc::clone(&manifest))));
        read.map_err(unreadable)?;
        Ok(found)
    });
    let read: Vec<Vec<_>> = stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
    Ok(read.into_iter().flatten().collect())
}
