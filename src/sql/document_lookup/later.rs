//! Whether a document may have changed after the events that the table of its collection has.
//!
//! Its one invariant: where one of these events may change the document or empty its collection, or one does not read,
//! the answer is yes.

use crate::sql::document_lookup::HELD_BYTES_MAX;
use arrow::{
    array::{Array, AsArray},
    datatypes::{Int64Type, SchemaRef},
};
use futures::TryStreamExt;
use iceberg::spec::{Datum, TableMetadata};
use icecore_catalog::{
    scan::{
        Deadline, ManifestSource,
        filter::{Comparison, Filter, FilterTest, Term, ValueCheck},
        manifests::ManifestCache,
    },
    storage::Storage,
};
use icecore_engine::view::{CollectionView, View};
use icecore_lake::{
    event::{codec, rows},
    table::reader::{self, DeleteHandling, ReadError, ReadRequest},
    wal::RecordRef,
};
use icecore_schemas::service_table::ServiceTables;
use std::{pin::pin, sync::Arc};
use tokio::runtime::Handle;

/// Most events that are looked through: with more, the statement reads them in parts at the same time.
const EVENTS_MAX: u64 = 100_000;
/// Most records of the log that are read for a document, and most bytes of them.
const RECORDS_MAX: usize = 1_000;
const RECORD_BYTES_MAX: u64 = 4 << 20;

/// Events behind those that a table has.
#[derive(Debug)]
pub(super) struct LaterEvents {
    /// The last event that the table has, and the last one that is seen.
    above: u64,
    until: u64,
    collection: String,
    /// Where those are that are in the table of events.
    snapshot: Option<(Arc<TableMetadata>, i64)>,
    /// Those of the log, and its columns.
    records: Vec<RecordRef>,
    columns: SchemaRef,
}

impl LaterEvents {
    /// Those that a view has of a collection behind the event `above`; none for more than are looked through here.
    pub(super) fn of(
        view: &View,
        collection: &CollectionView,
        tables: &ServiceTables,
        above: u64,
    ) -> Option<Self> {
        let (events, until) = (view.table(collection.events.as_deref()?)?, collection.until?);
        if events.later.is_some() || EVENTS_MAX < until.saturating_sub(above) {
            return None;
        }
        let is_later =
            |record: &&RecordRef| above < record.first_seq.saturating_add(u64::from(record.rows));
        let records: Vec<RecordRef> = events.tail.iter().filter(is_later).cloned().collect();
        let bytes: u64 = records.iter().map(|record| u64::from(record.length)).sum();
        if RECORDS_MAX < records.len() || RECORD_BYTES_MAX < bytes {
            return None;
        }
        let collection = collection.collection.clone();
        let snapshot = events.metadata.clone().zip(events.snapshot_id);
        let columns = rows::schema_of(tables.events().columns);
        Some(Self { above, until, collection, snapshot, records, columns })
    }

    /// Whether one of them may change the document with this key. It reads files and blocks.
    pub(super) fn may_change(
        &self,
        key: &str,
        (storage, cache, until): (&Storage, &ManifestCache, Deadline),
        handle: &Handle,
    ) -> Result<bool, ReadError> {
        if self.records.iter().any(|record| self.may_be_in(record, key).unwrap_or(true)) {
            return Ok(true);
        }
        let Some((metadata, snapshot_id)) = &self.snapshot else { return Ok(false) };
        let Some(request) = self.request(metadata, *snapshot_id, key) else { return Ok(true) };
        let source = ManifestSource { storage, cache, metadata, until };
        handle.block_on(has_rows(source, request))
    }

    /// Whether a record of the log has a row that counts; none where it does not read.
    fn may_be_in(&self, record: &RecordRef, key: &str) -> Option<bool> {
        let payload = record.read().ok()?;
        let rows = codec::decode(&self.columns, &payload, record.first_seq).ok()?;
        let collections = rows.column_by_name("collection")?.as_string_opt::<i32>()?;
        let keys = rows.column_by_name("key")?.as_string_opt::<i32>()?;
        let seqs = rows.column_by_name("seq")?.as_primitive_opt::<Int64Type>()?;
        let counts = |row: usize| {
            let is_later = u64::try_from(seqs.value(row))
                .is_ok_and(|seq| self.above < seq && seq <= self.until);
            let is_of = collections.is_valid(row) && collections.value(row) == self.collection;
            // One without a key may empty the collection.
            is_later && is_of && (keys.is_null(row) || keys.value(row) == key)
        };
        Some((0..rows.num_rows()).any(counts))
    }

    /// The read of the rows that count; none where the table of events lacks a column.
    fn request(&self, table: &TableMetadata, snapshot_id: i64, key: &str) -> Option<ReadRequest> {
        let schema = table.current_schema();
        let test = |name: &str, check: ValueCheck| {
            let term = Term::column(schema, name, true).ok()?;
            Some(Filter::Test(FilterTest { term, check }))
        };
        let is = ValueCheck::Compare;
        let number = |seq: u64| Datum::long(i64::try_from(seq).unwrap_or(i64::MAX));
        let has_key = test("key", is(Comparison::Equal, Datum::string(key)))?
            .or(test("key", ValueCheck::IsNull)?);
        let filter = test("seq", is(Comparison::Greater, number(self.above)))?
            .and(test("seq", is(Comparison::LessOrEqual, number(self.until)))?)
            .and(test("collection", is(Comparison::Equal, Datum::string(&self.collection)))?)
            .and(has_key);
        let columns = vec![schema.field_by_name("seq")?.id];
        Some(ReadRequest { snapshot_id, columns, filter, deletes: DeleteHandling::Applied })
    }
}

async fn has_rows(source: ManifestSource<'_>, request: ReadRequest) -> Result<bool, ReadError> {
    let mut rows = pin!(reader::rows_within(source, request, HELD_BYTES_MAX).await?);
    Ok(rows.try_next().await?.is_some())
}
