//! A table for DataFusion: the snapshot's files through its Parquet source, united with the log's
//! tail.

mod looked_up;

use crate::{
    counts::FileCounts,
    deletes::{self, DeletedByFile},
    field_ids::FieldIdMapper,
    file_failure::{of_scan, unreadable},
    filter_cost::pays_in_reader,
    footers::FooterReaders,
    log_tail::{LogTail, TailRequests, TailSource},
    lookups::{BloomFilters, FooterSource, Lookup},
    plan::{QueryFiles, SnapshotScan},
    row_counts,
    row_places::RowPlaces,
    scanned_file::{self, ScannedFile},
    view::{ServiceTableView, TableView, TailPlace},
};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Statistics, exec_datafusion_err, project_schema, stats::Precision},
    datasource::{
        TableType,
        file_format::parquet::transform_schema_to_view,
        listing::PartitionedFile,
        object_store::ObjectStoreUrl,
        physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource},
        source::DataSourceExec,
        table_schema::TableSchema,
    },
    error::DataFusionError,
    logical_expr::{Expr, TableProviderFilterPushDown},
    object_store::ObjectMeta,
    physical_plan::{
        ExecutionPlan,
        empty::EmptyExec,
        streaming::{PartitionStream, StreamingTableExec},
        union::UnionExec,
    },
};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{NestedFieldRef, PrimitiveType, Type};
use icecore_catalog::{
    scan::{
        Deadline,
        manifests::{ManifestCache, PlannedFile, PlannedFiles},
    },
    storage::Storage,
};
use icecore_lake::{
    event::rows,
    table::{field_ids::FieldAliases, schema::MANAGED},
    wal::RecordRef,
};
use std::{collections::HashSet, sync::Arc};
use tokio::time::Instant;

/// Most files that get statistics of their own: with these a top-k reads the best file first and
/// skips the rest, but they take memory for every column of every file.
const FILE_STATISTICS_MAX: usize = 1_024;

/// Footers that are read at a time while a query is planned.
const FOOTERS_AT_ONCE: usize = 8;

/// Most rows of a file whose pages are not left out by their index: files of ours with no more have one page. Where a
/// file has no index, DataFusion copies its footer to look for one.
const ONE_PAGE_ROWS_MAX: u64 = 10_240;

/// Bytes of a file's end that are read at first: footer and page index of most files of ours.
const END_BYTES_LOCAL: usize = 32 << 10;
/// The same in a bucket, where a second request takes longer than more bytes.
const END_BYTES_BUCKET: usize = 256 << 10;

/// One table of a view.
#[derive(Debug)]
pub struct ViewTable {
    snapshot: Option<SnapshotScan>,
    tail: Option<(ServiceTableView, Vec<RecordRef>)>,
    /// Whom the rows of the log are asked for, as those of which table; none where this process reads them.
    asked: Option<(TailRequests, TailPlace)>,
    schema: SchemaRef,
    aliases: Arc<FieldAliases>,
    storage: Storage,
    manifests: ManifestCache,
    counts: Arc<FileCounts>,
    bloom_filters: BloomFilters,
    row_places: RowPlaces,
    /// When the planning of a scan has to end.
    until: Deadline,
}

impl ViewTable {
    /// The table as `view` has it, and what it is of ours.
    ///
    /// # Errors
    /// Its schema has a type that Arrow has not.
    pub fn new(
        view: &TableView,
        ours: Option<ServiceTableView>,
        storage: Storage,
        manifests: ManifestCache,
        counts: Arc<FileCounts>,
    ) -> Result<Self, DataFusionError> {
        let (columns, schema) = columns_of(view, ours.as_ref())?;
        let aliases = view.metadata.as_deref().map(FieldAliases::of).transpose();
        let aliases = aliases.map_err(|cause| exec_datafusion_err!("{cause}"))?.unwrap_or_default();
        let snapshot = match (&view.metadata, view.snapshot_id, columns) {
            (Some(metadata), Some(id), Some(columns)) => Some(SnapshotScan {
                metadata: Arc::clone(metadata),
                id,
                columns,
                schema: Arc::clone(&schema),
            }),
            _ => None,
        };
        let tail = ours.filter(|_| !view.tail.is_empty());
        let tail = tail.map(|ours| (ours, view.tail.clone()));
        let (aliases, until) = (Arc::new(aliases), Deadline::NONE);
        let (asked, bloom_filters) = (None, BloomFilters::default());
        let row_places = RowPlaces::default();
        Ok(Self {
            snapshot,
            tail,
            asked,
            schema,
            aliases,
            storage,
            manifests,
            counts,
            bloom_filters,
            row_places,
            until,
        })
    }

