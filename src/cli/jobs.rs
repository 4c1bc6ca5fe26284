//! `icecore jobs`: what a server does by itself, and how that went.

use crate::{
    cli::{
        CliError,
        admin::{aligned, time},
        client::ServerClient,
        say,
    },
    config::Config,
};
use clap::Args;
use icecore_schemas::jobs::{JobList, JobState};
use reqwest::Method;
use serde_json::json;

/// `icecore jobs`
#[derive(Debug, Args)]
pub struct JobsCommand {
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
}

/// Prints every job with its last run.
///
/// # Errors
/// [`CliError::Client`].
pub async fn run(config: &Config, command: &JobsCommand) -> Result<(), CliError> {
    let client = ServerClient::new(config, command.url.as_deref());
    let list: JobList = client.read(Method::GET, "/admin/jobs", None).await?;
    if command.json {
        return say(&json!(list).to_string());
    }
    let header = ["job", "every", "last run", "took", "outcome", "failures", "next run", "about"];
    let rows: Vec<Vec<String>> = list.jobs.iter().map(row).collect();
    say(&aligned(&header, &rows))?;
    for job in &list.jobs {
        let failed = job.last_run.as_ref().and_then(|run| run.error.as_ref());
        if let Some(error) = failed {
            say(&format!("{}: {error}", job.name))?;
        }
    }
    Ok(())
}

fn row(job: &JobState) -> Vec<String> {
    let last = job.last_run.as_ref();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let next = match job.running_since_ms {
        Some(_) => "now".to_owned(),
        None => time(job.next_run_ms),
    };
    vec![
        job.name.clone(),
        format!("{} ms", job.every_ms),
        time(last.map(|run| run.started_ms)),
        or_dash(last.map(|run| format!("{} ms", run.elapsed_ms))),
        or_dash(last.map(|run| run.outcome.name().to_owned())),
        job.failures_in_a_row.to_string(),
        next,
        job.about.clone(),
    ]
}
