//! Making a backup, while the server runs or not.
//!
//! In this order: the backup is written down in the metastore, which then holds every file that is
//! needed from now on; the log is emptied into the tables by the running server, or copied when
//! none runs; the metastore is copied at one moment; then what that copy names. Everything
//! acknowledged before the first step is in it, and nothing of it is named twice: a restored log
//! is a new one, whose ids are read from the tables.

use super::{
    AT_ONCE, BackupError, BackupManifest, CopiedFile, CopyMode, DATA, FORMAT, HeldObject,
    METASTORE, WAREHOUSE, failed, make_parents,
    place::{self, BackupPlace, PlaceFile},
};
use crate::{
    config::{Config, MetastoreUrl},
    owner::LogOwner,
    server::{SPILL_FOLDER, claim, is_missing, open_metastore, open_storage},
};
use futures::{StreamExt, TryStreamExt, stream};
use icecore_catalog::{
    metastore::{Metastore, moved::TablePlace},
    relocate,
    storage::Storage,
};
use icecore_lake::{
    blocking::blocking,
    wal::{WalError, folder::LogFolder},
};
use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// Begins the name of a folder in the data folder where a backup that goes to a bucket has its copy
/// of the metastore until it is there.
const SCRATCH: &str = "backup-";

/// A backup that was begun.
#[derive(Debug)]
pub struct BackupCreation {
    metastore: Metastore,
    storage: Storage,
    place: BackupPlace,
    /// Where files are made that belong to it.
    scratch: PathBuf,
    data_dir: PathBuf,
    /// An SQLite metastore's own file, which is not copied as it lies there.
    metastore_file: Option<PathBuf>,
    id: String,
    begun_ms: i64,
    is_running: bool,
    /// Of a server that does not run, taken so that none starts.
    _log: Option<LogFolder>,
}

/// How many files of the warehouse a backup would have now, and their bytes.
///
/// # Errors
/// [`BackupError`].
pub async fn plan(config: &Config) -> Result<(usize, u64), BackupError> {
    check_metastore(config)?;
    let metastore = open_metastore(config).await?;
    let storage = open_storage(config, &metastore).await?;
    let needed = needed(&storage, metastore.places().await?).await?;
    metastore.close().await;
    let mut bytes = 0;
    for file in &needed {
        bytes += storage.size(file).await?;
    }
    Ok((needed.len(), bytes))
}

/// Every file that tables need.
async fn needed(
    storage: &Storage,
    places: Vec<TablePlace>,
) -> Result<BTreeSet<String>, BackupError> {
    let mut needed = BTreeSet::new();
    for place in places {
        let files = match relocate::needed(storage, &place).await {
            Err(cause) if relocate::is_lost(&place, &cause) => continue,
            files => files?,
        };
        for file in files {
            needed.insert(storage.normalize(&file)?.to_string());
        }
    }
    Ok(needed)
}

/// Refuses an SQLite metastore that is not there; gives its file.
fn check_metastore(config: &Config) -> Result<Option<PathBuf>, BackupError> {
    match config.metastore.clone() {
        MetastoreUrl::Postgres(_) => Ok(None),
        MetastoreUrl::Sqlite(file) if !is_missing(&file) => Ok(Some(file)),
        MetastoreUrl::Sqlite(file) => Err(BackupError::Invalid(format!(
            "there is no metastore at `{}`: set --data-dir or --metastore",
            file.display()
        ))),
    }
}

/// Refuses a place that cannot have a backup.
///
/// # Errors
/// [`BackupError::Invalid`], and what the place answers with.
pub async fn check_place(config: &Config, place: &BackupPlace) -> Result<(), BackupError> {
    let in_the_way = if place.is_in(&config.warehouse) {
        "is in the warehouse: choose a location outside it"
    } else if !place.is_free().await? {
        "is not empty: choose a new location for each backup"
    } else {
        return Ok(());
    };
    Err(BackupError::Invalid(format!("`{}` {in_the_way}", place.name())))
}

/// Where a backup of this id makes files that are to go to a bucket.
fn scratch(config: &Config, id: &str) -> PathBuf {
    config.data_dir.join(format!("{SCRATCH}{id}"))
}