    /// The table with the rows of the log from `source`, where it is called `place`.
    #[must_use]
    pub fn with_tail_from(self, source: &TailSource, place: TailPlace) -> Self {
        let asked = match source {
            TailSource::Files => None,
            TailSource::Asked(requests) => Some((requests.clone(), place)),
        };
        Self { asked, ..self }
    }

    /// The table with bloom filters and hashes of rows that were read already.
    #[must_use]
    pub fn with_lookups(self, bloom_filters: BloomFilters, row_places: RowPlaces) -> Self {
        Self { bloom_filters, row_places, ..self }
    }

    /// The table of a query that ends then.
    #[must_use]
    pub fn planned_until(self, deadline: Instant) -> Self {
        Self { until: Deadline::at(deadline), ..self }
    }

    /// Names of its columns and of fields in them.
    pub(super) fn column_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut open: Vec<&FieldRef> = self.schema.fields().iter().collect();
        while let Some(field) = open.pop() {
            names.push(field.name().clone());
            match field.data_type() {
                DataType::Struct(fields) => open.extend(fields.iter()),
                DataType::List(inner) | DataType::Map(inner, _) => open.push(inner),
                _ => (),
            }
        }
        names
    }

    async fn scan_snapshot(
        &self,
        snapshot: &SnapshotScan,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
    ) -> Result<Option<Arc<dyn ExecutionPlan>>, DataFusionError> {
        let planned = snapshot.plan(&self.manifests, &self.storage, filters, self.until).await?;
        let (base, store) = self.storage.query_store();
        let cache = state.runtime_env().cache_manager.get_file_metadata_cache();
        let bytes_first = self.end_bytes();
        let footers = FooterSource { store: store.as_ref(), cache: &cache, bytes_first };
        let lookups = Lookup::all(filters, &snapshot.columns, &self.schema);
        let files = self.by_numbers(planned.files, (snapshot, filters), (footers, &store)).await?;
        let (files, are_asked) = self.looked_up(files, &lookups, footers).await?;
        let planned = QueryFiles { files, deletes: planned.deletes };
        let read = planned.files.len() as u64;
        self.counts.add(read, snapshot.file_count().saturating_sub(read));
        let read_bytes: u64 = planned.files.iter().map(|file| file.bytes).sum();
        self.counts.add_read_bytes(read_bytes);
        self.counts.add_pruned_bytes(snapshot.file_bytes().saturating_sub(read_bytes));
        if planned.files.is_empty() {
            return Ok(None);
        }
        // Our files have bloom filters of texts alone. Those of others may have shorter row groups, too.
        let has_others = !snapshot.metadata.properties().contains_key(MANAGED);
        let asks_filters = has_others || (!are_asked && !lookups.is_empty());
        let has_pages = planned.files.iter().any(|file| ONE_PAGE_ROWS_MAX < file.rows);
        let readers = FooterReaders::new(Arc::clone(&store), Arc::clone(&cache));
        let pushes = self.filters_in_reader(snapshot, &planned.files, projection, filters);
        let source = ParquetSource::new(TableSchema::from_file_schema(Arc::clone(&self.schema)))
            .with_parquet_file_reader_factory(Arc::new(readers))
            .with_metadata_size_hint(bytes_first)
            .with_enable_page_index(has_pages)
            .with_bloom_filter_on_read(asks_filters)
            .with_pushdown_filters(pushes)
            .with_reorder_filters(pushes);
        let with_statistics = planned.files.len() <= FILE_STATISTICS_MAX;
        let columns = &columns_read(&self.schema, projection, filters);
        let deletes = &planned.deletes;
        let scanned = &Arc::new(snapshot.clone());
        let told = self.row_places.count_with_room(planned.files.iter().map(|file| file.rows));
        let (lookups, store) = (lookups.as_slice(), &store);
        let parts = planned.files.iter().enumerate().map(|(at, file)| async move {
            let part = self.partitioned(file)?;
            if let Some(deleted) = deletes.get(&file.location) {
                let over = |cause| DataFusionError::External(Box::new(of_scan(&cause)));
                self.until.check().map_err(over)?;
                let footer = footers.footer(&part.object_meta).await?;
                return Ok(part.with_extension(deletes::access(&footer, deleted)));
            }
            let lookups = if at < told { lookups } else { &[] };
            let part = self.row_places.attached(footers, store, part, lookups).await;
            // With a name mapping, a file may have a column that its manifest does not tell of.
            let part = match self.aliases.is_given() {
                true => part,
                false => part.with_extension(self.scanned(scanned, file)),
            };
            if !with_statistics {
                return Ok(part);
            }
            let statistics = scanned_file::statistics(snapshot, file, columns);
            Ok::<_, DataFusionError>(part.with_statistics(Arc::new(statistics)))
        });
        let parts: Vec<_> = parts.collect();
        let files = stream::iter(parts).buffered(FOOTERS_AT_ONCE).try_collect::<Vec<_>>().await?;
        let by_id = FieldIdMapper::new(Arc::clone(&snapshot.columns), Arc::clone(&self.aliases));
        let scan = FileScanConfigBuilder::new(ObjectStoreUrl::parse(&base)?, Arc::new(source))
            .with_statistics(self.statistics(&planned.files, &planned.deletes))
            .with_file_groups(groups(files, state.config().target_partitions()))
            .with_projection_indices(projection.cloned())?
            .with_expr_adapter(Some(Arc::new(by_id)))
            .build();
        Ok(Some(DataSourceExec::from_data_source(scan)))
    }

    /// Whether the filters run in the reader. One of them is lost there for a file of another schema
    /// (apache/datafusion#25268).
    fn filters_in_reader(
        &self,
        snapshot: &SnapshotScan,
        files: &PlannedFiles,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
    ) -> bool {
        pays_in_reader(files, (&snapshot.columns, &self.schema), projection, filters)
            && !self.aliases.is_given()
            && !snapshot.has_changed_columns()
            && files.iter().all(|file| snapshot.is_current(file))
    }

    fn scanned(&self, snapshot: &Arc<SnapshotScan>, file: &Arc<PlannedFile>) -> ScannedFile {
        ScannedFile::new(Arc::clone(snapshot), Arc::clone(file), Arc::clone(&self.counts))
    }

    /// What the store calls a file, if there is time left to ask it.
    fn meta_in_time(&self, file: &PlannedFile) -> Result<ObjectMeta, DataFusionError> {
        let over = |cause| DataFusionError::External(Box::new(of_scan(&cause)));
        self.until.check().map_err(over)?;
        Ok(self.partitioned(file)?.object_meta)
    }

    fn end_bytes(&self) -> usize {
        match self.storage.root().starts_with("s3://") {
            true => END_BYTES_BUCKET,
            false => END_BYTES_LOCAL,
        }
    }

    /// Rows are exact where nothing is deleted, so that counting them needs no file.
    fn statistics(&self, files: &[Arc<PlannedFile>], deletes: &DeletedByFile) -> Statistics {
        let rows: u64 = files.iter().map(|file| file.rows).sum();
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows =
            if deletes.is_empty() { Precision::Exact(rows) } else { Precision::Inexact(rows) };
        statistics
    }

    fn partitioned(&self, file: &PlannedFile) -> Result<PartitionedFile, DataFusionError> {
        let path = self
            .storage
            .object_path(&file.location)
            .map_err(|cause| DataFusionError::External(Box::new(unreadable(&cause))))?;
        Ok(PartitionedFile::new_from_meta(ObjectMeta {
            location: path,
            // Data files never change, so the caches need no time to tell versions apart.
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size: file.bytes,
            e_tag: None,
            version: None,
        }))
    }

    /// The tail in parts of about the same number of records.
    fn scan_tail(
        &self,
        ours: &ServiceTableView,
        records: &[RecordRef],
        projection: Option<&Vec<usize>>,
        partitions: usize,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let schema = project_schema(&self.schema, projection)?;
        let parts = records.chunks(records.len().div_ceil(partitions.max(1)).max(1)).map(|part| {
            let asked = self.asked.clone();
            Arc::new(LogTail::new(ours, asked, part.to_vec(), Arc::clone(&schema)))
                as Arc<dyn PartitionStream>
        });
        let scan = StreamingTableExec::try_new(
            Arc::clone(&schema),
            parts.collect(),
            None,
            [],
            false,
            None,
        )?;
        Ok(Arc::new(scan))
    }
}

