//! `icecore ingest`: files of events to a server, once each, however often the command is stopped.
//!
//! An event without an id gets one from its file, its place in it and what it says, so a repeat is a
//! duplicate. How far a file is acknowledged is kept beside it until it is done.

mod csv;
mod elements;
mod identity;
mod lines;
pub(super) mod rows;
pub(super) mod source;

use crate::{
    cli::{
        CliError,
        client::{ClientError, ClientRequest, ServerClient, refused},
        counted, say,
    },
    config::Config,
};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use icecore_schemas::{
    batch::{EventError, IngestReply},
    error_code::ErrorCode,
};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Method, header};
use source::{FileProgress, InputSource, failed_at, progress_path};
use std::{
    fmt,
    io::Read,
    path::{Path, PathBuf},
};

/// Most events and bytes in one request.
pub(super) const BATCH_EVENTS_MAX: usize = 5_000;
pub(super) const BATCH_BYTES_MAX: usize = 4 << 20;
/// The status of a body that is larger than the server takes.
pub(super) const TOO_LARGE: u16 = 413;
/// Where events of any time are sent.
pub(super) const BACKFILL: &str = "/ingest?backfill=true";
/// How many refused events are shown.
pub(super) const REFUSED_SHOWN_MAX: u64 = 20;

/// `icecore ingest`
#[derive(Debug, Args)]
pub struct IngestFiles {
    /// Files, or patterns such as 'logs/*.ndjson.gz'; `-` or none is stdin. gzip and zstd are read
    /// as they are
    files: Vec<PathBuf>,
    /// Format of the files; default: by their extension, stdin by its first byte
    #[arg(long)]
    format: Option<FileFormat>,
    /// Namespace of events without one
    #[arg(long, default_value = "default")]
    ns: String,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
    /// Apply the server's limits on an event's time
    #[arg(long)]
    keep_time_window: bool,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    /// One event a line.
    Ndjson,
    /// JSON: an array, an object with `events`, or one value after the other.
    Json,
    /// An event a row, the members named in the first.
    Csv,
    /// One CloudEvents event or an array of them.
    Cloudevents,
    /// An Avro object container file.
    Avro,
    /// A Parquet file, an event a row.
    Parquet,
}

/// What has been sent.
#[derive(Clone, Copy, Debug, Default)]
struct IngestTotals {
    received: u64,
    duplicates: u64,
    refused: u64,
    /// Those of them whose documents have other versions: they are no dead letters.
    mismatched: u64,
    /// Rows that are no events and stayed where they are.
    unsent: u64,
}

impl fmt::Display for IngestTotals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { received, duplicates, refused, .. } = self;
        let new = received - duplicates - refused;
        let (received, duplicates) =
            (counted(*received, "event"), counted(*duplicates, "duplicate"));
        write!(f, "{received} sent: {new} new, {duplicates}, {refused} rejected")
    }
}

/// Part of an input that fits into a request: NDJSON.
#[derive(Debug, Default)]
struct InputPart {
    body: Vec<u8>,
    /// Where each event stands in the input: its line, row or element, from 1.
    places: Vec<u64>,
    /// Lines of rows that cannot be sent as they stand, and what is wrong with them.
    unsent: Vec<(u64, String)>,
    /// What [`FileProgress`] says when this part is acknowledged.
    next: u64,
    /// Lines up to there, in an input of lines.
    lines: u64,
}

impl InputPart {
    fn is_full(&self) -> bool {
        BATCH_EVENTS_MAX <= self.places.len() + self.unsent.len()
            || BATCH_BYTES_MAX <= self.body.len()
    }
}

/// Sends every file.
///
/// # Errors
/// [`CliError::Refused`] at the end when events were refused (they are dead letters, but for other versions) or
/// rows could not be sent; others stop at once, and the same command goes on where it stopped.
pub async fn run(config: &Config, command: &IngestFiles) -> Result<(), CliError> {
    let client = ServerClient::new(config, command.url.as_deref());
    let mut totals = IngestTotals::default();
    for input in source::inputs(&command.files)? {
        let sender = InputSender { client: &client, command };
        if let Err(cause) = sender.send_file(input, &mut totals).await {
            let is_of_file = matches!(cause, CliError::Io { .. } | CliError::Refused(_));
            if is_of_file || 0 < totals.received {
                say(&format!("{totals}, and then it stopped"))?;
            }
            return Err(cause);
        }
    }
    say(&totals.to_string())?;
    let IngestTotals { refused, mismatched, unsent, .. } = totals;
    let mut problems = Vec::new();
    if mismatched < refused {
        problems.push(format!(
            "{} rejected and kept as dead letters: icecore deadletters list --ns {}",
            counted(refused - mismatched, "event"),
            command.ns
        ));
    }
    if 0 < mismatched {
        let events = counted(mismatched, "event");
        problems.push(format!("{events} not taken: the documents have other versions"));
    }
    if 0 < unsent {
        let rows = counted(unsent, "row");
        problems.push(format!("{rows} not sent: correct the file and send it again"));
    }
    if problems.is_empty() { Ok(()) } else { Err(CliError::Refused(problems.join("; "))) }
}

