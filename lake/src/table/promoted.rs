//! JSON paths of a table that have a typed column of their own.
//!
//! The table's property [`PROMOTED_PATHS`] names them: `data.amount:double,data.user.id:string`. Each makes an
//! optional column, `data__amount`, which is added as Iceberg's schema evolution has it. The description of the
//! column says which path it is of, and it is computed as long as it is there. A column of that name without it is
//! somebody else's, and is left alone.
//!
//! Its one invariant: the column is a function of the JSON beside it. Whoever writes rows of the table computes it,
//! and who reads rows of the log as well, so an answer does not change with a commit. Files that were written before
//! have null there until they are written anew.

pub mod json;

use crate::table::{
    evolve,
    partition::{FIELD_ID, field_id},
    promoted::json::member_of,
};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatchOptions,
        StringArray, new_null_array,
    },
    compute::cast,
    datatypes::{DataType, Field, FieldRef, Schema as ArrowSchema},
    error::ArrowError,
    record_batch::RecordBatch,
};
use iceberg::{
    TableIdent,
    spec::{NestedField, NestedFieldRef, PrimitiveType, Schema, TableMetadata, Type},
};
use icecore_catalog::{catalog::TableChange, retention};
use serde_json::value::RawValue;
use std::{collections::HashSet, sync::Arc};

/// The property of a table that names its paths: at most 16 of the form `column.member:type`, with commas
/// between them. Columns are `data`, `before`, `after`, `meta` and `payload`; types are `string`, `long`,
/// `double` and `boolean`.
pub const PROMOTED_PATHS: &str = "icecore.promoted-paths";

/// Most paths of a table: each is looked for in the JSON of every row that is written.
const PATHS_MAX: usize = 16;
/// Longest name that a path's column may have, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// What is between the parts of a path in its column's name. No column of the service has it in its name.
pub const SEPARATOR: &str = "__";
/// How the descriptions of columns begin that are computed; the path follows.
const DOC: &str = "promoted from ";
/// Columns of JSON text that paths may begin with.
const SOURCES: [&str; 5] = ["data", "before", "after", "meta", "payload"];

/// Why the property names no paths.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathsError {
    /// Not a path with a type.
    #[error("`{0}` is no path: write `column.member:type`, such as `data.amount:double`")]
    Form(String),
    /// It begins with another column.
    #[error("`{0}` is in no column of JSON: use `data`, `before`, `after`, `meta` or `payload`")]
    Source(String),
    /// A member's name cannot be part of a column's name.
    #[error(
        "`{0}` has a member that makes no column name: use a letter, then letters, digits and single `_` \
         between them"
    )]
    Member(String),
    /// There is no such type.
    #[error("`{0}` has no type of a path: use `string`, `long`, `double` or `boolean`")]
    Type(String),
    /// The name of the column is too long.
    #[error("`{0}` makes a column name of more than {max} bytes: use a shorter path", max = NAME_BYTES_MAX)]
    TooLong(String),
    /// Two paths make one column.
    #[error("two paths make the column `{0}`: remove one; names that differ by case alone are one")]
    Twice(String),
    /// More than a table may have.
    #[error(
        "the table would have more than {max} columns of paths: remove some of them, or drop columns",
        max = PATHS_MAX
    )]
    TooMany,
}

/// What a path's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PathType {
    /// A JSON string's text.
    String,
    /// A JSON number without fraction and exponent, of 64 bits.
    Long,
    /// Any JSON number, as the double nearest to it.
    Double,
    /// True or false.
    Boolean,
}

impl PathType {
    const ALL: [Self; 4] = [Self::String, Self::Long, Self::Double, Self::Boolean];

    fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Long => "long",
            Self::Double => "double",
            Self::Boolean => "boolean",
        }
    }

    fn primitive(self) -> PrimitiveType {
        match self {
            Self::String => PrimitiveType::String,
            Self::Long => PrimitiveType::Long,
            Self::Double => PrimitiveType::Double,
            Self::Boolean => PrimitiveType::Boolean,
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Self::String => DataType::Utf8,
            Self::Long => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Boolean => DataType::Boolean,
        }
    }

    /// The values of this type among what was found; null in the place of everything else.
    fn values<'a>(self, found: impl Iterator<Item = Option<&'a RawValue>>) -> ArrayRef {
        match self {
            Self::String => {
                let texts = found.map(|value| json::text_of(value?));
                Arc::new(texts.collect::<StringArray>())
            }
            Self::Long => {
                let numbers = found.map(|value| json::long_of(value?));
                Arc::new(numbers.collect::<Int64Array>())
            }
            Self::Double => {
                let numbers = found.map(|value| json::double_of(value?));
                Arc::new(numbers.collect::<Float64Array>())
            }
            Self::Boolean => {
                let truths = found.map(|value| json::boolean_of(value?));
                Arc::new(truths.collect::<BooleanArray>())
            }
        }
    }
}

