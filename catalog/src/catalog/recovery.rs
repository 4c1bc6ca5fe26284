//! A catalog found again in its warehouse, for a metastore that was lost.
//!
//! The warehouse is listed once. Each folder with metadata files is a table or a view; its current file
//! is chosen by [`candidates`], its name comes from the list of names by [`naming`]. Nothing is written or
//! deleted here. Its one invariant: a file is a table's only where it lies in the folder that it calls its
//! own, and of two tables that would overlap one comes back.

mod candidates;
mod naming;
mod whole;

use super::{
    Catalog,
    name_list::{ListedFence, NameList},
};
use crate::{
    ancestors, commit,
    error::CatalogError,
    location::Location,
    metastore::{NameKind, ReturningTable},
    retention,
    row_sum::{self, RowSum},
    snapshot::read_list,
    storage::listing::ListedFile,
};
use candidates::{MetadataCandidate, MetadataHead};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{SnapshotRef, TableMetadata, ViewMetadata};
use naming::NameSources;
use std::collections::{BTreeMap, HashSet};
use uuid::Uuid;

pub use naming::RecoveredNames;
pub use whole::{DamagedSnapshot, SnapshotChoice};

/// Folders that are looked at at the same time.
const FOLDERS_AT_ONCE: usize = 32;
/// Most metadata files of a folder that are read and that no newer one names.
const FILES_READ_MAX: usize = 16;
/// Snapshot summary: the position in the writer's log.
const POSITION: &str = "icecore.wal-position";

/// How a catalog is looked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecoveryOptions {
    /// Whether tables come back that were dropped, as far as is known.
    pub with_dropped: bool,
}

/// What was found in the warehouse.
#[derive(Debug, Default)]
pub struct RecoveredCatalog {
    /// Namespaces and the names of everything.
    pub names: RecoveredNames,
    /// Who held the fence and its base, as far as the list of names says.
    pub holder: Option<(Uuid, u64)>,
    /// When the newest list of names was written, ms since 1970; none without one.
    pub listed_ms: Option<i64>,
    /// The metastores that listed names.
    pub metastores: Vec<u64>,
    /// What was left out or is in doubt, and why.
    pub notes: Vec<RecoveryNote>,
}

/// Something that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecoveryNote {
    /// The file or folder.
    pub location: String,
    /// What is with it.
    pub text: String,
}

/// A table or view that comes back.
#[derive(Clone, Debug)]
pub struct RecoveredTable {
    /// As the metastore gets it.
    pub returning: ReturningTable,
    /// Whether it has rows of the service's log.
    pub is_managed: bool,
    /// The highest number of its rows; none where no snapshot says so.
    pub last_seq: Option<u64>,
    /// The position of the log that the newest snapshot of the log's names.
    pub position: Option<u64>,
}

/// A table or view in its folder, without a name.
#[derive(Debug)]
struct FoundTable {
    kind: NameKind,
    uuid: Uuid,
    location: Location,
    metadata_location: String,
    /// The highest number of its metadata files.
    number: u64,
    at_ms: i64,
    snapshots: Vec<commit::SnapshotRow>,
    is_managed: bool,
    /// The name that a table with the documents of a collection says that it has.
    own_name: Option<String>,
    /// The names of its columns, of a table of the service.
    columns: HashSet<String>,
    last_seq: Option<u64>,
    position: Option<u64>,
    /// The rows of the log, of a table of the service.
    acked: Option<RowSum>,
}

/// The metadata of a table or view.
enum FoundMetadata {
    Table(Box<TableMetadata>),
    /// Nothing of it is needed but that it reads.
    View,
}

/// What a folder has.
#[derive(Debug, Default)]
struct FolderContents {
    tables: Vec<FoundTable>,
    notes: Vec<RecoveryNote>,
}

/// Looks for a catalog in its warehouse.
#[derive(Clone, Copy, Debug)]
pub struct Recovery<'a>(&'a Catalog);

impl Catalog {
    /// Looks for it in its warehouse.
    #[must_use]
    pub fn recovery(&self) -> Recovery<'_> {
        Recovery(self)
    }
}

impl RecoveryNote {
    fn new(location: impl Into<String>, text: impl Into<String>) -> Self {
        Self { location: location.into(), text: text.into() }
    }
}

