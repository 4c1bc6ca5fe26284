//! Numbers without a row, each put down to a cause that the history has for it.
//!
//! A cause tells of a range, and how many numbers in it may lack a row. Missing numbers come in order, and
//! each goes to the cause that has room and whose range ends first: whatever a set of causes can explain is
//! explained that way. Where the history does not tell how many rows went, nothing is proven up to some
//! number: those below it are in doubt, which is told and is no damage, unless a snapshot whose parent is gone
//! still tells that it removed rows there. In doubt are also numbers without a cause where snapshots are gone
//! and as many rows of other numbers went: rows of other engines may have been among those.
//!
//! Its one invariant: a number that no cause and no doubt covers is told as lost.

use crate::table::{
    integrity::{TableCheck, history::CommitLedger, numbers::without},
    unused_numbers::{TAKE_OVER_MARGIN, UnusedNumbers, UnusedReason},
};
use icecore_schemas::fsck::{FindingKind, FsckFinding, GAPS_MAX, SeqGap};
use roaring::RoaringTreemap;
use std::{cmp::Reverse, collections::BinaryHeap};

/// Numbers from the first to the last.
pub(super) type SeqRange = (u64, u64);

/// Why numbers between two commits have no row.
const TAKEN_OVER: &str = "no commit has them: a log that took over begins above them";
/// The same where that is written down.
const GIVEN_UP: &str = "no commit has them: it is written down that their rows are lost";
/// The same where the log knows it.
const NOT_LOGGED: &str = "the log never had rows with them";
/// The same where nothing shows who left them out.
const SKIPPED: &str = "no commit has them: their rows were given up, were of a table that was dropped, or were \
                       never committed";
/// What is said of numbers that a commit of ours gives no reason for.
const PASSED_OVER: &str = "no commit has them, and the one after them gives no reason";
/// Why numbers may have no row that no cause covers.
const ELSEWHERE: &str =
    "it is not known: as many rows of other numbers went, and snapshots that told whose are gone";

/// Why numbers may have no row.
#[derive(Clone, Debug)]
pub(super) struct GapCause {
    /// Where they are.
    pub(super) range: SeqRange,
    /// How many.
    pub(super) numbers: u64,
    pub(super) what: &'static str,
    /// The snapshot that tells of it.
    pub(super) snapshot: i64,
}

/// Numbers that a snapshot removed and did not bring again.
#[derive(Debug)]
pub(super) struct RemovedNumbers {
    pub(super) numbers: RoaringTreemap,
    pub(super) what: &'static str,
    pub(super) snapshot: i64,
}

/// Numbers between two commits, which no commit has.
#[derive(Clone, Debug)]
pub(super) struct SkippedNumbers {
    pub(super) range: SeqRange,
    /// The commit after them.
    pub(super) snapshot: i64,
    /// What it says of them; none where it is of a version that says nothing.
    pub(super) told: Option<Vec<UnusedNumbers>>,
}

/// Some of them, of one cause; none where the commit after them has no reason.
#[derive(Clone, Copy, Debug)]
struct SkippedPart {
    range: SeqRange,
    what: Option<&'static str>,
    snapshot: i64,
}

impl SkippedNumbers {
    /// Their causes, where rows with the numbers `lost` are written down as lost.
    fn parts(&self, lost: &[SeqRange]) -> Vec<SkippedPart> {
        let (range, snapshot) = (self.range, self.snapshot);
        let part =
            |range: SeqRange, what: Option<&'static str>| SkippedPart { range, what, snapshot };
        let is_far = TAKE_OVER_MARGIN <= (range.1 - range.0).saturating_add(2);
        let (mut parts, mut told) = (Vec::new(), Vec::new());
        for unused in self.told.iter().flatten() {
            let of = (unused.first.max(range.0), unused.last.min(range.1));
            if of.0 <= of.1 {
                parts.push(part(of, Some(what_of(unused.reason))));
                told.push(of);
            }
        }
        let mut lost = lost.to_vec();
        told.sort_unstable();
        lost.sort_unstable();
        let silent = self.told.is_none().then_some(SKIPPED);
        for rest in without(range, &told) {
            // Rows of the log before may have been given up as well.
            if is_far && TAKE_OVER_MARGIN / 2 <= rest.1 - rest.0 {
                parts.push(part(rest, Some(TAKEN_OVER)));
                continue;
            }
            let left = without(rest, &lost);
            let given = without(rest, &left);
            parts.extend(given.into_iter().map(|range| part(range, Some(GIVEN_UP))));
            parts.extend(left.into_iter().map(|range| part(range, silent)));
        }
        parts
    }
}

