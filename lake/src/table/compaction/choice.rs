//! Which data files of a table are worth writing anew: pure rules, no IO.
//!
//! Files of one partition are merged into one by size, the small ones first. A file counts as small while
//! it has less than half of the bytes and rows that a file should have; one that has more is whole, and is
//! written anew only because of deleted rows. The rule, over the small files of a partition by size:
//!
//! 1. Take the longest run from the smallest on whose largest file, times a factor, is not larger than all
//!    of the run together. Sizes below [`WEIGHT_MIN`] count as that: what such a file costs is its request.
//! 2. The factor is [`GROWTH`] while rows still come, and there must be more small files than the bound of
//!    the setting. It is [`GROWTH_CLOSED`] in a partition that has more than twice the bound, in a closed
//!    day that nobody wrote to for [`QUIET_MS`], and when an operator asks; there two files are enough.
//! 3. A run that reaches the size of a whole file is taken as it is.
//! 4. Once an hour files that were committed before the hour are chosen by rows in the place of bytes, with
//!    [`GROWTH_CLOSED`]; there two files are enough, too.
//!
//! So with each rewrite the file that a row is in grows by the factor, or is whole: from 64 KiB to 50 MB,
//! half of the default size, a row is written anew at most 11 times with the factor 2, and 6 times with the
//! factor 4. And a partition keeps at most twice the bound of small files, or 11 where that is more: of
//! files that the factor 2 does not merge each is larger than all smaller ones together. By rows each rewrite at
//! least doubles the file that a row is in: a partition that gets as many rows each hour has at most 4 files of
//! the hours of a day, and a row is written anew at most 5 times. Bytes would not do: a file of few rows is
//! mostly what each file has, so it would be written anew each hour.
//!
//! A file of any size is written anew if [`DELETE_FILES_MAX`] delete files reach it, or at least a tenth of
//! its rows is known to be deleted, or an operator asks and there is one. A small one takes the smaller ones
//! with it: together they are hardly longer than it is.
//!
//! Files of other engines are for an operator alone.

pub mod reasons;

use reasons::{ChoiceReasons, OPEN_DAY, OPEN_HOUR};
use std::{collections::BTreeMap, sync::Arc};

/// Smaller files count as this.
const WEIGHT_MIN: u64 = 64 << 10;
/// The factor in partitions that still get rows.
const GROWTH: u64 = 4;
/// The factor elsewhere.
const GROWTH_CLOSED: u64 = 2;
/// So long nobody wrote to a closed day that is made whole.
const QUIET_MS: i64 = 10 * 60_000;
/// Delete files at which a data file is written anew.
pub const DELETE_FILES_MAX: usize = 4;
/// The share of deleted rows at which it is, as a divisor.
const DELETED_SHARE: u64 = 10;
/// Most files of a group.
pub const GROUP_FILES_MAX: usize = 512;
/// About the most bytes that the files of a group take while they are merged: what is read of each, and a
/// batch of its rows. It is a guess from what manifests say; the rewrite holds its files to their footers.
const HELD_BYTES_MAX: u64 = 128 << 20;
/// Rows in memory take at most about this many times what they take as zstd Parquet.
const MEMORY_PER_FILE_BYTE: u64 = 8;
/// Rows of a batch, as the reader has it, and about the most that they take.
const BATCH_ROWS: u64 = 8192;
const BATCH_BYTES: u64 = 16 << 20;
/// Larger files whose rows are in no known order are left alone: they are sorted in memory.
const UNSORTED_BYTES_MAX: u64 = 8 << 20;
/// So many files have to come to a partition that has more small ones than it should and none worth merging.
const PATIENCE_MIN: usize = 4;
const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;

/// What is known of a live data file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveFile {
    /// Where it is.
    pub location: String,
    /// Its partition as one text.
    pub partition: String,
    /// The same for people.
    pub partition_name: Arc<str>,
    /// The day of its rows, since 1970, where the partition has one.
    pub day: Option<i32>,
    /// Its size.
    pub bytes: u64,
    /// Its rows, deleted ones included.
    pub rows: u64,
    /// Whether its rows are in the table's order.
    pub is_sorted: bool,
    /// Whether another engine gave it its name. Once it is merged, who adds it again by that name is not
    /// refused, and its rows are there twice.
    pub is_foreign: bool,
    /// Why it is not written anew, if so.
    pub obstacle: Option<&'static str>,
    /// Delete files that reach it.
    pub delete_files: usize,
    /// Rows of it that delete files for it alone delete; others may delete more.
    pub deleted_rows: u64,
    /// When its rows became part of the table or later, ms since 1970.
    pub committed_ms: i64,
}

/// What is wanted of a table's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionRules {
    /// About how long a data file should be.
    pub file_bytes: u64,
    /// Most rows that it should have.
    pub file_rows: u64,
    /// Small files of a partition before they are merged while rows still come.
    pub files_max: usize,
    /// How many days back closed days are made whole by themselves.
    pub days_back: i32,
}

