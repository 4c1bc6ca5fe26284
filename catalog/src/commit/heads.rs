//! Which snapshots a branch may go to, and which names lose theirs.

use crate::{ancestors, error::CatalogError, metadata_file::refs::SnapshotRefs};
use iceberg::{
    TableUpdate,
    spec::{SnapshotReference, TableMetadata},
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Refuses to take a branch to an added snapshot that does not come after the branch's head: what was
/// committed since its parent would be undone without a word. A snapshot without a parent starts the
/// table anew, and one that is there already is gone back to in so many words.
///
/// # Errors
/// [`CatalogError::CommitFailed`].
pub(crate) fn check_heads(
    base: &TableMetadata,
    updates: &[TableUpdate],
) -> Result<(), CatalogError> {
    let mut parents: HashMap<i64, Option<i64>> = HashMap::new();
    let mut heads: HashMap<&str, Option<i64>> = HashMap::new();
    for update in updates {
        match update {
            TableUpdate::AddSnapshot { snapshot } => {
                parents.insert(snapshot.snapshot_id(), snapshot.parent_snapshot_id());
            }
            TableUpdate::SetSnapshotRef { ref_name, reference } => {
                let id = reference.snapshot_id;
                let there = || base.snapshot_for_ref(ref_name).map(|head| head.snapshot_id());
                let head = heads.insert(ref_name, Some(id)).unwrap_or_else(there);
                let is_added = reference.is_branch() && parents.contains_key(&id);
                if let Some(head) = head
                    && is_added
                    && !comes_after(&parents, id, head)
                {
                    return Err(CatalogError::CommitFailed(format!(
                        "Commit failed: snapshot {id} does not come after snapshot {head}, which the \
                         branch {ref_name} is at"
                    )));
                }
            }
            TableUpdate::RemoveSnapshotRef { ref_name } => {
                heads.insert(ref_name, None);
            }
            _ => (),
        }
    }
    Ok(())
}

/// Whether an added snapshot has the other before it, or nothing.
fn comes_after(parents: &HashMap<i64, Option<i64>>, id: i64, head: i64) -> bool {
    let mut last = id;
    for id in ancestors::walk(Some(id), parents.len(), |id| *parents.get(&id)?) {
        if id == head {
            return true;
        }
        last = id;
    }
    parents.get(&last) == Some(&None)
}

/// Refuses to set a branch or tag to a snapshot that the same commit removes: as in the Java reference the name would go
/// with the snapshot, without a word to the client that set it.
///
/// # Errors
/// [`CatalogError::Invalid`].
pub(crate) fn check_set_names(updates: &[TableUpdate]) -> Result<(), CatalogError> {
    let mut set: HashMap<&str, i64> = HashMap::new();
    // By name, so that a commit of several is always told the same.
    let mut lost: BTreeMap<&str, i64> = BTreeMap::new();
    for update in updates {
        match update {
            TableUpdate::SetSnapshotRef { ref_name, reference } => {
                lost.remove(ref_name.as_str());
                set.insert(ref_name.as_str(), reference.snapshot_id);
            }
            TableUpdate::RemoveSnapshotRef { ref_name } => {
                lost.remove(ref_name.as_str());
                set.remove(ref_name.as_str());
            }
            TableUpdate::RemoveSnapshots { snapshot_ids } => {
                for (name, id) in &set {
                    if snapshot_ids.contains(id) {
                        lost.insert(*name, *id);
                    }
                }
            }
            _ => (),
        }
    }
    match lost.first_key_value() {
        Some((name, id)) => Err(CatalogError::Invalid(format!(
            "Cannot set `{name}` to snapshot {id}: the same commit removes that snapshot, and the name would go with \
             it; leave the snapshot out of the removal, or name another one"
        ))),
        None => Ok(()),
    }
}

/// The branches and tags, in the order of their names, whose snapshots the updates remove while they leave the
/// names where they are. The names would be gone without a word.
pub(crate) fn lost_names<'a>(
    refs: &'a SnapshotRefs,
    updates: &[TableUpdate],
) -> Vec<(&'a String, &'a SnapshotReference)> {
    let mut removed: HashSet<i64> = HashSet::new();
    let mut moved: HashMap<&str, Option<i64>> = HashMap::new();
    for update in updates {
        match update {
            TableUpdate::RemoveSnapshots { snapshot_ids } => removed.extend(snapshot_ids),
            TableUpdate::SetSnapshotRef { ref_name, reference } => {
                moved.insert(ref_name, Some(reference.snapshot_id));
            }
            TableUpdate::RemoveSnapshotRef { ref_name } => {
                moved.insert(ref_name, None);
            }
            _ => (),
        }
    }
    let is_lost = |(name, reference): &(&String, &SnapshotReference)| {
        let head = moved.get(name.as_str()).copied().unwrap_or(Some(reference.snapshot_id));
        head.is_some_and(|head| removed.contains(&head))
    };
    let mut lost: Vec<(&String, &SnapshotReference)> = refs.iter().filter(is_lost).collect();
    lost.sort_unstable_by_key(|(name, _)| *name);
    lost
}
