use crate::{clock::Clock, ids::IdGenerator};
use std::collections::HashSet;

#[test]
fn ids_of_one_millisecond_count_up() {
    let ids = IdGenerator::new(Clock::manual(1_000));
    let minted: Vec<_> = (0..1_000).map(|_| ids.mint()).collect();
    assert!(minted.is_sorted_by(|one, next| one < next));
}

#[test]
fn runs_that_start_in_the_same_millisecond_do_not_meet() {
    let ids = IdGenerator::new(Clock::manual(1_000));
    let mut seen = HashSet::new();
    for _ in 0..100 {
        let first = ids.first_of_run();
        assert!((0..1_000).all(|n| seen.insert(first.0 + n)), "an id was given twice");
    }
}
