//! Whether a table is whole: every file that a retained snapshot names is there, and holds what the
//! manifests say.
//!
//! The current snapshot comes first, then the others from the newest to the oldest. Each manifest and each
//! file is looked at once, one after the other. What is kept of them is about 100 bytes a file; rows are
//! read in batches, off the async threads. A file that is not there is kept apart: a commit may have made it
//! obsolete meanwhile, and [`needed::needed`] tells whether a later state of the table still needs it.
//!
//! Its one invariant: it changes nothing, and what it calls damage was read from the warehouse. A store
//! that does not answer is an error.

mod files;
mod gaps;
mod history;
mod manifests;
pub mod needed;
mod numbers;
mod removals;
mod rows;
mod snapshots;
mod summary;
#[cfg(test)]
mod tests;

use crate::table::{
    deletes::position_columns,
    file_columns::{FileColumns, FileError},
};
use iceberg::spec::{SnapshotRef, TableMetadata};
use icecore_catalog::{
    catalog::LoadedTable,
    error::{CatalogError, with_causes},
    location::Location,
    storage::{Storage, is_missing},
    usage,
};
use icecore_schemas::{
    fsck::{FINDINGS_MAX, FindingKind, FsckFinding, FsckTable},
    service_table::{RecordKind, ServiceTable},
};
use manifests::ManifestSums;
use parquet::errors::ParquetError;
use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};
use xxhash_rust::xxh3::xxh3_128;

/// Most missing files of a table that are looked for again; more count as damage at once.
const MISSING_MAX: usize = 10_000;
/// A name at the root of the warehouse that a store is asked for, to see whether it answers.
pub const PROBE: &str = ".icecore-fsck";

/// How thoroughly files are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckDepth {
    /// Their lengths and footers.
    Footers,
    /// Every row as well.
    Rows,
}

/// What is checked.
#[derive(Clone, Copy, Debug)]
pub struct CheckedTable<'a> {
    /// The files.
    pub storage: &'a Storage,
    /// Namespace and name.
    pub name: &'a str,
    /// The table as it stands.
    pub table: &'a LoadedTable,
    /// What is particular about it; none for a table of others.
    pub ours: Option<&'a ServiceTable>,
    /// Numbers of rows of which it is written down that they are lost, each from the first to the last.
    pub lost: &'a [(u64, u64)],
    /// How thoroughly.
    pub depth: CheckDepth,
}

/// A file that is not there, or that the store does not give.
#[derive(Clone, Debug)]
pub struct MissingFile {
    /// Where it should be.
    pub location: String,
    /// What to say of it if it is needed.
    pub finding: FsckFinding,
}

/// What was found.
#[derive(Debug, Default)]
pub struct TableFindings {
    /// All but the missing files.
    pub report: FsckTable,
    /// The missing files, of which it is to be seen whether they are needed.
    pub missing: Vec<MissingFile>,
}

/// The location of a file in little room.
fn key(location: &str) -> u128 {
    xxh3_128(location.as_bytes())
}

/// Checks a table.
///
/// # Errors
/// [`CatalogError`]: the warehouse does not answer, so nothing is known of its files.
pub async fn check(input: CheckedTable<'_>) -> Result<TableFindings, CatalogError> {
    let mut check = TableCheck::new(input)?;
    let snapshots = newest_first(&input.table.metadata);
    for snapshot in &snapshots {
        check.found.report.snapshots += 1;
        Box::pin(snapshots::check(&mut check, snapshot)).await?;
    }
    snapshots::check_totals(&mut check, &snapshots);
    if input.ours.is_some() {
        let ledger = history::check(&mut check);
        if check.counts_numbers() {
            Box::pin(numbers::check(&mut check, &ledger)).await?;
        }
    }
    check.tell_of_places();
    Ok(check.found)
}

/// The current snapshot, then the others.
fn newest_first(table: &TableMetadata) -> Vec<SnapshotRef> {
    let mut snapshots: Vec<SnapshotRef> = table.snapshots().cloned().collect();
    let current = table.current_snapshot_id();
    snapshots.sort_by_key(|snapshot| {
        let is_current = Some(snapshot.snapshot_id()) == current;
        (!is_current, Reverse(snapshot.sequence_number()))
    });
    snapshots
}

