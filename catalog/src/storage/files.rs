//! Files of the local disk for readers that speak `object_store`, whatever their names.
//!
//! The store of the `object_store` crate goes by URLs: it drops tabs from a name and refuses one that
//! ends in `#1`. Here a path is the file's own, with every byte encoded that a path must not have.
//! Where the warehouse is not there, that is the error, and not that its file is missing. Its one
//! invariant: the file that is read is the one whose location was checked.

use super::{Storage, probe::CUT_SHORT, read_only::FileReader};
use crate::usage;
use async_trait::async_trait;
use bytes::Bytes;
use object_store::{
    Attributes, Error, GetOptions, GetResult, GetResultPayload, ObjectMeta, Result,
    path::Path as Key,
};
use percent_encoding::percent_decode_str;
use std::{
    fmt,
    fs::File,
    io::{ErrorKind, Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
};

/// Local files, to read.
#[derive(Clone, Debug)]
pub(super) struct LocalFiles(pub(super) Storage);

impl LocalFiles {
    /// Does what blocks on a thread for it.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let done = tokio::task::spawn_blocking(usage::carried(work)).await;
        let failed = match done.map_err(|source| Error::JoinError { source })? {
            Ok(done) => return Ok(done),
            Err(failed) => failed,
        };
        match self.0.look().await {
            Err(outage) => Err(Error::Generic { store: "local disk", source: outage.into() }),
            Ok(()) => Err(failed),
        }
    }
}

/// What the store calls a file.
pub(super) fn object_path(file: &Path) -> Key {
    // It encodes each segment, percent signs included.
    Key::from(file.to_string_lossy().into_owned())
}

pub(super) fn file_of(path: &Key) -> PathBuf {
    let decoded = percent_decode_str(path.as_ref()).decode_utf8_lossy();
    PathBuf::from(format!("/{decoded}"))
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.display().to_string();
    move |cause| match cause.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            Error::NotFound { path: path.clone(), source: cause.into() }
        }
        ErrorKind::PermissionDenied => {
            Error::PermissionDenied { path: path.clone(), source: cause.into() }
        }
        ErrorKind::UnexpectedEof => {
            let source = format!("file `{path}` {CUT_SHORT}").into();
            Error::Generic { store: "local disk", source }
        }
        _ => Error::Generic { store: "local disk", source: cause.into() },
    }
}

fn read_range(file: &mut File, range: &Range<u64>) -> std::io::Result<Bytes> {
    file.seek(SeekFrom::Start(range.start))?;
    let mut bytes = Vec::new();
    file.take(range.end.saturating_sub(range.start)).read_to_end(&mut bytes)?;
    usage::count_read(bytes.len());
    // Readers take for granted that they get what they asked for.
    if (bytes.len() as u64) < range.end.saturating_sub(range.start) {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes.into())
}

impl fmt::Display for LocalFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalFiles")
    }
}

#[async_trait]
impl FileReader for LocalFiles {
    async fn get_opts(&self, location: &Key, options: GetOptions) -> Result<GetResult> {
        let location = location.clone();
        self.read(move || {
            let path = file_of(&location);
            let file = File::open(&path).map_err(failed(&path))?;
            let metadata = file.metadata().map_err(failed(&path))?;
            let meta = ObjectMeta {
                location,
                // Data files never change.
                last_modified: std::time::SystemTime::UNIX_EPOCH.into(),
                size: metadata.len(),
                e_tag: None,
                version: None,
            };
            options.check_preconditions(&meta)?;
            let range = match options.range {
                Some(range) => range.as_range(meta.size).map_err(|cause| Error::Generic {
                    store: "local disk",
                    source: cause.into(),
                })?,
                None => 0..meta.size,
            };
            let payload = GetResultPayload::File(file, path);
            Ok(GetResult { payload, attributes: Attributes::default(), range, meta })
        })
        .await
    }

    async fn get_ranges(&self, location: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (path, ranges) = (file_of(location), ranges.to_vec());
        self.read(move || {
            let mut file = File::open(&path).map_err(failed(&path))?;
            let read = |range| read_range(&mut file, range).map_err(failed(&path));
            ranges.iter().map(read).collect()
        })
        .await
    }
}
