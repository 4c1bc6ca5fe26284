//! A data folder out of a backup.
//!
//! Its one invariant: the metastore comes last, and nothing that differs from the list is restored.
//! Until everything is done a file in the data folder says so, and no server starts on it.

use super::{
    AT_ONCE, BackupError, BackupManifest, CopiedFile, DATA, METASTORE, WAREHOUSE, failed, is_free,
    place::{self, BackupPlace, PlaceFile},
    remove_database,
};
use crate::{
    config::{Config, MetastoreUrl},
    server::{
        claim, make_data_folder,
        moved::{self, MovePlaces},
        open_metastore,
    },
};
use futures::{StreamExt, TryStreamExt, stream};
use icecore_catalog::{location::Location, metastore::Metastore, storage::Storage};
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

/// The file that says that a data folder is not whole yet.
const RESTORING: &str = "restoring";

/// Looks at every file and object of a backup, changing nothing.
///
/// # Errors
/// [`BackupError::Invalid`] names the first that is missing or another.
pub async fn verify(config: &Config, place: &BackupPlace) -> Result<BackupManifest, BackupError> {
    let backup = BackupManifest::read(place).await?;
    let files = backup.files.iter().map(|file| copy_checked(place, file, None));
    stream::iter(files).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    check_objects(config, &backup).await?;
    Ok(backup)
}

/// Makes the configured data folder, warehouse and metastore out of a backup.
///
/// # Errors
/// [`BackupError`]; what was made until then is to be removed before it is tried again.
pub async fn restore(
    config: &Config,
    place: &BackupPlace,
    now_ms: i64,
) -> Result<BackupManifest, BackupError> {
    let backup = BackupManifest::read(place).await?;
    if !backup.objects.is_empty() && backup.warehouse != config.warehouse {
        return Err(BackupError::Invalid(format!(
            "the backup references objects in `{0}`: restore it with --warehouse {0}; backups \
             created with --copy contain them",
            backup.warehouse
        )));
    }
    check_target(config, &backup).await?;
    check_objects(config, &backup).await?;
    make_data_folder(config)?;
    let mark = config.data_dir.join(RESTORING);
    write_mark(&mark, &backup.id).map_err(failed("write", &mark))?;
    match fill(config, &backup, place, &mark, now_ms).await {
        Ok(()) => Ok(backup),
        Err(cause) => Err(BackupError::HalfRestored {
            folder: config.data_dir.clone(),
            source: Box::new(cause),
        }),
    }
}

async fn fill(
    config: &Config,
    backup: &BackupManifest,
    place: &BackupPlace,
    mark: &Path,
    now_ms: i64,
) -> Result<(), BackupError> {
    copy(config, backup, place).await?;
    place_metastore(config, backup, place).await?;
    finish(config, backup, now_ms).await?;
    let removed = fs::remove_file(mark).and_then(|()| File::open(&config.data_dir)?.sync_all());
    removed.map_err(failed("remove", mark))
}

/// Refuses a data folder that was not restored to its end.
///
/// # Errors
/// [`BackupError::Invalid`].
pub fn check_finished(data_dir: &Path) -> Result<(), BackupError> {
    if !data_dir.join(RESTORING).exists() {
        return Ok(());
    }
    Err(BackupError::Invalid(format!(
        "`{}` belongs to a restore that was not finished: remove it, with the warehouse and the \
         database of that restore, and restore again",
        data_dir.display()
    )))
}

