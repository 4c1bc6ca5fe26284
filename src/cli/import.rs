//! `icecore import`: the files of an earlier lakehouse to a server, each event once.
//!
//! Events go through `POST /ingest` like all others. Those without an id get one that is made of what they
//! say, so that the copies of an event in raw, compacted and dead-letter files are one event, and a second
//! import adds nothing. How far a folder is sent is kept beside it until it is done.

use crate::{
    cli::{
        CliError,
        client::ServerClient,
        counted,
        ingest::{FileFormat, progress_bar, source::failed_at},
        layout::{
            FileLayout,
            event::{DEFAULT_NAMESPACE, EventId, LayoutEvent, RowReader},
            folder::{FileKind, LayoutFile, LayoutFolder},
            identity::{ROWS_MAX, RowCounts},
            manifest,
            progress::{ImportProgress, ImportTarget},
            report::{AsideFiles, EventCounts, FileRemark, ImportReport},
            rows::FileRows,
            sender::{EventBatch, EventSender},
        },
        remark, say,
    },
    config::{Config, redaction::without_credentials},
};
use clap::Args;
use icecore_catalog::error::with_causes;
use icecore_schemas::names::Namespace;
use std::{collections::HashSet, path::PathBuf};

/// Most changes among the events that deltas are compared with: the largest set that needs no more than
/// 75 MB.
const CHANGES_MAX: usize = 3_670_016;

/// `icecore import`
#[derive(Debug, Args)]
pub struct ImportFolder {
    /// The folder that a bucket was copied to
    path: PathBuf,
    /// How its files are arranged
    #[arg(long)]
    layout: FileLayout,
    /// Namespace of all events, whatever they and their folders say
    #[arg(long)]
    ns: Option<String>,
    /// Read everything and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
}

/// Sends every file, or what an earlier run left.
///
/// # Errors
/// [`CliError::Refused`] at the end when files were skipped, events rejected or not sent; others stop at
/// once, and the same command goes on where it stopped.
pub async fn run(config: &Config, command: &ImportFolder) -> Result<(), CliError> {
    let FileLayout::R2 = command.layout;
    if let Some(namespace) = &command.ns {
        Namespace::parse(namespace).map_err(|cause| CliError::Usage(format!("--ns: {cause}")))?;
    }
    let folder = command.path.canonicalize().map_err(failed_at(&command.path))?;
    if !folder.is_dir() {
        let text = "is no folder; icecore ingest sends single files";
        return Err(CliError::Usage(format!("`{}` {text}", command.path.display())));
    }
    let found = LayoutFolder::open(&folder)?;
    let progress = match command.dry_run {
        true => None,
        false => {
            let url = command.url.clone().unwrap_or_else(|| config.listen.to_string());
            let target = ImportTarget { url: without_credentials(&url), ns: command.ns.clone() };
            Some(ImportProgress::open(&folder, &target)?)
        }
    };
    let client = ServerClient::new(config, command.url.as_deref());
    let bytes: u64 = found.files.iter().map(|file| file.bytes).sum();
    let bar = progress_bar(bytes, command.path.display().to_string());
    let mut import = FolderImport {
        command,
        sender: EventSender { client: &client, bar: &bar, shown: 0 },
        unsent: UnsentFiles::of(&found, progress.as_ref()),
        progress,
        rows: RowCounts::default(),
        changes: HashSet::new(),
        report: ImportReport::new(),
    };
    for file in &found.files {
        if let Err(cause) = import.file(file).await {
            let files = counted(import.report.files(), "file");
            bar.suspend(|| {
                remark(&format!("stopped after {files}; the same command goes on there"))
            });
            return Err(cause);
        }
    }
    bar.finish();
    let FolderImport { progress, mut report, .. } = import;
    report.notes = manifest::remarks(&folder, &found);
    let skipped = found.skipped.into_iter().map(|(file, reason)| FileRemark { file, reason });
    report.skipped.extend(skipped);
    let aside = found.aside.into_iter();
    report.aside =
        aside.map(|(reason, files)| AsideFiles { files, reason: reason.to_owned() }).collect();
    let text = match command.json {
        true => serde_json::json!(report).to_string(),
        false => report.text(),
    };
    say(&text)?;
    if let Some(progress) = progress {
        progress.end()?;
    }
    problems_of(&report)
}

/// What makes the command exit with 1.
fn problems_of(report: &ImportReport) -> Result<(), CliError> {
    let mut problems = Vec::new();
    let skipped = report.skipped.len() as u64;
    if 0 < skipped {
        problems.push(format!("{} skipped, as listed", counted(skipped, "file")));
    }
    let EventCounts { rejected, unsent, .. } = report.total;
    if 0 < rejected {
        let events = counted(rejected, "event");
        problems.push(format!(
            "{events} rejected and kept as dead letters: icecore deadletters list --ns NS"
        ));
    }
    if 0 < unsent {
        let events = counted(unsent, "event");
        problems.push(format!("{events} not sent: raise ingest.body_bytes_max of the server"));
    }
    if problems.is_empty() { Ok(()) } else { Err(CliError::Refused(problems.join("; "))) }
}

/// What of a folder an earlier run has not sent.
#[derive(Debug)]
struct UnsentFiles {
    /// Groups with such a file.
    groups: HashSet<String>,
    /// Whether there is one of deltas.
    has_deltas: bool,
    /// The collections of all deltas.
    collections: HashSet<String>,
}

