//! Rows that go to a branch of `events` at once, without the log, and branches that come and go.
//!
//! Its one invariant: a snapshot of a branch is built on the very state that its caller read, so what the caller
//! found out there, such as which ids it has, still holds.

use crate::flush::{
    Flush, FlushError,
    commit::{FlushTarget, TableFlush, is_definite},
};
use arrow::record_batch::RecordBatch;
use iceberg::{
    TableIdent, TableRequirement, TableUpdate,
    spec::{Operation, TableMetadata},
};
use icecore_catalog::{
    catalog::{Catalog, TableChange},
    commit::{COMMIT_ID, FIRST_SEQ, LAST_SEQ},
    error::CatalogError,
    metadata_file::refs,
    retention::{self, BRANCH},
    row_sum::RowSum,
    snapshot::{BranchFork, NewSnapshot},
};
use icecore_lake::{
    branch::{BRANCH_PREFIX, Branch, branch_of},
    table::{row_sum, schema, writer},
};
use icecore_schemas::{names::Namespace, service_table::RecordKind};
use std::{
    collections::{BTreeMap, HashMap},
    io,
};

/// What a snapshot of a branch is built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BranchStart {
    /// Its head, which is this snapshot.
    Head(i64),
    /// This snapshot, with which the branch begins anew.
    Fork {
        /// The snapshot; none where the branch begins with its own rows alone.
        at: Option<i64>,
        /// The head that the branch has and leaves; none for a new branch.
        replaces: Option<i64>,
    },
}

/// Rows for a branch, and what is said of it from then on.
#[derive(Clone, Debug)]
pub struct BranchRows {
    /// Whose `events`.
    pub namespace: Namespace,
    /// What they are put on.
    pub start: BranchStart,
    /// The rows, with the columns of `events` and their `seq`; all batches have the same columns.
    pub rows: Vec<RecordBatch>,
    /// The numbers of the first and the last of them; none where there are none.
    pub seq: Option<(u64, u64)>,
    /// The last event that the branch has then.
    pub last_seq: u64,
    /// What is said of the branch.
    pub branch: Branch,
}

impl Flush {
    /// Commits rows to a branch with what is said of it, as one snapshot, and gives its id. On return they are
    /// durable.
    ///
    /// # Errors
    /// [`FlushError::Commit`] with `CommitFailed` where the branch is not as it was read: nothing was committed. Others
    /// as of flushes.
    pub async fn commit_to_branch(
        &self,
        catalog: &Catalog,
        new: BranchRows,
    ) -> Result<i64, FlushError> {
        self.owner.check()?;
        Box::pin(self.commits.commit_to_branch(catalog, new)).await
    }

    /// Removes a branch that is at `head`, with what is said of it. Its snapshots stay until they expire.
    ///
    /// # Errors
    /// `NoSuchTable`, `CommitFailed` where the branch moved meanwhile; others as of commits.
    pub async fn drop_branch(
        &self,
        catalog: &Catalog,
        namespace: &Namespace,
        (name, head): (&str, i64),
    ) -> Result<(), CatalogError> {
        let ours = RecordKind::Events.table().expect("events have a table");
        let ident = schema::ident(namespace, ours.name);
        let table = catalog.tables().load(&ident).await?;
        let property = Branch::property(name);
        let change = TableChange {
            requirements: vec![
                TableRequirement::UuidMatch { uuid: table.metadata.uuid() },
                TableRequirement::RefSnapshotIdMatch {
                    r#ref: name.to_owned(),
                    snapshot_id: Some(head),
                },
            ],
            updates: vec![
                TableUpdate::RemoveSnapshotRef { ref_name: name.to_owned() },
                TableUpdate::RemoveProperties { removals: vec![property] },
            ],
            table: ident,
            keeps_history: false,
        };
        catalog.commit(change).await.map(|_| ())
    }

    /// Removes the branch of this name that a refresh of a branch of the namespace made in a collection's table; nothing
    /// where there is none. Its snapshots stay until they expire.
    ///
    /// # Errors
    /// `NoSuchTable`, `CommitFailed` where the branch moved meanwhile; others as of commits.
    pub async fn drop_documents(
        &self,
        catalog: &Catalog,
        namespace: &Namespace,
        (table, name): (&str, &str),
    ) -> Result<(), CatalogError> {
        let ident = schema::ident(namespace, table);
        let metadata = catalog.tables().load(&ident).await?.metadata;
        let head = metadata.snapshot_for_ref(name).map(|head| head.snapshot_id());
        let is_of_branch = |head: &i64| branch_of(&metadata, *head) == Some(name);
        let Some(head) = head.filter(is_of_branch) else { return Ok(()) };
        // Somebody may have dropped the branch and tagged where it was.
        let is_branch = refs::of(&metadata).get(name).is_some_and(|found| found.is_branch());
        if !is_branch || retention::collection_of(&metadata).is_none() {
            return Ok(());
        }
        let change = TableChange {
            requirements: vec![
                TableRequirement::UuidMatch { uuid: metadata.uuid() },
                TableRequirement::RefSnapshotIdMatch {
                    r#ref: name.to_owned(),
                    snapshot_id: Some(head),
                },
            ],
            updates: vec![TableUpdate::RemoveSnapshotRef { ref_name: name.to_owned() }],
            table: ident,
            keeps_history: false,
        };
        catalog.commit(change).await.map(|_| ())
    }
}

