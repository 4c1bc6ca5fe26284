//! `/v1/{ns}/materialized/{table}`: tables with the rows of a query that is run again at its times.

use crate::{
    http::{
        AppState, body,
        error::ApiError,
        guard::CatalogNamespace,
        jobs::materialize::{NOT_MATERIALIZED, erasures_of},
        json,
        record::ChangeCaller,
        sql_writes::commit_waiting,
    },
    sql::materialized::{
        self, RefreshCaller,
        definition::{self, MaterializedQuery},
    },
};
use axum::{
    body::Body,
    extract::{Extension, Path, State},
    http::HeaderMap,
    response::Response,
};
use icecore_catalog::{
    body::parse_object,
    catalog::{Catalog, LoadedTable},
    error::CatalogError,
};
use icecore_lake::table::schema::{TableIdent, foreign_ident};
use icecore_schemas::{
    error_code::ErrorCode,
    materialized::{MaterializedEntry, MaterializedRemoved, NewMaterialized},
};

/// `PUT /v1/{ns}/materialized/{table}`: makes the table with the rows that the query has now; for one that is there
/// with this query, other times. Durable on return.
///
/// # Errors
/// 400, 404 for a namespace that is not there, 409 for a name that is taken, 422, 429, 500, 503.
pub(super) async fn put(
    State(app): State<AppState>,
    Path((_, name)): Path<(String, String)>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    caller: ChangeCaller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    app.owner.check()?;
    let body = body::read(&app, &headers, body).await?;
    let NewMaterialized { sql, every } = parse_object(&body.bytes).map_err(|problem| {
        let text = format!(
            "the body is not {{\"sql\": \"SELECT …\", \"every\": \"0 * * * *\"}}: {problem}"
        );
        ApiError::new(ErrorCode::InvalidRequest, text)
    })?;
    let query = MaterializedQuery::parse(&sql, &every)?;
    let ident = ident(&levels, &name)?;
    commit_waiting(&app, &levels).await?;
    let catalog = caller.catalog(&app);
    match app.catalog.tables().load(&ident).await {
        Ok(table) => {
            let known = MaterializedQuery::of(&table.metadata).ok().flatten();
            if known.is_none_or(|known| known.sql != query.sql) {
                let text = format!(
                    "table `{name}` is there, and it does not have the rows of this query: drop it first, with DELETE /v1/{{namespace}}/tables/{name}"
                );
                return Err(ApiError::new(ErrorCode::Conflict, text));
            }
            materialized::note(&catalog, ident.clone(), &table, Some(&query)).await?;
        }
        Err(CatalogError::NoSuchTable(_)) => {
            let erasures = erasures_of(&app.erasures, &levels).await?;
            let maker = RefreshCaller { catalog, ids: &app.ids, erasures };
            Box::pin(app.sql.materialize(&maker, ident.clone(), query)).await?;
        }
        Err(cause) => return Err(cause.into()),
    }
    shown(&app.catalog, &levels, &ident).await
}

/// `GET /v1/{ns}/materialized/{table}`
///
/// # Errors
/// 400 where its properties do not read, 404 where there is none.
pub(super) async fn show(
    State(app): State<AppState>,
    Path((_, name)): Path<(String, String)>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
) -> Result<Response, ApiError> {
    shown(&app.catalog, &levels, &ident(&levels, &name)?).await
}

/// `DELETE /v1/{ns}/materialized/{table}`: it is not refreshed any more, and stays with its rows. Durable on return.
///
/// # Errors
/// 404 where there is none.
pub(super) async fn remove(
    State(app): State<AppState>,
    Path((_, name)): Path<(String, String)>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    caller: ChangeCaller,
) -> Result<Response, ApiError> {
    let ident = ident(&levels, &name)?;
    let table = app.catalog.tables().load(&ident).await?;
    if !MaterializedQuery::is_noted(&table.metadata) {
        return Err(none(&name));
    }
    materialized::note(&caller.catalog(&app), ident, &table, None).await?;
    Ok(json(200, &MaterializedRemoved { removed: name, namespace: levels.join(".") }))
}

async fn shown(
    catalog: &Catalog,
    levels: &[String],
    ident: &TableIdent,
) -> Result<Response, ApiError> {
    let LoadedTable { metadata, .. } = catalog.tables().load(ident).await?;
    let Some(query) = MaterializedQuery::of(&metadata)? else { return Err(none(&ident.name)) };
    let (refreshed_ms, seq) = definition::refreshed(&metadata).unzip();
    let is_incremental = query.is_incremental();
    let (every, name) = (query.every.to_string(), ident.name.clone());
    let (namespace, sql) = (levels.join("."), query.sql);
    let entry =
        MaterializedEntry { namespace, name, sql, every, is_incremental, refreshed_ms, seq };
    Ok(json(200, &entry))
}

fn ident(levels: &[String], name: &str) -> Result<TableIdent, ApiError> {
    foreign_ident(levels, name)
        .ok_or_else(|| ApiError::new(ErrorCode::InvalidNamespace, "a namespace has a name"))
}

fn none(name: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("`{name}`: {NOT_MATERIALIZED}"))
}
