//! Files on a local disk, durable and whole: temporary file, fsync, rename, fsync of the folder.
//!
//! Every function blocks; callers run them on blocking threads. A file has its name only once all
//! its bytes are on the disk.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};
use uuid::Uuid;

/// Start of the names of files that are still being written.
const TEMPORARY: &str = ".tmp-";
/// Most folders remembered as durable; then they are looked at again.
const FOLDERS_MAX: usize = 10_000;

/// A link leads out of the warehouse.
#[derive(Debug, thiserror::Error)]
#[error("a link leads out of the warehouse")]
struct Outside;

/// Whether an error says that a link leads out of the root.
pub(super) fn is_outside(cause: &std::io::Error) -> bool {
    cause.get_ref().is_some_and(|cause| cause.is::<Outside>())
}

fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_symlink())
}

/// A folder of files.
#[derive(Debug)]
pub(super) struct LocalDisk {
    root: PathBuf,
    /// The root without links.
    real_root: PathBuf,
    /// Folders whose own directory entries are known to be on the disk. Only having seen a folder
    /// is not enough: another writer may have made it a moment ago, without its fsync yet.
    durable: Mutex<HashSet<PathBuf>>,
}

impl LocalDisk {
    /// Opens `root`, which is made when missing.
    pub(super) fn open(root: &Path) -> std::io::Result<Self> {
        let mut known = HashSet::new();
        for folder in root.ancestors().skip(1).filter(|folder| folder.is_dir()) {
            known.insert(folder.to_owned());
        }
        make_durable(&mut known, root)?;
        let durable = Mutex::new(HashSet::from([root.to_owned()]));
        Ok(Self { root: root.to_owned(), real_root: root.canonicalize()?, durable })
    }

    /// Refuses a path that links lead out of the root, whether its end is there or not. Whoever
    /// could swap a folder for a link after this look may write to the warehouse anyway.
    pub(super) fn check_links(&self, path: &Path) -> std::io::Result<()> {
        for part in path.ancestors() {
            let real = match part.canonicalize() {
                Ok(real) => real,
                // A link to nowhere is there, and writing through it would make what it names.
                Err(_) if is_link(part) => return Err(std::io::Error::other(Outside)),
                Err(cause) => match cause.kind() {
                    ErrorKind::NotFound | ErrorKind::NotADirectory => continue,
                    _ => return Err(cause),
                },
            };
            let is_inside = real.starts_with(&self.real_root);
            return if is_inside { Ok(()) } else { Err(std::io::Error::other(Outside)) };
        }
        Ok(())
    }

    /// Makes a folder and its parents below the root; durable on return.
    pub(super) fn make_folder(&self, folder: &Path) -> std::io::Result<()> {
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if FOLDERS_MAX <= durable.len() {
            durable.clear();
            durable.insert(self.root.clone());
        }
        make_durable(&mut durable, folder)
    }

    /// Writes a whole file; durable on return.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(&self.root);
        self.make_folder(folder)?;
        match write_into(folder, path, bytes) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => {
                // Somebody removed the folder after it was remembered.
                self.forget_folders();
                self.make_folder(folder)?;
                write_into(folder, path, bytes)
            }
            result => result,
        }
    }

    fn forget_folders(&self) {
        self.durable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|folder| *folder == self.root);
    }
}

/// A part of a file; shorter than asked for where the file ends.
pub(super) fn read_range(path: &Path, range: Range<u64>) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(range.start))?;
    let mut bytes = Vec::new();
    file.take(range.end.saturating_sub(range.start)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file's length; a folder is no file, as in an object store.
pub(super) fn size(path: &Path) -> std::io::Result<u64> {
    let metadata = fs::metadata(path).map_err(|cause| match cause.kind() {
        // Something above it is a file: then it is not there.
        ErrorKind::NotADirectory => ErrorKind::NotFound.into(),
        _ => cause,
    })?;
    if metadata.is_file() { Ok(metadata.len()) } else { Err(ErrorKind::NotFound.into()) }
}

/// Removes a file; a missing one is no error.
pub(super) fn delete(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Every file below `folder` with all its bytes, in order of name; none when it is not there.
pub(super) fn list(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if !entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

fn write_into(folder: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = folder.join(format!("{TEMPORARY}{}", Uuid::new_v4()));
    let written = write_synced(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to tell; a left-over temporary file is never listed or read.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_folder(folder)
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    sync(&file, path)
}

/// Makes `folder` below a known one and fsyncs the parent of each that was not known.
fn make_durable(known: &mut HashSet<PathBuf>, folder: &Path) -> std::io::Result<()> {
    if known.contains(folder) {
        return Ok(());
    }
    let Some(parent) = folder.parent() else { return Ok(()) };
    make_durable(known, parent)?;
    match fs::create_dir(folder) {
        Err(cause) if cause.kind() == ErrorKind::AlreadyExists && folder.is_dir() => (),
        result => result?,
    }
    sync_folder(parent)?;
    known.insert(folder.to_owned());
    Ok(())
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    match File::open(folder) {
        // A parent that this user may not read was not made by us and is nothing we can sync.
        Err(cause) if cause.kind() == ErrorKind::PermissionDenied => Ok(()),
        opened => sync(&opened?, folder),
    }
}

/// Everything that has to be on the disk goes through here.
fn sync(file: &File, path: &Path) -> std::io::Result<()> {
    #[cfg(test)]
    tests::note(path);
    #[cfg(not(test))]
    let _ = path;
    file.sync_all()
}

#[cfg(test)]
mod tests;
