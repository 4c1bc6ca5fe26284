//! Statements that write tables: the rows of a query become data files, and these one commit.
//!
//! The query runs as any other, in a process of its own where queries do. What comes of it is written here, in
//! bounded memory. Its one invariant: nothing of a statement is visible before its commit, and everything is after
//! it. Files of a statement that ends before are deleted, or nobody's; after a commit whose outcome is not known
//! they stay.

use crate::sql::Sql;
use futures::StreamExt;
use iceberg::{
    TableIdent,
    spec::{DataFile, FormatVersion, Schema, TableMetadata, Transform, UnboundPartitionSpec},
};
use icecore_catalog::{
    access::Principal,
    catalog::{Catalog, CreateTable, LoadedTable},
    error::CatalogError,
    retention,
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
        partition,
        row_fit::{self, FitError, RowFit},
        schema::foreign_ident,
        writer::{self, WriteError, foreign::ForeignWriter},
    },
};
use icecore_schemas::query::SqlRequest;
use std::{collections::HashMap, sync::Arc};
use tokio::sync::oneshot;

/// Statements that write at a time: each has a file that is not ended in memory.
pub(super) const WRITES_MAX: usize = 2;
/// Most rows of a statement.
const ROWS_MAX: u64 = 1_000_000_000;
/// Most files of a statement: each is an entry in the manifest of its commit.
const FILES_MAX: usize = 10_000;
/// Snapshot summary: the statement that made it.
pub const STATEMENT_ID: &str = "icecore.statement-id";

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
    fn without_rows(table: &LoadedTable) -> Self {
        Self { rows: 0, snapshot: table.metadata.current_snapshot_id() }
    }
}

/// Data files that no snapshot names yet.
struct WrittenRows {
    files: Vec<DataFile>,
    rows: u64,
}

