//! Files in a table's folder that nothing names: those of writers that never committed, and of crashes.
//!
//! A file is an orphan once it is older than the grace and no metadata of the table names it. It is marked
//! when it is seen first. A search that finds it unchanged a grace later queues it for deletion, in one
//! transaction with a step of the table's version, see [`crate::metastore::orphans`].
//!
//! Its one invariant: what a snapshot of the table names, or names when its commit is made, is never
//! queued. A table of which anything does not read, and what may be something else than a file that a
//! writer left, stay as they are.

pub(super) mod folders;
mod kept;
mod reachable;

use super::{Catalog, LoadedTable, trash::is_shared, write::lost_every_race};
use crate::{
    error::CatalogError,
    location::Location,
    metastore::orphans::OrphanMark,
    snapshot::OBSOLETE_GRACE_MS,
    storage::{Storage, listing::ListedFile},
};
use iceberg::{TableIdent, spec::TableMetadata};
use kept::{KeptFiles, KeptReason, is_of_a_writer};
use reachable::ReachableFiles;
use std::collections::{HashMap, HashSet};

/// The least age of an orphan, and the least time between two looks at it. Nothing undercuts it: a writer
/// may need as long between its first file and its commit.
pub const ORPHAN_GRACE_MIN_MS: i64 = DAY_MS;
/// How long it is remembered that a file was deleted as an orphan: a commit that names it gets an error.
const REMEMBERED_MS: i64 = 90 * DAY_MS;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Most orphans of one search, some 300 bytes each; further ones are found once these are gone.
const ORPHANS_MAX: usize = 100_000;
/// Most files of one transaction.
const BATCH_FILES: usize = 1_000;
/// How many commits may come before a batch, each between a look at the table and the transaction.
const COMMITS_MAX: usize = 20;
/// How the names of metadata files end.
const METADATA: &str = ".metadata.json";
/// How far the clock of a store may be ahead of this one.
const STORE_AHEAD_MAX_MS: i64 = 15 * 60 * 1000;

/// The orphans of a catalog's tables.
#[derive(Clone, Copy, Debug)]
pub struct Orphans<'a>(&'a Catalog);

/// An orphan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrphanFile {
    /// Where it is.
    pub location: String,
    /// How long it is.
    pub bytes: u64,
    /// Whether it was seen so a grace ago, and goes now.
    pub is_due: bool,
    modified_ms: i64,
}

/// How many files were queued for deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueuedOrphans {
    /// So many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What was found of one table.
pub struct OrphanSearch {
    table: TableIdent,
    storage: Storage,
    /// Its folder.
    own: Location,
    /// The last state that was looked at.
    base: LoadedTable,
    reachable: ReachableFiles,
    /// In the order of their locations.
    orphans: Vec<OrphanFile>,
    /// Whether there are more.
    is_cut: bool,
    kept: KeptFiles,
    /// When the current metadata file was written.
    current_ms: Option<i64>,
    /// What former searches marked.
    marks: HashMap<String, OrphanMark>,
    times: SearchTimes,
}

/// What tells the age of a file.
#[derive(Clone, Copy, Debug)]
struct SearchTimes {
    now_ms: i64,
    grace_ms: i64,
}

impl std::fmt::Debug for OrphanSearch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OrphanSearch").field("table", &self.table).finish_non_exhaustive()
    }
}

impl OrphanSearch {
    /// The orphans, at most 100 000 of them.
    #[must_use]
    pub fn orphans(&self) -> &[OrphanFile] {
        &self.orphans
    }

    /// What else no metadata names and stays, in words.
    #[must_use]
    pub fn kept(&self) -> Vec<String> {
        let mut reasons = self.kept.reasons();
        if self.is_cut {
            reasons.push(format!(
                "more than {ORPHANS_MAX} orphans: further ones are found once these are deleted"
            ));
        }
        reasons
    }

