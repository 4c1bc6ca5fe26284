//! Compaction of tables of other engines, where somebody asks for it.
//!
//! Files of one partition of one partition spec become fewer. Their rows are written one file after the other, in
//! the order that each file has, without those that deletes delete. The new files have the partition and the
//! spec of the old ones, whatever the transforms are: nothing is computed anew. Columns are found by field id at
//! each depth, and have the types of the current schema; a column of an earlier schema stays where a file has it,
//! but not what was dropped inside of a struct.
//!
//! Its one invariant: until [`ForeignRewrite::finish`] has ended, nothing of what is written belongs to
//! anybody, and it ends only where as many rows were read and written as the manifests and deletes leave.
//!
//! In memory are the footers of the files and short files as a whole, a row group and a batch of one of them, and
//! one new file, at most about [`FILE_BYTES_MAX`].

use crate::{
    blocking::blocking,
    ids::IdGenerator,
    table::{
        compaction::{
            FIXED_BYTES_MAX, SWITCH,
            choice::LiveFile,
            day, described, files_as, is_set, live_file,
            places::RowPlaces,
            rewrite::{RewriteError, RewriteInput, RewrittenFiles},
            useless_deletes,
        },
        deletes::DeletedRows,
        encode::{
            EncodedFile,
            rows::{MeasuredColumn, RowsFile, RowsLayout, properties},
        },
        erasure::condition::{RowCondition, TableCondition},
        field_ids::FieldAliases,
        file_columns::{BATCH_BYTES, FileColumns, FileError, OpenFile},
        layout::{FileLayout, WriteError},
        reader::{self, ReadError},
        stats::foreign::MetricsMode,
        writer::delete,
    },
};
use arrow::{
    datatypes::{Field, Schema as ArrowSchema},
    record_batch::RecordBatch,
};
use futures::{StreamExt, stream, stream::BoxStream};
use iceberg::spec::{
    DataFile, DataFileFormat, FormatVersion, Literal, NestedField, NestedFieldRef, PrimitiveType,
    SchemaRef, Struct, TableMetadata, Transform, Type,
};
use icecore_catalog::{
    scan::{
        ManifestSource, ScanError,
        deletes::{DeleteIndex, partition_key},
        filter::Filter,
        manifests::PlannedFile,
    },
    storage::Storage,
};
use std::{
    cmp::Reverse,
    collections::{HashSet, VecDeque},
    mem,
    pin::pin,
    sync::Arc,
};

/// Most bytes of a new file, whatever the table wants: it is in memory until it is stored.
const FILE_BYTES_MAX: usize = 128 << 20;
/// Files that are opened at a time.
const OPENS_AT_ONCE: usize = 8;

/// Why no file of such a table is rewritten; none when they may be. `is_asked` tells whether somebody named it.
#[must_use]
pub fn obstacle(table: &TableMetadata, is_asked: bool) -> Option<String> {
    if is_set(table, "off") {
        return Some(format!("its property `{SWITCH}` is `off`"));
    }
    if !is_asked && !is_set(table, "on") {
        return Some(format!(
            "it is not a table of the service: name it with its namespace, or set its property `{SWITCH}` to `on`"
        ));
    }
    match table.format_version() {
        FormatVersion::V2 => (),
        FormatVersion::V1 => {
            return Some("it has format version 1: upgrade it to version 2".to_owned());
        }
        FormatVersion::V3 => {
            return Some(
                "it has format version 3, and compaction cannot keep the row ids of its rows: compact it with the engine that writes it".to_owned(),
            );
        }
    }
    let fields = columns(table);
    let unwritable = fields.iter().find_map(|field| unwritable(&field.field_type));
    unwritable.map(|kind| format!("it has a column with {kind}, which compaction cannot write"))
}

/// What of a type is not written here.
fn unwritable(kind: &Type) -> Option<&'static str> {
    match kind {
        Type::Primitive(PrimitiveType::Uuid) => Some("uuids"),
        Type::Primitive(PrimitiveType::Fixed(bytes)) if FIXED_BYTES_MAX < *bytes => {
            Some("values of more than 64 KiB")
        }
        Type::Primitive(_) => None,
        Type::Struct(kind) if kind.fields().is_empty() => Some("structs without fields"),
        Type::Struct(kind) => kind.fields().iter().find_map(|field| unwritable(&field.field_type)),
        Type::List(kind) => unwritable(&kind.element_field.field_type),
        Type::Map(kind) => unwritable(&kind.key_field.field_type)
            .or_else(|| unwritable(&kind.value_field.field_type)),
    }
}

