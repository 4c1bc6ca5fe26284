//! `icecore audit events`: has a server hold the rows of its log and tables against those acknowledged.

use crate::{
    cli::{
        CliError,
        admin::{aligned, escape},
        client::ServerClient,
        say,
    },
    config::Config,
};
use clap::Args;
use icecore_schemas::conservation::{EventsAudit, RowTotal, TableAudit};
use reqwest::Method;
use serde_json::json;

/// `icecore audit events`
#[derive(Debug, Args)]
pub struct AuditEvents {
    /// The namespace, as events name it
    #[arg(long, default_value = "default")]
    ns: String,
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
}

/// Prints the sums of each table.
///
/// # Errors
/// [`CliError::Client`]; [`CliError::Refused`] where they do not agree.
pub(super) async fn run(config: &Config, command: &AuditEvents) -> Result<(), CliError> {
    let client = ServerClient::new(config, command.url.as_deref());
    let path = format!("/v1/{}/audit/events", escape(&command.ns));
    let audit: EventsAudit = client.read(Method::POST, &path, None).await?;
    if command.json {
        say(&json!(audit).to_string())?;
    } else {
        let rows: Vec<Vec<String>> =
            audit.tables.iter().flat_map(|(name, table)| rows(name, table)).collect();
        say(&aligned(&["table", "of", "rows", "sum"], &rows))?;
        let agreeing = audit.tables.iter().filter(|(_, table)| table.agrees);
        agreeing.map(|(name, table)| agreement(name, table)).try_for_each(|text| say(&text))?;
    }
    if audit.agrees {
        return Ok(());
    }
    let told = audit.tables.iter().filter(|(_, table)| !table.agrees);
    let told: Vec<String> = told.map(|(name, table)| disagreement(name, table)).collect();
    Err(CliError::Refused(told.join("\n")))
}

fn rows(name: &str, table: &TableAudit) -> Vec<Vec<String>> {
    let row = |of: &str, RowTotal { rows, sum }: &RowTotal| {
        vec![name.to_owned(), of.to_owned(), rows.to_string(), sum.clone()]
    };
    let TableAudit { acked, foreign, removed, log, table, expected, .. } = table;
    vec![
        row("acked", acked),
        row("foreign", foreign),
        row("removed", removed),
        row("log", log),
        row("table", table),
        row("expected", expected),
    ]
}

fn agreement(name: &str, table: &TableAudit) -> String {
    let agrees = format!("table `{name}` agrees: acked + foreign - removed = log + table");
    match table.begins {
        true => format!(
            "{agrees}; its sums begin with what is there now, since nothing tells what was there before"
        ),
        false => agrees,
    }
}

fn disagreement(name: &str, table: &TableAudit) -> String {
    match (&table.error, &table.parts_at.snapshot_str) {
        (Some(error), _) => format!("table `{name}` cannot be audited: {error}"),
        (None, Some(snapshot)) => format!(
            "table `{name}` does not have the rows of its commits, first in snapshot {snapshot}: look for a file of it that was changed, and restore it from a backup"
        ),
        (None, None) => format!(
            "table `{name}` has the rows of its commits, and these are not all that were acknowledged: look whether an earlier state of it was restored"
        ),
    }
}
