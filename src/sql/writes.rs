//! Statements that write tables: the rows of a query become data files, and these one commit.
//!
//! The query runs as any other, in a process of its own where queries do. What comes of it is written here, in
//! bounded memory. Its one invariant: nothing of a statement is visible before its commit, and everything is after
//! it. Files of a statement that ends before are deleted, or nobody's; after a commit whose outcome is not known
//! they stay.

pub(super) mod replace;
pub(super) mod target;

use crate::sql::{
    AskedStatement, Sql,
    materialized::definition::{self, MaterializedQuery},
};
use futures::StreamExt;
use iceberg::{
    TableIdent,
    spec::{DataFile, TableMetadata},
};
use icecore_catalog::{
    access::Principal,
    catalog::{Catalog, CreateTable, LoadedTable},
    error::CatalogError,
    snapshot::NewSnapshot,
    storage::Storage,
};
use icecore_engine::{
    QueryAnswer, RowStream,
    error::SqlError,
    references::QueryScope,
    write_statement::{ColumnName, PartitionColumn, WriteKind, WriteStatement},
};
use icecore_lake::{
    ids::IdGenerator,
    table::{
        compaction::rewrite::RewriteError,
        row_fit::{self, FitError, RowFit},
        schema::foreign_ident,
        writer::{self, WriteError, foreign::ForeignWriter},
    },
};
use icecore_schemas::query::SqlRequest;
use replace::same_columns;
use std::{collections::BTreeMap, sync::Arc};
use target::{
    check_is_callers, check_is_no_answer, check_namespace, check_partitions, column_ids, invalid,
    is_of_collection, named_ids, new_properties, not_callers, partition_spec,
};
use tokio::{
    runtime::Handle,
    sync::{SemaphorePermit, oneshot},
};

/// Statements that write at a time: each has a file that is not ended in memory.
pub(super) const WRITES_MAX: usize = 2;
/// Most rows of a statement.
const ROWS_MAX: u64 = 1_000_000_000;
/// Snapshot summary: the statement that made it.
pub const STATEMENT_ID: &str = "icecore.statement-id";
/// Snapshot summary: how many rows came with it.
const ADDED_RECORDS: &str = "added-records";

/// Why a statement wrote nothing.
#[derive(Debug, thiserror::Error)]
pub enum WriteFailure {
    /// The statement or its query.
    #[error(transparent)]
    Query(#[from] SqlError),
    /// The rows are no rows of the table.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// The data files could not be written.
    #[error("write the rows of a statement")]
    Files(#[from] WriteError),
    /// The table, or the commit.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The files whose rows are replaced.
    #[error("list the files of the table")]
    Replaced(#[source] Box<RewriteError>),
}

/// Who writes, and where.
#[derive(Clone, Debug)]
pub struct WriteCaller<'a> {
    /// The levels of the namespace.
    pub levels: &'a [String],
    /// What the query may name beside its tables.
    pub reach: QueryScope,
    /// Who asks, and may write there.
    pub principal: &'a Principal,
    /// The catalog, for changes of this call.
    pub catalog: Catalog,
    /// For names of files.
    pub ids: &'a IdGenerator,
    /// What the statement is told apart by from every other.
    pub statement_id: &'a str,
}

/// A table that is made with the rows of a query.
pub(super) struct NewTable<'a> {
    /// Its name.
    pub(super) ident: TableIdent,
    /// What its files are apart by.
    pub(super) partition_by: &'a [PartitionColumn],
    /// The query that is run again, and which erasures the namespace has had; none for one that is run once.
    pub(super) materialized: Option<(MaterializedQuery, Option<String>)>,
}

/// What a statement wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteReport {
    /// How many rows.
    pub rows: u64,
    /// The snapshot that has them; of a statement without rows the one that the table has, if it has one.
    pub snapshot: Option<i64>,
}

impl WriteReport {
    /// What the statement of this id wrote, as its table tells; none where its snapshot has expired.
    #[must_use]
    pub fn of(table: &LoadedTable, statement_id: &str) -> Option<Self> {
        // Others may have committed behind it.
        let mut snapshots = table.metadata.snapshots();
        let own = snapshots.find(|snapshot| {
            let entries = &snapshot.summary().additional_properties;
            entries.get(STATEMENT_ID).is_some_and(|id| id == statement_id)
        });
        let Some(own) = own else {
            // One that made the table without rows has no snapshot.
            let is_empty = table.metadata.current_snapshot_id().is_none();
            return is_empty.then(|| Self::without_rows(table));
        };
        let rows = own.summary().additional_properties.get(ADDED_RECORDS);
        let rows = rows.and_then(|count| count.parse().ok()).unwrap_or(0);
        Some(Self { rows, snapshot: Some(own.snapshot_id()) })
    }

