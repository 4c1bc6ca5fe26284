//! Position delete files and deletion vectors: places of rows as their writer gives them.

use crate::table::{
    deletes::{DeletedRows, DeletesError, RowDeletes, rows_of},
    field_ids::FieldAliases,
    file_columns::FileColumns,
    partition::FIELD_ID,
};
use arrow::{
    array::{ArrayRef, AsArray, Int64Array, StringArray},
    datatypes::{DataType, Field, Int64Type, Schema},
    record_batch::RecordBatch,
};
use bytes::Bytes;
use flate2::Crc;
use futures::TryStreamExt;
use iceberg::spec::{NestedField, PrimitiveType, Type};
use icecore_catalog::scan::{
    ManifestSource, ScanError,
    deletes::{FILE_PATH_ID, applies},
    manifests::{PlannedFile, PlannedFiles},
};
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
};
use std::{collections::HashMap, pin::pin, sync::Arc};

/// Id and name of the column with the data file's location (Iceberg specification, "Reserved Field
/// IDs").
const FILE_PATH: (i32, &str) = (FILE_PATH_ID, "file_path");
/// Id and name of the column with the row's place in it.
const POSITION: (i32, &str) = (2_147_483_545, "pos");

/// About what a place takes in a bitmap at most.
const PLACE_BYTES: usize = 2;

/// The first bytes of a deletion vector, after its length (Puffin specification,
/// "deletion-vector-v1").
const VECTOR_MAGIC: [u8; 4] = [0xd1, 0xd3, 0x39, 0x64];
/// Bytes of the length, the magic and the checksum.
const WORD: usize = 4;

/// The two columns.
pub(super) fn columns() -> Result<FileColumns, String> {
    let column = |(id, name): (i32, &str), kind| {
        Arc::new(NestedField::required(id, name, Type::Primitive(kind)))
    };
    let columns =
        vec![column(FILE_PATH, PrimitiveType::String), column(POSITION, PrimitiveType::Long)];
    FileColumns::new(columns, false, FieldAliases::default())
}

/// A file of the two columns, for places of one data file.
pub(super) fn encoded(location: &str, places: &[u64]) -> Result<Bytes, ParquetError> {
    let column = |(id, name): (i32, &str), kind| {
        Field::new(name, kind, false).with_metadata([(FIELD_ID.to_owned(), id.to_string())].into())
    };
    let schema = Arc::new(Schema::new(vec![
        column(FILE_PATH, DataType::Utf8),
        column(POSITION, DataType::Int64),
    ]));
    let paths: ArrayRef = Arc::new(StringArray::from_iter_values(places.iter().map(|_| location)));
    let places = places.iter().map(|place| place.cast_signed());
    let places: ArrayRef = Arc::new(Int64Array::from_iter_values(places));
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![paths, places])?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let options =
        ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new_with_options(&mut bytes, schema, options)?;
    writer.write(&rows)?;
    writer.close()?;
    Ok(bytes.into())
}

/// Adds the places that position delete files have for any of `files`.
pub(super) async fn add(
    source: ManifestSource<'_>,
    deletes: PlannedFiles,
    files: &[Arc<PlannedFile>],
    into: &mut RowDeletes,
) -> Result<(), DeletesError> {
    if deletes.is_empty() {
        return Ok(());
    }
    let by_location: HashMap<&str, &PlannedFile> =
        files.iter().map(|file| (file.location.as_str(), file.as_ref())).collect();
    let columns = columns().map_err(DeletesError::Unsupported)?;
    let deletes = deletes.into_iter().map(|delete| (delete, columns.clone()));
    let mut batches = pin!(rows_of(source.storage, deletes));
    while let Some((delete, rows)) = batches.try_next().await? {
        source.until.check()?;
        let paths = rows.column(0).as_string::<i32>();
        let places = rows.column(1).as_primitive::<Int64Type>();
        // The rows of a data file come one after the other, so its set is looked up once a run.
        let mut run: Option<(&str, Option<&mut DeletedRows>)> = None;
        let mut added = 0;
        for (path, place) in paths.iter().zip(places) {
            let (Some(path), Some(place)) = (path, place.and_then(|at| u64::try_from(at).ok()))
            else {
                return Err(damaged(&delete, "a row has no path or no position"));
            };
            if run.as_ref().is_none_or(|(last, _)| *last != path) {
                let reaches = by_location
                    .get(path)
                    .is_some_and(|file| file.sequence <= delete.sequence && applies(&delete, file));
                let set = reaches.then(|| into.places.entry(path.to_owned()).or_default());
                run = Some((path, set));
            }
            if let Some((_, Some(set))) = &mut run {
                added += usize::from(set.insert(place)) * PLACE_BYTES;
            }
        }
        into.held.take(added)?;
    }
    Ok(())
}

/// Adds the places of a deletion vector.
pub(super) async fn add_vector(
    source: ManifestSource<'_>,
    delete: &PlannedFile,
    into: &mut RowDeletes,
) -> Result<(), DeletesError> {
    let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
    let (Some(path), Some(start), Some(bytes)) = (
        delete.referenced_data_file.clone(),
        number(delete.content_offset),
        number(delete.content_bytes).and_then(|bytes| usize::try_from(bytes).ok()),
    ) else {
        return Err(damaged(delete, "its manifest does not say where its deletion vector is"));
    };
    // What the manifest says is held against the bound before it is read.
    into.held.take(bytes)?;
    let range = start..start.saturating_add(bytes as u64);
    let blob = source.storage.get_range(&delete.location, range).await.map_err(ScanError::from)?;
    let places =
        vector(&blob).ok_or_else(|| damaged(delete, "its deletion vector does not read"))?;
    *into.places.entry(path).or_default() |= places;
    Ok(())
}

/// The places in a blob: its length, the magic, the bitmap, a checksum over both.
fn vector(blob: &[u8]) -> Option<DeletedRows> {
    let (length, rest) = blob.split_first_chunk::<WORD>()?;
    let (content, checksum) = rest.split_last_chunk::<WORD>()?;
    let bitmap = content.strip_prefix(&VECTOR_MAGIC)?;
    let mut crc = Crc::new();
    crc.update(content);
    let is_whole = usize::try_from(u32::from_be_bytes(*length)).ok()? == content.len()
        && u32::from_be_bytes(*checksum) == crc.sum();
    if is_whole { DeletedRows::deserialize_from(bitmap).ok() } else { None }
}

fn damaged(delete: &PlannedFile, reason: &str) -> DeletesError {
    DeletesError::Damaged { location: delete.location.clone(), reason: reason.to_owned() }
}
