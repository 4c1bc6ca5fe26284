use super::*;
use crate::{
    audit::ChainCheck,
    metastore::{
        Metastore, Properties,
        faults::CommitFault,
        tests::{database, sqlite, stores},
    },
};
use std::sync::Arc;

fn writing(n: usize) -> AuditWrite {
    let entry = AuditEntry {
        time_ms: 5,
        principal: "token:a".to_owned(),
        address: "127.0.0.1".to_owned(),
        request: format!("r{n}"),
        action: "POST /v1/namespaces".to_owned(),
        object: "shop".to_owned(),
        outcome: "200".to_owned(),
        details: String::new(),
    };
    AuditWrite { key: format!("key-{n}"), entry }
}

/// Whether the whole chain holds, read in small pages.
async fn verify(store: &Metastore) -> Result<i64, String> {
    verify_with(store, None).await
}

async fn verify_with(store: &Metastore, expected: Option<ChainHead>) -> Result<i64, String> {
    let mut check = ChainCheck::new(store.audit_ends().await.unwrap(), expected);
    loop {
        let records = store.audit(check.after(), 3).await.unwrap();
        if !check.page(&records).map_err(|broken| broken.to_string())? {
            break;
        }
    }
    check.finish().map(|head| head.number).map_err(|broken| broken.to_string())
}

#[tokio::test]
async fn a_head_that_was_kept_shows_a_chain_that_was_written_anew() {
    let (_folder, store) = sqlite().await;
    store.append_audit(&[1, 2, 3, 4].map(writing)).await.unwrap();
    let kept = ChainHead { number: 3, hash: store.audit(2, 1).await.unwrap()[0].hash.clone() };
    assert_eq!(verify_with(&store, Some(kept.clone())).await, Ok(4));
    store.tamper("DELETE FROM audit; UPDATE audit_head SET number = 0, hash = ''").await;
    let anew = "record 3 does not have the expected hash";
    assert_eq!(verify_with(&store, Some(kept.clone())).await.unwrap_err(), anew);
    store.append_audit(&[5, 6, 7, 8].map(writing)).await.unwrap();
    assert_eq!(verify(&store).await, Ok(4));
    assert_eq!(verify_with(&store, Some(kept)).await.unwrap_err(), anew);
}

#[tokio::test]
async fn many_processes_write_one_chain() {
    for (_folder, store) in stores().await {
        let writers = (0..8).map(|n| {
            let store = store.clone();
            async move { store.append_audit(&[writing(2 * n), writing(2 * n + 1)]).await }
        });
        for written in futures::future::join_all(writers).await {
            written.unwrap();
        }
        assert_eq!(verify(&store).await, Ok(16));
    }
}

#[tokio::test]
async fn a_record_whose_commit_had_no_answer_is_not_written_twice() {
    for (_folder, store) in stores().await {
        store.append_audit(&[writing(1)]).await.unwrap();
        store.append_audit(&[writing(1), writing(2)]).await.unwrap();
        assert_eq!(verify(&store).await, Ok(2));
    }
}

#[tokio::test]
async fn a_changed_removed_or_moved_record_breaks_the_chain() {
    let damages = [
        ("UPDATE audit SET outcome = '403' WHERE number = 2", "record 2 or the one before it was"),
        ("UPDATE audit SET time_ms = 6 WHERE number = 3", "record 3 or the one before it was"),
        ("UPDATE audit SET hash = 'ff' WHERE number = 1", "record 1 or the one before it was"),
        ("DELETE FROM audit WHERE number = 2", "record 2 is missing: the next record has"),
        ("DELETE FROM audit WHERE number = 1", "record 1 is missing"),
        ("DELETE FROM audit WHERE number = 4", "the log ends at record"),
        (
            "DELETE FROM audit WHERE number = 2; UPDATE audit SET number = number - 1 \
             WHERE number > 2",
            "record 2 or the one before it was",
        ),
        (
            "UPDATE audit SET number = 9 WHERE number = 2; \
             UPDATE audit SET number = 2 WHERE number = 3; \
             UPDATE audit SET number = 3 WHERE number = 9",
            "record 2 or the one before it was",
        ),
        ("UPDATE audit_head SET hash = 'ff'", "the log ends at record"),
    ];
    for (damage, expected) in damages {
        let (_folder, store) = sqlite().await;
        store.append_audit(&[1, 2, 3, 4].map(writing)).await.unwrap();
        assert_eq!(verify(&store).await, Ok(4));
        store.tamper(damage).await;
        let found = verify(&store).await.unwrap_err();
        assert!(found.starts_with(expected), "{damage}: {found}");
    }
}

fn call(object: &str) -> Arc<AuditedCall> {
    let entry = AuditEntry { object: object.to_owned(), ..writing(0).entry };
    AuditedCall::new(entry, Arc::new(|| 7))
}

