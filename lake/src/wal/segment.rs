//! Segment files: their header, their names, and how they come and go.
//!
//! What is in them is the matter of `block` and `recover`. A file is called `….seg` only once its
//! header is durable; every change of a name is durable when the function that made it returns.
//!
//! `{generation:020}.seg` is a segment, `free-…` a file to make one of, `zero-…` one that is being
//! filled with zeros. The header of a segment states where the one before it ends, so that nothing
//! behind that end, torn or given up, can ever come back. When the later segment goes first, that
//! statement moves into the earlier one's own header: the seal.

use crate::wal::{LogPosition, WalError, block::BlockOwner};
use bytes::{Buf, BufMut};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Bytes of the header; the first block follows.
pub(crate) const HEADER_BYTES: u64 = 4096;
const MAGIC: &[u8; 8] = b"\x89ICESEG\n";
const VERSION: u32 = 1;
/// Header fields without the crc, which follows them.
const FIELDS_BYTES: usize = 52;
/// The seal has a disk sector of its own: writing it cannot harm the header.
const SEAL_AT: usize = 512;
const SEAL_BYTES: usize = 28;
const SEAL_MAGIC: &[u8; 8] = b"\x89ICEEND\n";
/// Rights of a segment and of the folder: events are for who runs the server.
pub(crate) const PRIVATE: u32 = 0o600;
const PRIVATE_FOLDER: u32 = 0o700;
/// A fresh file is filled and synced in steps of this, so that appends meanwhile wait little.
const FILL_BYTES: usize = 4 << 20;

/// Where a segment ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentEnd {
    /// Which segment; 0 is none.
    pub(crate) generation: u64,
    /// Behind its last durable block.
    pub(crate) end: u64,
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// What its blocks carry.
    pub(crate) owner: BlockOwner,
    /// No record of it has a lower position.
    pub(crate) first_position: LogPosition,
    /// The segment before it.
    pub(crate) previous: SegmentEnd,
}

impl SegmentHeader {
    /// The header as bytes, without a seal.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES as usize);
        bytes.put_slice(MAGIC);
        bytes.put_u32_le(VERSION);
        bytes.put_u64_le(self.owner.generation);
        bytes.put_u64_le(self.owner.salt);
        bytes.put_u64_le(self.first_position);
        bytes.put_u64_le(self.previous.generation);
        bytes.put_u64_le(self.previous.end);
        debug_assert_eq!(bytes.len(), FIELDS_BYTES);
        bytes.put_u32_le(crc32c::crc32c(&bytes));
        bytes.resize(HEADER_BYTES as usize, 0);
        bytes
    }

    /// Reads the header that a segment's bytes start with.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let fields = bytes
            .get(..FIELDS_BYTES + 4)
            .filter(|_| HEADER_BYTES as usize <= bytes.len() && bytes.starts_with(MAGIC))
            .ok_or_else(|| "the segment has no header".to_owned())?;
        let (fields, mut crc) = fields.split_at(FIELDS_BYTES);
        if crc32c::crc32c(fields) != crc.get_u32_le() {
            return Err("the segment's header does not match its checksum".to_owned());
        }
        let mut fields = &fields[MAGIC.len()..];
        let version = fields.get_u32_le();
        if version != VERSION {
            return Err(format!(
                "the segment has version {version}, but this program supports {VERSION}"
            ));
        }
        Ok(Self {
            owner: BlockOwner { generation: fields.get_u64_le(), salt: fields.get_u64_le() },
            first_position: fields.get_u64_le(),
            previous: SegmentEnd { generation: fields.get_u64_le(), end: fields.get_u64_le() },
        })
    }

    /// The end that the segment's own seal states, if it has one.
    pub(crate) fn sealed_end(&self, bytes: &[u8]) -> Option<u64> {
        let mut seal = bytes.get(SEAL_AT..SEAL_AT + SEAL_BYTES)?;
        let expected = self.encode_seal(seal.get(16..24)?.get_u64_le());
        if seal != expected {
            return None;
        }
        seal.advance(16);
        Some(seal.get_u64_le())
    }

    fn encode_seal(&self, end: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEAL_BYTES);
        bytes.put_slice(SEAL_MAGIC);
        bytes.put_u64_le(self.owner.salt);
        bytes.put_u64_le(end);
        bytes.put_u32_le(crc32c::crc32c(&bytes));
        bytes
    }
}

/// Path of a segment.
pub(crate) fn path(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("{generation:020}.seg"))
}

/// Path of a free file.
pub(crate) fn free_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("free-{number:020}"))
}

/// What a log folder holds.
#[derive(Debug, Default)]
pub(crate) struct FolderListing {
    /// Segments by generation, ascending.
    pub(crate) segments: Vec<(u64, PathBuf)>,
    /// Free files by number.
    pub(crate) free: Vec<(u64, PathBuf)>,
    /// Files whose filling was interrupted.
    pub(crate) unfinished: Vec<PathBuf>,
}

