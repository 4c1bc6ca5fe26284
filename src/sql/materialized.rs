//! Materialised tables: a table of a caller that has the rows of a query, which is run again at its times.
//!
//! The query and its times are properties of the table. How far it has the events of its namespace is in the summary
//! of the snapshot that has the rows, so rows and position are one commit. Its one invariant: a refresh is committed
//! only on the snapshot that it was made of, so none is in the table twice, whatever others do meanwhile.
//!
//! A query runs as somebody without any right elsewhere: it sees the tables of its own namespace, and of their rows
//! those that everybody sees.

pub mod definition;

use crate::sql::{
    Sql,
    writes::{
        self, NewTable, WriteCaller, WriteFailure, WriteReport,
        replace::replacing,
        target::{check_is_callers, check_partitions, column_ids},
    },
};
use definition::{FoldedEvents, MaterializedQuery, QueryOrigin, RefreshSchedule, notes};
use iceberg::{TableIdent, TableRequirement, TableUpdate, spec::TableMetadata};
use icecore_catalog::{
    access::Principal,
    catalog::{Catalog, LoadedTable, TableChange},
    error::CatalogError,
    snapshot::NewSnapshot,
};
use icecore_engine::{
    QueryAnswer, error::SqlError, references::QueryScope, visibility::VISIBILITY_COLUMN,
};
use icecore_lake::{ids::IdGenerator, table::row_fit::RowFit};
use icecore_schemas::query::SqlRequest;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::SemaphorePermit, time::timeout};

/// Tables of collections that are written at a time: each has a file that is not ended in memory.
pub(super) const COLLECTION_WRITES_MAX: usize = 2;
/// Longest that a refresh waits for its turn.
const TURN_WAIT_MAX: Duration = Duration::from_secs(10);
/// Who asks, in the bounds of queries at once.
const ASKER: &str = "icecore/materialize";

/// What a refresh works with.
#[derive(Clone, Debug)]
pub struct RefreshCaller<'a> {
    /// The catalog, for its one change.
    pub catalog: Catalog,
    /// For names of files.
    pub ids: &'a IdGenerator,
    /// Which erasures the namespace has had; none while one goes on. After another one the whole query is run.
    pub erasures: Option<String>,
}

impl Sql {
    /// Makes a table with the rows of a query, and notes the query with it. Durable on return.
    ///
    /// # Errors
    /// [`WriteFailure`]; `AlreadyExists` for a name that is taken.
    pub async fn materialize(
        &self,
        caller: &RefreshCaller<'_>,
        ident: TableIdent,
        query: MaterializedQuery,
    ) -> Result<WriteReport, WriteFailure> {
        let _turn = self.write_turn()?;
        self.check_name(&ident)?;
        let (namespace, asker) = (ident.namespace.clone(), asker());
        let (levels, statement_id): (&Vec<String>, String) =
            (namespace.as_ref(), caller.ids.mint().to_string());
        let writer = caller.writer(levels, &asker, &statement_id);
        writes::check_is_there(&writer).await?;
        let request = SqlRequest { sql: query.sql.clone(), ..SqlRequest::default() };
        let erasures = caller.erasures.clone();
        let new = NewTable { ident, partition_by: &[], materialized: Some((query, erasures)) };
        Box::pin(self.create(&writer, new, request)).await
    }

    /// Replaces the rows of a table by those that its query has now, in one commit: events since its last refresh are
    /// merged with its rows where that gives the same. None where no event came since. Durable on return.
    ///
    /// # Errors
    /// [`WriteFailure`]; `CommitFailed` when another commit to the table came first. The rows stay as they are then,
    /// but after `CommitStateUnknown`, which says so.
    pub async fn refresh(
        &self,
        caller: &RefreshCaller<'_>,
        ident: &TableIdent,
        table: LoadedTable,
        query: &MaterializedQuery,
    ) -> Result<Option<WriteReport>, WriteFailure> {
        check_is_callers(ident, &table.metadata)?;
        check_partitions(&table.metadata)?;
        let _turn = self.refresh_turn().await?;
        let (asker, statement_id) = (asker(), caller.ids.mint().to_string());
        let levels: &Vec<String> = ident.namespace.as_ref();
        let writer = caller.writer(levels, &asker, &statement_id);
        let origin = self.origin_of(levels, query);
        let folded = FoldedEvents::of(&table.metadata, origin);
        // Without a number there were no events, or a table of this name that others write.
        let folded = folded
            .filter(|it| 0 < it.seq && it.erasures.is_some() && it.erasures == caller.erasures);
        // A refresh sees public rows alone, of this table too: the others would be missing from a merge.
        let hides_own = origin.filters_visibility && says_who_sees(&table.metadata);
        if let Some(folded) = folded
            && !hides_own
            && let Some(sql) = merged(query, ident, &table.metadata, folded.seq)
        {
            let request = SqlRequest { sql, ..SqlRequest::default() };
            let answer = self.rows_of(&writer, request).await?;
            let seq = definition::seq_of(&answer);
            if seq == folded.seq {
                return Ok(None);
            }
            // A log that was restored gives numbers again.
            if folded.seq < seq {
                let notes = notes(origin, &answer, caller.erasures.as_deref());
                return self.replace(&writer, ident, table, answer, notes).await.map(Some);
            }
        }
        let request = SqlRequest { sql: query.sql.clone(), ..SqlRequest::default() };
        let answer = self.rows_of(&writer, request).await?;
        let notes = notes(origin, &answer, caller.erasures.as_deref());
        self.replace(&writer, ident, table, answer, notes).await.map(Some)
    }

