//! A DataFusion session for one query: this namespace's tables and nothing else.
//!
//! What costs time to set up (functions, optimizer rules) is made once and shared; what a query may
//! see is made for each query.

use crate::sql::{
    SqlError, SqlOptions, functions, guard::FORBIDDEN_FUNCTIONS, provider::Table, view::View,
};
use datafusion::{
    catalog::{
        CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
        MemorySchemaProvider, SchemaProvider,
    },
    error::DataFusionError,
    execution::{
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::{GreedyMemoryPool, TrackConsumersPool},
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
        session_state::{SessionState, SessionStateBuilder},
    },
    prelude::{SessionConfig, SessionContext},
};
use icecore_catalog::{scan::manifests::ManifestCache, storage::Storage};
use std::{num::NonZeroUsize, sync::Arc};

/// The catalog that every query sees; its only schema is the query's namespace.
pub const CATALOG: &str = "icecore";

/// Parts that one scan or aggregation runs in at the same time.
const TARGET_PARTITIONS: usize = 2;
/// How many of the largest memory users an error names.
const CONSUMERS_NAMED: NonZeroUsize = NonZeroUsize::new(3).expect("it is not zero");

/// What sessions are made from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sessions {
    base: Arc<SessionState>,
    storage: Storage,
    manifests: ManifestCache,
}

impl Sessions {
    /// Sessions over the warehouse's files, which share memory and caches of file metadata. Nothing
    /// is spilled to disk.
    ///
    /// # Panics
    /// Never: the options of DataFusion's runtime are constants that it takes.
    #[must_use]
    pub fn new(options: &SqlOptions, storage: Storage) -> Self {
        let runtime = runtime(options, &storage).expect("the runtime's options are constants");
        let mut base = SessionStateBuilder::new_with_default_features()
            .with_runtime_env(Arc::new(runtime))
            .build();
        for name in FORBIDDEN_FUNCTIONS {
            // One that this version of DataFusion does not have is as good as removed.
            let absent = "removing a function that is not there is no error";
            datafusion::execution::FunctionRegistry::deregister_udf(&mut base, name).expect(absent);
            base.deregister_udtf(name).expect(absent);
        }
        for function in functions::all() {
            let fits = "a function with another name is no conflict";
            datafusion::execution::FunctionRegistry::register_udf(&mut base, Arc::new(function))
                .expect(fits);
        }
        Self { base: Arc::new(base), storage, manifests: ManifestCache::default() }
    }

    /// A session that sees `view`.
    ///
    /// # Errors
    /// [`SqlError::Internal`] when a table's schema has no Arrow form.
    pub fn open(&self, view: &View) -> Result<SessionContext, SqlError> {
        let namespace = view.namespace.name();
        let schema = MemorySchemaProvider::new();
        for table in &view.tables {
            let provider = Table::new(table, self.storage.clone(), self.manifests.clone())
                .map_err(|cause| broken(&cause))?;
            schema
                .register_table(table.name.clone(), Arc::new(provider))
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
        config.options_mut().execution.time_zone = Some("+00:00".to_owned());
        let state = SessionStateBuilder::new_from_existing(self.base.as_ref().clone())
            .with_config(config)
            .with_catalog_list(Arc::new(catalogs))
            .build();
        Ok(SessionContext::new_with_state(state))
    }
}

fn runtime(options: &SqlOptions, storage: &Storage) -> Result<RuntimeEnv, DataFusionError> {
    let pool =
        TrackConsumersPool::new(GreedyMemoryPool::new(options.memory_bytes_max), CONSUMERS_NAMED);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(
            DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
        )
        .build()?;
    let (base, store) = storage.object_store();
    runtime.register_object_store(&base, store);
    Ok(runtime)
}

fn broken(cause: &DataFusionError) -> SqlError {
    tracing::error!(error = cause as &dyn std::error::Error, "a session cannot be made");
    SqlError::Internal("the tables cannot be opened".to_owned())
}
