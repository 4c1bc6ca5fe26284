//! The catalog's calls, for the service in process and for [`crate::rest`].
//!
//! Its one invariant: a table's pointer moves only from the version a commit was built on, so no
//! commit is ever lost or half visible. A new metadata file is durable before the pointer moves.

mod admin;
mod batch_commit;
mod cache;
mod change;
mod commit_queue;
mod commit_work;
mod create;
mod due_files;
mod evolution;
mod first;
mod hidden_rows;
mod keyed;
mod leases;
mod live;
mod load;
pub(crate) mod location_rules;
mod locks;
mod managed_table_rules;
mod manifest_check;
pub mod metadata_check;
mod name_list;
mod namespaces;
mod orphans;
mod property_rules;
mod read;
mod rebased;
pub mod recovery;
mod register;
mod tables;
mod thin;
mod trash;
mod upkeep;
mod views;
mod write;
mod writers;

pub use admin::{
    RefKind, Refs, TableStats,
    shared_tags::{NewTag, TagChange},
};
pub(crate) use create::folder_of;
pub use first::FirstAppend;
pub use keyed::{KeyedRequest, KeyedViewRequest};
pub use leases::SNAPSHOT_LEASE_MS;
pub use name_list::ListedThrough;
pub use namespaces::Namespaces;
pub use orphans::{
    ORPHAN_GRACE_MIN_MS, OrphanFile, OrphanSearch, Orphans, QueuedOrphans, folders::OrphanFolder,
};
pub use tables::{LoadedTable, Tables};
pub use thin::{ExpiryRequest, HistoryExpiry};
pub use trash::{DropPolicy, Trash};
pub use upkeep::{
    DueDeletions, EVENT_BYTES_KEPT, EVENTS_KEPT, REQUEST_LIFETIME_MS, REQUESTS_WITHOUT_EFFECT_KEPT,
    Upkeep, WaitingDeletions,
};

pub use crate::commit::CreateTable;

use crate::{
    audit::AuditedCall,
    clock::NowMs,
    columns, commit,
    error::CatalogError,
    metadata_file::cache::EncodedParts,
    metastore::{self, ChangeOrigin, Metastore, RequestKey},
    retention,
    storage::Storage,
};
use cache::MetadataCache;
use commit_queue::CommitQueues;
use iceberg::{
    TableIdent, TableRequirement, TableUpdate,
    spec::{PrimitiveType, TableMetadata, ViewMetadata},
};
use locks::TableLocks;
use std::sync::Arc;
pub use views::{CreateView, LoadedView, ViewChange, Views};
pub use writers::WRITER_PAUSE_MS;

/// How far a time that is asked for may be ahead of this process' clock, in ms: clocks differ, and
/// whoever asks for "now" by another one asks for the newest.
pub const AHEAD_MAX_MS: i64 = 5_000;
/// Changes to one table, all or none.
#[derive(Clone, Debug)]
pub struct TableChange {
    /// Which table.
    pub table: TableIdent,
    /// What must hold.
    pub requirements: Vec<TableRequirement>,
    /// What changes, in order.
    pub updates: Vec<TableUpdate>,
    /// Whether its sender may not take snapshots, branches or tags from the service's tables.
    pub keeps_history: bool,
}

/// What differs from catalog to catalog.
#[derive(Clone, Debug)]
pub struct CatalogOptions {
    /// What dropping a table means.
    pub drop_policy: DropPolicy,
    /// Whether a commit is refused when a manifest that it brings names a file outside of the
    /// table's own location, or when it moves a table that has files.
    pub checks_contents: bool,
    /// Whether a load looks for the metadata file first.
    pub verify_at_load: VerifyAtLoad,
    /// How long a snapshot stays that was current when a client loaded its table, ms; 0 for not at all.
    pub snapshot_lease_ms: i64,
    /// Whether the service shows rows of its tables by who asks: then keys for their files are for `admin` alone.
    pub hides_rows: bool,
    /// What clients leave to the service that the catalog is part of.
    pub reserved: ReservedNames,
}

/// What clients leave to the service that the catalog is part of: it makes its tables and
/// namespaces by calls of its own.
#[derive(Clone, Debug, Default)]
pub struct ReservedNames {
    /// Properties of namespaces that no client sets or removes.
    pub namespace_properties: &'static [&'static str],
    /// Names of the top level that no client gives a new namespace, in lower case.
    pub namespaces: &'static [&'static str],
    /// Tables whose columns clients leave as they are, where they have the mark [`retention::MANAGED`].
    /// No view gets their names.
    pub tables: Arc<[OwnTable]>,
    /// What values the properties of tables may have that the service reads; none for any.
    pub property_fault: Option<PropertyFault>,
}

