//! Files on a local disk, durable and whole: temporary file, fsync, rename, fsync of the folder (one
//! for all files of a commit).
//!
//! Every function blocks; callers run them on blocking threads. A file has its name only once all
//! its bytes are on the disk. A folder that took the place of the root, such as a mount point whose
//! disk is not mounted, is not the root.

use crate::usage;
use std::{
    collections::{BTreeSet, HashSet},
    fs::{self, File},
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};
use uuid::Uuid;

/// Start of the names of files that are still being written.
const TEMPORARY: &str = ".tmp-";
/// Most folders remembered as durable; then they are looked at again.
const FOLDERS_MAX: usize = 10_000;

/// A link leads out of the warehouse.
#[derive(Debug, thiserror::Error)]
#[error("a symbolic link leads out of the warehouse")]
struct OutsideLink;

/// Whether an error says that a link leads out of the root.
pub(super) fn is_outside(cause: &std::io::Error) -> bool {
    cause.get_ref().is_some_and(|cause| cause.is::<OutsideLink>())
}

/// The folder of the warehouse is not there.
#[derive(Debug, thiserror::Error)]
#[error("the warehouse `file://{}` {reason}; mount or restore it, no restart is needed", root.display())]
struct MissingRoot {
    root: PathBuf,
    reason: String,
}

/// The text of an error that says that the root is not there.
pub(super) fn missing_root(cause: &std::io::Error) -> Option<String> {
    Some(cause.get_ref()?.downcast_ref::<MissingRoot>()?.to_string())
}

/// A folder as the system knows it, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FolderId {
    device: u64,
    inode: u64,
}

impl FolderId {
    fn of(folder: &Path) -> std::io::Result<Self> {
        let found = fs::metadata(folder)?;
        if !found.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        Ok(Self { device: found.dev(), inode: found.ino() })
    }
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
    /// The folder that is the root; another one takes its place only by [`LocalDisk::adopt`].
    known: Mutex<FolderId>,
    /// Folders whose own directory entries are known to be on the disk. Only having seen a folder
    /// is not enough: another writer may have made it a moment ago, without its fsync yet.
    durable: Mutex<HashSet<PathBuf>>,
    syncs: AtomicU64,
}

impl LocalDisk {
    /// Opens `root`, which is made when missing.
    pub(super) fn open(root: &Path) -> std::io::Result<Self> {
        let known = root.ancestors().skip(1).filter(|folder| folder.is_dir());
        let syncs = AtomicU64::new(0);
        make_durable(&unknown(&known.map(Path::to_owned).collect(), &[root]), &syncs)?;
        let durable = Mutex::new(HashSet::from([root.to_owned()]));
        let (real_root, known) = (root.canonicalize()?, Mutex::new(FolderId::of(root)?));
        Ok(Self { root: root.to_owned(), real_root, known, durable, syncs })
    }

    /// Fails where the root is not there, or another folder is in its place.
    pub(super) fn check_root(&self) -> std::io::Result<()> {
        match FolderId::of(&self.root) {
            Ok(found) if found == *self.known() => Ok(()),
            Ok(_) => Err(self.missing("is not there: another folder is in its place".to_owned())),
            Err(cause) if cause.kind() == ErrorKind::NotFound => {
                Err(self.missing("is not there: its folder does not exist".to_owned()))
            }
            Err(cause) => Err(self.missing(format!("cannot be reached: {cause}"))),
        }
    }

    /// Takes the folder that is in the place of the root now for the root if it has all `files`:
    /// one that was restored from a copy, or mounted under another number.
    pub(super) fn adopt(&self, files: &[PathBuf]) -> std::io::Result<()> {
        let Ok(found) = FolderId::of(&self.root) else { return self.check_root() };
        if found == *self.known() {
            return Ok(());
        }
        if let Some(file) = files.iter().find(|file| !file.is_file()) {
            return Err(self.missing(format!(
                "is not there: another folder is in its place, without `{}`",
                file.display()
            )));
        }
        self.durable().retain(|folder| *folder == self.root);
        *self.known() = found;
        Ok(())
    }

    fn missing(&self, reason: String) -> std::io::Error {
        std::io::Error::other(MissingRoot { root: self.root.clone(), reason })
    }

