//! The file of an SQLite metastore, as the system knows it: an open database goes on where its file was
//! deleted or another one took its name, and what it writes then is gone with the process.
//!
//! Its one invariant: no transaction that writes begins, and no connection is used that was made since,
//! unless the name is still that of the file that was opened.

use std::{
    fs, io,
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The file that was opened.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// The file of the metastore is not there any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the metastore file `{}` {reason}: move the file back that was there; if it is lost, stop the \
     server, restore a backup or run `icecore repair`, and start it again",
    path.display()
)]
pub struct MissingDatabase {
    path: PathBuf,
    reason: String,
}

impl DatabaseFile {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    /// Fails where the file is not there, or another one is in its place.
    pub(super) fn check(&self) -> Result<(), MissingDatabase> {
        let reason = match fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (self.device, self.inode) => return Ok(()),
            Ok(_) => "is not the one that this server opened: another file is in its place".into(),
            Err(cause) if cause.kind() == ErrorKind::NotFound => {
                "is gone while the server runs".into()
            }
            Err(cause) => format!("cannot be reached: {cause}"),
        };
        Err(MissingDatabase { path: self.path.clone(), reason })
    }
}

#[cfg(test)]
mod tests {
    use crate::metastore::Metastore;
    use std::{fs, time::Duration};

    #[tokio::test]
    async fn nothing_is_written_once_the_file_is_gone_or_replaced_until_it_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let (file, aside) = (folder.path().join("icecore.db"), folder.path().join("aside.db"));
        let metastore = Metastore::sqlite(&file).await.unwrap();
        let database = metastore.database();
        database.look().unwrap();
        let journal = folder.path().join("icecore.db-wal");
        let kept = fs::read(&journal).unwrap();
        assert!(!kept.is_empty());
        fs::rename(&file, &aside).unwrap();
        let gone = database.look().unwrap_err().to_string();
        assert!(gone.contains("is gone while the server runs: move the file back"), "{gone}");
        assert!(database.begin().await.is_err());
        assert!(!file.exists(), "no new one is made");
        fs::write(&file, b"").unwrap();
        let other = database.look().unwrap_err().to_string();
        assert!(other.contains("another file is in its place"), "{other}");
        assert!(database.begin().await.is_err());
        let read = sqlx::query("SELECT count(*) FROM sqlite_schema").execute(database.readers());
        // A pool tries again and again.
        let read = tokio::time::timeout(Duration::from_millis(200), read).await;
        assert!(!matches!(read, Ok(Ok(_))), "no connection to it is used");
        assert_eq!(fs::metadata(&file).unwrap().len(), 0, "nothing is written to it");
        assert_eq!(fs::read(&journal).unwrap(), kept, "the journal of the other one stays");
        fs::rename(&aside, &file).unwrap();
        database.look().unwrap();
        database.begin().await.unwrap().rollback().await.unwrap();
    }
}
