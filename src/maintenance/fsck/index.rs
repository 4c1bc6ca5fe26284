//! The metastore's rows about a table's snapshots, against its metadata.

use icecore_catalog::{
    catalog::{Catalog, LoadedTable},
    commit::{FIRST_SEQ, LAST_SEQ},
    error::CatalogError,
};
use icecore_lake::table::schema::TableIdent;
use icecore_schemas::fsck::{FindingKind, FsckFinding, FsckTable};
use std::collections::HashMap;

/// How often both are read anew where a commit came between.
const READS_MAX: usize = 3;

/// The first and last number of a snapshot's rows, where it has numbers.
type SeqSpan = Option<(u64, u64)>;

/// Holds them against each other. A table that moves on all the time is left alone.
pub(super) async fn check(
    catalog: &Catalog,
    table: &TableIdent,
    loaded: &LoadedTable,
    is_ours: bool,
    report: &mut FsckTable,
) -> Result<(), CatalogError> {
    let mut loaded = loaded.clone();
    for _ in 0..READS_MAX {
        let rows = match catalog.tables().snapshots(table).await {
            Err(CatalogError::NoSuchTable(_)) => return Ok(()),
            rows => rows?,
        };
        let now = match catalog.tables().load(table).await {
            Err(CatalogError::Metastore { operation, source }) => {
                return Err(CatalogError::Metastore { operation, source });
            }
            // What is wrong with its file is told already, or it was dropped.
            Err(_) => return Ok(()),
            Ok(now) => now,
        };
        if now.version != loaded.version {
            loaded = now;
            continue;
        }
        let rows = rows.into_iter().map(|row| (row.snapshot_id, row.seq)).collect();
        for finding in differences(&loaded, rows) {
            match is_ours {
                true => report.add_damage(finding),
                false => report.add_note(finding),
            }
        }
        return Ok(());
    }
    Ok(())
}

fn differences(loaded: &LoadedTable, mut rows: HashMap<i64, SeqSpan>) -> Vec<FsckFinding> {
    let mut found = Vec::new();
    for snapshot in loaded.metadata.snapshots() {
        let id = snapshot.snapshot_id();
        let summary = &snapshot.summary().additional_properties;
        let number = |key: &str| summary.get(key).and_then(|text| text.parse::<u64>().ok());
        let told = number(FIRST_SEQ).zip(number(LAST_SEQ));
        let what = match rows.remove(&id) {
            None => "the metastore does not know the snapshot",
            Some(seq) if seq != told => "the metastore has other numbers of its rows",
            Some(_) => continue,
        };
        found.push(FsckFinding::new(FindingKind::Metadata, what).of_snapshot(id));
    }
    let mut left: Vec<i64> = rows.into_keys().collect();
    left.sort_unstable();
    let what = "the metastore has a snapshot that the metadata file does not have";
    found.extend(
        left.iter().map(|id| FsckFinding::new(FindingKind::Metadata, what).of_snapshot(*id)),
    );
    found
}
