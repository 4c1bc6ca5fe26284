//! Metadata tables: what an Iceberg table says of itself, as tables with the columns of Iceberg's
//! documentation.
//!
//! They are called `events$snapshots` here; how a statement may write that is for whoever takes the view.
//! What stands in the table's metadata is answered from the view. Manifests are read one after the other
//! while the query runs. Its one invariant: no more than one manifest is in memory at a time.

mod entries;
mod layout;
mod manifests;
mod snapshots;
mod values;

use crate::{
    file_failure::of_scan,
    session::CATALOG,
    view::{RewrittenName, TableView},
};
use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    datasource::TableType,
    error::DataFusionError,
    execution::{SendableRecordBatchStream, TaskContext, memory_pool::MemoryConsumer},
    logical_expr::Expr,
    physical_plan::{
        ExecutionPlan,
        stream::RecordBatchStreamAdapter,
        streaming::{PartitionStream, StreamingTableExec},
    },
    sql::sqlparser::ast::{
        Ident, ObjectName, ObjectNamePart, Statement, TableAlias, TableFactor, VisitMut, VisitorMut,
    },
};
use futures::stream::BoxStream;
use iceberg::spec::TableMetadata;
use icecore_catalog::{
    scan::{Deadline, ManifestSource, ScanError, manifests::ManifestCache},
    storage::Storage,
};
use layout::TableLayout;
use serde::{Deserialize, Serialize};
use std::{convert::Infallible, ops::ControlFlow, sync::Arc};
use tokio::time::Instant;

/// Stands between the name of a table and that of its metadata table.
const SEPARATOR: char = '$';

/// The metadata tables that each table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MetadataTable {
    /// The snapshots that are retained.
    Snapshots,
    /// Which snapshot was current when.
    History,
    /// The data and delete files of a snapshot.
    Files,
    /// The files of all snapshots that are retained.
    AllFiles,
    /// The manifests of a snapshot.
    Manifests,
    /// The partitions of a snapshot.
    Partitions,
    /// Branches and tags.
    Refs,
    /// The entries of a snapshot's manifests, also those of files that it deleted.
    Entries,
    /// The metadata files so far.
    MetadataLogEntries,
}

impl MetadataTable {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Snapshots,
        Self::History,
        Self::Files,
        Self::AllFiles,
        Self::Manifests,
        Self::Partitions,
        Self::Refs,
        Self::Entries,
        Self::MetadataLogEntries,
    ];

    /// What it is called behind the table's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Snapshots => "snapshots",
            Self::History => "history",
            Self::Files => "files",
            Self::AllFiles => "all_files",
            Self::Manifests => "manifests",
            Self::Partitions => "partitions",
            Self::Refs => "refs",
            Self::Entries => "entries",
            Self::MetadataLogEntries => "metadata_log_entries",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }

    /// The table and its metadata table that a name such as `events$snapshots` means.
    #[must_use]
    pub fn split(name: &str) -> Option<(&str, Self)> {
        let (table, own) = name.rsplit_once(SEPARATOR)?;
        if table.is_empty() { None } else { Some((table, Self::parse(own)?)) }
    }

    /// Its name beside that of its table, such as `events$snapshots`.
    #[must_use]
    pub fn of(self, table: &str) -> String {
        format!("{table}{SEPARATOR}{}", self.name())
    }
}

/// Writes names that stand for others as what they stand for. A name without an alias gets its last part
/// as one, which is what columns are qualified with.
pub fn rename(statement: &mut Statement, names: &[RewrittenName]) {
    if !names.is_empty() {
        let ControlFlow::Continue(()) = VisitMut::visit(statement, &mut NameRewriter { names });
    }
}

struct NameRewriter<'a> {
    names: &'a [RewrittenName],
}

impl NameRewriter<'_> {
    fn find(&self, name: &ObjectName) -> Option<&RewrittenName> {
        let parts: Option<Vec<String>> = name.0.iter().map(part_of).collect();
        let parts = parts?;
        self.names.iter().find(|rewritten| rewritten.written == parts)
    }
}

/// The part of a name as the planner reads it.
fn part_of(part: &ObjectNamePart) -> Option<String> {
    let ident = part.as_ident()?;
    Some(match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    })
}

