//! What is looked at after each step: rows now and in each retained snapshot, by SQL and by a reader of its
//! own, branches and tags, and every file that a retained snapshot names.

use super::{LOOKS_MAX, NEWEST_READ_MAX, SeenTable, World, is_large, table};
use crate::maintenance_model::{
    disk::DiskReader,
    model::{NewerSnapshot, RowCounts, RowKey, SnapshotKind},
};
use iceberg::spec::{Operation, Snapshot, SnapshotRef};
use icecore_catalog::error::CatalogError;
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path, sync::Arc};

const ALL: &str = "SELECT id, seq FROM events";

impl World {
    /// The table; none before its first commit.
    pub(super) async fn look(&self) -> Option<SeenTable> {
        match self.catalog.tables().load(&table()).await {
            Ok(loaded) => {
                let metadata = loaded.metadata;
                let mut snapshots: Vec<SnapshotRef> =
                    metadata.snapshots().map(Arc::clone).collect();
                snapshots.sort_unstable_by_key(|snapshot| snapshot.sequence_number());
                Some(SeenTable { metadata, snapshots })
            }
            Err(CatalogError::NoSuchTable(_) | CatalogError::NoSuchNamespace(_)) => None,
            Err(cause) => panic!("{cause}"),
        }
    }

    /// Tells the model of snapshots that came; gives the table and which they are.
    pub(super) async fn observe(&mut self) -> Result<Option<(SeenTable, Vec<i64>)>, String> {
        let Some(seen) = self.look().await else { return Ok(None) };
        let mut came = Vec::new();
        for snapshot in &seen.snapshots {
            if self.model.knows(snapshot.snapshot_id()) {
                continue;
            }
            let rows = self.disk.rows(snapshot).await;
            self.model.observe(newer(snapshot), &rows)?;
            came.push(snapshot.snapshot_id());
        }
        Ok(Some((seen, came)))
    }

    /// Holds everything against the model.
    pub(super) async fn check(&mut self) -> Result<(), String> {
        let Some((seen, came)) = self.observe().await? else {
            return self.read_now(None).await;
        };
        self.check_names().await?;
        self.check_files(&seen).await?;
        if is_large() {
            self.read_all(&seen).await?;
        }
        self.read_now(seen.head()).await?;
        self.turn += 1;
        let older = seen.snapshots.get(self.turn % seen.snapshots.len().max(1));
        let older = older.map(|snapshot| snapshot.snapshot_id());
        for id in came.into_iter().rev().take(NEWEST_READ_MAX).chain(older) {
            self.read_snapshot(id).await?;
        }
        let name = self.model.names.iter().nth(self.turn % self.model.names.len().max(1));
        let Some((name, id)) = name else { return Ok(()) };
        let (status, answer) = self.query(name).await;
        if status == 200 && rows_of(&answer) == *self.model.rows(*id)? {
            return Ok(());
        }
        Err(format!("SQL reads `{name}` as {status} {answer}"))
    }

    /// Every retained snapshot has on disk what it had when it came. Nothing that was read before is believed.
    async fn read_all(&mut self, seen: &SeenTable) -> Result<(), String> {
        self.disk = DiskReader::new(self.disk.storage.clone());
        for snapshot in &seen.snapshots {
            let (id, found) = (snapshot.snapshot_id(), self.disk.rows(snapshot).await);
            let wanted = self.model.rows(id)?;
            if *found != *wanted {
                return Err(format!("snapshot {id} now has {}", found.difference(wanted)));
            }
        }
        Ok(())
    }

    /// Branches beside `main` and tags, and where they are.
    pub(super) async fn found_names(&self) -> Result<BTreeMap<String, i64>, String> {
        let refs = self.catalog.refs().list(&table()).await.map_err(|cause| cause.to_string())?;
        let others = refs.into_iter().filter(|(name, _)| name != "main");
        Ok(others.map(|(name, reference)| (name, reference.snapshot_id)).collect())
    }

