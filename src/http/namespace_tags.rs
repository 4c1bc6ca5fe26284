//! `/v1/{ns}/tags`: one name for a snapshot of every table of a namespace, set and dropped in one commit.
//!
//! What is acknowledged is committed first, so a tag of now has all of it. Its one invariant: all tables that can have
//! a tag get it, or none does; the answer names those that cannot, with the reason.

pub(in crate::http) mod places;

use crate::{
    flush::{Flush, FlushError},
    http::{
        AppState, body,
        error::ApiError,
        guard::{self, CatalogNamespace},
        health::not_taken,
        json,
        points::{ReadCaller, statement},
        record::ChangeCaller,
        rows::integer_at,
    },
    maintenance::day_tags,
};
use axum::{
    body::Body,
    extract::{Extension, Path, State},
    http::HeaderMap,
    response::Response,
};
use futures::StreamExt;
use icecore_catalog::{
    access::Action,
    body::parse_object,
    catalog::{LoadedTable, TagChange},
    error::CatalogError,
    metadata_file::refs,
    retention,
};
use icecore_lake::{
    table::{
        schema::{TableIdent, foreign_ident},
        tagged::{TAGGED_TABLES_MAX, is_of_branch, last_seq},
    },
    wal::Wal,
};
use icecore_schemas::{
    collections::TimeBasis,
    error_code::ErrorCode,
    namespace_tags::{
        NamespaceTag, NamespaceTagDropped, NamespaceTagList, NewNamespaceTag, TableTag,
    },
    point::{HistoryPoint, MAIN_BRANCH},
    service_table::EVENTS_TABLE,
};
use places::{TagMoment, TagPlace, TagPlaces, TagScope, is_events};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Longest name of a tag.
const NAME_CHARS_MAX: usize = 64;
/// What the names of tags begin with that restores set.
const RESTORE_PREFIX: &str = "before-";

/// `POST /v1/{ns}/tags {"name","at"?,"retain_ms"?}`. Durable on return.
///
/// # Errors
/// 400, 404 for a point that is not there, 409 where a table has a branch or tag of the name, 410 for a point that was
/// removed, 422 for too many tables, 503.
pub(super) async fn create(
    State(app): State<AppState>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    caller: ChangeCaller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    app.owner.check().map_err(|reason| not_taken(Some(&caller.principal), &reason))?;
    let body = body::read(&app, &headers, body).await?;
    let NewNamespaceTag { name, at, retain_ms } = parse_object(&body.bytes).map_err(|problem| {
        invalid(format!("the body is not {{\"name\": \"release-1\"}}: {problem}"))
    })?;
    check_name(&name)?;
    let retain_ms = retain_ms.map(retained_ms).transpose()?;
    caller.call.about(&format!("{} {name}", levels.join(".")));
    let committed = commit_waiting(&app.flush, &app.wal, &levels).await;
    committed.map_err(|cause| ApiError::from(cause.as_ref()))?;
    let moment = Box::pin(moment(&app, &caller, &levels, at.as_ref())).await?;
    let names = table_names(&app, &levels).await?;
    let log = app.owner.origin();
    let scope = TagScope { catalog: &app.catalog, log: &log, levels: &levels, moment };
    let found = scope.places(names).await?;
    if found.places.is_empty() {
        return Err(no_places(&levels, &found));
    }
    let now_ms = app.catalog.now_ms();
    let change = |place: &TagPlace| place.tagging(&name, retain_ms, now_ms);
    let changes = found.places.iter().map(change).collect();
    Box::pin(caller.catalog(&app).refs().change_tags(changes)).await?;
    let tables = found
        .places
        .into_iter()
        .map(|place| TableTag { table: place.table.name.clone(), snapshot: place.snapshot.into() });
    let mut tables: Vec<TableTag> = tables.collect();
    tables.sort_by(|one, other| one.table.cmp(&other.table));
    Ok(json(201, &NamespaceTag { name, seq: found.seq, tables, left_out: found.left_out }))
}

/// `GET /v1/{ns}/tags`: every tag that some table of the namespace has.
///
/// # Errors
/// 404 for a namespace that is not there, 422 for too many tables.
pub(super) async fn list(
    State(app): State<AppState>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
) -> Result<Response, ApiError> {
    let tags = tags(&app, &levels).await?.into_values().collect();
    Ok(json(200, &NamespaceTagList { tags }))
}

/// `GET /v1/{ns}/tags/{name}`.
///
/// # Errors
/// 404 where no table has it, 422 for too many tables.
pub(super) async fn show(
    State(app): State<AppState>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    match tags(&app, &levels).await?.remove(&name) {
        Some(tag) => Ok(json(200, &tag)),
        None => Err(no_tag(&levels, &name)),
    }
}

