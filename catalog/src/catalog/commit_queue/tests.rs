use super::{BATCH_MAX, QUEUE_MAX};
use crate::{
    catalog::{
        Catalog, LoadedTable, TableChange,
        tests::{House, change, create, house, house_over, ident, on_main, own_list, set},
    },
    commit::{FIRST_SEQ, LAST_SEQ},
    error::CatalogError,
    metastore::{
        Metastore, RecordedAnswer, RequestKey, Watermark, faults::CommitFault, tests::database,
    },
    snapshot::{MarkMove, NewSnapshot},
};
use futures::future::join_all;
use iceberg::TableUpdate;
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, ManifestContentType, ManifestList,
    ManifestListWriter, ManifestStatus, ManifestWriterBuilder, Struct,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

fn data_file(table: &LoadedTable, name: &str) -> DataFile {
    DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path(format!("{}/data/{name}", table.metadata.location()))
        .file_format(DataFileFormat::Parquet)
        .record_count(1)
        .file_size_in_bytes(10)
        .partition(Struct::empty())
        .partition_spec_id(0)
        .build()
        .unwrap()
}

/// What a client does that appends `name` to the table it has loaded: it writes a manifest and a
/// list with those of the parent, and sends the snapshot.
async fn client_append(catalog: &Catalog, table: &LoadedTable, id: i64, name: &str) -> TableChange {
    let (io, metadata) = (catalog.storage().file_io(), &table.metadata);
    let output = io.new_output(format!("{}/metadata/m{id}.avro", metadata.location())).unwrap();
    let schema = Arc::clone(metadata.current_schema());
    let spec = metadata.default_partition_spec().as_ref().clone();
    let mut manifest = ManifestWriterBuilder::new(output, Some(id), schema, spec).build_v2_data();
    manifest.add_file(data_file(table, name), -1).unwrap();
    let mut listed = vec![manifest.write_manifest_file().await.unwrap()];
    let parent = metadata.current_snapshot();
    if let Some(parent) = parent {
        listed.extend(manifests(catalog, parent.manifest_list()).await);
    }
    let location = own_list(table, id);
    let writer = io.new_output(&location).unwrap().writer().await.unwrap();
    let parent = parent.map(|parent| parent.snapshot_id());
    let mut list = ManifestListWriter::v2(writer, id, parent, metadata.next_sequence_number());
    list.add_manifests(listed.into_iter()).unwrap();
    list.close().await.unwrap();
    let summary = json!({"operation": "append", "added-data-files": "1", "added-records": "1",
                         "added-files-size": "10", "engine-name": "test"});
    send(table, id, &location, &summary)
}

fn send(table: &LoadedTable, id: i64, list: &str, summary: &Value) -> TableChange {
    let metadata = &table.metadata;
    let mut summary = summary.clone();
    let parent = metadata.current_snapshot();
    let total = parent.map_or(0, |parent| {
        parent.summary().additional_properties["total-records"].parse::<i64>().unwrap()
    });
    for key in ["total-records", "total-data-files"] {
        summary[key] = json!((total + 1).to_string());
    }
    let updates = json!([
        {"action": "add-snapshot", "snapshot": {
            "snapshot-id": id,
            "parent-snapshot-id": metadata.current_snapshot_id(),
            "sequence-number": metadata.next_sequence_number(),
            "timestamp-ms": metadata.last_updated_ms() + 1,
            "manifest-list": list,
            "schema-id": 0,
            "summary": summary,
        }},
        {"action": "set-snapshot-ref", "ref-name": "main", "type": "branch", "snapshot-id": id},
    ]);
    change("a.t", on_main(metadata.current_snapshot_id()), updates)
}

async fn manifests(catalog: &Catalog, list: &str) -> Vec<iceberg::spec::ManifestFile> {
    let bytes = catalog.storage().get(list).await.unwrap();
    let list = ManifestList::parse_with_version(&bytes, iceberg::spec::FormatVersion::V2).unwrap();
    list.consume_entries().into_iter().collect()
}