    /// Branches and tags are where they were put.
    async fn check_names(&self) -> Result<(), String> {
        let found = self.found_names().await?;
        if found == self.model.names {
            return Ok(());
        }
        Err(format!("branches and tags are {found:?}, not {:?}", self.model.names))
    }

    /// Every file of a retained snapshot is there, and none is going to be deleted.
    async fn check_files(&mut self, seen: &SeenTable) -> Result<(), String> {
        let mut fault = self.find_fault(&seen.snapshots).await;
        for _ in 1..LOOKS_MAX {
            if fault.is_none() {
                break;
            }
            // A snapshot may have been removed meanwhile.
            let Some(now) = self.look().await else { break };
            fault = self.find_fault(&now.snapshots).await;
        }
        fault.map_or(Ok(()), Err)
    }

    async fn find_fault(&mut self, snapshots: &[SnapshotRef]) -> Option<String> {
        let mut named: BTreeMap<String, i64> = BTreeMap::new();
        for snapshot in snapshots {
            let id = snapshot.snapshot_id();
            named.extend(self.disk.named(snapshot).await.into_iter().map(|file| (file, id)));
        }
        let queue = sqlx::query_scalar("SELECT location FROM obsolete");
        let queued: Vec<String> =
            queue.fetch_all(self.catalog.metastore().database().readers()).await.unwrap();
        if let Some((file, id)) = queued.iter().find_map(|file| named.get_key_value(file)) {
            return Some(format!("`{file}` of snapshot {id} is going to be deleted"));
        }
        let is_there = |file: &str| Path::new(file.strip_prefix("file://").unwrap()).exists();
        let missing = named.iter().find(|(file, _)| !is_there(file.as_str()));
        missing.map(|(file, id)| format!("`{file}` of snapshot {id} is gone"))
    }

    /// What SQL shows to who names no snapshot.
    async fn read_now(&self, head: Option<i64>) -> Result<(), String> {
        let (status, answer) = self.server().query("shop", &json!({ "sql": ALL })).await;
        let wanted = self.model.now(head)?;
        if status != 200 {
            // A namespace that nothing was sent to is not there.
            return if wanted.is_empty() { Ok(()) } else { Err(format!("{status} {answer}")) };
        }
        let found = rows_of(&answer);
        if found == wanted {
            return Ok(());
        }
        Err(format!("SQL shows {}", found.difference(&wanted)))
    }

    async fn query(&self, as_of: &str) -> (u16, Value) {
        self.server().query("shop", &json!({ "sql": ALL, "as_of": as_of })).await
    }

    /// What SQL shows of a snapshot, unless it was removed meanwhile.
    pub(super) async fn read_snapshot(&self, id: i64) -> Result<(), String> {
        let (status, answer) = self.query(&id.to_string()).await;
        let wanted = self.model.rows(id)?;
        if status == 200 {
            let found = rows_of(&answer);
            let told = || format!("SQL shows of snapshot {id} {}", found.difference(wanted));
            return if found == *wanted { Ok(()) } else { Err(told()) };
        }
        match self.look().await {
            Some(now) if now.metadata.snapshot_by_id(id).is_some() => {
                Err(format!("SQL reads snapshot {id} as {status} {answer}"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn rows_of(answer: &Value) -> RowCounts {
    let row =
        |row: &Value| -> RowKey { (row[0].as_str().unwrap().to_owned(), row[1].as_i64().unwrap()) };
    answer["rows"].as_array().unwrap().iter().map(row).collect()
}

fn newer(snapshot: &Snapshot) -> NewerSnapshot {
    let kind = match snapshot.summary().operation {
        Operation::Append => SnapshotKind::Append,
        Operation::Replace => SnapshotKind::Replace,
        Operation::Overwrite | Operation::Delete => SnapshotKind::Change,
    };
    let (id, parent) = (snapshot.snapshot_id(), snapshot.parent_snapshot_id());
    NewerSnapshot { id, parent, kind }
}
