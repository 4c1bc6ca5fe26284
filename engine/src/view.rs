//! What a query sees, by value: for each table a snapshot and the places in the log after it.
//!
//! It is all that a query needs of the stores, and can be sent as bytes. Of a table's metadata only
//! what a query reads is sent: the columns, and no snapshot but the one that is read and the current.

use crate::{
    error::SqlError, guard::CheckedStatement, metadata_tables::MetadataTable, seq_range::SeqRange,
    visibility::VisibleRows,
};
use iceberg::spec::{SchemaRef, TableMetadata};
use icecore_lake::{
    table::{evolve::SchemaFit, promoted::Promotions, typed_columns::TypedColumns},
    wal::{LogPosition, RecordRef},
};
use icecore_schemas::service_table::{RecordKind, ServiceTable, ServiceTables};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error};
use serde_json::Value;
use std::{collections::BTreeSet, iter, sync::Arc};

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
    /// The file with the metadata.
    pub metadata_location: Option<String>,
    /// Its metadata tables that are read: with any, all of the metadata is sent.
    pub inspected: Vec<MetadataTable>,
    /// Which of these rows count; none for all of them.
    pub seqs: Option<SeqRange>,
    /// A later state of the table whose rows count, too: those that the snapshot does not have.
    pub later: Option<Box<TableView>>,
}

impl TableView {
    /// The columns that the snapshot was written with, where it is read with these.
    #[must_use]
    pub fn past_columns(&self) -> Option<&SchemaRef> {
        let metadata = self.metadata.as_ref()?;
        let id = self.snapshot_id.filter(|_| self.has_past_columns)?;
        let snapshot = metadata.snapshot_by_id(id)?;
        // Without an id the snapshot was written before there were several schemas.
        metadata.schema_by_id(snapshot.schema_id()?)
    }
}

/// Which table of a query's view has the rows of a tail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailPlace {
    /// Its namespace, as the view names it.
    pub namespace: String,
    /// Its name in the statement, whichever table it is a state of.
    pub table: String,
    /// Whether it is the later state of that table.
    pub is_later: bool,
}

/// The tables of another namespace that a query names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NamespaceView {
    /// The name of the namespace, as the statement writes it.
    pub namespace: String,
    /// The tables that were wanted.
    pub tables: Vec<TableView>,
    /// Tables that are there and cannot be read, with what is wrong.
    pub unreadable: Vec<(String, SqlError)>,
}

/// A name that stands for a table of another name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewrittenName {
    /// The parts of the name as they are written.
    pub written: Vec<String>,
    /// The namespace of the table.
    pub schema: String,
    /// The table, which may be a metadata table.
    pub table: String,
}

/// A view of the catalog that a query names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CatalogView {
    /// The name of its namespace, as the statement writes it.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its query.
    pub statement: CheckedStatement,
    /// The namespace of names in it that have none.
    pub home: String,
    /// What its columns are called.
    pub columns: Vec<String>,
    /// Names in it that stand for others.
    pub rewritten: Vec<RewrittenName>,
}

/// A view over the changes in a namespace's `events` that a query names, see [`crate::change_views`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeView {
    /// The name of its namespace, as the statement writes it.
    pub namespace: String,
    /// Its name in the statement, which no table and no view of the catalog has.
    pub name: String,
    /// Which view it is: the name without a point.
    pub view: String,
    /// The table of the view of the query that has its events, at the same point.
    pub events: String,
    /// Whether versions that patches made are in it. They are made of all changes of a document up to there, so they are
    /// not where some of these are not read.
    pub applies_patches: bool,
}

/// The branches of a namespace that a query names, see [`crate::branches`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchesView {
    /// The name of its namespace, as the statement writes it.
    pub namespace: String,
    /// The branches, by name.
    pub rows: Vec<BranchRow>,
}

/// A branch as a query sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchRow {
    /// Its name.
    pub name: String,
    /// Its newest snapshot of `events`.
    pub head: i64,
    /// The newest snapshot that it has in common with the branch that it was made of; none where that is gone.
    pub base: Option<i64>,
    /// The branch that it was made of.
    pub forked_from: String,
    /// When it was made, ms since 1970.
    pub created_at: i64,
    /// The last event that it has of that branch.
    pub fork_seq: u64,
    /// Its last event; none where it is not known.
    pub head_seq: Option<u64>,
}

