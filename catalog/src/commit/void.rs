//! Partition fields that a spec has lost: in version 1 of the format their place stays, as a field of
//! the transform `void`, and mostly under the name of their column (specification, "Partition
//! evolution").
//!
//! The iceberg crate's builder allows a field the name of a column for the transform `identity` alone.
//! So it gets void fields under other names, which are taken back from what it builds. What it would
//! have refused rightly is checked here: a name of another column, a name that is there twice.

use super::{invalid, unreadable};
use crate::error::CatalogError;
use iceberg::{
    TableUpdate,
    spec::{TableMetadata, Transform, UnboundPartitionField, UnboundPartitionSpec},
};
use serde_json::Value;
use std::collections::HashSet;

/// What no name of a column or field begins with.
const VEIL: char = '\u{0}';
const VOID: &str = "void";

/// Whether a table or its updates have void fields.
pub(super) fn is_there(base: &TableMetadata, updates: &[TableUpdate]) -> bool {
    let is_void = |transform: &Transform| *transform == Transform::Void;
    let mut fields = base.partition_specs_iter().flat_map(|spec| spec.fields());
    fields.any(|field| is_void(&field.transform))
        || updates.iter().any(|update| {
            matches!(update, TableUpdate::AddSpec { spec } if spec.fields().iter().any(|field| is_void(&field.transform)))
        })
}

/// The table, as the builder takes it.
pub(super) fn veiled(base: &TableMetadata) -> Result<TableMetadata, CatalogError> {
    renamed(base, |name| format!("{VEIL}{name}"))
}

/// The table that the builder made, as it is.
pub(super) fn unveiled(built: &TableMetadata) -> Result<TableMetadata, CatalogError> {
    renamed(built, |name| name.strip_prefix(VEIL).unwrap_or(name).to_owned())
}

/// The updates, as the builder takes them.
pub(super) fn veiled_updates(
    base: &TableMetadata,
    updates: &[TableUpdate],
) -> Result<Vec<TableUpdate>, CatalogError> {
    let mut schemas: Vec<_> = base.schemas_iter().map(|schema| schema.as_ref()).collect();
    schemas.extend(updates.iter().filter_map(|update| match update {
        TableUpdate::AddSchema { schema } => Some(schema),
        _ => None,
    }));
    let is_own = |field: &UnboundPartitionField| {
        let mut named =
            schemas.iter().filter_map(|schema| schema.field_by_name(&field.name)).peekable();
        named.peek().is_none() || named.any(|column| column.id == field.source_id)
    };
    let veil = |update: &TableUpdate| match update {
        TableUpdate::AddSpec { spec } => {
            let mut names = HashSet::new();
            let fields = spec.fields().iter().map(|field| {
                if !names.insert(&field.name) {
                    return Err(CatalogError::Invalid(format!(
                        "Cannot use partition name more than once: {}",
                        field.name
                    )));
                }
                let is_veiled = field.transform == Transform::Void && is_own(field);
                let name =
                    if is_veiled { format!("{VEIL}{}", field.name) } else { field.name.clone() };
                Ok(UnboundPartitionField { name, ..field.clone() })
            });
            let fields = fields.collect::<Result<Vec<_>, _>>()?;
            let builder = UnboundPartitionSpec::builder().add_partition_fields(fields);
            let veiled = builder.map_err(|cause| invalid(&cause))?.build();
            let spec =
                spec.spec_id().map_or_else(|| veiled.clone(), |id| veiled.clone().with_spec_id(id));
            Ok(TableUpdate::AddSpec { spec })
        }
        other => Ok(other.clone()),
    };
    updates.iter().map(veil).collect()
}

/// The table with other names of its void fields. The crate keeps these to itself, so the way leads
/// through JSON.
fn renamed(
    table: &TableMetadata,
    name: impl Fn(&str) -> String,
) -> Result<TableMetadata, CatalogError> {
    let mut json = serde_json::to_value(table).map_err(unreadable)?;
    let rename = |fields: &mut Value| {
        for field in fields.as_array_mut().into_iter().flatten() {
            if field["transform"] == VOID {
                field["name"] = name(field["name"].as_str().unwrap_or_default()).into();
            }
        }
    };
    for spec in json["partition-specs"].as_array_mut().into_iter().flatten() {
        rename(&mut spec["fields"]);
    }
    // Version 1 has its default spec a second time.
    if let Some(fields) = json.get_mut("partition-spec") {
        rename(fields);
    }
    serde_json::from_value(json).map_err(unreadable)
}
