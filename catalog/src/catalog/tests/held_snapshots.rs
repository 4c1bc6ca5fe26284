//! Snapshots of the service's tables that a client's own expiry has to leave.

use super::*;
use crate::{
    catalog::SNAPSHOT_LEASE_MS,
    metastore::{holds::LegalHold, tests::stores},
    retention::MANAGED,
};

/// Longer than a lease is, with what it is longer for the loads of its time.
const LEASE_OVER_MS: i64 = SNAPSHOT_LEASE_MS + 60_000;

/// Adds an empty snapshot to a table, and gives its id.
async fn append(house: &House, dotted: &str) -> i64 {
    let table = ident(dotted);
    house.catalog.add_snapshot(&table, NewSnapshot::default()).await.unwrap();
    house.clock.fetch_add(1_000, Ordering::SeqCst);
    let loaded = house.catalog.tables().load(&table).await.unwrap();
    loaded.metadata.current_snapshot_id().unwrap()
}

/// Has a client load a table.
async fn load(house: &House, dotted: &str) {
    let loaded = house.catalog.tables().load(&ident(dotted)).await.unwrap();
    house.catalog.lease(&loaded).await;
}

fn removal(dotted: &str, ids: &[i64]) -> TableChange {
    change(dotted, json!([]), json!([{"action": "remove-snapshots", "snapshot-ids": ids}]))
}

/// Has a client remove snapshots, as engines do when they expire them; by another process.
async fn remove(house: &House, dotted: &str, ids: &[i64]) -> Result<usize, CatalogError> {
    let made = house.other.commit(removal(dotted, ids)).await?;
    Ok(made.metadata.snapshots().len())
}

/// Why they are not removed, alone or with changes of other tables.
async fn refused(house: &House, ids: &[i64]) -> String {
    let all = house.other.commit_all(vec![removal("a.events", ids)]).await;
    assert!(matches!(all, Err(CatalogError::CommitFailed(_))), "{all:?}");
    match remove(house, "a.events", ids).await {
        Err(CatalogError::CommitFailed(text)) => text,
        other => panic!("{other:?}"),
    }
}

async fn house_with_events(metastore: Metastore) -> House {
    let house = house_over(tempfile::tempdir().unwrap(), metastore).await;
    let mut table = new_table("events");
    table.properties.insert(MANAGED.to_owned(), "true".to_owned());
    house.catalog.tables().create(&suite::levels("a"), table).await.unwrap();
    house
}

