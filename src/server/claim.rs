//! Whether this server's log is the one that events are taken into, and how an operator makes it.
//!
//! One log is the owner. A log that never had a record becomes it where there is none, and beside a
//! metastore that lies in the same folder: no other server can be running on that one, so the log
//! it had is lost; where rows that were acknowledged are lost with it, that takes an operator's word
//! first. Everywhere else it always does. Its one invariant: a log that takes over is empty, so none
//! of its rows has a `seq` that another log gave.

use crate::{
    config::{Config, MetastoreUrl},
    owner::{LogOwner, LogOwnership, OwnerClaim},
    server::{
        StartError, accept, make_data_folder, open_metastore, reserve,
        stores::{self, CatalogState, StoreComparison, StoreFindings},
    },
};
use icecore_catalog::{catalog::Catalog, error::CatalogError, metastore::Metastore};
use icecore_lake::{
    blocking::blocking,
    wal::{RecordRef, Wal, WalError, folder::LogFolder, marks::NotedMarks},
};
use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};
use tracing::warn;
use uuid::Uuid;

/// The log folder, taken, and what its log may do.
pub(super) struct ClaimedLog {
    pub(super) folder: LogFolder,
    pub(super) owner: LogOwnership,
    /// Every `seq` is above it.
    pub(super) seq_after: u64,
    /// How far log and tables were when that was noted last.
    pub(super) noted: NotedMarks,
    /// The logs whose ids the id index may have, this one first.
    pub(super) logs: Vec<Uuid>,
}

/// What an operator's take-over did.
#[derive(Debug)]
pub enum LogTakeover {
    /// Nothing: this log is the owner already.
    WasOwner(Uuid),
    /// A new log is the owner.
    Now {
        /// Which one.
        log: Uuid,
        /// Where the log is that this server had before, if it holds anything.
        aside: Option<PathBuf>,
    },
}

/// Begins a life of the log in this server's folder.
///
/// # Errors
/// [`StartError`]
pub(super) async fn claim(
    config: &Config,
    folder: LogFolder,
    catalog: &Catalog,
) -> Result<ClaimedLog, StartError> {
    let metastore = catalog.metastore();
    let ClaimFindings { mut noted, before, findings, is_lost } =
        look(config, &folder, metastore).await?;
    let (log, is_new) = (folder.log(), folder.is_new());
    let is_right = findings.is_empty();
    let claim = match before {
        Some(_) if is_lost && is_right => OwnerClaim::TakeOver,
        _ if is_new => OwnerClaim::New,
        _ => OwnerClaim::Known,
    };
    let owner = if before.is_none() && !is_right {
        // Nobody owns anything in a metastore that should not be there.
        LogOwner { log, since: 0, epoch: 0, seq_after: 0 }
    } else {
        reserve::with_room(config, &folder, async || LogOwner::claim(metastore, log, claim).await)
            .await?
    };
    if let (OwnerClaim::TakeOver, Some(lost)) = (claim, before) {
        warn!(
            lost = %lost.log,
            new = %log,
            "the log of this folder's metastore is missing: a new one takes over, because every \
             row known to be acknowledged is in a table"
        );
    }
    let logs = [Some(log), before.map(|before| before.log), Some(noted.log)];
    let logs: Vec<Uuid> = logs.into_iter().flatten().filter(|log| !log.is_nil()).collect();
    let is_whole = noted.log == log || before.is_some_and(|before| before.log == noted.log);
    if is_new && owner.log == log && is_right && !(is_whole && is_lost) {
        // The ids of another log: some of them may be in no table, and then a repeat of their
        // events is what brings these back.
        remove_ids(config).await?;
    }
    if owner.log == log && is_right && noted.log != log && !noted.log.is_nil() {
        // What was noted of the other log's rows is over.
        noted = NotedMarks { log, tables: HashMap::new(), ..noted };
    }
    let url = config.metastore.clone();
    blocking(move || reserve::keep(&url)).await;
    let ownership = LogOwnership::new(metastore.clone(), log, &owner);
    let losses = accept::losses(&config.data_dir);
    ownership.note_losses(
        losses
            .map_err(|source| StartError::DataFolder { path: config.data_dir.clone(), source })?,
    );
    if !is_right {
        ownership.refuse(stores::TOPIC, findings.describe(config, Some(catalog)).await);
    }
    let seq_after = owner.seq_after;
    Ok(ClaimedLog { folder, owner: ownership, seq_after, noted, logs })
}

/// What is known before a log begins a life.
pub(super) struct ClaimFindings {
    pub(super) noted: NotedMarks,
    /// The owner so far.
    pub(super) before: Option<LogOwner>,
    /// In what the stores disagree, where the log is not the owner that it would be.
    pub(super) findings: StoreFindings,
    /// The log has no record, and followed none on purpose.
    pub(super) is_lost: bool,
}

