//! The tables `cdc_…` of a namespace: which collection each is of, and how far it has the events.

use crate::http::{error::ApiError, points::ReadCaller};
use icecore_catalog::{error::CatalogError, retention};
use icecore_lake::{
    collection::TABLE_PREFIX,
    table::{documents::AppliedChanges, schema::foreign_ident, typed_columns::TypedColumns},
};
use std::collections::BTreeMap;

/// Most tables that are looked at: a namespace has fewer collections.
const BASES_MAX: usize = 2000;

/// The table of a collection.
#[derive(Clone, Copy, Debug)]
pub(super) struct BaseTable {
    /// How far it has the events; none where no snapshot tells.
    pub(super) applied_seq: Option<u64>,
    /// Whether it has typed columns.
    pub(super) is_typed: bool,
}

/// The table of each collection that has one.
///
/// # Errors
/// The catalog's.
pub(super) async fn of_namespace(
    caller: ReadCaller<'_>,
) -> Result<BTreeMap<String, BaseTable>, ApiError> {
    let catalog = &caller.app.catalog;
    let names = match catalog.metastore().tables(&caller.levels.to_vec()).await {
        Ok(names) => names,
        // Its first events are on their way into tables.
        Err(CatalogError::NoSuchNamespace(_)) => Vec::new(),
        Err(cause) => return Err(cause.into()),
    };
    let mut bases = BTreeMap::new();
    for name in names.into_iter().filter(|name| name.starts_with(TABLE_PREFIX)).take(BASES_MAX) {
        let Some(ident) = foreign_ident(caller.levels, &name) else { continue };
        // One that is dropped meanwhile or cannot be read is none; who reads its collection hears of it.
        let Ok(table) = catalog.tables().load(&ident).await else { continue };
        let metadata = &table.metadata;
        let Some(collection) = retention::collection_of(metadata) else { continue };
        let applied = AppliedChanges::of(metadata, metadata.current_snapshot_id());
        let applied_seq = applied.map(|applied| applied.seq);
        let is_typed = !TypedColumns::of(metadata).is_empty();
        bases.insert(collection.to_owned(), BaseTable { applied_seq, is_typed });
    }
    Ok(bases)
}