impl UnsentFiles {
    fn of(found: &LayoutFolder, progress: Option<&ImportProgress>) -> Self {
        let is_unsent =
            |file: &&LayoutFile| progress.and_then(|progress| progress.sent(file)).is_none();
        let is_delta = |file: &&LayoutFile| file.place.kind == FileKind::Deltas;
        let files = || found.files.iter();
        Self {
            groups: files().filter(is_unsent).map(|file| file.place.group.clone()).collect(),
            has_deltas: files().filter(is_unsent).any(|file| is_delta(&file)),
            collections: files()
                .filter(is_delta)
                .filter_map(|file| file.place.collection.clone())
                .collect(),
        }
    }

    /// Whether the rows of a file that was sent decide about rows of one that was not.
    fn needs(&self, file: &LayoutFile) -> bool {
        let is_compared = self.has_deltas && file.place.kind == FileKind::Events;
        is_compared || self.groups.contains(&file.place.group)
    }
}

/// An event as it is sent, if it is.
enum EventLine {
    Line(String),
    /// An event before it is the same change.
    Known,
    /// There are too many rows without ids to tell them apart.
    TooMany,
}

struct FolderImport<'a> {
    command: &'a ImportFolder,
    sender: EventSender<'a>,
    unsent: UnsentFiles,
    /// None for a dry run.
    progress: Option<ImportProgress>,
    rows: RowCounts,
    /// Changes among the events, of collections that have deltas.
    changes: HashSet<u128>,
    report: ImportReport,
}

impl FolderImport<'_> {
    /// Sends a file, unless an earlier run has sent it.
    async fn file(&mut self, file: &LayoutFile) -> Result<(), CliError> {
        let sent = self.progress.as_ref().and_then(|progress| progress.sent(file));
        let mut counts = EventCounts::default();
        let mut fault = None;
        if sent.is_none() || self.unsent.needs(file) {
            let is_sent = sent.is_some() || self.command.dry_run;
            fault = self.send(file, is_sent, &mut counts).await?;
        }
        match (&fault, &mut self.progress) {
            (None, Some(progress)) if sent.is_none() => progress.note(file, counts)?,
            (Some(reason), _) => self.report.skip(&file.name, reason.clone()),
            (None, _) => (),
        }
        let place = &file.place;
        self.report.sent_before += u64::from(sent.is_some());
        self.report.add(place.kind, place.layer, sent.unwrap_or(counts));
        self.sender.bar.inc(file.bytes);
        self.sender.bar.set_message(counted(self.report.total.events, "event"));
        Ok(())
    }

    /// Reads a file and sends its events, unless they are. Gives the reason where it could not be read to its
    /// end; what stands before that is sent.
    async fn send(
        &mut self,
        file: &LayoutFile,
        is_sent: bool,
        counts: &mut EventCounts,
    ) -> Result<Option<String>, CliError> {
        let place = &file.place;
        if place.kind == FileKind::Deltas && CHANGES_MAX <= self.changes.len() {
            let reason = format!(
                "the events have more than {CHANGES_MAX} changes of collections with deltas; import these by themselves, if the events lack them"
            );
            return Ok(Some(reason));
        }
        let rows = match FileRows::open(&file.path, file.format) {
            Ok(rows) => rows,
            Err(cause) => return Ok(Some(with_causes(&cause))),
        };
        let is_table = file.format == FileFormat::Parquet;
        let command = self.command;
        let given = command.ns.as_deref();
        let reader = RowReader { place, is_table, namespace: given };
        let namespace = given.or(place.namespace.as_deref()).unwrap_or(DEFAULT_NAMESPACE);
        self.rows.enter(&place.group, place.layer);
        let mut batch = EventBatch::default();
        let mut fault = None;
        'rows: for row in rows {
            let row = match row {
                Ok(row) => row,
                Err(cause) => {
                    fault = Some(with_causes(&cause));
                    break 'rows;
                }
            };
            for event in reader.events(&row.text) {
                let line = match self.line(place.kind, &event) {
                    EventLine::Line(line) => line,
                    EventLine::Known => {
                        counts.events += 1;
                        counts.duplicates += 1;
                        continue;
                    }
                    EventLine::TooMany => {
                        fault = Some(format!(
                            "the files of its day up to here have more than {ROWS_MAX} rows without an id; the rest of this file is not sent"
                        ));
                        break 'rows;
                    }
                };
                counts.events += 1;
                if is_sent {
                    continue;
                }
                batch.push(&line, row.place);
                if batch.is_full() {
                    let full = std::mem::take(&mut batch);
                    self.sender.send(&file.name, namespace, full, counts).await?;
                }
            }
        }
        self.sender.send(&file.name, namespace, batch, counts).await?;
        Ok(fault)
    }

    fn line(&mut self, kind: FileKind, event: &LayoutEvent) -> EventLine {
        if let Some((collection, change)) = &event.change {
            if kind == FileKind::Deltas && self.changes.contains(change) {
                return EventLine::Known;
            }
            let is_compared = self.unsent.collections.contains(collection);
            if kind == FileKind::Events && is_compared && self.changes.len() < CHANGES_MAX {
                self.changes.insert(*change);
            }
        }
        match &event.id {
            EventId::Own => EventLine::Line(event.line(None)),
            EventId::Given(id) => EventLine::Line(event.line(Some(id))),
            EventId::Content(content) => match self.rows.id(*content) {
                Some(id) => EventLine::Line(event.line(Some(&id))),
                None => EventLine::TooMany,
            },
        }
    }
}
