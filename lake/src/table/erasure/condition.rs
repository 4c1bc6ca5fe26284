//! Which rows are to go: by the columns and documents of a subject, and by when a row came.
//!
//! Its one invariant: a row whose time is not known is not spared for it.

use crate::{
    blocking::blocking,
    collection::erased_documents::ErasedDocuments,
    table::{erasure::foreign, typed_columns::is_typed},
};
use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, StringArray},
    compute::{filter_record_batch, not},
    datatypes::{Int64Type, TimestampMicrosecondType},
    error::ArrowError,
    record_batch::RecordBatch,
};
use iceberg::spec::{PrimitiveLiteral, TableMetadata};
use icecore_catalog::{
    retention,
    scan::manifests::{ColumnBounds, PlannedFile},
};
use std::{fmt, sync::Arc};

/// Columns that say when a row came: its `seq`, and its time in a table of events or of dead letters.
const ARRIVAL: [&str; 3] = ["seq", "ingested_at", "received_at"];

/// The column with the collection of a document. A table of one collection has none.
const COLLECTION: &str = "collection";
/// The column with the key of a document.
const KEY: &str = "key";
/// Columns of an event that say which document it makes.
const CHANGE: [&str; 3] = [COLLECTION, KEY, "op"];
/// What changes do that a document has its content from. A delete leaves none.
const MAKES_DOCUMENT: [&str; 3] = ["c", "u", "r"];

/// Tells of rows with these columns, where their table has them, which ones are meant.
type RowTest = dyn Fn(&[Option<ArrayRef>], usize) -> BooleanArray + Send + Sync;

/// Up to when a row came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrivalBound {
    /// The last `seq` of its namespace then; where it is not known, the time alone decides.
    pub seq: Option<u64>,
    /// The time, ms since 1970.
    pub at_ms: i64,
}

impl ArrivalBound {
    /// Whether each row came later, by its `seq` and by its time. Rows of other engines may have any
    /// `seq`, and clocks are set back: one of the two alone says nothing.
    pub(super) fn is_later(self, arrival: &[Option<ArrayRef>], row: usize) -> bool {
        let [seqs, ingested, received] = arrival else { return false };
        let time = |column: &Option<ArrayRef>| {
            let times = column.as_ref()?.as_primitive_opt::<TimestampMicrosecondType>()?;
            times.is_valid(row).then(|| times.value(row))
        };
        let Some(at_us) = time(ingested).or_else(|| time(received)) else { return false };
        let seqs = seqs.as_ref().and_then(|column| column.as_primitive_opt::<Int64Type>());
        let is_after = match (self.seq, seqs) {
            (Some(last), Some(seqs)) => {
                seqs.is_valid(row) && i64::try_from(last).is_ok_and(|last| last < seqs.value(row))
            }
            (None, _) | (_, None) => true,
        };
        is_after && self.at_ms.saturating_mul(1_000) < at_us
    }
}

/// Which rows are meant, in any table. Cheap to clone.
#[derive(Clone)]
pub struct RowCondition {
    /// The value that decides in one of `columns`.
    pub value: Arc<str>,
    /// Columns that decide where they have exactly this value.
    pub columns: &'static [&'static str],
    /// Columns with documents, of which any may meet it.
    pub documents: &'static [&'static str],
    /// Columns that the test needs beside.
    pub beside: &'static [&'static str],
    /// The test, which gets the columns in this order.
    pub test: Arc<RowTest>,
    /// Rows that came later are none of them.
    pub bound: Option<ArrivalBound>,
    /// The member that names a person: properties of other engines' tables name the columns that have its values.
    pub person: Option<&'static str>,
    /// Documents that are meant as well, in the tables of their collections, whenever they came.
    pub erased: Arc<ErasedDocuments>,
}

impl fmt::Debug for RowCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the value: logs are no place for it.
        f.debug_struct("RowCondition").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl RowCondition {
    /// The columns of a table that it needs.
    pub(super) fn ids(&self, table: &TableMetadata) -> Vec<i32> {
        if let Some(column) = foreign::column_of(table, self.person) {
            return vec![column];
        }
        let mut ids = Vec::new();
        for id in self.names().chain(CHANGE).filter_map(|name| id_of(table, name)) {
            // A column may be asked for more than once.
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }

    fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let arrival: &'static [&'static str] = if self.bound.is_some() { &ARRIVAL } else { &[] };
        self.columns.iter().chain(self.documents).chain(self.beside).chain(arrival).copied()
    }

    /// The same for rows with these columns of a table.
    pub(crate) fn within(&self, table: &TableMetadata, columns: &[i32]) -> TableCondition {
        if let Some(column) = foreign::column_of(table, self.person) {
            return self.of_foreign(columns.iter().position(|id| *id == column));
        }
        let place = |name: &'static str| {
            let id = id_of(table, name)?;
            columns.iter().position(|column| *column == id)
        };
        let (places, test) = (self.names().map(place).collect(), Arc::clone(&self.test));
        let at = self.names().position(|name| name == COLLECTION);
        let name: Option<Arc<str>> = retention::collection_of(table).map(Arc::from);
        let erased = name.clone().zip(place(KEY)).map(|(collection, key)| {
            let documents = Arc::clone(&self.erased);
            ErasedKeys { collection, key, documents }
        });
        let change = match (&name, CHANGE.map(place)) {
            (None, [Some(collection), Some(key), Some(op)]) => Some([collection, key, op]),
            _ => None,
        };
        let collection = at.zip(name);
        TableCondition { places, test, bound: self.bound, collection, erased, change }
    }

    /// The same for rows of another engine's table, which has the values here. Nothing tells when these came.
    fn of_foreign(&self, place: Option<usize>) -> TableCondition {
        let value = Arc::clone(&self.value);
        let test = Arc::new(move |columns: &[Option<ArrayRef>], rows: usize| {
            foreign::rows_with(&value, columns, rows)
        });
        let (places, bound, collection) = (vec![place], None, None);
        TableCondition { places, test, bound, collection, erased: None, change: None }
    }

    /// Whether a file may have such a row.
    pub(super) fn may_have(&self, table: &TableMetadata, file: &PlannedFile) -> bool {
        if foreign::column_of(table, self.person).is_some() {
            // Bounds of other writers are not relied on.
            return true;
        }
        let has = |name: &&str, may: &dyn Fn(&ColumnBounds) -> bool| {
            let Some(id) = id_of(table, name) else { return false };
            // A file that does not tell of a column may have it.
            file.column(id)
                .is_none_or(|column| column.nulls.is_none_or(|n| n < file.rows) && may(column))
        };
        self.columns.iter().any(|name| has(name, &|column| may_be(column, &self.value)))
            || self.documents.iter().any(|name| has(name, &|_| true))
            || retention::collection_of(table).is_some_and(|name| self.erased.has_some_of(name))
    }
}

