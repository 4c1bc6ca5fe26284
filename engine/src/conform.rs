//! How an array of a data file becomes a column of the table: fields found by id at every depth,
//! promoted types, defaults, and the forms in which SQL shows some types.
//!
//! Its one invariant: which field of a file is which of the table is decided by field ids (Iceberg
//! specification, "Column Projection"), never by a name that the file has an id for.

use crate::{floats, uuid};
use arrow::{
    array::{Array, ArrayRef, AsArray, ListArray, MapArray, StructArray},
    compute::{is_null, nullif},
    datatypes::{DataType, Field, FieldRef, Fields},
};
use datafusion::{
    common::{ScalarValue, exec_err},
    error::DataFusionError,
};
use iceberg::{
    arrow::type_to_arrow_type,
    spec::{NestedField, PrimitiveType, Type},
};
use icecore_lake::table::{
    field_ids::FieldFinder,
    file_columns::{self, cast},
};
use std::sync::Arc;

/// What has to be done to an array of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ColumnConversion {
    /// Nothing.
    Same,
    /// A cast, mostly to a wider type.
    Cast(DataType),
    /// A float: of two zeros and many NaN, which SQL takes for one, there is one.
    Float(DataType),
    /// A UUID of 16 bytes becomes text.
    Uuid(DataType),
    /// A struct with these fields.
    Struct(Fields, Vec<MemberSource>),
    /// A list with this element.
    List(FieldRef, Box<ColumnConversion>),
    /// A map with these entries, and what is done to keys and values.
    Map(FieldRef, Box<(ColumnConversion, ColumnConversion)>),
}

/// Where a field of a struct comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MemberSource {
    /// From the file's field at this place.
    At(usize, ColumnConversion),
    /// The file has none: every row has this value.
    Value(ScalarValue),
}

/// What makes `column`, as `target`, of the file's type `from`.
///
/// # Errors
/// The file has a type that can never have been the column's.
pub fn conform(
    finder: FieldFinder<'_>,
    from: &DataType,
    column: &Type,
    target: &DataType,
) -> Result<ColumnConversion, DataFusionError> {
    match (column, target) {
        (Type::Primitive(PrimitiveType::Uuid), _) => Ok(ColumnConversion::Uuid(target.clone())),
        (Type::Primitive(PrimitiveType::Float | PrimitiveType::Double), _) => {
            Ok(ColumnConversion::Float(target.clone()))
        }
        (Type::Primitive(_), _) if from == target => Ok(ColumnConversion::Same),
        (Type::Primitive(_), _) => Ok(ColumnConversion::Cast(target.clone())),
        (Type::Struct(columns), DataType::Struct(targets)) => {
            let DataType::Struct(fields) = from else { return mismatch(from, target) };
            let members = columns
                .fields()
                .iter()
                .zip(targets)
                .map(|(column, target)| member(finder, fields, column, target.data_type()));
            Ok(ColumnConversion::Struct(targets.clone(), members.collect::<Result<_, _>>()?))
        }
        (Type::List(column), DataType::List(element)) => {
            let from = match from {
                DataType::List(from)
                | DataType::LargeList(from)
                | DataType::FixedSizeList(from, _) => from.data_type(),
                _ => return mismatch(from, target),
            };
            let field = &column.element_field.field_type;
            let inner = conform(finder, from, field, element.data_type())?;
            Ok(ColumnConversion::List(Arc::clone(element), Box::new(inner)))
        }
        (Type::Map(column), DataType::Map(entries, _)) => {
            let (DataType::Map(from, _), DataType::Struct(targets)) = (from, entries.data_type())
            else {
                return mismatch(from, target);
            };
            let DataType::Struct(from) = from.data_type() else {
                return mismatch(from.data_type(), target);
            };
            let inner = |at: usize, column: &NestedField| {
                conform(finder, from[at].data_type(), &column.field_type, targets[at].data_type())
            };
            let inner = (inner(0, &column.key_field)?, inner(1, &column.value_field)?);
            Ok(ColumnConversion::Map(Arc::clone(entries), Box::new(inner)))
        }
        _ => mismatch(from, target),
    }
}

