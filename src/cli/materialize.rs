//! `icecore materialize`: a table with the rows of a query that is run anew at its times.

use crate::{
    cli::{
        CliError,
        admin::{escape, escape_ns, time},
        client::ServerClient,
        say,
    },
    config::Config,
};
use clap::Args;
use icecore_schemas::materialized::{MaterializedEntry, MaterializedRemoved, NewMaterialized};
use reqwest::Method;
use serde_json::json;

/// `icecore materialize`
#[derive(Debug, Args)]
pub struct MaterializeCommand {
    /// The table
    name: String,
    /// The namespace
    #[arg(long, default_value = "default")]
    ns: String,
    #[command(flatten)]
    action: TableAction,
    /// When the query is run anew: a cron expression, minute hour day month weekday in UTC
    #[arg(long, value_name = "CRON", default_value = "*/5 * * * *")]
    every: String,
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
}

/// What becomes of the table.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct TableAction {
    /// Make the table with the rows of this query
    #[arg(long)]
    sql: Option<String>,
    /// Show its query, and how far its rows are
    #[arg(long)]
    show: bool,
    /// Run its query no more; the table stays with its rows
    #[arg(long)]
    end: bool,
}

/// Makes, shows or ends one.
///
/// # Errors
/// [`CliError::Client`].
pub async fn run(config: &Config, command: &MaterializeCommand) -> Result<(), CliError> {
    let MaterializeCommand { name, ns, action, every, json, url } = command;
    let client = ServerClient::new(config, url.as_deref());
    let path = format!("/v1/{}/materialized/{}", escape_ns(ns), escape(name));
    if action.end {
        let ended: MaterializedRemoved = client.read(Method::DELETE, &path, None).await?;
        return match *json {
            true => say(&json!(ended).to_string()),
            false => say(&format!("{} is not refreshed any more", ended.removed)),
        };
    }
    let entry: MaterializedEntry = match &action.sql {
        Some(sql) => {
            let new = NewMaterialized { sql: sql.clone(), every: every.clone() };
            client.read(Method::PUT, &path, Some(&json!(new))).await?
        }
        None => client.read(Method::GET, &path, None).await?,
    };
    if *json {
        return say(&json!(entry).to_string());
    }
    let MaterializedEntry { namespace, name, sql, every, is_incremental, refreshed_ms, seq } =
        entry;
    let reads = if is_incremental { "new events alone" } else { "everything" };
    let seq = seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string());
    say(&format!(
        "table: {namespace}.{name}\nquery: {sql}\nevery: {every}, reads {reads}\nrefreshed: {}, events up to {seq}",
        time(refreshed_ms)
    ))
}