/// Who asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionMode {
    /// The server, now and then.
    Steady,
    /// An operator: whatever is worth it.
    Now,
    /// An operator, of closed days alone.
    ClosedDays,
    /// The server, once an hour, of files of closed hours alone.
    ClosedHours,
}

/// Files of one partition that become one, or few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileGroup {
    /// Their locations.
    pub files: Vec<String>,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows, deleted ones included.
    pub rows: u64,
    /// Whether it is worth it only if delete files delete something of them.
    pub is_for_deletes: bool,
}

/// What is to be done, and what is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactionChoice {
    /// Those that save the most files for their bytes first.
    pub groups: Vec<FileGroup>,
    /// Why files stay that are small or have deleted rows, each reason once.
    pub skipped: Vec<&'static str>,
    /// What becomes of the other files, and why; only where somebody asks.
    pub reasons: ChoiceReasons,
    /// As long as no partition but of closed days gets so many files more, their number makes hardly
    /// anything worth it that was not.
    pub patience: usize,
    /// How many small files the partition has that has the most of them, of those that may be merged.
    pub most: usize,
}

/// Chooses among the live files of a table; nothing when nothing is worth it.
#[must_use]
pub fn choose(
    files: &[LiveFile],
    rules: &CompactionRules,
    mode: CompactionMode,
    now_ms: i64,
) -> CompactionChoice {
    let today = i32::try_from(now_ms.div_euclid(DAY_MS)).unwrap_or(i32::MAX);
    let mut choice = CompactionChoice { patience: rules.files_max + 1, ..Default::default() };
    let mut partitions: BTreeMap<&str, Vec<&LiveFile>> = BTreeMap::new();
    for file in files {
        if let Some(reason) = wait_reason(file, mode, (today, now_ms)) {
            choice.reasons.keep(reason);
            continue;
        }
        let unsorted = (!file.is_sorted && UNSORTED_BYTES_MAX < file.bytes)
            .then_some("files over 8 MiB without the table's sort order stay as they are");
        let foreign = (file.is_foreign && mode == CompactionMode::Steady)
            .then_some("files of other engines are merged by hand alone");
        match file.obstacle.or(unsorted).or(foreign) {
            Some(reason) if is_small(file, rules) || 0 < file.delete_files => {
                choice.skipped.push(reason);
            }
            Some(_) => (),
            None => partitions.entry(&file.partition).or_default().push(file),
        }
    }
    for files in partitions.into_values() {
        let before = choice.groups.len();
        let mut small: Vec<&LiveFile> =
            files.iter().copied().filter(|file| is_small(file, rules)).collect();
        small.sort_unstable_by_key(|file| (weight_of(file, mode), file.bytes, &file.location));
        choice.most = choice.most.max(small.len());
        let is_due = |file: &&LiveFile| has_many_deletes(file, mode);
        let growth = match small.iter().any(is_due) {
            true => Some(GROWTH_CLOSED),
            false => growth(&small, rules, mode, (today, now_ms)),
        };
        let merged = growth.map_or(0, |growth| worth_merging(&small, rules, growth, mode));
        let (merged, mut left) = small.split_at(merged);
        choice.groups.extend((!merged.is_empty()).then(|| group(merged)));
        while let Some(last) = left.iter().rposition(is_due) {
            // Each weighs more than all smaller ones together, unless a bound ended the group before.
            let mut first = last;
            while 0 < first && fits(&left[first - 1..=last], rules) {
                first -= 1;
            }
            choice.groups.push(for_deletes(&left[first..=last]));
            left = &left[..first];
        }
        let whole = files.iter().filter(|file| !is_small(file, rules));
        choice.groups.extend(whole.filter(|file| is_due(file)).map(|file| for_deletes(&[file])));
        if mode != CompactionMode::Steady {
            choice.reasons.add(&files, &choice.groups[before..], rules);
        }
        // Closed days become quiet, whatever comes to them.
        if files[0].day.is_none_or(|day| today <= day) {
            let gave_none = choice.groups.len() == before;
            choice.patience = choice.patience.min(patience(&small, rules, gave_none));
        }
    }
    choice.groups.sort_by_key(|group| (group.bytes / group.files.len() as u64, group.bytes));
    choice.skipped.sort_unstable();
    choice.skipped.dedup();
    choice
}

/// Why a run leaves a file to a later one: others may come to its day or hour.
fn wait_reason(
    file: &LiveFile,
    mode: CompactionMode,
    (today, now_ms): (i32, i64),
) -> Option<&'static str> {
    match mode {
        CompactionMode::Steady | CompactionMode::Now => None,
        CompactionMode::ClosedDays => {
            let is_closed = file.day.is_some_and(|day| day < today);
            (!is_closed).then_some(OPEN_DAY)
        }
        CompactionMode::ClosedHours => {
            let hour_ms = now_ms - now_ms.rem_euclid(HOUR_MS);
            (hour_ms <= file.committed_ms).then_some(OPEN_HOUR)
        }
    }
}