/// How often a namespace is there, in the feed, and in the log: of one moment.
async fn traces(store: &Metastore, name: &str) -> (i64, i64, i64) {
    sqlx::query_as(
        "SELECT (SELECT count(*) FROM namespaces WHERE path = $1),
                (SELECT count(*) FROM outbox WHERE operation LIKE $2),
                (SELECT count(*) FROM audit WHERE object = $1)",
    )
    .bind(name)
    .bind(format!("%[\"{name}\"]%"))
    .fetch_one(&store.database.readers)
    .await
    .unwrap()
}

/// How often each change is made anew: how many steps it takes depends on how fast the database
/// answers, so one time shows only some of the places where it can be cut off.
const ROUNDS: usize = 8;

/// The step that is cut off may be any, that of the COMMIT too.
#[tokio::test]
async fn a_change_is_there_with_its_record_or_not_at_all_wherever_it_is_cut_off() {
    for (_folder, store) in stores().await {
        let mut cut_off = 0;
        for round in 0..ROUNDS {
            let mut steps = 0;
            while !is_done_in(&store, &format!("n{round}_{steps}"), steps).await {
                steps += 1;
            }
            cut_off += steps;
        }
        assert!(ROUNDS < cut_off, "{cut_off}");
        let head = store.audit_ends().await.unwrap().head.number;
        assert_eq!(verify(&store).await, Ok(head));
        assert!(0 < head);
    }
}

/// Makes a namespace, which ends after so many steps if it is not done before; whether it was.
async fn is_done_in(store: &Metastore, name: &str, steps: usize) -> bool {
    let (levels, call) = (vec![name.to_owned()], call(name));
    let store = store.for_call(&call);
    let properties = Properties::new();
    let mut change = Box::pin(store.create_namespace(&levels, &properties));
    let mut polls = 0;
    let ended = std::future::poll_fn(|context| {
        if polls == steps {
            return std::task::Poll::Ready(None);
        }
        polls += 1;
        change.as_mut().poll(context).map(Some)
    })
    .await;
    drop(change);
    let found = traces(&store, name).await;
    assert!([(0, 0, 0), (1, 1, 1)].contains(&found), "cut off at {steps}: {found:?}");
    ended.is_some()
}

#[tokio::test]
async fn a_change_whose_commit_is_not_answered_has_one_record() {
    for (_folder, store) in stores().await {
        let access = crate::access::AccessControl::recorded(store.clone(), Arc::new(|| 7));
        let recorder = access.recorder().unwrap();
        for (name, fault, expected) in [
            ("before", CommitFault::Before, ("500", (0, 0, 1))),
            ("after", CommitFault::After, ("done", (1, 1, 1))),
            ("deaf", CommitFault::Deaf, ("done", (1, 1, 1))),
        ] {
            let entry = AuditEntry { object: name.to_owned(), ..writing(0).entry };
            let recording = recorder.begin(entry).unwrap();
            store.faults.set(fault);
            let change = store.for_call(recording.call());
            let made = change.create_namespace(&vec![name.to_owned()], &Properties::new()).await;
            recording.end(if made.is_ok() { 200 } else { 500 }).await;
            let record = store.audit(0, 10).await.unwrap().pop().unwrap();
            assert_eq!(
                (record.entry.outcome.as_str(), record.entry.object.as_str()),
                (expected.0, name)
            );
            assert_eq!(traces(&store, name).await, expected.1, "{name}");
        }
        assert_eq!(verify(&store).await, Ok(3));
    }
}

#[tokio::test]
async fn two_processes_that_change_and_refuse_at_once_write_one_chain() {
    const CALLS: usize = 12;
    let (folder, one) = sqlite().await;
    let other = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    let mut pairs = vec![(one, other)];
    if let Some(url) = database().await {
        let open = async || Metastore::postgres(&url).await.unwrap();
        pairs.push((open().await, open().await));
    }
    for (one, other) in pairs {
        let writers = (0..CALLS)
            .flat_map(|n| [(one.clone(), format!("one{n}")), (other.clone(), format!("other{n}"))]);
        let writers = writers.enumerate().map(|(n, (store, name))| async move {
            let change = store.for_call(&call(&name));
            change.create_namespace(&vec![name], &Properties::new()).await.unwrap();
            store.append_audit(&[writing(n)]).await.unwrap();
        });
        futures::future::join_all(writers).await;
        let records = 4 * i64::try_from(CALLS).unwrap();
        assert_eq!((verify(&one).await, verify(&other).await), (Ok(records), Ok(records)));
    }
}

