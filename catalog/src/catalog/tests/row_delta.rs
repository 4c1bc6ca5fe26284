//! Deletes of rows that clients commit beside others.

use super::{places::strict, *};
use iceberg::spec::{DataFile, FormatVersion, ManifestContentType, ManifestFile, ManifestList};

/// What one commit of a client adds and leaves out.
#[derive(Clone, Default)]
struct Delta<'a> {
    data: &'a [&'a str],
    /// Delete files, each with the data file that it says it is about.
    deletes: &'a [(&'a str, Option<&'a str>)],
    equality: &'a [&'a str],
    /// Whether the parent's manifests of data are merged into one.
    merges: bool,
    /// Data files that are taken out.
    without: &'a [&'a str],
}

fn file(table: &LoadedTable, content: DataContentType, name: &str) -> DataFile {
    let mut file = DataFileBuilder::default();
    file.content(content)
        .file_path(format!("{}/data/{name}", table.metadata.location()))
        .file_format(DataFileFormat::Parquet)
        .record_count(1)
        .file_size_in_bytes(10)
        .partition(Struct::empty())
        .partition_spec_id(0);
    if content == DataContentType::EqualityDeletes {
        file.equality_ids(Some(vec![1]));
    }
    file.build().unwrap()
}

/// A position delete file that names its data file by the bounds of its column, as DuckDB does.
pub(super) fn delete(table: &LoadedTable, (name, about): (&str, Option<&str>)) -> DataFile {
    let mut file = file(table, DataContentType::PositionDeletes, name);
    if let Some(about) = about {
        let about = format!("{}/data/{about}", table.metadata.location());
        let bounds = HashMap::from([(2_147_483_646, iceberg::spec::Datum::string(about))]);
        file = DataFileBuilder::default()
            .content(DataContentType::PositionDeletes)
            .file_path(file.file_path().to_owned())
            .file_format(DataFileFormat::Parquet)
            .record_count(1)
            .file_size_in_bytes(10)
            .partition(Struct::empty())
            .partition_spec_id(0)
            .lower_bounds(bounds.clone())
            .upper_bounds(bounds)
            .build()
            .unwrap();
    }
    file
}

pub(super) async fn listed(catalog: &Catalog, table: &LoadedTable) -> Vec<ManifestFile> {
    let Some(snapshot) = table.metadata.current_snapshot() else { return Vec::new() };
    let bytes = catalog.storage().get(snapshot.manifest_list()).await.unwrap();
    let list = ManifestList::parse_with_version(&bytes, FormatVersion::V2).unwrap();
    list.consume_entries().into_iter().collect()
}

pub(super) async fn manifest(
    (catalog, table): (&Catalog, &LoadedTable),
    id: i64,
    name: &str,
    added: &[DataFile],
    kept: &[iceberg::spec::ManifestEntryRef],
) -> ManifestFile {
    let location = format!("{}/metadata/m{id}-{name}.avro", table.metadata.location());
    let output = catalog.storage().file_io().new_output(location).unwrap();
    let schema = Arc::clone(table.metadata.current_schema());
    let spec = table.metadata.default_partition_spec().as_ref().clone();
    let writer = ManifestWriterBuilder::new(output, Some(id), schema, spec);
    let is_data = name.starts_with("data");
    let mut writer = if is_data { writer.build_v2_data() } else { writer.build_v2_deletes() };
    for file in added {
        writer.add_file(file.clone(), -1).unwrap();
    }
    for entry in kept {
        let (snapshot, sequence) = (entry.snapshot_id().unwrap(), entry.sequence_number().unwrap());
        let file = entry.data_file().clone();
        writer.add_existing_file(file, snapshot, sequence, Some(sequence)).unwrap();
    }
    writer.write_manifest_file().await.unwrap()
}

