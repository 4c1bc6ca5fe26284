//! Which locations a client may give to a table.
//!
//! A table lies inside the warehouse, in no other table and around none, and everything it names
//! lies inside the table: reading, maintenance and purge then cannot be led to others' files. What
//! a commit's manifests name is looked at in [`super::manifest_check`].

use super::name_list;
use crate::{
    commit,
    error::CatalogError,
    location::{Location, PATH_PROPERTIES},
    storage::Storage,
};
use iceberg::{TableUpdate, spec::TableMetadata};
use std::collections::HashMap;

/// A location that a client wants for a table.
pub(super) fn for_a_table(storage: &Storage, location: &str) -> Result<Location, CatalogError> {
    let parsed = storage.normalize(location)?;
    let own = Location::parse(&format!("{}/{}", storage.root(), name_list::FOLDER));
    if own.is_some_and(|own| parsed == own || parsed.is_inside(&own)) {
        return Err(CatalogError::Invalid(format!(
            "location `{location}` is in the folder `{}`, which the catalog keeps for itself: choose \
             another one",
            name_list::FOLDER
        )));
    }
    if parsed.is_fit_for_a_table() {
        return Ok(parsed);
    }
    Err(CatalogError::Invalid(format!(
        "location `{location}` has a folder whose name starts or ends with a space or ends with a \
         dot: rename it"
    )))
}

/// Brings a table's new location into normal form.
pub(super) fn normalize(storage: &Storage, update: &mut TableUpdate) -> Result<(), CatalogError> {
    if let TableUpdate::SetLocation { location } = update {
        *location = for_a_table(storage, location)?.to_string();
    }
    Ok(())
}

/// Refuses to move a table that has files: they would stay where they are, in a folder that is no
/// longer the table's.
pub(super) fn check_move(
    storage: &Storage,
    base: &TableMetadata,
    new: &TableMetadata,
) -> Result<(), CatalogError> {
    let own = storage.normalize(new.location())?;
    if storage.normalize(base.location())? == own {
        return Ok(());
    }
    if base.snapshots().len() > 0 || new.snapshots().len() > 0 {
        return Err(CatalogError::Invalid(format!(
            "the table has files at `{}` and cannot move: create a table at the new location and \
             copy the rows",
            base.location()
        )));
    }
    paths(new).try_for_each(|path| own.admit(path).map(|_| ()))
}

/// Checks what a commit adds: snapshots, statistics and paths set by properties.
pub(super) fn check(
    storage: &Storage,
    new: &TableMetadata,
    updates: &[TableUpdate],
) -> Result<(), CatalogError> {
    let own = storage.normalize(new.location())?;
    for snapshot in commit::added(updates) {
        own.admit(snapshot.manifest_list())?;
    }
    for update in updates {
        match update {
            TableUpdate::SetStatistics { statistics } => {
                own.admit(&statistics.statistics_path)?;
            }
            TableUpdate::SetPartitionStatistics { partition_statistics } => {
                own.admit(&partition_statistics.statistics_path)?;
            }
            TableUpdate::SetProperties { updates } => {
                let paths = PATH_PROPERTIES.iter().filter_map(|key| updates.get(*key));
                paths.map(String::as_str).try_for_each(|path| own.admit(path).map(|_| ()))?;
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
) -> Result<Location, CatalogError> {
    let view = for_a_table(storage, location)?;
    let paths = PATH_PROPERTIES.iter().filter_map(|key| properties.get(*key));
    paths.into_iter().try_for_each(|path| view.admit(path).map(|_| ()))?;
    Ok(view)
}

/// Checks everything that a metadata file from elsewhere names, and the file's own place.
pub(super) fn check_adopted(
    storage: &Storage,
    metadata: &TableMetadata,
    metadata_location: &str,
) -> Result<(), CatalogError> {
    let own = for_a_table(storage, metadata.location())?;
    let lists = metadata.snapshots().map(|snapshot| snapshot.manifest_list());
    let statistics = metadata.statistics_iter().map(|file| file.statistics_path.as_str());
    let partitions = metadata.partition_statistics_iter().map(|file| file.statistics_path.as_str());
    let log = metadata.metadata_log().iter().map(|entry| entry.metadata_file.as_str());
    let named = lists.chain(statistics).chain(partitions).chain(log).chain(paths(metadata));
    for file in named.chain([metadata_location]) {
        own.admit(file)?;
    }
    Ok(())
}

/// What a table cannot be without: its metadata file and what that names, but for the files that
/// are older than the table's state.
pub(super) fn needs(metadata: &TableMetadata, metadata_location: &str) -> Vec<String> {
    let lists = metadata.snapshots().map(|snapshot| snapshot.manifest_list());
    let statistics = metadata.statistics_iter().map(|file| file.statistics_path.as_str());
    let partitions = metadata.partition_statistics_iter().map(|file| file.statistics_path.as_str());
    let named = lists.chain(statistics).chain(partitions).chain([metadata_location]);
    // The queue has them in normal form.
    named
        .map(|file| Location::parse(file).map_or(file.to_owned(), |file| file.to_string()))
        .collect()
}

/// Where the table's properties tell writers to put files.
fn paths(metadata: &TableMetadata) -> impl Iterator<Item = &str> {
    let set = PATH_PROPERTIES.iter().filter_map(|key| metadata.properties().get(*key));
    set.map(String::as_str)
}
