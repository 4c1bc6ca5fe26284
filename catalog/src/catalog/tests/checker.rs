//! Is there an order of all operations, each between its call and its return, in which a catalog
//! that does one thing at a time gives the same results?
//!
//! The search is Wing and Gong's with Lowe's memory of what was tried. A table's contents are the
//! marks committed to it, kept as their number and a sum that does not depend on their order.

use std::collections::HashSet;

/// Names of tables; a name is an index.
pub(super) const NAMES: usize = 12;
/// Steps after which a search gives up, which counts as a failure.
const STEPS_MAX: usize = 20_000_000;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Read { name: usize },
    Create { name: usize, made: u64 },
    Drop { name: usize },
    Rename { from: usize, to: usize },
    Commit { name: usize, mark: u64 },
    CommitBoth { names: [usize; 2], mark: u64 },
}

/// What it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Done,
    /// A table as it is read.
    Seen(Table),
    /// A table that is needed is not there.
    Missing,
    /// The name is taken.
    Exists,
    /// It did not happen, for a reason that is not the catalog's state.
    NotDone,
    /// It may have happened, or may still happen.
    Unknown,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Table {
    pub(super) made: u64,
    pub(super) marks: u32,
    pub(super) sum: u64,
}

impl Table {
    pub(super) fn add(&mut self, mark: u64) {
        self.marks += 1;
        self.sum = self.sum.wrapping_add(mixed(mark));
    }
}

/// One operation of a history.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    /// The name under which it was asked for.
    pub(super) id: u64,
    pub(super) called: u64,
    pub(super) returned: u64,
    pub(super) asked: Asked,
    pub(super) told: Told,
}

type Catalog = [Option<Table>; NAMES];

/// The catalog after an operation that gives this result; none when it would give another.
fn step(catalog: &Catalog, asked: Asked, told: Told) -> Option<Catalog> {
    let mut next = *catalog;
    let result = match asked {
        Asked::Read { name } => catalog[name].map_or(Told::Missing, Told::Seen),
        Asked::Create { name, .. } if catalog[name].is_some() => Told::Exists,
        Asked::Create { name, made } => {
            next[name] = Some(Table { made, ..Table::default() });
            Told::Done
        }
        Asked::Drop { name } => next[name].take().map_or(Told::Missing, |_| Told::Done),
        Asked::Rename { from, .. } if catalog[from].is_none() => Told::Missing,
        Asked::Rename { to, .. } if catalog[to].is_some() => Told::Exists,
        Asked::Rename { from, to } => {
            next[to] = next[from].take();
            Told::Done
        }
        Asked::Commit { name, mark } => commit(&mut next, &[name], mark),
        Asked::CommitBoth { names, mark } => commit(&mut next, &names, mark),
    };
    match told {
        Told::NotDone => Some(*catalog),
        Told::Unknown => (result == Told::Done).then_some(next),
        told => (result == told).then_some(next),
    }
}

fn commit(catalog: &mut Catalog, names: &[usize], mark: u64) -> Told {
    if names.iter().any(|name| catalog[*name].is_none()) {
        return Told::Missing;
    }
    for name in names {
        catalog[*name].as_mut().expect("looked at above").add(mark);
    }
    Told::Done
}

/// A choice in the search: what may come next, and how things were before.
struct Choice {
    candidates: Vec<usize>,
    tried: usize,
    catalog: Catalog,
    first: usize,
}

/// The same history with what the feed of changes tells of operations whose outcome is unknown:
/// `changes` has the ids of the operations in the order of their changes.
///
/// The hints only leave fewer orders to search, so an order that is found is one of the history.
pub(super) fn with_hints(history: &[Operation], changes: &[u64]) -> Vec<Operation> {
    let place = |id| changes.iter().position(|change| *change == id);
    let known = |id: &u64| {
        let mut found = history.iter().filter(|operation| operation.told != Told::Unknown);
        found.find(|operation| operation.id == *id)
    };
    let resolved = |operation: &Operation| {
        if operation.told != Told::Unknown {
            return Some(*operation);
        }
        // It took place before those after it in the feed did, and they had when they returned.
        let after = &changes[place(operation.id)?..];
        let returned = after.iter().filter_map(known).map(|later| later.returned).min();
        let returned = returned.unwrap_or(u64::MAX);
        Some(Operation { told: Told::Done, returned, ..*operation })
    };
    history.iter().filter_map(resolved).collect()
}

/// Says where the longest order that was found ends, when there is none for all operations.
pub(super) fn check(history: &[Operation]) -> Result<(), String> {
    let mut ordered: Vec<Operation> = history.to_vec();
    ordered.sort_by_key(|operation| operation.called);
    let is_open = |operation: &&Operation| operation.told == Told::Unknown;
    let open: Vec<Operation> = ordered.iter().filter(is_open).copied().collect();
    ordered.retain(|operation| operation.told != Told::Unknown);
    let closed = ordered.len();
    ordered.extend(open);
    Search::new(&ordered, closed).run()
}

