//! A DataFusion session for one query: the tables of its view and nothing else.
//!
//! What costs time to set up (functions, optimizer rules) is made once and shared; what a query may
//! see is made for each query.

use crate::{
    aliases::{RelationColumn, TableColumns},
    allowed,
    arithmetic::CheckedArithmetic,
    bounded_functions::FunctionMemory,
    branches::{self, BRANCHES_TABLE},
    buckets, change_views, collected, collections,
    column_lists::ListPlanner,
    comparisons::ComparisonTypes,
    counts::FileCounts,
    draws, element_counts,
    error::SqlError,
    functions,
    log_tail::TailSource,
    lookups::BloomFilters,
    manifest_aggregates::ManifestAggregates,
    memory::GrantedMemory,
    metadata_tables::{MetadataProvider, MetadataTable},
    namespace_schema::NamespaceSchema,
    percentile, plain,
    provider::ViewTable,
    pushdown,
    query_process::QueryProcess,
    read_order::ReadOrderRule,
    replacement,
    rewrite::BoundedFunctionRule,
    row_places::RowPlaces,
    same_type::SameTypeKind,
    seq_range::{self, TablePart},
    series,
    sort_limits::SortLimitRule,
    subquery_order::SubqueryOrderRule,
    sums, time,
    types::MicrosecondTypes,
    unreadable::UnreadableTable,
    uuid,
    view::{
        BranchesView, CatalogView, ChangeView, NamespaceView, ServiceTableView, TableView,
        TailPlace, View,
    },
    visibility::{VisibleRows, deciding_columns, visible_rows},
};
use arrow::datatypes::Schema;
use datafusion::{
    catalog::{
        CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
        TableProvider,
    },
    error::DataFusionError,
    execution::{
        FunctionRegistry,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::{GreedyMemoryPool, MemoryPool, TrackConsumersPool},
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
        session_state::{SessionState, SessionStateBuilder},
    },
    optimizer::{Optimizer, OptimizerRule},
    physical_optimizer::{PhysicalOptimizerRule, optimizer::PhysicalOptimizer},
    prelude::{SessionConfig, SessionContext},
};
use icecore_catalog::{scan::manifests::ManifestCache, storage::Storage};
use icecore_lake::event::rows::UTC;
use icecore_schemas::service_table::{RecordKind, ServiceTables};
use std::{
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
};
use tokio::time::Instant;

/// The catalog that every query sees; its schemas are the query's namespace and those that it names.
pub const CATALOG: &str = "icecore";

/// Parts that one scan or aggregation runs in at the same time.
const TARGET_PARTITIONS: usize = 2;
/// Rows after which a first step of an aggregation sees whether it makes groups of several rows: of unique values it
/// hands on the others as they are, and the second step alone puts them into groups.
const GROUP_PROBE_ROWS: usize = 32_768;
/// Most bytes of footers and page indexes that are kept; those not used the longest go first.
const FOOTER_BYTES_MAX: usize = 64 << 20;
/// The same where several processes run queries: of a thousand files with few columns. A scan that finds no place for
/// all footers of its table drops those that it needs first the next time.
const WORKER_FOOTER_BYTES_MAX: usize = 48 << 20;
/// What the bounds of other caches are divided by where several processes run queries: each has its own caches,
/// and keeps them while it waits.
const WORKER_CACHE_SHARE: usize = 4;
/// What each part of a sort has of memory before it has rows, where it may put them on disk: merging them takes some.
const SORT_RESERVE_BYTES: usize = 4 << 20;
/// How many of the largest memory users an error names.
const CONSUMERS_NAMED: NonZeroUsize = NonZeroUsize::new(3).expect("it is not zero");
/// DataFusion's rule that answers aggregates of a whole table by its statistics.
const AGGREGATE_STATISTICS: &str = "aggregate_statistics";
/// DataFusion's rule that tells scans the order of sorts.
const PUSHDOWN_SORT: &str = "PushdownSort";

