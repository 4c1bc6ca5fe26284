//! What the snapshots of one of our tables say of its numbers: how far each got, and which numbers up to
//! the watermark may lack a row.
//!
//! A commit of ours says which numbers it has, how many rows, and which numbers have none and why. Numbers
//! between two commits came with no row: a log that took over begins above all that others may have given out,
//! and so does one whose rows an operator gave up. Rows go by retention, erasure and deletes, each in a snapshot
//! of its own. Where snapshots between two are gone, the totals of the two tell how many rows came and went.
//!
//! Its one invariant: where the history does not tell, that is a doubt, and no number that may have gone
//! rightly counts as lost.

use crate::table::{
    erasure::REASON_ERASE,
    integrity::{
        TableCheck,
        gaps::{self, GapCause, GapDoubt, SeqRange, SkippedNumbers},
        snapshots::is_total_off,
        summary::{is_own, is_taken_back, number, unused},
    },
    retention::{REASON, REASON_RETENTION, REMOVED_FIRST_SEQ, REMOVED_LAST_SEQ},
};
use iceberg::spec::{Operation, SnapshotRef, TableMetadata};
use icecore_catalog::{
    ancestors,
    commit::{FIRST_SEQ, LAST_SEQ},
    retention::BRANCH,
};
use icecore_schemas::fsck::{FindingKind, FsckFinding};
use std::collections::{HashMap, HashSet};

/// Why numbers of commits have no row.
const SHORT: &str = "their commit has fewer rows than numbers";
const RETAINED: &str = "retention removed as many rows";
const ERASED: &str = "an erasure removed as many rows";
const APPLIED: &str = "a rewrite left as many deleted rows out";
const DELETED: &str = "as many rows were deleted";
const REMOVED: &str = "another engine removed as many rows";
const GONE: &str =
    "snapshots before it that are gone had as many numbers without a row, or removed as many rows";
/// Why it is not known how many there should be.
const UNTOLD: &str = "the snapshots that are gone do not tell how many rows they removed";
const NO_TOTAL: &str = "the snapshot does not tell how many rows it removed";
const TOTAL_OFF: &str = "the totals of the snapshots are not what their manifests have";

/// Who added a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileOrigin {
    /// A commit of rows from the log: its rows have numbers of this range.
    Log(SeqRange),
    /// An append of another engine: what its rows have for numbers is theirs.
    Foreign,
    /// A rewrite of ours, or a snapshot of ours that is gone.
    Service,
    /// Another engine, which may have written our rows anew, or changed them.
    Other,
}

/// A snapshot that removed rows, of which its files tell the numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowRemoval {
    pub(super) snapshot: i64,
    /// The last number that a commit before it had.
    pub(super) until: u64,
    pub(super) what: &'static str,
    /// How many numbers it is taken for where its files do not read; none where nobody knows.
    pub(super) rows: Option<u64>,
}

/// A snapshot that removed rows, and whose parent is gone: its own manifests tell of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartedSnapshot {
    pub(super) snapshot: i64,
    /// Up to where the numbers are in doubt for it.
    pub(super) until: u64,
    pub(super) what: &'static str,
}

/// What the history says of the numbers.
#[derive(Debug, Default)]
pub(super) struct CommitLedger {
    /// Numbers that no commit has, in order.
    pub(super) skipped: Vec<SkippedNumbers>,
    /// Why others may lack a row.
    pub(super) causes: Vec<GapCause>,
    /// What was removed by snapshots whose files tell the numbers.
    pub(super) removals: Vec<RowRemoval>,
    /// What explains numbers where the history does not tell.
    pub(super) parted: Vec<PartedSnapshot>,
    /// Where the history does not tell.
    pub(super) doubts: Vec<GapDoubt>,
    /// Whether another engine made a snapshot that is retained.
    pub(super) has_others: bool,
    /// Whether snapshots between retained ones are gone, or before the first.
    pub(super) has_holes: bool,
    origins: HashMap<i64, FileOrigin>,
}

impl CommitLedger {
    /// Who added a file that came with this snapshot. Of one that is gone only the file's name tells.
    pub(super) fn origin(&self, snapshot: i64, has_own_name: bool) -> FileOrigin {
        let by_name = if has_own_name { FileOrigin::Service } else { FileOrigin::Other };
        self.origins.get(&snapshot).copied().unwrap_or(by_name)
    }
}

