//! `icecore wal`: what is in a log that no server has open, how to set damage aside, and what to do
//! when another server goes on with the events.

use crate::{
    cli::{CliError, admin::aligned, ingest::rows::EventWriter, say},
    config::Config,
    server::{
        self,
        accept::{self, LossAnswer, LossScope},
        claim::{self, LogTakeover, TablePositions},
    },
};
use arrow::{
    array::{ArrayRef, AsArray, StringArray},
    record_batch::RecordBatch,
};
use clap::Subcommand;
use icecore_lake::{
    clock::Clock,
    event::{bookmark, codec, rows},
    wal::{
        WalError,
        inspect::{self, LogReport, QuarantinedSegment},
    },
};
use icecore_schemas::{
    names::{KEPT_EVENT, Namespace},
    service_table::RecordKind,
};
use std::{
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// `icecore wal`
#[derive(Debug, Subcommand)]
pub enum WalCommand {
    /// List segments, records and any damage
    Inspect,
    /// Move the unreadable rest of damaged segments aside, so that the server starts
    Quarantine,
    /// Make this server's log the owner of the events, in place of a server that is gone
    TakeOver,
    /// Write the events that are only in this log as NDJSON, for `icecore ingest` to send to the
    /// server that takes events now
    Export {
        /// A log that was set aside; default: this server's own
        #[arg(long)]
        folder: Option<PathBuf>,
        /// Write the dead letters instead, which servers do not accept again
        #[arg(long)]
        dead_letters: bool,
    },
    /// Give up acknowledged rows that are in no table and in no log, so that the server takes events
    /// again; events that are given up are accepted when they are sent again
    AcceptLoss {
        /// Everything that is missing
        #[arg(long, conflicts_with_all = ["through", "ns"], required_unless_present = "through")]
        all: bool,
        /// Rows up to this seq
        #[arg(long, value_name = "SEQ")]
        through: Option<u64>,
        /// Only of this namespace
        #[arg(long, requires = "through")]
        ns: Option<String>,
        /// Only show what would be given up
        #[arg(long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Prints the report, or what was done.
///
/// # Errors
/// [`CliError::Wal`], [`CliError::Metastore`], [`CliError::Offline`]; [`CliError::Refused`] when there is
/// no log.
pub async fn run(config: &Config, command: &WalCommand) -> Result<(), CliError> {
    let folder = config.data_dir.join("wal");
    let lacks_log = match command {
        WalCommand::TakeOver => false,
        // What is missing may be the log.
        WalCommand::AcceptLoss { .. } => server::is_missing(&config.data_dir),
        WalCommand::Inspect | WalCommand::Quarantine | WalCommand::Export { .. } => {
            server::is_missing(&folder)
        }
    };
    if lacks_log {
        return Err(CliError::Refused(format!(
            "there is no log at `{}`: set --data-dir",
            folder.display()
        )));
    }
    match command {
        WalCommand::TakeOver => {
            let taken = claim::take_over(config).await;
            let failed = |source| CliError::Offline { operation: "take over the events", source };
            say(&describe_take_over(&taken.map_err(failed)?))
        }
        WalCommand::Export { folder: aside, dead_letters } => {
            let kind = if *dead_letters { RecordKind::DeadLetters } else { RecordKind::Events };
            export(config, aside.as_deref().unwrap_or(&folder), kind).await
        }
        WalCommand::AcceptLoss { through, ns, dry_run, json, .. } => {
            accept_loss(config, *through, ns.as_deref(), *dry_run, *json).await
        }
        WalCommand::Inspect => say(&describe(&inspect::inspect(&folder)?)),
        WalCommand::Quarantine => {
            let cut = inspect::quarantine(&folder)?;
            let lines: Vec<String> = cut
                .iter()
                .map(|segment| {
                    let QuarantinedSegment { segment, copy, offset, records_kept, reason } = segment;
                    format!(
                        "{}: {reason}; cut at offset {offset}, {records_kept} records kept, the original file is {}",
                        segment.display(),
                        copy.display()
                    )
                })
                .collect();
            say(if lines.is_empty() {
                "no segment is damaged".to_owned()
            } else {
                lines.join("\n")
            }
            .as_str())
        }
    }
}

/// Gives up what is missing, and fails where something still is.
async fn accept_loss(
    config: &Config,
    through: Option<u64>,
    namespace: Option<&str>,
    is_dry: bool,
    is_json: bool,
) -> Result<(), CliError> {
    let namespace = namespace.map(Namespace::parse).transpose();
    let namespace = namespace.map_err(|cause| CliError::Usage(format!("--ns: {cause}")))?;
    let given = match through {
        Some(seq) => LossScope::Through { namespace, seq },
        None => LossScope::All,
    };
    let failed = |source| CliError::Offline { operation: "accept the loss", source };
    let accepted =
        accept::accept_loss(config, &Clock::system(), &given, is_dry).await.map_err(failed)?;
    let told = LossAnswer::of(&accepted);
    if is_json {
        say(&serde_json::json!(told).to_string())?;
    } else {
        say(&told.text(is_dry))?;
    }
    let missing = match (&accepted.left[..], &accepted.warehouse) {
        _ if is_dry => return Ok(()),
        ([], None) => return Ok(()),
        ([], Some(_)) => "files of the warehouse",
        _ => "rows",
    };
    Err(CliError::Refused(format!("{missing} are still missing, and the server takes no events")))
}

fn describe_take_over(taken: &LogTakeover) -> String {
    match taken {
        LogTakeover::WasOwner(log) => {
            format!("log {log} already owns the events; nothing is changed")
        }
        LogTakeover::Now { log, aside } => {
            let what = format!("log {log} owns the events from now on: start the server");
            let Some(aside) = aside else { return what };
            let aside = aside.display();
            format!(
                "{what}\nthe previous log is in {aside}; to send its events that are in no table: \
                 icecore wal export --folder {aside} | icecore ingest"
            )
        }
    }
}

/// Writes the rows of a log that are in no table to stdout.
async fn export(config: &Config, folder: &Path, kind: RecordKind) -> Result<(), CliError> {
    let found = inspect::records(folder)?;
    let marks = TablePositions::of(&server::open_metastore(config).await?, found.log).await?;
    let columns = config.tables.of(kind).map_or_else(Default::default, |table| table.columns);
    let schema = rows::schema_of(columns);
    let mut out = BufWriter::new(io::stdout().lock());
    let failed = |source| CliError::Io { operation: "write to stdout".to_owned(), source };
    for record in found.records.iter().filter(|one| one.kind == kind && marks.lack(one)) {
        let rows = codec::decode(&schema, &record.read()?, record.first_seq);
        let rows = rows.map_err(|cause| WalError::Damaged {
            path: record.path.to_path_buf(),
            offset: record.offset,
            reason: cause.to_string(),
        })?;
        let batch = without_ours(rows, record.first_seq)?;
        let writer = EventWriter::new(&record.path, &batch)?;
        let mut lines = Vec::new();
        // Each has an id of its own.
        (0..batch.num_rows()).for_each(|row| writer.write(&mut lines, row, |_| String::new()));
        out.write_all(&lines).map_err(failed)?;
    }
    out.flush().map_err(failed)
}

/// Events without what the server that takes them gives anew. The text of one that was kept whole
/// has a name that tells that server so. Rows without a `seq` are no events, and stay as they are.
fn without_ours(rows: RecordBatch, first_seq: u64) -> Result<RecordBatch, CliError> {
    if rows.column_by_name("seq").is_none() {
        return Ok(rows);
    }
    let mut sent: Vec<(&str, ArrayRef, bool)> = Vec::new();
    for (field, values) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        let (name, values) = (field.name().as_str(), Arc::clone(values));
        match name {
            "seq" | "ingested_at" => (),
            "payload" => sent.push((KEPT_EVENT, values, true)),
            "bookmark" => {
                let given = (first_seq..).zip(values.as_string::<i32>());
                let own = given.map(|(seq, text)| text.filter(|it| !bookmark::is_minted(it, seq)));
                sent.push((name, Arc::new(own.collect::<StringArray>()), true));
            }
            _ => sent.push((name, values, true)),
        }
    }
    Ok(RecordBatch::try_from_iter_with_nullable(sent)?)
}

fn describe(report: &LogReport) -> String {
    let range = |positions: Option<(u64, u64)>| {
        positions.map_or_else(|| "-".to_owned(), |(first, last)| format!("{first}..{last}"))
    };
    let segments: Vec<Vec<String>> = report
        .segments
        .iter()
        .map(|segment| {
            let name = segment.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let numbers = [
                segment.file_bytes.to_string(),
                segment.end.to_string(),
                segment.records.to_string(),
            ];
            [vec![name], numbers.to_vec(), vec![range(segment.positions), segment.tail.to_string()]]
                .concat()
        })
        .collect();
    let tables: Vec<Vec<String>> = report
        .tables
        .iter()
        .map(|table| {
            let numbers = [table.records, table.rows, table.bytes].map(|number| number.to_string());
            [
                vec![table.namespace.to_string(), format!("{:?}", table.kind)],
                numbers.to_vec(),
                vec![range(Some(table.positions))],
            ]
            .concat()
        })
        .collect();
    let log = report.log.map_or_else(|| "without a name".to_owned(), |log| log.to_string());
    format!(
        "log {log}\n\n{}\n\n{}\n\n{} free segments",
        aligned(&["segment", "bytes", "end", "records", "positions", "tail"], &segments),
        aligned(&["namespace", "kind", "records", "rows", "bytes", "positions"], &tables),
        report.free_segments
    )
}
