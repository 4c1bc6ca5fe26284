//! The steps of an erasure, in their order: log, count, rewrite, history, files, proof.

use crate::{
    maintenance::erasure::{EraseError, ErasureParts, Erasures, condition_of, limits, rfc3339},
    store::StoredErasure,
};
use icecore_catalog::{
    catalog::{LoadedTable, RefKind},
    error::CatalogError,
    location::Location,
    scan::{Deadline, ManifestSource, deletes::DeleteIndex, manifests::ManifestCache},
    snapshot::OBSOLETE_GRACE_MS,
};
use icecore_lake::{
    event::subject::Subject,
    table::{
        erasure::{
            MatchedFile, MatchedFiles, MatchedRows, NamedSnapshot, ScannedFiles,
            condition::RowCondition, count_rows, delete_written, erasure_snapshot, matched_files,
            named_snapshots, obstacle, planned, retained_snapshots, written_without,
        },
        schema::TableIdent,
    },
};
use icecore_schemas::{
    erasure::{ErasedRows, ErasureStatus},
    service_table::DEAD_LETTERS_TABLE,
};
use std::collections::{BTreeMap, BTreeSet};
use tracing::info;

/// Most data files of one commit.
const FILES_MAX: usize = 32;
/// No file is added to a commit once it has so many bytes.
const BYTES_MAX: u64 = 128 << 20;
/// Most data files of one step, which looks through the manifests once for all of its commits.
const STEP_FILES_MAX: usize = 16 * FILES_MAX;
/// Most commits of one step that remove snapshots of a table; the next step goes on.
const REMOVALS_MAX: usize = 20;
/// How long files with erased rows are left for readers that began with them, after which they are
/// deleted whatever else they would be kept for.
const READER_GRACE_MS: i64 = OBSOLETE_GRACE_MS;
/// Most files that one step deletes.
const DELETIONS_MAX: u32 = 1_000;
/// How often rows that are found at the end are erased, too: more of them come again and again then.
const PASSES_MAX: i64 = 5;

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepEnd {
    /// The next one can begin at once.
    More,
    /// It is to be tried again later.
    Waits,
}

/// What was found of a subject in a namespace.
#[derive(Debug, Default)]
struct SubjectRows {
    /// Rows by table.
    tables: BTreeMap<String, MatchedRows>,
    /// Tags that have such rows.
    tags: BTreeSet<String>,
}

impl SubjectRows {
    fn of_table(&mut self, table: &TableIdent) -> &mut MatchedRows {
        self.tables.entry(table.name.clone()).or_default()
    }

    fn files(&self) -> u64 {
        self.tables.values().map(MatchedRows::files).sum()
    }

    /// Adds what was found to what is told of an erasure.
    fn add_to(self, erasure: &mut StoredErasure) {
        let report = &mut erasure.report;
        for (table, found) in self.tables.into_iter().filter(|(_, found)| !found.is_empty()) {
            if table == DEAD_LETTERS_TABLE {
                report.dead_letters += found.rows();
            }
            let told: &mut ErasedRows = report.tables.entry(table).or_default();
            told.rows += found.rows();
            told.files += found.files();
        }
        report.refs.extend(self.tags);
        report.refs.sort();
        report.refs.dedup();
    }
}

impl Erasures {
    /// Does the next step of an erasure, and sets what it has become.
    pub(super) async fn step(
        &self,
        erasure: &mut StoredErasure,
        scanned: &mut ScannedFiles,
    ) -> Result<StepEnd, EraseError> {
        let subject = Subject::parse(&erasure.report.subject).map_err(EraseError::Invalid)?;
        let condition = condition_of(subject, erasure.report.bound);
        match erasure.report.status {
            ErasureStatus::Log => Ok(self.wait_for_log(erasure)),
            ErasureStatus::Count => Box::pin(self.count(erasure, &condition, scanned)).await,
            ErasureStatus::Rewrite => Box::pin(self.rewrite(erasure, &condition, scanned)).await,
            ErasureStatus::History => Box::pin(self.forget_history(erasure)).await,
            ErasureStatus::Files => self.wait_for_files(erasure).await,
            ErasureStatus::Proof => Box::pin(self.prove(erasure, &condition)).await,
            ErasureStatus::Done | ErasureStatus::Failed => Ok(StepEnd::Waits),
        }
    }

