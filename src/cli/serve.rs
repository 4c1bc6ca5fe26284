//! `icecore serve`.

use crate::{cli::CliError, clock::Clock, config::Config, server::Server};
use tokio::signal::unix::{SignalKind, signal};

/// Runs a server until Ctrl-C or SIGTERM.
///
/// # Errors
/// [`CliError::Start`].
pub async fn serve(config: &Config) -> Result<(), CliError> {
    let server = Server::start(config, Clock::system()).await?;
    until_asked_to_stop().await?;
    server.stop().await;
    Ok(())
}

/// Returns at Ctrl-C or SIGTERM.
///
/// # Errors
/// The process cannot watch signals.
pub async fn until_asked_to_stop() -> Result<(), CliError> {
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|source| CliError::Io { operation: "watch for SIGTERM".to_owned(), source })?;
    // Cancel-safe: whichever comes first ends the wait for good.
    tokio::select! {
        stopped = tokio::signal::ctrl_c() => stopped.map_err(|source| CliError::Io { operation: "watch for Ctrl-C".to_owned(), source }),
        _ = terminate.recv() => Ok(()),
    }
}
