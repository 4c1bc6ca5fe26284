//! Which locations a client may give to a table.
//!
//! A table lies inside the warehouse, and everything it names lies inside the table: reading,
//! maintenance and purge then cannot be led to other tables' files.

use crate::{
    commit,
    error::CatalogError,
    storage::{Storage, location::is_below},
};
use iceberg::{TableUpdate, spec::TableMetadata};
use std::collections::HashMap;

/// Properties with which writers place files elsewhere.
const PATH_PROPERTIES: [&str; 4] = [
    "write.data.path",
    "write.metadata.path",
    "write.object-storage.path",
    "write.folder-storage.path",
];

/// Brings a table's new location into normal form.
pub(super) fn normalize(storage: &Storage, update: &mut TableUpdate) -> Result<(), CatalogError> {
    if let TableUpdate::SetLocation { location } = update {
        *location = storage.normalize(location)?;
    }
    Ok(())
}

/// Checks what a commit adds: snapshots, statistics and paths set by properties.
///
/// A table that moves may still name files below its old location.
pub(super) fn check(
    storage: &Storage,
    base: Option<&TableMetadata>,
    new: &TableMetadata,
    updates: &[TableUpdate],
) -> Result<(), CatalogError> {
    let table = storage.normalize(new.location())?;
    let old = base.map(|base| storage.normalize(base.location())).transpose()?;
    let check = |file: &str| {
        let file = storage.normalize(file)?;
        let is_ours =
            is_below(&file, &table) || old.as_ref().is_some_and(|old| is_below(&file, old));
        if is_ours { Ok(()) } else { Err(CatalogError::LocationForbidden(file)) }
    };
    for snapshot in commit::added(updates) {
        check(snapshot.manifest_list())?;
    }
    for update in updates {
        match update {
            TableUpdate::SetStatistics { statistics } => check(&statistics.statistics_path)?,
            TableUpdate::SetPartitionStatistics { partition_statistics } => {
                check(&partition_statistics.statistics_path)?;
            }
            TableUpdate::SetProperties { updates } => {
                let paths = PATH_PROPERTIES.iter().filter_map(|key| updates.get(*key));
                paths.map(String::as_str).try_for_each(check)?;
            }
            _ => (),
        }
    }
    Ok(())
}

/// Checks where a view lies, and that it names no file elsewhere; gives the location in normal form.
pub(super) fn check_view(
    storage: &Storage,
    location: &str,
    properties: &HashMap<String, String>,
) -> Result<String, CatalogError> {
    let view = storage.normalize(location)?;
    for path in PATH_PROPERTIES.iter().filter_map(|key| properties.get(*key)) {
        if !is_below(&storage.normalize(path)?, &view) {
            return Err(CatalogError::LocationForbidden(path.clone()));
        }
    }
    Ok(view)
}

/// Checks everything that a metadata file from elsewhere names, and the file's own place.
pub(super) fn check_adopted(
    storage: &Storage,
    metadata: &TableMetadata,
    metadata_location: &str,
) -> Result<(), CatalogError> {
    let table = storage.normalize(metadata.location())?;
    let lists = metadata.snapshots().map(|snapshot| snapshot.manifest_list());
    let statistics = metadata.statistics_iter().map(|file| file.statistics_path.as_str());
    let partitions = metadata.partition_statistics_iter().map(|file| file.statistics_path.as_str());
    let log = metadata.metadata_log().iter().map(|entry| entry.metadata_file.as_str());
    let properties = PATH_PROPERTIES.iter().filter_map(|key| metadata.properties().get(*key));
    let named = lists.chain(statistics).chain(partitions).chain(log);
    for file in named.chain(properties.map(String::as_str)).chain([metadata_location]) {
        let normal = storage.normalize(file)?;
        if !is_below(&normal, &table) {
            return Err(CatalogError::LocationForbidden(file.to_owned()));
        }
    }
    Ok(())
}
