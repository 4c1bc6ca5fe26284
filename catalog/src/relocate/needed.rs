//! Which files a table needs: for a copy of it.

use super::{
    manifests::{DELETED, ListedManifests},
    metadata::{parsed, texts},
    unreadable,
};
use crate::{avro, error::CatalogError, metastore::moved::TablePlace, storage, storage::Storage};
use serde_json::Value;
use std::collections::BTreeSet;

/// The files of all retained snapshots of a table or view: metadata, older metadata files that are
/// still there, manifest lists, manifests, data, delete and statistics files.
///
/// # Errors
/// [`CatalogError::Storage`], [`CatalogError::Invalid`].
pub async fn needed(
    storage: &Storage,
    place: &TablePlace,
) -> Result<BTreeSet<String>, CatalogError> {
    let mut files = BTreeSet::from([place.metadata_location.clone()]);
    let path = &place.metadata_location;
    let bytes = storage.get(path).await.map_err(|cause| match storage::is_missing(&cause) {
        true => CatalogError::MissingMetadata(path.clone()),
        false => cause,
    })?;
    let metadata = parsed(path, &bytes)?;
    for older in texts(&metadata, "metadata-log", "metadata-file") {
        if storage.exists(&older).await? {
            files.insert(older);
        }
    }
    for (list, member) in
        [("statistics", "statistics-path"), ("partition-statistics", "statistics-path")]
    {
        files.extend(texts(&metadata, list, member));
    }
    let mut manifests: BTreeSet<String> = BTreeSet::new();
    for list in texts(&metadata, "snapshots", "manifest-list") {
        let mut listed = ListedManifests::default();
        read(storage, &list, &mut listed).await?;
        manifests.extend(listed.0);
        files.insert(list);
    }
    let snapshots = metadata.get("snapshots").and_then(Value::as_array).into_iter().flatten();
    let named = snapshots.filter_map(|snapshot| snapshot.get("manifests")?.as_array()).flatten();
    manifests.extend(named.filter_map(|path| path.as_str().map(str::to_owned)));
    for manifest in manifests {
        let mut named = LivingFiles::default();
        read(storage, &manifest, &mut named).await?;
        files.extend(named.files);
        files.insert(manifest);
    }
    Ok(files)
}

async fn read(
    storage: &Storage,
    path: &str,
    into: &mut (dyn avro::ValueEdit + Send),
) -> Result<(), CatalogError> {
    let bytes = storage.get(path).await?;
    avro::rewrite(&bytes, into).map(|_| ()).map_err(|cause| unreadable(path, cause))
}

/// The files of a manifest's living entries.
#[derive(Default)]
struct LivingFiles {
    files: Vec<String>,
    status: i64,
}

impl avro::ValueEdit for LivingFiles {
    fn text(&mut self, path: &[&str], value: &str) -> Option<String> {
        if path == ["data_file", "file_path"] && self.status != DELETED {
            self.files.push(value.to_owned());
        }
        None
    }

    fn number(&mut self, path: &[&str], value: i64) -> Option<i64> {
        if path == ["status"] {
            self.status = value;
        }
        None
    }
}
