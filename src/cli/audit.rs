//! `icecore audit`: reads and verifies the audit log, in the metastore of the settings or, with
//! `--url`, by asking a server; and has a server audit the rows of a namespace.

mod events;

use crate::{
    cli::{
        CliError,
        admin::{aligned, time},
        client::ServerClient,
        say, token,
    },
    config::Config,
};
use clap::{Args, Subcommand};
use icecore_catalog::{
    access::AccessControl,
    audit::{AuditEntry, BrokenChain, ChainCheck, ChainEnds, ChainHead, ChainRecord},
};
use icecore_schemas::tokens::{AuditHead, AuditRecord, AuditRecords};
use reqwest::Method;

/// Records read at once.
const PAGE_RECORDS: u32 = 1000;
/// How often a check begins anew because the log was cut under it.
const CHECKS_MAX: u32 = 5;

/// `icecore audit`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List records
    List(AuditList),
    /// Check that no record was changed, removed or moved
    Verify(AuditVerify),
    /// Check that every acknowledged event is in the log or in its table, once
    Events(events::AuditEvents),
}

/// `icecore audit list`
#[derive(Debug, Args)]
pub struct AuditList {
    /// Only records after this number
    #[arg(long, default_value_t = 0)]
    after: i64,
    /// At most this many, up to 1000
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Ask the server at http://host:port; default: read the metastore
    #[arg(long)]
    url: Option<String>,
}

/// `icecore audit verify`
#[derive(Debug, Args)]
pub struct AuditVerify {
    /// NUMBER:HASH that an earlier run printed: the log must still hold that record
    #[arg(long, value_name = "NUMBER:HASH")]
    expect: Option<String>,
    /// Ask the server at http://host:port; default: read the metastore
    #[arg(long)]
    url: Option<String>,
}

/// Where the records are.
enum AuditSource {
    Metastore(AccessControl),
    Server(ServerClient),
}

struct ChainPage {
    records: Vec<ChainRecord>,
    ends: ChainEnds,
}

impl From<AuditRecords> for ChainPage {
    fn from(AuditRecords { records, head, start }: AuditRecords) -> Self {
        let end = |head: AuditHead| ChainHead { number: head.number, hash: head.hash };
        let ends = ChainEnds { start: end(start), head: end(head) };
        Self { records: records.into_iter().map(record).collect(), ends }
    }
}

fn record(record: AuditRecord) -> ChainRecord {
    let AuditRecord {
        number,
        time_ms,
        principal,
        address,
        request,
        action,
        object,
        outcome,
        details,
        hash,
    } = record;
    let entry =
        AuditEntry { time_ms, principal, address, request, action, object, outcome, details };
    ChainRecord { number, entry, hash }
}

/// Runs the command.
///
/// # Errors
/// [`CliError`]
pub async fn run(config: &Config, command: &AuditCommand) -> Result<(), CliError> {
    match command {
        AuditCommand::List(list) => {
            let source = AuditSource::open(config, list.url.as_deref()).await?;
            show(&source.page(list.after, list.limit.min(PAGE_RECORDS)).await?.records)
        }
        AuditCommand::Verify(verify) => {
            let source = AuditSource::open(config, verify.url.as_deref()).await?;
            let expected = verify.expect.as_deref().map(head).transpose()?;
            verify_chain(&source, expected).await
        }
        AuditCommand::Events(command) => events::run(config, command).await,
    }
}

impl AuditSource {
    async fn open(config: &Config, url: Option<&str>) -> Result<Self, CliError> {
        Ok(match url {
            Some(url) => Self::Server(ServerClient::new(config, Some(url))),
            None => Self::Metastore(token::open(config).await?),
        })
    }

    /// The ends are no newer than the records.
    async fn page(&self, after: i64, limit: u32) -> Result<ChainPage, CliError> {
        match self {
            Self::Server(client) => {
                let path = format!("/admin/audit?after={after}&limit={limit}");
                let page: AuditRecords = client.read(Method::GET, &path, None).await?;
                Ok(page.into())
            }
            Self::Metastore(access) => {
                let recorder = access.recorder().expect("it was made as one that records");
                let ends = recorder.store().audit_ends().await?;
                Ok(ChainPage { records: recorder.store().audit(after, limit).await?, ends })
            }
        }
    }
}

fn show(records: &[ChainRecord]) -> Result<(), CliError> {
    let rows: Vec<Vec<String>> = records
        .iter()
        .map(|record| {
            let entry = &record.entry;
            vec![
                record.number.to_string(),
                time(entry.time_ms),
                entry.principal.clone(),
                entry.address.clone(),
                entry.action.clone(),
                entry.object.clone(),
                entry.outcome.clone(),
                entry.request.clone(),
            ]
        })
        .collect();
    let header =
        ["number", "time", "principal", "address", "action", "object", "outcome", "request"];
    say(&aligned(&header, &rows))
}

async fn verify_chain(source: &AuditSource, expected: Option<ChainHead>) -> Result<(), CliError> {
    let mut checks = 1;
    let (ends, checked) = loop {
        let first = source.page(0, PAGE_RECORDS).await?;
        let ends = first.ends.clone();
        let checked = check_once(source, first, expected.clone()).await?;
        // Records that were deleted for their age meanwhile look as if somebody had removed them.
        let was_cut = source.page(0, 1).await?.ends.start != ends.start;
        if checked.is_ok() || !was_cut || checks == CHECKS_MAX {
            break (ends, checked);
        }
        checks += 1;
    };
    let head = checked?;
    let kept = head.number - ends.start.number;
    let cut = match ends.start.number {
        0 => String::new(),
        number => format!(" (those up to {number} were deleted for their age)"),
    };
    say(&format!(
        "{kept} records, none changed, removed or moved{cut}\nkeep this elsewhere to detect a rewritten log: --expect {}:{}",
        head.number, head.hash
    ))
}

async fn check_once(
    source: &AuditSource,
    mut page: ChainPage,
    expected: Option<ChainHead>,
) -> Result<Result<ChainHead, BrokenChain>, CliError> {
    let mut check = ChainCheck::new(page.ends, expected);
    loop {
        match check.page(&page.records) {
            Ok(true) => page = source.page(check.after(), PAGE_RECORDS).await?,
            Ok(false) => return Ok(check.finish()),
            Err(broken) => return Ok(Err(broken)),
        }
    }
}

fn head(text: &str) -> Result<ChainHead, CliError> {
    let parsed = text.split_once(':').and_then(|(number, hash)| {
        Some(ChainHead { number: number.parse().ok()?, hash: hash.to_owned() })
    });
    parsed.ok_or_else(|| CliError::Usage(format!("--expect `{text}` is not NUMBER:HASH")))
}