impl Sql {
    /// Carries out a statement that writes. Durable on return. When its caller goes, it ends, unless its commit has
    /// begun.
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
        let _turn = self.inner.writes.try_acquire().map_err(|_| {
            let text = format!("{WRITES_MAX} statements write already; send it again later");
            SqlError::Busy(text)
        })?;
        let request = SqlRequest { sql: query, ..request };
        match kind {
            WriteKind::Create { if_not_exists, partition_by } => {
                self.check_name(&ident)?;
                match caller.catalog.tables().load(&ident).await {
                    Ok(found) if if_not_exists => return Ok(WriteReport::without_rows(&found)),
                    Ok(_) => {
                        let text = format!("Table already exists: {ident}");
                        return Err(CatalogError::AlreadyExists(text).into());
                    }
                    Err(CatalogError::NoSuchTable(_)) => (),
                    Err(cause) => return Err(cause.into()),
                }
                Box::pin(self.create(caller, ident, &partition_by, request)).await
            }
            WriteKind::Insert { columns } => {
                Box::pin(self.insert(caller, ident, columns.as_deref(), request)).await
            }
        }
    }

    /// Refuses a name that only the service's tables have.
    fn check_name(&self, table: &TableIdent) -> Result<(), SqlError> {
        if !self.is_of_service(table) {
            return Ok(());
        }
        Err(invalid(format!(
            "`{}` is the name of a table that this server writes: choose another one",
            table.name
        )))
    }

    fn is_of_service(&self, table: &TableIdent) -> bool {
        let levels: &Vec<String> = table.namespace.as_ref();
        levels.len() == 1 && self.inner.options.tables.named(&table.name).is_some()
    }

    async fn create(
        &self,
        caller: &WriteCaller<'_>,
        ident: TableIdent,
        partition_by: &[PartitionColumn],
        request: SqlRequest,
    ) -> Result<WriteReport, WriteFailure> {
        let catalog = &caller.catalog;
        let levels: &Vec<String> = ident.namespace.as_ref();
        let answer = self.rows_of(caller, request).await?;
        let columns = row_fit::new_schema(&answer.schema)?;
        let table = CreateTable {
            partition_spec: partition_spec(&columns, partition_by)?,
            properties: new_properties(),
            ..CreateTable::plain(&ident.name, columns)
        };
        let staged = catalog.tables().stage_first(levels, table.clone()).await?;
        check_partitions(&staged)?;
        let targets = column_ids(&staged);
        let fit = RowFit::new(staged.current_schema(), &targets, &answer.schema)?;
        let staged = Arc::new(staged);
        let written = self.files_of(caller, &staged, fit, answer).await?;
        if written.files.is_empty() {
            let made = catalog.tables().create(levels, table).await?;
            return Ok(WriteReport::without_rows(&made));
        }
        let (new, commit) = self.prepare(caller, &staged, written)?;
        let made = catalog.tables().create_filled(ident, Arc::unwrap_or_clone(staged), new).await;
        commit.end(self, made).await
    }

    async fn insert(
        &self,
        caller: &WriteCaller<'_>,
        ident: TableIdent,
        columns: Option<&[ColumnName]>,
        request: SqlRequest,
    ) -> Result<WriteReport, WriteFailure> {
        let table = match caller.catalog.tables().load(&ident).await {
            // It is there with the first event.
            Err(CatalogError::NoSuchTable(_)) if self.is_of_service(&ident) => {
                return Err(not_callers(&ident).into());
            }
            loaded => loaded?,
        };
        check_is_callers(&ident, &table.metadata)?;
        check_partitions(&table.metadata)?;
        let targets = match columns {
            Some(columns) => named_ids(&table.metadata, columns)?,
            None => column_ids(&table.metadata),
        };
        let answer = self.rows_of(caller, request).await?;
        let fit = RowFit::new(table.metadata.current_schema(), &targets, &answer.schema)?;
        let written = self.files_of(caller, &table.metadata, fit, answer).await?;
        if written.files.is_empty() {
            return Ok(WriteReport::without_rows(&table));
        }
        let (new, commit) = self.prepare(caller, &table.metadata, written)?;
        let made = caller.catalog.add_snapshot(&ident, new).await;
        commit.end(self, made).await
    }

    /// Starts the query of a statement.
    async fn rows_of(
        &self,
        caller: &WriteCaller<'_>,
        request: SqlRequest,
    ) -> Result<QueryAnswer, SqlError> {
        // What is written is bounded apart from what is answered.
        let rows_max = u64::MAX;
        let asked = self.query_within(
            caller.levels,
            caller.reach,
            Some(caller.principal),
            request,
            rows_max,
        );
        Box::pin(asked).await
    }

    /// Writes the rows of an answer as files of a table, on threads for queries: until all are written, or this
    /// future is dropped.
    async fn files_of(
        &self,
        caller: &WriteCaller<'_>,
        table: &Arc<TableMetadata>,
        fit: RowFit,
        answer: QueryAnswer,
    ) -> Result<WrittenRows, WriteFailure> {
        let writing = RowsToWrite {
            storage: self.inner.catalog.storage().clone(),
            table: Arc::clone(table),
            fit,
            ids: caller.ids.clone(),
        };
        let (here, gone) = oneshot::channel();
        let written = self.inner.threads.complete(writing.write(answer.batches, gone)).await;
        // It was held until now to tell that somebody waits.
        drop::<oneshot::Sender<()>>(here);
        let failed = || SqlError::Internal("the rows of a statement were not written".to_owned());
        written.unwrap_or_else(|| Err(failed().into()))
    }

    /// The snapshot of what was written, and what is known of its commit.
    fn prepare(
        &self,
        caller: &WriteCaller<'_>,
        table: &TableMetadata,
        WrittenRows { files, rows }: WrittenRows,
    ) -> Result<(NewSnapshot, StatementCommit), WriteFailure> {
        let statement_id = caller.ids.mint().to_string();
        let locations = files.iter().map(|file| file.file_path().to_owned()).collect();
        let spec_id = table.default_partition_spec_id();
        let new = NewSnapshot {
            table: Some(table.uuid()),
            added_of_spec: files.into_iter().map(|file| (spec_id, file)).collect(),
            summary: [(STATEMENT_ID.to_owned(), statement_id.clone())].into(),
            ..NewSnapshot::default()
        };
        self.fault("write.before_commit")?;
        Ok((new, StatementCommit { statement_id, locations, rows }))
    }

    fn fault(&self, point: &'static str) -> Result<(), SqlError> {
        let hit = self.inner.faults.hit(point);
        hit.map_err(|fault| SqlError::Internal(fault.to_string()))
    }
}

/// A statement whose files are written.
struct StatementCommit {
    statement_id: String,
    locations: Vec<String>,
    rows: u64,
}

impl StatementCommit {
    /// What became of it.
    async fn end(
        self,
        sql: &Sql,
        made: Result<LoadedTable, CatalogError>,
    ) -> Result<WriteReport, WriteFailure> {
        let Self { statement_id, locations, rows } = self;
        let table = match made {
            Ok(table) => table,
            Err(cause) => {
                // Else the commit may have been made, and has them.
                if cause.is_definite() {
                    let storage = sql.inner.catalog.storage();
                    writer::delete(storage, locations.iter().map(String::as_str)).await;
                }
                return Err(cause.into());
            }
        };
        sql.fault("write.lost_answer")?;
        // Others may have committed behind it.
        let mut snapshots = table.metadata.snapshots();
        let own = snapshots.find(|snapshot| {
            snapshot.summary().additional_properties.get(STATEMENT_ID) == Some(&statement_id)
        });
        Ok(WriteReport { rows, snapshot: own.map(|snapshot| snapshot.snapshot_id()) })
    }
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
    ) -> Result<WrittenRows, WriteFailure> {
        let Self { storage, table, fit, ids } = self;
        let mut writer = ForeignWriter::new(&storage, &table, fit.schema(), &ids);
        match add_rows(&mut writer, &fit, batches, gone).await {
            Ok(rows) => Ok(WrittenRows { files: writer.finish().await?, rows }),
            Err(cause) => {
                writer.abandon().await;
                Err(cause)
            }
        }
    }
}

