//! Namespaces: list, create, load, drop, properties.

use super::{
    RestState,
    change_context::ChangeContext,
    error::RestError,
    lists::{ListWindow, PAGE_ITEMS_MAX, PageParameters},
    request::{JsonBody, NamespacePath, UrlParameters, check_levels, levels},
};
use crate::{
    access::Principal,
    metastore::{Levels, NamePage, Properties, RecordedAnswer},
};
use axum::{
    Json,
    extract::{Extension, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize)]
pub(super) struct ListParameters {
    parent: Option<String>,
    #[serde(flatten)]
    page: PageParameters,
}

#[derive(Debug, Serialize)]
pub(super) struct NamespacesAnswer {
    namespaces: Vec<Levels>,
    #[serde(rename = "next-page-token")]
    next_page_token: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct NamespaceAnswer {
    namespace: Levels,
    #[serde(default)]
    properties: Option<Properties>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PropertyUpdate {
    removals: Option<Vec<String>>,
    updates: Option<Properties>,
}

#[derive(Debug, Serialize)]
pub(super) struct PropertyAnswer {
    updated: Vec<String>,
    removed: Vec<String>,
    missing: Vec<String>,
}

/// `GET /namespaces`: those that the caller may see.
pub(super) async fn list(
    State(rest): State<RestState>,
    Extension(principal): Extension<Principal>,
    UrlParameters(parameters): UrlParameters<ListParameters>,
) -> Result<Json<NamespacesAnswer>, RestError> {
    let parent = match parameters.parent.as_deref().filter(|parent| !parent.is_empty()) {
        Some(parent) => NamespacePath(levels(&rest, parent)),
        None => NamespacePath(Levels::new()),
    };
    if !principal.sees(&parent.0) && !parent.0.is_empty() {
        return Err(RestError::no_such_namespace(&parent.name()));
    }
    if !parent.0.is_empty() {
        properties(&rest, &parent).await?;
    }
    let wanted = parameters.page.wanted()?;
    let namespaces = visible(&rest, &principal, &parent.0, &wanted).await?;
    let (namespaces, next_page_token) = wanted.cut(namespaces, |levels| last_level(levels));
    Ok(Json(NamespacesAnswer { namespaces, next_page_token }))
}

/// What the caller may see, at least as much as is wanted if there is so much.
async fn visible(
    rest: &RestState,
    principal: &Principal,
    parent: &Levels,
    wanted: &ListWindow,
) -> Result<Vec<Levels>, RestError> {
    let mut found = Vec::new();
    let (mut after, mut limit) = (wanted.after.clone(), wanted.limit());
    loop {
        let page = NamePage { after: &after, limit };
        let listed = rest.catalog.metastore().namespaces_of(parent, page).await?;
        let last = listed.last().filter(|_| listed.len() == limit);
        let next = last.map(|levels| last_level(levels).to_owned());
        found.extend(listed.into_iter().filter(|levels| principal.sees(levels)));
        match next {
            // Most of them may be others': a few large steps instead of many small ones.
            Some(next) if found.len() < wanted.limit() => {
                (after, limit) = (next, PAGE_ITEMS_MAX);
            }
            _ => return Ok(found),
        }
    }
}

fn last_level(levels: &[String]) -> &str {
    levels.last().map_or("", String::as_str)
}

/// `POST /namespaces`
pub(super) async fn create(
    asked: ChangeContext,
    JsonBody(NamespaceAnswer { namespace, properties }): JsonBody<NamespaceAnswer>,
) -> Result<Json<NamespaceAnswer>, RestError> {
    check_levels(asked.rest(), &namespace)?;
    let properties = properties.unwrap_or_default();
    if asked.rest().catalog.metastore().namespace(&namespace).await?.is_none() {
        asked.rest().catalog.check_namespace_name(&namespace)?;
    }
    asked.rest().catalog.check_namespace_keys(properties.keys())?;
    let made =
        NamespaceAnswer { namespace: namespace.clone(), properties: Some(properties.clone()) };
    let catalog = asked.catalog(answer(&made));
    catalog.metastore().create_namespace(&namespace, &properties).await?;
    Ok(Json(made))
}

/// `GET /namespaces/{namespace}`
pub(super) async fn load(
    State(rest): State<RestState>,
    path: NamespacePath,
) -> Result<Json<NamespaceAnswer>, RestError> {
    let properties = properties(&rest, &path).await?;
    Ok(Json(NamespaceAnswer { namespace: path.0, properties: Some(properties) }))
}

/// `HEAD /namespaces/{namespace}`
pub(super) async fn exists(
    State(rest): State<RestState>,
    path: NamespacePath,
) -> Result<StatusCode, RestError> {
    properties(&rest, &path).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /namespaces/{namespace}`
pub(super) async fn drop(
    asked: ChangeContext,
    path: NamespacePath,
) -> Result<StatusCode, RestError> {
    asked.catalog(RecordedAnswer::Empty).metastore().drop_namespace(&path.0).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /namespaces/{namespace}/properties`
pub(super) async fn update(
    asked: ChangeContext,
    path: NamespacePath,
    JsonBody(update): JsonBody<PropertyUpdate>,
) -> Result<Json<PropertyAnswer>, RestError> {
    let mut removals = update.removals.unwrap_or_default();
    removals.sort_unstable();
    removals.dedup();
    let updates = update.updates.unwrap_or_default();
    asked.rest().catalog.check_namespace_keys(updates.keys().chain(&removals))?;
    if let Some(both) = removals.iter().find(|key| updates.contains_key(*key)) {
        return Err(RestError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "UnprocessableEntityException",
            format!("property is both updated and removed: {both}"),
        ));
    }
    let before = properties(asked.rest(), &path).await?;
    let (removed, missing) = removals.iter().cloned().partition(|key| before.contains_key(key));
    let updated = PropertyAnswer { updated: updates.keys().cloned().collect(), removed, missing };
    let catalog = asked.catalog(answer(&updated));
    catalog.metastore().update_namespace(&path.0, &updates, &removals).await?;
    Ok(Json(updated))
}

fn answer(body: &impl Serialize) -> RecordedAnswer {
    RecordedAnswer::Json(serde_json::to_string(body).expect("names and texts are JSON"))
}

async fn properties(rest: &RestState, path: &NamespacePath) -> Result<Properties, RestError> {
    let properties = rest.catalog.metastore().namespace(&path.0).await?;
    properties.ok_or_else(|| RestError::no_such_namespace(&path.name()))
}
