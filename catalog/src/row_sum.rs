//! A sum over rows that does not depend on their order.
//!
//! Each row counts as one, and with a hash of 128 bits; the hashes are added modulo 2^128. What is hashed
//! of a row is the business of whoever knows rows. A row that is lost or that is there twice changes the
//! sum, and two rows that are each there twice do not cancel each other out.
//!
//! Its one invariant: sums are a group. What was added can be taken away again, in any order, and the
//! difference of two sums may stand for fewer rows than none.

use iceberg::spec::{Operation, Snapshot, Summary, TableMetadata};
use std::{fmt, str::FromStr};

/// Entry of a snapshot summary: the sum of the rows that it adds.
pub const ADDED_ROWS_SUM: &str = "icecore.added-rows-sum";
/// Entry of a snapshot summary: the sum of the rows that it removes; left out where it removes none.
pub const REMOVED_ROWS_SUM: &str = "icecore.removed-rows-sum";
/// Entry of a snapshot summary: the sum of the table's rows, without those of the snapshot that
/// [`ROWS_SUM_BASIS`] names.
pub const ROWS_SUM: &str = "icecore.rows-sum";
/// Entry of a snapshot summary: the sum of the rows that were removed since that snapshot; left out while
/// there are none.
pub const TOTAL_REMOVED_ROWS_SUM: &str = "icecore.total-removed-rows-sum";
/// Entry of a snapshot summary: the id of the last snapshot whose rows nobody summed up when it was made,
/// such as one of another engine; left out where [`ROWS_SUM`] is of all rows of the table.
pub const ROWS_SUM_BASIS: &str = "icecore.rows-sum-basis";

/// Whether an entry of a snapshot summary tells a sum of rows, which is the service's to tell.
pub(crate) fn is_entry(key: &str) -> bool {
    [ADDED_ROWS_SUM, REMOVED_ROWS_SUM, ROWS_SUM, TOTAL_REMOVED_ROWS_SUM, ROWS_SUM_BASIS]
        .contains(&key)
}

/// How many hexadecimal digits a sum is written with.
const DIGITS: usize = 32;

/// How many rows, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowSum {
    rows: u64,
    sum: u128,
}

/// A text that is not `ROWS:SUM` with 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sum of rows is written as ROWS:SUM, with 32 hexadecimal digits")]
pub struct InvalidRowSum;

impl RowSum {
    /// How many rows there are; below zero for a difference with more rows taken away.
    #[must_use]
    pub fn rows(self) -> i64 {
        self.rows.cast_signed()
    }

    /// The sum of their hashes, as 32 hexadecimal digits.
    #[must_use]
    pub fn digits(self) -> String {
        format!("{:032x}", self.sum)
    }

    /// Adds the row of this hash.
    pub fn add(&mut self, hash: u128) {
        self.rows = self.rows.wrapping_add(1);
        self.sum = self.sum.wrapping_add(hash);
    }

    /// Takes the row of this hash away.
    pub fn remove(&mut self, hash: u128) {
        self.rows = self.rows.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(hash);
    }

    /// The rows of both.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self { rows: self.rows.wrapping_add(other.rows), sum: self.sum.wrapping_add(other.sum) }
    }

    /// These rows without the others.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self { rows: self.rows.wrapping_sub(other.rows), sum: self.sum.wrapping_sub(other.sum) }
    }
}

impl fmt::Display for RowSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.rows(), self.digits())
    }
}

impl FromStr for RowSum {
    type Err = InvalidRowSum;

    fn from_str(text: &str) -> Result<Self, InvalidRowSum> {
        let (rows, digits) = text.split_once(':').ok_or(InvalidRowSum)?;
        let is_plain =
            digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !is_plain {
            return Err(InvalidRowSum);
        }
        let rows: i64 = rows.parse().map_err(|_| InvalidRowSum)?;
        let sum = u128::from_str_radix(digits, 16).map_err(|_| InvalidRowSum)?;
        Ok(Self { rows: rows.cast_unsigned(), sum })
    }
}

