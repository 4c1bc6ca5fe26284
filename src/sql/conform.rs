//! How an array of a data file becomes a column of the table: fields found by id at every depth,
//! promoted types, defaults, and the forms in which SQL shows some types.
//!
//! Its one invariant: which field of a file is which of the table is decided by field ids (Iceberg
//! specification, "Column Projection"), never by a name that the file has an id for.

use crate::sql::{floats, uuid};
use arrow::{
    array::{Array, ArrayRef, AsArray, ListArray, MapArray, StructArray, new_null_array},
    compute::{CastOptions, cast_with_options, is_null, nullif},
    datatypes::{DataType, Field, FieldRef, Fields},
};
use datafusion::{
    common::{ScalarValue, exec_datafusion_err, exec_err},
    error::DataFusionError,
};
use iceberg::spec::{Literal, NameMapping, NestedField, PrimitiveLiteral, PrimitiveType, Type};
use std::{collections::HashMap, sync::Arc};

/// Where the Parquet reader puts a field's id.
const FIELD_ID: &str = parquet::arrow::PARQUET_FIELD_ID_META_KEY;

/// What has to be done to an array of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Conform {
    /// Nothing.
    Same,
    /// A cast, mostly to a wider type.
    Cast(DataType),
    /// A float: of two zeros and many NaN, which SQL takes for one, there is one.
    Float(DataType),
    /// A UUID of 16 bytes becomes text.
    Uuid(DataType),
    /// A struct with these fields.
    Struct(Fields, Vec<Member>),
    /// A list with this element.
    List(FieldRef, Box<Conform>),
    /// A map with these entries, and what is done to keys and values.
    Map(FieldRef, Box<(Conform, Conform)>),
}

/// Where a field of a struct comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Member {
    /// From the file's field at this place.
    At(usize, Conform),
    /// The file has none: every row has this value.
    Value(ScalarValue),
}

/// Names of files that have no field ids, as the table's property `schema.name-mapping.default`
/// gives them: aliases by field id.
#[derive(Clone, Debug, Default)]
pub struct Aliases(Option<HashMap<i32, Vec<String>>>);

impl Aliases {
    /// What the property says.
    ///
    /// # Errors
    /// It is not a name mapping.
    pub fn parse(property: &str) -> Result<Self, DataFusionError> {
        let mapping: NameMapping = serde_json::from_str(property).map_err(|cause| {
            exec_datafusion_err!(
                "the table's property `schema.name-mapping.default` is no name mapping: {cause}"
            )
        })?;
        let mut names = HashMap::new();
        let mut open: Vec<_> = mapping.fields().iter().collect();
        while let Some(field) = open.pop() {
            if let Some(id) = field.field_id() {
                names.insert(id, field.names().to_vec());
            }
            open.extend(field.fields().iter().map(AsRef::as_ref));
        }
        Ok(Self(Some(names)))
    }

    /// Whether the table has such a mapping.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.0.is_some()
    }

    fn has(&self, column: &NestedField, name: &str) -> bool {
        match &self.0 {
            // A field that the mapping leaves out is in no file without ids.
            Some(names) => {
                names.get(&column.id).is_some_and(|names| names.iter().any(|n| n == name))
            }
            None => column.name == name,
        }
    }
}

/// How fields of one file are found.
#[derive(Clone, Copy, Debug)]
pub struct Finder<'a> {
    /// Whether the file has field ids.
    pub has_ids: bool,
    /// Names for a file without.
    pub aliases: &'a Aliases,
}

impl Finder<'_> {
    /// The place of a column among these fields of the file.
    #[must_use]
    pub fn find(&self, fields: &Fields, column: &NestedField) -> Option<usize> {
        fields.iter().position(|field| {
            if self.has_ids {
                id_of(field) == Some(column.id)
            } else {
                self.aliases.has(column, field.name())
            }
        })
    }

    /// What makes `column`, as `target`, of the file's type `from`.
    ///
    /// # Errors
    /// The file has a type that can never have been the column's.
    pub fn conform(
        &self,
        from: &DataType,
        column: &Type,
        target: &DataType,
    ) -> Result<Conform, DataFusionError> {
        match (column, target) {
            (Type::Primitive(PrimitiveType::Uuid), _) => Ok(Conform::Uuid(target.clone())),
            (Type::Primitive(PrimitiveType::Float | PrimitiveType::Double), _) => {
                Ok(Conform::Float(target.clone()))
            }
            (Type::Primitive(_), _) if from == target => Ok(Conform::Same),
            (Type::Primitive(_), _) => Ok(Conform::Cast(target.clone())),
            (Type::Struct(columns), DataType::Struct(targets)) => {
                let DataType::Struct(fields) = from else { return mismatch(from, target) };
                let members = columns
                    .fields()
                    .iter()
                    .zip(targets)
                    .map(|(column, target)| self.member(fields, column, target.data_type()));
                Ok(Conform::Struct(targets.clone(), members.collect::<Result<_, _>>()?))
            }
            (Type::List(column), DataType::List(element)) => {
                let from = match from {
                    DataType::List(from)
                    | DataType::LargeList(from)
                    | DataType::FixedSizeList(from, _) => from.data_type(),
                    _ => return mismatch(from, target),
                };
                let field = &column.element_field.field_type;
                let inner = self.conform(from, field, element.data_type())?;
                Ok(Conform::List(Arc::clone(element), Box::new(inner)))
            }
            (Type::Map(column), DataType::Map(entries, _)) => {
                let (DataType::Map(from, _), DataType::Struct(targets)) =
                    (from, entries.data_type())
                else {
                    return mismatch(from, target);
                };
                let DataType::Struct(from) = from.data_type() else {
                    return mismatch(from.data_type(), target);
                };
                let inner = |at: usize, column: &NestedField| {
                    self.conform(from[at].data_type(), &column.field_type, targets[at].data_type())
                };
                let inner = (inner(0, &column.key_field)?, inner(1, &column.value_field)?);
                Ok(Conform::Map(Arc::clone(entries), Box::new(inner)))
            }
            _ => mismatch(from, target),
        }
    }

    fn member(
        &self,
        fields: &Fields,
        column: &NestedField,
        target: &DataType,
    ) -> Result<Member, DataFusionError> {
        match self.find(fields, column) {
            Some(at) => {
                let inner = self.conform(fields[at].data_type(), &column.field_type, target)?;
                Ok(Member::At(at, inner))
            }
            None => default_of(column, target).map(Member::Value),
        }
    }
}

