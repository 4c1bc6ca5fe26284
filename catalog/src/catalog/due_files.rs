//! A last look at the files whose time to be deleted has come.
//!
//! Whoever queues a file has found that nothing needs it, and a commit that names a queued file is refused. A row
//! of the queue may be wrong all the same, by a defect or in a metastore that was put back, and would cost rows for
//! good. So the files are compared with what is live at the branches and tags of their table, also of a dropped one
//! that can be had back. Manifests never change, so what was read of them is kept for the next look: of a table that
//! grows only the new ones are read. For lists and manifests the lists of branches and tags are read alone, and for
//! a metadata file nothing is: it is compared with the one that the table is at.
//!
//! Its one invariant: a data or delete file in the folder of a table goes only if every manifest of its branches
//! and tags was read and has it not as live, a manifest only if every list of these was read and lacks it, a list only
//! if it is of no retained snapshot. Of a table that does not read, the files wait.

use super::{Catalog, read::KnownPointer};
use crate::{
    error::CatalogError,
    location::Location,
    snapshot::{
        changes::FileKey,
        obsolete::reads::{HistoryReader, HistoryReads},
    },
};
use futures::{StreamExt, stream};
use iceberg::spec::SnapshotRef;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    iter,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tracing::warn;
use uuid::Uuid;

/// Tables that are looked at in parallel.
const TABLES_AT_ONCE: usize = 4;
/// What is kept of all tables' manifests is about so many live files at most, of 16 bytes each: that of some goes
/// for others. A thousand tables with some thousand files each have room. A table with more is read anew for each
/// look.
const KEPT_MAX: usize = 4_000_000;
/// How lists and manifests end, and metadata files, which are in a folder of this name.
const MANIFEST_END: &str = ".avro";
const METADATA_END: &str = ".json";
const METADATA_FOLDER: &str = "/metadata";

/// What was read of tables for the last looks.
#[derive(Debug, Default)]
pub(super) struct ReadTables(Mutex<HashMap<Uuid, HistoryReads>>);

/// Files whose time has come.
#[derive(Debug, Default)]
pub(super) struct DueFiles {
    /// Those that nothing needs.
    pub(super) unneeded: Vec<String>,
    /// Those that are live: their rows of the queue are wrong.
    pub(super) live: Vec<String>,
    /// Those of tables that do not read now.
    pub(super) unknown: Vec<String>,
}

/// Files of one table, and those of them that are not live in it.
type TableLook<'a> = (Uuid, Vec<&'a str>, Result<HashSet<String>, CatalogError>);

impl ReadTables {
    /// What is kept of a table, which is the caller's then.
    fn take(&self, table: Uuid) -> HistoryReads {
        self.lock().remove(&table).unwrap_or_default()
    }

    fn keep(&self, table: Uuid, mut reads: HistoryReads) {
        // Each commit makes another list.
        reads.forget_lists();
        if KEPT_MAX < reads.weight() {
            return;
        }
        let mut tables = self.lock();
        let mut kept: usize = tables.values().map(HistoryReads::weight).sum();
        while KEPT_MAX < kept + reads.weight() {
            let Some(other) = tables.keys().next().copied() else { break };
            kept -= tables.remove(&other).map_or(0, |gone| gone.weight());
        }
        tables.insert(table, reads);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, HistoryReads>> {
        // Whole entries go in and out, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Catalog {
    /// Tells which files may be deleted of those whose time has come.
    pub(super) async fn look_at_due(&self, due: &[String]) -> Result<DueFiles, CatalogError> {
        let mut found = DueFiles::default();
        let places: BTreeSet<&str> = due.iter().flat_map(|file| folders(file)).collect();
        let places: Vec<&str> = places.into_iter().collect();
        let mut tables: HashMap<String, (Uuid, String)> = HashMap::new();
        for (uuid, location, metadata_location) in self.metastore().tables_at(&places).await? {
            tables.insert(location, (uuid, metadata_location));
        }
        let mut of_tables: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for file in due {
            let Some(folder) = folders(file).find(|folder| tables.contains_key(*folder)) else {
                found.unneeded.push(file.clone());
                continue;
            };
            if !is_in_metadata(file, METADATA_END) {
                of_tables.entry(folder).or_default().push(file);
                continue;
            }
            let (uuid, metadata_location) = &tables[folder];
            let is_current = is_same_place(metadata_location, file);
            let unneeded = if is_current { HashSet::new() } else { HashSet::from([file.clone()]) };
            found.add((*uuid, vec![file.as_str()], Ok(unneeded)));
        }
        let looks = of_tables.into_iter().map(|(location, files)| {
            let (uuid, metadata_location) = &tables[location];
            let table = KnownPointer { uuid: *uuid, location, metadata_location };
            self.look_at_table(table, files)
        });
        let looks: Vec<_> = looks.collect();
        let mut looks = stream::iter(looks).buffer_unordered(TABLES_AT_ONCE);
        while let Some(look) = looks.next().await {
            found.add(look);
        }
        Ok(found)
    }

    async fn look_at_table<'a>(
        &self,
        table: KnownPointer<'_>,
        files: Vec<&'a str>,
    ) -> TableLook<'a> {
        let unneeded = Box::pin(self.without_live(table, &files)).await;
        (table.uuid, files, unneeded)
    }

