use super::*;
use crate::metastore::{
    Levels, Properties, SwapOutcome, Watermark,
    suite::swap,
    tests::{database, stores},
};

fn holder(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// Raises the fence for a holder, who keeps what it has when it holds it already.
pub(crate) fn held_by(n: u128) -> impl FnOnce(FenceRaise) -> Fence {
    move |FenceRaise { held, epoch, last_seq }| match held {
        Some(held) if held.holder == holder(n) => Fence { epoch, ..held },
        _ => Fence { holder: holder(n), since: epoch, epoch, base: last_seq },
    }
}

async fn with_table(store: &Metastore) -> Uuid {
    let levels: Levels = vec!["a".to_owned()];
    store.create_namespace(&levels, &Properties::new()).await.unwrap();
    store.create_table(&levels, "events", holder(77), "m").await.unwrap();
    holder(77)
}

/// Moves the table's watermark under an epoch.
async fn moved(store: &Metastore, table: Uuid, epoch: u64, position: u64) -> SwapOutcome {
    let version = store.table_by_uuid(table).await.unwrap().unwrap().version;
    let mut swap = swap(table, version, &format!("m{epoch}-{position}"));
    swap.watermark = Some(Watermark { epoch, position, last_seq: position });
    store.commit(&[swap]).await.unwrap()
}

fn mark(position: u64) -> HolderMark {
    HolderMark { namespace: "a".to_owned(), table: "events".to_owned(), position }
}

#[tokio::test]
async fn a_holder_keeps_the_fence_until_another_one_raises_it() {
    for (_folder, store) in stores().await {
        assert_eq!(store.fence().await.unwrap(), None);
        let first = store.raise_fence(held_by(1)).await.unwrap();
        assert_eq!(first, Fence { holder: holder(1), since: 1, epoch: 1, base: 0 });
        let again = store.raise_fence(held_by(1)).await.unwrap();
        assert_eq!(again, Fence { epoch: 2, ..first });
        // Who gives back what is there changes nothing, and takes no epoch.
        assert_eq!(store.raise_fence(|raise| raise.held.unwrap()).await.unwrap(), again);
        assert_eq!(store.fence().await.unwrap(), Some(again));
        assert_eq!(store.raise_fence(held_by(1)).await.unwrap().epoch, 3);
    }
}

#[tokio::test]
async fn who_raises_the_fence_deposes_the_holder_before() {
    for (_folder, store) in stores().await {
        let table = with_table(&store).await;
        let old = store.raise_fence(held_by(1)).await.unwrap();
        assert_eq!(moved(&store, table, old.epoch, 10).await, SwapOutcome::Done);
        let new = store.raise_fence(held_by(2)).await.unwrap();
        assert!(old.epoch < new.since && new.since == new.epoch, "{new:?}");
        assert_eq!(new.base, 10);
        // Before the new holder has committed anything at all.
        assert_eq!(moved(&store, table, old.epoch, 20).await, SwapOutcome::Deposed(table));
        assert_eq!(moved(&store, table, new.epoch, 3).await, SwapOutcome::Done);
        let third = store.raise_fence(held_by(3)).await.unwrap();
        assert_eq!(store.marks_of(holder(1)).await.unwrap(), [mark(10)]);
        assert_eq!(store.marks_of(holder(2)).await.unwrap(), [mark(3)]);
        assert_eq!(store.marks_of(holder(3)).await.unwrap(), []);
        assert_eq!(moved(&store, table, third.epoch, 4).await, SwapOutcome::Done);
        assert_eq!(store.marks_of(holder(3)).await.unwrap(), [mark(4)]);
        assert_eq!(store.marks_of(holder(4)).await.unwrap(), []);
    }
}

#[tokio::test]
async fn an_earlier_epoch_of_the_same_holder_moves_nothing() {
    for (_folder, store) in stores().await {
        let table = with_table(&store).await;
        let first = store.raise_fence(held_by(1)).await.unwrap();
        let second = store.raise_fence(held_by(1)).await.unwrap();
        assert_eq!(moved(&store, table, first.epoch, 1).await, SwapOutcome::Deposed(table));
        assert_eq!(moved(&store, table, second.epoch, 1).await, SwapOutcome::Done);
    }
}

/// A metastore as the program before had it: the fence lies in `log_owner`.
#[tokio::test]
async fn a_fence_of_an_earlier_layout_holds_and_its_marks_are_there() {
    for (_folder, store) in stores().await {
        let table = with_table(&store).await;
        let position = 10;
        let back = "DROP TABLE fences; DROP TABLE former_marks; DROP TABLE row_accounts; DROP TABLE orphans;
                    DROP TABLE holds; DROP TABLE snapshot_leases; DROP TABLE writer_loads;
                    DELETE FROM layout WHERE 16 <= step;";
        let rows = "INSERT INTO log_owner VALUES
                        ('owner', '00000000-0000-0000-0000-000000000002', 4, 6, 70);
                    INSERT INTO log_marks VALUES
                        ('00000000-0000-0000-0000-000000000001', 'a', 'events', 9);
                    UPDATE counters SET value = 6 WHERE name = 'epoch';";
        for statements in [back, &store.database.dialect.adapted(STEP), rows] {
            sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
                .execute(&store.database.writer)
                .await
                .unwrap();
        }
        let store = store.made().await.unwrap();
        let held = Fence { holder: holder(2), since: 4, epoch: 6, base: 70 };
        assert_eq!(store.fence().await.unwrap(), Some(held));
        assert_eq!(store.marks_of(holder(1)).await.unwrap(), [mark(9)]);
        assert_eq!(moved(&store, table, 5, position).await, SwapOutcome::Deposed(table));
        assert_eq!(moved(&store, table, 6, position).await, SwapOutcome::Done);
        assert_eq!(store.marks_of(holder(2)).await.unwrap(), [mark(position)]);
        let again = store.raise_fence(held_by(2)).await.unwrap();
        assert_eq!(again, Fence { epoch: 7, ..held });
    }
}

#[tokio::test]
async fn of_many_that_come_first_one_holds_the_fence() {
    let mut stores = stores().await;
    if let Some(url) = database().await {
        stores.push((None, Metastore::postgres(&url).await.unwrap()));
    }
    for (_folder, store) in stores {
        let first = |n| move |raise: FenceRaise| raise.held.unwrap_or_else(|| held_by(n)(raise));
        let raised = (1..=8).map(|n| store.raise_fence(first(n)));
        let fences: Vec<Fence> =
            futures::future::join_all(raised).await.into_iter().map(Result::unwrap).collect();
        assert!(fences.iter().all(|fence| fence == &fences[0]), "{fences:?}");
    }
}

#[tokio::test]
async fn a_commit_that_races_a_raise_is_before_it_or_is_refused() {
    for (_folder, store) in stores().await {
        let table = with_table(&store).await;
        let mut fence = store.raise_fence(held_by(1)).await.unwrap();
        for n in 2..12 {
            let former = fence.holder;
            let position = u64::try_from(n).unwrap();
            let (outcome, raised) = tokio::join!(
                moved(&store, table, fence.epoch, position),
                store.raise_fence(held_by(n))
            );
            fence = raised.unwrap();
            let expected = match outcome {
                SwapOutcome::Done => vec![mark(position)],
                SwapOutcome::Deposed(_) => Vec::new(),
                other => panic!("{other:?}"),
            };
            assert_eq!(store.marks_of(former).await.unwrap(), expected);
        }
    }
}
