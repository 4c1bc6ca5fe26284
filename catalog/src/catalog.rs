//! The catalog's calls, for the service in process and for [`crate::rest`].
//!
//! Its one invariant: a table's pointer moves only from the version a commit was built on, so no
//! commit is ever lost or half visible. A new metadata file is durable before the pointer moves.

mod cache;
mod change;
mod create;
mod fold;
mod group;
mod jail;
mod load;
mod locks;
mod purge;
mod write;

pub use crate::metastore::NowMs;
use crate::{
    error::CatalogError,
    metastore::{Levels, Metastore, Origin, Properties, RequestKey, SnapshotRow, Watermark},
    storage::Storage,
};
use cache::MetadataCache;
use group::Queues;
use iceberg::{
    TableIdent, TableRequirement, TableUpdate,
    io::FileIO,
    spec::{Schema, SortOrder, TableMetadata, UnboundPartitionSpec},
};
use locks::TableLocks;
use std::{collections::HashMap, sync::Arc};

/// How long a repeat of a request is recognised by its `Idempotency-Key`: 30 minutes.
pub const REQUEST_LIFETIME_MS: i64 = 30 * 60 * 1000;
/// How much longer one is kept: several processes' clocks differ, and a repeat may be under way.
const REQUEST_SLACK_MS: i64 = 10 * 60 * 1000;
/// How many of the newest changes the events feed can go back to.
pub const EVENTS_KEPT: u64 = 100_000;

/// A table as it stands. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LoadedTable {
    /// Its current metadata.
    pub metadata: Arc<TableMetadata>,
    /// The file that holds it.
    pub metadata_location: String,
    /// The pointer's version.
    pub version: i64,
    /// How far our own log is in it.
    pub watermark: Option<Watermark>,
}

/// A new table.
#[derive(Clone, Debug)]
pub struct CreateTable {
    /// Its name.
    pub name: String,
    /// Its columns.
    pub schema: Schema,
    /// How it is partitioned; not at all when none.
    pub partition_spec: Option<UnboundPartitionSpec>,
    /// How its files are sorted; not at all when none.
    pub sort_order: Option<SortOrder>,
    /// Where it lies; inside the warehouse, ending in the table's uuid, when none.
    pub location: Option<String>,
    /// Its properties.
    pub properties: HashMap<String, String>,
}

/// Changes to one table, all or none.
#[derive(Clone, Debug)]
pub struct TableChange {
    /// Which table.
    pub table: TableIdent,
    /// What must hold.
    pub requirements: Vec<TableRequirement>,
    /// What changes, in order.
    pub updates: Vec<TableUpdate>,
}

/// The catalog. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
    origin: Origin,
    /// The metastore, for changes of this origin.
    metastore: Arc<dyn Metastore>,
}

struct Inner {
    name: String,
    storage: Storage,
    metastore: Arc<dyn Metastore>,
    now: NowMs,
    file_io: FileIO,
    cache: MetadataCache,
    locks: TableLocks,
    queues: Queues,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

impl Catalog {
    /// A catalog named `name` (what clients call the warehouse) over these stores.
    #[must_use]
    pub fn new(name: &str, storage: Storage, metastore: Arc<dyn Metastore>, now: NowMs) -> Self {
        let origin = Origin::anonymous(Arc::clone(&now));
        let inner = Inner {
            name: name.to_owned(),
            file_io: storage.file_io(),
            storage,
            metastore,
            now,
            cache: MetadataCache::default(),
            locks: TableLocks::new(),
            queues: Queues::default(),
        };
        let metastore = inner.metastore.on_behalf_of(origin.clone());
        Self { inner: Arc::new(inner), origin, metastore }
    }

    /// The same catalog for changes that `actor` asks for.
    #[must_use]
    pub fn on_behalf_of(&self, actor: &str) -> Self {
        self.with_origin(Origin { actor: actor.into(), ..self.origin.clone() })
    }

    /// The same catalog for the one change that a request makes.
    #[must_use]
    pub(crate) fn for_request(&self, request: RequestKey) -> Self {
        self.with_origin(Origin { request: Some(Arc::new(request)), ..self.origin.clone() })
    }

    fn with_origin(&self, origin: Origin) -> Self {
        let metastore = self.inner.metastore.on_behalf_of(origin.clone());
        Self { inner: Arc::clone(&self.inner), origin, metastore }
    }

    /// Who asks for changes.
    #[must_use]
    pub fn actor(&self) -> &str {
        &self.origin.actor
    }

    /// The warehouse's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The warehouse's files.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.inner.storage
    }

    /// The metastore, for calls that need no metadata file.
    #[must_use]
    pub fn metastore(&self) -> &dyn Metastore {
        self.metastore.as_ref()
    }

    /// Adds a namespace with these properties if it is not there, and gives its properties.
    /// Namespaces above it that are missing are added without any.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn ensure_namespace(
        &self,
        levels: &Levels,
        properties: &Properties,
    ) -> Result<Properties, CatalogError> {
        let metastore = self.metastore();
        if let Some(found) = metastore.namespace(levels).await? {
            return Ok(found);
        }
        let none = Properties::new();
        for depth in 1..=levels.len() {
            let properties = if depth == levels.len() { properties } else { &none };
            match metastore.create_namespace(&levels[..depth].to_vec(), properties).await {
                Ok(()) | Err(CatalogError::AlreadyExists(_)) => (),
                Err(cause) => return Err(cause),
            }
        }
        let found = metastore.namespace(levels).await?;
        found.ok_or_else(|| CatalogError::NoSuchNamespace(levels.join(".")))
    }

    /// Gives a table another name or namespace. Its files stay where they are.
    ///
    /// # Errors
    /// `NoSuchTable`, `NoSuchNamespace` for the target's, `AlreadyExists`.
    pub async fn rename_table(
        &self,
        from: &TableIdent,
        to: &TableIdent,
    ) -> Result<(), CatalogError> {
        create::check_name(&to.name)?;
        let (catalog, from, to) = (self.clone(), from.clone(), to.clone());
        self.to_the_end(async move {
            let from = (from.namespace.as_ref(), from.name.as_str());
            catalog.metastore().rename_table(from, (to.namespace.as_ref(), &to.name)).await
        })
        .await
    }

    /// Forgets requests that no client repeats any more, and old changes.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn forget_records(&self) -> Result<(), CatalogError> {
        let before_ms = self.now_ms() - REQUEST_LIFETIME_MS - REQUEST_SLACK_MS;
        self.metastore().forget_records(before_ms, EVENTS_KEPT).await
    }

    /// Snapshot index of a table, oldest first.
    ///
    /// # Errors
    /// `NoSuchTable`, `Metastore`.
    pub async fn snapshots(&self, table: &TableIdent) -> Result<Vec<SnapshotRow>, CatalogError> {
        let row = self.metastore().table(table.namespace.as_ref(), &table.name).await?;
        let row = row.ok_or_else(|| CatalogError::NoSuchTable(table.to_string()))?;
        self.metastore().snapshots(row.uuid).await
    }

    fn now_ms(&self) -> i64 {
        (self.inner.now)()
    }
}

#[cfg(test)]
pub(crate) mod tests;