    /// Refuses a table in whose folder another one lies that this catalog does not have, such as one that
    /// was unregistered, and a table to which another catalog commits: what those name is unknown here. A
    /// crash of this one leaves a newer metadata file as well, until the next commit.
    fn check_is_alone(&self) -> Result<(), CatalogError> {
        let folder =
            |location: &str| location.rsplit_once('/').map(|(folder, _)| folder.to_owned());
        let own = folder(&self.base.metadata_location);
        let is_others =
            |file: &&OrphanFile| file.location.ends_with(METADATA) && folder(&file.location) != own;
        if let Some(file) = self.orphans.iter().find(is_others) {
            return Err(CatalogError::Invalid(format!(
                "`{}` may be of another table in its folder: move that one elsewhere, or delete it",
                file.location
            )));
        }
        let is_newer = |file: &&OrphanFile| {
            file.location.ends_with(METADATA)
                && self.current_ms.is_some_and(|current_ms| current_ms < file.modified_ms)
        };
        match self.orphans.iter().find(is_newer) {
            Some(file) => Err(CatalogError::Invalid(format!(
                "`{}` is newer than its metadata file: another catalog may commit to it. If none does, \
                 this ends with the next commit",
                file.location
            ))),
            None => Ok(()),
        }
    }

    /// Takes a file that is there.
    fn take(&mut self, file: ListedFile) {
        if self.reachable.has(&file.location) {
            if file.location == self.base.metadata_location {
                self.current_ms = file.modified_ms;
            }
            return;
        }
        let SearchTimes { now_ms, grace_ms } = self.times;
        // Whoever looks for a file in the queue does so by its normal form.
        let is_own = self.own.admit(&file.location).is_ok_and(|own| own.as_str() == file.location);
        let kept = match file.modified_ms {
            _ if !file.is_plain => Some(KeptReason::NoFile),
            _ if !is_own || !is_of_a_writer(&self.storage, &file.location) => {
                Some(KeptReason::Name)
            }
            Some(modified_ms) if now_ms + STORE_AHEAD_MAX_MS < modified_ms => {
                Some(KeptReason::Future)
            }
            Some(modified_ms) if 0 < modified_ms => None,
            Some(_) | None => Some(KeptReason::Age),
        };
        if let Some(reason) = kept {
            self.kept.add(reason, &file.location);
            return;
        }
        let modified_ms = file.modified_ms.unwrap_or(i64::MAX);
        if now_ms - grace_ms < modified_ms {
            return;
        }
        if self.orphans.len() == ORPHANS_MAX {
            self.is_cut = true;
            return;
        }
        self.orphans.push(OrphanFile::of(file, modified_ms, &self.marks, self.times));
    }
}

impl Catalog {
    /// The orphans of its tables.
    #[must_use]
    pub fn orphans(&self) -> Orphans<'_> {
        Orphans(self)
    }

    /// Refuses a table from elsewhere if a file that its snapshots have is to be deleted, or was deleted as
    /// an orphan: an older state may have what the table had no more.
    pub(super) async fn check_files_stay(
        &self,
        metadata: &TableMetadata,
    ) -> Result<(), CatalogError> {
        let own = self.inner.storage.normalize(metadata.location())?;
        let deleted = self.metastore().deletions_in(&own).await?;
        if deleted.is_empty() {
            return Ok(());
        }
        let mut reachable = ReachableFiles::default();
        match reachable.take_in_snapshots(&self.inner.storage, &own, metadata).await {
            // Where nobody looks into files, they may be whatever they are.
            Err(cause) if cause.is_damage() && !self.inner.options.checks_contents => return Ok(()),
            read => read?,
        }
        let named: Vec<String> = deleted.into_iter().filter(|file| reachable.has(file)).collect();
        self.check_not_queued(&own, &named).await
    }
}

