//! Which events a table holds: id, `seq`, time of arrival and what makes a CloudEvent of one, read from
//! its data files.
//!
//! Only those columns are read, a row group at a time. Rows that another engine deleted are read
//! as well: they were taken once.

use crate::table::partition::field_id;
use arrow::{
    array::{ArrayRef, AsArray, Int64Array, StringArray, new_null_array},
    compute::cast,
    datatypes::{DataType, Int64Type, TimeUnit},
    error::ArrowError,
    record_batch::RecordBatch,
};
use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, future::BoxFuture, stream};
use iceberg::spec::{
    DataFile, Literal, ManifestContentType, ManifestList, PrimitiveLiteral, TableMetadata,
    Transform,
};
use icecore_catalog::{error::CatalogError, manifest_file, storage::Storage};
use parquet::{
    arrow::{
        ParquetRecordBatchStreamBuilder, ProjectionMask, arrow_reader::ArrowReaderOptions,
        async_reader::AsyncFileReader,
    },
    errors::ParquetError,
    file::metadata::{ParquetMetaData, ParquetMetaDataReader},
};
use std::{collections::BTreeSet, ops::Range, sync::Arc};

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 8192;
/// The columns that are read, in this order; a file may lack those after the first [`NEEDED`].
const COLUMNS: [&str; 5] = ["id", "seq", "ingested_at", "source", "payload"];
const NEEDED: usize = 3;

