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
    /// The paths that it adds, as far as its files were read.
    pub(super) added: Vec<String>,
    /// The table as it was then, unless it was not looked for.
    pub(super) base: Option<LoadedTable>,
}

impl ChangeContents {
    /// What these changes come to; more than adding files where they could not be read, and whoever has
    /// them looked at says why.
    pub(super) fn of(changes: Option<SnapshotChanges>) -> Self {
        let adds = changes.and_then(SnapshotChanges::only_adds);
        adds.map_or(Self::DoesMore, Self::OnlyAdds)
    }
}
