//! One manifest: its length and counts as its list has them, and the files that are live in it.

use crate::table::integrity::{TableCheck, apart, files};
use iceberg::spec::{DataContentType, Manifest, ManifestFile, ManifestStatus};
use icecore_catalog::{
    error::CatalogError,
    manifest_file,
    scan::manifests::{PlannedFile, live_files},
};
use icecore_schemas::fsck::{FindingKind, FsckFinding};

/// What is live in manifests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ManifestSums {
    files: u64,
    pub(super) rows: u64,
    bytes: u64,
    deletes: u64,
    pub(super) positions: u64,
    equalities: u64,
}

impl ManifestSums {
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            files: self.files + other.files,
            rows: self.rows + other.rows,
            bytes: self.bytes + other.bytes,
            deletes: self.deletes + other.deletes,
            positions: self.positions + other.positions,
            equalities: self.equalities + other.equalities,
        }
    }

    fn add(&mut self, file: &PlannedFile) {
        self.bytes += file.bytes;
        match file.content {
            DataContentType::Data => {
                self.files += 1;
                self.rows += file.rows;
            }
            DataContentType::PositionDeletes => {
                self.deletes += 1;
                self.positions += file.rows;
            }
            DataContentType::EqualityDeletes => {
                self.deletes += 1;
                self.equalities += file.rows;
            }
        }
    }

    /// The entries of a summary that tell the same.
    pub(super) fn totals(self) -> [(&'static str, u64); 6] {
        [
            ("total-data-files", self.files),
            ("total-records", self.rows),
            ("total-files-size", self.bytes),
            ("total-delete-files", self.deletes),
            ("total-position-deletes", self.positions),
            ("total-equality-deletes", self.equalities),
        ]
    }
}

/// Checks a manifest and its live files; what is live in it, where it reads.
pub(super) async fn check(
    check: &mut TableCheck<'_>,
    manifest: &ManifestFile,
    snapshot: i64,
) -> Result<Option<ManifestSums>, CatalogError> {
    check.name(&manifest.manifest_path);
    let Some((parsed, length)) = parsed(check, manifest, snapshot).await? else {
        return Ok(None);
    };
    if u64::try_from(manifest.manifest_length).ok() != Some(length) {
        let what = format!(
            "the manifest has {length} bytes, and its list says {}",
            manifest.manifest_length
        );
        let finding = FsckFinding::new(FindingKind::Size, what).of_snapshot(snapshot);
        check.tell(manifest.added_snapshot_id, finding.of_file(&manifest.manifest_path));
    }
    check_counts(check, manifest, &parsed, snapshot);
    let mut sums = ManifestSums::default();
    for file in live_files(&parsed, manifest) {
        sums.add(&file);
        check.name(&file.location);
        Box::pin(files::check(check, &file, snapshot)).await?;
    }
    Ok(Some(sums))
}

/// The manifest and its length; none where it does not read, which is told.
pub(super) async fn parsed(
    check: &mut TableCheck<'_>,
    manifest: &ManifestFile,
    snapshot: i64,
) -> Result<Option<(Manifest, u64)>, CatalogError> {
    let location = manifest.manifest_path.as_str();
    let finding = FsckFinding::new(FindingKind::Manifest, "the manifest").of_snapshot(snapshot);
    let bytes = match check.input.storage.get(location).await {
        Ok(bytes) => bytes,
        Err(cause) => {
            check.failed(finding, location, cause).await?;
            return Ok(None);
        }
    };
    let length = bytes.len() as u64;
    let parsed = apart(move || manifest_file::parse(&bytes).map_err(|cause| cause.to_string()));
    let parsed = parsed.await.unwrap_or_else(|| Err("its parser failed".to_owned()));
    match parsed {
        Ok(parsed) => Ok(Some((parsed, length))),
        Err(reason) => {
            check.is_current_torn |= check.is_current(snapshot);
            let what = format!("the manifest does not read: {reason}");
            check.damage(FsckFinding { what, ..finding }.of_file(location));
            Ok(None)
        }
    }
}

/// Holds the counts of the list against the entries.
fn check_counts(
    check: &mut TableCheck<'_>,
    manifest: &ManifestFile,
    parsed: &Manifest,
    snapshot: i64,
) {
    let found = |status: ManifestStatus| {
        let entries = parsed.entries().iter().filter(|entry| entry.status() == status);
        entries.fold((0, 0), |(files, rows), entry| (files + 1, rows + entry.record_count()))
    };
    let files = |count: Option<u32>| count.map(u64::from);
    let told = [
        (
            "added",
            ManifestStatus::Added,
            files(manifest.added_files_count),
            manifest.added_rows_count,
        ),
        (
            "existing",
            ManifestStatus::Existing,
            files(manifest.existing_files_count),
            manifest.existing_rows_count,
        ),
        (
            "deleted",
            ManifestStatus::Deleted,
            files(manifest.deleted_files_count),
            manifest.deleted_rows_count,
        ),
    ];
    for (name, status, files, rows) in told {
        let (found_files, found_rows): (u64, u64) = found(status);
        let is_right = files.is_none_or(|files| files == found_files)
            && rows.is_none_or(|rows| rows == found_rows);
        if !is_right {
            let what = format!(
                "the manifest has {found_files} {name} files with {found_rows} rows, and its list \
                 says {} with {}",
                files.unwrap_or(found_files),
                rows.unwrap_or(found_rows),
            );
            let finding = FsckFinding::new(FindingKind::Counts, what).of_snapshot(snapshot);
            check.tell(manifest.added_snapshot_id, finding.of_file(&manifest.manifest_path));
        }
    }
}
