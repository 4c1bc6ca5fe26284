//! The documents of a collection's buckets after few changes, of the files that have them and of the changes.
//!
//! Each file is read once, in its order, and rows without a change come out as they are. Its one invariant: the
//! documents are those that the statement of all documents has, in the same order.

use crate::sql::collection_refresh::changes::{BucketChanges, SortedChanges, text_at};
use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, StringArray, StringViewArray},
    compute::{cast, interleave_record_batch},
    datatypes::{DataType, Int64Type, SchemaRef},
    error::ArrowError,
    record_batch::RecordBatch,
};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use iceberg::spec::TableMetadata;
use icecore_catalog::{scan::manifests::PlannedFile, storage::Storage};
use icecore_engine::{QueryAnswer, error::SqlError, file_failure::unreadable, stop::QuerySignal};
use icecore_lake::{
    collection::{ChangeOp, Document},
    table::{
        file_columns::{self, FileColumns, FileError},
        reader,
        typed_columns::TypedColumns,
    },
};
use std::{sync::Arc, vec};

/// Most documents that are made at a time, and bytes of their texts before the last of them: a short patch may make a
/// long document.
const DOCUMENTS_MAX: usize = 8_192;
const BYTES_MAX: usize = 16 << 20;
/// Of the two that rows are taken of: those of the file, and new ones.
const KNOWN: usize = 0;
const NEW: usize = 1;

/// Documents bucket after bucket, by key in each.
pub(super) struct BucketMerge {
    storage: Storage,
    columns: FileColumns,
    typed: TypedColumns,
    signal: Arc<QuerySignal>,
    files: vec::IntoIter<(i32, Option<Arc<PlannedFile>>)>,
    changes: SortedChanges,
    open: Option<OpenBucket>,
}

impl BucketMerge {
    /// Those of a table with these columns, all of them in its order. It ends with the signal.
    pub(super) fn new(
        (storage, signal): (Storage, Arc<QuerySignal>),
        (table, ids): (&TableMetadata, &[i32]),
        BucketChanges { files, changes }: BucketChanges,
    ) -> Result<Self, SqlError> {
        let columns = FileColumns::of(table, ids).map_err(SqlError::Unreadable)?;
        let (typed, files) = (TypedColumns::of(table), files.into_iter());
        Ok(Self { storage, columns, typed, signal, files, changes, open: None })
    }

    pub(super) fn into_answer(self) -> QueryAnswer {
        let schema = Arc::clone(self.columns.schema());
        let batches = stream::try_unfold(self, |mut merge| async move {
            let rows = Box::pin(merge.next()).await?;
            Ok::<_, SqlError>(rows.map(|rows| (rows, merge)))
        });
        QueryAnswer { schema, batches: batches.boxed(), snapshot: None, basis: None }
    }

    /// Some of the documents that come next; none at their end.
    async fn next(&mut self) -> Result<Option<RecordBatch>, SqlError> {
        loop {
            self.signal.check()?;
            if self.open.is_none() {
                let Some((number, file)) = self.files.next() else { return Ok(None) };
                let opened = OpenBucket::new(number, file, &self.storage, &self.columns);
                self.open = Some(Box::pin(opened).await?);
            }
            let Some(bucket) = &mut self.open else { continue };
            let documents = match bucket.next_rows().await? {
                Some(rows) => {
                    bucket.merged(rows, &mut self.changes, (&self.typed, &self.signal))?
                }
                None => {
                    let rest = bucket.rest(&mut self.changes, &self.signal)?;
                    if self.changes.next_key(bucket.number).is_none() {
                        self.open = None;
                    }
                    rest.rows(self.columns.schema(), &self.typed)?
                }
            };
            if 0 < documents.num_rows() {
                return Ok(Some(documents));
            }
        }
    }
}

/// A bucket whose documents come now.
struct OpenBucket {
    number: i32,
    location: String,
    rows: BoxStream<'static, Result<RecordBatch, FileError>>,
    /// Rows of which some came already, and the first that did not.
    begun: Option<(RecordBatch, usize)>,
    /// The last key of the rows that came.
    last_key: Option<String>,
}