/// Why a table with this metadata may not have a property (key, value), as what is said of the table; none where it may.
pub type PropertyFault = fn(&TableMetadata, &str, &str) -> Option<String>;

/// A table of the service, in every namespace.
#[derive(Clone, Debug)]
pub struct OwnTable {
    /// Its name.
    pub name: &'static str,
    /// Its columns, as far as a table has them.
    pub columns: Vec<OwnColumn>,
}

/// A column of the service in its table.
#[derive(Clone, Debug)]
pub struct OwnColumn {
    /// Its field id; none for one that is found by its name.
    pub id: Option<i32>,
    /// Its name.
    pub name: &'static str,
    /// The types that it may have. A column of this name and another type is not the service's.
    pub types: Vec<PrimitiveType>,
}

/// When a client that loads a table or view is told that its metadata file is gone, even if this
/// process still knows what was in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyAtLoad {
    /// At each load.
    Always,
    /// At each load from a local disk, where looking costs nothing; on S3 it costs a request for
    /// each statement of each client.
    OnLocalDisk,
    /// Only when the file is read.
    Never,
}

impl Default for CatalogOptions {
    /// The default [`DropPolicy`], contents are checked, files are looked for on local disks, leases
    /// last [`SNAPSHOT_LEASE_MS`], and nothing is reserved.
    fn default() -> Self {
        Self {
            drop_policy: DropPolicy::default(),
            checks_contents: true,
            verify_at_load: VerifyAtLoad::OnLocalDisk,
            snapshot_lease_ms: SNAPSHOT_LEASE_MS,
            hides_rows: false,
            reserved: ReservedNames::default(),
        }
    }
}

/// What separates the levels of a namespace in a URL unless something else is announced, and what
/// is understood always.
pub const NAMESPACE_SEPARATOR: &str = metastore::SEPARATOR;

/// The catalog. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    inner: Arc<CatalogInner>,
    origin: ChangeOrigin,
    /// The metastore, for changes of this origin.
    metastore: Metastore,
}

struct CatalogInner {
    name: String,
    namespace_separator: String,
    storage: Storage,
    metastore: Metastore,
    now: NowMs,
    cache: MetadataCache<TableMetadata>,
    /// With the very metadata that it belongs to.
    parts_cache: MetadataCache<(Arc<TableMetadata>, Arc<EncodedParts>)>,
    view_cache: MetadataCache<ViewMetadata>,
    locks: TableLocks,
    options: CatalogOptions,
    seen: manifest_check::CheckedManifests,
    lists: manifest_check::ManifestLists,
    queues: CommitQueues,
    overgrown: thin::OvergrownTables,
    leases: leases::WrittenLeases,
    read_tables: due_files::ReadTables,
    writers: writers::NotedWriters,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

impl Catalog {
    /// A catalog named `name` (what clients call the warehouse) over these stores.
    #[must_use]
    pub fn new(name: &str, storage: Storage, metastore: Metastore, now: NowMs) -> Self {
        Self::with_options(name, storage, metastore, now, CatalogOptions::default())
    }

    /// A catalog that does not do everything as usual.
    #[must_use]
    pub fn with_options(
        name: &str,
        storage: Storage,
        metastore: Metastore,
        now: NowMs,
        options: CatalogOptions,
    ) -> Self {
        let origin = ChangeOrigin::anonymous(Arc::clone(&now));
        let inner = CatalogInner {
            name: name.to_owned(),
            namespace_separator: NAMESPACE_SEPARATOR.to_owned(),
            storage,
            metastore,
            now,
            cache: MetadataCache::default(),
            parts_cache: MetadataCache::default(),
            view_cache: MetadataCache::default(),
            locks: TableLocks::new(),
            options,
            seen: manifest_check::CheckedManifests::default(),
            lists: manifest_check::ManifestLists::default(),
            queues: CommitQueues::default(),
            overgrown: thin::OvergrownTables::default(),
            leases: leases::WrittenLeases::default(),
            read_tables: due_files::ReadTables::default(),
            writers: writers::NotedWriters::default(),
        };
        let metastore = inner.metastore.on_behalf_of(origin.clone());
        Self { inner: Arc::new(inner), origin, metastore }
    }

    /// The same catalog for changes that `actor` asks for.
    #[must_use]
    pub fn on_behalf_of(&self, actor: &str) -> Self {
        self.with_origin(ChangeOrigin { actor: actor.into(), ..self.origin.clone() })
    }