struct Search<'a> {
    /// Those with a known result, then the others, each by the time of the call.
    operations: &'a [Operation],
    closed: usize,
    done: Vec<bool>,
    left: usize,
    first: usize,
    catalog: Catalog,
    seen: HashSet<(u64, u64, u64)>,
    furthest: (usize, usize),
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation], closed: usize) -> Self {
        Self {
            operations,
            closed,
            done: vec![false; operations.len()],
            left: closed,
            first: 0,
            catalog: [None; NAMES],
            seen: HashSet::new(),
            furthest: (0, 0),
        }
    }

    fn run(mut self) -> Result<(), String> {
        // The sum names the set of operations that are done.
        let mut sum = 0u64;
        let mut choices = vec![self.choice()];
        for _ in 0..STEPS_MAX {
            if self.left == 0 {
                return Ok(());
            }
            let Some(choice) = choices.last_mut() else { return Err(self.failure()) };
            let Some(index) = choice.candidates.get(choice.tried).copied() else {
                choices.pop();
                if let Some(before) = choices.last_mut() {
                    let undone = before.candidates[before.tried];
                    before.tried += 1;
                    (self.catalog, self.first) = (before.catalog, before.first);
                    self.done[undone] = false;
                    self.left += usize::from(undone < self.closed);
                    sum = sum.wrapping_sub(mixed(undone as u64 + 1));
                }
                continue;
            };
            let operation = self.operations[index];
            let next = step(&self.catalog, operation.asked, operation.told);
            let then = sum.wrapping_add(mixed(index as u64 + 1));
            // A set of operations that led to the same catalog before leads nowhere again.
            let next =
                next.filter(|next| self.seen.insert((then, digest(next, 1), digest(next, 2))));
            match next {
                Some(next) => {
                    self.catalog = next;
                    self.done[index] = true;
                    self.left -= usize::from(index < self.closed);
                    sum = then;
                    let choice = self.choice();
                    choices.push(choice);
                }
                None => choice.tried += 1,
            }
        }
        Err(format!("undecided after {STEPS_MAX} steps: {}", self.failure()))
    }

    /// Operations that may be next: nothing that is left returned before they were called.
    fn choice(&mut self) -> Choice {
        while self.done.get(self.first).is_some_and(|done| *done) && self.first < self.closed {
            self.first += 1;
        }
        let mut earliest = u64::MAX;
        let mut candidates = Vec::new();
        for index in (self.first..self.closed).filter(|index| !self.done[*index]) {
            let operation = &self.operations[index];
            if operation.called > earliest {
                break;
            }
            earliest = earliest.min(operation.returned);
            candidates.push(index);
        }
        candidates.retain(|index| self.operations[*index].called <= earliest);
        candidates.sort_by_key(|index| self.operations[*index].returned);
        // What may never have happened is tried when nothing else fits.
        let open = (self.closed..self.operations.len()).rev();
        candidates.extend(
            open.filter(|index| !self.done[*index] && self.operations[*index].called <= earliest),
        );
        if self.furthest.0 < self.closed - self.left {
            self.furthest = (self.closed - self.left, self.first);
        }
        Choice { candidates, tried: 0, catalog: self.catalog, first: self.first }
    }

    fn failure(&self) -> String {
        let (count, first) = self.furthest;
        let last = (first + 20).min(self.closed);
        format!(
            "{count} of {} operations fit, then: {:#?}",
            self.closed,
            &self.operations[first..last]
        )
    }
}

fn digest(catalog: &Catalog, salt: u64) -> u64 {
    catalog.iter().fold(salt, |sum, table| match table {
        None => mixed(sum),
        Some(table) => mixed(mixed(sum ^ table.made) ^ table.sum ^ u64::from(table.marks)),
    })
}

/// Spreads a number over all bits (the finalizer of `SplitMix64`).
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn at(called: u64, returned: u64, asked: Asked, told: Told) -> Operation {
    Operation { id: 0, called, returned, asked, told }
}

fn table(marks: &[u64]) -> Table {
    let mut table = Table { made: 7, ..Table::default() };
    marks.iter().for_each(|mark| table.add(*mark));
    table
}

#[test]
fn the_checker_accepts_what_has_an_order_and_refuses_what_has_none() {
    let made = at(0, 1, Asked::Create { name: 0, made: 7 }, Told::Done);
    let read = |called, returned, marks: &[u64]| {
        at(called, returned, Asked::Read { name: 0 }, Told::Seen(table(marks)))
    };
    let commit =
        |called, returned, mark, told| at(called, returned, Asked::Commit { name: 0, mark }, told);
    let renamed = at(4, 5, Asked::Rename { from: 0, to: 1 }, Told::Done);
    let both = at(4, 9, Asked::CommitBoth { names: [0, 1], mark: 5 }, Told::Missing);
    let accepted: [&[Operation]; 6] = [
        &[made, commit(2, 5, 1, Told::Done), read(3, 4, &[]), read(6, 7, &[1])],
        &[made, commit(2, 5, 1, Told::Done), read(3, 4, &[1])],
        &[made, commit(2, 9, 1, Told::Unknown), read(10, 11, &[]), read(12, 13, &[1])],
        &[made, commit(2, 9, 1, Told::Unknown), read(10, 11, &[])],
        &[made, renamed, commit(6, 7, 1, Told::Missing), both],
        &[made, commit(2, 3, 1, Told::NotDone), read(4, 5, &[])],
    ];
    for history in accepted {
        check(history).unwrap();
    }
    let refused: [&[Operation]; 7] = [
        // A stale read, a lost commit, a commit undone, one made twice.
        &[made, commit(2, 3, 1, Told::Done), read(4, 5, &[])],
        &[made, commit(2, 5, 1, Told::Done), commit(3, 4, 2, Told::Done), read(6, 7, &[2])],
        &[made, commit(2, 9, 1, Told::Unknown), read(10, 11, &[1]), read(12, 13, &[])],
        &[made, commit(2, 3, 1, Told::Done), read(4, 5, &[1, 1])],
        // A commit under a name that was gone, and half of a transaction.
        &[made, renamed, commit(6, 7, 1, Told::Done)],
        &[
            made,
            at(2, 3, Asked::CommitBoth { names: [0, 1], mark: 5 }, Told::Missing),
            read(4, 5, &[5]),
        ],
        &[made, commit(2, 3, 1, Told::NotDone), read(4, 5, &[1])],
    ];
    for history in refused {
        check(history).unwrap_err();
    }
}
