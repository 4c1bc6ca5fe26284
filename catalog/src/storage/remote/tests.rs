use super::{FileAnswer, FileCall, FileFailure, FileRequest, FileRequests, RANGE_BYTES_MAX};
use crate::{
    error::CatalogError,
    storage::{S3Options, Storage, is_missing, probe},
};
use bytes::Bytes;
use object_store::{GetOptions, GetRange};
use std::{future::Future, sync::Mutex};
use tokio::sync::mpsc;

/// A warehouse on a disk, and what was asked of it.
struct House {
    _folder: tempfile::TempDir,
    storage: Storage,
    asked: Mutex<Vec<FileCall>>,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = format!("file://{}", folder.path().display());
        let storage = Storage::open(&root, &S3Options::default()).unwrap();
        Self { _folder: folder, storage, asked: Mutex::default() }
    }

    fn location(&self, name: &str) -> String {
        format!("{}/t/data/{name}", self.storage.root())
    }

    /// What comes of `work`, whose questions are answered from this warehouse.
    async fn answer<T>(
        &self,
        mut asked: mpsc::Receiver<FileRequest>,
        work: impl Future<Output = T>,
    ) -> T {
        let answers = async {
            while let Some(FileRequest { location, call, reply }) = asked.recv().await {
                self.asked.lock().unwrap().push(call.clone());
                let answer = match call {
                    FileCall::Size => self.storage.size(&location).await.map(FileAnswer::Size),
                    FileCall::Range(range) => {
                        self.storage.get_range(&location, range).await.map(FileAnswer::Bytes)
                    }
                };
                reply.send(answer.map_err(|cause| FileFailure::of(&cause))).unwrap();
            }
        };
        tokio::select! {
            done = work => done,
            () = answers => panic!("nobody asks any more"),
        }
    }

    fn remote(&self) -> (Storage, mpsc::Receiver<FileRequest>) {
        let (requests, asked) = FileRequests::channel();
        (Storage::remote(self.storage.root(), requests).unwrap(), asked)
    }

    fn take_asked(&self) -> Vec<FileCall> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// A byte for each place, so that parts in a wrong order show.
fn bytes(length: u64) -> Bytes {
    (0..length).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn files_are_read_as_where_they_are() {
    let house = House::new();
    // A long one is asked for in parts.
    for (name, length) in [
        ("small", 10),
        ("odd name #1 %41", 1),
        ("one part", RANGE_BYTES_MAX),
        ("long", 2 * RANGE_BYTES_MAX + 7),
    ] {
        let (location, whole) = (house.location(name), bytes(length));
        house.storage.put(&location, whole.clone()).await.unwrap();
        let (remote, asked) = house.remote();
        let work = async {
            assert_eq!(remote.get(&location).await.unwrap(), whole, "{name}");
            assert_eq!(remote.size(&location).await.unwrap(), length);
            assert!(remote.exists(&location).await.unwrap());
            let part = remote.get_range(&location, 1..length + 5).await.unwrap();
            assert_eq!(part, whole.slice(1..), "shorter where the file ends");
            let (_, store) = remote.object_store();
            let path = remote.object_path(&location).unwrap();
            let ranges = [length - 1..length, 0..1];
            let read = store.get_ranges(&path, &ranges).await.unwrap();
            let last = usize::try_from(length).unwrap() - 1;
            assert_eq!(read, [whole.slice(last..), whole.slice(..1)]);
            let range = Some(GetRange::Suffix(1));
            let end = GetOptions { range, ..GetOptions::default() };
            let end = store.get_opts(&path, end).await.unwrap();
            assert_eq!((end.meta.size, end.bytes().await.unwrap()), (length, whole.slice(last..)));
        };
        house.answer(asked, work).await;
        for call in house.take_asked() {
            let FileCall::Range(range) = call else { continue };
            // Of a bucket no empty range can be asked for.
            assert!((1..=RANGE_BYTES_MAX).contains(&(range.end - range.start)), "{range:?}");
        }
    }
}

#[tokio::test]
async fn a_file_that_is_cut_short_is_named_and_a_range_needs_no_length() {
    let house = House::new();
    let location = house.location("short");
    house.storage.put(&location, bytes(10)).await.unwrap();
    let (remote, asked) = house.remote();
    let path = remote.object_path(&location).unwrap();
    let (_, store) = remote.object_store();
    let options = |range| GetOptions { range: Some(range), ..GetOptions::default() };
    let work = async {
        let read = store.get_opts(&path, options(GetRange::Bounded(3..10))).await.unwrap();
        assert_eq!(read.bytes().await.unwrap(), bytes(10).slice(3..));
        for cut in [
            store.get_opts(&path, options(GetRange::Bounded(3..11))).await.map(drop),
            store.get_ranges(&path, &[0..1, 3..11]).await.map(drop),
        ] {
            let cut = cut.unwrap_err().to_string();
            assert!(cut.contains(probe::CUT_SHORT) && cut.contains("/t/data/short`"), "{cut}");
        }
    };
    house.answer(asked, work).await;
    assert!(!house.take_asked().contains(&FileCall::Size));
}

#[tokio::test]
async fn failures_say_what_they_are() {
    let house = House::new();
    let (remote, asked) = house.remote();
    let missing = house.location("missing");
    let work = async {
        assert!(!remote.exists(&missing).await.unwrap());
        assert!(is_missing(&remote.get(&missing).await.unwrap_err()));
        let (_, store) = remote.object_store();
        let path = remote.object_path(&missing).unwrap();
        let read = store.get_ranges(&path, std::slice::from_ref(&(0..1))).await;
        assert!(matches!(read, Err(object_store::Error::NotFound { .. })), "{read:?}");
        let outside = remote.get("file:///etc/passwd").await;
        assert!(matches!(outside, Err(CatalogError::LocationForbidden(_))), "{outside:?}");
        for written in [
            remote.put(&missing, Bytes::new()).await,
            remote.delete(&missing).await,
            remote.list(remote.root()).await.map(drop),
        ] {
            let refused = written.unwrap_err();
            assert!(matches!(&refused, CatalogError::Storage { .. }), "{refused:?}");
        }
    };
    house.answer(asked, work).await;
}

#[tokio::test]
async fn an_outage_and_a_refusal_are_told_apart() {
    for (failure, is_outage) in [
        (FileFailure::Outage("the warehouse `x` is not there".to_owned()), true),
        (FileFailure::Refused("403 AccessDenied".to_owned()), false),
        (FileFailure::Failed("timeout".to_owned()), false),
    ] {
        let (requests, mut asked) = FileRequests::channel();
        let remote = Storage::remote("s3://bucket/lake", requests).unwrap();
        let answer = async {
            let request = asked.recv().await.unwrap();
            assert_eq!(request.location, "s3://bucket/lake/t/a=b.parquet");
            request.reply.send(Err(failure.clone())).unwrap();
        };
        let path = remote.object_path("s3://bucket/lake/t/a=b.parquet").unwrap();
        let (base, store) = remote.object_store();
        assert_eq!(base.as_str(), "s3://bucket");
        let (read, ()) =
            tokio::join!(store.get_ranges(&path, std::slice::from_ref(&(0..4))), answer);
        let read = read.unwrap_err();
        assert_eq!(probe::outage(&read).is_some(), is_outage, "{read:?}");
    }
    let (requests, asked) = FileRequests::channel();
    drop(asked);
    let remote = Storage::remote("s3://bucket/lake", requests).unwrap();
    assert!(remote.size("s3://bucket/lake/t/x").await.is_err(), "nobody answers");
}
