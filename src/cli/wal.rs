//! `icecore wal`: what is in a log that no server has open, and how to set damage aside.

use crate::{
    cli::{CliError, admin::aligned, say},
    config::Config,
    wal::inspect::{self, Quarantined, Report},
};
use clap::Subcommand;

/// `icecore wal`
#[derive(Debug, Subcommand)]
pub enum WalCommand {
    /// List segments, records and any damage
    Inspect,
    /// Move the unreadable rest of damaged segments aside, so that the server starts
    Quarantine,
}

/// Prints the report.
///
/// # Errors
/// [`CliError::Wal`]; [`CliError::Refused`] when there is no log.
pub fn run(config: &Config, command: &WalCommand) -> Result<(), CliError> {
    let folder = config.data_dir.join("wal");
    if !folder.is_dir() {
        return Err(CliError::Refused(format!(
            "there is no log at `{}`: say where it is with --data-dir",
            folder.display()
        )));
    }
    match command {
        WalCommand::Inspect => say(&describe(&inspect::inspect(&folder)?)),
        WalCommand::Quarantine => {
            let cut = inspect::quarantine(&folder)?;
            let lines: Vec<String> = cut
                .iter()
                .map(|segment| {
                    let Quarantined { segment, copy, offset, records_kept, reason } = segment;
                    format!(
                        "{}: {reason}; cut at offset {offset}, {records_kept} records kept, the file as it was is {}",
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

fn describe(report: &Report) -> String {
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
    format!(
        "{}\n\n{}\n\n{} free segments",
        aligned(&["segment", "bytes", "end", "records", "positions", "tail"], &segments),
        aligned(&["namespace", "kind", "records", "rows", "bytes", "positions"], &tables),
        report.free_segments
    )
}
