//! Puts a client's commit that came too late on top of what was committed before it.
//!
//! Only what does not conflict is moved: a snapshot that adds data files, or deletes rows of files
//! that nobody else touched (see [`row_delta`]), to a branch whose head descends from the snapshot it
//! was built on. It keeps its id, so that the client finds it and a repeat is recognised; its
//! manifest list is written anew. Everything else stays a lost race, for the client to build again,
//! as does what [`guard`] keeps.
//!
//! The algorithm, for a snapshot `S` that was built on `P` while the branch moved from `P` to `H`:
//!
//! 1. [`late`]: from the metadata alone, `S` is one commit of files to a branch, `H` descends from `P`,
//!    and every requirement holds but the one about the head.
//! 2. The caller has read the manifests of `S`: it only adds files ([`OnlyAdds`]).
//! 3. [`row_delta::check`]: the data files that its deletes name are live at `H`, and nobody deleted
//!    rows of them between `P` and `H`.
//! 4. The new list of `S` is its own manifests and all manifests of `H`. The numbers of its own are left
//!    open, so that its files count as added after everything in `H`: deletes of `H` do not reach its
//!    rows, and its own deletes reach the rows of `H`.

mod guard;
mod row_delta;

use super::{changes::OnlyAdds, manifests, summary};
use crate::{ancestors, commit, error::CatalogError, storage::Storage};
use iceberg::{
    TableRequirement, TableUpdate,
    spec::{
        FormatVersion, ManifestContentType, ManifestFile, Operation, Snapshot, SnapshotRef,
        SnapshotReference, Summary, TableMetadata,
    },
};
use std::collections::HashMap;

/// The number of an entry that takes its snapshot's.
const INHERITED: i64 = -1;

/// A commit of files that is built on a state that is not the newest any more.
#[derive(Debug)]
pub(crate) struct LateCommit<'a> {
    snapshot: &'a Snapshot,
    branch: &'a str,
    reference: &'a SnapshotReference,
}

impl<'a> LateCommit<'a> {
    /// The snapshot as its client built it.
    pub(crate) fn snapshot(&self) -> &'a Snapshot {
        self.snapshot
    }
}

/// A late commit, built anew.
#[derive(Debug)]
pub(crate) struct RebasedCommit {
    /// What to apply in place of the client's updates.
    pub(crate) updates: Vec<TableUpdate>,
    /// The manifest list that was written.
    pub(crate) written: String,
    /// The client's manifest list, which nothing refers to.
    pub(crate) replaced: String,
}