#[tokio::test]
async fn a_client_removes_no_snapshot_that_another_works_with() {
    for (_kept, metastore) in stores().await {
        let house = house_with_events(metastore).await;
        let (first, leased) = (append(&house, "a.events").await, append(&house, "a.events").await);
        load(&house, "a.events").await;
        let later = append(&house, "a.events").await;
        append(&house, "a.events").await;
        for ids in [vec![leased], vec![later], vec![first, later]] {
            let text = refused(&house, &ids).await;
            let named = if ids.contains(&leased) { leased } else { later };
            assert!(text.contains(&format!("snapshot {named} ")), "{text}");
            // It was loaded two seconds after the clock began, and a lease is half a minute longer than an hour.
            assert!(text.contains("leased until 2023-11-14 23:13:52 UTC"), "{text}");
            assert!(text.contains("that are older than 2023-11-14 22:13:2"), "{text}");
        }
        assert_eq!(remove(&house, "a.events", &[first]).await.unwrap(), 3, "nobody has it");
        // Whoever expires snapshots has loaded the table, and leases the head by that, which stays.
        house.clock.fetch_add(LEASE_OVER_MS, Ordering::SeqCst);
        load(&house, "a.events").await;
        assert_eq!(remove(&house, "a.events", &[leased, later]).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_client_removes_no_snapshot_of_a_namespace_that_is_held() {
    for (_kept, metastore) in stores().await {
        let house = house_with_events(metastore).await;
        let first = append(&house, "a.events").await;
        append(&house, "a.events").await;
        let hold = LegalHold {
            levels: suite::levels("a"),
            name: "case-7".to_owned(),
            reason: None,
            since_ms: 0,
        };
        house.catalog.metastore().set_hold(&hold).await.unwrap();
        let text = refused(&house, &[first]).await;
        assert!(text.contains("the namespace `a` is held by `case-7`"), "{text}");
        assert!(house.catalog.metastore().remove_hold(&hold.levels, &hold.name).await.unwrap());
        assert_eq!(remove(&house, "a.events", &[first]).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_client_removes_snapshots_of_its_own_table_as_it_likes() {
    let house = house().await;
    create(&house.catalog, "a.own").await;
    let first = append(&house, "a.own").await;
    load(&house, "a.own").await;
    append(&house, "a.own").await;
    assert_eq!(remove(&house, "a.own", &[first]).await.unwrap(), 1);
}

#[tokio::test]
async fn a_snapshot_that_a_branch_or_tag_is_at_goes_with_its_name_only() {
    for (_kept, metastore) in stores().await {
        let house = house_with_events(metastore).await;
        create(&house.catalog, "a.own").await;
        for dotted in ["a.events", "a.own"] {
            let (tagged, headed) = (append(&house, dotted).await, append(&house, dotted).await);
            append(&house, dotted).await;
            for (name, kind, id) in [("tg", "tag", tagged), ("br", "branch", headed)] {
                let named = json!([{"action": "set-snapshot-ref", "ref-name": name, "type": kind,
                    "snapshot-id": id}]);
                house.other.commit(change(dotted, json!([]), named)).await.unwrap();
                let sent = removal(dotted, &[id]);
                let alone = house.other.commit(sent.clone()).await.map(drop);
                for refused in [alone, house.other.commit_all(vec![sent]).await] {
                    let Err(CatalogError::CommitFailed(text)) = refused else {
                        panic!("{dotted}: {refused:?}")
                    };
                    let told = format!("the {kind} `{name}` of {dotted} is at snapshot {id},");
                    assert!(text.contains(&told) && text.contains("in the same commit"), "{text}");
                }
                let both = json!([{"action": "remove-snapshot-ref", "ref-name": name},
                    {"action": "remove-snapshots", "snapshot-ids": [id]}]);
                let made = house.other.commit(change(dotted, json!([]), both)).await.unwrap();
                assert!(made.metadata.snapshot_by_id(id).is_none(), "{dotted}");
            }
        }
        // A name that goes elsewhere in the same commit is not lost.
        let (before, head) = (append(&house, "a.own").await, append(&house, "a.own").await);
        let refused = remove(&house, "a.own", &[head]).await;
        let Err(CatalogError::CommitFailed(text)) = refused else { panic!("{refused:?}") };
        assert!(text.contains("the branch `main` of a.own"), "{text}");
        let back = json!([{"action": "set-snapshot-ref", "ref-name": "main", "type": "branch",
            "snapshot-id": before}, {"action": "remove-snapshots", "snapshot-ids": [head]}]);
        let made = house.other.commit(change("a.own", json!([]), back)).await.unwrap();
        assert_eq!(made.metadata.current_snapshot_id(), Some(before));
    }
}

#[tokio::test]
async fn a_name_is_not_set_to_a_snapshot_that_goes_with_the_same_commit() {
    let house = house().await;
    create(&house.catalog, "a.t").await;
    let first = append(&house, "a.t").await;
    append(&house, "a.t").await;
    let set = json!({"action": "set-snapshot-ref", "ref-name": "kept", "type": "tag", "snapshot-id": first});
    let removal = json!({"action": "remove-snapshots", "snapshot-ids": [first]});
    let sent = change("a.t", json!([]), json!([set, removal]));
    let answer = house.catalog.commit(sent.clone()).await;
    let Err(CatalogError::Invalid(text)) = &answer else { panic!("{answer:?}") };
    assert!(text.contains(&format!("Cannot set `kept` to snapshot {first}")), "{text}");
    let all = house.catalog.commit_all(vec![sent]).await;
    assert!(matches!(all, Err(CatalogError::Invalid(_))), "{all:?}");
    let kept = house.catalog.tables().load(&ident("a.t")).await.unwrap();
    assert_eq!(kept.metadata.snapshots().len(), 2);
    assert_eq!(remove(&house, "a.t", &[first]).await.unwrap(), 1);
}