/// What a client sends that has loaded `table`.
async fn client_delta(
    catalog: &Catalog,
    table: &LoadedTable,
    id: i64,
    operation: &str,
    delta: Delta<'_>,
) -> TableChange {
    let at = (catalog, table);
    let mut list = listed(catalog, table).await;
    if delta.merges || !delta.without.is_empty() {
        let (data, others): (Vec<_>, Vec<_>) =
            list.into_iter().partition(|manifest| manifest.content == ManifestContentType::Data);
        let mut kept = Vec::new();
        for manifest in data {
            let loaded = manifest.load_manifest(&catalog.storage().file_io()).await.unwrap();
            let (entries, _) = loaded.into_parts();
            kept.extend(entries.into_iter().filter(|entry| {
                !delta.without.iter().any(|name| entry.file_path().ends_with(&format!("/{name}")))
            }));
        }
        list = others;
        list.push(manifest(at, id, "data-merged", &[], &kept).await);
    }
    let data: Vec<_> =
        delta.data.iter().map(|name| file(table, DataContentType::Data, name)).collect();
    if !data.is_empty() {
        list.push(manifest(at, id, "data", &data, &[]).await);
    }
    let mut deletes: Vec<_> = delta.deletes.iter().map(|of| delete(table, *of)).collect();
    let equality = delta.equality.iter();
    deletes.extend(equality.map(|name| file(table, DataContentType::EqualityDeletes, name)));
    if !deletes.is_empty() {
        list.push(manifest(at, id, "deletes", &deletes, &[]).await);
    }
    let location = own_list(table, id);
    let writer = catalog.storage().file_io().new_output(&location).unwrap().writer().await.unwrap();
    let metadata = &table.metadata;
    let (parent, sequence) = (metadata.current_snapshot_id(), metadata.next_sequence_number());
    let mut written = ManifestListWriter::v2(writer, id, parent, sequence);
    written.add_manifests(list.into_iter()).unwrap();
    written.close().await.unwrap();
    let mut summary = json!({"operation": operation});
    for (key, count) in [
        ("added-data-files", data.len()),
        ("added-records", data.len()),
        ("added-delete-files", deletes.len()),
        ("added-position-deletes", delta.deletes.len()),
    ] {
        if 0 < count {
            summary[key] = json!(count.to_string());
        }
    }
    if parent.is_none() {
        for (key, count) in [
            ("total-data-files", data.len()),
            ("total-records", data.len()),
            ("total-delete-files", 0),
            ("total-position-deletes", 0),
        ] {
            summary[key] = json!(count.to_string());
        }
    }
    let updates = json!([
        {"action": "add-snapshot", "snapshot": {"snapshot-id": id, "parent-snapshot-id": parent,
            "sequence-number": sequence, "timestamp-ms": metadata.last_updated_ms() + 1,
            "manifest-list": location, "schema-id": 0, "summary": summary}},
        {"action": "set-snapshot-ref", "ref-name": "main", "type": "branch", "snapshot-id": id},
    ]);
    change("a.t", on_main(parent), updates)
}

/// The live files of the newest snapshot: name and the number that a reader gives them.
pub(super) async fn files(catalog: &Catalog) -> Vec<(String, i64)> {
    let table = catalog.tables().load(&ident("a.t")).await.unwrap();
    let mut found = Vec::new();
    for manifest in listed(catalog, &table).await {
        let loaded = manifest.load_manifest(&catalog.storage().file_io()).await.unwrap();
        for entry in loaded.entries().iter().filter(|entry| entry.is_alive()) {
            let name = entry.file_path().rsplit('/').next().unwrap().to_owned();
            found.push((name, entry.sequence_number().unwrap()));
        }
    }
    found.sort();
    found
}

const FILES: Delta<'static> =
    Delta { data: &["f1", "f2"], deletes: &[], equality: &[], merges: false, without: &[] };

fn deletes<'a>(deletes: &'a [(&'a str, Option<&'a str>)]) -> Delta<'a> {
    Delta { deletes, ..Delta::default() }
}

/// A table with the data files `f1` and `f2`.
async fn two_files(house: &House) -> LoadedTable {
    let made = create(&house.catalog, "a.t").await;
    let first = client_delta(&house.catalog, &made, 1, "append", FILES).await;
    house.catalog.commit(first).await.unwrap()
}

