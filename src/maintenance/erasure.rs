//! Erasure: takes every row of a subject out of the service's tables of a namespace, their branches and
//! their history, and proves it by looking through what is left.
//!
//! [`Erasures`] takes requests and tells how far each is; the job [`EraseRows`] carries them out, step by
//! step ([`steps`]). A step is noted once it has ended, and repeating one does no harm, so a process that
//! was killed goes on where it was. The ledger of all requests is in the metastore, with a copy beside the
//! log ([`ledger`]): a backup that is restored has the rows again, and they are erased anew.
//!
//! Its one invariant: an erasure is done only when no live file of a retained snapshot, and no record of
//! the log up to the request, was found to have a row of the subject.

mod ledger;
mod limits;
mod rewrite;
mod row_sums;
mod steps;
mod tables;
#[cfg(test)]
mod tests;

use crate::{
    maintenance::{
        pace::JobPace,
        scope::{ACTOR, hold_of},
    },
    owner::LogOwnership,
    store::{Store, StoreError, StoredErasure},
    tasks::{Job, Progress},
};
use arrow::array::ArrayRef;
use chrono::{DateTime, SecondsFormat};
use icecore_catalog::{
    catalog::Catalog,
    error::{CatalogError, with_causes},
};
use icecore_lake::{
    collection::erased_documents::ErasedDocuments,
    event::subject::Subject,
    faults::Failpoints,
    ids::IdGenerator,
    table::{
        erasure::{
            ErasureError, ScannedFiles,
            condition::{ArrivalBound, RowCondition},
        },
        schema::foreign_ident,
    },
    wal::Wal,
};
use icecore_schemas::{
    erasure::{ErasureBound, ErasureList, ErasureLog, ErasureReport, ErasureStatus, NewErasure},
    service_table::known_tables,
};
use ledger::{LedgerEntry, LedgerFile};
use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    io,
    path::Path,
    sync::Arc,
};
use steps::StepEnd;
use tokio::sync::Notify;
use tracing::{info, warn};

/// Most erasures that go on at a time.
const OPEN_MAX: usize = 100;
/// Most files whose counts are kept for all of them, before the erasure that comes next.
const SCANNED_MAX: usize = 2_000_000;

