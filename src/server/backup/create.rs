//! Making a backup, while the server runs or not.
//!
//! In this order: the backup is written down in the metastore, which then holds every file that is
//! needed from now on; the log is emptied into the tables by the running server, or copied when
//! none runs; the metastore is copied at one moment; then what that copy names. Everything
//! acknowledged before the first step is in it, and nothing of it is named twice: a restored log
//! is a new one, whose ids are read from the tables.

use super::{
    Backup, BackupError, CopiedFile, DATA, FORMAT, HeldObject, METASTORE, WAREHOUSE, checksum,
    failed, is_free, make_parents,
};
use crate::{
    config::{Config, MetastoreUrl},
    server::open_metastore,
    table::writer::blocking,
    wal::{WalError, folder::LogFolder},
};
use icecore_catalog::{
    metastore::sql::{SqlMetastore, moved::Place},
    relocate,
    storage::Storage,
};
use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// Whether data files may be links to those of the warehouse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// Links where the file system can, which take no room and no time.
    Linked,
    /// Copies, which outlive damage of the originals.
    Copied,
}

/// A backup that was begun.
#[derive(Debug)]
pub struct Creation {
    metastore: SqlMetastore,
    storage: Storage,
    folder: PathBuf,
    data_dir: PathBuf,
    /// The metastore's own file, which is not copied as it lies there.
    metastore_file: PathBuf,
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
    metastore_file(config)?;
    let storage = Storage::open(&config.warehouse, &config.s3)?;
    let metastore = open_metastore(config).await?;
    let needed = needed(&storage, metastore.places().await?).await?;
    metastore.close().await;
    let mut bytes = 0;
    for file in &needed {
        bytes += storage.size(file).await?;
    }
    Ok((needed.len(), bytes))
}

/// Every file that tables need.
async fn needed(storage: &Storage, places: Vec<Place>) -> Result<BTreeSet<String>, BackupError> {
    let mut needed = BTreeSet::new();
    for place in places {
        for file in relocate::needed(storage, &place).await? {
            needed.insert(storage.normalize(&file)?.to_string());
        }
    }
    Ok(needed)
}

/// The file of a metastore that can be copied.
fn metastore_file(config: &Config) -> Result<PathBuf, BackupError> {
    let MetastoreUrl::Sqlite(file) = config.metastore.clone() else {
        return Err(BackupError::Invalid(
            "a metastore in PostgreSQL is not copied by this command: use pg_dump, and copy the \
             warehouse after it"
                .to_owned(),
        ));
    };
    if file.is_file() {
        return Ok(file);
    }
    Err(BackupError::Invalid(format!(
        "there is no metastore at `{}`: say where it is with --data-dir or --metastore",
        file.display()
    )))
}

impl Creation {
    /// Writes down that a backup begins. When a server runs, everything that it acknowledged has
    /// to be committed before [`Creation::finish`].
    ///
    /// # Errors
    /// [`BackupError`]; nothing is held.
    pub async fn begin(
        config: &Config,
        folder: &Path,
        (id, now_ms): (String, i64),
    ) -> Result<Self, BackupError> {
        let metastore_file = metastore_file(config)?;
        if folder.to_str().is_some_and(|text| text.contains("://")) {
            return Err(BackupError::Invalid(format!(
                "`{}` is no folder of this machine: make the backup in one, and copy it to a store \
                 after that",
                folder.display()
            )));
        }
        if !is_free(folder).map_err(failed("look at", folder))? {
            return Err(BackupError::Invalid(format!(
                "`{}` is not empty: choose a new folder for each backup",
                folder.display()
            )));
        }
        let wal = config.data_dir.join("wal");
        let taken = blocking(move || wal.is_dir().then(|| LogFolder::take(&wal)).transpose()).await;
        let is_running = matches!(taken, Err(WalError::InUse { .. }));
        let log = if is_running { None } else { taken? };
        // It has every event, and hashes of tokens.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(failed("make", folder))?;
        let folder = fs::canonicalize(folder).map_err(failed("make", folder))?;
        let storage = Storage::open(&config.warehouse, &config.s3)?;
        let metastore = open_metastore(config).await?;
        metastore.begin_backup(&id, &folder.display().to_string(), now_ms).await?;
        let data_dir = config.data_dir.clone();
        Ok(Self {
            metastore,
            storage,
            folder,
            data_dir,
            metastore_file,
            id,
            begun_ms: now_ms,
            is_running,
            _log: log,
        })
    }

