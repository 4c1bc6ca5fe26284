//! Where the bytes of a command come from: files, patterns of names, stdin; decompressed.
//!
//! How a file begins tells whether it is the one that an earlier run was stopped in.

use crate::{
    cli::{
        CliError,
        ingest::{FileFormat, identity::InputIdentity},
    },
    http::gzip,
};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// How much of a file's start is looked at to know it again.
const HEAD_BYTES: u64 = 64 * 1024;
/// How much is read at once.
const BUFFER_BYTES: usize = 1 << 20;
/// What compressed bytes begin with, whatever the file is called.
const GZIP_START: &[u8] = &[0x1f, 0x8b];
const ZSTD_START: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Endings of compressed files; the format is told by the ending before it.
const COMPRESSED_ENDINGS: &[&str] = &["gz", "zst", "zstd"];

/// One input.
#[derive(Clone, Debug)]
pub(super) struct InputSource {
    path: PathBuf,
    /// What its events are known by; of a stream another one in every run, as it has no name.
    pub(super) identity: InputIdentity,
    /// How the file begins; none for stdin and other streams, which cannot be read again.
    pub(super) head: Option<FileHead>,
    /// Size of the file, compressed as it is; 0 for a stream.
    pub(super) bytes: u64,
}

/// The start of a file: a hash of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileHead {
    /// How many bytes were looked at.
    bytes: u64,
    hash: u64,
}

impl FileHead {
    fn of(file: &mut File, bytes_max: u64) -> io::Result<Self> {
        let mut head = Vec::new();
        file.take(bytes_max.min(HEAD_BYTES)).read_to_end(&mut head)?;
        Ok(Self::of_bytes(&head))
    }

    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, hash: xxhash_rust::xxh3::xxh3_64(bytes) }
    }
}

/// How far a file is acknowledged: bytes, rows or elements.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FileProgress {
    pub(super) head: FileHead,
    pub(super) offset: u64,
    /// Lines before `offset`, of a file of lines.
    #[serde(default)]
    pub(super) lines: u64,
}

impl FileProgress {
    /// What an earlier run noted, unless `path` has another file now. It may have grown since.
    fn of_earlier_run(path: &Path, head: &FileHead) -> Option<Self> {
        let noted: Self = serde_json::from_slice(&std::fs::read(progress_path(path)).ok()?).ok()?;
        let is_same = noted.head == *head
            || (noted.head.bytes < head.bytes
                && FileHead::of(&mut File::open(path).ok()?, noted.head.bytes).ok()? == noted.head);
        is_same.then_some(noted)
    }

    pub(super) fn save(&self, file: &Path) -> Result<(), CliError> {
        let text = serde_json::to_string(self).expect("text and numbers");
        std::fs::write(file, text).map_err(|source| CliError::Io {
            operation: format!("write `{}`", file.display()),
            source,
        })
    }
}

/// Bytes of an input from some place on.
pub(super) type InputReader = Box<dyn BufRead + Send>;

impl InputSource {
    pub(super) fn new(path: &Path) -> Result<Self, CliError> {
        let stream = || {
            let identity = InputIdentity::new_one();
            Self { path: path.to_owned(), identity, head: None, bytes: 0 }
        };
        if is_stdin(path) {
            return Ok(stream());
        }
        let failed = failed_at(path);
        // Before it is opened: what is read of a pipe is gone from it.
        let metadata = path.metadata().map_err(&failed)?;
        if metadata.is_dir() {
            return Err(CliError::Usage(format!(
                "`{0}` is a folder; name its files, for example '{0}/*.ndjson'",
                path.display()
            )));
        }
        if !metadata.is_file() {
            return Ok(stream());
        }
        let mut file = File::open(path).map_err(&failed)?;
        let head = Some(FileHead::of(&mut file, HEAD_BYTES).map_err(&failed)?);
        let identity = InputIdentity::of_file(path).map_err(&failed)?;
        Ok(Self { path: path.to_owned(), identity, head, bytes: metadata.len() })
    }

    /// The decompressed bytes from `start` on; the bar follows what is read of the file.
    pub(super) fn open(&self, start: u64, bar: &ProgressBar) -> Result<InputReader, CliError> {
        self.try_open(start, bar).map_err(failed_at(&self.path))
    }

    fn try_open(&self, start: u64, bar: &ProgressBar) -> io::Result<InputReader> {
        if is_stdin(&self.path) {
            return decompressed(BufReader::with_capacity(BUFFER_BYTES, io::stdin()), start);
        }
        if self.head.is_none() {
            let pipe = File::open(&self.path)?;
            return decompressed(BufReader::with_capacity(BUFFER_BYTES, pipe), start);
        }
        let mut file =
            BufReader::with_capacity(BUFFER_BYTES, bar.wrap_read(File::open(&self.path)?));
        if !is_compressed(file.fill_buf()?) {
            file.seek(SeekFrom::Start(start))?;
            return Ok(Box::new(file));
        }
        decompressed(file, start)
    }

