//! `icecore compact`: has a server merge its small data files now.

use crate::{
    cli::{CliError, client::ServerClient, jobs::HandRun},
    config::Config,
};
use clap::Args;

/// `icecore compact`
#[derive(Debug, Args)]
pub struct CompactCommand {
    /// Only tables of this namespace; with --table that table, also one of another engine
    #[arg(long, visible_alias = "namespace")]
    ns: Option<String>,
    /// Only tables of this name
    #[arg(long)]
    table: Option<String>,
    /// Only partitions that may have rows which meet this, such as "type = 'a' AND dt >= '2026-11-01'"
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
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
    let hand_run = HandRun {
        job: if command.closed_days { "compact-day" } else { "compact" },
        ns: command.ns.as_deref(),
        table: command.table.as_deref(),
        condition: command.condition.as_deref(),
        dry_run: command.dry_run,
        json: command.json,
    };
    hand_run.run(&client).await
}
