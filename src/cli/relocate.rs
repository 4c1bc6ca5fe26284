//! `icecore catalog relocate`: a data folder or warehouse that was moved, used where it is now.

use crate::{
    cli::{CliError, admin::aligned, say},
    config::Config,
    server::moved::{self, MovePlaces, MoveReport},
};
use clap::Args;
use icecore_catalog::location::Location;
use icecore_lake::clock::Clock;
use serde_json::json;

/// `icecore catalog relocate`
#[derive(Debug, Args)]
pub struct RelocateCommand {
    /// The former place; without it what the metastore says
    #[arg(long)]
    from: Option<String>,
    /// The place where the files are now; without it the configured warehouse
    #[arg(long)]
    to: Option<String>,
    /// Read everything and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Writes the new place into all metadata. No server may be running.
///
/// # Errors
/// [`CliError::Usage`], [`CliError::Offline`].
pub async fn run(config: &Config, command: &RelocateCommand) -> Result<(), CliError> {
    let place = |text: &Option<String>, flag: &str| match text {
        None => Ok(None),
        Some(text) => Location::parse(text).map(Some).ok_or_else(|| {
            CliError::Usage(format!(
                "--{flag} `{text}` is neither file:///folder nor s3://bucket/prefix"
            ))
        }),
    };
    let places = MovePlaces {
        from: place(&command.from, "from")?,
        to: place(&command.to, "to")?,
        dry_run: command.dry_run,
    };
    let failed = |source| CliError::Offline { operation: "write the new location", source };
    let report =
        moved::relocate(config, &places, Clock::system().now_ms()).await.map_err(failed)?;
    say(&if command.json {
        as_json(&report, command.dry_run)
    } else {
        as_text(&report, command.dry_run)
    })
}

fn as_json(report: &MoveReport, dry_run: bool) -> String {
    let tables: Vec<_> = report
        .tables
        .iter()
        .map(|table| {
            json!({
                "ns": table.place.levels,
                "table": table.place.name,
                "from": table.place.location,
                "to": table.location,
                "metadata_location": table.metadata_location,
                "files": table.files,
            })
        })
        .collect();
    json!({
        "dry_run": dry_run,
        "tables": tables,
        "namespaces": report.namespaces,
        "queued": report.queued,
    })
    .to_string()
}

fn as_text(report: &MoveReport, dry_run: bool) -> String {
    if report.tables.is_empty() {
        return "nothing to do: every table is in the warehouse".to_owned();
    }
    let rows: Vec<Vec<String>> = report
        .tables
        .iter()
        .map(|table| {
            vec![
                table.place.levels.join("."),
                table.place.name.clone(),
                table.files.to_string(),
                table.location.clone(),
            ]
        })
        .collect();
    let files: usize = report.tables.iter().map(|table| table.files).sum();
    let done = if dry_run { "to be rewritten; nothing was changed" } else { "written anew" };
    format!(
        "{}\n{} tables and views, {files} files {done}",
        aligned(&["ns", "table", "files", "location"], &rows),
        report.tables.len(),
    )
}
