//! Which of the queries of a catalog's view is read: one view may have one for each dialect.

use iceberg::{
    NamespaceIdent, TableIdent,
    spec::{SqlViewRepresentation, ViewMetadata, ViewRepresentation},
};
use icecore_catalog::{catalog::Catalog, error::CatalogError, metastore::Levels};
use icecore_engine::{
    catalog_views,
    collections::is_path,
    error::SqlError,
    guard::{self, CheckedStatement},
    metadata_tables::MetadataTable,
};

/// Dialects of a view's query, the nearest to ours first. Others come last.
const DIALECTS: &[&str] = &["icecore", "datafusion", "duckdb", "trino", "spark"];

/// Why a view with a version of a table is none.
pub(super) const VERSION: &str = "it gives a table a version; write its query";

/// The query of a view, in the nearest dialect that is read here.
///
/// # Errors
/// [`SqlError::Invalid`] says why the nearest is not.
pub(super) fn of(metadata: &ViewMetadata) -> Result<CheckedStatement, SqlError> {
    let mut queries: Vec<_> = texts(metadata).collect();
    queries.sort_by_key(|query| {
        let known = DIALECTS.iter().position(|name| name.eq_ignore_ascii_case(&query.dialect));
        known.unwrap_or(DIALECTS.len())
    });
    let mut refused = None;
    for query in queries {
        let checked = guard::check(&query.sql);
        let same = || catalog_views::check_dialect(&query.dialect, &query.sql);
        let reason = match checked.and_then(|checked| same().map(|()| checked)) {
            Ok(checked) => match unread(&checked) {
                None => return Ok(checked),
                Some(reason) => reason.to_owned(),
            },
            Err(cause) => format!("its query in the dialect `{}`: {cause}", query.dialect),
        };
        refused.get_or_insert(reason);
    }
    Err(SqlError::Invalid(refused.unwrap_or_else(|| "it has no query in SQL".to_owned())))
}

/// The queries of a view, one for each dialect.
pub(super) fn texts(metadata: &ViewMetadata) -> impl Iterator<Item = &SqlViewRepresentation> {
    let representations = metadata.current_version().representations().iter();
    representations.map(|ViewRepresentation::Sql(query)| query)
}

/// Why a statement is no query of a view, although it is valid.
pub(super) fn unread(checked: &CheckedStatement) -> Option<&'static str> {
    if !checked.is_query || checked.placeholders != 0 {
        return Some("its text is no query without parameters");
    }
    if checked.is_summary {
        return Some("it is a SUMMARIZE; write a query");
    }
    if !checked.versions.is_empty() {
        return Some(VERSION);
    }
    if checked.reads_paths {
        return Some(
            "it reads by a path of the earlier layout; write the table that the path is of",
        );
    }
    None
}

/// Whether a name gives a table a version, as `events@nightly` does: nothing is called so.
///
/// # Errors
/// Those of the metastore.
pub(super) async fn gives_version(
    catalog: &Catalog,
    levels: &Levels,
    name: &str,
) -> Result<bool, CatalogError> {
    // The sign is a part of the collection's name.
    if is_path(name) {
        return Ok(false);
    }
    let table = MetadataTable::split(name).map_or(name, |(table, _)| table);
    if table.rsplit_once('@').is_none_or(|(table, _)| table.is_empty()) {
        return Ok(false);
    }
    let Ok(namespace) = NamespaceIdent::from_vec(levels.clone()) else { return Ok(false) };
    for called in [name, table] {
        let ident = TableIdent::new(namespace.clone(), called.to_owned());
        if catalog.tables().has(&ident).await? || catalog.views().has(&ident).await? {
            return Ok(false);
        }
    }
    Ok(true)
}