/// Removes what a backup that was interrupted left in the data folder.
///
/// # Errors
/// [`BackupError::Io`].
pub fn remove_scratch(config: &Config, id: &str) -> Result<(), BackupError> {
    let folder = scratch(config, id);
    match fs::remove_dir_all(&folder) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", &folder)(cause))
        }
        _ => Ok(()),
    }
}

/// Whether the server of this data folder runs, and its log where it does not.
async fn take_log(config: &Config) -> Result<(bool, Option<LogFolder>), BackupError> {
    let wal = config.data_dir.join("wal");
    let taken = blocking(move || wal.is_dir().then(|| LogFolder::take(&wal)).transpose()).await;
    match taken {
        Err(WalError::InUse { .. }) => Ok((true, None)),
        taken => Ok((false, taken?)),
    }
}

/// Whether the server of this data folder runs.
///
/// # Errors
/// [`BackupError`] for a log that cannot be looked at.
pub async fn is_running(config: &Config) -> Result<bool, BackupError> {
    take_log(config).await.map(|(is_running, _)| is_running)
}

/// Refuses the data folder of another server than the one that takes events: what that one
/// acknowledged may be nowhere but in its log.
async fn check_owner(
    config: &Config,
    metastore: &Metastore,
    log: Option<&LogFolder>,
) -> Result<(), BackupError> {
    let Some(owner) = LogOwner::of(metastore).await? else { return Ok(()) };
    if claim::is_alone(config) || log.is_some_and(|log| log.log() == owner.log) {
        return Ok(());
    }
    Err(BackupError::Invalid(format!(
        "events are taken by the server with log {}, and `{}` does not have that log: name the \
         running server with --url, or use the data folder of that server",
        owner.log,
        config.data_dir.display()
    )))
}

impl BackupCreation {
    /// Writes down that a backup begins. When a server runs, which is so when its address is known,
    /// everything that it acknowledged has to be committed before [`BackupCreation::finish`].
    ///
    /// # Errors
    /// [`BackupError`]; nothing is held.
    pub async fn begin(
        config: &Config,
        place: BackupPlace,
        is_told_to_run: bool,
        id: String,
        now_ms: i64,
    ) -> Result<Self, BackupError> {
        let metastore_file = check_metastore(config)?;
        check_place(config, &place).await?;
        let (is_locked, log) = if is_told_to_run { (true, None) } else { take_log(config).await? };
        let is_running = is_told_to_run || is_locked;
        let metastore = open_metastore(config).await?;
        if !is_running {
            check_owner(config, &metastore, log.as_ref()).await?;
        }
        let place = place.make()?;
        let scratch = match &place {
            BackupPlace::Folder(folder) => folder.clone(),
            BackupPlace::Bucket(_) => scratch(config, &id),
        };
        let storage = open_storage(config, &metastore).await?;
        metastore.begin_backup(&id, &place.name(), now_ms).await?;
        Ok(Self {
            metastore,
            storage,
            place,
            scratch,
            data_dir: config.data_dir.clone(),
            metastore_file,
            id,
            begun_ms: now_ms,
            is_running,
            _log: log,
        })
    }

