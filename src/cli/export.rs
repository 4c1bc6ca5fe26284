//! `icecore export`: the events of a namespace as Parquet files by the hour, the layout of an earlier
//! lakehouse.
//!
//! A file holds the events of one hour from one `seq` to another and is there only when it is whole, so its
//! name says what a later run need not write again: events that come later have a higher `seq`.

use crate::{
    cli::{
        CliError,
        client::ServerClient,
        counted,
        ingest::source::failed_at,
        layout::FileLayout,
        say,
        sql::{UNFINISHED, ask, save_parquet},
    },
    config::{Config, redaction::without_credentials},
};
use chrono::{DateTime, Datelike, Duration, NaiveDate, SecondsFormat, Utc};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Most events in a file: what a query may sort in its memory, also where each has many kilobytes.
const FILE_EVENTS_MAX: u64 = 100_000;
/// What an exported folder says of itself.
const MANIFEST: &str = "manifest.json";
const LAYOUT: &str = "r2";
const HOUR: Duration = Duration::hours(1);
/// No event is later, and no text of a time says more.
const YEAR_MAX: i32 = 9999;

/// `icecore export`
#[derive(Debug, Args)]
pub struct ExportFolder {
    /// The folder to write to; a new one, or one with an export of the same events
    path: PathBuf,
    /// How the files are arranged
    #[arg(long)]
    layout: FileLayout,
    /// The namespace
    #[arg(long)]
    ns: String,
    /// Only events of this time or later, such as 2026-11-20 or 2026-11-20T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<DateTime<Utc>>,
    /// Only events before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<DateTime<Utc>>,
    /// A snapshot id, an RFC 3339 time, a tag or a branch; default: everything that is acknowledged
    #[arg(long)]
    as_of: Option<String>,
    /// Print which files would be written, and write none
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
}

/// Which events a folder has.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExportManifest {
    layout: String,
    /// Another server has other events of the same `seq`.
    server: String,
    namespace: String,
    since: Option<String>,
    until: Option<String>,
    as_of: Option<String>,
}

/// What was done.
#[derive(Debug, Default, Serialize)]
struct ExportReport {
    files: u64,
    events: u64,
    /// Files of earlier runs.
    kept: u64,
    /// The last `seq` that the export considered.
    through_seq: Option<i64>,
}

/// Writes the files that are missing.
///
/// # Errors
/// [`CliError::Refused`] for a folder with something else, [`CliError::Client`], [`CliError::Io`]; the same
/// command goes on where it stopped.
pub async fn run(config: &Config, command: &ExportFolder) -> Result<(), CliError> {
    let FileLayout::R2 = command.layout;
    let url = command.url.clone().unwrap_or_else(|| config.listen.to_string());
    let client = ServerClient::new(config, Some(&url));
    let server = without_credentials(&url);
    let mut export = FolderExport { client, server, command, report: ExportReport::default() };
    check_folder(&command.path, &export.manifest())?;
    let newest = export.rows("SELECT max(seq) FROM events").await?;
    let Some(through) = newest.first().and_then(|row| row[0].as_i64()) else {
        return export.say();
    };
    export.report.through_seq = Some(through);
    if !command.dry_run {
        write_manifest(&command.path, &export.manifest())?;
    }
    let bounds = export.bounds();
    let sql = format!(
        "SELECT date_trunc('hour', ts), max(seq) FROM events WHERE seq <= {through}{bounds} GROUP BY 1 ORDER BY 1"
    );
    for row in export.rows(&sql).await? {
        let hour = row[0].as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        let Some(hour) = hour else {
            let reason = "an hour that is no time".to_owned();
            return Err(export.client.foreign(row.to_string().as_bytes(), reason).into());
        };
        export.hour(hour.to_utc(), row[1].as_i64().unwrap_or(through)).await?;
    }
    export.say()
}

struct FolderExport<'a> {
    client: ServerClient,
    server: String,
    command: &'a ExportFolder,
    report: ExportReport,
}

