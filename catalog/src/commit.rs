//! The pure rules of a commit: do the requirements hold, and what do the updates make of the table.
//!
//! Nothing here does IO or reads a clock. The iceberg crate's builder stamps changes that add no
//! snapshot with the machine's time; [`apply_updates_at`] takes that out again, so that a table's
//! time never goes back and tests can set it.

mod heads;
pub mod merge_order;
mod seed;
pub(crate) mod versions;
mod void;

use crate::{error::CatalogError, metadata_file::refs};
pub(crate) use heads::{check_heads, check_set_names, lost_names};
use iceberg::{
    TableRequirement, TableUpdate,
    spec::{FormatVersion, MAIN_BRANCH, Snapshot, TableMetadata, TableMetadataBuilder},
};
pub use seed::CreateTable;
pub(crate) use seed::{create_fresh, create_from_updates, making};
use std::collections::HashSet;
use uuid::Uuid;

/// A line of the snapshot index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRow {
    /// Snapshot id.
    pub snapshot_id: i64,
    /// Commit time, ms since 1970.
    pub timestamp_ms: i64,
    /// First and last number of the rows it added, where the holder of the fence numbered them.
    pub seq: Option<(u64, u64)>,
}

/// By how much the entries of a table's logs may be out of order, as the format allows.
const SKEW_MS: i64 = 60_000;
/// Snapshot summary: the manifest list of an append's client, in the place of which this catalog
/// wrote another one to put the append on top of others.
pub(crate) const MOVED_FROM: &str = "icecore.moved-from";
/// By how much a client's clock may be ahead of ours. The Java reference bounds only how far a
/// snapshot's time goes back; but nothing after one that is far ahead can have a true time, and
/// nothing at all comes after the end of time.
const AHEAD_MS: i64 = 10 * 60_000;
/// Metadata from elsewhere has used fewer sequence numbers than this, which leaves half of them.
const ADOPTED_NUMBER_MAX: i64 = i64::MAX / 2;
/// Snapshot summary of the service: the id of the commit.
pub const COMMIT_ID: &str = "icecore.commit-id";
/// Snapshot summary: the first `seq` of the rows that a snapshot adds.
pub const FIRST_SEQ: &str = "icecore.first-seq";
/// Snapshot summary: the last one; one that changes no row has that of the snapshot before it.
pub const LAST_SEQ: &str = "icecore.last-seq";
/// Snapshot summary: the service merged files with this snapshot, or took that back. It changes no row.
pub const COMPACTION: &str = "icecore.compaction";
/// Value of [`COMPACTION`]: files were merged.
pub const MERGED: &str = "merged";
/// Value of [`COMPACTION`]: files that were merged are live again.
pub const TAKEN_BACK: &str = "taken-back";
/// Entry of a snapshot summary: everything acknowledged up to this time, ms since 1970, is in the table.
pub const VALID_THROUGH: &str = "icecore.valid-through-ms";

/// Checks `requirements` against the table (none when it does not exist), with the messages of the
/// Java reference (`Requirement failed: …`).
///
/// # Errors
/// [`CatalogError::CommitFailed`] names the first requirement that does not hold.
pub fn check_requirements(
    requirements: &[TableRequirement],
    base: Option<&TableMetadata>,
) -> Result<(), CatalogError> {
    for requirement in requirements {
        let failure = match (requirement, base) {
            (TableRequirement::NotExist, None) => None,
            (TableRequirement::NotExist, Some(_)) => Some("table already exists".to_owned()),
            (_, None) => Some("table does not exist".to_owned()),
            (requirement, Some(base)) => failure(requirement, base),
        };
        if let Some(failure) = failure {
            return Err(CatalogError::CommitFailed(format!("Requirement failed: {failure}")));
        }
    }
    Ok(())
}

