//! Files that nothing names: which of them go, when, and what commits that name them get.

mod folders;
mod whole_tables;

use super::{
    late_client::{Work, put},
    live::own_append,
    places::strict,
    *,
};
use crate::metastore::tests::stores;
use std::{
    fs::File,
    path::PathBuf,
    time::{Duration, UNIX_EPOCH},
};

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = ORPHAN_GRACE_MIN_MS;

fn path(location: &str) -> PathBuf {
    PathBuf::from(location.strip_prefix("file://").unwrap())
}

/// Gives a file the time that it was written at.
fn set_time(location: &str, time_ms: i64) {
    let time = UNIX_EPOCH + Duration::from_millis(time_ms.unsigned_abs());
    File::options().write(true).open(path(location)).unwrap().set_modified(time).unwrap();
}

/// All files of a table are as old.
async fn set_all_times(catalog: &Catalog, table: &LoadedTable, time_ms: i64) {
    for file in catalog.storage().list(table.metadata.location()).await.unwrap() {
        set_time(&file, time_ms);
    }
}

fn in_table(table: &LoadedTable, name: &str) -> String {
    format!("{}/{name}", table.metadata.location())
}

/// Leaves a file in a table that was written at this time.
async fn leave(catalog: &Catalog, table: &LoadedTable, name: &str, time_ms: i64) -> String {
    let location = in_table(table, name);
    catalog.storage().put(&location, Bytes::from_static(b"x")).await.unwrap();
    set_time(&location, time_ms);
    location
}

/// A file that is written under one name, and committed under another.
async fn committed_as(catalog: &Catalog, id: i64, written: &str, named: &str) -> String {
    let head = catalog.tables().load(&ident("a.t")).await.unwrap();
    let data = leave(catalog, &head, &format!("data/{written}"), NOW - 3 * DAY_MS).await;
    let work = [(named, 10)];
    catalog.commit(put(catalog, &head, id, append(&work)).await).await.unwrap();
    data
}

/// A catalog with a namespace over a bucket, and its clock.
async fn in_a_bucket() -> (tempfile::TempDir, Catalog, Arc<AtomicI64>) {
    let (folder, metastore) = crate::metastore::tests::sqlite().await;
    let clock = Arc::new(AtomicI64::new(NOW));
    let now: NowMs = {
        let clock = Arc::clone(&clock);
        Arc::new(move || clock.load(Ordering::SeqCst))
    };
    let storage = Storage::bucket_in_memory("s3://bucket/warehouse");
    let catalog = Catalog::new("icecore", storage, metastore, now);
    catalog.namespaces().ensure(&suite::levels("a"), &Properties::new()).await.unwrap();
    (folder, catalog, clock)
}

/// What a run finds, and how many files it queues.
async fn sweep(catalog: &Catalog, table: &str) -> (Vec<String>, u64) {
    let search = catalog.orphans().search(&ident(table), 0).await.unwrap();
    let found = search.orphans().iter().map(|file| file.location.clone()).collect();
    catalog.orphans().mark(&search).await.unwrap();
    (found, catalog.orphans().queue(search).await.unwrap().files)
}

async fn queued(catalog: &Catalog) -> Vec<String> {
    catalog.metastore().obsolete(i64::MAX, 1_000).await.unwrap()
}

/// Deletes what is queued once its time has come.
async fn delete_queued(house: &House) {
    house.clock.fetch_add(10 * 60 * 1000, Ordering::SeqCst);
    while house.catalog.upkeep().delete_obsolete(100).await.unwrap() > 0 {}
}