impl FolderExport<'_> {
    fn manifest(&self) -> ExportManifest {
        let ExportFolder { ns, since, until, as_of, .. } = self.command;
        ExportManifest {
            layout: LAYOUT.to_owned(),
            server: self.server.clone(),
            namespace: ns.clone(),
            since: since.map(text),
            until: until.map(text),
            as_of: as_of.clone(),
        }
    }

    /// The bounds on time as a condition behind others.
    fn bounds(&self) -> String {
        let since = self.command.since.map(|at| format!(" AND ts >= {}", literal(at)));
        let until = self.command.until.map(before);
        format!("{}{}", since.unwrap_or_default(), until.unwrap_or_default())
    }

    async fn rows(&self, sql: &str) -> Result<Vec<Value>, CliError> {
        let as_of = self.command.as_of.as_deref();
        let bytes = ask(&self.client, &self.command.ns, sql, as_of, "application/json").await?;
        let foreign = |reason: String| self.client.foreign(&bytes, reason);
        let mut answer: Value =
            serde_json::from_slice(&bytes).map_err(|cause| foreign(cause.to_string()))?;
        match answer.get_mut("rows").map(Value::take) {
            Some(Value::Array(rows)) => Ok(rows),
            _ => Err(foreign("missing field `rows`".to_owned()).into()),
        }
    }

    /// Writes the events of an hour up to the `seq` `through` that are in no file of it.
    async fn hour(&mut self, hour: DateTime<Utc>, through: i64) -> Result<(), CliError> {
        let folder = self.command.path.join(hour.format("events/%Y/%m/%d/%H").to_string());
        let (kept, mut last) = finished(&folder, self.command.dry_run)?;
        self.report.kept += kept;
        let within = format!("ts >= {}{}{}", literal(hour), before(hour + HOUR), self.bounds());
        while last.is_none_or(|last| last < through) {
            let after = last.map_or_else(String::new, |last| format!(" AND seq > {last}"));
            let sql = format!(
                "SELECT count(*), min(seq), max(seq) FROM (SELECT seq FROM events WHERE {within}{after} AND seq <= {through} ORDER BY seq LIMIT {FILE_EVENTS_MAX}) AS part"
            );
            let rows = self.rows(&sql).await?;
            let number = |at: usize| rows.first().and_then(|row| row[at].as_i64());
            let (Some(first), Some(newest)) = (number(1), number(2)) else { return Ok(()) };
            let name = format!("events-{first}-{newest}.parquet");
            self.report.files += 1;
            self.report.events += number(0).and_then(|it| u64::try_from(it).ok()).unwrap_or(0);
            let file = folder.join(name);
            if self.command.dry_run {
                self.tell(&file)?;
            } else {
                fs::create_dir_all(&folder).map_err(unwritable(&folder))?;
                let sql = format!(
                    "SELECT * FROM events WHERE {within} AND seq BETWEEN {first} AND {newest} ORDER BY seq"
                );
                let as_of = self.command.as_of.as_deref();
                save_parquet(&self.client, &self.command.ns, &sql, as_of, &file).await?;
            }
            last = Some(newest);
        }
        Ok(())
    }

    fn tell(&self, file: &Path) -> Result<(), CliError> {
        if self.command.json { Ok(()) } else { say(&file.display().to_string()) }
    }

    fn say(&self) -> Result<(), CliError> {
        if self.command.json {
            return say(&json!(self.report).to_string());
        }
        let ExportReport { files, events, kept, through_seq } = &self.report;
        let done = if self.command.dry_run { "would be written" } else { "written" };
        let (files, events) = (counted(*files, "file"), counted(*events, "event"));
        let through = through_seq.map_or_else(String::new, |seq| format!(", up to seq {seq}"));
        let kept = counted(*kept, "file");
        say(&format!("{files} {done} with {events}{through}; {kept} of earlier runs"))
    }
}

