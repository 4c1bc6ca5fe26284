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
            definition::{MaterializedQuery, is_due},
        },
        writes::WriteFailure,
    },
    tasks::{Job, Progress},
};
use icecore_catalog::{
    catalog::Catalog,
    error::{CatalogError, with_causes},
};
use icecore_engine::error::SqlError;
use icecore_lake::{ids::IdGenerator, table::schema::TableIdent};
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
    /// It is not time.
    NotDue,
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

    /// Refreshes a table; where it was looked at before, only when a time has come since.
    async fn refresh(
        &self,
        ident: &TableIdent,
        due: Option<&HashMap<TableIdent, i64>>,
        is_dry: bool,
    ) -> Result<RefreshEnd, TableError> {
        let table = self.catalog.tables().load(ident).await?;
        let Some(query) = MaterializedQuery::of(&table.metadata)? else {
            return Ok(RefreshEnd::Other);
        };
        if let Some(looked) = due
            && !is_due(&table.metadata, &query, looked.get(ident).copied(), self.catalog.now_ms())
        {
            return Ok(RefreshEnd::NotDue);
        }
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
            let reason = match Box::pin(self.refresh(&table, None, request.dry_run)).await {
                Ok(RefreshEnd::Refreshed(rows)) => {
                    report.tables += 1;
                    report.rows += rows;
                    continue;
                }
                Ok(RefreshEnd::Other) if is_named => NOT_MATERIALIZED.to_owned(),
                Ok(RefreshEnd::Other | RefreshEnd::NotDue | RefreshEnd::Unchanged) => continue,
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

/// The job that refreshes tables whose time has come.
#[derive(Debug)]
pub struct RefreshDue {
    tables: RefreshNow,
    owner: LogOwnership,
    /// When a table was tried last that has no snapshot of that. One entry for each table that is there.
    looked: HashMap<TableIdent, i64>,
}

impl RefreshDue {
    /// The job of `tables`, on the server that takes the events.
    #[must_use]
    pub fn new(tables: RefreshNow, owner: &LogOwnership) -> Self {
        Self { tables, owner: owner.clone(), looked: HashMap::new() }
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
        let all = RunRequest::default().every_table(&self.tables.catalog).await?;
        let mut looked = HashMap::new();
        for table in all {
            if self.tables.sql.is_of_service(&table) {
                continue;
            }
            let now_ms = self.tables.catalog.now_ms();
            let before = self.looked.get(&table).copied();
            let ended = Box::pin(self.tables.refresh(&table, Some(&self.looked), false)).await;
            let tried = match ended {
                Ok(RefreshEnd::Refreshed(_)) => {
                    is_changed = true;
                    Some(now_ms)
                }
                Ok(RefreshEnd::Unchanged) => Some(now_ms),
                Ok(RefreshEnd::NotDue) => before,
                // Another job tells of tables that do not load.
                Ok(RefreshEnd::Other) | Err(TableError::Load(_)) => None,
                Err(cause) => {
                    let is_of_the_moment = cause.is_of_the_moment()
                        || self.tables.catalog.storage().outage().is_some();
                    warn!(%table, error = &cause as &dyn Error, "a table is not refreshed");
                    failed.push(format!("{table}: {}", with_causes(&cause)));
                    if is_of_the_moment { before } else { Some(now_ms) }
                }
            };
            looked.extend(tried.map(|tried_ms| (table, tried_ms)));
        }
        self.looked = looked;
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
