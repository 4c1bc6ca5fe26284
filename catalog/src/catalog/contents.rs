//! Reads what a client's snapshots name, before they are committed: each manifest list, each
//! manifest in it that is new, each file in those.
//!
//! Its one invariant: no file is opened whose location has not been found inside the table. Only
//! locations are read, as text, so that no manifest is too new or too odd to be looked at. A file
//! may change after this look, so whoever reads or deletes what a manifest names checks it again.

use super::Catalog;
use crate::{commit, error::CatalogError, location::Location, manifest_file, storage};
use apache_avro::{
    Reader,
    schema::{RecordField, Schema},
    types::Value,
};
use futures::{StreamExt, stream};
use iceberg::{
    TableUpdate,
    spec::{Snapshot, TableMetadata},
};
use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

/// Most manifests that a commit may add.
const MANIFESTS_MAX: usize = 2_000;
/// Largest manifest or manifest list of a commit.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of manifests that a commit may add.
const BYTES_MAX: usize = 512 << 20;
/// Manifests read at the same time.
const READS_AT_ONCE: usize = 4;
/// Most manifests that are remembered as looked at.
const SEEN_MAX: usize = 100_000;

/// A manifest list's entry: the manifest's location.
const MANIFEST_PATH: Member = Member { path: &["manifest_path"], field_id: 500 };
/// A manifest's entry: the data or delete file's location.
const FILE_PATH: Member = Member { path: &["data_file", "file_path"], field_id: 100 };

/// A member of an Avro file's records that is a location.
#[derive(Clone, Copy)]
struct Member {
    path: &'static [&'static str],
    /// What readers that go by ids find it by.
    field_id: u64,
}

/// Manifests and lists that were looked at, each with its table's location. A set that is full
/// starts anew, which costs some reads.
#[derive(Default)]
pub(super) struct Seen(Mutex<HashSet<u128>>);

impl Seen {
    fn key(own: &Location, file: &str) -> u128 {
        xxhash_rust::xxh3::xxh3_128(format!("{own}\n{file}").as_bytes())
    }

    fn has(&self, own: &Location, file: &str) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.contains(&Self::key(own, file))
    }

    fn add(&self, own: &Location, file: &str) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if SEEN_MAX <= seen.len() {
            seen.clear();
        }
        seen.insert(Self::key(own, file));
    }
}

impl Catalog {
    /// Checks every file that the snapshots of `updates` add to a table at `new`'s location.
    pub(super) async fn check_contents(
        &self,
        base: Option<&TableMetadata>,
        new: &TableMetadata,
        updates: &[TableUpdate],
    ) -> Result<(), CatalogError> {
        let own = self.inner.storage.normalize(new.location())?;
        for snapshot in commit::added(updates) {
            let parent = snapshot.parent_snapshot_id();
            let parent = base.zip(parent).and_then(|(base, id)| base.snapshot_by_id(id));
            self.check_snapshot(&own, snapshot, parent.map(|parent| parent.manifest_list()))
                .await?;
        }
        Ok(())
    }

    /// Checks every file that a table from elsewhere names.
    pub(super) async fn check_adopted_contents(
        &self,
        metadata: &TableMetadata,
    ) -> Result<(), CatalogError> {
        let own = self.inner.storage.normalize(metadata.location())?;
        for snapshot in metadata.snapshots() {
            self.check_snapshot(&own, snapshot, None).await?;
        }
        Ok(())
    }

