//! Puts a client's append that came too late on top of what was committed before it.
//!
//! Only what cannot conflict is moved: a snapshot that adds data files and nothing else, to a
//! branch whose head descends from the snapshot it was built on. It keeps its id, so that the
//! client finds it and a repeat is recognised; its manifest list is written anew. Everything else
//! stays a lost race, for the client to build again, as does what [`guard`] keeps.

mod guard;

use super::{manifests, summary};
use crate::{commit, error::CatalogError, storage::Storage};
use iceberg::{
    TableRequirement, TableUpdate,
    spec::{
        FormatVersion, ManifestContentType, ManifestFile, ManifestStatus, Operation, Snapshot,
        SnapshotReference, Summary, TableMetadata,
    },
};
use std::collections::{HashMap, HashSet};

/// Most manifests that one append adds and that are read to see what is in them.
const ADDED_MANIFESTS_MAX: usize = 64;

/// The number of an entry that takes its snapshot's.
const INHERITED: i64 = -1;

/// An append that is built on a state that is not the newest any more.
#[derive(Debug)]
pub(crate) struct LateAppend<'a> {
    snapshot: &'a Snapshot,
    branch: &'a str,
    reference: &'a SnapshotReference,
}

/// A late append, built anew.
#[derive(Debug)]
pub(crate) struct Rebased {
    /// What to apply in place of the client's updates.
    pub(crate) updates: Vec<TableUpdate>,
    /// The manifest list that was written.
    pub(crate) written: String,
    /// The client's manifest list, which nothing refers to.
    pub(crate) replaced: String,
}