/// The data files of the newest snapshot: name and the sequence number a reader gives it.
async fn rows(catalog: &Catalog) -> Vec<(String, i64)> {
    let table = catalog.tables().load(&ident("a.t")).await.unwrap();
    let list = table.metadata.current_snapshot().unwrap().manifest_list();
    let mut rows = Vec::new();
    for manifest in manifests(catalog, list).await {
        assert_eq!(manifest.content, ManifestContentType::Data);
        let loaded = manifest.load_manifest(&catalog.storage().file_io()).await.unwrap();
        for entry in loaded.entries() {
            assert_eq!(entry.status, ManifestStatus::Added);
            let name = entry.file_path().rsplit('/').next().unwrap().to_owned();
            rows.push((name, entry.sequence_number().unwrap()));
        }
    }
    rows.sort();
    rows
}

fn total(table: &LoadedTable) -> &str {
    &table.metadata.current_snapshot().unwrap().summary().additional_properties["total-records"]
}

#[tokio::test]
async fn of_an_append_only_what_is_new_is_read() {
    let House { catalog, .. } = &house().await;
    create(catalog, "a.t").await;
    for id in 1..=3 {
        let table = catalog.tables().load(&ident("a.t")).await.unwrap();
        let append = client_append(catalog, &table, id, &format!("f{id}")).await;
        let calls = catalog.storage().calls();
        catalog.commit(append).await.unwrap();
        let calls = catalog.storage().calls() - calls;
        assert_eq!(calls, 3, "its list and its manifest are read, a metadata file is written");
    }
}

/// Names of lists are the clients' own, and a commit that fails may be sent again with another list.
#[tokio::test]
async fn a_list_that_was_written_anew_is_read_anew() {
    let house = house().await;
    let (ours, other) = (&house.catalog, &house.other);
    let made = create(ours, "a.t").await;
    let first = client_append(ours, &made, 1, "f1").await;
    let first = ours.commit(first).await.unwrap();
    // The second list at first lacks what the first has.
    let sent = client_append(ours, &first, 2, "f2").await;
    client_append(ours, &made, 2, "f2").await;
    let mut failing = sent.clone();
    failing.updates.push(TableUpdate::AssignUuid { uuid: uuid::Uuid::nil() });
    ours.commit(failing).await.unwrap_err();
    client_append(ours, &first, 2, "f2").await;
    let second = other.commit(sent).await.unwrap();
    let third = client_append(ours, &second, 3, "f3").await;
    ours.commit(third).await.unwrap();
    let names: Vec<_> = rows(ours).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["f1", "f2", "f3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_that_append_to_a_hot_table_never_lose() {
    const CLIENTS: i64 = 10;
    const APPENDS: i64 = 8;
    let house = house().await;
    let made = create(&house.catalog, "a.t").await;
    let clients = (0..CLIENTS).map(|client| {
        // Half of them use another server process.
        let catalog = if client % 2 == 0 { &house.catalog } else { &house.other };
        async move {
            for n in 0..APPENDS {
                let table = catalog.tables().load(&ident("a.t")).await.unwrap();
                let id = 1 + client * APPENDS + n;
                let append = client_append(catalog, &table, id, &format!("f{id:03}")).await;
                let done = catalog.commit(append.clone()).await.unwrap();
                assert!(done.metadata.snapshot_by_id(id).is_some());
                let again = catalog.commit(append).await.unwrap();
                assert!(again.metadata.snapshot_by_id(id).is_some(), "a repeat is a success");
            }
        }
    });
    join_all(clients).await;
    let all = CLIENTS * APPENDS;
    let rows = rows(&house.catalog).await;
    let names: Vec<String> = rows.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, (1..=all).map(|id| format!("f{id:03}")).collect::<Vec<_>>());
    let numbers: BTreeSet<i64> = rows.iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, (1..=all).collect(), "each append has a number of its own");
    let table = house.catalog.tables().load(&ident("a.t")).await.unwrap();
    assert_eq!(total(&table), all.to_string());
    assert_eq!(table.metadata.snapshots().len() as i64, all);
    assert!(table.version < 1 + all, "version {} for {all} commits", table.version);
    let files = house.files().await;
    let metadata = files.iter().filter(|file| file.ends_with(".metadata.json")).count();
    assert_eq!(metadata as i64, table.version, "one metadata file for each move of the table");
    assert!(made.metadata.current_snapshot().is_none());
}

