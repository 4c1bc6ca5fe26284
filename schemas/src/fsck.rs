//! The answer of `POST /admin/fsck`: whether tables are whole, and what is wrong with those that are not.

use serde::{Deserialize, Serialize};

/// Most entries of a list of an answer; what is beyond is counted.
pub const FINDINGS_MAX: usize = 100;
/// Most ranges of missing numbers of a table in an answer; what is beyond is counted.
pub const GAPS_MAX: usize = 20;

/// What stands behind the `?` of `POST /admin/fsck`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FsckParameters {
    /// Only tables of this namespace.
    pub namespace: Option<String>,
    /// Only tables of this name.
    pub table: Option<String>,
    /// Whether to leave the rows unread: files, footers and counts are looked at alone.
    #[serde(default)]
    pub quick: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FsckReport {
    /// Each table that was looked at, in the order of their names.
    pub tables: Vec<FsckTable>,
    /// Whether no table is damaged.
    pub whole: bool,
    /// How many milliseconds it took.
    pub elapsed_ms: u64,
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FsckTable {
    /// Namespace and name.
    pub table: String,
    /// Retained snapshots, all of which were looked at.
    pub snapshots: u64,
    /// Data and delete files of these snapshots, each counted once.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Live rows of the current snapshot. Of a table of ours whose rows were read they are exact; of
    /// others those that equality deletes take away are still counted.
    pub rows: u64,
    /// Rows that are still in its files, and that delete files take away.
    #[serde(default)]
    pub deleted_rows: u64,
    /// How many of them other engines appended, where the snapshots that did are retained.
    pub foreign_rows: u64,
    /// What is wrong, at most 100 entries.
    pub damage: Vec<FsckFinding>,
    /// How many there are.
    pub damage_total: u64,
    /// What is worth knowing and no damage, at most 100 entries.
    pub notes: Vec<FsckFinding>,
    /// How many there are.
    pub notes_total: u64,
    /// Numbers up to the watermark that no row has, at most 20 ranges.
    pub gaps: Vec<SeqGap>,
    /// How many ranges there are.
    pub gaps_total: u64,
}

impl FsckTable {
    /// A table of which nothing is known yet.
    #[must_use]
    pub fn new(table: String) -> Self {
        Self { table, ..Self::default() }
    }

    /// Whether nothing is wrong with it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.damage_total == 0
    }

    /// Counts damage, and lists it while there is room.
    pub fn add_damage(&mut self, finding: FsckFinding) {
        self.damage_total += 1;
        if self.damage.len() < FINDINGS_MAX {
            self.damage.push(finding);
        }
    }

    /// Counts a note, and lists it while there is room.
    pub fn add_note(&mut self, finding: FsckFinding) {
        self.notes_total += 1;
        if self.notes.len() < FINDINGS_MAX {
            self.notes.push(finding);
        }
    }

    /// Counts a range of missing numbers, and lists it while there is room.
    pub fn add_gap(&mut self, gap: SeqGap) {
        self.gaps_total += 1;
        if self.gaps.len() < GAPS_MAX {
            self.gaps.push(gap);
        }
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FsckFinding {
    /// What it is about.
    pub kind: FindingKind,
    /// What was found.
    pub what: String,
    /// The file that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The snapshot that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<i64>,
}

impl FsckFinding {
    /// A finding about the table as a whole.
    #[must_use]
    pub fn new(kind: FindingKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), file: None, snapshot: None }
    }

    /// The same, about a file.
    #[must_use]
    pub fn of_file(self, file: &str) -> Self {
        Self { file: Some(file.to_owned()), ..self }
    }

    /// The same, about a snapshot.
    #[must_use]
    pub fn of_snapshot(self, snapshot: i64) -> Self {
        Self { snapshot: Some(snapshot), ..self }
    }
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// The metadata file, or the metastore's rows about it.
    Metadata,
    /// A file that is not there.
    Missing,
    /// A file that the store does not give.
    Unreadable,
    /// A manifest list that does not read.
    ManifestList,
    /// A manifest that does not read, or is not as its list says.
    Manifest,
    /// A file that has another length.
    Size,
    /// A Parquet footer that does not read.
    Footer,
    /// Rows that do not read.
    Rows,
    /// Counts that do not agree.
    Counts,
    /// A summary that does not agree with the manifests.
    Summary,
    /// Values outside of the bounds that a manifest has.
    Bounds,
    /// Rows in the wrong partition.
    Partition,
    /// A file that is live twice.
    Twice,
    /// Numbers of rows: twice, missing, or above the watermark.
    Numbers,
    /// The order of the numbers in the snapshots, or the watermark.
    Watermark,
    /// The sum of the rows: another one than commits, or the account of the rows, say.
    Sums,
    /// Files that nothing names.
    Orphans,
    /// Files outside of the table's own location.
    Location,
    /// Something that is not checked.
    Unchecked,
}

impl FindingKind {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::ManifestList => "manifest-list",
            Self::Manifest => "manifest",
            Self::Size => "size",
            Self::Footer => "footer",
            Self::Rows => "rows",
            Self::Counts => "counts",
            Self::Summary => "summary",
            Self::Bounds => "bounds",
            Self::Partition => "partition",
            Self::Twice => "twice",
            Self::Numbers => "numbers",
            Self::Watermark => "watermark",
            Self::Sums => "sums",
            Self::Orphans => "orphans",
            Self::Location => "location",
            Self::Unchecked => "unchecked",
        }
    }
}

/// Numbers that no row of the table has, from `first` to `last`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SeqGap {
    /// The first one.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// Why they are missing; null where nothing explains it, which is damage.
    pub reason: Option<String>,
}
