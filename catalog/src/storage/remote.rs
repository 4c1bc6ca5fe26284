//! Files of the warehouse that another process reads for this one.
//!
//! A process without a way to the files asks for their lengths and for ranges of their bytes, and the
//! process that has the warehouse answers. Its one invariant: nothing is written, listed or deleted
//! here, and every byte comes by an answer.

use super::{
    Storage, StorageBackend, files, is_missing, key, local_path,
    probe::{self, CUT_SHORT},
    read_only::{self, FileReader},
};
use crate::{error::CatalogError, location::Location};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    Attributes, Error, GetOptions, GetRange, GetResult, GetResultPayload,
    OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, Result, coalesce_ranges, path::Path as Key,
};
use serde::{Deserialize, Serialize};
use std::{fmt, ops::Range};
use tokio::sync::{mpsc, oneshot};

/// Longest range that is asked for at once; a longer one is asked for in parts.
pub const RANGE_BYTES_MAX: u64 = 8 << 20;
/// Parts of a range that are asked for at a time.
const PARTS_AT_ONCE: usize = 4;
/// Ranges of a local file with no more bytes between them are one.
const LOCAL_GAP_BYTES: u64 = 64 << 10;
/// Requests that wait to be taken.
const REQUESTS_WAITING_MAX: usize = 16;
/// Longest file that is read whole, such as a manifest.
const WHOLE_BYTES_MAX: u64 = 256 << 20;
/// What errors call this store.
const STORE: &str = "warehouse";

/// What is asked of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileCall {
    /// Its length.
    Size,
    /// These bytes, or fewer where it ends.
    Range(Range<u64>),
}

/// The answer to a [`FileCall`].
#[derive(Clone, Debug)]
pub enum FileAnswer {
    /// Its length.
    Size(u64),
    /// The bytes.
    Bytes(Bytes),
}

/// Why a file cannot be read, by value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileFailure {
    /// It is not there.
    Missing,
    /// It lies outside of what may be read.
    Forbidden,
    /// The store refuses this server, with its answer.
    Refused(String),
    /// The warehouse as a whole is not there.
    Outage(String),
    /// Anything else, with what the store answered.
    Failed(String),
}

impl FileFailure {
    /// Of a call that failed.
    #[must_use]
    pub fn of(cause: &CatalogError) -> Self {
        match cause {
            CatalogError::WarehouseOutage(reason) => Self::Outage(reason.clone()),
            CatalogError::LocationForbidden(_) => Self::Forbidden,
            CatalogError::Storage {
                source: Error::PermissionDenied { .. } | Error::Unauthenticated { .. },
                ..
            } => Self::Refused(probe::answer(cause)),
            cause if is_missing(cause) => Self::Missing,
            cause => Self::Failed(probe::answer(cause)),
        }
    }

    fn of_store(self, location: &str) -> Error {
        let path = path_in_errors(location).to_owned();
        match self {
            Self::Missing => Error::NotFound { path, source: "it is not there".into() },
            Self::Refused(answer) => Error::PermissionDenied { path, source: answer.into() },
            Self::Outage(reason) => {
                let source = CatalogError::WarehouseOutage(reason).into();
                Error::Generic { store: STORE, source }
            }
            Self::Forbidden => {
                let source = CatalogError::LocationForbidden(location.to_owned()).into();
                Error::Generic { store: STORE, source }
            }
            Self::Failed(answer) => Error::Generic { store: STORE, source: answer.into() },
        }
    }

    fn of_catalog(self, operation: &'static str, location: &str) -> CatalogError {
        match self {
            Self::Outage(reason) => CatalogError::WarehouseOutage(reason),
            Self::Forbidden => CatalogError::LocationForbidden(location.to_owned()),
            failure => CatalogError::Storage {
                operation,
                location: location.to_owned(),
                source: failure.of_store(location),
            },
        }
    }
}

/// One question for a file.
#[derive(Debug)]
pub struct FileRequest {
    /// The file.
    pub location: String,
    /// What is asked.
    pub call: FileCall,
    /// Where the answer goes.
    pub reply: oneshot::Sender<std::result::Result<FileAnswer, FileFailure>>,
}

/// Asks for files. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FileRequests(mpsc::Sender<FileRequest>);