    /// The same catalog for changes that a call asks for, whose record is written with the first.
    #[must_use]
    pub fn for_call(&self, call: &Arc<AuditedCall>) -> Self {
        let (actor, call) = (call.principal().into(), Some(Arc::clone(call)));
        self.with_origin(ChangeOrigin { actor, call, ..self.origin.clone() })
    }

    /// The same catalog for the one change that a request makes.
    #[must_use]
    pub(crate) fn for_request(&self, request: RequestKey) -> Self {
        self.with_origin(ChangeOrigin { request: Some(Arc::new(request)), ..self.origin.clone() })
    }

    fn with_origin(&self, origin: ChangeOrigin) -> Self {
        let metastore = self.inner.metastore.on_behalf_of(origin.clone());
        Self { inner: Arc::clone(&self.inner), origin, metastore }
    }

    /// Who asks for changes.
    #[must_use]
    pub fn actor(&self) -> &str {
        &self.origin.actor
    }

    /// The same catalog, announcing another separator of a namespace's levels in URLs: for clients
    /// behind a proxy that refuses `%1F`. A level that holds it can no longer be named.
    ///
    /// # Panics
    /// When the catalog was cloned before.
    #[must_use]
    pub fn with_namespace_separator(mut self, separator: &str) -> Self {
        let inner = Arc::get_mut(&mut self.inner).expect("a catalog is shared once it is complete");
        separator.clone_into(&mut inner.namespace_separator);
        self
    }

    /// What separates the levels of a namespace in URLs, beside [`NAMESPACE_SEPARATOR`].
    #[must_use]
    pub fn namespace_separator(&self) -> &str {
        &self.inner.namespace_separator
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
    pub fn metastore(&self) -> &Metastore {
        &self.metastore
    }

    /// Everything about the places that a client's commit names, and about whose table it is.
    async fn check_commit(
        &self,
        table: &TableIdent,
        base: Option<&TableMetadata>,
        new: &TableMetadata,
        updates: &[TableUpdate],
    ) -> Result<(), CatalogError> {
        if !base.is_some_and(retention::is_managed) {
            managed_table_rules::check_is_foreign(updates)?;
        }
        managed_table_rules::check(table, &self.inner.options.reserved.tables, base, new)?;
        property_rules::check(table, self.inner.options.reserved.property_fault, base, new)?;
        property_rules::check_policies(table, base, updates)?;
        columns::check(base, new, updates)?;
        commit::check_set_names(updates)?;
        commit::check_time(base, updates, self.now_ms())?;
        location_rules::check(&self.inner.storage, new, updates)?;
        if let (Some(base), true) = (base, self.inner.options.checks_contents) {
            location_rules::check_move(&self.inner.storage, base, new)?;
        }
        if base.is_none_or(|base| base.location() != new.location()) {
            self.free_location(new.location(), new.uuid()).await?;
        }
        if let Some(base) = base {
            commit::check_heads(base, updates)?;
        }
        self.check_named_files(new, updates).await?;
        self.check_contents(base, new, updates).await.map(drop)
    }

    /// The time that commits are dated with, ms since 1970.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        (self.inner.now)()
    }
}

/// Whether a metadata file could not be read because it is gone or broken.
fn is_of_file(cause: &CatalogError) -> bool {
    matches!(
        cause,
        CatalogError::MissingMetadata(_)
            | CatalogError::Iceberg { .. }
            | CatalogError::Invalid(_)
            | CatalogError::LocationForbidden(_)
    )
}

/// Says so, with what to do.
fn unreadable_file(location: &str, cause: &CatalogError) -> String {
    let what = match cause {
        CatalogError::MissingMetadata(_) => format!("its metadata file `{location}` is gone"),
        CatalogError::Invalid(text) => text.clone(),
        // The file may be whole: the warehouse is another one.
        CatalogError::LocationForbidden(_) => {
            return format!(
                "its metadata file `{location}` is outside the warehouse: start the server with \
                 the warehouse that contains it, or run `icecore catalog relocate` if the files \
                 were moved"
            );
        }
        // The reason names a column and its type where that is what cannot be read.
        CatalogError::Iceberg { source, .. } => {
            format!("its metadata file `{location}` is broken: {}", source.message())
        }
        _ => format!("its metadata file `{location}` is broken"),
    };
    format!("{what}; restore the file, or drop the table")
}

#[cfg(test)]
pub(crate) mod tests;
