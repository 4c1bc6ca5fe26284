//! What others may not do to a table that this server writes.
//!
//! Its one invariant: after any commit that passes, rows from our log still fit the table. Rows may
//! be added, changed, deleted and compacted by anybody, and columns may be added.

use crate::{error::CatalogError, retention};
use iceberg::{
    TableIdent, TableUpdate,
    spec::{NestedFieldRef, PartitionSpec, TableMetadata},
};

/// Refuses a commit that would keep our rows from fitting the table.
pub(super) fn check(
    table: &TableIdent,
    base: Option<&TableMetadata>,
    new: &TableMetadata,
) -> Result<(), CatalogError> {
    let Some(base) = base.filter(|base| retention::is_managed(base)) else { return Ok(()) };
    let refuse = |what: String| {
        Err(CatalogError::Invalid(format!("{table} is written by this server: {what}")))
    };
    if !retention::is_managed(new) {
        return refuse(format!("its property `{}` has to stay `true`", retention::MANAGED));
    }
    if base.format_version() != new.format_version() {
        return refuse(format!("it stays at format version {}", base.format_version() as u8));
    }
    if !goes_on(base, new) {
        return refuse(
            "moving `main` elsewhere would lose acknowledged events; read the earlier state with \
             time travel, or make a branch of it"
                .to_owned(),
        );
    }
    if base.location() != new.location() {
        return refuse("it stays where it is; copy its rows to a table of your own".to_owned());
    }
    if shape(base.default_partition_spec()) != shape(new.default_partition_spec()) {
        return refuse(
            "its partition spec stays; copy its rows to a table of your own to partition them \
             otherwise"
                .to_owned(),
        );
    }
    let schema = new.current_schema();
    let kept = |field: &NestedFieldRef| {
        schema.field_by_id(field.id).is_some_and(|new| {
            new.name == field.name
                && new.field_type == field.field_type
                && new.required == field.required
        })
    };
    let fields = base.current_schema().as_struct().fields();
    if let Some(lost) = fields.iter().filter(|field| field.required).find(|field| !kept(field)) {
        return refuse(format!(
            "the column `{}` keeps its name and type and stays required; add a column of your own \
             instead",
            lost.name
        ));
    }
    // Our rows have no value for a column that they do not know.
    let is_new = |field: &&NestedFieldRef| base.current_schema().field_by_id(field.id).is_none();
    let added = schema.as_struct().fields().iter().filter(is_new).find(|field| field.required);
    let tightened = fields.iter().find(|field| {
        !field.required && schema.field_by_id(field.id).is_some_and(|new| new.required)
    });
    if let Some(field) = added.or(tightened) {
        return refuse(format!("the column `{}` has to be optional", field.name));
    }
    Ok(())
}

/// Whether the new head of `main` comes after the one before.
fn goes_on(base: &TableMetadata, new: &TableMetadata) -> bool {
    let Some(head) = base.current_snapshot_id() else { return true };
    let by_id = |id| new.snapshot_by_id(id);
    let line = std::iter::successors(new.current_snapshot(), |snapshot| {
        snapshot.parent_snapshot_id().and_then(by_id)
    });
    line.into_iter().any(|snapshot| snapshot.snapshot_id() == head)
}

/// Refuses to take a table away, or its name.
pub(super) fn check_stays(
    table: &TableIdent,
    metadata: &TableMetadata,
    what: &str,
) -> Result<(), CatalogError> {
    if !retention::is_managed(metadata) {
        return Ok(());
    }
    Err(CatalogError::Invalid(format!(
        "{table} is written by this server and cannot be {what}; delete its rows, or copy them to \
         a table of your own"
    )))
}

/// Refuses the mark of our own tables on one of a client's: it would be thinned and locked.
pub(super) fn check_is_foreign(updates: &[TableUpdate]) -> Result<(), CatalogError> {
    let marks = |update: &TableUpdate| matches!(update, TableUpdate::SetProperties { updates } if updates.contains_key(retention::MANAGED));
    if !updates.iter().any(marks) {
        return Ok(());
    }
    Err(CatalogError::Invalid(format!(
        "the property `{}` marks tables that this server writes: leave it out",
        retention::MANAGED
    )))
}

/// What makes two specs the same, whatever their ids.
fn shape(spec: &PartitionSpec) -> Vec<(i32, &str, String)> {
    spec.fields()
        .iter()
        .map(|field| (field.source_id, field.name.as_str(), field.transform.to_string()))
        .collect()
}