impl FileRequests {
    /// The asking side, and the one that is asked.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<FileRequest>) {
        let (asking, asked) = mpsc::channel(REQUESTS_WAITING_MAX);
        (Self(asking), asked)
    }

    async fn ask(
        &self,
        location: &str,
        call: FileCall,
    ) -> std::result::Result<FileAnswer, FileFailure> {
        let (reply, answer) = oneshot::channel();
        let request = FileRequest { location: location.to_owned(), call, reply };
        let answer = match self.0.send(request).await {
            Ok(()) => answer.await.ok(),
            Err(_) => None,
        };
        answer.unwrap_or_else(|| Err(FileFailure::Failed("nobody answers".to_owned())))
    }

    async fn size(&self, location: &str) -> std::result::Result<u64, FileFailure> {
        match self.ask(location, FileCall::Size).await? {
            FileAnswer::Size(size) => Ok(size),
            FileAnswer::Bytes(_) => Err(unfit()),
        }
    }

    async fn part(
        &self,
        location: &str,
        range: Range<u64>,
    ) -> std::result::Result<Bytes, FileFailure> {
        match self.ask(location, FileCall::Range(range)).await? {
            FileAnswer::Bytes(bytes) => Ok(bytes),
            FileAnswer::Size(_) => Err(unfit()),
        }
    }

    /// A range in parts that each fit into an answer; shorter where the file ends.
    async fn range(
        &self,
        location: &str,
        range: Range<u64>,
    ) -> std::result::Result<Bytes, FileFailure> {
        // No store is asked for nothing: some call that an error.
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        if range.end.saturating_sub(range.start) <= RANGE_BYTES_MAX {
            return self.part(location, range).await;
        }
        let step = usize::try_from(RANGE_BYTES_MAX).unwrap_or(usize::MAX);
        let parts = range.clone().step_by(step).map(|start| {
            let end = range.end.min(start + RANGE_BYTES_MAX);
            self.part(location, start..end)
        });
        let parts: Vec<_> = parts.collect();
        let mut parts = stream::iter(parts).buffered(PARTS_AT_ONCE);
        // The footer of a damaged file may name any length.
        let length = (range.end - range.start).min(WHOLE_BYTES_MAX);
        let mut whole = BytesMut::with_capacity(usize::try_from(length).unwrap_or_default());
        while let Some(part) = parts.try_next().await? {
            whole.extend_from_slice(&part);
        }
        Ok(whole.freeze())
    }

    /// A whole file.
    async fn whole(&self, location: &str) -> std::result::Result<Bytes, FileFailure> {
        let first = self.part(location, 0..RANGE_BYTES_MAX).await?;
        if (first.len() as u64) < RANGE_BYTES_MAX {
            return Ok(first);
        }
        let size = self.size(location).await?;
        if WHOLE_BYTES_MAX < size {
            let text = format!("it has {size} bytes, more than {WHOLE_BYTES_MAX}");
            return Err(FileFailure::Failed(text));
        }
        let rest = self.range(location, RANGE_BYTES_MAX..size.max(RANGE_BYTES_MAX)).await?;
        let mut whole = BytesMut::from(first.as_ref());
        whole.extend_from_slice(&rest);
        Ok(whole.freeze())
    }
}

/// As the store of a local disk names its files.
fn path_in_errors(location: &str) -> &str {
    location.strip_prefix("file://").unwrap_or(location)
}

fn unfit() -> FileFailure {
    FileFailure::Failed("the answer does not fit the question".to_owned())
}

/// The warehouse's files as the other process has them.
#[derive(Clone, Debug)]
pub(super) struct RemoteFiles {
    /// None for a local warehouse.
    bucket: Option<String>,
    requests: FileRequests,
}

impl RemoteFiles {
    fn location(&self, path: &Key) -> String {
        match &self.bucket {
            None => format!("file://{}", files::file_of(path).display()),
            Some(bucket) => format!("s3://{bucket}/{path}"),
        }
    }

    /// All bytes of a range: readers take for granted that they get what they asked for.
    async fn whole_range(&self, location: &str, range: Range<u64>) -> Result<Bytes> {
        let length = range.end.saturating_sub(range.start);
        let bytes = self.requests.range(location, range).await;
        let bytes = bytes.map_err(|failure| failure.of_store(location))?;
        if (bytes.len() as u64) < length {
            let source = format!("file `{}` {CUT_SHORT}", path_in_errors(location)).into();
            return Err(Error::Generic { store: STORE, source });
        }
        Ok(bytes)
    }

