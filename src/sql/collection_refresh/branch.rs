//! The refresh of a branch: the branch of a collection's table with the name of one of the namespace gets the documents
//! of that one.
//!
//! It begins at the newest snapshot of `main` whose events the branch has, shares its files, and goes on from its own
//! head afterwards. Its one invariant: what a snapshot of it shares with an earlier one has no event that the branch
//! does not have under the same number.

use crate::sql::{
    Sql,
    collection_refresh::{
        ChangedBuckets, CommitCheck, RefreshedCollection,
        base::{CollectionPlace, ReadBase, RefreshStart, TargetBranch, load_table},
    },
    materialized::RefreshCaller,
    writes::{WriteFailure, target::invalid},
};
use futures::StreamExt;
use iceberg::spec::TableMetadata;
use icecore_catalog::{
    ancestors,
    catalog::LoadedTable,
    error::CatalogError,
    metadata_file::refs,
    snapshot::{BranchFork, NewSnapshot},
};
use icecore_engine::{
    collections::{IS_CHANGE, IS_TRUNCATE, events_at, literal},
    error::SqlError,
};
use icecore_lake::{
    branch::{Branch, branch_of},
    collection::table_name,
    table::{
        documents::{AppliedChanges, ReadBranch},
        schema::foreign_ident,
    },
};
use std::sync::Arc;

/// A branch of a namespace as a refresh reads it. Its caller sees to it that the branch is not squashed meanwhile.
#[derive(Clone, Debug)]
pub struct BranchState {
    /// What is said of it.
    pub branch: Branch,
    /// Table `events`, which it is a ref of.
    pub events: Arc<TableMetadata>,
    /// Its head.
    pub head: i64,
    /// The last event of that.
    pub seq: u64,
}

impl BranchState {
    fn read(&self) -> ReadBranch {
        let Branch { name, created_at, .. } = &self.branch;
        ReadBranch { name: name.clone(), created_at: *created_at, head: self.head }
    }

    /// Whether the branch still has every event, under its number, of the state that documents were read of. One that
    /// was squashed, or made again under its name, has others; and what another engine wrote may have any number.
    fn goes_on_from(&self, read: &ReadBranch) -> bool {
        let mut line = ancestors::of(&self.events, Some(self.head));
        read.name == self.branch.name
            && read.created_at == self.branch.created_at
            && self.branch.is_of_service(&self.events)
            && line.any(|snapshot| snapshot.snapshot_id() == read.head)
    }
}

impl Sql {
    /// Has the branch of a collection's table follow the branch of the namespace with its name. Where there is no such
    /// table, it is made first, with the documents of `main`. With `is_full` all buckets are written anew. Durable on
    /// return. `check` is asked right before each commit to the branch of the table.
    ///
    /// # Errors
    /// [`WriteFailure`]; `AlreadyExists` for a table that has a branch or tag of the name from somebody else,
    /// `CommitFailed` when another commit to the branch came first. The table stays as it is then, but after
    /// `CommitStateUnknown`, which says so.
    pub async fn refresh_branch(
        &self,
        caller: &RefreshCaller<'_>,
        (levels, collection): (&[String], &str),
        (state, check): (&BranchState, &CommitCheck),
        is_full: bool,
    ) -> Result<RefreshedCollection, WriteFailure> {
        let ident = foreign_ident(levels, &table_name(collection))
            .ok_or_else(|| invalid("a namespace has a name"))?;
        let place = CollectionPlace { levels, collection, ident };
        let _turn = self.collection_turn().await?;
        let table = match load_table(&caller.catalog, &place).await? {
            Some(table) => table,
            None => Box::pin(self.table_of_main(caller, &place, state)).await?,
        };
        let log = self.inner.owner.origin();
        let is_known = |it: &AppliedChanges| {
            // While an erasure goes on, nothing is known of what is there.
            let is_same = it.erasures.is_some() && it.erasures == caller.erasures;
            !is_full && is_same && it.log == log && it.seq <= state.seq
        };
        let start = start_of(&table, &place, (state, check), is_known)?;
        let base = Box::pin(ReadBase::at(&caller.catalog, table, start)).await?;
        let Some(applied) = base.applied.clone() else {
            let erasures = caller.erasures.clone();
            let next = AppliedChanges { seq: state.seq, log, erasures, schema_id: None };
            return Box::pin(self.write_branch(caller, &place, base, (next, ChangedBuckets::All)))
                .await;
        };
        let range = (applied.seq, Some(state.seq));
        let (_, changed) = Box::pin(self.changed_buckets(&place, &base, range)).await?;
        let next = AppliedChanges { seq: state.seq, ..applied };
        if changed.is_empty() {
            return Box::pin(note_branch(caller, &place, &base, next)).await;
        }
        Box::pin(self.write_branch(caller, &place, base, (next, changed))).await
    }

    /// Makes the table of a collection that the branch has changes of, with the documents of `main`, which may be none.
    async fn table_of_main(
        &self,
        caller: &RefreshCaller<'_>,
        place: &CollectionPlace<'_>,
        state: &BranchState,
    ) -> Result<LoadedTable, WriteFailure> {
        let (branch, collection) = (&state.branch.name, place.collection);
        let sql = format!(
            "SELECT seq FROM {} WHERE collection = {} AND ({IS_CHANGE} OR {IS_TRUNCATE}) LIMIT 1",
            events_at(Some(branch), state.seq),
            literal(collection),
        );
        let mut answer = Box::pin(self.asked(place.levels, sql)).await?;
        let mut rows = 0;
        while let Some(batch) = answer.batches.next().await {
            rows += batch?.num_rows();
        }
        if rows == 0 {
            let text = format!(
                "collection `{collection}` has no changes on branch `{branch}`: send some first"
            );
            return Err(SqlError::NotFound(text).into());
        }
        let seq = Box::pin(self.last_seq(place, false)).await?;
        let (log, erasures) = (self.inner.owner.origin(), caller.erasures.clone());
        let applied = AppliedChanges { seq, log, erasures, schema_id: None };
        Box::pin(self.make_table(caller, place, applied)).await?;
        self.fault("refresh.before_branch")?;
        Ok(caller.catalog.tables().load(&place.ident).await?)
    }