#[tokio::test]
async fn what_waits_at_the_same_time_becomes_one_metadata_file_and_each_gets_its_own_answer() {
    let house = house().await;
    let made = create(&house.catalog, "a.t").await;
    let append = |position: u64| NewSnapshot {
        added: vec![data_file(&made, &format!("own{position}"))],
        summary: [FIRST_SEQ, LAST_SEQ].map(|key| (key.to_owned(), position.to_string())).into(),
        mark: Some(MarkMove {
            watermark: Watermark { epoch: 1, position, last_seq: position },
            since: 0,
        }),
        ..NewSnapshot::default()
    };
    let foreign = client_append(&house.catalog, &made, 7, "foreign").await;
    let late = client_append(&house.catalog, &made, 8, "late").await;
    let stale = change(
        "a.t",
        on_main(Some(5)),
        json!([{"action": "set-properties", "updates": {"k": "v"}}]),
    );
    let table = ident("a.t");
    let held = house.catalog.inner.locks.lock(std::iter::once(&table)).await;
    let works = [
        Ok(append(1)),
        Err(foreign),
        Err(stale),
        Ok(append(2)),
        Ok(append(2)),
        Err(late),
        Err(set("a.t", "k", "w")),
    ];
    let all = works.len();
    // Each comes once those before it wait.
    let have_come = async |count| {
        while house.catalog.waiting_commits() < count {
            tokio::task::yield_now().await;
        }
    };
    let commits = join_all(works.into_iter().enumerate().map(async |(at, work)| {
        have_come(at).await;
        match work {
            Ok(append) => house.catalog.add_snapshot(&table, append).await,
            Err(change) => house.catalog.commit(change).await,
        }
    }));
    let release = async {
        have_come(all).await;
        drop(held);
    };
    let (ended, ()) = tokio::join!(commits, release);
    let [a, b, c, d, e, f, g] = ended.try_into().unwrap();
    let text = format!("{:?}", c.unwrap_err());
    assert!(text.contains("branch main has changed: expected id 5"), "{text}");
    for done in [a, b, d, e, f, g] {
        let done = done.unwrap();
        assert_eq!(done.version, 2);
        assert_eq!(done.metadata.properties()["k"], "w");
        assert_eq!(done.watermark.unwrap().position, 2);
        assert_eq!(done.metadata.metadata_log().len(), 1);
    }
    let names: Vec<(String, i64)> = rows(&house.catalog).await;
    let names: Vec<(&str, i64)> = names.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    assert_eq!(names, [("foreign", 2), ("late", 4), ("own1", 1), ("own2", 3)]);
    let table = house.catalog.tables().load(&ident("a.t")).await.unwrap();
    assert_eq!(total(&table), "4");
    let seqs: Vec<_> = house.catalog.tables().snapshots(&ident("a.t")).await.unwrap();
    let seqs: BTreeSet<_> = seqs.into_iter().filter_map(|row| row.seq).collect();
    assert_eq!(seqs, BTreeSet::from([(1, 1), (2, 2)]));
}

#[tokio::test]
async fn only_a_plain_append_is_moved() {
    let house = house().await;
    let made = create(&house.catalog, "a.t").await;
    let first = client_append(&house.catalog, &made, 1, "one").await;
    let after = house.catalog.commit(first).await.unwrap();
    let refused = async |house: &House, sent: TableChange| {
        let files = house.files().await;
        let lost = house.catalog.commit(sent).await;
        assert!(matches!(lost, Err(CatalogError::CommitFailed(_))), "{lost:?}");
        assert_eq!(house.files().await, files, "nothing of the client's is deleted");
    };
    // Another operation.
    let late = client_append(&house.catalog, &made, 2, "two").await;
    let overwrite = json!({"operation": "overwrite"});
    refused(&house, send(&made, 2, &own_list(&made, 2), &overwrite)).await;
    // Another requirement that does not hold.
    let mut with_schema = late.clone();
    with_schema.requirements.extend(
        serde_json::from_value::<Vec<_>>(
            json!([{"type": "assert-current-schema-id", "current-schema-id": 9}]),
        )
        .unwrap(),
    );
    refused(&house, with_schema).await;
    // A list that leaves out what the parent had.
    let empty = own_list(&made, 3);
    let writer = house.catalog.storage().file_io().new_output(&empty).unwrap();
    let list = ManifestListWriter::v2(writer.writer().await.unwrap(), 3, Some(1), 2);
    list.close().await.unwrap();
    let second = client_append(&house.catalog, &after, 4, "four").await;
    house.catalog.commit(second).await.unwrap();
    refused(&house, send(&after, 3, &empty, &json!({"operation": "append"}))).await;
    // A branch that was put back to before.
    let back = json!([{"action": "set-snapshot-ref", "ref-name": "main", "type": "branch",
                       "snapshot-id": 1}]);
    let now = house.catalog.tables().load(&ident("a.t")).await.unwrap();
    let on_second = client_append(&house.catalog, &now, 5, "five").await;
    house.catalog.commit(change("a.t", json!([]), back)).await.unwrap();
    refused(&house, on_second).await;
    // The plain one is.
    house.catalog.commit(late).await.unwrap();
    let names: Vec<String> = rows(&house.catalog).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["one", "two"]);
}