fn member(
    finder: FieldFinder<'_>,
    fields: &Fields,
    column: &NestedField,
    target: &DataType,
) -> Result<MemberSource, DataFusionError> {
    match finder.find(fields, column) {
        Some(at) => {
            let inner = conform(finder, fields[at].data_type(), &column.field_type, target)?;
            Ok(MemberSource::At(at, inner))
        }
        None => default_of(column, target).map(MemberSource::Value),
    }
}

fn mismatch<T>(from: &DataType, target: &DataType) -> Result<T, DataFusionError> {
    exec_err!("a data file has {from} where the table has {target}")
}

/// The value of a column in rows of files that were written before it was there.
///
/// # Errors
/// The column's default has a type that has none here.
pub fn default_of(column: &NestedField, target: &DataType) -> Result<ScalarValue, DataFusionError> {
    if column.initial_default.is_none() {
        return ScalarValue::try_from(target);
    }
    let kind = type_to_arrow_type(&column.field_type)
        .map_err(|cause| DataFusionError::External(Box::new(cause)))?;
    let value = file_columns::default_of(column, &kind)?;
    let value = match column.field_type.as_ref() {
        Type::Primitive(PrimitiveType::Uuid) => uuid::to_text(&value, target)?,
        _ => cast(&value, target)?,
    };
    ScalarValue::try_from_array(&value, 0)
}

impl ColumnConversion {
    /// The array as the table has it.
    ///
    /// # Errors
    /// A value does not fit.
    pub fn apply(&self, array: &ArrayRef) -> Result<ArrayRef, DataFusionError> {
        match self {
            Self::Same => Ok(Arc::clone(array)),
            Self::Cast(target) => Ok(cast(array, target)?),
            Self::Float(target) => Ok(floats::normal(&cast(array, target)?)),
            Self::Uuid(target) => uuid::to_text(array, target),
            Self::Struct(fields, members) => {
                let of_file = array.as_struct();
                let columns = members.iter().map(|member| match member {
                    MemberSource::At(at, inner) => inner.apply(of_file.column(*at)),
                    // A field of no struct has no value: `get_field` asks the field alone.
                    MemberSource::Value(value) => {
                        let values = value.to_array_of_size(array.len())?;
                        Ok(nullif(&values, &is_null(array)?)?)
                    }
                });
                let columns = columns.collect::<Result<Vec<_>, _>>()?;
                let nulls = of_file.nulls().cloned();
                let length = array.len();
                let made =
                    StructArray::try_new_with_length(fields.clone(), columns, nulls, length)?;
                Ok(Arc::new(made))
            }
            Self::List(element, inner) => {
                let plain = DataType::List(Arc::new(Field::new_list_field(
                    element_type(array.data_type()).clone(),
                    true,
                )));
                let array = cast(array, &plain)?;
                let list = array.as_list::<i32>();
                let values = inner.apply(list.values())?;
                let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
                Ok(Arc::new(ListArray::try_new(Arc::clone(element), offsets, values, nulls)?))
            }
            Self::Map(entries, inner) => map(array.as_map(), entries, inner),
        }
    }
}

fn element_type(list: &DataType) -> &DataType {
    match list {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            field.data_type()
        }
        other => other,
    }
}

fn map(
    array: &MapArray,
    entries: &FieldRef,
    (key, value): &(ColumnConversion, ColumnConversion),
) -> Result<ArrayRef, DataFusionError> {
    let DataType::Struct(fields) = entries.data_type() else {
        return exec_err!("a map's entries are no struct");
    };
    let columns = vec![key.apply(array.keys())?, value.apply(array.values())?];
    let pairs = StructArray::try_new(fields.clone(), columns, None)?;
    let (offsets, nulls) = (array.offsets().clone(), array.nulls().cloned());
    Ok(Arc::new(MapArray::try_new(Arc::clone(entries), offsets, pairs, nulls, false)?))
}
