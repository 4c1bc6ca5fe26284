use crate::metastore::{
    Levels, Metastore, Properties, SwapOutcome, Watermark,
    owner::{Claim, LogMark, LogOwner, SEQ_MARGIN},
    suite::swap,
    tests::{database, stores},
};
use uuid::Uuid;

const MARGIN: u64 = SEQ_MARGIN.cast_unsigned();

fn log(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

async fn with_table(store: &Metastore) -> Uuid {
    let levels: Levels = vec!["a".to_owned()];
    store.create_namespace(&levels, &Properties::new()).await.unwrap();
    store.create_table(&levels, "events", log(77), "m").await.unwrap();
    log(77)
}

/// Moves the table's watermark under an epoch.
async fn moved(store: &Metastore, table: Uuid, epoch: u64, position: u64) -> SwapOutcome {
    let version = store.table_by_uuid(table).await.unwrap().unwrap().version;
    let mut swap = swap(table, version, &format!("m{epoch}-{position}"));
    swap.watermark = Some(Watermark { epoch, position, last_seq: position });
    store.commit(&[swap]).await.unwrap()
}

fn mark(position: u64) -> LogMark {
    LogMark { namespace: "a".to_owned(), table: "events".to_owned(), position }
}

#[tokio::test]
async fn the_first_log_owns_the_events_and_stays_the_owner() {
    for (_folder, store) in stores().await {
        assert_eq!(store.log_owner().await.unwrap(), None);
        let first = store.own_log(log(1), Claim::New).await.unwrap();
        assert_eq!(first, LogOwner { log: log(1), since: 1, epoch: 1, seq_after: 0 });
        let again = store.own_log(log(1), Claim::Known).await.unwrap();
        assert_eq!(again, LogOwner { epoch: 2, ..first });
        for claim in [Claim::New, Claim::Known] {
            let other = store.own_log(log(2), claim).await.unwrap();
            assert_eq!(other, again, "nothing changes for {claim:?}");
        }
        assert_eq!(store.log_owner().await.unwrap(), Some(again));
    }
}

#[tokio::test]
async fn who_takes_over_begins_above_everything_and_deposes_the_one_before() {
    for (_folder, store) in stores().await {
        let table = with_table(&store).await;
        let old = store.own_log(log(1), Claim::New).await.unwrap();
        assert_eq!(moved(&store, table, old.epoch, 10).await, SwapOutcome::Done);
        let new = store.own_log(log(2), Claim::TakeOver).await.unwrap();
        assert!(old.epoch < new.since && new.since == new.epoch, "{new:?}");
        assert_eq!(new.seq_after, 10 + MARGIN);
        // Before the new owner has committed anything at all.
        assert_eq!(moved(&store, table, old.epoch, 20).await, SwapOutcome::Deposed(table));
        assert_eq!(store.own_log(log(1), Claim::Known).await.unwrap(), new);
        assert_eq!(moved(&store, table, new.epoch, 3).await, SwapOutcome::Done);
        // An owner that came to nothing may have given out what no table has.
        let third = store.own_log(log(3), Claim::TakeOver).await.unwrap();
        assert_eq!(third.seq_after, new.seq_after + MARGIN);
        assert_eq!(store.log_marks(log(1)).await.unwrap(), [mark(10)]);
        assert_eq!(store.log_marks(log(2)).await.unwrap(), [mark(3)]);
        assert_eq!(store.log_marks(log(3)).await.unwrap(), []);
        assert_eq!(moved(&store, table, third.epoch, 4).await, SwapOutcome::Done);
        assert_eq!(store.log_marks(log(3)).await.unwrap(), [mark(4)]);
        assert_eq!(store.log_marks(log(4)).await.unwrap(), []);
    }
}

#[tokio::test]
async fn an_earlier_life_of_the_same_log_moves_nothing() {
    for (_folder, store) in stores().await {
        let table = with_table(&store).await;
        let first = store.own_log(log(1), Claim::New).await.unwrap();
        let second = store.own_log(log(1), Claim::Known).await.unwrap();
        assert_eq!(moved(&store, table, first.epoch, 1).await, SwapOutcome::Deposed(table));
        assert_eq!(moved(&store, table, second.epoch, 1).await, SwapOutcome::Done);
    }
}

#[tokio::test]
async fn tables_of_before_there_were_owners_belong_to_the_log_that_was_there() {
    for (_folder, store) in stores().await {
        let table = with_table(&store).await;
        assert_eq!(moved(&store, table, 5, 10).await, SwapOutcome::Done);
        let owner = store.own_log(log(1), Claim::Known).await.unwrap();
        assert_eq!((owner.since, owner.seq_after), (0, 0));
        assert_eq!(store.log_marks(log(1)).await.unwrap(), [mark(10)]);
    }
    for (_folder, store) in stores().await {
        let table = with_table(&store).await;
        assert_eq!(moved(&store, table, 0, 10).await, SwapOutcome::Done);
        let owner = store.own_log(log(1), Claim::New).await.unwrap();
        assert_eq!((owner.since, owner.seq_after), (owner.epoch, 10 + MARGIN));
        assert_eq!(store.log_marks(log(1)).await.unwrap(), []);
    }
}

#[tokio::test]
async fn of_many_logs_that_come_first_one_owns() {
    let mut stores = stores().await;
    if let Some(url) = database().await {
        stores.push((None, Metastore::postgres(&url).await.unwrap()));
    }
    for (_folder, store) in stores {
        let claims = (1..=8).map(|n| store.own_log(log(n), Claim::New));
        let owners: Vec<LogOwner> =
            futures::future::join_all(claims).await.into_iter().map(Result::unwrap).collect();
        assert!(owners.iter().all(|owner| owner == &owners[0]), "{owners:?}");
    }
}

#[tokio::test]
async fn a_commit_that_races_a_take_over_is_before_it_or_is_refused() {
    for (_folder, store) in stores().await {
        let table = with_table(&store).await;
        let mut owner = store.own_log(log(1), Claim::New).await.unwrap();
        for n in 2..12 {
            let former = owner.log;
            let position = u64::try_from(n).unwrap();
            let (outcome, taken) = tokio::join!(
                moved(&store, table, owner.epoch, position),
                store.own_log(log(n), Claim::TakeOver)
            );
            owner = taken.unwrap();
            let expected = match outcome {
                SwapOutcome::Done => vec![mark(position)],
                SwapOutcome::Deposed(_) => Vec::new(),
                other => panic!("{other:?}"),
            };
            assert_eq!(store.log_marks(former).await.unwrap(), expected);
        }
    }
}
