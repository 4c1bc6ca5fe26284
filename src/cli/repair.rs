//! `icecore repair`: what was lost, rebuilt from what is there, while no server runs.

use crate::{
    cli::{CliError, say},
    config::Config,
    server::repair::{
        self, MetastoreRepair,
        table::{self, TableRepair},
    },
};
use clap::Subcommand;
use icecore_lake::clock::Clock;
use serde_json::json;

/// `icecore repair …`
#[derive(Debug, Subcommand)]
pub enum RepairCommand {
    /// Rebuild a metastore that is gone from the warehouse and the log
    Metastore {
        /// Bring back tables that were dropped before, as far as is known
        #[arg(long)]
        with_dropped: bool,
        /// Take the log of this data folder for the one whose rows the tables have
        #[arg(long)]
        force: bool,
        /// Read everything and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Move a table that lost a file back to its last whole snapshot
    Table {
        /// The table, as namespace.table
        table: String,
        /// To this snapshot; default: the newest one that is whole
        #[arg(long, value_name = "SNAPSHOT")]
        to: Option<i64>,
        /// Read everything and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Repairs, and prints what was done. No server may be running.
///
/// # Errors
/// [`CliError::Offline`].
pub async fn run(config: &Config, command: &RepairCommand) -> Result<(), CliError> {
    match command {
        RepairCommand::Metastore { with_dropped, force, dry_run, json } => {
            let options = MetastoreRepair {
                with_dropped: *with_dropped,
                is_forced: *force,
                is_dry: *dry_run,
            };
            let failed = |source| CliError::Offline { operation: "rebuild the metastore", source };
            let clock = Clock::system();
            let done = repair::rebuild_metastore(config, &clock, options);
            let report = Box::pin(done).await.map_err(failed)?;
            say(&if *json { json!(report).to_string() } else { report.text() })
        }
        RepairCommand::Table { table, to, dry_run, json } => {
            let options = TableRepair { table: table.clone(), to: *to, is_dry: *dry_run };
            let failed = |source| CliError::Offline { operation: "repair the table", source };
            let clock = Clock::system();
            let done = table::repair_table(config, &clock, &options);
            let report = Box::pin(done).await.map_err(failed)?;
            say(&if *json { json!(report).to_string() } else { report.text() })
        }
    }
}