/// What a commit says of numbers with this reason.
pub(super) fn what_of(reason: UnusedReason) -> &'static str {
    match reason {
        UnusedReason::TakenOver => TAKEN_OVER,
        UnusedReason::GivenUp => GIVEN_UP,
        UnusedReason::NotLogged => NOT_LOGGED,
        UnusedReason::BeforeTable => SKIPPED,
    }
}

/// Why it is not known whether numbers should have a row.
#[derive(Clone, Debug)]
pub(super) struct GapDoubt {
    /// Up to where.
    pub(super) until: u64,
    what: &'static str,
    snapshot: Option<i64>,
    /// How many have none.
    numbers: u64,
    /// The first and the last of them.
    seen: Option<SeqRange>,
}

impl GapDoubt {
    pub(super) fn new(until: u64, what: &'static str, snapshot: Option<i64>) -> Self {
        Self { until, what, snapshot, numbers: 0, seen: None }
    }
}

/// What numbers are put down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PieceCause {
    /// A cause, by its place.
    Told(usize),
    /// What a snapshot without its parent tells, by its place.
    Parted(usize),
    /// A doubt, by its place.
    Doubted(usize),
    Nothing,
}

/// Missing numbers with their causes.
#[derive(Debug)]
pub(super) struct GapAccount {
    /// Those that lie behind all parts so far.
    removed: Vec<RemovedNumbers>,
    /// By their first number.
    causes: Vec<GapCause>,
    /// The first one whose range lies behind all numbers so far.
    next: usize,
    /// Those whose range has begun, the one that ends first on top.
    open: BinaryHeap<Reverse<(u64, usize)>>,
    /// What snapshots removed whose parents are gone, which explains numbers that are in doubt.
    parted: Vec<GapCause>,
    /// By their last number.
    doubts: Vec<GapDoubt>,
    /// The first one that does not lie before all numbers to come.
    doubted: usize,
    /// As far as an answer has room.
    gaps: Vec<SeqGap>,
    gaps_total: u64,
    /// The end of the last gap, and its cause.
    end: Option<(u64, PieceCause)>,
    /// How many have no cause, the first and the last of them.
    lost: (u64, Option<SeqRange>),
}

impl GapAccount {
    pub(super) fn new(
        removed: Vec<RemovedNumbers>,
        mut causes: Vec<GapCause>,
        mut doubts: Vec<GapDoubt>,
    ) -> Self {
        causes.sort_by_key(|cause| cause.range.0);
        doubts.sort_by_key(|doubt| doubt.until);
        Self {
            removed,
            causes,
            next: 0,
            open: BinaryHeap::new(),
            parted: Vec::new(),
            doubts,
            doubted: 0,
            gaps: Vec::new(),
            gaps_total: 0,
            end: None,
            lost: (0, None),
        }
    }

    /// The same with what snapshots removed whose parents are gone.
    pub(super) fn with_parted(self, parted: Vec<GapCause>) -> Self {
        Self { parted, ..self }
    }

    /// Begins with the numbers before `until`, of which the table has these: one that is there explains nothing.
    pub(super) fn begin_part(&mut self, present: &RoaringTreemap, until: u64) {
        for RemovedNumbers { numbers, what, snapshot } in &mut self.removed {
            let mut part = numbers.clone();
            part.remove_range(until..);
            part -= present;
            numbers.remove_range(..until);
            let (what, snapshot, numbers) = (*what, *snapshot, part.len());
            let range = part.min().zip(part.max());
            self.causes.extend(range.map(|range| GapCause { range, numbers, what, snapshot }));
        }
        self.causes[self.next..].sort_by_key(|cause| cause.range.0);
    }

