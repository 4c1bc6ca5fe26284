//! Which tables a run of a planned job is about, and what keeps it from one of them.

use crate::maintenance::planned::RunRequest;
use icecore_catalog::{catalog::Catalog, error::CatalogError, metastore::moved::PlaceKind};
use icecore_lake::table::schema::{TableIdent, foreign_ident};

/// Who made a change, in the catalog's feed, when a job made it.
pub(super) const ACTOR: &str = "icecore/maintenance";

/// The tables of a request, in all top namespaces or in one.
///
/// # Errors
/// `NoSuchNamespace` and `NoSuchTable` of those that are named, and `NoSuchTable` of a table named without
/// its namespace where no namespace at all has one; `Metastore`.
pub(super) async fn tables_of(
    catalog: &Catalog,
    request: &RunRequest,
) -> Result<Vec<TableIdent>, CatalogError> {
    let metastore = catalog.metastore();
    let tables: Vec<(Vec<String>, String)> = match &request.levels {
        Some(levels) => {
            let names = metastore.tables(levels).await?;
            names.into_iter().map(|name| (levels.clone(), name)).collect()
        }
        None => metastore.tables_at_the_top().await?,
    };
    let is_wanted = |name: &String| request.table.as_ref().is_none_or(|wanted| wanted == name);
    let wanted = tables.iter().filter(|(_, name)| is_wanted(name));
    let wanted: Vec<TableIdent> =
        wanted.filter_map(|(levels, name)| foreign_ident(levels, name)).collect();
    match (&request.levels, &request.table) {
        (Some(levels), Some(table)) if wanted.is_empty() => {
            Err(CatalogError::NoSuchTable(format!("{}.{table}", levels.join("."))))
        }
        (None, Some(_)) if wanted.is_empty() => {
            // It may be in a namespace that is not at the top, which this run is not about.
            at_any_depth(catalog, request).await.map(|_| wanted)
        }
        _ => Ok(wanted),
    }
}

/// The tables of a request, in namespaces of any depth or in one; other engines' too, but no views.
///
/// # Errors
/// As [`tables_of`].
pub(super) async fn every_table_of(
    catalog: &Catalog,
    request: &RunRequest,
) -> Result<Vec<TableIdent>, CatalogError> {
    if request.levels.is_some() {
        return tables_of(catalog, request).await;
    }
    at_any_depth(catalog, request).await
}

/// The namespaces of a request: the one that it names, or all, whatever their depth.
///
/// # Errors
/// `Metastore`.
pub(super) async fn namespaces_of(
    catalog: &Catalog,
    request: &RunRequest,
) -> Result<Vec<Vec<String>>, CatalogError> {
    if let Some(levels) = &request.levels {
        return Ok(vec![levels.clone()]);
    }
    let mut all: Vec<Vec<String>> = Vec::new();
    let mut parents = vec![Vec::new()];
    while let Some(parent) = parents.pop() {
        match catalog.metastore().namespaces(&parent).await {
            Ok(below) => {
                all.extend(below.iter().cloned());
                parents.extend(below);
            }
            // It was dropped meanwhile.
            Err(CatalogError::NoSuchNamespace(_)) => (),
            Err(cause) => return Err(cause),
        }
    }
    Ok(all)
}

/// The tables of a request in all namespaces, whatever their depth; an error where none has the name.
async fn at_any_depth(
    catalog: &Catalog,
    request: &RunRequest,
) -> Result<Vec<TableIdent>, CatalogError> {
    let is_wanted = |name: &String| request.table.as_ref().is_none_or(|wanted| wanted == name);
    let places = catalog.metastore().places().await?.into_iter();
    let wanted = places.filter(|place| place.of == PlaceKind::Table && is_wanted(&place.name));
    let wanted: Vec<TableIdent> =
        wanted.filter_map(|place| foreign_ident(&place.levels, &place.name)).collect();
    match &request.table {
        Some(table) if wanted.is_empty() => Err(CatalogError::NoSuchTable(table.clone())),
        _ => Ok(wanted),
    }
}

/// Why nothing of a table may go: its namespace is held. None where it is not.
///
/// # Errors
/// `Metastore`.
pub(super) async fn hold_of(
    catalog: &Catalog,
    table: &TableIdent,
) -> Result<Option<String>, CatalogError> {
    let hold = catalog.metastore().hold_over(table.namespace.as_ref()).await?;
    Ok(hold.map(|hold| hold.obstacle()))
}

/// Whether a failure says that those of other tables would fail too.
pub(super) fn is_of_all(catalog: &Catalog, cause: Option<&CatalogError>) -> bool {
    matches!(cause, Some(CatalogError::WarehouseOutage(_) | CatalogError::Metastore { .. }))
        || catalog.storage().outage().is_some()
}