/// A collection that a query names, see [`crate::collections`]. The table of its name in the view is its base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionView {
    /// The name of its namespace, as the statement writes it.
    pub namespace: String,
    /// Its name in the statement, which stands for the collection and not for the base.
    pub name: String,
    /// The collection, as its events have it.
    pub collection: String,
    /// The table of the view with its changes; none where the base alone is read.
    pub events: Option<String>,
    /// The last event whose change is in the base; none where no base is read.
    pub applied_seq: Option<u64>,
    /// The last event that counts; none where it is not known, and then all do.
    pub until: Option<u64>,
    /// The typed columns that the collection has now.
    pub typed: TypedColumns,
    /// Whether all rows of the base have them; otherwise they are computed.
    pub has_typed: bool,
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
    /// The views over changes that are read.
    pub change_views: Vec<ChangeView>,
    /// The branches that are read.
    pub branches: Vec<BranchesView>,
    /// The collections that are read.
    pub collections: Vec<CollectionView>,
    /// Whether the tables that belong to no namespace are seen: their rows are asked for page by page.
    pub has_system: bool,
    /// Tables of other namespaces.
    pub others: Vec<NamespaceView>,
    /// The levels of each other namespace that was looked into, whatever the statement calls it.
    pub other_levels: BTreeSet<Vec<String>>,
    /// Names of the statement that stand for others.
    pub rewritten: Vec<RewrittenName>,
    /// Views of the catalog, each behind those that it reads.
    pub catalog_views: Vec<CatalogView>,
    /// Namespaces of whose tables the asker does not see every row.
    pub visible: Vec<VisibleRows>,
}

impl View {
    /// A view of a namespace, without tables.
    #[must_use]
    pub fn of(namespace: String) -> Self {
        Self {
            namespace,
            tables: Vec::new(),
            unreadable: Vec::new(),
            change_views: Vec::new(),
            branches: Vec::new(),
            collections: Vec::new(),
            has_system: false,
            others: Vec::new(),
            other_levels: BTreeSet::new(),
            rewritten: Vec::new(),
            catalog_views: Vec::new(),
            visible: Vec::new(),
        }
    }

    /// All tables that are seen, each behind the name of its namespace.
    pub fn all_tables(&self) -> impl Iterator<Item = (&str, &TableView)> {
        let own = self.tables.iter().map(|table| (self.namespace.as_str(), table));
        let others = self.others.iter().flat_map(|other| {
            other.tables.iter().map(move |table| (other.namespace.as_str(), table))
        });
        own.chain(others)
    }

    /// The tables of the namespace that is called so, and what of it cannot be read.
    pub fn namespace_mut(
        &mut self,
        namespace: &str,
    ) -> (&mut Vec<TableView>, &mut Vec<(String, SqlError)>) {
        if self.namespace == namespace {
            return (&mut self.tables, &mut self.unreadable);
        }
        let found = self.others.iter().position(|other| other.namespace == namespace);
        let at = found.unwrap_or_else(|| {
            let (tables, unreadable) = (Vec::new(), Vec::new());
            let namespace = namespace.to_owned();
            self.others.push(NamespaceView { namespace, tables, unreadable });
            self.others.len() - 1
        });
        let other = &mut self.others[at];
        (&mut other.tables, &mut other.unreadable)
    }

    /// The table, or the later state of one, that has the rows of a tail.
    #[must_use]
    pub fn with_tail(&self, place: &TailPlace) -> Option<&TableView> {
        let mut tables = self.all_tables();
        let (_, table) = tables.find(|(namespace, table)| {
            *namespace == place.namespace && table.name == place.table
        })?;
        if place.is_later { table.later.as_deref() } else { Some(table) }
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
            metadata_location: Option<&'a str>,
            inspected: &'a [MetadataTable],
            seqs: Option<SeqRange>,
            later: Option<&'a TableView>,
        }
        let metadata = self.metadata.as_ref().map(|table| match self.inspected.is_empty() {
            true => read_part(table, self.snapshot_id),
            false => serde_json::to_value(&**table),
        });
        TableViewForm {
            name: &self.name,
            metadata: metadata.transpose().map_err(S::Error::custom)?,
            snapshot_id: self.snapshot_id,
            has_past_columns: self.has_past_columns,
            ours: self.ours,
            tail: parts_of(&self.tail),
            last_seq: self.last_seq,
            metadata_location: self.metadata_location.as_deref(),
            inspected: &self.inspected,
            seqs: self.seqs,
            later: self.later.as_deref(),
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
    /// Columns that are computed from the JSON of its rows.
    pub promoted: Promotions,
}

impl ServiceTableView {
    /// What a table is of ours; none for tables that only others write.
    #[must_use]
    pub fn of(view: &TableView, tables: &ServiceTables) -> Option<Self> {
        let table = *tables.of(view.ours?)?;
        let fit = view.metadata.as_ref().map(|metadata| SchemaFit::of(&table, metadata));
        let promoted = view.metadata.as_deref().map(Promotions::of).unwrap_or_default();
        Some(Self { table, fit: fit.transpose().ok()?.unwrap_or_default(), promoted })
    }
}

#[cfg(test)]
mod tests;
