use super::*;

fn open() -> (tempfile::TempDir, Storage) {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = format!("file://{}/made/on/open", folder.path().display());
    let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
    (folder, storage)
}

fn files_on_disk(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            names.extend(files_on_disk(&entry.path()));
        } else {
            names.push(entry.file_name().into_string().unwrap());
        }
    }
    names
}

#[tokio::test]
async fn a_file_is_whole_after_put_and_gone_after_delete() {
    let (folder, storage) = open();
    let location = format!("{}/ns/t/metadata/a.json", storage.root());
    assert!(!storage.exists(&location).await.unwrap());
    storage.put(&location, Bytes::from_static(b"one")).await.unwrap();
    storage.put(&location, Bytes::from_static(b"second")).await.unwrap();
    assert_eq!(&storage.get(&location).await.unwrap()[..], b"second");
    assert_eq!(storage.size(&location).await.unwrap(), 6);
    assert_eq!(&storage.get_range(&location, 1..4).await.unwrap()[..], b"eco");
    assert_eq!(files_on_disk(folder.path()), ["a.json"], "no temporary file remains");
    storage.delete(&location).await.unwrap();
    storage.delete(&location).await.unwrap();
    assert!(!storage.exists(&location).await.unwrap());
    assert!(is_missing(&storage.get(&location).await.unwrap_err()));
}