/// Adds all rows; how many there are.
async fn add_rows(
    writer: &mut ForeignWriter<'_>,
    fit: &RowFit,
    mut batches: RowStream,
    mut gone: oneshot::Receiver<()>,
) -> Result<u64, WriteFailure> {
    let mut rows = 0_u64;
    loop {
        // Both are safe to drop: neither takes something that it does not give.
        let batch = tokio::select! {
            batch = batches.next() => batch,
            _ = &mut gone => return Err(SqlError::Unavailable.into()),
        };
        let Some(batch) = batch else { return Ok(rows) };
        let batch = batch?;
        rows = rows.saturating_add(batch.num_rows() as u64);
        if ROWS_MAX < rows {
            let text =
                format!("the statement writes more than {ROWS_MAX} rows; write them in parts");
            return Err(SqlError::Limit(text).into());
        }
        writer.write(fit.fit(&batch)?).await?;
        if FILES_MAX < writer.files() {
            return Err(SqlError::Limit(format!(
                "the rows make more than {FILES_MAX} files; sort them by the table's partitions, or write them in parts"
            ))
            .into());
        }
    }
}

/// A statement writes where its query reads.
fn check_namespace(levels: &[String], written: Option<&str>) -> Result<(), SqlError> {
    match written {
        Some(written) if written != levels.join(".") => Err(invalid(format!(
            "a statement writes to the namespace of its path: send it to /v1/{written}/sql"
        ))),
        _ => Ok(()),
    }
}

/// Refuses tables that are not a caller's to fill.
fn check_is_callers(table: &TableIdent, metadata: &TableMetadata) -> Result<(), SqlError> {
    if retention::is_managed(metadata) {
        return Err(not_callers(table));
    }
    if metadata.format_version() == FormatVersion::V1 {
        return Err(invalid(format!("{table} has format version 1: upgrade it to version 2")));
    }
    Ok(())
}

fn not_callers(table: &TableIdent) -> SqlError {
    invalid(format!(
        "this server writes {table} itself: send events with POST /ingest, or make a table of your own with CREATE TABLE … AS"
    ))
}

fn check_partitions(table: &TableMetadata) -> Result<(), SqlError> {
    match partition::refused_field(table) {
        Some((field, transform)) => Err(invalid(format!(
            "rows cannot be written by partition field `{field}` ({transform}): text by its value and times with a zone by their day are"
        ))),
        None => Ok(()),
    }
}

/// The ids of all columns of a table, in order.
fn column_ids(table: &TableMetadata) -> Vec<i32> {
    table.current_schema().as_struct().fields().iter().map(|field| field.id).collect()
}

/// The ids of the columns that a statement names.
fn named_ids(table: &TableMetadata, columns: &[ColumnName]) -> Result<Vec<i32>, SqlError> {
    let fields = table.current_schema().as_struct().fields();
    let mut ids = Vec::with_capacity(columns.len());
    for column in columns {
        let found = column.find(fields.iter().map(|field| field.name.as_str()));
        let at = found.ok_or_else(|| {
            let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
            let (name, names) = (&column.text, names.join(", "));
            invalid(format!("the table has no column `{name}`; it has {names}"))
        })?;
        if ids.contains(&fields[at].id) {
            return Err(invalid(format!("column `{}` is named twice", column.text)));
        }
        ids.push(fields[at].id);
    }
    Ok(ids)
}

fn partition_spec(
    schema: &Schema,
    columns: &[PartitionColumn],
) -> Result<Option<UnboundPartitionSpec>, SqlError> {
    if columns.is_empty() {
        return Ok(None);
    }
    let fields = schema.as_struct().fields();
    let mut spec = UnboundPartitionSpec::builder();
    for PartitionColumn { column, is_by_day } in columns {
        let found = column.find(fields.iter().map(|field| field.name.as_str()));
        let field = found.map(|at| &fields[at]).ok_or_else(|| {
            invalid(format!(
                "PARTITIONED BY names `{}`, which the query does not have",
                column.text
            ))
        })?;
        let (name, transform) = match is_by_day {
            true => (format!("{}_day", field.name), Transform::Day),
            false => (field.name.clone(), Transform::Identity),
        };
        spec = spec
            .add_partition_field(field.id, name, transform)
            .map_err(|cause| invalid(format!("PARTITIONED BY: {}", cause.message())))?;
    }
    Ok(Some(spec.build()))
}

/// What new tables have, so that their metadata does not grow with every statement.
fn new_properties() -> HashMap<String, String> {
    [
        ("write.format.default", "parquet"),
        ("write.parquet.compression-codec", "zstd"),
        ("write.metadata.previous-versions-max", "20"),
        ("write.metadata.delete-after-commit.enabled", "true"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn invalid(text: impl Into<String>) -> SqlError {
    SqlError::Invalid(text.into())
}
