//! Every way in which a client can name a place, with every kind of place that is not its own: each
//! is refused, and nothing there is opened.

use super::*;

/// Locations that are no place in the warehouse, whoever asks.
fn outside(house: &House, own: &str) -> Vec<String> {
    let (root, path) = (house.root(), own.strip_prefix("file://").unwrap());
    [
        "",
        "a",
        "/etc/passwd",
        "file:///etc/passwd",
        "file:/etc/passwd",
        "file:///",
        "s3://bucket/a",
        "s3a://bucket/a",
        "s3n://bucket/a",
        "http://127.0.0.1/a",
        "hdfs://a/b",
    ]
    .into_iter()
    .map(str::to_owned)
    .chain([
        root.to_owned(),
        format!("{root}/"),
        format!("{root}x/a"),
        format!("{}/a", root.to_uppercase().replacen("FILE", "file", 1)),
        path.to_owned(),
        format!("FILE://{path}/a"),
        format!("file://localhost{path}/a"),
        format!("file://user:word@host{path}/a"),
        format!("file://host:80{path}/a"),
        format!("file:///{path}/a"),
        format!("{own}/../a"),
        format!("{own}/../../../../etc/passwd"),
        format!("{own}/./a"),
        format!("{own}/%2e%2e/a"),
        format!("{own}/%2E./a"),
        format!("{own}%2f..%2fa"),
        format!("{own}/a\0"),
        format!("{own}/{}", "a".repeat(5000)),
    ])
    .collect()
}

/// Names that values of partitions become: files may have them, and folders of tables not.
fn odd(folder: &str) -> Vec<String> {
    [
        ".../a",
        ".. /a",
        " /a",
        "%252e%252e/a",
        "%%32e%%32e/a",
        "a%2F..%2F..%2Fa",
        "a%2F%2Fb",
        "a%5c..%5ca",
        "..\\a",
        "a%00",
        "a\n",
        "a?versionId=1",
        "a#b",
    ]
    .into_iter()
    .map(|name| format!("{folder}/{name}"))
    .collect()
}

/// Those that are outside, and places in the warehouse that are not in the table.
fn not_in(house: &House, own: &str, victim: &str) -> Vec<String> {
    let root = house.root();
    let more = [
        own.to_owned(),
        format!("{own}/"),
        format!("{own}x/a"),
        format!("{own} /a"),
        format!("{root}/a/x"),
        format!("{root}/a"),
        victim.to_owned(),
        format!("{victim}/data/a.parquet"),
        own.replace("/a/", "/A/"),
        own.replace("/a/", "/\u{430}/") + "/a",
        format!("{own}\u{2215}a"),
    ];
    outside(house, own).into_iter().chain(more).collect()
}

/// A catalog over the same stores that opens what it is told to commit.
pub(super) fn strict(house: &House) -> Catalog {
    let inner = &house.catalog.inner;
    let (storage, metastore) = (inner.storage.clone(), inner.metastore.clone());
    Catalog::new("strict", storage, metastore, Arc::clone(&inner.now))
}

#[track_caller]
fn refused<T>(outcome: Result<T, CatalogError>, way: &str, place: &str) {
    match outcome {
        Err(CatalogError::LocationForbidden(_) | CatalogError::Invalid(_)) => (),
        Err(cause) => panic!("{way} with `{place}`: {cause:?}"),
        Ok(_) => panic!("{way} with `{place}` was let through"),
    }
}

fn set_location(place: &str) -> Value {
    json!([{"action": "set-location", "location": place}])
}

fn statistics(action: &str, member: &str, place: &str) -> Value {
    json!([{"action": action, "snapshot-id": 1, member: {"snapshot-id": 1, "statistics-path": place,
        "file-size-in-bytes": 1, "file-footer-size-in-bytes": 1, "blob-metadata": []}}])
}