/// What sessions have of the machine.
#[derive(Debug)]
pub enum EngineResources {
    /// Memory of this process that all sessions share. Nothing is spilled to disk.
    Own {
        /// How many bytes.
        memory_bytes_max: usize,
    },
    /// Memory that another process grants, and a folder for what does not fit.
    Granted {
        /// The memory.
        memory: GrantedMemory,
        /// Where operators may put what does not fit into memory, and how much; none for nowhere.
        spill: Option<SpillFolder>,
    },
}

impl EngineResources {
    /// Whether the process does other work.
    fn process(&self) -> QueryProcess {
        match self {
            Self::Own { .. } => QueryProcess::Shared,
            Self::Granted { .. } => QueryProcess::Own,
        }
    }

    /// Most bytes of footers that are kept.
    fn footer_bytes_max(&self) -> usize {
        match self {
            Self::Own { .. } => FOOTER_BYTES_MAX,
            Self::Granted { .. } => WORKER_FOOTER_BYTES_MAX,
        }
    }

    /// What the bounds of other caches are divided by.
    fn cache_share(&self) -> usize {
        match self {
            Self::Own { .. } => 1,
            Self::Granted { .. } => WORKER_CACHE_SHARE,
        }
    }
}

/// Where operators put what does not fit into memory.
#[derive(Clone, Debug)]
pub struct SpillFolder {
    /// The folder.
    pub path: PathBuf,
    /// Most bytes in it.
    pub bytes_max: u64,
}

/// How the tables of one query are read.
#[derive(Clone, Copy)]
struct TableReads<'a> {
    tail: &'a TailSource,
    counts: &'a Arc<FileCounts>,
    deadline: Instant,
    visible: &'a [VisibleRows],
}

/// What sessions are made from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct QuerySessions {
    base: Arc<SessionState>,
    growth: Arc<FunctionMemory>,
    storage: Storage,
    manifests: ManifestCache,
    bloom_filters: BloomFilters,
    row_places: RowPlaces,
    tables: ServiceTables,
}

impl QuerySessions {
    /// Sessions over the warehouse's files, which share memory and caches of file metadata.
    ///
    /// # Panics
    /// Never: the options of DataFusion's runtime are constants that it takes.
    #[must_use]
    pub fn new(resources: EngineResources, storage: Storage, tables: ServiceTables) -> Self {
        let (share, process) = (resources.cache_share(), resources.process());
        let runtime = runtime(resources, &storage).expect("the runtime's options are constants");
        let mut base = SessionStateBuilder::new_with_default_features()
            .with_runtime_env(Arc::new(runtime))
            .with_type_planner(Arc::new(MicrosecondTypes))
            .with_relation_planners(vec![Arc::new(ListPlanner)])
            .with_optimizer_rules(optimizer_rules())
            .with_physical_optimizer_rules(physical_rules())
            .build();
        allowed::keep_only(&mut base, process);
        // Those of ours take the place of others, with their aliases: under one of them the other would
        // stay, and come back when a session is made from this one.
        let fits = "functions are taken out and put in without a conflict";
        let drawing = draws::numbered(base.scalar_functions().values().map(Arc::clone));
        let plain = plain::plain(base.scalar_functions().values().map(Arc::clone));
        let scalar = functions::all().into_iter().chain(time::all()).chain(plain);
        let scalar = scalar
            .chain([uuid::function(), element_counts::function(), SameTypeKind::Opaque.function()])
            .chain([buckets::function()])
            .chain(replacement::all())
            .chain(drawing);
        for function in scalar {
            base.deregister_udf(function.name()).expect(fits);
            base.register_udf(Arc::new(function)).expect(fits);
        }
        // Of one function there is an entry for each alias.
        let theirs = base.aggregate_functions().values().map(Arc::clone);
        let aggregates: Vec<_> =
            theirs.chain(percentile::all().into_iter().map(Arc::new)).collect();
        for function in aggregates {
            if let Some(ours) = collected::reckoned(&function).or_else(|| sums::exact(function)) {
                base.deregister_udaf(ours.name()).expect(fits);
                base.register_udaf(Arc::new(ours)).expect(fits);
            }
        }
        base.register_udaf(Arc::new(collections::fold::document_versions())).expect(fits);
        base.register_udaf(Arc::new(collections::fold::document_anomalies())).expect(fits);
        for (name, function) in series::all() {
            // Where theirs may be called.
            if base.table_functions().contains_key(name) {
                base.register_udtf(name, function);
            }
        }
        base.add_analyzer_rule(Arc::new(CheckedArithmetic));
        base.register_expr_planner(Arc::new(ComparisonTypes)).expect(fits);
        let growth = FunctionMemory::new(Arc::clone(&base.runtime_env().memory_pool), process);
        let manifests = ManifestCache::with_share(share);
        let bloom_filters = BloomFilters::with_share(share);
        let row_places = RowPlaces::with_share(share);
        Self { base: Arc::new(base), growth, storage, manifests, bloom_filters, row_places, tables }
    }

