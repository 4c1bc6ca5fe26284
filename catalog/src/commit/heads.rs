//! Which snapshots a branch may go to.

use crate::{ancestors, error::CatalogError};
use iceberg::{TableUpdate, spec::TableMetadata};
use std::collections::HashMap;

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
