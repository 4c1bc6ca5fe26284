//! The first metadata of a table that a client builds with updates (the end of a staged create).
//!
//! The client has written files with the field, schema, spec and order ids it was given, so none
//! of them may change: the table starts with exactly its first schema, spec and order.

use super::{added, apply, check_numbers, invalid, stamped, unreadable};
use crate::error::CatalogError;
use iceberg::{
    TableUpdate,
    spec::{
        FormatVersion, Schema, SortOrder, SortOrderRef, TableMetadata, TableProperties,
        UnboundPartitionSpec,
    },
};
use serde_json::{Value, json};
use std::collections::HashMap;
use uuid::Uuid;

/// Partition field ids are larger than this, by the format.
const PARTITION_ID_BASE: i64 = 999;

/// A new table.
#[derive(Clone, Debug)]
pub struct CreateTable {
    /// Its name.
    pub name: String,
    /// Its columns.
    pub schema: Schema,
    /// How it is partitioned; not at all when none.
    pub partition_spec: Option<UnboundPartitionSpec>,
    /// How its files are sorted; not at all when none.
    pub sort_order: Option<SortOrder>,
    /// An order that files may have without every writer being asked for it: one of the table's
    /// sort orders and not its default.
    pub file_order: Option<SortOrder>,
    /// Where it lies; inside the warehouse, ending in the table's uuid, when none.
    pub location: Option<String>,
    /// Its properties.
    pub properties: HashMap<String, String>,
}

impl CreateTable {
    /// A table with these columns and nothing else said of it.
    #[must_use]
    pub fn plain(name: &str, schema: Schema) -> Self {
        Self {
            name: name.to_owned(),
            schema,
            partition_spec: None,
            sort_order: None,
            file_order: None,
            location: None,
            properties: HashMap::new(),
        }
    }
}

/// A new table made of `updates`, with this identity and location where they set none.
///
/// # Errors
/// [`CatalogError::Invalid`] when there is no schema, or an update does not fit.
pub(crate) fn create_from_updates(
    uuid: Uuid,
    location: &str,
    updates: &[TableUpdate],
    now_ms: i64,
) -> Result<TableMetadata, CatalogError> {
    let schema = updates.iter().find_map(|update| match update {
        TableUpdate::AddSchema { schema } => Some(schema),
        _ => None,
    });
    let schema = schema.ok_or_else(|| {
        CatalogError::Invalid("Invalid create: the updates add no schema".to_owned())
    })?;
    let (spec, last_partition_id) = first_spec(updates)?;
    let order = first_order(updates);
    let base = json!({
        "format-version": first_format_version(updates),
        "table-uuid": uuid,
        "location": location,
        "last-sequence-number": 0,
        "last-updated-ms": 0,
        "last-column-id": schema.highest_field_id(),
        "schemas": [schema_json(schema)?],
        "current-schema-id": schema.schema_id().max(0),
        "default-spec-id": spec["spec-id"],
        "partition-specs": [spec],
        "last-partition-id": last_partition_id,
        "default-sort-order-id": order.order_id,
        "sort-orders": [order],
        "properties": {},
        "next-row-id": 0,
    });
    let base: TableMetadata = serde_json::from_value(base)
        .map_err(|cause| CatalogError::Invalid(format!("Invalid create: {cause}")))?;
    check_numbers(&base, updates)?;
    let updates: Vec<TableUpdate> = updates.iter().map(without_reserved).collect();
    let table = apply(base.into_builder(None), &updates)?;
    if added(&updates).next().is_some() { Ok(table) } else { stamped(&table, now_ms) }
}

fn schema_json(schema: &Schema) -> Result<Value, CatalogError> {
    let mut json = serde_json::to_value(schema).map_err(unreadable)?;
    json["schema-id"] = schema.schema_id().max(0).into();
    Ok(json)
}

fn first_format_version(updates: &[TableUpdate]) -> u8 {
    let version = updates.iter().find_map(|update| match update {
        TableUpdate::UpgradeFormatVersion { format_version } => Some(*format_version),
        _ => None,
    });
    match version {
        Some(FormatVersion::V1) => 1,
        Some(FormatVersion::V3) => 3,
        Some(FormatVersion::V2) | None => 2,
    }
}