/// The append with one more entry in its snapshot's summary.
fn with_entry(mut sent: TableChange, key: &str, value: &str) -> TableChange {
    let mut updates = serde_json::to_value(&sent.updates).unwrap();
    updates[0]["snapshot"]["summary"][key] = json!(value);
    sent.updates = serde_json::from_value(updates).unwrap();
    sent
}

#[tokio::test]
async fn an_append_is_not_moved_past_one_that_has_an_entry_of_its_client_in_common() {
    let house = house().await;
    let made = create(&house.catalog, "a.t").await;
    let sent = async |table: &LoadedTable, id, key: &str, value: &str| {
        let name = format!("f{id}");
        with_entry(client_append(&house.catalog, table, id, &name).await, key, value)
    };
    // Two that copy the same, and both guard it by asserting the head that they have read.
    let offsets = "kafka.connect.offsets.control.group";
    let (first, again) = (sent(&made, 1, offsets, "{}").await, sent(&made, 2, offsets, "{}").await);
    let checkpoint = sent(&made, 3, "flink.max-committed-checkpoint-id", "7").await;
    let same_engine = sent(&made, 4, "pyiceberg-version", "0.11.1").await;
    let same_engine_again = sent(&made, 5, "pyiceberg-version", "0.11.1").await;
    house.catalog.commit(first.clone()).await.unwrap();
    let lost = house.catalog.commit(again.clone()).await;
    assert!(matches!(lost, Err(CatalogError::CommitFailed(_))), "{lost:?}");
    // Sent again it is the same commit still.
    house.catalog.commit(first).await.unwrap();
    // Nothing in common, or only what says who wrote.
    house.catalog.commit(checkpoint).await.unwrap();
    house.catalog.commit(same_engine).await.unwrap();
    let now = house.catalog.commit(same_engine_again).await.unwrap();
    // It still is in between, with others on top of it.
    let lost = house.catalog.commit(again).await;
    assert!(matches!(lost, Err(CatalogError::CommitFailed(_))), "{lost:?}");
    // The one that was built on it is moved past others.
    let next = sent(&now, 6, offsets, "{}").await;
    let other = client_append(&house.catalog, &now, 7, "f7").await;
    house.catalog.commit(other).await.unwrap();
    house.catalog.commit(next).await.unwrap();
    let names: Vec<String> = rows(&house.catalog).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["f1", "f3", "f4", "f5", "f6", "f7"]);
}

#[tokio::test]
async fn only_the_very_same_snapshot_is_a_repeat() {
    let house = house().await;
    let made = create(&house.catalog, "a.t").await;
    let (first, late) = (
        client_append(&house.catalog, &made, 1, "one").await,
        client_append(&house.catalog, &made, 2, "two").await,
    );
    house.catalog.commit(first.clone()).await.unwrap();
    let moved = house.catalog.commit(late.clone()).await.unwrap();
    // One that was moved has another list than its client wrote.
    assert_eq!(house.catalog.commit(first).await.unwrap().version, moved.version);
    assert_eq!(house.catalog.commit(late).await.unwrap().version, moved.version);
    for id in [1, 2] {
        for requirements in [on_main(None), on_main(Some(2)), json!([])] {
            let mut other = send(&made, id, &own_list(&made, 9), &json!({"operation": "append"}));
            other.requirements = serde_json::from_value(requirements).unwrap();
            let lost = house.catalog.commit(other).await;
            assert!(matches!(lost, Err(CatalogError::CommitFailed(_))), "{lost:?}");
        }
    }
}

