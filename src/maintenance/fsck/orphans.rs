//! Files beneath a table's location that nothing names: they take up space and harm nobody.

use icecore_catalog::{
    catalog::{Catalog, LoadedTable},
    error::CatalogError,
    location::Location,
};
use icecore_lake::table::integrity::FileKeys;
use icecore_schemas::fsck::{FindingKind, FsckFinding, FsckTable};

/// Files that are younger may be those of a commit that is under way.
const GRACE_MS: i64 = 24 * 60 * 60 * 1_000;
/// Most files of a table that are looked at.
const FILES_MAX: usize = 1_000_000;
/// Most files of a table that wait for their deletion and are known.
const QUEUED_MAX: u32 = 1_000_000;

/// Notes how many files beneath the location no retained metadata names that are older than 24 h.
pub(super) async fn note(
    catalog: &Catalog,
    loaded: &LoadedTable,
    named: &mut FileKeys,
    report: &mut FsckTable,
) -> Result<(), CatalogError> {
    let (storage, table) = (catalog.storage(), &loaded.metadata);
    let logs = table.metadata_log().iter().map(|log| log.metadata_file.clone());
    let statistics = table.statistics_iter().map(|file| file.statistics_path.clone());
    let of_partitions = table.partition_statistics_iter().map(|file| file.statistics_path.clone());
    let queued = catalog.metastore().obsolete_below(table.location(), QUEUED_MAX).await?;
    let others = [loaded.metadata_location.clone()].into_iter().chain(queued);
    for file in others.chain(logs).chain(statistics).chain(of_partitions) {
        let normal = storage.normalize(&file);
        named.insert(normal.as_ref().map_or(file.as_str(), Location::as_str));
    }
    let files = storage.list_aged(table.location(), FILES_MAX).await?;
    let old_ms = catalog.now_ms() - GRACE_MS;
    let orphans = files.iter().filter(|file| {
        let normal = storage.normalize(&file.location);
        let location = normal.as_ref().map_or(file.location.as_str(), Location::as_str);
        file.changed_ms.is_some_and(|changed| changed < old_ms) && !named.contains(location)
    });
    let found: Vec<&str> = orphans.map(|file| file.location.as_str()).collect();
    if let Some(first) = found.first() {
        let text = format!("files older than 24 h that no snapshot names: {}", found.len());
        report.add_note(FsckFinding::new(FindingKind::Orphans, text).of_file(first));
    }
    Ok(())
}
