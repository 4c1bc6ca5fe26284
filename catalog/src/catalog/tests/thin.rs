//! Thinning beside other commits, and expiry.

use super::{
    late_client::Work,
    live::{UPDATE, commit, two_files},
    *,
};
use crate::{
    catalog::{ExpiryRequest, HistoryExpiry, RefKind, SNAPSHOT_LEASE_MS},
    commit::versions::DELETED_AFTER_COMMIT,
    metastore::{SnapshotLease, Watermark, holds::LegalHold},
    retention::{
        self, SNAPSHOTS_MAX,
        expiry::{GC_ENABLED, MAX_REF_AGE, MAX_SNAPSHOT_AGE},
        lease::LeasedSnapshots,
    },
    row_sum::RowSum,
    snapshot::{MarkMove, NewSnapshot, PLANNER_GRACE_MS},
};
use std::time::Duration;

const TABLE: &str = "a.events";

/// A table of the service with this many snapshots.
async fn overgrown(snapshots: u64) -> House {
    overgrown_in(house().await, snapshots).await
}

async fn overgrown_in(house: House, snapshots: u64) -> House {
    let mut table = new_table("events");
    table.properties.insert(retention::MANAGED.to_owned(), "true".to_owned());
    house.catalog.tables().create(&suite::levels("a"), table).await.unwrap();
    // Those of a long history that come together are few metadata files.
    let together = snapshots.saturating_sub(20);
    join_all((1..=together).map(|position| append(&house.catalog, position))).await;
    for position in together + 1..=snapshots {
        append(&house.catalog, position).await;
        house.clock.fetch_add(1_000, Ordering::SeqCst);
    }
    house
}

async fn append(catalog: &Catalog, position: u64) {
    let append = NewSnapshot {
        mark: Some(MarkMove {
            watermark: Watermark { epoch: 1, position, last_seq: position },
            since: 1,
        }),
        rows_added: Some(RowSum::default()),
        ..NewSnapshot::default()
    };
    catalog.add_snapshot(&ident(TABLE), append).await.unwrap();
}

#[tokio::test]
async fn appends_and_thinning_at_once_lose_nothing() {
    let house = overgrown(560).await;
    let (catalog, table) = (&house.catalog, ident(TABLE));
    let appends = async {
        for position in 561..=580 {
            append(catalog, position).await;
        }
    };
    let (thinned, ()) = tokio::join!(catalog.upkeep().thin(&table), appends);
    let removed = thinned.unwrap();
    let loaded = catalog.tables().load(&table).await.unwrap();
    assert_eq!(loaded.metadata.snapshots().len(), 580 - removed);
    assert_eq!(loaded.watermark.unwrap().position, 580);
    assert!(580 - removed <= SNAPSHOTS_MAX + 20);
    let rows = catalog.metastore().snapshots(loaded.metadata.uuid()).await.unwrap();
    assert_eq!(rows.len(), 580 - removed, "the index of snapshots has the same");
}

/// Thins the table, and has another process do this while that waits for its turn; gives how many
/// snapshots went, and in how many turns.
async fn thinned_around(house: &House, other: impl Future<Output = ()>) -> (usize, usize) {
    let (locks, table) = (&house.catalog.inner.locks, ident(TABLE));
    let held = locks.lock(std::iter::once(&table)).await;
    let asked = || locks.asked.load(Ordering::SeqCst);
    let before = asked();
    let between = async {
        while asked() == before {
            tokio::task::yield_now().await;
        }
        other.await;
        drop(held);
    };
    let upkeep = house.catalog.upkeep();
    let both = async { tokio::join!(upkeep.thin(&table), between) };
    // One that fails before it asks for its turn would be waited for without an end.
    let (thinned, ()) =
        tokio::time::timeout(Duration::from_secs(60), Box::pin(both)).await.unwrap();
    (thinned.unwrap(), asked() - before)
}

