use super::*;

const EVERY_MS: i64 = 30_000;

fn heads(main: i64, others: &[i64]) -> LoadedHeads {
    LoadedHeads { main: Some(main), others: others.to_vec() }
}

/// Who writes for a load of a `main` in one line, on which later snapshots have higher ids.
fn claim(written: &WrittenLeases, table: u128, heads: &LoadedHeads, now_ms: i64) -> LeaseClaim {
    let descends = |held: i64| heads.main.is_some_and(|main| held <= main);
    written.claim(Uuid::from_u128(table), heads, descends, (now_ms, EVERY_MS))
}

fn writes(written: &WrittenLeases, table: u128, heads: &LoadedHeads, now_ms: i64) -> bool {
    matches!(claim(written, table, heads, now_ms), LeaseClaim::Own(_))
}

#[test]
fn a_lease_is_written_once_for_the_loads_of_its_time() {
    let (written, first) = (WrittenLeases::default(), heads(5, &[7]));
    assert!(writes(&written, 1, &first, 0));
    assert!(!writes(&written, 1, &heads(9, &[7]), EVERY_MS - 1), "it came after");
    assert!(writes(&written, 2, &first, 1));
    assert!(writes(&written, 1, &first, EVERY_MS));
    // The clock was set back.
    assert!(writes(&written, 1, &first, 0));
    written.forget(Uuid::from_u128(1));
    assert!(writes(&written, 1, &first, 1));
}

#[test]
fn heads_that_no_lease_covers_are_written_but_not_at_once() {
    for later in [heads(4, &[7]), heads(6, &[7, 8])] {
        let written = WrittenLeases::default();
        assert!(writes(&written, 1, &heads(5, &[7]), 0));
        assert!(!writes(&written, 1, &later, WRITE_EVERY_MIN_MS - 1));
        assert!(writes(&written, 1, &later, WRITE_EVERY_MIN_MS));
    }
}

#[test]
fn a_main_that_went_another_way_is_written() {
    let written = WrittenLeases::default();
    assert!(writes(&written, 1, &heads(5, &[]), 0));
    let table = Uuid::from_u128(1);
    let claimed = written.claim(table, &heads(9, &[]), |_| false, (WRITE_EVERY_MIN_MS, EVERY_MS));
    assert!(matches!(claimed, LeaseClaim::Own(_)));
}

#[test]
fn a_load_waits_for_the_lease_that_another_writes() {
    let (written, heads) = (WrittenLeases::default(), heads(5, &[]));
    let LeaseClaim::Own(done) = claim(&written, 1, &heads, 0) else { panic!("none before") };
    let LeaseClaim::Others(durable) = claim(&written, 1, &heads, 1) else { panic!("one before") };
    assert!(!*durable.borrow());
    done.send_replace(true);
    assert!(*durable.borrow());
}

#[test]
fn a_snapshot_is_leased_once_whatever_is_at_it() {
    let leases = heads(5, &[7, 5, 2]).leases(10);
    let told: Vec<(i64, i64)> =
        leases.iter().map(|lease| (lease.snapshot_id, lease.line_until_ms)).collect();
    assert_eq!(told, [(2, 0), (5, 10), (7, 0)]);
}