#[tokio::test]
async fn a_table_can_have_every_late_append_refused() {
    let house = house().await;
    let made = create(&house.catalog, "a.t").await;
    let late = client_append(&house.catalog, &made, 1, "late").await;
    let first = client_append(&house.catalog, &made, 2, "first").await;
    house.catalog.commit(first).await.unwrap();
    house.catalog.commit(set("a.t", "icecore.rebase-appends", "false")).await.unwrap();
    let lost = house.catalog.commit(late.clone()).await;
    assert!(matches!(lost, Err(CatalogError::CommitFailed(_))), "{lost:?}");
    house.catalog.commit(set("a.t", "icecore.rebase-appends", "true")).await.unwrap();
    house.catalog.commit(late).await.unwrap();
}

#[tokio::test]
async fn a_commit_goes_on_without_the_client_that_sent_it() {
    let house = house().await;
    create(&house.catalog, "a.t").await;
    let mut gone = Box::pin(house.catalog.commit(set("a.t", "gone", "v")));
    assert!(futures::poll!(&mut gone).is_pending());
    drop(gone);
    let next = house.catalog.commit(set("a.t", "next", "v")).await.unwrap();
    assert_eq!(next.metadata.properties().len(), 2);
}

/// Commits whose COMMIT loses its answer: what was made is a success, what was not is an error
/// after which only files of the catalog's own attempt are gone, and what nobody can tell keeps
/// every file.
async fn lose_answers(house: House, metastore: Metastore) {
    let catalog = &house.catalog;
    let made = create(catalog, "a.t").await;
    let own = |position| NewSnapshot {
        added: vec![data_file(&made, &format!("own{position}"))],
        mark: Some(MarkMove {
            watermark: Watermark { epoch: 1, position, last_seq: position },
            since: 0,
        }),
        ..NewSnapshot::default()
    };
    for (turn, fault) in [(1, CommitFault::Before), (2, CommitFault::After), (3, CommitFault::Deaf)]
    {
        let table = catalog.tables().load(&ident("a.t")).await.unwrap();
        let foreign =
            client_append(catalog, &table, i64::try_from(turn).unwrap(), &format!("f{turn}")).await;
        for append in [false, true] {
            let files = house.files().await;
            metastore.faults.set(fault);
            let answered = match append {
                false => catalog.commit(foreign.clone()).await,
                true => catalog.add_snapshot(&ident("a.t"), own(turn)).await,
            };
            match fault {
                CommitFault::Before => {
                    assert!(matches!(answered, Err(CatalogError::Metastore { .. })));
                    assert_eq!(house.files().await, files, "the attempt's own files are gone");
                }
                CommitFault::After => drop(answered.unwrap()),
                CommitFault::Deaf => {
                    assert!(matches!(answered, Err(CatalogError::CommitStateUnknown(_))));
                    let now = house.files().await;
                    assert!(files.iter().all(|file| now.contains(file)));
                }
            }
            // The client sends it again, and our own log does too.
            let again = match append {
                false => catalog.commit(foreign.clone()).await,
                true => catalog.add_snapshot(&ident("a.t"), own(turn)).await,
            };
            again.unwrap();
            // Another process reads what there is, whole.
            let table = house.other.tables().load(&ident("a.t")).await.unwrap();
            assert_eq!(
                table.metadata.snapshots().len() as u64,
                2 * (turn - 1) + 1 + u64::from(append)
            );
            rows(&house.other).await;
        }
    }
    let names: Vec<String> = rows(catalog).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["f1", "f2", "f3", "own1", "own2", "own3"]);
    house.clock.fetch_add(i64::from(u32::MAX), std::sync::atomic::Ordering::SeqCst);
    catalog.upkeep().delete_obsolete(100).await.unwrap();
    assert_eq!(rows(&house.other).await.len(), 6, "nothing that is read was given up");
}

#[tokio::test]
async fn a_lost_answer_loses_no_row_and_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    lose_answers(house_over(folder, metastore.clone()).await, metastore).await;
    let Some(url) = database().await else { return };
    let metastore = Metastore::postgres(&url).await.unwrap();
    lose_answers(house_over(tempfile::tempdir().unwrap(), metastore.clone()).await, metastore)
        .await;
}

