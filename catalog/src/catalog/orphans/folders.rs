//! Folders of tables that never were: what a statement leaves that was killed before it made its table.
//!
//! The folder of a new table is made by its first file, and no row of the metastore has it before the commit.
//! It goes as orphans do: seen, and a grace later seen unchanged.
//!
//! Its one invariant: a folder of which anything else is known stays. No table, view or dropped table lies in it
//! or around it; it has no metadata file, which tables have that were dropped without their files or that another
//! catalog has; and each of its files has a name that this program gives, and is older than the grace.

use super::{BATCH_FILES, ORPHANS_MAX, OrphanFile, Orphans, QueuedOrphans, SearchTimes, new_marks};
use crate::{
    catalog::{ORPHAN_GRACE_MIN_MS, folder_of},
    error::CatalogError,
    location::Location,
    metastore::{Levels, orphans::OrphanMark},
    snapshot::OBSOLETE_GRACE_MS,
    storage::{Storage, listing::ListedFile},
};
use std::collections::HashMap;
use uuid::Uuid;

/// Most files of a folder that is looked at: a statement writes at most 10 000, and the manifests of its commit.
const FOLDER_FILES_MAX: usize = 20_000;
/// Most folders of one search, as long as they have fewer than [`ORPHANS_MAX`] files; further ones are found once
/// these are gone.
const FOLDERS_MAX: usize = 100;
/// Characters of a ULID.
const ULID_LENGTH: usize = 26;

/// A folder of no table, and its files.
#[derive(Debug)]
pub struct OrphanFolder {
    own: Location,
    /// That its table would have had.
    uuid: Uuid,
    orphans: Vec<OrphanFile>,
    /// What former searches marked.
    marks: HashMap<String, OrphanMark>,
    now_ms: i64,
}

impl OrphanFolder {
    /// Where it is.
    #[must_use]
    pub fn location(&self) -> &str {
        self.own.as_str()
    }

    /// Its files.
    #[must_use]
    pub fn orphans(&self) -> &[OrphanFile] {
        &self.orphans
    }

    /// Whether all of them go now: they are of one statement.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.orphans.iter().all(|file| file.is_due)
    }
}

