//! Where the catalog's small, transactional state is: names, table pointers, watermarks.
//!
//! A commit is one transaction: each pointer is swapped only if its version is still the one the
//! commit was built on, and the watermark, the snapshot index and the queue of files to delete
//! change with it or not at all.

mod changes;
mod new_table;
mod origin;
pub mod sql;
#[cfg(test)]
pub(crate) mod suite;

pub use crate::{commit::SnapshotRow, names::Levels};
use crate::{error::CatalogError, location::Location};
use async_trait::async_trait;
pub use changes::{CHANGES_BYTES_MAX, Changes};
pub use new_table::{Comes, Kind, NewTable};
pub use origin::{ANONYMOUS, Answer, Origin, RequestKey};
use std::{collections::BTreeMap, fmt::Debug, sync::Arc};
use uuid::Uuid;

/// How far a log has been committed to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// Which life of which log; a commit under an epoch that is not the owner's is refused.
    pub epoch: u64,
    /// Last log position whose rows the table holds.
    pub position: u64,
    /// Highest `seq` the table holds.
    pub last_seq: u64,
}

/// A table's or a view's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRow {
    /// The table's identity, stable across renames.
    pub uuid: Uuid,
    /// Where the current metadata is.
    pub metadata_location: String,
    /// The folder that is the table's. What the metadata file says of it is a client's word where
    /// clients may write the table's files.
    pub location: String,
    /// Grows by one with every commit, and never shrinks: a table that comes back after it was dropped
    /// goes on from there.
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
    /// The table's new location, if the commit gives it one.
    pub moved_to: Option<String>,
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
    /// What it is made of, when it is one commit of the caller's.
    pub changes: Changes,
}

/// One of several commits that move a pointer together.
#[derive(Clone, Debug)]
pub struct Part {
    /// Whose it is.
    pub origin: Origin,
    /// The snapshots it adds.
    pub snapshots: Vec<i64>,
    /// What it is made of.
    pub changes: Changes,
}

/// What a client measured in a scan or a commit of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// When it came, ms since 1970.
    pub received_ms: i64,
    /// The client's JSON object as it sent it.
    pub body: String,
}

/// A file to delete later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obsolete {
    /// Which file.
    pub location: String,
    /// Not before this time, ms since 1970.
    pub not_before_ms: i64,
}

/// What becomes of a dropped table's name and files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trash {
    /// When it was dropped, ms since 1970.
    pub dropped_ms: i64,
    /// Until when it can be had back.
    pub until_ms: i64,
    /// Whether its files are deleted after that time; they stay otherwise.
    pub purge: bool,
}

/// A dropped table that can be had back, or whose files are being deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrashRow {
    /// Its identity.
    pub uuid: Uuid,
    /// The namespace it was in.
    pub levels: Levels,
    /// The name it had.
    pub name: String,
    /// Its last metadata.
    pub metadata_location: String,
    /// The folder that was the table's.
    pub location: String,
    /// When it goes, and how.
    pub trash: Trash,
    /// Its files are being queued for deletion: there is no way back.
    pub is_purging: bool,
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
    /// The table or view it made: identity and metadata location.
    pub table: Option<(Uuid, String)>,
}

/// A part of a list of names, in their order by bytes.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Only names greater than this; every name is greater than the empty one.
    pub after: &'a str,
    /// At most so many.
    pub limit: usize,
}

impl Page<'_> {
    /// The whole list.
    pub const ALL: Self = Self { after: "", limit: usize::MAX };
}

/// How much of what is over is remembered.
#[derive(Clone, Copy, Debug)]
pub struct Remembered {
    /// Requests since this time, ms since 1970.
    pub requests_since_ms: i64,
    /// Of those that were refused or staged a table, the newest so many.
    pub without_effect: u32,
    /// The newest changes.
    pub events: u64,
    /// Of those the newest that together take so many bytes, and the last one in any case.
    pub event_bytes: u64,
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
    /// What changed, as the draft of the specification writes an operation, without its updates.
    pub operation: serde_json::Value,
    /// How much room the change takes, its updates included.
    pub bytes: u64,
}

/// A namespace at the top, and how far the service's own log is in its tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceMarks {
    /// Which one.
    pub levels: Levels,
    /// Its properties.
    pub properties: Properties,
    /// The names of its tables that have a watermark, in order.
    pub tables: Vec<(String, Watermark)>,
}