#[tokio::test]
async fn a_snapshot_that_is_named_meanwhile_stays() {
    let house = overgrown(560).await;
    let table = ident(TABLE);
    let loaded = house.catalog.tables().load(&table).await.unwrap();
    let metadata = &loaded.metadata;
    let none = LeasedSnapshots::default();
    let goes = retention::snapshots_to_remove(metadata, &none, metadata.last_updated_ms())[0];
    let tag = async {
        let made = house.other.refs().create(&table, "kept", RefKind::Tag, Some(goes)).await;
        made.unwrap();
    };
    let (removed, turns) = Box::pin(thinned_around(&house, tag)).await;
    assert!(0 < removed);
    assert_eq!(turns, 2, "what goes is worked out once more");
    let after = house.catalog.tables().load(&table).await.unwrap();
    assert!(after.metadata.snapshot_by_id(goes).is_some());
}

#[tokio::test]
async fn what_was_worked_out_follows_a_commit_before_its_turn() {
    let house = overgrown(560).await;
    let (removed, turns) = Box::pin(thinned_around(&house, append(&house.other, 561))).await;
    assert!(0 < removed);
    assert_eq!(turns, 1, "it is not worked out anew");
    let after = house.catalog.tables().load(&ident(TABLE)).await.unwrap();
    assert_eq!(after.metadata.snapshots().len(), 561 - removed);
    assert_eq!(after.watermark.unwrap().position, 561);
}

#[tokio::test]
async fn a_table_that_could_not_be_thinned_is_noted_again() {
    let folder = tempfile::tempdir().unwrap();
    let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    let house = overgrown_in(house_over(folder, metastore.clone()).await, 551).await;
    let (catalog, table) = (&house.catalog, ident(TABLE));
    assert_eq!(catalog.upkeep().take_overgrown(10), std::slice::from_ref(&table));
    assert!(catalog.upkeep().take_overgrown(10).is_empty(), "it was taken");
    metastore.faults.set(CommitFault::Before);
    catalog.upkeep().thin(&table).await.unwrap_err();
    assert_eq!(catalog.upkeep().take_overgrown(10), std::slice::from_ref(&table));
    assert!(0 < catalog.upkeep().thin(&table).await.unwrap());
    assert!(catalog.upkeep().take_overgrown(10).is_empty());
    assert_eq!(catalog.upkeep().thin(&table).await.unwrap(), 0, "nothing is left to do");
}

const DAY_MS: i64 = 86_400_000;

async fn expire(house: &House, is_named: bool, is_dry: bool) -> HistoryExpiry {
    let request = ExpiryRequest { is_named, is_dry };
    Box::pin(house.catalog.upkeep().expire(&ident(TABLE), request)).await.unwrap()
}

async fn snapshots(house: &House) -> Vec<i64> {
    let loaded = house.catalog.tables().load(&ident(TABLE)).await.unwrap();
    loaded.metadata.snapshots().map(|snapshot| snapshot.snapshot_id()).collect()
}

/// Metadata files that are queued for deletion.
async fn queued_metadata(house: &House) -> Vec<String> {
    let mut queued = house.catalog.metastore().obsolete(i64::MAX, 1_000).await.unwrap();
    queued.retain(|file| file.ends_with(".metadata.json"));
    queued
}

#[tokio::test]
async fn earlier_metadata_files_go_with_what_has_expired_where_the_table_wants_them_deleted() {
    for wanted in ["false", "true"] {
        let house = overgrown(30).await;
        house.catalog.commit(set(TABLE, DELETED_AFTER_COMMIT, wanted)).await.unwrap();
        let log = async || {
            let loaded = house.catalog.tables().load(&ident(TABLE)).await.unwrap();
            loaded.metadata.metadata_log().len()
        };
        let before = log().await;
        assert!(10 <= before, "{before}");
        house.clock.fetch_add(DAY_MS + DAY_MS / 24, Ordering::SeqCst);
        assert!(!expire(&house, false, false).await.is_empty());
        let queued = queued_metadata(&house).await.len();
        if wanted == "true" {
            assert_eq!(log().await, 1, "a repair looks for the last one");
            assert!(before <= queued, "{queued}");
        } else {
            assert_eq!((log().await, queued), (before + 1, 0), "they would be orphans");
        }
    }
}

