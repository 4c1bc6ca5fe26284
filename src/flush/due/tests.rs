use super::*;

const MINUTES_5: Duration = Duration::from_secs(300);

#[test]
fn rows_that_nobody_reads_wait_long_and_no_longer_than_they_may() {
    let ages = CommitAges::new(Duration::from_secs(5), MINUTES_5);
    assert_eq!(ages.of_read_ms(), 4_000);
    let due: Vec<i64> = (0..1_000).map(|n| ages.of_unread_ms(&format!("tenant_{n}"))).collect();
    assert!(due.iter().all(|age_ms| (224_000..=299_000).contains(age_ms)));
    assert_eq!(ages.of_unread_ms("tenant_7"), due[7], "a table has one age");
    // A thousand tables are spread over that quarter: none of its 75 seconds has 60 of them.
    let mut seconds = [0; 76];
    for age_ms in due {
        seconds[usize::try_from((299_000 - age_ms) / 1000).unwrap()] += 1;
    }
    assert!(seconds.iter().all(|count| *count < 60), "{seconds:?}");
}

#[test]
fn a_short_interval_holds_whoever_reads_and_a_long_one_is_no_longer_for_readers() {
    let check = |interval: Duration, max: Duration, expected: (i64, i64)| {
        let ages = CommitAges::new(interval, max);
        assert_eq!((ages.of_read_ms(), ages.of_unread_ms("a")), expected, "{interval:?} {max:?}");
    };
    check(Duration::from_millis(200), MINUTES_5, (160, 160));
    check(Duration::from_millis(4_999), MINUTES_5, (3_999, 3_999));
    check(2 * MINUTES_5, MINUTES_5, (599_000, 599_000));
    check(MINUTES_5, MINUTES_5, (299_000, 299_000));
    check(Duration::from_secs(5), Duration::from_millis(100), (4_000, 4_000));
}
