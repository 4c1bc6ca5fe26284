//! Clients of the catalog that load a table: which tables they read, and commits before their loads,
//! so that they read everything that was acknowledged before they asked.
//!
//! Its one invariant: a load never fails for want of a commit, and waits for one at most
//! [`LOAD_WAIT_MAX`].

use crate::flush::{Flush, is_waiting, requests::CommitScope};
use futures::future::join_all;
use icecore_lake::wal::LogPosition;
use icecore_schemas::{names::Namespace, service_table::RecordKind};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tracing::debug;

/// How long a load of a table is remembered.
const READ_MS: i64 = 3_600_000;
/// Least time from one commit for a load of a table to the next.
pub(super) const LOAD_COMMIT_EVERY_MS: i64 = 1000;
/// Longest a load waits for its commit.
pub(super) const LOAD_WAIT_MAX: Duration = Duration::from_secs(2);
/// Most tables of a kind whose loads are remembered.
const LOADED_MAX: usize = 10_000;

/// The loads of the service's tables. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct TableLoads(Arc<Mutex<HashMap<RecordKind, LoadsByName>>>);

/// By the catalog's name of the namespace.
type LoadsByName = HashMap<String, TableLoad>;

/// The last load of a table, in time that passed.
#[derive(Clone, Copy, Debug)]
struct TableLoad {
    at_ms: i64,
    commit: Option<LoadCommit>,
}

/// The last commit that a load of the table asked for.
#[derive(Clone, Copy, Debug)]
struct LoadCommit {
    at_ms: i64,
    through: LogPosition,
}

impl TableLoads {
    fn note(&self, kind: RecordKind, name: &str, now_ms: i64) {
        let mut loads = self.lock();
        let loads = loads.entry(kind).or_default();
        if let Some(load) = loads.get_mut(name) {
            load.at_ms = now_ms;
            return;
        }
        if LOADED_MAX <= loads.len() {
            loads.retain(|_, load| load.is_recent(now_ms));
        }
        if LOADED_MAX <= loads.len() {
            // Each counts as read again with its next load.
            loads.clear();
        }
        loads.insert(name.to_owned(), TableLoad { at_ms: now_ms, commit: None });
    }

    /// How long ago a client loaded the table; none after [`READ_MS`].
    pub(super) fn unread_ms(&self, kind: RecordKind, name: &str, now_ms: i64) -> Option<i64> {
        let loads = self.lock();
        let load = loads.get(&kind).and_then(|loads| loads.get(name))?;
        load.is_recent(now_ms).then(|| now_ms - load.at_ms)
    }

    /// Up to where a load waits for a commit: `through` when it is this load that asks for one, else
    /// what the one takes that was asked for less than [`LOAD_COMMIT_EVERY_MS`] before.
    fn claim(
        &self,
        kind: RecordKind,
        name: &str,
        through: LogPosition,
        now_ms: i64,
    ) -> LogPosition {
        let mut loads = self.lock();
        let load = loads.get_mut(&kind).and_then(|loads| loads.get_mut(name));
        let Some(load) = load else { return through };
        match load.commit {
            Some(commit) if now_ms < commit.at_ms + LOAD_COMMIT_EVERY_MS => commit.through,
            Some(_) | None => {
                load.commit = Some(LoadCommit { at_ms: now_ms, through });
                through
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RecordKind, LoadsByName>> {
        // Each change is one of a whole entry, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TableLoad {
    fn is_recent(self, now_ms: i64) -> bool {
        now_ms <= self.at_ms + READ_MS
    }
}

impl Flush {
    /// Notes that a client reads `table` of the catalog's namespace `name`, where it is one of ours:
    /// its rows are committed each `commit.interval` for a while. Gives the kind of its rows.
    pub fn note_load(&self, name: &str, table: &str) -> Option<RecordKind> {
        let kind = self.tables.named(table)?.kind;
        self.loads.note(kind, name, self.clock.passed_ms());
        Some(kind)
    }

    /// The same, and has what waits for the table committed: on return its rows that were
    /// acknowledged before the call are in a snapshot, dated so that the client reads it.
    ///
    /// They are not where that takes more than 2 s or fails, where another server has the log, and
    /// where a load less than a second before asked for a commit.
    pub async fn before_load(&self, name: &str, table: &str) {
        let Some(kind) = self.note_load(name, table) else { return };
        if self.owner.check().is_err() {
            return;
        }
        let waits = |namespace: &Namespace| self.wal.first_position(kind, namespace).is_some();
        let waiting = self.wal.namespaces_named(name).into_iter().filter(waits);
        // One for each kind of records that a namespace has.
        let waiting: BTreeSet<Namespace> = waiting.collect();
        if waiting.is_empty() {
            return;
        }
        let asked_ms = self.clock.now_ms();
        let durable = *self.wal.durable().borrow();
        let through = self.loads.claim(kind, name, durable, self.clock.passed_ms());
        let scopes = waiting.into_iter().map(|one| CommitScope::Loaded(kind, one, asked_ms));
        let scopes = scopes.filter(|scope| is_waiting(&self.wal, &self.tables, scope, through));
        let commits = join_all(scopes.map(|scope| self.requests.wait(scope, through)));
        match tokio::time::timeout(LOAD_WAIT_MAX, commits).await {
            Ok(commits) => {
                for failed in commits.into_iter().filter_map(Result::err) {
                    debug!(
                        name,
                        table,
                        error = failed.as_ref() as &dyn std::error::Error,
                        "nothing is committed for a load"
                    );
                }
            }
            Err(_) => debug!(name, table, "a load waits no longer for its commit"),
        }
    }
}