impl Orphans<'_> {
    /// Looks for the orphans of a table, which are older than `grace_ms`, and than 24 hours in any case.
    /// Changes nothing.
    ///
    /// # Errors
    /// The table is left alone: `NoSuchTable`; `Invalid` when its files may be another table's, or one
    /// that tells which are its own does not read; `LocationForbidden` where a link leads to its folder,
    /// `MissingMetadata`, `Iceberg`, `Storage`, `Metastore`.
    pub async fn search(
        self,
        table: &TableIdent,
        grace_ms: i64,
    ) -> Result<OrphanSearch, CatalogError> {
        let base = self.0.tables().load(table).await?;
        let own = self.own_folder(&base).await?;
        let storage = &self.0.inner.storage;
        let mut reachable = ReachableFiles::default();
        reachable.take_in(storage, &own, &base).await?;
        let marks = self.0.metastore().orphan_marks(base.metadata.uuid()).await?;
        let grace_ms = grace_ms.max(ORPHAN_GRACE_MIN_MS);
        let times = SearchTimes { now_ms: self.0.now_ms(), grace_ms };
        let mut listing = storage.list_files(&own)?;
        let mut search = OrphanSearch {
            table: table.clone(),
            storage: storage.clone(),
            own,
            base,
            reachable,
            orphans: Vec::new(),
            is_cut: false,
            kept: KeptFiles::default(),
            current_ms: None,
            marks,
            times,
        };
        loop {
            let page = listing.next_page().await?;
            if page.is_empty() {
                break;
            }
            page.into_iter().for_each(|file| search.take(file));
        }
        search.check_is_alone()?;
        search.orphans.sort_by(|a, b| a.location.cmp(&b.location));
        // Files that are queued already are the queue's.
        let locations: Vec<String> =
            search.orphans.iter().map(|file| file.location.clone()).collect();
        let queued: HashSet<String> =
            self.0.metastore().queued_files(&locations).await?.into_iter().collect();
        search.orphans.retain(|file| !queued.contains(&file.location));
        Ok(search)
    }

    /// Marks the orphans that were not seen before, or were written since, and forgets the marks of files
    /// that are none any more. Durable on return.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn mark(self, search: &OrphanSearch) -> Result<(), CatalogError> {
        let metastore = self.0.metastore();
        let new = new_marks(&search.orphans, &search.marks, search.times.now_ms);
        for marks in new.chunks(BATCH_FILES) {
            metastore.mark_orphans(search.base.metadata.uuid(), marks).await?;
        }
        if search.is_cut {
            return Ok(());
        }
        let found: HashSet<&str> =
            search.orphans.iter().map(|file| file.location.as_str()).collect();
        let gone = search.marks.keys().filter(|location| !found.contains(location.as_str()));
        let gone: Vec<String> = gone.cloned().collect();
        for locations in gone.chunks(BATCH_FILES) {
            metastore.unmark_orphans(locations).await?;
        }
        Ok(())
    }

    /// Queues the orphans that are due for deletion, but for those that a commit names meanwhile: a
    /// commit of one that is queued gets an error. Durable on return.
    ///
    /// # Errors
    /// `Metastore`, `CommitFailed` when too many commits came meanwhile; what was queued before stays so.
    /// As [`Orphans::search`] when the table changed and does not read any more.
    pub async fn queue(self, mut search: OrphanSearch) -> Result<QueuedOrphans, CatalogError> {
        let due = search.orphans.iter().filter(|file| file.is_due);
        let mut due: Vec<OrphanFile> = due.cloned().collect();
        let mut queued = QueuedOrphans::default();
        while !due.is_empty() {
            let batch = due.split_off(due.len().saturating_sub(BATCH_FILES));
            let batch = self.queue_batch(&mut search, batch).await?;
            queued.files += batch.len() as u64;
            queued.bytes += batch.iter().map(|file| file.bytes).sum::<u64>();
        }
        Ok(queued)
    }

    /// Queues those of a batch that are still named by nothing, and gives them.
    async fn queue_batch(
        self,
        search: &mut OrphanSearch,
        mut batch: Vec<OrphanFile>,
    ) -> Result<Vec<OrphanFile>, CatalogError> {
        let uuid = search.base.metadata.uuid();
        for _ in 0..COMMITS_MAX {
            batch.retain(|file| !search.reachable.has(&file.location));
            if batch.is_empty() {
                return Ok(batch);
            }
            let now_ms = self.0.now_ms();
            let times = (now_ms, now_ms + OBSOLETE_GRACE_MS);
            let marks: Vec<OrphanMark> = batch.iter().map(|file| file.mark(now_ms)).collect();
            let pointer = (uuid, search.base.version);
            // Commits of this process that are under way end first: each would lose its race to each batch.
            let turn = self.0.inner.locks.lock(std::iter::once(&search.table)).await;
            let is_queued = self.0.metastore().queue_orphans(pointer, &marks, times).await?;
            drop(turn);
            if is_queued {
                search.base.version += 1;
                return Ok(batch);
            }
            // A commit came meanwhile, which may have added one of them.
            let base = self.0.tables().load(&search.table).await?;
            if base.metadata.uuid() != uuid || self.own_folder(&base).await? != search.own {
                return Err(CatalogError::NoSuchTable(search.table.to_string()));
            }
            search.reachable.take_in(&self.0.inner.storage, &search.own, &base).await?;
            search.base = base;
        }
        Err(lost_every_race(&search.table))
    }

    /// Forgets what was marked or deleted very long ago.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn forget_old(self) -> Result<(), CatalogError> {
        self.0.metastore().forget_orphans(self.0.now_ms() - REMEMBERED_MS).await
    }

    /// The folder that is the table's alone.
    async fn own_folder(self, table: &LoadedTable) -> Result<Location, CatalogError> {
        let metadata = &table.metadata;
        if !self.0.inner.options.checks_contents {
            return Err(CatalogError::Invalid(
                "with `catalog.foreign_files=allow` other tables may have files in its folder"
                    .to_owned(),
            ));
        }
        if is_shared(metadata) {
            return Err(CatalogError::Invalid(
                "its property `gc.enabled` is not `true`: its files may be other tables' too"
                    .to_owned(),
            ));
        }
        let own = self.0.inner.storage.normalize(metadata.location())?;
        match self.0.metastore().is_free(&own, metadata.uuid()).await? {
            true => Ok(own),
            false => Err(CatalogError::Invalid(
                "another table lies in its folder, or it in another's".to_owned(),
            )),
        }
    }
}