    fn without_rows(table: &LoadedTable) -> Self {
        Self { rows: 0, snapshot: table.metadata.current_snapshot_id() }
    }
}

impl Sql {
    /// Carries out a statement that writes. Durable on return. When its caller goes, it ends, unless all rows are
    /// written.
    ///
    /// # Errors
    /// [`WriteFailure`]; nothing of it is visible then, but after `CommitStateUnknown`, which says so.
    pub async fn write(
        &self,
        caller: &WriteCaller<'_>,
        statement: WriteStatement,
        request: SqlRequest,
    ) -> Result<WriteReport, WriteFailure> {
        let WriteStatement { namespace, table, kind, query } = statement;
        check_namespace(caller.levels, namespace.as_deref())?;
        let ident = foreign_ident(caller.levels, &table)
            .ok_or_else(|| invalid("a namespace has a name"))?;
        let _turn = self.write_turn()?;
        let request = SqlRequest { sql: query, ..request };
        match kind {
            WriteKind::Create { if_not_exists, replaces, partition_by } => {
                self.check_name(&ident)?;
                check_is_there(caller).await?;
                let found = caller.catalog.tables().load(&ident).await;
                match found {
                    Ok(found) if if_not_exists => return Ok(WriteReport::without_rows(&found)),
                    Ok(found) if replaces => {
                        let partition_by = &partition_by[..];
                        let new = NewTable { ident, partition_by, materialized: None };
                        return Box::pin(self.replace_table(caller, new, request, &found)).await;
                    }
                    Ok(_) => {
                        let text = format!("Table already exists: {ident}");
                        return Err(CatalogError::AlreadyExists(text).into());
                    }
                    Err(CatalogError::NoSuchTable(_)) => (),
                    Err(cause) => return Err(cause.into()),
                }
                let new = NewTable { ident, partition_by: &partition_by, materialized: None };
                Box::pin(self.create(caller, new, request)).await
            }
            WriteKind::Insert { columns } => {
                Box::pin(self.insert(caller, ident, columns.as_deref(), request)).await
            }
        }
    }