#[tokio::test]
async fn the_long_metadata_file_from_before_many_snapshots_expired_goes_as_well() {
    let house = overgrown(80).await;
    let table = ident(TABLE);
    house.catalog.commit(set(TABLE, DELETED_AFTER_COMMIT, "true")).await.unwrap();
    let long = house.catalog.tables().load(&table).await.unwrap();
    house.clock.fetch_add(DAY_MS + DAY_MS / 24, Ordering::SeqCst);
    let done = expire(&house, false, false).await;
    assert!(50 <= done.snapshots, "{done:?}");
    let now = house.catalog.tables().load(&table).await.unwrap();
    assert_eq!(now.metadata.metadata_log().len(), 1);
    assert_ne!(now.metadata.metadata_log()[0].metadata_file, long.metadata_location);
    assert!(queued_metadata(&house).await.contains(&long.metadata_location));
    let cold = house.other.tables().load_present(&table).await.unwrap();
    assert_eq!((&cold.metadata, cold.watermark), (&now.metadata, long.watermark));
    assert!(expire(&house, false, false).await.is_empty());
    let again = house.catalog.tables().load(&table).await.unwrap();
    assert_eq!(again.version, now.version, "once is enough");
}

#[tokio::test]
async fn of_a_table_that_nobody_writes_to_any_more_the_newest_snapshot_stays() {
    let house = overgrown(10).await;
    let (catalog, table) = (&house.catalog, ident(TABLE));
    assert!(expire(&house, false, false).await.is_empty(), "they are young");
    let head = catalog.tables().load(&table).await.unwrap().metadata.current_snapshot_id();
    let tagged = snapshots(&house).await.into_iter().find(|id| Some(*id) != head);
    catalog.refs().create(&table, "kept", RefKind::Tag, tagged).await.unwrap();
    house.clock.fetch_add(93 * DAY_MS, Ordering::SeqCst);

    let files = house.files().await.len();
    let would = expire(&house, false, true).await;
    assert_eq!((would.snapshots, would.refs, snapshots(&house).await.len()), (8, 0, 10));
    let done = expire(&house, false, false).await;
    assert_eq!(done, would);
    assert!(8 <= done.files, "each has a list of its own: {done:?}");
    let mut kept = snapshots(&house).await;
    let mut expected: Vec<i64> = tagged.into_iter().chain(head).collect();
    kept.sort_unstable();
    expected.sort_unstable();
    assert_eq!(kept, expected);
    let loaded = catalog.tables().load(&table).await.unwrap();
    assert_eq!(loaded.watermark.unwrap().position, 10, "the log's mark stays");
    assert!(expire(&house, false, false).await.is_empty());

    // Files go by the queue, once planners had their time.
    assert_eq!(catalog.upkeep().delete_obsolete(1_000).await.unwrap(), 0);
    house.clock.fetch_add(PLANNER_GRACE_MS, Ordering::SeqCst);
    let deleted = catalog.upkeep().delete_obsolete(1_000).await.unwrap();
    assert!(8 <= deleted && house.files().await.len() <= files + 1 - deleted);
}

#[tokio::test]
async fn of_another_engines_table_snapshots_go_when_its_properties_or_an_operator_say_so() {
    let house = house().await;
    create(&house.catalog, TABLE).await;
    for position in 1..=5 {
        append(&house.catalog, position).await;
        house.clock.fetch_add(DAY_MS, Ordering::SeqCst);
    }
    house.clock.fetch_add(9 * DAY_MS, Ordering::SeqCst);
    assert!(expire(&house, false, false).await.is_empty());
    assert_eq!(expire(&house, true, true).await.snapshots, 4);
    house.catalog.commit(set(TABLE, GC_ENABLED, "false")).await.unwrap();
    let forbidden = expire(&house, true, false).await;
    assert!(forbidden.is_empty() && forbidden.obstacle.unwrap().contains(GC_ENABLED));
    house.catalog.commit(set(TABLE, GC_ENABLED, "true")).await.unwrap();
    // The snapshots are 14, 13, 12, 11 and 10 days old.
    let age = (12 * DAY_MS + DAY_MS / 2).to_string();
    house.catalog.commit(set(TABLE, MAX_SNAPSHOT_AGE, &age)).await.unwrap();
    assert_eq!(expire(&house, false, false).await.snapshots, 2);
    house.catalog.refs().create(&ident(TABLE), "side", RefKind::Branch, None).await.unwrap();
    house.catalog.commit(set(TABLE, MAX_REF_AGE, "1")).await.unwrap();
    let done = expire(&house, false, false).await;
    assert_eq!((done.snapshots, done.refs), (0, 1));
    let loaded = house.catalog.tables().load(&ident(TABLE)).await.unwrap();
    assert!(loaded.metadata.snapshot_for_ref("side").is_none());
    assert!(loaded.metadata.snapshot_for_ref("main").is_some());
    assert_eq!(snapshots(&house).await.len(), 3);
}

