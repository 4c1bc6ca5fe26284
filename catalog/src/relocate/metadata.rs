//! Metadata files of tables and views.

use super::{Relocation, RewrittenFiles, unreadable};
use crate::{
    error::CatalogError,
    location::PATH_PROPERTIES,
    metadata_file::{self, GZIP},
    metastore::moved::TablePlace,
    storage,
};
use bytes::Bytes;
use flate2::read::GzDecoder;
use serde_json::Value;
use std::{collections::HashMap, io::Read};

impl Relocation<'_> {
    /// A table's metadata file and all that its snapshots need; gives the new one's path.
    pub(super) async fn table(
        &self,
        place: &TablePlace,
        written: &mut RewrittenFiles,
    ) -> Result<String, CatalogError> {
        let path = &place.metadata_location;
        let mut metadata = self.json(path).await?;
        self.snapshots(&metadata, written).await?;
        // Older files, for whoever goes back to one; some are gone already.
        let mut older: Vec<(String, Value)> = Vec::new();
        for file in texts(&metadata, "metadata-log", "metadata-file") {
            match self.json(&file).await {
                Ok(json) => older.push((file, json)),
                Err(cause) if storage::is_missing(&cause) => {}
                Err(cause) => return Err(cause),
            }
        }
        let mut names = HashMap::new();
        for (file, _) in &older {
            names.insert(file.clone(), self.name(file)?);
        }
        for (file, mut json) in older {
            self.edit(&mut json, written, &names);
            self.write(&file, self.name(&file)?, encoded(&json), written).await?;
        }
        self.edit(&mut metadata, written, &names);
        self.write(path, self.name(path)?, encoded(&metadata), written).await
    }

    /// A view's metadata file.
    pub(super) async fn view(
        &self,
        place: &TablePlace,
        written: &mut RewrittenFiles,
    ) -> Result<String, CatalogError> {
        let path = &place.metadata_location;
        let mut metadata = self.json(path).await?;
        self.edit(&mut metadata, written, &HashMap::new());
        self.write(path, self.name(path)?, encoded(&metadata), written).await
    }

    async fn snapshots(
        &self,
        metadata: &Value,
        written: &mut RewrittenFiles,
    ) -> Result<(), CatalogError> {
        for list in texts(metadata, "snapshots", "manifest-list") {
            self.manifest_list(&list, written).await?;
        }
        // The first version of the format may list manifests in the snapshot itself.
        let snapshots = metadata.get("snapshots").and_then(Value::as_array).into_iter().flatten();
        let manifests = snapshots.filter_map(|snapshot| snapshot.get("manifests")?.as_array());
        for manifest in manifests.flatten().filter_map(Value::as_str) {
            self.manifest(manifest, written).await?;
        }
        Ok(())
    }

    /// Changes the places in a metadata file; `files` are older metadata files that have new names.
    fn edit(
        &self,
        metadata: &mut Value,
        written: &RewrittenFiles,
        files: &HashMap<String, String>,
    ) {
        let moved = |path: &str| self.moved.path(path);
        change(metadata.get_mut("location"), &moved);
        let list = |path: &str| written.lists.get(path).cloned().or_else(|| moved(path));
        change_each(metadata, "snapshots", "manifest-list", &list);
        let file = |path: &str| files.get(path).cloned().or_else(|| moved(path));
        change_each(metadata, "metadata-log", "metadata-file", &file);
        change_each(metadata, "statistics", "statistics-path", &moved);
        change_each(metadata, "partition-statistics", "statistics-path", &moved);
        for snapshot in items(metadata, "snapshots") {
            for manifest in items(snapshot, "manifests") {
                change(Some(manifest), &|path: &str| {
                    written.manifests.get(path).map(|(new, _)| new.clone()).or_else(|| moved(path))
                });
            }
        }
        for property in PATH_PROPERTIES {
            let set = metadata.get_mut("properties").and_then(|set| set.get_mut(property));
            change(set, &moved);
        }
    }

    /// The name of a metadata file that is written anew: its version stays what it is.
    fn name(&self, old: &str) -> Result<String, CatalogError> {
        let moved = self.path(old)?;
        let (folder, name) = moved.rsplit_once('/').unwrap_or(("", &moved));
        let digits: String =
            name.trim_start_matches('v').chars().take_while(char::is_ascii_digit).collect();
        let unique = (u128::from(self.moved.hash(name)) << 64)
            | u128::from(self.moved.hash(&format!("{name}\n")));
        let unique = uuid::Builder::from_random_bytes(unique.to_be_bytes()).into_uuid();
        let version = digits.parse().unwrap_or(0);
        Ok(format!("{folder}/{}", metadata_file::name(version, unique)))
    }

    async fn json(&self, path: &str) -> Result<Value, CatalogError> {
        parsed(path, &self.read(path).await?)
    }
}

/// A metadata file, packed or not.
pub(super) fn parsed(path: &str, bytes: &[u8]) -> Result<Value, CatalogError> {
    if !bytes.starts_with(&GZIP) {
        return serde_json::from_slice(bytes).map_err(|cause| unreadable(path, cause));
    }
    let mut unpacked = Vec::new();
    let read = GzDecoder::new(bytes).read_to_end(&mut unpacked);
    read.map_err(|cause| unreadable(path, cause))?;
    serde_json::from_slice(&unpacked).map_err(|cause| unreadable(path, cause))
}

fn encoded(json: &Value) -> Bytes {
    metadata_file::encode(json).into()
}

fn items<'a>(json: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    json.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

fn change_each(json: &mut Value, list: &str, member: &str, new: &dyn Fn(&str) -> Option<String>) {
    for item in items(json, list) {
        change(item.get_mut(member), new);
    }
}

fn change(value: Option<&mut Value>, new: &dyn Fn(&str) -> Option<String>) {
    let Some(value) = value else { return };
    if let Value::String(text) = value
        && let Some(other) = new(text)
    {
        *text = other;
    }
}

pub(super) fn texts(json: &Value, list: &str, member: &str) -> Vec<String> {
    let items = json.get(list).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| item.get(member)?.as_str().map(str::to_owned)).collect()
}