    /// What the rows are of that a query has here, in a namespace of these levels.
    pub(super) fn origin_of<'a>(
        &self,
        namespace: &'a [String],
        query: &'a MaterializedQuery,
    ) -> QueryOrigin<'a> {
        let (log, losses) = (self.inner.owner.log(), self.inner.owner.losses());
        let filters_visibility = self.inner.options.filters_visibility;
        QueryOrigin { query, namespace, log, filters_visibility, losses }
    }

    /// When the rows of a table are made anew.
    #[must_use]
    pub fn schedule_of(
        &self,
        ident: &TableIdent,
        table: &TableMetadata,
        query: &MaterializedQuery,
    ) -> RefreshSchedule {
        let levels: &Vec<String> = ident.namespace.as_ref();
        RefreshSchedule::of(table, self.origin_of(levels, query))
    }

    /// A turn of a statement that writes, once one is free.
    async fn refresh_turn(&self) -> Result<SemaphorePermit<'_>, SqlError> {
        match timeout(TURN_WAIT_MAX, self.inner.writes.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => self.write_turn(),
        }
    }

    /// A turn of a collection's table that is written, once one is free. The job writes one after the other, and takes
    /// no turn from statements of callers, which do not wait for theirs.
    pub(super) async fn collection_turn(&self) -> Result<SemaphorePermit<'_>, SqlError> {
        match timeout(TURN_WAIT_MAX, self.inner.collection_writes.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => {
                let text = format!(
                    "{COLLECTION_WRITES_MAX} tables of collections are written already; send it again later"
                );
                Err(SqlError::Busy(text))
            }
        }
    }

    /// Puts the rows of an answer in the place of all rows of a table, with these entries in the summary.
    async fn replace(
        &self,
        writer: &WriteCaller<'_>,
        ident: &TableIdent,
        table: LoadedTable,
        answer: QueryAnswer,
        notes: BTreeMap<String, String>,
    ) -> Result<WriteReport, WriteFailure> {
        let metadata = Arc::clone(&table.metadata);
        let fit = RowFit::new(metadata.current_schema(), &column_ids(&metadata), &answer.schema)?;
        let removed = self.live_files(&metadata).await?;
        let (catalog, ident, base) = (writer.catalog.clone(), ident.clone(), Arc::clone(&metadata));
        let commit = move |new: Option<NewSnapshot>| async move {
            if new.is_none() && removed.is_empty() {
                return Ok(table);
            }
            let mut new = replacing(&base, removed, new);
            new.summary.extend(notes);
            catalog.add_snapshot(&ident, new).await
        };
        Box::pin(self.fill(writer, metadata, fit, answer, commit)).await
    }
}

/// Notes other times of a table's query, or with none that it has no query any more; its rows stay. Durable on
/// return.
///
/// # Errors
/// `CommitFailed` where another table has the name by now, and those of every commit.
pub async fn note(
    catalog: &Catalog,
    ident: TableIdent,
    table: &LoadedTable,
    query: Option<&MaterializedQuery>,
) -> Result<(), CatalogError> {
    let update = match query {
        Some(query) => TableUpdate::SetProperties { updates: query.properties() },
        None => TableUpdate::RemoveProperties { removals: MaterializedQuery::property_names() },
    };
    let uuid = table.metadata.uuid();
    let change = TableChange {
        table: ident,
        requirements: vec![TableRequirement::UuidMatch { uuid }],
        updates: vec![update],
        keeps_history: true,
    };
    Box::pin(catalog.commit(change)).await.map(drop)
}

impl RefreshCaller<'_> {
    fn writer<'a>(
        &'a self,
        levels: &'a [String],
        principal: &'a Principal,
        statement_id: &'a str,
    ) -> WriteCaller<'a> {
        let (reach, catalog) = (QueryScope::Namespace, self.catalog.clone());
        WriteCaller { levels, reach, principal, catalog, ids: self.ids, statement_id }
    }
}

/// Somebody without any right: what is asked for is of the caller's own namespace.
fn asker() -> Principal {
    Principal::new(ASKER, Vec::new(), None)
}

/// Whether a table has or had a column by which its rows are hidden.
fn says_who_sees(table: &TableMetadata) -> bool {
    let mut columns = table.schemas_iter().flat_map(|schema| schema.as_struct().fields());
    columns.any(|column| column.name.eq_ignore_ascii_case(VISIBILITY_COLUMN))
}

/// The query that merges the rows of a table with the events behind `seq`; none where that would not give the same.
fn merged(
    query: &MaterializedQuery,
    ident: &TableIdent,
    table: &TableMetadata,
    seq: u64,
) -> Option<String> {
    let fields = table.current_schema().as_struct().fields();
    let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
    query.aggregate()?.merged_with(&ident.name, &names, seq)
}
