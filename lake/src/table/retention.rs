//! Retention: which data files of a table have only rows that are older than they are to be kept, and the
//! snapshot without them. The commit is left to whoever runs it.
//!
//! A file goes as a whole, once its day is: when the last moment of the day that its partition names is
//! old enough, and its bounds do not say otherwise. No file is opened for that; ids and numbers of what goes
//! are read for the sum of the rows. Its one invariant: a file of which it is not known that all of its rows
//! are old stays.
//!
//! Files go with the oldest days first. Of dead letters the newest row of an id counts, so none goes before
//! one that is older: a letter that was discarded would come back.

#[cfg(test)]
mod tests;

use crate::table::{
    compaction::{self, described},
    conservation,
    layout::WriteError,
    reader::{self, ReadError},
    row_sum::RowKeys,
};
use futures::TryStreamExt;
use iceberg::spec::{
    DataFile, DataFileFormat, Literal, Operation, PrimitiveLiteral, TableMetadata, Transform,
};
use icecore_catalog::{
    commit::COMMIT_ID,
    row_sum::RowSum,
    scan::{
        ManifestSource, ScanError,
        deletes::{DeleteIndex, is_only_about, partition_key},
        filter::Filter,
        manifests::{PlannedFile, PlannedFiles},
    },
    snapshot::NewSnapshot,
};
use icecore_schemas::{retention::RetentionRules, service_table::TRUNCATE_TYPE};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::AddAssign,
    pin::pin,
    sync::Arc,
};

/// Entry of a snapshot summary: what the snapshot was made for.
pub const REASON: &str = "icecore.reason";
/// The value of [`REASON`] of a snapshot without rows that were too old.
pub const REASON_RETENTION: &str = "retention";
/// Entry of a snapshot summary: how many rows the files have that went, with those that were deleted before.
pub const REMOVED_ROWS: &str = "icecore.removed-rows";
/// Entry of a snapshot summary: the lowest `seq` of those files. Not all numbers up to the last are of them.
pub const REMOVED_FIRST_SEQ: &str = "icecore.removed-first-seq";
/// Entry of a snapshot summary: their highest `seq`.
pub const REMOVED_LAST_SEQ: &str = "icecore.removed-last-seq";

/// No day is added to a commit that has so many files; a single day may have more.
const FILES_MAX: u64 = 10_000;
/// Files that are looked at before others have their turn.
const FILES_AT_ONCE: usize = 256;
const DAY_MS: i64 = 86_400_000;

const OTHER_SPEC: &str = "of another partition spec";
const NO_DAY: &str = "whose day is not known";
const NO_TYPE: &str = "whose type is not known";
const LATER_ROWS: &str = "whose bounds have later times than their day";
const CHANGES: &str = "that have rows with `op`, or do not say that they have none";
const TRUNCATES: &str = "that say when a collection was emptied";
const TWICE: &str = "that are live twice";

/// How long rows are kept.
#[derive(Clone, Copy, Debug)]
pub enum KeptRows<'a> {
    /// Events, by their types. Those that a collection's documents are made of are kept for ever: those with `op`,
    /// and truncates.
    Events(&'a RetentionRules),
    /// Dead letters.
    DeadLetters {
        /// For so long, in ms.
        kept_ms: i64,
    },
}

/// Why it is not known what goes.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// The manifests do not read.
    #[error("look for files with old rows")]
    Plan(#[from] ScanError),
    /// A file cannot be described.
    #[error("take files out")]
    Describe(#[from] WriteError),
}

/// How much files have together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemovalTotals {
    /// How many data files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows, with those that were deleted before.
    pub rows: u64,
}

impl AddAssign for RemovalTotals {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.rows += other.rows;
    }
}

impl RemovalTotals {
    fn of(file: &PlannedFile) -> Self {
        Self { files: 1, bytes: file.bytes, rows: file.rows }
    }
}

/// What a snapshot has that is old enough to go.
#[derive(Clone, Debug, Default)]
pub struct AgeSurvey {
    /// Of all days together.
    pub all: RemovalTotals,
    /// What stays as it is although it may be old, and why.
    pub skipped: Vec<String>,
    /// The last day of one commit; none where nothing is to go.
    last_day: Option<i32>,
    /// Whether there are later days.
    pub is_more: bool,
}

/// Files that go in one commit.
#[derive(Clone, Debug, Default)]
pub struct OldFiles {
    /// What they have.
    pub totals: RemovalTotals,
    /// The lowest and the highest `seq` of them, where they all say so.
    pub seq: Option<(i64, i64)>,
    /// What stays of the survey's files, and why.
    pub skipped: Option<String>,
    /// The data files, and delete files that are of no use without them.
    removed: Vec<DataFile>,
    /// The data files, and all deletes of the snapshot.
    files: PlannedFiles,
    deletes: DeleteIndex,
    /// Partitions of which other files stay.
    kept_partitions: HashSet<(i32, String)>,
    /// The id of the column `seq`.
    seq_id: Option<i32>,
    /// The sums of the rows of each file, once they are read.
    row_sums: Option<Vec<RowSum>>,
}

