//! `icecore sql-worker`: a process that the server starts for queries. Nobody types it.

use crate::{
    cli::{CliError, say},
    sql::worker::{
        self,
        lock::{self, WorkerLimits},
        probe,
    },
};
use clap::Args;
use std::path::PathBuf;

/// What the log of a worker has; the server passes it on.
const LOGGED: &str = "warn";

/// A process for queries.
#[derive(Debug, Args)]
pub struct SqlWorkerCommand {
    /// Memory of all queries together
    #[arg(long)]
    memory_bytes_max: u64,
    /// Folder for what does not fit into memory
    #[arg(long)]
    spill: Option<PathBuf>,
    /// Most bytes in it
    #[arg(long, default_value_t = 0)]
    spill_bytes_max: u64,
    /// Try calls, CALL or CALL:OBJECT, and print what came of each, instead of running queries
    #[arg(long)]
    probe: Vec<String>,
}

/// Locks this process in and answers queries of the server that started it. No thread was started and
/// nothing was read before.
///
/// # Errors
/// The pipes are not those of a server.
pub fn run(command: &SqlWorkerCommand) -> Result<(), CliError> {
    let limits = WorkerLimits {
        memory_bytes_max: command.memory_bytes_max,
        spill: command.spill.clone(),
        spill_bytes_max: command.spill_bytes_max,
    };
    let locked = lock::restrict(&limits);
    if !command.probe.is_empty() {
        for missing in &locked.missing {
            say(&format!("missing\t{missing}"))?;
        }
        return command.probe.iter().try_for_each(|call| {
            let outcome = probe::outcome(call);
            say(&format!("{call}\t{outcome}"))
        });
    }
    let log = tracing_subscriber::fmt().with_env_filter(LOGGED).with_writer(std::io::stderr);
    // The server gives each line a time. Where it does not read, a second try would panic.
    log.with_ansi(false).without_time().log_internal_errors(false).init();
    worker::serve(&limits, locked)
        .map_err(|source| CliError::Io { operation: "answer queries".to_owned(), source })
}
