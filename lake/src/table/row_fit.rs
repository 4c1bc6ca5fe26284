//! Rows of any columns as rows of a table: which type each column becomes, and how its values get there.
//!
//! Its one invariant: a value that does not fit its column is an error that names the column, never a null.

mod nested;
pub mod wall_clock;

use crate::table::partition::FIELD_ID;
use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray, new_null_array},
    compute::{CastOptions, can_cast_types, cast, cast_with_options},
    datatypes::{
        DataType, Field, Float32Type, Float64Type, Schema as ArrowSchema,
        SchemaRef as ArrowSchemaRef, TimeUnit,
    },
    error::ArrowError,
    record_batch::RecordBatch,
};
use iceberg::spec::{NestedField, PrimitiveType, Schema, Type};
use nested::FieldIds;
use std::{collections::HashMap, sync::Arc};

/// Most digits of a decimal, by Iceberg's specification.
const DIGITS_MAX: u8 = 38;

/// Why rows are no rows of a table.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// A column without a name.
    #[error("column {0} of the query has no name: give it one with AS")]
    NoName(usize),
    /// Two columns of one name.
    #[error("two columns are called `{0}`: give one of them another name with AS")]
    Twice(String),
    /// Two columns whose names are one name in many engines.
    #[error(
        "columns `{0}` and `{1}` differ by case only, and many engines take the two for one: give one of them another name with AS"
    )]
    Case(String, String),
    /// A struct whose members have no names of their own.
    #[error(
        "column `{0}` has a struct with a member without a name, or with two whose names are the same but for case: give each another name"
    )]
    Members(String),
    /// A column and a member of a struct, or two members, that have one path.
    #[error(
        "columns and members of structs have one path twice, as `a.b` is that of a column and of a member `b` of `a`: give one of them another name ({0})"
    )]
    Paths(String),
    /// A column of a type that no table has.
    #[error("column `{column}` is of type {kind}, which is not written: CAST it to another type")]
    #[expect(missing_docs, reason = "the members are named in the text")]
    NoType { column: String, kind: DataType },
    /// More columns than there are places for, or fewer.
    #[error(
        "the query has {given} columns, but {wanted} are written: name them in brackets behind the table"
    )]
    #[expect(missing_docs, reason = "the members are named in the text")]
    Count { given: usize, wanted: usize },
    /// A column of the table whose type is not written here.
    #[error(
        "column `{column}` of the table is of type {kind}, which is not written here: leave it out, or write it by another engine"
    )]
    #[expect(missing_docs, reason = "the members are named in the text")]
    Unwritten { column: String, kind: String },
    /// Values that are not of the column's kind.
    #[error(
        "column `{column}` of the table is of type {wanted}, but the query's is {given}: CAST it"
    )]
    #[expect(missing_docs, reason = "the members are named in the text")]
    Kind { column: String, wanted: String, given: DataType },
    /// A column that needs a value gets none.
    #[error("column `{0}` needs a value, and gets none")]
    Missing(String),
    /// A column is left out that has a default value.
    #[error("column `{0}` has a default value, which is not filled in here: give it a value")]
    Default(String),
    /// A value does not fit.
    #[error("a value does not fit column `{column}`")]
    Value {
        /// The column.
        column: String,
        /// What is wrong with the value.
        source: ArrowError,
    },
    /// The columns do not make rows.
    #[error("rows of the query cannot be put together")]
    Rows(#[source] ArrowError),
}

/// The type of a table's column for values of this type; none where no column has such values.
#[must_use]
pub fn column_type(kind: &DataType) -> Option<PrimitiveType> {
    let decimal = |precision: u8, scale: i8| {
        let digits = u8::try_from(scale).ok().filter(|scale| *scale <= precision)?;
        (precision <= DIGITS_MAX).then_some(PrimitiveType::Decimal {
            precision: u32::from(precision),
            scale: u32::from(digits),
        })
    };
    Some(match kind {
        DataType::Boolean => PrimitiveType::Boolean,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => {
            PrimitiveType::Int
        }
        DataType::Int64 | DataType::UInt32 => PrimitiveType::Long,
        // The largest has 20 digits.
        DataType::UInt64 => PrimitiveType::Decimal { precision: 20, scale: 0 },
        DataType::Float16 | DataType::Float32 => PrimitiveType::Float,
        DataType::Float64 => PrimitiveType::Double,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => PrimitiveType::String,
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => PrimitiveType::Binary,
        DataType::Date32 | DataType::Date64 => PrimitiveType::Date,
        DataType::Time32(_) | DataType::Time64(_) => PrimitiveType::Time,
        DataType::Timestamp(_, None) => PrimitiveType::Timestamp,
        DataType::Timestamp(_, Some(_)) => PrimitiveType::Timestamptz,
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => return decimal(*precision, *scale),
        DataType::Dictionary(_, values) => return column_type(values),
        DataType::RunEndEncoded(_, values) => return column_type(values.data_type()),
        DataType::Null
        | DataType::Duration(_)
        | DataType::Interval(_)
        | DataType::List(_)
        | DataType::LargeList(_)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::FixedSizeList(..)
        | DataType::Struct(_)
        | DataType::Map(..)
        | DataType::Union(..) => return None,
    })
}