/// The commit of files in `updates` when the moved head of its branch, or the sequence numbers used up
/// meanwhile, are all that keeps it from being applied to `base`.
pub(crate) fn late<'a>(
    base: &TableMetadata,
    requirements: &[TableRequirement],
    updates: &'a [TableUpdate],
) -> Option<LateCommit<'a>> {
    let [
        TableUpdate::AddSnapshot { snapshot },
        TableUpdate::SetSnapshotRef { ref_name, reference },
    ] = updates
    else {
        return None;
    };
    let operation = &snapshot.summary().operation;
    let adds_files = base.format_version() == FormatVersion::V2
        && base.snapshot_by_id(snapshot.snapshot_id()).is_none()
        && base.encryption_keys_iter().len() == 0
        && matches!(operation, Operation::Append | Operation::Delete | Operation::Overwrite)
        && reference.is_branch()
        && reference.snapshot_id == snapshot.snapshot_id();
    let parent = snapshot.parent_snapshot_id();
    let head = base.snapshot_for_ref(ref_name).map(|head| head.snapshot_id());
    // The head may be the same and the number used up: a commit to another branch took it.
    let is_stale = head != parent || snapshot.sequence_number() <= base.last_sequence_number();
    if !adds_files || !is_stale || !descends(base, head, parent) {
        return None;
    }
    if guard::keeps(base, snapshot, head) {
        return None;
    }
    let is_about_head = |requirement: &&TableRequirement| {
        matches!(requirement, TableRequirement::RefSnapshotIdMatch { r#ref, snapshot_id }
            if r#ref == ref_name && *snapshot_id == parent)
    };
    // What else the client requires must still hold: only the head may have moved.
    let others: Vec<TableRequirement> =
        requirements.iter().filter(|requirement| !is_about_head(requirement)).cloned().collect();
    commit::check_requirements(&others, Some(base)).ok()?;
    if head.is_some() && commit::ref_kind(ref_name, base) != "branch" {
        return None;
    }
    let schema_is_known =
        snapshot.schema_id().is_none_or(|schema| base.schema_by_id(schema).is_some());
    schema_is_known.then_some(LateCommit { snapshot, branch: ref_name, reference })
}

/// Whether a branch that is at `head` came there from `parent`, by what the table still knows.
fn descends(base: &TableMetadata, head: Option<i64>, parent: Option<i64>) -> bool {
    let Some(parent) = parent else { return true };
    ancestors::ids(base, head).any(|id| id == parent)
}

/// Writes the manifest list of a commit that only adds files on top of the branch's head; none when
/// it cannot be moved.
///
/// Returns when the list is durable.
///
/// # Errors
/// [`CatalogError::CommitFailed`] names the data file that others changed meanwhile;
/// [`CatalogError::Storage`], [`CatalogError::Iceberg`] for what the table itself refers to.
pub(crate) async fn rebase(
    storage: &Storage,
    base: &TableMetadata,
    late: &LateCommit<'_>,
    adds: &OnlyAdds,
    now_ms: i64,
) -> Result<Option<RebasedCommit>, CatalogError> {
    let Some(added) = renumbered(storage, base, late.snapshot, adds).await else {
        return Ok(None);
    };
    let head = base.snapshot_for_ref(late.branch);
    // Before anything is written: a conflict leaves no file behind.
    row_delta::check(storage, base, late.snapshot, head, &adds.deletes).await?;
    let kept = match head {
        Some(head) => manifests::read_list(storage, base, head).await?,
        None => Vec::new(),
    };
    let mut writer = manifests::SnapshotWriter::new(storage, base, late.snapshot.snapshot_id());
    let parent = head.map(|head| head.snapshot_id());
    // Its own manifests come first, as the newest do in every list.
    let adds_data = added.iter().any(|added| added.content == ManifestContentType::Data);
    let listed = writer.list(added.into_iter().chain(kept), parent).await;
    let written = writer.list_location();
    if let Err(cause) = listed {
        super::discard(storage, writer.into_written()).await;
        return Err(cause);
    }
    let summary = entries(late.snapshot.summary(), head.map(|head| head.summary()), adds_data);
    let snapshot = moved(base, late.snapshot, head, summary, &written, now_ms);
    let updates = vec![
        TableUpdate::AddSnapshot { snapshot },
        TableUpdate::SetSnapshotRef {
            ref_name: late.branch.to_owned(),
            reference: late.reference.clone(),
        },
    ];
    let replaced = late.snapshot.manifest_list().to_owned();
    Ok(Some(RebasedCommit { updates, written, replaced }))
}

/// The manifests that the commit adds, to be numbered anew; none when they cannot be.
async fn renumbered(
    storage: &Storage,
    base: &TableMetadata,
    snapshot: &Snapshot,
    adds: &OnlyAdds,
) -> Option<Vec<ManifestFile>> {
    // One that replaces what a filter finds and found nothing may find something now.
    if (snapshot.summary().operation == Operation::Append) != adds.deletes.is_empty() {
        return None;
    }
    let mut listed = manifests::read_list(storage, base, snapshot).await.ok()?;
    // The others are those of its parent, in the place of which come those of the head.
    listed.retain(|manifest| manifest.added_snapshot_id == snapshot.snapshot_id());
    for manifest in &mut listed {
        if manifest.key_metadata.is_some()
            || base.partition_spec_by_id(manifest.partition_spec_id).is_none()
        {
            return None;
        }
        // The writer of the list fills in the number of the snapshot, which is the table's next.
        manifest.sequence_number = INHERITED;
        manifest.min_sequence_number = INHERITED;
    }
    Some(listed)
}

/// The same snapshot with another parent.
fn moved(
    base: &TableMetadata,
    snapshot: &Snapshot,
    head: Option<&SnapshotRef>,
    mut entries: HashMap<String, String>,
    manifest_list: &str,
    now_ms: i64,
) -> Snapshot {
    let head_ms = head.map_or(i64::MIN, |head| head.timestamp_ms());
    let timestamp_ms = now_ms
        .max(snapshot.timestamp_ms())
        .max(base.last_updated_ms().saturating_add(1))
        .max(head_ms.saturating_add(1));
    entries.insert(commit::MOVED_FROM.to_owned(), snapshot.manifest_list().to_owned());
    let builder = Snapshot::builder()
        .with_snapshot_id(snapshot.snapshot_id())
        .with_parent_snapshot_id(head.map(|head| head.snapshot_id()))
        .with_sequence_number(base.next_sequence_number())
        .with_timestamp_ms(timestamp_ms)
        .with_manifest_list(manifest_list)
        .with_summary(Summary {
            operation: snapshot.summary().operation.clone(),
            additional_properties: entries,
        });
    match snapshot.schema_id() {
        Some(schema) => builder.with_schema_id(schema).build(),
        None => builder.build(),
    }
}

/// The client's summary with the totals of the table it ends up in.
fn entries(own: &Summary, head: Option<&Summary>, adds_data: bool) -> HashMap<String, String> {
    let mut entries = own.additional_properties.clone();
    for (total, added, is_of_data) in [
        ("total-data-files", "added-data-files", true),
        ("total-records", "added-records", true),
        ("total-files-size", "added-files-size", true),
        ("total-delete-files", "added-delete-files", false),
        ("total-position-deletes", "added-position-deletes", false),
        ("total-equality-deletes", "added-equality-deletes", false),
    ] {
        let added = match own.additional_properties.get(added) {
            Some(text) => text.parse().ok(),
            // Clients leave out what they add nothing of.
            None => (!is_of_data || !adds_data).then_some(0),
        };
        match added.and_then(|added| summary::total(head, total, added)) {
            Some(sum) => entries.insert(total.to_owned(), sum.to_string()),
            // A guess would be taken for a fact ever after.
            None => entries.remove(total),
        };
    }
    entries
}
