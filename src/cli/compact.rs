//! `icecore compact`: has a server merge its small data files now.

use crate::{
    cli::{
        CliError,
        admin::{aligned, escape},
        client::ServerClient,
        counted, say,
    },
    config::{Config, units::write_bytes},
};
use clap::Args;
use icecore_schemas::jobs::JobReport;
use reqwest::Method;
use serde_json::json;

/// `icecore compact`
#[derive(Debug, Args)]
pub struct CompactCommand {
    /// Only tables of this namespace
    #[arg(long)]
    ns: Option<String>,
    /// Only tables of this name
    #[arg(long)]
    table: Option<String>,
    /// Only days that are over
    #[arg(long)]
    closed_days: bool,
    /// Tell what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
}

/// Asks for it, waits, and prints what was done and what was left, with the reasons.
///
/// # Errors
/// [`CliError::Client`].
pub async fn run(config: &Config, command: &CompactCommand) -> Result<(), CliError> {
    let client = ServerClient::new(config, command.url.as_deref());
    let job = if command.closed_days { "compact-day" } else { "compact" };
    let named = [("namespace", &command.ns), ("table", &command.table)];
    let named = named
        .into_iter()
        .filter_map(|(key, name)| name.as_ref().map(|name| format!("&{key}={}", escape(name))));
    let named: String = named.collect();
    let path = format!("/admin/jobs/{job}?dry_run={}{named}", command.dry_run);
    let report: JobReport = client.read(Method::POST, &path, None).await?;
    if command.json {
        return say(&json!(report).to_string());
    }
    let is_done = if command.dry_run { "would become" } else { "became" };
    say(&format!(
        "{} {is_done} {}, in {}: {}, {} before and {} after, {} ms",
        counted(report.files.before, "file"),
        report.files.after,
        counted(report.tables, "table"),
        counted(report.rows, "row"),
        write_bytes(report.bytes.before),
        write_bytes(report.bytes.after),
        report.elapsed_ms,
    ))?;
    if report.skipped.is_empty() {
        return Ok(());
    }
    let rows: Vec<Vec<String>> =
        report.skipped.iter().map(|it| vec![it.table.clone(), it.reason.clone()]).collect();
    say(&aligned(&["left as it is", "because"], &rows))
}
