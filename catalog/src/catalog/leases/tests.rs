use super::*;

const EVERY_MS: i64 = 30_000;

fn heads(main: (i64, i64), others: &[i64]) -> LoadedHeads {
    LoadedHeads { main: Some(main), others: others.to_vec() }
}

#[test]
fn a_lease_is_written_once_for_the_loads_of_its_time() {
    let (written, table) = (WrittenLeases::default(), Uuid::from_u128(1));
    let first = heads((5, 50), &[7]);
    assert!(written.claim(table, &first, 0, EVERY_MS));
    assert!(!written.claim(table, &heads((9, 90), &[7]), EVERY_MS - 1, EVERY_MS), "it came after");
    assert!(written.claim(Uuid::from_u128(2), &first, 1, EVERY_MS));
    assert!(written.claim(table, &first, EVERY_MS, EVERY_MS));
    // The clock was set back.
    assert!(written.claim(table, &first, 0, EVERY_MS));
    written.forget(table);
    assert!(written.claim(table, &first, 1, EVERY_MS));
}

#[test]
fn heads_that_no_lease_covers_are_written_but_not_at_once() {
    for later in [heads((4, 40), &[7]), heads((6, 60), &[7, 8])] {
        let (written, table) = (WrittenLeases::default(), Uuid::from_u128(1));
        assert!(written.claim(table, &heads((5, 50), &[7]), 0, EVERY_MS));
        assert!(!written.claim(table, &later, WRITE_EVERY_MIN_MS - 1, EVERY_MS));
        assert!(written.claim(table, &later, WRITE_EVERY_MIN_MS, EVERY_MS));
    }
}