/// A file that was looked at, as its manifest has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KnownFile {
    bytes: u64,
    rows: u64,
    /// The snapshot for which it was looked at.
    snapshot: i64,
}

/// A check that goes on.
struct TableCheck<'a> {
    input: CheckedTable<'a>,
    /// The table's own folder.
    own: Location,
    found: TableFindings,
    manifests: HashMap<String, ManifestSums>,
    /// What is live in each snapshot whose manifests all read.
    sums: HashMap<i64, ManifestSums>,
    /// Manifests that are not as their list says, of which nobody knows any more who added them.
    of_unknown: Vec<FsckFinding>,
    files: HashMap<u128, KnownFile>,
    /// The columns that are read of data files; none where the table has none with single values.
    data_columns: Option<FileColumns>,
    delete_columns: Option<FileColumns>,
    /// Files outside of the table's folder, and the first of them.
    outside: (HashSet<u128>, Option<String>),
    /// Files of formats that are not read.
    unread_formats: u64,
    /// Whether some file of the current snapshot does not read.
    is_current_torn: bool,
}

impl<'a> TableCheck<'a> {
    fn new(input: CheckedTable<'a>) -> Result<Self, CatalogError> {
        let table = &input.table.metadata;
        let mut found = TableFindings {
            report: FsckTable::new(input.name.to_owned()),
            ..TableFindings::default()
        };
        let fields = table.current_schema().as_struct().fields();
        let single = fields.iter().filter(|field| field.field_type.is_primitive());
        let ids: Vec<i32> = single.map(|field| field.id).collect();
        let mut columns = None;
        if !ids.is_empty() {
            match FileColumns::of(table, &ids) {
                Ok(of) => columns = Some(of),
                Err(reason) => {
                    found.report.add_note(FsckFinding::new(FindingKind::Unchecked, reason));
                }
            }
        }
        if ids.len() < fields.len() {
            let text = "nested columns (struct, list, map) are not read";
            found.report.add_note(FsckFinding::new(FindingKind::Unchecked, text));
        }
        Ok(Self {
            input,
            own: input.storage.normalize(table.location())?,
            found,
            manifests: HashMap::new(),
            sums: HashMap::new(),
            of_unknown: Vec::new(),
            files: HashMap::new(),
            data_columns: columns,
            delete_columns: position_columns().ok(),
            outside: (HashSet::new(), None),
            unread_formats: 0,
            is_current_torn: false,
        })
    }