#[tokio::test]
async fn deletes_of_files_that_nobody_else_touched_are_put_on_top() {
    let house = house().await;
    let catalog = &house.catalog;
    let base = two_files(&house).await;
    let one = client_delta(catalog, &base, 2, "delete", deletes(&[("d1", Some("f1"))])).await;
    let both = Delta { data: &["f3"], ..deletes(&[("d2", Some("f2"))]) };
    let update = client_delta(catalog, &base, 3, "overwrite", both).await;
    for position in 1..=3 {
        let append = NewSnapshot {
            added: vec![file(&base, DataContentType::Data, &format!("own{position}"))],
            mark: Some(MarkMove {
                watermark: Watermark { epoch: 1, position, last_seq: position },
                since: 0,
            }),
            ..NewSnapshot::default()
        };
        catalog.add_snapshot(&ident("a.t"), append).await.unwrap();
    }
    // Another process has the table as it was.
    house.other.commit(one.clone()).await.unwrap();
    let now = catalog.commit(update.clone()).await.unwrap();
    let expected = [
        ("d1", 5),
        ("d2", 6),
        ("f1", 1),
        ("f2", 1),
        ("f3", 6),
        ("own1", 2),
        ("own2", 3),
        ("own3", 4),
    ];
    let expected = expected.map(|(name, number)| (name.to_owned(), number));
    assert_eq!(files(catalog).await, expected);
    let summary = &now.metadata.current_snapshot().unwrap().summary();
    assert_eq!(summary.operation.as_str(), "overwrite");
    let totals = ["total-data-files", "total-delete-files", "total-position-deletes"];
    assert_eq!(totals.map(|key| summary.additional_properties[key].as_str()), ["6", "2", "2"]);
    // A client that lost its answer sends the same again.
    for again in [one, update] {
        assert_eq!(catalog.commit(again).await.unwrap().version, now.version);
    }
}

#[tokio::test]
async fn a_file_whose_manifest_was_rewritten_is_still_there() {
    let house = house().await;
    let base = two_files(&house).await;
    let late =
        client_delta(&house.catalog, &base, 2, "delete", deletes(&[("d1", Some("f1"))])).await;
    let merge = Delta { merges: true, ..Delta::default() };
    let merge = client_delta(&house.catalog, &base, 3, "replace", merge).await;
    house.catalog.commit(merge).await.unwrap();
    house.catalog.commit(late).await.unwrap();
    let names: Vec<String> =
        files(&house.catalog).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["d1", "f1", "f2"]);
}

#[tokio::test]
async fn delete_files_keep_their_numbers_when_their_manifests_are_merged() {
    let house = house().await;
    let catalog = &house.catalog;
    let mut table = two_files(&house).await;
    let mut expected = vec![("f1".to_owned(), 1), ("f2".to_owned(), 1)];
    for number in 2..52 {
        let name = format!("e{number:02}");
        let delta = Delta { equality: &[name.as_str()], ..Delta::default() };
        let change = client_delta(catalog, &table, number, "delete", delta).await;
        table = catalog.commit(change).await.unwrap();
        expected.push((name, number));
    }
    let late = Delta { data: &["late"], ..Delta::default() };
    let late = client_delta(catalog, &table, 99, "append", late).await;
    let append = NewSnapshot {
        added: vec![file(&table, DataContentType::Data, "own")],
        mark: Some(MarkMove {
            watermark: Watermark { epoch: 1, position: 1, last_seq: 1 },
            since: 0,
        }),
        ..NewSnapshot::default()
    };
    let merged = catalog.add_snapshot(&ident("a.t"), append).await.unwrap();
    assert_eq!(listed(catalog, &merged).await.len(), 3, "one has all delete files");
    let now = catalog.commit(late).await.unwrap();
    assert_eq!(listed(catalog, &now).await.len(), 4);
    expected.extend([("own".to_owned(), 52), ("late".to_owned(), 53)]);
    expected.sort();
    assert_eq!(files(catalog).await, expected);
}