    /// `parent` is the list of a snapshot that is in the table already.
    async fn check_snapshot(
        &self,
        own: &Location,
        snapshot: &Snapshot,
        parent: Option<&str>,
    ) -> Result<(), CatalogError> {
        let list = snapshot.manifest_list();
        let seen = &self.inner.seen;
        if !self.inner.options.checks_contents || seen.has(own, list) {
            return Ok(());
        }
        let (mut new, _) = self.locations(own, list, MANIFEST_PATH).await?;
        new.retain(|manifest| !seen.has(own, manifest));
        if let Some(parent) = parent
            && !new.is_empty()
        {
            let (known, _) = self.locations(own, parent, MANIFEST_PATH).await?;
            let known: HashSet<String> = known.into_iter().collect();
            new.retain(|manifest| !known.contains(manifest));
        }
        if MANIFESTS_MAX < new.len() {
            return Err(CatalogError::Invalid(format!(
                "snapshot {} adds {} manifests, at most {MANIFESTS_MAX} are looked at: commit in \
                 several steps",
                snapshot.snapshot_id(),
                new.len()
            )));
        }
        let mut left = BYTES_MAX;
        let reads = new.into_iter().map(|manifest| async move {
            let read = self.locations(own, &manifest, FILE_PATH).await;
            read.map(|(_, bytes)| (manifest, bytes))
        });
        let mut reads = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
        while let Some(read) = reads.next().await {
            let (manifest, bytes) = read?;
            left = left.checked_sub(bytes).ok_or_else(|| {
                CatalogError::Invalid(format!(
                    "snapshot {} adds more than {BYTES_MAX} bytes of manifests: commit in several \
                     steps",
                    snapshot.snapshot_id()
                ))
            })?;
            seen.add(own, &manifest);
        }
        seen.add(own, list);
        Ok(())
    }

    /// The locations in a manifest or list of a table, each inside the table, and the file's size.
    async fn locations(
        &self,
        own: &Location,
        file: &str,
        member: Member,
    ) -> Result<(Vec<String>, usize), CatalogError> {
        let location = own.admit(file)?;
        let read = self.inner.storage.get_range(location.as_str(), 0..FILE_BYTES_MAX + 1).await;
        let bytes = match read {
            Err(cause) if storage::is_missing(&cause) => {
                return Err(CatalogError::Invalid(format!(
                    "`{file}` does not exist: write a snapshot's files before it is committed"
                )));
            }
            read => read?,
        };
        let size = bytes.len();
        if FILE_BYTES_MAX < u64::try_from(size).unwrap_or(u64::MAX) {
            return Err(CatalogError::Invalid(format!(
                "`{file}` has more than {FILE_BYTES_MAX} bytes: write smaller manifests"
            )));
        }
        // A file that makes the parser panic is as unreadable as any other.
        let parsed =
            tokio::task::spawn_blocking(move || texts(&manifest_file::named(&bytes), member));
        let parsed = parsed.await;
        let texts = parsed.ok().flatten().ok_or_else(|| {
            CatalogError::Invalid(format!("`{file}` is no manifest or manifest list"))
        })?;
        texts.iter().try_for_each(|text| own.admit(text).map(|_| ()))?;
        Ok((texts, size))
    }
}

/// The texts of a member in all records of an Avro file; none when it is not such a file.
fn texts(bytes: &[u8], member: Member) -> Option<Vec<String>> {
    let reader = Reader::new(bytes).ok()?;
    if !is_only_one(reader.writer_schema(), member) {
        return None;
    }
    reader.map(|record| text(record.ok()?, member.path)).collect()
}

fn text(value: Value, path: &[&str]) -> Option<String> {
    match (value, path.split_first()) {
        (Value::Record(fields), Some((name, rest))) => {
            let (_, value) = fields.into_iter().find(|(field, _)| field == name)?;
            text(value, rest)
        }
        (Value::String(text), None) => Some(text),
        _ => None,
    }
}

/// Whether readers that go by field ids and readers that go by names find the same member.
fn is_only_one(schema: &Schema, member: Member) -> bool {
    let Schema::Record(record) = schema else { return false };
    let Some((name, rest)) = member.path.split_first() else { return false };
    let Some(field) = record.fields.iter().find(|field| field.name == *name) else { return false };
    if !rest.is_empty() {
        return is_only_one(&field.schema, Member { path: rest, ..member });
    }
    let has_id = |field: &&RecordField| {
        let id = field.custom_attributes.get("field-id");
        id.and_then(serde_json::Value::as_u64) == Some(member.field_id)
    };
    record.fields.iter().filter(has_id).all(|field| field.name == *name)
}

#[cfg(test)]
mod tests;
