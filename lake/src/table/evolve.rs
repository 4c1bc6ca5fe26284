//! How a table stands to what we would make it today, and how it gets there.
//!
//! Tables that an earlier version made lack the columns that came later. Nothing is migrated: readers
//! take such a column as null, and the first flush that has a value for it adds it to that table, as
//! Iceberg's schema evolution has it. A column of version 0.1.0 has the same field id everywhere. A
//! later one is found by its name and takes the next free id of its table, so others' columns keep
//! theirs.
//!
//! Others may have added a column of that name before. Where it holds what ours would, it is ours from
//! then on; where not, the table has no place for ours, and `payload` keeps the values.

use crate::table::schema;
use iceberg::{
    TableIdent, TableRequirement, TableUpdate,
    spec::{NestedFieldRef, PrimitiveType, Schema, SchemaRef, TableMetadata},
};
use icecore_catalog::{
    catalog::{OwnColumn, OwnTable, TableChange},
    retention,
};
use icecore_schemas::{
    columns::{Column, ColumnKind},
    service_table::{ServiceTable, ServiceTables},
};
use std::sync::Arc;

/// Why rows of the log do not go to a table, though it has the name of one of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableMismatch {
    /// Not even a table.
    #[error("it is a view")]
    View,
    /// Somebody else made it.
    #[error("it was created by another writer: it has no property `{}`", schema::MANAGED)]
    Unmarked,
    /// A value of this column would have no place.
    #[error("its column `{0}` is gone or has another type")]
    Column(&'static str),
}

/// How a table of ours stands to the columns that it would be made with today.
#[derive(Clone, Debug, Default)]
pub struct SchemaFit {
    /// Columns that it has not yet.
    pub missing: Vec<&'static Column>,
    /// Columns that have no place in it, as another's column has the name.
    pub left_out: Vec<&'static Column>,
}

impl SchemaFit {
    /// Compares a table with ours.
    ///
    /// # Errors
    /// [`TableMismatch`] for the table of somebody else, and for one that others have taken a
    /// column from.
    pub fn of(ours: &ServiceTable, table: &TableMetadata) -> Result<Self, TableMismatch> {
        if !retention::is_managed(table) {
            return Err(TableMismatch::Unmarked);
        }
        let schema = table.current_schema();
        let mut fit = Self::default();
        for column in ours.columns {
            let Some(id) = column.id else {
                match found(schema, column) {
                    ColumnMatch::Here => (),
                    ColumnMatch::Nowhere => fit.missing.push(column),
                    ColumnMatch::Other => fit.left_out.push(column),
                }
                continue;
            };
            // The writer follows the id under another name, and an `int` that became a `long`.
            let fits = schema.field_by_id(id).is_some_and(|field| holds(field, column));
            if !fits {
                return Err(TableMismatch::Column(column.name));
            }
        }
        Ok(fit)
    }

    /// The table's columns with those that it lacks, as it would have them next; its current schema
    /// where it lacks none.
    ///
    /// # Errors
    /// Iceberg's, for a schema that cannot be.
    pub fn extended(&self, table: &TableMetadata) -> Result<SchemaRef, iceberg::Error> {
        if self.missing.is_empty() {
            return Ok(Arc::clone(table.current_schema()));
        }
        with(table, &self.missing).map(Arc::new)
    }
}

/// The commit that gives a table these columns. It holds for the table as it was loaded: where others
/// added a column meanwhile, it is refused and made anew.
///
/// # Errors
/// Iceberg's, for a schema that cannot be.
pub fn add_columns(
    ident: &TableIdent,
    table: &TableMetadata,
    columns: &[&Column],
) -> Result<TableChange, iceberg::Error> {
    Ok(change_to(ident, table, with(table, columns)?))
}

/// The same of columns that are none of ours, which have the table's next ids.
pub(super) fn add_fields(
    ident: &TableIdent,
    table: &TableMetadata,
    fields: impl Iterator<Item = NestedFieldRef>,
) -> Result<TableChange, iceberg::Error> {
    Ok(change_to(ident, table, with_fields(table, fields)?))
}

fn change_to(ident: &TableIdent, table: &TableMetadata, schema: Schema) -> TableChange {
    /// The schema that was added last.
    const LAST: i32 = -1;
    TableChange {
        table: ident.clone(),
        requirements: vec![
            TableRequirement::UuidMatch { uuid: table.uuid() },
            TableRequirement::CurrentSchemaIdMatch { current_schema_id: table.current_schema_id() },
            TableRequirement::LastAssignedFieldIdMatch {
                last_assigned_field_id: table.last_column_id(),
            },
        ],
        updates: vec![
            TableUpdate::AddSchema { schema },
            TableUpdate::SetCurrentSchema { schema_id: LAST },
        ],
        keeps_history: false,
    }
}

fn with(table: &TableMetadata, columns: &[&Column]) -> Result<Schema, iceberg::Error> {
    let next_id = table.last_column_id() + 1;
    let added = (next_id..).zip(columns).map(|(id, column)| schema::field(column, id));
    with_fields(table, added)
}

fn with_fields(
    table: &TableMetadata,
    added: impl Iterator<Item = NestedFieldRef>,
) -> Result<Schema, iceberg::Error> {
    table.current_schema().as_ref().clone().into_builder().with_fields(added).build()
}

/// What of a table has a later column's name.
enum ColumnMatch {
    /// A column that holds its values.
    Here,
    /// Nothing.
    Nowhere,
    /// A column of another type, or one that another's rows have to fill. So is one whose name differs
    /// by case alone: many engines take the two for one.
    Other,
}

fn found(schema: &Schema, column: &Column) -> ColumnMatch {
    let mut fields = schema.as_struct().fields().iter();
    match fields.find(|field| field.name.to_lowercase() == column.name) {
        None => ColumnMatch::Nowhere,
        Some(field) if field.name == column.name && !field.required && holds(field, column) => {
            ColumnMatch::Here
        }
        Some(_) => ColumnMatch::Other,
    }
}

/// Whether a field takes every value of a column.
fn holds(field: &NestedFieldRef, column: &Column) -> bool {
    field.field_type.as_primitive_type().is_some_and(|kind| {
        *kind == schema::primitive(column.kind)
            || (column.kind == ColumnKind::Int && *kind == PrimitiveType::Long)
    })
}

/// The columns that nobody else may take from our tables.
#[must_use]
pub fn own_tables(tables: &ServiceTables) -> Arc<[OwnTable]> {
    let own = |ours: &ServiceTable| OwnTable {
        name: ours.name,
        columns: ours.columns.iter().map(own_column).collect(),
    };
    tables.iter().map(own).collect()
}

fn own_column(column: &Column) -> OwnColumn {
    let mut types = vec![schema::primitive(column.kind)];
    types.extend((column.kind == ColumnKind::Int).then_some(PrimitiveType::Long));
    OwnColumn { id: column.id, name: column.name, types }
}

#[cfg(test)]
mod tests;