    /// Where its queries run.
    #[must_use]
    pub fn process(&self) -> QueryProcess {
        self.growth.process()
    }

    /// The warehouse.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    fn table(
        &self,
        table: &TableView,
        counts: &Arc<FileCounts>,
    ) -> Result<ViewTable, DataFusionError> {
        let ours = ServiceTableView::of(table, &self.tables);
        let (storage, manifests) = (self.storage.clone(), self.manifests.clone());
        let table = ViewTable::new(table, ours, storage, manifests, Arc::clone(counts))?;
        Ok(table.with_lookups(self.bloom_filters.clone(), self.row_places.clone()))
    }

    /// The names of all columns that `view` has, with those of fields of structs.
    ///
    /// # Errors
    /// [`SqlError::Internal`] when a table's schema has no Arrow form.
    pub fn columns(&self, view: &View) -> Result<Vec<String>, SqlError> {
        let mut names = Vec::new();
        let named = view.all_tables().filter(|(_, table)| !collections::is_path(&table.name));
        for (_, table) in named {
            let provider = self.table(table, &Arc::default()).map_err(|cause| broken(&cause))?;
            names.extend(provider.column_names());
        }
        for seen in &view.catalog_views {
            names.extend(seen.columns.iter().cloned());
        }
        for collection in &view.collections {
            names.extend(collections::names_in_any_case(collection));
        }
        Ok(names)
    }

    /// The tables of one namespace.
    fn schema(
        &self,
        namespace: &str,
        (tables, unreadable): (&[TableView], &[(String, SqlError)]),
        TableReads { tail, counts, deadline, visible }: TableReads<'_>,
    ) -> Result<Arc<NamespaceSchema>, SqlError> {
        let schema = NamespaceSchema::default();
        for table in tables {
            let part = |state: &TableView, is_later: bool| {
                let (namespace, table) = (namespace.to_owned(), table.name.clone());
                let place = TailPlace { namespace, table, is_later };
                let provider = self.table(state, counts)?.planned_until(deadline);
                let provider = provider.with_tail_from(tail, place);
                Ok::<_, DataFusionError>(TablePart { table: provider, seqs: state.seqs })
            };
            let provider = part(table, false)
                .and_then(|first| {
                    let later = table.later.as_deref();
                    let later = later.map(|later| part(later, true)).transpose()?;
                    seq_range::provider(&table.name, first, later)
                })
                .map_err(|cause| broken(&cause))?;
            let provider = match visible.iter().find(|rows| rows.namespace == namespace) {
                Some(rows) => visible_rows(provider, &deciding_columns(table)?, &rows.values),
                None => provider,
            };
            schema.add(&table.name, provider);
            for kind in &table.inspected {
                let provider = self.metadata_table(*kind, table, deadline);
                schema.add_metadata(kind.of(&table.name), Arc::new(provider));
            }
        }
        for (name, error) in unreadable {
            schema.add(name, Arc::new(UnreadableTable::new(error.clone())));
        }
        Ok(Arc::new(schema))
    }

    fn metadata_table(
        &self,
        kind: MetadataTable,
        table: &TableView,
        deadline: Instant,
    ) -> MetadataProvider {
        let (storage, manifests) = (self.storage.clone(), self.manifests.clone());
        MetadataProvider::new(kind, table, storage, manifests, deadline)
    }

    /// The columns of each table and view that `view` has, without fields of structs.
    ///
    /// # Errors
    /// [`SqlError::Internal`] when a table's schema has no Arrow form.
    pub fn columns_by_table(&self, view: &View) -> Result<TableColumns, SqlError> {
        let mut found = TableColumns::new();
        for (namespace, table) in view.all_tables() {
            let mut add = |name: &str, schema: &Schema, is_of_events| {
                let columns = schema.fields().iter();
                let columns = columns
                    .map(|column| RelationColumn { name: column.name().clone(), is_of_events });
                found.insert((namespace.to_owned(), name.to_owned()), columns.collect());
            };
            for kind in &table.inspected {
                let schema = self.metadata_table(*kind, table, Instant::now()).schema();
                add(&kind.of(&table.name), &schema, false);
            }
            let provider = self.table(table, &Arc::default()).map_err(|cause| broken(&cause))?;
            let is_of_events = table.ours == Some(RecordKind::Events);
            add(&table.name, &provider.schema(), is_of_events);
        }
        for ChangeView { namespace, name, view, .. } in &view.change_views {
            found.insert((namespace.clone(), name.clone()), change_views::columns(view));
        }
        for BranchesView { namespace, .. } in &view.branches {
            found.insert((namespace.clone(), BRANCHES_TABLE.to_owned()), branches::columns());
        }
        for collection in &view.collections {
            let name = (collection.namespace.clone(), collection.name.clone());
            found.insert(name, collections::columns(collection));
        }
        for CatalogView { namespace, name, columns, .. } in &view.catalog_views {
            let column = |name: &String| RelationColumn { name: name.clone(), is_of_events: false };
            let columns = columns.iter().map(column).collect();
            found.insert((namespace.clone(), name.clone()), columns);
        }
        Ok(found)
    }

    /// A session that sees `view`, with rows of the log from `tail`, for a query that ends at `deadline`
    /// and whose files are counted.
    ///
    /// # Errors
    /// [`SqlError::Internal`] when a table's schema has no Arrow form.
    pub fn open(
        &self,
        view: &View,
        tail: &TailSource,
        counts: &Arc<FileCounts>,
        deadline: Instant,
    ) -> Result<SessionContext, SqlError> {
        self.growth.sweep();
        let namespace = &view.namespace;
        let reads = TableReads { tail, counts, deadline, visible: &view.visible };
        let own = self.schema(namespace, (&view.tables, &view.unreadable), reads)?;
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema(namespace, own).map_err(|cause| broken(&cause))?;
        for NamespaceView { namespace, tables, unreadable } in &view.others {
            let other = self.schema(namespace, (tables, unreadable), reads)?;
            catalog.register_schema(namespace, other).map_err(|cause| broken(&cause))?;
        }
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
        let mut config = SessionConfig::new()
            .with_target_partitions(TARGET_PARTITIONS)
            .with_information_schema(true)
            .with_create_default_catalog_and_schema(false)
            .with_default_catalog_and_schema(CATALOG, namespace);
        // It would find that marks of columns (see `rewrite`) are not kept by every operator.
        config.options_mut().execution.skip_physical_aggregate_schema_check = true;
        config.options_mut().execution.time_zone = Some(UTC.to_owned());
        config.options_mut().execution.sort_spill_reservation_bytes = SORT_RESERVE_BYTES;
        config.options_mut().execution.skip_partial_aggregation_probe_rows_threshold =
            GROUP_PROBE_ROWS;
        // With it, DataFusion 54 loses rows whose key is NULL (apache/datafusion#23103, #23126, #22964).
        config.options_mut().optimizer.enable_join_dynamic_filter_pushdown = false;
        // It would leave out rows by the greatest value so far of one column that `min` of an expression
        // beside it still needs (DataFusion 54; no release mends it).
        config.options_mut().optimizer.enable_aggregate_dynamic_filter_pushdown = false;
        // It would leave out rows that `lead` and `lag` with IGNORE NULLS or a negative distance still need
        // (apache/datafusion#25471).
        config.options_mut().optimizer.enable_window_limits = false;
        // It would leave out groups whose `max` or `min` is NULL (DataFusion 54; no release mends it).
        config.options_mut().optimizer.enable_topk_aggregation = false;
        // It fails for a DISTINCT of window functions with LIMIT (apache/datafusion#25350).
        config.options_mut().optimizer.enable_distinct_aggregation_soft_limit = false;
        // It moves members of structs below UNION ALL, whose columns are other ones then (DataFusion 54; no release mends it).
        config.options_mut().optimizer.enable_leaf_expression_pushdown = false;
        let mut state = SessionStateBuilder::new_from_existing(self.base.as_ref().clone())
            .with_config(config)
            .with_catalog_list(Arc::new(catalogs))
            .build();
        let within = BoundedFunctionRule {
            growth: Arc::clone(&self.growth),
            deadline,
            marks: AtomicU64::default(),
        };
        state
            .register_function_rewrite(Arc::new(ComparisonTypes))
            .and_then(|()| state.register_function_rewrite(Arc::new(within)))
            .map_err(|cause| broken(&cause))?;
        Ok(SessionContext::new_with_state(state))
    }
}