impl OrphanFile {
    /// A file that nothing names, with what former searches marked.
    fn of(
        file: ListedFile,
        modified_ms: i64,
        marks: &HashMap<String, OrphanMark>,
        SearchTimes { now_ms, grace_ms }: SearchTimes,
    ) -> Self {
        let ListedFile { location, bytes, .. } = file;
        let is_due = marks.get(&location).is_some_and(|mark| {
            is_same(mark, bytes, modified_ms) && mark.marked_ms <= now_ms - grace_ms
        });
        Self { location, bytes, is_due, modified_ms }
    }

    fn mark(&self, marked_ms: i64) -> OrphanMark {
        OrphanMark {
            location: self.location.clone(),
            bytes: stored(self.bytes),
            modified_ms: self.modified_ms,
            marked_ms,
        }
    }
}

/// The marks of files that were not seen before, or were written since.
fn new_marks(
    orphans: &[OrphanFile],
    marks: &HashMap<String, OrphanMark>,
    now_ms: i64,
) -> Vec<OrphanMark> {
    // One of a clock that was wrong would not be due for as long.
    let is_known = |file: &&OrphanFile| {
        marks.get(&file.location).is_some_and(|mark| {
            is_same(mark, file.bytes, file.modified_ms) && mark.marked_ms <= now_ms
        })
    };
    let new = orphans.iter().filter(|file| !is_known(file));
    new.map(|file| file.mark(now_ms)).collect()
}

/// Whether a file is as it was when it was marked.
fn is_same(mark: &OrphanMark, bytes: u64, modified_ms: i64) -> bool {
    mark.bytes == stored(bytes) && mark.modified_ms == modified_ms
}

/// The databases' integers are signed.
fn stored(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
