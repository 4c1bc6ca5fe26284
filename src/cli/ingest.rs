//! `icecore ingest`: files of events to a server, once each, however often the command is stopped.
//!
//! An event without an id gets one from the file's identity and its place in it, so a repeat is a
//! duplicate. How far a file is acknowledged is kept beside it until it is done.

pub(super) mod rows;

use crate::{
    cli::{
        CliError,
        client::{Call, Client, refused},
        say,
    },
    config::Config,
};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use icecore_schemas::batch::IngestReply;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Method, header};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Most events and bytes in one request.
const BATCH_EVENTS_MAX: usize = 5_000;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How much of a file's start tells it from others.
const IDENTITY_BYTES: usize = 64 * 1024;
/// How many refused events are shown.
const REFUSED_SHOWN_MAX: usize = 5;

/// `icecore ingest`
#[derive(Debug, Args)]
pub struct IngestFiles {
    /// Files; `-` or none is stdin
    files: Vec<PathBuf>,
    /// How the files are written; by their ending when left out
    #[arg(long)]
    format: Option<FileFormat>,
    /// Namespace of events that name none
    #[arg(long, default_value = "default")]
    ns: String,
    /// The server, http://host:port
    #[arg(long)]
    url: Option<String>,
    /// Keep the server's bounds on an event's time
    #[arg(long)]
    keep_time_window: bool,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    /// One event a line.
    Ndjson,
    /// One JSON body: an array, or an object with `events`.
    Json,
    /// One CloudEvents event or an array of them.
    Cloudevents,
    /// An Avro object container file.
    Avro,
    /// A Parquet file, an event a row.
    Parquet,
}

/// What has been sent.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    received: u64,
    duplicates: u64,
    refused: u64,
}

/// How far a file is acknowledged: bytes, or rows of a Parquet file.
#[derive(Debug, Serialize, Deserialize)]
struct Progress {
    identity: String,
    offset: u64,
}

impl Progress {
    /// Where a file of this identity goes on.
    fn resume_at(file: &Path, identity: &str) -> Option<u64> {
        let progress: Self = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        (progress.identity == identity).then_some(progress.offset)
    }

    fn save(&self, file: &Path) -> Result<(), CliError> {
        let text = serde_json::to_string(self).expect("text and a number");
        std::fs::write(file, text).map_err(|source| CliError::Io {
            operation: format!("write `{}`", file.display()),
            source,
        })
    }
}

/// Sends every file.
///
/// # Errors
/// [`CliError::Refused`] at the end when events were refused (they are dead letters); others stop
/// at once, and the same command goes on where it stopped.
pub async fn run(config: &Config, command: &IngestFiles) -> Result<(), CliError> {
    let client = Client::new(config, command.url.as_deref());
    let mut totals = Totals::default();
    let stdin = [PathBuf::from("-")];
    for path in if command.files.is_empty() { &stdin[..] } else { &command.files } {
        let format = command.format.unwrap_or_else(|| format_of(path));
        let sender = Sender { client: &client, command, format };
        match format {
            FileFormat::Ndjson => sender.send_lines(path, &mut totals).await?,
            FileFormat::Parquet => sender.send_rows(path, &mut totals).await?,
            FileFormat::Json | FileFormat::Cloudevents | FileFormat::Avro => {
                sender.send_whole(path, &mut totals).await?
            }
        }
    }
    let Totals { received, duplicates, refused } = totals;
    say(&format!(
        "{received} events sent: {} new, {duplicates} duplicates, {refused} refused",
        received - duplicates - refused
    ))?;
    if refused == 0 {
        Ok(())
    } else {
        Err(CliError::Refused(format!("{refused} events are dead letters")))
    }
}

fn format_of(path: &Path) -> FileFormat {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("json") => FileFormat::Json,
        Some("avro") => FileFormat::Avro,
        Some("parquet") => FileFormat::Parquet,
        _ => FileFormat::Ndjson,
    }
}

struct Sender<'a> {
    client: &'a Client,
    command: &'a IngestFiles,
    format: FileFormat,
}