fn failure(requirement: &TableRequirement, base: &TableMetadata) -> Option<String> {
    let changed = |what: &str, expected: i64, found: i64| {
        (expected != found).then(|| format!("{what} changed: expected id {expected} != {found}"))
    };
    match requirement {
        TableRequirement::NotExist => Some("table already exists".to_owned()),
        TableRequirement::UuidMatch { uuid } => {
            let found = base.uuid();
            (*uuid != found).then(|| format!("UUID does not match: expected {found} != {uuid}"))
        }
        TableRequirement::RefSnapshotIdMatch { r#ref, snapshot_id } => {
            ref_failure(r#ref, *snapshot_id, base)
        }
        TableRequirement::LastAssignedFieldIdMatch { last_assigned_field_id } => changed(
            "last assigned field id",
            i64::from(*last_assigned_field_id),
            i64::from(base.last_column_id()),
        ),
        TableRequirement::CurrentSchemaIdMatch { current_schema_id } => changed(
            "current schema",
            i64::from(*current_schema_id),
            i64::from(base.current_schema_id()),
        ),
        TableRequirement::LastAssignedPartitionIdMatch { last_assigned_partition_id } => changed(
            "last assigned partition id",
            i64::from(*last_assigned_partition_id),
            i64::from(base.last_partition_id()),
        ),
        TableRequirement::DefaultSpecIdMatch { default_spec_id } => changed(
            "default partition spec",
            i64::from(*default_spec_id),
            i64::from(base.default_partition_spec_id()),
        ),
        TableRequirement::DefaultSortOrderIdMatch { default_sort_order_id } => {
            changed("default sort order", *default_sort_order_id, base.default_sort_order_id())
        }
    }
}

fn ref_failure(name: &str, expected: Option<i64>, base: &TableMetadata) -> Option<String> {
    let found = base.snapshot_for_ref(name).map(|snapshot| snapshot.snapshot_id());
    match (expected, found) {
        (Some(expected), Some(found)) if expected != found => Some(format!(
            "{} {name} has changed: expected id {expected} != {found}",
            ref_kind(name, base)
        )),
        (Some(expected), None) => {
            Some(format!("branch or tag {name} is missing, expected {expected}"))
        }
        (None, Some(_)) => {
            Some(format!("{} {name} was created concurrently", ref_kind(name, base)))
        }
        (Some(_), Some(_)) | (None, None) => None,
    }
}

/// `branch` or `tag`. The crate shows a ref's kind only in its JSON, which is dear but needed for
/// the text of a failure alone.
pub(crate) fn ref_kind(name: &str, base: &TableMetadata) -> &'static str {
    let json = serde_json::to_value(base).unwrap_or_default();
    if json["refs"][name]["type"] == "tag" { "tag" } else { "branch" }
}

/// Whether `base` already holds what the updates bring: a client that saw no answer sends the same
/// commit again, and telling it of a failure would make it delete live files.
pub(crate) fn is_applied(
    base: &TableMetadata,
    requirements: &[TableRequirement],
    updates: &[TableUpdate],
) -> bool {
    let mut snapshots = added(updates).peekable();
    let adds_snapshots = snapshots.peek().is_some();
    let is_there = |sent: &Snapshot| {
        let found = base.snapshot_by_id(sent.snapshot_id());
        found.is_some_and(|found| is_same(found, sent))
    };
    if !requirements.contains(&TableRequirement::NotExist) {
        return adds_snapshots && snapshots.all(is_there);
    }
    let is_same_table = |update: &TableUpdate| matches!(update, TableUpdate::AssignUuid { uuid } if *uuid == base.uuid());
    updates.iter().any(is_same_table) && snapshots.all(is_there)
}

/// Whether the table's snapshot is what a client sends. One that was put on top of others has a
/// list of this catalog's own, and names the client's in its summary.
fn is_same(found: &Snapshot, sent: &Snapshot) -> bool {
    let sent = sent.manifest_list();
    let moved_from = found.summary().additional_properties.get(MOVED_FROM);
    found.manifest_list() == sent || moved_from.is_some_and(|moved_from| moved_from == sent)
}

/// Applies `updates` to `base` one millisecond after its last change; see [`apply_updates_at`].
///
/// # Errors
/// As [`apply_updates_at`].
pub fn apply_updates(
    base: &TableMetadata,
    base_location: &str,
    updates: &[TableUpdate],
) -> Result<TableMetadata, CatalogError> {
    apply_updates_at(base, Some(base_location), updates, base.last_updated_ms())
}