#[tokio::test]
async fn a_table_is_made_in_no_hostile_place() {
    let house = house().await;
    let catalog = strict(&house);
    let taken = create(&catalog, "a.taken").await;
    create(&catalog, "a.mover").await;
    let own = taken.metadata.location();
    let levels = suite::levels("a");
    let calls = catalog.storage().calls();
    // A place that overlaps a table's is as bad as one outside.
    let overlapping = [own.to_owned(), format!("{own}/x/y"), format!("{}/a", house.root())];
    let dotted = ["x.", "x ", " x", "x/y./z"].map(|name| format!("{}/{name}", house.root()));
    let odd = odd(house.root()).into_iter().chain(dotted);
    for place in outside(&house, own).into_iter().chain(overlapping).chain(odd) {
        let table = CreateTable { location: Some(place.clone()), ..new_table("x") };
        refused(catalog.tables().create(&levels, table.clone()).await, "create", &place);
        refused(catalog.tables().stage(&levels, table).await, "stage", &place);
        let moved = change("a.mover", json!([]), set_location(&place));
        refused(catalog.commit(moved).await, "set-location", &place);
        let built = json!([
            {"action": "assign-uuid", "uuid": Uuid::new_v4()},
            {"action": "upgrade-format-version", "format-version": 2},
            {"action": "add-schema", "schema": new_table("x").schema},
            {"action": "set-current-schema", "schema-id": -1},
            {"action": "add-spec", "spec": {"spec-id": 0, "fields": []}},
            {"action": "set-default-spec", "spec-id": -1},
            {"action": "add-sort-order", "sort-order": {"order-id": 0, "fields": []}},
            {"action": "set-default-sort-order", "sort-order-id": -1},
            {"action": "set-location", "location": place},
        ]);
        let sent = change("a.x", json!([{"type": "assert-create"}]), built);
        refused(catalog.commit(sent.clone()).await, "assert-create", &place);
        refused(catalog.commit_all(vec![sent]).await, "transaction", &place);
    }
    assert_eq!(catalog.storage().calls(), calls);
}

#[tokio::test]
async fn a_commit_names_no_place_outside_of_its_table() {
    let house = house().await;
    let catalog = strict(&house);
    let made = create(&catalog, "a.t").await;
    let victim = create(&catalog, "a.victim").await;
    let own = made.metadata.location();
    let calls = catalog.storage().calls();
    let places = not_in(&house, own, victim.metadata.location());
    assert!(places.len() > 35);
    for place in &places {
        let property = |key: &str| json!([{"action": "set-properties", "updates": {key: place}}]);
        let ways = [
            ("manifest list", add_snapshot(&made, 1, place)),
            ("statistics", statistics("set-statistics", "statistics", place)),
            (
                "partition statistics",
                json!([{"action": "set-partition-statistics", "partition-statistics": {
                    "snapshot-id": 1, "statistics-path": place, "file-size-in-bytes": 1}}]),
            ),
            ("data path", property("write.data.path")),
            ("metadata path", property("write.metadata.path")),
            ("object path", property("write.object-storage.path")),
        ];
        for (way, updates) in ways {
            let sent = change("a.t", json!([]), updates);
            refused(catalog.commit(sent.clone()).await, way, place);
            refused(catalog.commit_all(vec![sent]).await, way, place);
        }
        let properties = HashMap::from([("write.data.path".to_owned(), place.clone())]);
        let table = CreateTable { properties, ..new_table("x") };
        refused(catalog.tables().create(&suite::levels("a"), table).await, "created path", place);
    }
    assert_eq!(catalog.storage().calls(), calls);
    catalog.tables().rename(&ident("a.t"), &ident("a.renamed")).await.unwrap();
    assert_eq!(catalog.storage().calls(), calls, "a name is no place");
}

/// What a manifest list of a client holds.
#[derive(Clone, Copy, Debug)]
enum Names {
    Manifest,
    Data,
    Deletes,
}