    /// Takes missing numbers, which lie behind all before.
    pub(super) fn add(&mut self, (first, last): SeqRange) {
        let mut next = first;
        while next <= last {
            let (end, cause) = self.piece(next, last);
            self.put((next, end), cause);
            next = end.saturating_add(1);
            if end == u64::MAX {
                break;
            }
        }
    }

    /// How far the numbers from `next` on have one cause, and which.
    fn piece(&mut self, next: u64, last: u64) -> (u64, PieceCause) {
        while self.doubts.get(self.doubted).is_some_and(|doubt| doubt.until < next) {
            self.doubted += 1;
        }
        if let Some(doubt) = self.doubts.get(self.doubted) {
            let until = doubt.until;
            return self.piece_in_doubt((next, last.min(until)), until);
        }
        while let Some(cause) = self.causes.get(self.next).filter(|cause| cause.range.0 <= next) {
            self.open.push(Reverse((cause.range.1, self.next)));
            self.next += 1;
        }
        // One that begins later may end earlier.
        let later = self.causes.get(self.next).map(|cause| cause.range.0 - 1);
        let last = later.map_or(last, |later| last.min(later));
        while let Some(Reverse((until, place))) = self.open.peek().copied() {
            let cause = &mut self.causes[place];
            if until < next || cause.numbers == 0 {
                self.open.pop();
                continue;
            }
            let end = last.min(until).min(next.saturating_add(cause.numbers - 1));
            cause.numbers -= end - next + 1;
            return (end, PieceCause::Told(place));
        }
        (last, PieceCause::Nothing)
    }

    /// The same where the history does not tell up to some number. A cause that lies before it is used up
    /// there: no number behind may need it.
    fn piece_in_doubt(&mut self, (next, last): SeqRange, until: u64) -> (u64, PieceCause) {
        let is_open = |cause: &GapCause| {
            let (low, high) = cause.range;
            low <= next && next <= high && high <= until && 0 < cause.numbers
        };
        let open = self.parted.iter().enumerate().filter(|(_, cause)| is_open(cause));
        let first_to_end = open.min_by_key(|(_, cause)| cause.range.1).map(|(place, _)| place);
        if let Some(place) = first_to_end {
            let cause = &mut self.parted[place];
            let end = last.min(cause.range.1).min(next.saturating_add(cause.numbers - 1));
            cause.numbers -= end - next + 1;
            return (end, PieceCause::Parted(place));
        }
        let later = self.parted.iter().map(|cause| cause.range.0).filter(|first| next < *first);
        let last = later.min().map_or(last, |first| last.min(first - 1));
        (last, PieceCause::Doubted(self.doubted))
    }

    fn put(&mut self, (first, last): SeqRange, cause: PieceCause) {
        let count = last - first + 1;
        let reach = |seen: Option<SeqRange>| Some((seen.map_or(first, |seen| seen.0), last));
        match cause {
            PieceCause::Told(_) | PieceCause::Parted(_) => (),
            PieceCause::Doubted(place) => {
                let doubt = &mut self.doubts[place];
                doubt.numbers = doubt.numbers.saturating_add(count);
                doubt.seen = reach(doubt.seen);
            }
            PieceCause::Nothing => {
                self.lost = (self.lost.0.saturating_add(count), reach(self.lost.1));
            }
        }
        let goes_on = self.end.is_some_and(|end| end == (first - 1, cause));
        self.end = Some((last, cause));
        if !goes_on {
            self.gaps_total += 1;
            if self.gaps.len() < GAPS_MAX {
                let reason = self.reason(cause);
                self.gaps.push(SeqGap { first, last, reason });
            }
        } else if self.gaps_total == self.gaps.len() as u64
            && let Some(gap) = self.gaps.last_mut()
        {
            gap.last = last;
        }
    }

    fn reason(&self, cause: PieceCause) -> Option<String> {
        let told =
            |GapCause { what, snapshot, .. }: &GapCause| format!("{what} (snapshot {snapshot})");
        match cause {
            PieceCause::Told(place) => Some(told(&self.causes[place])),
            PieceCause::Parted(place) => Some(told(&self.parted[place])),
            PieceCause::Doubted(place) => {
                Some(format!("it is not known: {}", self.doubts[place].what))
            }
            PieceCause::Nothing => None,
        }
    }

