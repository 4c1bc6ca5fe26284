//! A group: what several submissions bring to the log in one append.
//!
//! Each namespace has at most one record of each kind, with dense numbers: drafts join in the order
//! in which they were judged.

use crate::ingest::{
    admit::{AcceptedRows, AdmittedBatch, DeadLetterRows, DedupState},
    keys,
};
use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use icecore_lake::{
    event::{EventKey, codec, rows},
    wal::LogRecord,
};
use icecore_schemas::{names::Namespace, service_table::RecordKind};
use std::collections::HashMap;

#[derive(Debug, Default)]
pub(super) struct LogGroup {
    taken: Vec<AcceptedRows>,
    new_letters: Vec<DeadLetterRows>,
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
        self.new_letters.append(&mut draft.new_letters);
    }

    /// What the log should hold: rows first, then the ids of the same rows.
    pub(super) fn records(&self) -> Vec<LogRecord> {
        // Drafts of one namespace become one record: their numbers follow one another.
        let mut events = GroupParts::default();
        for taken in &self.taken {
            let part = events.part(&taken.namespace, taken.first_seq);
            part.batches.push(taken.rows.clone());
            part.keys.extend_from_slice(&taken.keys);
            part.types.extend_from_slice(&taken.types);
        }
        let mut dead_letters = GroupParts::default();
        for new_letters in &self.new_letters {
            let part = dead_letters.part(&new_letters.namespace, new_letters.first);
            part.batches.push(new_letters.rows.clone());
        }
        let mut records = Vec::new();
        let event_schema = rows::known_event_schema();
        for (namespace, part) in &events.parts {
            records.push(rows_record(RecordKind::Events, namespace, part, &event_schema));
        }
        let dead_letter_schema = rows::dead_letter_schema();
        for (namespace, part) in &dead_letters.parts {
            let kind = RecordKind::DeadLetters;
            records.push(rows_record(kind, namespace, part, &dead_letter_schema));
        }
        // Ids come last, in the same block: a torn block has neither rows nor ids.
        records.extend(events.parts.iter().map(|(namespace, part)| LogRecord {
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
        self.new_letters.iter().for_each(|new_letters| new_letters.undo(dedup));
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
    parts: Vec<(Namespace, TableRows)>,
    places: HashMap<Namespace, usize>,
}

impl GroupParts {
    fn part(&mut self, namespace: &Namespace, first: u64) -> &mut TableRows {
        // Drafts join in the order of their numbers, so the first one's number is the record's.
        let place = *self.places.entry(namespace.clone()).or_insert_with(|| {
            self.parts.push((namespace.clone(), TableRows { first, ..TableRows::default() }));
            self.parts.len() - 1
        });
        &mut self.parts[place].1
    }
}

fn rows_record(
    kind: RecordKind,
    namespace: &Namespace,
    part: &TableRows,
    schema: &SchemaRef,
) -> LogRecord {
    let rows = rows::concat(schema, &part.batches)
        .expect("decoded batches have the schema's types and its required columns");
    LogRecord {
        kind,
        namespace: namespace.clone(),
        first_seq: part.first,
        rows: count(rows.num_rows()),
        payload: codec::encode(schema, &rows),
    }
}

fn count(rows: usize) -> u32 {
    u32::try_from(rows).expect("a group is bounded in bytes far below this many rows")
}
