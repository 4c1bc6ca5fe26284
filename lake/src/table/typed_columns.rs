//! Typed columns of a collection's table: members of its documents, as the registered schema of the collection names
//! them.
//!
//! The description of a column says which member it has and what is wanted of it, so the table alone tells how its
//! columns are computed. Its one invariant: a typed column is a function of `doc` beside it. Whoever writes rows of
//! the table computes it, and who folds changes as well, so an answer does not change with a refresh.

pub mod evolution;
pub mod json_schema;
mod names;
mod values;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use iceberg::spec::{NestedField, NestedFieldRef, PrimitiveType, TableMetadata, Type};
use icecore_catalog::retention;
use serde::{Deserialize, Serialize};
use std::{fmt, iter, sync::Arc};

/// The table property with the registered schema, as JSON.
pub const SCHEMA: &str = "icecore.collection.schema";
/// The column that counts what of a document does not fit its columns. A table has it with its first typed column.
pub const MISFITS: &str = "misfits";

/// What is there before the member in the description of a column.
const DOC: &str = "from doc: ";
/// The description of [`MISFITS`].
const MISFITS_DOC: &str = "How many members of the document do not fit their columns";
/// The zone of times.
const UTC: &str = "+00:00";

/// What the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TypedKind {
    /// True or false.
    Boolean,
    /// A JSON number without fraction and exponent, of 32 bits.
    Int,
    /// The same of 64 bits.
    Long,
    /// Any JSON number, as the nearest float of 32 bits.
    Float,
    /// The same of 64 bits.
    Double,
    /// A JSON number or a text with one that has at most so many digits, and is not rounded.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits behind the point, at most `precision`.
        scale: u8,
    },
    /// A JSON string's text.
    String,
    /// A text with a UUID, in lower case.
    Uuid,
    /// A text with a day, `2026-11-20`.
    Date,
    /// A text with a time and an offset, as RFC 3339 has it.
    Timestamptz,
    /// A JSON object, as its text.
    Object,
    /// A JSON array, as its text.
    Array,
}

impl TypedKind {
    fn primitive(self) -> PrimitiveType {
        match self {
            Self::Boolean => PrimitiveType::Boolean,
            Self::Int => PrimitiveType::Int,
            Self::Long => PrimitiveType::Long,
            Self::Float => PrimitiveType::Float,
            Self::Double => PrimitiveType::Double,
            Self::Decimal { precision, scale } => {
                PrimitiveType::Decimal { precision: u32::from(precision), scale: u32::from(scale) }
            }
            // Engines differ in what they read a column of UUIDs as.
            Self::String | Self::Uuid | Self::Object | Self::Array => PrimitiveType::String,
            Self::Date => PrimitiveType::Date,
            Self::Timestamptz => PrimitiveType::Timestamptz,
        }
    }

    /// The type of its values in SQL.
    fn data_type(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int => DataType::Int32,
            Self::Long => DataType::Int64,
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Decimal { precision, scale } => {
                DataType::Decimal128(precision, scale.cast_signed())
            }
            Self::String | Self::Uuid | Self::Object | Self::Array => DataType::Utf8View,
            Self::Date => DataType::Date32,
            Self::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        }
    }

    /// Whether every value of it is one of another kind, and files keep theirs.
    fn widens_to(self, other: Self) -> bool {
        match (self, other) {
            (Self::Int, Self::Long) | (Self::Float, Self::Double) | (Self::Uuid, Self::String) => {
                true
            }
            (
                Self::Decimal { precision, scale },
                Self::Decimal { precision: wider, scale: same },
            ) => precision <= wider && scale == same,
            _ => self == other,
        }
    }
}

impl fmt::Display for TypedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean"),
            Self::Int => f.write_str("int"),
            Self::Long => f.write_str("long"),
            Self::Float => f.write_str("float"),
            Self::Double => f.write_str("double"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::String => f.write_str("string"),
            Self::Uuid => f.write_str("uuid"),
            Self::Date => f.write_str("date"),
            Self::Timestamptz => f.write_str("timestamptz"),
            Self::Object => f.write_str("object"),
            Self::Array => f.write_str("array"),
        }
    }
}

/// A member of documents, and what is wanted of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TypedMember {
    /// Its name in the document.
    pub member: String,
    /// What its values are.
    #[serde(rename = "type")]
    pub kind: TypedKind,
    /// Whether it may be null.
    pub nullable: bool,
    /// Whether it has to be there.
    pub required: bool,
}

/// A column of the table with a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TypedColumn {
    /// Its name in the table.
    pub name: String,
    /// The member.
    pub of: TypedMember,
}

impl TypedColumn {
    /// The column that a field of the table is; none where it is another one.
    fn of(field: &NestedField) -> Option<Self> {
        let of: TypedMember =
            serde_json::from_str(field.doc.as_deref()?.strip_prefix(DOC)?).ok()?;
        let kind = field.field_type.as_primitive_type()?;
        let is_its_own = *kind == of.kind.primitive() && !field.required;
        is_its_own.then(|| Self { name: field.name.clone(), of })
    }

    fn field(&self, id: i32) -> NestedFieldRef {
        let member = serde_json::to_string(&self.of).expect("its members are texts and numbers");
        let kind = Type::Primitive(self.of.kind.primitive());
        Arc::new(NestedField::optional(id, &self.name, kind).with_doc(format!("{DOC}{member}")))
    }
}

/// Whether a column of a collection's table is a typed one. Its name is that of a member, and says nothing of rows.
pub(in crate::table) fn is_typed(field: &NestedField) -> bool {
    TypedColumn::of(field).is_some()
}

/// The typed columns of a table, in their order; none without a registered schema.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TypedColumns {
    columns: Vec<TypedColumn>,
}

impl TypedColumns {
    /// Those of a collection's table; none of any other table.
    #[must_use]
    pub fn of(table: &TableMetadata) -> Self {
        if retention::collection_of(table).is_none() {
            return Self::default();
        }
        let fields = table.current_schema().as_struct().fields();
        Self { columns: fields.iter().filter_map(|field| TypedColumn::of(field)).collect() }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// The columns, without [`MISFITS`].
    #[must_use]
    pub fn columns(&self) -> &[TypedColumn] {
        &self.columns
    }

    /// The names that a table has behind those of every collection, in its order: [`MISFITS`] comes first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let misfits = (!self.columns.is_empty()).then_some(MISFITS);
        misfits.into_iter().chain(self.columns.iter().map(|column| column.name.as_str()))
    }

    /// The same with their types in SQL.
    #[must_use]
    pub fn fields(&self) -> Fields {
        let misfits = Field::new(MISFITS, DataType::Int32, true);
        let columns = self.columns.iter();
        let columns =
            columns.map(|column| Field::new(&column.name, column.of.kind.data_type(), true));
        iter::once(misfits).chain(columns).collect()
    }

    /// The schema that was registered for the table's collection, as JSON.
    #[must_use]
    pub fn registered(table: &TableMetadata) -> Option<&str> {
        retention::collection_of(table)?;
        table.properties().get(SCHEMA).map(String::as_str)
    }
}

#[cfg(test)]
mod tests;