    /// Rows that were acknowledged before the request are to be in their tables.
    fn wait_for_log(&self, erasure: &mut StoredErasure) -> StepEnd {
        let through = erasure.report.log.through;
        if self.is_in_log(&erasure.levels, through) {
            return StepEnd::Waits;
        }
        erasure.report.log.pending = false;
        erasure.report.status = ErasureStatus::Count;
        StepEnd::More
    }

    /// What the heads of all branches and the tags have. The counts and the next step are noted together,
    /// so that nothing is counted twice.
    async fn count(
        &self,
        erasure: &mut StoredErasure,
        condition: &RowCondition,
        scanned: &mut ScannedFiles,
    ) -> Result<StepEnd, EraseError> {
        let (tables, others) = self.tables(&erasure.levels).await?;
        let mut found = SubjectRows::default();
        for (table, loaded) in &tables {
            let cache = ManifestCache::default();
            for named in named_snapshots(&loaded.metadata) {
                let source = self.source(loaded, &cache);
                let of_table = found.of_table(table);
                let counted = count_rows(source, named.snapshot_id, condition, scanned, of_table);
                if self.parts.pace.over(Box::pin(counted)).await? && !named.is_branch {
                    found.tags.insert(format!("{}:{}", table.name, named.name));
                }
            }
        }
        erasure.report.cannot = self.limits(erasure, &others).await?;
        // Nothing may fail after this: the counts would be added once more.
        found.add_to(erasure);
        if erasure.report.dry_run {
            let through = erasure.report.log.through;
            erasure.report.log.pending = self.is_in_log(&erasure.levels, through);
            erasure.report.status = ErasureStatus::Done;
        } else {
            erasure.report.status = ErasureStatus::Rewrite;
        }
        Ok(StepEnd::More)
    }

    /// Some commits of one branch, until no branch and no tag has such a row. A table that is in the way
    /// holds up no other.
    async fn rewrite(
        &self,
        erasure: &mut StoredErasure,
        condition: &RowCondition,
        scanned: &mut ScannedFiles,
    ) -> Result<StepEnd, EraseError> {
        let (tables, _) = self.tables(&erasure.levels).await?;
        let mut failure = None;
        for table in &tables {
            match Box::pin(self.rewrite_table(erasure, table, condition, scanned)).await {
                Ok(None) => (),
                Ok(Some(end)) => return Ok(end),
                Err(cause) => failure = failure.or(Some(cause)),
            }
        }
        if let Some(cause) = failure {
            return Err(cause);
        }
        // The next step notes when it begins.
        (erasure.report.status, erasure.until_ms) = (ErasureStatus::History, 0);
        Ok(StepEnd::More)
    }

    /// Some commits of one branch of a table; none where no branch and no tag has such a row.
    async fn rewrite_table(
        &self,
        erasure: &mut StoredErasure,
        (table, loaded): &(TableIdent, LoadedTable),
        condition: &RowCondition,
        scanned: &mut ScannedFiles,
    ) -> Result<Option<StepEnd>, EraseError> {
        let cache = ManifestCache::default();
        for named in named_snapshots(&loaded.metadata) {
            let source = self.source(loaded, &cache);
            let found =
                matched_files(source, named.snapshot_id, condition, scanned, STEP_FILES_MAX);
            let found = self.parts.pace.over(Box::pin(found)).await?;
            if found.files.is_empty() {
                continue;
            }
            self.check_hold(&erasure.levels).await?;
            if named.is_branch {
                let at = (table, loaded, &named);
                return Box::pin(self.replace(erasure, at, &found, condition)).await.map(Some);
            }
            self.drop_tag(table, &named).await?;
            let told = format!("{}:{}", table.name, named.name);
            if !erasure.report.refs.contains(&told) {
                erasure.report.refs.push(told);
            }
        }
        Ok(None)
    }