    fn table(&self) -> &'a TableMetadata {
        &self.input.table.metadata
    }

    fn is_ours(&self) -> bool {
        self.input.ours.is_some()
    }

    /// Whether the numbers of the rows are counted, for which deletion vectors are read.
    fn counts_numbers(&self) -> bool {
        let has_numbers = self.input.ours.is_some_and(|ours| ours.kind == RecordKind::Events);
        has_numbers && self.input.depth == CheckDepth::Rows
    }

    fn damage(&mut self, finding: FsckFinding) {
        self.found.report.add_damage(finding);
    }

    fn note(&mut self, finding: FsckFinding) {
        self.found.report.add_note(finding);
    }

    /// Damage where the table is ours, and a note where others may have wanted it so.
    fn fault(&mut self, finding: FsckFinding) {
        match self.is_ours() {
            true => self.damage(finding),
            false => self.note(finding),
        }
    }

    /// Damage where we wrote what a snapshot brought, and a note where another engine recorded it so. Where
    /// the snapshot is gone the totals decide.
    fn tell(&mut self, snapshot: i64, finding: FsckFinding) {
        match self.table().snapshot_by_id(snapshot) {
            Some(made) if self.is_ours() && summary::is_own(made) => self.damage(finding),
            None if self.is_ours() && self.of_unknown.len() < FINDINGS_MAX => {
                self.of_unknown.push(finding);
            }
            _ => self.note(finding),
        }
    }

    /// Notes that a retained snapshot names a file.
    fn name(&mut self, location: &str) {
        let normal = self.input.storage.normalize(location);
        if normal.as_ref().is_ok_and(|normal| normal.is_inside(&self.own)) {
            return;
        }
        let (files, first) = &mut self.outside;
        files.insert(key(normal.as_ref().map_or(location, Location::as_str)));
        first.get_or_insert_with(|| location.to_owned());
    }

    fn is_current(&self, snapshot: i64) -> bool {
        self.table().current_snapshot_id() == Some(snapshot)
    }

    /// Says what a failed read of a file means.
    ///
    /// # Errors
    /// The warehouse does not answer.
    async fn failed(
        &mut self,
        finding: FsckFinding,
        location: &str,
        cause: CatalogError,
    ) -> Result<(), CatalogError> {
        let finding = finding.of_file(location);
        if finding.snapshot.is_some_and(|snapshot| self.is_current(snapshot)) {
            self.is_current_torn = true;
        }
        if is_missing(&cause) {
            let what = format!("{} is not there", finding.what);
            self.lack(location, FsckFinding { kind: FindingKind::Missing, what, ..finding });
            return Ok(());
        }
        if matches!(cause, CatalogError::LocationForbidden(_)) {
            let what = format!("{} lies outside of the warehouse and is not checked", finding.what);
            self.note(FsckFinding { kind: FindingKind::Unchecked, what, ..finding });
            return Ok(());
        }
        let what = format!("{}: {}", finding.what, with_causes(&cause));
        self.answers(cause).await?;
        // Some stores refuse files that are not there.
        self.lack(location, FsckFinding { kind: FindingKind::Unreadable, what, ..finding });
        Ok(())
    }

    /// Keeps what is damage if the table still needs the file.
    fn lack(&mut self, location: &str, finding: FsckFinding) {
        match self.found.missing.len() < MISSING_MAX {
            true => {
                self.found.missing.push(MissingFile { location: location.to_owned(), finding });
            }
            false => self.damage(finding),
        }
    }

    /// Fails where the warehouse as a whole may be the cause.
    async fn answers(&self, cause: CatalogError) -> Result<(), CatalogError> {
        if matches!(cause, CatalogError::WarehouseOutage(_)) {
            return Err(cause);
        }
        match self.stands().await? {
            true => Ok(()),
            // It may answer again in a moment, and what failed is no damage all the same.
            false => Err(CatalogError::WarehouseOutage(with_causes(&cause))),
        }
    }

    /// Whether the warehouse answers.
    async fn stands(&self) -> Result<bool, CatalogError> {
        self.input.storage.look().await?;
        Ok(self.input.storage.answers(PROBE).await)
    }

    /// Says what it means that a Parquet file does not read.
    async fn failed_file(
        &mut self,
        finding: FsckFinding,
        cause: FileError,
    ) -> Result<(), CatalogError> {
        let location = cause.location().to_owned();
        let cause = match of_store(cause) {
            Ok(cause) => return self.failed(finding, &location, cause).await,
            Err(cause) => cause,
        };
        if finding.snapshot.is_some_and(|snapshot| self.is_current(snapshot)) {
            self.is_current_torn = true;
        }
        let is_refused = matches!(cause, FileError::Refused { .. });
        let what = format!("{}: {}", finding.what, with_causes(&cause));
        let finding = FsckFinding { what, ..finding }.of_file(&location);
        match is_refused {
            true => self.note(FsckFinding { kind: FindingKind::Unchecked, ..finding }),
            false => self.damage(finding),
        }
        Ok(())
    }

    fn tell_of_places(&mut self) {
        if let (files, Some(first)) = &self.outside {
            let text = format!("{} files lie outside of the table's own location", files.len());
            let finding = FsckFinding::new(FindingKind::Location, text).of_file(first);
            self.note(finding);
        }
        if 0 < self.unread_formats {
            let text = format!(
                "{} files are not Parquet, or are encrypted: their lengths alone were checked",
                self.unread_formats
            );
            self.note(FsckFinding::new(FindingKind::Unchecked, text));
        }
    }
}

/// Why the store did not give a part of a file, or the same error where it did.
fn of_store(cause: FileError) -> Result<CatalogError, FileError> {
    match cause {
        FileError::Parquet { location, source: ParquetError::External(source) } => {
            match source.downcast::<CatalogError>() {
                Ok(cause) => Ok(*cause),
                Err(source) => {
                    Err(FileError::Parquet { location, source: ParquetError::External(source) })
                }
            }
        }
        other => Err(other),
    }
}

/// Runs work on a thread that may be blocked; none where it panicked, as parsers of broken files may.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(usage::carried(work)).await.ok()
}