    /// What a store calls a file.
    pub(super) fn object_path(&self, location: &str) -> std::result::Result<Key, CatalogError> {
        match &self.bucket {
            None => Ok(files::object_path(&local_path(location))),
            Some(bucket) => key(bucket, location),
        }
    }

    /// The URL that the store is known by.
    pub(super) fn base(&self) -> String {
        self.bucket
            .as_ref()
            .map_or_else(|| "file:///".to_owned(), |bucket| format!("s3://{bucket}"))
    }

    pub(super) async fn get(&self, location: &str) -> std::result::Result<Bytes, CatalogError> {
        let bytes = self.requests.whole(location).await;
        bytes.map_err(|failure| failure.of_catalog("read", location))
    }

    pub(super) async fn get_range(
        &self,
        location: &str,
        range: Range<u64>,
    ) -> std::result::Result<Bytes, CatalogError> {
        let bytes = self.requests.range(location, range).await;
        bytes.map_err(|failure| failure.of_catalog("read", location))
    }

    pub(super) async fn size(&self, location: &str) -> std::result::Result<u64, CatalogError> {
        let size = self.requests.size(location).await;
        size.map_err(|failure| failure.of_catalog("look at", location))
    }
}

impl Storage {
    /// The files of the warehouse at `root`, which whoever takes the requests reads.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] for a root that is none.
    pub fn remote(root: &str, requests: FileRequests) -> std::result::Result<Self, CatalogError> {
        let Some(location) = Location::parse(root) else {
            return Err(CatalogError::Invalid(format!("`{root}` is no warehouse")));
        };
        let object = location.as_str().strip_prefix("s3://");
        let bucket = object.map(|key| key.split('/').next().unwrap_or(key).to_owned());
        let place = StorageBackend::Remote(RemoteFiles { bucket, requests });
        Ok(Self::of(location, place))
    }
}

/// What a call to a [`RemoteFiles`] fails with that is not to read a file.
pub(super) fn only_reads(operation: &'static str, location: &str) -> CatalogError {
    let source = read_only::refusal::<RemoteFiles>();
    CatalogError::Storage { operation, location: location.to_owned(), source }
}

impl fmt::Display for RemoteFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RemoteFiles")
    }
}

#[async_trait]
impl FileReader for RemoteFiles {
    const REFUSAL: &'static str =
        "another process has the warehouse; here its files are read alone";

    async fn get_opts(&self, path: &Key, options: GetOptions) -> Result<GetResult> {
        let location = self.location(path);
        let size = match &options.range {
            // The file has these bytes, or reading them fails: its length is not asked for.
            Some(GetRange::Bounded(range)) if !options.head => range.end,
            _ => {
                let size = self.requests.size(&location).await;
                size.map_err(|failure| failure.of_store(&location))?
            }
        };
        let meta = ObjectMeta {
            location: path.clone(),
            // Data files never change.
            last_modified: std::time::SystemTime::UNIX_EPOCH.into(),
            size,
            e_tag: None,
            version: None,
        };
        options.check_preconditions(&meta)?;
        let range = match options.range {
            Some(range) => range
                .as_range(meta.size)
                .map_err(|cause| Error::Generic { store: STORE, source: cause.into() })?,
            None => 0..meta.size,
        };
        let bytes = if options.head || range.is_empty() {
            Bytes::new()
        } else {
            self.whole_range(&location, range.clone()).await?
        };
        let payload = GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed());
        Ok(GetResult { payload, attributes: Attributes::default(), range, meta })
    }

    async fn get_ranges(&self, path: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let location = &self.location(path);
        let fetch = |range: Range<u64>| self.whole_range(location, range);
        // A local disk answers sooner than the bytes between two ranges pass a pipe.
        let gap = match &self.bucket {
            None => LOCAL_GAP_BYTES,
            Some(_) => OBJECT_STORE_COALESCE_DEFAULT,
        };
        coalesce_ranges(ranges, fetch, gap).await
    }
}

#[cfg(test)]
mod tests;