/// Follows the numbers through the retained snapshots.
pub(super) fn check(check: &mut TableCheck<'_>) -> CommitLedger {
    let mut walk = HistoryWalk::default();
    for snapshot in line(check.table()) {
        walk.step(snapshot);
    }
    let HistoryWalk { faults, mut ledger, last, is_known, .. } = walk;
    for fault in faults {
        check.damage(fault);
    }
    let mark = check.input.table.watermark.map(|mark| mark.last_seq);
    match (mark, last) {
        (Some(mark), Some(last)) if is_known && mark != last => {
            let text =
                format!("the watermark is {mark}, and the last commit has rows up to {last}");
            check.damage(FsckFinding::new(FindingKind::Watermark, text));
        }
        (None, Some(last)) => {
            let text = format!("the table has rows up to {last}, and the metastore no watermark");
            check.note(FsckFinding::new(FindingKind::Watermark, text));
        }
        _ => (),
    }
    if !is_known {
        ledger.doubts.push(GapDoubt::new(u64::MAX, UNTOLD, None));
    }
    // Totals that another engine got wrong do not tell how many rows came and went.
    if (ledger.has_holes || ledger.has_others) && is_total_off(check) {
        ledger.doubts.push(GapDoubt::new(u64::MAX, TOTAL_OFF, None));
    }
    ledger
}

/// The snapshots of `main` as far as they are retained, the oldest first. Others may hang beside it. Those that
/// a repair left behind do not count: numbers of theirs may have come again.
fn line(table: &TableMetadata) -> Vec<&SnapshotRef> {
    let main = ancestors::of(table, table.current_snapshot_id());
    let known: HashSet<i64> = main.map(|snapshot| snapshot.snapshot_id()).collect();
    let numbers = known.iter().filter_map(|id| table.snapshot_by_id(*id));
    let oldest = numbers.map(|snapshot| snapshot.sequence_number()).min();
    let is_on_line = |snapshot: &&SnapshotRef| {
        // A branch has numbers of its own.
        let is_of_branch = snapshot.summary().additional_properties.contains_key(BRANCH);
        known.contains(&snapshot.snapshot_id())
            || !is_of_branch && oldest.is_some_and(|oldest| snapshot.sequence_number() < oldest)
    };
    let mut line: Vec<&SnapshotRef> = table.snapshots().filter(is_on_line).collect();
    line.sort_by_key(|snapshot| snapshot.sequence_number());
    line
}

/// What a snapshot of ours did that removed rows.
fn what_went(snapshot: &SnapshotRef) -> &'static str {
    let summary = snapshot.summary();
    let reason = summary.additional_properties.get(REASON).map(String::as_str);
    match (reason, &summary.operation) {
        (Some(REASON_RETENTION), _) => RETAINED,
        (Some(REASON_ERASE), _) => ERASED,
        (_, Operation::Replace) => APPLIED,
        (_, Operation::Append | Operation::Overwrite | Operation::Delete) => DELETED,
    }
}

/// Where the walk is.
#[derive(Debug, Default)]
struct HistoryWalk {
    ledger: CommitLedger,
    faults: Vec<FsckFinding>,
    /// The snapshot before.
    before: Option<i64>,
    /// Its rows, where it says.
    total: Option<u64>,
    /// Whether it had delete files, or does not say.
    has_deletes: bool,
    /// The last number of the last commit.
    last: Option<u64>,
    /// Whether the last number before the next commit is known.
    is_known: bool,
}

impl HistoryWalk {
    fn step(&mut self, snapshot: &SnapshotRef) {
        let id = snapshot.snapshot_id();
        let is_first = self.before.is_none();
        let is_adjacent = snapshot.parent_snapshot_id() == self.before;
        if is_first {
            (self.total, self.is_known) = (Some(0), true);
        }
        let seq = |key| number(snapshot, key);
        let origin = match (is_own(snapshot), seq(FIRST_SEQ).zip(seq(LAST_SEQ))) {
            (true, Some(range)) => {
                self.commit(snapshot, range, is_adjacent);
                FileOrigin::Log(range)
            }
            (true, None) => {
                self.rewrite(snapshot, seq(LAST_SEQ), is_adjacent);
                FileOrigin::Service
            }
            (false, _) => {
                self.other(snapshot, is_adjacent);
                match snapshot.summary().operation {
                    Operation::Append => FileOrigin::Foreign,
                    Operation::Replace | Operation::Overwrite | Operation::Delete => {
                        FileOrigin::Other
                    }
                }
            }
        };
        self.ledger.origins.insert(id, origin);
        self.before = Some(id);
        self.total = number(snapshot, "total-records");
        self.has_deletes = number(snapshot, "total-delete-files") != Some(0);
    }