/// A condition on rows with certain columns.
pub(crate) struct TableCondition {
    /// Where the columns are that the test gets, and after them those of a bound.
    places: Vec<Option<usize>>,
    test: Arc<RowTest>,
    bound: Option<ArrivalBound>,
    /// The collection of every row, and the place of its column among those of the test.
    collection: Option<(usize, Arc<str>)>,
    /// Rows of a collection's table that are meant by their keys.
    erased: Option<ErasedKeys>,
    /// Where the columns of a change are, in a table of events.
    change: Option<[usize; 3]>,
}

/// Documents of a collection that are meant, and where their keys are.
struct ErasedKeys {
    collection: Arc<str>,
    key: usize,
    documents: Arc<ErasedDocuments>,
}

impl TableCondition {
    /// Which rows meet it.
    pub(crate) async fn met(&self, rows: &RecordBatch) -> BooleanArray {
        let met = self.met_by_subject(rows).await;
        let Some(ErasedKeys { collection, key, documents }) = &self.erased else { return met };
        let Some(keys) = texts(rows, *key).filter(|_| documents.has_some_of(collection)) else {
            return met;
        };
        let is_meant = |row: usize| {
            let is_of_subject = met.is_valid(row) && met.value(row);
            is_of_subject || (keys.is_valid(row) && documents.has(collection, keys.value(row)))
        };
        BooleanArray::from((0..met.len()).map(is_meant).collect::<Vec<bool>>())
    }

    /// The rows that do not meet it.
    pub(crate) async fn others(&self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let met = self.met(rows).await;
        filter_record_batch(rows, &not(&met)?)
    }

    /// Adds the documents that events which meet it made.
    pub(super) fn note_documents(
        &self,
        rows: &RecordBatch,
        met: &BooleanArray,
        noted: &mut ErasedDocuments,
    ) {
        let Some([collection, key, op]) = self.change else { return };
        let columns = (texts(rows, collection), texts(rows, key), texts(rows, op));
        let (Some(collections), Some(keys), Some(ops)) = columns else { return };
        let all = |row: &usize| {
            collections.is_valid(*row)
                && keys.is_valid(*row)
                && ops.is_valid(*row)
                && MAKES_DOCUMENT.contains(&ops.value(*row))
        };
        let is_met = |row: &usize| met.is_valid(*row) && met.value(*row);
        for row in (0..met.len()).filter(is_met).filter(all) {
            noted.add(collections.value(row), keys.value(row));
        }
    }

    async fn met_by_subject(&self, rows: &RecordBatch) -> BooleanArray {
        let column = |place: &Option<usize>| place.map(|at| Arc::clone(rows.column(at)));
        let mut columns: Vec<Option<ArrayRef>> = self.places.iter().map(column).collect();
        let (test, count, bound) = (Arc::clone(&self.test), rows.num_rows(), self.bound);
        if let Some((at, name)) = &self.collection {
            columns[*at] = Some(Arc::new(StringArray::from(vec![&**name; count])));
        }
        let Some(bound) = bound else { return blocking(move || test(&columns, count)).await };
        let arrival = columns.split_off(columns.len().saturating_sub(ARRIVAL.len()));
        blocking(move || {
            let met = test(&columns, count);
            let is_meant =
                |row| met.is_valid(row) && met.value(row) && !bound.is_later(&arrival, row);
            BooleanArray::from((0..met.len()).map(is_meant).collect::<Vec<bool>>())
        })
        .await
    }
}

/// The column of a name. A typed column of a collection's table has a member of `doc`, which is looked through as a
/// whole: what is in it means no more there than in the events.
fn id_of(table: &TableMetadata, name: &str) -> Option<i32> {
    let field = table.current_schema().field_by_name(name)?;
    let is_of_doc = retention::collection_of(table).is_some() && is_typed(field);
    (!is_of_doc).then_some(field.id)
}

fn texts(rows: &RecordBatch, place: usize) -> Option<&StringArray> {
    rows.column(place).as_string_opt::<i32>()
}

/// Whether the bounds of a column of texts allow a value.
fn may_be(column: &ColumnBounds, value: &str) -> bool {
    let text = |literal: &PrimitiveLiteral| match literal {
        PrimitiveLiteral::String(text) => Some(text.clone()),
        _ => None,
    };
    let lower = column.lower.as_ref().and_then(|bound| text(bound.literal()));
    let upper = column.upper.as_ref().and_then(|bound| text(bound.literal()));
    lower.is_none_or(|lower| lower.as_str() <= value)
        && upper.is_none_or(|upper| value <= upper.as_str())
}