/// Why a table's ids could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadIdsError {
    /// A file is not there or does not read.
    #[error("read a file of the table")]
    Storage(#[from] CatalogError),
    /// A manifest does not parse.
    #[error("parse `{location}`")]
    Manifest {
        /// Which one.
        location: String,
        /// Why it failed.
        source: iceberg::Error,
    },
    /// A data file does not parse.
    #[error("read ids from `{location}`")]
    DataFile {
        /// Which one.
        location: String,
        /// Why it failed.
        source: ParquetError,
    },
    /// A data file's columns have types that are none of ours.
    #[error("use the ids of a data file")]
    Columns(#[from] ArrowError),
}

/// What the manifests of a table's current snapshot say.
#[derive(Debug, Default)]
pub struct Held {
    /// Every type that has rows.
    pub types: BTreeSet<String>,
    /// Data files that may hold rows of the time that is asked for.
    files: Vec<(String, u64)>,
    /// Field ids of [`COLUMNS`].
    fields: Fields,
}

/// A field id for each of [`COLUMNS`].
type Fields = [i32; COLUMNS.len()];

/// Rows of a data file, by column.
#[derive(Debug)]
pub struct IdRows {
    /// Ids.
    pub ids: StringArray,
    /// Their `seq`s.
    pub seqs: Int64Array,
    /// When they arrived, µs since 1970.
    pub ingested_us: Int64Array,
    /// Their sources.
    pub sources: StringArray,
    /// The events that are stored whole.
    pub payloads: StringArray,
}

/// Reads the manifests for what arrived since `since_us` and has at least this `seq`.
///
/// # Errors
/// [`ReadIdsError`]
pub async fn held(
    storage: &Storage,
    table: &TableMetadata,
    (since_us, seq_min): (i64, u64),
) -> Result<Held, ReadIdsError> {
    let mut held = Held::default();
    let Some(snapshot) = table.current_snapshot() else { return Ok(held) };
    let schema = table.current_schema();
    held.fields = COLUMNS.map(|name| schema.field_by_name(name).map_or(-1, |field| field.id));
    let location = snapshot.manifest_list();
    let failed = |location: &str| {
        let location = location.to_owned();
        move |source| ReadIdsError::Manifest { location, source }
    };
    let bytes = storage.get(location).await?;
    let list = ManifestList::parse_with_version(&bytes, table.format_version())
        .map_err(failed(location))?;
    for manifest in list.entries() {
        if manifest.content != ManifestContentType::Data {
            continue;
        }
        let type_at = type_position(table, manifest.partition_spec_id);
        let bytes = storage.get(&manifest.manifest_path).await?;
        let parsed = manifest_file::parse(&bytes).map_err(failed(&manifest.manifest_path))?;
        for entry in parsed.entries().iter().filter(|entry| entry.is_alive()) {
            let file = entry.data_file();
            held.types.extend(type_at.and_then(|at| partition_text(file, at)));
            let is_wanted = !is_below(file, held.fields[2], since_us)
                && !is_below(file, held.fields[1], i64::try_from(seq_min).unwrap_or(i64::MAX));
            if is_wanted {
                held.files.push((file.file_path().to_owned(), file.file_size_in_bytes()));
            }
        }
    }
    Ok(held)
}

/// Where a partition spec has the type as it is.
fn type_position(table: &TableMetadata, spec_id: i32) -> Option<usize> {
    let source = table.current_schema().field_by_name("type")?.id;
    let fields = table.partition_spec_by_id(spec_id)?.fields();
    fields
        .iter()
        .position(|field| field.source_id == source && field.transform == Transform::Identity)
}

fn partition_text(file: &DataFile, at: usize) -> Option<String> {
    match file.partition().fields().get(at)? {
        Some(Literal::Primitive(PrimitiveLiteral::String(text))) => Some(text.clone()),
        _ => None,
    }
}

/// Whether a field of every row of the file is certainly below `least`.
fn is_below(file: &DataFile, field: i32, least: i64) -> bool {
    let bound = file.upper_bounds().get(&field).map(|bound| bound.literal());
    matches!(bound, Some(PrimitiveLiteral::Long(last)) if *last < least)
}

impl Held {
    /// How many data files are to be read.
    #[must_use]
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// The rows of the files, file by file; rows of other times may be among them.
    pub fn rows(self, storage: &Storage) -> impl Stream<Item = Result<IdRows, ReadIdsError>> {
        let (storage, fields) = (storage.clone(), self.fields);
        stream::iter(self.files)
            .then(move |(location, bytes)| read(storage.clone(), location, bytes, fields))
            .try_flatten()
    }
}

async fn read(
    storage: Storage,
    location: String,
    bytes: u64,
    fields: Fields,
) -> Result<impl Stream<Item = Result<IdRows, ReadIdsError>>, ReadIdsError> {
    let failed = {
        let location = location.clone();
        move |source| ReadIdsError::DataFile { location: location.clone(), source }
    };
    let file = StoredFile { storage, location, bytes };
    let builder = ParquetRecordBatchStreamBuilder::new(file).await.map_err(&failed)?;
    let columns = builder.schema().fields().iter().enumerate();
    let roots: Vec<usize> = columns
        .filter(|(_, field)| match field_id(field) {
            Some(id) => fields.contains(&id),
            None => COLUMNS.contains(&field.name().as_str()),
        })
        .map(|(at, _)| at)
        .collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let rows =
        builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(&failed)?;
    Ok(rows.map(move |batch| Ok(id_rows(&batch.map_err(&failed)?, fields)?)))
}

fn id_rows(batch: &RecordBatch, fields: Fields) -> Result<IdRows, ArrowError> {
    let column = |at: usize, to: &DataType| -> Result<ArrayRef, ArrowError> {
        let schema = batch.schema();
        let found = schema.fields().iter().position(|field| match field_id(field) {
            Some(id) => id == fields[at],
            None => field.name() == COLUMNS[at],
        });
        match found {
            Some(found) => cast(batch.column(found), to),
            None if NEEDED <= at => Ok(new_null_array(to, batch.num_rows())),
            None => {
                let missing = format!("a data file has no column `{}`", COLUMNS[at]);
                Err(ArrowError::SchemaError(missing))
            }
        }
    };
    let text = |at: usize| -> Result<StringArray, ArrowError> {
        Ok(column(at, &DataType::Utf8)?.as_string::<i32>().clone())
    };
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
    let ingested = cast(&column(2, &time)?, &DataType::Int64)?;
    Ok(IdRows {
        ids: text(0)?,
        seqs: column(1, &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
        ingested_us: ingested.as_primitive::<Int64Type>().clone(),
        sources: text(3)?,
        payloads: text(4)?,
    })
}

/// A data file in the warehouse, read in parts.
struct StoredFile {
    storage: Storage,
    location: String,
    bytes: u64,
}

impl AsyncFileReader for StoredFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move {
            let read = self.storage.get_range(&self.location, range).await;
            read.map_err(|cause| ParquetError::External(Box::new(cause)))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let bytes = self.bytes;
            ParquetMetaDataReader::new().load_and_finish(self, bytes).await.map(Arc::new)
        }
        .boxed()
    }
}
