//! A table, what those who work on it know, and what they may do next.

use super::*;

/// What happens next. Each may happen so often ([`TableAction::times`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum TableAction {
    /// Rows come.
    Append,
    /// The compactor reads the live files of `main`.
    BeginRewrite,
    /// It puts one file in their place.
    EndRewrite,
    /// A client reads the table and writes a delete of a row.
    BeginDelete,
    /// It commits that.
    EndDelete,
    /// The head gets a tag.
    Tag,
    /// The tag goes.
    Untag,
    /// A client commits rows to another branch.
    Fork,
    /// The other branch goes.
    DropBranch,
    /// The oldest snapshot goes that nobody needs.
    ExpireOne,
    /// All of them go.
    ExpireAll,
    /// What was queued is deleted.
    Clean,
}

pub(super) const ACTIONS: [TableAction; 12] = [
    TableAction::Append,
    TableAction::BeginRewrite,
    TableAction::EndRewrite,
    TableAction::BeginDelete,
    TableAction::EndDelete,
    TableAction::Tag,
    TableAction::Untag,
    TableAction::Fork,
    TableAction::DropBranch,
    TableAction::ExpireOne,
    TableAction::ExpireAll,
    TableAction::Clean,
];

impl TableAction {
    /// Whether it leaves the table as it is.
    pub(super) fn is_beginning(self) -> bool {
        matches!(self, Self::BeginRewrite | Self::BeginDelete)
    }

    pub(super) fn times(self) -> usize {
        match self {
            Self::Append
            | Self::BeginRewrite
            | Self::EndRewrite
            | Self::ExpireOne
            | Self::ExpireAll
            | Self::Clean => 2,
            Self::BeginDelete
            | Self::EndDelete
            | Self::Tag
            | Self::Untag
            | Self::Fork
            | Self::DropBranch => 1,
        }
    }
}

/// What a file has in it.
#[derive(Clone, Debug)]
pub(super) enum FileContents {
    Rows(Vec<u32>),
    /// The data file and the row of it that is deleted.
    Delete(String, u32),
}

/// Files that were read to be written anew.
#[derive(Clone, Debug)]
pub(super) struct PendingRewrite {
    pub(super) read: i64,
    pub(super) removed: Vec<DataFile>,
    pub(super) rows: Vec<u32>,
}

/// A client's commit that is written and not sent.
#[derive(Clone, Debug)]
pub(super) struct PendingDelete {
    pub(super) base: i64,
    pub(super) id: i64,
    pub(super) updates: Vec<TableUpdate>,
    pub(super) file: String,
    pub(super) about: String,
    pub(super) row: u32,
}

/// A table, and what those who work on it know.
#[derive(Clone)]
pub(super) struct TableState {
    pub(super) metadata: TableMetadata,
    pub(super) now_ms: i64,
    /// Every data and delete file that was ever written.
    pub(super) files: BTreeMap<String, (DataFile, FileContents)>,
    pub(super) rows: u32,
    /// The rows that each snapshot has to show, in order.
    pub(super) shown: BTreeMap<i64, Vec<u32>>,
    pub(super) rewrite: Option<PendingRewrite>,
    pub(super) delete: Option<PendingDelete>,
    pub(super) queued: BTreeSet<String>,
    pub(super) deleted: BTreeSet<String>,
    pub(super) trail: Vec<TableAction>,
}

impl TableState {
    pub(super) fn head(&self) -> i64 {
        self.metadata.current_snapshot_id().unwrap()
    }

    pub(super) fn snapshot(&self, id: i64) -> &Snapshot {
        self.metadata.snapshot_by_id(id).unwrap()
    }

    pub(super) fn refs(&self) -> BTreeMap<String, i64> {
        let refs = metadata_file::refs::of(&self.metadata).into_iter();
        refs.map(|(name, reference)| (name, reference.snapshot_id)).collect()
    }

    pub(super) fn apply(&mut self, updates: &[TableUpdate]) {
        let applied = commit::apply_updates_at(&self.metadata, None, updates, self.now_ms);
        self.metadata = applied.unwrap();
        self.now_ms += 1_000;
    }

    pub(super) fn new_file(&mut self, contents: FileContents) -> DataFile {
        let number = self.files.len();
        let path = format!("{}/data/{number:06}.parquet", self.metadata.location());
        let mut file = DataFileBuilder::default();
        let partition = Struct::from_iter([Some(Literal::string("a")), Some(Literal::date(1))]);
        file.file_path(path.clone())
            .file_format(DataFileFormat::Parquet)
            .partition(partition)
            .partition_spec_id(0)
            .file_size_in_bytes(1_000);
        match &contents {
            FileContents::Rows(rows) => {
                file.content(DataContentType::Data).record_count(rows.len() as u64);
            }
            FileContents::Delete(about, _) => {
                file.content(DataContentType::PositionDeletes).record_count(1);
                file.referenced_data_file(Some(about.clone()));
            }
        }
        let file = file.build().unwrap();
        self.files.insert(path, (file.clone(), contents));
        file
    }

    pub(super) fn new_rows(&mut self) -> (DataFile, u32) {
        self.rows += 1;
        let row = self.rows;
        (self.new_file(FileContents::Rows(vec![row])), row)
    }

    /// The snapshots that no branch and no tag names, the oldest first.
    pub(super) fn unnamed(&self) -> Vec<i64> {
        let named: HashSet<i64> = self.refs().into_values().collect();
        let mut free: Vec<&SnapshotRef> =
            self.metadata.snapshots().filter(|it| !named.contains(&it.snapshot_id())).collect();
        free.sort_by_key(|snapshot| snapshot.sequence_number());
        free.into_iter().map(|snapshot| snapshot.snapshot_id()).collect()
    }

    /// Each row of these files with the data file that it is in, without those that are deleted.
    pub(super) fn rows_of(&self, live: &[String]) -> Vec<(u32, String)> {
        let contents = |path: &String| (path.clone(), self.files[path].1.clone());
        let (mut rows, mut deleted) = (Vec::new(), HashSet::new());
        for (path, contents) in live.iter().map(contents) {
            match contents {
                FileContents::Rows(own) => {
                    rows.extend(own.into_iter().map(|row| (row, path.clone())));
                }
                FileContents::Delete(about, row) => {
                    deleted.insert((row, about));
                }
            }
        }
        rows.retain(|row| !deleted.contains(row));
        rows.sort();
        rows
    }
}

pub(super) fn set_ref(name: &str, snapshot_id: i64, retention: SnapshotRetention) -> TableUpdate {
    let reference = SnapshotReference::new(snapshot_id, retention);
    TableUpdate::SetSnapshotRef { ref_name: name.to_owned(), reference }
}

pub(super) fn drop_ref(state: &mut TableState, name: &str) -> bool {
    let is_there = state.refs().contains_key(name);
    if is_there {
        state.apply(&[TableUpdate::RemoveSnapshotRef { ref_name: name.to_owned() }]);
    }
    is_there
}