impl TableFlush {
    async fn commit_to_branch(
        &self,
        catalog: &Catalog,
        new: BranchRows,
    ) -> Result<i64, FlushError> {
        let ours = self.ours.of(RecordKind::Events).expect("events have a table");
        let ident = schema::ident(&new.namespace, ours.name);
        let table = FlushTarget::There(catalog.tables().load(&ident).await?);
        let fit = self.fit(&ident, ours, table.metadata())?;
        let (table, rows) = self.with_columns(&ident, table, ours, fit, new.rows.clone()).await?;
        let read = rows.iter().map(row_sum::sum_of).fold(RowSum::default(), RowSum::merge);
        let storage = self.catalog.storage();
        let written = writer::write_summed(storage, table.metadata(), rows, &self.ids).await?;
        let locations: Vec<String> =
            written.files.iter().map(|file| file.file_path().to_owned()).collect();
        let snapshot = NewSnapshot {
            rows_added: written.rows_sum,
            added: written.files,
            ..self.branch_snapshot(table.metadata(), &new)
        };
        let result = match written.rows_sum {
            Some(written) if written != read => Err(FlushError::RowsDiffer { read, written }),
            Some(_) | None => self.add_to_branch(catalog, &ident, &new.branch.name, snapshot).await,
        };
        if result.as_ref().is_err_and(is_definite) {
            writer::delete(storage, locations.iter().map(String::as_str)).await;
        }
        result
    }

    /// The snapshot without its files.
    fn branch_snapshot(&self, table: &TableMetadata, new: &BranchRows) -> NewSnapshot {
        let BranchRows { start, seq, last_seq, branch, .. } = new;
        let mut summary = BTreeMap::from(
            [
                (BRANCH, branch.name.clone()),
                (COMMIT_ID, self.ids.mint().to_string()),
                (LAST_SEQ, last_seq.to_string()),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        if let Some((first, _)) = seq {
            summary.insert(FIRST_SEQ.to_owned(), first.to_string());
        }
        let (read, fork) = match *start {
            BranchStart::Head(head) => (Some(head), None),
            BranchStart::Fork { at, replaces } => (at, Some(BranchFork { replaces })),
        };
        let text = branch.to_property().expect("names and numbers are JSON");
        let mut upgrades = vec![TableUpdate::SetProperties {
            updates: HashMap::from([(Branch::property(&branch.name), text)]),
        }];
        // Only one branch of a namespace is made at a time. Beside another commit one may be made anew.
        let is_new = fork.is_some_and(|fork| fork.replaces.is_none());
        let removals = if is_new { lost_branches(table, &branch.name) } else { Vec::new() };
        if !removals.is_empty() {
            upgrades.push(TableUpdate::RemoveProperties { removals });
        }
        NewSnapshot {
            operation: Operation::Append,
            read,
            needs_head: fork.is_none(),
            fork,
            table: Some(table.uuid()),
            branch: Some(branch.name.clone()),
            summary,
            upgrades,
            ..NewSnapshot::default()
        }
    }

    async fn add_to_branch(
        &self,
        catalog: &Catalog,
        ident: &TableIdent,
        branch: &str,
        snapshot: NewSnapshot,
    ) -> Result<i64, FlushError> {
        self.faults.hit("branch.before_commit")?;
        let table = catalog.add_snapshot(ident, snapshot).await?;
        let unknown = |fault: io::Error| CatalogError::CommitStateUnknown(fault.to_string());
        self.faults.hit("branch.lost_answer").map_err(unknown)?;
        let head = table.metadata.snapshot_for_ref(branch).map(|head| head.snapshot_id());
        head.ok_or_else(|| CatalogError::NoSuchReference(branch.to_owned()).into())
    }
}

/// The properties of branches whose refs another engine dropped.
fn lost_branches(table: &TableMetadata, but: &str) -> Vec<String> {
    let is_lost = |key: &&String| {
        key.strip_prefix(BRANCH_PREFIX)
            .is_some_and(|name| name != but && table.snapshot_for_ref(name).is_none())
    };
    table.properties().keys().filter(is_lost).cloned().collect()
}