/// The columns of the current schema, and behind them those that only earlier ones have, under names that nobody
/// reads by.
fn columns(table: &TableMetadata) -> Vec<NestedFieldRef> {
    let mut fields = table.current_schema().as_struct().fields().to_vec();
    let mut names: HashSet<String> = fields.iter().map(|field| field.name.clone()).collect();
    let mut known: HashSet<i32> = fields.iter().map(|field| field.id).collect();
    let mut schemas: Vec<&SchemaRef> = table.schemas_iter().collect();
    schemas.sort_by_key(|schema| Reverse(schema.schema_id()));
    for field in schemas.iter().flat_map(|schema| schema.as_struct().fields()) {
        if table.current_schema().field_by_id(field.id).is_none() && known.insert(field.id) {
            let mut name = format!("dropped_{}", field.id);
            while !names.insert(name.clone()) {
                name.push('_');
            }
            let kept = NestedField { name, required: false, ..field.as_ref().clone() };
            fields.push(Arc::new(kept));
        }
    }
    fields
}

/// What the choice needs of the live data files of a snapshot, of partitions alone that may have a row which meets
/// the filter.
///
/// # Errors
/// [`ScanError`]
pub async fn live_files(
    source: ManifestSource<'_>,
    snapshot_id: i64,
    partitions: &Filter,
) -> Result<Vec<LiveFile>, ScanError> {
    files_as(source, snapshot_id, partitions, foreign_file).await
}

fn foreign_file(table: &TableMetadata, file: &PlannedFile, deletes: &DeleteIndex) -> LiveFile {
    let (spec_id, partition) = partition_key(file);
    LiveFile {
        partition: format!("{spec_id}/{partition}"),
        day: day(table, file),
        // Rows stay in the order that they have.
        is_sorted: true,
        // Whose files these are is asked of the table.
        is_foreign: false,
        obstacle: obstacle_of_file(table, file),
        ..live_file(table, file, deletes)
    }
}

/// Why a file stays as it is.
pub(crate) fn obstacle_of_file(table: &TableMetadata, file: &PlannedFile) -> Option<&'static str> {
    let schema = table.current_schema();
    let spec = table.partition_spec_by_id(file.spec_id);
    if file.format != DataFileFormat::Parquet {
        Some("files that are not Parquet stay as they are")
    } else if file.key_metadata.is_some() {
        Some("encrypted files stay as they are")
    } else if spec.is_none_or(|spec| {
        spec.fields().iter().any(|field| schema.field_by_id(field.source_id).is_none())
    }) {
        Some("files of a partition spec whose column was dropped stay as they are")
    } else {
        None
    }
}

/// A file that is read next, with its deleted rows.
type ForeignFile = (Arc<PlannedFile>, OpenFile, Option<DeletedRows>);

/// A rewrite of one group of files.
pub struct ForeignRewrite<'a> {
    storage: &'a Storage,
    ids: &'a IdGenerator,
    layout: Arc<RowsLayout>,
    /// The table's folder, without a trailing slash.
    folder: String,
    file_bytes: usize,
    /// The field ids of the columns that are read.
    columns: Vec<i32>,
    /// Which of them are written.
    written_columns: Vec<usize>,
    /// Rows that are left out.
    without: Option<TableCondition>,
    left: VecDeque<ForeignFile>,
    /// Of the file that is read.
    rows: Option<BoxStream<'static, Result<RecordBatch, FileError>>>,
    file: Option<RowsFile>,
    done: RewrittenFiles,
    /// Rows that the files have by their manifests.
    rows_before: u64,
    /// Rows that were read.
    read: u64,
}

impl std::fmt::Debug for ForeignRewrite<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ForeignRewrite").field("done", &self.done).finish_non_exhaustive()
    }
}

