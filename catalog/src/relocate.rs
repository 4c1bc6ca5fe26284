//! Tables of a warehouse that was moved or copied: metadata files, manifest lists, manifests and
//! position-delete files name every file by its whole path, so all of them are written anew.
//!
//! Files are written beside the old ones under names that follow from the old name and the move,
//! and the table's pointer is swapped last. Its one invariant: until then the table is as it was. A
//! run that was killed is repeated, and writes the same files once more.

mod manifests;
mod metadata;
mod needed;
mod place;

pub use needed::needed;
pub use place::{MovedWarehouse, elsewhere, moved};

use crate::{
    error::CatalogError,
    location::Location,
    metastore::{
        Metastore, ObsoleteFile,
        moved::{PlaceKind, TablePlace},
    },
    storage::{self, Storage},
};
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap};

/// How long files stay that nothing names any more after the move.
const GRACE_MS: i64 = 7 * 86_400_000;
/// What is between a file's old name and what tells the move.
const MARK: &str = "-moved-";

/// From where to where a warehouse was moved.
#[derive(Clone, Debug)]
pub struct WarehouseMove {
    /// The warehouse's former place, which files still name.
    pub from: Location,
    /// Where the files are now.
    pub to: Location,
}

impl WarehouseMove {
    /// The new path of a file that lay in the former place.
    #[must_use]
    pub fn path(&self, path: &str) -> Option<String> {
        self.from.moved(path, &self.to)
    }

    /// The name of a file that is written anew: the old one may be read while it is.
    fn renamed(&self, moved: &str) -> String {
        let (folder, name) = moved.rsplit_once('/').unwrap_or(("", moved));
        let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
        // A second move takes the place of the first one in the name.
        let stem = stem.split(MARK).next().unwrap_or(stem);
        format!("{folder}/{stem}{MARK}{:016x}.{extension}", self.hash(name))
    }

    fn hash(&self, name: &str) -> u64 {
        xxhash_rust::xxh3::xxh3_64(format!("{}\n{}\n{name}", self.from, self.to).as_bytes())
    }
}

/// A position-delete file whose paths were changed.
#[derive(Clone, Debug)]
pub struct MovedDeletes {
    /// The file.
    pub bytes: Bytes,
    /// The first of its paths in order.
    pub lowest: String,
    /// The last one.
    pub highest: String,
}

/// Changes the paths in a position-delete file that is Parquet, which this crate does not read.
pub type MoveDeletes = dyn Fn(Bytes, &WarehouseMove) -> Result<MovedDeletes, String> + Send + Sync;

/// What became of one table or view.
#[derive(Clone, Debug)]
pub struct RelocatedTable {
    /// Which one, as it was.
    pub place: TablePlace,
    /// Where it is now.
    pub location: String,
    /// Its metadata file now.
    pub metadata_location: String,
    /// Files that were written anew.
    pub files: usize,
    /// False when another program changed the table meanwhile; the command is to be repeated.
    pub is_done: bool,
}

/// Moves tables one after the other.
pub struct Relocation<'a> {
    /// Which has the tables. No server may have it open.
    pub metastore: &'a Metastore,
    /// The files, at their new place.
    pub storage: &'a Storage,
    /// The move.
    pub moved: WarehouseMove,
    /// For position deletes in Parquet.
    pub deletes: &'a MoveDeletes,
    /// When the old files may be deleted follows from it.
    pub now_ms: i64,
    /// Reads everything and writes nothing.
    pub dry_run: bool,
}

impl std::fmt::Debug for Relocation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relocation").field("moved", &self.moved).finish_non_exhaustive()
    }
}

/// Files of one table that are written anew.
#[derive(Default)]
struct RewrittenFiles {
    /// By old path.
    manifests: HashMap<String, (String, i64)>,
    lists: HashMap<String, String>,
    /// Where the old ones are now.
    replaced: BTreeSet<String>,
}

