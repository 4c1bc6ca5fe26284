//! Retention: takes the rows out of the service's tables that are older than they are to be kept.
//!
//! Which files those are is [`icecore_lake::table::retention`]'s to know. Each commit is a `delete` on top
//! of whatever was committed meanwhile, which moves no mark: what is still in the log stays. Branches,
//! tags and earlier snapshots keep the rows, until they expire.
//!
//! Its one invariant: nothing is taken from a namespace that is held, or by a rule that does not read.

use crate::maintenance::{
    expiry::SnapshotExpiry,
    pace::JobPace,
    planned::{PlannedJob, RunRequest},
    scope::{ACTOR, hold_of, is_of_all, tables_of},
};
use icecore_catalog::{
    catalog::{Catalog, LoadedTable},
    error::{CatalogError, with_causes},
    retention::{ROWS_KEPT, collection_of, is_managed},
    scan::{Deadline, ManifestSource, manifests::ManifestCache},
};
use icecore_lake::{
    faults::Failpoints,
    ids::IdGenerator,
    table::{
        retention::{KeptRows, OldFiles, RemovalError, RemovalTotals, old_files, survey},
        schema::TableIdent,
    },
};
use icecore_schemas::{
    jobs::{JobReport, SkippedTable},
    retention::RetentionRules,
    service_table::{DEAD_LETTERS_TABLE, EVENTS_TABLE},
};
use std::{error::Error, io, sync::Arc, time::Duration};
use tokio::time::Instant;
use tracing::{info, warn};

/// Most commits of a run for one table.
const STEPS_MAX: usize = 1_000;
/// How often files are looked for anew after others changed those that a commit is about.
const RACES_MAX: usize = 3;
/// Most files that a commit leaves out because others changed them, one at each try.
const LEFT_OUT_MAX: usize = 64;

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// The catalog.
    #[error("take old rows out of tables")]
    Catalog(#[from] CatalogError),
    /// The files of a table are not known.
    #[error("find files with old rows")]
    Removal(#[from] RemovalError),
    /// A planned fault of a test.
    #[error("take old rows out of tables")]
    Fault(#[from] io::Error),
}

/// The jobs by which rows and snapshots go for their age. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RetentionJobs {
    /// Old events.
    pub events: EventRetention,
    /// Old dead letters.
    pub letters: LetterRetention,
    /// Old snapshots.
    pub expiry: SnapshotExpiry,
}

/// The job that takes old events out, by their types. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventRetention {
    tables: TableRetention,
    rules: Arc<RetentionRules>,
}

impl EventRetention {
    /// Keeps events of `catalog` as these rules say, where a table has none of its own.
    #[must_use]
    pub fn new(catalog: &Catalog, ids: IdGenerator, rules: RetentionRules, pace: JobPace) -> Self {
        Self { tables: TableRetention::new(catalog, ids, pace), rules: Arc::new(rules) }
    }

    /// The same job, with the faults of a test.
    #[must_use]
    pub fn with_faults(self, faults: Failpoints) -> Self {
        Self { tables: TableRetention { faults, ..self.tables }, ..self }
    }
}

impl PlannedJob for EventRetention {
    const NAME: &'static str = "retention";
    type Error = RetentionError;

    async fn run(&self, request: &RunRequest) -> Result<JobReport, RetentionError> {
        self.tables.run(Self::NAME, RowBound::Events(&self.rules), request).await
    }
}

/// The job that takes old dead letters out. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LetterRetention {
    tables: TableRetention,
    kept_ms: i64,
}

impl LetterRetention {
    /// Keeps dead letters of `catalog` for so long.
    #[must_use]
    pub fn new(catalog: &Catalog, ids: IdGenerator, kept: Duration, pace: JobPace) -> Self {
        let kept_ms = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
        Self { tables: TableRetention::new(catalog, ids, pace), kept_ms }
    }

    /// The same job, with the faults of a test.
    #[must_use]
    pub fn with_faults(self, faults: Failpoints) -> Self {
        Self { tables: TableRetention { faults, ..self.tables }, ..self }
    }
}

impl PlannedJob for LetterRetention {
    const NAME: &'static str = "dead-letters";
    type Error = RetentionError;

    async fn run(&self, request: &RunRequest) -> Result<JobReport, RetentionError> {
        self.tables.run(Self::NAME, RowBound::Letters(self.kept_ms), request).await
    }
}

/// How long the rows of a table are kept.
#[derive(Clone, Copy, Debug)]
enum RowBound<'a> {
    /// Those of `events`, by type.
    Events(&'a RetentionRules),
    /// Those of `dead_letters`, in ms.
    Letters(i64),
}

