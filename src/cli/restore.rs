//! `icecore restore`: a collection, or all of a namespace, as it was at a point of its history.

use crate::{
    cli::{
        CliError,
        admin::{aligned, escape, escape_ns},
        client::{ClientRequest, ServerClient, refused},
        collections::printable,
        counted, remark, say,
    },
    config::Config,
};
use clap::Args;
use icecore_catalog::body::parse_object;
use icecore_schemas::restore::{
    CollectionRestore, LeftDocument, NamespaceRestore, RestoreReport, SampleChange,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal};

/// `icecore restore`
#[derive(Debug, Args)]
pub struct RestoreCommand {
    #[command(flatten)]
    what: RestoredPart,
    /// The namespace
    #[arg(long, default_value = "default")]
    ns: String,
    /// The point: seq:17, bookmark:…, time:2026-11-20T12:00:00Z, tag:…, snapshot:…, or before:REQUEST for the moment
    /// before the request of that id
    #[arg(long, value_name = "POINT")]
    at: String,
    /// Put the state into this collection, which has no documents
    #[arg(long, value_name = "COLLECTION", conflicts_with = "namespace")]
    into: Option<String>,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before
    #[arg(long)]
    yes: bool,
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
}

/// What is restored.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct RestoredPart {
    /// The collection
    collection: Option<String>,
    /// All collections of the namespace
    #[arg(long)]
    namespace: bool,
}

/// Shows what would change, asks, and restores.
///
/// # Errors
/// [`CliError::Client`]; [`CliError::Usage`] where nobody can be asked, [`CliError::Refused`] for who says no.
pub async fn run(config: &Config, command: &RestoreCommand) -> Result<(), CliError> {
    let client = ServerClient::new(config, command.url.as_deref());
    let mut at = command.at.clone();
    if command.dry_run || !command.yes {
        let planned = send(&client, command, &at, true).await?;
        if command.dry_run {
            return show(&planned, command.json);
        }
        // What is agreed to is what is done, whatever the point stands for by then.
        at = format!("seq:{}", planned.restored_to.seq);
        agree(&planned)?;
    }
    let report = send(&client, command, &at, false).await?;
    show(&report, command.json)?;
    if let (Some(undo), false) = (&report.undo_bookmark, command.json) {
        remark(&format!("to undo it, restore to bookmark:{undo}"));
    }
    Ok(())
}

async fn send(
    client: &ServerClient,
    command: &RestoreCommand,
    at: &str,
    dry_run: bool,
) -> Result<RestoreReport, CliError> {
    let ns = escape_ns(&command.ns);
    let at = Value::from(at);
    let (path, body) = match &command.what.collection {
        Some(collection) => (
            format!("/v1/{ns}/collections/{}/restore", escape(collection)),
            json!(CollectionRestore { at, into: command.into.clone(), dry_run }),
        ),
        None => (format!("/v1/{ns}/restore"), json!(NamespaceRestore { at, dry_run })),
    };
    let headers = [
        ("content-type", "application/json".to_owned()),
        // A repeat goes on with what was done, and does nothing twice.
        ("idempotency-key", uuid::Uuid::new_v4().to_string()),
    ];
    let (method, body) = (Method::POST, body.to_string().into());
    let request = ClientRequest { method, path: &path, headers: &headers, body };
    let (status, bytes) = client.send_retrying(&request).await?;
    if !status.is_success() {
        return Err(refused(status, &bytes).into());
    }
    parse_object(&bytes).map_err(|reason| client.foreign(&bytes, reason).into())
}

/// Asks whether to do it.
fn agree(planned: &RestoreReport) -> Result<(), CliError> {
    let RestoreReport { inserted, updated, deleted, restored_to, .. } = planned;
    let question = format!(
        "{} would be inserted, {updated} updated, {deleted} deleted, as at seq {}. Restore? [y/N]",
        counted(*inserted, "document"),
        restored_to.seq
    );
    ask(&question, "restore")
}

/// Asks at the terminal whether to do it.
///
/// # Errors
/// [`CliError::Usage`] where nobody can be asked, [`CliError::Refused`] for who says no.
pub(super) fn ask(question: &str, verb: &str) -> Result<(), CliError> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let text = format!(
            "there is no terminal to ask at: add --yes to {verb}, or --dry-run to see what would change"
        );
        return Err(CliError::Usage(text));
    }
    remark(question);
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer).map_err(|source| CliError::Io {
        operation: "read the answer from the terminal".to_owned(),
        source,
    })?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CliError::Refused("nothing was changed".to_owned())),
    }
}

fn show(report: &RestoreReport, as_json: bool) -> Result<(), CliError> {
    if as_json {
        return say(&json!(report).to_string());
    }
    let RestoreReport { restored_to, inserted, updated, deleted, unchanged, .. } = report;
    let verb = if report.dry_run { "would be restored" } else { "restored" };
    let ts = restored_to.ts.as_ref().map(|ts| format!(", {ts}")).unwrap_or_default();
    say(&format!("{verb} to seq {}{ts}", restored_to.seq))?;
    let row = |name: &str, [inserted, updated, deleted, unchanged]: [u64; 4]| {
        let mut row = vec![name.to_owned()];
        row.extend([inserted, updated, deleted, unchanged].map(|count| count.to_string()));
        row
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for part in &report.collections {
        let counts = [part.inserted, part.updated, part.deleted, part.unchanged];
        rows.push(row(&part.name, counts));
    }
    rows.push(row("all", [*inserted, *updated, *deleted, *unchanged]));
    say(&aligned(&["collection", "inserted", "updated", "deleted", "unchanged"], &rows))?;
    for SampleChange { collection, key, change, before, after } in &report.sample {
        say(&printable(&format!("{collection}/{key} {change}: {before} -> {after}")))?;
    }
    if report.written_meanwhile != 0 {
        let left = counted(report.written_meanwhile, "document");
        say(&format!(
            "{left} written meanwhile and left as written; restore again to put them back"
        ))?;
    }
    for LeftDocument { collection, key } in &report.left {
        say(&printable(&format!("{collection}/{key} left as written")))?;
    }
    if report.overwritten != 0 {
        let overwritten = counted(report.overwritten, "document");
        say(&format!(
            "{overwritten} written right before the changes and overwritten; icecore history has what was written"
        ))?;
    }
    for LeftDocument { collection, key } in &report.overwritten_documents {
        say(&printable(&format!("{collection}/{key} overwritten")))?;
    }
    if let Some(tag) = &report.tag {
        say(&format!("tag of events before it: {tag}"))?;
    }
    Ok(())
}
