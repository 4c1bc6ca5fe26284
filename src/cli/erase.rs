//! `icecore erase`: takes the rows of a subject out of a namespace, and tells how far that is.

use crate::{
    cli::{
        CliError,
        admin::{aligned, escape, escape_ns},
        client::ServerClient,
        remark, say,
    },
    config::Config,
};
use clap::Args;
use icecore_schemas::erasure::{
    ErasureList, ErasureReport, ErasureStatus, ErasureSubject, NewErasure,
};
use reqwest::Method;
use serde_json::json;
use std::time::Duration;

/// Between two looks at an erasure that goes on.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// `icecore erase`
#[derive(Debug, Args)]
pub struct EraseCommand {
    /// The namespace
    #[arg(long, default_value = "default")]
    ns: String,
    #[command(flatten)]
    subject: SubjectOptions,
    /// The collection of the key; every one when left out
    #[arg(long, requires = "key")]
    collection: Option<String>,
    /// Only count what there is
    #[arg(long)]
    dry_run: bool,
    /// Wait until it has ended: some ten minutes, for files that are being read, and as long as clients hold snapshots
    #[arg(long)]
    wait: bool,
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
}

/// Whose rows, or which erasure.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct SubjectOptions {
    /// Rows of this user
    #[arg(long)]
    user_id: Option<String>,
    /// Rows of this actor
    #[arg(long)]
    actor: Option<String>,
    /// Rows of this anonymous user
    #[arg(long)]
    anonymous_id: Option<String>,
    /// Rows of the document with this key
    #[arg(long)]
    key: Option<String>,
    /// The event of this id
    #[arg(long)]
    id: Option<String>,
    /// Begin none, and show the one of this id
    #[arg(long, value_name = "ERASURE")]
    show: Option<String>,
    /// Begin none, and list those of the namespace
    #[arg(long)]
    list: bool,
}

/// Begins an erasure or shows some.
///
/// # Errors
/// [`CliError::Client`]; [`CliError::Refused`] when one that was waited for did not erase everything.
pub async fn run(config: &Config, command: &EraseCommand) -> Result<(), CliError> {
    let client = ServerClient::new(config, command.url.as_deref());
    let path = format!("/v1/{}/erase", escape_ns(&command.ns));
    if command.subject.list {
        let list: ErasureList = client.read(Method::GET, &path, None).await?;
        return show_all(&list, command.json);
    }
    let mut report: ErasureReport = match &command.subject.show {
        Some(id) => client.read(Method::GET, &format!("{path}/{}", escape(id)), None).await?,
        None => {
            let asked = NewErasure { subject: subject(command), dry_run: command.dry_run };
            client.read(Method::POST, &path, Some(&json!(asked))).await?
        }
    };
    // What it cannot do now is known to the server, which goes on trying.
    while command.wait && !report.status.is_ended() {
        tokio::time::sleep(LOOK_AGAIN).await;
        let path = format!("{path}/{}", escape(&report.erasure));
        let before = report.status;
        report = client.read(Method::GET, &path, None).await?;
        if report.status != before && !command.json {
            remark(report.status.name());
        }
    }
    match command.json {
        true => say(&json!(report).to_string())?,
        false => show(&report)?,
    }
    if !report.status.is_ended() && command.subject.show.is_none() && !command.json {
        let (ns, id) = (&command.ns, &report.erasure);
        remark(&format!(
            "it goes on: `icecore erase --ns {ns} --show {id}` tells how far it is; --wait waits for its end"
        ));
    }
    if report.status == ErasureStatus::Failed {
        let why = report.error.unwrap_or_else(|| "rows of the subject are left".to_owned());
        return Err(CliError::Refused(why));
    }
    Ok(())
}

fn subject(command: &EraseCommand) -> ErasureSubject {
    let SubjectOptions { user_id, actor, anonymous_id, key, id, show: _, list: _ } =
        &command.subject;
    ErasureSubject {
        user_id: user_id.clone(),
        actor: actor.clone(),
        anonymous_id: anonymous_id.clone(),
        key: key.clone(),
        collection: command.collection.clone(),
        id: id.clone(),
    }
}

fn show_all(list: &ErasureList, as_json: bool) -> Result<(), CliError> {
    if as_json {
        return say(&json!(list).to_string());
    }
    let row = |report: &ErasureReport| {
        let rows: u64 = report.tables.values().map(|found| found.rows).sum();
        vec![
            report.erasure.clone(),
            report.since.clone(),
            report.status.name().to_owned(),
            if report.dry_run { "yes" } else { "no" }.to_owned(),
            rows.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = list.erasures.iter().map(row).collect();
    say(&aligned(&["erasure", "since", "status", "dry run", "rows"], &rows))
}

fn show(report: &ErasureReport) -> Result<(), CliError> {
    say(&format!("erasure {}: {}", report.erasure, report.status.name()))?;
    let rows: Vec<Vec<String>> = report
        .tables
        .iter()
        .map(|(table, found)| vec![table.clone(), found.rows.to_string(), found.files.to_string()])
        .collect();
    say(&aligned(&["table", "rows", "files"], &rows))?;
    for tag in &report.refs {
        say(&format!("tag: {tag}"))?;
    }
    if let Some(error) = &report.error {
        say(&format!("error: {error}"))?;
    }
    if let Some(waits) = &report.waits {
        say(&format!("waits: {waits}"))?;
    }
    for limit in &report.cannot {
        say(&format!("cannot: {limit}"))?;
    }
    Ok(())
}
