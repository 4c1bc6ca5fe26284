//! What a step did, or would do.

use crate::maintenance::compaction::{CompactionError, step::GROUPS_MAX};
use icecore_catalog::{
    retention,
    scan::{
        ManifestSource,
        manifests::{PlannedFile, PlannedFiles},
    },
};
use icecore_lake::table::{
    compaction::{
        choice::{
            CompactionChoice, FileGroup,
            reasons::{DELETED, PartitionReasons, ReasonCounts, SMALL},
        },
        copy, planned_files,
        rewrite::{RewriteWay, RewrittenFiles},
    },
    schema::TableIdent,
};
use icecore_schemas::jobs::{BeforeAfter, FileReason, JobReport, PartitionPreview, SkippedTable};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

/// Why nobody can tell before the work whether row groups are copied.
const UNSEEN: &str = "groups beyond the first 32 are looked at when it is their turn";

/// Most partitions that a report lists.
const PARTITIONS_MAX: usize = 1_000;

/// What a step did.
#[derive(Debug, Default)]
pub(super) struct CompactionStep {
    pub(super) files: BeforeAfter,
    pub(super) bytes: BeforeAfter,
    pub(super) rows: u64,
    /// Groups that were committed.
    pub(super) groups: u64,
    /// Why files were merged.
    pub(super) merged: ReasonCounts,
    /// Why others that may be merged stay.
    pub(super) kept: ReasonCounts,
    /// What a dry run says of partitions, and how many there are beside them.
    pub(super) partitions: (Vec<PartitionReasons>, u64),
    /// Files whose row groups were copied.
    pub(super) copied: u64,
    /// Why others were not.
    pub(super) not_copied: BTreeSet<&'static str>,
    pub(super) skipped: Vec<String>,
    /// Files that are left alone from now on.
    pub(super) failed: u64,
    /// Whether there was something to do.
    pub(super) is_tried: bool,
    /// Whether there is more that is worth it.
    pub(super) is_more: bool,
    /// Whether others changed a group meanwhile.
    pub(super) is_refused: bool,
}

impl CompactionStep {
    pub(super) fn skip(reason: impl Into<String>) -> Self {
        Self { skipped: vec![reason.into()], ..Self::default() }
    }

    pub(super) fn add_to(&self, report: &mut JobReport, table: &TableIdent) {
        report.files.before += self.files.before;
        report.files.after += self.files.after;
        report.bytes.before += self.bytes.before;
        report.bytes.after += self.bytes.after;
        report.rows += self.rows;
        report.copied_files += self.copied;
        let because =
            |reason: &str| SkippedTable { table: table.to_string(), reason: reason.to_owned() };
        report.skipped.extend(self.skipped.iter().map(|reason| because(reason)));
        report.not_copied.extend(self.not_copied.iter().map(|reason| because(reason)));
        add_reasons(&mut report.merged, table, &self.merged);
        let (partitions, more) = &self.partitions;
        let room = PARTITIONS_MAX.saturating_sub(report.partitions.len());
        let listed = partitions.iter().take(room).map(|it| preview_of(it, table));
        report.partitions.extend(listed);
        report.partitions_more += more + partitions.len().saturating_sub(room) as u64;
    }

    fn would_do(groups: &[FileGroup], skipped: Vec<String>) -> Self {
        let sum = |of: fn(&FileGroup) -> u64| -> u64 { groups.iter().map(of).sum() };
        let bytes = sum(|group| group.bytes);
        Self {
            files: BeforeAfter {
                before: sum(|group| group.files.len() as u64),
                after: groups.len() as u64,
            },
            bytes: BeforeAfter { before: bytes, after: bytes },
            rows: sum(|group| group.rows),
            skipped,
            ..Self::default()
        }
    }

    pub(super) fn add(&mut self, done: &RewrittenFiles) {
        let reason = if done.deleted_rows == 0 { SMALL } else { DELETED };
        self.groups += 1;
        *self.merged.entry(reason).or_default() += done.files;
        self.files.before += done.files;
        self.files.after += done.added.len() as u64;
        self.bytes.before += done.bytes;
        self.bytes.after += done.bytes_added();
        self.rows += done.rows;
        match done.way {
            RewriteWay::Copied => self.copied += done.files,
            RewriteWay::NotCopied(reason) => {
                self.not_copied.insert(reason);
            }
            RewriteWay::Merged => (),
        }
    }
}

/// What would be done with groups, and how, as far as manifests tell.
pub(super) async fn preview(
    source: ManifestSource<'_>,
    snapshot_id: i64,
    choice: CompactionChoice,
    skipped: Vec<String>,
) -> Result<CompactionStep, CompactionError> {
    let CompactionChoice { groups, reasons, .. } = choice;
    let mut step = CompactionStep::would_do(&groups, skipped);
    (step.merged, step.kept) = (reasons.merged.clone(), reasons.kept.clone());
    step.partitions = reasons.into_partitions();
    // Files of other engines' tables are never copied.
    if groups.is_empty() || !retention::is_managed(source.metadata) {
        return Ok(step);
    }
    let seen = &groups[..groups.len().min(GROUPS_MAX)];
    let wanted: HashSet<&str> =
        seen.iter().flat_map(|group| group.files.iter().map(String::as_str)).collect();
    let planned = planned_files(source, snapshot_id, &wanted).await;
    let table = source.metadata.location().to_owned();
    let (files, deletes) = planned.map_err(|source| CompactionError::Rewrite { table, source })?;
    let by_location: HashMap<&str, &Arc<PlannedFile>> =
        files.iter().map(|file| (file.location.as_str(), file)).collect();
    for group in seen {
        let of_group = group.files.iter().filter_map(|file| by_location.get(file.as_str()));
        let of_group: PlannedFiles = of_group.map(|file| Arc::clone(file)).collect();
        match copy::obstacle(source.metadata, &of_group, &deletes) {
            None => step.copied += of_group.len() as u64,
            Some(reason) => {
                step.not_copied.insert(reason);
            }
        }
    }
    if seen.len() < groups.len() {
        step.not_copied.insert(UNSEEN);
    }
    Ok(step)
}

/// Adds why files of a table were merged, or stay, to what was told of it before.
pub(super) fn add_reasons(list: &mut Vec<FileReason>, table: &TableIdent, counts: &ReasonCounts) {
    let table = table.to_string();
    for (reason, files) in counts {
        let mut of_table = list.iter_mut().rev().take_while(|told| told.table == table);
        match of_table.find(|told| told.reason == *reason) {
            Some(told) => told.files += files,
            None => {
                let (table, reason) = (table.clone(), (*reason).to_owned());
                list.push(FileReason { table, files: *files, reason });
            }
        }
    }
}

fn preview_of(partition: &PartitionReasons, table: &TableIdent) -> PartitionPreview {
    let reason = |(reason, files): (&&str, &u64)| format!("{files}: {reason}");
    PartitionPreview {
        table: table.to_string(),
        partition: partition.name.to_string(),
        files: partition.files,
        bytes: partition.bytes,
        merged: BeforeAfter { before: partition.merged, after: partition.groups },
        reasons: partition.reasons.iter().map(reason).collect(),
    }
}