fn append<'a>(adds: &'a [(&'a str, u64)]) -> Work<'a> {
    Work { operation: "append", adds, ..Work::default() }
}

/// A table with one live data file, in a catalog that looks into commits.
async fn one_file(house: &House) -> (Catalog, LoadedTable) {
    let catalog = strict(house);
    let made = create(&catalog, "a.t").await;
    leave(&catalog, &made, "data/live.parquet", NOW - 9 * DAY_MS).await;
    let sent = put(&catalog, &made, 1, append(&[("live.parquet", 10)])).await;
    let table = catalog.commit(sent).await.unwrap();
    set_all_times(&catalog, &table, NOW - 9 * DAY_MS).await;
    (catalog, table)
}

#[tokio::test]
async fn a_file_that_nothing_names_goes_when_it_was_seen_so_a_day_before() {
    for (_kept, metastore) in stores().await {
        let house = house_over(tempfile::tempdir().unwrap(), metastore).await;
        let (catalog, table) = one_file(&house).await;
        let files = house.files().await;
        let old = leave(&catalog, &table, "data/left.parquet", NOW - 3 * DAY_MS).await;
        let young = leave(&catalog, &table, "data/young.parquet", NOW - HOUR_MS).await;
        assert_eq!(sweep(&catalog, "a.t").await, (vec![old.clone()], 0), "seen first");
        assert_eq!(sweep(&catalog, "a.t").await, (vec![old.clone()], 0), "at once again");
        house.clock.fetch_add(DAY_MS - 1, Ordering::SeqCst);
        let both = vec![old.clone(), young.clone()];
        assert_eq!(sweep(&catalog, "a.t").await, (both.clone(), 0), "nearly a day later");
        house.clock.fetch_add(1, Ordering::SeqCst);
        assert_eq!(sweep(&catalog, "a.t").await, (both, 1));
        assert_eq!(queued(&catalog).await, [old.as_str()]);
        assert_eq!(
            sweep(&catalog, "a.t").await,
            (vec![young.clone()], 0),
            "what is queued is left"
        );
        delete_queued(&house).await;
        // Written again, as another file would be: it was seen otherwise before.
        set_time(&young, NOW - 2 * DAY_MS);
        house.clock.fetch_add(DAY_MS, Ordering::SeqCst);
        assert_eq!(sweep(&catalog, "a.t").await, (vec![young.clone()], 0));
        house.clock.fetch_add(DAY_MS, Ordering::SeqCst);
        assert_eq!(sweep(&catalog, "a.t").await, (vec![young], 1));
        delete_queued(&house).await;
        assert_eq!(house.files().await, files);
    }
}

#[tokio::test]
async fn a_mark_of_a_clock_that_was_ahead_is_made_anew() {
    let house = house().await;
    let (catalog, table) = one_file(&house).await;
    let left = leave(&catalog, &table, "data/left.parquet", NOW - 3 * DAY_MS).await;
    house.clock.store(NOW + 99 * DAY_MS, Ordering::SeqCst);
    assert_eq!(sweep(&catalog, "a.t").await, (vec![left.clone()], 0));
    house.clock.store(NOW, Ordering::SeqCst);
    assert_eq!(sweep(&catalog, "a.t").await, (vec![left.clone()], 0));
    house.clock.store(NOW + DAY_MS, Ordering::SeqCst);
    assert_eq!(sweep(&catalog, "a.t").await, (vec![left], 1));
}

#[tokio::test]
async fn what_may_be_something_else_stays_and_is_told() {
    let house = house().await;
    let (catalog, table) = one_file(&house).await;
    let old = NOW - 3 * DAY_MS;
    let temporary = format!("data/.tmp-{}", Uuid::nil());
    let mut orphans = Vec::new();
    for name in ["data/.left.parquet.crc", temporary.as_str(), "data/a.orc", "metadata/b.stats"] {
        orphans.push(leave(&catalog, &table, name, old).await);
    }
    orphans.sort();
    // The checksum of a live file goes with it.
    leave(&catalog, &table, "data/.live.parquet.crc", old).await;
    leave(&catalog, &table, "data/notes.txt", old).await;
    leave(&catalog, &table, "data/.tmp-x", old).await;
    leave(&catalog, &table, "data/ageless.parquet", 0).await;
    leave(&catalog, &table, "data/later.parquet", NOW + DAY_MS).await;
    let elsewhere = leave(&catalog, &create(&catalog, "a.u").await, "data/u.parquet", old).await;
    let link = path(&in_table(&table, "data/link.parquet"));
    std::os::unix::fs::symlink(path(&elsewhere), &link).unwrap();
    let folder = path(&in_table(&table, "data/folder"));
    std::os::unix::fs::symlink(path(&elsewhere).parent().unwrap(), &folder).unwrap();
    let search = catalog.orphans().search(&ident("a.t"), 0).await.unwrap();
    let found: Vec<&str> = search.orphans().iter().map(|file| file.location.as_str()).collect();
    assert_eq!(found, orphans);
    let kept = search.kept();
    let told = |text: &str| kept.iter().any(|reason| reason.contains(text));
    assert!(told("2 files that no snapshot has are kept") && told("link or a device"), "{kept:?}");
    assert!(told(".tmp-x") && told("no writer of Iceberg tables"), "{kept:?}");
    assert!(told("ageless.parquet") && told("later.parquet"), "{kept:?}");
    assert_eq!(kept.len(), 4, "{kept:?}");
    // A folder that a link leads to has its files under other names.
    let moved = format!("{}-moved", table.metadata.location());
    std::fs::rename(path(table.metadata.location()), path(&moved)).unwrap();
    std::os::unix::fs::symlink(path(&moved), path(table.metadata.location())).unwrap();
    let linked = catalog.orphans().search(&ident("a.t"), 0).await;
    assert!(matches!(linked, Err(CatalogError::LocationForbidden(_))), "{linked:?}");
}

#[tokio::test]
async fn whatever_a_retained_snapshot_or_the_metadata_names_is_no_orphan() {
    let house = house().await;
    let (catalog, _) = one_file(&house).await;
    let tag = json!([{"action": "set-snapshot-ref", "ref-name": "keep", "type": "tag",
        "snapshot-id": 1}]);
    let table = catalog.commit(change("a.t", json!([]), tag)).await.unwrap();
    leave(&catalog, &table, "data/new.parquet", NOW).await;
    let work = Work {
        operation: "overwrite",
        removes: &["live.parquet"],
        adds: &[("new.parquet", 10)],
        ..Work::default()
    };
    let table = catalog.commit(put(&catalog, &table, 2, work).await).await.unwrap();
    let statistics = |action: &str, member: &str, place: &str| {
        json!([{"action": action, "snapshot-id": 2, member: {"snapshot-id": 2,
            "statistics-path": place, "file-size-in-bytes": 1, "file-footer-size-in-bytes": 1,
            "blob-metadata": []}}])
    };
    for (action, member, name) in [
        ("set-statistics", "statistics", "metadata/s.puffin"),
        ("set-partition-statistics", "partition-statistics", "metadata/p.parquet"),
    ] {
        let place = leave(&catalog, &table, name, NOW).await;
        let sent = change("a.t", json!([]), statistics(action, member, &place));
        catalog.commit(sent).await.unwrap();
    }
    set_all_times(&catalog, &table, NOW - 9 * DAY_MS).await;
    assert_eq!(sweep(&catalog, "a.t").await, (Vec::new(), 0));
    // Without the tag nothing has the first file, nor what led to it.
    let without = json!([{"action": "remove-snapshot-ref", "ref-name": "keep"},
        {"action": "remove-snapshots", "snapshot-ids": [1]}]);
    catalog.commit(change("a.t", json!([]), without)).await.unwrap();
    let gone = ["data/live.parquet", "metadata/1.avro", "metadata/m1-data.avro"];
    let gone: Vec<String> = gone.iter().map(|name| in_table(&table, name)).collect();
    assert_eq!(sweep(&catalog, "a.t").await, (gone, 0));
}

#[tokio::test]
async fn a_commit_that_names_a_queued_or_deleted_orphan_is_refused_with_its_name() {
    for (_kept, metastore) in stores().await {
        let house = house_over(tempfile::tempdir().unwrap(), metastore).await;
        let (catalog, table) = one_file(&house).await;
        let old = NOW - 3 * DAY_MS;
        let data = leave(&catalog, &table, "data/late.parquet", old).await;
        let late = put(&catalog, &table, 2, append(&[("late.parquet", 10)])).await;
        set_all_times(&catalog, &table, old).await;
        let (found, _) = sweep(&catalog, "a.t").await;
        assert_eq!(found.len(), 3, "the data file, the manifest and the list: {found:?}");
        // It was looked at before, by whichever process.
        house.clock.fetch_add(DAY_MS, Ordering::SeqCst);
        assert_eq!(sweep(&catalog, "a.t").await.1, 3);
        let refused = catalog.commit(late.clone()).await.unwrap_err();
        assert!(refused.to_string().contains("is about to be deleted"), "{refused}");
        delete_queued(&house).await;
        let refused = catalog.commit(late.clone()).await.unwrap_err();
        let names =
            |cause: &CatalogError| found.iter().any(|file| cause.to_string().contains(file));
        assert!(matches!(refused, CatalogError::Invalid(_)) && names(&refused), "{refused}");
        // The data file alone is as old as that: the client commits a week after it wrote it.
        let head = catalog.tables().load(&ident("a.t")).await.unwrap();
        let again = put(&catalog, &head, 3, append(&[("late.parquet", 10)])).await;
        let refused = catalog.commit(again.clone()).await.unwrap_err();
        assert!(refused.to_string().contains(&data), "{refused}");
        assert!(refused.to_string().contains("was deleted"), "{refused}");
        let own = catalog.add_snapshot(&ident("a.t"), own_append(&head, "late.parquet", 1)).await;
        let refused = own.unwrap_err();
        assert!(refused.to_string().contains("was deleted"), "{refused}");
        // A file that is there again is as good as any.
        leave(&catalog, &head, "data/late.parquet", NOW).await;
        catalog.commit(again).await.unwrap();
        house.clock.fetch_add(9 * DAY_MS, Ordering::SeqCst);
        assert_eq!(sweep(&catalog, "a.t").await.0, Vec::<String>::new());
    }
}

/// An expired snapshot's data file, `data/live.parquet`, that is queued; its list and manifest are not.
async fn with_queued_file(house: &House) -> (Catalog, LoadedTable, String) {
    let (catalog, table) = one_file(house).await;
    leave(&catalog, &table, "data/new.parquet", NOW).await;
    let work = Work {
        operation: "overwrite",
        removes: &["live.parquet"],
        adds: &[("new.parquet", 10)],
        ..Work::default()
    };
    catalog.commit(put(&catalog, &table, 2, work).await).await.unwrap();
    let without = json!([{"action": "remove-snapshots", "snapshot-ids": [1]}]);
    catalog.commit(change("a.t", json!([]), without)).await.unwrap();
    for name in ["metadata/1.avro", "metadata/m1-data.avro"] {
        set_time(&in_table(&table, name), NOW + 9 * DAY_MS);
    }
    let data = in_table(&table, "data/live.parquet");
    assert_eq!(sweep(&catalog, "a.t").await.0, [data.as_str()]);
    house.clock.fetch_add(DAY_MS, Ordering::SeqCst);
    assert_eq!(sweep(&catalog, "a.t").await.1, 1);
    (catalog, table, data)
}

#[tokio::test]
async fn a_branch_of_an_expired_snapshot_does_not_bring_its_queued_files_back() {
    let house = house().await;
    let (catalog, _, data) = with_queued_file(&house).await;
    let head = catalog.tables().load(&ident("a.t")).await.unwrap();
    let lists = Work { operation: "replace", lists: &["live.parquet"], ..Work::default() };
    let sent = put(&catalog, &head, 3, lists).await;
    let mut updates = serde_json::to_value(&sent.updates).unwrap();
    updates[0]["snapshot"]["parent-snapshot-id"] = json!(1);
    updates[1]["ref-name"] = json!("back");
    let refused = catalog.commit(change("a.t", json!([]), updates)).await.unwrap_err().to_string();
    assert!(refused.contains(&data) && refused.contains("is about to be deleted"), "{refused}");
}

#[tokio::test]
async fn a_commit_that_failed_is_looked_at_again_when_it_is_sent_again() {
    let house = house().await;
    let (catalog, table) = one_file(&house).await;
    let data = leave(&catalog, &table, "data/late.parquet", NOW - 3 * DAY_MS).await;
    let mut late = put(&catalog, &table, 2, append(&[("late.parquet", 10)])).await;
    let location = table.metadata.location().to_owned();
    late.updates.insert(0, iceberg::TableUpdate::SetLocation { location });
    // It is found whole, and its metadata file is not written.
    let name = table.metadata_location.rsplit('/').next().unwrap();
    let number: u32 = name.split('-').next().unwrap().parse().unwrap();
    catalog.storage().break_for(&[format!("/metadata/{:05}-", number + 1).as_str()]);
    let failed = catalog.commit(late.clone()).await.unwrap_err();
    assert!(matches!(failed, CatalogError::Storage { .. }), "{failed:?}");
    catalog.storage().break_for(&[]);
    assert_eq!(sweep(&catalog, "a.t").await.0, [data.as_str()]);
    house.clock.fetch_add(DAY_MS, Ordering::SeqCst);
    assert_eq!(sweep(&catalog, "a.t").await.1, 1);
    let refused = catalog.commit(late).await.unwrap_err().to_string();
    assert!(refused.contains(&data) && refused.contains("is about to be deleted"), "{refused}");
}

#[tokio::test]
async fn a_file_is_the_same_whether_its_name_is_encoded_or_not() {
    let house = house().await;
    let (catalog, table) = one_file(&house).await;
    for (id, written, named) in [
        (2, "k=a b/1.parquet", "k=a%20b/1.parquet"),
        (3, "k=a%3Ab/1.parquet", "k=a%253Ab/1.parquet"),
        (4, "K=c/1.parquet", "k=c/1.parquet"),
    ] {
        let data = committed_as(&catalog, id, written, named).await;
        assert!(!sweep(&catalog, "a.t").await.0.contains(&data), "{named}");
    }
    // One that is queued under the name it was written with is not committed under the other one.
    let data = leave(&catalog, &table, "data/x y.parquet", NOW - 3 * DAY_MS).await;
    sweep(&catalog, "a.t").await;
    house.clock.fetch_add(DAY_MS, Ordering::SeqCst);
    assert_eq!(sweep(&catalog, "a.t").await.1, 1);
    let head = catalog.tables().load(&ident("a.t")).await.unwrap();
    let late = put(&catalog, &head, 5, append(&[("x%20y.parquet", 10)])).await;
    let refused = catalog.commit(late).await.unwrap_err().to_string();
    assert!(refused.contains(&data) && refused.contains("is about to be deleted"), "{refused}");
}

#[tokio::test]
async fn a_file_is_the_same_whatever_scheme_and_slashes_its_name_has() {
    let house = house().await;
    let (catalog, table) = one_file(&house).await;
    let folder = table.metadata.location();
    let left = leave(&catalog, &table, "data/left.parquet", NOW - 3 * DAY_MS).await;
    for (id, file, named) in [
        (2, "one", format!("{}/data/one", folder.replacen("file:///", "file:/", 1))),
        (3, "two", format!("{folder}//data//two")),
    ] {
        let data = committed_as(&catalog, id, file, &named).await;
        let found = sweep(&catalog, "a.t").await.0;
        assert!(!found.contains(&data) && found.contains(&left), "{named}: {found:?}");
    }
}

#[tokio::test]
async fn nothing_is_an_orphan_where_tables_may_have_files_in_others_folders() {
    let house = house().await;
    let (_, table) = one_file(&house).await;
    leave(&house.catalog, &table, "data/left.parquet", NOW - 3 * DAY_MS).await;
    let refused = house.catalog.orphans().search(&ident("a.t"), 0).await.unwrap_err();
    assert!(refused.to_string().contains("catalog.foreign_files"), "{refused}");
}

#[tokio::test]
async fn statistics_that_are_about_to_be_deleted_are_not_committed() {
    let house = house().await;
    let (catalog, table) = one_file(&house).await;
    let place = leave(&catalog, &table, "metadata/s.puffin", NOW - 3 * DAY_MS).await;
    let statistics = json!([{"action": "set-statistics", "snapshot-id": 1, "statistics": {
        "snapshot-id": 1, "statistics-path": place, "file-size-in-bytes": 1,
        "file-footer-size-in-bytes": 1, "blob-metadata": []}}]);
    sweep(&catalog, "a.t").await;
    house.clock.fetch_add(DAY_MS, Ordering::SeqCst);
    assert_eq!(sweep(&catalog, "a.t").await.1, 1);
    for why in ["is about to be deleted", "was deleted"] {
        let sent = change("a.t", json!([]), statistics.clone());
        let refused = catalog.commit(sent).await.unwrap_err().to_string();
        assert!(refused.contains(&place) && refused.contains(why), "{refused}");
        delete_queued(&house).await;
    }
}

#[tokio::test]
async fn an_older_state_that_has_a_removed_orphan_is_not_registered() {
    let house = house().await;
    let (catalog, table, data) = with_queued_file(&house).await;
    for why in ["is about to be deleted", "was deleted"] {
        let (older, a) = (&table.metadata_location, suite::levels("a"));
        let back = catalog.tables().register_over(&a, "t", older, &suite::anywhere).await;
        let refused = back.unwrap_err().to_string();
        assert!(refused.contains(&data) && refused.contains(why), "{refused}");
        delete_queued(&house).await;
    }
}

#[tokio::test]
async fn a_file_that_is_committed_between_the_search_and_the_queue_stays() {
    for (_kept, metastore) in stores().await {
        let house = house_over(tempfile::tempdir().unwrap(), metastore).await;
        let (catalog, table) = one_file(&house).await;
        let old = NOW - 3 * DAY_MS;
        leave(&catalog, &table, "data/late.parquet", old).await;
        let left = leave(&catalog, &table, "data/left.parquet", old).await;
        sweep(&catalog, "a.t").await;
        house.clock.fetch_add(DAY_MS, Ordering::SeqCst);
        let search = catalog.orphans().search(&ident("a.t"), 0).await.unwrap();
        assert_eq!(search.orphans().iter().filter(|file| file.is_due).count(), 2);
        let late = put(&catalog, &table, 2, append(&[("late.parquet", 10)])).await;
        catalog.commit(late).await.unwrap();
        let gone = catalog.orphans().queue(search).await.unwrap();
        assert_eq!(gone, QueuedOrphans { files: 1, bytes: 1 });
        assert_eq!(queued(&catalog).await, [left]);
    }
}

/// Of a commit and the removal of what it adds one happens, whichever comes first.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_commit_and_the_removal_of_its_file_never_both_happen() {
    for (_kept, metastore) in stores().await {
        let house = house_over(tempfile::tempdir().unwrap(), metastore).await;
        let (catalog, mut table) = one_file(&house).await;
        let other = strict(&house);
        for id in 2..22 {
            let name = format!("late-{id}.parquet");
            let now_ms = house.clock.load(Ordering::SeqCst);
            let data = leave(&catalog, &table, &format!("data/{name}"), now_ms - 3 * DAY_MS).await;
            sweep(&catalog, "a.t").await;
            house.clock.fetch_add(DAY_MS, Ordering::SeqCst);
            let late = put(&catalog, &table, id, append(&[(name.as_str(), 10)])).await;
            let search = other.orphans().search(&ident("a.t"), 0).await.unwrap();
            assert!(search.orphans().iter().any(|file| file.location == data && file.is_due));
            let (committed, removed) =
                tokio::join!(catalog.commit(late), other.orphans().queue(search));
            removed.unwrap();
            let is_queued = queued(&catalog).await.contains(&data);
            assert_eq!(committed.is_ok(), !is_queued, "{id}: {committed:?}");
            table = catalog.tables().load(&ident("a.t")).await.unwrap();
        }
    }
}
