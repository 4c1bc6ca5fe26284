//! Tables of other engines: their rows are erased where a property of the table names the column of people.
//!
//! That column alone tells whose a row is, and its values are compared as text. Nothing says which columns of
//! such a table have documents, so none is looked into. Its one invariant: rows of a table go only where its
//! property asks for that, and where files with these rows can be written anew.

use crate::table::compaction::foreign;
use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray},
    datatypes::{Int32Type, Int64Type},
};
use iceberg::spec::{PrimitiveType, TableMetadata, Type};
use icecore_catalog::retention;

/// The beginning of properties that name a column of people. The member of the subject follows, as in
/// `icecore.erasure.user_id`.
const COLUMN: &str = "icecore.erasure.";
/// The members that may follow: those of a subject that name a person.
const MEMBERS: [&str; 3] = ["user_id", "actor", "anonymous_id"];

/// What holds of another engine's table instead of an erasure of this member's values, as the end of a sentence about it;
/// none where its rows are erased.
#[must_use]
pub fn obstacle(table: &TableMetadata, person: Option<&str>) -> Option<String> {
    let instead = "is another engine's: delete the rows there, and expire its snapshots";
    let Some(person) = person else { return Some(instead.to_owned()) };
    let Some(named) = named_column(table, person) else {
        let property = format!("{COLUMN}{person}");
        return Some(format!(
            "{instead}, or name its column with the values of `{person}` in its property `{property}`"
        ));
    };
    let reason = named.err().or_else(|| foreign::obstacle(table, true));
    reason.map(|reason| format!("keeps its rows: {reason}"))
}

/// The column of another engine's table that has the values of a member; none where its rows are not erased.
pub(super) fn column_of(table: &TableMetadata, person: Option<&str>) -> Option<i32> {
    named_column(table, person?)?.ok()
}

/// Why a property that is to name a column of people names none that is compared; none for other properties, and in a
/// table of the service.
pub(crate) fn property_fault(table: &TableMetadata, key: &str) -> Option<String> {
    let member = key.strip_prefix(COLUMN)?;
    if !MEMBERS.contains(&member) && !retention::is_managed(table) {
        let known = MEMBERS.map(|member| format!("`{COLUMN}{member}`")).join(", ");
        return Some(format!(
            "its property `{key}` is of no member of a subject: there are {known}"
        ));
    }
    named_column(table, member)?.err()
}

/// The column that a property names, or why it is not compared; none without the property, and in a table of the
/// service, which has columns of its own for that.
fn named_column(table: &TableMetadata, person: &str) -> Option<Result<i32, String>> {
    let property = format!("{COLUMN}{person}");
    let name = table.properties().get(&property).filter(|_| !retention::is_managed(table))?;
    let fields = table.current_schema().as_struct().fields();
    let Some(field) = fields.iter().find(|field| field.name == *name) else {
        let text =
            format!("its property `{property}` names `{name}`, which is none of its columns");
        return Some(Err(text));
    };
    Some(match &*field.field_type {
        Type::Primitive(PrimitiveType::String | PrimitiveType::Int | PrimitiveType::Long) => {
            Ok(field.id)
        }
        _ => Err(format!(
            "its property `{property}` names `{name}`, which is no column of texts or whole numbers"
        )),
    })
}

/// Which rows have a value in the first of these columns.
pub(super) fn rows_with(value: &str, columns: &[Option<ArrayRef>], rows: usize) -> BooleanArray {
    let Some(Some(column)) = columns.first() else {
        return BooleanArray::from(vec![false; rows]);
    };
    // A number is compared as it is written.
    let number = value.parse::<i64>().ok().filter(|number| number.to_string() == value);
    let texts = column.as_string_opt::<i32>();
    let longs = column.as_primitive_opt::<Int64Type>();
    let ints = column.as_primitive_opt::<Int32Type>();
    let has = |row: usize| {
        let is_text = texts.is_some_and(|texts| texts.value(row) == value);
        let is_long = longs.is_some_and(|longs| Some(longs.value(row)) == number);
        let is_int = ints.is_some_and(|ints| Some(i64::from(ints.value(row))) == number);
        column.is_valid(row) && (is_text || is_long || is_int)
    };
    BooleanArray::from((0..rows).map(has).collect::<Vec<bool>>())
}
