//! Arrow schemas of the tables' rows, and rows with other columns than those.

use arrow::{
    array::{Array, ArrayRef, new_null_array},
    compute,
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    error::ArrowError,
    record_batch::{RecordBatch, RecordBatchOptions},
};
use icecore_schemas::{
    columns::{Column, ColumnKind, DEAD_LETTERS, EVENTS, KNOWN_EVENTS},
    service_table::ServiceTable,
};
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

/// The time zone of every timestamp, as Iceberg's readers write it.
pub const UTC: &str = "+00:00";

/// Rows of `events` as a release has them, `seq` included. Columns with a field id of their own have
/// it in the metadata `PARQUET:field_id`.
#[must_use]
pub fn event_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| schema_of(EVENTS));
    Arc::clone(&SCHEMA)
}

/// The same with every column that this build can read from an event.
#[must_use]
pub fn known_event_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| schema_of(KNOWN_EVENTS));
    Arc::clone(&SCHEMA)
}

/// Rows of `dead_letters`.
#[must_use]
pub fn dead_letter_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| schema_of(DEAD_LETTERS));
    Arc::clone(&SCHEMA)
}

/// Rows with these columns.
#[must_use]
pub fn schema_of(columns: &[Column]) -> SchemaRef {
    let field = |column: &Column| {
        let id = column.id.map(|id| ("PARQUET:field_id".to_owned(), id.to_string()));
        Field::new(column.name, data_type(column.kind), !column.required)
            .with_metadata(id.into_iter().collect())
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

/// The Arrow type of a column.
#[must_use]
pub fn data_type(kind: ColumnKind) -> DataType {
    match kind {
        ColumnKind::String => DataType::Utf8,
        ColumnKind::Long => DataType::Int64,
        ColumnKind::Int => DataType::Int32,
        ColumnKind::Double => DataType::Float64,
        ColumnKind::Boolean => DataType::Boolean,
        ColumnKind::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
    }
}

/// All rows of `batches` in order. The columns are those of `schema`, in its order, that at least
/// one batch has; a batch without one of them has null there.
///
/// # Errors
/// A batch has a column of another type, or lacks one that is required.
pub fn concat(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
    if let [batch] = batches {
        return Ok(batch.clone());
    }
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    let mut nulls = NullColumns::default();
    let places: Vec<ColumnPlaces> = batches.iter().map(|batch| places(schema, batch)).collect();
    for (at, field) in schema.fields().iter().enumerate() {
        if places.iter().all(|places| places[at].is_none()) {
            continue;
        }
        let parts: Vec<ArrayRef> = places
            .iter()
            .zip(batches)
            .map(|(places, batch)| match places[at] {
                Some(column) => Arc::clone(batch.column(column)),
                None => nulls.of(field.data_type(), batch.num_rows()),
            })
            .collect();
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        fields.push(Arc::clone(field));
        columns.push(compute::concat(&parts)?);
    }
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

/// For each field of a schema the column of a batch that has its name.
type ColumnPlaces = Vec<Option<usize>>;

/// A batch mostly has its columns in the schema's order: then each is found in a few steps, which
/// counts in groups of many batches of one row.
fn places(schema: &SchemaRef, batch: &RecordBatch) -> ColumnPlaces {
    let fields = schema.fields();
    let mut places = vec![None; fields.len()];
    let mut next = 0;
    for (column, field) in batch.schema_ref().fields().iter().enumerate() {
        let mut steps = (next..fields.len()).chain(0..next);
        if let Some(found) = steps.find(|at| fields[*at].name() == field.name()) {
            places[found] = Some(column);
            next = found + 1;
        }
    }
    places
}

/// Columns without values; those of one type and length share theirs.
#[derive(Default)]
struct NullColumns<'t>(HashMap<(&'t DataType, usize), ArrayRef>);

impl<'t> NullColumns<'t> {
    fn of(&mut self, data_type: &'t DataType, rows: usize) -> ArrayRef {
        let nulls = self.0.entry((data_type, rows));
        Arc::clone(nulls.or_insert_with(|| new_null_array(data_type, rows)))
    }
}

/// The same rows with every column of `schema`, in its order; null where `rows` has no such
/// column.
///
/// # Errors
/// A column has another type, or a required one is absent.
pub fn align(schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut nulls = NullColumns::default();
    let columns = schema.fields().iter().map(|field| {
        let column = rows.column_by_name(field.name()).cloned();
        column.unwrap_or_else(|| nulls.of(field.data_type(), rows.num_rows()))
    });
    let columns = columns.collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// The events that are rows of `table` as well, with its columns; none where there are none.
#[must_use]
pub fn copies(table: &ServiceTable, events: &RecordBatch) -> Option<RecordBatch> {
    let values = events.column_by_name(table.events_with?)?;
    if values.null_count() == values.len() {
        return None;
    }
    let fields = events.schema_ref().fields().iter().enumerate();
    let shared = fields.filter(|(_, field)| table.column(field.name()).is_some());
    let shared: Vec<usize> = shared.map(|(at, _)| at).collect();
    let copied = events.project(&shared).and_then(|rows| {
        compute::filter_record_batch(&rows, &compute::is_not_null(values.as_ref())?)
    });
    Some(copied.expect("the columns are the events' own, and there is one flag a row"))
}

#[cfg(test)]
mod tests;