/// A path and the column that it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PromotedPath {
    source: &'static str,
    members: Vec<String>,
    kind: PathType,
    /// The column's name.
    name: String,
}

impl PromotedPath {
    fn parse(text: &str) -> Result<Self, PathsError> {
        let (path, kind) =
            text.rsplit_once(':').ok_or_else(|| PathsError::Form(text.to_owned()))?;
        let kind = PathType::ALL.into_iter().find(|known| known.name() == kind.trim());
        let kind = kind.ok_or_else(|| PathsError::Type(text.to_owned()))?;
        let (column, members) =
            path.trim().split_once('.').ok_or_else(|| PathsError::Form(text.to_owned()))?;
        let source = SOURCES.into_iter().find(|known| *known == column);
        let source = source.ok_or_else(|| PathsError::Source(text.to_owned()))?;
        let members: Vec<String> = members.split('.').map(str::to_owned).collect();
        if !members.iter().all(|member| is_member(member)) {
            return Err(PathsError::Member(text.to_owned()));
        }
        let name = format!("{source}{SEPARATOR}{}", members.join(SEPARATOR));
        if NAME_BYTES_MAX < name.len() {
            return Err(PathsError::TooLong(text.to_owned()));
        }
        Ok(Self { source, members, kind, name })
    }

    /// What tells the column from one that somebody else made.
    fn doc(&self) -> String {
        format!("{DOC}{}.{}:{}", self.source, self.members.join("."), self.kind.name())
    }

    fn field(&self, id: i32) -> NestedFieldRef {
        let kind = Type::Primitive(self.kind.primitive());
        Arc::new(NestedField::optional(id, &self.name, kind).with_doc(self.doc()))
    }

    /// Whether the table has the JSON as text.
    fn has_source(&self, schema: &Schema) -> bool {
        let text = Type::Primitive(PrimitiveType::String);
        schema.field_by_name(self.source).is_some_and(|field| *field.field_type == text)
    }

    /// Whether a column is the path's.
    fn is_of(&self, field: &NestedField) -> bool {
        let is_type =
            field.field_type.as_primitive_type().is_some_and(|kind| *kind == self.kind.primitive());
        is_type
            && field.name == self.name
            && !field.required
            && field.initial_default.is_none()
            && field.doc.as_ref().is_some_and(|doc| *doc == self.doc())
    }

    /// The column's values for these rows.
    fn values(&self, rows: &RecordBatch) -> Result<ArrayRef, ArrowError> {
        let source = rows.column_by_name(self.source);
        let Some(source) = source.filter(|source| source.null_count() < source.len()) else {
            return Ok(new_null_array(&self.kind.data_type(), rows.num_rows()));
        };
        let texts = source.as_string_opt::<i32>();
        let texts = texts
            .ok_or_else(|| ArrowError::SchemaError(format!("`{}` is no text", self.source)))?;
        Ok(self.kind.values(texts.iter().map(|text| self.found_in(text?))))
    }

    /// What is there in a JSON text; nothing in a text that is no JSON.
    fn found_in<'a>(&self, text: &'a str) -> Option<&'a RawValue> {
        let whole: &RawValue = serde_json::from_str(text).ok()?;
        self.members.iter().try_fold(whole, |found, name| member_of(found, name))
    }
}

/// Whether no other members make the same name, and every engine takes it.
fn is_member(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.contains(SEPARATOR)
        && !name.ends_with('_')
}

/// Whether the property may have this value.
pub(super) fn check(text: &str) -> Result<(), PathsError> {
    parse(text).map(drop)
}

fn parse(text: &str) -> Result<Vec<PromotedPath>, PathsError> {
    let (mut paths, mut names) = (Vec::new(), HashSet::new());
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if paths.len() == PATHS_MAX {
            return Err(PathsError::TooMany);
        }
        let path = PromotedPath::parse(part)?;
        if !names.insert(path.name.to_lowercase()) {
            return Err(PathsError::Twice(path.name));
        }
        paths.push(path);
    }
    Ok(paths)
}

/// The columns of a table that are computed from the JSON of its rows.
#[derive(Clone, Debug, Default)]
pub struct Promotions {
    /// The path of each, with its field id.
    columns: Vec<(PromotedPath, i32)>,
}