    fn known(&self) -> MutexGuard<'_, FolderId> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many files and folders were synced.
    pub(super) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Refuses a path that links lead out of the root, whether its end is there or not. Whoever
    /// could swap a folder for a link after this look may write to the warehouse anyway.
    pub(super) fn check_links(&self, path: &Path) -> std::io::Result<()> {
        for part in path.ancestors() {
            let real = match part.canonicalize() {
                Ok(real) => real,
                // A link to nowhere is there, and writing through it would make what it names.
                Err(_) if is_link(part) => return Err(std::io::Error::other(OutsideLink)),
                Err(cause) => match cause.kind() {
                    ErrorKind::NotFound | ErrorKind::NotADirectory => continue,
                    _ => return Err(cause),
                },
            };
            let is_inside = real.starts_with(&self.real_root);
            return if is_inside { Ok(()) } else { Err(std::io::Error::other(OutsideLink)) };
        }
        Ok(())
    }

    /// Refuses a folder that a link leads to, be it inside the root: its files have other names too.
    pub(super) fn check_is_real(&self, folder: &Path) -> std::io::Result<()> {
        let real = match folder.canonicalize() {
            Err(cause) if is_missing(&cause) => return Ok(()),
            real => real?,
        };
        let below = folder.strip_prefix(&self.root).unwrap_or(folder);
        if real == self.real_root.join(below) {
            return Ok(());
        }
        Err(std::io::Error::other(OutsideLink))
    }

    /// Makes folders and their parents below the root; durable on return. Each parent is synced
    /// once.
    pub(super) fn make_folders(&self, folders: &[&Path]) -> std::io::Result<()> {
        // Nobody else waits while the disk syncs: two who make the same folder both sync it.
        let new = unknown(&self.durable(), folders);
        if new.is_empty() {
            return Ok(());
        }
        make_durable(&new, &self.syncs)?;
        let mut durable = self.durable();
        if FOLDERS_MAX <= durable.len() {
            durable.clear();
            durable.insert(self.root.clone());
        }
        durable.extend(new);
        Ok(())
    }

    /// Writes a whole file; durable on return.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        self.write_deferred(path, bytes)?;
        sync_folder(self.folder(path), &self.syncs)
    }

    /// Writes a whole file whose bytes are durable on return; its name is with [`LocalDisk::sync_folders`].
    pub(super) fn write_deferred(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let folder = self.folder(path);
        let write = || {
            self.make_folders(&[folder])?;
            write_into(folder, path, bytes, &self.syncs)
        };
        match write() {
            Err(cause) if cause.kind() == ErrorKind::NotFound => {
                // Somebody removed a folder after it was remembered.
                self.durable().retain(|folder| *folder == self.root);
                write()
            }
            result => result,
        }
    }

    /// Makes the names of files durable, with one sync of each folder.
    pub(super) fn sync_folders<'a>(
        &self,
        files: impl Iterator<Item = &'a Path>,
    ) -> std::io::Result<()> {
        sync_folders(files, &self.syncs)
    }

    fn folder<'a>(&'a self, path: &'a Path) -> &'a Path {
        path.parent().unwrap_or(&self.root)
    }

    fn durable(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sync_folders<'a>(
    files: impl Iterator<Item = &'a Path>,
    syncs: &AtomicU64,
) -> std::io::Result<()> {
    let folders: BTreeSet<&Path> = files.filter_map(Path::parent).collect();
    folders.into_iter().try_for_each(|folder| sync_folder(folder, syncs))
}

/// A whole file; a folder is none, as in an object store.
pub(super) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    fs::read(path).inspect(|bytes| usage::count_read(bytes.len())).map_err(no_file)
}

/// A part of a file; shorter than asked for where the file ends.
pub(super) fn read_range(path: &Path, range: Range<u64>) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path).map_err(no_file)?;
    file.seek(SeekFrom::Start(range.start))?;
    let mut bytes = Vec::new();
    file.take(range.end.saturating_sub(range.start)).read_to_end(&mut bytes).map_err(no_file)?;
    usage::count_read(bytes.len());
    Ok(bytes)
}

/// A file's length; a folder is no file, as in an object store.
pub(super) fn size(path: &Path) -> std::io::Result<u64> {
    let metadata = fs::metadata(path).map_err(no_file)?;
    if metadata.is_file() { Ok(metadata.len()) } else { Err(ErrorKind::NotFound.into()) }
}

/// Removes a file; a missing one is no error, a folder is one that is not there.
pub(super) fn delete(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if is_missing(&cause) => Ok(()),
        // Systems differ in how they call this.
        Err(_) if path.is_dir() => Err(no_file(ErrorKind::IsADirectory.into())),
        result => result,
    }
}

