//! Which rows a token sees where `visibility.filter` is on: public ones, and those whose visibility a scope of
//! it names.
//!
//! Its one invariant: what cannot be told apart is not shown. A table of ours without the column has rows of every
//! visibility, and so have the metadata tables that count rows and list values.

use crate::sql::{Sql, view::collection_of};
use icecore_catalog::access::{Action, Principal, RowVisibility};
use icecore_engine::{
    error::SqlError,
    metadata_tables::MetadataTable,
    view::TableView,
    visibility::{PUBLIC, VISIBILITY_COLUMN, deciding_columns},
};
use icecore_schemas::service_table::RecordKind;

/// Values of the column in the rows of a namespace that `principal` sees, beside those where it is null; none for
/// every row.
pub(super) fn values_seen(principal: &Principal, levels: &[String]) -> Option<Vec<String>> {
    if principal.may(Action::Admin, levels) {
        return None;
    }
    let named = RowVisibility::ALL.into_iter();
    let named = named.filter(|rows| principal.may(Action::ReadRows(*rows), levels));
    Some(std::iter::once(PUBLIC).chain(named.map(RowVisibility::name)).map(str::to_owned).collect())
}

/// Whether a table says of its rows who may see them, in this state or another.
pub(super) fn is_told(table: &TableView) -> bool {
    match table.ours {
        Some(RecordKind::Events) => true,
        Some(_) => table.metadata.as_ref().is_some_and(|metadata| {
            metadata.schemas_iter().any(|schema| schema.field_by_name(VISIBILITY_COLUMN).is_some())
        }),
        None => match deciding_columns(table) {
            Ok(columns) => !columns.is_empty(),
            Err(_) => true,
        },
    }
}

/// Refuses a table whose rows do not say who may see them: one of ours without the column, the base of a collection,
/// or a state of another one that lacks the column.
pub(super) fn check_table(table: &TableView) -> Result<(), SqlError> {
    match table.ours {
        // Its documents are made of events of every visibility.
        None if collection_of(table).is_some() => Err(of_all(&table.name)),
        None => deciding_columns(table).map(drop),
        Some(_) if is_told(table) => Ok(()),
        Some(_) => Err(of_all(&table.name)),
    }
}

/// Refuses metadata tables that tell of single rows: how many a file or a partition has, and between which values.
pub(super) fn check_metadata(table: &TableView, kind: MetadataTable) -> Result<(), SqlError> {
    match kind {
        MetadataTable::Snapshots
        | MetadataTable::History
        | MetadataTable::Refs
        | MetadataTable::MetadataLogEntries => Ok(()),
        MetadataTable::Files
        | MetadataTable::AllFiles
        | MetadataTable::Manifests
        | MetadataTable::Partitions
        | MetadataTable::Entries => Err(of_all(&kind.of(&table.name))),
    }
}

pub(super) fn of_all(table: &str) -> SqlError {
    SqlError::Forbidden(format!(
        "`{table}` tells of rows of every visibility (visibility.filter is on): it needs the scope `admin`"
    ))
}

impl Sql {
    /// Refuses a table with rows of every visibility to who does not see all of them.
    ///
    /// # Errors
    /// [`SqlError::Forbidden`]
    pub fn check_sees_all(
        &self,
        principal: &Principal,
        levels: &[String],
        table: &str,
    ) -> Result<(), SqlError> {
        match self.inner.options.filters_visibility && values_seen(principal, levels).is_some() {
            true => Err(of_all(table)),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use icecore_catalog::access::AccessScope;

    fn seen(scopes: &[&str]) -> Option<String> {
        let scopes = scopes.iter().map(|scope| scope.parse::<AccessScope>().unwrap()).collect();
        let principal = Principal::new("token:a", scopes, None);
        values_seen(&principal, &["shop".to_owned()]).map(|values| values.join(" "))
    }

    #[test]
    fn a_scope_names_the_rows_that_are_seen() {
        assert_eq!(seen(&["read:shop"]).unwrap(), "public");
        assert_eq!(seen(&["write:*"]).unwrap(), "public");
        assert_eq!(seen(&["read.team:shop", "read.user:bank"]).unwrap(), "public team");
        assert_eq!(seen(&["read.user:*", "read.org:shop"]).unwrap(), "public user org");
        assert_eq!(seen(&["admin:bank", "read:shop"]).unwrap(), "public");
        assert_eq!(seen(&["admin:shop"]), None);
    }
}
