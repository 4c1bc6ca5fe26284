//! What a query sees, by value: for each table a snapshot and the places in the log after it.
//!
//! It is all that a query needs of the stores, and can be sent as bytes. Of a table's metadata only
//! what a query reads is sent: the columns, and no snapshot but the one that is read and the current.

use crate::error::SqlError;
use iceberg::spec::TableMetadata;
use icecore_lake::{
    table::evolve::SchemaFit,
    wal::{LogPosition, RecordRef},
};
use icecore_schemas::service_table::{RecordKind, ServiceTable, ServiceTables};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error};
use serde_json::Value;
use std::{iter, sync::Arc};

/// One table as a query sees it.
#[derive(Clone, Debug, Deserialize)]
pub struct TableView {
    /// Its name.
    pub name: String,
    /// Its metadata; none for a table of ours that has no snapshot and no catalog entry yet.
    pub metadata: Option<Arc<TableMetadata>>,
    /// The snapshot to read, if it has one.
    pub snapshot_id: Option<i64>,
    /// Whether it has the columns that the snapshot was written with, and not the table's of now.
    pub has_past_columns: bool,
    /// Which records of the log are rows of it; none for tables that only others write.
    pub ours: Option<RecordKind>,
    /// The records to read after the snapshot.
    #[serde(deserialize_with = "tail_of")]
    pub tail: Vec<RecordRef>,
    /// Highest `seq` of a row in snapshot or tail; 0 where it is not known.
    pub last_seq: u64,
}

/// The tables of a namespace as a query sees them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct View {
    /// The name of the namespace: its levels with points between.
    pub namespace: String,
    /// The tables that were wanted.
    pub tables: Vec<TableView>,
    /// Tables that are there and cannot be read, with what is wrong.
    pub unreadable: Vec<(String, SqlError)>,
    /// Whether the tables that belong to no namespace are seen: their rows are asked for page by page.
    pub has_system: bool,
}

impl View {
    /// A view of a namespace, without tables.
    #[must_use]
    pub fn of(namespace: String) -> Self {
        Self { namespace, tables: Vec::new(), unreadable: Vec::new(), has_system: false }
    }

    /// The table of that name.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&TableView> {
        self.tables.iter().find(|table| table.name == name)
    }
}

impl Serialize for TableView {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct TableViewForm<'a> {
            name: &'a str,
            metadata: Option<Value>,
            snapshot_id: Option<i64>,
            has_past_columns: bool,
            ours: Option<RecordKind>,
            tail: Vec<TailPart>,
            last_seq: u64,
        }
        let metadata = self.metadata.as_ref().map(|table| read_part(table, self.snapshot_id));
        TableViewForm {
            name: &self.name,
            metadata: metadata.transpose().map_err(S::Error::custom)?,
            snapshot_id: self.snapshot_id,
            has_past_columns: self.has_past_columns,
            ours: self.ours,
            tail: parts_of(&self.tail),
            last_seq: self.last_seq,
        }
        .serialize(to)
    }
}

/// What records of one file of the log differ in: position, first `seq`, rows, offset, length, checksum
/// and time.
type RecordForm = (LogPosition, u64, u32, u64, u32, u32, i64);

/// Records of one file, table and namespace, which are said once: a tail may have a million records.
#[derive(Serialize, Deserialize)]
struct TailPart {
    first: RecordRef,
    others: Vec<RecordForm>,
}

fn parts_of(tail: &[RecordRef]) -> Vec<TailPart> {
    let parts = tail.chunk_by(|record, next| {
        record.path == next.path && record.kind == next.kind && record.namespace == next.namespace
    });
    let part = |records: &[RecordRef]| {
        let (first, others) = records.split_first()?;
        let others = others.iter().map(|of| {
            (of.position, of.first_seq, of.rows, of.offset, of.length, of.crc, of.durable_ms)
        });
        Some(TailPart { first: first.clone(), others: others.collect() })
    };
    parts.filter_map(part).collect()
}

fn tail_of<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RecordRef>, D::Error> {
    let parts = Vec::<TailPart>::deserialize(from)?;
    let records = parts.into_iter().flat_map(|TailPart { first, others }| {
        let shared = first.clone();
        let others = others.into_iter().map(move |form| {
            let (position, first_seq, rows, offset, length, crc, durable_ms) = form;
            let shared = shared.clone();
            RecordRef { position, first_seq, rows, offset, length, crc, durable_ms, ..shared }
        });
        iter::once(first).chain(others)
    });
    Ok(records.collect())
}

/// The metadata without what no query reads, which is most of it where a table has many commits.
fn read_part(table: &TableMetadata, snapshot_id: Option<i64>) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(table)?;
    let current = table.current_snapshot_id();
    let Some(members) = value.as_object_mut() else { return Ok(value) };
    for unread in ["snapshot-log", "metadata-log", "statistics", "partition-statistics"] {
        members.remove(unread);
    }
    if let Some(Value::Object(refs)) = members.get_mut("refs") {
        refs.retain(|_, reference| reference["snapshot-id"].as_i64() == current);
    }
    if let Some(Value::Array(snapshots)) = members.get_mut("snapshots") {
        snapshots.retain(|snapshot| {
            let id = snapshot["snapshot-id"].as_i64();
            id == snapshot_id || id == current
        });
    }
    Ok(value)
}

/// A table of ours as a query sees it.
#[derive(Clone, Debug)]
pub struct ServiceTableView {
    /// Which one: its records of the log are rows of the table.
    pub table: ServiceTable,
    /// How the table stands to its columns.
    pub fit: SchemaFit,
}

impl ServiceTableView {
    /// What a table is of ours; none for tables that only others write.
    #[must_use]
    pub fn of(view: &TableView, tables: &ServiceTables) -> Option<Self> {
        let table = *tables.of(view.ours?)?;
        let fit = view.metadata.as_ref().map(|metadata| SchemaFit::of(&table, metadata));
        Some(Self { table, fit: fit.transpose().ok()?.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests;
