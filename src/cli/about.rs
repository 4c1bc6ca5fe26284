//! What the program says of itself, without settings and without a server.

use crate::cli::{CliError, say};
use clap::Subcommand;

/// What the program says of itself.
#[derive(Debug, Subcommand)]
pub enum AboutCommand {
    /// Print the version
    Version,
}

/// Prints what was asked for.
///
/// # Errors
/// Nobody reads stdout.
pub fn run(command: &AboutCommand) -> Result<(), CliError> {
    match command {
        AboutCommand::Version => say(concat!("icecore ", env!("CARGO_PKG_VERSION"))),
    }
}
