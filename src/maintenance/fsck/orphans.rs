//! Files of a table's folder that nothing names: they take up space and harm nobody. They are those that the
//! job `orphans` would remove.

use icecore_catalog::{
    catalog::{Catalog, ORPHAN_GRACE_MIN_MS},
    error::CatalogError,
};
use icecore_lake::table::schema::TableIdent;
use icecore_schemas::fsck::{FindingKind, FsckFinding, FsckTable};

/// Notes how many files there are that no retained metadata names and that are older than 24 h, or why they
/// are not looked for.
pub(super) async fn note(
    catalog: &Catalog,
    table: &TableIdent,
    report: &mut FsckTable,
) -> Result<(), CatalogError> {
    let search = match catalog.orphans().search(table, ORPHAN_GRACE_MIN_MS).await {
        Ok(search) => search,
        // It was dropped meanwhile.
        Err(CatalogError::NoSuchTable(_)) => return Ok(()),
        Err(CatalogError::Invalid(reason)) => {
            let text = format!("files that no snapshot names are not looked for: {reason}");
            report.add_note(FsckFinding::new(FindingKind::Unchecked, text));
            return Ok(());
        }
        Err(cause) => return Err(cause),
    };
    let found = search.orphans();
    if let Some(first) = found.first() {
        let text = format!("files older than 24 h that no snapshot names: {}", found.len());
        report.add_note(FsckFinding::new(FindingKind::Orphans, text).of_file(&first.location));
    }
    Ok(())
}
