//! Position-delete files in Parquet, with their data files at another place.

use crate::table::partition::field_id;
use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray},
    compute::cast,
    datatypes::{DataType, Field, Schema},
    record_batch::RecordBatch,
};
use bytes::Bytes;
use icecore_catalog::{
    relocate::{MovedDeletes, WarehouseMove},
    scan::deletes::FILE_PATH_ID,
};
use parquet::{
    arrow::{
        ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder,
        arrow_writer::ArrowWriterOptions,
    },
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use std::sync::Arc;

/// Members of the footer that hold a schema in another form, for the file as it was.
const ARROW_SCHEMA: &str = "ARROW:schema";

/// The file with each path as it is after the move; order, other columns and the footer's members
/// stay.
///
/// # Errors
/// Why it does not read.
pub fn move_deletes(bytes: Bytes, moved: &WarehouseMove) -> Result<MovedDeletes, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(text)?;
    let schema = Arc::clone(reader.schema());
    let is_path = |field: &Arc<Field>| {
        field_id(field).map_or(field.name() == "file_path", |id| id == FILE_PATH_ID)
    };
    let at = schema.fields().iter().position(is_path).ok_or("it has no column `file_path`")?;
    let mut fields = schema.fields().to_vec();
    fields[at] = Arc::new(fields[at].as_ref().clone().with_data_type(DataType::Utf8));
    let schema = Arc::new(Schema::new(fields));
    let mut members = reader.metadata().file_metadata().key_value_metadata().cloned();
    members.iter_mut().for_each(|members| members.retain(|member| member.key != ARROW_SCHEMA));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(members)
        .build();
    let options =
        ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut out = Vec::new();
    let mut writer =
        ArrowWriter::try_new_with_options(&mut out, Arc::clone(&schema), options).map_err(text)?;
    let mut range: Option<(String, String)> = None;
    for batch in reader.build().map_err(text)? {
        let batch = batch.map_err(text)?;
        let mut columns = batch.columns().to_vec();
        columns[at] = paths(&columns[at], moved, &mut range)?;
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(text)?;
        writer.write(&batch).map_err(text)?;
    }
    writer.close().map_err(text)?;
    let (lowest, highest) = range.unwrap_or_default();
    Ok(MovedDeletes { bytes: out.into(), lowest, highest })
}

fn paths(
    column: &ArrayRef,
    moved: &WarehouseMove,
    range: &mut Option<(String, String)>,
) -> Result<ArrayRef, String> {
    let column = cast(column, &DataType::Utf8).map_err(text)?;
    let column = column.as_string::<i32>();
    let mut last: Option<(&str, String)> = None;
    let mut paths = Vec::with_capacity(column.len());
    for old in column {
        let Some(old) = old else {
            paths.push(None);
            continue;
        };
        // The rows of a data file come one after the other.
        if last.as_ref().is_none_or(|(path, _)| *path != old) {
            let new = moved.path(old).unwrap_or_else(|| old.to_owned());
            let (low, high) = range.get_or_insert_with(|| (new.clone(), new.clone()));
            if new < *low {
                low.clone_from(&new);
            }
            if *high < new {
                high.clone_from(&new);
            }
            last = Some((old, new));
        }
        paths.push(last.as_ref().map(|(_, new)| new.clone()));
    }
    Ok(Arc::new(StringArray::from(paths)))
}

fn text(cause: impl std::fmt::Display) -> String {
    cause.to_string()
}