/// A manifest list that names `place` in one of these ways, and all else properly.
async fn list_with(
    catalog: &Catalog,
    table: &LoadedTable,
    id: i64,
    names: Names,
    place: &str,
) -> String {
    let io = catalog.storage().file_io();
    let metadata = &table.metadata;
    let manifest = ManifestWriterBuilder::new(
        io.new_output(format!("{}/metadata/m{id}.avro", metadata.location())).unwrap(),
        Some(id),
        Arc::clone(metadata.current_schema()),
        metadata.default_partition_spec().as_ref().clone(),
    );
    let (mut manifest, content) = match names {
        Names::Deletes => (manifest.build_v2_deletes(), DataContentType::PositionDeletes),
        Names::Manifest | Names::Data => (manifest.build_v2_data(), DataContentType::Data),
    };
    let proper = format!("{}/data/proper.parquet", metadata.location());
    let hostile = if matches!(names, Names::Manifest) { &proper } else { place };
    for file in [proper.as_str(), hostile] {
        let mut built = DataFileBuilder::default();
        built
            .content(content)
            .file_path(file.to_owned())
            .file_format(DataFileFormat::Parquet)
            .record_count(1)
            .file_size_in_bytes(1)
            .partition(Struct::empty())
            .partition_spec_id(0);
        manifest.add_file(built.build().unwrap(), 1).unwrap();
    }
    let mut manifest = manifest.write_manifest_file().await.unwrap();
    if matches!(names, Names::Manifest) {
        place.clone_into(&mut manifest.manifest_path);
    }
    let location = own_list(table, id);
    let writer = io.new_output(&location).unwrap().writer().await.unwrap();
    let mut list = ManifestListWriter::v2(writer, id, None, 1);
    list.add_manifests(std::iter::once(manifest)).unwrap();
    list.close().await.unwrap();
    location
}

#[tokio::test]
async fn no_manifest_leads_out_of_its_table() {
    let house = house().await;
    let catalog = strict(&house);
    let made = create(&catalog, "a.t").await;
    let victim = create(&catalog, "a.victim").await;
    let places = not_in(&house, made.metadata.location(), victim.metadata.location());
    let mut id = 0;
    for place in &places {
        for (names, reads) in [(Names::Manifest, 1), (Names::Data, 2), (Names::Deletes, 2)] {
            id += 1;
            let list = list_with(&catalog, &made, id, names, place).await;
            let calls = catalog.storage().calls();
            let sent = change("a.t", on_main(None), add_snapshot(&made, id, &list));
            refused(catalog.commit(sent).await, &format!("{names:?}"), place);
            // The client's own list and manifest, and never the place.
            assert_eq!(catalog.storage().calls() - calls, reads, "{names:?} {place}");
        }
    }
    assert_eq!(catalog.tables().load(&ident("a.t")).await.unwrap().version, 1);
}

#[tokio::test]
async fn a_manifest_names_files_of_any_name_in_its_table() {
    let house = house().await;
    let catalog = strict(&house);
    let mut made = create(&catalog, "a.t").await;
    let own = made.metadata.location().to_owned();
    for (id, place) in (1..).zip(odd(&format!("{own}/data"))) {
        let list = list_with(&catalog, &made, id, Names::Data, &place).await;
        // On no branch, since it leaves out what the one before it had.
        let sent = change("a.t", on_main(None), json!([add_snapshot(&made, id, &list)[0]]));
        made = catalog.commit(sent).await.unwrap_or_else(|cause| panic!("{place}: {cause:?}"));
    }
}

