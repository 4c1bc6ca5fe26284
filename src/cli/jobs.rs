//! `icecore jobs`: what a server does by itself, how that went, and a job run by hand.

mod progress;

use crate::{
    cli::{
        CliError,
        admin::{aligned, escape, shown, time},
        client::ServerClient,
        counted, say,
    },
    config::{Config, units::write_bytes},
};
use clap::{Args, Subcommand};
use icecore_schemas::jobs::{
    FileReason, JobList, JobReport, JobState, PartitionPreview, SkippedTable,
};
use reqwest::Method;
use serde_json::json;

/// `icecore jobs`
#[derive(Debug, Args)]
pub struct JobsCommand {
    #[command(subcommand)]
    command: Option<JobCommand>,
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
}

#[derive(Debug, Subcommand)]
enum JobCommand {
    /// Run a job now, and wait for its end
    Run(RunJob),
}

/// `icecore jobs run`
#[derive(Debug, Args)]
struct RunJob {
    /// The job; `icecore jobs` lists which ones are run by hand
    name: String,
    /// Only tables of this namespace
    #[arg(long)]
    ns: Option<String>,
    /// Only tables of this name
    #[arg(long)]
    table: Option<String>,
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

/// A run of a job by hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandRun<'a> {
    pub(super) job: &'a str,
    pub(super) ns: Option<&'a str>,
    pub(super) table: Option<&'a str>,
    /// Of compaction alone.
    pub(super) condition: Option<&'a str>,
    pub(super) dry_run: bool,
    pub(super) json: bool,
}

/// Prints every job with its last run, or runs one.
///
/// # Errors
/// [`CliError::Client`].
pub async fn run(config: &Config, command: &JobsCommand) -> Result<(), CliError> {
    let url = command.url.as_deref();
    if let Some(JobCommand::Run(run)) = &command.command {
        let client = ServerClient::new(config, run.url.as_deref().or(url));
        let hand_run = HandRun {
            job: &run.name,
            ns: run.ns.as_deref(),
            table: run.table.as_deref(),
            condition: None,
            dry_run: run.dry_run,
            json: run.json || command.json,
        };
        return hand_run.run(&client).await;
    }
    let client = ServerClient::new(config, url);
    let list: JobList = client.read(Method::GET, "/admin/jobs", None).await?;
    if command.json {
        return say(&json!(list).to_string());
    }
    let header = [
        "job", "when", "by hand", "last run", "why", "took", "cpu", "outcome", "files", "bytes",
        "rows", "failures", "next run", "about",
    ];
    let rows: Vec<Vec<String>> = list.jobs.iter().map(row).collect();
    say(&aligned(&header, &rows))?;
    for job in &list.jobs {
        let Some(run) = &job.last_run else { continue };
        for why in run.error.iter().chain(&run.reason) {
            say(&format!("{}: {why}", job.name))?;
        }
    }
    Ok(())
}

fn row(job: &JobState) -> Vec<String> {
    let last = job.last_run.as_ref();
    let report = last.and_then(|run| run.report.as_ref());
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let next = match job.running_since_ms {
        Some(_) => "now".to_owned(),
        None => time(job.next_run_ms),
    };
    let when = match job.cron.as_deref() {
        None => format!("every {} ms", job.every_ms),
        Some("") => "-".to_owned(),
        Some(times) => times.to_owned(),
    };
    let by_hand = if job.is_run_by_hand { "yes" } else { "no" };
    vec![
        job.name.clone(),
        when,
        by_hand.to_owned(),
        time(last.map(|run| run.started_ms)),
        or_dash(last.and_then(|run| run.trigger).map(|why| why.name().to_owned())),
        or_dash(last.map(|run| format!("{} ms", run.elapsed_ms))),
        or_dash(last.and_then(|run| run.usage).map(|usage| format!("{} ms", usage.cpu_ms))),
        or_dash(last.map(|run| run.outcome.name().to_owned())),
        or_dash(report.map(|it| format!("{} -> {}", it.files.before, it.files.after))),
        or_dash(report.map(|it| {
            format!("{} -> {}", write_bytes(it.bytes.before), write_bytes(it.bytes.after))
        })),
        shown(report.map(|it| it.rows).as_ref()),
        job.failures_in_a_row.to_string(),
        next,
        job.about.clone(),
    ]
}

impl HandRun<'_> {
    /// Asks for it, waits, and prints what was done and what was left, with the reasons.
    ///
    /// # Errors
    /// [`CliError::Client`].
    pub(super) async fn run(self, client: &ServerClient) -> Result<(), CliError> {
        let named =
            [("namespace", self.ns), ("table", self.table), ("where", self.condition)].into_iter();
        let named = named.filter_map(|(key, name)| Some(format!("&{key}={}", escape(name?))));
        let named: String = named.collect();
        let path = format!("/admin/jobs/{}?dry_run={}{named}", escape(self.job), self.dry_run);
        let answer = client.read(Method::POST, &path, None);
        let report: JobReport = progress::watch(client, self.job, answer).await?;
        if self.json {
            return say(&json!(report).to_string());
        }
        let is_done = if self.dry_run { "would become" } else { "became" };
        // Not every job looks how long the files are.
        let bytes = match (report.bytes.before, report.bytes.after) {
            (0, 0) => String::new(),
            (before, after) => {
                format!(", {} before and {} after", write_bytes(before), write_bytes(after))
            }
        };
        say(&format!(
            "{} {is_done} {}, in {}: {}{bytes}, {} ms",
            counted(report.files.before, "file"),
            report.files.after,
            counted(report.tables, "table"),
            counted(report.rows, "row"),
            report.elapsed_ms,
        ))?;
        if 0 < report.copied_files {
            let copied = counted(report.copied_files, "file");
            say(&format!("row groups of {copied} copied without decoding"))?;
        }
        for (title, tables) in
            [("not copied", &report.not_copied), ("left as it is", &report.skipped)]
        {
            if !tables.is_empty() {
                let row = |it: &SkippedTable| vec![it.table.clone(), it.reason.clone()];
                let rows: Vec<Vec<String>> = tables.iter().map(row).collect();
                say(&aligned(&[title, "because"], &rows))?;
            }
        }
        self.tell_reasons(&report)
    }

    /// Prints which files were merged, or would be, and which were not worth it.
    fn tell_reasons(self, report: &JobReport) -> Result<(), CliError> {
        let merged = if self.dry_run { "would be merged" } else { "merged" };
        for (title, files) in [(merged, &report.merged), ("not worth it", &report.kept)] {
            if !files.is_empty() {
                let row = |it: &FileReason| {
                    vec![it.table.clone(), counted(it.files, "file"), it.reason.clone()]
                };
                let rows: Vec<Vec<String>> = files.iter().map(row).collect();
                say(&aligned(&[title, "files", "because"], &rows))?;
            }
        }
        if !report.partitions.is_empty() {
            let rows: Vec<Vec<String>> = report.partitions.iter().map(partition_row).collect();
            let header =
                ["table", "partition", "files", "bytes", "merged", "into", "files, because"];
            say(&aligned(&header, &rows))?;
        }
        if 0 < report.partitions_more {
            let more = counted(report.partitions_more, "partition");
            say(&format!("and {more} more: --table and --where choose some"))?;
        }
        Ok(())
    }
}

fn partition_row(it: &PartitionPreview) -> Vec<String> {
    vec![
        it.table.clone(),
        if it.partition.is_empty() { "-".to_owned() } else { it.partition.clone() },
        it.files.to_string(),
        write_bytes(it.bytes),
        it.merged.before.to_string(),
        it.merged.after.to_string(),
        it.reasons.join("; "),
    ]
}
