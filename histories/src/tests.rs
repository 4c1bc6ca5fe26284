use super::*;

fn at(called: u64, returned: u64, asked: Asked, told: Told) -> Operation {
    let id = match asked {
        Asked::Create { made, .. } => made,
        Asked::Commit { mark, .. } | Asked::CommitBoth { mark, .. } => mark,
        Asked::Read { .. } | Asked::Drop { .. } | Asked::Rename { .. } => 100 + called,
    };
    Operation { id, called, returned, asked, told }
}

fn read(called: u64, returned: u64, name: usize, marks: &[u64]) -> Operation {
    at(called, returned, Asked::Read { name }, Told::Seen { made: 7, marks: marks.to_vec() })
}

fn commit(called: u64, returned: u64, mark: u64, told: Told) -> Operation {
    at(called, returned, Asked::Commit { name: 0, mark }, told)
}

fn both(called: u64, returned: u64, told: Told) -> Operation {
    at(called, returned, Asked::CommitBoth { names: [0, 1], mark: 5 }, told)
}

/// Checks a history that begins with the creation of table 0, of which the feed tells this then.
fn checked(then: &[Operation], changes: &[u64]) -> Result<(), String> {
    let made = at(0, 1, Asked::Create { name: 0, made: 7 }, Told::Done);
    check(&[&[made], then].concat(), &[&[7], changes].concat())
}

#[test]
fn the_checker_accepts_what_has_an_order_and_refuses_what_has_none() {
    let renamed = || at(4, 5, Asked::Rename { from: 0, to: 1 }, Told::Done);
    let done = |called, returned, mark| commit(called, returned, mark, Told::Done);
    let accepted = [
        (vec![done(2, 5, 1), read(3, 4, 0, &[]), read(6, 7, 0, &[1])], vec![1]),
        (vec![done(2, 5, 1), read(3, 4, 0, &[1])], vec![1]),
        (
            vec![done(2, 9, 1), done(3, 8, 2), read(4, 5, 0, &[2]), read(6, 7, 0, &[1, 2])],
            vec![2, 1],
        ),
        (vec![renamed(), commit(6, 7, 1, Told::Missing), both(4, 9, Told::Missing)], vec![104]),
        (vec![commit(2, 3, 1, Told::NotDone), read(4, 5, 0, &[])], vec![]),
    ];
    for (history, changes) in accepted {
        checked(&history, &changes).unwrap();
    }
    let refused = [
        // A stale read, a lost commit, reads that disagree on the order of two commits.
        (vec![done(2, 3, 1), read(4, 5, 0, &[])], vec![1]),
        (vec![done(2, 5, 1), done(3, 4, 2), read(6, 7, 0, &[2])], vec![1, 2]),
        (vec![done(2, 9, 1), done(3, 8, 2), read(4, 5, 0, &[2]), read(6, 7, 0, &[1])], vec![2, 1]),
        // Commits one after the other, of which the feed tells in another order.
        (vec![done(2, 3, 1), done(4, 5, 2)], vec![2, 1]),
        // A commit under a name that was gone, half of a transaction, and one that was refused.
        (vec![renamed(), done(6, 7, 1)], vec![104, 1]),
        (vec![both(2, 3, Told::Missing), read(4, 5, 0, &[5])], vec![]),
        (vec![commit(2, 3, 1, Told::NotDone), read(4, 5, 0, &[1])], vec![]),
        // A refusal without a reason.
        (vec![commit(2, 3, 1, Told::Missing)], vec![]),
    ];
    for (history, changes) in refused {
        checked(&history, &changes).unwrap_err();
    }
}

#[test]
fn what_is_unknown_may_take_place_late_or_never_but_not_twice_or_by_half() {
    let unknown = || commit(2, 9, 1, Told::Unknown);
    let gone = || at(2, 9, Asked::Drop { name: 0 }, Told::Unknown);
    let missing = || at(12, 13, Asked::Read { name: 0 }, Told::Missing);
    let second = || at(2, 3, Asked::Create { name: 1, made: 8 }, Told::Done);
    let halves = |one: &[u64], other: &[u64]| {
        let renamed = at(10, 11, Asked::Drop { name: 0 }, Told::Done);
        let moved = at(12, 13, Asked::Rename { from: 1, to: 0 }, Told::Done);
        let last = Told::Seen { made: 8, marks: other.to_vec() };
        let last = at(14, 15, Asked::Read { name: 0 }, last);
        vec![second(), both(4, 5, Told::Unknown), read(6, 7, 0, one), renamed, moved, last]
    };
    let accepted = [
        (vec![unknown(), read(10, 11, 0, &[]), read(12, 13, 0, &[1])], vec![1]),
        (vec![unknown(), read(10, 11, 0, &[])], vec![]),
        (vec![gone(), read(10, 11, 0, &[]), missing()], vec![102]),
        (vec![gone(), read(10, 11, 0, &[])], vec![]),
        (halves(&[], &[5]), vec![8, 5, 5, 110, 112]),
        (halves(&[], &[]), vec![8, 110, 112]),
    ];
    for (history, changes) in accepted {
        checked(&history, &changes).unwrap();
    }
    let refused = [
        // The feed denies what was seen.
        (vec![unknown(), read(10, 11, 0, &[1])], vec![]),
        // A mark that was seen and is gone again, was seen before it was asked for, or never.
        (vec![unknown(), read(10, 11, 0, &[1]), read(12, 13, 0, &[])], vec![1]),
        (vec![read(2, 3, 0, &[1]), commit(4, 5, 1, Told::Unknown)], vec![1]),
        (
            vec![commit(2, 3, 1, Told::Unknown), commit(4, 5, 2, Told::Done), read(6, 7, 0, &[2])],
            vec![1, 2],
        ),
        // A table that comes back after its drop, and half of a transaction.
        (vec![gone(), missing(), read(14, 15, 0, &[])], vec![102]),
        (halves(&[5], &[]), vec![8, 5, 5, 110, 112]),
    ];
    for (history, changes) in refused {
        checked(&history, &changes).unwrap_err();
    }
}

#[test]
fn a_feed_tells_what_was_done_once_and_nothing_else() {
    let history =
        [commit(2, 3, 1, Told::Done), commit(4, 5, 2, Told::NotDone), both(6, 7, Told::Unknown)];
    let second = at(0, 1, Asked::Create { name: 1, made: 8 }, Told::Done);
    let history = [&[second][..], &history].concat();
    for changes in [&[8, 1][..], &[8, 1, 5, 5]] {
        checked(&history, changes).unwrap();
    }
    for changes in [&[8][..], &[8, 1, 1], &[8, 1, 2], &[8, 1, 5]] {
        checked(&history, changes).unwrap_err();
    }
}