/// The first spec with all its ids, and the highest of them.
fn first_spec(updates: &[TableUpdate]) -> Result<(Value, i64), CatalogError> {
    let spec = updates.iter().find_map(|update| match update {
        TableUpdate::AddSpec { spec } => Some(spec),
        _ => None,
    });
    let Some(spec) = spec else {
        return Ok((json!({"spec-id": 0, "fields": []}), PARTITION_ID_BASE));
    };
    let id = spec.spec_id().unwrap_or(0).max(0);
    let mut last = PARTITION_ID_BASE;
    let mut fields = Vec::new();
    for field in spec.fields() {
        let mut json = serde_json::to_value(field).map_err(unreadable)?;
        let field_id = field.field_id.map_or(last + 1, i64::from);
        last = last.max(field_id);
        json["field-id"] = field_id.into();
        fields.push(json);
    }
    Ok((json!({"spec-id": id, "fields": fields}), last))
}

fn first_order(updates: &[TableUpdate]) -> SortOrder {
    let order = updates.iter().find_map(|update| match update {
        TableUpdate::AddSortOrder { sort_order } => Some(sort_order.clone()),
        _ => None,
    });
    let mut order = order.unwrap_or_else(SortOrder::unsorted_order);
    // Zero means unsorted, by the format.
    order.order_id = if order.fields.is_empty() { 0 } else { order.order_id.max(1) };
    order
}

/// Clients send `format-version` and its like among a new table's properties, where they mean
/// something else than a property.
fn without_reserved(update: &TableUpdate) -> TableUpdate {
    match update {
        TableUpdate::SetProperties { updates } => {
            let mut updates = updates.clone();
            updates.retain(|key, _| !is_reserved(key));
            TableUpdate::SetProperties { updates }
        }
        other => other.clone(),
    }
}

/// Whether Iceberg keeps this key for things that are no properties.
fn is_reserved(key: &str) -> bool {
    TableProperties::RESERVED_PROPERTIES.contains(&key)
}

/// The format version that a new table's properties ask for; 2 when they do not.
fn format_version(text: Option<&String>) -> Result<FormatVersion, CatalogError> {
    match text.map(String::as_str) {
        None | Some("2") => Ok(FormatVersion::V2),
        Some("1") => Ok(FormatVersion::V1),
        Some("3") => Ok(FormatVersion::V3),
        Some(other) => Err(CatalogError::Invalid(format!("Unsupported format version: {other}"))),
    }
}

/// The updates that make this table, which has no snapshots yet, from nothing.
pub(crate) fn making(table: &TableMetadata) -> Vec<TableUpdate> {
    /// The schema, spec or order that was added last.
    const LAST: i32 = -1;
    let mut updates = vec![
        TableUpdate::AssignUuid { uuid: table.uuid() },
        TableUpdate::UpgradeFormatVersion { format_version: table.format_version() },
        TableUpdate::SetLocation { location: table.location().to_owned() },
        TableUpdate::AddSchema { schema: table.current_schema().as_ref().clone() },
        TableUpdate::SetCurrentSchema { schema_id: LAST },
        TableUpdate::AddSpec {
            spec: table.default_partition_spec().as_ref().clone().into_unbound(),
        },
        TableUpdate::SetDefaultSpec { spec_id: LAST },
        TableUpdate::AddSortOrder { sort_order: table.default_sort_order().as_ref().clone() },
        TableUpdate::SetDefaultSortOrder { sort_order_id: LAST.into() },
    ];
    let is_other = |order: &&SortOrderRef| order.order_id != table.default_sort_order_id();
    let others = table.sort_orders_iter().filter(is_other);
    updates.extend(
        others.map(|order| TableUpdate::AddSortOrder { sort_order: order.as_ref().clone() }),
    );
    if !table.properties().is_empty() {
        updates.push(TableUpdate::SetProperties { updates: table.properties().clone() });
    }
    updates
}

/// A table with fresh ids.
pub(crate) fn create_fresh(
    new: CreateTable,
    uuid: Uuid,
    location: String,
    now_ms: i64,
) -> Result<TableMetadata, CatalogError> {
    let version = format_version(new.properties.get(TableProperties::PROPERTY_FORMAT_VERSION))?;
    let mut properties = new.properties;
    properties.retain(|key, _| !is_reserved(key));
    let builder = iceberg::spec::TableMetadataBuilder::new(
        new.schema,
        new.partition_spec.unwrap_or_default(),
        new.sort_order.unwrap_or_else(SortOrder::unsorted_order),
        location,
        version,
        properties,
    );
    let built = builder
        .and_then(|builder| match new.file_order {
            Some(order) => builder.add_sort_order(order),
            None => Ok(builder),
        })
        .and_then(|builder| builder.assign_uuid(uuid).build())
        .map_err(|cause| invalid(&cause))?;
    stamped(&built.metadata, now_ms)
}