    /// A turn of a statement that writes.
    pub(super) fn write_turn(&self) -> Result<SemaphorePermit<'_>, SqlError> {
        self.inner.writes.try_acquire().map_err(|_| {
            let text = format!("{WRITES_MAX} statements write already; send it again later");
            SqlError::Busy(text)
        })
    }

    /// Refuses a name that only the service's tables have.
    pub(super) fn check_name(&self, table: &TableIdent) -> Result<(), SqlError> {
        if !self.is_of_service(table) && !is_of_collection(table) {
            return Ok(());
        }
        Err(invalid(format!(
            "`{}` is the name of a table that this server writes: choose another one",
            table.name
        )))
    }

    /// Whether a table has a name that only the service's have.
    #[must_use]
    pub fn is_of_service(&self, table: &TableIdent) -> bool {
        let levels: &Vec<String> = table.namespace.as_ref();
        levels.len() == 1 && self.inner.options.tables.named(&table.name).is_some()
    }

    pub(super) async fn create(
        &self,
        caller: &WriteCaller<'_>,
        NewTable { ident, partition_by, materialized }: NewTable<'_>,
        request: SqlRequest,
    ) -> Result<WriteReport, WriteFailure> {
        let catalog = caller.catalog.clone();
        let levels = caller.levels.to_vec();
        let answer = self.rows_of(caller, request).await?;
        let columns = row_fit::new_schema(&answer.schema)?;
        let (mut properties, mut notes) = (new_properties(), BTreeMap::new());
        if let Some((query, erasures)) = &materialized {
            properties.extend(definition::first_properties(query));
            let origin = self.origin_of(caller.levels, query);
            notes = definition::notes(origin, &answer, erasures.as_deref());
        }
        let table = CreateTable {
            partition_spec: partition_spec(&columns, partition_by)?,
            properties,
            ..CreateTable::plain(&ident.name, columns)
        };
        let staged = catalog.tables().stage_first(&levels, table.clone()).await?;
        check_partitions(&staged)?;
        let targets = column_ids(&staged);
        let fit = RowFit::new(staged.current_schema(), &targets, &answer.schema)?;
        let files_of = Arc::new(staged.clone());
        let commit = move |new: Option<NewSnapshot>| async move {
            match new {
                Some(mut new) => {
                    new.summary.extend(notes);
                    catalog.tables().create_filled(ident, staged, new).await
                }
                None => catalog.tables().create(&levels, table).await,
            }
        };
        self.fill(caller, files_of, fit, answer, commit).await
    }

    async fn insert(
        &self,
        caller: &WriteCaller<'_>,
        ident: TableIdent,
        columns: Option<&[ColumnName]>,
        request: SqlRequest,
    ) -> Result<WriteReport, WriteFailure> {
        // Somebody else may have made a table of this name before the first event.
        if self.is_of_service(&ident) {
            return Err(not_callers(&ident).into());
        }
        let table = caller.catalog.tables().load(&ident).await?;
        check_is_callers(&ident, &table.metadata)?;
        check_is_no_answer(&ident, &table.metadata)?;
        check_partitions(&table.metadata)?;
        let targets = match columns {
            Some(columns) => named_ids(&table.metadata, columns)?,
            None => column_ids(&table.metadata),
        };
        let answer = self.rows_of(caller, request).await?;
        let fit = RowFit::new(table.metadata.current_schema(), &targets, &answer.schema)?;
        let (catalog, files_of) = (caller.catalog.clone(), Arc::clone(&table.metadata));
        let evolution = Some(same_columns(&files_of));
        let commit = move |new: Option<NewSnapshot>| async move {
            match new {
                Some(new) => catalog.add_snapshot(&ident, NewSnapshot { evolution, ..new }).await,
                None => Ok(table),
            }
        };
        self.fill(caller, files_of, fit, answer, commit).await
    }

    /// Starts the query of a statement.
    pub(super) async fn rows_of(
        &self,
        caller: &WriteCaller<'_>,
        request: SqlRequest,
    ) -> Result<QueryAnswer, SqlError> {
        // What is written is bounded apart from what is answered.
        let asked = AskedStatement { request, key: None, rows_max: u64::MAX };
        let asked = self.query_within(caller.levels, caller.reach, Some(caller.principal), asked);
        Box::pin(asked).await
    }

    /// Writes the rows of an answer as files of `table`, on threads for queries, and commits them. It ends early
    /// where this future is dropped before all rows are written; from then on it goes on to its end, so that
    /// files whose commit is refused are deleted.
    pub(super) async fn fill<C, F>(
        &self,
        caller: &WriteCaller<'_>,
        table: Arc<TableMetadata>,
        fit: RowFit,
        answer: QueryAnswer,
        commit: C,
    ) -> Result<WriteReport, WriteFailure>
    where
        C: FnOnce(Option<NewSnapshot>) -> F + Send + 'static,
        F: Future<Output = Result<LoadedTable, CatalogError>> + Send + 'static,
    {
        let rows = RowsToWrite {
            storage: self.inner.catalog.storage().clone(),
            table: Arc::clone(&table),
            fit,
            ids: caller.ids.clone(),
        };
        let (here, gone) = oneshot::channel();
        let (sql, statement_id) = (self.clone(), caller.statement_id.to_owned());
        // Other commits to the table may wait for this one: it is not made where queries keep threads busy.
        let server = Handle::current();
        let work = async move {
            let files = Box::pin(rows.write(answer.batches, gone)).await?;
            let commit =
                async move { sql.commit_files(&table, &statement_id, files, commit).await };
            server.spawn(commit).await.unwrap_or_else(|_| Err(ended_early()))
        };
        let done = self.inner.threads.complete(work).await;
        // It was held until now to tell that somebody waits.
        drop::<oneshot::Sender<()>>(here);
        done.unwrap_or_else(|| Err(ended_early()))
    }

    /// Commits what was written. `commit` gets none where that is nothing.
    async fn commit_files<C, F>(
        &self,
        table: &TableMetadata,
        statement_id: &str,
        files: Vec<DataFile>,
        commit: C,
    ) -> Result<WriteReport, WriteFailure>
    where
        C: FnOnce(Option<NewSnapshot>) -> F,
        F: Future<Output = Result<LoadedTable, CatalogError>>,
    {
        if files.is_empty() {
            return Ok(WriteReport::without_rows(&commit(None).await?));
        }
        let rows: u64 = files.iter().map(DataFile::record_count).sum();
        let locations: Vec<String> = files.iter().map(|file| file.file_path().to_owned()).collect();
        let spec_id = table.default_partition_spec_id();
        let new = NewSnapshot {
            table: Some(table.uuid()),
            added_of_spec: files.into_iter().map(|file| (spec_id, file)).collect(),
            summary: [(STATEMENT_ID.to_owned(), statement_id.to_owned())].into(),
            ..NewSnapshot::default()
        };
        let made = match self.fault("write.before_commit") {
            Ok(()) => commit(Some(new)).await.map_err(WriteFailure::Catalog),
            Err(fault) => Err(fault.into()),
        };
        let made = match made {
            Ok(made) => made,
            Err(cause) => {
                // A commit that may have been made has them.
                let is_unknown =
                    matches!(&cause, WriteFailure::Catalog(cause) if !cause.is_definite());
                if !is_unknown {
                    let storage = self.inner.catalog.storage();
                    writer::delete(storage, locations.iter().map(String::as_str)).await;
                }
                return Err(cause);
            }
        };
        self.fault("write.lost_answer")?;
        let report = WriteReport::of(&made, statement_id);
        Ok(report.unwrap_or(WriteReport { rows, snapshot: None }))
    }

    /// Marks a step of a statement that writes, of a refresh, of a restore or of a merge.
    ///
    /// # Errors
    /// The planned error.
    pub(crate) fn fault(&self, point: &'static str) -> Result<(), SqlError> {
        let hit = self.inner.faults.hit(point);
        hit.map_err(|fault| SqlError::Internal(fault.to_string()))
    }
}