/// A branch has the files of the tag that it was made of, whatever becomes of that and of `main`. With one name
/// left of several, peers deleted what only the other had.
#[tokio::test]
async fn a_branch_keeps_its_files_when_the_tag_goes_that_it_was_made_of() {
    let (house, catalog) = two_files().await;
    let table = ident("a.t");
    let load = async || catalog.tables().load(&table).await.unwrap().metadata;
    let first = load().await.current_snapshot_id();
    catalog.refs().create(&table, "kept", RefKind::Tag, None).await.unwrap();
    for (id, old, new) in [(2, "f1", "g1"), (3, "f2", "g2")] {
        let work = Work { removes: &[old], adds: &[(new, 10)], ..UPDATE };
        commit(&catalog, id, work).await.unwrap();
    }
    catalog.refs().create(&table, "side", RefKind::Branch, first).await.unwrap();
    catalog.refs().drop(&table, "kept", Some(RefKind::Tag)).await.unwrap();
    house.clock.fetch_add(93 * DAY_MS, Ordering::SeqCst);
    let expire = async || {
        let request = ExpiryRequest { is_named: true, is_dry: false };
        Box::pin(catalog.upkeep().expire(&table, request)).await.unwrap()
    };
    let queued = async || catalog.metastore().obsolete(i64::MAX, 100).await.unwrap();
    assert_eq!(expire().await.snapshots, 1, "the one between");
    let metadata = load().await;
    let snapshot = metadata.snapshot_for_ref("side").unwrap();
    assert_eq!(Some(snapshot.snapshot_id()), first);
    let mut needed = vec![snapshot.manifest_list().to_owned()];
    for manifest in
        crate::snapshot::read_list(catalog.storage(), &metadata, snapshot).await.unwrap()
    {
        let read = manifest.load_manifest(&catalog.storage().file_io()).await.unwrap();
        needed.extend(read.entries().iter().map(|entry| entry.file_path().to_owned()));
        needed.push(manifest.manifest_path);
    }
    assert_eq!(needed.iter().filter(|file| file.contains("/data/f")).count(), 2, "{needed:?}");
    let gone = queued().await;
    assert!(!gone.is_empty() && gone.iter().all(|file| !needed.contains(file)), "{gone:?}");
    // Nobody needs them once the branch is gone.
    catalog.refs().drop(&table, "side", Some(RefKind::Branch)).await.unwrap();
    assert_eq!(expire().await.snapshots, 1);
    let gone = queued().await;
    assert!(needed.iter().all(|file| gone.contains(file)), "{gone:?}");
}

#[tokio::test]
async fn a_branch_or_tag_that_comes_meanwhile_keeps_what_was_to_expire() {
    let house = overgrown(10).await;
    let table = ident(TABLE);
    let loaded = house.catalog.tables().load(&table).await.unwrap();
    let head = loaded.metadata.current_snapshot_id();
    let goes = snapshots(&house).await.into_iter().find(|id| Some(*id) != head).unwrap();
    house.clock.fetch_add(93 * DAY_MS, Ordering::SeqCst);
    let locks = &house.catalog.inner.locks;
    let held = locks.lock(std::iter::once(&table)).await;
    let asked = || locks.asked.load(Ordering::SeqCst);
    let before = asked();
    let tag = async {
        while asked() == before {
            tokio::task::yield_now().await;
        }
        let made = house.other.refs().create(&table, "kept", RefKind::Tag, Some(goes)).await;
        made.unwrap();
        drop(held);
    };
    let both = async { tokio::join!(expire(&house, false, false), tag) };
    let (done, ()) = tokio::time::timeout(Duration::from_secs(60), Box::pin(both)).await.unwrap();
    assert_eq!(done.snapshots, 8);
    assert!(snapshots(&house).await.contains(&goes));
}