/// Requests made of an input, one after the other.
type InputParts = Box<dyn Iterator<Item = Result<InputPart, CliError>>>;

/// An input as it is sent.
enum IngestInput {
    Parts(InputParts),
    /// In one request: media type and body.
    Whole(&'static str, Vec<u8>),
}

struct InputSender<'a> {
    client: &'a ServerClient,
    command: &'a IngestFiles,
}

impl InputSender<'_> {
    async fn send_file(
        &self,
        mut source: InputSource,
        totals: &mut IngestTotals,
    ) -> Result<(), CliError> {
        let bar = bar(&source);
        match self.read(&mut source, &bar)? {
            IngestInput::Parts(parts) => self.send_parts(&source, &bar, parts, totals).await?,
            IngestInput::Whole(media, body) => {
                self.send_whole(source.path(), &bar, media, body, totals).await?
            }
        }
        bar.finish();
        Ok(())
    }

    /// Reads on where an earlier run stopped.
    fn read(&self, source: &mut InputSource, bar: &ProgressBar) -> Result<IngestInput, CliError> {
        let path = source.path().to_owned();
        let no_pipe = || {
            let text =
                "Parquet cannot be read from a pipe, because its index is at its end; name a file";
            Err(CliError::Usage(text.to_owned()))
        };
        // Before it is opened, which waits for a writer.
        if self.command.format == Some(FileFormat::Parquet) && source.head.is_none() {
            return no_pipe();
        }
        let mut reader = source.open(0, bar)?;
        let format = match self.command.format {
            Some(format) => format,
            None => source.format(&mut reader)?,
        };
        if format == FileFormat::Parquet {
            if source.head.is_none() {
                return no_pipe();
            }
            let rows = rows::RowFile::open(&path)?;
            source.head = Some(rows.head.clone());
            let (start, _) = source.acknowledged();
            let parts = rows.parts(&path, source.identity.clone(), start)?;
            return Ok(IngestInput::Parts(Box::new(parts)));
        }
        let (start, line) = source.acknowledged();
        let identity = source.identity.clone();
        Ok(match format {
            FileFormat::Ndjson => {
                let reader = if start == 0 { reader } else { source.open(start, bar)? };
                let parts =
                    lines::LineRequests { reader, identity, offset: start, line, fault: None };
                IngestInput::Parts(Box::new(parts.map(move |part| part.map_err(failed_at(&path)))))
            }
            FileFormat::Csv => {
                IngestInput::Parts(Box::new(csv::CsvRequests::new(reader, &path, identity, start)?))
            }
            FileFormat::Json => {
                let body = read_all(&path, reader)?;
                match elements::parts(&body, &identity, start, &self.command.ns) {
                    Some(parts) => IngestInput::Parts(Box::new(parts.into_iter().map(Ok))),
                    None => IngestInput::Whole("application/json", body),
                }
            }
            FileFormat::Cloudevents => {
                let body = read_all(&path, reader)?;
                let media = if source::begins_with_array(&body) {
                    "application/cloudevents-batch+json"
                } else {
                    "application/cloudevents+json"
                };
                IngestInput::Whole(media, body)
            }
            FileFormat::Avro | FileFormat::Parquet => {
                IngestInput::Whole("application/avro", read_all(&path, reader)?)
            }
        })
    }

    /// Sends part after part, and notes how far the file is acknowledged: never past what is not sent,
    /// so that the next run says so again. What stands behind that is then a duplicate.
    async fn send_parts(
        &self,
        source: &InputSource,
        bar: &ProgressBar,
        parts: InputParts,
        totals: &mut IngestTotals,
    ) -> Result<(), CliError> {
        let progress_file = progress_path(source.path());
        let mut is_all_sent = true;
        for part in parts {
            let InputPart { body, places, mut unsent, next, lines } = part?;
            if !places.is_empty() {
                unsent.extend(self.send_lines(source.path(), bar, body, &places, totals).await?);
            }
            is_all_sent &= unsent.is_empty();
            for (line, reason) in unsent {
                totals.unsent += 1;
                show(bar, source.path(), totals.unsent, &format!(":{line}: not sent: {reason}"));
            }
            bar.set_message(format!("{} events", totals.received));
            if is_all_sent && let Some(head) = source.head.clone() {
                FileProgress { head, offset: next, lines }.save(&progress_file)?;
            }
        }
        if source.head.is_some() {
            // There is none where nothing was noted.
            let _ = std::fs::remove_file(&progress_file);
        }
        Ok(())
    }

    /// Sends the lines of a part, and gives the places of those that no request can hold. Where the
    /// server says that a body is too large, its halves are sent.
    async fn send_lines(
        &self,
        path: &Path,
        bar: &ProgressBar,
        body: Vec<u8>,
        places: &[u64],
        totals: &mut IngestTotals,
    ) -> Result<Vec<(u64, String)>, CliError> {
        let mut unsent = Vec::new();
        let mut bodies = vec![(Bytes::from(body), places)];
        while let Some((body, places)) = bodies.pop() {
            match self.send("application/x-ndjson", body.clone()).await {
                Ok(reply) => {
                    self.count(&reply, totals);
                    let place = |error: &EventError| {
                        let at = places.get(usize::try_from(error.index).unwrap_or(usize::MAX));
                        at.map_or_else(String::new, |place| format!(":{place}"))
                    };
                    show_refused(bar, path, &reply, totals, place);
                }
                Err(CliError::Client(ClientError::Refused { status: TOO_LARGE, text, .. })) => {
                    if let [place] = places {
                        unsent.push((*place, format!("as a request of its own: {text}")));
                        continue;
                    }
                    bodies.extend(halves(&body, places));
                }
                Err(problem) => return Err(problem),
            }
        }
        Ok(unsent)
    }

    async fn send_whole(
        &self,
        path: &Path,
        bar: &ProgressBar,
        media: &str,
        body: Vec<u8>,
        totals: &mut IngestTotals,
    ) -> Result<(), CliError> {
        let reply = self.send(media, body.into()).await?;
        self.count(&reply, totals);
        let place = |error: &EventError| format!(": event {}", error.index + 1);
        show_refused(bar, path, &reply, totals, place);
        Ok(())
    }

    async fn send(&self, media: &str, body: Bytes) -> Result<IngestReply, CliError> {
        let IngestFiles { ns, keep_time_window, .. } = self.command;
        let path = if *keep_time_window { "/ingest" } else { BACKFILL };
        send_body(self.client, path, ns, media, body).await
    }

    fn count(&self, reply: &IngestReply, totals: &mut IngestTotals) {
        totals.received += reply.received;
        totals.duplicates += reply.duplicates;
        totals.refused += reply.errors.len() as u64;
        let is_mismatch = |error: &&EventError| error.code == ErrorCode::VersionMismatch;
        totals.mismatched += reply.errors.iter().filter(is_mismatch).count() as u64;
    }
}