#[tokio::test]
async fn a_registered_table_names_no_place_outside_of_it() {
    let house = house().await;
    let catalog = strict(&house);
    let made = create(&catalog, "a.t").await;
    let victim = create(&catalog, "a.victim").await;
    let own = made.metadata.location().to_owned();
    let list = list_with(&catalog, &made, 1, Names::Data, &format!("{own}/data/a")).await;
    let made =
        catalog.commit(change("a.t", on_main(None), add_snapshot(&made, 1, &list))).await.unwrap();
    catalog.tables().drop(&ident("a.t"), false).await.unwrap();
    let metadata = serde_json::to_value(&*made.metadata).unwrap();
    let levels = suite::levels("a");
    let forged = |n: usize| format!("{own}/metadata/{n}.metadata.json");
    for (n, place) in not_in(&house, &own, victim.metadata.location()).iter().enumerate() {
        let calls = catalog.storage().calls();
        refused(
            catalog.tables().register(&levels, "x", place, &suite::anywhere).await,
            "register",
            place,
        );
        // Whether a file is there, and no more, for a place in the warehouse.
        assert!(catalog.storage().calls() - calls <= 1, "{place}");
        for pointer in ["/location", "/snapshots/0/manifest-list", "/metadata-log/0/metadata-file"]
        {
            let mut json = metadata.clone();
            *json.pointer_mut(pointer).unwrap() = json!(place);
            if pointer == "/location" && place.trim_end_matches('/') == own {
                continue;
            }
            let bytes = serde_json::to_vec(&json).unwrap();
            catalog.storage().put(&forged(n), bytes.into()).await.unwrap();
            catalog.inner.cache.remove(&forged(n));
            let calls = catalog.storage().calls();
            refused(
                catalog.tables().register(&levels, "x", &forged(n), &suite::anywhere).await,
                pointer,
                place,
            );
            assert!(catalog.storage().calls() - calls <= 3, "{pointer} {place}");
        }
    }
    let list = list_with(&catalog, &made, 1, Names::Data, "file:///etc/passwd").await;
    assert_eq!(list, own_list(&made, 1));
    let fresh = strict(&house);
    let refusal =
        fresh.tables().register(&levels, "x", &made.metadata_location, &suite::anywhere).await;
    refused(refusal, "a manifest", "file:///etc/passwd");
    list_with(&catalog, &made, 1, Names::Data, &format!("{own}/data/a")).await;
    fresh.tables().register(&levels, "x", &made.metadata_location, &suite::anywhere).await.unwrap();
}

