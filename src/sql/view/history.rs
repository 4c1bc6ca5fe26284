//! What the snapshots of a table tell of its history: the last event of one, the one before, and whose events it has.

use iceberg::spec::{SnapshotRef, TableMetadata};
use icecore_catalog::{ancestors, commit::LAST_SEQ};
use icecore_engine::{
    error::SqlError,
    view::{BranchRow, TableView},
};
use icecore_lake::branch::{Branch, MainPart};
use icecore_schemas::{as_of::AsOf, point::MAIN_BRANCH, service_table::RecordKind};
use std::collections::HashSet;

/// The highest `seq` that an event can have.
const SEQ_MAX: u64 = i64::MAX.cast_unsigned();

/// Highest `seq` in a snapshot, as the last one noted it that brought rows of the log. Other engines'
/// snapshots tell nothing of it. None where the snapshots that would tell are removed.
pub(super) fn seq_of(metadata: &TableMetadata, snapshot_id: Option<i64>) -> Option<u64> {
    let mut is_whole = true;
    for snapshot in ancestors::of(metadata, snapshot_id) {
        let noted = snapshot.summary().additional_properties.get(LAST_SEQ);
        if let Some(seq) = noted.and_then(|seq| seq.parse().ok()) {
            return Some(seq);
        }
        is_whole = snapshot.parent_snapshot_id().is_none();
    }
    is_whole.then_some(0)
}

/// The same for a state that a request names; 0 where it is not known. A branch has the events up to its fork, also
/// where the last ones of them have numbers that no event got.
pub(super) fn last_seq_of(metadata: &TableMetadata, as_of: &AsOf, snapshot_id: Option<i64>) -> u64 {
    let Some(seq) = seq_of(metadata, snapshot_id) else { return 0 };
    match as_of {
        AsOf::Reference(name) => {
            Branch::of(metadata, name).map_or(seq, |branch| seq.max(branch.fork_seq))
        }
        AsOf::Snapshot(_) | AsOf::Time(_) => seq,
    }
}

/// The snapshot that is so many before the current one.
pub(super) fn snapshot_back(table: &TableView, count: u32) -> Result<i64, SqlError> {
    let steps = usize::try_from(count).unwrap_or(usize::MAX);
    let metadata = table.metadata.iter();
    let retained: Vec<&SnapshotRef> = metadata
        .flat_map(|metadata| ancestors::of(metadata, metadata.current_snapshot_id()))
        .collect();
    if let Some(found) = retained.get(steps) {
        return Ok(found.snapshot_id());
    }
    let beyond = steps.saturating_sub(retained.len()).saturating_add(1);
    let oldest = retained.last().filter(|oldest| may_have_before(oldest, beyond));
    Err(match oldest {
        Some(oldest) => SqlError::Gone {
            text: format!(
                "the snapshot of table `{}` that is {count} before its current one was removed",
                table.name
            ),
            nearest: vec![oldest.snapshot_id().to_string()],
        },
        None => SqlError::NotFound(format!(
            "table `{}` has no snapshot that is {count} before its current one",
            table.name
        )),
    })
}

/// Whether a snapshot was ever made on one that is `count` before it. Each has a greater sequence number than
/// the one before it, and the first one has 1; in format 1 all have 0, which tells nothing.
fn may_have_before(snapshot: &SnapshotRef, count: usize) -> bool {
    let numbers = usize::try_from(snapshot.sequence_number()).unwrap_or(0);
    snapshot.parent_snapshot_id().is_some() && (numbers == 0 || count < numbers)
}

/// The oldest snapshot that can be reached from the current one.
pub(in crate::sql) fn oldest_of_main(table: &TableView) -> Option<i64> {
    let metadata = table.metadata.as_ref()?;
    let all = ancestors::of(metadata, metadata.current_snapshot_id());
    all.last().map(|snapshot| snapshot.snapshot_id())
}