/// Applies `updates` to `base`, which is stored at `base_location` or, where several commits are
/// folded into one, nowhere.
///
/// The new metadata carries the time of the last snapshot it adds; without one it is `now_ms`, or
/// later where the table's time would not go forward.
///
/// # Errors
/// [`CatalogError::Invalid`] names the update that does not fit; [`CatalogError::CommitFailed`]
/// when a snapshot was built on a state that is no longer the newest. How late a snapshot may be is
/// for [`check_time`].
pub fn apply_updates_at(
    base: &TableMetadata,
    base_location: Option<&str>,
    updates: &[TableUpdate],
    now_ms: i64,
) -> Result<TableMetadata, CatalogError> {
    check_numbers(base, updates)?;
    if !void::is_there(base, updates) {
        return build_at(base, base_location, updates, now_ms);
    }
    let (veiled, updates) = (void::veiled(base)?, void::veiled_updates(base, updates)?);
    void::unveiled(&build_at(&veiled, base_location, &updates, now_ms)?)
}

fn build_at(
    base: &TableMetadata,
    base_location: Option<&str>,
    updates: &[TableUpdate],
    now_ms: i64,
) -> Result<TableMetadata, CatalogError> {
    let steps = without_removed_main(base, updates);
    let build = |base: TableMetadata| {
        let builder = base.into_builder(base_location.map(str::to_owned));
        apply(builder, &steps)
    };
    if added(updates).next().is_some() {
        return build(base.clone());
    }
    // Every time of the table moves before 1970, so that what is later afterwards was stamped by
    // the builder with the machine's time.
    let shift = base.last_updated_ms().saturating_add(SKEW_MS);
    let now_ms = now_ms.max(base.last_updated_ms().saturating_add(1));
    let built = build(with_times(base, |time| time.saturating_sub(shift))?)?;
    with_times(&built, |time| if time <= 0 { time.saturating_add(shift) } else { now_ms })
}

/// The updates, with the branch `main` removed before the snapshot that it names is, as in the Java
/// reference; the builder removes other refs with their snapshots, and this one it forgets.
fn without_removed_main(base: &TableMetadata, updates: &[TableUpdate]) -> Vec<TableUpdate> {
    let mut main = base.current_snapshot_id();
    let mut steps = Vec::with_capacity(updates.len());
    for update in updates {
        match update {
            TableUpdate::SetSnapshotRef { ref_name, reference } if ref_name == MAIN_BRANCH => {
                main = Some(reference.snapshot_id);
            }
            TableUpdate::RemoveSnapshotRef { ref_name } if ref_name == MAIN_BRANCH => main = None,
            TableUpdate::RemoveSnapshots { snapshot_ids }
                if main.is_some_and(|main| snapshot_ids.contains(&main)) =>
            {
                let ref_name = MAIN_BRANCH.to_owned();
                steps.push(TableUpdate::RemoveSnapshotRef { ref_name });
                main = None;
            }
            _ => (),
        }
        steps.push(update.clone());
    }
    steps
}

/// The same metadata, last changed at `now_ms`.
pub(crate) fn stamped(
    metadata: &TableMetadata,
    now_ms: i64,
) -> Result<TableMetadata, CatalogError> {
    with_times(metadata, |_| now_ms)
}

fn apply(
    mut builder: TableMetadataBuilder,
    updates: &[TableUpdate],
) -> Result<TableMetadata, CatalogError> {
    for update in updates {
        check_main(update)?;
        builder = update.clone().apply(builder).map_err(|cause| invalid(&cause))?;
    }
    let metadata = builder.build().map_err(|cause| invalid(&cause))?.metadata;
    let adds_key = |update: &TableUpdate| matches!(update, TableUpdate::AddEncryptionKey { .. });
    // Older formats have no place for keys: a key that is said to be added would be lost.
    if metadata.format_version() < FormatVersion::V3 && updates.iter().any(adds_key) {
        return Err(CatalogError::Invalid(
            "Cannot add an encryption key: it needs format version 3, upgrade the table first"
                .to_owned(),
        ));
    }
    Ok(metadata)
}

/// Refuses to make `main` a tag: a tag does not move, so nothing could be committed any more.
fn check_main(update: &TableUpdate) -> Result<(), CatalogError> {
    match update {
        TableUpdate::SetSnapshotRef { ref_name, reference }
            if ref_name == MAIN_BRANCH && !reference.is_branch() =>
        {
            let text = "`main` is a branch and stays one: give the tag another name";
            Err(CatalogError::Invalid(text.to_owned()))
        }
        _ => Ok(()),
    }
}

