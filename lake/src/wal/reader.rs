//! Reads the payloads of records from their segments.

use crate::wal::{RecordRef, WalError, segment};
use bytes::Bytes;
use std::{fs::File, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

impl RecordRef {
    /// Reads the payload and checks its crc. Blocking.
    ///
    /// # Errors
    /// [`WalError::Io`], [`WalError::Damaged`].
    pub fn read(&self) -> Result<Bytes, WalError> {
        self.read_from(&self.open()?)
    }

    /// The payloads of records, in their order. A segment stays open as long as the next record is in it, too:
    /// records of single events are many, and to open a file takes longer than to read such a record. Blocking.
    ///
    /// # Errors
    /// As [`RecordRef::read`], for the first record that does not read.
    pub fn read_all(records: &[Self]) -> Result<Vec<Bytes>, WalError> {
        let mut payloads = Vec::with_capacity(records.len());
        let mut opened: Option<(&Arc<PathBuf>, File)> = None;
        for record in records {
            let file = match opened {
                Some((path, file)) if Arc::ptr_eq(path, &record.path) => file,
                Some(_) | None => record.open()?,
            };
            payloads.push(record.read_from(&file)?);
            opened = Some((&record.path, file));
        }
        Ok(payloads)
    }

    fn open(&self) -> Result<File, WalError> {
        let failed = |source| segment::io_error("read record from", &self.path, source);
        File::open(self.path.as_path()).map_err(failed)
    }

    /// The payload in `file`, which is the record's segment.
    fn read_from(&self, file: &File) -> Result<Bytes, WalError> {
        let mut payload = vec![0; self.length as usize];
        file.read_exact_at(&mut payload, self.offset)
            .map_err(|source| segment::io_error("read record from", &self.path, source))?;
        if crc32c::crc32c(&payload) == self.crc {
            return Ok(Bytes::from(payload));
        }
        Err(WalError::Damaged {
            path: self.path.to_path_buf(),
            offset: self.offset,
            reason: format!("the payload of record {} does not match its checksum", self.position),
        })
    }
}
