//! Manifest lists and manifests of any version and writer, reduced to what tells which files come and
//! which go.

pub(crate) use crate::avro::LastSchema;
use crate::{avro, manifest_file::PATH_IDS};
use serde_json::Value;

/// Most manifests of a list: a few bytes may claim any number of them.
const MANIFESTS_MAX: usize = 1_000_000;
/// Values of an entry's `status`.
const ADDED: i64 = 1;
const DELETED: i64 = 2;
/// Values of a file's `content`.
const DATA: i64 = 0;
const POSITION_DELETES: i64 = 1;

/// A member of records that is a location: the fields that lead to it, and the id of the last.
type LocationMember = (&'static [&'static str], u64);
const MANIFEST_PATH: LocationMember = (&["manifest_path"], 500);
const FILE_PATH: LocationMember = (&["data_file", "file_path"], 100);

/// A manifest, as a list has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListedManifest {
    pub(crate) path: String,
    pub(crate) spec_id: i64,
    pub(crate) has_deletes: bool,
    /// Its sequence number, which entries without one take.
    pub(crate) number: i64,
    /// The snapshot that added it.
    pub(crate) added_by: i64,
}

/// An entry of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileEntry {
    status: i64,
    content: i64,
    pub(crate) snapshot_id: Option<i64>,
    /// Its own sequence number.
    pub(crate) number: Option<i64>,
    pub(crate) path: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    referenced: Option<String>,
    /// Bounds of the paths that a delete file has.
    lowest: Option<String>,
    highest: Option<String>,
}

impl FileEntry {
    pub(crate) fn is_added(&self) -> bool {
        self.status == ADDED
    }

    pub(crate) fn is_live(&self) -> bool {
        self.status != DELETED
    }

    pub(crate) fn is_data(&self) -> bool {
        self.content == DATA
    }

    /// Whether it deletes rows by their place, in a file of deletes or as a deletion vector.
    pub(crate) fn deletes_positions(&self) -> bool {
        self.content == POSITION_DELETES
    }

    /// The only data file that a position delete file is about, where it says so.
    pub(crate) fn about(&self) -> Option<&str> {
        if !self.deletes_positions() {
            return None;
        }
        let bound = || self.lowest.as_deref().filter(|_| self.lowest == self.highest);
        self.referenced.as_deref().or_else(bound)
    }

    /// Whether a position delete file that does not say so may be about the data file.
    pub(crate) fn may_be_about(&self, path: &str) -> bool {
        self.lowest.as_deref().is_none_or(|lowest| lowest <= path)
            && self.highest.as_deref().is_none_or(|highest| path <= highest)
    }
}

/// The manifests of a list.
///
/// # Errors
/// Says why the file is none.
pub(crate) fn manifests(list: &[u8], last: &LastSchema) -> Result<Vec<ListedManifest>, String> {
    let mut read = ListReader::default();
    avro::read_alike(list, last, |schema| check_member(schema, MANIFEST_PATH), &mut read)?;
    match read.manifests.len() {
        0..=MANIFESTS_MAX => Ok(read.manifests),
        _ => Err(format!("it has more than {MANIFESTS_MAX} manifests: merge them")),
    }
}

/// Shows the entries of a manifest.
///
/// # Errors
/// Says why the file is none.
pub(crate) fn each(manifest: &[u8], entry: &mut dyn FnMut(FileEntry)) -> Result<(), String> {
    let mut read = EntryReader { found: FileEntry::default(), bound: 0, entry };
    avro::read(manifest, |schema| check_member(schema, FILE_PATH), &mut read)
}

/// The live entries of a manifest.
///
/// # Errors
/// As [`each`].
pub(crate) fn live(manifest: &[u8]) -> Result<Vec<FileEntry>, String> {
    let mut found = Vec::new();
    each(manifest, &mut |entry| found.extend(entry.is_live().then_some(entry)))?;
    Ok(found)
}

/// Refuses a file in which readers that go by field ids and readers that go by names find different
/// members.
fn check_member(schema: &Value, (path, id): LocationMember) -> Result<(), String> {
    let mut fields = schema["fields"].as_array();
    for (depth, name) in path.iter().enumerate() {
        let is_last = depth + 1 == path.len();
        let is_it = |field: &&Value| {
            field["name"] == *name || (is_last && field["field-id"].as_u64() == Some(id))
        };
        let mut found = fields.into_iter().flatten().filter(is_it);
        match (found.next(), found.next()) {
            (Some(field), None) if field["name"] == *name => {
                fields = field["type"]["fields"].as_array();
            }
            _ => return Err(format!("`{name}` is not there once, or not alone with its id")),
        }
    }
    Ok(())
}

#[derive(Default)]
struct ListReader {
    found: ListedManifest,
    manifests: Vec<ListedManifest>,
}

impl avro::ValueEdit for ListReader {
    fn text(&mut self, path: &[&str], value: &str) -> Option<String> {
        if path == MANIFEST_PATH.0 {
            value.clone_into(&mut self.found.path);
        }
        None
    }

    fn number(&mut self, path: &[&str], value: i64) -> Option<i64> {
        match path {
            ["partition_spec_id"] => self.found.spec_id = value,
            ["content"] => self.found.has_deletes = value != DATA,
            ["sequence_number"] => self.found.number = value,
            ["added_snapshot_id"] => self.found.added_by = value,
            _ => (),
        }
        None
    }

    fn end(&mut self) {
        let found = std::mem::take(&mut self.found);
        // One more tells that there are too many.
        if self.manifests.len() <= MANIFESTS_MAX {
            self.manifests.push(found);
        }
    }
}

struct EntryReader<'a> {
    found: FileEntry,
    /// The column whose bound comes next.
    bound: i64,
    entry: &'a mut dyn FnMut(FileEntry),
}

impl avro::ValueEdit for EntryReader<'_> {
    fn text(&mut self, path: &[&str], value: &str) -> Option<String> {
        match path {
            ["data_file", "file_path"] => value.clone_into(&mut self.found.path),
            ["data_file", "referenced_data_file"] => self.found.referenced = Some(value.to_owned()),
            _ => (),
        }
        None
    }

    fn number(&mut self, path: &[&str], value: i64) -> Option<i64> {
        match path {
            ["status"] => self.found.status = value,
            ["snapshot_id"] => self.found.snapshot_id = Some(value),
            ["sequence_number"] => self.found.number = Some(value),
            ["data_file", "content"] => self.found.content = value,
            ["data_file", "record_count"] => self.found.rows = value.try_into().unwrap_or(0),
            ["data_file", "file_size_in_bytes"] => {
                self.found.bytes = value.try_into().unwrap_or(0);
            }
            ["data_file", "lower_bounds" | "upper_bounds", "key"] => self.bound = value,
            _ => (),
        }
        None
    }

    fn bytes(&mut self, path: &[&str], value: &[u8]) -> Option<Vec<u8>> {
        let bound = match path {
            ["data_file", "lower_bounds", "value"] => &mut self.found.lowest,
            ["data_file", "upper_bounds", "value"] => &mut self.found.highest,
            _ => return None,
        };
        if PATH_IDS.contains(&self.bound) {
            *bound = std::str::from_utf8(value).ok().map(str::to_owned);
        }
        None
    }

    fn end(&mut self) {
        (self.entry)(std::mem::take(&mut self.found));
    }
}

#[cfg(test)]
mod tests;
