use super::*;

const MAX: SlotsMax = SlotsMax { all: 4, namespace: 2, token: 3 };

fn asker(namespace: &str, token: Option<&str>) -> QueryOwner {
    QueryOwner { namespace: namespace.to_owned(), token: token.map(str::to_owned) }
}

async fn take(
    slots: &QuerySlots,
    namespace: &str,
    token: Option<&str>,
) -> Result<QuerySlot, SqlError> {
    let signal = QuerySignal::new(Duration::from_millis(20));
    slots.take(&asker(namespace, token), QuerySize::Any, &signal).await
}

async fn check_busy(slots: &QuerySlots, namespace: &str, token: Option<&str>, expected: &str) {
    match take(slots, namespace, token).await {
        Err(SqlError::Busy(text)) => assert!(text.contains(expected), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_namespace_and_one_token_leave_room_for_others() {
    let slots = QuerySlots::new(MAX);
    let a = [take(&slots, "a", None).await.unwrap(), take(&slots, "a", None).await.unwrap()];
    check_busy(&slots, "a", None, "queries of namespace `a` are running (2 in all)").await;
    let b = take(&slots, "b", Some("t")).await.unwrap();
    let c = take(&slots, "c", Some("t")).await.unwrap();
    check_busy(&slots, "d", None, "too many other queries are running (4 in all)").await;
    drop(a);
    let d = take(&slots, "d", Some("t")).await.unwrap();
    check_busy(&slots, "e", Some("t"), "queries of this token").await;
    drop((b, c, d));
    assert_eq!(slots.running(), 0);
    take(&slots, "a", Some("t")).await.unwrap();
    assert!(slots.0.books().groups.len() <= 2, "groups that nobody has are forgotten");
}

#[tokio::test]
async fn a_small_statement_waits_for_none_that_is_not() {
    let slots = QuerySlots::new(SlotsMax { all: 1, namespace: 1, token: 1 });
    let _held = take(&slots, "a", None).await.unwrap();
    let signal = QuerySignal::new(Duration::from_secs(60));
    for _ in 0..10 {
        slots.take(&asker("a", None), QuerySize::Small, &signal).await.unwrap();
    }
}

#[tokio::test]
async fn the_queue_has_a_bound_and_an_order() {
    let slots = QuerySlots::new(SlotsMax { all: 1, namespace: 1, token: 1 });
    let held = take(&slots, "a", None).await.unwrap();
    let signal = QuerySignal::new(Duration::from_secs(60));
    let mut waiting = Vec::new();
    for n in 0..WAITING_NAMESPACE_MAX {
        let (slots, signal) = (slots.clone(), Arc::clone(&signal));
        let take = async move {
            let slot = slots.take(&asker("a", None), QuerySize::Any, &signal).await;
            slot.map(|_| n)
        };
        let mut take = Box::pin(take);
        assert!(futures::poll!(&mut take).is_pending());
        waiting.push(take);
    }
    assert_eq!(slots.waiting(), WAITING_NAMESPACE_MAX);
    check_busy(&slots, "a", None, "16 queries are already waiting for a slot").await;
    drop(held);
    for (n, take) in waiting.into_iter().enumerate() {
        assert_eq!(take.await.unwrap(), n);
    }
    assert_eq!(slots.waiting(), 0);
    assert!(slots.0.books().waiting.is_empty());
}

#[tokio::test]
async fn a_query_that_goes_on_after_its_end_is_counted() {
    let slots = QuerySlots::new(SlotsMax { all: 3, namespace: 3, token: 3 });
    let (soon, left) =
        (QuerySignal::new(Duration::from_secs(60)), QuerySignal::new(Duration::from_secs(90)));
    let mut held = Vec::new();
    for signal in [&soon, &left, &soon] {
        held.push(slots.take(&asker("a", None), QuerySize::Any, signal).await.unwrap());
    }
    left.leave();
    assert_eq!((slots.running(), slots.stuck()), (3, 0));
    let past = QuerySignal::since(Instant::now() - STUCK_AFTER * 2, Duration::ZERO);
    for (_, signal) in slots.0.books().running.values_mut().take(2) {
        *signal = Arc::clone(&past);
    }
    assert_eq!(slots.stuck(), 2);
    check_busy(&slots, "a", None, "(3 in all, 2 of them past their deadline)").await;
}

#[test]
fn a_statement_is_small_when_it_has_no_table() {
    let size = |sql: &str| QuerySize::of(&icecore_engine::guard::check(sql).unwrap());
    for sql in ["SELECT 1", "SELECT 1 UNION ALL SELECT 2 + 3", "SELECT upper('x') WHERE 1 = 1"] {
        assert_eq!(size(sql), QuerySize::Small, "{sql}");
    }
    for sql in [
        "SELECT 1 FROM events",
        "SELECT (SELECT count(*) FROM events)",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM events)",
        "WITH t AS (SELECT 1 AS n) SELECT n FROM t",
        "SELECT * FROM (VALUES (1)) a, (VALUES (1)) b",
        "SHOW TABLES",
    ] {
        assert_eq!(size(sql), QuerySize::Any, "{sql}");
    }
}
