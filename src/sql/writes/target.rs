//! The table of a statement that writes: whether it is one to write to, which of its columns are meant, and
//! how a new one is made.

use crate::sql::materialized::definition::MaterializedQuery;
use iceberg::{
    TableIdent,
    spec::{FormatVersion, Schema, TableMetadata, Transform, UnboundPartitionSpec},
};
use icecore_catalog::retention;
use icecore_engine::{
    collections::is_path,
    error::SqlError,
    write_statement::{ColumnName, PartitionColumn},
};
use icecore_lake::{collection::TABLE_PREFIX, table::partition};
use icecore_schemas::names::Namespace;
use std::collections::HashMap;

/// A statement writes where its query reads. The namespace may be named as its events do.
pub(super) fn check_namespace(levels: &[String], written: Option<&str>) -> Result<(), SqlError> {
    let Some(written) = written else { return Ok(()) };
    let is_of_events = Namespace::parse(written).is_ok_and(|named| levels == [named.name()]);
    if is_of_events || written == levels.join(".") {
        return Ok(());
    }
    Err(invalid(format!(
        "a statement writes to the namespace of its path: send it to /v1/{written}/sql"
    )))
}

/// Refuses tables that are not a caller's to fill.
pub(in crate::sql) fn check_is_callers(
    table: &TableIdent,
    metadata: &TableMetadata,
) -> Result<(), SqlError> {
    if retention::is_managed(metadata) {
        return Err(not_callers(table));
    }
    if metadata.format_version() == FormatVersion::V1 {
        return Err(invalid(format!("{table} has format version 1: upgrade it to version 2")));
    }
    Ok(())
}

/// Refuses a table that has the rows of a query which is run again.
pub(super) fn check_is_no_answer(
    table: &TableIdent,
    metadata: &TableMetadata,
) -> Result<(), SqlError> {
    if !MaterializedQuery::is_noted(metadata) {
        return Ok(());
    }
    Err(invalid(format!(
        "{table} has the rows of its own query, and a refresh would take others out: end that first, with DELETE /v1/{{namespace}}/materialized/{}",
        table.name
    )))
}

/// Whether a table of this name is one of a collection: a namespace of events has no other ones. What stands for a
/// collection whatever tables there are is no name of a table.
pub(super) fn is_of_collection(table: &TableIdent) -> bool {
    let levels: &Vec<String> = table.namespace.as_ref();
    let is_its_table = table.name.to_lowercase().starts_with(TABLE_PREFIX);
    levels.len() == 1 && (is_its_table || is_path(&table.name))
}

pub(super) fn not_callers(table: &TableIdent) -> SqlError {
    invalid(format!(
        "this server writes {table} itself: send events with POST /ingest, or make a table of your own with CREATE TABLE … AS"
    ))
}

pub(in crate::sql) fn check_partitions(table: &TableMetadata) -> Result<(), SqlError> {
    match partition::refused_field(table) {
        Some((field, transform)) => Err(invalid(format!(
            "partition field `{field}` ({transform}) is not written here, but text by its value and times with a zone by their day: leave it out, or write by another engine"
        ))),
        None => Ok(()),
    }
}

/// The ids of all columns of a table, in order.
pub(in crate::sql) fn column_ids(table: &TableMetadata) -> Vec<i32> {
    table.current_schema().as_struct().fields().iter().map(|field| field.id).collect()
}

/// The ids of the columns that a statement names.
pub(super) fn named_ids(
    table: &TableMetadata,
    columns: &[ColumnName],
) -> Result<Vec<i32>, SqlError> {
    let fields = table.current_schema().as_struct().fields();
    let mut ids = Vec::with_capacity(columns.len());
    for column in columns {
        let found = column.find(fields.iter().map(|field| field.name.as_str()));
        let at = found.ok_or_else(|| {
            let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
            let (name, names) = (&column.text, names.join(", "));
            invalid(format!("the table has no column `{name}`; it has {names}"))
        })?;
        if ids.contains(&fields[at].id) {
            return Err(invalid(format!("column `{}` is named twice", column.text)));
        }
        ids.push(fields[at].id);
    }
    Ok(ids)
}

pub(super) fn partition_spec(
    schema: &Schema,
    columns: &[PartitionColumn],
) -> Result<Option<UnboundPartitionSpec>, SqlError> {
    if columns.is_empty() {
        return Ok(None);
    }
    let fields = schema.as_struct().fields();
    let mut spec = UnboundPartitionSpec::builder();
    for PartitionColumn { column, is_by_day } in columns {
        let found = column.find(fields.iter().map(|field| field.name.as_str()));
        let field = found.map(|at| &fields[at]).ok_or_else(|| {
            invalid(format!(
                "PARTITIONED BY names `{}`, which the query does not have",
                column.text
            ))
        })?;
        let (name, transform) = match is_by_day {
            true => (format!("{}_day", field.name), Transform::Day),
            false => (field.name.clone(), Transform::Identity),
        };
        spec = spec
            .add_partition_field(field.id, name, transform)
            .map_err(|cause| invalid(format!("PARTITIONED BY: {}", cause.message())))?;
    }
    Ok(Some(spec.build()))
}

/// What new tables have, so that their metadata does not grow with every statement.
pub(super) fn new_properties() -> HashMap<String, String> {
    [
        ("write.format.default", "parquet"),
        ("write.parquet.compression-codec", "zstd"),
        ("write.metadata.previous-versions-max", "20"),
        ("write.metadata.delete-after-commit.enabled", "true"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

pub(in crate::sql) fn invalid(text: impl Into<String>) -> SqlError {
    SqlError::Invalid(text.into())
}
