//! `icecore audit`: reads and verifies the audit log, in the metastore of the settings or, with
//! `--url`, by asking a server.

use crate::{
    cli::{
        CliError,
        admin::{aligned, time},
        client::Client,
        say, token,
    },
    config::Config,
};
use clap::{Args, Subcommand};
use icecore_catalog::{
    access::Access,
    audit::{Broken, Check, Ends, Entry, Head, Record},
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
    List(List),
    /// Check that no record was changed, removed or moved
    Verify(Verify),
}

/// `icecore audit list`
#[derive(Debug, Args)]
pub struct List {
    /// Only records after this number
    #[arg(long, default_value_t = 0)]
    after: i64,
    /// At most this many, up to 1000
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Ask the server at http://host:port; without it the metastore is read
    #[arg(long)]
    url: Option<String>,
}

/// `icecore audit verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// NUMBER:HASH that an earlier run printed: the log must still hold that record
    #[arg(long, value_name = "NUMBER:HASH")]
    expect: Option<String>,
    /// Ask the server at http://host:port; without it the metastore is read
    #[arg(long)]
    url: Option<String>,
}

/// Where the records are.
enum Source {
    Metastore(Access),
    Server(Client),
}

struct Page {
    records: Vec<Record>,
    ends: Ends,
}

impl From<AuditRecords> for Page {
    fn from(AuditRecords { records, head, start }: AuditRecords) -> Self {
        let end = |head: AuditHead| Head { number: head.number, hash: head.hash };
        let ends = Ends { start: end(start), head: end(head) };
        Self { records: records.into_iter().map(record).collect(), ends }
    }
}

fn record(record: AuditRecord) -> Record {
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
    let entry = Entry { time_ms, principal, address, request, action, object, outcome, details };
    Record { number, entry, hash }
}

/// Runs the command.
///
/// # Errors
/// [`CliError`]
pub async fn run(config: &Config, command: &AuditCommand) -> Result<(), CliError> {
    match command {
        AuditCommand::List(list) => {
            let source = Source::open(config, list.url.as_deref()).await?;
            show(&source.page(list.after, list.limit.min(PAGE_RECORDS)).await?.records)
        }
        AuditCommand::Verify(verify) => {
            let source = Source::open(config, verify.url.as_deref()).await?;
            let expected = verify.expect.as_deref().map(head).transpose()?;
            check(&source, expected).await
        }
    }
}

impl Source {
    async fn open(config: &Config, url: Option<&str>) -> Result<Self, CliError> {
        Ok(match url {
            Some(url) => Self::Server(Client::new(config, Some(url))),
            None => Self::Metastore(token::open(config).await?),
        })
    }

    /// The ends are no newer than the records.
    async fn page(&self, after: i64, limit: u32) -> Result<Page, CliError> {
        match self {
            Self::Server(client) => {
                let path = format!("/admin/audit?after={after}&limit={limit}");
                let page: AuditRecords = client.read(Method::GET, &path, None).await?;
                Ok(page.into())
            }
            Self::Metastore(access) => {
                let recorder = access.recorder().expect("it was made as one that records");
                let ends = recorder.store().audit_ends().await?;
                Ok(Page { records: recorder.store().audit(after, limit).await?, ends })
            }
        }
    }
}

fn show(records: &[Record]) -> Result<(), CliError> {
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

async fn check(source: &Source, expected: Option<Head>) -> Result<(), CliError> {
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
        "{kept} records, none changed, removed or moved{cut}\nkept elsewhere, this shows a log that was written anew: --expect {}:{}",
        head.number, head.hash
    ))
}

async fn check_once(
    source: &Source,
    mut page: Page,
    expected: Option<Head>,
) -> Result<Result<Head, Broken>, CliError> {
    let mut check = Check::new(page.ends, expected);
    loop {
        match check.page(&page.records) {
            Ok(true) => page = source.page(check.after(), PAGE_RECORDS).await?,
            Ok(false) => return Ok(check.finish()),
            Err(broken) => return Ok(Err(broken)),
        }
    }
}

fn head(text: &str) -> Result<Head, CliError> {
    let parsed = text.split_once(':').and_then(|(number, hash)| {
        Some(Head { number: number.parse().ok()?, hash: hash.to_owned() })
    });
    parsed.ok_or_else(|| CliError::Usage(format!("--expect `{text}` is not NUMBER:HASH")))
}
