//! Commits: requirements and updates of one table, or of several at once.
//!
//! Requirements and updates are parsed one by one, so that the error names the one it is about.

use super::{
    Rest,
    access::{self, Caller},
    asked::Asked,
    error::Refused,
    ordered::{Ordered, Snapshots},
    places,
    request::{Body, Name, TablePath},
    tables,
};
use crate::{
    access::Action,
    catalog::{LoadedTable, TableChange},
    columns,
    metastore::Answer,
};
use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use iceberg::{TableIdent, TableUpdate};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

#[derive(Debug, Deserialize)]
pub(super) struct CommitBody {
    identifier: Option<Name>,
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
    metadata: Ordered,
}

impl CommitAnswer {
    pub(super) fn new(rest: &Rest, table: LoadedTable) -> Self {
        let (encoded, snapshots) = (rest.catalog.encoded_parts(&table), Snapshots::All);
        let LoadedTable { metadata, metadata_location, .. } = table;
        Self { metadata_location, metadata: Ordered { metadata, encoded, snapshots } }
    }
}

/// `POST /namespaces/{namespace}/tables/{table}`
pub(super) async fn table(
    asked: Asked,
    TablePath(ident): TablePath,
    caller: Caller,
    Body(body): Body<CommitBody>,
) -> Result<Response, Refused> {
    let change = change(&caller, ident.clone(), &body)?;
    check_places(asked.rest(), &caller, &change).await?;
    let table = asked.catalog(Answer::Commit).commit(change).await?;
    // The name of what a load would answer now.
    let tag = access::tag(asked.rest(), &caller, &ident);
    let etag = tables::etag(&table, &tag, Snapshots::All);
    Ok(([(header::ETAG, etag)], Json(CommitAnswer::new(asked.rest(), table))).into_response())
}

/// `POST /transactions/commit`
pub(super) async fn transaction(
    asked: Asked,
    caller: Caller,
    Body(TransactionBody { table_changes }): Body<TransactionBody>,
) -> Result<StatusCode, Refused> {
    let mut changes = Vec::with_capacity(table_changes.len());
    for mut body in table_changes {
        let name = body.identifier.take().ok_or_else(|| {
            Refused::bad_request("every change of a transaction names its table in `identifier`")
        })?;
        let change = change(&caller, name.ident()?, &body)?;
        check_places(asked.rest(), &caller, &change).await?;
        changes.push(change);
    }
    asked.catalog(Answer::Empty).commit_all(changes).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn change(caller: &Caller, table: TableIdent, body: &CommitBody) -> Result<TableChange, Refused> {
    let requirements = parse(body.requirements.as_deref(), "requirement", "type")?;
    let updates = parse(body.updates.as_deref(), "update", "action")?;
    let keeps_history = !caller.principal().may(Action::Admin, table.namespace().as_ref());
    Ok(TableChange { table, requirements, updates, keeps_history })
}

/// Refuses to move a table where the caller may put none; where it is it may stay.
async fn check_places(rest: &Rest, caller: &Caller, change: &TableChange) -> Result<(), Refused> {
    for update in &change.updates {
        let TableUpdate::SetLocation { location } = update else { continue };
        let Err(refused) = places::check(rest, caller, location) else { continue };
        let stays = match rest.catalog.load_table(&change.table).await {
            Ok(table) => places::is_same(table.metadata.location(), location),
            Err(_) => false,
        };
        if !stays {
            return Err(refused);
        }
    }
    Ok(())
}

/// Parses each of `items`, which tell what they are in the member `tag`.
pub(super) fn parse<T: DeserializeOwned>(
    items: Option<&[Box<RawValue>]>,
    what: &str,
    tag: &str,
) -> Result<Vec<T>, Refused> {
    let parse_one = |item: &RawValue| {
        serde_json::from_str(item.get()).map_err(|error| {
            let value: serde_json::Value = serde_json::from_str(item.get()).unwrap_or_default();
            let name = value[tag].as_str().unwrap_or("(unnamed)");
            let cause =
                columns::explain(item.get().as_bytes()).unwrap_or_else(|| error.to_string());
            Refused::bad_request(format!("cannot apply the {what} `{name}`: {cause}"))
        })
    };
    items.unwrap_or_default().iter().map(|item| parse_one(item)).collect()
}