    fn fault(&mut self, kind: FindingKind, what: String, snapshot: &SnapshotRef) {
        self.faults.push(FsckFinding::new(kind, what).of_snapshot(snapshot.snapshot_id()));
    }

    /// The numbers of all commits up to here.
    fn so_far(&self) -> SeqRange {
        (1, if self.is_known { self.last.unwrap_or(0) } else { u64::MAX })
    }

    /// Notes why so many numbers of a range may have no row.
    fn cause(&mut self, range: SeqRange, numbers: u64, what: &'static str, snapshot: &SnapshotRef) {
        if 0 < numbers && range.0 <= range.1 {
            let snapshot = snapshot.snapshot_id();
            self.ledger.causes.push(GapCause { range, numbers, what, snapshot });
        }
    }

    fn doubt(&mut self, until: u64, what: &'static str, snapshot: &SnapshotRef) {
        let doubt = GapDoubt::new(until, what, Some(snapshot.snapshot_id()));
        self.ledger.doubts.push(doubt);
    }

    /// A commit of rows from the log.
    fn commit(&mut self, snapshot: &SnapshotRef, (first, last): SeqRange, is_adjacent: bool) {
        let before = self.last.unwrap_or(0);
        if last < first || (self.is_known && first <= before) {
            let text = format!("the numbers go back: {first} to {last} come after {before}");
            self.fault(FindingKind::Watermark, text, snapshot);
            self.last = Some(before.max(last));
            return;
        }
        let span = last - first + 1;
        let added = number(snapshot, "added-records").unwrap_or(span);
        if span < added {
            let text = format!("{added} rows have the numbers from {first} to {last}");
            self.fault(FindingKind::Watermark, text, snapshot);
        }
        let told = unused(snapshot);
        if told.is_none() {
            self.cause((first, last), span.saturating_sub(added), SHORT, snapshot);
        }
        for of in told.iter().flatten().filter(|of| first <= of.first && of.last <= last) {
            let range = (of.first, of.last);
            self.cause(range, range.1 - range.0 + 1, gaps::what_of(of.reason), snapshot);
        }
        if !self.is_known {
            let until = first.saturating_sub(1);
            self.doubt(until, UNTOLD, snapshot);
            self.end_parted(until);
        } else if is_adjacent {
            if before + 1 < first {
                let (range, snapshot) = ((before + 1, first - 1), snapshot.snapshot_id());
                self.ledger.skipped.push(SkippedNumbers { range, snapshot, told });
            }
        } else {
            let total = number(snapshot, "total-records");
            let total = total.and_then(|total| total.checked_sub(added));
            self.hole(first - 1, total, snapshot);
        }
        (self.last, self.is_known) = (Some(last), true);
    }

    /// A snapshot of ours that adds no row. One that replaces files changes none, others may remove some.
    fn rewrite(&mut self, snapshot: &SnapshotRef, last: Option<u64>, is_adjacent: bool) {
        let total = number(snapshot, "total-records");
        let is_replace = matches!(snapshot.summary().operation, Operation::Replace);
        let before = self.last.unwrap_or(0);
        if !is_adjacent {
            match last {
                Some(last) if self.is_known && before <= last => self.hole(last, total, snapshot),
                _ => {
                    let until = last.unwrap_or(u64::MAX).max(before);
                    self.doubt(until, UNTOLD, snapshot);
                    if !is_taken_back(snapshot) {
                        self.part(what_went(snapshot), snapshot);
                    }
                    self.end_parted(until);
                }
            }
            (self.last, self.is_known) = (last.or(self.last), last.is_some());
            return;
        }
        if let Some(last) =
            last.filter(|last| self.is_known && self.last.is_some_and(|was| was != *last))
        {
            let text = format!("it says that the rows go up to {last}, and they go up to {before}");
            self.fault(FindingKind::Watermark, text, snapshot);
        }
        let (Some(was), Some(total)) = (self.total, total) else {
            self.doubt(self.so_far().1, NO_TOTAL, snapshot);
            return;
        };
        if was < total && !is_taken_back(snapshot) {
            let text = format!("a rewrite made {total} rows of {was}");
            self.fault(FindingKind::Summary, text, snapshot);
        } else if total < was && !self.has_deletes && is_replace {
            let text = format!("a rewrite made {total} rows of {was}, and nothing was deleted");
            self.fault(FindingKind::Summary, text, snapshot);
        } else if total <= was {
            // Rows that are removed, or were deleted before, are gone from the files now.
            self.removal(snapshot, was - total);
        } else {
            self.give_back(total - was);
        }
    }

