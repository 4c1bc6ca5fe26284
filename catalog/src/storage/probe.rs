//! Whether the warehouse takes and gives files, tried with one small file.

use super::{Storage, StorageBackend, is_missing, key};
use crate::error::CatalogError;
use bytes::Bytes;
use object_store::ObjectStoreExt;
use std::{error::Error, time::Duration};

/// Longest a probe waits for the store. Its client would try again for minutes.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the probe's file holds.
const CONTENT: &[u8] = b"icecore tries whether it can write, read and delete here\n";

/// Why a warehouse cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeFailure {
    /// One sentence without the store's own document of the error.
    pub reason: String,
    /// Whether the store refused: waiting does not mend a wrong key or a missing bucket.
    pub is_refusal: bool,
}

impl Storage {
    /// Writes, reads and deletes the file `name` at the root of the warehouse.
    ///
    /// # Errors
    /// [`ProbeFailure`] of the first of the three that failed, or that was not done after ten seconds.
    pub async fn probe(&self, name: &str) -> Result<(), ProbeFailure> {
        let location = format!("{}/{name}", self.root());
        let mut operation = "write";
        let tried = self.try_file(&location, &mut operation);
        let ended = tokio::time::timeout(PATIENCE, tried).await;
        let failed = |reason: String, is_refusal| {
            Err(ProbeFailure { reason: format!("{} {reason}", self.root()), is_refusal })
        };
        match ended {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => failed("returned another file than was written".to_owned(), true),
            // What is noted already is not written around once more.
            Ok(Err(CatalogError::WarehouseOutage(reason))) => {
                Err(ProbeFailure { reason, is_refusal: true })
            }
            Ok(Err(cause)) => {
                let (text, is_refusal) = explain(&cause);
                failed(format!("does not let this server {operation} files: {text}"), is_refusal)
            }
            // The client of the store asks again for longer, and does not tell what was answered so far.
            Err(_) => {
                let seconds = PATIENCE.as_secs();
                let text =
                    format!("does not let this server {operation} a file within {seconds} s");
                failed(text, false)
            }
        }
    }

    /// Writes, reads and deletes the file, and gives whether it was read as it was written. `operation` is
    /// the one that goes on.
    async fn try_file(
        &self,
        location: &str,
        operation: &mut &'static str,
    ) -> Result<bool, CatalogError> {
        let StorageBackend::S3 { bucket, store, .. } = &self.inner.place else {
            self.put(location, Bytes::from_static(CONTENT)).await?;
            *operation = "read";
            let read = self.get(location).await?;
            *operation = "delete";
            self.delete(location).await?;
            return Ok(read == CONTENT);
        };
        let location = self.enter(location)?;
        let key = key(bucket, &location)?;
        let put = store.put(&key, CONTENT.into()).await;
        put.map_err(self.failed_probe("write", &location))?;
        *operation = "read";
        let got = store.get(&key).await.map_err(self.failed_probe("read", &location))?;
        let read = got.bytes().await.map_err(self.failed_probe("read", &location))?;
        *operation = "delete";
        let deleted = store.delete(&key).await;
        match deleted.map_err(self.failed_probe("delete", &location)) {
            Err(cause) if !is_missing(&cause) => Err(cause),
            _ => Ok(read == CONTENT),
        }
    }
}

/// What is wrong with the store of files, as a sentence: that it is not there, or its status and code
/// where it gave them, else the last cause. None where no file of the warehouse was at fault.
#[must_use]
pub fn answer_of_store(cause: &CatalogError) -> Option<String> {
    match cause {
        CatalogError::Storage { .. } => {
            Some(format!("the warehouse answered {}", explain(cause).0))
        }
        CatalogError::WarehouseOutage(reason) => Some(reason.clone()),
        _ => None,
    }
}

/// What is said of a file that ends before the part of it that was to be read.
pub const CUT_SHORT: &str = "ends before the length that its table knows";

/// That the warehouse is not there or refuses, where that is why something failed.
#[must_use]
pub fn outage(cause: &(dyn Error + 'static)) -> Option<String> {
    let chain = std::iter::successors(Some(cause), |cause| (*cause).source());
    chain.filter_map(|cause| cause.downcast_ref()).find_map(|cause| match cause {
        CatalogError::WarehouseOutage(reason) => Some(reason.clone()),
        _ => None,
    })
}

/// The store's status and code where it gave one, else the last cause.
#[must_use]
pub fn answer(cause: &(dyn Error + 'static)) -> String {
    explain(cause).0
}

/// The same, and whether it refused.
fn explain(cause: &(dyn Error + 'static)) -> (String, bool) {
    let mut text = cause.to_string();
    let mut next = Some(cause);
    while let Some(source) = next {
        text = source.to_string();
        if let Some(code) = between(&text, "<Code>", "</Code>") {
            let status = between(&text, "status code: ", ":").map_or("", str::trim);
            let is_refusal = refuses(status) && code != "SlowDown";
            return (format!("{status} {code}").trim().to_owned(), is_refusal);
        }
        if let Some(status) = between(&text, "status code: ", ":") {
            return (status.trim().to_owned(), refuses(status.trim()));
        }
        next = source.source();
    }
    (text, false)
}

/// Whether a status says that the same request is refused the next time, too. What a store has not
/// implemented it does not learn while a server waits.
fn refuses(status: &str) -> bool {
    (status.starts_with('4') && !status.starts_with("429")) || status.starts_with("501")
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_that_is_written_read_and_cleared_again_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}/lake", folder.path().display());
        let storage = Storage::open(&url, &crate::storage::S3Options::default()).unwrap();
        storage.probe("probe").await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("lake")).unwrap().count(), 0);
        storage.break_for(&["probe"]);
        let failure = storage.probe("probe").await.unwrap_err();
        assert!(!failure.is_refusal);
        assert_eq!(failure.reason, format!("{url} does not let this server write files: outage"));
    }

    #[test]
    fn the_answer_of_a_store_is_said_in_few_words() {
        let check = |text: &str, expected: (&str, bool)| {
            let source = object_store::Error::Generic { store: "S3", source: text.into() };
            let cause =
                CatalogError::Storage { operation: "write", location: "s3://b".into(), source };
            assert_eq!(explain(&cause), (expected.0.to_owned(), expected.1));
        };
        check(
            "Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>…</Message></Error>",
            ("403 Forbidden SignatureDoesNotMatch", true),
        );
        check(
            "Server returned non-2xx status code: 404 Not Found: <Error><Code>NoSuchBucket</Code></Error>",
            ("404 Not Found NoSuchBucket", true),
        );
        check(
            "Server returned non-2xx status code: 503 Service Unavailable: ",
            ("503 Service Unavailable", false),
        );
        check(
            "the store answered with status code: 501 Not Implemented: <Error><Code>NotImplemented</Code></Error>",
            ("501 Not Implemented NotImplemented", true),
        );
        check(
            "Server returned non-2xx status code: 429 Too Many Requests: ",
            ("429 Too Many Requests", false),
        );
        check("connection refused", ("connection refused", false));
    }
}
