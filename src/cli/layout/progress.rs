//! What an import has sent so far: a line for each file that is acknowledged, beside the folder.
//!
//! A line is written after the server has acknowledged the file's last event, so a run that is killed at any
//! moment leaves out a file at worst, and what of it was sent is then a duplicate.

use crate::cli::{
    CliError,
    ingest::source::progress_path,
    layout::{folder::LayoutFile, report::EventCounts},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

/// Where the events go; the first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct ImportTarget {
    /// The server.
    pub(in crate::cli) url: String,
    /// The namespace of all events, if one was named.
    pub(in crate::cli) ns: Option<String>,
}

/// A file that was sent.
#[derive(Debug, Serialize, Deserialize)]
struct SentFile {
    file: String,
    bytes: u64,
    modified_ms: u64,
    #[serde(flatten)]
    counts: EventCounts,
}

/// The notes on the files of one folder.
#[derive(Debug)]
pub(in crate::cli) struct ImportProgress {
    path: PathBuf,
    out: File,
    sent: HashMap<String, SentFile>,
}

impl ImportProgress {
    /// Reads what an earlier run noted that sent the same folder to the same target.
    ///
    /// # Errors
    /// [`CliError::Io`] where the notes cannot be written.
    pub(in crate::cli) fn open(folder: &Path, target: &ImportTarget) -> Result<Self, CliError> {
        let path = progress_path(folder);
        let (sent, out) = Self::try_open(&path, target).map_err(failed_at(&path))?;
        Ok(Self { path, out, sent })
    }

    fn try_open(
        path: &Path,
        target: &ImportTarget,
    ) -> io::Result<(HashMap<String, SentFile>, File)> {
        let noted = match fs::read(path) {
            Ok(noted) => noted,
            Err(cause) if cause.kind() == ErrorKind::NotFound => Vec::new(),
            Err(cause) => return Err(cause),
        };
        let (sent, whole) = notes(&noted, target);
        let mut out = OpenOptions::new().create(true).append(true).open(path)?;
        // What was torn off by the end of that run is in the way of the next line.
        out.set_len(whole as u64)?;
        if whole == 0 {
            out.write_all(&line_of(target))?;
        }
        Ok((sent, out))
    }

    /// What became of a file that was sent and is the same now.
    pub(in crate::cli) fn sent(&self, file: &LayoutFile) -> Option<EventCounts> {
        let sent = self.sent.get(&file.name)?;
        let is_same = sent.bytes == file.bytes && sent.modified_ms == file.modified_ms;
        is_same.then_some(sent.counts)
    }

    /// Notes that all of a file is acknowledged.
    ///
    /// # Errors
    /// [`CliError::Io`].
    pub(in crate::cli) fn note(
        &mut self,
        file: &LayoutFile,
        counts: EventCounts,
    ) -> Result<(), CliError> {
        let LayoutFile { name, bytes, modified_ms, .. } = file;
        let sent =
            SentFile { file: name.clone(), bytes: *bytes, modified_ms: *modified_ms, counts };
        self.out.write_all(&line_of(&sent)).map_err(failed_at(&self.path))
    }

    /// Forgets everything: all is sent, and the next run sends all again.
    ///
    /// # Errors
    /// [`CliError::Io`].
    pub(in crate::cli) fn end(self) -> Result<(), CliError> {
        fs::remove_file(&self.path).map_err(failed_at(&self.path))
    }
}

/// The files that are noted for a target, and how many bytes of the notes are whole lines of it.
fn notes(noted: &[u8], target: &ImportTarget) -> (HashMap<String, SentFile>, usize) {
    let mut sent = HashMap::new();
    let mut lines = noted.split_inclusive(|byte| *byte == b'\n').filter(|it| it.ends_with(b"\n"));
    let first = lines.next();
    let is_target =
        |line: &&[u8]| serde_json::from_slice(line).is_ok_and(|it: ImportTarget| it == *target);
    let Some(first) = first.filter(is_target) else { return (sent, 0) };
    let mut whole = first.len();
    for line in lines {
        let Ok(file) = serde_json::from_slice::<SentFile>(line) else { break };
        whole += line.len();
        sent.insert(file.file.clone(), file);
    }
    (sent, whole)
}

fn line_of(note: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(note).expect("texts and numbers");
    line.push(b'\n');
    line
}

fn failed_at(path: &Path) -> impl Fn(io::Error) -> CliError {
    move |source| CliError::Io { operation: format!("write `{}`", path.display()), source }
}