/// The factor for the small files of a partition; none when they are to stay.
fn growth(
    small: &[&LiveFile],
    rules: &CompactionRules,
    mode: CompactionMode,
    (today, now_ms): (i32, i64),
) -> Option<u64> {
    if small.len() < 2 {
        return None;
    }
    if mode != CompactionMode::Steady {
        return Some(GROWTH_CLOSED);
    }
    let is_recent = |day: i32| day < today && today.saturating_sub(rules.days_back) <= day;
    let is_closed = small[0].day.is_some_and(is_recent);
    let newest_ms = small.iter().map(|file| file.committed_ms).max().unwrap_or(i64::MAX);
    let is_quiet = newest_ms <= now_ms.saturating_sub(QUIET_MS);
    if (is_closed && is_quiet) || rules.files_max.saturating_mul(2) < small.len() {
        return Some(GROWTH_CLOSED);
    }
    (rules.files_max < small.len()).then_some(GROWTH)
}

/// Whether files become one that is no longer than it should be.
fn fits(files: &[&LiveFile], rules: &CompactionRules) -> bool {
    let sum = |of: fn(&LiveFile) -> u64| -> u64 { files.iter().map(|file| of(file)).sum() };
    sum(|file| file.bytes) <= rules.file_bytes
        && sum(|file| file.rows) <= rules.file_rows
        && sum(held_bytes) <= HELD_BYTES_MAX
        && files.len() <= GROUP_FILES_MAX
}

/// How many files have to come before so many small ones that the steady rule merges them.
fn patience(small: &[&LiveFile], rules: &CompactionRules, gave_none: bool) -> usize {
    match gave_none && rules.files_max < small.len() {
        true => PATIENCE_MIN,
        false => rules.files_max.saturating_sub(small.len()).saturating_add(1),
    }
}

/// What a file counts as where files are held against one another.
fn weight_of(file: &LiveFile, mode: CompactionMode) -> u64 {
    match mode {
        CompactionMode::ClosedHours => file.rows.max(1),
        CompactionMode::Steady | CompactionMode::Now | CompactionMode::ClosedDays => {
            file.bytes.max(WEIGHT_MIN)
        }
    }
}

/// How many of the smallest files become one; none or at least two.
fn worth_merging(
    small: &[&LiveFile],
    rules: &CompactionRules,
    growth: u64,
    mode: CompactionMode,
) -> usize {
    let (mut bytes, mut rows, mut held, mut weight, mut worth) = (0_u64, 0_u64, 0_u64, 0_u64, 0);
    for (at, file) in small.iter().enumerate() {
        let is_full = rules.file_bytes < bytes + file.bytes || rules.file_rows < rows + file.rows;
        if is_full && 2 <= at && is_whole(bytes, rows, rules) {
            return at;
        }
        if is_full || HELD_BYTES_MAX < held + held_bytes(file) || GROUP_FILES_MAX <= at {
            break;
        }
        bytes += file.bytes;
        rows += file.rows;
        held += held_bytes(file);
        let own = weight_of(file, mode);
        weight += own;
        if own.saturating_mul(growth) <= weight {
            worth = at + 1;
        }
    }
    if worth < 2 { 0 } else { worth }
}

/// What a file takes while it is merged: its bytes as stored, and a batch of rows.
fn held_bytes(file: &LiveFile) -> u64 {
    let plain = file.bytes.saturating_mul(MEMORY_PER_FILE_BYTE);
    file.bytes + (plain / file.rows.div_ceil(BATCH_ROWS).max(1)).min(BATCH_BYTES)
}

fn is_small(file: &LiveFile, rules: &CompactionRules) -> bool {
    !is_whole(file.bytes, file.rows, rules)
}

fn is_whole(bytes: u64, rows: u64, rules: &CompactionRules) -> bool {
    rules.file_bytes / 2 <= bytes || rules.file_rows / 2 <= rows
}

fn has_many_deletes(file: &LiveFile, mode: CompactionMode) -> bool {
    let is_large_share = file.rows <= file.deleted_rows.saturating_mul(DELETED_SHARE);
    let takes_each = matches!(mode, CompactionMode::Now | CompactionMode::ClosedDays);
    DELETE_FILES_MAX <= file.delete_files
        || (0 < file.deleted_rows && is_large_share)
        || (takes_each && 0 < file.delete_files)
}

fn group(files: &[&LiveFile]) -> FileGroup {
    FileGroup {
        files: files.iter().map(|file| file.location.clone()).collect(),
        bytes: files.iter().map(|file| file.bytes).sum(),
        rows: files.iter().map(|file| file.rows).sum(),
        is_for_deletes: false,
    }
}

fn for_deletes(files: &[&LiveFile]) -> FileGroup {
    FileGroup { is_for_deletes: true, ..group(files) }
}

#[cfg(test)]
mod tests;