    /// Whether a server takes events meanwhile.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.is_running
    }

    /// Copies everything. Durable on return.
    ///
    /// # Errors
    /// [`BackupError`]; the place has no backup, and `backup forget` lets go of what is held.
    pub async fn finish(
        self,
        files: CopyMode,
        now_ms: impl Fn() -> i64,
    ) -> Result<BackupManifest, BackupError> {
        let mut wanted = Vec::new();
        if !self.is_running() {
            wanted.extend(self.data_files()?);
        }
        let copy = self.scratch.join(METASTORE);
        self.copy_metastore(&copy).await?;
        let needed = self.needed(&copy).await?;
        let mut objects = Vec::new();
        if self.storage.is_local() || files == CopyMode::Copied {
            wanted.extend(needed.iter().map(|location| self.wanted(location, files)));
        } else {
            objects = self.look_at(&needed).await?;
        }
        let add = |(from, path, files)| self.place.add(from, path, files);
        let mut copied: Vec<CopiedFile> =
            stream::iter(wanted).map(add).buffered(AT_ONCE).try_collect().await?;
        copied.push(self.add_metastore(copy).await?);
        let backup = BackupManifest {
            format: FORMAT,
            id: self.id.clone(),
            begun_ms: self.begun_ms,
            ended_ms: now_ms(),
            warehouse: self.storage.root().to_owned(),
            has_log: !self.is_running(),
            files: copied,
            objects,
        };
        if let BackupPlace::Folder(folder) = self.place.clone() {
            let synced = blocking(move || place::sync_folders(&folder)).await;
            synced.map_err(failed("write", &self.scratch))?;
        }
        backup.write(&self.place).await?;
        self.metastore.end_backup(&backup.row(&self.place.name())).await?;
        Ok(backup)
    }

    async fn copy_metastore(&self, copy: &Path) -> Result<(), BackupError> {
        let folder = copy.parent().unwrap_or(copy);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(failed("make", folder))?;
        self.metastore.copy_to(copy).await?;
        fs::File::open(copy).and_then(|file| file.sync_all()).map_err(failed("write", copy))
    }

    /// The copy of the metastore is in its place already where that is a folder.
    async fn add_metastore(&self, copy: PathBuf) -> Result<CopiedFile, BackupError> {
        let path = METASTORE.to_owned();
        if let BackupPlace::Folder(_) = self.place {
            let (bytes, xxh3) = place::copy(&PlaceFile::Disk(copy), None).await?;
            return Ok(CopiedFile { path, bytes, xxh3 });
        }
        let added = self.place.add(PlaceFile::Disk(copy), path, CopyMode::Copied).await?;
        fs::remove_dir_all(&self.scratch).map_err(failed("remove", &self.scratch))?;
        Ok(added)
    }

    /// Every file that the copied metastore's tables need. The copy is opened as another file:
    /// opening one changes it.
    async fn needed(&self, copy: &Path) -> Result<BTreeSet<String>, BackupError> {
        let opened = self.scratch.join("reading.db");
        make_parents(&opened).map_err(failed("make", &opened))?;
        fs::copy(copy, &opened).map_err(failed("write", &opened))?;
        let metastore = Metastore::sqlite(&opened).await?;
        let places = metastore.places().await?;
        metastore.close().await;
        super::remove_database(&opened)?;
        needed(&self.storage, places).await
    }

    /// A file of the warehouse: where it is, and where it goes.
    fn wanted(&self, location: &str, files: CopyMode) -> (PlaceFile, String, CopyMode) {
        let below = location.strip_prefix(self.storage.root()).unwrap_or(location);
        let path = format!("{WAREHOUSE}/{}", below.trim_start_matches('/'));
        (PlaceFile::of(&self.storage, location), path, files)
    }

    /// The objects that stay where they are.
    async fn look_at(&self, needed: &BTreeSet<String>) -> Result<Vec<HeldObject>, BackupError> {
        let look = |location: String| async {
            let found = place::look(&self.storage, &location).await?;
            Ok(HeldObject { location, bytes: found.size, etag: found.e_tag })
        };
        stream::iter(needed.clone()).map(look).buffered(AT_ONCE).try_collect().await
    }

    /// Log, index of ids, and whatever else a stopped server has in its data folder. The log's
    /// files are written to again: never links.
    fn data_files(&self) -> Result<Vec<(PlaceFile, String, CopyMode)>, BackupError> {
        let warehouse = self.storage.root().strip_prefix("file://").map(PathBuf::from);
        let metastore = self.metastore_file.as_ref().map(|file| file.with_extension(""));
        let is_elsewhere = |path: &Path| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            Some(path) == warehouse.as_deref()
                || matches!(&self.place, BackupPlace::Folder(folder) if path == folder)
                || metastore.as_deref() == Some(&path.with_extension(""))
                || path == self.data_dir.join(SPILL_FOLDER)
                || name.is_some_and(|name| name == "lock" || name.starts_with(SCRATCH))
        };
        let mut found = Vec::new();
        let mut folders = vec![self.data_dir.clone()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                // Of a server whose metastore and warehouse are elsewhere, and that never ran here.
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
                read => read.map_err(failed("read", &folder))?,
            };
            for entry in entries {
                let path = entry.map_err(failed("read", &folder))?.path();
                if is_elsewhere(&path) {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let below = path.strip_prefix(&self.data_dir).unwrap_or(&path);
                let name = format!("{DATA}/{}", below.display());
                found.push((PlaceFile::Disk(path), name, CopyMode::Copied));
            }
        }
        Ok(found)
    }
}