#[tokio::test]
async fn a_put_that_cannot_take_its_name_leaves_no_temporary_file() {
    let (folder, storage) = open();
    let taken = format!("{}/t/data", storage.root());
    storage.prepare_table(&format!("{}/t", storage.root())).await.unwrap();
    storage.put(&taken, Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(files_on_disk(folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_folder_that_was_removed_is_made_again() {
    let (folder, storage) = open();
    let location = format!("{}/t/data/a", storage.root());
    storage.put(&location, Bytes::from_static(b"x")).await.unwrap();
    // Its own folder is remembered, or only one above it.
    for name in ["data/a", "data/new/a"] {
        std::fs::remove_dir_all(folder.path().join("made/on/open/t")).unwrap();
        let location = format!("{}/t/{name}", storage.root());
        storage.put(&location, Bytes::from_static(b"y")).await.unwrap();
        assert_eq!(&storage.get(&location).await.unwrap()[..], b"y");
    }
}

#[tokio::test]
async fn concurrent_puts_of_one_file_leave_one_of_them() {
    let (folder, storage) = open();
    let location = format!("{}/deep/er/file", storage.root());
    let puts = (0..16).map(|n| storage.put(&location, Bytes::from(vec![n; 1000])));
    for put in futures::future::join_all(puts).await {
        put.unwrap();
    }
    let bytes = storage.get(&location).await.unwrap();
    assert_eq!(bytes.len(), 1000);
    assert!(bytes.iter().all(|byte| *byte == bytes[0]));
    assert_eq!(files_on_disk(folder.path()), ["file"]);
}

#[tokio::test]
async fn a_list_names_what_is_below_a_folder_and_not_beside_it() {
    let (_folder, storage) = open();
    let root = storage.root().to_owned();
    for name in ["test/b", "test/a/c", "test2/d"] {
        storage.put(&format!("{root}/{name}"), Bytes::new()).await.unwrap();
    }
    let listed = storage.list(&format!("{root}/test/")).await.unwrap();
    assert_eq!(listed, [format!("{root}/test/a/c"), format!("{root}/test/b")]);
    assert_eq!(storage.list(&root).await.unwrap().len(), 3);
    assert_eq!(storage.list(&format!("{root}/none")).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn hostile_locations_are_refused_before_any_io() {
    let (folder, storage) = open();
    let root = storage.root().to_owned();
    let outside = folder.path().display();
    let hostile = [
        root.clone(),
        format!("{root}/"),
        format!("{root}x/a"),
        format!("{root}/../a"),
        format!("{root}/a/../../../b"),
        format!("{root}/a/./b"),
        format!("{root}/%2e%2e/a"),
        format!("{root}/%2E./a"),
        format!("{root}/a/../../other/x.parquet"),
        format!("{root}/.\t./a"),
        format!("{root}/a\0b"),
        format!("file://{outside}/a"),
        format!("file://localhost{outside}/a"),
        format!("file:///{root}/a"),
        format!("{outside}/made/on/open/a"),
        format!("FILE://{outside}/made/on/open/a"),
        format!("{root}/{}", "a".repeat(5000)),
        "file:///etc/passwd".to_owned(),
        "s3://bucket/made/on/open/a".to_owned(),
        "http://127.0.0.1/a".to_owned(),
        "a".to_owned(),
        String::new(),
    ];
    let calls = storage.calls();
    for location in &hostile {
        let refused = |result: Result<(), CatalogError>| {
            assert!(matches!(result, Err(CatalogError::LocationForbidden(_))), "{location}");
        };
        refused(storage.put(location, Bytes::new()).await);
        refused(storage.get(location).await.map(|_| ()));
        refused(storage.delete(location).await);
        refused(storage.exists(location).await.map(|_| ()));
        refused(storage.prepare_table(location).await);
        assert!(storage.file_io().new_input(location).is_err(), "{location}");
    }
    assert_eq!(storage.calls(), calls);
    assert_eq!(files_on_disk(folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_link_that_leads_out_of_the_warehouse_is_not_followed() {
    let (folder, storage) = open();
    let (root, warehouse) = (storage.root().to_owned(), folder.path().join("made/on/open"));
    std::fs::write(folder.path().join("secret"), b"secret").unwrap();
    storage.put(&format!("{root}/t/data/a"), Bytes::from_static(b"x")).await.unwrap();
    let link = |from: &Path, name: &str| {
        std::os::unix::fs::symlink(from, warehouse.join(name)).unwrap();
    };
    link(folder.path(), "t/out");
    link(&folder.path().join("secret"), "t/data/secret");
    link(&folder.path().join("nothing"), "t/data/dangling");
    link(&warehouse.join("t/data"), "t/in");
    let refused = |result: Result<(), CatalogError>| {
        assert!(matches!(result, Err(CatalogError::LocationForbidden(_))), "{result:?}");
    };
    for name in ["t/out/secret", "t/data/secret", "t/data/dangling", "t/out/new/file"] {
        let location = format!("{root}/{name}");
        refused(storage.get(&location).await.map(|_| ()));
        refused(storage.get_range(&location, 0..1).await.map(|_| ()));
        refused(storage.size(&location).await.map(|_| ()));
        refused(storage.put(&location, Bytes::new()).await);
        refused(storage.delete(&location).await);
        refused(storage.prepare_table(&location).await);
        let location = storage.normalize(&location).unwrap();
        refused(storage.check_links(vec![location]).await);
    }
    refused(storage.list(&format!("{root}/t/out")).await.map(|_| ()));
    assert_eq!(&storage.get(&format!("{root}/t/in/a")).await.unwrap()[..], b"x");
    let inside = storage.normalize(&format!("{root}/t/in/a")).unwrap();
    storage.check_links(vec![inside]).await.unwrap();
    assert_eq!(std::fs::read(folder.path().join("secret")).unwrap(), b"secret");
    assert!(!folder.path().join("nothing").exists());
}

#[test]
fn spellings_of_a_local_location_have_one_normal_form() {
    let (folder, storage) = open();
    let path = format!("{}/made/on/open/t", folder.path().display());
    let normal = format!("file://{path}");
    for spelling in [format!("file://{path}"), format!("file:{path}"), format!("file://{path}/")] {
        assert_eq!(storage.normalize(&spelling).unwrap().as_str(), normal);
    }
    let partition = format!("{normal}/data/type=a%2Fb%20c/dt=2026-01-01/ü.parquet");
    assert_eq!(storage.normalize(&partition).unwrap().as_str(), partition);
}

#[test]
fn only_absolute_folders_and_buckets_are_warehouses() {
    for warehouse in ["file://relative", "file:///", "/tmp/x", "gs://b/p", "s3://", "s3:///x", ""] {
        let opened = Storage::open(warehouse, &S3Options::default());
        assert!(matches!(opened, Err(CatalogError::Invalid(_))), "{warehouse}");
    }
}

#[tokio::test]
async fn the_iceberg_crate_reads_and_writes_the_same_files() {
    let (_folder, storage) = open();
    let io = storage.file_io();
    let location = format!("{}/t/data/a.bin", storage.root());
    let mut writer = io.new_output(&location).unwrap().writer().await.unwrap();
    writer.write(Bytes::from_static(b"hello ")).await.unwrap();
    assert!(!storage.exists(&location).await.unwrap(), "not visible before it is closed");
    writer.write(Bytes::from_static(b"world")).await.unwrap();
    writer.close().await.unwrap();
    assert!(writer.close().await.is_err());
    let input = io.new_input(&location).unwrap();
    assert_eq!(input.metadata().await.unwrap().size, 11);
    assert_eq!(&input.reader().await.unwrap().read(6..11).await.unwrap()[..], b"world");
    io.delete_prefix(format!("{}/t", storage.root())).await.unwrap();
    assert!(!input.exists().await.unwrap());
}

#[tokio::test]
async fn data_fusions_store_reads_the_same_files() {
    let (_folder, storage) = open();
    let location = format!("{}/t/data/type=a%2Fb/x", storage.root());
    storage.put(&location, Bytes::from_static(b"hello")).await.unwrap();
    let (base, store) = storage.object_store();
    assert_eq!(base.as_str(), "file:///");
    let path = storage.object_path(&location).unwrap();
    assert_eq!(&store.get(&path).await.unwrap().bytes().await.unwrap()[..], b"hello");
    let own = storage.normalize(&format!("{}/t", storage.root())).unwrap();
    let access = storage.client_access(&own, access::FileScope::Write).await.unwrap();
    assert_eq!(access, access::ClientAccess::default());
}

#[tokio::test]
async fn clients_of_s3_get_address_and_keys_together() {
    let options = S3Options {
        endpoint: Some("http://127.0.0.1:8333".to_owned()),
        access_key_id: Some("id".to_owned()),
        secret_access_key: Some("secret".to_owned()),
        ..S3Options::default()
    };
    let storage = Storage::open("s3://bucket/some/prefix/", &options).unwrap();
    assert_eq!(storage.root(), "s3://bucket/some/prefix");
    assert_eq!(storage.object_store().0.as_str(), "s3://bucket");
    let own = storage.normalize("s3://bucket/some/prefix/t").unwrap();
    let access = storage.client_access(&own, access::FileScope::Write).await.unwrap();
    assert_eq!(access.prefix.as_deref(), Some("s3://bucket/some/prefix/t/"));
    let config = access.config;
    assert_eq!(config["s3.endpoint"], "http://127.0.0.1:8333");
    assert_eq!(config["s3.region"], "us-east-1");
    assert_eq!(config["client.region"], "us-east-1");
    assert_eq!(config["s3.path-style-access"], "true");
    assert_eq!(config["s3.access-key-id"], "id");
    assert_eq!(config["s3.secret-access-key"], "secret");
    assert!(!config.contains_key("s3.session-token"));
    assert!(config["icecore.keys"].contains("all that it can open"));
    assert!(!format!("{options:?}").contains("secret\""));
    assert!(storage.normalize("s3://bucket/some/prefix2/x").is_err());
    assert!(storage.normalize("s3://other/some/prefix/x").is_err());
    let odd = "some/prefix/type=a%2Fb c/ü+*.parquet";
    let location = storage.normalize(&format!("s3://bucket/{odd}")).unwrap();
    assert_eq!(key("bucket", location.as_str()).unwrap().as_ref(), odd);
}

/// Names that values of partitions become, by writers that encode them and by such that do not.
const ODD_NAMES: [&str; 16] = [
    "k=a%2Fb/x",
    "k=..%2F..%2Fx/x",
    "k=%252F/x",
    "k=C%3A%5Clogs/x",
    "k=C:\\logs/x",
    "k=a%09b/x",
    "k=a?b/x",
    "k=a#b/x#1",
    "k=a b+c&d=e/x",
    "k=größe 日本/x",
    "k='\"`{}[]|<>^~*/x",
    "k=%/x",
    "k=%zz/x",
    "k=a./ /x",
    "k=.../x",
    "C|/x",
];

#[tokio::test]
async fn a_file_of_any_name_is_the_one_that_every_reader_opens() {
    let (_folder, disk) = open();
    for (storage, more) in [
        (disk, vec!["k=a\tb/x", "k=a\nb/x\r"]),
        (Storage::bucket_in_memory("s3://lake/wh"), vec!["k=a//b/x", "k=/x"]),
    ] {
        let (_, store) = storage.object_store();
        let names: Vec<&str> = ODD_NAMES.into_iter().chain(more).collect();
        let location = |name: &str| format!("{}/t/data/{name}", storage.root());
        for name in &names {
            storage.put(&location(name), Bytes::from(format!("<{name}>"))).await.unwrap();
        }
        let listed: HashSet<String> =
            storage.list(storage.root()).await.unwrap().into_iter().collect();
        assert_eq!(listed, names.iter().map(|name| location(name)).collect());
        for name in &names {
            let wanted = format!("<{name}>");
            assert_eq!(storage.get(&location(name)).await.unwrap(), wanted);
            let path = storage.object_path(&location(name)).unwrap();
            let read = store.get(&path).await.unwrap().bytes().await.unwrap();
            assert_eq!(read, wanted);
            let parts = store.get_ranges(&path, &[0..1, 1..2]).await.unwrap();
            assert_eq!(parts.concat(), wanted.as_bytes()[..2]);
            assert_eq!(store.head(&path).await.unwrap().size, wanted.len() as u64);
            storage.delete(&location(name)).await.unwrap();
        }
        assert_eq!(storage.list(storage.root()).await.unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_missing_bucket_is_an_outage_and_a_missing_or_refused_object_is_none() {
    let storage = Storage::bucket_in_memory("s3://lake/tables");
    let status = |text: &str, code: &str| {
        let body = format!("<Error><Code>{code}</Code></Error>");
        format!("Server returned non-2xx status code: {text}: {body}").into()
    };
    let path = || "tables/a".to_owned();
    let missing = |source| object_store::Error::NotFound { path: path(), source };
    let denied = |source| object_store::Error::PermissionDenied { path: path(), source };
    let check = |cause: object_store::Error, expected: Option<&str>| {
        let failed = storage.failed("read", "s3://lake/tables/a")(cause);
        assert_eq!(is_missing(&failed), expected.is_none());
        assert_eq!(failed.is_temporary(), expected.is_some());
        assert_eq!(storage.outage().as_deref(), expected);
        storage.note_outage(None);
    };
    check(missing(status("404 Not Found", "NoSuchKey")), None);
    check(
        missing(status("404 Not Found", "NoSuchBucket")),
        Some("the warehouse `s3://lake/tables` is not there: 404 Not Found NoSuchBucket"),
    );
    // It may be that object alone, and some stores say so of a missing one: the probe finds out.
    assert!(!storage.take_suspicion());
    let refused = || storage.failed("read", "s3://lake/tables/a")(denied("403 Forbidden".into()));
    assert!(matches!(refused(), CatalogError::Storage { .. }));
    assert_eq!((storage.outage(), storage.take_suspicion()), (None, true));
    assert!(!storage.take_suspicion());
    // Once it is an outage, that is why.
    storage.note_outage(Some("the keys are revoked".to_owned()));
    assert!(matches!(refused(), CatalogError::WarehouseOutage(_)));
}

#[tokio::test]
async fn a_store_that_says_anything_answers() {
    let storage = Storage::bucket_in_memory("s3://lake/tables");
    assert!(storage.answers("none").await);
    let nobody = S3Options {
        endpoint: Some("http://127.0.0.1:9".to_owned()),
        access_key_id: Some("k".to_owned()),
        secret_access_key: Some("s".to_owned()),
        ..S3Options::default()
    };
    assert!(!Storage::open("s3://lake/tables", &nobody).unwrap().answers("none").await);
}

/// A store that refuses every request, at this address.
async fn refusing_store() -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    crate::background::run("a store that refuses", async move {
        while let Ok((mut client, _)) = listener.accept().await {
            // What was sent of the request is of no interest, and neither is who left.
            let _ = client.read(&mut [0; 4096]).await;
            let answer = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = client.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn the_reason_of_an_outage_stays_as_it_is_while_the_probe_goes_on() {
    let options = S3Options {
        endpoint: Some(refusing_store().await),
        access_key_id: Some("k".to_owned()),
        secret_access_key: Some("s".to_owned()),
        ..S3Options::default()
    };
    let storage = Storage::open("s3://lake/tables", &options).unwrap();
    let first = storage.probe("probe").await.unwrap_err().reason;
    for _ in 0..2 {
        storage.note_outage(Some(first.clone()));
        assert_eq!(storage.probe("probe").await.unwrap_err().reason, first);
    }
}