#[tokio::test]
async fn what_the_service_does_by_itself_has_no_record() {
    let (_folder, store) = sqlite().await;
    store.create_namespace(&vec!["a".to_owned()], &Properties::new()).await.unwrap();
    assert_eq!(store.events(0, 10).await.unwrap().len(), 1);
    assert_eq!(store.audit_ends().await.unwrap(), ChainEnds::default());
}

const DAY_MS: i64 = 24 * 3_600_000;

/// A log with a record every six hours for four days.
async fn aged(store: &Metastore) {
    for n in 0..16 {
        let mut one = writing(n);
        one.entry.time_ms = i64::try_from(n).unwrap() * DAY_MS / 4;
        store.append_audit(&[one]).await.unwrap();
    }
}

#[tokio::test]
async fn old_records_are_cut_and_the_rest_still_verifies() {
    for (_folder, store) in stores().await {
        aged(&store).await;
        let kept = |number: i64, records: &[ChainRecord]| ChainHead {
            number,
            hash: records[usize::try_from(number).unwrap() - 1].hash.clone(),
        };
        let records = store.audit(0, 100).await.unwrap();
        store.cut_audit(DAY_MS - 1, 99 * DAY_MS).await.unwrap();
        assert_eq!(store.audit(0, 100).await.unwrap().len(), 16, "less than a day is too old");

        store.cut_audit(2 * DAY_MS, 99 * DAY_MS).await.unwrap();
        let left = store.audit(0, 100).await.unwrap();
        let numbers: Vec<i64> = left.iter().map(|one| one.number).collect();
        assert_eq!(numbers, (9..=17).collect::<Vec<_>>());
        let told = &left[8].entry;
        assert_eq!((told.action.as_str(), told.object.as_str()), (CUT, "1 to 8"));
        assert_eq!(told.time_ms, 99 * DAY_MS);
        assert_eq!(verify(&store).await, Ok(17));
        let check = async |number| verify_with(&store, Some(kept(number, &records))).await;
        assert_eq!(
            check(7).await.unwrap_err(),
            "record 7 was deleted because of its age: expect a later one"
        );
        for number in [8, 9, 16] {
            assert_eq!(check(number).await, Ok(17), "{number}");
        }
        for number in [8, 9] {
            let wrong = ChainHead { number, hash: "ff".to_owned() };
            let found = verify_with(&store, Some(wrong)).await.unwrap_err();
            assert_eq!(found, format!("record {number} does not have the expected hash"));
        }
        store.append_audit(&[writing(16)]).await.unwrap();
        store.cut_audit(2 * DAY_MS, 99 * DAY_MS).await.unwrap();
        assert_eq!(verify(&store).await, Ok(18), "nothing was old enough again");

        // Everything may be too old.
        store.cut_audit(200 * DAY_MS, 200 * DAY_MS).await.unwrap();
        assert_eq!(verify(&store).await, Ok(19));
        assert_eq!(store.audit(0, 100).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_cut_that_no_record_tells_of_shows() {
    let (_folder, store) = sqlite().await;
    aged(&store).await;
    store
        .tamper(
            "UPDATE audit_start SET number = 3, hash = (SELECT hash FROM audit WHERE number = 3);
             DELETE FROM audit WHERE number <= 3",
        )
        .await;
    let found = verify(&store).await.unwrap_err();
    assert_eq!(found, "the records up to 3 are gone, and no record says that they were cut");
    store.tamper("UPDATE audit_start SET hash = 'ff'").await;
    let found = verify(&store).await.unwrap_err();
    assert_eq!(found, "record 4 or the one before it was changed: its hash does not match");
}

#[tokio::test]
async fn the_newest_records_of_a_range_come_with_the_hash_before_them() {
    for (_folder, store) in stores().await {
        aged(&store).await;
        let all = store.audit(0, 100).await.unwrap();
        let check = async |range: AuditRange, limit, expected: &[i64]| {
            let found = store.newest_audit(range, limit).await.unwrap();
            let numbers: Vec<i64> = found.iter().map(|one| one.record.number).collect();
            assert_eq!(numbers, expected, "{range:?}");
            for one in found {
                let before = usize::try_from(one.record.number).unwrap().checked_sub(2);
                let hash = before.map_or("", |before| all[before].hash.as_str());
                assert_eq!(one.previous_hash, hash);
            }
        };
        let all = AuditRange::default();
        check(all, 3, &[16, 15, 14]).await;
        check(AuditRange { numbers: (0, 3), ..all }, 9, &[3, 2, 1]).await;
        check(AuditRange { times_ms: (DAY_MS, DAY_MS + DAY_MS / 2), ..all }, 9, &[7, 6, 5]).await;
        check(AuditRange { numbers: (6, 9), times_ms: (0, DAY_MS + DAY_MS / 2) }, 9, &[7, 6]).await;
    }
}
