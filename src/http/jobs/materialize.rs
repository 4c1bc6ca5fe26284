//! The job `materialize`: tables that have the rows of a query get them anew, at their times and by hand.
//!
//! It is here because SQL, erasures and the jobs of tables do not know each other. Its one invariant: a table that
//! fails is told with its reason, and the others go on.

use crate::{
    http::error::ApiError,
    maintenance::{
        MATERIALIZE,
        erasure::{EraseError, Erasures},
        planned::{PlannedJob, RunRequest},
    },
    owner::LogOwnership,
    sql::{
        Sql,
        materialized::{
            RefreshCaller,
            definition::{MaterializedQuery, RefreshAttempt, RefreshSchedule},
        },
        writes::WriteFailure,
    },
    tasks::{Job, Progress},
};
use icecore_catalog::{
    catalog::Catalog,
    error::{CatalogError, with_causes},
    metastore::moved::PlaceKind,
};
use icecore_engine::error::SqlError;
use icecore_lake::{
    ids::IdGenerator,
    table::schema::{TableIdent, foreign_ident},
};
use icecore_schemas::jobs::{JobReport, SkippedTable};
use std::{collections::HashMap, error::Error};
use tokio::time::Instant;
use tracing::warn;

/// Why a table that is named is left alone.
pub const NOT_MATERIALIZED: &str = "the table does not have the rows of a query that is run again";
/// Who made a change, in the catalog's feed.
const ACTOR: &str = "icecore/materialize";

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
#[error("refresh tables")]
pub struct RefreshError(#[from] CatalogError);

impl From<RefreshError> for ApiError {
    fn from(RefreshError(cause): RefreshError) -> Self {
        cause.into()
    }
}

/// Why a table is not refreshed.
#[derive(Debug, thiserror::Error)]
enum TableError {
    #[error(transparent)]
    Definition(#[from] SqlError),
    #[error(transparent)]
    Write(#[from] WriteFailure),
    #[error(transparent)]
    Erasures(#[from] EraseError),
    #[error(transparent)]
    Load(#[from] CatalogError),
}

impl TableError {
    /// Whether the same may succeed in a moment.
    fn is_of_the_moment(&self) -> bool {
        match self {
            Self::Definition(cause) | Self::Write(WriteFailure::Query(cause)) => {
                matches!(cause, SqlError::Busy(_) | SqlError::Unavailable | SqlError::Outage(_))
            }
            // Another commit came first.
            Self::Write(WriteFailure::Catalog(CatalogError::CommitFailed(_))) => true,
            Self::Load(cause) | Self::Write(WriteFailure::Catalog(cause)) => cause.is_temporary(),
            Self::Write(_) => false,
            Self::Erasures(_) => true,
        }
    }
}

/// What became of a table.
enum RefreshEnd {
    /// It is no materialised one.
    Other,
    /// No event came since its last refresh.
    Unchanged,
    /// It has so many new rows, or would have them.
    Refreshed(u64),
}

/// What refreshes tables, by hand all that are asked for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RefreshNow {
    catalog: Catalog,
    sql: Sql,
    erasures: Erasures,
    ids: IdGenerator,
}

impl RefreshNow {
    /// Refreshes tables of `catalog`.
    #[must_use]
    pub fn new(catalog: &Catalog, sql: &Sql, erasures: &Erasures, ids: &IdGenerator) -> Self {
        let (catalog, sql) = (catalog.on_behalf_of(ACTOR), sql.clone());
        Self { catalog, sql, erasures: erasures.clone(), ids: ids.clone() }
    }

    /// Refreshes a table.
    async fn refresh(&self, ident: &TableIdent, is_dry: bool) -> Result<RefreshEnd, TableError> {
        let table = self.catalog.tables().load(ident).await?;
        let Some(query) = MaterializedQuery::of(&table.metadata)? else {
            return Ok(RefreshEnd::Other);
        };
        if is_dry {
            return Ok(RefreshEnd::Refreshed(0));
        }
        // Before anything is read: one that begins meanwhile is another one.
        let levels: &Vec<String> = ident.namespace.as_ref();
        let erasures = erasures_of(&self.erasures, levels).await?;
        let caller = RefreshCaller { catalog: self.catalog.clone(), ids: &self.ids, erasures };
        let refreshed = Box::pin(self.sql.refresh(&caller, ident, table, &query)).await?;
        Ok(refreshed.map_or(RefreshEnd::Unchanged, |report| RefreshEnd::Refreshed(report.rows)))
    }
}

impl PlannedJob for RefreshNow {
    const NAME: &'static str = MATERIALIZE;
    type Error = RefreshError;

    async fn run(&self, request: &RunRequest) -> Result<JobReport, RefreshError> {
        let started = Instant::now();
        let mut report = JobReport { job: MATERIALIZE.to_owned(), ..JobReport::default() };
        // A name alone is that of tables in many namespaces.
        let is_named = request.table.is_some() && request.levels.is_some();
        for table in request.every_table(&self.catalog).await? {
            if self.sql.is_of_service(&table) && !is_named {
                continue;
            }
            let reason = match Box::pin(self.refresh(&table, request.dry_run)).await {
                Ok(RefreshEnd::Refreshed(rows)) => {
                    report.tables += 1;
                    report.rows += rows;
                    continue;
                }
                Ok(RefreshEnd::Other) if is_named => NOT_MATERIALIZED.to_owned(),
                Ok(RefreshEnd::Other | RefreshEnd::Unchanged) => continue,
                // Another job tells of tables that do not load.
                Err(TableError::Load(_)) if !is_named => continue,
                Err(cause) => {
                    warn!(%table, error = &cause as &dyn Error, "a table is not refreshed");
                    report.errors += 1;
                    with_causes(&cause)
                }
            };
            report.skipped.push(SkippedTable { table: table.to_string(), reason });
        }
        report.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }
}

/// What is known of a table. The metadata file is read once, and then not before there is another one.
#[derive(Debug)]
struct KnownTable {
    metadata_location: String,
    /// None of a table without a query that is run again.
    schedule: Option<RefreshSchedule>,
    /// The refresh that was tried last.
    tried: Option<RefreshAttempt>,
}

/// The job that refreshes tables whose time has come, or whose rows are of another origin than they would be now.
#[derive(Debug)]
pub struct RefreshDue {
    tables: RefreshNow,
    owner: LogOwnership,
    /// One entry for each table that is there.
    known: HashMap<TableIdent, KnownTable>,
}

impl RefreshDue {
    /// The job of `tables`, on the server that takes the events.
    #[must_use]
    pub fn new(tables: RefreshNow, owner: &LogOwnership) -> Self {
        Self { tables, owner: owner.clone(), known: HashMap::new() }
    }

    /// What there is to know of a table with this metadata file.
    async fn look_up(
        &mut self,
        ident: &TableIdent,
        metadata_location: String,
    ) -> Result<KnownTable, TableError> {
        let before = self.known.remove(ident);
        let tried = match before {
            Some(known) if known.metadata_location == metadata_location => return Ok(known),
            Some(known) => known.tried,
            None => None,
        };
        let table = self.tables.catalog.tables().load(ident).await?;
        let schedule = MaterializedQuery::of(&table.metadata)?
            .map(|query| self.tables.sql.schedule_of(ident, &table.metadata, &query));
        // It may be a later one than was listed.
        Ok(KnownTable { metadata_location: table.metadata_location, schedule, tried })
    }

    /// Refreshes a table that is due. True where its rows are other ones now.
    async fn refresh(
        &self,
        ident: &TableIdent,
        known: &mut KnownTable,
    ) -> Result<bool, TableError> {
        let Some(schedule) = &known.schedule else { return Ok(false) };
        let (tried, now_ms) = (known.tried.as_ref(), self.tables.catalog.now_ms());
        if !schedule.is_of_other_origin(tried) {
            if !schedule.has_come(tried, now_ms) {
                return Ok(false);
            }
            let metastore = self.tables.catalog.metastore();
            if schedule.waits_under_hold(now_ms)
                && metastore.hold_over(ident.namespace.as_ref()).await?.is_some()
            {
                return Ok(false);
            }
        }
        let attempt = schedule.attempt(now_ms);
        let ended = Box::pin(self.tables.refresh(ident, false)).await;
        let is_of_the_moment = |cause: &TableError| {
            cause.is_of_the_moment() || self.tables.catalog.storage().outage().is_some()
        };
        if !ended.as_ref().is_err_and(is_of_the_moment) {
            known.tried = Some(attempt);
        }
        Ok(matches!(ended?, RefreshEnd::Refreshed(_)))
    }
}

impl Job for RefreshDue {
    const NAME: &'static str = MATERIALIZE;
    type Error = RefreshError;

    /// Looks at every table. One that fails waits for its next time, unless it may succeed in a moment.
    async fn tick(&mut self) -> Result<Progress, RefreshError> {
        if let Err(cause) = self.owner.check() {
            // Others do not see what is in the log alone, and would take it out.
            return Ok(Progress::Skipped(cause.to_string()));
        }
        let (mut is_changed, mut failed) = (false, Vec::new());
        let mut all = HashMap::new();
        for place in self.tables.catalog.metastore().places().await? {
            let Some(ident) = foreign_ident(&place.levels, &place.name) else { continue };
            if place.of != PlaceKind::Table || self.tables.sql.is_of_service(&ident) {
                continue;
            }
            let listed = place.metadata_location.clone();
            let ended = match self.look_up(&ident, place.metadata_location).await {
                Ok(mut known) => {
                    let ended = Box::pin(self.refresh(&ident, &mut known)).await;
                    all.insert(ident.clone(), known);
                    ended
                }
                Err(cause) => {
                    // What it says of its query does not read before it says something else.
                    if matches!(cause, TableError::Definition(_)) {
                        let (schedule, tried) = (None, None);
                        let known = KnownTable { metadata_location: listed, schedule, tried };
                        all.insert(ident.clone(), known);
                    }
                    Err(cause)
                }
            };
            match ended {
                Ok(is_refreshed) => is_changed |= is_refreshed,
                // Another job tells of tables that do not load.
                Err(TableError::Load(_)) => (),
                Err(cause) => {
                    warn!(table = %ident, error = &cause as &dyn Error, "a table is not refreshed");
                    failed.push(format!("{ident}: {}", with_causes(&cause)));
                }
            }
        }
        self.known = all;
        if is_changed || failed.is_empty() {
            return Ok(Progress::of(is_changed, false));
        }
        Ok(Progress::Skipped(failed.join("; ")))
    }
}

/// Which erasures a namespace has had: their number, and the last one. None while one goes on.
///
/// # Errors
/// [`EraseError::Store`].
pub async fn erasures_of(
    erasures: &Erasures,
    levels: &[String],
) -> Result<Option<String>, EraseError> {
    let list = erasures.list(levels).await?.erasures;
    // A dry run takes nothing out.
    let all = || list.iter().filter(|erasure| !erasure.dry_run);
    if all().any(|erasure| !erasure.status.is_ended()) {
        return Ok(None);
    }
    let last = all().next().map_or("none", |erasure| erasure.erasure.as_str());
    Ok(Some(format!("{}/{last}", all().count())))
}

#[cfg(test)]
mod tests;
