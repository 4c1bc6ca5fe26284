//! Commits: requirements and updates of one table, or of several at once.
//!
//! Requirements and updates are parsed one by one, so that the error names the one it is about.

use super::{
    asked::Asked,
    error::Refused,
    ordered,
    request::{Body, Name, TablePath},
};
use crate::{
    catalog::{LoadedTable, TableChange},
    metastore::Answer,
};
use axum::{Json, http::StatusCode};
use iceberg::{TableIdent, spec::TableMetadata};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use std::sync::Arc;

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
    pub(super) metadata_location: String,
    #[serde(serialize_with = "ordered::serialize")]
    pub(super) metadata: Arc<TableMetadata>,
}

/// `POST /namespaces/{namespace}/tables/{table}`
pub(super) async fn table(
    asked: Asked,
    TablePath(table): TablePath,
    Body(body): Body<CommitBody>,
) -> Result<Json<CommitAnswer>, Refused> {
    let table = asked.catalog(Answer::Commit).commit(change(table, &body)?).await?;
    Ok(answer(table))
}

pub(super) fn answer(table: LoadedTable) -> Json<CommitAnswer> {
    Json(CommitAnswer { metadata_location: table.metadata_location, metadata: table.metadata })
}

/// `POST /transactions/commit`
pub(super) async fn transaction(
    asked: Asked,
    Body(TransactionBody { table_changes }): Body<TransactionBody>,
) -> Result<StatusCode, Refused> {
    let mut changes = Vec::with_capacity(table_changes.len());
    for mut body in table_changes {
        let name = body.identifier.take().ok_or_else(|| {
            Refused::bad_request("every change of a transaction names its table in `identifier`")
        })?;
        changes.push(change(name.ident()?, &body)?);
    }
    asked.catalog(Answer::Empty).commit_all(changes).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn change(table: TableIdent, body: &CommitBody) -> Result<TableChange, Refused> {
    let requirements = parse(body.requirements.as_deref(), "requirement", "type")?;
    let updates = parse(body.updates.as_deref(), "update", "action")?;
    Ok(TableChange { table, requirements, updates })
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
            Refused::bad_request(format!("cannot apply the {what} `{name}`: {error}"))
        })
    };
    items.unwrap_or_default().iter().map(|item| parse_one(item)).collect()
}