#[tokio::test]
async fn a_hold_that_comes_meanwhile_keeps_everything() {
    let house = overgrown(10).await;
    let table = ident(TABLE);
    house.clock.fetch_add(93 * DAY_MS, Ordering::SeqCst);
    let hold = LegalHold {
        levels: suite::levels("a"),
        name: "case-7".to_owned(),
        reason: None,
        since_ms: 0,
    };
    let locks = &house.catalog.inner.locks;
    let locked = locks.lock(std::iter::once(&table)).await;
    let asked = || locks.asked.load(Ordering::SeqCst);
    let before = asked();
    let set = async {
        while asked() == before {
            tokio::task::yield_now().await;
        }
        house.other.metastore().set_hold(&hold).await.unwrap();
        drop(locked);
    };
    let both = async { tokio::join!(expire(&house, false, false), set) };
    let (done, ()) = tokio::time::timeout(Duration::from_secs(60), Box::pin(both)).await.unwrap();
    let why = "the namespace `a` is held by `case-7`";
    assert_eq!((done.is_empty(), done.obstacle.as_deref()), (true, Some(why)));
    assert_eq!(snapshots(&house).await.len(), 10);
    assert_eq!(expire(&house, false, true).await.obstacle.as_deref(), Some(why));
    assert!(house.catalog.metastore().remove_hold(&hold.levels, &hold.name).await.unwrap());
    assert_eq!(expire(&house, false, false).await.snapshots, 9);
}

#[tokio::test]
async fn history_is_forgotten_but_for_heads_and_tags_and_its_files_go_early() {
    let house = overgrown(5).await;
    let (catalog, table) = (&house.catalog, ident(TABLE));
    let loaded = catalog.tables().load(&table).await.unwrap();
    let mut snapshots = loaded.metadata.snapshots();
    let second = snapshots.find(|made| made.sequence_number() == 2).unwrap().snapshot_id();
    catalog.refs().create(&table, "kept", RefKind::Tag, Some(second)).await.unwrap();
    let removed = catalog.upkeep().forget_history(&table, 4).await.unwrap();
    assert_eq!((removed.snapshots, removed.obstacle.as_deref()), (3, None));
    assert!(catalog.upkeep().forget_history(&table, 4).await.unwrap().is_empty());
    let after = catalog.tables().load(&table).await.unwrap();
    let mut left: Vec<i64> = after.metadata.snapshots().map(|it| it.sequence_number()).collect();
    left.sort_unstable();
    assert_eq!(left, [2, 5]);

    let folder = catalog.storage().normalize(after.metadata.location()).unwrap();
    let soon = catalog.now_ms() + 1_000;
    let before = catalog.upkeep().deletions_below(&folder, soon).await.unwrap();
    catalog.upkeep().hasten_deletion(&folder, soon).await.unwrap();
    let waiting = catalog.upkeep().deletions_below(&folder, soon).await.unwrap();
    assert_eq!(waiting.files - before.files, removed.files as u64);
    assert_eq!(waiting.held, 0);
    let data = catalog.upkeep().data_deletions_below(&folder, soon).await.unwrap();
    assert_eq!(data.files, 0, "they are of the folder `metadata`");
    house.clock.fetch_add(2_000, Ordering::SeqCst);
    let deleted = catalog.upkeep().delete_obsolete(100).await.unwrap();
    assert!(removed.files <= deleted, "{removed:?} {deleted}");
}

#[tokio::test]
async fn a_snapshot_that_a_later_one_is_compared_with_outlasts_the_history() {
    let house = overgrown(4).await;
    let (catalog, table) = (&house.catalog, ident(TABLE));
    // As one of another engine: nobody summed up its rows.
    catalog.add_snapshot(&table, NewSnapshot::default()).await.unwrap();
    append(catalog, 6).await;
    let left = async || {
        let loaded = catalog.tables().load(&table).await.unwrap();
        let numbers = loaded.metadata.snapshots().map(|made| made.sequence_number());
        let mut numbers: Vec<i64> = numbers.collect();
        numbers.sort_unstable();
        numbers
    };
    // It came after the look at the table of which the history goes.
    assert_eq!(catalog.upkeep().forget_history(&table, 4).await.unwrap().snapshots, 3);
    assert_eq!(left().await, [4, 5, 6]);
    assert_eq!(catalog.upkeep().forget_history(&table, 6).await.unwrap().snapshots, 2);
    assert_eq!(left().await, [6]);
}

/// Longer than a lease is, with what it is longer for the loads of its time.
const LEASE_OVER_MS: i64 = SNAPSHOT_LEASE_MS + 60_000;