/// ClickHouse and some libraries leave out of a manifest what they remove.
#[tokio::test]
async fn files_that_no_manifest_says_are_removed_are_to_be_counted() {
    for (operation, counted, is_made) in [
        ("delete", Some("1"), true),
        ("overwrite", Some("1"), true),
        ("overwrite", Some("2"), false),
        ("overwrite", None, false),
        ("append", Some("1"), false),
        ("replace", Some("1"), false),
    ] {
        let house = house().await;
        let base = two_files(&house).await;
        let catalog = strict(&house);
        let without = Delta { without: &["f1"], ..Delta::default() };
        let change = client_delta(&catalog, &base, 2, operation, without).await;
        let mut updates = serde_json::to_value(&change.updates).unwrap();
        if let Some(counted) = counted {
            updates[0]["snapshot"]["summary"]["deleted-data-files"] = json!(counted);
        }
        let change = TableChange { updates: serde_json::from_value(updates).unwrap(), ..change };
        let told = catalog.commit(change).await;
        assert_eq!(told.is_ok(), is_made, "{operation} {counted:?}: {told:?}");
    }
}

/// A delete of rows of `f1` that comes after `between` is refused, and says why.
async fn check_conflict(between: (&str, Delta<'_>), late: (&str, Delta<'_>), why: &str) {
    let house = house().await;
    let base = two_files(&house).await;
    let late = client_delta(&house.catalog, &base, 2, late.0, late.1).await;
    let first = client_delta(&house.catalog, &base, 3, between.0, between.1).await;
    house.catalog.commit(first).await.unwrap();
    let before = (house.files().await, files(&house.catalog).await);
    let lost = house.catalog.commit(late).await;
    let Err(CatalogError::CommitFailed(text)) = &lost else { panic!("{lost:?}") };
    assert!(text.contains(why), "{text}");
    assert_eq!((house.files().await, files(&house.catalog).await), before);
}

#[tokio::test]
async fn deletes_of_what_others_changed_are_refused_with_the_files_name() {
    let late = ("delete", deletes(&[("d1", Some("f2")), ("d2", Some("f1"))]));
    let other = ("delete", deletes(&[("d9", Some("f1"))]));
    check_conflict(other, late.clone(), "/data/f1").await;
    let removed = Delta { without: &["f1"], data: &["f1-new"], ..Delta::default() };
    check_conflict(("overwrite", removed.clone()), late.clone(), "/data/f1").await;
    check_conflict(("replace", removed), late.clone(), "/data/f1").await;
    let unknown = ("delete", deletes(&[("d9", None)]));
    check_conflict(unknown.clone(), late.clone(), "/data/d9").await;
    let equality = Delta { equality: &["e9"], ..Delta::default() };
    check_conflict(("delete", equality.clone()), late, "/data/e9").await;
    let append = ("append", Delta { data: &["f3"], ..Delta::default() });
    check_conflict(append.clone(), unknown, "/data/d9").await;
    check_conflict(append.clone(), ("delete", equality), "/data/e9").await;
    // What replaces rows that it looked for has to look again.
    let replaces = ("overwrite", Delta { data: &["f4"], ..Delta::default() });
    check_conflict(append.clone(), replaces, "branch main has changed").await;
    let removes = ("delete", Delta { without: &["f1"], ..Delta::default() });
    check_conflict(append, removes, "branch main has changed").await;
}

#[tokio::test]
async fn deletes_of_a_client_that_looks_for_conflicts_itself_are_its_own_to_repeat() {
    let house = house().await;
    let base = two_files(&house).await;
    let late =
        client_delta(&house.catalog, &base, 2, "delete", deletes(&[("d1", Some("f1"))])).await;
    let mut updates = serde_json::to_value(&late.updates).unwrap();
    updates[0]["snapshot"]["summary"]["iceberg-version"] = json!("Apache Iceberg 1.10.1");
    let late = TableChange { updates: serde_json::from_value(updates).unwrap(), ..late };
    let more = Delta { data: &["f3"], ..Delta::default() };
    let append = client_delta(&house.catalog, &base, 3, "append", more).await;
    house.catalog.commit(append).await.unwrap();
    let lost = house.catalog.commit(late).await;
    assert!(matches!(lost, Err(CatalogError::CommitFailed(_))), "{lost:?}");
}
