//! Is there an order of all operations, each between its call and its return, in which a catalog
//! that does one thing at a time gives the same results?
//!
//! The catalog's feed says in which order the changes took place, and is taken at its word; it also
//! says which of those with an unknown outcome did. What is left is where the reads and refusals
//! belong: each as early as it fits, as it changes nothing for those after it. An order that is found
//! is one of the history whatever the feed is worth, and when there is none the catalog is wrong or
//! its feed is.

use crate::{Asked, NAMES, Operation, Told};
use std::collections::HashMap;

/// Operations that are shown when there is no order.
const SHOWN_MAX: usize = 20;

/// Looks for an order of all operations. `changes` has the ids of the operations of which the feed
/// tells, in its order, once for each table.
///
/// # Errors
/// When there is none, with the place where the longest one ends.
pub fn check(history: &[Operation], changes: &[u64]) -> Result<(), String> {
    check_feed(history, changes)?;
    Replay::new(history, changes).run()
}

/// The feed tells what was answered as done, once for each table, and nothing that was answered
/// otherwise.
fn check_feed(history: &[Operation], changes: &[u64]) -> Result<(), String> {
    let mut told: HashMap<u64, usize> = HashMap::new();
    changes.iter().for_each(|id| *told.entry(*id).or_default() += 1);
    for operation in history {
        let all = match operation.asked {
            Asked::Read { .. } => 0,
            Asked::CommitBoth { .. } => 2,
            Asked::Create { .. }
            | Asked::Drop { .. }
            | Asked::Rename { .. }
            | Asked::Commit { .. } => 1,
        };
        let told = told.get(&operation.id).copied().unwrap_or_default();
        let is_right = match operation.told {
            Told::Unknown => told == 0 || told == all,
            Told::Done => told == all,
            Told::Seen { .. } | Told::Missing | Told::Exists | Told::NotDone => told == 0,
        };
        if !is_right {
            return Err(format!("the feed tells {told} changes of {operation:?}"));
        }
    }
    Ok(())
}

#[derive(Clone, Debug)]
struct Table {
    made: u64,
    /// Sorted.
    marks: Vec<u64>,
}

#[derive(Debug, Default)]
struct Catalog([Option<Table>; NAMES]);

impl Catalog {
    /// What is told to who asks for this now.
    fn answer(&self, asked: Asked) -> Told {
        let is_there = |name: usize| self.0[name].is_some();
        let done_if = |is_possible, otherwise| if is_possible { Told::Done } else { otherwise };
        match asked {
            Asked::Read { name } => match &self.0[name] {
                Some(Table { made, marks }) => Told::Seen { made: *made, marks: marks.clone() },
                None => Told::Missing,
            },
            Asked::Create { name, .. } => done_if(!is_there(name), Told::Exists),
            Asked::Rename { from, to } if is_there(from) => done_if(!is_there(to), Told::Exists),
            Asked::Drop { name: one } | Asked::Commit { name: one, .. } => {
                done_if(is_there(one), Told::Missing)
            }
            Asked::CommitBoth { names: [one, other], .. } => {
                done_if(is_there(one) && is_there(other), Told::Missing)
            }
            Asked::Rename { .. } => Told::Missing,
        }
    }

    /// Makes a change that is possible.
    fn change(&mut self, asked: Asked) {
        match asked {
            Asked::Read { .. } => (),
            Asked::Create { name, made } => self.0[name] = Some(Table { made, marks: Vec::new() }),
            Asked::Drop { name } => self.0[name] = None,
            Asked::Rename { from, to } => self.0[to] = self.0[from].take(),
            Asked::Commit { name, mark } => self.mark(name, mark),
            Asked::CommitBoth { names, mark } => names.into_iter().for_each(|n| self.mark(n, mark)),
        }
    }

    fn mark(&mut self, name: usize, mark: u64) {
        if let Some(Table { marks, .. }) = &mut self.0[name] {
            let place = marks.partition_point(|other| *other < mark);
            marks.insert(place, mark);
        }
    }
}

struct Replay<'a> {
    /// By the time of the call.
    operations: Vec<Operation>,
    done: Vec<bool>,
    /// The first that is not done.
    first: usize,
    changes: &'a [u64],
    catalog: Catalog,
}

impl<'a> Replay<'a> {
    fn new(history: &[Operation], changes: &'a [u64]) -> Self {
        let mut operations = history.to_vec();
        operations.retain(|it| it.told != Told::Unknown || changes.contains(&it.id));
        for operation in &mut operations {
            match &mut operation.told {
                Told::Seen { marks, .. } => marks.sort_unstable(),
                // It may have taken place after the client had given up.
                Told::Unknown => (operation.told, operation.returned) = (Told::Done, u64::MAX),
                Told::Done | Told::Missing | Told::Exists | Told::NotDone => (),
            }
        }
        operations.sort_by_key(|operation| operation.called);
        let done = vec![false; operations.len()];
        Self { operations, done, first: 0, changes, catalog: Catalog::default() }
    }

    fn run(mut self) -> Result<(), String> {
        loop {
            let next = self.next();
            if next.is_empty() && self.changes.is_empty() {
                return Ok(());
            }
            let fitting = next.iter().copied().filter(|index| self.fits(*index));
            let fitting: Vec<usize> = fitting.collect();
            let is_change = |index: &usize| self.operations[*index].told == Told::Done;
            let (changes, others): (Vec<usize>, Vec<usize>) =
                fitting.into_iter().partition(is_change);
            if !others.is_empty() {
                others.into_iter().for_each(|index| self.done[index] = true);
                continue;
            }
            let is_told =
                |index: &&usize| self.changes.first() == Some(&self.operations[**index].id);
            let Some(index) = changes.iter().find(is_told).copied() else {
                return Err(self.failure(&next));
            };
            let Operation { id, asked, .. } = self.operations[index];
            self.catalog.change(asked);
            self.done[index] = true;
            let others = self.changes.iter().position(|change| *change != id);
            self.changes = &self.changes[others.unwrap_or(self.changes.len())..];
        }
    }

    /// Operations that may be next: nothing that is left returned before they were called.
    fn next(&mut self) -> Vec<usize> {
        while self.done.get(self.first) == Some(&true) {
            self.first += 1;
        }
        let (mut next, mut earliest) = (Vec::new(), u64::MAX);
        for index in (self.first..self.operations.len()).filter(|index| !self.done[*index]) {
            let operation = &self.operations[index];
            if earliest < operation.called {
                break;
            }
            earliest = earliest.min(operation.returned);
            next.push(index);
        }
        next.retain(|index| self.operations[*index].called <= earliest);
        next
    }

    /// Whether an operation gives what it gave if it is the next.
    fn fits(&self, index: usize) -> bool {
        let Operation { asked, told, .. } = &self.operations[index];
        *told == Told::NotDone || *told == self.catalog.answer(*asked)
    }

    fn failure(&self, next: &[usize]) -> String {
        let done = self.done.iter().filter(|done| **done).count();
        let shown: Vec<&Operation> =
            next.iter().take(SHOWN_MAX).map(|index| &self.operations[*index]).collect();
        format!(
            "{done} of {} operations fit, then the feed has {:?}, there is {:#?}, and next may be {shown:#?}",
            self.operations.len(),
            self.changes.first(),
            self.catalog,
        )
    }
}
