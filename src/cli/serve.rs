//! `icecore serve`.

use crate::{cli::CliError, config::Config, server::Server};
use icecore_lake::clock::Clock;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

/// Files that a server may have open beside its connections: of the log, the index of ids, the
/// metastore, commits and queries.
const FILES_MIN: u64 = 512;

/// Runs a server until Ctrl-C or SIGTERM.
///
/// # Errors
/// [`CliError::Start`].
pub async fn serve(config: &Config) -> Result<(), CliError> {
    // Before the server answers: a stop that comes right after its first answer is a clean one.
    let mut stop = StopSignal::watch()?;
    raise_open_files(config);
    let server = Server::start(config, Clock::system()).await?;
    stop.received().await;
    server.stop().await;
    Ok(())
}

/// Lets this process have as many files open as it may. Shells and systemd begin with 1 024, as few
/// as there may be connections, and let a process have many more.
pub fn raise_open_files(config: &Config) {
    let connections = u64::try_from(config.http_connections_max).unwrap_or(u64::MAX);
    let needs = connections.saturating_add(FILES_MIN);
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(most) if needs <= most => (),
        Ok(most) => warn!(
            most,
            needs,
            "this process may have few files open: raise its hard limit (`ulimit -Hn`, systemd's LimitNOFILE) or lower http.connections_max"
        ),
        Err(cause) => {
            warn!(
                error = &cause as &dyn std::error::Error,
                "the limit of open files cannot be raised"
            );
        }
    }
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
