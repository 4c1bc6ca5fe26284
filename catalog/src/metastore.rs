//! Where the catalog's small, transactional state is: names, table pointers, watermarks.
//!
//! A commit is one transaction: each pointer is swapped only if its version is still the one the
//! commit was built on, and the watermark, the snapshot index and the queue of files to delete
//! change with it or not at all.

mod origin;
pub mod sql;
#[cfg(test)]
pub(crate) mod suite;

use crate::error::CatalogError;
use async_trait::async_trait;
pub use origin::{ANONYMOUS, Answer, NowMs, Origin, RequestKey};
use std::{collections::BTreeMap, fmt::Debug, sync::Arc};
use uuid::Uuid;

/// How far a log has been committed to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// Which writer's log; a commit by a writer with a lower epoch is refused.
    pub epoch: u64,
    /// Last log position whose rows the table holds.
    pub position: u64,
    /// Highest `seq` the table holds.
    pub last_seq: u64,
}

/// A table's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRow {
    /// The table's identity, stable across renames.
    pub uuid: Uuid,
    /// Where the current metadata is.
    pub metadata_location: String,
    /// Grows by one with every commit.
    pub version: i64,
    /// How far our own log is in it; none for a table that others write.
    pub watermark: Option<Watermark>,
}

/// One table's part of a commit.
#[derive(Clone, Debug)]
pub struct PointerSwap {
    /// Which table.
    pub uuid: Uuid,
    /// The version the new metadata was built on.
    pub expected_version: i64,
    /// Where the new metadata is, already durable.
    pub metadata_location: String,
    /// The new watermark, if the commit moves it.
    pub watermark: Option<Watermark>,
    /// Snapshots this commit adds: id, time in ms, first and last `seq` where known.
    pub snapshots: Vec<SnapshotRow>,
    /// Snapshots this commit removes; they leave the snapshot index.
    pub removed_snapshots: Vec<i64>,
    /// Files nobody needs once this commit stands; deleted at the given time or later.
    pub obsolete: Vec<Obsolete>,
    /// The commits that are folded into this one; none when it is one commit of the caller's.
    pub parts: Vec<Part>,
}

/// One of several commits that move a pointer together.
#[derive(Clone, Debug)]
pub struct Part {
    /// Whose it is.
    pub origin: Origin,
    /// The snapshots it adds.
    pub snapshots: Vec<i64>,
}

/// A table that a commit adds, at version 1.
#[derive(Clone, Debug)]
pub struct NewTable {
    /// Its namespace.
    pub levels: Levels,
    /// Its name.
    pub name: String,
    /// Its identity; no other table has or had it.
    pub uuid: Uuid,
    /// Where its metadata is, already durable.
    pub metadata_location: String,
    /// Snapshots it starts with.
    pub snapshots: Vec<SnapshotRow>,
    /// Whether it was there before, under another catalog or name.
    pub adopted: bool,
}

/// A line of the snapshot index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRow {
    /// Snapshot id.
    pub snapshot_id: i64,
    /// Commit time, ms since 1970.
    pub timestamp_ms: i64,
    /// First and last `seq` of the rows it added, if it came from our log.
    pub seq: Option<(u64, u64)>,
}

/// A file to delete later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obsolete {
    /// Which file.
    pub location: String,
    /// Not before this time, ms since 1970.
    pub not_before_ms: i64,
}

/// How a commit ended when it did not fail outright.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwapOutcome {
    /// Everything changed.
    Done,
    /// Nothing changed: this table has moved on, or is gone.
    Lost(Uuid),
    /// Nothing changed: a writer with a higher epoch owns this table's log.
    Deposed(Uuid),
    /// Nothing changed: the request of this key was carried out before.
    Repeated(Uuid),
}

/// A request that was carried out, or refused for good, under an `Idempotency-Key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoneRequest {
    /// Names its contents.
    pub fingerprint: String,
    /// The HTTP status it was answered with.
    pub status: u16,
    /// The rest of the answer.
    pub answer: Answer,
    /// The table it made: identity and metadata location.
    pub table: Option<(Uuid, String)>,
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its place in the order of all changes, from 1 and without gaps.
    pub number: u64,
    /// Names the request it was part of.
    pub request: String,
    /// How many changes that request made.
    pub request_events: i32,
    /// When, ms since 1970.
    pub at_ms: i64,
    /// Who asked for it.
    pub actor: String,
    /// What changed, as the draft of the specification writes an operation.
    pub operation: serde_json::Value,
}

/// A namespace is its levels: `["a", "b"]`.
pub type Levels = Vec<String>;

/// Properties of a namespace.
pub type Properties = BTreeMap<String, String>;

/// The transactional store. Each call is one transaction.
///
/// Every method fails with [`CatalogError::Metastore`] when the database does, and then nothing
/// has changed; a change whose COMMIT got no answer, and that cannot be looked up either, fails
/// with [`CatalogError::CommitStateUnknown`]. A change under an `Idempotency-Key` that was carried
/// out before changes nothing and fails with [`CatalogError::Repeated`].
#[async_trait]
pub trait Metastore: Debug + Send + Sync {
    /// The same store, for changes of this origin.
    fn on_behalf_of(&self, origin: Origin) -> Arc<dyn Metastore>;

