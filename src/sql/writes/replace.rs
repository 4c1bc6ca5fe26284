//! `CREATE OR REPLACE TABLE … AS`: a table that is there gets other columns, partition fields and rows.
//!
//! Its one invariant: these come in one commit, on the very state that was looked at; the snapshots of before stay
//! readable, with their own columns.

use crate::sql::{
    Sql,
    writes::{
        NewTable, STATEMENT_ID, WriteCaller, WriteFailure, WriteReport,
        target::{
            check_is_callers, check_is_no_answer, check_partitions, column_ids, invalid,
            partition_spec,
        },
    },
};
use arrow::datatypes::Schema as ArrowSchema;
use iceberg::{
    TableRequirement, TableUpdate,
    spec::{DataFile, Operation, SortOrder, TableMetadata, UnboundPartitionSpec},
};
use icecore_catalog::{
    catalog::{LoadedTable, TableChange},
    commit,
    scan::{Deadline, ManifestSource, manifests::ManifestCache},
    snapshot::{NewSnapshot, TableEvolution},
};
use icecore_engine::{error::SqlError, write_statement::PartitionColumn};
use icecore_lake::table::{
    compaction::{self, rewrite::RewriteError},
    row_fit::{self, RowFit},
    writer::{WriteError, foreign::FILES_MAX},
};
use icecore_schemas::query::SqlRequest;
use std::sync::Arc;

/// In an update of a table: the schema, partition spec or sort order that was added last.
const LAST_ADDED: i32 = -1;

impl Sql {
    /// Replaces columns and rows of a table that is there by those of a query, which may read it.
    pub(super) async fn replace_table(
        &self,
        caller: &WriteCaller<'_>,
        NewTable { ident, partition_by, .. }: NewTable<'_>,
        request: SqlRequest,
        table: &LoadedTable,
    ) -> Result<WriteReport, WriteFailure> {
        let base = Arc::clone(&table.metadata);
        check_is_callers(&ident, &base)?;
        check_is_no_answer(&ident, &base)?;
        let answer = self.rows_of(caller, request).await?;
        let evolution = evolution(&base, &answer.schema, partition_by)?;
        let location = &table.metadata_location;
        let evolved = Arc::new(commit::apply_updates(&base, location, &evolution.updates)?);
        check_partitions(&evolved)?;
        check_partition_columns(&base, &evolved)?;
        let fit = RowFit::new(evolved.current_schema(), &column_ids(&evolved), &answer.schema)?;
        let removed = self.live_files(&base).await?;
        let (catalog, statement_id) = (caller.catalog.clone(), caller.statement_id.to_owned());
        let commit = move |new: Option<NewSnapshot>| async move {
            if new.is_none() && removed.is_empty() {
                let TableEvolution { requirements, updates } = evolution;
                let table = ident;
                let change = TableChange { table, requirements, updates, keeps_history: true };
                return Box::pin(catalog.commit(change)).await;
            }
            let mut new = replacing(&base, removed, new);
            new.summary.insert(STATEMENT_ID.to_owned(), statement_id);
            new.evolution = Some(evolution);
            catalog.add_snapshot(&ident, new).await
        };
        Box::pin(self.fill(caller, evolved, fit, answer, commit)).await
    }

    /// The files that a table has in its current state; [`SqlError::Limit`] for too many.
    pub(in crate::sql) async fn live_files(
        &self,
        metadata: &TableMetadata,
    ) -> Result<Vec<DataFile>, WriteFailure> {
        let Some(read) = metadata.current_snapshot_id() else { return Ok(Vec::new()) };
        let cache = ManifestCache::default();
        let (storage, until) = (self.inner.catalog.storage(), Deadline::NONE);
        let source = ManifestSource { storage, cache: &cache, metadata, until };
        let listed = Box::pin(compaction::all_files(source, read, FILES_MAX)).await;
        listed.map_err(|cause| match cause {
            RewriteError::Write(WriteError::TooManyFiles(most)) => {
                let text = format!(
                    "the table has more than {most} files, which are not replaced in one commit: compact it first, with POST /admin/jobs/compact, or drop it"
                );
                SqlError::Limit(text).into()
            }
            cause => WriteFailure::Replaced(Box::new(cause)),
        })
    }
}

/// The snapshot that has the files of `new`, and only these, in the place of all that a table had.
pub(in crate::sql) fn replacing(
    base: &TableMetadata,
    removed: Vec<DataFile>,
    new: Option<NewSnapshot>,
) -> NewSnapshot {
    let read = base.current_snapshot_id();
    let operation = match read {
        Some(_) => Operation::Overwrite,
        None => Operation::Append,
    };
    let (needs_head, table) = (true, Some(base.uuid()));
    NewSnapshot { operation, read, needs_head, table, removed, ..new.unwrap_or_default() }
}

/// That nothing changes but rows, whose files were written for the columns that a table has now. Where it was replaced
/// meanwhile, its new columns would be null in them.
pub(super) fn same_columns(table: &TableMetadata) -> TableEvolution {
    let current_schema_id = table.current_schema_id();
    let requirements = vec![TableRequirement::CurrentSchemaIdMatch { current_schema_id }];
    TableEvolution { requirements, updates: Vec::new() }
}

/// Refuses to take a column out by which files lie: engines read partitions of earlier files by their columns, and DuckDB
/// ends on a table without one.
fn check_partition_columns(base: &TableMetadata, evolved: &TableMetadata) -> Result<(), SqlError> {
    let schema = evolved.current_schema();
    let mut fields = base.partition_specs_iter().flat_map(|spec| spec.fields());
    match fields.find(|field| schema.field_by_id(field.source_id).is_none()) {
        Some(field) => {
            let (id, of) = (field.source_id, base.current_schema());
            let column = of.name_by_field_id(id).unwrap_or(&field.name);
            Err(invalid(format!(
                "the table is partitioned by its column `{column}`: have the query give it, with the same type, or make a table of another name"
            )))
        }
        None => Ok(()),
    }
}

/// What makes of a table one for these rows.
fn evolution(
    base: &TableMetadata,
    rows: &ArrowSchema,
    partition_by: &[PartitionColumn],
) -> Result<TableEvolution, WriteFailure> {
    let schema = row_fit::replacing_schema(rows, base.current_schema(), base.last_column_id())?;
    let spec = partition_spec(&schema, partition_by)?;
    let spec = spec.unwrap_or_else(|| UnboundPartitionSpec::builder().build());
    let requirements = vec![
        TableRequirement::UuidMatch { uuid: base.uuid() },
        TableRequirement::CurrentSchemaIdMatch { current_schema_id: base.current_schema_id() },
        TableRequirement::LastAssignedFieldIdMatch {
            last_assigned_field_id: base.last_column_id(),
        },
        TableRequirement::DefaultSpecIdMatch { default_spec_id: base.default_partition_spec_id() },
        TableRequirement::LastAssignedPartitionIdMatch {
            last_assigned_partition_id: base.last_partition_id(),
        },
    ];
    let updates = vec![
        TableUpdate::AddSchema { schema },
        TableUpdate::SetCurrentSchema { schema_id: LAST_ADDED },
        TableUpdate::AddSpec { spec },
        TableUpdate::SetDefaultSpec { spec_id: LAST_ADDED },
        // An order by columns that go would be no order any more.
        TableUpdate::AddSortOrder { sort_order: SortOrder::unsorted_order() },
        TableUpdate::SetDefaultSortOrder { sort_order_id: i64::from(LAST_ADDED) },
    ];
    Ok(TableEvolution { requirements, updates })
}
