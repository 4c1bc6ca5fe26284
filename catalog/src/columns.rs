//! What a table's columns may be: the types and transforms that this server reads, and what the
//! specification allows of them.
//!
//! Its one invariant: a schema that passes can be written and read by every engine that supports
//! the table's format version. What a request says wrong is told by column and type.

use crate::{commit, error::CatalogError};
use iceberg::{
    TableUpdate,
    spec::{
        FormatVersion, NestedField, PrimitiveType, Schema, SortField, TableMetadata, Transform,
        Type,
    },
};
use serde_json::{Map, Value};

/// Most digits of a decimal, by the specification.
const DIGITS_MAX: u32 = 38;
/// Types by their names, but for those with numbers in them.
const TYPES: [&str; 14] = [
    "boolean",
    "int",
    "long",
    "float",
    "double",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "timestamp_ns",
    "timestamptz_ns",
    "string",
    "uuid",
    "binary",
];
/// What each column of a struct has.
const COLUMN_MEMBERS: [&str; 4] = ["id", "name", "required", "type"];
/// What types with parts have beside their names.
const PART_MEMBERS: [(&str, &[&str]); 2] = [
    ("list", &["element-id", "element", "element-required"]),
    ("map", &["key-id", "key", "value-id", "value", "value-required"]),
];
const TRANSFORMS: [&str; 7] = ["identity", "year", "month", "day", "hour", "void", "unknown"];
/// Transforms with a number: `bucket[16]`.
const WIDE_TRANSFORMS: [&str; 2] = ["bucket", "truncate"];

/// The first column or partition field in a JSON text that this server cannot read, and what it
/// could; none when that is not what is wrong with the text.
pub(crate) fn explain(json: &[u8]) -> Option<String> {
    explain_value(&serde_json::from_slice(json).ok()?)
}