    /// A tag stays at its snapshot, so one that has such rows goes.
    async fn drop_tag(&self, table: &TableIdent, tag: &NamedSnapshot) -> Result<(), EraseError> {
        match self.parts.catalog.refs().drop(table, &tag.name, Some(RefKind::Tag)).await {
            Ok(()) => info!(%table, tag = tag.name, "a tag with erased rows is removed"),
            // Somebody else did.
            Err(CatalogError::NoSuchReference(_)) => (),
            Err(cause) => return Err(cause.into()),
        }
        Ok(())
    }

    /// Writes files of a branch anew, in commits of some of them. What others changed meanwhile is looked
    /// at again by the next step.
    async fn replace(
        &self,
        erasure: &StoredErasure,
        at: (&TableIdent, &LoadedTable, &NamedSnapshot),
        found: &MatchedFiles,
        condition: &RowCondition,
    ) -> Result<StepEnd, EraseError> {
        let (table, loaded, _) = at;
        if let Some(reason) = obstacle(&loaded.metadata) {
            let reason = format!("its files are not written anew: {reason}");
            return Err(EraseError::Table { table: table.to_string(), reason });
        }
        let (mut left, mut failure) = (found.files.as_slice(), None);
        while !left.is_empty() {
            self.check_hold(&erasure.levels).await?;
            let (files, later) = left.split_at(count_within_bounds(left));
            let replaced = self.replace_some(erasure, at, (files, &found.deletes), condition);
            match Box::pin(replaced).await {
                Ok(StepEnd::More) => (),
                Ok(StepEnd::Waits) => return Ok(StepEnd::Waits),
                // A file that cannot be written anew holds up those of its commit alone.
                Err(cause @ EraseError::Scan(_)) => failure = failure.or(Some(cause)),
                Err(cause) => return Err(cause),
            }
            left = later;
        }
        failure.map_or(Ok(StepEnd::More), Err)
    }

    /// Writes some files of a branch anew and commits them.
    async fn replace_some(
        &self,
        erasure: &StoredErasure,
        (table, loaded, branch): (&TableIdent, &LoadedTable, &NamedSnapshot),
        (found, deletes): (&[MatchedFile], &DeleteIndex),
        condition: &RowCondition,
    ) -> Result<StepEnd, EraseError> {
        let ErasureParts { catalog, ids, faults, .. } = &self.parts;
        let files = planned(found);
        let (cache, storage) = (ManifestCache::default(), catalog.storage());
        let source = self.source(loaded, &cache);
        faults.hit("erase.before_write")?;
        let written = Box::pin(written_without(source, &files, deletes, condition, ids));
        let written = self.parts.pace.over(written).await?;
        if let Err(fault) = faults.hit("erase.before_commit") {
            delete_written(storage, &written).await;
            return Err(fault.into());
        }
        let id = &erasure.report.erasure;
        let at = (branch.name.as_str(), branch.snapshot_id);
        let new = erasure_snapshot(at, &written, id, ids.mint().to_string());
        let rows: u64 = written.iter().map(|done| done.erased_rows).sum();
        match catalog.add_snapshot(table, new).await {
            Ok(_) => {
                faults.hit("erase.after_commit")?;
                let branch = &branch.name;
                info!(%table, branch, rows, files = files.len(), "rows of a table are erased");
                Ok(StepEnd::More)
            }
            // It may have been made: then its files are the table's.
            Err(cause @ CatalogError::CommitStateUnknown(_)) => Err(cause.into()),
            Err(cause) => {
                delete_written(storage, &written).await;
                match cause {
                    CatalogError::CommitFailed(_) => Ok(StepEnd::Waits),
                    cause => Err(cause.into()),
                }
            }
        }
    }

