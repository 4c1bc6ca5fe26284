//! A last look at the data and delete files whose time to be deleted has come.
//!
//! Whoever queues a file has found that nothing needs it, and a commit that names a queued file is refused. A row
//! of the queue may be wrong all the same, by a defect or in a metastore that was put back, and would cost rows for
//! good. So the files are compared with what is live at the branches and tags of their table; a dropped table has
//! none. Manifests never change, so what was read of them is kept for the next look: of a table that grows only the
//! new ones are read.
//!
//! Its one invariant: a data or delete file in the folder of a table goes only if every manifest of its branches
//! and tags was read and has it not as live. Of a table that does not read, the files wait.

use super::Catalog;
use crate::{
    error::CatalogError,
    snapshot::{
        changes::FileKey,
        obsolete::reads::{HistoryReader, HistoryReads},
    },
};
use futures::{StreamExt, stream};
use iceberg::{NamespaceIdent, TableIdent, spec::SnapshotRef};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    iter,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tracing::warn;
use uuid::Uuid;

/// Tables that are looked at in parallel.
const TABLES_AT_ONCE: usize = 4;
/// What is kept of manifests is forgotten beyond so much of it, which is about so many live files, of 16 bytes
/// each. A table with more of them is read anew for each look.
const KEPT_MAX: usize = 1_000_000;
/// How manifests and metadata files end, which are in a folder of this name. They are not looked for.
const METADATA_ENDS: [&str; 2] = [".avro", ".json"];
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
type TableLook<'a> = (&'a TableIdent, Vec<&'a str>, Result<HashSet<String>, CatalogError>);

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
        let kept: usize = tables.values().map(HistoryReads::weight).sum();
        if KEPT_MAX < kept + reads.weight() {
            tables.clear();
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
    pub(super) async fn look_at_due(&self, due: Vec<String>) -> Result<DueFiles, CatalogError> {
        let (metadata, content): (Vec<String>, Vec<String>) =
            due.into_iter().partition(|file| is_metadata(file));
        let mut found = DueFiles { unneeded: metadata, ..DueFiles::default() };
        let places: BTreeSet<&str> = content.iter().flat_map(|file| folders(file)).collect();
        let places: Vec<&str> = places.into_iter().collect();
        let mut tables: HashMap<String, TableIdent> = HashMap::new();
        for (location, levels, name) in self.metastore().tables_at(&places).await? {
            if let Ok(namespace) = NamespaceIdent::from_vec(levels) {
                tables.insert(location, TableIdent::new(namespace, name));
            }
        }
        let mut of_tables: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for file in &content {
            match folders(file).find(|folder| tables.contains_key(*folder)) {
                Some(folder) => of_tables.entry(folder).or_default().push(file),
                None => found.unneeded.push(file.clone()),
            }
        }
        let looks = of_tables.into_iter();
        let looks: Vec<_> =
            looks.map(|(folder, files)| self.look_at_table(&tables[folder], files)).collect();
        let mut looks = stream::iter(looks).buffer_unordered(TABLES_AT_ONCE);
        while let Some(look) = looks.next().await {
            found.add(look);
        }
        Ok(found)
    }

    async fn look_at_table<'a>(&self, table: &'a TableIdent, files: Vec<&'a str>) -> TableLook<'a> {
        let unneeded = Box::pin(self.without_live(table, &files)).await;
        (table, files, unneeded)
    }

    /// Those of the files that are not live at a branch or tag of their table.
    async fn without_live(
        &self,
        table: &TableIdent,
        files: &[&str],
    ) -> Result<HashSet<String>, CatalogError> {
        let files = files.iter().map(|file| (FileKey::of(file), (*file).to_owned()));
        let mut left: HashMap<FileKey, String> = files.collect();
        if let Some(loaded) = self.find(table).await? {
            let metadata = loaded.metadata.as_ref();
            let encoded = self.encoded_parts(&loaded);
            let named = encoded.refs.values().map(|reference| reference.snapshot_id);
            let named: BTreeSet<i64> = named.chain(metadata.current_snapshot_id()).collect();
            let heads = named.into_iter().filter_map(|id| metadata.snapshot_by_id(id));
            let heads: Vec<SnapshotRef> = heads.map(Arc::clone).collect();
            let mut known = self.inner.read_tables.take(metadata.uuid());
            let storage = &self.inner.storage;
            let mut reader = HistoryReader { storage, base: metadata, known: &mut known };
            let manifests = reader.listed(&heads).await?;
            reader.take_out_live(&mut left, &manifests).await?;
            self.inner.read_tables.keep(metadata.uuid(), known);
        }
        Ok(left.into_values().collect())
    }
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

/// Whether the file is metadata of a table, by its name.
fn is_metadata(file: &str) -> bool {
    file.rsplit_once('/').is_some_and(|(folder, name)| {
        folder.ends_with(METADATA_FOLDER) && METADATA_ENDS.iter().any(|end| name.ends_with(end))
    })
}

/// The folders that a file is in, the innermost first.
fn folders(file: &str) -> impl Iterator<Item = &str> {
    iter::successors(above(file), |folder| above(folder))
}

fn above(place: &str) -> Option<&str> {
    place.rsplit_once('/').map(|(folder, _)| folder)
}