/// Whether the snapshot of a table is the current one or one of those that it was built on. A branch has events that
/// `main` does not have, and lacks others.
pub(in crate::sql) fn is_on_main(table: &TableView) -> bool {
    let (Some(metadata), Some(id)) = (&table.metadata, table.snapshot_id) else { return true };
    is_built_on(metadata, metadata.current_snapshot_id(), id)
}

/// The branch whose events a state of `events` has; none for a state of `main`, and where nothing tells. `named` is
/// the ref that it is read at.
pub(in crate::sql) fn branch_of(table: &TableView, named: Option<&str>) -> Option<Branch> {
    let metadata = table.metadata.as_deref().filter(|_| table.ours == Some(RecordKind::Events))?;
    if let Some(branch) = named.and_then(|name| Branch::of(metadata, name)) {
        return Some(branch);
    }
    if is_on_main(table) {
        return None;
    }
    // What a branch has of `main` is a state of that.
    let is_own = |branch: &Branch| {
        branch.main_seq(metadata).is_none_or(|seq| table.last_seq == 0 || seq < table.last_seq)
    };
    let found = Branch::with_snapshot(metadata, table.snapshot_id?).into_iter().filter(is_own);
    found.min_by_key(|branch| branch.created_at)
}

/// Refuses a point of a branch that is still to come. The highest number there is means its head, and of a ref that
/// another engine made nothing tells the last event.
pub(super) fn check_reached(head: &TableView, branch: &str, until: u64) -> Result<(), SqlError> {
    let metadata = head.metadata.as_deref();
    let is_branch = metadata.is_some_and(|metadata| Branch::of(metadata, branch).is_some());
    let last = head.last_seq;
    if is_branch && last != 0 && last < until && until < SEQ_MAX {
        return Err(SqlError::NotFound(format!(
            "no event of branch `{branch}` has seq {until} yet: the last one has {last}"
        )));
    }
    Ok(())
}

/// Whether a state of `events` is one that a branch had, and that none leads to any more.
pub(in crate::sql) fn is_lost(table: &TableView) -> bool {
    let state = table.metadata.as_deref().zip(table.snapshot_id);
    state.is_some_and(|(metadata, id)| Branch::is_lost(metadata, id))
}

/// What a state of `events` has of `main` and of no other branch; none where it is not known.
pub(in crate::sql) fn main_part(events: &TableView) -> Option<MainPart> {
    if is_on_main(events) {
        return Some(MainPart { seq: u64::MAX, taken_at: i64::MAX });
    }
    let metadata = events.metadata.as_deref()?;
    let branches = Branch::with_snapshot(metadata, events.snapshot_id?);
    let parts = branches.iter().filter_map(|branch| branch.main_part(metadata));
    parts.max_by_key(|part| part.seq)
}

fn head_of(metadata: &TableMetadata, name: &str) -> Option<i64> {
    metadata.snapshot_for_ref(name).map(|snapshot| snapshot.snapshot_id())
}

fn is_built_on(metadata: &TableMetadata, head: Option<i64>, id: i64) -> bool {
    ancestors::of(metadata, head).any(|snapshot| snapshot.snapshot_id() == id)
}

/// The branches of `events` as rows, by name.
pub(in crate::sql) fn branch_rows(metadata: &TableMetadata) -> Vec<BranchRow> {
    let row = |branch: Branch| {
        let head = head_of(metadata, &branch.name)?;
        let seq = seq_of(metadata, Some(head));
        let parent = match branch.forked_from.as_str() {
            MAIN_BRANCH => metadata.current_snapshot_id(),
            other => head_of(metadata, other),
        };
        let line = |head| ancestors::of(metadata, head).map(|snapshot| snapshot.snapshot_id());
        let of_parent: HashSet<i64> = line(parent).collect();
        Some(BranchRow {
            head,
            base: line(Some(head)).find(|id| of_parent.contains(id)),
            created_at: branch.created_at,
            fork_seq: branch.fork_seq,
            head_seq: seq.map(|seq| seq.max(branch.fork_seq)),
            name: branch.name,
            forked_from: branch.forked_from,
        })
    };
    Branch::all(metadata).into_iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests;