/// As for one table: what is told of the whole transaction is true of each of its tables, and it is
/// a success when it is sent again.
#[tokio::test]
async fn a_transaction_whose_answer_is_lost_is_made_once_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    let house = house_over(folder, metastore.clone()).await;
    let catalog = &house.catalog;
    create(catalog, "a.t").await;
    create(catalog, "a.other").await;
    for (turn, fault) in [(1, CommitFault::Before), (2, CommitFault::After), (3, CommitFault::Deaf)]
    {
        let table = catalog.tables().load(&ident("a.t")).await.unwrap();
        let sent = client_append(catalog, &table, turn, &format!("f{turn}")).await;
        // It came too late for what it was built on, so its list is written anew.
        let rival = client_append(catalog, &table, 10 + turn, &format!("rival{turn}")).await;
        catalog.commit(rival).await.unwrap();
        let key = turn.to_string();
        let both = vec![set("a.other", &key, "x"), sent];
        let files = house.files().await;
        metastore.faults.set(fault);
        let answered = catalog.commit_all(both.clone()).await;
        let now = house.files().await;
        match fault {
            CommitFault::Before => {
                assert!(matches!(answered, Err(CatalogError::Metastore { .. })));
                assert_eq!(now, files, "the attempt's own files are gone");
            }
            CommitFault::After => answered.unwrap(),
            CommitFault::Deaf => {
                assert!(matches!(answered, Err(CatalogError::CommitStateUnknown(_))));
                assert!(files.iter().all(|file| now.contains(file)));
            }
        }
        catalog.commit_all(both).await.unwrap();
        let table = house.other.tables().load(&ident("a.t")).await.unwrap();
        assert_eq!(table.metadata.snapshots().len(), 2 * usize::try_from(turn).unwrap());
        let other = house.other.tables().load(&ident("a.other")).await.unwrap();
        assert!(other.metadata.properties().contains_key(&key));
        rows(&house.other).await;
    }
    let names: Vec<String> = rows(catalog).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["f1", "f2", "f3", "rival1", "rival2", "rival3"]);
}

#[tokio::test]
async fn more_commits_than_a_queue_holds_are_told_to_come_again() {
    let house = house().await;
    create(&house.catalog, "a.t").await;
    let table = ident("a.t");
    let held = house.catalog.inner.locks.lock(std::iter::once(&table)).await;
    let mut waiting = Vec::new();
    for n in 0..QUEUE_MAX {
        let mut commit = Box::pin(house.catalog.commit(set("a.t", &n.to_string(), "v")));
        assert!(futures::poll!(&mut commit).is_pending());
        waiting.push(commit);
    }
    let refused = house.catalog.commit(set("a.t", "more", "v")).await;
    assert!(matches!(refused, Err(CatalogError::Busy(_))));
    drop(held);
    for commit in join_all(waiting).await {
        commit.unwrap();
    }
    let after = house.catalog.tables().load(&table).await.unwrap();
    assert_eq!(after.metadata.properties().len(), QUEUE_MAX);
    assert_eq!(usize::try_from(after.version).unwrap(), 1 + QUEUE_MAX / BATCH_MAX);
}

/// Sends a commit twice under one key, so that both wait for the table at once, and loses the first
/// attempt on the way; gives what each was told.
async fn sent_twice(
    house: &House,
    metastore: &Metastore,
    fault: CommitFault,
) -> [Result<LoadedTable, CatalogError>; 2] {
    let id = uuid::Uuid::new_v4();
    let key = RequestKey { id, fingerprint: String::new(), answer: RecordedAnswer::Commit };
    let catalog = house.catalog.for_request(key);
    let held = house.catalog.inner.locks.lock(std::iter::once(&ident("a.t"))).await;
    let mut sent = [1, 2].map(|_| Box::pin(catalog.commit(set("a.t", &id.to_string(), "v"))));
    for commit in &mut sent {
        assert!(futures::poll!(commit).is_pending());
    }
    metastore.faults.set(fault);
    drop(held);
    join_all(sent).await.try_into().unwrap()
}

#[tokio::test]
async fn a_repeat_that_meets_its_first_sending_is_done_before_only_if_that_one_was() {
    let folder = tempfile::tempdir().unwrap();
    let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    let house = house_over(folder, metastore.clone()).await;
    create(&house.catalog, "a.t").await;
    let [first, again] = sent_twice(&house, &metastore, CommitFault::After).await;
    first.unwrap();
    assert!(matches!(again, Err(CatalogError::Repeated)), "{again:?}");
    let [first, again] = sent_twice(&house, &metastore, CommitFault::Before).await;
    assert!(matches!(first, Err(CatalogError::Metastore { .. })), "{first:?}");
    again.expect("nothing was carried out before");
    let table = house.catalog.tables().load(&ident("a.t")).await.unwrap();
    assert_eq!((table.metadata.properties().len(), table.version), (2, 3));
}