impl RowBound<'_> {
    fn table(self) -> &'static str {
        match self {
            Self::Events(_) => EVENTS_TABLE,
            Self::Letters(_) => DEAD_LETTERS_TABLE,
        }
    }
}

/// What a step did, or would do.
#[derive(Debug, Default)]
struct RetentionStep {
    totals: RemovalTotals,
    skipped: Vec<String>,
    /// Whether there is more to do at once.
    is_more: bool,
    /// Whether files stay because others changed them again and again.
    is_lost: bool,
}

impl RetentionStep {
    fn skip(reason: impl Into<String>) -> Self {
        Self { skipped: vec![reason.into()], ..Self::default() }
    }
}

/// Takes old rows out of tables of one name.
#[derive(Clone, Debug)]
struct TableRetention {
    catalog: Catalog,
    ids: IdGenerator,
    pace: JobPace,
    faults: Failpoints,
}

impl TableRetention {
    fn new(catalog: &Catalog, ids: IdGenerator, pace: JobPace) -> Self {
        let faults = Failpoints::default();
        Self { catalog: catalog.on_behalf_of(ACTOR), ids, pace, faults }
    }

    /// One table after the other, so that what is in memory is of one.
    async fn run(
        &self,
        job: &'static str,
        bound: RowBound<'_>,
        request: &RunRequest,
    ) -> Result<JobReport, RetentionError> {
        let started = Instant::now();
        let mut report = JobReport { job: job.to_owned(), ..JobReport::default() };
        let tables = tables_of(&self.catalog, request).await?;
        for table in tables.iter().filter(|table| table.name == bound.table()) {
            let mut files = 0;
            for _ in 0..STEPS_MAX {
                let step = match Box::pin(self.step(table, bound, request.dry_run)).await {
                    Err(cause) if self.ends_all(&cause) => return Err(cause),
                    Err(cause) => {
                        warn!(%table, error = &cause as &dyn Error, "old rows of a table stay");
                        report.errors += 1;
                        RetentionStep::skip(with_causes(&cause))
                    }
                    Ok(step) => step,
                };
                report.errors += u64::from(step.is_lost);
                files += step.totals.files;
                report.files.before += step.totals.files;
                report.bytes.before += step.totals.bytes;
                report.rows += step.totals.rows;
                let skipped = step.skipped.into_iter();
                report.skipped.extend(
                    skipped.map(|reason| SkippedTable { table: table.to_string(), reason }),
                );
                if !step.is_more {
                    break;
                }
            }
            report.tables += u64::from(0 < files);
        }
        report.skipped.sort();
        report.skipped.dedup();
        report.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }

    fn ends_all(&self, cause: &RetentionError) -> bool {
        let of_catalog = match cause {
            RetentionError::Catalog(cause) => Some(cause),
            RetentionError::Removal(_) => None,
            RetentionError::Fault(_) => return true,
        };
        is_of_all(&self.catalog, of_catalog)
    }

    /// One commit of a table. When others changed its files meanwhile, they are looked for again.
    async fn step(
        &self,
        table: &TableIdent,
        bound: RowBound<'_>,
        is_dry: bool,
    ) -> Result<RetentionStep, RetentionError> {
        let mut lost = String::new();
        for _ in 0..RACES_MAX {
            let loaded = match self.catalog.tables().load(table).await {
                // It was dropped meanwhile.
                Err(CatalogError::NoSuchTable(_)) => return Ok(RetentionStep::default()),
                loaded => loaded?,
            };
            let removed = Box::pin(self.remove_old(table, &loaded, bound, is_dry));
            let removed = match loaded.metadata.current_snapshot_id() {
                Some(read) => {
                    let lease = self.pace.lease(&self.catalog, &loaded, read);
                    Box::pin(lease.over(removed)).await
                }
                None => removed.await,
            };
            match removed {
                Err(RetentionError::Catalog(CatalogError::CommitFailed(why))) => lost = why,
                ended => return ended,
            }
        }
        warn!(%table, lost, "others change files with old rows again and again");
        let told = format!("{RACES_MAX} times others changed its files meanwhile: {lost}");
        Ok(RetentionStep { is_lost: true, ..RetentionStep::skip(told) })
    }

