//! Which delete files reach which data files.
//!
//! Its one invariant: a delete file that may hold a row of a data file is among those of that
//! file. One too many costs a read; one too few shows deleted rows.

use super::{
    Deadline, ScanError,
    manifests::{PlannedFile, PlannedFiles},
};
use iceberg::spec::{
    DataContentType, DataFileFormat, Datum, Literal, PrimitiveLiteral, Struct, TableMetadata,
};
use std::{collections::HashMap, sync::Arc};

/// The column of a position delete file that names data files; the specification reserves its id.
pub const FILE_PATH_ID: i32 = 2_147_483_546;
/// That of the metadata column whose bounds DuckDB writes instead.
const FILE_ID: i32 = 2_147_483_646;

/// Delete files by what they may delete from.
#[derive(Clone, Debug, Default)]
pub struct DeleteIndex {
    files: PlannedFiles,
    /// Position deletes that are about one data file.
    by_path: HashMap<String, Vec<usize>>,
    /// Deletion vectors, which are about one data file each.
    vectors: HashMap<String, Vec<usize>>,
    /// Position deletes of several data files.
    positions: Vec<usize>,
    /// Equality deletes of one partition.
    by_partition: HashMap<(i32, String), Vec<usize>>,
    /// Equality deletes of the whole table.
    everywhere: Vec<usize>,
}

impl DeleteIndex {
    /// An index of a snapshot's delete files.
    #[must_use]
    pub fn new(metadata: &TableMetadata, files: PlannedFiles) -> Self {
        let mut index = Self::default();
        for (at, file) in files.iter().enumerate() {
            let place = match file.content {
                DataContentType::EqualityDeletes => {
                    let spec = metadata.partition_spec_by_id(file.spec_id);
                    if spec.is_none_or(|spec| spec.is_unpartitioned()) {
                        &mut index.everywhere
                    } else {
                        index.by_partition.entry(partition_key(file)).or_default()
                    }
                }
                DataContentType::Data | DataContentType::PositionDeletes => match only_path(file) {
                    Some(path) if file.format == DataFileFormat::Puffin => {
                        index.vectors.entry(path).or_default()
                    }
                    Some(path) => index.by_path.entry(path).or_default(),
                    None => &mut index.positions,
                },
            };
            place.push(at);
        }
        index.files = files;
        index
    }

    /// Whether there are no delete files at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The delete files that reach a data file.
    #[must_use]
    pub fn of(&self, data: &PlannedFile) -> PlannedFiles {
        self.reaching(data).into_iter().map(|at| Arc::clone(&self.files[at])).collect()
    }

    /// Their places in `files`, in order.
    fn reaching(&self, data: &PlannedFile) -> Vec<usize> {
        if self.is_empty() {
            return Vec::new();
        }
        let listed = |found: Option<&Vec<usize>>| found.map_or(&[][..], Vec::as_slice).to_vec();
        let mut reached = listed(self.by_partition.get(&partition_key(data)));
        reached.extend(&self.everywhere);
        reached.retain(|at| data.sequence < self.files[*at].sequence);
        let is_not_younger = |at: &usize| data.sequence <= self.files[*at].sequence;
        let mut vectors = listed(self.vectors.get(&data.location));
        vectors.retain(is_not_younger);
        if vectors.is_empty() {
            let in_file = listed(self.by_path.get(&data.location));
            let reaches = |at: &&usize| {
                let file = &self.files[**at];
                may_name(file, &data.location) && is_of_partition(file, data)
            };
            let named = self.positions.iter().filter(reaches).copied();
            reached.extend(in_file.into_iter().chain(named).filter(is_not_younger));
        }
        // A vector stands for all position deletes of its file up to it.
        reached.extend(vectors);
        reached.sort_unstable();
        reached
    }

    /// The delete files that reach any of these data files, each once. A data file may be reached by
    /// all of them, so for each pair there is only a mark.
    ///
    /// # Errors
    /// [`ScanError::TooSlow`]
    pub fn of_all(
        &self,
        data: &[Arc<PlannedFile>],
        until: Deadline,
    ) -> Result<PlannedFiles, ScanError> {
        let mut is_reached = vec![false; self.files.len()];
        for file in data {
            until.check()?;
            self.reaching(file).into_iter().for_each(|at| is_reached[at] = true);
        }
        let reached = self.files.iter().zip(is_reached).filter(|(_, is_reached)| *is_reached);
        let mut found: PlannedFiles = reached.map(|(file, _)| Arc::clone(file)).collect();
        let name = |file: &PlannedFile| (file.location.clone(), file.content_offset);
        found.sort_by_cached_key(|file| name(file));
        found.dedup_by(|one, other| name(one) == name(other));
        Ok(found)
    }
}

/// The only data file that a delete file names, where it says so.
fn only_path(file: &PlannedFile) -> Option<String> {
    if let Some(path) = &file.referenced_data_file {
        return Some(path.clone());
    }
    let (lower, upper) = path_bounds(file);
    lower.filter(|lower| Some(*lower) == upper).map(str::to_owned)
}

/// Whether a position delete file may delete from a data file that its rows name: it is about that
/// file alone and says so, or is of the same partition. Engines that follow the specification pass
/// over others.
#[must_use]
pub fn applies(delete: &PlannedFile, data: &PlannedFile) -> bool {
    only_path(delete).is_some_and(|path| path == data.location) || is_of_partition(delete, data)
}

/// Whether a delete file names this data file and no other, and says so.
#[must_use]
pub fn is_only_about(delete: &PlannedFile, data: &PlannedFile) -> bool {
    delete.content == DataContentType::PositionDeletes
        && only_path(delete).is_some_and(|path| path == data.location)
}

fn is_of_partition(delete: &PlannedFile, data: &PlannedFile) -> bool {
    partition_key(delete) == partition_key(data)
}

/// The partition of a file, with its spec. Equality deletes of one partition reach the same data
/// files but for their age.
#[must_use]
pub fn partition_key(file: &PlannedFile) -> (i32, String) {
    (file.spec_id, key(&file.partition))
}

/// Whether a delete file may name a data file.
fn may_name(file: &PlannedFile, path: &str) -> bool {
    let (lower, upper) = path_bounds(file);
    lower.is_none_or(|lower| lower <= path) && upper.is_none_or(|upper| path <= upper)
}

fn path_bounds(file: &PlannedFile) -> (Option<&str>, Option<&str>) {
    let known = [FILE_PATH_ID, FILE_ID].into_iter().find_map(|id| file.column(id));
    let Some(paths) = known else { return (None, None) };
    (text_of_bound(paths.lower.as_ref()), text_of_bound(paths.upper.as_ref()))
}

fn text_of_bound(bound: Option<&Datum>) -> Option<&str> {
    match bound?.literal() {
        PrimitiveLiteral::String(text) => Some(text),
        _ => None,
    }
}

/// A partition as one text, the same for values that were written before a column was widened.
fn key(partition: &Struct) -> String {
    let value = |value: Option<&Literal>| match value {
        Some(Literal::Primitive(PrimitiveLiteral::Int(value))) => {
            format!("{:?}", Some(Literal::long(*value)))
        }
        Some(Literal::Primitive(PrimitiveLiteral::Float(value))) => {
            format!("{:?}", Some(Literal::double(value.0)))
        }
        other => format!("{other:?}"),
    };
    partition.iter().map(value).collect::<Vec<_>>().join("\u{1f}")
}