/// The type in our files of a table's column; none where we write none.
fn file_type(kind: &PrimitiveType) -> Option<DataType> {
    Some(match kind {
        PrimitiveType::Boolean => DataType::Boolean,
        PrimitiveType::Int => DataType::Int32,
        PrimitiveType::Long => DataType::Int64,
        PrimitiveType::Float => DataType::Float32,
        PrimitiveType::Double => DataType::Float64,
        PrimitiveType::Decimal { precision, scale } => {
            let precision = u8::try_from(*precision).ok().filter(|it| *it <= DIGITS_MAX)?;
            DataType::Decimal128(precision, i8::try_from(*scale).ok()?)
        }
        PrimitiveType::Date => DataType::Date32,
        PrimitiveType::Time => DataType::Time64(TimeUnit::Microsecond),
        PrimitiveType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        PrimitiveType::Timestamptz => {
            DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))
        }
        PrimitiveType::String => DataType::Utf8,
        PrimitiveType::Binary => DataType::Binary,
        PrimitiveType::TimestampNs
        | PrimitiveType::TimestamptzNs
        | PrimitiveType::Uuid
        | PrimitiveType::Fixed(_) => return None,
    })
}

/// The columns of a new table for rows with these columns. None of them is required.
///
/// # Errors
/// [`FitError::NoName`], [`FitError::Twice`], [`FitError::Case`], [`FitError::Members`], [`FitError::Paths`],
/// [`FitError::NoType`].
pub fn new_schema(rows: &ArrowSchema) -> Result<Schema, FitError> {
    schema_of(rows, 0, |_, _| None)
}

/// The columns for rows with these columns in a table that has others, whose last field id is `last_id`. One that
/// has its name and type before keeps its field id. None of them is required.
///
/// # Errors
/// As [`new_schema`].
pub fn replacing_schema(
    rows: &ArrowSchema,
    before: &Schema,
    last_id: i32,
) -> Result<Schema, FitError> {
    let fields = before.as_struct().fields();
    schema_of(rows, last_id, |name, kind| {
        let known = fields.iter().find(|field| field.name == name)?;
        (kind.is_primitive() && *known.field_type == *kind).then_some(known.id)
    })
}

/// Columns whose field ids are known, or go on behind `last_id`.
fn schema_of(
    rows: &ArrowSchema,
    last_id: i32,
    known: impl Fn(&str, &Type) -> Option<i32>,
) -> Result<Schema, FitError> {
    let mut names: HashMap<String, &String> = HashMap::new();
    let mut fields = Vec::with_capacity(rows.fields().len());
    // What is in columns has the ids behind theirs.
    let count = i32::try_from(rows.fields().len()).unwrap_or(i32::MAX);
    let mut ids = FieldIds::behind(last_id.saturating_add(count));
    for (id, field) in (last_id.saturating_add(1)..).zip(rows.fields()) {
        let name = field.name();
        if name.is_empty() {
            return Err(FitError::NoName(fields.len() + 1));
        }
        match names.insert(name.to_lowercase(), name) {
            Some(other) if other == name => return Err(FitError::Twice(name.clone())),
            Some(other) => return Err(FitError::Case(other.clone(), name.clone())),
            None => (),
        }
        let kind = nested::new_type(name, field.data_type(), &mut ids)?;
        let id = known(name, &kind).unwrap_or(id);
        fields.push(Arc::new(NestedField::optional(id, name, kind)));
    }
    let built = Schema::builder().with_fields(fields).build();
    built.map_err(|cause| FitError::Paths(cause.message().to_owned()))
}

/// A column of the table as it is written.
#[derive(Clone, Debug)]
struct FitColumn {
    /// Where its values are in the rows that come; none for no values.
    source: Option<usize>,
    required: bool,
}

/// How rows become rows of one table.
#[derive(Clone, Debug)]
pub struct RowFit {
    /// As they are written, with field ids.
    schema: ArrowSchemaRef,
    columns: Vec<FitColumn>,
}