/// Where the feed of changes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feed {
    /// Made once with the metastore: another metastore has another feed.
    pub id: u64,
    /// The number of the last change; 0 when there was none.
    pub last: u64,
}

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
    /// The namespaces directly below `parent` (empty: the top), in order; `NoSuchNamespace`. The
    /// page is one of their last levels.
    async fn namespaces_of(
        &self,
        parent: &Levels,
        page: Page<'_>,
    ) -> Result<Vec<Levels>, CatalogError>;
    /// All namespaces directly below `parent`.
    async fn namespaces(&self, parent: &Levels) -> Result<Vec<Levels>, CatalogError> {
        self.namespaces_of(parent, Page::ALL).await
    }
    /// All namespaces at the top, in order: one statement, however many there are.
    async fn logged(&self) -> Result<Vec<NamespaceMarks>, CatalogError>;
    /// Sets and removes properties; `NoSuchNamespace`.
    async fn update_namespace(
        &self,
        levels: &Levels,
        set: &Properties,
        remove: &[String],
    ) -> Result<(), CatalogError>;
    /// Removes a namespace without tables, views and namespaces; `NoSuchNamespace`, `NamespaceNotEmpty`.
    async fn drop_namespace(&self, levels: &Levels) -> Result<(), CatalogError>;

    /// Adds a table; `NoSuchNamespace`, `AlreadyExists`.
    async fn create_table(
        &self,
        levels: &Levels,
        name: &str,
        uuid: Uuid,
        metadata_location: &str,
    ) -> Result<(), CatalogError> {
        let table = NewTable {
            kind: Kind::Table,
            levels: levels.clone(),
            name: name.to_owned(),
            uuid,
            metadata_location: metadata_location.to_owned(),
            location: format!("{metadata_location}/{uuid}"),
            snapshots: Vec::new(),
            comes: Comes::New,
            changes: Changes::default(),
        };
        self.commit_with_new(&[table], &[]).await.map(|_| ())
    }
    /// A table's row, or none.
    async fn table(&self, levels: &Levels, name: &str) -> Result<Option<TableRow>, CatalogError>;
    /// Names of the tables or views in a namespace, in order; `NoSuchNamespace`.
    async fn names(
        &self,
        kind: Kind,
        levels: &Levels,
        page: Page<'_>,
    ) -> Result<Vec<String>, CatalogError>;
    /// Names of all tables in a namespace.
    async fn tables(&self, levels: &Levels) -> Result<Vec<String>, CatalogError> {
        self.names(Kind::Table, levels, Page::ALL).await
    }
    /// Removes a table and gives back its row; `NoSuchTable`. Its watermark and
    /// its version are kept, and are there again when a table of this identity is.
    async fn drop_table(&self, levels: &Levels, name: &str) -> Result<TableRow, CatalogError>;
    /// Removes a table as [`Metastore::drop_table`] does, and remembers what can be had back.
    async fn trash_table(
        &self,
        levels: &Levels,
        name: &str,
        trash: &Trash,
    ) -> Result<TableRow, CatalogError>;
    /// At most `limit` tables of the trash, the last dropped first.
    async fn trash(&self, limit: u32) -> Result<Vec<TrashRow>, CatalogError>;
    /// A table of the trash.
    async fn dropped(&self, uuid: Uuid) -> Result<Option<TrashRow>, CatalogError>;
    /// Adds a table that is in the trash and not being purged, and takes it out of there;
    /// `NoSuchTable`, and what [`Metastore::create_table`] fails with.
    async fn undrop(&self, table: &NewTable) -> Result<(), CatalogError>;
    /// Changes when a table in the trash goes, and how; `NoSuchTable`.
    async fn change_trash(&self, uuid: Uuid, trash: &Trash) -> Result<(), CatalogError>;
    /// Forgets at most `limit` tables whose time in the trash is over and whose files stay; gives
    /// at most `limit` of those whose files go, which from now on cannot be had back.
    async fn expire_trash(&self, now_ms: i64, limit: u32) -> Result<Vec<TrashRow>, CatalogError>;
    /// Keeps a table whose files are not all queued out of [`Metastore::expire_trash`] until then.
    async fn put_off_purge(&self, uuid: Uuid, until_ms: i64) -> Result<(), CatalogError>;
    /// Forgets a table whose files are all queued for deletion.
    async fn forget_trash(&self, uuid: Uuid) -> Result<(), CatalogError>;
    /// Makes dropping and renaming a table fail with `Protected`, or allows it again; `NoSuchTable`.
    async fn protect_table(
        &self,
        levels: &Levels,
        name: &str,
        is_protected: bool,
    ) -> Result<(), CatalogError>;
    /// At most `limit` protected tables, in order of their names.
    async fn protected(&self, limit: u32) -> Result<Vec<(Levels, String)>, CatalogError>;
    /// Whether a table is protected.
    async fn is_protected(&self, uuid: Uuid) -> Result<bool, CatalogError>;
    /// Puts another table in the place of the one of this name and identity `old`, as a drop and
    /// a create at once; `Lost` when it is not there, `AlreadyExists` of the new identity.
    async fn replace_table(&self, old: Uuid, new: NewTable) -> Result<SwapOutcome, CatalogError>;
    /// Renames a table; `NoSuchTable`, `NoSuchNamespace` for the target's, `AlreadyExists`.
    async fn rename_table(
        &self,
        from: (&Levels, &str),
        to: (&Levels, &str),
    ) -> Result<(), CatalogError>;

    /// A view's row, or none. Views are made and changed by commits, as tables are.
    async fn view(&self, levels: &Levels, name: &str) -> Result<Option<TableRow>, CatalogError>;
    /// Removes a view and gives back its row; `NoSuchView`.
    async fn drop_view(&self, levels: &Levels, name: &str) -> Result<TableRow, CatalogError>;
    /// Renames a view; `NoSuchView`, `NoSuchNamespace` for the target's, `AlreadyExists`.
    async fn rename_view(
        &self,
        from: (&Levels, &str),
        to: (&Levels, &str),
    ) -> Result<(), CatalogError>;
    /// Whether no table lies at this location, above it or below it.
    /// The table `but` does not count, whether it is there or dropped.
    async fn is_free(&self, location: &Location, but: Uuid) -> Result<bool, CatalogError>;

    /// Swaps every pointer or none.
    async fn commit(&self, swaps: &[PointerSwap]) -> Result<SwapOutcome, CatalogError> {
        self.commit_with_new(&[], swaps).await
    }
    /// Adds every table and swaps every pointer, or does nothing; `NoSuchNamespace`,
    /// `AlreadyExists` (of a new table's name or identity, or of its namespace), `Invalid` when a
    /// table's location overlaps another's, a file of an adopted one is queued for deletion, or its
    /// identity is that of a table which was dropped elsewhere. Commits of one table each that wait
    /// at the same time may share a transaction, each all or nothing by itself.
    async fn commit_with_new(
        &self,
        new: &[NewTable],
        swaps: &[PointerSwap],
    ) -> Result<SwapOutcome, CatalogError>;
    /// The row of a table by identity, to find out how an unknown commit ended.
    async fn table_by_uuid(&self, uuid: Uuid) -> Result<Option<TableRow>, CatalogError>;
    /// The name of a table or view by identity.
    async fn name_of(&self, uuid: Uuid) -> Result<Option<(Levels, String)>, CatalogError>;
    /// The highest watermark position of any table that is or was there (0 when there is none):
    /// a log must never hand out a position at or below it.
    async fn highest_position(&self) -> Result<u64, CatalogError>;
    /// Snapshot index of a table, oldest first; empty for an unknown one.
    async fn snapshots(&self, uuid: Uuid) -> Result<Vec<SnapshotRow>, CatalogError>;

    /// Adds a report of a table and forgets all but its `keep` newest; nothing for an unknown one.
    async fn add_report(&self, uuid: Uuid, report: &Report, keep: u32) -> Result<(), CatalogError>;
    /// The reports of a table, newest first; empty for an unknown one.
    async fn reports(&self, uuid: Uuid) -> Result<Vec<Report>, CatalogError>;

    /// Queues files for deletion outside a commit.
    async fn add_obsolete(&self, files: &[Obsolete]) -> Result<(), CatalogError>;
    /// One of these files that is in the queue, whenever its time comes.
    async fn first_obsolete(&self, files: &[String]) -> Result<Option<String>, CatalogError>;
    /// At most `limit` files whose time has come.
    async fn obsolete(&self, now_ms: i64, limit: u32) -> Result<Vec<String>, CatalogError>;
    /// Forgets files that have been deleted.
    async fn forget_obsolete(&self, locations: &[String]) -> Result<(), CatalogError>;
    /// Has files that are still in the queue wait until then.
    async fn put_off_obsolete(
        &self,
        locations: &[String],
        not_before_ms: i64,
    ) -> Result<(), CatalogError>;
    /// How many files are in the queue, whenever their time comes.
    async fn count_obsolete(&self) -> Result<u64, CatalogError>;

    /// What became of the request of this key; none when it was not carried out.
    async fn request(&self, id: Uuid) -> Result<Option<DoneRequest>, CatalogError>;
    /// Keeps the key of a request that changes nothing, with the table or view (identity and
    /// metadata location) that it is answered with; nothing for a request without one. `Repeated`.
    async fn keep_request(&self, made: Option<(Uuid, &str)>) -> Result<(), CatalogError>;
    /// Keeps the answer to a request that was refused, unless one of its key is kept already, and
    /// gives the one that is kept.
    async fn refuse_request(
        &self,
        request: &RequestKey,
        status: u16,
        body: &str,
    ) -> Result<Option<DoneRequest>, CatalogError>;
    /// The feed of changes, which [`Metastore::events`] reads.
    async fn feed(&self) -> Result<Feed, CatalogError>;
    /// At most `limit` changes with numbers above `after`, in order.
    async fn events(&self, after: u64, limit: u32) -> Result<Vec<Event>, CatalogError>;
    /// What the changes of these numbers were made of, as [`Changes::as_text`] has it; those that
    /// are not kept any more are left out.
    async fn event_changes(
        &self,
        numbers: &[u64],
    ) -> Result<Vec<(u64, Option<String>)>, CatalogError>;
    /// The number before the first change at or after a time; the last one's when there is none.
    async fn events_before(&self, at_ms: i64) -> Result<u64, CatalogError>;
    /// Forgets all other requests and changes.
    async fn forget_records(&self, remembered: Remembered) -> Result<(), CatalogError>;
    /// How many transactions that change names or tables were begun to be committed.
    fn transactions(&self) -> u64;
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
