//! Start and stop: every part of the server, wired in the order in which data flows.

pub mod accept;
pub mod backup;
pub mod claim;
mod erase;
mod jobs;
mod lost_ids;
mod metadata_watch;
pub mod moved;
pub mod repair;
mod reserve;
pub mod stopped;
pub mod stores;

use crate::{
    config::{Config, MetastoreUrl, access::AccessConfig, sql::SqlConfig},
    flush::{Flush, FlushOptions},
    http::{self, AppParts, AppState},
    ingest::Ingest,
    maintenance::{
        JobRegistry,
        compaction::no_room,
        erasure::EraseError,
        names,
        upkeep::{self, AccessUpkeep},
    },
    owner::LogOwnership,
    sql::{Sql, SqlOptions, slots::SlotsMax, workers::WorkerOptions},
    store::{self, StoreError},
    tasks::Tasks,
    warehouse::ProbeWarehouse,
};
use icecore_catalog::{
    access::AccessControl,
    body::{BodyMemory, MinBodyRate},
    catalog::Catalog,
    error::CatalogError,
    metastore::Metastore,
    relocate,
    storage::{Storage, access::FileAccess as StorageAccess},
};
use icecore_lake::{
    clock::Clock,
    event::EventLimits,
    ids::IdGenerator,
    metrics::Metrics,
    table::{evolve, properties, reader::ReadError},
    wal::{Wal, WalError},
};
use std::{
    fs::DirBuilder,
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::net::TcpSocket;
use tracing::{info, warn};

/// How long a stop waits for running requests.
const STOP_PATIENCE: Duration = Duration::from_secs(8);
/// How long a stop waits for the last records of access control: a metastore that does not answer
/// now keeps nobody from stopping.
const FINISH_PATIENCE: Duration = Duration::from_secs(1);
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// What queries put on disk, below the data folder.
const SPILL_FOLDER: &str = "spill";

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be made.
    #[error("create data folder `{}`; choose another with --data-dir", path.display())]
    DataFolder {
        /// The folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The address is taken or not allowed.
    #[error("listen on {address}; choose another with --listen HOST:PORT")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The warehouse or metastore does not open.
    #[error("open the catalog")]
    Catalog(#[from] CatalogError),
    /// The tables lie elsewhere.
    #[error("{0}")]
    Moved(Box<icecore_catalog::relocate::MovedWarehouse>),
    /// The store of the warehouse refuses this server.
    #[error("the warehouse cannot be used: {reason}; see the settings warehouse and s3.*")]
    Warehouse {
        /// What it refuses.
        reason: String,
    },
    /// The data folder is not whole.
    #[error("{0}")]
    Unfinished(String),
    /// The log folder does not say which log it has.
    #[error(
        "`{}` is damaged and does not say which log this is: restore this file{}",
        path.display(),
        log.map_or_else(String::new, |log| format!(", or write this line into it: {log}"))
    )]
    Identity {
        /// The file.
        path: PathBuf,
        /// Which log was there when it was noted last.
        log: Option<uuid::Uuid>,
    },
    /// The log or the id index does not open.
    #[error("open the log")]
    Wal(#[from] WalError),
    /// The last runs of the jobs cannot be read.
    #[error("open the service's store")]
    Store(#[from] StoreError),
    /// The ledger of erasures does not read.
    #[error("read the ledger of erasures")]
    Erasures(#[source] Box<EraseError>),
    /// The id index is lost, and the tables do not read.
    #[error("rebuild the id index")]
    Ids(#[from] ReadError),
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    tasks: Tasks,
    jobs: JobRegistry,
    ingest: Ingest,
    access: AccessControl,
    metastore: Metastore,
    /// Whose names are listed.
    named: Option<Catalog>,
}

impl Server {
    /// Opens everything, recovers the log, and listens; requests are answered from then on.
    ///
    /// # Errors
    /// [`StartError`] says what is in the way.
    pub async fn start(config: &Config, clock: Clock) -> Result<Self, StartError> {
        // First, so that a start on a taken port leaves nothing behind; nobody is let in yet.
        let in_the_way = |source| StartError::Listen { address: config.listen, source };
        let socket = bind(config.listen).map_err(in_the_way)?;
        make_data_folder(config)?;
        let whole = backup::restore::check_finished(&config.data_dir);
        whole.map_err(|cause| StartError::Unfinished(cause.to_string()))?;
        let ids = IdGenerator::new(clock.clone());
        let tasks = Tasks::default();
        let metrics = Metrics::default();
        let beside = tasks.on(config.job_threads.clone());
        let jobs = JobRegistry::new(beside.clone(), clock.clone(), metrics.clone());
        let folder = claim::take(config).await?;
        clear_spill(config);
        let metastore =
            reserve::with_room(config, &folder, async || open_metastore(config).await).await?;
        let access = open_access(config, &metastore, &clock);
        let catalog = open_catalog(config, metastore.clone(), &clock).await?;
        // Before anything is changed: a folder that was copied by mistake stays as it is.
        stores::check_places(config, &catalog).await?;
        probe_warehouse(&jobs, &catalog, &ids).await?;
        let claimed = claim::claim(config, folder, &catalog).await?;
        let owner = claimed.owner.clone();
        let (wal, ingest) =
            lost_ids::start_ingest(config, &clock, &ids, &metrics, &catalog, claimed).await?;
        claim::tell_of_stranded(&owner, &wal, &metastore).await?;

        let of_log = (&owner, &wal);
        let flush = start_flush(config, &jobs, &metrics, of_log, &catalog, (&clock, &ids));
        jobs.record_by(&access);
        let upkeep = AccessUpkeep::new(access.clone(), config.audit_retention);
        let named = jobs::is_trusted(&owner).then(|| catalog.clone());
        let tables = jobs::of_tables(config, &catalog, (&clock, &ids), &beside, metrics.load());
        let (of_log, of_tables) = ((&owner, &wal, &ingest), (&catalog, &tables));
        let has_table_jobs = jobs::start(&jobs, config, upkeep, of_log, of_tables).await?;
        let erasing = (&catalog, &tables.pace);
        let erasures = erase::start(&jobs, config, erasing, (&ids, &clock, &owner, &wal)).await?;

        let sql = open_sql(config, &metrics, (&wal, &owner), &catalog).await;
        let asking = has_table_jobs.then_some((&catalog, &sql, (&wal, &ingest), &flush, &tables));
        jobs::start_refreshes((&jobs, config), &owner, asking, (&erasures, &ids, &clock));
        let listener = socket.listen(BACKLOG).map_err(in_the_way)?;
        let address = listener.local_addr().map_err(in_the_way)?;
        let parts = AppParts {
            owner,
            ingest: ingest.clone(),
            flush,
            sql,
            wal,
            catalog,
            access: access.clone(),
            clock,
            ids,
            webhook_secrets: config.webhook_secrets.clone(),
            limits: limits(config),
            body_bytes_max: config.body_bytes_max,
            room: BodyMemory::new(config.queue_bytes_max, MinBodyRate::SLOWEST),
            metrics,
            jobs: jobs.clone(),
            tables,
            erasures,
            build: config.build,
        };
        let router = http::router(AppState::new(parts));
        http::serve::serve(&tasks, listener, router, config.http_connections_max);
        tell_of_start(config, address, &metastore).await;
        Ok(Self { address, tasks, jobs, ingest, access, metastore, named })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests, finishes those that run, seals the log.
    pub async fn stop(self) {
        self.tasks.stop(STOP_PATIENCE).await;
        self.ingest.stop().await;
        // The runs since the last time, which no later one needs.
        drop(tokio::time::timeout(FINISH_PATIENCE, self.jobs.keep_runs()).await);
        let finished = tokio::time::timeout(FINISH_PATIENCE, upkeep::finish(&self.access)).await;
        if finished.is_err() {
            warn!("the metastore does not answer: pending audit records are lost");
        }
        if let Some(catalog) = &self.named {
            // The job lists the rest after the next start.
            drop(tokio::time::timeout(FINISH_PATIENCE, names::finish(catalog)).await);
        }
        if tokio::time::timeout(FINISH_PATIENCE, self.metastore.close()).await.is_err() {
            warn!("the metastore is still in use, and is not closed");
        }
        info!("stopped");
    }
}

fn start_flush(
    config: &Config,
    jobs: &JobRegistry,
    metrics: &Metrics,
    (owner, wal): (&LogOwnership, &Wal),
    catalog: &Catalog,
    (clock, ids): (&Clock, &IdGenerator),
) -> Flush {
    let options = flush_options(config, owner, metrics);
    let (clock, ids, faults) = (clock.clone(), ids.clone(), config.faults.clone());
    let (flush, job, wake) = Flush::new(options, wal.clone(), catalog, clock, ids, faults);
    jobs.start_woken(job, config.commit_interval / 4, wake);
    flush
}

fn flush_options(config: &Config, owner: &LogOwnership, metrics: &Metrics) -> FlushOptions {
    FlushOptions {
        interval: config.commit_interval,
        interval_max: config.commit_interval_max,
        bytes_max: config.commit_bytes_max,
        owner: owner.clone(),
        metrics: metrics.clone(),
        tables: config.tables.clone(),
        lost: jobs::lost_numbers(config).into_iter().map(|lost| (lost.table, lost.range)).collect(),
    }
}

/// Takes the address without letting anybody in.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As every server has it: connections of an earlier life do not keep the address.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Starts the job that asks a warehouse which does not answer, and looks whether it is there.
async fn probe_warehouse(
    jobs: &JobRegistry,
    catalog: &Catalog,
    ids: &IdGenerator,
) -> Result<(), StartError> {
    let name = format!(".icecore-probe-{}", ids.mint());
    let probe = ProbeWarehouse::start(catalog.clone(), name)
        .await
        .map_err(|failure| StartError::Warehouse { reason: failure.reason })?;
    jobs.start(probe);
    Ok(())
}

/// Why no small files are merged in a warehouse whose disk has so many bytes free, of all; none
/// where it has room.
#[must_use]
pub fn lacks_room_to_merge(config: &Config, free: u64, all: u64) -> Option<String> {
    no_room(free, all, config.wal_disk_free_min)
}

/// What an operator looks for first.
async fn tell_of_start(config: &Config, address: SocketAddr, metastore: &Metastore) {
    let auth = match &config.access {
        AccessConfig::Off => "off",
        AccessConfig::On(_) => "on",
    };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        build = config.build,
        data_dir = %config.data_dir.display(),
        warehouse = config.warehouse,
        metastore = %config.metastore,
        auth,
        catalog = format!("http://{address}/catalog"),
        "started"
    );
    info!("listening on http://{address}");
    // Whether there are any is not known while the metastore does not answer.
    if matches!(config.access, AccessConfig::Off)
        && metastore.tokens().await.is_ok_and(|tokens| !tokens.is_empty())
    {
        warn!("there are tokens, and auth is off: everybody may do everything; set auth = on");
    }
}

/// Makes the data folder when it is missing, for its owner alone: it has every event. One that is
/// there keeps the rights that its owner gave it.
///
/// # Errors
/// [`StartError::DataFolder`].
pub fn make_data_folder(config: &Config) -> Result<(), StartError> {
    let path = &config.data_dir;
    if path.is_file() {
        let source = io::Error::new(io::ErrorKind::NotADirectory, "it is a file");
        return Err(StartError::DataFolder { path: path.clone(), source });
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| StartError::DataFolder { path: path.clone(), source })
}

/// Whether nothing is there. What this user may not look at is there: to open it says why it fails.
#[must_use]
pub fn is_missing(path: &Path) -> bool {
    match path.try_exists() {
        Ok(exists) => !exists,
        Err(cause) => cause.kind() == io::ErrorKind::NotADirectory,
    }
}

/// The catalog's database, which several processes may have open.
///
/// # Errors
/// [`CatalogError::Metastore`], [`CatalogError::Invalid`].
pub async fn open_metastore(config: &Config) -> Result<Metastore, CatalogError> {
    let metastore = match &config.metastore {
        MetastoreUrl::Sqlite(path) => Metastore::sqlite(path).await,
        MetastoreUrl::Postgres(url) => Metastore::postgres(url).await,
    }?;
    store::make_tables(metastore.database()).await?;
    Ok(metastore)
}

/// The warehouse, under the name that its tables have for it. A folder with two names, such as by a
/// symbolic link, is one warehouse.
async fn open_storage(config: &Config, metastore: &Metastore) -> Result<Storage, CatalogError> {
    let storage = Storage::open(&config.warehouse, &config.s3)?;
    match relocate::moved(metastore, &storage).await? {
        Some(moved) if moved.is_one_folder() => {
            info!("the warehouse `{}` is `{}`, as its tables call it", moved.to, moved.from);
            Storage::open(moved.from.as_str(), &config.s3)
        }
        _ => Ok(storage),
    }
}

async fn open_catalog(
    config: &Config,
    metastore: Metastore,
    clock: &Clock,
) -> Result<Catalog, CatalogError> {
    let storage = open_storage(config, &metastore).await?;
    if *storage.access() == StorageAccess::StaticKeys && config.s3.access_key_id.is_some() {
        warn!(
            "catalog clients get the configured S3 keys with all their rights; storage.role_arn or \
             storage.access = remote-signing grants less"
        );
    }
    let clock = clock.clone();
    let now = Arc::new(move || clock.now_ms());
    let name = &config.catalog_name;
    let mut options = config.catalog_options.clone();
    options.reserved.tables = evolve::own_tables(&config.tables);
    options.reserved.property_fault = Some(properties::fault);
    let catalog = Catalog::with_options(name, storage, metastore, now, options);
    Ok(catalog.with_namespace_separator(&config.namespace_separator))
}

fn open_access(config: &Config, metastore: &Metastore, clock: &Clock) -> AccessControl {
    let (clock, store) = (clock.clone(), metastore.clone());
    let now = Arc::new(move || clock.now_ms());
    match &config.access {
        AccessConfig::Off => AccessControl::recorded(store, now),
        AccessConfig::On(oidc) => AccessControl::on(store, now, oidc.as_deref().cloned()),
    }
}

fn limits(config: &Config) -> EventLimits {
    let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX / 2);
    EventLimits {
        event_bytes_max: config.event_bytes_max,
        batch_events_max: config.batch_events_max,
        depth_max: 64,
        ts_past_us: Some(micros(config.ts_past)),
        ts_future_us: micros(config.ts_future),
        redact: config.redact,
        columns: config.tables.events().columns,
        takes_merge_ids: false,
    }
}

/// Queries, with a process for them before anybody is let in. Without one, each query says so.
async fn open_sql(
    config: &Config,
    metrics: &Metrics,
    (wal, owner): (&Wal, &LogOwnership),
    catalog: &Catalog,
) -> Sql {
    let (options, faults) = (sql_options(config, metrics), config.faults.clone());
    let sql = Sql::new(options, wal.clone(), owner.clone(), catalog.clone(), faults);
    if let Err(cause) = sql.warm().await {
        warn!("queries do not run for now: {cause}; see the setting sql.workers");
    }
    sql
}

/// Takes away what queries of an earlier life left on disk: nobody reads it.
fn clear_spill(config: &Config) {
    let folder = config.data_dir.join(SPILL_FOLDER);
    match std::fs::remove_dir_all(&folder) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            let folder = folder.display();
            warn!(error = &cause as &dyn std::error::Error, %folder, "an old folder stays");
        }
        _ => (),
    }
}

fn sql_options(config: &Config, metrics: &Metrics) -> SqlOptions {
    let SqlConfig { memory_bytes_max, timeout_max, rows_max, spill_bytes_max, .. } = config.sql;
    let program = config.worker_program.clone().filter(|_| config.sql.has_workers);
    let workers = program.map(|program| WorkerOptions {
        program,
        memory_bytes_max,
        spill: (0 < spill_bytes_max).then(|| config.data_dir.join(SPILL_FOLDER)),
        spill_bytes_max,
        disk_free_min: config.wal_disk_free_min,
        tables: config.tables.clone(),
        idle_max: config.sql.concurrent_max,
        has_foreign_files: !config.catalog_options.checks_contents,
    });
    let concurrent = SlotsMax {
        all: config.sql.concurrent_max,
        namespace: config.sql.concurrent_per_namespace,
        token: config.sql.concurrent_per_token,
    };
    let metrics = metrics.clone();
    let tables = config.tables.clone();
    SqlOptions {
        memory_bytes_max,
        timeout_max,
        rows_max,
        concurrent,
        metrics,
        tables,
        filters_visibility: config.sql.filters_visibility,
        workers,
    }
}
