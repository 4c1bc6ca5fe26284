//! Puts a client's commit that came too late on top of what was committed before it.
//!
//! Only what does not conflict is moved: snapshots that add data files, delete rows of files or replace
//! files that nobody else touched (see [`row_delta`]), to a branch whose head descends from the snapshot
//! they were built on. They keep their ids, so that the client finds them and a repeat is recognised; their
//! manifest lists are written anew. Everything else stays a lost race, for the client to build again,
//! as does what [`guard`] keeps.
//!
//! The algorithm, for snapshots `S` that were built on `P` while the branch moved from `P` to `H`:
//!
//! 1. [`late`]: from the metadata alone, `S` is one commit of files to a branch, `H` descends from `P`,
//!    and every requirement holds but the one about the head.
//! 2. [`work`]: by its manifests, `S` adds files and takes files out, and does nothing else.
//! 3. [`take_back`]: where compaction replaced files that `S` names, a snapshot of ours makes them live
//!    again, and counts as `H` from here on.
//! 4. [`row_delta::check`]: the files that `S` takes out or deletes rows of are live at `H`, and nobody
//!    deleted rows of them between `P` and `H`.
//! 5. The new list of `S` is its own manifests and all manifests of `H`, written anew where `S` takes files
//!    out. The numbers of its own are left open, so that its files count as added after everything in `H`:
//!    deletes of `H` do not reach its rows, and its own deletes reach the rows of `H`.

mod guard;
mod manifest_reads;
mod row_delta;
mod take_back;
mod work;

use super::{changes::FileKey, manifests, summary};
use crate::{ancestors, commit, error::CatalogError, storage::Storage};
pub(crate) use guard::REBASE_APPENDS;
use iceberg::{
    TableRequirement, TableUpdate,
    spec::{
        FormatVersion, ManifestFile, Operation, Snapshot, SnapshotRef, SnapshotReference, Summary,
        TableMetadata,
    },
};
use std::collections::{HashMap, HashSet};
pub(crate) use take_back::{RevertedCompaction, revert};
pub(crate) use work::{ClientWork, work_of};

/// Most snapshots of one commit.
const SNAPSHOTS_MAX: usize = 8;

/// A commit of files that is built on a state that is not the newest any more.
#[derive(Debug)]
pub(crate) struct LateCommit<'a> {
    /// Each is built on the one before.
    snapshots: Vec<&'a Snapshot>,
    branch: &'a str,
    reference: &'a SnapshotReference,
}

impl<'a> LateCommit<'a> {
    /// The only snapshot, as its client built it; none when there are several.
    pub(crate) fn only(&self) -> Option<&'a Snapshot> {
        match self.snapshots.as_slice() {
            [snapshot] => Some(*snapshot),
            _ => None,
        }
    }

    /// The snapshot that the commit was built on.
    fn parent(&self) -> Option<i64> {
        self.snapshots.first().and_then(|first| first.parent_snapshot_id())
    }

    /// The snapshots that updates add to one branch, where that is all they do.
    fn of(updates: &'a [TableUpdate]) -> Option<Self> {
        let mut commit: Option<Self> = None;
        for pair in updates.chunks(2) {
            let [
                TableUpdate::AddSnapshot { snapshot },
                TableUpdate::SetSnapshotRef { ref_name, reference },
            ] = pair
            else {
                return None;
            };
            if !reference.is_branch() || reference.snapshot_id != snapshot.snapshot_id() {
                return None;
            }
            let Some(commit) = &mut commit else {
                commit = Some(Self { snapshots: vec![snapshot], branch: ref_name, reference });
                continue;
            };
            let before = commit.snapshots.last().map(|before| before.snapshot_id());
            if commit.branch != ref_name
                || snapshot.parent_snapshot_id() != before
                || commit.snapshots.len() == SNAPSHOTS_MAX
            {
                return None;
            }
            commit.snapshots.push(snapshot);
            commit.reference = reference;
        }
        commit
    }
}

/// A late commit, built anew.
#[derive(Debug, Default)]
pub(crate) struct RebasedCommit {
    /// What to apply in place of the client's updates.
    pub(crate) updates: Vec<TableUpdate>,
    /// The files that were written.
    pub(crate) written: Vec<String>,
    /// The client's manifest lists, which nothing refers to.
    pub(crate) replaced: Vec<String>,
}

