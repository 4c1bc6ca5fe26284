//! Shows how far a run by hand is while its answer is waited for.

use crate::cli::{
    CliError,
    client::{ClientError, ServerClient},
    ingest::progress_bar,
};
use icecore_schemas::jobs::{JobList, JobProgress};
use indicatif::ProgressBar;
use reqwest::Method;
use std::{future::pending, pin::pin, time::Duration};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// A look that takes longer is given up, and the next one shows more.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Waits for the answer of a run, with a bar on a terminal. Ctrl-C leaves the run to the server.
///
/// # Errors
/// [`CliError::Client`]; [`CliError::Refused`] after Ctrl-C.
pub(super) async fn watch<T>(
    client: &ServerClient,
    job: &str,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, CliError> {
    let bar = progress_bar(0, job.to_owned());
    let is_shown = !bar.is_hidden();
    let mut answer = pin!(answer);
    let mut interrupted = pin!(interrupted());
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Cancel-safe: a tick that is lost comes again, and the two others are kept.
        tokio::select! {
            answered = &mut answer => {
                bar.finish_and_clear();
                return Ok(answered?);
            }
            () = &mut interrupted => {
                bar.abandon();
                let text = "the server goes on with the run: `icecore jobs` tells how it ends";
                return Err(CliError::Refused(text.to_owned()));
            }
            _ = looks.tick(), if is_shown => {
                // One that fails says nothing of the run.
                if let Ok(Some(progress)) = timeout(LOOK_MAX, look(client, job)).await {
                    show(&bar, &progress);
                }
            }
        }
    }
}

/// Comes when somebody presses Ctrl-C, where that can be seen.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        pending::<()>().await;
    }
}

async fn look(client: &ServerClient, job: &str) -> Option<JobProgress> {
    let list: JobList = client.read(Method::GET, "/admin/jobs", None).await.ok()?;
    list.jobs.into_iter().find(|state| state.name == job)?.progress
}

fn show(bar: &ProgressBar, progress: &JobProgress) {
    let JobProgress { tables_done, tables, groups_done, groups, bytes_done, bytes } = progress;
    bar.set_length(*bytes);
    bar.set_position(*bytes_done);
    bar.set_message(format!("{groups_done} of {groups} groups, {tables_done} of {tables} tables"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_bytes_groups_and_tables() {
        let bar = ProgressBar::hidden();
        let progress = JobProgress {
            tables_done: 1,
            tables: 3,
            groups_done: 4,
            groups: 12,
            bytes_done: 40,
            bytes: 100,
        };
        show(&bar, &progress);
        assert_eq!((bar.position(), bar.length()), (40, Some(100)));
        assert_eq!(bar.message(), "4 of 12 groups, 1 of 3 tables");
    }
}
