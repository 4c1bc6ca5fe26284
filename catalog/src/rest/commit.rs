//! Commits: requirements and updates of one table, or of several at once.
//!
//! Requirements and updates are parsed one by one, so that the error names the one it is about.

use super::{
    RestState,
    access::{self, TableCaller},
    change_context::ChangeContext,
    error::RestError,
    etag::etag,
    ordered::{self, OrderedMetadata, SnapshotMode},
    places,
    request::{JsonBody, ObjectName, TablePath},
};
use crate::{
    access::Action,
    body::without_types,
    catalog::{LoadedTable, TableChange},
    columns,
    metastore::RecordedAnswer,
};
use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use iceberg::{TableIdent, TableUpdate};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

#[derive(Debug, Deserialize)]
pub(super) struct CommitBody {
    identifier: Option<ObjectName>,
    requirements: Option<Vec<Box<RawValue>>>,
    updates: Option<Vec<Box<RawValue>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct TransactionBody {
    table_changes: Vec<CommitBody>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct CommitAnswer {
    metadata_location: String,
    metadata: OrderedMetadata,
}

impl CommitAnswer {
    pub(super) fn new(rest: &RestState, table: LoadedTable) -> Self {
        let (encoded, snapshots) = (rest.catalog.encoded_parts(&table), SnapshotMode::All);
        let LoadedTable { metadata, metadata_location, .. } = table;
        Self { metadata_location, metadata: OrderedMetadata { metadata, encoded, snapshots } }
    }
}

impl IntoResponse for CommitAnswer {
    fn into_response(self) -> Response {
        ordered::json(ordered::encode(&self, &self.metadata))
    }
}

/// `POST /namespaces/{namespace}/tables/{table}`
pub(super) async fn table(
    asked: ChangeContext,
    TablePath(ident): TablePath,
    caller: TableCaller,
    JsonBody(body): JsonBody<CommitBody>,
) -> Result<Response, RestError> {
    let change = change(&caller, ident.clone(), &body)?;
    check_places(asked.rest(), &caller, &change).await?;
    let table = asked.catalog(RecordedAnswer::Commit).commit(change).await?;
    // The name of what a load would answer now.
    let tag = access::tag(asked.rest(), &caller, &ident);
    let etag = etag(&table, &tag, SnapshotMode::All);
    Ok(([(header::ETAG, etag)], CommitAnswer::new(asked.rest(), table)).into_response())
}

/// `POST /transactions/commit`
pub(super) async fn transaction(
    asked: ChangeContext,
    caller: TableCaller,
    JsonBody(TransactionBody { table_changes }): JsonBody<TransactionBody>,
) -> Result<StatusCode, RestError> {
    let mut changes = Vec::with_capacity(table_changes.len());
    for mut body in table_changes {
        let name = body.identifier.take().ok_or_else(|| {
            RestError::bad_request(
                "every change of a transaction must name its table in `identifier`",
            )
        })?;
        let change = change(&caller, name.ident()?, &body)?;
        check_places(asked.rest(), &caller, &change).await?;
        changes.push(change);
    }
    asked.catalog(RecordedAnswer::Empty).commit_all(changes).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn change(
    caller: &TableCaller,
    table: TableIdent,
    body: &CommitBody,
) -> Result<TableChange, RestError> {
    let requirements = parse(body.requirements.as_deref(), "requirement", "type")?;
    let updates = parse(body.updates.as_deref(), "update", "action")?;
    let keeps_history = !caller.principal().may(Action::Admin, table.namespace().as_ref());
    Ok(TableChange { table, requirements, updates, keeps_history })
}

/// Refuses to move a table where the caller may put none; where it is it may stay.
async fn check_places(
    rest: &RestState,
    caller: &TableCaller,
    change: &TableChange,
) -> Result<(), RestError> {
    for update in &change.updates {
        let TableUpdate::SetLocation { location } = update else { continue };
        let Err(refused) = places::check(rest, caller, location) else { continue };
        let stays = match rest.catalog.tables().load(&change.table).await {
            Ok(table) => places::is_same(table.metadata.location(), location),
            Err(_) => false,
        };
        if !stays {
            return Err(refused.into());
        }
    }
    Ok(())
}

/// Parses each of `items`, which tell what they are in the member `tag`.
pub(super) fn parse<T: DeserializeOwned>(
    items: Option<&[Box<RawValue>]>,
    what: &str,
    tag: &str,
) -> Result<Vec<T>, RestError> {
    let parse_one = |item: &RawValue| {
        serde_json::from_str(item.get()).map_err(|error| {
            let value: serde_json::Value = serde_json::from_str(item.get()).unwrap_or_default();
            let name = value[tag].as_str().unwrap_or("(unnamed)");
            let cause = columns::explain(item.get().as_bytes());
            let cause = cause.unwrap_or_else(|| without_types(&error.to_string()));
            RestError::bad_request(format!("cannot apply the {what} `{name}`: {cause}"))
        })
    };
    items.unwrap_or_default().iter().map(|item| parse_one(item)).collect()
}
