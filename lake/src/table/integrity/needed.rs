//! Which of some files a table still needs: those that a retained snapshot names.

use crate::table::integrity::apart;
use iceberg::spec::ManifestFile;
use icecore_catalog::{
    catalog::LoadedTable,
    error::CatalogError,
    manifest_file,
    scan::manifests::live_files,
    storage::{Storage, is_missing},
};
use std::collections::HashSet;

/// Those of `files` that a retained snapshot of `table` names. Where a list or manifest is not there or does not
/// read, each of them may be.
///
/// # Errors
/// [`CatalogError`]: the warehouse does not answer.
pub async fn needed(
    storage: &Storage,
    table: &LoadedTable,
    files: &HashSet<String>,
) -> Result<HashSet<String>, CatalogError> {
    let metadata = &table.metadata;
    let mut found: HashSet<String> = HashSet::new();
    let mut seen: HashSet<String> = HashSet::new();
    for snapshot in metadata.snapshots() {
        let list = snapshot.manifest_list();
        found.extend(files.get(list).cloned());
        let Some(bytes) = read(storage, list).await? else { return Ok(files.clone()) };
        let version = metadata.format_version();
        let parsed = apart(move || {
            let list = manifest_file::parse_list(&bytes, version).ok()?;
            Some(list.consume_entries().into_iter().collect::<Vec<ManifestFile>>())
        });
        let Some(listed) = parsed.await.flatten() else { return Ok(files.clone()) };
        for manifest in listed {
            found.extend(files.get(&manifest.manifest_path).cloned());
            if !seen.insert(manifest.manifest_path.clone()) {
                continue;
            }
            let Some(bytes) = read(storage, &manifest.manifest_path).await? else {
                return Ok(files.clone());
            };
            let parsed = apart(move || {
                let parsed = manifest_file::parse(&bytes).ok()?;
                Some(live_files(&parsed, &manifest))
            });
            let Some(live) = parsed.await.flatten() else { return Ok(files.clone()) };
            found.extend(live.iter().filter_map(|file| files.get(&file.location).cloned()));
        }
    }
    Ok(found)
}

/// A file; none where it is not there, or not the warehouse's.
async fn read(storage: &Storage, location: &str) -> Result<Option<bytes::Bytes>, CatalogError> {
    match storage.get(location).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(CatalogError::LocationForbidden(_)) => Ok(None),
        Err(cause) if is_missing(&cause) => Ok(None),
        Err(cause) => Err(cause),
    }
}