/// How many whole files an hour has, and the last `seq` in them. What a run left half-written goes, unless
/// nothing is to be changed.
fn finished(folder: &Path, is_dry: bool) -> Result<(u64, Option<i64>), CliError> {
    let failed = failed_at(folder);
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok((0, None)),
        Err(cause) => return Err(failed(cause)),
    };
    let (mut files, mut last): (u64, Option<i64>) = (0, None);
    for entry in entries {
        let entry = entry.map_err(&failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("events-") && name.ends_with(UNFINISHED) {
            if !is_dry {
                fs::remove_file(entry.path()).map_err(unwritable(&entry.path()))?;
            }
        } else if let Some(seq) = last_seq(&name) {
            files += 1;
            last = last.max(Some(seq));
        }
    }
    Ok((files, last))
}

/// The last `seq` in a file of this name; none for another file.
fn last_seq(name: &str) -> Option<i64> {
    let range = name.strip_prefix("events-")?.strip_suffix(".parquet")?;
    let (first, last) = range.rsplit_once('-')?;
    first.parse::<i64>().ok()?;
    last.parse().ok()
}

/// Refuses a folder that has something else: files of two exports cannot be told apart.
fn check_folder(folder: &Path, manifest: &ExportManifest) -> Result<(), CliError> {
    let mut entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(failed_at(folder)(cause)),
    };
    let noted = fs::read(folder.join(MANIFEST)).ok();
    let noted = noted.and_then(|bytes| serde_json::from_slice::<ExportManifest>(&bytes).ok());
    let is_unfinished = |name: &str| name.ends_with(UNFINISHED);
    let is_empty =
        entries.all(|it| it.is_ok_and(|it| is_unfinished(&it.file_name().to_string_lossy())));
    if is_empty || noted.is_some_and(|noted| noted == *manifest) {
        return Ok(());
    }
    Err(CliError::Refused(format!(
        "`{}` has other files, or an export of another server, namespace or selection (its {MANIFEST} says which): name a new folder",
        folder.display()
    )))
}

fn write_manifest(folder: &Path, manifest: &ExportManifest) -> Result<(), CliError> {
    fs::create_dir_all(folder).map_err(unwritable(folder))?;
    let file = folder.join(MANIFEST);
    let failed = unwritable(&file);
    let unfinished = folder.join(format!("{MANIFEST}{UNFINISHED}"));
    let text = serde_json::to_string_pretty(manifest).expect("texts");
    fs::write(&unfinished, text).map_err(&failed)?;
    fs::rename(&unfinished, &file).map_err(&failed)
}

fn unwritable(path: &Path) -> impl Fn(io::Error) -> CliError {
    move |source| CliError::Io { operation: format!("write `{}`", path.display()), source }
}

/// A time of the command line.
fn time(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(day) = text.parse::<NaiveDate>() {
        return Ok(day.and_time(chrono::NaiveTime::MIN).and_utc());
    }
    let at = DateTime::parse_from_rfc3339(text);
    at.map(|at| at.to_utc()).map_err(|cause| format!("{cause}; write 2026-11-20T12:00:00Z"))
}

fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// The bound that a time is before this one, as a condition behind others.
fn before(end: DateTime<Utc>) -> String {
    if YEAR_MAX < end.year() { String::new() } else { format!(" AND ts < {}", literal(end)) }
}

/// A time in a statement. `TIMESTAMP '…'` would not reach all years that events may have.
fn literal(at: DateTime<Utc>) -> String {
    format!("'{}'", text(at))
}

#[cfg(test)]
mod tests {
    use super::{last_seq, time};

    #[test]
    fn the_name_of_a_file_says_how_far_it_goes() {
        for (name, expected) in [
            ("events-1-17.parquet", Some(17)),
            ("events-18-18.parquet", Some(18)),
            ("events-1-17.parquet.part", None),
            ("events-a-17.parquet", None),
            ("other-1-17.parquet", None),
        ] {
            assert_eq!(last_seq(name), expected, "{name}");
        }
    }

    #[test]
    fn a_bound_is_a_day_or_a_time() {
        let text = |text: &str| time(text).map(super::text);
        assert_eq!(text("2026-11-20").unwrap(), "2026-11-20T00:00:00.000000Z");
        assert_eq!(text("2026-11-20T12:00:00+02:00").unwrap(), "2026-11-20T10:00:00.000000Z");
        assert!(text("yesterday").unwrap_err().contains("2026-11-20T12:00:00Z"));
    }
}
