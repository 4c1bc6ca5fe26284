//! The job `refresh`: the tables of collections follow the changes of their documents, by themselves and by hand.
//!
//! It is here because SQL, erasures and the jobs of tables do not know each other. Its one invariant: a table that
//! fails is told with its reason, and the others go on.

use crate::{
    http::{error::ApiError, jobs::materialize::erasures_of},
    maintenance::{
        REFRESH,
        erasure::{EraseError, Erasures},
        planned::{PlannedJob, RunRequest},
    },
    owner::LogOwnership,
    sql::{
        Sql,
        collection_refresh::{COLLECTIONS_MAX, RefreshedCollection},
        materialized::RefreshCaller,
        writes::WriteFailure,
    },
    tasks::{Job, Progress},
};
use icecore_catalog::{
    catalog::{Catalog, LoadedTable},
    error::{CatalogError, with_causes},
    retention,
};
use icecore_engine::error::SqlError;
use icecore_lake::{
    collection::table_name,
    ids::IdGenerator,
    table::{documents::AppliedChanges, schema::foreign_ident},
    wal::Wal,
};
use icecore_schemas::{
    jobs::{JobReport, SkippedTable},
    service_table::EVENTS_TABLE,
};
use std::{
    collections::{BTreeSet, HashMap},
    error::Error,
    time::Duration,
};
use tokio::time::Instant;
use tracing::warn;