/// `DELETE /v1/{ns}/tags/{name}`: of all tables that have it. Their snapshots stay until they expire. Durable on
/// return.
///
/// # Errors
/// 403 for who may not shorten the history of the service's tables, 404 where no table has it, 409 where another
/// change came first, 422 for too many tables.
pub(super) async fn remove(
    State(app): State<AppState>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    Path((_, name)): Path<(String, String)>,
    caller: ChangeCaller,
) -> Result<Response, ApiError> {
    let mut changes = Vec::new();
    let mut tables = Vec::new();
    for table in table_names(&app, &levels).await? {
        let Some((table, base)) = loaded(&app, &levels, &table).await? else { continue };
        let refs = refs::of(&base.metadata);
        if refs.get(&name).is_none_or(|found| found.is_branch()) {
            continue;
        }
        if retention::is_managed(&base.metadata) {
            // The history of the service's own tables is not every writer's to shorten.
            guard::allow_levels(&caller.principal, Action::Admin, &levels)?;
        }
        tables.push(table.name.clone());
        let (set, properties) = (Vec::new(), HashMap::new());
        changes.push(TagChange { table, base, set, removed: vec![name.clone()], properties });
    }
    if changes.is_empty() {
        return Err(no_tag(&levels, &name));
    }
    Box::pin(caller.catalog(&app).refs().change_tags(changes)).await?;
    Ok(json(200, &NamespaceTagDropped { name, tables }))
}

/// Commits everything of a namespace that was acknowledged before the call. One of other engines alone has nothing.
///
/// # Errors
/// The commit that failed; what waits is kept and tried again.
pub(in crate::http) async fn commit_waiting(
    flush: &Flush,
    wal: &Wal,
    levels: &[String],
) -> Result<(), Arc<FlushError>> {
    let [name] = levels else { return Ok(()) };
    let through = *wal.durable().borrow();
    for namespace in wal.namespaces_named(name) {
        flush.commit_now(&namespace, through).await?;
    }
    Ok(())
}

/// The moment that a point of a request is.
async fn moment(
    app: &AppState,
    caller: &ChangeCaller,
    levels: &[String],
    at: Option<&Value>,
) -> Result<TagMoment, ApiError> {
    let text = match at {
        None | Some(Value::Null) => return Ok(TagMoment::Now),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
            return Err(invalid("`at` is a text such as seq:17, or a number".to_owned()));
        }
    };
    let point = text.parse::<HistoryPoint>();
    let point = point.map_err(|problem| invalid(format!("`at`: {problem}")))?;
    let time_us = match &point {
        HistoryPoint::Now => return Ok(TagMoment::Now),
        HistoryPoint::Branch(name) if name == MAIN_BRANCH => return Ok(TagMoment::Now),
        HistoryPoint::Branch(name) => {
            let text = format!(
                "`at` is branch `{name}`, and a tag is of `{MAIN_BRANCH}`, which every table has: name a point of it"
            );
            return Err(invalid(text));
        }
        HistoryPoint::Time(us) => Some(*us),
        HistoryPoint::Seq(_)
        | HistoryPoint::Bookmark(_)
        | HistoryPoint::Snapshot(_)
        | HistoryPoint::Tag(_)
        | HistoryPoint::Before(_)
        | HistoryPoint::Back(_)
        | HistoryPoint::Number(_)
        | HistoryPoint::Named(_) => None,
    };
    let reader = ReadCaller { app, principal: &caller.principal, levels };
    reader.check_events().await?;
    let found = Box::pin(reader.find(&point, TimeBasis::Commit)).await?;
    let snapshot = found.snapshot;
    if let Some(id) = snapshot
        && let Some((_, events)) = loaded(app, levels, EVENTS_TABLE).await?
        && is_of_branch(&events.metadata, id)
    {
        let text = format!(
            "`at` is snapshot {id} of a branch, and a tag is of `{MAIN_BRANCH}`, which every table has: name a point of it"
        );
        return Err(invalid(text));
    }
    let seq = Box::pin(reader.seq_of(found)).await?;
    let us = match time_us {
        Some(us) => Some(us),
        None => acknowledged_us(reader, seq).await?,
    };
    Ok(TagMoment::Past { seq, snapshot, ms: us.map(|us| us.div_euclid(1_000)) })
}

/// When an event was acknowledged, microseconds since 1970; none for one that is gone.
async fn acknowledged_us(reader: ReadCaller<'_>, seq: u64) -> Result<Option<i64>, ApiError> {
    let sql =
        format!("SELECT CAST(ingested_at AS bigint) AS acknowledged FROM events WHERE seq = {seq}");
    let mut answer = reader.ask(statement(&sql, Vec::new())).await?;
    while let Some(batch) = answer.batches.next().await {
        let batch = batch?;
        if batch.num_rows() != 0 {
            return Ok(integer_at(&batch, "acknowledged", 0));
        }
    }
    Ok(None)
}

