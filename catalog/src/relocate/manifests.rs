//! Manifest lists, manifests and position-delete files.

use super::{MovedDeletes, Relocation, RewrittenFiles, WarehouseMove, unreadable};
use crate::{avro, error::CatalogError};
use std::collections::HashMap;

/// Field ids under which a position-delete file has the bounds of `file_path`: the specification's, and
/// that of the metadata column `_file`, which DuckDB writes.
const FILE_PATH_IDS: [i64; 2] = [2_147_483_546, 2_147_483_646];
/// A data file's `content` that says position deletes.
const POSITION_DELETES: i64 = 1;
/// An entry's `status` that says its file was deleted.
pub(super) const DELETED: i64 = 2;

/// A position-delete file at its new place.
struct RewrittenDeletes {
    path: String,
    bytes: i64,
    lowest: String,
    highest: String,
}

impl Relocation<'_> {
    /// A snapshot's manifest list and all that it lists; gives the new one's path.
    pub(super) async fn manifest_list(
        &self,
        path: &str,
        written: &mut RewrittenFiles,
    ) -> Result<String, CatalogError> {
        if let Some(done) = written.lists.get(path) {
            return Ok(done.clone());
        }
        let bytes = self.read(path).await?;
        let mut listed = ListedManifests::default();
        avro::rewrite(&bytes, &mut listed).map_err(|cause| unreadable(path, cause))?;
        for manifest in listed.0 {
            self.manifest(&manifest, written).await?;
        }
        let mut edit = EditList { written, length: 0 };
        let bytes = avro::rewrite(&bytes, &mut edit).map_err(|cause| unreadable(path, cause))?;
        let new = self.moved.renamed(&self.path(path)?);
        let new = self.write(path, new, bytes, written).await?;
        written.lists.insert(path.to_owned(), new.clone());
        Ok(new)
    }

    /// A manifest; gives the new one's path.
    pub(super) async fn manifest(
        &self,
        path: &str,
        written: &mut RewrittenFiles,
    ) -> Result<String, CatalogError> {
        if let Some((done, _)) = written.manifests.get(path) {
            return Ok(done.clone());
        }
        let bytes = self.read(path).await?;
        let mut found = FoundDeletes::default();
        avro::rewrite(&bytes, &mut found).map_err(|cause| unreadable(path, cause))?;
        let mut deletes = HashMap::new();
        for (file, format) in found.files {
            let moved = self.deletes(&file, &format, written).await?;
            deletes.extend(moved.map(|moved| (file, moved)));
        }
        let mut edit =
            EditManifest { moved: &self.moved, deletes: &deletes, file: String::new(), bound: 0 };
        let bytes = avro::rewrite(&bytes, &mut edit).map_err(|cause| unreadable(path, cause))?;
        let length = bytes.len() as i64;
        let new = self.moved.renamed(&self.path(path)?);
        let new = self.write(path, new, bytes, written).await?;
        written.manifests.insert(path.to_owned(), (new.clone(), length));
        Ok(new)
    }

    /// A position-delete file; none for a deletion vector, whose file names no path that is read.
    async fn deletes(
        &self,
        path: &str,
        format: &str,
        written: &mut RewrittenFiles,
    ) -> Result<Option<RewrittenDeletes>, CatalogError> {
        let moved = match format.to_ascii_uppercase().as_str() {
            "PUFFIN" => return Ok(None),
            "PARQUET" => (self.deletes)(self.read(path).await?, &self.moved),
            "AVRO" => avro_deletes(&self.read(path).await?, &self.moved),
            other => Err(format!("position deletes in {other} are not known")),
        };
        let MovedDeletes { bytes, lowest, highest } =
            moved.map_err(|cause| unreadable(path, cause))?;
        let length = bytes.len() as i64;
        let new = self.moved.renamed(&self.path(path)?);
        let path = self.write(path, new, bytes, written).await?;
        Ok(Some(RewrittenDeletes { path, bytes: length, lowest, highest }))
    }
}

fn avro_deletes(bytes: &[u8], moved: &WarehouseMove) -> Result<MovedDeletes, String> {
    let mut edit = EditDeletes { moved, range: None };
    let bytes = avro::rewrite(bytes, &mut edit)?.into();
    let (lowest, highest) = edit.range.unwrap_or_default();
    Ok(MovedDeletes { bytes, lowest, highest })
}

