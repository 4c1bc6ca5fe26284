//! Structs, lists and maps of a file as the table has them today.
//!
//! Its one invariant: what is inside is found by its field id, at each depth, as columns are. A field that the
//! file lacks has its initial default, mostly null; one that the table lacks is left out. Whoever writes such
//! values into another file asks [`OpenFile::misfit`] first.

use crate::table::{
    field_ids::FieldFinder,
    file_columns::{OpenFile, cast, default_of, repeated},
    partition::field_id,
};
use arrow::{
    array::{Array, ArrayRef, AsArray, ListArray, MapArray, StructArray},
    datatypes::{DataType, FieldRef, Fields, TimeUnit},
    error::ArrowError,
};
use iceberg::spec::{ListType, MapType, StructType, Type};
use std::sync::Arc;

impl OpenFile {
    /// Why the file may not go once its rows are written as they are read here: other readers find other values
    /// in it. None where they find the same.
    #[must_use]
    pub(in crate::table) fn misfit(&self) -> Option<&'static str> {
        let schema = self.builder.schema();
        let finder = FieldFinder::of(schema, &self.columns.aliases);
        let columns = DataType::Struct(schema.fields().clone());
        if !finder.has_ids && !self.columns.aliases.is_given() {
            // Iceberg's Java library goes by the order of the columns there, others by their names.
            Some(
                "has no field ids, and the table has no name mapping; give it one, or rewrite the file with the engine that wrote it",
            )
        } else if finder.has_ids && is_any_within(&columns, has_field_without_id) {
            Some("has fields without ids beside others; rewrite it with the engine that wrote it")
        } else if is_any_within(&columns, is_of_nanoseconds) {
            Some(
                "has times in nanoseconds, which its table has not; rewrite it with the engine that wrote it",
            )
        } else {
            None
        }
    }
}

/// Whether a type, or one inside of it, is such a one.
fn is_any_within(kind: &DataType, is_such: fn(&DataType) -> bool) -> bool {
    let is_inside = |field: &FieldRef| is_any_within(field.data_type(), is_such);
    let is_of_parts = match kind {
        DataType::Struct(fields) => fields.iter().any(is_inside),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            is_inside(item)
        }
        DataType::Map(entry, _) => match entry.data_type() {
            // The struct of key and value is no field of the table.
            DataType::Struct(fields) => fields.iter().any(is_inside),
            _ => false,
        },
        DataType::Dictionary(_, values) => is_any_within(values, is_such),
        _ => false,
    };
    is_of_parts || is_such(kind)
}

/// A field without an id is found in no struct whose others have some, and would be null.
fn has_field_without_id(kind: &DataType) -> bool {
    match kind {
        DataType::Struct(fields) => fields.iter().any(|field| field_id(field).is_none()),
        _ => false,
    }
}

/// Times of Parquet's INT96 are read so as well, and those after 2262 come out wrong.
fn is_of_nanoseconds(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Timestamp(TimeUnit::Nanosecond, _) | DataType::Time64(TimeUnit::Nanosecond)
    )
}

/// Values of a file's column as those of the table's.
pub(super) fn bind(
    values: &ArrayRef,
    kind: &Type,
    target: &DataType,
    finder: FieldFinder<'_>,
) -> Result<ArrayRef, ArrowError> {
    match (kind, target) {
        (Type::Primitive(_), _) => cast(values, target),
        (Type::Struct(kind), DataType::Struct(fields)) => bind_struct(values, kind, fields, finder),
        (Type::List(kind), DataType::List(item)) => bind_list(values, kind, item, finder),
        (Type::Map(kind), DataType::Map(entry, false)) => bind_map(values, kind, entry, finder),
        (Type::Struct(_) | Type::List(_) | Type::Map(_), _) => Err(mismatch(values, target)),
    }
}

fn bind_struct(
    values: &ArrayRef,
    kind: &StructType,
    fields: &Fields,
    finder: FieldFinder<'_>,
) -> Result<ArrayRef, ArrowError> {
    let of_file = values.as_struct_opt();
    let of_file = of_file.ok_or_else(|| mismatch(values, &DataType::Struct(fields.clone())))?;
    let columns = kind.fields().iter().zip(fields).map(|(column, field)| {
        let target = field.data_type();
        match finder.find(of_file.fields(), column) {
            Some(at) => bind(of_file.column(at), &column.field_type, target, finder),
            None => repeated(&default_of(column, target)?, of_file.len()),
        }
    });
    let columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
    let (nulls, rows) = (of_file.nulls().cloned(), of_file.len());
    let bound = StructArray::try_new_with_length(fields.clone(), columns, nulls, rows)?;
    Ok(Arc::new(bound))
}

fn bind_list(
    values: &ArrayRef,
    kind: &ListType,
    item: &FieldRef,
    finder: FieldFinder<'_>,
) -> Result<ArrayRef, ArrowError> {
    // A file may tell of the Arrow type that it was written from.
    let plain = match values.data_type() {
        DataType::LargeList(of_file) | DataType::FixedSizeList(of_file, _) => {
            cast(values, &DataType::List(Arc::clone(of_file)))?
        }
        _ => Arc::clone(values),
    };
    let of_file = plain.as_list_opt::<i32>();
    let of_file = of_file.ok_or_else(|| mismatch(values, &DataType::List(Arc::clone(item))))?;
    let kind = &kind.element_field.field_type;
    let items = bind(of_file.values(), kind, item.data_type(), finder)?;
    let (offsets, nulls) = (of_file.offsets().clone(), of_file.nulls().cloned());
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, items, nulls)?))
}

fn bind_map(
    values: &ArrayRef,
    kind: &MapType,
    entry: &FieldRef,
    finder: FieldFinder<'_>,
) -> Result<ArrayRef, ArrowError> {
    let refuse = || mismatch(values, &DataType::Map(Arc::clone(entry), false));
    let of_file = values.as_map_opt().ok_or_else(refuse)?;
    let DataType::Struct(fields) = entry.data_type() else { return Err(refuse()) };
    let [key, value] = &fields[..] else { return Err(refuse()) };
    let keys = bind(of_file.keys(), &kind.key_field.field_type, key.data_type(), finder)?;
    let held = bind(of_file.values(), &kind.value_field.field_type, value.data_type(), finder)?;
    let entries = StructArray::try_new(fields.clone(), vec![keys, held], None)?;
    let (offsets, nulls) = (of_file.offsets().clone(), of_file.nulls().cloned());
    Ok(Arc::new(MapArray::try_new(Arc::clone(entry), offsets, entries, nulls, false)?))
}

fn mismatch(values: &ArrayRef, target: &DataType) -> ArrowError {
    ArrowError::SchemaError(format!("{} is no {target}", values.data_type()))
}
