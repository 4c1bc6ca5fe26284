//! One snapshot: its manifest list, and its summary against what the manifests have.

use crate::table::integrity::{
    TableCheck, apart,
    history::is_own,
    manifests::{self, ManifestSums},
};
use iceberg::spec::{ManifestContentType, ManifestFile, SnapshotRef};
use icecore_catalog::{error::CatalogError, manifest_file};
use icecore_schemas::fsck::{FindingKind, FsckFinding};

/// Checks what a snapshot names.
pub(super) async fn check(
    check: &mut TableCheck<'_>,
    snapshot: &SnapshotRef,
) -> Result<(), CatalogError> {
    let id = snapshot.snapshot_id();
    if snapshot.encryption_key_id().is_some() {
        let text = "the snapshot is encrypted and is not checked";
        check.note(FsckFinding::new(FindingKind::Unchecked, text).of_snapshot(id));
        check.is_current_torn |= check.is_current(id);
        return Ok(());
    }
    let location = snapshot.manifest_list();
    check.name(location);
    let Some(listed) = listed(check, snapshot).await? else { return Ok(()) };
    let mut sums = Some(ManifestSums::default());
    for manifest in &listed {
        let known = check.manifests.get(&manifest.manifest_path).copied();
        let of = match known {
            Some(known) => Some(known),
            None => {
                let of = Box::pin(manifests::check(check, manifest, id)).await?;
                if let Some(of) = of {
                    check.manifests.insert(manifest.manifest_path.clone(), of);
                }
                of
            }
        };
        sums = sums.zip(of).map(|(sums, of)| sums.and(of));
    }
    if let Some(sums) = sums {
        if check.is_current(id) {
            check.found.report.rows = sums.rows;
        }
        let adds = Additions::of(&listed, id);
        check_summary(check, snapshot, sums, adds);
    }
    Ok(())
}

/// The manifests of a snapshot; none where its list does not read, which is told.
pub(super) async fn listed(
    check: &mut TableCheck<'_>,
    snapshot: &SnapshotRef,
) -> Result<Option<Vec<ManifestFile>>, CatalogError> {
    let (id, location) = (snapshot.snapshot_id(), snapshot.manifest_list());
    let finding = FsckFinding::new(FindingKind::ManifestList, "the manifest list").of_snapshot(id);
    let bytes = match check.input.storage.get(location).await {
        Ok(bytes) => bytes,
        Err(cause) => {
            check.failed(finding, location, cause).await?;
            return Ok(None);
        }
    };
    let version = check.table().format_version();
    let parsed = apart(move || {
        let list = manifest_file::parse_list(&bytes, version).map_err(|cause| cause.to_string())?;
        Ok::<Vec<ManifestFile>, String>(list.consume_entries().into_iter().collect())
    });
    let parsed = parsed.await.unwrap_or_else(|| Err("its parser failed".to_owned()));
    match parsed {
        Ok(listed) => Ok(Some(listed)),
        Err(reason) => {
            check.is_current_torn |= check.is_current(id);
            let what = format!("the manifest list does not read: {reason}");
            check.damage(FsckFinding { what, ..finding }.of_file(location));
            Ok(None)
        }
    }
}

/// Rows and data files that a snapshot adds, by its list.
#[derive(Clone, Copy, Debug, Default)]
struct Additions {
    files: u64,
    rows: u64,
}

impl Additions {
    /// None where the list does not tell.
    fn of(listed: &[ManifestFile], snapshot: i64) -> Option<Self> {
        let own = listed.iter().filter(|manifest| {
            manifest.added_snapshot_id == snapshot && manifest.content == ManifestContentType::Data
        });
        let mut adds = Self::default();
        for manifest in own {
            adds.files += u64::from(manifest.added_files_count?);
            adds.rows += manifest.added_rows_count?;
        }
        Some(adds)
    }
}

/// A number of a summary; none where it has none.
pub(super) fn number(snapshot: &SnapshotRef, key: &str) -> Option<u64> {
    snapshot.summary().additional_properties.get(key)?.parse().ok()
}

/// Holds a summary against the manifests. One that other engines wrote may be off, and ours then go on
/// from it: what counts is whether a snapshot of ours brought the difference.
fn check_summary(
    check: &mut TableCheck<'_>,
    snapshot: &SnapshotRef,
    sums: ManifestSums,
    adds: Option<Additions>,
) {
    let (id, ours) = (snapshot.snapshot_id(), check.is_ours() && is_own(snapshot));
    let table = check.table();
    let follows_others =
        table.snapshots().any(|other| !is_own(other) && is_before(other, snapshot));
    let mut wrong: Vec<(String, bool)> = Vec::new();
    for (key, found) in sums.totals() {
        let Some(told) = number(snapshot, key).filter(|told| *told != found) else { continue };
        let what = format!("`{key}` is {told}, and the manifests have {found}");
        wrong.push((what, ours && !follows_others));
    }
    let adds = adds.map_or([None; 2], |adds| {
        [("added-data-files", adds.files), ("added-records", adds.rows)].map(Some)
    });
    for (key, found) in adds.into_iter().flatten() {
        let Some(told) = number(snapshot, key).filter(|told| *told != found) else { continue };
        wrong.push((format!("`{key}` is {told}, and its manifests add {found}"), ours));
    }
    for (what, is_damage) in wrong {
        let finding = FsckFinding::new(FindingKind::Summary, what).of_snapshot(id);
        match is_damage {
            true => check.damage(finding),
            false => check.note(finding),
        }
    }
}

fn is_before(one: &SnapshotRef, other: &SnapshotRef) -> bool {
    one.sequence_number() < other.sequence_number()
}