impl Recovery<'_> {
    /// Everything that the warehouse has.
    ///
    /// # Errors
    /// [`CatalogError::Storage`] of a store that does not answer. Files that do not read are in the notes.
    pub async fn find(self, options: RecoveryOptions) -> Result<RecoveredCatalog, CatalogError> {
        let storage = self.0.storage();
        let files = storage.list_all().await?;
        let there: HashSet<&str> = files.iter().map(|file| file.location.as_str()).collect();
        let (lists, metastores) = self.lists(&files).await?;
        let mut folders: BTreeMap<&str, Vec<&ListedFile>> = BTreeMap::new();
        for file in files.iter().filter(|file| candidates::is_metadata(&file.location)) {
            let folder = file.location.rsplit_once('/').map_or("", |(folder, _)| folder);
            folders.entry(folder).or_default().push(file);
        }
        let there = &there;
        let looks: Vec<_> = folders.into_values().map(|files| self.look(files, there)).collect();
        let found: Vec<FolderContents> =
            stream::iter(looks).buffered(FOLDERS_AT_ONCE).try_collect().await?;
        let (mut tables, mut notes): (Vec<FoundTable>, Vec<RecoveryNote>) =
            (Vec::new(), Vec::new());
        for folder in found {
            tables.extend(folder.tables);
            notes.extend(folder.notes);
        }
        // The metastore of most of these tables, where one was used for a moment in the place of the lost one.
        let uuids: HashSet<Uuid> = tables.iter().map(|table| table.uuid).collect();
        let known =
            |list: &&NameList| list.names.iter().filter(|name| uuids.contains(&name.uuid)).count();
        let holder = lists.iter().rev().max_by_key(known).and_then(|list| list.fence);
        let names = NameSources::new(self.0, &lists, options).name(tables, &mut notes);
        notes.sort();
        Ok(RecoveredCatalog {
            names,
            holder: holder.map(|ListedFence { holder, base }| (holder, base)),
            listed_ms: lists.first().map(|list| list.at_ms),
            metastores,
            notes,
        })
    }

    /// Lists the names of the metastore, which was rebuilt from the lists of these others.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`], [`CatalogError::Storage`].
    pub async fn list_names(self, metastores: Vec<u64>) -> Result<(), CatalogError> {
        self.0.list_rebuilt(metastores).await
    }

    /// The metadata in a table's file, which need not be the metastore's.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`], [`CatalogError::Storage`].
    pub async fn metadata(self, location: &str) -> Result<TableMetadata, CatalogError> {
        self.0.foreign_metadata(location).await
    }

    /// The lists of names that are not over, the newest first, and the metastores of all.
    async fn lists(self, files: &[ListedFile]) -> Result<(Vec<NameList>, Vec<u64>), CatalogError> {
        let mut lists: Vec<NameList> = Vec::new();
        for file in files.iter().filter(|file| self.0.is_list(&file.location)) {
            lists.extend(self.0.read_list(&file.location).await?);
        }
        lists.sort_by_key(|list| std::cmp::Reverse((list.at_ms, list.through)));
        let metastores = lists.iter().map(|list| list.metastore).collect();
        let over: HashSet<u64> = lists.iter().flat_map(|list| list.follows.clone()).collect();
        lists.retain(|list| !over.contains(&list.metastore));
        Ok((lists, metastores))
    }

    /// What the metadata files of one folder are.
    async fn look(
        self,
        files: Vec<&ListedFile>,
        there: &HashSet<&str>,
    ) -> Result<FolderContents, CatalogError> {
        let mut contents = FolderContents::default();
        let numbers = files.iter().filter_map(|file| candidates::number(&file.location));
        let number = numbers.max().unwrap_or(0);
        let mut by_identity: BTreeMap<(Uuid, bool), Vec<MetadataCandidate>> = BTreeMap::new();
        let read = self.heads(files, &mut contents.notes).await?;
        for file in read {
            match file.head.identity() {
                Some(identity) => by_identity.entry(identity).or_default().push(file),
                None => contents.notes.push(RecoveryNote::new(
                    file.location,
                    "is neither a table's nor a view's metadata file",
                )),
            }
        }
        for ((uuid, is_view), read) in by_identity {
            let found = self.current(uuid, is_view, &read, there, &mut contents.notes).await?;
            contents.tables.extend(found.map(|found| FoundTable { number, ..found }));
        }
        Ok(contents)
    }

    /// Reads the files that may be current: the newest by number, and then what none of those names.
    async fn heads(
        self,
        mut files: Vec<&ListedFile>,
        notes: &mut Vec<RecoveryNote>,
    ) -> Result<Vec<MetadataCandidate>, CatalogError> {
        files.sort_by_key(|file| {
            std::cmp::Reverse((candidates::number(&file.location), file.modified_ms))
        });
        let mut read: Vec<MetadataCandidate> = Vec::new();
        let mut named: HashSet<String> = HashSet::new();
        let (mut kept, mut unnamed) = (Vec::new(), 0);
        for file in files {
            if named.contains(candidates::name(&file.location)) {
                kept.push(file);
                continue;
            }
            unnamed += 1;
            if FILES_READ_MAX < unnamed {
                break;
            }
            self.read_head(&file.location, &mut read, notes).await?;
            if let Some(last) = read.last() {
                named.extend(last.before().map(str::to_owned));
            }
        }
        // What the newest was built on is what is left where that one does not count.
        let base: Option<String> = candidates::rank(&read)
            .ranked
            .first()
            .and_then(|newest| newest.built_on().map(str::to_owned));
        let is_base =
            |file: &&ListedFile| base.as_deref() == Some(candidates::name(&file.location));
        for file in kept.into_iter().filter(is_base) {
            self.read_head(&file.location, &mut read, notes).await?;
        }
        Ok(read)
    }

    async fn read_head(
        self,
        location: &str,
        read: &mut Vec<MetadataCandidate>,
        notes: &mut Vec<RecoveryNote>,
    ) -> Result<(), CatalogError> {
        match self.0.foreign_metadata::<MetadataHead>(location).await {
            Ok(head) => read.push(MetadataCandidate { location: location.to_owned(), head }),
            Err(cause) if super::is_of_file(&cause) => {
                notes.push(RecoveryNote::new(location, format!("does not read: {cause}")));
            }
            Err(cause) => return Err(cause),
        }
        Ok(())
    }

    /// The table or view as its current file has it.
    async fn current(
        self,
        uuid: Uuid,
        is_view: bool,
        read: &[MetadataCandidate],
        there: &HashSet<&str>,
        notes: &mut Vec<RecoveryNote>,
    ) -> Result<Option<FoundTable>, CatalogError> {
        let choice = candidates::rank(read);
        let mut damaged: Option<(&MetadataCandidate, FoundMetadata)> = None;
        let mut chosen = None;
        for (rank, file) in choice.ranked.iter().copied().enumerate() {
            let metadata = match self.whole(&file.location, is_view).await {
                Ok(metadata) => metadata,
                Err(cause) if super::is_of_file(&cause) => {
                    notes
                        .push(RecoveryNote::new(&file.location, format!("does not read: {cause}")));
                    continue;
                }
                Err(cause) => return Err(cause),
            };
            match self.lacks(&metadata, there).await? {
                None => {
                    chosen = Some((rank, file, metadata));
                    break;
                }
                Some(lacks) => {
                    let text = format!("names `{lacks}`, which is not there or does not read");
                    notes.push(RecoveryNote::new(&file.location, text));
                    if damaged.is_none() {
                        damaged = Some((file, metadata));
                    }
                }
            }
        }
        let (rank, file, metadata) = match (chosen, damaged) {
            (Some(chosen), _) => chosen,
            (None, Some((file, metadata))) => (0, file, metadata),
            (None, None) => return Ok(None),
        };
        if rank < choice.siblings {
            note_siblings(&choice.ranked[..choice.siblings], file, notes);
        }
        let own = self.0.storage().normalize(&file.head.location);
        let Some(location) = own.ok().filter(|own| own.admit(&file.location).is_ok()) else {
            let text = format!(
                "says that its table lies at `{}`: it is not in that folder, so it is no table of this \
                 warehouse (`icecore catalog relocate` is for a warehouse that was moved)",
                file.head.location
            );
            notes.push(RecoveryNote::new(&file.location, text));
            return Ok(None);
        };
        Ok(Some(found(uuid, location, file, &metadata)))
    }

    /// All that a metadata file says.
    async fn whole(self, location: &str, is_view: bool) -> Result<FoundMetadata, CatalogError> {
        if is_view {
            let read = self.0.foreign_metadata::<ViewMetadata>(location).await;
            return read.map(|_| FoundMetadata::View);
        }
        let metadata = self.0.foreign_metadata::<TableMetadata>(location).await?;
        Ok(FoundMetadata::Table(Box::new(metadata)))
    }

    /// A list or manifest that a table is without: those of an attempt that was given up go before its
    /// metadata file does.
    async fn lacks(
        self,
        metadata: &FoundMetadata,
        there: &HashSet<&str>,
    ) -> Result<Option<String>, CatalogError> {
        let FoundMetadata::Table(metadata) = metadata else { return Ok(None) };
        let is_there =
            |path: &str| Location::parse(path).is_some_and(|path| there.contains(path.as_str()));
        let gone = metadata.snapshots().map(|it| it.manifest_list()).find(|list| !is_there(list));
        if let Some(gone) = gone {
            return Ok(Some(gone.to_owned()));
        }
        let newest = metadata.snapshots().max_by_key(|snapshot| snapshot.sequence_number());
        let is_another = |it: &&SnapshotRef| {
            newest.is_none_or(|newest| newest.snapshot_id() != it.snapshot_id())
        };
        let current = metadata.current_snapshot().filter(is_another);
        for snapshot in newest.into_iter().chain(current) {
            match read_list(self.0.storage(), metadata, snapshot).await {
                Ok(manifests) => {
                    let mut paths = manifests.into_iter().map(|manifest| manifest.manifest_path);
                    if let Some(gone) = paths.find(|path| !is_there(path)) {
                        return Ok(Some(gone));
                    }
                }
                Err(cause) if cause.is_damage() => {
                    return Ok(Some(snapshot.manifest_list().to_owned()));
                }
                Err(cause) => return Err(cause),
            }
        }
        Ok(None)
    }
}