    /// Writes the documents of these buckets, and tells where the branch of the table is then.
    async fn write_branch(
        &self,
        caller: &RefreshCaller<'_>,
        place: &CollectionPlace<'_>,
        base: ReadBase,
        (next, changed): (AppliedChanges, ChangedBuckets),
    ) -> Result<RefreshedCollection, WriteFailure> {
        let name = base.branch_name().unwrap_or_default().to_owned();
        let written = self.write_documents(caller, place, Some(base), next, (changed, None));
        let done = Box::pin(written).await?;
        // A commit without rows does not tell its snapshot.
        let table = caller.catalog.tables().load(&place.ident).await?;
        Ok(RefreshedCollection { snapshot: head_of(&table, &name), ..done })
    }
}

/// Says of a branch of the table that it has every event up to another one, which changed none of its documents.
async fn note_branch(
    caller: &RefreshCaller<'_>,
    place: &CollectionPlace<'_>,
    base: &ReadBase,
    next: AppliedChanges,
) -> Result<RefreshedCollection, WriteFailure> {
    let mut done = RefreshedCollection {
        applied_seq: next.seq,
        snapshot: base.snapshot,
        documents: base.files.iter().map(|file| file.rows).sum(),
        buckets: 0,
        rows: 0,
        is_changed: false,
    };
    let noted = base.snapshot.and_then(|id| ReadBranch::of(&base.table.metadata, id));
    if noted.as_ref() == base.branch.as_ref().map(|branch| &branch.read) {
        return Ok(done);
    }
    if let Some(branch) = &base.branch {
        (branch.check)().await?;
    }
    // Also where nothing changed: the next refresh looks for the state of the branch that this one saw.
    let new = NewSnapshot { summary: base.summary_of(&next), ..base.without_files() };
    let made = Box::pin(caller.catalog.add_snapshot(&place.ident, new)).await?;
    done.snapshot = head_of(&made, base.branch_name().unwrap_or_default());
    done.is_changed = true;
    Ok(done)
}

/// Where a refresh of a branch begins: at its own head in the table, else at a snapshot of `main` that has none but
/// events of the branch, else at any, of which no file stays.
fn start_of(
    table: &LoadedTable,
    place: &CollectionPlace<'_>,
    (state, check): (&BranchState, &CommitCheck),
    is_known: impl Fn(&AppliedChanges) -> bool,
) -> Result<RefreshStart, WriteFailure> {
    let (metadata, name) = (table.metadata.as_ref(), state.branch.name.as_str());
    let head = head_of(table, name);
    let is_branch = || refs::of(metadata).get(name).is_some_and(|found| found.is_branch());
    if head.is_some_and(|head| branch_of(metadata, head) != Some(name) || !is_branch()) {
        let text = format!(
            "{} has a branch or tag `{name}` that this server did not make: drop it and refresh again",
            place.ident
        );
        return Err(CatalogError::AlreadyExists(text).into());
    }
    let own = head.and_then(|head| {
        let read = ReadBranch::of(metadata, head)?;
        let applied = AppliedChanges::of_branch(metadata, head)?;
        (state.goes_on_from(&read) && is_known(&applied)).then_some((head, applied))
    });
    let (read, check) = (state.read(), Arc::clone(check));
    if let Some((head, applied)) = own {
        let branch = TargetBranch { read, fork: None, check };
        let (snapshot, applied) = (Some(head), Some(applied));
        return Ok(RefreshStart { snapshot, applied, branch: Some(branch) });
    }
    let (snapshot, applied) = match shared_with_main(metadata, state, is_known) {
        Some((snapshot, applied)) => (Some(snapshot), Some(applied)),
        None => (metadata.current_snapshot_id(), None),
    };
    if snapshot.is_none() {
        let text = format!("{} has no snapshot: refresh it without `branch` first", place.ident);
        return Err(invalid(text).into());
    }
    let branch = TargetBranch { read, fork: Some(BranchFork { replaces: head }), check };
    Ok(RefreshStart { snapshot, applied, branch: Some(branch) })
}

/// The newest snapshot of `main` of a collection's table whose events the branch has, and none younger than the branch:
/// `main` may have lost some since and given their numbers to others. What is below a snapshot that is not of the
/// documents is of none.
fn shared_with_main(
    table: &TableMetadata,
    state: &BranchState,
    is_known: impl Fn(&AppliedChanges) -> bool,
) -> Option<(i64, AppliedChanges)> {
    let part = state.branch.main_part(&state.events)?;
    for snapshot in ancestors::of(table, table.current_snapshot_id()) {
        let id = snapshot.snapshot_id();
        let applied = AppliedChanges::of(table, Some(id))?;
        let is_within = applied.seq <= part.seq && snapshot.timestamp_ms() <= part.taken_at;
        if is_within && is_known(&applied) {
            return Some((id, applied));
        }
    }
    None
}

fn head_of(table: &LoadedTable, name: &str) -> Option<i64> {
    table.metadata.snapshot_for_ref(name).map(|head| head.snapshot_id())
}