    /// Removes every snapshot of before that is not the head of a branch or at a tag: those before the rows
    /// were erased have them. Those that clients loaded are waited for; the ones that clients load from now on
    /// are of another time. Their files go as soon as running readers have had their time. A table that is
    /// in the way holds up no other.
    async fn forget_history(&self, erasure: &mut StoredErasure) -> Result<StepEnd, EraseError> {
        self.check_hold(&erasure.levels).await?;
        let (tables, _) = self.tables(&erasure.levels).await?;
        if erasure.until_ms == 0 {
            // What is there now is dated before, and what comes to these tables after.
            let made = tables.iter().flat_map(|(_, loaded)| loaded.metadata.snapshots());
            let last_ms = made.map(|snapshot| snapshot.timestamp_ms()).max().unwrap_or(0);
            erasure.until_ms = last_ms.max(self.parts.catalog.now_ms()).saturating_add(1);
        }
        let (mut failure, mut is_clean) = (None, true);
        for table in &tables {
            match Box::pin(self.forget_history_of(erasure, table)).await {
                Ok(cleaned) => is_clean &= cleaned,
                Err(cause) => failure = failure.or(Some(cause)),
            }
        }
        if let Some(cause) = failure {
            return Err(cause);
        }
        if !is_clean {
            return Ok(StepEnd::More);
        }
        if let Some(until_ms) = self.leased_until(&tables, erasure.until_ms).await? {
            let until = rfc3339(until_ms);
            erasure.report.waits = Some(format!(
                "clients of the catalog loaded snapshots of before, which stay for them until {until}"
            ));
            return Ok(StepEnd::Waits);
        }
        let catalog = &self.parts.catalog;
        erasure.until_ms = catalog.now_ms().saturating_add(READER_GRACE_MS);
        for (table, loaded) in &tables {
            let folder = self.folder(table, loaded, "")?;
            catalog.upkeep().hasten_deletion(&folder, erasure.until_ms).await?;
        }
        erasure.report.status = ErasureStatus::Files;
        Ok(StepEnd::More)
    }

    /// Until when clients hold snapshots of these tables that are older than this.
    async fn leased_until(
        &self,
        tables: &[(TableIdent, LoadedTable)],
        before_ms: i64,
    ) -> Result<Option<i64>, EraseError> {
        let mut last: Option<i64> = None;
        for (table, _) in tables {
            last = last.max(self.parts.catalog.upkeep().leased_until(table, before_ms).await?);
        }
        Ok(last)
    }

    /// Removes the history of one table; false where more is left.
    async fn forget_history_of(
        &self,
        erasure: &mut StoredErasure,
        found: &(TableIdent, LoadedTable),
    ) -> Result<bool, EraseError> {
        self.settle_rows(found).await?;
        let (table, loaded) = found;
        // The proof looks at those made since. A compaction builds on them while clients are waited for.
        let snapshots = loaded.metadata.snapshots();
        let before = snapshots.filter(|made| made.timestamp_ms() < erasure.until_ms);
        let until = before.map(|made| made.sequence_number()).max().unwrap_or(0);
        for _ in 0..REMOVALS_MAX {
            let removed = self.parts.catalog.upkeep().forget_history(table, until).await?;
            let is_clean = removed.is_empty();
            match removed.obstacle {
                Some(reason) if is_clean => {
                    return Err(EraseError::Table { table: table.to_string(), reason });
                }
                // They are gone from the history, and nothing says any more where they are.
                Some(reason) => {
                    limits::tell(&mut erasure.report.cannot, format!("`{table}`: {reason}"))
                }
                None => (),
            }
            if is_clean {
                return Ok(true);
            }
            self.parts.faults.hit("erase.after_removal")?;
        }
        Ok(false)
    }

