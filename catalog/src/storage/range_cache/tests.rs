use super::*;
use crate::storage::{S3Options, is_missing};
use object_store::{ObjectStoreExt, memory::InMemory};

const ROOT: &str = "s3://bucket/lake";

/// A bucket with one file of these bytes.
async fn bucket(bytes: &[u8]) -> (Storage, String, Key) {
    let storage = Storage::bucket_in_memory(ROOT);
    let location = format!("{ROOT}/t/data/x.parquet");
    storage.put(&location, Bytes::copy_from_slice(bytes)).await.unwrap();
    let path = storage.object_path(&location).unwrap();
    (storage, location, path)
}

async fn read(store: &dyn ObjectStore, path: &Key, range: Range<u64>) -> Bytes {
    store.get_ranges(path, std::slice::from_ref(&range)).await.unwrap().remove(0)
}

#[tokio::test]
async fn ranges_that_were_read_come_from_memory_in_the_order_they_are_asked_for() {
    let (storage, location, path) = bucket(b"0123456789").await;
    let (_, store) = storage.query_store();
    let first = store.get_ranges(&path, &[6..8, 1..3]).await.unwrap();
    assert_eq!(first, [&b"67"[..], b"12"]);
    let more = store.get_ranges(&path, &[0..2, 6..8, 9..10, 1..3]).await.unwrap();
    assert_eq!(more, [&b"01"[..], b"67", b"9", b"12"]);
    let counts = storage.range_counts();
    assert_eq!((counts.hits, counts.misses), (2, 4));
    assert!(7 < counts.bytes && counts.bytes < 4 * 512, "{counts:?}");
    // The file is gone, and what was read of it is there.
    storage.delete(&location).await.unwrap();
    assert_eq!(read(store.as_ref(), &path, 6..8).await, b"67"[..]);
    assert_eq!(&storage.get_query_range(&location, 1..3).await.unwrap()[..], b"12");
    let gone = storage.get_query_range(&location, 3..5).await.unwrap_err();
    assert!(is_missing(&gone), "{gone:?}");
    // Who looks at files themselves sees that.
    let gone = storage.get_range(&location, 1..3).await.unwrap_err();
    assert!(is_missing(&gone), "{gone:?}");
}

#[tokio::test]
async fn a_file_that_was_restored_is_read_anew_once_its_ranges_are_old() {
    let path = Key::from("t/data/x.parquet");
    for (kept_time, expected) in [(KEPT_TIME, b"dama"), (Duration::ZERO, b"rest")] {
        let ranges = Arc::new(RangeCache { kept_time, ..RangeCache::default() });
        let bucket: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = Arc::clone(&bucket);
        let store = ReadOnlyStore(KeptRanges { store, ranges });
        bucket.put(&path, "damaged".into()).await.unwrap();
        assert_eq!(read(&store, &path, 0..4).await, b"dama"[..]);
        bucket.put(&path, "restored".into()).await.unwrap();
        assert_eq!(read(&store, &path, 0..4).await, expected[..]);
    }
}

#[tokio::test]
async fn a_long_range_is_not_kept_and_one_that_the_file_ends_in_is() {
    let (storage, location, _) = bucket(&vec![7; RANGE_BYTES_MAX + 1]).await;
    let end = RANGE_BYTES_MAX as u64 + 1;
    for (range, length, hits) in [(0..end, end, 0), (1..end, end - 1, 1), (end - 2..end + 5, 2, 2)]
    {
        for _ in 0..2 {
            let read = storage.get_query_range(&location, range.clone()).await.unwrap();
            assert_eq!(read.len() as u64, length, "{range:?}");
        }
        assert_eq!(storage.range_counts().hits, hits, "{range:?}");
    }
}

#[tokio::test]
async fn a_disk_has_its_own_memory() {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = format!("file://{}", folder.path().display());
    let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
    let location = format!("{}/t/data/x", storage.root());
    storage.put(&location, Bytes::from_static(b"hello")).await.unwrap();
    let (_, store) = storage.query_store();
    let path = storage.object_path(&location).unwrap();
    assert_eq!(read(store.as_ref(), &path, 1..3).await, b"el"[..]);
    assert_eq!(&storage.get_query_range(&location, 1..9).await.unwrap()[..], b"ello");
    assert_eq!(storage.range_counts(), RangeCounts::default());
}
