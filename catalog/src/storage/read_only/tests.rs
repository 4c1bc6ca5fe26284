use crate::storage::{S3Options, Storage, remote::FileRequests};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{Error, ObjectStore, ObjectStoreExt, path::Path as Key};

/// What every call of a store but its reads fails with.
async fn refusals(store: &dyn ObjectStore) -> Vec<Error> {
    let (one, other) = (Key::from("a"), Key::from("b"));
    let deleted = stream::iter([Ok(one.clone())]).boxed();
    let calls = [
        store.put(&one, "x".into()).await.map(drop),
        store.put_multipart(&one).await.map(drop),
        store.delete_stream(deleted).try_next().await.map(drop),
        store.list(None).try_next().await.map(drop),
        store.list_with_offset(None, &one).try_next().await.map(drop),
        store.list_with_delimiter(None).await.map(drop),
        store.copy(&one, &other).await,
        store.rename(&one, &other).await,
    ];
    calls.into_iter().map(Result::unwrap_err).collect()
}

#[tokio::test]
async fn a_store_of_readers_refuses_all_but_reads_and_says_whose_files_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let root = format!("file://{}", folder.path().display());
    let local = Storage::open(&root, &S3Options::default()).unwrap();
    let bucket = Storage::bucket_in_memory("s3://bucket/lake");
    let (requests, _asked) = FileRequests::channel();
    let remote = Storage::remote(local.root(), requests).unwrap();
    for (storage, expected) in [
        (&local, "are written and listed by its storage"),
        (&bucket, "are written and listed by its storage"),
        (&remote, "another process has the warehouse"),
    ] {
        let (_, store) = storage.query_store();
        for refusal in refusals(store.as_ref()).await {
            assert!(matches!(refusal, Error::NotSupported { .. }), "{store}: {refusal:?}");
            assert!(refusal.to_string().contains(expected), "{store}: {refusal}");
        }
    }
}
