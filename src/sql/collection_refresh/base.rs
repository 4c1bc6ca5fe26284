//! The table of a collection as a refresh reads it, before it writes anything.

use crate::sql::writes::{WriteFailure, target::invalid};
use iceberg::{TableIdent, spec::TableMetadata};
use icecore_catalog::{
    catalog::{Catalog, LoadedTable},
    error::CatalogError,
    retention,
    scan::{Deadline, ManifestSource, manifests::ManifestCache},
    snapshot::NewSnapshot,
};
use icecore_engine::error::SqlError;
use icecore_lake::table::documents::{self, AppliedChanges, BucketFile};

/// Snapshot summary: the documents are to be made of events alone by the next refresh.
const SET_ASIDE: &str = "icecore.collection.set-aside";

/// Which collection, and where its table is.
pub(in crate::sql) struct CollectionPlace<'a> {
    pub(in crate::sql) levels: &'a [String],
    pub(in crate::sql) collection: &'a str,
    pub(in crate::sql) ident: TableIdent,
}

/// A collection's table as it was read.
pub(in crate::sql) struct ReadBase {
    pub(in crate::sql) table: LoadedTable,
    pub(in crate::sql) files: Vec<BucketFile>,
    pub(in crate::sql) applied: Option<AppliedChanges>,
}

impl ReadBase {
    /// The table of a collection; none where there is none yet.
    pub(in crate::sql) async fn load(
        catalog: &Catalog,
        place: &CollectionPlace<'_>,
    ) -> Result<Option<Self>, WriteFailure> {
        let table = match catalog.tables().load(&place.ident).await {
            Err(CatalogError::NoSuchTable(_)) => return Ok(None),
            found => found?,
        };
        if retention::collection_of(&table.metadata) != Some(place.collection) {
            let (ident, collection) = (&place.ident, place.collection);
            return Err(invalid(format!(
                "{ident} is another table than that of collection `{collection}`, which has its name: rename it"
            ))
            .into());
        }
        let head = table.metadata.current_snapshot_id();
        let applied = AppliedChanges::of(&table.metadata, head);
        let files = match head {
            Some(head) => {
                let cache = ManifestCache::default();
                let (storage, metadata) = (catalog.storage(), table.metadata.as_ref());
                let until = Deadline::NONE;
                let source = ManifestSource { storage, cache: &cache, metadata, until };
                let listed = Box::pin(documents::files(source, head)).await;
                listed.map_err(|cause| WriteFailure::Replaced(Box::new(cause)))?
            }
            None => Vec::new(),
        };
        Ok(Some(Self { table, files, applied }))
    }

    pub(in crate::sql) fn bucket_count(&self, ident: &TableIdent) -> Result<u32, WriteFailure> {
        bucket_count(ident, &self.table.metadata)
    }

    /// Whether all files are of as many buckets as new ones.
    pub(in crate::sql) fn has_buckets_of_now(&self) -> bool {
        let spec_id = self.table.metadata.default_partition_spec_id();
        self.files.iter().all(|file| file.spec_id == spec_id && file.bucket.is_some())
    }

    /// Whether all rows have the typed columns that the table has now.
    pub(in crate::sql) fn has_columns_of_now(&self) -> bool {
        let applied = self.applied.as_ref();
        applied.is_some_and(|applied| applied.has_columns_of_now(&self.table.metadata))
    }

    /// A snapshot behind this one that changes no row.
    pub(in crate::sql) fn without_files(&self) -> NewSnapshot {
        let metadata = &self.table.metadata;
        NewSnapshot {
            read: metadata.current_snapshot_id(),
            needs_head: true,
            table: Some(metadata.uuid()),
            ..NewSnapshot::default()
        }
    }
}

/// Has the rows of a table count for no documents, until a refresh has made them of events alone. Engines that read
/// the table see them meanwhile.
pub(in crate::sql) async fn set_aside(
    catalog: &Catalog,
    place: &CollectionPlace<'_>,
    base: ReadBase,
) -> Result<ReadBase, WriteFailure> {
    let summary = [(SET_ASIDE.to_owned(), "true".to_owned())].into();
    let new = NewSnapshot { summary, ..base.without_files() };
    let table = catalog.add_snapshot(&place.ident, new).await?;
    Ok(ReadBase { table, applied: None, ..base })
}

pub(in crate::sql) fn bucket_count(
    ident: &TableIdent,
    table: &TableMetadata,
) -> Result<u32, WriteFailure> {
    documents::bucket_count(table).ok_or_else(|| {
        let text = format!("{ident} is not partitioned by buckets of keys: repair the table");
        SqlError::Unreadable(text).into()
    })
}
