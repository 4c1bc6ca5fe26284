//! The table of a collection as a refresh reads it, before it writes anything.

use crate::sql::{
    collection_refresh::CommitCheck,
    writes::{WriteFailure, target::invalid},
};
use iceberg::{TableIdent, spec::TableMetadata};
use icecore_catalog::{
    catalog::{Catalog, LoadedTable},
    error::CatalogError,
    retention,
    scan::{
        Deadline, ManifestSource,
        manifests::{ManifestCache, PlannedFile},
    },
    snapshot::{BranchFork, NewSnapshot},
};
use icecore_engine::error::SqlError;
use icecore_lake::{
    collection::COLUMNS,
    table::{
        documents::{self, AppliedChanges, BucketFile, ReadBranch},
        typed_columns::TypedColumns,
    },
};
use std::{collections::BTreeMap, sync::Arc};

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
    /// The snapshot whose files these are, which the next one is put on.
    pub(in crate::sql) snapshot: Option<i64>,
    pub(in crate::sql) files: Vec<BucketFile>,
    pub(in crate::sql) applied: Option<AppliedChanges>,
    /// The branch of the table that is written to; none for `main`.
    pub(in crate::sql) branch: Option<TargetBranch>,
}

/// A branch of a collection's table that is written to.
pub(in crate::sql) struct TargetBranch {
    /// The branch of `events` that its documents are read of.
    pub(in crate::sql) read: ReadBranch,
    /// Where it begins anew with the snapshot that was read; none where that is its head.
    pub(in crate::sql) fork: Option<BranchFork>,
    /// What is asked before a commit to it.
    pub(in crate::sql) check: CommitCheck,
}

/// Where a refresh of a table begins.
pub(in crate::sql) struct RefreshStart {
    pub(in crate::sql) snapshot: Option<i64>,
    pub(in crate::sql) applied: Option<AppliedChanges>,
    pub(in crate::sql) branch: Option<TargetBranch>,
}

impl ReadBase {
    /// The table of a collection, at the head of `main`; none where there is none yet.
    pub(in crate::sql) async fn load(
        catalog: &Catalog,
        place: &CollectionPlace<'_>,
    ) -> Result<Option<Self>, WriteFailure> {
        let Some(table) = load_table(catalog, place).await? else { return Ok(None) };
        let snapshot = table.metadata.current_snapshot_id();
        let applied = AppliedChanges::of(&table.metadata, snapshot);
        let start = RefreshStart { snapshot, applied, branch: None };
        Box::pin(Self::at(catalog, table, start)).await.map(Some)
    }

    /// A table as one of its snapshots has it.
    pub(in crate::sql) async fn at(
        catalog: &Catalog,
        table: LoadedTable,
        RefreshStart { snapshot, applied, branch }: RefreshStart,
    ) -> Result<Self, WriteFailure> {
        let files = match snapshot {
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
        Ok(Self { table, snapshot, files, applied, branch })
    }

    /// The branch whose events make the documents; none for `main`.
    pub(in crate::sql) fn branch_name(&self) -> Option<&str> {
        self.branch.as_ref().map(|branch| branch.read.name.as_str())
    }

    /// What the next snapshot says of its rows.
    pub(in crate::sql) fn summary_of(&self, applied: &AppliedChanges) -> BTreeMap<String, String> {
        let mut entries = applied.summary();
        entries.extend(self.branch.iter().flat_map(|branch| branch.read.summary()));
        entries
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

    /// The file of each bucket that has documents; none where a bucket has several, or where what is to be written of
    /// a document is not in the file as it is.
    pub(in crate::sql) fn files_of_buckets(&self) -> Option<BTreeMap<i32, Arc<PlannedFile>>> {
        let metadata = &self.table.metadata;
        let typed = TypedColumns::of(metadata);
        let known = COLUMNS.iter().map(|column| column.name).chain(typed.names());
        let fields = metadata.current_schema().as_struct().fields();
        let is_known = known.eq(fields.iter().map(|field| field.name.as_str()));
        if !is_known || !self.has_buckets_of_now() || !self.has_columns_of_now() {
            return None;
        }
        let mut files = BTreeMap::new();
        for file in &self.files {
            let bucket = file.bucket.filter(|_| !file.has_deletes)?;
            if files.insert(bucket, Arc::clone(&file.planned)).is_some() {
                return None;
            }
        }
        Some(files)
    }

    /// A snapshot behind this one that changes no row.
    pub(in crate::sql) fn without_files(&self) -> NewSnapshot {
        let fork = self.branch.as_ref().and_then(|branch| branch.fork);
        NewSnapshot {
            read: self.snapshot,
            needs_head: fork.is_none(),
            fork,
            branch: self.branch_name().map(str::to_owned),
            table: Some(self.table.metadata.uuid()),
            ..NewSnapshot::default()
        }
    }
}

/// The table of a collection; none where there is none yet.
pub(in crate::sql) async fn load_table(
    catalog: &Catalog,
    place: &CollectionPlace<'_>,
) -> Result<Option<LoadedTable>, WriteFailure> {
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
    Ok(Some(table))
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
    let snapshot = table.metadata.current_snapshot_id();
    Ok(ReadBase { table, snapshot, applied: None, ..base })
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