/// Lists a log folder; other files are left alone.
///
/// # Errors
/// [`WalError::Io`].
pub(crate) fn list(folder: &Path) -> Result<FolderListing, WalError> {
    let failed = |source| io_error("list folder", folder, source);
    let mut listing = FolderListing::default();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if let Some(generation) = name.strip_suffix(".seg").and_then(|text| text.parse().ok()) {
            listing.segments.push((generation, path));
        } else if let Some(number) = name.strip_prefix("free-").and_then(|text| text.parse().ok()) {
            listing.free.push((number, path));
        } else if name.starts_with("zero-") {
            listing.unfinished.push(path);
        }
    }
    listing.segments.sort();
    listing.free.sort();
    Ok(listing)
}

/// Makes a free file of `bytes` zeros. Written, not only allocated: later an fdatasync of a block
/// has no metadata to write.
///
/// # Errors
/// [`WalError::Io`]; what was written is removed again.
pub(crate) fn fill(folder: &Path, number: u64, bytes: u64) -> Result<PathBuf, WalError> {
    let unfinished = folder.join(format!("zero-{number:020}"));
    let free = free_path(folder, number);
    let filled = fill_file(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, &free));
    filled.map_err(|source| {
        remove_quietly(&unfinished);
        io_error("fill segment file", &unfinished, source)
    })?;
    Ok(free)
}

fn fill_file(path: &Path, bytes: u64) -> io::Result<()> {
    let file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE).open(path)?;
    let zeros = vec![0; FILL_BYTES];
    let mut at = 0;
    while at < bytes {
        let step = (bytes - at).min(FILL_BYTES as u64);
        file.write_all_at(&zeros[..step as usize], at)?;
        file.sync_data()?;
        at += step;
    }
    file.sync_all()
}

/// Turns a free file, or a new one when there is none, into a segment. When it returns, header and
/// name are durable.
///
/// # Errors
/// [`WalError::Io`]; the file is removed if that works, and holds no block in any case.
pub(crate) fn create(
    folder: &Path,
    free: Option<PathBuf>,
    header: &SegmentHeader,
) -> Result<(PathBuf, File), WalError> {
    let generation = header.owner.generation;
    let raw = free.unwrap_or_else(|| folder.join(format!("zero-new-{generation:020}")));
    let path = path(folder, generation);
    let made = (|| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(PRIVATE);
        let file = options.open(&raw)?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync_all()?;
        fs::rename(&raw, &path)?;
        File::open(folder)?.sync_all()?;
        Ok(file)
    })();
    match made {
        Ok(file) => Ok((path, file)),
        Err(source) => {
            remove_quietly(&raw);
            remove_quietly(&path);
            Err(io_error("create segment", &path, source))
        }
    }
}

/// Writes the end of a segment into its own header; does nothing when the segment is gone.
///
/// # Errors
/// [`WalError::Io`]; [`WalError::Damaged`] when its header is broken.
pub(crate) fn seal(folder: &Path, end: SegmentEnd) -> Result<(), WalError> {
    let path = path(folder, end.generation);
    let file = match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io_error("open segment", &path, source)),
    };
    let mut bytes = vec![0; HEADER_BYTES as usize];
    file.read_exact_at(&mut bytes, 0).map_err(|source| io_error("read", &path, source))?;
    let header = SegmentHeader::decode(&bytes).map_err(|reason| WalError::Damaged {
        path: path.clone(),
        offset: 0,
        reason,
    })?;
    // A lower one is there when the segment was quarantined after the next one had stated its end.
    let end = header.sealed_end(&bytes).map_or(end.end, |sealed| sealed.min(end.end));
    file.write_all_at(&header.encode_seal(end), SEAL_AT as u64)
        .and_then(|()| file.sync_data())
        .map_err(|source| io_error("seal segment", &path, source))
}

/// Makes a folder and those above it, each with a durable name and for its owner alone.
///
/// # Errors
/// [`WalError::Io`].
pub(crate) fn create_folder(folder: &Path) -> Result<(), WalError> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().unwrap_or(Path::new(""));
    create_folder(above)?;
    match DirBuilder::new().mode(PRIVATE_FOLDER).create(folder) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            return Err(io_error("create folder", folder, source));
        }
        _ => (),
    }
    sync_folder(if above.as_os_str().is_empty() { Path::new(".") } else { above })
}

/// Makes the names in a folder durable.
///
/// # Errors
/// [`WalError::Io`].
pub(crate) fn sync_folder(folder: &Path) -> Result<(), WalError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| io_error("sync folder", folder, source))
}

/// Removes a file; it is no harm when it is gone already.
///
/// # Errors
/// [`WalError::Io`].
pub(crate) fn remove(path: &Path) -> Result<(), WalError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", path, source))
        }
        _ => Ok(()),
    }
}

/// Removes a file that no one needs; if that fails, the next start tries again.
pub(crate) fn remove_quietly(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a file of the log cannot be removed");
    }
}

/// An IO error on a file.
pub(crate) fn io_error(operation: &'static str, path: &Path, source: io::Error) -> WalError {
    WalError::Io { operation, path: path.to_owned(), source }
}