#[async_trait]
impl TableProvider for ViewTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let mut parts: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if let Some(snapshot) = &self.snapshot {
            parts.extend(self.scan_snapshot(snapshot, state, projection, filters).await?);
        }
        if let Some((ours, records)) = &self.tail {
            let partitions = state.config().target_partitions();
            parts.push(match projection.is_some_and(Vec::is_empty) {
                true => {
                    row_counts::of_records(&project_schema(&self.schema, projection)?, records)?
                }
                false => self.scan_tail(ours, records, projection, partitions)?,
            });
        }
        match parts.len() {
            0 => Ok(Arc::new(EmptyExec::new(project_schema(&self.schema, projection)?))),
            1 => Ok(parts.remove(0)),
            _ => UnionExec::try_new(parts),
        }
    }
}

/// The places of the columns that a scan reads: those of its answer, and those of its filters.
fn columns_read(
    schema: &Schema,
    projection: Option<&Vec<usize>>,
    filters: &[Expr],
) -> HashSet<usize> {
    let of_filters = filters.iter().flat_map(Expr::column_refs);
    let of_filters = of_filters.filter_map(|column| schema.index_of(&column.name).ok());
    match projection {
        Some(projection) => projection.iter().copied().chain(of_filters).collect(),
        None => (0..schema.fields().len()).collect(),
    }
}