/// Has a client load the table, and gives the snapshot that it got.
async fn loaded_by_client(house: &House) -> i64 {
    let loaded = house.catalog.tables().load(&ident(TABLE)).await.unwrap();
    house.catalog.lease(&loaded).await;
    loaded.metadata.current_snapshot_id().unwrap()
}

#[tokio::test]
async fn what_a_client_loaded_and_what_came_after_it_stay_until_its_lease_ends() {
    let house = overgrown(100).await;
    let leased = loaded_by_client(&house).await;
    for position in 101..=600 {
        append(&house.catalog, position).await;
        house.clock.fetch_add(1_000, Ordering::SeqCst);
    }
    // Another process over the same metastore does it.
    assert!(0 < house.other.upkeep().thin(&ident(TABLE)).await.unwrap());
    let after = house.other.tables().load(&ident(TABLE)).await.unwrap();
    let line: Vec<i64> =
        crate::ancestors::of(&after.metadata, after.metadata.current_snapshot_id())
            .map(|snapshot| snapshot.snapshot_id())
            .collect();
    assert_eq!(line.iter().position(|id| *id == leased), Some(500), "none between is gone");
    assert!(after.metadata.snapshots().len() < 550);

    house.clock.fetch_add(LEASE_OVER_MS, Ordering::SeqCst);
    for position in 601..=660 {
        append(&house.catalog, position).await;
        house.clock.fetch_add(1_000, Ordering::SeqCst);
    }
    assert!(0 < house.other.upkeep().thin(&ident(TABLE)).await.unwrap());
    assert!(!snapshots(&house).await.contains(&leased));
}

#[tokio::test]
async fn a_snapshot_that_a_client_loads_meanwhile_stays() {
    let house = overgrown(560).await;
    let table = ident(TABLE);
    let loaded = house.catalog.tables().load(&table).await.unwrap();
    let (metadata, none) = (&loaded.metadata, LeasedSnapshots::default());
    let goes = retention::snapshots_to_remove(metadata, &none, metadata.last_updated_ms())[0];
    let until_ms = house.catalog.now_ms() + SNAPSHOT_LEASE_MS;
    let lease = SnapshotLease { snapshot_id: goes, until_ms, line_until_ms: 0 };
    let leases = async {
        let store = house.other.metastore();
        store.lease_snapshots(metadata.uuid(), &[lease]).await.unwrap();
    };
    let (removed, turns) = Box::pin(thinned_around(&house, leases)).await;
    assert!(0 < removed);
    assert_eq!(turns, 2, "what goes is worked out once more");
    assert!(snapshots(&house).await.contains(&goes));
}

#[tokio::test]
async fn expiry_and_erasure_wait_for_leases() {
    let house = overgrown(3).await;
    let table = ident(TABLE);
    let leased = loaded_by_client(&house).await;
    for position in 4..=6 {
        append(&house.catalog, position).await;
        house.clock.fetch_add(1_000, Ordering::SeqCst);
    }
    let upkeep = house.catalog.upkeep();
    let removed = upkeep.forget_history(&table, 6).await.unwrap();
    assert_eq!(removed.snapshots, 2, "but for the leased one and those after it");
    assert!(snapshots(&house).await.contains(&leased));
    house.catalog.commit(set(TABLE, MAX_SNAPSHOT_AGE, "1")).await.unwrap();
    assert!(expire(&house, false, false).await.is_empty());
    let until = upkeep.leased_until(&table, house.catalog.now_ms()).await.unwrap().unwrap();
    assert!(house.catalog.now_ms() < until && until <= house.catalog.now_ms() + LEASE_OVER_MS);
    assert_eq!(upkeep.leased_until(&table, 1_000).await.unwrap(), None, "none is so old");

    house.clock.fetch_add(LEASE_OVER_MS, Ordering::SeqCst);
    assert_eq!(upkeep.leased_until(&table, house.catalog.now_ms()).await.unwrap(), None);
    assert_eq!(upkeep.forget_history(&table, 6).await.unwrap().snapshots, 3);
    assert_eq!(snapshots(&house).await.len(), 1);
    upkeep.forget_records().await.unwrap();
    let uuid = house.catalog.tables().load(&table).await.unwrap().metadata.uuid();
    assert!(house.catalog.metastore().snapshot_leases(uuid, 0).await.unwrap().is_empty());
}