    /// Those of the files that no branch or tag of their table needs. A commit after this names none of them, since
    /// they are queued.
    async fn without_live(
        &self,
        table: KnownPointer<'_>,
        files: &[&str],
    ) -> Result<HashSet<String>, CatalogError> {
        let metadata = self.metadata_of(table).await?;
        let own = self.inner.storage.normalize(metadata.location())?;
        let mut left = LeftFiles::of(&own, files);
        left.take_out(&own, metadata.snapshots().map(|snapshot| snapshot.manifest_list()));
        let parts = self.parts_of(table.metadata_location, &metadata);
        let named = parts.refs.values().map(|reference| reference.snapshot_id);
        let named: BTreeSet<i64> = named.chain(metadata.current_snapshot_id()).collect();
        let heads = named.into_iter().filter_map(|id| metadata.snapshot_by_id(id));
        let heads: Vec<SnapshotRef> = heads.map(Arc::clone).collect();
        let mut known = self.inner.read_tables.take(table.uuid);
        let (storage, base) = (&self.inner.storage, metadata.as_ref());
        let mut reader = HistoryReader { storage, base, known: &mut known };
        let taken_out = take_out_live(&mut reader, &heads, &own, &mut left).await;
        // After a failure too: what was read until then is not read again.
        self.inner.read_tables.keep(table.uuid, known);
        taken_out?;
        Ok(left.content.into_values().chain(left.manifests.into_values()).collect())
    }
}

/// Files of a table of which nothing is known yet that needs them, by their normal forms.
#[derive(Debug, Default)]
struct LeftFiles {
    /// Data and delete files, and others that are no metadata.
    content: HashMap<FileKey, String>,
    /// Lists and manifests.
    manifests: HashMap<FileKey, String>,
}

impl LeftFiles {
    fn of(own: &Location, files: &[&str]) -> Self {
        let mut left = Self::default();
        for file in files {
            let kind = match is_in_metadata(file, MANIFEST_END) {
                true => &mut left.manifests,
                false => &mut left.content,
            };
            kind.insert(key_of(own, file), (*file).to_owned());
        }
        left
    }

    /// Takes out lists or manifests, as the table spells them. Clients may have them in any folder of the table
    /// and under any name, so they may count as data files.
    fn take_out<'a>(&mut self, own: &Location, files: impl Iterator<Item = &'a str>) {
        for file in files {
            let key = key_of(own, file);
            self.manifests.remove(&key);
            self.content.remove(&key);
        }
    }
}

/// The key of a file's normal form, where it is in the table.
fn key_of(own: &Location, file: &str) -> FileKey {
    match own.admit(file) {
        Ok(location) => FileKey::of(location.as_str()),
        Err(_) => FileKey::of(file),
    }
}

/// Takes out the files that these snapshots need, and forgets manifests that none of them lists.
async fn take_out_live(
    reader: &mut HistoryReader<'_>,
    heads: &[SnapshotRef],
    own: &Location,
    left: &mut LeftFiles,
) -> Result<(), CatalogError> {
    let manifests = reader.listed(heads).await?;
    left.take_out(own, manifests.iter().map(String::as_str));
    reader.known.forget_all_but(&manifests);
    if left.content.is_empty() {
        return Ok(());
    }
    reader.take_out_live(&mut left.content, &manifests).await
}

impl DueFiles {
    fn add(&mut self, (table, files, unneeded): TableLook<'_>) {
        let files = files.into_iter().map(str::to_owned);
        match unneeded {
            Ok(unneeded) => {
                let (unneeded, live): (Vec<String>, Vec<String>) =
                    files.partition(|file| unneeded.contains(file));
                for location in &live {
                    warn!(%table, location, "a live file was queued for deletion and stays");
                }
                self.unneeded.extend(unneeded);
                self.live.extend(live);
            }
            Err(cause) => {
                let error = &cause as &dyn std::error::Error;
                warn!(%table, error, "files to delete wait for their table, which does not read");
                self.unknown.extend(files);
            }
        }
    }
}

/// Whether both are one file, however they are spelled: the queue has the normal form.
fn is_same_place(one: &str, other: &str) -> bool {
    let normal = Location::parse(one);
    one == other || (normal.is_some() && normal == Location::parse(other))
}

/// Whether the file is metadata of a table, by its folder and how its name ends.
fn is_in_metadata(file: &str, end: &str) -> bool {
    let in_folder =
        |(folder, name): (&str, &str)| folder.ends_with(METADATA_FOLDER) && name.ends_with(end);
    file.rsplit_once('/').is_some_and(in_folder)
}

/// The folders that a file is in, the innermost first.
fn folders(file: &str) -> impl Iterator<Item = &str> {
    iter::successors(above(file), |folder| above(folder))
}

fn above(place: &str) -> Option<&str> {
    place.rsplit_once('/').map(|(folder, _)| folder)
}
