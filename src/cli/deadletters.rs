//! `icecore deadletters …`: refused events listed, shown, sent again, discarded; one request each.

use crate::{
    cli::{
        CliError, STDOUT,
        admin::{aligned, escape, escape_ns, shown},
        client::{ClientRequest, ServerClient, refused},
        counted, say,
    },
    config::Config,
};
use bytes::Bytes;
use clap::{Args, Subcommand};
use icecore_schemas::dead_letters::{DiscardReply, Letter, LetterList, RetryLetters, RetryReply};
use reqwest::Method;
use serde::Serialize;
use serde_json::json;
use std::io::Write;

/// Columns of a list.
const COLUMNS: [&str; 8] =
    ["id", "received_at", "reason", "type", "event_id", "retries", "status", "detail"];

/// `icecore deadletters …`
#[derive(Debug, Subcommand)]
pub enum DeadLetterCommand {
    /// List rejected events, oldest first
    List(DeadLetterList),
    /// Print one as it was sent
    Show(DeadLetterShow),
    /// Send them again, each under its id
    Retry(DeadLetterRetry),
    /// Discard what was received before a time
    Purge(DeadLetterPurge),
}

/// Which namespace of which server, and how answers are printed.
#[derive(Debug, Args)]
struct DeadLetterArgs {
    /// The namespace
    #[arg(long, default_value = "default")]
    ns: String,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
}

/// `icecore deadletters list`
#[derive(Debug, Args)]
pub struct DeadLetterList {
    #[command(flatten)]
    place: DeadLetterArgs,
    /// Only those rejected for this reason, such as TS_WINDOW
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// Only those that are pending, or redriven
    #[arg(long)]
    status: Option<String>,
    /// Only those after this id
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// At most this many, up to 1000
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

/// `icecore deadletters show`
#[derive(Debug, Args)]
pub struct DeadLetterShow {
    #[command(flatten)]
    place: DeadLetterArgs,
    /// Its id, from the response to the rejected event or from `icecore deadletters list`
    id: String,
}

/// `icecore deadletters retry`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["ids", "reason", "all"]))]
pub struct DeadLetterRetry {
    #[command(flatten)]
    place: DeadLetterArgs,
    /// These
    ids: Vec<String>,
    /// All that are pending and were rejected for this reason
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// All that are pending
    #[arg(long)]
    all: bool,
    /// Accept events of any age
    #[arg(long)]
    backfill: bool,
    /// Only show what would happen
    #[arg(long)]
    dry_run: bool,
}

/// `icecore deadletters purge`
#[derive(Debug, Args)]
pub struct DeadLetterPurge {
    #[command(flatten)]
    place: DeadLetterArgs,
    /// An RFC 3339 time, such as 2026-11-20T00:00:00Z
    #[arg(long, value_name = "TIME")]
    before: String,
    /// Only say how many
    #[arg(long)]
    dry_run: bool,
}

impl DeadLetterArgs {
    fn client(&self, config: &Config) -> ServerClient {
        ServerClient::new(config, self.url.as_deref())
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/{}/dead-letters{rest}", escape_ns(&self.ns))
    }

    fn print(
        &self,
        answer: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        if self.json { say(&json!(answer).to_string()) } else { say(&text()) }
    }
}

/// Does what the command says and prints the answer.
///
/// # Errors
/// [`CliError`]; [`CliError::Refused`] when letters were refused again.
pub async fn run(config: &Config, command: &DeadLetterCommand) -> Result<(), CliError> {
    match command {
        DeadLetterCommand::List(command) => list(config, command).await,
        DeadLetterCommand::Show(command) => show(config, command).await,
        DeadLetterCommand::Retry(command) => retry(config, command).await,
        DeadLetterCommand::Purge(command) => purge(config, command).await,
    }
}

async fn list(config: &Config, command: &DeadLetterList) -> Result<(), CliError> {
    let DeadLetterList { place, reason, status, after, limit } = command;
    let mut query = format!("?limit={limit}");
    for (name, value) in [("reason", reason), ("status", status), ("after", after)] {
        if let Some(value) = value {
            query.push_str(&format!("&{name}={}", escape(value)));
        }
    }
    let client = place.client(config);
    let answer: LetterList = client.read(Method::GET, &place.path(&query), None).await?;
    place.print(&answer, || {
        let row = |letter: &Letter| {
            vec![
                letter.id.clone(),
                letter.received_at.clone(),
                letter.reason.clone(),
                shown(letter.event_type.as_ref()),
                shown(letter.event_id.as_ref()),
                letter.retries.to_string(),
                letter.status.clone(),
                letter.detail.clone(),
            ]
        };
        let mut text = aligned(&COLUMNS, &answer.dead_letters.iter().map(row).collect::<Vec<_>>());
        if let Some(next) = &answer.next {
            text.push_str(&format!("\nmore with --after {next}"));
        }
        text
    })
}

async fn show(
    config: &Config,
    DeadLetterShow { place, id }: &DeadLetterShow,
) -> Result<(), CliError> {
    let path = place.path(&format!("/{}", escape(id)));
    let call = ClientRequest { method: Method::GET, path: &path, headers: &[], body: Bytes::new() };
    let (status, bytes) = place.client(config).send(&call).await?;
    if !status.is_success() {
        return Err(refused(status, &bytes).into());
    }
    if place.json {
        let text = String::from_utf8_lossy(&bytes);
        return say(&json!({ "id": id, "event": text }).to_string());
    }
    // As they came, without a line end of ours.
    let mut out = std::io::stdout().lock();
    out.write_all(&bytes)
        .and_then(|()| out.flush())
        .map_err(|source| CliError::Io { operation: STDOUT.to_owned(), source })
}

async fn retry(config: &Config, command: &DeadLetterRetry) -> Result<(), CliError> {
    let DeadLetterRetry { place, ids, reason, all, backfill, dry_run } = command;
    let is_by_id = !*all && reason.is_none();
    let body = json!(RetryLetters {
        ids: is_by_id.then(|| ids.clone()),
        reason: reason.clone(),
        all: *all,
        dry_run: *dry_run,
    });
    let path = place.path(if *backfill { "/retry?backfill=true" } else { "/retry" });
    let answer: RetryReply = place.client(config).read(Method::POST, &path, Some(&body)).await?;
    let RetryReply { retried, accepted, duplicates, rejected, missing, .. } = answer;
    place.print(&answer, || {
        let verb = if *dry_run { "would be" } else { "were" };
        format!(
            "{retried} {verb} sent again: {accepted} accepted, {}, {rejected} rejected",
            counted(duplicates, "duplicate")
        )
    })?;
    let mut problems = Vec::new();
    if 0 < missing {
        let ids = counted(missing, "id");
        problems.push(format!("{ids} without a dead letter: it never was, or it was discarded"));
    }
    if 0 < rejected && !*dry_run {
        let letters = counted(rejected, "dead letter");
        problems.push(format!("{letters} rejected again: `icecore deadletters list` says why"));
    }
    if problems.is_empty() { Ok(()) } else { Err(CliError::Refused(problems.join("; "))) }
}

async fn purge(config: &Config, command: &DeadLetterPurge) -> Result<(), CliError> {
    let DeadLetterPurge { place, before, dry_run } = command;
    let path = place.path(&format!("?before={}&dry_run={dry_run}", escape(before)));
    let answer: DiscardReply = place.client(config).read(Method::DELETE, &path, None).await?;
    place.print(&answer, || {
        let letters = counted(answer.purged, "dead letter");
        if *dry_run {
            format!("{letters} would be discarded")
        } else {
            format!("{letters} discarded")
        }
    })
}