/// The append in `updates` when the moved head of its branch, or the sequence numbers used up
/// meanwhile, are all that keeps it from being applied to `base`.
pub(crate) fn late_append<'a>(
    base: &TableMetadata,
    requirements: &[TableRequirement],
    updates: &'a [TableUpdate],
) -> Option<LateAppend<'a>> {
    let [
        TableUpdate::AddSnapshot { snapshot },
        TableUpdate::SetSnapshotRef { ref_name, reference },
    ] = updates
    else {
        return None;
    };
    let is_append = base.format_version() == FormatVersion::V2
        && base.snapshot_by_id(snapshot.snapshot_id()).is_none()
        && base.encryption_keys_iter().len() == 0
        && snapshot.summary().operation == Operation::Append
        && reference.is_branch()
        && reference.snapshot_id == snapshot.snapshot_id();
    let parent = snapshot.parent_snapshot_id();
    let head = base.snapshot_for_ref(ref_name).map(|head| head.snapshot_id());
    let is_stale = head != parent || snapshot.sequence_number() <= base.last_sequence_number();
    if !is_append || !is_stale || !descends(base, head, parent) {
        return None;
    }
    if guard::keeps(base, snapshot, head) {
        return None;
    }
    let is_about_head = |requirement: &&TableRequirement| {
        matches!(requirement, TableRequirement::RefSnapshotIdMatch { r#ref, snapshot_id }
            if r#ref == ref_name && *snapshot_id == parent)
    };
    let others: Vec<TableRequirement> =
        requirements.iter().filter(|requirement| !is_about_head(requirement)).cloned().collect();
    commit::check_requirements(&others, Some(base)).ok()?;
    if head.is_some() && commit::ref_kind(ref_name, base) != "branch" {
        return None;
    }
    let schema_is_known =
        snapshot.schema_id().is_none_or(|schema| base.schema_by_id(schema).is_some());
    schema_is_known.then_some(LateAppend { snapshot, branch: ref_name, reference })
}

/// Whether a branch that is at `head` came there from `parent`, by what the table still knows.
fn descends(base: &TableMetadata, head: Option<i64>, parent: Option<i64>) -> bool {
    let Some(parent) = parent else { return true };
    let before =
        |id: &i64| base.snapshot_by_id(*id).and_then(|snapshot| snapshot.parent_snapshot_id());
    std::iter::successors(head, before).any(|id| id == parent)
}

/// Writes the append's manifest list on top of the branch's head; none when it is no plain append.
///
/// Returns when the list is durable.
///
/// # Errors
/// [`CatalogError::Storage`], [`CatalogError::Iceberg`] for what the table itself refers to.
pub(crate) async fn rebase(
    storage: &Storage,
    base: &TableMetadata,
    late: &LateAppend<'_>,
    now_ms: i64,
) -> Result<Option<Rebased>, CatalogError> {
    let Some(added) = added_manifests(storage, base, late.snapshot).await else {
        return Ok(None);
    };
    let head = base.snapshot_for_ref(late.branch);
    let kept = match head {
        Some(head) => manifests::read_list(storage, base, head).await?,
        None => Vec::new(),
    };
    let mut writer = manifests::Writer::new(storage, base, late.snapshot.snapshot_id());
    let parent = head.map(|head| head.snapshot_id());
    let listed = writer.list(added.into_iter().chain(kept), parent).await;
    let written = writer.list_location();
    if let Err(cause) = listed {
        super::discard(storage, writer.into_written()).await;
        return Err(cause);
    }
    let snapshot = moved(base, late.snapshot, head, &written, now_ms);
    let updates = vec![
        TableUpdate::AddSnapshot { snapshot },
        TableUpdate::SetSnapshotRef {
            ref_name: late.branch.to_owned(),
            reference: late.reference.clone(),
        },
    ];
    let replaced = late.snapshot.manifest_list().to_owned();
    Ok(Some(Rebased { updates, written, replaced }))
}

/// The manifests that the append adds, to be numbered anew; none when it does anything else, or
/// what it refers to cannot be read.
async fn added_manifests(
    storage: &Storage,
    base: &TableMetadata,
    snapshot: &Snapshot,
) -> Option<Vec<ManifestFile>> {
    let listed = manifests::read_list(storage, base, snapshot).await.ok()?;
    let id = snapshot.snapshot_id();
    let (mut added, taken): (Vec<_>, Vec<_>) =
        listed.into_iter().partition(|manifest| manifest.added_snapshot_id == id);
    let parent = snapshot.parent_snapshot_id().map(|parent| base.snapshot_by_id(parent));
    let expected = match parent {
        Some(parent) => manifests::read_list(storage, base, parent?).await.ok()?,
        None => Vec::new(),
    };
    // A manifest that is left out takes its files out of the table.
    let paths = |manifests: &[ManifestFile]| -> HashSet<String> {
        manifests.iter().map(|manifest| manifest.manifest_path.clone()).collect()
    };
    if paths(&taken) != paths(&expected) || added.len() > ADDED_MANIFESTS_MAX {
        return None;
    }
    for manifest in &mut added {
        if !is_plain(storage, base, manifest).await {
            return None;
        }
        manifest.sequence_number = INHERITED;
        manifest.min_sequence_number = INHERITED;
    }
    Some(added)
}

/// Whether a manifest adds data files and does nothing else, and none of them has a number of its
/// own.
async fn is_plain(storage: &Storage, base: &TableMetadata, manifest: &ManifestFile) -> bool {
    if manifest.content != ManifestContentType::Data
        || manifest.key_metadata.is_some()
        || base.partition_spec_by_id(manifest.partition_spec_id).is_none()
    {
        return false;
    }
    let Ok(bytes) = storage.get(&manifest.manifest_path).await else { return false };
    let Ok(parsed) = iceberg::spec::Manifest::parse_avro(&bytes) else { return false };
    parsed.entries().iter().all(|entry| {
        entry.status == ManifestStatus::Added
            && entry.sequence_number.is_none()
            && entry.snapshot_id.is_none_or(|id| id == manifest.added_snapshot_id)
    })
}

/// The same snapshot with another parent.
fn moved(
    base: &TableMetadata,
    snapshot: &Snapshot,
    head: Option<&iceberg::spec::SnapshotRef>,
    manifest_list: &str,
    now_ms: i64,
) -> Snapshot {
    let head_ms = head.map_or(i64::MIN, |head| head.timestamp_ms());
    let timestamp_ms = now_ms
        .max(snapshot.timestamp_ms())
        .max(base.last_updated_ms().saturating_add(1))
        .max(head_ms.saturating_add(1));
    let mut entries = entries(snapshot.summary(), head.map(|head| head.summary()));
    entries.insert(commit::MOVED_FROM.to_owned(), snapshot.manifest_list().to_owned());
    let builder = Snapshot::builder()
        .with_snapshot_id(snapshot.snapshot_id())
        .with_parent_snapshot_id(head.map(|head| head.snapshot_id()))
        .with_sequence_number(base.next_sequence_number())
        .with_timestamp_ms(timestamp_ms)
        .with_manifest_list(manifest_list)
        .with_summary(Summary { operation: Operation::Append, additional_properties: entries });
    match snapshot.schema_id() {
        Some(schema) => builder.with_schema_id(schema).build(),
        None => builder.build(),
    }
}

/// The client's summary with the totals of the table it ends up in.
fn entries(own: &Summary, head: Option<&Summary>) -> HashMap<String, String> {
    let mut entries = own.additional_properties.clone();
    for (total, added) in [
        ("total-data-files", Some("added-data-files")),
        ("total-records", Some("added-records")),
        ("total-files-size", Some("added-files-size")),
        ("total-delete-files", None),
        ("total-position-deletes", None),
        ("total-equality-deletes", None),
    ] {
        let added = match added {
            Some(key) => own.additional_properties.get(key).and_then(|text| text.parse().ok()),
            None => Some(0),
        };
        match added.and_then(|added| summary::total(head, total, added)) {
            Some(sum) => entries.insert(total.to_owned(), sum.to_string()),
            // A guess would be taken for a fact ever after.
            None => entries.remove(total),
        };
    }
    entries
}