impl RowFit {
    /// For rows whose columns are those of the table with these field ids, in this order.
    ///
    /// # Errors
    /// [`FitError`]
    pub fn new(table: &Schema, targets: &[i32], rows: &ArrowSchema) -> Result<Self, FitError> {
        let given = rows.fields().len();
        if given != targets.len() {
            return Err(FitError::Count { given, wanted: targets.len() });
        }
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for field in table.as_struct().fields() {
            let source = targets.iter().position(|id| *id == field.id);
            if source.is_none() {
                check_left_out(field)?;
            }
            // Of what has columns within, a file without the column says the same as one with nulls.
            let is_left_out = source.is_none() && !field.field_type.is_primitive();
            let in_file = nested::written_type(&field.field_type).filter(|_| !is_left_out);
            let Some(in_file) = in_file else {
                if source.is_none() {
                    continue;
                }
                let kind = field.field_type.to_string();
                return Err(FitError::Unwritten { column: field.name.clone(), kind });
            };
            if let Some(source) = source {
                let given = rows.field(source).data_type();
                if !nested::fits(given, &field.field_type) || !nested::can_convert(given, &in_file)
                {
                    let (column, given) = (field.name.clone(), given.clone());
                    let wanted = field.field_type.to_string();
                    return Err(FitError::Kind { column, wanted, given });
                }
            }
            let id = [(FIELD_ID.to_owned(), field.id.to_string())];
            let written = Field::new(&field.name, in_file, !field.required);
            fields.push(written.with_metadata(id.into()));
            columns.push(FitColumn { source, required: field.required });
        }
        Ok(Self { schema: Arc::new(ArrowSchema::new(fields)), columns })
    }

    /// The columns as they are written, each with its field id.
    #[must_use]
    pub fn schema(&self) -> &ArrowSchemaRef {
        &self.schema
    }

    /// Rows as they are written.
    ///
    /// # Errors
    /// [`FitError::Value`], [`FitError::Missing`].
    pub fn fit(&self, rows: &RecordBatch) -> Result<RecordBatch, FitError> {
        let written = self.schema.fields().iter().zip(&self.columns);
        let columns = written.map(|(field, FitColumn { source, required })| {
            let kind = field.data_type();
            let column = match source {
                None => new_null_array(kind, rows.num_rows()),
                Some(source) => converted(rows.column(*source), kind)
                    .map_err(|source| FitError::Value { column: field.name().clone(), source })?,
            };
            if *required && 0 < column.null_count() {
                return Err(FitError::Missing(field.name().clone()));
            }
            Ok(column)
        });
        let columns = columns.collect::<Result<Vec<ArrayRef>, FitError>>()?;
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(FitError::Rows)
    }
}

/// A column that gets no values.
fn check_left_out(field: &NestedField) -> Result<(), FitError> {
    if field.write_default.is_some() || field.initial_default.is_some() {
        return Err(FitError::Default(field.name.clone()));
    }
    if field.required {
        return Err(FitError::Missing(field.name.clone()));
    }
    Ok(())
}

fn can_cast(from: &DataType, to: &DataType) -> bool {
    from == to || can_cast_types(from, to)
}

/// A value that does not fit is an error and not null.
fn converted(column: &ArrayRef, kind: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == kind {
        return Ok(Arc::clone(column));
    }
    if kind.is_nested() {
        return nested::converted(column, kind);
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let made = match (column.data_type(), kind) {
        // A zone behind it is ignored, as in the constants of a query.
        (
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View,
            DataType::Timestamp(_, None),
        ) => cast_with_options(&without_zones(column)?, kind, &options)?,
        _ => cast_with_options(column, kind, &options)?,
    };
    if *kind == DataType::Float32 {
        check_range(&cast_with_options(column, &DataType::Float64, &options)?, &made)?;
    }
    Ok(made)
}

/// Texts of times as a clock shows them.
fn without_zones(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let texts = cast(column, &DataType::Utf8)?;
    let shown = texts.as_string::<i32>().iter().map(|text| text.map(wall_clock::without_zone));
    Ok(Arc::new(shown.collect::<StringArray>()))
}

/// The cast makes infinity of a number that is too large for 32 bits.
fn check_range(wide: &ArrayRef, made: &ArrayRef) -> Result<(), ArrowError> {
    let (wide, made) = (wide.as_primitive::<Float64Type>(), made.as_primitive::<Float32Type>());
    let mut values = wide.iter().zip(made.iter());
    let lost = values.find_map(|(wide, made)| {
        let wide = wide.filter(|wide| wide.is_finite())?;
        made.is_some_and(f32::is_infinite).then_some(wide)
    });
    match lost {
        Some(value) => Err(ArrowError::CastError(format!("{value} is too large for a float"))),
        None => Ok(()),
    }
}

/// Whether values of a type may be written to a column without being asked for: numbers to numbers, but no
/// fraction to a whole number; times to times; text to times, which have no other form in VALUES.
fn is_assignable(from: &DataType, to: &PrimitiveType) -> bool {
    use PrimitiveType::{
        Date, Decimal, Double, Float, Int, Long, String, Time, Timestamp, Timestamptz,
    };
    if from.is_null() {
        return true;
    }
    let Some(from) = column_type(from) else { return false };
    if from == *to {
        return true;
    }
    match from {
        Int | Long | Decimal { scale: 0, .. } => {
            matches!(to, Int | Long | Float | Double | Decimal { .. })
        }
        Float | Double | Decimal { .. } => matches!(to, Float | Double | Decimal { .. }),
        String => matches!(to, Date | Time | Timestamp | Timestamptz),
        Date | Timestamp | Timestamptz => matches!(to, Timestamp | Timestamptz),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