fn write_mark(mark: &Path, id: &str) -> io::Result<()> {
    let mut file = File::create_new(mark)?;
    file.write_all(id.as_bytes())?;
    file.sync_all()?;
    mark.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Refuses whatever is in use already, before anything is written.
async fn check_target(config: &Config, backup: &BackupManifest) -> Result<(), BackupError> {
    check_finished(&config.data_dir)?;
    let taken = |place: &str| {
        BackupError::Invalid(format!("`{place}` is not empty: restore to a new location"))
    };
    let warehouse = config.warehouse.strip_prefix("file://").map(PathBuf::from);
    for folder in [Some(&config.data_dir), warehouse.as_ref()].into_iter().flatten() {
        if !is_free(folder).map_err(failed("look at", folder))? {
            return Err(taken(&folder.display().to_string()));
        }
    }
    if warehouse.is_none() && backup.objects.is_empty() {
        let storage = Storage::open(&config.warehouse, &config.s3)?;
        if !place::is_free(&storage).await? {
            return Err(taken(storage.root()));
        }
    }
    match &config.metastore {
        MetastoreUrl::Sqlite(file) if file.exists() => Err(taken(&file.display().to_string())),
        MetastoreUrl::Sqlite(_) => Ok(()),
        MetastoreUrl::Postgres(url) => Ok(Metastore::check_empty_postgres(url).await?),
    }
}

/// What of a restored folder is not as in the backup: no backup holds files of a folder there, its
/// log is a new one, and its tables may lie elsewhere.
async fn finish(config: &Config, backup: &BackupManifest, now_ms: i64) -> Result<(), BackupError> {
    let metastore = open_metastore(config).await?;
    for known in metastore.backups().await? {
        if backup.objects.is_empty() {
            metastore.forget_backup(&known.id).await?;
        } else if known.id == backup.id {
            // It names objects that the restored tables share: they stay for the next restore.
            metastore.end_backup(&backup.row(&known.place)).await?;
        }
    }
    metastore.forget_orphan_marks().await?;
    metastore.close().await;
    if !backup.has_log {
        claim::take_over(config).await?;
    }
    if backup.warehouse != config.warehouse {
        let places =
            MovePlaces { from: Location::parse(&backup.warehouse), to: None, dry_run: false };
        moved::relocate(config, &places, now_ms).await?;
    }
    Ok(())
}

async fn copy(
    config: &Config,
    backup: &BackupManifest,
    place: &BackupPlace,
) -> Result<(), BackupError> {
    let warehouse = Storage::open(&config.warehouse, &config.s3)?;
    let target = |file: &CopiedFile| {
        if let Some(below) = file.path.strip_prefix(WAREHOUSE) {
            return Some(PlaceFile::of(&warehouse, &format!("{}{below}", warehouse.root())));
        }
        let below = Path::new(&file.path).strip_prefix(DATA).ok()?;
        Some(PlaceFile::Disk(config.data_dir.join(below)))
    };
    let files = backup.files.iter().filter_map(|file| Some((file, target(file)?)));
    let copies = files.map(|(file, to)| async move { copy_checked(place, file, Some(&to)).await });
    stream::iter(copies).buffer_unordered(AT_ONCE).try_collect().await
}

async fn place_metastore(
    config: &Config,
    backup: &BackupManifest,
    place: &BackupPlace,
) -> Result<(), BackupError> {
    let file = backup.files.iter().find(|file| file.path == METASTORE);
    let file =
        file.ok_or_else(|| BackupError::Invalid("the backup has no metastore".to_owned()))?;
    let copy = match &config.metastore {
        MetastoreUrl::Sqlite(metastore) => metastore.with_extension("restored"),
        MetastoreUrl::Postgres(_) => config.data_dir.join("metastore.restored"),
    };
    copy_checked(place, file, Some(&PlaceFile::Disk(copy.clone()))).await?;
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(&copy, private).map_err(failed("write", &copy))?;
    match &config.metastore {
        MetastoreUrl::Sqlite(metastore) => {
            fs::rename(&copy, metastore).map_err(failed("write", metastore))
        }
        MetastoreUrl::Postgres(url) => {
            Metastore::copy_to_postgres(&copy, url).await?;
            remove_database(&copy)
        }
    }
}

/// Holds a file against the list, and copies it.
async fn copy_checked(
    place: &BackupPlace,
    file: &CopiedFile,
    to: Option<&PlaceFile>,
) -> Result<(), BackupError> {
    if Path::new(&file.path).components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(BackupError::Invalid(format!("`{}` is not a path in a backup", file.path)));
    }
    let (bytes, xxh3) = place::copy(&place.file(&file.path), to).await?;
    if (bytes, &xxh3) == (file.bytes, &file.xxh3) {
        return Ok(());
    }
    Err(BackupError::Invalid(format!(
        "`{}/{}` is not what was backed up: {bytes} bytes with checksum {xxh3} instead of {} with {}",
        place.name(),
        file.path,
        file.bytes,
        file.xxh3
    )))
}

async fn check_objects(config: &Config, backup: &BackupManifest) -> Result<(), BackupError> {
    if backup.objects.is_empty() {
        return Ok(());
    }
    let storage = Storage::open(&backup.warehouse, &config.s3)?;
    let checks = backup.objects.iter().map(|object| async {
        let found = place::look(&storage, &object.location).await?;
        if (found.size, &found.e_tag) == (object.bytes, &object.etag)
            || (found.size == object.bytes && object.etag.is_none())
        {
            return Ok(());
        }
        Err(BackupError::Invalid(format!(
            "object `{}` is not what was backed up: {} bytes, version {:?}, instead of {}, {:?}",
            object.location, found.size, found.e_tag, object.bytes, object.etag
        )))
    });
    stream::iter(checks).buffer_unordered(AT_ONCE).try_collect().await
}