    async fn remove_old(
        &self,
        table: &TableIdent,
        loaded: &LoadedTable,
        bound: RowBound<'_>,
        is_dry: bool,
    ) -> Result<RetentionStep, RetentionError> {
        let metadata = loaded.metadata.as_ref();
        if !is_managed(metadata) {
            return Ok(RetentionStep::skip("it is not a table of the service"));
        }
        if collection_of(metadata).is_some() {
            return Ok(RetentionStep::skip("it has the documents of a collection, which are kept"));
        }
        let own;
        let kept = match bound {
            RowBound::Letters(kept_ms) => KeptRows::DeadLetters { kept_ms },
            RowBound::Events(rules) => {
                own = match own_rules(loaded) {
                    Ok(own) => own,
                    Err(why) => return Ok(RetentionStep::skip(why)),
                };
                KeptRows::Events(own.as_ref().unwrap_or(rules))
            }
        };
        // After the table was loaded: whoever holds the namespace keeps what it had by then. It is told of a
        // table without a rule, too: whoever asks wants to know what keeps its rows.
        if let Some(held) = hold_of(&self.catalog, table).await? {
            return Ok(RetentionStep::skip(held));
        }
        let keeps_all = matches!(kept, KeptRows::Events(rules) if rules.is_empty());
        let (Some(read), false) = (metadata.current_snapshot_id(), keeps_all) else {
            return Ok(RetentionStep::default());
        };
        let version = metadata.format_version() as u8;
        if version != 2 {
            return Ok(RetentionStep::skip(format!("it has format version {version}")));
        }
        // It is not kept: the manifests of a large table take hundreds of MiB.
        let cache = ManifestCache::default();
        let storage = self.catalog.storage();
        let source = ManifestSource { storage, cache: &cache, metadata, until: Deadline::NONE };
        let now_ms = self.catalog.now_ms();
        let survey = Box::pin(survey(source, read, kept, now_ms));
        let survey = self.pace.over(survey).await.map_err(RemovalError::from)?;
        if is_dry {
            let (totals, skipped) = (survey.all, survey.skipped);
            return Ok(RetentionStep { totals, skipped, ..RetentionStep::default() });
        }
        let old = Box::pin(old_files(source, read, kept, now_ms, &survey));
        let mut old = self.pace.over(old).await?;
        let mut skipped = survey.skipped;
        skipped.extend(old.skipped.clone());
        if old.totals.files == 0 {
            return Ok(RetentionStep { skipped, ..RetentionStep::default() });
        }
        if let Err(cause) = self.pace.over(Box::pin(old.sum_rows(source))).await {
            let error = &cause as &dyn Error;
            warn!(%table, error, "rows go without their sum: the audit of the rows has to find it out");
        }
        // Once more: to look through the files of a large table takes minutes.
        if let Some(held) = hold_of(&self.catalog, table).await? {
            return Ok(RetentionStep::skip(held));
        }
        let is_all = Box::pin(self.commit(table, read, kept, &mut old)).await?;
        let RemovalTotals { files, rows, .. } = old.totals;
        info!(%table, files, rows, "rows that were too old are taken out of a table");
        let is_more = survey.is_more || !is_all;
        Ok(RetentionStep { totals: old.totals, skipped, is_more, is_lost: false })
    }

    /// Commits the snapshot without these files. Those that others changed meanwhile are left out, and found
    /// again by the next step; whether there were none.
    async fn commit(
        &self,
        table: &TableIdent,
        read: i64,
        kept: KeptRows<'_>,
        old: &mut OldFiles,
    ) -> Result<bool, RetentionError> {
        let mut left_out = 0;
        loop {
            self.faults.hit("retention.before_commit")?;
            let removal = old.removal(read, self.ids.mint().to_string());
            let refused = match self.catalog.add_snapshot(table, removal).await {
                Ok(_) => break,
                Err(CatalogError::CommitFailed(refused)) => refused,
                Err(cause) => return Err(cause.into()),
            };
            // One that was held meanwhile is looked at anew, and told.
            let is_held = hold_of(&self.catalog, table).await?.is_some();
            if is_held || left_out == LEFT_OUT_MAX || !old.leave_named(kept, &refused)? {
                return Err(CatalogError::CommitFailed(refused).into());
            }
            left_out += 1;
        }
        self.faults.hit("retention.after_commit")?;
        Ok(left_out == 0)
    }
}

/// The rules that a table of events has in the place of the setting's.
fn own_rules(loaded: &LoadedTable) -> Result<Option<RetentionRules>, String> {
    let Some(text) = loaded.metadata.properties().get(ROWS_KEPT) else { return Ok(None) };
    let rules = text.parse::<RetentionRules>();
    rules.map(Some).map_err(|problem| format!("its property `{ROWS_KEPT}`: {problem}"))
}

#[cfg(test)]
mod tests;
