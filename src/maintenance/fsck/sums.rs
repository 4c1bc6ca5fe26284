//! The sum of a table's rows, held against what its commits say and against the account that the metastore
//! has of them: the table's side of what `icecore audit events` compares.
//!
//! Its one invariant: it notes nothing in the metastore. What it finds of other engines' commits the audit
//! finds again, and keeps.

use crate::maintenance::pace::PacedWork;
use icecore_catalog::{
    catalog::{Catalog, LoadedTable},
    error::{CatalogError, with_causes},
    metastore::RowAccount,
    scan::{Deadline, ManifestSource, manifests::ManifestCache},
};
use icecore_lake::table::{
    conservation::{self, RowFindings},
    integrity::PROBE,
    row_sum::RowKeys,
    schema::TableIdent,
};
use icecore_schemas::fsck::{FindingKind, FsckFinding, FsckTable};

/// How often a table is looked up until it does not change between two looks.
const LOOKS_MAX: usize = 20;

/// Compares the sums. A table that does not read is told of by whoever read its files.
pub(super) async fn check(
    catalog: &Catalog,
    table: &TableIdent,
    report: &mut FsckTable,
    pace: &mut PacedWork,
) -> Result<(), CatalogError> {
    let Some((loaded, account)) = looked_up(catalog, table).await? else {
        let text =
            "the sums of the rows are not compared: the table changes all the time, or is gone";
        report.add_note(FsckFinding::new(FindingKind::Unchecked, text));
        return Ok(());
    };
    let metadata = loaded.metadata.as_ref();
    let Some(keys) = RowKeys::of(metadata.current_schema()) else { return Ok(()) };
    // It is not kept: the manifests of a large table take hundreds of MiB.
    let (storage, cache) = (catalog.storage(), ManifestCache::default());
    let source = ManifestSource { storage, cache: &cache, metadata, until: Deadline::NONE };
    let compared = Box::pin(conservation::check(source, keys, &account));
    match pace.over(compared).await {
        Ok(found) => tell(&found, &account, report),
        Err(cause) => {
            storage.look().await?;
            if !storage.answers(PROBE).await {
                return Err(CatalogError::WarehouseOutage(with_causes(&cause)));
            }
            // All of its files were read before: what is wrong with them is told.
            let text = format!("the sums of the rows are not compared: {}", with_causes(&cause));
            report.add_note(FsckFinding::new(FindingKind::Unchecked, text));
        }
    }
    Ok(())
}

/// A table with the account of its rows, both of one version; none where it is gone or changed at each look.
async fn looked_up(
    catalog: &Catalog,
    table: &TableIdent,
) -> Result<Option<(LoadedTable, RowAccount)>, CatalogError> {
    for _ in 0..LOOKS_MAX {
        let loaded = match catalog.tables().load(table).await {
            Err(CatalogError::NoSuchTable(_)) => return Ok(None),
            loaded => loaded?,
        };
        let account = catalog.metastore().row_account(loaded.metadata.uuid()).await?;
        if let Some((_, account)) = account.filter(|(version, _)| *version == loaded.version) {
            return Ok(Some((loaded, account)));
        }
    }
    Ok(None)
}

fn tell(found: &RowFindings, account: &RowAccount, report: &mut FsckTable) {
    if found.begins {
        let text = "no retained snapshot tells the sum of the rows before its last ones: `icecore audit \
                    events` takes the rows as they are now, and later checks go on from them";
        report.add_note(FsckFinding::new(FindingKind::Unchecked, text));
        return;
    }
    let acked = account.acked;
    if found.agree(acked) {
        return;
    }
    if found.table == found.expected && *account == RowAccount::default() {
        // It was registered with its rows: no row is missing of those that its commits tell.
        let text =
            "the metastore has no account of the rows: they are held against the commits alone";
        report.add_note(FsckFinding::new(FindingKind::Unchecked, text));
        return;
    }
    let due = found.opening.merge(acked).merge(found.foreign).minus(found.removed);
    let (whose, expected) = match found.table == found.expected {
        true => ("the account of the metastore has", due),
        false => ("its commits say", found.expected),
    };
    let text = format!(
        "the sum of its rows (`id` and `seq`) is {}, and {whose} {expected}: rows are lost, changed, or there twice",
        found.table
    );
    let finding = FsckFinding::new(FindingKind::Sums, text);
    report.add_damage(match found.parts_at {
        Some(snapshot) => finding.of_snapshot(snapshot),
        None => finding,
    });
}