/// Why an erasure is not begun, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// The request is not valid; the text says what to change.
    #[error("{0}")]
    Invalid(String),
    /// A legal hold forbids it.
    #[error("{0}: remove the hold first")]
    Held(String),
    /// There are too many.
    #[error("{max} erasures go on already: ask again when some have ended", max = OPEN_MAX)]
    Busy,
    /// There is none of this id in the namespace.
    #[error(
        "the namespace `{namespace}` has no erasure `{id}`; GET /v1/{{ns}}/erase lists those it has"
    )]
    NotFound {
        /// The namespace.
        namespace: String,
        /// The id.
        id: String,
    },
    /// Something of a table is in the way.
    #[error("`{table}`: {reason}")]
    Table {
        /// Which one, as `namespace.table`.
        table: String,
        /// What, and what to do.
        reason: String,
    },
    /// The metastore's rows of the service.
    #[error("keep the ledger of erasures")]
    Store(#[from] StoreError),
    /// The copy of the ledger beside the log.
    #[error("keep the copy of the ledger of erasures beside the log")]
    Ledger(#[source] io::Error),
    /// The catalog.
    #[error("take rows out of tables")]
    Catalog(#[from] CatalogError),
    /// The files of a table.
    #[error("look through tables")]
    Scan(#[from] ErasureError),
    /// A failpoint.
    #[error("failpoint")]
    Fault(#[from] io::Error),
}

/// What erasures work with.
#[derive(Clone, Debug)]
pub struct ErasureParts {
    /// The ledger.
    pub store: Store,
    /// The log, to see what waits for its tables.
    pub wal: Wal,
    /// Tables.
    pub catalog: Catalog,
    /// Ids of erasures, files and commits.
    pub ids: IdGenerator,
    /// Whether this server takes the events.
    pub owner: LogOwnership,
    /// Where a test makes it stop.
    pub faults: Failpoints,
    /// How fast tables are looked through and written anew.
    pub pace: JobPace,
}

/// Takes requests for erasures, and tells what became of them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Erasures {
    parts: ErasureParts,
    ledger: Arc<LedgerFile>,
    wake: Arc<Notify>,
}

impl Erasures {
    /// Erasures whose ledger has its copy in this folder, beside the log.
    #[must_use]
    pub fn new(parts: ErasureParts, data_folder: &Path) -> Self {
        let catalog = parts.catalog.on_behalf_of(ACTOR);
        let parts = ErasureParts { catalog, ..parts };
        let ledger = Arc::new(LedgerFile::new(data_folder));
        Self { parts, ledger, wake: Arc::new(Notify::new()) }
    }

    /// The job that carries them out, and the notification that wakes it.
    #[must_use]
    pub fn job(&self) -> (EraseRows, Arc<Notify>) {
        let job = EraseRows { erasures: self.clone(), scans: HashMap::new() };
        (job, Arc::clone(&self.wake))
    }

    /// Begins one, durable on return. A dry run only counts.
    ///
    /// # Errors
    /// [`EraseError::Invalid`], [`EraseError::Held`], [`EraseError::Busy`]; the stores.
    pub async fn begin(
        &self,
        levels: Vec<String>,
        asked: NewErasure,
    ) -> Result<ErasureReport, EraseError> {
        Subject::parse(&asked.subject).map_err(EraseError::Invalid)?;
        let ErasureParts { store, wal, catalog, ids, .. } = &self.parts;
        if catalog.metastore().namespace(&levels).await?.is_none() {
            return Err(CatalogError::NoSuchNamespace(levels.join(".")).into());
        }
        if !asked.dry_run
            && let Some(held) = self.held(&levels).await?
        {
            return Err(EraseError::Held(held));
        }
        if OPEN_MAX <= store.open_erasures().await?.len() {
            return Err(EraseError::Busy);
        }
        // Where it is not known, the time alone tells what came later.
        let seq = Box::pin(self.last_seq(&levels)).await.ok();
        let entry = LedgerEntry {
            erasure: ids.mint().to_string(),
            levels,
            subject: asked.subject,
            requested_ms: catalog.now_ms(),
            seq,
        };
        let through = *wal.durable().borrow();
        let erasure = entry.clone().into_stored(through, asked.dry_run);
        store.add_erasure(&erasure).await?;
        if !asked.dry_run {
            self.ledger.append(vec![entry]).await.map_err(EraseError::Ledger)?;
            let StoredErasure { levels, report, .. } = &erasure;
            info!(namespace = levels.join("."), erasure = report.erasure, "an erasure has begun");
        }
        self.wake.notify_one();
        Ok(erasure.report)
    }

    /// How far one is.
    ///
    /// # Errors
    /// [`EraseError::NotFound`], [`EraseError::Store`].
    pub async fn show(&self, levels: &[String], id: &str) -> Result<ErasureReport, EraseError> {
        let found = self.parts.store.erasure(levels, id).await?;
        let none = || EraseError::NotFound { namespace: levels.join("."), id: id.to_owned() };
        found.map(|found| found.report).ok_or_else(none)
    }

    /// Those of a namespace.
    ///
    /// # Errors
    /// [`EraseError::Store`].
    pub async fn list(&self, levels: &[String]) -> Result<ErasureList, EraseError> {
        let found = self.parts.store.erasures(levels).await?;
        Ok(ErasureList { erasures: found.into_iter().map(|found| found.report).collect() })
    }

    /// Brings the ledger and its copy together, at the start: an erasure that the metastore does not know,
    /// since it was restored from before, is begun anew. Gives how many are.
    ///
    /// # Errors
    /// [`EraseError::Store`], [`EraseError::Ledger`].
    pub async fn reconcile(&self) -> Result<usize, EraseError> {
        let ErasureParts { store, wal, .. } = &self.parts;
        let kept = self.ledger.read().await.map_err(EraseError::Ledger)?;
        let stored = store.all_erasures().await?;
        let mut unknown = kept.clone();
        unknown.retain(|id, _| !stored.iter().any(|known| known.report.erasure == *id));
        let count = unknown.len();
        // Positions of the log that the request saw may be ahead of this one.
        let through = *wal.durable().borrow();
        for entry in unknown.into_values() {
            let bounded = self.bounded(entry.clone()).await;
            if bounded != entry {
                self.ledger.append(vec![bounded.clone()]).await.map_err(EraseError::Ledger)?;
            }
            let bound = Some(ErasureBound { seq: bounded.seq, at_ms: bounded.requested_ms });
            let mut erasure = bounded.into_stored(through, false);
            erasure.report.bound = bound;
            store.add_erasure(&erasure).await?;
        }
        // Positions of a log that is gone are none of this one: an erasure would wait for what comes.
        let is_ahead = |known: &&StoredErasure| {
            !known.report.status.is_ended() && through < known.report.log.through
        };
        for known in stored.iter().filter(is_ahead) {
            let mut changed = known.clone();
            changed.report.log.through = through;
            store.note_erasure(&changed, known.report.status).await?;
        }
        let is_copied = |known: &&StoredErasure| {
            known.report.dry_run || kept.contains_key(&known.report.erasure)
        };
        let missing: Vec<LedgerEntry> =
            stored.iter().filter(|known| !is_copied(known)).map(LedgerEntry::of).collect();
        if !missing.is_empty() {
            self.ledger.append(missing).await.map_err(EraseError::Ledger)?;
        }
        if 0 < count {
            warn!(count, "erasures that this metastore does not know are applied again");
        }
        Ok(count)
    }

    /// An erasure that is applied again, as of what is there now: a log of before the request gives numbers
    /// again that it gave before, to rows that come from here on.
    async fn bounded(&self, entry: LedgerEntry) -> LedgerEntry {
        let Some(asked) = entry.seq else { return entry };
        match Box::pin(self.last_seq(&entry.levels)).await {
            Ok(last) => LedgerEntry { seq: Some(asked.min(last)), ..entry },
            Err(cause) => {
                let (erasure, error) = (&entry.erasure, &cause as &dyn Error);
                warn!(erasure, error, "what came after an erasure is told by its time alone");
                LedgerEntry { seq: None, ..entry }
            }
        }
    }

    /// The last `seq` of a namespace's rows, in tables and in the log.
    async fn last_seq(&self, levels: &[String]) -> Result<u64, EraseError> {
        let mut last = 0;
        for known in known_tables().filter(|known| known.has_seq()) {
            let Some(table) = foreign_ident(levels, known.name) else { continue };
            match self.parts.catalog.tables().load(&table).await {
                Ok(loaded) => last = last.max(loaded.watermark.map_or(0, |mark| mark.last_seq)),
                Err(CatalogError::NoSuchTable(_)) => (),
                Err(cause) => return Err(cause.into()),
            }
        }
        let [name] = levels else { return Ok(last) };
        let wal = &self.parts.wal;
        let waiting = wal.pending().into_iter();
        for table in waiting.filter(|it| it.kind.has_seq() && it.namespace.name() == name) {
            // The last one alone: a million may wait.
            let before = table.last.saturating_sub(1);
            let records = wal.records(table.kind, &table.namespace, before);
            let end = records.last().map(|end| end.first_seq + u64::from(end.rows));
            last = last.max(end.map_or(0, |end| end.saturating_sub(1)));
        }
        Ok(last)
    }

    /// Whether an erasure that goes on took documents out of the table of a collection that a refresh may put back.
    ///
    /// # Errors
    /// [`EraseError::Store`].
    pub async fn takes_documents_of(
        &self,
        levels: &[String],
        collection: &str,
    ) -> Result<bool, EraseError> {
        let open = self.parts.store.open_erasures().await?;
        // Earlier, a refresh may put a table right, which is looked at again. All events of a key go, and stay so.
        let is_taking = |StoredErasure { report, documents, .. }: &StoredErasure| {
            let is_rewritten = matches!(
                report.status,
                ErasureStatus::History | ErasureStatus::Files | ErasureStatus::Proof
            );
            is_rewritten && report.subject.key.is_none() && documents.has_some_of(collection)
        };
        Ok(open.iter().any(|it| it.levels == levels && is_taking(it)))
    }

    async fn held(&self, levels: &[String]) -> Result<Option<String>, EraseError> {
        // Any name does: a hold is of namespaces.
        match foreign_ident(levels, "events") {
            Some(table) => Ok(hold_of(&self.parts.catalog, &table).await?),
            None => Ok(None),
        }
    }

    /// Whether records of a namespace up to a position wait for their tables.
    fn is_in_log(&self, levels: &[String], through: u64) -> bool {
        // Events are in namespaces of one level.
        let [name] = levels else { return false };
        let wal = &self.parts.wal;
        wal.namespaces_named(name).iter().any(|namespace| {
            known_tables().any(|table| {
                let first = wal.first_position(table.kind, namespace);
                first.is_some_and(|first| first <= through)
            })
        })
    }
}

/// The job that carries erasures out.
#[derive(Debug)]
pub struct EraseRows {
    erasures: Erasures,
    /// What was found of files, by erasure.
    scans: HashMap<String, ScannedFiles>,
}

impl Job for EraseRows {
    const NAME: &'static str = "erase";
    type Error = EraseError;

    /// A step of each erasure. One that fails does not hold up the others: its report says why, and the
    /// next tick tries again.
    async fn tick(&mut self) -> Result<Progress, EraseError> {
        if let Err(cause) = self.erasures.parts.owner.check() {
            // Positions of the log say nothing here: who takes the events goes on.
            self.scans.clear();
            return Ok(Progress::Skipped(cause.to_string()));
        }
        let open = self.erasures.parts.store.open_erasures().await?;
        let is_searched = |id: &String| {
            open.iter().map(|erasure| &erasure.report).any(|report| {
                let searches =
                    matches!(report.status, ErasureStatus::Count | ErasureStatus::Rewrite);
                searches && report.erasure == *id
            })
        };
        self.scans.retain(|id, _| is_searched(id));
        let (mut has_worked, mut is_more) = (false, false);
        for erasure in open {
            let (before, id) = (erasure.report.status, erasure.report.erasure.clone());
            if SCANNED_MAX < self.scans.values().map(ScannedFiles::count).sum::<usize>() {
                // They are looked through again.
                self.scans.clear();
            }
            let scanned = self.scans.entry(id).or_default();
            let mut changed = erasure.clone();
            (changed.report.error, changed.report.waits) = (None, None);
            let ended = Box::pin(self.erasures.step(&mut changed, scanned)).await;
            match ended {
                Ok(StepEnd::More) => (has_worked, is_more) = (true, true),
                Ok(StepEnd::Waits) => (),
                Err(cause) => {
                    let (erasure, error) = (&erasure.report.erasure, &cause as &dyn Error);
                    warn!(erasure, error, "an erasure does not go on");
                    changed.report.status = before;
                    changed.report.error = Some(with_causes(&cause));
                }
            }
            if changed != erasure {
                self.erasures.parts.store.note_erasure(&changed, before).await?;
            }
        }
        Ok(Progress::of(has_worked, is_more))
    }
}

/// The condition that the rows of a subject meet, as far as they came within the bound, and the documents that its
/// events made.
fn condition_of(
    subject: Subject,
    bound: Option<ErasureBound>,
    documents: &ErasedDocuments,
) -> RowCondition {
    let bound = bound.map(|ErasureBound { seq, at_ms }| ArrivalBound { seq, at_ms });
    let subject = Arc::new(subject);
    RowCondition {
        value: subject.value().into(),
        columns: subject.columns(),
        documents: subject.documents(),
        beside: subject.beside(),
        person: subject.person(),
        test: Arc::new(move |columns: &[Option<ArrayRef>], rows: usize| {
            subject.rows(columns, rows)
        }),
        bound,
        erased: Arc::new(documents.clone()),
    }
}

/// A time as answers have it.
fn rfc3339(ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(ms).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

impl LedgerEntry {
    /// An erasure at its beginning, of what is in the log up to this position.
    fn into_stored(self, through: u64, dry_run: bool) -> StoredErasure {
        let report = ErasureReport {
            erasure: self.erasure,
            status: if dry_run { ErasureStatus::Count } else { ErasureStatus::Log },
            namespace: self.levels.join("."),
            subject: self.subject,
            dry_run,
            since: rfc3339(self.requested_ms),
            tables: BTreeMap::new(),
            refs: Vec::new(),
            dead_letters: 0,
            log: ErasureLog { through, pending: true, kept: 0 },
            bound: None,
            waits: None,
            cannot: Vec::new(),
            error: None,
        };
        let (levels, requested_ms) = (self.levels, self.requested_ms);
        let documents = ErasedDocuments::default();
        StoredErasure { levels, requested_ms, passes: 0, until_ms: 0, report, documents }
    }

    fn of(known: &StoredErasure) -> Self {
        Self {
            erasure: known.report.erasure.clone(),
            levels: known.levels.clone(),
            subject: known.report.subject.clone(),
            requested_ms: known.requested_ms,
            seq: known.report.bound.and_then(|bound| bound.seq),
        }
    }
}