/// The manifests of a list.
#[derive(Default)]
pub(super) struct ListedManifests(pub(super) Vec<String>);

impl avro::ValueEdit for ListedManifests {
    fn text(&mut self, path: &[&str], value: &str) -> Option<String> {
        if path == ["manifest_path"] {
            self.0.push(value.to_owned());
        }
        None
    }
}

/// Names the new manifests and their lengths.
struct EditList<'a> {
    written: &'a RewrittenFiles,
    length: i64,
}

impl avro::ValueEdit for EditList<'_> {
    fn text(&mut self, path: &[&str], value: &str) -> Option<String> {
        if path != ["manifest_path"] {
            return None;
        }
        let (new, length) = self.written.manifests.get(value)?;
        self.length = *length;
        Some(new.clone())
    }

    fn number(&mut self, path: &[&str], _value: i64) -> Option<i64> {
        (path == ["manifest_length"]).then_some(self.length)
    }
}

/// The position-delete files that a manifest's living entries name, with their formats.
#[derive(Default)]
struct FoundDeletes {
    files: Vec<(String, String)>,
    status: i64,
    content: i64,
    file: String,
}

impl avro::ValueEdit for FoundDeletes {
    fn text(&mut self, path: &[&str], value: &str) -> Option<String> {
        match path {
            ["data_file", "file_path"] => value.clone_into(&mut self.file),
            ["data_file", "file_format"]
                if self.content == POSITION_DELETES && self.status != DELETED =>
            {
                self.files.push((self.file.clone(), value.to_owned()));
            }
            _ => {}
        }
        None
    }

    fn number(&mut self, path: &[&str], value: i64) -> Option<i64> {
        match path {
            ["status"] => (self.status, self.content) = (value, 0),
            ["data_file", "content"] => self.content = value,
            _ => {}
        }
        None
    }
}

/// Names data and delete files at their new places.
struct EditManifest<'a> {
    moved: &'a WarehouseMove,
    deletes: &'a HashMap<String, RewrittenDeletes>,
    /// The entry's file, by its old path.
    file: String,
    /// The column whose bound comes next.
    bound: i64,
}

impl avro::ValueEdit for EditManifest<'_> {
    fn text(&mut self, path: &[&str], value: &str) -> Option<String> {
        match path {
            ["data_file", "file_path"] => {
                value.clone_into(&mut self.file);
                match self.deletes.get(value) {
                    Some(deletes) => Some(deletes.path.clone()),
                    None => self.moved.path(value),
                }
            }
            ["data_file", "referenced_data_file"] => self.moved.path(value),
            _ => None,
        }
    }

    fn number(&mut self, path: &[&str], value: i64) -> Option<i64> {
        match path {
            ["data_file", "file_size_in_bytes"] => {
                self.deletes.get(&self.file).map(|deletes| deletes.bytes)
            }
            ["data_file", "lower_bounds" | "upper_bounds", "key"] => {
                self.bound = value;
                None
            }
            _ => None,
        }
    }

    fn bytes(&mut self, path: &[&str], _value: &[u8]) -> Option<Vec<u8>> {
        let deletes =
            self.deletes.get(&self.file).filter(|_| FILE_PATH_IDS.contains(&self.bound))?;
        match path {
            ["data_file", "lower_bounds", "value"] => Some(deletes.lowest.clone().into_bytes()),
            ["data_file", "upper_bounds", "value"] => Some(deletes.highest.clone().into_bytes()),
            _ => None,
        }
    }
}

/// Names the data files whose rows are deleted at their new places.
struct EditDeletes<'a> {
    moved: &'a WarehouseMove,
    range: Option<(String, String)>,
}

impl avro::ValueEdit for EditDeletes<'_> {
    fn text(&mut self, path: &[&str], value: &str) -> Option<String> {
        if path != ["file_path"] {
            return None;
        }
        let new = self.moved.path(value);
        let text = new.clone().unwrap_or_else(|| value.to_owned());
        self.range = Some(match self.range.take() {
            None => (text.clone(), text),
            Some((low, high)) => (low.min(text.clone()), high.max(text)),
        });
        new
    }
}