fn explain_value(value: &Value) -> Option<String> {
    match value {
        Value::Array(items) => items.iter().find_map(explain_value),
        Value::Object(members) => {
            let own = explain_object(members);
            own.or_else(|| members.values().find_map(explain_value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// A member that a type with parts needs and does not have.
fn missing_member(object: &Map<String, Value>) -> Option<String> {
    let kind = object.get("type")?.as_str()?;
    if kind == "struct" {
        let columns = object.get("fields")?.as_array()?.iter().filter_map(Value::as_object);
        return columns.into_iter().find_map(|column| {
            let missing = COLUMN_MEMBERS.iter().find(|member| !column.contains_key(**member))?;
            let name = column.get("name").and_then(Value::as_str).unwrap_or("(unnamed)");
            Some(format!(
                "column `{name}` has no `{missing}`: a column needs {}",
                COLUMN_MEMBERS.join(", ")
            ))
        });
    }
    let is_type = |part: &str| part == kind && !object.contains_key("required");
    let (_, members) = PART_MEMBERS.iter().find(|(part, _)| is_type(part))?;
    let missing = members.iter().find(|member| !object.contains_key(**member))?;
    Some(format!("a {kind} has no `{missing}`: it needs {}", members.join(", ")))
}

fn explain_object(object: &Map<String, Value>) -> Option<String> {
    if let Some(text) = missing_member(object) {
        return Some(text);
    }
    let name = || object.get("name").and_then(Value::as_str).unwrap_or("(unnamed)");
    // A column of a struct, the elements of a list, the keys and values of a map.
    let is_column = object.contains_key("id") && object.contains_key("required");
    if is_column && let Some(kind) = object.get("type").and_then(Value::as_str) {
        return wrong_type(kind).map(|text| format!("column `{}`: {text}", name()));
    }
    for (member, id) in [("element", "element-id"), ("key", "key-id"), ("value", "value-id")] {
        let kind = object.get(member).and_then(Value::as_str).filter(|_| object.contains_key(id));
        if let Some(text) = kind.and_then(wrong_type) {
            let parent = if member == "element" { "list" } else { "map" };
            return Some(format!("the {member} of a {parent}: {text}"));
        }
    }
    let transform = object.get("transform").and_then(Value::as_str)?;
    let (word, width) = match transform.split_once('[') {
        Some((word, width)) => (word, width.strip_suffix(']')),
        None => (transform, None),
    };
    let is_known = match width {
        Some(width) => WIDE_TRANSFORMS.contains(&word) && width.trim().parse::<u32>().is_ok(),
        None => TRANSFORMS.contains(&transform),
    };
    (!is_known).then(|| {
        format!(
            "partition or sort field `{}`: unknown transform `{transform}`; supported are \
             identity, year, month, day, hour, bucket[N], truncate[N] and void",
            name()
        )
    })
}

fn wrong_type(kind: &str) -> Option<String> {
    let is_decimal = || {
        let digits = kind.strip_prefix("decimal(")?.strip_suffix(')')?;
        let (all, part) = digits.split_once(',')?;
        all.trim().parse::<u32>().ok().zip(part.trim().parse::<u32>().ok())
    };
    let is_fixed = || kind.strip_prefix("fixed[")?.strip_suffix(']')?.trim().parse::<u64>().ok();
    if TYPES.contains(&kind) || is_decimal().is_some() || is_fixed().is_some() {
        return None;
    }
    Some(format!(
        "the type `{kind}` is not supported here; supported are {}, decimal(P, S), fixed[N], struct, \
         list and map",
        TYPES.join(", ")
    ))
}

/// Refuses schemas, partition specs and sort orders that `new` has and `base` has not where no reader
/// could read them, and snapshots among the updates that are of a schema the table does not have.
///
/// # Errors
/// [`CatalogError::Invalid`] says which column, and what to change.
pub(crate) fn check(
    base: Option<&TableMetadata>,
    new: &TableMetadata,
    updates: &[TableUpdate],
) -> Result<(), CatalogError> {
    for schema in new.schemas_iter() {
        if base.is_none_or(|base| base.schema_by_id(schema.schema_id()).is_none()) {
            check_schema(schema, new.format_version())?;
        }
    }
    if let Some(base) = base {
        check_names(base, new)?;
    }
    for spec in new.partition_specs_iter() {
        if base.is_none_or(|base| base.partition_spec_by_id(spec.spec_id()).is_none()) {
            let mut fields = spec.fields().iter();
            fields.try_for_each(|field| check_width(&field.name, &field.transform))?;
        }
    }
    for order in new.sort_orders_iter() {
        if base.is_none_or(|base| base.sort_order_by_id(order.order_id).is_none()) {
            let name = |id| new.current_schema().name_by_field_id(id).unwrap_or("(unnamed)");
            let mut fields = order.fields.iter();
            let check = |field: &SortField| check_width(name(field.source_id), &field.transform);
            fields.try_for_each(check)?;
        }
    }
    for snapshot in commit::added(updates) {
        let unknown = snapshot.schema_id().filter(|id| new.schema_by_id(*id).is_none());
        if let Some(schema) = unknown {
            return Err(CatalogError::Invalid(format!(
                "Cannot add snapshot {}: the table has no schema {schema}, add it first or name \
                 another",
                snapshot.snapshot_id()
            )));
        }
    }
    Ok(())
}

/// Refuses to give a column a name that some client could not send: Iceberg's Java client sends
/// ISO-8859-1, where everything else is `?`, and with a new column all others go along.
fn check_names(base: &TableMetadata, new: &TableMetadata) -> Result<(), CatalogError> {
    let (before, now) = (base.current_schema(), new.current_schema());
    if before.schema_id() == now.schema_id() {
        return Ok(());
    }
    let lost = |name: &str| -> String {
        name.chars().map(|c| if u32::from(c) <= 0xff { c } else { '?' }).collect()
    };
    for id in before.field_id_to_name_map().keys() {
        let (Some(before), Some(now)) = (before.field_by_id(*id), now.field_by_id(*id)) else {
            continue;
        };
        if before.name != now.name && lost(&before.name) == now.name {
            return Err(CatalogError::Invalid(format!(
                "column `{}` would be called `{}`: the client sends ISO-8859-1, which lacks some \
                 of its characters; change the columns with another client, such as PyIceberg",
                before.name, now.name
            )));
        }
    }
    Ok(())
}

/// Refuses a width that no engine can count with: they hold it in 32 bits with a sign.
fn check_width(field: &str, transform: &Transform) -> Result<(), CatalogError> {
    match transform {
        Transform::Bucket(width) | Transform::Truncate(width)
            if !(1..=i32::MAX.unsigned_abs()).contains(width) =>
        {
            Err(CatalogError::Invalid(format!(
                "partition or sort field `{field}`: the number in `{transform}` must be from 1 to \
                 {}",
                i32::MAX
            )))
        }
        _ => Ok(()),
    }
}

fn check_schema(schema: &Schema, version: FormatVersion) -> Result<(), CatalogError> {
    schema.as_struct().fields().iter().try_for_each(|field| check_field(field, version))
}

fn check_field(field: &NestedField, version: FormatVersion) -> Result<(), CatalogError> {
    let wrong = |text: String| {
        Err(CatalogError::Invalid(format!("Invalid schema: column `{}`: {text}", field.name)))
    };
    if version < FormatVersion::V3 && field.initial_default.is_some() {
        return wrong(
            "an initial-default needs format version 3: leave it out, or create or upgrade the \
             table with format-version 3"
                .to_owned(),
        );
    }
    match field.field_type.as_ref() {
        Type::Primitive(kind) => match wrong_primitive(kind, version) {
            Some(text) => wrong(text),
            None => Ok(()),
        },
        Type::Struct(fields) => {
            fields.fields().iter().try_for_each(|field| check_field(field, version))
        }
        Type::List(list) => check_field(&list.element_field, version),
        Type::Map(map) => {
            check_field(&map.key_field, version)?;
            check_field(&map.value_field, version)
        }
    }
}

fn wrong_primitive(kind: &PrimitiveType, version: FormatVersion) -> Option<String> {
    match kind {
        PrimitiveType::Decimal { precision, scale } => {
            let is_right = (1..=DIGITS_MAX).contains(precision) && scale <= precision;
            (!is_right).then(|| {
                format!(
                    "{kind} must have 1 to {DIGITS_MAX} digits, and no more than that after the point"
                )
            })
        }
        PrimitiveType::Fixed(0) => Some("fixed[0] has no bytes, it needs 1 or more".to_owned()),
        PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs
            if version < FormatVersion::V3 =>
        {
            Some(format!(
                "{kind} needs format version 3: use timestamp or timestamptz, or create or upgrade \
                 the table with format-version 3"
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
