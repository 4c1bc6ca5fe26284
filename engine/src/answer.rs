//! An answer as it leaves: columns under the names that were asked for, in types that every client of
//! Arrow knows, and plans without places of this machine.

use crate::{dialect::column_names::shown_name, labels::ColumnLabels};
use arrow::{
    array::{ArrayRef, AsArray, RecordBatchOptions, StringArray},
    compute::cast,
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use datafusion::{
    error::DataFusionError, execution::SendableRecordBatchStream,
    physical_plan::stream::RecordBatchStreamAdapter,
};
use futures::StreamExt;
use std::sync::Arc;

/// The rows of `stream` as they are answered, with these names. In texts nothing is left of `hidden`, if it is given.
#[must_use]
pub fn shown(
    stream: SendableRecordBatchStream,
    labels: &ColumnLabels,
    hidden: Option<String>,
) -> SendableRecordBatchStream {
    let schema = labels.put_on(&shown_schema(&stream.schema()));
    if schema == stream.schema() && hidden.is_none() {
        return stream;
    }
    let of_batches = Arc::clone(&schema);
    let batches = stream.map(move |batch| {
        batch.and_then(|batch| shown_batch(&of_batches, &batch, hidden.as_deref()))
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, batches))
}

/// What a plan shows of the place of the warehouse at `root`; none where it shows nothing.
#[must_use]
pub fn place_of(root: &str) -> Option<String> {
    let (scheme, path) = root.split_once("://")?;
    // A bucket is told apart from the path in it.
    let path =
        if scheme == "file" { path } else { path.split_once('/').map_or("", |(_, path)| path) };
    let path = path.trim_matches('/');
    (!path.is_empty()).then(|| format!("{path}/"))
}

fn shown_schema(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let shown = shown_field(field);
        if shown_name(shown.name()) == shown.name() {
            return shown;
        }
        let name = shown_name(shown.name()).to_owned();
        Arc::new(shown.as_ref().clone().with_name(name))
    });
    let fields: Vec<FieldRef> = fields.collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn shown_field(field: &FieldRef) -> FieldRef {
    let kind = shown_type(field.data_type());
    if kind == *field.data_type() {
        return Arc::clone(field);
    }
    Arc::new(Field::new(field.name(), kind, field.is_nullable()))
}

/// Apache Arrow's JavaScript knows views since 21.2 only.
fn shown_type(kind: &DataType) -> DataType {
    match kind {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) => DataType::List(shown_field(item)),
        DataType::LargeList(item) => DataType::LargeList(shown_field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(shown_field(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(shown_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(shown_field(entries), *sorted),
        other => other.clone(),
    }
}

fn shown_batch(
    schema: &SchemaRef,
    batch: &RecordBatch,
    hidden: Option<&str>,
) -> Result<RecordBatch, DataFusionError> {
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        let column = match field.data_type() {
            kind if kind == column.data_type() => Arc::clone(column),
            kind => cast(column, kind)?,
        };
        Ok(match (field.data_type(), hidden) {
            (DataType::Utf8, Some(hidden)) => without(&column, hidden),
            _ => column,
        })
    });
    let columns = columns.collect::<Result<Vec<_>, DataFusionError>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

fn without(column: &ArrayRef, hidden: &str) -> ArrayRef {
    let texts = column.as_string::<i32>().iter();
    Arc::new(texts.map(|text| text.map(|text| text.replace(hidden, ""))).collect::<StringArray>())
}