impl OpenBucket {
    async fn new(
        number: i32,
        file: Option<Arc<PlannedFile>>,
        storage: &Storage,
        columns: &FileColumns,
    ) -> Result<Self, SqlError> {
        let (location, rows) = match file {
            Some(file) => {
                let opened = reader::rows_of_file(storage, &file, columns, None).await;
                let (_, rows) = opened.map_err(|cause| unreadable(&cause))?;
                (file.location.clone(), rows.fuse().boxed())
            }
            None => (String::new(), stream::empty().boxed()),
        };
        Ok(Self { number, location, rows, begun: None, last_key: None })
    }

    /// The rows that come next in the file, with the first of them that did not come yet.
    async fn next_rows(&mut self) -> Result<Option<(RecordBatch, usize)>, SqlError> {
        if let Some(begun) = self.begun.take() {
            return Ok(Some(begun));
        }
        let rows = self.rows.next().await.transpose();
        Ok(rows.map_err(|cause| unreadable(&cause))?.map(|rows| (rows, 0)))
    }

    /// The documents up to the last of these rows, from this one on; the rest comes later where they are many.
    fn merged(
        &mut self,
        (rows, from): (RecordBatch, usize),
        changes: &mut SortedChanges,
        (typed, signal): (&TypedColumns, &QuerySignal),
    ) -> Result<RecordBatch, SqlError> {
        let known = KnownRows::of(&rows)?;
        let (mut new, mut places) = (NewDocuments::default(), Vec::with_capacity(rows.num_rows()));
        let before = self.last_key.take();
        let (mut last, mut row) = (before.as_deref(), from);
        'rows: while row < rows.num_rows() {
            let key = known.keys.value(row);
            if last.is_some_and(|last| key <= last) {
                return Err(self.refused("are not in the order of their keys"));
            }
            // Documents that are new come before the first key behind theirs.
            while let Some(changed) = changes.next_key(self.number).filter(|it| *it <= key) {
                if new.is_full() {
                    break 'rows;
                }
                signal.check()?;
                if changed == key {
                    break;
                }
                let changed = changed.to_owned();
                places.extend(new.add(changed, changes.next_document(None)));
            }
            if changes.next_key(self.number) == Some(key) {
                let document = known.document(row);
                let document = document.ok_or_else(|| self.refused("lack a version or a time"))?;
                places.extend(new.add(key.to_owned(), changes.next_document(Some(document))));
            } else {
                places.push((KNOWN, row));
            }
            (last, row) = (Some(key), row + 1);
        }
        self.last_key = last.map(str::to_owned);
        // As many places and none of them new: these are the rows.
        if new.documents.is_empty() && places.len() == rows.num_rows() {
            return Ok(rows);
        }
        let new = new.rows(&rows.schema(), typed)?;
        let merged = interleave_record_batch(&[&rows, &new], &places);
        if row < rows.num_rows() {
            self.begun = Some((rows, row));
        }
        merged.map_err(|cause| internal(&cause))
    }

    /// The documents behind the last row of the file; where they are many, those that come first.
    fn rest(
        &self,
        changes: &mut SortedChanges,
        signal: &QuerySignal,
    ) -> Result<NewDocuments, SqlError> {
        let mut new = NewDocuments::default();
        while let Some(key) = changes.next_key(self.number).filter(|_| !new.is_full()) {
            signal.check()?;
            let key = key.to_owned();
            new.add(key, changes.next_document(None));
        }
        Ok(new)
    }

    fn refused(&self, what: &str) -> SqlError {
        SqlError::Unreadable(format!(
            "documents in `{}` {what}: refresh the collection with `full=true`",
            self.location
        ))
    }
}

/// Rows of a file, whose documents are looked at where they changed.
struct KnownRows {
    keys: StringArray,
    docs: StringArray,
    ops: StringArray,
    stores: StringArray,
    versions: Int64Array,
    created: Int64Array,
    updated: Int64Array,
    actors: StringArray,
    bookmarks: StringArray,
    seqs: Int64Array,
    event_ids: StringArray,
}

