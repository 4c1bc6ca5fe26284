//! The stores of a server that does not run: what its start would find, looked at and left as it is.

use crate::{
    config::{Config, MetastoreUrl},
    owner::{LogOwner, LogOwnership},
    server::{
        StartError, backup,
        claim::{self, is_alone, marks_path},
        metadata_watch, open_catalog, open_metastore,
        stores::{self, CatalogState, MetastoreTrouble, StoreComparison, StoreFindings},
    },
};
use icecore_catalog::{catalog::Catalog, location::Location, metastore::Metastore, relocate};
use icecore_lake::{
    blocking::blocking,
    clock::Clock,
    ids::IdGenerator,
    wal::{RecordRef, inspect, marks::NotedMarks},
};
use std::path::Path;
use uuid::Uuid;

/// The stores, held against one another.
pub(super) struct StoppedStores {
    pub(super) noted: NotedMarks,
    pub(super) owner: Option<LogOwner>,
    pub(super) known: CatalogState,
    pub(super) findings: StoreFindings,
}

impl StoppedStores {
    /// Compares them with a log and its records.
    pub(super) async fn compare(
        config: &Config,
        log: Uuid,
        records: &[RecordRef],
        metastore: &Metastore,
        catalog: Option<&Catalog>,
    ) -> Result<Self, StartError> {
        let noted = NotedMarks::read(&marks_path(config))?;
        let owner = LogOwner::of(metastore).await?;
        let seq_after = owner.as_ref().map_or(0, |owner| owner.seq_after);
        let logs = [log, noted.log];
        let known = CatalogState::of_server(metastore, owner.as_ref(), logs).await?;
        let ledger = stores::ledger(config, &noted)?;
        let stores =
            StoreComparison { noted: &noted, known: &known, log, records, seq_after, ledger };
        let mut findings = stores.compare();
        if known.is_new
            && noted.metastore.is_none()
            && let Some(catalog) = catalog
            && !stores::newer_files(catalog).await.is_empty()
        {
            findings.metastore = Some(MetastoreTrouble::Empty);
        }
        Ok(Self { noted, owner, known, findings })
    }
}

/// The catalog, but for one whose local warehouse is not there, which a start would make.
pub(super) async fn existing_catalog(
    config: &Config,
    metastore: &Metastore,
    clock: &Clock,
) -> Result<Option<Catalog>, StartError> {
    if lacks_warehouse(config) {
        return Ok(None);
    }
    Ok(Some(open_catalog(config, metastore.clone(), clock).await?))
}

/// Whether the warehouse is a local folder that is not there.
pub(super) fn lacks_warehouse(config: &Config) -> bool {
    let folder = config.warehouse.strip_prefix("file://");
    folder.is_some_and(|folder| !Path::new(folder).is_dir())
}

/// What would keep a server with these settings from starting, or from being ready, as it would say
/// it. Nothing is changed, and no server may have the log open.
///
/// # Errors
/// [`StartError`] is what the start would end with.
pub async fn obstacles(config: &Config, clock: &Clock) -> Result<Vec<String>, StartError> {
    let unfinished = backup::restore::check_finished(&config.data_dir);
    unfinished.map_err(|cause| StartError::Unfinished(cause.to_string()))?;
    let wal = config.data_dir.join("wal");
    let held = blocking(move || wal.is_dir().then(|| inspect::records(&wal)).transpose()).await;
    let held = held.map_err(|cause| claim::explain(config, cause))?;
    let MetastoreUrl::Sqlite(file) = &config.metastore else {
        return of_stores(config, clock, held.as_ref(), &open_metastore(config).await?).await;
    };
    if file.is_file() {
        return of_stores(config, clock, held.as_ref(), &open_metastore(config).await?).await;
    }
    // What a start would find in the one that it makes.
    let folder =
        std::env::temp_dir().join(format!("icecore-{}", IdGenerator::new(clock.clone()).mint()));
    let failed = |source| StartError::DataFolder { path: folder.clone(), source };
    std::fs::create_dir(&folder).map_err(failed)?;
    let found = async {
        let metastore = Metastore::sqlite(&folder.join("icecore.db")).await?;
        of_stores(config, clock, held.as_ref(), &metastore).await
    };
    let found = found.await;
    std::fs::remove_dir_all(&folder).map_err(failed)?;
    found
}

async fn of_stores(
    config: &Config,
    clock: &Clock,
    held: Option<&inspect::OfflineRecords>,
    metastore: &Metastore,
) -> Result<Vec<String>, StartError> {
    let catalog = existing_catalog(config, metastore, clock).await?;
    match &catalog {
        Some(catalog) => stores::check_places(config, catalog).await?,
        None => check_places_without(config, metastore).await?,
    }
    let catalog = catalog.as_ref();
    // A folder without a log gets a new one.
    let log = held.and_then(|held| held.log).unwrap_or_else(Uuid::new_v4);
    let records = held.map_or(&[][..], |held| &held.records);
    let stores = StoppedStores::compare(config, log, records, metastore, catalog).await?;
    let mut obstacles = Vec::new();
    match stores.owner.filter(|owner| owner.log != log && !is_alone(config)) {
        Some(owner) => {
            let ownership = LogOwnership::new(metastore.clone(), log, &owner);
            obstacles.extend(ownership.check_owner().err().map(|not| not.to_string()));
        }
        None if !stores.findings.is_empty() => {
            obstacles.push(stores.findings.describe(config, catalog).await);
        }
        None => (),
    }
    obstacles.extend(metadata_watch::lacking(metastore, catalog).await?);
    metastore.clone().close().await;
    Ok(obstacles)
}

/// As [`stores::check_places`], where the warehouse's folder is not there.
async fn check_places_without(config: &Config, metastore: &Metastore) -> Result<(), StartError> {
    let Some(to) = Location::parse(&config.warehouse) else { return Ok(()) };
    match relocate::elsewhere(metastore.places().await?, to) {
        Some(moved) => Err(StartError::Moved(Box::new(moved))),
        None => Ok(()),
    }
}