/// Looks at what was noted, and compares where another log should be here.
pub(super) async fn look(
    config: &Config,
    folder: &LogFolder,
    metastore: &Metastore,
) -> Result<ClaimFindings, StartError> {
    let log = folder.log();
    let noted = NotedMarks::read(&marks_path(config))?;
    let before = LogOwner::of(metastore).await?;
    let is_other = match &before {
        None => noted.log != log && !noted.log.is_nil(),
        Some(before) => before.log != log && is_alone(config),
    };
    if !is_other {
        return Ok(ClaimFindings {
            noted,
            before,
            findings: StoreFindings::default(),
            is_lost: false,
        });
    }
    let records = if folder.is_new() { Vec::new() } else { folder.records()? };
    let seq_after = before.map_or(0, |before| before.seq_after);
    let known = CatalogState::of_server(metastore, before.as_ref(), [log, noted.log]).await?;
    let ledger = stores::ledger(config, &noted)?;
    let stores =
        StoreComparison { noted: &noted, known: &known, log, records: &records, seq_after, ledger };
    let findings = stores.compare();
    let is_lost = records.is_empty() && noted.log != log;
    Ok(ClaimFindings { noted, before, findings, is_lost })
}

/// Where it is noted how far log and tables are.
pub(super) fn marks_path(config: &Config) -> PathBuf {
    config.data_dir.join("marks")
}

/// Makes a new log in this server's folder the owner. No server may have the folder open.
///
/// # Errors
/// [`StartError`]; the command may be given again.
pub async fn take_over(config: &Config) -> Result<LogTakeover, StartError> {
    make_data_folder(config)?;
    let folder = take(config).await?;
    let metastore = open_metastore(config).await?;
    if LogOwner::of(&metastore).await?.is_some_and(|owner| owner.log == folder.log()) {
        return Ok(LogTakeover::WasOwner(folder.log()));
    }
    let (folder, aside) = blocking(move || folder.set_aside()).await?;
    // The next start finds a log without records, and reads the ids from the tables.
    let LogOwner { log, .. } =
        LogOwner::claim(&metastore, folder.log(), OwnerClaim::TakeOver).await?;
    Ok(LogTakeover::Now { log, aside })
}

/// How far a log is in each table, by namespace and name.
#[derive(Debug)]
pub struct TablePositions(HashMap<(String, String), u64>);

impl TablePositions {
    /// Asks the metastore; a log that has no identity is in no table as far as is known.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn of(metastore: &Metastore, log: Option<Uuid>) -> Result<Self, CatalogError> {
        let Some(log) = log else { return Ok(Self(HashMap::new())) };
        let marks = metastore.marks_of(log).await?.into_iter();
        Ok(Self(marks.map(|mark| ((mark.namespace, mark.table), mark.position)).collect()))
    }

    /// Whether a record of the log is rows of a table that does not have them.
    #[must_use]
    pub fn lack(&self, record: &RecordRef) -> bool {
        let Some(table) = record.kind.table_name() else { return false };
        let key = (record.namespace.name().to_owned(), table.to_owned());
        self.0.get(&key).is_none_or(|through| *through < record.position)
    }
}

/// Tells the operator of what a log that is not the owner holds and no table has.
pub(super) async fn tell_of_stranded(
    owner: &LogOwnership,
    wal: &Wal,
    metastore: &Metastore,
) -> Result<(), CatalogError> {
    let Err(not) = owner.check_owner() else { return Ok(()) };
    let marks = TablePositions::of(metastore, Some(owner.log())).await?;
    let mut records = wal.all_records(0);
    records.retain(|record| marks.lack(record));
    let rows: u64 = records.iter().map(|record| u64::from(record.rows)).sum();
    if rows == 0 {
        warn!("this server takes no events: {not}");
    } else {
        warn!(
            rows,
            "this server takes no events, and rows of its log are in no table: stop it, and send \
             them to the owner with `icecore wal export`: {not}"
        );
    }
    Ok(())
}

/// Takes the log folder for this process.
///
/// # Errors
/// [`StartError::Wal`]
pub(super) async fn take(config: &Config) -> Result<LogFolder, StartError> {
    let path = config.data_dir.join("wal");
    blocking(move || LogFolder::take(&path)).await.map_err(|cause| explain(config, cause))
}

/// An error of the log folder; where it does not say which log it has, what was noted may.
pub(super) fn explain(config: &Config, cause: WalError) -> StartError {
    let WalError::Identity { path } = cause else { return cause.into() };
    let noted = NotedMarks::read(&marks_path(config)).map_or(Uuid::nil(), |noted| noted.log);
    StartError::Identity { path, log: Some(noted).filter(|log| !log.is_nil()) }
}

/// Removes the id index: the next start reads the ids from tables and log.
///
/// # Errors
/// [`StartError::DataFolder`]
pub(super) async fn remove_ids(config: &Config) -> Result<(), StartError> {
    let path = config.data_dir.join("ids");
    let removed = {
        let path = path.clone();
        blocking(move || fs::remove_dir_all(&path)).await
    };
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(StartError::DataFolder { path, source })
        }
        _ => Ok(()),
    }
}

/// Whether the metastore is a file beside the log: who has the one locked has the other for itself.
pub(super) fn is_alone(config: &Config) -> bool {
    let MetastoreUrl::Sqlite(path) = &config.metastore else { return false };
    let real = |path: &Path| fs::canonicalize(path).ok();
    path.parent().is_some_and(|folder| {
        let found = real(folder);
        found.is_some() && found == real(&config.data_dir)
    })
}
