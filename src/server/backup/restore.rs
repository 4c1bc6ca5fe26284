//! A data folder out of a backup.
//!
//! Its one invariant: the metastore comes last, and nothing that differs from the list is restored.

use super::{
    Backup, BackupError, CopiedFile, DATA, METASTORE, WAREHOUSE, checksum, failed, is_free,
    make_parents,
};
use crate::{
    config::{Config, MetastoreUrl},
    server::{
        claim, make_data_folder,
        moved::{self, Places},
        open_metastore,
    },
    table::writer::blocking,
};
use icecore_catalog::{location::Location, storage::Storage};
use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

/// Looks at every file and object of a backup, changing nothing.
///
/// # Errors
/// [`BackupError::Invalid`] names the first that is missing or another.
pub async fn verify(config: &Config, folder: &Path) -> Result<Backup, BackupError> {
    let backup = Backup::read(folder)?;
    let (files, from) = (backup.files.clone(), folder.to_owned());
    blocking(move || files.iter().try_for_each(|file| check(&from, file, None))).await?;
    check_objects(config, &backup).await?;
    Ok(backup)
}

/// Makes the configured data folder out of a backup.
///
/// # Errors
/// [`BackupError`]; what was made until then is to be removed before it is tried again.
pub async fn restore(config: &Config, folder: &Path, now_ms: i64) -> Result<Backup, BackupError> {
    let backup = Backup::read(folder)?;
    let MetastoreUrl::Sqlite(metastore) = config.metastore.clone() else {
        return Err(BackupError::Invalid(
            "a backup has its metastore in SQLite: restore it without --metastore".to_owned(),
        ));
    };
    let warehouse = config.warehouse.strip_prefix("file://").map(PathBuf::from);
    if backup.objects.is_empty() && warehouse.is_none() && backup.warehouse.starts_with("file:") {
        return Err(BackupError::Invalid(
            "the backup's warehouse is a folder: restore it to one".to_owned(),
        ));
    }
    if !backup.warehouse.starts_with("file:") && backup.warehouse != config.warehouse {
        return Err(BackupError::Invalid(format!(
            "the backup names objects of `{0}`: restore it with --warehouse {0}",
            backup.warehouse
        )));
    }
    for place in [Some(&config.data_dir), warehouse.as_ref()].into_iter().flatten() {
        if !is_free(place).map_err(failed("look at", place))? || metastore.exists() {
            return Err(BackupError::Invalid(format!(
                "`{}` is not empty: a backup is restored to a new folder",
                place.display()
            )));
        }
    }
    check_objects(config, &backup).await?;
    make_data_folder(config)?;
    let copied = copy(backup.clone(), folder.to_owned(), config.data_dir.clone(), warehouse);
    copied.await?;
    place_metastore(&backup, folder, &metastore).await?;
    finish(config, &backup, now_ms).await?;
    Ok(backup)
}

/// What of a restored folder is not as in the backup: no backup holds files of a folder there, its
/// log is a new one, and its tables may lie elsewhere.
async fn finish(config: &Config, backup: &Backup, now_ms: i64) -> Result<(), BackupError> {
    let metastore = open_metastore(config).await?;
    for known in metastore.backups().await? {
        if backup.objects.is_empty() {
            metastore.forget_backup(&known.id).await?;
        } else if known.id == backup.id {
            // It names objects that the restored tables share: they stay for the next restore.
            metastore.end_backup(&backup.row(&known.place)).await?;
        }
    }
    metastore.close().await;
    if !backup.has_log {
        claim::take_over(config).await?;
    }
    if backup.warehouse != config.warehouse {
        let places = Places { from: Location::parse(&backup.warehouse), to: None, dry_run: false };
        moved::relocate(config, &places, now_ms).await?;
    }
    Ok(())
}

async fn copy(
    backup: Backup,
    folder: PathBuf,
    data_dir: PathBuf,
    warehouse: Option<PathBuf>,
) -> Result<(), BackupError> {
    blocking(move || {
        for file in &backup.files {
            let path = Path::new(&file.path);
            let to = if let Ok(below) = path.strip_prefix(WAREHOUSE) {
                warehouse.as_ref().map(|warehouse| warehouse.join(below))
            } else {
                path.strip_prefix(DATA).ok().map(|below| data_dir.join(below))
            };
            let Some(to) = to else { continue };
            check(&folder, file, Some(&to))?;
        }
        Ok(())
    })
    .await
}

async fn place_metastore(
    backup: &Backup,
    folder: &Path,
    metastore: &Path,
) -> Result<(), BackupError> {
    let file = backup.files.iter().find(|file| file.path == METASTORE).cloned();
    let file =
        file.ok_or_else(|| BackupError::Invalid("the backup has no metastore".to_owned()))?;
    let unfinished = metastore.with_extension("restored");
    let (folder, metastore) = (folder.to_owned(), metastore.to_owned());
    blocking(move || {
        check(&folder, &file, Some(&unfinished))?;
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&unfinished, private).map_err(failed("write", &unfinished))?;
        fs::rename(&unfinished, &metastore).map_err(failed("write", &metastore))
    })
    .await
}

/// Holds a file against the list, and copies it.
fn check(folder: &Path, file: &CopiedFile, to: Option<&Path>) -> Result<(), BackupError> {
    let path = Path::new(&file.path);
    if path.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(BackupError::Invalid(format!("`{}` is no path in a backup", file.path)));
    }
    let from = folder.join(path);
    let mut new = match to {
        None => None,
        Some(to) => {
            make_parents(to).map_err(failed("make", to))?;
            Some(File::create(to).map_err(failed("write", to))?)
        }
    };
    let (bytes, xxh3) = checksum(&from, new.as_mut()).map_err(failed("read", &from))?;
    if let (Some(new), Some(to)) = (new, to) {
        new.sync_all().map_err(failed("write", to))?;
    }
    if (bytes, &xxh3) == (file.bytes, &file.xxh3) {
        return Ok(());
    }
    Err(BackupError::Invalid(format!(
        "`{}` is not what was backed up: {bytes} bytes with checksum {xxh3} instead of {} with {}",
        from.display(),
        file.bytes,
        file.xxh3
    )))
}

async fn check_objects(config: &Config, backup: &Backup) -> Result<(), BackupError> {
    if backup.objects.is_empty() {
        return Ok(());
    }
    let storage = Storage::open(&backup.warehouse, &config.s3)?;
    for object in &backup.objects {
        let bytes = storage.size(&object.location).await?;
        if bytes != object.bytes {
            return Err(BackupError::Invalid(format!(
                "object `{}` has {bytes} bytes instead of {}",
                object.location, object.bytes
            )));
        }
    }
    Ok(())
}
