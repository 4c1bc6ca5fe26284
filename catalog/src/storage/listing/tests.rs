use crate::{
    location::Location,
    storage::{S3Options, Storage, listing::ListedFile},
};
use bytes::Bytes;
use std::collections::BTreeSet;

/// All files below a folder, and the lengths of the pages.
async fn list(storage: &Storage, folder: &str) -> (BTreeSet<(String, u64)>, Vec<usize>) {
    let mut listing = storage.list_files(&Location::parse(folder).unwrap()).unwrap();
    let (mut files, mut pages) = (BTreeSet::new(), Vec::new());
    loop {
        let page = listing.next_page().await.unwrap();
        if page.is_empty() {
            return (files, pages);
        }
        pages.push(page.len());
        for ListedFile { location, bytes, modified_ms, is_plain } in page {
            assert!(modified_ms.is_some_and(|time_ms| 1_600_000_000_000 < time_ms), "{location}");
            assert!(is_plain, "{location}");
            assert!(files.insert((location, bytes)), "each once");
        }
    }
}

#[tokio::test]
async fn files_are_listed_once_each_in_pages_of_bounded_length() {
    let folder = tempfile::tempdir().unwrap();
    let disk = format!("file://{}/w", folder.path().display());
    let disk = Storage::open(&disk, &S3Options::default()).unwrap();
    for storage in [disk, Storage::bucket_in_memory("s3://bucket/w")] {
        let table = format!("{}/t", storage.root());
        let mut expected = BTreeSet::new();
        for n in 0..2_100 {
            let file = format!("{table}/data/day={}/{n}.parquet", n % 3);
            if storage.is_local() {
                // As a client writes it: nobody waits for a sync.
                let path = std::path::PathBuf::from(file.strip_prefix("file://").unwrap());
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, "ab").unwrap();
            } else {
                storage.put(&file, Bytes::from_static(b"ab")).await.unwrap();
            }
            expected.insert((file, 2));
        }
        // A neighbour's name only begins alike.
        storage.put(&format!("{table}2/x"), Bytes::from_static(b"x")).await.unwrap();
        let (files, pages) = list(&storage, &table).await;
        assert_eq!(files, expected);
        assert_eq!(pages, [1_000, 1_000, 100]);
        let (none, _) = list(&storage, &format!("{}/none", storage.root())).await;
        assert!(none.is_empty());
    }
}

#[tokio::test]
async fn the_folders_of_a_folder_are_named_without_those_below_and_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let disk = format!("file://{}/w", folder.path().display());
    let disk = Storage::open(&disk, &S3Options::default()).unwrap();
    for storage in [disk, Storage::bucket_in_memory("s3://bucket/w")] {
        let home = format!("{}/a", storage.root());
        for file in ["two/data/x", "one/x", "file", "two/y"] {
            storage.put(&format!("{home}/{file}"), Bytes::from_static(b"x")).await.unwrap();
        }
        storage.put(&format!("{home}2/three/x"), Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(storage.folders_in(&home).await.unwrap(), ["one", "two"]);
        assert!(storage.folders_in(&format!("{home}/none")).await.unwrap().is_empty());
    }
}