impl Promotions {
    /// Those of a table of ours, by the descriptions of its columns; none of others' tables. A column stays one
    /// of them until it is dropped, whatever the property says by then.
    #[must_use]
    pub fn of(table: &TableMetadata) -> Self {
        if !retention::is_managed(table) {
            return Self::default();
        }
        let schema = table.current_schema();
        let path_of = |field: &NestedFieldRef| {
            let path = PromotedPath::parse(field.doc.as_ref()?.strip_prefix(DOC)?).ok()?;
            (path.is_of(field) && path.has_source(schema)).then_some((path, field.id))
        };
        let columns = schema.as_struct().fields().iter().filter_map(path_of);
        Self { columns: columns.take(PATHS_MAX).collect() }
    }

    /// Whether the column with this field id is one of them.
    pub(super) fn has(&self, id: i32) -> bool {
        self.ids().any(|own| own == id)
    }

    /// Their field ids.
    pub(super) fn ids(&self) -> impl Iterator<Item = i32> {
        self.columns.iter().map(|(_, id)| *id)
    }

    /// The values of a column for these rows; none of a column that is not computed.
    ///
    /// # Errors
    /// Arrow's: the rows have no text where the table has it.
    pub fn column(&self, name: &str, rows: &RecordBatch) -> Result<Option<ArrayRef>, ArrowError> {
        let path = self.columns.iter().find(|(path, _)| path.name == name);
        path.map(|(path, _)| path.values(rows)).transpose()
    }

    /// The rows, which have their columns under the names of the table, with every column that is computed.
    ///
    /// # Errors
    /// Arrow's: the rows have no text where the table has it.
    pub(super) fn fill(&self, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        if self.columns.is_empty() {
            return Ok(rows);
        }
        let before = rows.schema();
        let mut fields: Vec<FieldRef> = before.fields().to_vec();
        let mut columns = rows.columns().to_vec();
        for (path, id) in &self.columns {
            let values = path.values(&rows)?;
            // By id: merged rows may have a dropped column of the same name as well.
            if let Some(at) = fields.iter().position(|field| field_id(field) == Some(*id)) {
                columns[at] = cast(&values, fields[at].data_type())?;
                continue;
            }
            let metadata = [(FIELD_ID.to_owned(), id.to_string())];
            let field = Field::new(&path.name, values.data_type().clone(), true);
            fields.push(Arc::new(field.with_metadata(metadata.into())));
            columns.push(values);
        }
        let schema = ArrowSchema::new_with_metadata(fields, before.metadata().clone());
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)
    }
}

/// The paths that a table's property asks for and that have no column.
#[derive(Clone, Debug, Default)]
pub struct PathRequests {
    /// Those whose column is to be added.
    missing: Vec<PromotedPath>,
    /// Those that get none: another column has the name, or the table has no such JSON.
    left_out: Vec<PromotedPath>,
}

impl PathRequests {
    /// The requests of a table of ours; none of others' tables.
    ///
    /// # Errors
    /// [`PathsError`]: the property cannot be read, or asks for too much.
    pub fn of(table: &TableMetadata) -> Result<Self, PathsError> {
        let text = table.properties().get(PROMOTED_PATHS);
        let Some(text) = text.filter(|_| retention::is_managed(table)) else {
            return Ok(Self::default());
        };
        let (promotions, schema) = (Promotions::of(table), table.current_schema());
        let mut asked = Self::default();
        for path in parse(text)? {
            if promotions.columns.iter().any(|(known, _)| *known == path) {
                continue;
            }
            // Many engines take names that differ by case alone for one.
            let name = path.name.to_lowercase();
            let mut names = schema.as_struct().fields().iter().map(|field| &field.name);
            match names.any(|taken| taken.to_lowercase() == name) || !path.has_source(schema) {
                true => asked.left_out.push(path),
                false => asked.missing.push(path),
            }
        }
        if PATHS_MAX < promotions.columns.len() + asked.missing.len() {
            return Err(PathsError::TooMany);
        }
        Ok(asked)
    }

    /// The columns that the table lacks.
    #[must_use]
    pub fn missing(&self) -> Vec<&str> {
        self.missing.iter().map(|path| path.name.as_str()).collect()
    }

    /// The columns that the table does not get.
    #[must_use]
    pub fn left_out(&self) -> Vec<&str> {
        self.left_out.iter().map(|path| path.name.as_str()).collect()
    }

    /// The commit that gives the table the columns that it lacks. It holds for the table as it was loaded.
    ///
    /// # Errors
    /// Iceberg's, for a schema that cannot be.
    pub fn add_to(
        &self,
        ident: &TableIdent,
        table: &TableMetadata,
    ) -> Result<TableChange, iceberg::Error> {
        let next_id = table.last_column_id() + 1;
        let fields = (next_id..).zip(&self.missing).map(|(id, path)| path.field(id));
        evolve::add_fields(ident, table, fields)
    }
}

#[cfg(test)]
mod tests;