/// The commit of files in `updates` when the moved head of its branch, or the sequence numbers used up
/// meanwhile, are all that keeps it from being applied to `base`.
pub(crate) fn late<'a>(
    base: &TableMetadata,
    requirements: &[TableRequirement],
    updates: &'a [TableUpdate],
) -> Option<LateCommit<'a>> {
    let late = LateCommit::of(updates)?;
    let adds_files = |snapshot: &&Snapshot| {
        base.snapshot_by_id(snapshot.snapshot_id()).is_none()
            && matches!(
                snapshot.summary().operation,
                Operation::Append | Operation::Delete | Operation::Overwrite
            )
            && snapshot.schema_id().is_none_or(|schema| base.schema_by_id(schema).is_some())
    };
    let is_readable =
        base.format_version() == FormatVersion::V2 && base.encryption_keys_iter().len() == 0;
    let (first, parent) = (late.snapshots.first()?, late.parent());
    let head = base.snapshot_for_ref(late.branch).map(|head| head.snapshot_id());
    // The head may be the same and the number used up: a commit to another branch took it.
    let is_stale = head != parent || first.sequence_number() <= base.last_sequence_number();
    if !is_readable
        || !late.snapshots.iter().all(adds_files)
        || !is_stale
        || !descends(base, head, parent)
        || late.snapshots.iter().any(|snapshot| guard::keeps(base, snapshot, parent, head))
    {
        return None;
    }
    let is_about_head = |requirement: &&TableRequirement| {
        matches!(requirement, TableRequirement::RefSnapshotIdMatch { r#ref, snapshot_id }
            if r#ref == late.branch && *snapshot_id == parent)
    };
    // What else the client requires must still hold: only the head may have moved.
    let others: Vec<TableRequirement> =
        requirements.iter().filter(|requirement| !is_about_head(requirement)).cloned().collect();
    commit::check_requirements(&others, Some(base)).ok()?;
    let is_branch = head.is_none() || commit::ref_kind(late.branch, base) == "branch";
    is_branch.then_some(late)
}

/// Whether a branch that is at `head` came there from `parent`, by what the table still knows.
fn descends(base: &TableMetadata, head: Option<i64>, parent: Option<i64>) -> bool {
    let Some(parent) = parent else { return true };
    ancestors::ids(base, head).any(|id| id == parent)
}

/// Writes the manifest lists of a commit on top of the branch's head, where what it does can be done.
///
/// Returns when the lists are durable.
///
/// # Errors
/// [`CatalogError::CommitFailed`] names the file that others changed meanwhile;
/// [`CatalogError::Storage`], [`CatalogError::Iceberg`] for what the table itself refers to.
pub(crate) async fn rebase(
    storage: &Storage,
    base: &TableMetadata,
    late: &LateCommit<'_>,
    works: &[ClientWork],
    now_ms: i64,
) -> Result<RebasedCommit, CatalogError> {
    let head = base.snapshot_for_ref(late.branch);
    // Before anything is written: a conflict leaves no file behind.
    row_delta::check(storage, base, late, head, works).await?;
    let mut rebased = RebasedCommit::default();
    let put = put_all(storage, base, late, works, now_ms, &mut rebased).await;
    if let Err(cause) = put {
        super::discard(storage, rebased.written).await;
        return Err(cause);
    }
    Ok(rebased)
}

/// Puts the snapshots of a commit one on top of the other.
async fn put_all(
    storage: &Storage,
    base: &TableMetadata,
    late: &LateCommit<'_>,
    works: &[ClientWork],
    now_ms: i64,
    rebased: &mut RebasedCommit,
) -> Result<(), CatalogError> {
    let mut state: Option<TableMetadata> = None;
    for (&snapshot, work) in late.snapshots.iter().zip(works) {
        let on = match rebased.updates.as_slice() {
            [] => base,
            // The state with what is done so far is needed only by those that come after it.
            updates => {
                let applied = commit::apply_updates_at(base, None, updates, now_ms)?;
                &*state.insert(applied)
            }
        };
        let head = on.snapshot_for_ref(late.branch);
        let mut writer = manifests::SnapshotWriter::new(storage, on, snapshot.snapshot_id());
        let put = put_on(storage, on, late, head, (snapshot, work), &mut writer).await;
        let location = writer.list_location();
        rebased.written.extend(writer.into_written());
        let summary = put?;
        let snapshot_on = moved(on, snapshot, head, summary, &location, now_ms);
        let mut reference = late.reference.clone();
        reference.snapshot_id = snapshot.snapshot_id();
        rebased.updates.push(TableUpdate::AddSnapshot { snapshot: snapshot_on });
        rebased
            .updates
            .push(TableUpdate::SetSnapshotRef { ref_name: late.branch.to_owned(), reference });
        rebased.replaced.push(snapshot.manifest_list().to_owned());
    }
    Ok(())
}

/// Writes the manifests and the list of one snapshot on top of `head`; gives its summary.
async fn put_on(
    storage: &Storage,
    base: &TableMetadata,
    late: &LateCommit<'_>,
    head: Option<&SnapshotRef>,
    (snapshot, work): (&Snapshot, &ClientWork),
    writer: &mut manifests::SnapshotWriter<'_>,
) -> Result<HashMap<String, String>, CatalogError> {
    let kept = match head {
        Some(head) => manifests::read_list(storage, base, head).await?,
        None => Vec::new(),
    };
    let holders = holders(storage, base, late, work, &kept).await?;
    let removed: HashSet<FileKey> = work.removed.keys().map(|path| FileKey::of(path)).collect();
    // Its own manifests come first, as the newest do in every list.
    let mut listed = work.added.clone();
    for manifest in kept {
        let at = listed.len();
        let manifest = match holders.contains(&manifest.manifest_path) {
            true => writer.without(manifest, None, &removed, at).await?,
            false => manifest,
        };
        listed.push(manifest);
    }
    writer.list(listed.into_iter(), head.map(|head| head.snapshot_id())).await?;
    let head = head.map(|head| head.summary());
    let mut entries = entries(snapshot.summary(), head, work);
    if !holders.is_empty() {
        // Thinning goes by what went out of this list, not out of the client's.
        entries.insert(summary::MANIFESTS_REPLACED.to_owned(), holders.len().to_string());
    }
    Ok(entries)
}

/// The manifests of a list that have the files which a snapshot takes out: those that its client wrote
/// anew, or manifests that are new since.
async fn holders(
    storage: &Storage,
    base: &TableMetadata,
    late: &LateCommit<'_>,
    work: &ClientWork,
    listed: &[ManifestFile],
) -> Result<HashSet<String>, CatalogError> {
    if work.removed.is_empty() {
        return Ok(HashSet::new());
    }
    let parent = late.parent().and_then(|parent| base.snapshot_by_id(parent));
    let before = match parent {
        Some(parent) => manifests::read_list(storage, base, parent).await?,
        None => Vec::new(),
    };
    let known: HashSet<&str> = before.iter().map(|it| it.manifest_path.as_str()).collect();
    let may_hold = |manifest: &&ManifestFile| {
        let path = &manifest.manifest_path;
        work.dropped.contains(path) || !known.contains(path.as_str())
    };
    let manifests = listed.iter().filter(may_hold).cloned().collect();
    let own = &storage.normalize(base.location())?;
    let (mut holders, mut found) = (HashSet::new(), HashSet::new());
    for (entry, manifest) in manifest_reads::live_entries(storage, own, manifests).await? {
        if work.removed.contains_key(&entry.path) {
            holders.insert(manifest.manifest_path.clone());
            found.insert(entry.path);
        }
    }
    match work.removed.keys().filter(|path| !found.contains(*path)).min() {
        Some(path) => Err(conflict(late, &format!("`{path}` is not live any more"))),
        None => Ok(holders),
    }
}

fn conflict(late: &LateCommit<'_>, why: &str) -> CatalogError {
    let id = late.snapshots.first().map(|first| first.snapshot_id()).unwrap_or_default();
    CatalogError::CommitFailed(format!(
        "Commit failed: snapshot {id} deletes rows, and {why}: read the table again and repeat"
    ))
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

/// The client's summary with the totals of the table it ends up in. They go by what is in its manifests: clients
/// leave out some of what they add, DuckDB the bytes of its files.
fn entries(own: &Summary, head: Option<&Summary>, work: &ClientWork) -> HashMap<String, String> {
    let mut entries = own.additional_properties.clone();
    let removed = work.removed_files.named().map(|(_, removed)| removed);
    for (([_, _, total], added), removed) in work.added_files.named().into_iter().zip(removed) {
        let sum = summary::total(head, total, added).and_then(|sum| sum.checked_sub(removed));
        match sum {
            Some(sum) => entries.insert(total.to_owned(), sum.to_string()),
            // A guess would be taken for a fact ever after.
            None => entries.remove(total),
        };
    }
    entries
}