/// What the summary of a snapshot tells of the rows of its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedSums {
    /// The rows beyond those of the basis.
    pub rows: RowSum,
    /// The rows that were removed since then by those who tell what they remove.
    pub removed: RowSum,
    /// The snapshot that they are counted from; none for the empty table.
    pub basis: Option<i64>,
}

impl RecordedSums {
    /// Those of a table without snapshots.
    pub const NOTHING: Self =
        Self { rows: RowSum { rows: 0, sum: 0 }, removed: RowSum { rows: 0, sum: 0 }, basis: None };

    /// Those of a snapshot. One that tells nothing is its own basis.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let own = Self { basis: Some(snapshot.snapshot_id()), ..Self::NOTHING };
        Self::told(snapshot.summary()).unwrap_or(own)
    }

    /// None where the summary tells nothing, or nothing that can be read.
    fn told(summary: &Summary) -> Option<Self> {
        let entry = |key: &str| summary.additional_properties.get(key);
        let rows: RowSum = entry(ROWS_SUM)?.parse().ok()?;
        let removed = entry(TOTAL_REMOVED_ROWS_SUM).map(|text| text.parse::<RowSum>());
        let removed = removed.transpose().ok()?;
        let basis = entry(ROWS_SUM_BASIS).map(|text| text.parse::<i64>()).transpose().ok()?;
        Some(Self { rows, removed: removed.unwrap_or_default(), basis })
    }

    fn entries(self) -> Vec<(&'static str, String)> {
        let mut entries = vec![(ROWS_SUM, self.rows.to_string())];
        if self.removed != RowSum::default() {
            entries.push((TOTAL_REMOVED_ROWS_SUM, self.removed.to_string()));
        }
        entries.extend(self.basis.map(|basis| (ROWS_SUM_BASIS, basis.to_string())));
        entries
    }
}

/// The sum of the rows that the service brought to a table up to a snapshot, by what retained snapshots tell:
/// the rows since each basis, with those that were removed again. It is of fewer rows where a basis or the
/// snapshot before it is gone.
#[must_use]
pub(crate) fn acked(table: &TableMetadata, head: Option<i64>) -> RowSum {
    let (mut acked, mut at) = (RowSum::default(), head);
    // Parents are what a writer says they are, so there are as many steps as snapshots and no more.
    for _ in 0..table.snapshots().len() {
        let Some(made) = at.and_then(|id| table.snapshot_by_id(id)) else { break };
        let RecordedSums { rows, removed, basis } = RecordedSums::of(made);
        acked = acked.merge(rows).merge(removed);
        let Some(basis) = basis.and_then(|id| table.snapshot_by_id(id)) else { break };
        at = basis.parent_snapshot_id();
    }
    acked
}

/// The sums of the rows that come with a snapshot, and that go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowChange {
    /// Rows that come.
    pub added: RowSum,
    /// Rows that go.
    pub removed: RowSum,
}

/// The entries for the summary of a snapshot on top of `parent`, in steps that do not grow with the
/// table. A change that is not known leaves them out: the next snapshot then counts from this one. What a
/// replace adds it removes, so it tells neither.
pub(crate) fn entries(
    parent: Option<&Snapshot>,
    operation: &Operation,
    change: Option<RowChange>,
) -> Vec<(&'static str, String)> {
    if *operation == Operation::Replace {
        // It has the rows of the one before it, in other files.
        let before = parent.and_then(|parent| match change {
            Some(_) => Some(RecordedSums::of(parent)),
            None => RecordedSums::told(parent.summary()),
        });
        return before.map_or_else(Vec::new, RecordedSums::entries);
    }
    let Some(RowChange { added, removed }) = change else { return Vec::new() };
    let before = parent.map_or(RecordedSums::NOTHING, RecordedSums::of);
    let after = RecordedSums {
        rows: before.rows.merge(added).minus(removed),
        removed: before.removed.merge(removed),
        basis: before.basis,
    };
    let mut entries = vec![(ADDED_ROWS_SUM, added.to_string())];
    if removed != RowSum::default() {
        entries.push((REMOVED_ROWS_SUM, removed.to_string()));
    }
    entries.extend(after.entries());
    entries
}

#[cfg(test)]
mod tests;
