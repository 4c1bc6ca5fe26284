//! Whether tables are whole: what an operator asks for who wants proof.
//!
//! What is looked at in a table is [`integrity`]'s to know. Here is which tables, one after the other, what
//! the metastore says of each, and which files nothing names. A run is one at a time, and ends where
//! nobody waits for it any more, or the server stops.
//!
//! Its one invariant: it changes nothing. A file that goes meanwhile because no snapshot needs it is no
//! damage, and a store that does not answer is an error.

mod index;
mod orphans;
mod sums;

use crate::{
    maintenance::pace::{JobPace, PacedWork},
    tasks::{ShutdownSignal, Tasks},
};
use icecore_catalog::{
    catalog::{Catalog, LoadedTable},
    error::{CatalogError, with_causes},
    metastore::moved::PlaceKind,
    retention,
    usage::UsageCounter,
};
use icecore_lake::table::{
    integrity::{
        self, CheckDepth, CheckedTable, MissingFile, PROBE, TableFindings, needed::needed,
    },
    schema::{TableIdent, foreign_ident},
};
use icecore_schemas::{
    fsck::{FindingKind, FsckFinding, FsckReport, FsckTable},
    service_table::{ServiceTable, ServiceTables},
};
use std::{collections::HashSet, sync::Arc};
use tokio::{sync::Semaphore, time::Instant};

/// Most runs at a time.
const RUNS_MAX: usize = 1;
/// How often a table that goes on is asked anew whether it needs a file that is not there.
const ROUNDS_MAX: usize = 5;

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum FsckError {
    /// The namespace or table is not there, or the catalog does not answer.
    #[error("check tables")]
    Catalog(#[from] CatalogError),
    /// As many runs go on as may.
    #[error("a check goes on already: wait until it has ended")]
    Busy,
    /// The server stops.
    #[error("the server stops: run the check again once it is back")]
    Stopped,
}

/// What is checked.
#[derive(Clone, Debug)]
pub struct FsckRequest {
    /// Only tables of this namespace of the catalog.
    pub levels: Option<Vec<String>>,
    /// Only tables of this name.
    pub table: Option<String>,
    /// How thoroughly.
    pub depth: CheckDepth,
}

/// Numbers of rows of which it is written down that they are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostNumbers {
    /// Namespace and name of the table, as the catalog has them.
    pub table: String,
    /// The first and the last number.
    pub range: (u64, u64),
}

/// Checks of a server's tables. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fsck(Arc<FsckInner>);

#[derive(Debug)]
struct FsckInner {
    catalog: Catalog,
    tables: ServiceTables,
    losses: Vec<LostNumbers>,
    running: Semaphore,
    pace: JobPace,
    stopping: ShutdownSignal,
}

impl Fsck {
    /// Checks tables of `catalog`, of which the service writes `ours` and rows are known to be lost, until
    /// `tasks` stop.
    #[must_use]
    pub fn new(
        catalog: &Catalog,
        ours: ServiceTables,
        losses: Vec<LostNumbers>,
        pace: JobPace,
        tasks: &Tasks,
    ) -> Self {
        Self(Arc::new(FsckInner {
            catalog: catalog.clone(),
            tables: ours,
            losses,
            running: Semaphore::new(RUNS_MAX),
            pace,
            stopping: tasks.stopping(),
        }))
    }

    /// Checks what is asked for. It may be dropped at any time.
    ///
    /// # Errors
    /// [`FsckError`]
    pub async fn run(&self, request: &FsckRequest) -> Result<FsckReport, FsckError> {
        let Ok(_one) = self.0.running.try_acquire() else { return Err(FsckError::Busy) };
        let mut stopping = self.0.stopping.clone();
        let counter = UsageCounter::default();
        // Cancel-safe: a check changes nothing.
        tokio::select! {
            ended = counter.measure(Box::pin(self.check_tables(request))) => ended,
            () = stopping.asked() => Err(FsckError::Stopped),
        }
    }

    async fn check_tables(&self, request: &FsckRequest) -> Result<FsckReport, FsckError> {
        let started = Instant::now();
        let (mut tables, mut pace) = (Vec::new(), self.0.pace.begin());
        for table in self.tables(request).await? {
            let checked = self.check_table(&table, request.depth, &mut pace);
            let checked = Box::pin(checked).await?;
            // One that was dropped meanwhile has nothing to check.
            tables.extend(checked);
            pace.rest().await;
        }
        let whole = tables.iter().all(FsckTable::is_whole);
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(FsckReport { tables, whole, elapsed_ms })
    }

    /// The tables of the request: a name that is not there is an error.
    async fn tables(&self, request: &FsckRequest) -> Result<Vec<TableIdent>, CatalogError> {
        let metastore = self.0.catalog.metastore();
        let names: Vec<(Vec<String>, String)> = match &request.levels {
            Some(levels) => {
                let names = metastore.tables(levels).await?;
                names.into_iter().map(|name| (levels.clone(), name)).collect()
            }
            None => {
                let places = metastore.places().await?.into_iter();
                let tables = places.filter(|place| place.of == PlaceKind::Table);
                tables.map(|place| (place.levels, place.name)).collect()
            }
        };
        let is_wanted = |name: &String| request.table.as_ref().is_none_or(|wanted| wanted == name);
        let wanted = names.iter().filter(|(_, name)| is_wanted(name));
        let tables: Vec<TableIdent> =
            wanted.filter_map(|(levels, name)| foreign_ident(levels, name)).collect();
        match &request.table {
            Some(name) if tables.is_empty() => {
                let levels = request.levels.clone().unwrap_or_default();
                let named = levels.iter().chain([name]).cloned().collect::<Vec<_>>();
                Err(CatalogError::NoSuchTable(named.join(".")))
            }
            _ => Ok(tables),
        }
    }

