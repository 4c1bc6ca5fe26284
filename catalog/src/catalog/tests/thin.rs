//! Thinning beside other commits.

use super::*;
use crate::{
    catalog::RefKind,
    metastore::Watermark,
    retention::{self, SNAPSHOTS_MAX},
    snapshot::{MarkMove, NewSnapshot},
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
    for position in 1..=snapshots {
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
    let goes =
        retention::snapshots_to_remove(&loaded.metadata, loaded.metadata.last_updated_ms())[0];
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