fn mismatch<T>(from: &DataType, target: &DataType) -> Result<T, DataFusionError> {
    exec_err!("a data file has {from} where the table has {target}")
}

/// The id of a file's field.
#[must_use]
pub fn id_of(field: &Field) -> Option<i32> {
    field.metadata().get(FIELD_ID)?.parse().ok()
}

/// The value of a column in rows of files that were written before it was there.
///
/// # Errors
/// The column's default has a type that has none here.
pub fn default_of(column: &NestedField, target: &DataType) -> Result<ScalarValue, DataFusionError> {
    let Some(default) = &column.initial_default else { return ScalarValue::try_from(target) };
    let value = match (default, column.field_type.as_ref()) {
        (Literal::Primitive(value), Type::Primitive(kind)) => primitive(value, kind),
        _ => None,
    };
    match value {
        Some(value) => value.cast_to(target),
        None => exec_err!("column `{}` has a default that is not read here", column.name),
    }
}

fn primitive(value: &PrimitiveLiteral, kind: &PrimitiveType) -> Option<ScalarValue> {
    Some(match (value, kind) {
        (PrimitiveLiteral::Boolean(value), _) => ScalarValue::Boolean(Some(*value)),
        (PrimitiveLiteral::Int(days), PrimitiveType::Date) => ScalarValue::Date32(Some(*days)),
        (PrimitiveLiteral::Int(value), _) => ScalarValue::Int32(Some(*value)),
        (PrimitiveLiteral::Long(micros), PrimitiveType::Timestamp | PrimitiveType::Timestamptz) => {
            ScalarValue::TimestampMicrosecond(Some(*micros), None)
        }
        (
            PrimitiveLiteral::Long(nanos),
            PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs,
        ) => ScalarValue::TimestampNanosecond(Some(*nanos), None),
        (PrimitiveLiteral::Long(micros), PrimitiveType::Time) => {
            ScalarValue::Time64Microsecond(Some(*micros))
        }
        (PrimitiveLiteral::Long(value), _) => ScalarValue::Int64(Some(*value)),
        (PrimitiveLiteral::Float(value), _) => ScalarValue::Float32(Some(value.0)),
        (PrimitiveLiteral::Double(value), _) => ScalarValue::Float64(Some(value.0)),
        (PrimitiveLiteral::String(value), _) => ScalarValue::Utf8(Some(value.clone())),
        (PrimitiveLiteral::UInt128(value), PrimitiveType::Uuid) => {
            ScalarValue::Utf8(Some(::uuid::Uuid::from_u128(*value).to_string()))
        }
        (PrimitiveLiteral::Binary(value), _) => ScalarValue::Binary(Some(value.clone())),
        (PrimitiveLiteral::Int128(value), PrimitiveType::Decimal { precision, scale }) => {
            let (precision, scale) = (u8::try_from(*precision).ok()?, i8::try_from(*scale).ok()?);
            ScalarValue::Decimal128(Some(*value), precision, scale)
        }
        _ => return None,
    })
}

impl Conform {
    /// The array as the table has it.
    ///
    /// # Errors
    /// A value does not fit.
    pub fn apply(&self, array: &ArrayRef) -> Result<ArrayRef, DataFusionError> {
        match self {
            Self::Same => Ok(Arc::clone(array)),
            Self::Cast(target) => cast(array, target),
            Self::Float(target) => cast(array, target).map(|array| floats::normal(&array)),
            Self::Uuid(target) => uuid::to_text(array, target),
            Self::Struct(fields, members) => {
                let of_file = array.as_struct();
                let columns = members.iter().map(|member| match member {
                    Member::At(at, inner) => inner.apply(of_file.column(*at)),
                    // A field of no struct has no value: `get_field` asks the field alone.
                    Member::Value(value) => {
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
    (key, value): &(Conform, Conform),
) -> Result<ArrayRef, DataFusionError> {
    let DataType::Struct(fields) = entries.data_type() else {
        return exec_err!("a map's entries are no struct");
    };
    let columns = vec![key.apply(array.keys())?, value.apply(array.values())?];
    let pairs = StructArray::try_new(fields.clone(), columns, None)?;
    let (offsets, nulls) = (array.offsets().clone(), array.nulls().cloned());
    Ok(Arc::new(MapArray::try_new(Arc::clone(entries), offsets, pairs, nulls, false)?))
}

fn cast(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, DataFusionError> {
    if array.data_type() == target {
        return Ok(Arc::clone(array));
    }
    if array.data_type().is_null() {
        return Ok(new_null_array(target, array.len()));
    }
    // What does not fit is an error, not a null.
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    Ok(cast_with_options(array, target, &strict)?)
}