impl KnownRows {
    fn of(rows: &RecordBatch) -> Result<Self, SqlError> {
        let column = |name: &str, kind: &DataType| -> Result<ArrayRef, SqlError> {
            let found = rows.column_by_name(name);
            let found =
                found.ok_or_else(|| SqlError::Internal(format!("documents have no `{name}`")))?;
            cast(found, kind).map_err(|cause| internal(&cause))
        };
        let text = |name: &str| -> Result<StringArray, SqlError> {
            let found = column(name, &DataType::Utf8)?;
            Ok(found.as_string::<i32>().clone())
        };
        // Times of tables are microseconds.
        let number = |name: &str| -> Result<Int64Array, SqlError> {
            let found = column(name, &DataType::Int64)?;
            Ok(found.as_primitive::<Int64Type>().clone())
        };
        Ok(Self {
            keys: text("key")?,
            docs: text("doc")?,
            ops: text("op")?,
            stores: text("store")?,
            versions: number("version")?,
            created: number("created_at")?,
            updated: number("updated_at")?,
            actors: text("actor")?,
            bookmarks: text("bookmark")?,
            seqs: number("seq")?,
            event_ids: text("event_id")?,
        })
    }

    /// The document of a row; none where the row lacks what each has.
    fn document(&self, row: usize) -> Option<Document> {
        let number = |column: &Int64Array| column.is_valid(row).then(|| column.value(row));
        let text = |column: &StringArray| text_at(column, row).map(str::to_owned);
        let updated_at = number(&self.updated)?;
        Some(Document {
            doc: text(&self.docs),
            op: ChangeOp::from_code(text_at(&self.ops, row)?)?,
            store: text(&self.stores),
            version: number(&self.versions)?,
            created_at: number(&self.created).unwrap_or(updated_at),
            updated_at,
            actor: text(&self.actors),
            bookmark: text(&self.bookmarks),
            seq: number(&self.seqs)?,
            event_id: text(&self.event_ids).unwrap_or_default(),
        })
    }
}

/// Documents that changes made, in the order of their keys.
#[derive(Debug, Default)]
struct NewDocuments {
    keys: Vec<String>,
    documents: Vec<Document>,
    /// Of their texts.
    bytes: usize,
}

impl NewDocuments {
    /// Adds a document, if there is one, and says where it is.
    fn add(&mut self, key: String, document: Option<Document>) -> Option<(usize, usize)> {
        let document = document?;
        self.bytes += document.doc.as_ref().map_or(0, String::len);
        self.documents.push(document);
        self.keys.push(key);
        Some((NEW, self.documents.len() - 1))
    }

    /// Whether they are as many as are made at a time.
    fn is_full(&self) -> bool {
        DOCUMENTS_MAX <= self.documents.len() || BYTES_MAX <= self.bytes
    }

    /// As rows of the table, with its typed columns.
    fn rows(&self, schema: &SchemaRef, typed: &TypedColumns) -> Result<RecordBatch, SqlError> {
        let rows = self.columns(typed).and_then(|columns| {
            let columns = columns.iter().zip(schema.fields());
            let columns =
                columns.map(|(column, field)| file_columns::cast(column, field.data_type()));
            let columns = columns.collect::<Result<Vec<ArrayRef>, ArrowError>>()?;
            RecordBatch::try_new(Arc::clone(schema), columns)
        });
        rows.map_err(|cause| internal(&cause))
    }

    /// The columns of every collection, in their order, and the typed ones behind them.
    fn columns(&self, typed: &TypedColumns) -> Result<Vec<ArrayRef>, ArrowError> {
        let text = |of: fn(&Document) -> Option<&str>| -> ArrayRef {
            Arc::new(self.documents.iter().map(of).collect::<StringArray>())
        };
        let number = |of: fn(&Document) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(self.documents.iter().map(of)))
        };
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(&self.keys)),
            text(|it| it.doc.as_deref()),
            text(|it| Some(it.op.code())),
            text(|it| it.store.as_deref()),
            number(|it| it.version),
            number(|it| it.created_at),
            number(|it| it.updated_at),
            text(|it| it.actor.as_deref()),
            text(|it| it.bookmark.as_deref()),
            number(|it| it.seq),
            text(|it| Some(it.event_id.as_str())),
        ];
        if !typed.is_empty() {
            let docs = self.documents.iter().map(|it| it.doc.as_deref());
            let values = typed.values(&docs.collect::<StringViewArray>())?;
            columns.extend(values.columns().iter().cloned());
        }
        Ok(columns)
    }
}

fn internal(cause: &ArrowError) -> SqlError {
    SqlError::Internal(cause.to_string())
}

#[cfg(test)]
mod tests;
