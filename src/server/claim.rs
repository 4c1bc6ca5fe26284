//! Whether this server's log is the one that events are taken into, and how an operator makes it.
//!
//! One log is the owner. A log that never had a record becomes it where there is none, and beside a
//! metastore that lies in the same folder: no other server can be running on that one, so the log
//! it had is lost. Everywhere else it takes an operator's word. Its one invariant: a log that takes
//! over is empty, so none of its rows has a `seq` that another log gave.

use crate::{
    config::{Config, MetastoreUrl},
    flush::table_name,
    owner::Ownership,
    server::{StartError, make_data_folder, open_metastore, reserve},
    table::writer::blocking,
    wal::{RecordRef, Wal, folder::LogFolder},
};
use icecore_catalog::{
    error::CatalogError,
    metastore::sql::{
        SqlMetastore,
        owner::{Claim, LogOwner},
    },
};
use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};
use tracing::warn;
use uuid::Uuid;

/// The log folder, taken, and what its log may do.
pub(super) struct Claimed {
    pub(super) folder: LogFolder,
    pub(super) owner: Ownership,
    /// Every `seq` is above it.
    pub(super) seq_after: u64,
}

/// What an operator's take-over did.
#[derive(Debug)]
pub enum TakenOver {
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
    metastore: &SqlMetastore,
) -> Result<Claimed, StartError> {
    let log = folder.log();
    let claim = if folder.is_new() { Claim::New } else { Claim::Known };
    if folder.is_new() {
        // The ids of a log that is gone: some of them may be in no table, and then a repeat of
        // their events is what brings these back.
        remove_ids(config).await?;
    }
    let mut owner =
        reserve::with_room(config, &folder, async || metastore.own_log(log, claim).await).await?;
    if owner.log != log && folder.is_new() && is_alone(config) {
        warn!(
            lost = %owner.log,
            new = %log,
            "the log that this folder's metastore had is not here: a new one takes over; \
             acknowledged events that were in no table are in the lost log alone, and `icecore \
             wal export` reads them from it"
        );
        owner = metastore.own_log(log, Claim::TakeOver).await?;
    }
    let url = config.metastore.clone();
    blocking(move || reserve::keep(&url)).await;
    let ownership = Ownership::new(metastore.clone(), log, &owner);
    Ok(Claimed { folder, owner: ownership, seq_after: owner.seq_after })
}

/// Makes a new log in this server's folder the owner. No server may have the folder open.
///
/// # Errors
/// [`StartError`]; the command may be given again.
pub async fn take_over(config: &Config) -> Result<TakenOver, StartError> {
    make_data_folder(config)?;
    let folder = take(config).await?;
    let metastore = open_metastore(config).await?;
    if metastore.log_owner().await?.is_some_and(|owner| owner.log == folder.log()) {
        return Ok(TakenOver::WasOwner(folder.log()));
    }
    let (folder, aside) = blocking(move || folder.set_aside()).await?;
    // The next start finds a log without records, and reads the ids from the tables.
    let LogOwner { log, .. } = metastore.own_log(folder.log(), Claim::TakeOver).await?;
    Ok(TakenOver::Now { log, aside })
}

/// How far a log is in each table, by namespace and name.
#[derive(Debug)]
pub struct Marks(HashMap<(String, String), u64>);

impl Marks {
    /// Asks the metastore; a log that has no identity is in no table as far as is known.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn of(metastore: &SqlMetastore, log: Option<Uuid>) -> Result<Self, CatalogError> {
        let Some(log) = log else { return Ok(Self(HashMap::new())) };
        let marks = metastore.log_marks(log).await?.into_iter();
        Ok(Self(marks.map(|mark| ((mark.namespace, mark.table), mark.position)).collect()))
    }

    /// Whether a record of the log is rows of a table that does not have them.
    #[must_use]
    pub fn lack(&self, record: &RecordRef) -> bool {
        let Some(table) = table_name(record.kind) else { return false };
        let key = (record.namespace.name().to_owned(), table.to_owned());
        self.0.get(&key).is_none_or(|through| *through < record.position)
    }
}

/// Tells the operator of what a log that is not the owner holds and no table has.
pub(super) async fn tell_of_stranded(
    owner: &Ownership,
    wal: &Wal,
    metastore: &SqlMetastore,
) -> Result<(), CatalogError> {
    let Err(not) = owner.check() else { return Ok(()) };
    let marks = Marks::of(metastore, Some(owner.log())).await?;
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
    Ok(blocking(move || LogFolder::take(&path)).await?)
}

async fn remove_ids(config: &Config) -> Result<(), StartError> {
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
fn is_alone(config: &Config) -> bool {
    let MetastoreUrl::Sqlite(path) = &config.metastore else { return false };
    let real = |path: &Path| fs::canonicalize(path).ok();
    path.parent().is_some_and(|folder| {
        let found = real(folder);
        found.is_some() && found == real(&config.data_dir)
    })
}