impl<'a> ForeignRewrite<'a> {
    /// Opens the files, which are of one partition of one spec.
    ///
    /// # Errors
    /// [`RewriteError`]
    pub async fn open(
        RewriteInput { source, files, deletes }: RewriteInput<'a>,
        ids: &'a IdGenerator,
    ) -> Result<Self, RewriteError> {
        let (table, storage) = (source.metadata, source.storage);
        let mut files = files.to_vec();
        // About as the rows came.
        files.sort_by(|one, other| {
            (one.sequence, &one.location).cmp(&(other.sequence, &other.location))
        });
        let fields = columns(table);
        let is_nested = fields.iter().any(|field| !field.field_type.is_primitive());
        let aliases = FieldAliases::of(table);
        let aliases = aliases.map_err(|cause| ReadError::Unsupported(cause.to_string()))?;
        let columns = FileColumns::new(fields.clone(), is_nested, aliases);
        let columns = columns.map_err(ReadError::Unsupported)?;
        let (mut done, mut places) = (RewrittenFiles::default(), RowPlaces::default());
        let (mut left, mut rows_before, mut refused) = (VecDeque::new(), 0, Vec::new());
        let opens: Vec<_> =
            files.iter().map(|file| OpenFile::new(storage, file, &columns)).collect();
        let mut opens = pin!(stream::iter(opens).buffered(OPENS_AT_ONCE));
        for file in &files {
            let Some(opened) = opens.next().await else { break };
            let opened =
                opened.and_then(|opened| check_file(table, file, &opened).map(|()| opened));
            let opened = match opened {
                Ok(opened) if refused.is_empty() => opened,
                // The group is not written.
                Ok(_) => continue,
                Err(cause @ FileError::Refused { .. }) => {
                    refused.push(cause);
                    continue;
                }
                Err(cause) => return Err(ReadError::from(cause).into()),
            };
            let deleted = deletes.of(source, file).await?;
            rows_before += file.rows;
            let last = file.rows.checked_sub(1);
            let gone = deleted.as_ref().zip(last).map_or(0, |(places, last)| places.rank(last));
            places.add_file(&file.location, deleted.clone());
            places.add_rows(left.len(), file.rows.saturating_sub(gone));
            done.deleted_rows += gone;
            done.files += 1;
            done.bytes += file.bytes;
            done.removed.push(described(file)?);
            left.push_back((Arc::clone(file), opened, deleted));
        }
        if let Some(cause) = refusal(refused) {
            return Err(cause);
        }
        for delete in &useless_deletes(&files, deletes.index()) {
            done.removed.push(described(delete)?);
        }
        let written_columns = written_columns(table, &fields, &left);
        let layout = layout_of(table, &files, &fields, &columns, &written_columns);
        done.spec_id = Some(layout.spec_id);
        done.places = places.of_rows(rows_before - done.deleted_rows).map(Arc::new);
        let FileLayout { location: folder, file_bytes, .. } = FileLayout::of(table);
        Ok(Self {
            storage,
            ids,
            layout: Arc::new(layout),
            folder,
            file_bytes: file_bytes.min(FILE_BYTES_MAX),
            columns: fields.iter().map(|field| field.id).collect(),
            written_columns,
            without: None,
            left,
            rows: None,
            file: None,
            done,
            rows_before,
            read: 0,
        })
    }

    /// The same without the rows that meet a condition on columns of the table.
    #[must_use]
    pub fn without(mut self, table: &TableMetadata, condition: &RowCondition) -> Self {
        self.without = Some(condition.within(table, &self.columns));
        self.done.places = None;
        self
    }

    /// The files that it takes; nothing is written yet.
    #[must_use]
    pub fn planned(&self) -> &RewrittenFiles {
        &self.done
    }

    /// Writes the next few thousand rows; whether there were any. After an error only
    /// [`ForeignRewrite::abandon`] is left.
    ///
    /// # Errors
    /// [`RewriteError`]
    pub async fn step(&mut self) -> Result<bool, RewriteError> {
        loop {
            if let Some(rows) = &mut self.rows {
                if let Some(batch) = rows.next().await {
                    let batch = batch.map_err(ReadError::from)?;
                    self.write(&batch).await?;
                    return Ok(true);
                }
                self.rows = None;
            }
            let Some((_, opened, deleted)) = self.left.pop_front() else { return Ok(false) };
            let (kept, rows) = reader::rows_in_batches(opened, deleted.as_ref(), BATCH_BYTES)?;
            self.done.rows += kept;
            self.rows = Some(rows.boxed());
        }
    }

