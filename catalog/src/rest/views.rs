//! Views: list, create, register, load, replace, drop, rename.

use super::{
    RestState,
    access::TableCaller,
    change_context::ChangeContext,
    commit::parse,
    error::RestError,
    lists::{self, NamesAnswer, PageParameters},
    places,
    request::{JsonBody, NamespacePath, UrlParameters, ViewPath},
    tables::{RegisterBody, RenameBody, not_registered},
};
use crate::{
    catalog::{CreateView, LoadedView, ViewChange},
    error::CatalogError,
    metastore::{NameKind, RecordedAnswer},
    view,
};
use axum::{Json, extract::State, http::StatusCode};
use iceberg::{
    ViewUpdate,
    spec::{Schema, ViewVersion},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use std::collections::HashMap;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct CreateViewBody {
    name: String,
    location: Option<String>,
    schema: Schema,
    view_version: ViewVersion,
    properties: Option<HashMap<String, String>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ViewCommitBody {
    requirements: Option<Vec<Box<RawValue>>>,
    updates: Option<Vec<Box<RawValue>>>,
}

/// The answer to all that ends with a view.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct ViewAnswer {
    metadata_location: String,
    metadata: Value,
    /// Clients never read a view's files themselves.
    config: HashMap<String, String>,
}

/// `GET /namespaces/{namespace}/views`
pub(super) async fn list(
    State(rest): State<RestState>,
    path: NamespacePath,
    UrlParameters(page): UrlParameters<PageParameters>,
) -> Result<Json<NamesAnswer>, RestError> {
    lists::names(&rest, NameKind::View, path, &page).await
}

/// `POST /namespaces/{namespace}/views`
pub(super) async fn create(
    asked: ChangeContext,
    path: NamespacePath,
    caller: TableCaller,
    JsonBody(body): JsonBody<CreateViewBody>,
) -> Result<Json<ViewAnswer>, RestError> {
    if let Some(location) = &body.location {
        places::check(asked.rest(), &caller, location)?;
    }
    let view = CreateView {
        name: body.name,
        schema: body.schema,
        version: body.view_version,
        location: body.location,
        properties: body.properties.unwrap_or_default(),
    };
    Ok(answer(asked.catalog(RecordedAnswer::View).views().create(&path.0, view).await?))
}

/// `POST /namespaces/{namespace}/register-view`
pub(super) async fn register(
    asked: ChangeContext,
    path: NamespacePath,
    caller: TableCaller,
    JsonBody(body): JsonBody<RegisterBody>,
) -> Result<Json<ViewAnswer>, RestError> {
    places::check(asked.rest(), &caller, &body.metadata_location)?;
    let catalog = asked.catalog(RecordedAnswer::View);
    let may_lie = |place: &str| places::check(asked.rest(), &caller, place);
    match catalog.views().register(&path.0, &body.name, &body.metadata_location, &may_lie).await {
        Ok(view) => Ok(answer(view)),
        Err(cause) => Err(not_registered(asked.rest(), &caller, cause).await),
    }
}

/// `GET /namespaces/{namespace}/views/{view}`
pub(super) async fn load(
    State(rest): State<RestState>,
    ViewPath(view): ViewPath,
) -> Result<Json<ViewAnswer>, RestError> {
    Ok(answer(rest.catalog.views().load_present(&view).await?))
}

/// `HEAD /namespaces/{namespace}/views/{view}`
pub(super) async fn exists(
    State(rest): State<RestState>,
    ViewPath(view): ViewPath,
) -> Result<StatusCode, RestError> {
    match rest.catalog.views().has(&view).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(CatalogError::NoSuchView(view.to_string()).into()),
    }
}

/// `POST /namespaces/{namespace}/views/{view}`
pub(super) async fn commit(
    asked: ChangeContext,
    ViewPath(view): ViewPath,
    caller: TableCaller,
    JsonBody(body): JsonBody<ViewCommitBody>,
) -> Result<Json<ViewAnswer>, RestError> {
    let requirements = parse(body.requirements.as_deref(), "requirement", "type")?;
    let updates = parse(body.updates.as_deref(), "update", "action")?;
    let change = ViewChange { view, requirements, updates };
    check_places(asked.rest(), &caller, &change).await?;
    Ok(answer(asked.catalog(RecordedAnswer::View).views().commit(change).await?))
}

/// `DELETE /namespaces/{namespace}/views/{view}`
pub(super) async fn drop(
    asked: ChangeContext,
    ViewPath(view): ViewPath,
) -> Result<StatusCode, RestError> {
    asked.catalog(RecordedAnswer::Empty).views().drop(&view).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /views/rename`
pub(super) async fn rename(
    asked: ChangeContext,
    JsonBody(RenameBody { source, destination }): JsonBody<RenameBody>,
) -> Result<StatusCode, RestError> {
    asked
        .catalog(RecordedAnswer::Empty)
        .views()
        .rename(&source.ident()?, &destination.ident()?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// As for a table.
async fn check_places(
    rest: &RestState,
    caller: &TableCaller,
    change: &ViewChange,
) -> Result<(), RestError> {
    for update in &change.updates {
        let ViewUpdate::SetLocation { location } = update else { continue };
        let Err(refused) = places::check(rest, caller, location) else { continue };
        let stays = match rest.catalog.views().load(&change.view).await {
            Ok(view) => places::is_same(view.metadata.location(), location),
            Err(_) => false,
        };
        if !stays {
            return Err(refused.into());
        }
    }
    Ok(())
}

pub(super) fn answer(view: LoadedView) -> Json<ViewAnswer> {
    Json(ViewAnswer {
        metadata_location: view.metadata_location,
        metadata: view::to_json(&view.metadata),
        config: HashMap::new(),
    })
}