#[tokio::test]
async fn nothing_outside_of_a_table_is_purged_whatever_it_names() {
    let house = house().await;
    // This one believes what it commits.
    let catalog = &house.catalog;
    let victim = create(catalog, "a.victim").await;
    let precious = format!("{}/data/precious.parquet", victim.metadata.location());
    catalog.storage().put(&precious, Bytes::from_static(b"x")).await.unwrap();
    let made = create(catalog, "a.t").await;
    let places = not_in(&house, made.metadata.location(), victim.metadata.location());
    let own = made.metadata.location().to_owned();
    let mut last = made;
    let mut id = 0;
    for place in places.iter().chain([&precious]) {
        for names in [Names::Manifest, Names::Data, Names::Deletes] {
            id += 1;
            let list = list_with(catalog, &last, id, names, place).await;
            let sent = change("a.t", json!([]), add_snapshot(&last, id, &list));
            last = catalog.commit(sent).await.unwrap();
        }
    }
    catalog.tables().drop(&ident("a.t"), true).await.unwrap();
    house.clock.fetch_add(i64::from(u32::MAX), Ordering::SeqCst);
    let outside = outside(&house, victim.metadata.location());
    let queued = |location: &String| ObsoleteFile { location: location.clone(), not_before_ms: 0 };
    let queued: Vec<ObsoleteFile> = outside.iter().map(queued).collect();
    catalog.metastore().add_obsolete(&queued).await.unwrap();
    while catalog.upkeep().delete_obsolete(1000).await.unwrap() > 0 {}
    let mut left = vec![victim.metadata_location, precious];
    left.sort();
    // The table's own log is shorter than its history, so some of its own files stay.
    let mut files = house.files().await;
    files.retain(|file| !file.starts_with(&own));
    assert_eq!(files, left);
    assert_eq!(catalog.metastore().obsolete(i64::MAX, 10).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn honest_commits_of_others_pass_and_known_manifests_are_read_once() {
    let house = house().await;
    let catalog = strict(&house);
    let made = create(&catalog, "a.t").await;
    let own = made.metadata.location().to_owned();
    let spelled = own.replacen("file:///", "file:/", 1);
    let list =
        list_with(&catalog, &made, 1, Names::Data, &format!("{spelled}/data/type=a.%2Fb/a")).await;
    let sent = change("a.t", on_main(None), add_snapshot(&made, 1, &list));
    let made = catalog.commit(sent.clone()).await.unwrap();
    assert_eq!(catalog.commit(sent).await.unwrap().version, made.version, "sent again");

    // The next list has the same manifest: the parent vouches for it, even to a new process.
    let bytes = catalog.storage().get(&list).await.unwrap();
    let second = own_list(&made, 2);
    catalog.storage().put(&second, bytes).await.unwrap();
    catalog.storage().delete(&format!("{own}/metadata/m1.avro")).await.unwrap();
    let sent = change("a.t", on_main(Some(1)), add_snapshot(&made, 2, &second));
    strict(&house).commit(sent).await.unwrap();

    let made = catalog.tables().load(&ident("a.t")).await.unwrap();
    let missing = change("a.t", json!([]), add_snapshot(&made, 3, &own_list(&made, 3)));
    let refusal = catalog.commit(missing).await.unwrap_err();
    assert!(refusal.to_string().contains("write a snapshot's files before"), "{refusal}");
    let broken = own_list(&made, 4);
    catalog.storage().put(&broken, Bytes::from_static(b"no avro")).await.unwrap();
    let refusal = catalog.commit(change("a.t", json!([]), add_snapshot(&made, 4, &broken))).await;
    assert!(matches!(refusal, Err(CatalogError::Invalid(_))));
}

#[tokio::test]
async fn a_table_with_files_stays_where_it_is() {
    let house = house().await;
    let catalog = &house.catalog;
    let made = create(catalog, "a.t").await;
    let place = |name: &str| set_location(&format!("{}/elsewhere/{name}", house.root()));
    let left = made.metadata.location().to_owned();
    let made = catalog.commit(change("a.t", json!([]), place("one"))).await.unwrap();
    let sent = change("a.t", on_main(None), add_snapshot(&made, 1, &own_list(&made, 1)));
    catalog.commit(sent).await.unwrap();
    let move_on = change("a.t", json!([]), place("two"));
    let refusal = strict(&house).commit(move_on).await.unwrap_err();
    assert!(refusal.to_string().contains("cannot move"), "{refusal}");
    // The place that an empty table left is free, the one it went to is taken.
    let there = CreateTable { location: Some(left), ..new_table("there") };
    catalog.tables().create(&suite::levels("a"), there).await.unwrap();
    let at = |name: &str| Some(format!("{}/elsewhere/{name}", house.root()));
    let levels = suite::levels("a");
    let inside = CreateTable { location: at("one/in"), ..new_table("u") };
    refused(catalog.tables().create(&levels, inside).await, "create", "inside");
    let around =
        CreateTable { location: Some(format!("{}/elsewhere", house.root())), ..new_table("u") };
    refused(catalog.tables().create(&levels, around).await, "create", "around");
}

#[tokio::test]
async fn a_table_around_a_namespaces_folder_keeps_nobody_from_making_tables() {
    let house = house().await;
    let catalog = &house.catalog;
    let around =
        CreateTable { location: Some(format!("{}/a", house.root())), ..new_table("around") };
    catalog.tables().create(&suite::levels("a"), around).await.unwrap();
    let made = create(catalog, "a.t").await;
    let uuid = made.metadata.uuid();
    assert_eq!(made.metadata.location(), format!("{}/{uuid}", house.root()));
}