    /// How it is written: by its ending, and where that says nothing by its first byte.
    pub(super) fn format(&self, reader: &mut InputReader) -> Result<FileFormat, CliError> {
        let named = format_of_name(&self.path);
        let start = reader.fill_buf().map_err(failed_at(&self.path))?;
        Ok(match named {
            Some(format) => format,
            None if start.starts_with(b"Obj\x01") => FileFormat::Avro,
            None if start.starts_with(b"PAR1") => FileFormat::Parquet,
            None if begins_with_array(start) => FileFormat::Json,
            None => FileFormat::Ndjson,
        })
    }

    /// How far an earlier run had it acknowledged: offset, and lines of an input of lines.
    pub(super) fn acknowledged(&self) -> (u64, u64) {
        let noted =
            self.head.as_ref().and_then(|head| FileProgress::of_earlier_run(&self.path, head));
        noted.map_or((0, 0), |noted| (noted.offset, noted.lines))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The inputs that are meant: patterns with `*`, `?` or `[` that no file has as its name stand for
/// the files that match, in order of name. One that cannot be read is told before another one is sent.
pub(super) fn inputs(named: &[PathBuf]) -> Result<Vec<InputSource>, CliError> {
    if named.is_empty() {
        return Ok(vec![InputSource::new(Path::new("-"))?]);
    }
    let mut inputs = Vec::new();
    for path in named {
        let text = path.to_string_lossy();
        if !text.contains(['*', '?', '[']) || path.exists() {
            inputs.push(InputSource::new(path)?);
            continue;
        }
        let wrong = |cause: &dyn std::fmt::Display| {
            CliError::Usage(format!("`{text}` is not a pattern of file names: {cause}"))
        };
        let before = inputs.len();
        for found in glob::glob(&text).map_err(|cause| wrong(&cause))? {
            let found = found.map_err(|cause| wrong(&cause))?;
            if found.is_file() && !is_progress(&found) {
                inputs.push(InputSource::new(&found)?);
            }
        }
        if inputs.len() == before {
            return Err(CliError::Usage(format!("no file matches `{text}`")));
        }
    }
    Ok(inputs)
}

/// Where it is kept how far a file is acknowledged.
pub(in crate::cli) fn progress_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".icecore-progress");
    name.into()
}

pub(in crate::cli) fn failed_at(path: &Path) -> impl Fn(io::Error) -> CliError {
    move |source| CliError::Io { operation: format!("read `{}`", path.display()), source }
}

/// The format that the name of an input says, if it says one.
pub(in crate::cli) fn format_of_name(path: &Path) -> Option<FileFormat> {
    let ending = |path: &Path| path.extension()?.to_str().map(str::to_lowercase);
    let mut found = ending(path)?;
    if COMPRESSED_ENDINGS.contains(&found.as_str()) {
        found = ending(&path.with_extension(""))?;
    }
    match found.as_str() {
        "json" => Some(FileFormat::Json),
        "ndjson" | "jsonl" | "log" => Some(FileFormat::Ndjson),
        "csv" | "tsv" => Some(FileFormat::Csv),
        "avro" => Some(FileFormat::Avro),
        "parquet" => Some(FileFormat::Parquet),
        _ => None,
    }
}

/// The decompressed bytes of a file.
pub(in crate::cli) fn plain_file(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    decompressed(BufReader::with_capacity(BUFFER_BYTES, File::open(path)?), 0)
}

fn decompressed(mut bytes: impl BufRead + Send + 'static, start: u64) -> io::Result<InputReader> {
    let head = bytes.fill_buf()?;
    let mut reader: InputReader = if head.starts_with(GZIP_START) {
        Box::new(BufReader::with_capacity(BUFFER_BYTES, gzip::plain_bytes(bytes)))
    } else if head.starts_with(ZSTD_START) {
        let decoder = zstd::stream::read::Decoder::with_buffer(bytes)?;
        Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
    } else {
        Box::new(bytes)
    };
    // What is compressed is read again from its start.
    io::copy(&mut reader.by_ref().take(start), &mut io::sink())?;
    Ok(reader)
}

fn is_compressed(head: &[u8]) -> bool {
    head.starts_with(GZIP_START) || head.starts_with(ZSTD_START)
}

/// Whether this is the start of a JSON array, with a byte order mark or not.
pub(super) fn begins_with_array(start: &[u8]) -> bool {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    start.trim_ascii_start().starts_with(b"[")
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn is_progress(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "icecore-progress")
}