/// Whether nothing is there, or something above it is a file.
fn is_missing(cause: &std::io::Error) -> bool {
    matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// What finds no file says so.
fn no_file(cause: std::io::Error) -> std::io::Error {
    if is_missing(&cause) || cause.kind() == ErrorKind::IsADirectory {
        return std::io::Error::new(ErrorKind::NotFound, cause);
    }
    cause
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

/// The names of the folders in `folder` that are text, but for links; none when it is not there.
pub(super) fn folders_in(folder: &Path) -> std::io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(cause) if is_missing(&cause) => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether a name is one that a file has while it is written here, or after a crash then.
pub(super) fn is_temporary(name: &str) -> bool {
    name.strip_prefix(TEMPORARY).is_some_and(|id| Uuid::parse_str(id).is_ok())
}

/// A walk through all folders below one, some files at a time.
#[derive(Debug, Default)]
pub(super) struct FolderWalk {
    /// Folders that were not read yet.
    folders: Vec<PathBuf>,
    /// The one that is being read.
    open: Option<fs::ReadDir>,
}

/// What a walk finds: files with all their bytes, files that are being written, links.
#[derive(Debug)]
pub(super) struct WalkedFile {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// When it was last written; none where the disk does not tell.
    pub(super) modified: Option<SystemTime>,
    /// Whether it is a file itself: no link, and no device.
    pub(super) is_plain: bool,
}

impl FolderWalk {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folders: vec![folder], open: None }
    }

    /// The next files, `count` as long as there are so many. No link is followed.
    pub(super) fn next_files(&mut self, count: usize) -> std::io::Result<Vec<WalkedFile>> {
        let mut files = Vec::new();
        while files.len() < count {
            let Some(entries) = &mut self.open else {
                let Some(folder) = self.folders.pop() else { break };
                self.open = match fs::read_dir(&folder) {
                    Err(cause) if cause.kind() == ErrorKind::NotFound => None,
                    entries => Some(entries?),
                };
                continue;
            };
            let Some(entry) = entries.next().transpose()? else {
                self.open = None;
                continue;
            };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.folders.push(entry.path());
                continue;
            }
            let found = match entry.metadata() {
                // It went since its folder was read.
                Err(cause) if cause.kind() == ErrorKind::NotFound => continue,
                found => found?,
            };
            let (bytes, modified) = (found.len(), found.modified().ok());
            files.push(WalkedFile {
                path: entry.path(),
                bytes,
                modified,
                is_plain: kind.is_file(),
            });
        }
        Ok(files)
    }
}

fn write_into(folder: &Path, path: &Path, bytes: &[u8], syncs: &AtomicU64) -> std::io::Result<()> {
    let temporary = folder.join(format!("{TEMPORARY}{}", Uuid::new_v4()));
    let written =
        write_synced(&temporary, bytes, syncs).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to tell; a left-over temporary file is never listed or read.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_synced(path: &Path, bytes: &[u8], syncs: &AtomicU64) -> std::io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    usage::count_written(bytes.len());
    sync(&file, path, syncs)
}

/// Which of `folders` and of the folders above them are not known, from the top down.
fn unknown(known: &HashSet<PathBuf>, folders: &[&Path]) -> BTreeSet<PathBuf> {
    let above = |folder: &&Path| {
        let is_unknown = |folder: &&Path| !known.contains(*folder) && folder.parent().is_some();
        folder.ancestors().take_while(is_unknown).map(Path::to_owned).collect::<Vec<_>>()
    };
    folders.iter().flat_map(above).collect()
}

/// Makes folders, in order, and fsyncs each folder that holds some of them.
fn make_durable(folders: &BTreeSet<PathBuf>, syncs: &AtomicU64) -> std::io::Result<()> {
    for folder in folders {
        match fs::create_dir(folder) {
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists && folder.is_dir() => (),
            result => result?,
        }
    }
    sync_folders(folders.iter().map(PathBuf::as_path), syncs)
}

fn sync_folder(folder: &Path, syncs: &AtomicU64) -> std::io::Result<()> {
    match File::open(folder) {
        // A parent that this user may not read was not made by us and is nothing we can sync.
        Err(cause) if cause.kind() == ErrorKind::PermissionDenied => Ok(()),
        opened => sync(&opened?, folder, syncs),
    }
}

/// Everything that has to be on the disk goes through here.
fn sync(file: &File, path: &Path, syncs: &AtomicU64) -> std::io::Result<()> {
    #[cfg(test)]
    tests::note(path);
    // Only tests note which files are synced.
    #[cfg(not(test))]
    let _ = path;
    syncs.fetch_add(1, Ordering::Relaxed);
    file.sync_all()
}

#[cfg(test)]
mod tests;
