//! One snapshot: its manifest list, and its summary against what the manifests have.

use crate::table::integrity::{
    TableCheck, apart,
    manifests::{self, ManifestSums},
    summary::{is_own, is_taken_back, number},
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
            let deleted = sums.positions.min(sums.rows);
            check.found.report.rows = sums.rows - deleted;
            check.found.report.deleted_rows = deleted;
        }
        check.sums.insert(id, sums);
        check_additions(check, snapshot, Additions::of(&listed, id));
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

/// Holds what a summary says of its own snapshot against the manifests.
fn check_additions(check: &mut TableCheck<'_>, snapshot: &SnapshotRef, adds: Option<Additions>) {
    let Some(adds) = adds else { return };
    if is_taken_back(snapshot) {
        // Its files come with the snapshots that added them first.
        return;
    }
    for (key, found) in [("added-data-files", adds.files), ("added-records", adds.rows)] {
        let Some(told) = number(snapshot, key).filter(|told| *told != found) else { continue };
        let what = format!("`{key}` is {told}, and its manifests add {found}");
        let finding = FsckFinding::new(FindingKind::Summary, what);
        check.tell(snapshot.snapshot_id(), finding.of_snapshot(snapshot.snapshot_id()));
    }
}

/// Who brought it into a total that it is not what the manifests have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TotalFault {
    /// A snapshot of ours.
    Service,
    /// Another engine, or a snapshot before that ours go on from.
    Other,
    /// The snapshot before is gone.
    Unknown,
}

/// Holds the totals of the summaries against the manifests. Those that other engines wrote may be off, and
/// ours go on from them: what counts is whether a snapshot of ours brought the difference. Where nobody
/// knows, it is damage if manifests are not as their lists say either.
pub(super) fn check_totals(check: &mut TableCheck<'_>, snapshots: &[SnapshotRef]) {
    let mut wrong: Vec<(TotalFault, FsckFinding)> = Vec::new();
    for snapshot in snapshots {
        let Some(sums) = check.sums.get(&snapshot.snapshot_id()) else { continue };
        for (place, (key, found)) in sums.totals().into_iter().enumerate() {
            let Some(told) = number(snapshot, key).filter(|told| *told != found) else { continue };
            let what = format!("`{key}` is {told}, and the manifests have {found}");
            let finding = FsckFinding::new(FindingKind::Summary, what);
            let fault = fault_of(check, snapshot, place);
            wrong.push((fault, finding.of_snapshot(snapshot.snapshot_id())));
        }
    }
    let manifests = std::mem::take(&mut check.of_unknown);
    let is_unknown = wrong.iter().any(|(fault, _)| *fault == TotalFault::Unknown);
    let is_proven = is_unknown && !manifests.is_empty();
    let of_manifests = manifests.into_iter().map(|finding| (TotalFault::Unknown, finding));
    for (fault, finding) in wrong.into_iter().chain(of_manifests) {
        match fault == TotalFault::Service || (fault == TotalFault::Unknown && is_proven) {
            true => check.damage(finding),
            false => check.note(finding),
        }
    }
}

/// Who brought it that the total at this place is off.
fn fault_of(check: &TableCheck<'_>, snapshot: &SnapshotRef, place: usize) -> TotalFault {
    if !check.is_ours() || !is_own(snapshot) {
        return TotalFault::Other;
    }
    let Some(parent) = snapshot.parent_snapshot_id() else { return TotalFault::Service };
    let Some(parent) = check.table().snapshot_by_id(parent) else { return TotalFault::Unknown };
    match (difference(check, snapshot, place), difference(check, parent, place)) {
        (Some(now), Some(before)) if now != before => TotalFault::Service,
        (Some(_), Some(_)) => TotalFault::Other,
        _ => TotalFault::Unknown,
    }
}

/// How far a total is from what the manifests have; none where one of the two is not known.
fn difference(check: &TableCheck<'_>, snapshot: &SnapshotRef, place: usize) -> Option<i128> {
    let (key, found) = check.sums.get(&snapshot.snapshot_id())?.totals()[place];
    Some(i128::from(number(snapshot, key)?) - i128::from(found))
}

/// Whether the summary of the current snapshot has another number of rows than its manifests.
pub(super) fn is_total_off(check: &TableCheck<'_>) -> bool {
    let Some(current) = check.table().current_snapshot() else { return false };
    let Some(sums) = check.sums.get(&current.snapshot_id()) else { return false };
    number(current, "total-records").is_some_and(|told| told != sums.rows)
}