/// Names the other files that were built on the same one as the file that is taken.
fn note_siblings(
    siblings: &[&MetadataCandidate],
    taken: &MetadataCandidate,
    notes: &mut Vec<RecoveryNote>,
) {
    for other in siblings.iter().filter(|other| other.location != taken.location) {
        let text = format!(
            "was built on the same file as `{}`, which is taken: at most one of the two was committed, \
             and this one is older or not whole",
            taken.location
        );
        notes.push(RecoveryNote::new(&other.location, text));
    }
}

fn found(
    uuid: Uuid,
    location: Location,
    file: &MetadataCandidate,
    metadata: &FoundMetadata,
) -> FoundTable {
    let mut found = FoundTable {
        kind: NameKind::View,
        uuid,
        location,
        metadata_location: file.location.clone(),
        number: 0,
        at_ms: file.head.at_ms(),
        snapshots: Vec::new(),
        is_managed: false,
        own_name: None,
        columns: HashSet::new(),
        last_seq: None,
        position: None,
        acked: None,
    };
    let FoundMetadata::Table(metadata) = metadata else { return found };
    found.kind = NameKind::Table;
    found.snapshots = commit::added_snapshots(None, metadata);
    let is_computed = retention::collection_of(metadata).is_some();
    if is_computed {
        found.own_name = metadata.properties().get(retention::COLLECTION_TABLE).cloned();
    }
    found.is_managed = retention::is_managed(metadata) && !is_computed;
    if found.is_managed {
        let fields = metadata.current_schema().as_struct().fields();
        found.columns = fields.iter().map(|field| field.name.clone()).collect();
        let numbers = |key: &'static str| {
            ancestors::of(metadata, metadata.current_snapshot_id())
                .filter_map(move |snapshot| number_of(snapshot, key))
        };
        found.last_seq = numbers(commit::LAST_SEQ).max();
        found.position = numbers(POSITION).next();
        found.acked = Some(row_sum::acked(metadata, metadata.current_snapshot_id()));
    }
    found
}

fn number_of(snapshot: &SnapshotRef, key: &str) -> Option<u64> {
    snapshot.summary().additional_properties.get(key)?.parse().ok()
}

#[cfg(test)]
mod tests;