    /// Reports the gaps, with those that no commit has.
    pub(super) fn tell(mut self, check: &mut TableCheck<'_>, ledger: &CommitLedger) {
        let (lost, report) = (check.input.lost, &mut check.found.report);
        if let (numbers, Some((first, last))) = self.lost {
            let text = format!("{numbers} numbers between {first} and {last} have no row");
            let left = self.causes.iter().fold(0, |left: u64, it| left.saturating_add(it.numbers));
            if ledger.has_holes && numbers <= left {
                let unknown = self.gaps.iter_mut().filter(|gap| gap.reason.is_none());
                unknown.for_each(|gap| gap.reason = Some(ELSEWHERE.to_owned()));
                let text = format!("{text}: {ELSEWHERE}");
                report.add_note(FsckFinding::new(FindingKind::Unchecked, text));
            } else {
                let text = format!("{text}, and nothing in the history explains it");
                report.add_damage(FsckFinding::new(FindingKind::Numbers, text));
            }
        }
        let skipped: Vec<SkippedPart> =
            ledger.skipped.iter().flat_map(|skipped| skipped.parts(lost)).collect();
        let of_skipped = skipped.iter().map(|SkippedPart { range, what, .. }| SeqGap {
            first: range.0,
            last: range.1,
            reason: what.map(str::to_owned),
        });
        let mut gaps: Vec<SeqGap> = of_skipped.chain(self.gaps).collect();
        gaps.sort_by_key(|gap| gap.first);
        gaps.into_iter().for_each(|gap| report.add_gap(gap));
        report.gaps_total = skipped.len() as u64 + self.gaps_total;
        for SkippedPart { range: (first, last), what, snapshot } in skipped {
            let text =
                format!("the numbers from {first} to {last}: {}", what.unwrap_or(PASSED_OVER));
            match what {
                None => {
                    let finding = FsckFinding::new(FindingKind::Numbers, text);
                    report.add_damage(finding.of_snapshot(snapshot));
                }
                Some(SKIPPED) => report.add_note(FsckFinding::new(FindingKind::Unchecked, text)),
                Some(_) => (),
            }
        }
        for GapDoubt { what, snapshot, numbers, seen, .. } in self.doubts {
            let Some((first, last)) = seen else { continue };
            let text = format!(
                "{numbers} numbers between {first} and {last} have no row, and it is not known whether they \
                 should: {what}"
            );
            let finding = FsckFinding::new(FindingKind::Unchecked, text);
            report.add_note(FsckFinding { snapshot, ..finding });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(range: SeqRange, numbers: u64, what: &'static str) -> GapCause {
        GapCause { range, numbers, what, snapshot: 7 }
    }

    /// The gaps of missing ranges with their reasons, and how many numbers are lost.
    #[track_caller]
    fn check(
        (causes, doubts): (Vec<GapCause>, Vec<GapDoubt>),
        missing: &[SeqRange],
        expected: &[(u64, u64, Option<&str>)],
    ) {
        let mut account = GapAccount::new(vec![], causes, doubts);
        missing.iter().for_each(|range| account.add(*range));
        let found: Vec<(u64, u64, Option<&str>)> =
            account.gaps.iter().map(|gap| (gap.first, gap.last, gap.reason.as_deref())).collect();
        assert_eq!(found, expected);
        assert_eq!(account.gaps_total, expected.len() as u64);
        let lost = expected.iter().filter(|gap| gap.2.is_none());
        let lost: u64 = lost.map(|(first, last, _)| last - first + 1).sum();
        assert_eq!(account.lost.0, lost);
    }

    #[test]
    fn causes_explain_numbers_of_their_range_and_no_more_than_they_have() {
        let causes = vec![cause((1, 100), 5, "erased"), cause((10, 20), 3, "old")];
        let (erased, old) = (Some("erased (snapshot 7)"), Some("old (snapshot 7)"));
        check((causes.clone(), vec![]), &[(12, 14)], &[(12, 14, old)]);
        // What only the wide one reaches is left to it.
        check(
            (causes.clone(), vec![]),
            &[(9, 12), (50, 53)],
            &[(9, 9, erased), (10, 12, old), (50, 53, erased)],
        );
        check(
            (causes, vec![]),
            &[(12, 15), (90, 94), (101, 101)],
            &[(12, 14, old), (15, 15, erased), (90, 93, erased), (94, 94, None), (101, 101, None)],
        );
        check((vec![], vec![]), &[(3, 4)], &[(3, 4, None)]);
    }

    #[test]
    fn numbers_in_doubt_are_not_lost_and_use_no_cause_up() {
        let causes = vec![cause((1, 100), 2, "erased")];
        let doubts = vec![GapDoubt::new(10, "gone", None)];
        let (erased, gone) = (Some("erased (snapshot 7)"), Some("it is not known: gone"));
        let expected = [(9, 10, gone), (11, 12, erased), (13, 13, None)];
        check((causes, doubts), &[(9, 13)], &expected);
    }

    #[test]
    fn what_a_snapshot_without_its_parent_removed_explains_numbers_in_doubt_alone() {
        let parted = vec![cause((5, 12), 3, "removed"), cause((9, 30), 9, "reaches behind")];
        let doubts = vec![GapDoubt::new(20, "gone", None)];
        let mut account = GapAccount::new(vec![], vec![], doubts).with_parted(parted);
        [(3, 7), (10, 11), (19, 22)].into_iter().for_each(|range| account.add(range));
        let found: Vec<(u64, u64, Option<&str>)> =
            account.gaps.iter().map(|gap| (gap.first, gap.last, gap.reason.as_deref())).collect();
        let (removed, gone) = (Some("removed (snapshot 7)"), Some("it is not known: gone"));
        let expected =
            [(3, 4, gone), (5, 7, removed), (10, 11, gone), (19, 20, gone), (21, 22, None)];
        assert_eq!(found, expected);
        assert_eq!((account.lost, account.doubts[0].numbers), ((2, Some((21, 22))), 6));
    }

    #[test]
    fn numbers_in_several_doubts_are_told_with_the_one_that_ends_first() {
        let doubts = vec![
            GapDoubt::new(u64::MAX, "totals", None),
            GapDoubt::new(10, "gone", None),
            GapDoubt::new(20, "unread", None),
        ];
        let reason = |what: &str| format!("it is not known: {what}");
        let (gone, unread, totals) = (reason("gone"), reason("unread"), reason("totals"));
        let expected = [
            (9, 10, Some(gone.as_str())),
            (11, 12, Some(unread.as_str())),
            (30, 31, Some(totals.as_str())),
        ];
        check((vec![], doubts), &[(9, 12), (30, 31)], &expected);
    }

    #[test]
    fn removed_numbers_explain_those_of_each_part_that_are_not_there() {
        let numbers = RoaringTreemap::from_iter([1_u64, 2, 3, 101, 102, 109]);
        let removed = RemovedNumbers { numbers, what: "erased", snapshot: 7 };
        let mut account = GapAccount::new(vec![removed], vec![cause((104, 104), 1, "old")], vec![]);
        account.begin_part(&RoaringTreemap::from_iter([1_u64, 2]), 100);
        account.add((3, 4));
        account.begin_part(&RoaringTreemap::from_iter([101_u64, 109]), 110);
        account.add((102, 104));
        let found: Vec<(u64, u64, bool)> =
            account.gaps.iter().map(|gap| (gap.first, gap.last, gap.reason.is_some())).collect();
        let expected =
            [(3, 3, true), (4, 4, false), (102, 102, true), (103, 103, false), (104, 104, true)];
        assert_eq!(found, expected);
        assert_eq!(account.lost, (2, Some((4, 103))));
    }

    #[test]
    fn a_gap_that_is_not_listed_is_counted() {
        let mut account = GapAccount::new(vec![], vec![], vec![]);
        (1..=50).for_each(|number| account.add((2 * number, 2 * number)));
        assert_eq!((account.gaps.len(), account.gaps_total, account.lost.0), (GAPS_MAX, 50, 50));
    }
}