    /// Data files with such rows are to be deleted; those that a backup holds are told.
    async fn wait_for_files(&self, erasure: &mut StoredErasure) -> Result<StepEnd, EraseError> {
        let catalog = &self.parts.catalog;
        if erasure.until_ms <= catalog.now_ms() {
            // The job for that may be elsewhere, or busy with others.
            catalog.upkeep().delete_obsolete(DELETIONS_MAX).await?;
            self.parts.faults.hit("erase.after_deletion")?;
        }
        let (tables, _) = self.tables(&erasure.levels).await?;
        for (table, loaded) in &tables {
            let folder = self.folder(table, loaded, "/data")?;
            let waiting = catalog.upkeep().deletions_below(&folder, erasure.until_ms).await?;
            if waiting.held < waiting.files {
                return Ok(StepEnd::Waits);
            }
            if 0 < waiting.held {
                limits::tell_of_held(&mut erasure.report.cannot, &table.name, waiting.held);
            }
        }
        erasure.report.status = ErasureStatus::Proof;
        Ok(StepEnd::More)
    }

    /// Looks through every live file of every retained snapshot, and for what waits in the log.
    async fn prove(
        &self,
        erasure: &mut StoredErasure,
        condition: &RowCondition,
    ) -> Result<StepEnd, EraseError> {
        if self.is_in_log(&erasure.levels, erasure.report.log.through) {
            // A log that was opened anew does not know yet what its tables have.
            return Ok(StepEnd::Waits);
        }
        let (tables, others) = self.tables(&erasure.levels).await?;
        // What was found before is not believed.
        let (mut scanned, mut found) = (ScannedFiles::default(), SubjectRows::default());
        for (table, loaded) in &tables {
            let cache = ManifestCache::default();
            for snapshot in retained_snapshots(&loaded.metadata) {
                let source = self.source(loaded, &cache);
                let of_table = found.of_table(table);
                let counted = count_rows(source, snapshot, condition, &mut scanned, of_table);
                self.parts.pace.over(Box::pin(counted)).await?;
            }
        }
        let left = found.files();
        if left == 0 {
            for limit in self.limits(erasure, &others).await? {
                limits::tell(&mut erasure.report.cannot, limit);
            }
            self.parts.faults.hit("erase.before_done")?;
            erasure.report.status = ErasureStatus::Done;
            info!(erasure = erasure.report.erasure, "an erasure is done");
            return Ok(StepEnd::More);
        }
        erasure.passes += 1;
        if PASSES_MAX < erasure.passes {
            erasure.report.error = Some(format!(
                "{left} data files have rows of the subject again after {PASSES_MAX} passes: stop \
                 sending such events, and erase once more"
            ));
            erasure.report.status = ErasureStatus::Failed;
            return Ok(StepEnd::More);
        }
        found.add_to(erasure);
        erasure.report.status = ErasureStatus::Rewrite;
        Ok(StepEnd::More)
    }

    async fn check_hold(&self, levels: &[String]) -> Result<(), EraseError> {
        match self.held(levels).await? {
            Some(held) => Err(EraseError::Held(held)),
            None => Ok(()),
        }
    }

    /// Where the manifests of a table come from.
    fn source<'a>(
        &'a self,
        loaded: &'a LoadedTable,
        cache: &'a ManifestCache,
    ) -> ManifestSource<'a> {
        let (storage, metadata) = (self.parts.catalog.storage(), loaded.metadata.as_ref());
        ManifestSource { storage, cache, metadata, until: Deadline::NONE }
    }

    /// A folder of a table.
    fn folder(
        &self,
        table: &TableIdent,
        loaded: &LoadedTable,
        below: &str,
    ) -> Result<Location, EraseError> {
        let own = self.parts.catalog.storage().normalize(loaded.metadata.location())?;
        Location::parse(&format!("{}{below}", own.as_str())).ok_or_else(|| EraseError::Table {
            table: table.to_string(),
            reason: "its location is not one of the warehouse".to_owned(),
        })
    }
}

/// How many of the first files one commit takes.
fn count_within_bounds(found: &[MatchedFile]) -> usize {
    let mut bytes = 0;
    let fits = |it: &&MatchedFile| {
        let fits = bytes < BYTES_MAX;
        bytes += it.file.bytes;
        fits
    };
    found.iter().take(FILES_MAX).take_while(fits).count()
}