    /// Adds a namespace; `AlreadyExists` when it is there, `NoSuchNamespace` when its parent is not.
    async fn create_namespace(
        &self,
        levels: &Levels,
        properties: &Properties,
    ) -> Result<(), CatalogError>;
    /// The properties of a namespace, or none when it is not there.
    async fn namespace(&self, levels: &Levels) -> Result<Option<Properties>, CatalogError>;
    /// The namespaces directly below `parent` (empty: the top), in order; `NoSuchNamespace`.
    async fn namespaces(&self, parent: &Levels) -> Result<Vec<Levels>, CatalogError>;
    /// Sets and removes properties; `NoSuchNamespace`.
    async fn update_namespace(
        &self,
        levels: &Levels,
        set: &Properties,
        remove: &[String],
    ) -> Result<(), CatalogError>;
    /// Removes an empty namespace; `NoSuchNamespace`, `NamespaceNotEmpty`.
    async fn drop_namespace(&self, levels: &Levels) -> Result<(), CatalogError>;

    /// Adds a table at version 1; `NoSuchNamespace`, `AlreadyExists`.
    async fn create_table(
        &self,
        levels: &Levels,
        name: &str,
        uuid: Uuid,
        metadata_location: &str,
    ) -> Result<(), CatalogError> {
        let table = NewTable {
            levels: levels.clone(),
            name: name.to_owned(),
            uuid,
            metadata_location: metadata_location.to_owned(),
            snapshots: Vec::new(),
            adopted: false,
        };
        self.commit_with_new(&[table], &[]).await.map(|_| ())
    }
    /// A table's row, or none.
    async fn table(&self, levels: &Levels, name: &str) -> Result<Option<TableRow>, CatalogError>;
    /// Names of the tables in a namespace, in order; `NoSuchNamespace`.
    async fn tables(&self, levels: &Levels) -> Result<Vec<String>, CatalogError>;
    /// Removes a table and gives back its row; `NoSuchTable`. Its watermark is kept, and is there
    /// again when a table of this identity is.
    async fn drop_table(&self, levels: &Levels, name: &str) -> Result<TableRow, CatalogError>;
    /// Renames a table; `NoSuchTable`, `NoSuchNamespace` for the target's, `AlreadyExists`.
    async fn rename_table(
        &self,
        from: (&Levels, &str),
        to: (&Levels, &str),
    ) -> Result<(), CatalogError>;

    /// Swaps every pointer or none.
    async fn commit(&self, swaps: &[PointerSwap]) -> Result<SwapOutcome, CatalogError> {
        self.commit_with_new(&[], swaps).await
    }
    /// Adds every table and swaps every pointer, or does nothing; `NoSuchNamespace`,
    /// `AlreadyExists` (of a new table's name or identity).
    async fn commit_with_new(
        &self,
        new: &[NewTable],
        swaps: &[PointerSwap],
    ) -> Result<SwapOutcome, CatalogError>;
    /// The row of a table by identity, to find out how an unknown commit ended.
    async fn table_by_uuid(&self, uuid: Uuid) -> Result<Option<TableRow>, CatalogError>;
    /// The highest watermark position of any table that is or was there (0 when there is none):
    /// a log must never hand out a position at or below it.
    async fn highest_position(&self) -> Result<u64, CatalogError>;
    /// A writer's new epoch: greater than every one before it, from 1, durable on return.
    async fn next_epoch(&self) -> Result<u64, CatalogError>;
    /// Snapshot index of a table, oldest first; empty for an unknown one.
    async fn snapshots(&self, uuid: Uuid) -> Result<Vec<SnapshotRow>, CatalogError>;

    /// Queues files for deletion outside a commit.
    async fn add_obsolete(&self, files: &[Obsolete]) -> Result<(), CatalogError>;
    /// At most `limit` files whose time has come.
    async fn obsolete(&self, now_ms: i64, limit: u32) -> Result<Vec<String>, CatalogError>;
    /// Forgets files that have been deleted.
    async fn forget_obsolete(&self, locations: &[String]) -> Result<(), CatalogError>;

    /// What became of the request of this key; none when it was not carried out.
    async fn request(&self, id: Uuid) -> Result<Option<DoneRequest>, CatalogError>;
    /// Keeps the answer to a request that was refused, unless one of its key is kept already, and
    /// gives the one that is kept.
    async fn refuse_request(
        &self,
        request: &RequestKey,
        status: u16,
        body: &str,
    ) -> Result<Option<DoneRequest>, CatalogError>;
    /// At most `limit` changes with numbers above `after`, in order.
    async fn events(&self, after: u64, limit: u32) -> Result<Vec<Event>, CatalogError>;
    /// The number before the first change at or after a time; the last one's when there is none.
    async fn events_before(&self, at_ms: i64) -> Result<u64, CatalogError>;
    /// Forgets requests from before a time, and all but the newest `events` changes.
    async fn forget_records(
        &self,
        requests_before_ms: i64,
        events: u64,
    ) -> Result<(), CatalogError>;
}

/// What is known after a COMMIT whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LostCommit {
    /// Everything changed.
    Happened,
    /// Nothing changed.
    DidNotHappen,
    /// The database cannot tell.
    Unknown,
}
