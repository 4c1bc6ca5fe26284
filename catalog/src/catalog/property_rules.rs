//! Table properties that this server goes by, and policies of branches and tags.
//!
//! Its one invariant: a commit is refused only for values that it brings itself. Those that a table has already, from
//! before they were looked at or since it was registered with them, keep nobody from other changes.

use crate::{
    catalog::PropertyFault,
    commit::merge_order::{self, MERGE_ORDER},
    error::CatalogError,
    metadata_file::refs,
    retention::{self, expiry},
    snapshot::rebase::REBASE_APPENDS,
};
use iceberg::{
    TableIdent, TableUpdate,
    spec::{SnapshotRetention, TableMetadata},
};

/// Refuses a value that this server could not go by: it would leave the table alone for it, and say so where
/// few look. `own` tells of the properties that the service reads, which the catalog is part of.
pub(super) fn check(
    table: &TableIdent,
    own: Option<PropertyFault>,
    base: Option<&TableMetadata>,
    new: &TableMetadata,
) -> Result<(), CatalogError> {
    let is_set = |(key, value): &(&String, &String)| {
        base.is_none_or(|base| base.properties().get(*key) != Some(*value))
    };
    let set = new.properties().iter().filter(is_set);
    // The first one by its text, so that a commit of several is always told the same.
    let faults = set.filter_map(|(key, value)| {
        fault(new, key, value).or_else(|| own.and_then(|own| own(new, key, value)))
    });
    match faults.min() {
        Some(why) => Err(CatalogError::Invalid(format!("{table}: {why}"))),
        None => Ok(()),
    }
}

/// Refuses a policy of a branch or tag that no reader of Iceberg's Java library takes: it would read nothing of the
/// table any more.
pub(super) fn check_policies(
    table: &TableIdent,
    base: Option<&TableMetadata>,
    updates: &[TableUpdate],
) -> Result<(), CatalogError> {
    let mut wrong = updates.iter().filter_map(wrong_policy).peekable();
    if wrong.peek().is_none() {
        return Ok(());
    }
    // Those of before are dear to read, and nearly no commit needs them.
    let known = base.map(refs::of).unwrap_or_default();
    let is_new = |(name, retention): &(&str, &SnapshotRetention)| {
        known.get(*name).is_none_or(|known| known.retention != **retention)
    };
    match wrong.find(is_new) {
        Some((name, _)) => Err(CatalogError::Invalid(format!(
            "{table}: the policy of `{name}` has a number below 1: write min-snapshots-to-keep, \
             max-snapshot-age-ms and max-ref-age-ms from 1 on, or leave them out"
        ))),
        None => Ok(()),
    }
}

/// The branch or tag that an update gives a policy with a number below 1.
fn wrong_policy(update: &TableUpdate) -> Option<(&str, &SnapshotRetention)> {
    let TableUpdate::SetSnapshotRef { ref_name, reference } = update else { return None };
    let numbers = match &reference.retention {
        SnapshotRetention::Branch {
            min_snapshots_to_keep,
            max_snapshot_age_ms,
            max_ref_age_ms,
        } => [min_snapshots_to_keep.map(i64::from), *max_snapshot_age_ms, *max_ref_age_ms],
        SnapshotRetention::Tag { max_ref_age_ms } => [None, None, *max_ref_age_ms],
    };
    let is_wrong = numbers.into_iter().flatten().any(|number| number < 1);
    is_wrong.then_some((ref_name.as_str(), &reference.retention))
}

fn fault(table: &TableMetadata, key: &str, value: &str) -> Option<String> {
    if key == MERGE_ORDER && retention::is_managed(table) {
        return merge_order::columns(value, table.current_schema()).err();
    }
    if key == REBASE_APPENDS {
        return (!["true", "false"].contains(&value))
            .then(|| format!("its property `{key}` is `{value}`: write `true` or `false`"));
    }
    expiry::fault(key, value)
}