    /// Checks a table; none where it is not there any more.
    async fn check_table(
        &self,
        table: &TableIdent,
        depth: CheckDepth,
        pace: &mut PacedWork,
    ) -> Result<Option<FsckTable>, CatalogError> {
        match self.0.catalog.tables().load_anew(table).await {
            Ok(loaded) => Box::pin(self.check_loaded(table, &loaded, depth, pace)).await.map(Some),
            Err(CatalogError::NoSuchTable(_)) => Ok(None),
            Err(cause) => {
                let what = self.of_table(cause).await?;
                let mut report = FsckTable::new(table.to_string());
                report.add_damage(FsckFinding::new(FindingKind::Metadata, what));
                Ok(Some(report))
            }
        }
    }

    /// Checks a table as it was loaded.
    async fn check_loaded(
        &self,
        table: &TableIdent,
        loaded: &LoadedTable,
        depth: CheckDepth,
        pace: &mut PacedWork,
    ) -> Result<FsckTable, CatalogError> {
        let (name, storage) = (table.to_string(), self.0.catalog.storage());
        let ours = self.ours(table, loaded);
        let lost = self.0.losses.iter().filter(|lost| lost.table == name);
        let lost: Vec<(u64, u64)> = lost.map(|lost| lost.range).collect();
        let input = CheckedTable { storage, name: &name, table: loaded, ours, lost: &lost, depth };
        let found = match pace.over(Box::pin(integrity::check(input))).await {
            Ok(found) => found,
            Err(cause) => {
                let what = self.of_table(cause).await?;
                let mut report = FsckTable::new(name);
                report.add_damage(FsckFinding::new(FindingKind::Unreadable, what));
                return Ok(report);
            }
        };
        let TableFindings { mut report, missing } = found;
        self.settle(table, loaded, missing, &mut report).await?;
        let catalog = &self.0.catalog;
        let mut rest = index::check(catalog, table, loaded, ours.is_some(), &mut report).await;
        let has_account = depth == CheckDepth::Rows && ours.is_some_and(ServiceTable::has_seq);
        if rest.is_ok() && has_account {
            rest = Box::pin(sums::check(catalog, table, &mut report, pace)).await;
        }
        if rest.is_ok() && report.is_whole() {
            rest = Box::pin(orphans::note(catalog, table, &mut report)).await;
        }
        if let Err(cause) = rest {
            let what = self.of_table(cause).await?;
            report.add_damage(FsckFinding::new(FindingKind::Unreadable, what));
        }
        Ok(report)
    }

    /// What is particular about a table of ours; none for a table of others.
    fn ours(&self, table: &TableIdent, loaded: &LoadedTable) -> Option<&ServiceTable> {
        let is_ours = table.namespace().len() == 1 && retention::is_managed(&loaded.metadata);
        self.0.tables.named(table.name()).filter(|_| is_ours)
    }

    /// Tells which missing files are damage: those that the table needs as it stands by now.
    async fn settle(
        &self,
        table: &TableIdent,
        loaded: &LoadedTable,
        missing: Vec<MissingFile>,
        report: &mut FsckTable,
    ) -> Result<(), CatalogError> {
        let mut files: HashSet<String> = missing.iter().map(|it| it.location.clone()).collect();
        let mut seen = loaded.metadata_location.clone();
        for _ in 0..ROUNDS_MAX {
            if files.is_empty() {
                break;
            }
            let now = match self.0.catalog.tables().load_anew(table).await {
                Ok(now) if now.metadata_location == seen => break,
                Ok(now) => now,
                // It was dropped, and its files may go.
                Err(CatalogError::NoSuchTable(_)) => return Ok(()),
                Err(cause) => {
                    let what = self.of_table(cause).await?;
                    report.add_damage(FsckFinding::new(FindingKind::Metadata, what));
                    break;
                }
            };
            match needed(self.0.catalog.storage(), &now, &files).await {
                Ok(needed) => files = needed,
                Err(cause) => {
                    let what = self.of_table(cause).await?;
                    report.add_damage(FsckFinding::new(FindingKind::Unreadable, what));
                    break;
                }
            }
            seen = now.metadata_location;
        }
        let needed = missing.into_iter().filter(|it| files.contains(&it.location));
        needed.for_each(|it| report.add_damage(it.finding));
        Ok(())
    }

    /// What a failure says of one table.
    ///
    /// # Errors
    /// It says nothing of it: the warehouse or the metastore does not answer.
    async fn of_table(&self, cause: CatalogError) -> Result<String, CatalogError> {
        let is_of_all =
            matches!(cause, CatalogError::WarehouseOutage(_) | CatalogError::Metastore { .. });
        let storage = self.0.catalog.storage();
        storage.look().await?;
        if is_of_all || !storage.answers(PROBE).await {
            return Err(cause);
        }
        Ok(with_causes(&cause))
    }
}

#[cfg(test)]
mod tests;
