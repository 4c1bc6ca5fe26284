//! Whether the warehouse takes and gives files, tried with one small file.

use super::Storage;
use crate::error::CatalogError;
use bytes::Bytes;
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
    /// [`ProbeFailure`] of the first of the three that failed, or of a wait of ten seconds.
    pub async fn probe(&self, name: &str) -> Result<(), ProbeFailure> {
        let location = format!("{}/{name}", self.root());
        let tried = async {
            self.put(&location, Bytes::from_static(CONTENT)).await.map_err(|e| ("write", e))?;
            let read = self.get(&location).await.map_err(|e| ("read", e))?;
            self.delete(&location).await.map_err(|e| ("delete", e))?;
            Ok(read == CONTENT)
        };
        let failed = |reason: String, is_refusal| {
            Err(ProbeFailure { reason: format!("{} {reason}", self.root()), is_refusal })
        };
        match tokio::time::timeout(PATIENCE, tried).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => failed("returned another file than was written".to_owned(), true),
            // What is noted already is not written around once more.
            Ok(Err((_, CatalogError::WarehouseOutage(reason)))) => {
                Err(ProbeFailure { reason, is_refusal: true })
            }
            Ok(Err((operation, cause))) => {
                let (text, is_refusal) = explain(&cause);
                failed(format!("does not let this server {operation} files: {text}"), is_refusal)
            }
            Err(_) => failed(format!("does not answer within {} s", PATIENCE.as_secs()), false),
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

/// What is said of a local file that ends before the part of it that was to be read.
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
            let is_refusal = status.starts_with('4') && code != "SlowDown";
            return (format!("{status} {code}").trim().to_owned(), is_refusal);
        }
        if let Some(status) = between(&text, "status code: ", ":") {
            return (status.trim().to_owned(), status.trim().starts_with('4'));
        }
        next = source.source();
    }
    (text, false)
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
        check("connection refused", ("connection refused", false));
    }
}
