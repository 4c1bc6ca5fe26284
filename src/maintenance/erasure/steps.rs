//! The steps of an erasure, in their order: log, count, rewrite, history, files, proof.

use crate::{
    maintenance::{
        erasure::{EraseError, Erasures, condition_of, limits, rfc3339, tables::ErasureTables},
        read_lease::ReadLease,
    },
    store::StoredErasure,
};
use icecore_catalog::{
    catalog::LoadedTable,
    error::with_causes,
    location::Location,
    retention::{collection_of, is_managed},
    scan::{Deadline, ManifestSource, manifests::ManifestCache},
    snapshot::OBSOLETE_GRACE_MS,
};
use icecore_lake::{
    collection::erased_documents::ErasedDocuments,
    event::subject::Subject,
    table::{
        erasure::{
            MatchedRows, ScannedFiles, condition::RowCondition, count_rows, named_snapshots,
            retained_snapshots,
        },
        schema::TableIdent,
    },
};
use icecore_schemas::{
    erasure::{ErasedRows, ErasureStatus},
    service_table::DEAD_LETTERS_TABLE,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};
use tracing::info;

/// Most commits of one step that remove snapshots of a table; the next step goes on.
const REMOVALS_MAX: usize = 20;
/// How long files with erased rows are left for readers that began with them, after which they are
/// deleted whatever else they would be kept for.
const READER_GRACE_MS: i64 = OBSOLETE_GRACE_MS;
/// Most files that one step deletes.
const DELETIONS_MAX: u32 = 1_000;
/// How long the log is waited for once files were deleted: a table whose rows do not leave the log keeps a segment
/// for ever.
const LOG_WAIT_MS: i64 = 3_600_000;
/// How often rows that are found at the end are erased, too: more of them come again and again then.
const PASSES_MAX: i64 = 5;
/// Most tables that are named where an erasure ends without success.
const NAMED_MAX: usize = 20;
/// How often the proof looks for snapshots that came while it read others: each time takes as long as reading what
/// they added. What comes after that came after the proof.
const PROOF_ROUNDS_MAX: usize = 16;

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
        let condition = condition_of(subject, erasure.report.bound, &erasure.documents);
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
        // It is begun here, and waited for at the end.
        self.is_log_purged(erasure);
        erasure.report.log.pending = false;
        erasure.report.status = ErasureStatus::Count;
        StepEnd::More
    }

    /// Whether no file of the log has bytes of records up to the request any more. Asks for that.
    fn is_log_purged(&self, erasure: &StoredErasure) -> bool {
        // Events are in namespaces of one level.
        let has_log = erasure.levels.len() == 1;
        !has_log || self.parts.wal.purge(erasure.report.log.through)
    }

    /// What the heads of all branches and the tags have. Tables of collections come last, as events tell which of their
    /// rows are meant. The counts and the next step are noted together, so that nothing is counted twice.
    async fn count(
        &self,
        erasure: &mut StoredErasure,
        condition: &RowCondition,
        scanned: &mut ScannedFiles,
    ) -> Result<StepEnd, EraseError> {
        let tables = self.tables(erasure).await?;
        let mut found = SubjectRows::default();
        let mut uncounted: Vec<String> = Vec::new();
        let (of_collections, of_others): (Vec<_>, Vec<_>) =
            tables.erased.iter().partition(|(_, loaded)| collection_of(&loaded.metadata).is_some());
        for of_table in of_others {
            let counted = self.count_table(of_table, condition, scanned, &mut found);
            uncounted.extend(what_is_uncounted(of_table, Box::pin(counted).await)?);
        }
        erasure.documents.merge(scanned.documents());
        let erased = Arc::new(erasure.documents.clone());
        let condition = RowCondition { erased, ..condition.clone() };
        for of_table in of_collections {
            Box::pin(self.count_table(of_table, &condition, scanned, &mut found)).await?;
        }
        erasure.report.cannot = self.limits(erasure, &tables).await?;
        erasure.report.cannot.extend(uncounted);
        // Nothing may fail after this: the counts would be added once more.
        found.add_to(erasure);
        if erasure.report.dry_run {
            let through = erasure.report.log.through;
            erasure.report.log.pending = self.is_in_log(&erasure.levels, through);
            (erasure.report.status, erasure.documents) =
                (ErasureStatus::Done, ErasedDocuments::default());
        } else {
            erasure.report.status = ErasureStatus::Rewrite;
        }
        Ok(StepEnd::More)
    }

    /// What the heads of the branches and the tags of a table have.
    async fn count_table(
        &self,
        (table, loaded): &(TableIdent, LoadedTable),
        condition: &RowCondition,
        scanned: &mut ScannedFiles,
        found: &mut SubjectRows,
    ) -> Result<(), EraseError> {
        let cache = ManifestCache::default();
        for named in named_snapshots(&loaded.metadata) {
            let source = self.source(loaded, &cache);
            let of_table = found.of_table(table);
            let counted = count_rows(source, named.snapshot_id, condition, scanned, of_table);
            let counted = self.parts.pace.over(Box::pin(counted));
            let lease = self.lease(loaded, named.snapshot_id);
            if Box::pin(lease.over(counted)).await? && !named.is_branch {
                found.tags.insert(format!("{}:{}", table.name, named.name));
            }
        }
        Ok(())
    }

    /// Removes every snapshot of before that is not the head of a branch or at a tag: those before the rows
    /// were erased have them. Those that clients loaded are waited for; the ones that clients load from now on
    /// are of another time. Their files go as soon as running readers have had their time. A table that is
    /// in the way holds up no other.
    async fn forget_history(&self, erasure: &mut StoredErasure) -> Result<StepEnd, EraseError> {
        self.check_hold(&erasure.levels).await?;
        let tables = self.tables(erasure).await?.erased;
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
                "clients of the catalog, or long work of a server, read snapshots of before, which stay \
                 for them until {until}"
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
        // A log that was opened anew is purged anew.
        self.is_log_purged(erasure);
        if erasure.until_ms <= catalog.now_ms() {
            // The job for that may be elsewhere, or busy with others.
            catalog.upkeep().delete_obsolete(DELETIONS_MAX).await?;
            self.parts.faults.hit("erase.after_deletion")?;
        }
        let tables = self.tables(erasure).await?.erased;
        for (table, loaded) in &tables {
            let (upkeep, until_ms) = (catalog.upkeep(), erasure.until_ms);
            let waiting = if is_managed(&loaded.metadata) {
                let folder = self.folder(table, loaded, "/data")?;
                upkeep.deletions_below(&folder, until_ms).await?
            } else {
                // Who else writes a table has its data files where it likes.
                let folder = self.folder(table, loaded, "")?;
                upkeep.data_deletions_below(&folder, until_ms).await?
            };
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

    /// Looks through every live file of every retained snapshot, and for what waits in the log. Snapshots that come
    /// while it reads are looked through as well, until none came.
    async fn prove(
        &self,
        erasure: &mut StoredErasure,
        condition: &RowCondition,
    ) -> Result<StepEnd, EraseError> {
        if self.is_in_log(&erasure.levels, erasure.report.log.through) {
            // A log that was opened anew does not know yet what its tables have.
            return Ok(StepEnd::Waits);
        }
        let is_purged = self.is_log_purged(erasure);
        let log_until_ms = erasure.until_ms.saturating_add(LOG_WAIT_MS);
        if !is_purged && self.parts.catalog.now_ms() < log_until_ms {
            erasure.report.waits = Some(limits::log_waits(&rfc3339(log_until_ms)));
            return Ok(StepEnd::Waits);
        }
        // What was found before is not believed.
        let (mut scanned, mut found) = (ScannedFiles::default(), SubjectRows::default());
        let (mut seen, mut tables) = (HashSet::new(), ErasureTables::default());
        for _ in 0..PROOF_ROUNDS_MAX {
            tables = self.tables(erasure).await?;
            let before = seen.len();
            for of_table in &tables.erased {
                let counts = (&mut scanned, &mut found);
                Box::pin(self.look_through(of_table, condition, &mut seen, counts)).await?;
            }
            // Nothing came meanwhile, or it is erased first.
            if seen.len() == before || 0 < found.files() {
                break;
            }
            self.parts.faults.hit("erase.before_done")?;
        }
        if found.files() == 0 {
            limits::forget_left_aside(&mut erasure.report.cannot);
            for limit in self.limits(erasure, &tables).await? {
                limits::tell(&mut erasure.report.cannot, limit);
            }
            // A server that was away for longer than the wait has asked the log for the first time above.
            if !is_purged && !self.is_log_purged(erasure) {
                limits::tell(&mut erasure.report.cannot, limits::LOG_KEEPS.to_owned());
            }
            // Nobody looks for them any more.
            erasure.documents = ErasedDocuments::default();
            erasure.report.status = ErasureStatus::Done;
            info!(erasure = erasure.report.erasure, "an erasure is done");
            return Ok(StepEnd::More);
        }
        begin_again(erasure, found);
        Ok(StepEnd::More)
    }

    /// Looks through the retained snapshots of a table that were not seen before.
    async fn look_through(
        &self,
        (table, loaded): &(TableIdent, LoadedTable),
        condition: &RowCondition,
        seen: &mut HashSet<(TableIdent, i64)>,
        (scanned, found): (&mut ScannedFiles, &mut SubjectRows),
    ) -> Result<(), EraseError> {
        let cache = ManifestCache::default();
        for snapshot in retained_snapshots(&loaded.metadata) {
            if !seen.insert((table.clone(), snapshot)) {
                continue;
            }
            let source = self.source(loaded, &cache);
            let of_table = found.of_table(table);
            let counted = count_rows(source, snapshot, condition, scanned, of_table);
            let counted = self.parts.pace.over(Box::pin(counted));
            Box::pin(self.lease(loaded, snapshot).over(counted)).await?;
        }
        Ok(())
    }

    pub(super) async fn check_hold(&self, levels: &[String]) -> Result<(), EraseError> {
        match self.held(levels).await? {
            Some(held) => Err(EraseError::Held(held)),
            None => Ok(()),
        }
    }

    /// The lease of a snapshot that a step reads.
    pub(super) fn lease<'a>(&'a self, loaded: &'a LoadedTable, snapshot_id: i64) -> ReadLease<'a> {
        self.parts.pace.lease(&self.parts.catalog, loaded, snapshot_id)
    }

    /// Where the manifests of a table come from.
    pub(super) fn source<'a>(
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

/// Has an erasure begin again with the rows that its proof found, or end without them once that was often enough.
fn begin_again(erasure: &mut StoredErasure, mut found: SubjectRows) {
    erasure.passes += 1;
    let report = &mut erasure.report;
    if PASSES_MAX < erasure.passes {
        let tables = found.tables.iter().filter(|(_, rows)| !rows.is_empty());
        let names: Vec<String> =
            tables.take(NAMED_MAX).map(|(name, _)| format!("`{name}`")).collect();
        report.error = Some(format!(
            "{} data files of {} have rows of the subject again after {PASSES_MAX} passes: stop who sends such \
             events or changes these files, and erase once more",
            found.files(),
            names.join(", ")
        ));
        report.status = ErasureStatus::Failed;
        erasure.documents = ErasedDocuments::default();
        return;
    }
    // What others keep from going was counted before.
    found.tables.retain(|table, _| !limits::is_left_aside(&report.cannot, table));
    (report.status, erasure.until_ms) = (ErasureStatus::Rewrite, 0);
    found.add_to(erasure);
}

/// What is said of a table whose rows could not be counted; none where they were. One of another engine holds up no
/// other table, and its rows are looked for again when files are written anew.
fn what_is_uncounted(
    (table, loaded): &(TableIdent, LoadedTable),
    counted: Result<(), EraseError>,
) -> Result<Option<String>, EraseError> {
    match counted {
        Ok(()) => Ok(None),
        Err(cause) if !is_managed(&loaded.metadata) => {
            let (name, reason) = (&table.name, with_causes(&cause));
            Ok(Some(format!("rows of the table `{name}` are not counted: {reason}")))
        }
        Err(cause) => Err(cause),
    }
}