/// Nothing is known of a task that panicked, or ended with the server.
fn ended_early() -> WriteFailure {
    SqlError::Internal("the task of a statement that writes ended early".to_owned()).into()
}

/// Refuses a namespace that the catalog does not have, before anything is written.
pub(super) async fn check_is_there(caller: &WriteCaller<'_>) -> Result<(), WriteFailure> {
    let levels = caller.levels.to_vec();
    if caller.catalog.metastore().namespace(&levels).await?.is_some() {
        return Ok(());
    }
    let name = levels.join(".");
    Err(SqlError::NotFound(format!(
        "namespace `{name}` is not there: it comes with its first event, or is made in the catalog"
    ))
    .into())
}

/// Where the rows of a statement go.
struct RowsToWrite {
    storage: Storage,
    table: Arc<TableMetadata>,
    fit: RowFit,
    ids: IdGenerator,
}

impl RowsToWrite {
    /// Writes them until their end. Files that were written before an error are deleted.
    async fn write(
        self,
        batches: RowStream,
        gone: oneshot::Receiver<()>,
    ) -> Result<Vec<DataFile>, WriteFailure> {
        let Self { storage, table, fit, ids } = self;
        let mut writer = ForeignWriter::new(&storage, &table, fit.schema(), &ids);
        match add_rows(&mut writer, &fit, batches, gone).await {
            Ok(()) => Ok(writer.finish().await?),
            Err(cause) => {
                writer.abandon().await;
                Err(cause)
            }
        }
    }
}

/// Adds all rows.
async fn add_rows(
    writer: &mut ForeignWriter<'_>,
    fit: &RowFit,
    mut batches: RowStream,
    mut gone: oneshot::Receiver<()>,
) -> Result<(), WriteFailure> {
    let mut rows = 0_u64;
    loop {
        // Both are safe to drop: neither takes something that it does not give.
        let batch = tokio::select! {
            batch = batches.next() => batch,
            _ = &mut gone => return Err(SqlError::Unavailable.into()),
        };
        let Some(batch) = batch else { return Ok(()) };
        let batch = batch?;
        rows = rows.saturating_add(batch.num_rows() as u64);
        if ROWS_MAX < rows {
            let text =
                format!("the statement writes more than {ROWS_MAX} rows; write them in parts");
            return Err(SqlError::Limit(text).into());
        }
        writer.write(fit.fit(&batch)?).await?;
    }
}

#[cfg(test)]
mod tests;