/// The columns of a table as `view` has it: those of Iceberg, where it has any yet, and as queries see them.
///
/// # Errors
/// Its schema has a type that Arrow has not.
pub(crate) fn columns_of(
    view: &TableView,
    ours: Option<&ServiceTableView>,
) -> Result<(Option<iceberg::spec::SchemaRef>, SchemaRef), DataFusionError> {
    let columns = view.metadata.as_ref().map(|metadata| {
        match (view.past_columns(), ours) {
            (Some(columns), _) => Ok(Arc::clone(columns)),
            // A table that an earlier version made has the later columns all the same: rows of
            // the log may have values there, and the table gets them with these.
            (None, Some(ours)) => ours.fit.extended(metadata),
            (None, None) => Ok(Arc::clone(metadata.current_schema())),
        }
    });
    let columns = columns.transpose().map_err(external)?;
    let arrow = match (&columns, ours) {
        (Some(columns), _) => iceberg::arrow::schema_to_arrow_schema(columns).map_err(external)?,
        (None, Some(ours)) => rows::schema_of(ours.table.columns).as_ref().clone(),
        (None, None) => Schema::empty(),
    };
    let types = columns.as_ref().map(|columns| columns.as_struct().fields());
    let schema = Arc::new(transform_schema_to_view(&shown(&arrow, types.unwrap_or_default())));
    Ok((columns, schema))
}

fn external(cause: iceberg::Error) -> DataFusionError {
    DataFusionError::External(Box::new(cause))
}

/// The schema as SQL shows it: without the ids of fields, and with UUIDs as text. `columns` are its
/// fields in Iceberg's terms, none for rows that are in no table yet.
fn shown(schema: &Schema, columns: &[NestedFieldRef]) -> Schema {
    let fields = schema.fields().iter().enumerate().map(|(at, field)| {
        shown_field(field, columns.get(at).map(|column| column.field_type.as_ref()))
    });
    Schema::new(fields.collect::<Vec<_>>())
}

fn shown_field(field: &Field, column: Option<&Type>) -> Field {
    let inner = |field: &FieldRef, column: &Type| Arc::new(shown_field(field, Some(column)));
    let shown = match (field.data_type(), column) {
        (_, Some(Type::Primitive(PrimitiveType::Uuid))) => DataType::Utf8,
        (DataType::Struct(fields), Some(Type::Struct(columns))) => {
            let fields = fields.iter().zip(columns.fields());
            DataType::Struct(
                fields.map(|(field, column)| inner(field, &column.field_type)).collect(),
            )
        }
        (DataType::List(element), Some(Type::List(column))) => {
            DataType::List(inner(element, &column.element_field.field_type))
        }
        (DataType::Map(entries, sorted), Some(Type::Map(column))) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                let key = inner(&fields[0], &column.key_field.field_type);
                let value = inner(&fields[1], &column.value_field.field_type);
                let pairs = DataType::Struct(Fields::from(vec![key, value]));
                let entries = Field::new(entries.name(), pairs, entries.is_nullable());
                DataType::Map(Arc::new(entries), *sorted)
            }
            _ => field.data_type().clone(),
        },
        (other, _) => other.clone(),
    };
    Field::new(field.name(), shown, field.is_nullable())
}

/// The files in as many groups as partitions, each with about the same bytes.
fn groups(mut files: Vec<PartitionedFile>, partitions: usize) -> Vec<FileGroup> {
    let mut groups: Vec<(u64, Vec<PartitionedFile>)> =
        vec![(0, Vec::new()); partitions.clamp(1, files.len().max(1))];
    files.sort_by_key(|file| std::cmp::Reverse(file.object_meta.size));
    for file in files {
        let lightest =
            groups.iter_mut().min_by_key(|(bytes, _)| *bytes).expect("there is at least one group");
        lightest.0 += file.object_meta.size;
        lightest.1.push(file);
    }
    groups.into_iter().map(|(_, files)| FileGroup::new(files)).collect()
}

#[cfg(test)]
mod tests;