impl Sender<'_> {
    async fn send_lines(&self, path: &Path, totals: &mut Totals) -> Result<(), CliError> {
        let progress_path = progress_path(path);
        let (mut reader, length, identity) = open(path)?;
        let start = progress_path
            .as_deref()
            .and_then(|file| Progress::resume_at(file, &identity))
            .unwrap_or(0);
        let failed =
            |source| CliError::Io { operation: format!("read `{}`", path.display()), source };
        if 0 < start {
            reader.seek_to(start).map_err(failed)?;
        }
        let bar = bar(length, path);
        bar.set_position(start);
        let mut offset = start;
        loop {
            let (body, events, next) =
                next_batch(&mut reader, &identity, offset).map_err(failed)?;
            if events == 0 && next == offset {
                break;
            }
            if 0 < events {
                self.send(body.into(), totals, &bar).await?;
            }
            offset = next;
            bar.set_position(offset);
            bar.set_message(format!("{} events", totals.received));
            if let Some(file) = &progress_path {
                Progress { identity: identity.clone(), offset }.save(file)?;
            }
        }
        bar.finish();
        if let Some(file) = &progress_path {
            // Already gone when the file was empty.
            let _ = std::fs::remove_file(file);
        }
        Ok(())
    }

    async fn send_whole(&self, path: &Path, totals: &mut Totals) -> Result<(), CliError> {
        let (mut reader, length, _) = open(path)?;
        let mut body = Vec::new();
        reader.read_to_end(&mut body).map_err(|source| CliError::Io {
            operation: format!("read `{}`", path.display()),
            source,
        })?;
        let bar = bar(length, path);
        self.send(body.into(), totals, &bar).await?;
        bar.finish();
        Ok(())
    }

    async fn send(
        &self,
        body: Bytes,
        totals: &mut Totals,
        bar: &ProgressBar,
    ) -> Result<(), CliError> {
        let media = match self.format {
            FileFormat::Ndjson | FileFormat::Parquet => "application/x-ndjson",
            FileFormat::Json => "application/json",
            FileFormat::Cloudevents if body.trim_ascii_start().starts_with(b"[") => {
                "application/cloudevents-batch+json"
            }
            FileFormat::Cloudevents => "application/cloudevents+json",
            FileFormat::Avro => "application/avro",
        };
        let path = if self.command.keep_time_window { "/ingest" } else { "/ingest?backfill=true" };
        let headers = [
            (header::CONTENT_TYPE.as_str(), media.to_owned()),
            ("x-namespace", self.command.ns.clone()),
        ];
        let (status, bytes) = self
            .client
            .send_retrying(&Call { method: Method::POST, path, headers: &headers, body })
            .await?;
        let reply: IngestReply = match serde_json::from_slice(&bytes) {
            Ok(reply) if matches!(status.as_u16(), 200 | 207 | 400) => reply,
            _ => return Err(refused(status, &bytes).into()),
        };
        for error in reply.errors.iter().take(
            REFUSED_SHOWN_MAX.saturating_sub(usize::try_from(totals.refused).unwrap_or(usize::MAX)),
        ) {
            bar.suspend(|| {
                crate::cli::complain(&CliError::Refused(format!(
                    "{}: {}",
                    error.code.as_str(),
                    error.reason
                )))
            });
        }
        totals.received += reply.received;
        totals.duplicates += reply.duplicates;
        totals.refused += reply.errors.len() as u64;
        Ok(())
    }
}

/// A file that can be sought in, or stdin.
enum Source {
    File(BufReader<File>),
    Stdin(BufReader<io::Stdin>),
}

impl Source {
    fn seek_to(&mut self, offset: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.seek(SeekFrom::Start(offset)).map(|_| ()),
            Self::Stdin(_) => Err(io::Error::other("stdin cannot be resumed")),
        }
    }

    fn read_to_end(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read_to_end(into),
            Self::Stdin(stdin) => stdin.read_to_end(into),
        }
    }

    fn read_line(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read_until(b'\n', into),
            Self::Stdin(stdin) => stdin.read_until(b'\n', into),
        }
    }
}

fn open(path: &Path) -> Result<(Source, u64, String), CliError> {
    if path.as_os_str() == "-" {
        return Ok((Source::Stdin(BufReader::new(io::stdin())), 0, "stdin".to_owned()));
    }
    let failed = |source| CliError::Io { operation: format!("read `{}`", path.display()), source };
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut head = Vec::new();
    file.by_ref().take(IDENTITY_BYTES as u64).read_to_end(&mut head).map_err(failed)?;
    file.rewind().map_err(failed)?;
    let name =
        path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let identity =
        format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&[name.as_bytes(), &head].concat()));
    Ok((Source::File(BufReader::with_capacity(1 << 20, file)), length, identity))
}

fn progress_path(path: &Path) -> Option<PathBuf> {
    if path.as_os_str() == "-" {
        return None;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".icecore-progress");
    Some(name.into())
}

/// Lines from `offset` on up to the bounds of a request: body, events in it, offset after it.
fn next_batch(
    reader: &mut Source,
    identity: &str,
    offset: u64,
) -> io::Result<(Vec<u8>, usize, u64)> {
    let (mut body, mut line) = (Vec::new(), Vec::new());
    let (mut events, mut next) = (0, offset);
    while events < BATCH_EVENTS_MAX && body.len() < BATCH_BYTES_MAX {
        line.clear();
        let read = reader.read_line(&mut line)?;
        if read == 0 {
            break;
        }
        let text = line.trim_ascii();
        if !text.is_empty() {
            push_with_id(&mut body, text, || format!("{identity}-{next:012x}"));
            events += 1;
        }
        next += read as u64;
    }
    Ok((body, events, next))
}

/// The event, with `id` put in where it has none. What is not an object is sent as it is, for the
/// server to say what is wrong.
fn push_with_id(body: &mut Vec<u8>, event: &[u8], id: impl Fn() -> String) {
    #[derive(Deserialize)]
    struct Identified {
        id: Option<IgnoredAny>,
        events: Option<IgnoredAny>,
    }
    let parsed: Result<Identified, _> = serde_json::from_slice(event);
    match (parsed, event.strip_prefix(b"{")) {
        (Ok(Identified { id: None, events: None }), Some(rest)) => {
            let comma = if rest.trim_ascii_start().starts_with(b"}") { "" } else { "," };
            body.extend_from_slice(format!("{{\"id\":\"{}\"{comma}", id()).as_bytes());
            body.extend_from_slice(rest);
        }
        _ => body.extend_from_slice(event),
    }
    body.push(b'\n');
}

fn bar(length: u64, path: &Path) -> ProgressBar {
    let template = "{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} eta {eta} {msg}";
    let style = ProgressStyle::with_template(template)
        .expect("the template is a constant")
        .progress_chars("=> ");
    ProgressBar::new(length).with_style(style).with_prefix(path.display().to_string())
}

#[cfg(test)]
mod tests;