/// Looks through a snapshot for what is old at `now_ms`.
///
/// # Errors
/// [`ScanError`]
pub async fn survey(
    source: ManifestSource<'_>,
    snapshot_id: i64,
    kept: KeptRows<'_>,
    now_ms: i64,
) -> Result<AgeSurvey, ScanError> {
    let ages = RowAges::new(source.metadata, kept, now_ms);
    let listed = source.list(snapshot_id, &Filter::True).await?;
    let mut plans = pin!(reader::plans(source, listed, Filter::True));
    let mut tally = AgeTally::default();
    while let Some(plan) = plans.try_next().await? {
        for some in plan.files.chunks(FILES_AT_ONCE) {
            some.iter().for_each(|file| tally.add(file, ages.of(file)));
            tokio::task::yield_now().await;
        }
    }
    Ok(tally.survey(kept))
}

/// The files of a survey's first commit.
///
/// # Errors
/// [`RemovalError`]
pub async fn old_files(
    source: ManifestSource<'_>,
    snapshot_id: i64,
    kept: KeptRows<'_>,
    now_ms: i64,
    survey: &AgeSurvey,
) -> Result<OldFiles, RemovalError> {
    let Some(last_day) = survey.last_day else { return Ok(OldFiles::default()) };
    let ages = RowAges::new(source.metadata, kept, now_ms);
    let listed = source.list(snapshot_id, &Filter::True).await?;
    let mut plans = pin!(reader::plans(source, listed, Filter::True));
    let (mut old, mut deletes) = (PlannedFiles::new(), DeleteIndex::default());
    let mut kept_partitions = HashSet::new();
    while let Some(plan) = plans.try_next().await? {
        for some in plan.files.chunks(FILES_AT_ONCE) {
            for file in some {
                match ages.of(file) {
                    FileAge::Old(day) if day <= last_day => old.push(Arc::clone(file)),
                    FileAge::Old(_) | FileAge::Young | FileAge::Stays(..) => {
                        kept_partitions.insert(partition_key(file));
                    }
                }
            }
            tokio::task::yield_now().await;
        }
        if !plan.files.is_empty() {
            // Each plan with files has all deletes of the snapshot.
            deletes = plan.deletes;
        }
    }
    let mut found = OldFiles::default();
    let doubled = leave_doubled(&mut old, &mut kept_partitions);
    if 0 < doubled {
        found.skipped = Some(stay(TWICE, doubled as u64));
        if matches!(kept, KeptRows::DeadLetters { .. }) {
            // They may have older rows of any letter.
            return Ok(found);
        }
    }
    (found.files, found.deletes) = (old, deletes);
    (found.kept_partitions, found.seq_id) = (kept_partitions, ages.seq);
    found.describe()?;
    Ok(found)
}

impl OldFiles {
    /// Works out what goes with the files.
    fn describe(&mut self) -> Result<(), RemovalError> {
        (self.totals, self.removed) = (RemovalTotals::default(), Vec::new());
        for file in &self.files {
            self.totals += RemovalTotals::of(file);
            self.removed.push(described(file)?);
        }
        self.seq = self.seq_id.and_then(|id| seq_of(id, &self.files));
        for delete in useless_deletes(&self.files, &self.deletes, &self.kept_partitions) {
            self.removed.push(described(&delete)?);
        }
        Ok(())
    }

    /// Leaves the data file out which a refusal of the commit names, since others changed it: what was read of
    /// the other files holds. False where it names none, or none would be left, and for dead letters, of
    /// which a file that stays keeps those that are newer: then all are looked for again.
    ///
    /// # Errors
    /// [`RemovalError::Describe`]
    pub fn leave_named(&mut self, kept: KeptRows<'_>, refusal: &str) -> Result<bool, RemovalError> {
        let is_named = |file: &Arc<PlannedFile>| refusal.contains(&format!("`{}`", file.location));
        let named = self.files.iter().position(is_named);
        let (Some(at), KeptRows::Events(_), true) = (named, kept, 1 < self.files.len()) else {
            return Ok(false);
        };
        let file = self.files.remove(at);
        self.kept_partitions.insert(partition_key(&file));
        if let Some(sums) = &mut self.row_sums {
            sums.remove(at);
        }
        self.describe()?;
        Ok(true)
    }

