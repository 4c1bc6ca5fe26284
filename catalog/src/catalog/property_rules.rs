//! Table properties that this server goes by.
//!
//! Its one invariant: a commit is refused only for values that it brings itself. Those that a table has already, from
//! before they were looked at or since it was registered with them, keep nobody from other changes.

use crate::{
    commit::merge_order::{self, MERGE_ORDER},
    error::CatalogError,
    retention::{self, expiry},
};
use iceberg::{TableIdent, spec::TableMetadata};

/// Refuses a value that this server could not go by: it would leave the table alone for it, and say so where
/// few look.
pub(super) fn check(
    table: &TableIdent,
    base: Option<&TableMetadata>,
    new: &TableMetadata,
) -> Result<(), CatalogError> {
    let is_set = |(key, value): &(&String, &String)| {
        base.is_none_or(|base| base.properties().get(*key) != Some(*value))
    };
    let set = new.properties().iter().filter(is_set);
    // The first one by its text, so that a commit of several is always told the same.
    match set.filter_map(|(key, value)| fault(new, key, value)).min() {
        Some(why) => Err(CatalogError::Invalid(format!("{table}: {why}"))),
        None => Ok(()),
    }
}

fn fault(table: &TableMetadata, key: &str, value: &str) -> Option<String> {
    if key == MERGE_ORDER && retention::is_managed(table) {
        return merge_order::columns(value, table.current_schema()).err();
    }
    expiry::fault(key, value)
}
