//! The changes of documents behind those that a table has, as a refresh looks for them: the changes themselves where
//! they are few, else the buckets of their keys alone.
//!
//! Its one invariant: where it gives changes, they are all that there are up to the event that it names.

use crate::sql::{
    Sql,
    collection_refresh::{
        ChangedBuckets,
        base::{CollectionPlace, ReadBase},
        seq_of,
    },
    writes::WriteFailure,
};
use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, StringArray},
    compute::{cast, concat_batches},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit},
    error::ArrowError,
    record_batch::RecordBatch,
};
use futures::StreamExt;
use icecore_catalog::scan::manifests::PlannedFile;
use icecore_engine::{
    collections::{IS_CHANGE, IS_TRUNCATE, literal},
    error::SqlError,
};
use icecore_lake::collection::{
    ChangeOp, Document,
    changes::{ChangeRow, Changes},
};
use std::{
    array,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Most changes that are held. More of them are folded where queries run, which can put them aside on a disk.
const CHANGES_MAX: usize = 100_000;
/// Most bytes of their texts.
const TEXT_BYTES_MAX: usize = 32 << 20;
/// The texts of a change that may be missing, in the order in which they are asked for.
const TEXTS: [&str; 6] = ["after", "patch", "store", "actor", "bookmark", "id"];
/// Where the others are: bucket, key, `seq`, `op`, `ts`, and behind them the texts.
const BUCKET: usize = 0;
const KEY: usize = 1;
const SEQ: usize = 2;
const OP: usize = 3;
const TS: usize = 4;
const TEXTS_AT: usize = 5;

/// What changed behind a table.
#[derive(Debug)]
pub(super) struct FoundChanges {
    /// The last event that was looked at.
    pub(super) seq: u64,
    pub(super) buckets: ChangedBuckets,
    /// The changes of these buckets, where they are few and their documents are read of the files alone.
    pub(super) few: Option<BucketChanges>,
}

/// Buckets with changes, and what their documents are made of.
#[derive(Debug)]
pub(super) struct BucketChanges {
    /// Each of the buckets in order, with the file that has its documents; none where it has none.
    pub(super) files: Vec<(i32, Option<Arc<PlannedFile>>)>,
    pub(super) changes: SortedChanges,
}

impl Sql {
    /// What changed in a table of `main` behind the event `after`.
    pub(super) async fn changes_behind(
        &self,
        place: &CollectionPlace<'_>,
        base: &ReadBase,
        after: u64,
    ) -> Result<FoundChanges, WriteFailure> {
        if let Some(files) = base.files_of_buckets()
            && let Some(few) = Box::pin(self.few_changes(place, base, (after, files))).await?
        {
            return Ok(few);
        }
        let (seq, buckets) = Box::pin(self.changed_buckets(place, base, (after, None))).await?;
        Ok(FoundChanges { seq, buckets, few: None })
    }

    /// The changes themselves; none where they are many, or emptied the collection.
    async fn few_changes(
        &self,
        place: &CollectionPlace<'_>,
        base: &ReadBase,
        (after, files): (u64, BTreeMap<i32, Arc<PlannedFile>>),
    ) -> Result<Option<FoundChanges>, WriteFailure> {
        let count = base.bucket_count(&place.ident)?;
        let sql = changes_sql(place.collection, after, count);
        let mut answer = Box::pin(self.asked(place.levels, sql)).await?;
        let schema = change_schema();
        let (mut batches, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while let Some(batch) = answer.batches.next().await {
            let batch = as_changes(&batch?, &schema)?;
            rows += batch.num_rows();
            bytes += text_bytes(&batch);
            // What emptied the collection has no key.
            let is_emptied = 0 < batch.column(BUCKET).null_count();
            if is_emptied || CHANGES_MAX < rows || TEXT_BYTES_MAX < bytes {
                return Ok(None);
            }
            batches.push(batch);
        }
        let rows = concat_batches(&schema, &batches).map_err(|cause| internal(&cause))?;
        let seq = seq_of(&answer);
        let changes = SortedChanges::of(&rows, seq);
        let Some(numbers) = changes.bucket_numbers() else { return Ok(None) };
        let files = numbers.iter().map(|number| (*number, files.get(number).cloned())).collect();
        let buckets = ChangedBuckets::These(numbers);
        let few = Some(BucketChanges { files, changes });
        Ok(Some(FoundChanges { seq, buckets, few }))
    }
}

/// The changes of a collection behind an event, with the buckets of their keys, of `count`.
fn changes_sql(collection: &str, after: u64, count: u32) -> String {
    let (first, last, most) = (after.saturating_add(1), i64::MAX, CHANGES_MAX + 1);
    let (texts, collection) = (TEXTS.join(", "), literal(collection));
    format!(
        "SELECT bucket({count}, key) AS b, key, seq, op, ts, {texts} FROM events BETWEEN SEQ {first} AND {last} WHERE collection = {collection} AND ({IS_CHANGE} OR {IS_TRUNCATE}) LIMIT {most}"
    )
}

fn change_schema() -> SchemaRef {
    let number = |name: &str| Field::new(name, DataType::Int64, true);
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let mut fields = vec![number("b"), text("key"), number("seq"), text("op"), number("ts")];
    fields.extend(TEXTS.map(text));
    Arc::new(Schema::new(fields))
}

/// Rows of an answer with the columns of [`change_schema`].
fn as_changes(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, SqlError> {
    if !matches!(rows.column(TS).data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)) {
        return Err(SqlError::Internal("times of events are microseconds".to_owned()));
    }
    let columns = rows.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<ArrayRef>, ArrowError>>();
    let rows = columns.and_then(|columns| RecordBatch::try_new(Arc::clone(schema), columns));
    rows.map_err(|cause| internal(&cause))
}

fn text_bytes(rows: &RecordBatch) -> usize {
    let texts = rows.columns().iter().filter_map(|column| column.as_string_opt::<i32>());
    texts.map(|texts| texts.value_data().len()).sum()
}

fn internal(cause: &ArrowError) -> SqlError {
    SqlError::Internal(cause.to_string())
}

/// Changes of documents in the order of bucket, key and `seq`, which are taken key by key.
#[derive(Debug)]
pub(super) struct SortedChanges {
    buckets: Int64Array,
    keys: StringArray,
    seqs: Int64Array,
    ops: StringArray,
    times: Int64Array,
    texts: [StringArray; TEXTS.len()],
    /// The places of their rows.
    order: Vec<usize>,
    /// How many of them are taken.
    taken: usize,
}

impl SortedChanges {
    /// Those of rows with the columns of [`change_schema`], each with a key, up to an event. Rows that another engine
    /// gave a number behind it are not of the state that is written.
    fn of(rows: &RecordBatch, last: u64) -> Self {
        let number = |at: usize| rows.column(at).as_primitive::<Int64Type>().clone();
        let text = |at: usize| rows.column(at).as_string::<i32>().clone();
        let (buckets, keys, seqs) = (number(BUCKET), text(KEY), number(SEQ));
        let is_later = |row: &usize| u64::try_from(seqs.value(*row)).is_ok_and(|seq| last < seq);
        let mut order: Vec<usize> = (0..rows.num_rows()).filter(|row| !is_later(row)).collect();
        order.sort_unstable_by(|one, other| {
            let place = |row: usize| (buckets.value(row), keys.value(row), seqs.value(row));
            place(*one).cmp(&place(*other))
        });
        let texts = array::from_fn(|at| text(TEXTS_AT + at));
        Self { buckets, keys, seqs, ops: text(OP), times: number(TS), texts, order, taken: 0 }
    }

    /// The buckets that have any; none where one is no number of a bucket.
    fn bucket_numbers(&self) -> Option<BTreeSet<i32>> {
        self.order.iter().map(|row| i32::try_from(self.buckets.value(*row)).ok()).collect()
    }

    /// The key whose changes come next, where it is of this bucket.
    pub(super) fn next_key(&self, bucket: i32) -> Option<&str> {
        let row = *self.order.get(self.taken)?;
        (self.buckets.value(row) == i64::from(bucket)).then(|| self.keys.value(row))
    }

    /// Takes the changes of the next key: the document that they make of the one that is known; none where there is
    /// none then.
    pub(super) fn next_document(&mut self, known: Option<Document>) -> Option<Document> {
        let first = *self.order.get(self.taken)?;
        let mut changes = Changes::latest();
        if let Some(known) = known {
            changes.merge(Changes::of_base(known));
        }
        let place = |row: usize| (self.buckets.value(row), self.keys.value(row));
        let of_key = self.order[self.taken..].iter().take_while(|row| place(**row) == place(first));
        let mut count = 0;
        for row in of_key {
            if let Some(change) = self.change(*row) {
                changes.push_row(&change);
            }
            count += 1;
        }
        self.taken += count;
        changes.document()
    }

    /// The change of a row; none where it is no change.
    fn change(&self, row: usize) -> Option<ChangeRow<'_>> {
        if self.seqs.is_null(row) || self.times.is_null(row) {
            return None;
        }
        let [after, patch, store, actor, bookmark, id] =
            self.texts.each_ref().map(|texts| text_at(texts, row));
        Some(ChangeRow {
            seq: self.seqs.value(row),
            op: ChangeOp::from_code(text_at(&self.ops, row)?)?,
            ts: self.times.value(row),
            after,
            patch,
            store,
            actor,
            bookmark,
            event_id: id.unwrap_or_default(),
            before: None,
            lsn: None,
            version: None,
        })
    }
}

/// The text of a row, if it has one.
pub(super) fn text_at(texts: &StringArray, row: usize) -> Option<&str> {
    texts.is_valid(row).then(|| texts.value(row))
}

#[cfg(test)]
pub(super) mod tests;
