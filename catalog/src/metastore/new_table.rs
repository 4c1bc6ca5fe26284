//! Tables and views that a commit adds to the catalog.

use super::{ChangeSet, Levels, ObjectKey, Properties, SnapshotRow, Watermark};
use crate::row_sum::RowSum;
use uuid::Uuid;

/// What a name stands for. A namespace's tables and views share their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// A table.
    Table,
    /// A view.
    View,
}

/// A table or view that a commit adds, at version 1 unless it was there before.
#[derive(Clone, Debug)]
pub struct NewTable {
    /// What it is.
    pub kind: NameKind,
    /// Its namespace.
    pub levels: Levels,
    /// Its name.
    pub name: String,
    /// Its identity; no other table has it.
    pub uuid: Uuid,
    /// Where its metadata is, already durable.
    pub metadata_location: String,
    /// The folder that is its own: it lies in no other table's and no other table lies in it.
    pub location: String,
    /// Snapshots it starts with.
    pub snapshots: Vec<SnapshotRow>,
    /// Whether it was there before.
    pub comes: TableOrigin,
    /// What it is made of; nothing for one that comes with its metadata file.
    pub changes: ChangeSet,
}

impl NewTable {
    pub(super) fn key(&self) -> ObjectKey<'_> {
        ObjectKey { levels: &self.levels, name: &self.name }
    }
}

/// Where a table that is added to the catalog comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableOrigin {
    /// It is new, and so is its identity.
    Created,
    /// It is new, and its first rows come from the holder of the fence.
    OfHolder {
        /// How far that one is in it.
        watermark: Watermark,
        /// The sum of those rows, where it is known.
        acked: Option<RowSum>,
        /// What its namespace has, which is made with it when it is not there. One that is there
        /// and has something else makes the commit fail with `AlreadyExists`. None for a namespace
        /// that has to be there.
        namespace: Option<Properties>,
    },
    /// From a metadata file, made under another catalog or name.
    Registered {
        /// What it cannot be without: that file and the ones that it names.
        needs: Vec<String>,
    },
}