/// The names of the tables of a namespace.
async fn table_names(app: &AppState, levels: &[String]) -> Result<Vec<String>, ApiError> {
    let names = app.catalog.metastore().tables(&levels.to_vec()).await?;
    if names.len() <= TAGGED_TABLES_MAX {
        return Ok(names);
    }
    let text = format!(
        "namespace `{}` has {} tables, and a tag is of at most {TAGGED_TABLES_MAX}: tag single tables, by /v1/{{ns}}/tables/{{table}}/refs",
        levels.join("."),
        names.len()
    );
    Err(ApiError::new(ErrorCode::QueryLimit, text))
}

/// A table of a namespace; none for one that is gone or does not read. One at a time: all of them are much.
async fn loaded(
    app: &AppState,
    levels: &[String],
    name: &str,
) -> Result<Option<(TableIdent, LoadedTable)>, ApiError> {
    let Some(table) = foreign_ident(levels, name) else { return Ok(None) };
    let tables = app.catalog.tables();
    match tables.load(&table).await {
        Ok(base) => Ok(Some((table, base))),
        Err(CatalogError::NoSuchTable(_)) => Ok(None),
        // The list of tables tells of it.
        Err(cause) => match tables.why_unreadable(&table, &cause).await? {
            Some(_) => Ok(None),
            None => Err(cause.into()),
        },
    }
}

/// The tags of a namespace by name.
async fn tags(
    app: &AppState,
    levels: &[String],
) -> Result<BTreeMap<String, NamespaceTag>, ApiError> {
    let mut tags = BTreeMap::new();
    for table in table_names(app, levels).await? {
        let Some((table, base)) = loaded(app, levels, &table).await? else { continue };
        let has_seq = is_events(&table.name, &base);
        for (name, reference) in refs::of(&base.metadata) {
            if reference.is_branch() {
                continue;
            }
            let snapshot = reference.snapshot_id;
            let tag = tags.entry(name.clone()).or_insert_with(|| NamespaceTag {
                name,
                seq: None,
                tables: Vec::new(),
                left_out: Vec::new(),
            });
            if has_seq {
                tag.seq = last_seq(&base.metadata, snapshot);
            }
            tag.tables.push(TableTag { table: table.name.clone(), snapshot: snapshot.into() });
        }
    }
    Ok(tags)
}

/// Refuses a name that no point could name, or that tags have which the server sets and removes by itself.
fn check_name(name: &str) -> Result<(), ApiError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(1..=NAME_CHARS_MAX).contains(&name.len()) || !name.bytes().all(is_plain) {
        let text = format!(
            "a name of a tag has 1 to {NAME_CHARS_MAX} letters, digits, `.`, `_` and `-`, such as release-1"
        );
        return Err(invalid(text));
    }
    if day_tags::is_like_of_service(name) || name.starts_with(RESTORE_PREFIX) {
        let text = format!(
            "the server itself sets tags that are called as `{name}` is: choose another name, such as my-{name}"
        );
        return Err(invalid(text));
    }
    let is_named = matches!(name.parse::<HistoryPoint>(), Ok(HistoryPoint::Named(_)));
    let is_other = !is_named || HistoryPoint::of_address(name).is_some();
    if is_other || ["main", ".", ".."].contains(&name) {
        let text = format!(
            "`{name}` is read as a point of another kind, so a tag could not be named by it: start the name with letters, such as tag-{name}"
        );
        return Err(invalid(text));
    }
    Ok(())
}

fn retained_ms(retain_ms: u64) -> Result<i64, ApiError> {
    let retained = i64::try_from(retain_ms).ok().filter(|ms| 0 < *ms);
    retained.ok_or_else(|| invalid("`retain_ms` is a number of milliseconds above 0".to_owned()))
}

fn no_places(levels: &[String], found: &TagPlaces) -> ApiError {
    let first = found.left_out.first();
    let reason = first.map_or_else(String::new, |it| format!("; `{}`: {}", it.table, it.reason));
    let text =
        format!("no table of namespace `{}` has a snapshot for the tag{reason}", levels.join("."));
    ApiError::new(ErrorCode::NotFound, text)
}

fn no_tag(levels: &[String], name: &str) -> ApiError {
    let text = format!(
        "no table of namespace `{}` has a tag `{name}`: GET /v1/{{ns}}/tags lists those that are there",
        levels.join(".")
    );
    ApiError::new(ErrorCode::NotFound, text)
}

fn invalid(text: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_a_tag_and_of_no_other_point() {
        for name in ["release-1", "a", "Q3_2026", "v1.2", "daily", "nightly-2026-11-20", "vortex"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        let long = "x".repeat(NAME_CHARS_MAX + 1);
        for name in [
            "",
            "main",
            ".",
            "..",
            "17",
            "v17",
            "2026-11-20",
            "daily-2026-11-20",
            "monthly-2026-11",
            "daily-x",
            "daily-2026-13-45",
            "monthly-",
            "before-restore-7",
            "a b",
            "a/b",
            "ü",
            "seq:1",
            "~1",
            long.as_str(),
        ] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