    /// Notes so many rows that a snapshot of ours removed.
    fn removal(&mut self, snapshot: &SnapshotRef, rows: u64) {
        let told = number(snapshot, REMOVED_FIRST_SEQ).zip(number(snapshot, REMOVED_LAST_SEQ));
        let what = what_went(snapshot);
        match told {
            Some(range) => self.cause(range, rows, what, snapshot),
            None => self.look_into(snapshot, what, Some(rows)),
        }
    }

    /// Leaves it to the own manifests of a snapshot what it removed, as its parent is gone.
    fn part(&mut self, what: &'static str, snapshot: &SnapshotRef) {
        let snapshot = snapshot.snapshot_id();
        self.ledger.parted.push(PartedSnapshot { snapshot, until: u64::MAX, what });
    }

    /// Numbers behind this one are in doubt no more for the snapshots so far.
    fn end_parted(&mut self, until: u64) {
        let open = self.ledger.parted.iter_mut().rev().take_while(|it| it.until == u64::MAX);
        open.for_each(|it| it.until = until);
    }

    /// Leaves it to the files of a snapshot which numbers it removed.
    fn look_into(&mut self, snapshot: &SnapshotRef, what: &'static str, rows: Option<u64>) {
        if rows != Some(0) {
            let (snapshot, until) = (snapshot.snapshot_id(), self.so_far().1);
            self.ledger.removals.push(RowRemoval { snapshot, until, what, rows });
        }
    }

    /// Deleted rows are in the files again once compaction is taken back.
    fn give_back(&mut self, mut rows: u64) {
        for removal in self.ledger.removals.iter_mut().rev().filter(|it| it.what == APPLIED) {
            let left = removal.rows.unwrap_or(0);
            let back = rows.min(left);
            removal.rows = removal.rows.map(|_| left - back);
            rows -= back;
        }
    }

    /// A snapshot of another engine.
    fn other(&mut self, snapshot: &SnapshotRef, is_adjacent: bool) {
        self.ledger.has_others = true;
        if !is_adjacent {
            self.is_known = false;
            match snapshot.summary().operation {
                Operation::Append => (),
                Operation::Replace => self.part(APPLIED, snapshot),
                Operation::Overwrite | Operation::Delete => self.part(REMOVED, snapshot),
            }
            return;
        }
        let added = number(snapshot, "added-records").unwrap_or(0);
        // Who says nothing of it may have deleted by delete files alone, and these are read.
        let by_totals = self.total.zip(number(snapshot, "total-records"));
        let by_totals =
            by_totals.map(|(was, total)| was.saturating_add(added).saturating_sub(total));
        let deleted = number(snapshot, "deleted-records").max(by_totals);
        let Some(deleted) = deleted else {
            match snapshot.summary().operation {
                Operation::Append | Operation::Replace => (),
                Operation::Overwrite | Operation::Delete => {
                    self.doubt(self.so_far().1, NO_TOTAL, snapshot);
                }
            }
            return;
        };
        match snapshot.summary().operation {
            Operation::Append => (),
            Operation::Replace => {
                self.look_into(snapshot, APPLIED, Some(deleted.saturating_sub(added)));
            }
            Operation::Overwrite | Operation::Delete if deleted == 0 => (),
            // Some of the rows may have been written anew.
            Operation::Overwrite | Operation::Delete => self.look_into(snapshot, REMOVED, None),
        }
    }

    /// Snapshots that are gone had numbers up to this one; the table has `total` rows after them.
    fn hole(&mut self, last: u64, total: Option<u64>, snapshot: &SnapshotRef) {
        self.ledger.has_holes = true;
        let (Some(was), Some(total)) = (self.total, total) else {
            self.doubt(last, UNTOLD, snapshot);
            return;
        };
        let span = last.saturating_sub(self.last.unwrap_or(0));
        let missing = i128::from(span) + i128::from(was) - i128::from(total);
        self.cause((1, last), u64::try_from(missing).unwrap_or(0), GONE, snapshot);
    }
}