/// Who made a change, in the catalog's feed.
const ACTOR: &str = "icecore/refresh";
/// What the names of all these tables begin with.
const TABLE_PREFIX: &str = "cdc_";
/// Why a table that is named is left alone.
const NOT_OF_COLLECTION: &str = "no collection of the namespace has this table: name another one";
/// Why nothing of a namespace is refreshed for now. `/sql` answers from events meanwhile.
const IS_ERASING: &str = "an erasure goes on in the namespace: its tables follow once it has ended";

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
#[error("refresh the tables of collections")]
pub struct RefreshError(#[from] CatalogError);

impl From<RefreshError> for ApiError {
    fn from(RefreshError(cause): RefreshError) -> Self {
        cause.into()
    }
}

/// Why the collections of a namespace are not known.
#[derive(Debug, thiserror::Error)]
enum NamespaceError {
    #[error("ask which collections changed")]
    Changes(#[from] SqlError),
    #[error(transparent)]
    Erasures(#[from] EraseError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// A collection that has a table.
struct KnownBase {
    collection: String,
    /// The last event that the table has; 0 where it has to be made anew.
    applied_seq: u64,
}

/// The collections of a namespace whose tables are looked at.
struct FoundCollections {
    /// In order, at most [`COLLECTIONS_MAX`].
    names: BTreeSet<String>,
    /// The first one beyond that bound.
    beyond: Option<String>,
    /// Changes up to this event are of these collections.
    seq: u64,
}

/// What refreshes the tables of collections, by hand all that are asked for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RefreshCollections {
    catalog: Catalog,
    sql: Sql,
    wal: Wal,
    erasures: Erasures,
    ids: IdGenerator,
}

impl RefreshCollections {
    /// Refreshes tables of `catalog`.
    #[must_use]
    pub fn new(
        catalog: &Catalog,
        (sql, wal): (&Sql, &Wal),
        erasures: &Erasures,
        ids: &IdGenerator,
    ) -> Self {
        let (catalog, sql, wal) = (catalog.on_behalf_of(ACTOR), sql.clone(), wal.clone());
        Self { catalog, sql, wal, erasures: erasures.clone(), ids: ids.clone() }
    }

    /// The collections of a namespace with changes behind `after`, and those that have these tables.
    async fn collections(
        &self,
        levels: &[String],
        after: u64,
        bases: Vec<KnownBase>,
    ) -> Result<FoundCollections, NamespaceError> {
        let (mut changed, mut seq) = Box::pin(self.sql.changed_collections(levels, after)).await?;
        if seq < after {
            // A log that was restored gives numbers again.
            (changed, seq) = Box::pin(self.sql.changed_collections(levels, 0)).await?;
        }
        let mut names: BTreeSet<String> = changed.into_iter().collect();
        names.extend(bases.into_iter().map(|base| base.collection));
        let beyond = names.iter().nth(COLLECTIONS_MAX).cloned();
        if let Some(first) = &beyond {
            drop(names.split_off(first));
        }
        Ok(FoundCollections { names, beyond, seq })
    }

    /// The collections that have a table.
    async fn bases(&self, levels: &[String]) -> Result<Vec<KnownBase>, CatalogError> {
        let mut found = Vec::new();
        for name in self.catalog.metastore().tables(&levels.to_vec()).await? {
            let Some(ident) = foreign_ident(levels, &name) else { continue };
            if !name.starts_with(TABLE_PREFIX) {
                continue;
            }
            // Another job tells of tables that do not load.
            let Ok(LoadedTable { metadata, .. }) = self.catalog.tables().load(&ident).await else {
                continue;
            };
            if let Some(collection) = retention::collection_of(&metadata) {
                let applied = AppliedChanges::of(&metadata, metadata.current_snapshot_id());
                let applied_seq = applied.map_or(0, |applied| applied.seq);
                found.push(KnownBase { collection: collection.to_owned(), applied_seq });
            }
        }
        Ok(found)
    }

    async fn refresh(
        &self,
        levels: &[String],
        collection: &str,
        erasures: Option<String>,
    ) -> Result<RefreshedCollection, WriteFailure> {
        let caller = RefreshCaller { catalog: self.catalog.clone(), ids: &self.ids, erasures };
        Box::pin(self.sql.refresh_collection(&caller, levels, collection, false)).await
    }

    /// What a namespace has of events; none for one without any.
    async fn seen(&self, levels: &[String]) -> Result<Option<SeenEvents>, NamespaceError> {
        let [name] = levels else { return Ok(None) };
        let Some(ident) = foreign_ident(levels, EVENTS_TABLE) else { return Ok(None) };
        let last_seq = match self.catalog.tables().load(&ident).await {
            Ok(table) => table.watermark.map(|mark| mark.last_seq),
            Err(CatalogError::NoSuchTable(_)) => None,
            Err(cause) => return Err(cause.into()),
        };
        let waiting = self.wal.pending().into_iter();
        let of_events = waiting.filter(|it| it.kind.has_seq() && it.namespace.name() == name);
        let position = of_events.map(|it| it.last).max();
        if last_seq.is_none() && position.is_none() {
            return Ok(None);
        }
        let erasures = erasures_of(&self.erasures, levels).await?;
        Ok(Some(SeenEvents { last_seq, position, erasures }))
    }

    /// The namespaces that may have collections: those of events are at the top.
    async fn namespaces(&self) -> Result<Vec<Vec<String>>, CatalogError> {
        self.catalog.metastore().namespaces(&Vec::new()).await
    }
}

impl PlannedJob for RefreshCollections {
    const NAME: &'static str = REFRESH;
    type Error = RefreshError;

    async fn run(&self, request: &RunRequest) -> Result<JobReport, RefreshError> {
        let started = Instant::now();
        let mut report = JobReport { job: REFRESH.to_owned(), ..JobReport::default() };
        let namespaces = match &request.levels {
            Some(levels) => {
                // Whoever names one that is not there is told so.
                self.catalog.metastore().tables(levels).await?;
                vec![levels.clone()]
            }
            None => self.namespaces().await?,
        };
        for levels in namespaces {
            if let Err(cause) = Box::pin(self.run_in(&levels, request, &mut report)).await {
                fail(&mut report, &levels.join("."), &cause);
            }
        }
        report.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }
}

impl RefreshCollections {
    /// The run of one namespace.
    async fn run_in(
        &self,
        levels: &[String],
        request: &RunRequest,
        report: &mut JobReport,
    ) -> Result<(), NamespaceError> {
        let skip = |table: &str, reason: String| {
            let table = format!("{}.{table}", levels.join("."));
            SkippedTable { table, reason }
        };
        let Some(seen) = self.seen(levels).await? else { return Ok(()) };
        let bases = self.bases(levels).await?;
        let found = self.collections(levels, 0, bases).await?;
        if let Some(first) = found.beyond.filter(|_| request.table.is_none()) {
            report.skipped.push(skip(&table_name(&first), beyond(&first)));
        }
        let mut is_found = false;
        for collection in found.names {
            let table = table_name(&collection);
            if request.table.as_ref().is_some_and(|wanted| *wanted != table) {
                continue;
            }
            is_found = true;
            if request.dry_run {
                report.tables += 1;
                continue;
            }
            match self.refresh(levels, &collection, seen.erasures.clone()).await {
                Ok(done) => {
                    report.tables += u64::from(done.is_changed);
                    report.rows += done.rows;
                }
                Err(cause) => fail(report, &format!("{}.{table}", levels.join(".")), &cause),
            }
        }
        if let (Some(table), Some(_), false) = (&request.table, &request.levels, is_found) {
            report.skipped.push(skip(table, NOT_OF_COLLECTION.to_owned()));
        }
        Ok(())
    }
}

/// Notes why a table, or a namespace, is left as it is.
fn fail(report: &mut JobReport, table: &str, cause: &(dyn Error + 'static)) {
    warn!(table, error = cause, "the table of a collection is not refreshed");
    report.errors += 1;
    let (table, reason) = (table.to_owned(), with_causes(cause));
    report.skipped.push(SkippedTable { table, reason });
}

fn beyond(first: &str) -> String {
    format!(
        "the namespace has more than {COLLECTIONS_MAX} collections: those from `{first}` on have no table that follows them; \
         send them to other namespaces"
    )
}

/// What decides whether a namespace has something new.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SeenEvents {
    /// The last event in the table.
    last_seq: Option<u64>,
    /// The last record that waits in the log.
    position: Option<u64>,
    /// Which erasures there have been; none while one goes on.
    erasures: Option<String>,
}

/// What became of a namespace when it was looked at last.
#[derive(Clone, Debug, Default)]
struct NamespaceRound {
    looked_ms: Option<i64>,
    /// Of a round in which no table failed.
    seen: Option<SeenEvents>,
    /// Changes up to this event are in all tables.
    after: u64,
}

/// The job that refreshes tables of collections with new changes.
#[derive(Debug)]
pub struct RefreshChanged {
    tables: RefreshCollections,
    owner: LogOwnership,
    /// From one look at a namespace to the next one, at least, and from the start to the first one.
    interval: Duration,
    started_ms: i64,
    /// One for each namespace that is there.
    rounds: HashMap<Vec<String>, NamespaceRound>,
}

/// What a look at a namespace came to.
#[derive(Default)]
struct LookEnd {
    is_changed: bool,
    failed: Vec<String>,
}

impl RefreshChanged {
    /// The job of `tables`, on the server that takes the events.
    #[must_use]
    pub fn new(tables: RefreshCollections, owner: &LogOwnership, interval: Duration) -> Self {
        let started_ms = tables.catalog.now_ms();
        Self { tables, owner: owner.clone(), interval, started_ms, rounds: HashMap::new() }
    }

    /// Refreshes what changed in a namespace since its last round.
    async fn look(
        &self,
        levels: &[String],
        round: &mut NamespaceRound,
    ) -> Result<LookEnd, NamespaceError> {
        let mut end = LookEnd::default();
        let Some(seen) = self.tables.seen(levels).await? else { return Ok(end) };
        if round.seen.as_ref() == Some(&seen) {
            return Ok(end);
        }
        if seen.erasures.is_none() {
            end.failed.push(IS_ERASING.to_owned());
            return Ok(end);
        }
        // What was taken out may be of any collection, and after a start nothing is known of any.
        let known = round.seen.as_ref().map(|known| known.erasures == seen.erasures);
        let bases = match known {
            Some(true) => Vec::new(),
            Some(false) | None => self.tables.bases(levels).await?,
        };
        let least = bases.iter().map(|base| base.applied_seq).min().unwrap_or(0);
        let after = if known.is_some() { round.after } else { least };
        let found = self.tables.collections(levels, after, bases).await?;
        for collection in &found.names {
            match self.tables.refresh(levels, collection, seen.erasures.clone()).await {
                Ok(done) => end.is_changed |= done.is_changed,
                Err(cause) => {
                    let table = table_name(collection);
                    warn!(table, error = &cause as &dyn Error, "a collection is not refreshed");
                    end.failed.push(format!("{table}: {}", with_causes(&cause)));
                }
            }
        }
        if end.failed.is_empty() {
            (round.seen, round.after) = (Some(seen), found.seq);
        }
        end.failed.extend(found.beyond.map(|first| beyond(&first)));
        Ok(end)
    }
}

impl Job for RefreshChanged {
    const NAME: &'static str = REFRESH;
    type Error = RefreshError;

    /// Looks at every namespace whose time has come.
    async fn tick(&mut self) -> Result<Progress, RefreshError> {
        if let Err(cause) = self.owner.check() {
            // Others do not see what is in the log alone.
            return Ok(Progress::Skipped(cause.to_string()));
        }
        let (mut is_changed, mut failed) = (false, Vec::new());
        let mut rounds = HashMap::new();
        let interval_ms = i64::try_from(self.interval.as_millis()).unwrap_or(i64::MAX);
        for levels in self.tables.namespaces().await? {
            let mut round = self.rounds.get(&levels).cloned().unwrap_or_default();
            let now_ms = self.tables.catalog.now_ms();
            let since_ms = round.looked_ms.unwrap_or(self.started_ms);
            // A clock that was set back says nothing of how long it is since.
            let is_due = now_ms < since_ms || interval_ms <= now_ms.saturating_sub(since_ms);
            if is_due {
                round.looked_ms = Some(now_ms);
                let name = levels.join(".");
                match Box::pin(self.look(&levels, &mut round)).await {
                    Ok(end) => {
                        is_changed |= end.is_changed;
                        failed.extend(end.failed.into_iter().map(|why| format!("{name}: {why}")));
                    }
                    Err(cause) => {
                        warn!(name, error = &cause as &dyn Error, "a namespace is not refreshed");
                        failed.push(format!("{name}: {}", with_causes(&cause)));
                    }
                }
            }
            rounds.insert(levels, round);
        }
        self.rounds = rounds;
        if is_changed || failed.is_empty() {
            return Ok(Progress::of(is_changed, false));
        }
        Ok(Progress::Skipped(failed.join("; ")))
    }
}