    async fn write(&mut self, rows: &RecordBatch) -> Result<(), RewriteError> {
        let kept = match &self.without {
            Some(condition) => condition.others(rows).await.map_err(ReadError::from)?,
            None => rows.clone(),
        };
        self.done.erased_rows += (rows.num_rows() - kept.num_rows()) as u64;
        if kept.num_rows() == 0 {
            return Ok(());
        }
        let rows = kept.project(&self.written_columns).map_err(WriteError::Split)?;
        self.read += rows.num_rows() as u64;
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                let id = self.ids.mint();
                let location = format!("{}/data/{:02x}/{id}.parquet", self.folder, id.0 & 0xff);
                RowsFile::new(Arc::clone(&self.layout), location)?
            }
        };
        let file = blocking(move || {
            file.add(&rows)?;
            Ok::<_, WriteError>(file)
        })
        .await?;
        let is_long = self.file_bytes <= file.bytes();
        self.file = Some(file);
        if is_long {
            self.store_file().await?;
        }
        Ok(())
    }

    async fn store_file(&mut self) -> Result<(), RewriteError> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let EncodedFile { bytes, file } = blocking(move || file.finish()).await?;
        // It is among those that are deleted after an error before anything of it may be stored.
        let location = file.file_path().to_owned();
        self.done.added.push(file);
        let stored = self.storage.put_deferred(&location, bytes).await;
        Ok(stored.map_err(WriteError::Store)?)
    }

    /// Ends the last file, once there are no more rows.
    ///
    /// # Errors
    /// [`RewriteError`]; what was written is deleted then.
    pub async fn finish(mut self) -> Result<RewrittenFiles, RewriteError> {
        let ended = self.end().await;
        match ended {
            Ok(()) => Ok(mem::take(&mut self.done)),
            Err(cause) => {
                self.abandon().await;
                Err(cause)
            }
        }
    }

    async fn end(&mut self) -> Result<(), RewriteError> {
        self.store_file().await?;
        let names: Vec<&str> = self.done.locations().collect();
        self.storage.sync_names(&names).await.map_err(WriteError::Store)?;
        let written: u64 = self.done.added.iter().map(DataFile::record_count).sum();
        self.done.rows = self.done.rows.saturating_sub(self.done.erased_rows);
        let gone = self.done.deleted_rows + self.done.erased_rows;
        let expected = self.rows_before.saturating_sub(gone);
        match [self.done.rows, self.read, written].iter().any(|counted| *counted != expected) {
            true => Err(RewriteError::Miscounted { expected, written }),
            false => Ok(()),
        }
    }

    /// Deletes what was written.
    pub async fn abandon(self) {
        delete(self.storage, self.done.locations()).await;
    }
}

/// Refuses a file whose values others read in another way, and one without a column whose value its partition
/// has: there the partition tells it, and files of the service's making have to have it.
pub(crate) fn check_file(
    table: &TableMetadata,
    file: &PlannedFile,
    opened: &OpenFile,
) -> Result<(), FileError> {
    let spec = table.partition_spec_by_id(file.spec_id);
    let fields = spec.map(|spec| spec.fields()).unwrap_or_default();
    let values: &[Option<Literal>] = file.partition.fields();
    let has_source = |id: i32| {
        let column = table.current_schema().field_by_id(id);
        column.is_some_and(|column| opened.has_column(column))
    };
    let is_left_out = fields.iter().zip(values).any(|(field, value)| {
        field.transform == Transform::Identity && value.is_some() && !has_source(field.source_id)
    });
    let left_out = is_left_out.then_some(
        "lacks a column whose value only its partition has; rewrite it with the engine that wrote it",
    );
    match opened.misfit().or(left_out) {
        Some(reason) => Err(FileError::Refused { location: file.location.clone(), reason }),
        None => Ok(()),
    }
}

/// Why a group is not written that has such files: all are named, so that the next try is without them.
fn refusal(refused: Vec<FileError>) -> Option<RewriteError> {
    let locations: Vec<String> = refused.iter().map(|cause| cause.location().to_owned()).collect();
    let source = refused.into_iter().next()?;
    Some(match locations.len() {
        1 => ReadError::from(source).into(),
        _ => RewriteError::Refused { locations, source },
    })
}

/// The places of the table's columns, and of those that were dropped and that a file has.
fn written_columns(
    table: &TableMetadata,
    fields: &[NestedFieldRef],
    files: &VecDeque<ForeignFile>,
) -> Vec<usize> {
    let current = table.current_schema().as_struct().fields().len();
    let is_written = |at: &usize| {
        *at < current || files.iter().any(|(_, opened, _)| opened.has_column(&fields[*at]))
    };
    (0..fields.len()).filter(is_written).collect()
}

/// How the new files are.
fn layout_of(
    table: &TableMetadata,
    files: &[Arc<PlannedFile>],
    fields: &[NestedFieldRef],
    columns: &FileColumns,
    written: &[usize],
) -> RowsLayout {
    let of_file = |at: &usize| -> Field {
        let field = columns.schema().field(*at).clone();
        field.with_nullable(!fields[*at].required)
    };
    let schema = Arc::new(ArrowSchema::new(written.iter().map(of_file).collect::<Vec<_>>()));
    let measured = written.iter().enumerate().filter_map(|(at, place)| {
        let field = &fields[*place];
        let kind = field.field_type.as_primitive_type()?.clone();
        let mode = MetricsMode::of(table, &field.name, *place);
        (mode != MetricsMode::None).then_some(MeasuredColumn { at, id: field.id, kind, mode })
    });
    let first = files.first();
    RowsLayout {
        properties: properties(table, &schema),
        measured: measured.collect(),
        schema,
        spec_id: first.map_or(table.default_partition_spec_id(), |file| file.spec_id),
        partition: first.map_or_else(Struct::empty, |file| file.partition.clone()),
        // The rows of several files one behind the other are in no order.
        sort_order_id: first.filter(|_| files.len() == 1).and_then(|file| file.sort_order_id),
    }
}

#[cfg(test)]
mod tests;