    /// Reads the sum of the rows that go, for the snapshot to tell it: an audit of the rows would have to find
    /// it out while the files are there. A table without ids and numbers has no sum.
    ///
    /// # Errors
    /// [`ReadError`]; the files can go without it.
    pub async fn sum_rows(&mut self, source: ManifestSource<'_>) -> Result<(), ReadError> {
        let Some(keys) = RowKeys::of(source.metadata.current_schema()) else { return Ok(()) };
        let deletes = self.deletes.clone();
        let sums = conservation::of_planned(source, keys, &self.files, deletes).await?;
        self.row_sums = Some(sums);
        Ok(())
    }

    /// The snapshot without them, which were read of snapshot `read`. No row comes with it, so it moves no
    /// mark.
    #[must_use]
    pub fn removal(&self, read: i64, commit_id: String) -> NewSnapshot {
        let sums = self.row_sums.as_ref();
        let mut summary = BTreeMap::from([
            (COMMIT_ID.to_owned(), commit_id),
            (REASON.to_owned(), REASON_RETENTION.to_owned()),
            (REMOVED_ROWS.to_owned(), self.totals.rows.to_string()),
        ]);
        if let Some((first, last)) = self.seq {
            summary.insert(REMOVED_FIRST_SEQ.to_owned(), first.to_string());
            summary.insert(REMOVED_LAST_SEQ.to_owned(), last.to_string());
        }
        NewSnapshot {
            operation: Operation::Delete,
            read: Some(read),
            removed: self.removed.clone(),
            rows_removed: sums
                .map(|sums| sums.iter().copied().fold(RowSum::default(), RowSum::merge)),
            summary,
            ..NewSnapshot::default()
        }
    }
}

/// What is known of the rows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileAge {
    /// Some are to be kept, or all are for ever.
    Young,
    /// All are of this day, and old.
    Old(i32),
    /// They may be old, and stay for a reason; with their day, where it is known.
    Stays(&'static str, Option<i32>),
}

/// Tells the age of files of a table.
struct RowAges<'a> {
    table: &'a TableMetadata,
    kept: KeptRows<'a>,
    now_ms: i64,
    /// Ids of columns.
    time: Option<i32>,
    op: Option<i32>,
    seq: Option<i32>,
}

impl<'a> RowAges<'a> {
    fn new(table: &'a TableMetadata, kept: KeptRows<'a>, now_ms: i64) -> Self {
        let schema = table.current_schema();
        let id = |name: &str| schema.field_by_name(name).map(|field| field.id);
        let time = match kept {
            KeptRows::Events(_) => "ts",
            KeptRows::DeadLetters { .. } => "received_at",
        };
        Self { table, kept, now_ms, time: id(time), op: id("op"), seq: id("seq") }
    }

    fn of(&self, file: &PlannedFile) -> FileAge {
        let day = compaction::day(self.table, file);
        if file.spec_id != self.table.default_partition_spec_id() {
            return FileAge::Stays(OTHER_SPEC, day);
        }
        let Some(day) = day else { return FileAge::Stays(NO_DAY, None) };
        let kept_ms = match self.kept {
            KeptRows::DeadLetters { kept_ms } => Some(kept_ms),
            KeptRows::Events(rules) => match type_of(self.table, file) {
                Some(event_type) => rules.days(event_type).map(|days| i64::from(days) * DAY_MS),
                None => return FileAge::Stays(NO_TYPE, Some(day)),
            },
        };
        let Some(kept_ms) = kept_ms else { return FileAge::Young };
        let until_ms = self.now_ms.saturating_sub(kept_ms);
        if until_ms < (i64::from(day) + 1) * DAY_MS {
            return FileAge::Young;
        }
        let latest_us = self.time.and_then(|id| long(file.column(id)?.upper.as_ref()?.literal()));
        if latest_us.is_some_and(|us| until_ms <= us.div_euclid(1_000)) {
            return FileAge::Stays(LATER_ROWS, Some(day));
        }
        let has_no_change = |id| file.column(id).and_then(|column| column.nulls) == Some(file.rows);
        if matches!(self.kept, KeptRows::Events(_)) && !self.op.is_none_or(has_no_change) {
            return FileAge::Stays(CHANGES, Some(day));
        }
        // What was emptied would be full again.
        if matches!(self.kept, KeptRows::Events(_))
            && type_of(self.table, file) == Some(TRUNCATE_TYPE)
        {
            return FileAge::Stays(TRUNCATES, Some(day));
        }
        FileAge::Old(day)
    }
}