impl VisitorMut for NameRewriter<'_> {
    type Break = Infallible;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        if let TableFactor::Table { name, alias: alias @ None, args: None, .. } = factor
            && let Some(last) = self.find(name).and_then(|found| found.written.last())
        {
            let name = Ident::with_quote('"', last.as_str());
            *alias = Some(TableAlias { explicit: true, name, columns: Vec::new(), at: None });
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<Self::Break> {
        let found = self.find(relation);
        let meant = found.map(|found| {
            let parts = [CATALOG, found.schema.as_str(), found.table.as_str()];
            ObjectName::from(parts.map(|part| Ident::with_quote('"', part)).to_vec())
        });
        if let Some(meant) = meant {
            *relation = meant;
        }
        ControlFlow::Continue(())
    }
}

/// A metadata table of one table of a view.
#[derive(Debug)]
pub struct MetadataProvider {
    kind: MetadataTable,
    source: Arc<MetadataSource>,
    schema: SchemaRef,
}

/// What metadata tables are read from.
#[derive(Debug)]
struct MetadataSource {
    /// None for a table that is not in the catalog yet, whose metadata tables are empty.
    metadata: Option<Arc<TableMetadata>>,
    /// The file with the metadata.
    location: Option<String>,
    /// The snapshot whose files are shown.
    snapshot_id: Option<i64>,
    layout: TableLayout,
    storage: Storage,
    cache: ManifestCache,
    until: Deadline,
}

/// The rows of a metadata table with all of its columns that are asked for.
type MetadataRows = BoxStream<'static, Result<RecordBatch, DataFusionError>>;

impl MetadataProvider {
    /// This metadata table of a table of a view, for a query that ends at `deadline`.
    #[must_use]
    pub fn new(
        kind: MetadataTable,
        view: &TableView,
        storage: Storage,
        cache: ManifestCache,
        deadline: Instant,
    ) -> Self {
        let layout = view.metadata.as_deref().map(TableLayout::of).unwrap_or_default();
        let schema = match kind {
            MetadataTable::Snapshots => snapshots::snapshot_columns(),
            MetadataTable::History => snapshots::history_columns(),
            MetadataTable::Refs => snapshots::ref_columns(),
            MetadataTable::MetadataLogEntries => snapshots::log_columns(),
            MetadataTable::Manifests => manifests::columns(),
            MetadataTable::Partitions => manifests::partition_columns(&layout),
            MetadataTable::Files | MetadataTable::AllFiles => entries::file_columns(&layout),
            MetadataTable::Entries => entries::entry_columns(&layout),
        };
        let source = MetadataSource {
            metadata: view.metadata.clone(),
            location: view.metadata_location.clone(),
            snapshot_id: view.snapshot_id,
            layout,
            storage,
            cache,
            until: Deadline::at(deadline),
        };
        Self { kind, source: Arc::new(source), schema }
    }
}

impl MetadataSource {
    /// Where the table's manifests come from.
    fn manifests<'a>(&'a self, metadata: &'a TableMetadata) -> ManifestSource<'a> {
        let (storage, cache) = (&self.storage, &self.cache);
        ManifestSource { storage, cache, metadata, until: self.until }
    }
}

/// The error for manifests that do not read.
fn failed(cause: &ScanError) -> DataFusionError {
    DataFusionError::External(Box::new(of_scan(cause)))
}

#[async_trait]
impl TableProvider for MetadataProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let all = || (0..self.schema.fields().len()).collect();
        let projection: Vec<usize> = projection.cloned().unwrap_or_else(all);
        let schema = Arc::new(self.schema.project(&projection)?);
        let source = Arc::clone(&self.source);
        let scan = MetadataScan { kind: self.kind, source, schema: Arc::clone(&schema) };
        let parts: Vec<Arc<dyn PartitionStream>> = vec![Arc::new(scan)];
        Ok(Arc::new(StreamingTableExec::try_new(schema, parts, None, [], false, limit)?))
    }
}

/// One reading of a metadata table.
#[derive(Debug)]
struct MetadataScan {
    kind: MetadataTable,
    source: Arc<MetadataSource>,
    /// The columns that are asked for.
    schema: SchemaRef,
}

impl PartitionStream for MetadataScan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (source, schema) = (Arc::clone(&self.source), Arc::clone(&self.schema));
        let rows: MetadataRows = match self.kind {
            MetadataTable::Snapshots
            | MetadataTable::History
            | MetadataTable::Refs
            | MetadataTable::MetadataLogEntries => snapshots::rows(self.kind, &source, &schema),
            MetadataTable::Manifests => manifests::rows(source, schema),
            MetadataTable::Partitions => {
                let memory = MemoryConsumer::new("metadata table partitions");
                manifests::partitions(source, schema, memory.register(context.memory_pool()))
            }
            MetadataTable::Files | MetadataTable::AllFiles | MetadataTable::Entries => {
                entries::rows(self.kind, source, schema)
            }
        };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

#[cfg(test)]
mod tests;
