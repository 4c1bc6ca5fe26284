//! One step: some groups of one table, and one commit for them.
//!
//! Its one invariant: it ends within seconds of reading the table, whatever share of a processor it has. The
//! snapshot that it read is thinned away otherwise where commits are frequent, and its work with it.

use crate::maintenance::compaction::{
    Compaction, CompactionError, CompactionRequest,
    outcome::{CompactionStep, preview},
    pace::WorkPace,
    tables,
};
use icecore_catalog::{
    catalog::LoadedTable,
    error::{CatalogError, with_causes},
    retention,
    scan::{
        Deadline, ManifestSource,
        deletes::DeleteIndex,
        manifests::{ManifestCache, PlannedFile, PlannedFiles},
    },
};
use icecore_lake::table::{
    compaction::{
        FileTotals,
        choice::{CompactionMode, CompactionRules, FileGroup, GROUP_FILES_MAX, LiveFile, choose},
        newest_kept_ms, newest_ms, planned_files,
        rewrite::{RewriteError, RewriteInput, RewrittenFiles},
    },
    deletes::RowDeletes,
    schema::TableIdent,
    writer::FileLayout,
};
use std::{
    collections::{HashMap, HashSet},
    error::Error,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use tracing::warn;

/// Why files with delete files stay.
const WHOLE: &str = "files of which delete files delete nothing stay as they are for an hour";
/// Why files of other engines stay where nobody asks for them.
const FOREIGN: &str = "files of other engines are merged by hand alone";
/// Most groups of a step.
pub(super) const GROUPS_MAX: usize = 32;
/// Fewer files are not halved to find the one that is in the way.
const HALVED_MIN: usize = 4;
/// No group is added once a step has so many bytes.
pub(super) const BYTES_MAX: u64 = 128 << 20;
/// After so long no group is begun any more, and the one that goes on does not rest.
const TIME_MAX: Duration = Duration::from_secs(10);
/// It is never less.
const TIME_MIN: Duration = Duration::from_millis(500);
/// The part of the time for which the newest snapshots stay that a step takes, as a divisor: what it has begun
/// goes on after that, and its commit may wait for others.
const KEPT_SHARE: u32 = 3;
/// Commits come fast to a table of which so many snapshots were made within [`BUSY_WITHIN_MS`]: its files would
/// pile up until the next round of all tables.
const BUSY_SNAPSHOTS: usize = 64;
/// About the time between two rounds of all tables.
const BUSY_WITHIN_MS: i64 = 15_000;
/// Groups of a table that others change are not made smaller than this.
const FEWER_FILES_MIN: usize = 4;

impl Compaction {
    /// Writes the groups anew that are worth it the most, and commits them. Files are left alone whose
    /// rewrite failed since then. What became of it is noted.
    pub(super) async fn step(
        &self,
        table: &TableIdent,
        request: &CompactionRequest,
        since_ms: i64,
        pace: &mut WorkPace,
    ) -> Result<CompactionStep, CompactionError> {
        let stepped = self.try_step(table, request, since_ms, pace).await;
        let now_ms = self.0.clock.passed_ms();
        match &stepped {
            Ok(step) if step.is_tried => {
                request.progress.finish(step.groups, step.bytes.before);
                let is_committed = 0 < step.files.before;
                let mut noted = self.noted();
                match (step.is_refused, is_committed) {
                    (true, _) => noted.refuse(table, !is_committed, now_ms),
                    (false, true) => noted.accept(table),
                    (false, false) => noted.lose(table, now_ms),
                }
                if is_committed {
                    noted.gain(table);
                }
            }
            // Nothing is wrong with a table because of what somebody typed.
            Err(CompactionError::Condition { .. }) => (),
            Err(cause) if !self.ends_all(cause) => self.noted().lose(table, now_ms),
            Ok(_) | Err(_) => (),
        }
        stepped
    }

    async fn try_step(
        &self,
        table: &TableIdent,
        request: &CompactionRequest,
        since_ms: i64,
        pace: &mut WorkPace,
    ) -> Result<CompactionStep, CompactionError> {
        let started = Instant::now();
        let loaded = match self.0.catalog.tables().load(table).await {
            // It was dropped meanwhile.
            Err(CatalogError::NoSuchTable(_)) => return Ok(CompactionStep::default()),
            loaded => loaded?,
        };
        let metadata = loaded.metadata.as_ref();
        let filter = request.filter(table, &loaded)?;
        let Some(totals) = FileTotals::of(metadata) else { return Ok(CompactionStep::default()) };
        if retention::is_managed(metadata) && !request.dry_run {
            Box::pin(self.settle_rows(table, &loaded)).await;
        }
        let is_steady = request.mode == CompactionMode::Steady;
        let now_ms = self.0.clock.passed_ms();
        if is_steady && self.noted().is_as_seen(table, totals, now_ms) {
            return Ok(CompactionStep::default());
        }
        let stays = tables::obstacle_of(&loaded, request);
        if stays.is_some() || totals.are_of_one_file() {
            // No manifest of it is read.
            self.noted().see(table, totals, 1, now_ms);
            let stay = |why| self.stay(table, &loaded, why);
            return Ok(stays.map_or_else(CompactionStep::default, stay));
        }
        let writer = self.writer_of(&loaded).await?;
        if let (Some(why), false) = (writer, request.is_by_hand()) {
            return Ok(self.stay(table, &loaded, why.to_owned()));
        }
        self.note_rate(table, &loaded);
        // It is not kept: the manifests of a large table take hundreds of MiB.
        let (storage, cache) = (self.0.catalog.storage(), ManifestCache::default());
        let source = ManifestSource { storage, cache: &cache, metadata, until: Deadline::NONE };
        let mut files = tables::files_of(source, totals.snapshot_id, &filter).await?;
        self.apply_notes(&mut files, request, (since_ms, now_ms));
        let rules = self.rules(&FileLayout::of(metadata));
        let choice = choose(&files, &rules, request.mode, self.0.catalog.now_ms());
        drop(files);
        pace.meet_backlog(choice.most, rules.files_max);
        let mut skipped: Vec<String> = choice.skipped.iter().map(|&why| why.into()).collect();
        request.progress.find(choice.groups.len() as u64, group_bytes(&choice.groups));
        let lack = if choice.groups.is_empty() { None } else { self.lacks_room().await? };
        if request.dry_run {
            skipped.extend(lack.into_iter().chain(writer.map(str::to_owned)));
            return Box::pin(preview(source, totals.snapshot_id, choice, skipped)).await;
        }
        let kept = choice.reasons.kept;
        if choice.groups.is_empty() {
            if is_steady {
                self.noted().see(table, totals, choice.patience, now_ms);
            }
            return Ok(CompactionStep { skipped, kept, ..CompactionStep::default() });
        }
        if let Some(reason) = lack {
            return Ok(CompactionStep::skip(reason));
        }
        let refused = if is_steady { self.noted().refused(table) } else { 0 };
        let kept_ms = newest_kept_ms(metadata, self.0.catalog.now_ms());
        let until = started + step_time(kept_ms, refused);
        let (groups, is_more) = within_bounds(choice.groups, refused);
        let mut step = CompactionStep { skipped, kept, ..CompactionStep::default() };
        (step.is_more, step.is_tried) = (is_more || GROUP_FILES_MAX < choice.most, true);
        let written = self.rewrite(table, source, &groups, (&mut *pace, until), &mut step).await?;
        if let Some(why) = self.give_way(&loaded, request, &written).await? {
            return Ok(CompactionStep::skip(why));
        }
        // A commit mostly waits for its turn among those of others.
        pace.note();
        let committed = self.commit(table, totals.snapshot_id, written, &mut step).await;
        pace.leave_out();
        committed?;
        // One commit leaves more to do only where it did something, or knows what is in the way.
        step.is_more &= 0 < step.files.before + step.failed;
        Ok(step)
    }

    /// Notes a table to which commits come fast.
    fn note_rate(&self, table: &TableIdent, loaded: &LoadedTable) {
        let made_ms = newest_ms(&loaded.metadata, BUSY_SNAPSHOTS, self.0.catalog.now_ms());
        if made_ms.is_some_and(|made_ms| made_ms < BUSY_WITHIN_MS) {
            self.noted().note_busy(table, self.0.clock.passed_ms());
        }
    }

    /// The rules, within what the table wants of its files.
    fn rules(&self, layout: &FileLayout) -> CompactionRules {
        let mut rules = self.0.options.rules;
        rules.file_bytes = rules.file_bytes.min(layout.file_bytes as u64);
        rules
    }

    fn apply_notes(
        &self,
        files: &mut [LiveFile],
        request: &CompactionRequest,
        (since_ms, now_ms): (i64, i64),
    ) {
        let noted = self.noted();
        for file in files {
            if noted.is_whole(&file.location, since_ms, now_ms) {
                (file.delete_files, file.deleted_rows) = (0, 0);
            }
            if noted.is_failed(&file.location, since_ms, now_ms) {
                file.obstacle =
                    Some("files whose rewrite failed stay as they are for an hour or more");
            }
            if request.leaves_foreign && file.is_foreign {
                file.obstacle = file.obstacle.or(Some(FOREIGN));
            }
        }
    }

    /// Writes groups anew, one after the other, as long as there is time. One that fails is left out, and
    /// told: the file that is in the way is noted alone, and where it is not known it is looked for by halves.
    async fn rewrite(
        &self,
        table: &TableIdent,
        source: ManifestSource<'_>,
        groups: &[FileGroup],
        (pace, until): (&mut WorkPace, Instant),
        step: &mut CompactionStep,
    ) -> Result<Vec<RewrittenFiles>, CompactionError> {
        let failed = |source| CompactionError::Rewrite { table: table.to_string(), source };
        let snapshot_id = source.metadata.current_snapshot_id().unwrap_or_default();
        let wanted: HashSet<&str> =
            groups.iter().flat_map(|group| group.files.iter().map(String::as_str)).collect();
        let (files, index) = planned_files(source, snapshot_id, &wanted).await.map_err(failed)?;
        // Where they do not fit, or one does not read, each group has its own.
        let deletes = RowDeletes::read(source, index.clone(), &files).await.ok();
        let by_location: HashMap<&str, &Arc<PlannedFile>> =
            files.iter().map(|file| (file.location.as_str(), file)).collect();
        let mut left: Vec<(PlannedFiles, bool)> = Vec::new();
        for group in groups.iter().rev() {
            let of_group = group.files.iter().filter_map(|file| by_location.get(file.as_str()));
            left.push((of_group.map(|file| Arc::clone(file)).collect(), group.is_for_deletes));
        }
        let mut written: Vec<RewrittenFiles> = Vec::new();
        while let Some((files, is_for_deletes)) = left.pop() {
            let mut paced = GroupPace { pace: &mut *pace, until, is_for_deletes };
            let done = match &deletes {
                Some(deletes) => {
                    let input = RewriteInput { source, files: &files, deletes };
                    self.rewrite_group(input, &mut paced).await
                }
                None => self.rewrite_alone(source, &index, &files, &mut paced).await,
            };
            let ended = match done {
                Ok(done) => {
                    written.push(done);
                    None
                }
                Err(GroupError::Rewrite(cause)) => {
                    // Nothing is wrong with these files where the whole warehouse is away.
                    let is_outage = source.storage.outage().is_some();
                    if !is_outage {
                        let error = &cause as &dyn Error;
                        warn!(%table, files = files.len(), error, "files are not compacted");
                        let halves = self.note_failed(&cause, &files, step);
                        left.extend(halves.into_iter().map(|half| (half, is_for_deletes)));
                    }
                    (is_outage || cause.is_of_store()).then(|| failed(cause))
                }
                Err(GroupError::Whole) => {
                    let whole = files.iter().map(|file| file.location.clone());
                    self.noted().find_whole(whole, self.0.clock.passed_ms());
                    step.failed += files.len() as u64;
                    step.skipped.push(WHOLE.to_owned());
                    None
                }
                Err(GroupError::Ended(cause)) => Some(cause),
            };
            if let Some(cause) = ended {
                self.delete(&written).await;
                return Err(cause);
            }
            if until <= Instant::now() && !left.is_empty() {
                step.is_more = true;
                break;
            }
        }
        Ok(written)
    }

    /// A group with the deletes of its files alone.
    async fn rewrite_alone(
        &self,
        source: ManifestSource<'_>,
        index: &DeleteIndex,
        files: &[Arc<PlannedFile>],
        paced: &mut GroupPace<'_>,
    ) -> Result<RewrittenFiles, GroupError> {
        let deletes = RowDeletes::read(source, index.clone(), files).await;
        let deletes = deletes.map_err(RewriteError::from)?;
        self.rewrite_group(RewriteInput { source, files, deletes: &deletes }, paced).await
    }

    /// Notes the files of a group that failed; gives the halves in which the reason is to be found.
    fn note_failed(
        &self,
        cause: &RewriteError,
        files: &[Arc<PlannedFile>],
        step: &mut CompactionStep,
    ) -> Vec<PlannedFiles> {
        let location = |file: &Arc<PlannedFile>| file.location.clone();
        let known = cause.data_files();
        let is_known = |path: &String| known.contains(&path.as_str());
        let mut noted: Vec<String> = files.iter().map(location).filter(is_known).collect();
        // A half of one file would become the file that it is.
        if noted.is_empty() && cause.may_be_of_one_file() && HALVED_MIN <= files.len() {
            let (one, other) = files.split_at(files.len() / 2);
            return vec![one.to_vec(), other.to_vec()];
        }
        if noted.is_empty() {
            noted.extend(files.iter().map(location));
        }
        step.failed += noted.len() as u64;
        self.noted().fail(noted, cause.is_lasting(), self.0.clock.passed_ms());
        step.skipped.push(with_causes(cause));
        Vec::new()
    }

    async fn rewrite_group(
        &self,
        input: RewriteInput<'_>,
        GroupPace { pace, until, is_for_deletes }: &mut GroupPace<'_>,
    ) -> Result<RewrittenFiles, GroupError> {
        self.0.faults.hit("compact.before_write").map_err(CompactionError::from)?;
        let mut rewrite = tables::open_group(input, &self.0.ids).await?;
        if *is_for_deletes && rewrite.planned().deleted_rows == 0 {
            rewrite.abandon().await;
            return Err(GroupError::Whole);
        }
        loop {
            let stepped = match rewrite.step().await {
                Ok(true) => pace.rest(*until).await.map_err(GroupError::from),
                Ok(false) => break,
                Err(cause) => Err(cause.into()),
            };
            if let Err(cause) = stepped {
                rewrite.abandon().await;
                return Err(cause);
            }
        }
        let done = rewrite.finish().await?;
        if let Err(fault) = self.0.faults.hit("compact.after_data_file") {
            self.delete(std::slice::from_ref(&done)).await;
            return Err(CompactionError::from(fault).into());
        }
        Ok(done)
    }
}

fn group_bytes(groups: &[FileGroup]) -> u64 {
    groups.iter().map(|group| group.bytes).sum()
}

/// How long a step may take. What it read has to be there at its end, which is not long where commits are
/// frequent; and the less it takes, the less others change meanwhile.
fn step_time(kept_ms: Option<i64>, refused: u32) -> Duration {
    let kept = kept_ms.map_or(TIME_MAX, |kept_ms| {
        Duration::from_millis(u64::try_from(kept_ms).unwrap_or(0)) / KEPT_SHARE
    });
    (kept.min(TIME_MAX) / (1_u32 << refused.min(16))).max(TIME_MIN)
}

/// The groups that one step takes, and whether others are left. Where others change the table meanwhile they
/// are smaller with each time that a step was refused: the smallest files of each.
fn within_bounds(mut groups: Vec<FileGroup>, refused: u32) -> (Vec<FileGroup>, bool) {
    let mut is_more = false;
    for group in groups.iter_mut().filter(|group| !group.is_for_deletes) {
        let most = (group.files.len() >> refused.min(16)).max(FEWER_FILES_MIN);
        if most < group.files.len() {
            group.files.truncate(most);
            is_more = true;
        }
    }
    let mut bytes = 0;
    let within = groups.iter().take(GROUPS_MAX).take_while(|group| {
        let fits = bytes < BYTES_MAX;
        bytes += group.bytes;
        fits
    });
    let count = within.count();
    is_more |= count < groups.len();
    groups.truncate(count);
    (groups, is_more)
}

/// How a group is written anew.
struct GroupPace<'a> {
    pace: &'a mut WorkPace,
    /// It does not rest after that.
    until: Instant,
    /// Whether it is not, where nothing of it is deleted.
    is_for_deletes: bool,
}

/// Why a group was not written anew.
enum GroupError {
    /// It alone.
    Rewrite(RewriteError),
    /// Nothing of it is deleted, and it would become the files that it is.
    Whole,
    /// And no other.
    Ended(CompactionError),
}

impl From<RewriteError> for GroupError {
    fn from(cause: RewriteError) -> Self {
        Self::Rewrite(cause)
    }
}

impl From<CompactionError> for GroupError {
    fn from(cause: CompactionError) -> Self {
        Self::Ended(cause)
    }
}

#[cfg(test)]
mod tests;