impl Relocation<'_> {
    /// The tables and views that still lie at the former place.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn places(&self) -> Result<Vec<TablePlace>, CatalogError> {
        let places = self.metastore.places().await?;
        Ok(places.into_iter().filter(|place| self.moved.path(&place.location).is_some()).collect())
    }

    /// Moves one of them. Durable on return.
    ///
    /// # Errors
    /// [`CatalogError`]; the table is as it was.
    pub async fn relocate(&self, place: TablePlace) -> Result<RelocatedTable, CatalogError> {
        let location = self.path(&place.location)?;
        let mut written = RewrittenFiles::default();
        let rewritten = match place.of {
            PlaceKind::View => self.view(&place, &mut written).await,
            PlaceKind::Table | PlaceKind::Dropped => self.table(&place, &mut written).await,
        };
        let metadata_location = match rewritten {
            // It goes along as it is, so that it can still be purged.
            Err(cause) if is_lost(&place, &cause) => {
                written = RewrittenFiles::default();
                self.path(&place.metadata_location)?
            }
            rewritten => rewritten?,
        };
        let obsolete: Vec<ObsoleteFile> = written
            .replaced
            .iter()
            .map(|file| ObsoleteFile {
                location: file.clone(),
                not_before_ms: self.now_ms.saturating_add(GRACE_MS),
            })
            .collect();
        let is_done = self.dry_run
            || self.metastore.move_place(&place, &location, &metadata_location, &obsolete).await?;
        Ok(RelocatedTable { place, location, metadata_location, files: obsolete.len(), is_done })
    }

    /// Moves what is no table, once all tables are moved. Gives how many locations of namespaces
    /// and files that wait to be deleted that were.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn finish(&self) -> Result<(u64, u64), CatalogError> {
        if self.dry_run {
            return Ok((0, 0));
        }
        self.metastore.move_others(&self.moved.from, &self.moved.to).await
    }

    /// Where a file is now, whichever way it is named.
    fn path(&self, path: &str) -> Result<String, CatalogError> {
        if let Some(moved) = self.moved.path(path) {
            return Ok(moved);
        }
        match Location::parse(path).filter(|path| path.is_inside(&self.moved.to)) {
            Some(path) => Ok(path.to_string()),
            None => Err(CatalogError::Invalid(format!(
                "`{path}` is neither in `{}` nor in `{}`",
                self.moved.from, self.moved.to
            ))),
        }
    }

    /// Reads a file by its old path.
    async fn read(&self, path: &str) -> Result<Bytes, CatalogError> {
        self.storage.get(&self.path(path)?).await
    }

    /// Writes a file in the place of the one with this old path; gives the new one's path.
    async fn write(
        &self,
        old: &str,
        new: String,
        bytes: impl Into<Bytes>,
        written: &mut RewrittenFiles,
    ) -> Result<String, CatalogError> {
        if !self.dry_run {
            self.storage.put(&new, bytes.into()).await?;
        }
        written.replaced.insert(self.path(old)?);
        Ok(new)
    }
}

/// Whether the table was dropped and cannot be restored, because a file of it is gone. Nothing waits
/// for such a table; says so in the log.
pub fn is_lost(place: &TablePlace, cause: &CatalogError) -> bool {
    let is_gone = matches!(cause, CatalogError::MissingMetadata(_)) || storage::is_missing(cause);
    let is_lost = place.of == PlaceKind::Dropped && is_gone;
    if is_lost {
        let (name, error) = (&place.name, cause as &dyn std::error::Error);
        tracing::warn!(name, error, "a dropped table lacks files and is left out");
    }
    is_lost
}

/// A file that does not read.
fn unreadable(path: &str, cause: impl std::fmt::Display) -> CatalogError {
    CatalogError::Invalid(format!("`{path}` cannot be rewritten for another location: {cause}"))
}

#[cfg(test)]
mod tests;
