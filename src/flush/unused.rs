//! Why a commit passes numbers over that no row of its table has.
//!
//! Its one invariant: the watermark and the records of the commit are no witnesses, as a flush that left records
//! out would have the same. Numbers are explained by the log as a whole, or by what an operator accepted.

use crate::flush::commit::{FlushTarget, TableFlush};
use iceberg::{TableIdent, spec::TableMetadata};
use icecore_catalog::{
    ancestors,
    commit::{COMMIT_ID, FIRST_SEQ, LAST_SEQ},
};
use icecore_lake::{
    table::unused_numbers::{
        RANGES_MAX, TAKE_OVER_MARGIN, UNUSED_SEQ, UnusedNumbers, UnusedReason, to_entry,
    },
    wal::{
        LogPosition, RecordRef,
        ranges::{self, SeqInterval},
    },
};

/// Numbers that are passed over between two records of a table.
#[derive(Clone, Copy, Debug)]
struct NumberJump {
    numbers: SeqInterval,
    /// The record before them; 0 where the log has none.
    after: LogPosition,
    /// The record behind them.
    before: LogPosition,
}

impl TableFlush {
    /// What the summary of a commit of these records says of numbers without a row; nothing where they are too
    /// many to say, where no snapshot tells how far the table was before, or where the commit before is of a version
    /// that may have left numbers without a reason.
    pub(super) fn unused(
        &self,
        ident: &TableIdent,
        table: &FlushTarget,
        records: &[RecordRef],
    ) -> Option<String> {
        let mark = table.watermark();
        let last = match (last_commit(table.metadata()), mark) {
            (Some(last), _) => last,
            (None, None) => 0,
            // Its commits are gone, or of a version that did not note their numbers.
            (None, Some(_)) => return None,
        };
        let jumps = jumps((last, self.owner.committed(mark).unwrap_or(0)), records);
        if RANGES_MAX < jumps.len() {
            return None;
        }
        let (mut unused, mut kept) = (Vec::<UnusedNumbers>::new(), None);
        let name = ident.to_string();
        let lost = self.lost.iter().filter(|(table, _)| *table == name);
        let lost: Vec<SeqInterval> = lost.map(|(_, range)| *range).collect();
        for jump in &jumps {
            let left = ranges::without(jump.numbers, &lost);
            let given = ranges::without(jump.numbers, &left);
            add(&mut unused, &given, UnusedReason::GivenUp);
            let (below, above) = split(&left, self.owner.seq_after());
            add(&mut unused, &below, UnusedReason::TakenOver);
            if above.iter().all(is_far) {
                continue;
            }
            // The first of the jumps is the first in the log, too.
            let kept: &Vec<RecordRef> =
                kept.get_or_insert_with(|| self.wal.all_records(jump.after));
            // Only before its first row a table has no watermark.
            let begins = mark.is_none() && jump.after == 0;
            match reason(*jump, kept, records, begins) {
                Some(reason) => add(&mut unused, &above, reason),
                // Earlier versions gave numbers to rows that they could not write.
                None if is_after_silent(table.metadata()) => return None,
                None => (),
            }
        }
        (unused.len() <= RANGES_MAX).then(|| to_entry(&unused))
    }
}

/// The last number of the last commit of ours that is retained.
fn last_commit(table: &TableMetadata) -> Option<u64> {
    ancestors::of(table, table.current_snapshot_id()).find_map(|snapshot| {
        let entries = &snapshot.summary().additional_properties;
        entries.get(COMMIT_ID)?;
        entries.get(LAST_SEQ)?.parse().ok()
    })
}

/// Whether the last commit of rows that is retained says nothing of numbers without a row.
fn is_after_silent(table: &TableMetadata) -> bool {
    let last = ancestors::of(table, table.current_snapshot_id())
        .map(|snapshot| &snapshot.summary().additional_properties)
        .find(|entries| entries.contains_key(COMMIT_ID) && entries.contains_key(FIRST_SEQ));
    last.is_some_and(|entries| !entries.contains_key(UNUSED_SEQ))
}

/// What of the ranges is not above a number, and what is.
fn split(numbers: &[SeqInterval], last: u64) -> (Vec<SeqInterval>, Vec<SeqInterval>) {
    let mut parts = (Vec::new(), Vec::new());
    for range in numbers {
        let above = ranges::without(*range, &[(0, last)]);
        parts.0.extend(ranges::without(*range, &above));
        parts.1.extend(above);
    }
    parts
}

/// Whether only a log that takes over passes so many numbers over. That needs no reason.
fn is_far((first, last): &SeqInterval) -> bool {
    TAKE_OVER_MARGIN / 2 <= last - first
}

/// What records pass over that come after the row and the record of `end`.
fn jumps(end: (u64, LogPosition), records: &[RecordRef]) -> Vec<NumberJump> {
    let (mut seq, mut position) = end;
    let mut found = Vec::new();
    for record in records.iter().filter(|record| 0 < record.rows) {
        if seq + 1 < record.first_seq {
            let numbers = (seq + 1, record.first_seq - 1);
            found.push(NumberJump { numbers, after: position, before: record.position });
        }
        seq = seq.max(record.first_seq + u64::from(record.rows) - 1);
        position = record.position;
    }
    found
}

/// Why no row has the numbers of a jump, by what the log `kept`; none where a record of the same table lies
/// there, or may have.
fn reason(
    NumberJump { after, before, .. }: NumberJump,
    kept: &[RecordRef],
    records: &[RecordRef],
    begins: bool,
) -> Option<UnusedReason> {
    let own = records.first()?;
    let is_own = |record: &&RecordRef| {
        record.kind == own.kind && record.namespace == own.namespace && 0 < record.rows
    };
    let is_between = |record: &&RecordRef| after < record.position && record.position < before;
    let between: Vec<&RecordRef> = kept.iter().filter(is_between).collect();
    if between.iter().any(is_own) {
        return None;
    }
    let is_dense = between.len() as u64 + 1 == before.saturating_sub(after);
    match (is_dense, begins) {
        (true, _) => Some(UnusedReason::NotLogged),
        (false, true) => Some(UnusedReason::BeforeTable),
        (false, false) => None,
    }
}

fn add(unused: &mut Vec<UnusedNumbers>, ranges: &[SeqInterval], reason: UnusedReason) {
    unused.extend(ranges.iter().map(|(first, last)| UnusedNumbers {
        first: *first,
        last: *last,
        reason,
    }));
}
