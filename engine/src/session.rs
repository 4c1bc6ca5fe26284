//! A DataFusion session for one query: this namespace's tables and nothing else.
//!
//! What costs time to set up (functions, optimizer rules) is made once and shared; what a query may
//! see is made for each query.

use crate::{
    allowed,
    arithmetic::CheckedArithmetic,
    bounded_functions::FunctionMemory,
    collected,
    column_lists::ListPlanner,
    comparisons::ComparisonTypes,
    counts::FileCounts,
    draws,
    error::SqlError,
    functions,
    lookups::BloomFilters,
    percentile, plain,
    provider::ViewTable,
    pushdown, replacement,
    rewrite::BoundedFunctionRule,
    same_type::SameTypeKind,
    sums, time,
    types::MicrosecondTypes,
    unreadable::UnreadableTable,
    uuid,
    view::{ServiceTableView, TableView, View},
};
use datafusion::{
    catalog::{
        CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
        MemorySchemaProvider, SchemaProvider,
    },
    error::DataFusionError,
    execution::{
        FunctionRegistry,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::{GreedyMemoryPool, TrackConsumersPool},
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
        session_state::{SessionState, SessionStateBuilder},
    },
    optimizer::{Optimizer, OptimizerRule},
    physical_optimizer::optimizer::PhysicalOptimizer,
    prelude::{SessionConfig, SessionContext},
};
use icecore_catalog::{scan::manifests::ManifestCache, storage::Storage};
use icecore_lake::event::rows::UTC;
use icecore_schemas::service_table::ServiceTables;
use std::{
    num::NonZeroUsize,
    sync::{Arc, atomic::AtomicU64},
};
use tokio::time::Instant;

/// The catalog that every query sees; its only schema is the query's namespace.
pub const CATALOG: &str = "icecore";

/// Parts that one scan or aggregation runs in at the same time.
const TARGET_PARTITIONS: usize = 2;
/// Most bytes of footers and page indexes that are kept; those not used the longest go first.
const FOOTER_BYTES_MAX: usize = 64 << 20;
/// How many of the largest memory users an error names.
const CONSUMERS_NAMED: NonZeroUsize = NonZeroUsize::new(3).expect("it is not zero");

/// What sessions are made from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct QuerySessions {
    base: Arc<SessionState>,
    growth: Arc<FunctionMemory>,
    storage: Storage,
    manifests: ManifestCache,
    bloom_filters: BloomFilters,
    tables: ServiceTables,
}

impl QuerySessions {
    /// Sessions over the warehouse's files, which share memory and caches of file metadata. Nothing
    /// is spilled to disk.
    ///
    /// # Panics
    /// Never: the options of DataFusion's runtime are constants that it takes.
    #[must_use]
    pub fn new(memory_bytes_max: usize, storage: Storage, tables: ServiceTables) -> Self {
        let runtime =
            runtime(memory_bytes_max, &storage).expect("the runtime's options are constants");
        let mut base = SessionStateBuilder::new_with_default_features()
            .with_runtime_env(Arc::new(runtime))
            .with_type_planner(Arc::new(MicrosecondTypes))
            .with_relation_planners(vec![Arc::new(ListPlanner)])
            .with_optimizer_rules(optimizer_rules())
            .with_physical_optimizer_rules(
                PhysicalOptimizer::new().rules.iter().map(pushdown::by_unique_names).collect(),
            )
            .build();
        allowed::keep_only(&mut base);
        // Those of ours take the place of others, with their aliases: under one of them the other would
        // stay, and come back when a session is made from this one.
        let fits = "functions are taken out and put in without a conflict";
        let drawing = draws::numbered(base.scalar_functions().values().map(Arc::clone));
        let plain = plain::plain(base.scalar_functions().values().map(Arc::clone));
        let scalar = functions::all().into_iter().chain(time::all()).chain(plain);
        let scalar = scalar
            .chain([uuid::function(), SameTypeKind::Opaque.function()])
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
        base.add_analyzer_rule(Arc::new(CheckedArithmetic));
        base.register_expr_planner(Arc::new(ComparisonTypes)).expect(fits);
        let growth = FunctionMemory::new(Arc::clone(&base.runtime_env().memory_pool));
        let (manifests, bloom_filters) = (ManifestCache::default(), BloomFilters::default());
        Self { base: Arc::new(base), growth, storage, manifests, bloom_filters, tables }
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
        Ok(table.with_bloom_filters(self.bloom_filters.clone()))
    }

    /// The names of all columns that `view` has, with those of fields of structs.
    ///
    /// # Errors
    /// [`SqlError::Internal`] when a table's schema has no Arrow form.
    pub fn columns(&self, view: &View) -> Result<Vec<String>, SqlError> {
        let mut names = Vec::new();
        for table in &view.tables {
            let provider = self.table(table, &Arc::default()).map_err(|cause| broken(&cause))?;
            names.extend(provider.column_names());
        }
        Ok(names)
    }

    /// A session that sees `view`, for a query that ends at `deadline` and whose files are counted.
    ///
    /// # Errors
    /// [`SqlError::Internal`] when a table's schema has no Arrow form.
    pub fn open(
        &self,
        view: &View,
        counts: &Arc<FileCounts>,
        deadline: Instant,
    ) -> Result<SessionContext, SqlError> {
        self.growth.sweep();
        let namespace = &view.namespace;
        let schema = MemorySchemaProvider::new();
        for table in &view.tables {
            let provider = self.table(table, counts).map_err(|cause| broken(&cause))?;
            let provider = provider.planned_until(deadline);
            schema
                .register_table(table.name.clone(), Arc::new(provider))
                .map_err(|cause| broken(&cause))?;
        }
        for (name, error) in &view.unreadable {
            let provider = UnreadableTable::new(error.clone());
            schema
                .register_table(name.clone(), Arc::new(provider))
                .map_err(|cause| broken(&cause))?;
        }
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema(namespace, Arc::new(schema)).map_err(|cause| broken(&cause))?;
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
        // With it, DataFusion 54 loses rows whose key is NULL (apache/datafusion#23103, #23126, #22964).
        config.options_mut().optimizer.enable_join_dynamic_filter_pushdown = false;
        // It would leave out rows by the greatest value so far of one column that `min` of an expression
        // beside it still needs (DataFusion 54; no release mends it).
        config.options_mut().optimizer.enable_aggregate_dynamic_filter_pushdown = false;
        // It would leave out groups whose `max` or `min` is NULL (DataFusion 54; no release mends it).
        config.options_mut().optimizer.enable_topk_aggregation = false;
        // It fails for a DISTINCT of window functions with LIMIT (apache/datafusion#25350).
        config.options_mut().optimizer.enable_distinct_aggregation_soft_limit = false;
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
/// answer one row too many (no release of DataFusion mends it).
fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    rules.retain(|rule| rule.name() != "eliminate_group_by_constant");
    rules
}

fn runtime(memory_bytes_max: usize, storage: &Storage) -> Result<RuntimeEnv, DataFusionError> {
    let pool = TrackConsumersPool::new(GreedyMemoryPool::new(memory_bytes_max), CONSUMERS_NAMED);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(
            DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
        )
        .with_metadata_cache_limit(FOOTER_BYTES_MAX)
        .build()?;
    let (base, store) = storage.query_store();
    runtime.register_object_store(&base, store);
    Ok(runtime)
}

fn broken(cause: &DataFusionError) -> SqlError {
    tracing::error!(error = cause as &dyn std::error::Error, "cannot create a session");
    SqlError::Internal("the tables cannot be opened".to_owned())
}