/// The lowest and the highest number of files, by the column of this id, if all tell theirs.
fn seq_of(id: i32, files: &[Arc<PlannedFile>]) -> Option<(i64, i64)> {
    let bounds = |file: &Arc<PlannedFile>| {
        let column = file.column(id)?;
        let first = long(column.lower.as_ref()?.literal())?;
        Some((first, long(column.upper.as_ref()?.literal())?))
    };
    let bounds: Vec<(i64, i64)> = files.iter().map(bounds).collect::<Option<_>>()?;
    let first = bounds.iter().map(|(first, _)| *first).min()?;
    Some((first, bounds.iter().map(|(_, last)| *last).max()?))
}

/// The type of a file's events, where the partition spec has it.
fn type_of<'a>(table: &TableMetadata, file: &'a PlannedFile) -> Option<&'a str> {
    let id = table.current_schema().field_by_name("type")?.id;
    let spec = table.partition_spec_by_id(file.spec_id)?;
    let is_type = |source: i32, transform| source == id && transform == Transform::Identity;
    let at = spec.fields().iter().position(|field| is_type(field.source_id, field.transform))?;
    match file.partition.fields().get(at)? {
        Some(Literal::Primitive(PrimitiveLiteral::String(event_type))) => Some(event_type.as_str()),
        _ => None,
    }
}

fn long(literal: &PrimitiveLiteral) -> Option<i64> {
    match literal {
        PrimitiveLiteral::Long(number) => Some(*number),
        _ => None,
    }
}

fn stay(reason: &str, files: u64) -> String {
    format!("data files {reason} stay ({files})")
}

/// What was seen of a snapshot's files.
#[derive(Debug, Default)]
struct AgeTally {
    /// What is old, by day.
    days: BTreeMap<i32, RemovalTotals>,
    /// How many files stay, by reason.
    stays: BTreeMap<&'static str, u64>,
    /// The first day of those.
    first_stays: Option<i32>,
    /// Whether one of those may be of any day.
    is_undated: bool,
}

impl AgeTally {
    fn add(&mut self, file: &PlannedFile, age: FileAge) {
        match age {
            FileAge::Young => (),
            FileAge::Old(day) => *self.days.entry(day).or_default() += RemovalTotals::of(file),
            FileAge::Stays(reason, day) => {
                *self.stays.entry(reason).or_default() += 1;
                self.is_undated |= day.is_none();
                self.first_stays = match (self.first_stays, day) {
                    (Some(first), Some(day)) => Some(first.min(day)),
                    (first, day) => first.or(day),
                };
            }
        }
    }

    fn survey(mut self, kept: KeptRows<'_>) -> AgeSurvey {
        let mut skipped: Vec<String> =
            self.stays.iter().map(|(reason, count)| stay(reason, *count)).collect();
        if matches!(kept, KeptRows::DeadLetters { .. }) {
            let before = self.days.len();
            let first = if self.is_undated { Some(i32::MIN) } else { self.first_stays };
            self.days.retain(|day, _| first.is_none_or(|first| *day < first));
            if self.days.len() < before {
                skipped.push("days after them stay: a letter's older rows go first".to_owned());
            }
        }
        let mut survey = AgeSurvey { skipped, ..AgeSurvey::default() };
        for (day, totals) in self.days {
            if survey.all.files < FILES_MAX {
                survey.last_day = Some(day);
            } else {
                survey.is_more = true;
            }
            survey.all += totals;
        }
        survey
    }
}

/// Leaves files that are live twice: what the table has less without them is not what they say. Gives how
/// many.
fn leave_doubled(old: &mut PlannedFiles, kept_partitions: &mut HashSet<(i32, String)>) -> usize {
    let mut counts: HashMap<String, usize> = HashMap::new();
    old.iter().for_each(|file| *counts.entry(file.location.clone()).or_default() += 1);
    let is_twice = |file: &PlannedFile| counts.get(&file.location).is_some_and(|count| 1 < *count);
    for file in old.iter().filter(|file| is_twice(file)) {
        kept_partitions.insert(partition_key(file));
    }
    old.retain(|file| !is_twice(file));
    counts.values().filter(|count| 1 < **count).count()
}

/// The delete files that delete nothing without these data files: those that are about one of them, and
/// those of a partition that goes as a whole.
fn useless_deletes(
    old: &[Arc<PlannedFile>],
    deletes: &DeleteIndex,
    kept_partitions: &HashSet<(i32, String)>,
) -> PlannedFiles {
    let mut useless = PlannedFiles::new();
    for file in old {
        let own = partition_key(file);
        let is_whole = !kept_partitions.contains(&own);
        let of_file = deletes.of(file).into_iter().filter(|delete| {
            // A vector shares its file with those of other data files.
            delete.format == DataFileFormat::Parquet
                && (is_only_about(delete, file) || (is_whole && partition_key(delete) == own))
        });
        useless.extend(of_file);
    }
    useless.sort_by(|one, other| one.location.cmp(&other.location));
    useless.dedup_by(|one, other| one.location == other.location);
    useless
}
