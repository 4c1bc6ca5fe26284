//! `icecore serve`.

use crate::{cli::CliError, config::Config, server::Server};
use icecore_lake::clock::Clock;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs a server until Ctrl-C or SIGTERM.
///
/// # Errors
/// [`CliError::Start`].
pub async fn serve(config: &Config) -> Result<(), CliError> {
    // Before the server answers: a stop that comes right after its first answer is a clean one.
    let mut stop = StopSignal::watch()?;
    let server = Server::start(config, Clock::system()).await?;
    stop.received().await;
    server.stop().await;
    Ok(())
}

/// The wish of a person or a supervisor that this process ends.
#[derive(Debug)]
pub struct StopSignal {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignal {
    /// Catches Ctrl-C and SIGTERM from now on.
    ///
    /// # Errors
    /// The process cannot watch signals.
    pub fn watch() -> Result<Self, CliError> {
        let watch = |kind, name: &str| {
            signal(kind)
                .map_err(|source| CliError::Io { operation: format!("watch for {name}"), source })
        };
        Ok(Self {
            interrupt: watch(SignalKind::interrupt(), "Ctrl-C")?,
            terminate: watch(SignalKind::terminate(), "SIGTERM")?,
        })
    }

    /// Returns when one of them came, also one that came before.
    pub async fn received(&mut self) {
        // Cancel-safe: whichever comes first ends the wait for good.
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }
}