    /// Whether a server has the data folder open.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.is_running
    }

    /// Copies everything. Durable on return.
    ///
    /// # Errors
    /// [`BackupError`]; the folder is no backup, and `backup forget` lets go of what is held.
    pub async fn finish(
        self,
        files: Files,
        now_ms: impl Fn() -> i64,
    ) -> Result<Backup, BackupError> {
        let mut copied = Vec::new();
        if !self.is_running() {
            copied.extend(self.copy_data_folder()?);
        }
        let copy = self.folder.join(METASTORE);
        make_parents(&copy).map_err(failed("make", &copy))?;
        self.metastore.copy_to(&copy).await?;
        sync(&copy).map_err(failed("write", &copy))?;
        copied.push(described(&self.folder, &copy)?);

        let needed = self.needed(&copy).await?;
        let mut objects = Vec::new();
        if self.storage.is_local() {
            copied.extend(self.copy_files(needed, files).await?);
        } else {
            for location in needed {
                let bytes = self.storage.size(&location).await?;
                objects.push(HeldObject { location, bytes });
            }
        }
        let backup = Backup {
            format: FORMAT,
            id: self.id.clone(),
            begun_ms: self.begun_ms,
            ended_ms: now_ms(),
            warehouse: self.storage.root().to_owned(),
            has_log: !self.is_running(),
            files: copied,
            objects,
        };
        let folder = self.folder.clone();
        blocking(move || sync_folders(&folder)).await.map_err(failed("write", &self.folder))?;
        backup.write(&self.folder)?;
        let row = backup.row(&self.folder.display().to_string());
        self.metastore.end_backup(&row).await?;
        Ok(backup)
    }

    /// Every file that the copied metastore's tables need. The copy is opened as another file:
    /// opening one changes it.
    async fn needed(&self, copy: &Path) -> Result<BTreeSet<String>, BackupError> {
        let opened = self.folder.join("reading.db");
        fs::copy(copy, &opened).map_err(failed("write", &opened))?;
        let metastore = SqlMetastore::sqlite(&opened).await?;
        let places = metastore.places().await?;
        metastore.close().await;
        for end in ["", "-wal", "-shm"] {
            let file = self.folder.join(format!("reading.db{end}"));
            match fs::remove_file(&file) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &file)(cause));
                }
                _ => {}
            }
        }
        needed(&self.storage, places).await
    }

    async fn copy_files(
        &self,
        needed: BTreeSet<String>,
        files: Files,
    ) -> Result<Vec<CopiedFile>, BackupError> {
        let (folder, root) = (self.folder.clone(), self.storage.root().to_owned());
        blocking(move || {
            let mut copied = Vec::with_capacity(needed.len());
            for location in needed {
                let from = Path::new(location.strip_prefix("file://").unwrap_or(&location));
                let below = location.strip_prefix(&root).unwrap_or(&location);
                let to = folder.join(WAREHOUSE).join(below.trim_start_matches('/'));
                copied.push(copy(&folder, from, &to, files)?);
            }
            Ok(copied)
        })
        .await
    }

    /// Log, index of ids, and whatever else a stopped server has in its data folder.
    fn copy_data_folder(&self) -> Result<Vec<CopiedFile>, BackupError> {
        let warehouse = self.storage.root().strip_prefix("file://").map(PathBuf::from);
        let metastore = self.metastore_file.with_extension("");
        let is_elsewhere = |path: &Path| {
            Some(path) == warehouse.as_deref()
                || path == self.folder
                || path.with_extension("") == metastore
                || path.file_name().is_some_and(|name| name == "lock")
        };
        let mut copied = Vec::new();
        let mut folders = vec![self.data_dir.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(failed("read", &folder))? {
                let path = entry.map_err(failed("read", &folder))?.path();
                if is_elsewhere(&path) {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let below = path.strip_prefix(&self.data_dir).unwrap_or(&path);
                let to = self.folder.join(DATA).join(below);
                // The log's files are written to again: never links.
                copied.push(copy(&self.folder, &path, &to, Files::Copied)?);
            }
        }
        Ok(copied)
    }
}

fn copy(folder: &Path, from: &Path, to: &Path, files: Files) -> Result<CopiedFile, BackupError> {
    make_parents(to).map_err(failed("make", to))?;
    if files == Files::Linked && fs::hard_link(from, to).is_ok() {
        return described(folder, to);
    }
    let mut new = File::create_new(to).map_err(failed("write", to))?;
    let (bytes, xxh3) = checksum(from, Some(&mut new)).map_err(failed("copy", from))?;
    new.sync_all().map_err(failed("write", to))?;
    Ok(CopiedFile { path: relative(folder, to), bytes, xxh3 })
}

fn described(folder: &Path, file: &Path) -> Result<CopiedFile, BackupError> {
    let (bytes, xxh3) = checksum(file, None).map_err(failed("read", file))?;
    Ok(CopiedFile { path: relative(folder, file), bytes, xxh3 })
}

fn relative(folder: &Path, file: &Path) -> String {
    file.strip_prefix(folder).unwrap_or(file).to_string_lossy().into_owned()
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes the names of all files durable.
fn sync_folders(folder: &Path) -> io::Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            }
        }
        sync(&folder)?;
    }
    Ok(())
}