/// Checks that every added snapshot has the number after the one before it, and that the numbers of
/// its rows come after those that are used.
///
/// A used number is a race that was lost on another ref: a 400 would end the client's retries. One
/// that is too high is nobody's, and would leave none for those that follow.
fn check_numbers(base: &TableMetadata, updates: &[TableUpdate]) -> Result<(), CatalogError> {
    let mut last = base.last_sequence_number();
    let mut next_row = base.next_row_id();
    for snapshot in added(updates) {
        check_is_new(base, snapshot)?;
        let number = snapshot.sequence_number();
        next_row = row_after(next_row, snapshot)?;
        if snapshot.timestamp_ms() < 0 {
            let text = "Cannot add a snapshot: its time is before 1970";
            return Err(CatalogError::Invalid(text.to_owned()));
        }
        let is_unnumbered = base.format_version() == FormatVersion::V1 && number == 0;
        // One without a parent starts a table anew that others may have committed to meanwhile; the
        // Java reference takes it.
        let starts_anew = snapshot.parent_snapshot_id().is_none() && (1..=last).contains(&number);
        if is_unnumbered || starts_anew {
            continue;
        }
        if number <= last {
            return Err(CatalogError::CommitFailed(format!(
                "Cannot add snapshot with sequence number {number} older than last sequence \
                 number {last}"
            )));
        }
        if number.checked_sub(1) != Some(last) {
            return Err(CatalogError::Invalid(format!(
                "Cannot add snapshot with sequence number {number}: the next one is {}",
                last.saturating_add(1)
            )));
        }
        last = number;
    }
    Ok(())
}

/// Refuses another snapshot of an id that is used; the client takes a new one when it tries again.
fn check_is_new(base: &TableMetadata, snapshot: &Snapshot) -> Result<(), CatalogError> {
    let id = snapshot.snapshot_id();
    if base.snapshot_by_id(id).is_none() {
        return Ok(());
    }
    Err(CatalogError::CommitFailed(format!(
        "Cannot add snapshot {id}: the table has another snapshot of this id, commit again with a \
         new one"
    )))
}

/// The number after those of the rows that a snapshot adds.
fn row_after(next_row: u64, snapshot: &Snapshot) -> Result<u64, CatalogError> {
    let Some((first, rows)) = snapshot.row_range() else { return Ok(next_row) };
    if first < next_row {
        return Err(CatalogError::CommitFailed(format!(
            "Cannot add a snapshot, first-row-id is behind table next-row-id: {first} < {next_row}"
        )));
    }
    // Other engines hold these numbers in 64 bits with a sign.
    let end = first.checked_add(rows).filter(|end| i64::try_from(*end).is_ok());
    if end.is_none() {
        return Err(CatalogError::Invalid(format!(
            "Cannot add a snapshot: {rows} rows from number {first} on pass the highest number"
        )));
    }
    Ok(next_row.saturating_add(rows))
}

/// Refuses snapshots of a client that are from a time to come.
pub(crate) fn check_time(
    base: Option<&TableMetadata>,
    updates: &[TableUpdate],
    now_ms: i64,
) -> Result<(), CatalogError> {
    // A table that is ahead already goes on from where it is.
    let now_ms = base.map_or(now_ms, |base| now_ms.max(base.last_updated_ms()));
    let latest = added(updates).map(Snapshot::timestamp_ms).max();
    check_not_ahead("Cannot add a snapshot", latest.unwrap_or(now_ms), now_ms)
}

/// Refuses metadata from elsewhere that no later commit could go on from.
pub(crate) fn check_adopted(metadata: &TableMetadata, now_ms: i64) -> Result<(), CatalogError> {
    let last = metadata.last_sequence_number();
    if !(0..ADOPTED_NUMBER_MAX).contains(&last) {
        return Err(CatalogError::Invalid(format!(
            "Cannot adopt metadata with the last sequence number {last}: no table has so many \
             snapshots"
        )));
    }
    if refs::of(metadata).get(MAIN_BRANCH).is_some_and(|main| !main.is_branch()) {
        let text = "Cannot adopt metadata whose `main` is a tag: make it a branch";
        return Err(CatalogError::Invalid(text.to_owned()));
    }
    let snapshots = metadata.snapshots().map(|snapshot| snapshot.timestamp_ms());
    let latest = snapshots.chain([metadata.last_updated_ms()]).max();
    check_not_ahead("Cannot adopt metadata", latest.unwrap_or(now_ms), now_ms)
}

