//! Commits as they wait for their turn, with what was found in their files before.

use super::{LoadedTable, TableChange};
use crate::snapshot::{
    NewSnapshot, ReadManifests,
    changes::{OnlyAdds, SnapshotChanges},
};

/// What a commit does to its table.
#[derive(Debug)]
pub(super) enum CommitWork {
    Change(ExaminedChange),
    Snapshot(Box<NewSnapshot>, ReadManifests),
}

/// What was found in the files of a change before its turn came.
#[derive(Clone, Debug)]
pub(super) enum ChangeContents {
    /// They were not read.
    Unread,
    /// Files to add, and nothing else.
    OnlyAdds(OnlyAdds),
    /// More than that.
    DoesMore,
}

/// A client's change, and what was found in its files.
#[derive(Clone, Debug)]
pub(super) struct ExaminedChange {
    pub(super) change: TableChange,
    pub(super) contents: ChangeContents,
    /// The table as it was then, unless it was not looked for.
    pub(super) base: Option<LoadedTable>,
}

impl ChangeContents {
    pub(super) fn of(changes: SnapshotChanges) -> Self {
        changes.only_adds().map_or(Self::DoesMore, Self::OnlyAdds)
    }
}
