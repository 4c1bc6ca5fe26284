//! `icecore fsck`: has a server prove that its tables are whole.

use crate::{
    cli::{CliError, admin::escape, client::ServerClient, counted, say},
    config::{Config, units::write_bytes},
};
use clap::Args;
use icecore_schemas::fsck::{FsckFinding, FsckReport, FsckTable, SeqGap};
use reqwest::Method;
use serde_json::json;

/// Most gaps of a table that are printed, and most notes, so that what is wrong is not lost among them.
const LINES_MAX: usize = 10;

/// `icecore fsck`
#[derive(Debug, Args)]
pub struct FsckCommand {
    /// Only tables of this namespace
    #[arg(long)]
    ns: Option<String>,
    /// Only tables of this name
    #[arg(long)]
    table: Option<String>,
    /// Look at files, footers and counts, and read no rows
    #[arg(long)]
    quick: bool,
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
}

/// Asks for it, waits, and prints a line for each table, then what is wrong.
///
/// # Errors
/// [`CliError::Client`]; [`CliError::Refused`] where a table is damaged.
pub async fn run(config: &Config, command: &FsckCommand) -> Result<(), CliError> {
    let client = ServerClient::new(config, command.url.as_deref());
    let named = [("namespace", &command.ns), ("table", &command.table)];
    let named = named
        .into_iter()
        .filter_map(|(key, name)| name.as_ref().map(|name| format!("&{key}={}", escape(name))));
    let named: String = named.collect();
    let path = format!("/admin/fsck?quick={}{named}", command.quick);
    let report: FsckReport = client.read(Method::POST, &path, None).await?;
    match command.json {
        true => say(&json!(report).to_string())?,
        false => print(&report)?,
    }
    if report.whole {
        return Ok(());
    }
    let damaged = report.tables.iter().filter(|table| !table.is_whole()).count();
    let all = counted(report.tables.len() as u64, "table");
    Err(CliError::Refused(format!("of {all} {damaged} {} damaged", verb(damaged))))
}

fn verb(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

fn print(report: &FsckReport) -> Result<(), CliError> {
    report.tables.iter().try_for_each(|table| say(&line(table)))?;
    for table in &report.tables {
        let name = &table.table;
        let damage = table.damage.iter().map(|it| format!("{name}: damage: {}", told(it)));
        let gaps = table.gaps.iter().map(|gap| format!("{name}: gap: {}", told_gap(gap)));
        let notes = table.notes.iter().map(|it| format!("{name}: note: {}", told(it)));
        for text in damage.chain(gaps.take(LINES_MAX)).chain(notes.take(LINES_MAX)) {
            say(&text)?;
        }
        for (what, total, shown) in [
            ("damage", table.damage_total, table.damage.len()),
            ("gap", table.gaps_total, table.gaps.len().min(LINES_MAX)),
            ("note", table.notes_total, table.notes.len().min(LINES_MAX)),
        ] {
            let more = total.saturating_sub(shown as u64);
            if 0 < more {
                say(&format!("{name}: {what}: and {more} more"))?;
            }
        }
    }
    let whole = report.tables.iter().filter(|table| table.is_whole()).count();
    let all = counted(report.tables.len() as u64, "table");
    say(&format!("{whole} of {all} whole, {} ms", report.elapsed_ms))
}

fn line(table: &FsckTable) -> String {
    let state = if table.is_whole() { "whole" } else { "DAMAGED" };
    let foreign = match table.foreign_rows {
        0 => String::new(),
        count => format!(" ({count} of other engines)"),
    };
    let deleted = match table.deleted_rows {
        0 => String::new(),
        count => format!(", {count} deleted"),
    };
    format!(
        "{}: {state}, {}, {}, {}, {}{foreign}{deleted}",
        table.table,
        counted(table.snapshots, "snapshot"),
        counted(table.files, "file"),
        write_bytes(table.bytes),
        counted(table.rows, "row"),
    )
}

fn told(finding: &FsckFinding) -> String {
    let mut text = format!("{}: {}", finding.kind.name(), finding.what);
    if let Some(file) = &finding.file {
        text.push_str(&format!("; file {file}"));
    }
    if let Some(snapshot) = finding.snapshot {
        text.push_str(&format!("; snapshot {snapshot}"));
    }
    text
}

fn told_gap(gap: &SeqGap) -> String {
    let reason = gap.reason.as_deref().unwrap_or("nothing explains it");
    format!("seq {} to {}: {reason}", gap.first, gap.last)
}