/// Sends one body to `path` until there is an answer, and gives the reply on its events.
pub(super) async fn send_body(
    client: &ServerClient,
    path: &str,
    namespace: &str,
    media: &str,
    body: Bytes,
) -> Result<IngestReply, CliError> {
    let headers =
        [(header::CONTENT_TYPE.as_str(), media.to_owned()), ("x-namespace", namespace.to_owned())];
    let call = ClientRequest { method: Method::POST, path, headers: &headers, body };
    let (status, bytes) = client.send_retrying(&call).await?;
    match serde_json::from_slice(&bytes) {
        Ok(reply) if matches!(status.as_u16(), 200 | 207 | 400) => Ok(reply),
        _ => Err(refused(status, &bytes).into()),
    }
}

/// A body of several lines as two, the second one first, with the places of their events.
pub(super) fn halves<'p>(body: &Bytes, places: &'p [u64]) -> [(Bytes, &'p [u64]); 2] {
    let (first, second) = places.split_at(places.len() / 2);
    let ends = body.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let end = ends.map(|(at, _)| at + 1).nth(first.len() - 1).unwrap_or(0);
    [(body.slice(end..), second), (body.slice(..end), first)]
}

/// Says of the first refused events where they stand and why they are refused.
fn show_refused(
    bar: &ProgressBar,
    path: &Path,
    reply: &IngestReply,
    totals: &IngestTotals,
    place: impl Fn(&EventError) -> String,
) {
    let shown_before = totals.refused - reply.errors.len() as u64;
    for (number, error) in (shown_before + 1..).zip(&reply.errors) {
        let (code, reason) = (error.code.as_str(), &error.reason);
        show(bar, path, number, &format!("{}: {code}: {reason}", place(error)));
    }
}

/// Says the first ones of what was not taken: which number it has, its place and the reason.
fn show(bar: &ProgressBar, path: &Path, number: u64, text: &str) {
    if REFUSED_SHOWN_MAX < number {
        return;
    }
    let name =
        if path.as_os_str() == "-" { "stdin".to_owned() } else { path.display().to_string() };
    bar.suspend(|| crate::cli::remark(&format!("{name}{text}")));
    if number == REFUSED_SHOWN_MAX {
        bar.suspend(|| crate::cli::remark("further problems are counted, not shown"));
    }
}

fn read_all(path: &Path, mut reader: source::InputReader) -> Result<Vec<u8>, CliError> {
    let mut body = Vec::new();
    reader.read_to_end(&mut body).map_err(failed_at(path))?;
    Ok(body)
}

fn bar(source: &InputSource) -> ProgressBar {
    progress_bar(source.bytes, source.path().display().to_string())
}

/// A bar that goes up to `bytes`.
pub(super) fn progress_bar(bytes: u64, prefix: String) -> ProgressBar {
    let template = "{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} eta {eta} {msg}";
    let style = ProgressStyle::with_template(template)
        .expect("the template is a constant")
        .progress_chars("=> ");
    ProgressBar::new(bytes).with_style(style).with_prefix(prefix)
}

#[cfg(test)]
mod tests;
