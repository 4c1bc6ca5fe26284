//! A group: what several submissions bring to the log in one append.
//!
//! Each namespace has at most one record of each kind, with dense numbers: drafts join in the order
//! in which they were judged.

use crate::ingest::{
    admit::{AcceptedRows, AdmittedBatch, CountedRows, DedupState},
    keys,
};
use arrow::{array::Array, datatypes::SchemaRef, record_batch::RecordBatch};
use icecore_lake::{
    event::{EventKey, codec, rows},
    wal::LogRecord,
};
use icecore_schemas::{names::Namespace, service_table::RecordKind};
use std::collections::HashMap;

#[derive(Debug, Default)]
pub(super) struct LogGroup {
    taken: Vec<AcceptedRows>,
    counted: Vec<CountedRows>,
}

/// Rows of one table, and the number of the first.
#[derive(Debug, Default)]
struct TableRows {
    first: u64,
    batches: Vec<RecordBatch>,
    keys: Vec<EventKey>,
    types: Vec<String>,
}

impl LogGroup {
    pub(super) fn add(&mut self, draft: &mut AdmittedBatch) {
        self.taken.append(&mut draft.taken);
        self.counted.append(&mut draft.counted);
    }

    /// What the log should hold: rows first, then the ids of the same rows.
    pub(super) fn records(&self) -> Vec<LogRecord> {
        // Drafts of one namespace become one record: their numbers follow one another.
        let mut events = GroupParts::default();
        for taken in &self.taken {
            let part = events.part(RecordKind::Events, &taken.namespace, taken.first_seq);
            part.batches.push(taken.rows.clone());
            part.keys.extend_from_slice(&taken.keys);
            part.types.extend_from_slice(&taken.types);
        }
        let mut others = GroupParts::default();
        for CountedRows { kind, namespace, first, rows, .. } in &self.counted {
            others.part(*kind, namespace, *first).batches.push(rows.clone());
        }
        let mut records = Vec::new();
        let event_schema = rows::known_event_schema();
        for (key, part) in &events.parts {
            records.push(rows_record(key, part, &event_schema));
        }
        for (key, part) in &others.parts {
            let table = key.0.table().expect("every kind of rows has its table");
            records.push(rows_record(key, part, &rows::schema_of(table.columns)));
        }
        // Ids come last, in the same block: a torn block has neither rows nor ids.
        records.extend(events.parts.iter().map(|((_, namespace), part)| LogRecord {
            kind: RecordKind::Keys,
            namespace: namespace.clone(),
            first_seq: part.first,
            rows: count(part.keys.len()),
            payload: keys::encode(&part.keys, &part.types),
        }));
        records
    }

    /// Takes the group back: it was not written. What of it may be on the disk does not count as
    /// soon as the log has a block more, which may have the same numbers and the same positions.
    pub(super) fn undo(&self, dedup: &mut DedupState) {
        self.taken.iter().for_each(|taken| taken.undo(dedup));
        self.counted.iter().for_each(|counted| counted.undo(dedup));
    }

    /// The namespaces with events of collections: every change of a document names its own.
    pub(super) fn changed(&self) -> impl Iterator<Item = &Namespace> {
        let has_any = |taken: &&AcceptedRows| {
            let collections = taken.rows.column_by_name("collection");
            collections.is_some_and(|column| column.null_count() < column.len())
        };
        self.taken.iter().filter(has_any).map(|taken| &taken.namespace)
    }

    /// Notes what was made durable.
    pub(super) fn acknowledge(&self, dedup: &mut DedupState) {
        for taken in &self.taken {
            // Numbers are dense, so the count tells the last.
            let last = taken.first_seq + taken.keys.len() as u64 - 1;
            dedup.ledger.acknowledge(&taken.namespace, last);
        }
    }
}

/// Parts in order of first appearance.
#[derive(Debug, Default)]
struct GroupParts {
    parts: Vec<((RecordKind, Namespace), TableRows)>,
    places: HashMap<(RecordKind, Namespace), usize>,
}

impl GroupParts {
    fn part(&mut self, kind: RecordKind, namespace: &Namespace, first: u64) -> &mut TableRows {
        // Drafts join in the order of their numbers, so the first one's number is the record's.
        let key = (kind, namespace.clone());
        let place = self.places.get(&key).copied().unwrap_or(self.parts.len());
        if place == self.parts.len() {
            self.places.insert(key.clone(), place);
            self.parts.push((key, TableRows { first, ..TableRows::default() }));
        }
        &mut self.parts[place].1
    }
}

fn rows_record(
    (kind, namespace): &(RecordKind, Namespace),
    part: &TableRows,
    schema: &SchemaRef,
) -> LogRecord {
    let rows = rows::concat(schema, &part.batches)
        .expect("decoded batches have the schema's types and its required columns");
    LogRecord {
        kind: *kind,
        namespace: namespace.clone(),
        first_seq: part.first,
        rows: count(rows.num_rows()),
        payload: codec::encode(schema, &rows),
    }
}

fn count(rows: usize) -> u32 {
    u32::try_from(rows).expect("a group is bounded in bytes far below this many rows")
}