/// DataFusion's rules but for one: without its constants a GROUP BY of no rows has one group, and an
/// answer one row too many (no release of DataFusion mends it). Ours comes last.
fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    rules.retain(|rule| rule.name() != "eliminate_group_by_constant");
    rules.push(Arc::new(collections::fold_arguments::FoldArguments));
    rules
}

/// DataFusion's rules and ours: two before all, and each other behind the one that it goes on from.
fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> =
        vec![Arc::new(SubqueryOrderRule), Arc::new(SortLimitRule)];
    for rule in &PhysicalOptimizer::new().rules {
        rules.push(pushdown::by_unique_names(rule));
        match rule.name() {
            AGGREGATE_STATISTICS => rules.push(Arc::new(ManifestAggregates)),
            PUSHDOWN_SORT => rules.push(Arc::new(ReadOrderRule)),
            _ => (),
        }
    }
    rules
}

fn runtime(resources: EngineResources, storage: &Storage) -> Result<RuntimeEnv, DataFusionError> {
    let footer_bytes_max = resources.footer_bytes_max();
    let pool: Arc<dyn MemoryPool>;
    let spill = match resources {
        EngineResources::Own { memory_bytes_max } => {
            let own = GreedyMemoryPool::new(memory_bytes_max);
            pool = Arc::new(TrackConsumersPool::new(own, CONSUMERS_NAMED));
            None
        }
        EngineResources::Granted { memory, spill } => {
            pool = Arc::new(TrackConsumersPool::new(memory, CONSUMERS_NAMED));
            spill
        }
    };
    let disk = match spill {
        Some(SpillFolder { path, bytes_max }) => DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![path]))
            .with_max_temp_directory_size(bytes_max),
        None => DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
    };
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(pool)
        .with_disk_manager_builder(disk)
        .with_metadata_cache_limit(footer_bytes_max)
        .build()?;
    let (base, store) = storage.query_store();
    runtime.register_object_store(&base, store);
    Ok(runtime)
}

fn broken(cause: &DataFusionError) -> SqlError {
    tracing::error!(error = cause as &dyn std::error::Error, "cannot create a session");
    SqlError::Internal("the tables cannot be opened".to_owned())
}