impl Orphans<'_> {
    /// Looks for such folders where the tables of a namespace have theirs, whose files are all older than `grace_ms`,
    /// and than 24 hours in any case; for at most 100. Changes nothing. Where tables may name files of other
    /// folders, there are none.
    ///
    /// # Errors
    /// `LocationForbidden`, `Storage`, `Metastore`.
    pub async fn search_folders(
        self,
        levels: &Levels,
        grace_ms: i64,
    ) -> Result<Vec<OrphanFolder>, CatalogError> {
        if !self.0.inner.options.checks_contents {
            return Ok(Vec::new());
        }
        let (storage, metastore) = (&self.0.inner.storage, self.0.metastore());
        let times =
            SearchTimes { now_ms: self.0.now_ms(), grace_ms: grace_ms.max(ORPHAN_GRACE_MIN_MS) };
        let home = format!("{}/{}", storage.root(), folder_of(levels));
        let (mut found, mut files) = (Vec::new(), 0);
        for name in storage.folders_in(&home).await? {
            let Some(uuid) = as_uuid(&name) else { continue };
            let own = storage.normalize(&format!("{home}/{name}"))?;
            if !metastore.is_free(&own, Uuid::nil()).await? {
                continue;
            }
            let Some(folder) = self.folder_of_no_table(own, uuid, times).await? else { continue };
            files += folder.orphans.len();
            found.push(folder);
            if found.len() == FOLDERS_MAX || ORPHANS_MAX <= files {
                break;
            }
        }
        Ok(found)
    }

    /// The folder, if all that is known of its files is that this program wrote them long ago.
    async fn folder_of_no_table(
        self,
        own: Location,
        uuid: Uuid,
        times: SearchTimes,
    ) -> Result<Option<OrphanFolder>, CatalogError> {
        let (storage, metastore) = (&self.0.inner.storage, self.0.metastore());
        let marks = metastore.orphan_marks(uuid).await?;
        let mut listing = storage.list_files(&own)?;
        let mut orphans = Vec::new();
        loop {
            let page = listing.next_page().await?;
            if page.is_empty() {
                break;
            }
            for file in page {
                let Some(modified_ms) = written_long_ago(storage, &file, &own, times) else {
                    return Ok(None);
                };
                orphans.push(OrphanFile::of(file, modified_ms, &marks, times));
            }
            if FOLDER_FILES_MAX < orphans.len() {
                return Ok(None);
            }
        }
        let locations: Vec<String> = orphans.iter().map(|file| file.location.clone()).collect();
        // What is queued is of a table that was purged, or of an earlier run.
        if orphans.is_empty() || !metastore.queued_files(&locations).await?.is_empty() {
            return Ok(None);
        }
        orphans.sort_by(|one, other| one.location.cmp(&other.location));
        Ok(Some(OrphanFolder { own, uuid, orphans, marks, now_ms: times.now_ms }))
    }

    /// Marks the files of a folder that were not seen before, or were written since. Durable on return.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn mark_folder(self, folder: &OrphanFolder) -> Result<(), CatalogError> {
        let new = new_marks(&folder.orphans, &folder.marks, folder.now_ms);
        for marks in new.chunks(BATCH_FILES) {
            self.0.metastore().mark_orphans(folder.uuid, marks).await?;
        }
        Ok(())
    }

    /// Queues the files of a folder for deletion if all are due and no table took the place meanwhile. Durable on
    /// return.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn queue_folder(self, folder: &OrphanFolder) -> Result<QueuedOrphans, CatalogError> {
        if !folder.is_due() {
            return Ok(QueuedOrphans::default());
        }
        let now_ms = self.0.now_ms();
        let times = (now_ms, now_ms + OBSOLETE_GRACE_MS);
        let marks: Vec<OrphanMark> = folder.orphans.iter().map(|file| file.mark(now_ms)).collect();
        let place = (folder.uuid, &folder.own);
        if !self.0.metastore().queue_orphan_folder(place, &marks, times).await? {
            return Ok(QueuedOrphans::default());
        }
        let bytes = folder.orphans.iter().map(|file| file.bytes).sum();
        Ok(QueuedOrphans { files: folder.orphans.len() as u64, bytes })
    }
}

/// The identity of the table that a folder is named after.
fn as_uuid(name: &str) -> Option<Uuid> {
    Uuid::parse_str(name).ok().filter(|uuid| uuid.to_string() == name)
}

/// When a file was written, if that is longer ago than the grace and its name is of this program.
fn written_long_ago(
    storage: &Storage,
    file: &ListedFile,
    own: &Location,
    times: SearchTimes,
) -> Option<i64> {
    let path = file.location.strip_prefix(own.as_str())?.strip_prefix('/')?;
    let modified_ms = file.modified_ms.filter(|written_ms| 0 < *written_ms)?;
    let is_old = modified_ms <= times.now_ms - times.grace_ms;
    let is_of_ours = is_of_a_statement(path) || storage.is_temporary(path.rsplit('/').next()?);
    (file.is_plain && is_old && is_of_ours).then_some(modified_ms)
}

/// Whether a path in a table's folder is `data/<xx>/<ulid>.parquet`, or a manifest or a list of them.
fn is_of_a_statement(path: &str) -> bool {
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["data", part, name] => {
            let id = name.strip_suffix(".parquet").unwrap_or_default();
            part.len() == 2
                && part.bytes().all(|byte| byte.is_ascii_hexdigit())
                && id.len() == ULID_LENGTH
                && id.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
        }
        ["metadata", name] => name.ends_with(".avro"),
        _ => false,
    }
}