fn check_not_ahead(what: &str, time_ms: i64, now_ms: i64) -> Result<(), CatalogError> {
    if time_ms <= now_ms.saturating_add(AHEAD_MS) {
        return Ok(());
    }
    Err(CatalogError::Invalid(format!(
        "{what}: its time {time_ms} is more than {} minutes in the future; correct the clock of \
         its writer",
        AHEAD_MS / 60_000
    )))
}

/// Snapshots that `new` has and `base` has not, oldest first.
pub(crate) fn added_snapshots(
    base: Option<&TableMetadata>,
    new: &TableMetadata,
) -> Vec<SnapshotRow> {
    let is_new = |id| base.is_none_or(|base| base.snapshot_by_id(id).is_none());
    let mut added: Vec<_> =
        new.snapshots().filter(|snapshot| is_new(snapshot.snapshot_id())).collect();
    added.sort_by_key(|snapshot| (snapshot.timestamp_ms(), snapshot.sequence_number()));
    added.into_iter().map(|snapshot| snapshot_row(snapshot)).collect()
}

/// Ids of the snapshots that `base` has and `new` has not.
pub(crate) fn removed_snapshots(base: &TableMetadata, new: &TableMetadata) -> Vec<i64> {
    let ids = base.snapshots().map(|snapshot| snapshot.snapshot_id());
    ids.filter(|id| new.snapshot_by_id(*id).is_none()).collect()
}

/// Metadata files that the log of `base`, or `base` itself, named and that of `new` does not.
pub(crate) fn dropped_metadata_files(
    base: &TableMetadata,
    base_location: &str,
    new: &TableMetadata,
) -> Vec<String> {
    let kept: HashSet<&str> =
        new.metadata_log().iter().map(|entry| entry.metadata_file.as_str()).collect();
    let named = base.metadata_log().iter().map(|entry| entry.metadata_file.as_str());
    let dropped = named.chain([base_location]).filter(|file| !kept.contains(file));
    dropped.map(str::to_owned).collect()
}

/// The snapshots that updates add.
pub(crate) fn added(updates: &[TableUpdate]) -> impl Iterator<Item = &Snapshot> {
    updates.iter().filter_map(|update| match update {
        TableUpdate::AddSnapshot { snapshot } => Some(snapshot),
        _ => None,
    })
}

/// The identity that updates give a new table, if they do.
pub(crate) fn assigned_uuid(updates: &[TableUpdate]) -> Option<Uuid> {
    updates.iter().rev().find_map(|update| match update {
        TableUpdate::AssignUuid { uuid } => Some(*uuid),
        _ => None,
    })
}

fn snapshot_row(snapshot: &Snapshot) -> SnapshotRow {
    let summary = &snapshot.summary().additional_properties;
    let seq = |key| summary.get(key).and_then(|text| text.parse().ok());
    SnapshotRow {
        snapshot_id: snapshot.snapshot_id(),
        timestamp_ms: snapshot.timestamp_ms(),
        seq: seq(FIRST_SEQ).zip(seq(LAST_SEQ)),
    }
}

/// The same metadata with every time of its logs changed. The crate keeps these fields to itself,
/// so the way leads through JSON.
fn with_times(
    metadata: &TableMetadata,
    change: impl Fn(i64) -> i64,
) -> Result<TableMetadata, CatalogError> {
    let mut json = serde_json::to_value(metadata).map_err(unreadable)?;
    let mut set = |pointer: &str| {
        let time = json.pointer_mut(pointer)?;
        *time = change(time.as_i64()?).into();
        Some(())
    };
    set("/last-updated-ms");
    for log in ["snapshot-log", "metadata-log"] {
        let times = (0..).map_while(|entry| set(&format!("/{log}/{entry}/timestamp-ms")));
        times.for_each(drop);
    }
    serde_json::from_value(json).map_err(unreadable)
}

fn invalid(cause: &iceberg::Error) -> CatalogError {
    CatalogError::Invalid(cause.message().to_owned())
}

fn unreadable(cause: serde_json::Error) -> CatalogError {
    CatalogError::Iceberg { operation: "rebuild table metadata", source: cause.into() }
}

#[cfg(test)]
mod tests;
