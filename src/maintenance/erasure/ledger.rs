//! The copy of the ledger of erasures in the data folder: a line of JSON for each request.
//!
//! A backup that is restored may be older than an erasure, and its metastore does not know of it then. The
//! folder does. Its one invariant: lines are only added, and each is durable before its request is answered.

use icecore_lake::blocking::blocking;
use icecore_schemas::erasure::ErasureSubject;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// The file.
const NAME: &str = "erasures.ndjson";

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LedgerEntry {
    pub(super) erasure: String,
    /// The namespace.
    pub(super) levels: Vec<String>,
    pub(super) subject: ErasureSubject,
    pub(super) requested_ms: i64,
    /// The last `seq` that the namespace had then; none in lines of before this was kept. A later line
    /// of the same erasure has a lower one where a restored log gives the numbers again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seq: Option<u64>,
}

/// The file, which one thread writes at a time.
#[derive(Debug)]
pub(super) struct LedgerFile {
    path: Arc<PathBuf>,
    writes: Arc<Mutex<()>>,
}

impl LedgerFile {
    pub(super) fn new(folder: &Path) -> Self {
        Self { path: Arc::new(folder.join(NAME)), writes: Arc::default() }
    }

    /// Adds requests, durable on return.
    pub(super) async fn append(&self, entries: Vec<LedgerEntry>) -> io::Result<()> {
        let (path, writes) = (Arc::clone(&self.path), Arc::clone(&self.writes));
        blocking(move || {
            // A write that failed half way leaves a line that does not read, and no more.
            let _alone = writes.lock().unwrap_or_else(PoisonError::into_inner);
            append(&path, &entries)
        })
        .await
    }

    /// The requests by their ids, each by its last line; none where there is no file. A line that was cut
    /// off, since its request was never answered, is passed over.
    pub(super) async fn read(&self) -> io::Result<BTreeMap<String, LedgerEntry>> {
        let path = Arc::clone(&self.path);
        blocking(move || read(&path)).await
    }
}

fn append(path: &Path, entries: &[LedgerEntry]) -> io::Result<()> {
    let is_new = !path.try_exists()?;
    // It has what is to be forgotten: it is for its owner alone.
    let mut file =
        OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)?;
    let mut text = String::new();
    if !is_new && !ends_with_line(&file)? {
        text.push('\n');
    }
    for entry in entries {
        text.push_str(&serde_json::to_string(entry)?);
        text.push('\n');
    }
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    match path.parent().filter(|_| is_new) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Whether a file ends with a whole line, or is empty.
fn ends_with_line(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let length = file.metadata()?.len();
    let Some(last) = length.checked_sub(1) else { return Ok(true) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte == *b"\n")
}

fn read(path: &Path) -> io::Result<BTreeMap<String, LedgerEntry>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => 0,
        Err(cause) => return Err(cause),
    };
    let mut entries = BTreeMap::new();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice::<LedgerEntry>(line) {
            Ok(entry) => drop(entries.insert(entry.erasure.clone(), entry)),
            Err(_) => tracing::warn!(file = %path.display(), "a line of the ledger does not read"),
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str) -> LedgerEntry {
        let subject = ErasureSubject { user_id: Some("ann".to_owned()), ..Default::default() };
        LedgerEntry {
            erasure: id.to_owned(),
            levels: vec!["shop".to_owned()],
            subject,
            requested_ms: 7,
            seq: Some(9),
        }
    }

    #[tokio::test]
    async fn what_is_added_is_read_and_a_line_that_was_cut_off_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = LedgerFile::new(folder.path());
        assert!(ledger.read().await.unwrap().is_empty());
        ledger.append(vec![entry("a"), entry("b")]).await.unwrap();
        let path = folder.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        ledger.append(vec![entry("c")]).await.unwrap();
        let read = ledger.read().await.unwrap();
        assert_eq!(read.keys().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(read["c"], entry("c"));
        let lower = LedgerEntry { seq: Some(3), ..entry("c") };
        ledger.append(vec![lower.clone()]).await.unwrap();
        assert_eq!(ledger.read().await.unwrap()["c"], lower, "the last line holds");
        let before = r#"{"erasure":"d","levels":["shop"],"subject":{"id":"x"},"requested_ms":1}"#;
        std::fs::write(&path, format!("{before}\n")).unwrap();
        assert_eq!(ledger.read().await.unwrap()["d"].seq, None);
    }
}
