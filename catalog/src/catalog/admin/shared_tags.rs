//! Tags of several tables that are set and removed in one commit.
//!
//! Its one invariant: all of the tables have what was asked for, or none has any of it.

use super::{Refs, known};
use crate::{
    catalog::{LoadedTable, TableChange},
    error::CatalogError,
    metadata_file::refs,
};
use iceberg::{
    TableIdent, TableRequirement, TableUpdate,
    spec::{SnapshotReference, SnapshotRetention},
};
use std::collections::HashMap;

/// A tag of a table that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTag {
    /// Its name, which the table has for nothing yet.
    pub name: String,
    /// The snapshot that it names.
    pub snapshot: i64,
    /// How old the snapshot becomes before the tag goes by itself, ms; none for a tag that stays.
    pub max_age_ms: Option<i64>,
}

/// What becomes of the tags of one table.
#[derive(Clone, Debug)]
pub struct TagChange {
    /// The table.
    pub table: TableIdent,
    /// The table as it was looked at.
    pub base: LoadedTable,
    /// Tags that it gets.
    pub set: Vec<NewTag>,
    /// Names of tags that it loses; their snapshots stay until they expire.
    pub removed: Vec<String>,
    /// Properties that are set with them.
    pub properties: HashMap<String, String>,
}

impl Refs<'_> {
    /// Changes the tags of several tables, all or none. Durable on return. Nothing is asked of a table that others
    /// changed meanwhile, but that these names are what they were.
    ///
    /// # Errors
    /// `AlreadyExists` for a table that has a branch or tag of the name, `NoSuchReference` for a tag that is not
    /// there, `Invalid` for a name or a snapshot that cannot be, `CommitFailed` where another change of these names
    /// came first; else as [`crate::catalog::Catalog::commit`].
    pub async fn change_tags(self, changes: Vec<TagChange>) -> Result<(), CatalogError> {
        let changes: Result<Vec<TableChange>, CatalogError> =
            changes.into_iter().map(table_change).collect();
        let changes = changes?;
        if changes.is_empty() {
            return Ok(());
        }
        self.0.commit_all(changes).await
    }
}

fn table_change(change: TagChange) -> Result<TableChange, CatalogError> {
    let TagChange { table, base, set, removed, properties } = change;
    let there = refs::of(&base.metadata);
    let mut requirements = vec![TableRequirement::UuidMatch { uuid: base.metadata.uuid() }];
    let is_at = |name: &str, snapshot_id: Option<i64>| TableRequirement::RefSnapshotIdMatch {
        r#ref: name.to_owned(),
        snapshot_id,
    };
    let mut updates = Vec::new();
    for NewTag { name, snapshot, max_age_ms } in set {
        crate::names::check_new(&name)?;
        if let Some(found) = there.get(&name) {
            let what = if found.is_branch() { "branch" } else { "tag" };
            return Err(CatalogError::AlreadyExists(format!(
                "{table} has a {what} `{name}`: choose another name, or drop that one first"
            )));
        }
        let snapshot_id = known(&base.metadata, snapshot)?;
        requirements.push(is_at(&name, None));
        let retention = SnapshotRetention::Tag { max_ref_age_ms: max_age_ms };
        let reference = SnapshotReference { snapshot_id, retention };
        updates.push(TableUpdate::SetSnapshotRef { ref_name: name, reference });
    }
    for name in removed {
        let found = there.get(&name).filter(|found| !found.is_branch());
        let Some(found) = found else { return Err(CatalogError::NoSuchReference(name)) };
        requirements.push(is_at(&name, Some(found.snapshot_id)));
        updates.push(TableUpdate::RemoveSnapshotRef { ref_name: name });
    }
    if !properties.is_empty() {
        updates.push(TableUpdate::SetProperties { updates: properties });
    }
    Ok(TableChange { table, requirements, updates, keeps_history: false })
}
