//! Reads and writes manifests and manifest lists, and merges small manifests, which [`merge`] chooses.
//!
//! Manifests of other partition specs are carried over untouched. A merge keeps for each file the
//! snapshot and the sequence numbers it was added with.
//!
//! The iceberg crate encodes and decodes in memory only, on blocking threads: a merge is some
//! hundred milliseconds of work, and a file of another writer that makes the crate panic fails one
//! commit, or is not merged. Files go to and from the warehouse here, so that its errors stay what they are.

pub(super) mod merge;
pub(super) mod restore;
mod spent;

use self::spent::delete_existing;
use super::changes::FileKey;
use crate::{error::CatalogError, location::Location, manifest_file, storage::Storage, usage};
use bytes::Bytes;
use futures::{StreamExt, executor::block_on, stream};
use iceberg::{
    ErrorKind,
    io::FileIO,
    spec::{
        DataFile, FormatVersion, ManifestContentType, ManifestEntry, ManifestFile,
        ManifestListWriter, ManifestStatus, ManifestWriter, ManifestWriterBuilder, PartitionSpec,
        SchemaRef, Snapshot, TableMetadata,
    },
};
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};
use uuid::Uuid;

/// Manifests that are read at a time.
const READS_AT_ONCE: usize = 8;

/// No sequence number of its own: an added file takes its snapshot's.
pub(super) const INHERITED: i64 = -1;

/// The manifests of a snapshot.
pub(crate) async fn read_list(
    storage: &Storage,
    base: &TableMetadata,
    snapshot: &Snapshot,
) -> Result<Vec<ManifestFile>, CatalogError> {
    let list = storage.normalize(base.location())?.admit(snapshot.manifest_list())?;
    let bytes = storage.get(list.as_str()).await?;
    let version = base.format_version();
    in_memory("parse the manifest list", move || {
        let parsed = manifest_file::parse_list(&bytes, version);
        let parsed = parsed.map_err(|cause| cause.with_context("list", list.as_str()))?;
        Ok(parsed.consume_entries().into_iter().collect())
    })
    .await
}

/// A parent's manifests after merging.
#[derive(Debug)]
pub(super) struct MergedManifests {
    /// Taken over as they are.
    pub(super) kept: Vec<ManifestFile>,
    /// The new manifests that stand for others.
    pub(super) merged: Vec<ManifestFile>,
    /// How many are left out, for which these stand or which have no live file.
    pub(super) replaced: usize,
}

/// Small manifests of one kind and spec that are merged.
#[derive(Debug, Default)]
struct MergeSource {
    manifests: Vec<ManifestFile>,
    /// Their live files.
    entries: Vec<ManifestEntry>,
    /// Manifests beside them that do not read.
    damaged: Vec<ManifestFile>,
}

/// Writes one snapshot's files, under names that no other attempt uses.
pub(super) struct SnapshotWriter<'a> {
    storage: &'a Storage,
    base: &'a TableMetadata,
    snapshot_id: i64,
    unique: Uuid,
    written: Vec<String>,
}

impl<'a> SnapshotWriter<'a> {
    pub(super) fn new(storage: &'a Storage, base: &'a TableMetadata, snapshot_id: i64) -> Self {
        let unique = Uuid::new_v4();
        Self { storage, base, snapshot_id, unique, written: Vec::new() }
    }

    /// The new snapshot's id.
    pub(super) fn snapshot_id(&self) -> i64 {
        self.snapshot_id
    }

    /// Files written so far, and any whose write failed half way.
    pub(super) fn into_written(self) -> Vec<String> {
        self.written
    }

    /// Where the manifest list goes.
    pub(super) fn list_location(&self) -> String {
        let (id, unique) = (self.snapshot_id, self.unique);
        format!("{}/metadata/snap-{id}-{unique}.avro", self.base.location())
    }

    /// Writes one manifest with the added data files, which have the sequence number `number` or that
    /// of their snapshot; none when there are none.
    pub(super) async fn add(
        &mut self,
        files: &[DataFile],
        number: Option<i64>,
    ) -> Result<Option<ManifestFile>, CatalogError> {
        let spec_id = self.base.default_partition_spec_id();
        let draft = self.draft("m0", spec_id, ManifestContentType::Data)?;
        self.add_files(draft, files, number).await
    }

    /// Writes a manifest with the added data files of each partition spec, with the sequence number as
    /// [`Self::add`] has it.
    pub(super) async fn add_of_specs(
        &mut self,
        files: &[(i32, DataFile)],
        number: Option<i64>,
    ) -> Result<Vec<ManifestFile>, CatalogError> {
        self.add_by_spec(("s", ManifestContentType::Data), files, number).await
    }

    /// Writes a manifest with the added delete files of each partition spec.
    pub(super) async fn add_deletes(
        &mut self,
        files: &[(i32, DataFile)],
    ) -> Result<Vec<ManifestFile>, CatalogError> {
        self.add_by_spec(("d", ManifestContentType::Deletes), files, None).await
    }

    async fn add_by_spec(
        &mut self,
        (prefix, content): (&str, ManifestContentType),
        files: &[(i32, DataFile)],
        number: Option<i64>,
    ) -> Result<Vec<ManifestFile>, CatalogError> {
        let specs: BTreeSet<i32> = files.iter().map(|(spec_id, _)| *spec_id).collect();
        let mut manifests = Vec::new();
        for spec_id in specs {
            let of_spec = files.iter().filter(|(of, _)| *of == spec_id);
            let of_spec: Vec<DataFile> = of_spec.map(|(_, file)| file.clone()).collect();
            let draft = self.draft(&format!("{prefix}{spec_id}"), spec_id, content)?;
            manifests.extend(self.add_files(draft, &of_spec, number).await?);
        }
        Ok(manifests)
    }

    async fn add_files(
        &mut self,
        draft: ManifestDraft,
        files: &[DataFile],
        number: Option<i64>,
    ) -> Result<Option<ManifestFile>, CatalogError> {
        if files.is_empty() {
            return Ok(None);
        }
        let files = files.to_vec();
        let encode = move || {
            let mut writer = draft.writer()?;
            for file in files {
                writer.add_file(file, number.unwrap_or(INHERITED))?;
            }
            draft.finish(writer)
        };
        let (manifest, bytes) = in_memory("encode the manifest", encode).await?;
        self.put_deferred(&manifest.manifest_path, bytes).await?;
        Ok(Some(manifest))
    }

    /// Writes a manifest, whose bytes may be at hand, anew with some of its files as deleted. `at` makes
    /// its name its own.
    pub(super) async fn without(
        &mut self,
        manifest: ManifestFile,
        bytes: Option<Bytes>,
        removed: &HashSet<FileKey>,
        at: usize,
    ) -> Result<ManifestFile, CatalogError> {
        self.storage.normalize(self.base.location())?.admit(&manifest.manifest_path)?;
        let (spec_id, content) = (manifest.partition_spec_id, manifest.content);
        let draft = self.draft(&format!("r{at}"), spec_id, content)?;
        let removed = removed.clone();
        let bytes = match bytes {
            Some(bytes) => bytes,
            None => self.storage.get(&manifest.manifest_path).await?,
        };
        let (entries, seq) = (parse(manifest, bytes).await?, self.seq_column());
        let encode = move || {
            let mut writer = draft.writer()?;
            for entry in entries {
                match removed.contains(&FileKey::of(entry.file_path())) {
                    true => delete_existing(&mut writer, entry, seq)?,
                    false => add_existing(&mut writer, entry)?,
                }
            }
            draft.finish(writer)
        };
        let (manifest, bytes) = in_memory("rewrite a manifest", encode).await?;
        self.put_deferred(&manifest.manifest_path, bytes).await?;
        Ok(manifest)
    }

    /// Merges small ones of `manifests` once there are [`merge::MERGE_AT`] of them, and leaves out those
    /// without live files. One that cannot be merged stays as it is: a damaged file of old holds up no
    /// new rows.
    pub(super) async fn merge(
        &mut self,
        manifests: Vec<ManifestFile>,
    ) -> Result<MergedManifests, CatalogError> {
        let (spent, manifests): (Vec<ManifestFile>, Vec<ManifestFile>) =
            manifests.into_iter().partition(merge::is_spent);
        let mut chosen = merge::choice(&manifests, self.base).into_iter().peekable();
        let (mut small, mut kept) = (Vec::new(), Vec::new());
        for (index, manifest) in manifests.into_iter().enumerate() {
            match chosen.next_if_eq(&index) {
                Some(_) => small.push(manifest),
                None => kept.push(manifest),
            }
        }
        let MergeSource { manifests: small, entries, damaged } = self.read_small(small).await?;
        kept.extend(damaged);
        let mut replaced = spent.len();
        let mut merged = Vec::new();
        match self.encode_merged(small.first(), entries).await {
            Ok(encoded) => {
                replaced += small.len();
                for (manifest, bytes) in encoded {
                    self.put_deferred(&manifest.manifest_path, bytes).await?;
                    merged.push(manifest);
                }
            }
            Err(cause) if cause.is_damage() => {
                self.warn_unmerged(&small, &cause);
                kept.extend(small);
            }
            Err(cause) => return Err(cause),
        }
        Ok(MergedManifests { kept, merged, replaced })
    }

    /// Reads the live files of manifests.
    async fn read_small(&self, manifests: Vec<ManifestFile>) -> Result<MergeSource, CatalogError> {
        let own = Location::parse(self.base.location());
        let reads = manifests.into_iter();
        let reads: Vec<_> =
            reads.map(|manifest| load(self.storage.clone(), own.clone(), manifest)).collect();
        let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
        let (mut source, mut damage) = (MergeSource::default(), None);
        while let Some((manifest, entries)) = reads.next().await {
            match entries {
                Ok(entries) => {
                    source.manifests.push(manifest);
                    source.entries.extend(entries);
                }
                Err(cause) if cause.is_damage() => {
                    source.damaged.push(manifest);
                    damage.get_or_insert(cause);
                }
                Err(cause) => return Err(cause),
            }
        }
        if let Some(cause) = damage {
            self.warn_unmerged(&source.damaged, &cause);
        }
        Ok(source)
    }

    fn warn_unmerged(&self, manifests: &[ManifestFile], cause: &CatalogError) {
        let paths: Vec<&str> = manifests.iter().map(|it| it.manifest_path.as_str()).collect();
        let (table, error) = (self.base.uuid(), cause as &dyn std::error::Error);
        tracing::warn!(%table, ?paths, error, "manifests that cannot be merged stay as they are");
    }

    /// Manifests with `entries`, of the kind and spec of `first`; none when there are none.
    async fn encode_merged(
        &self,
        first: Option<&ManifestFile>,
        entries: Vec<ManifestEntry>,
    ) -> Result<Vec<(ManifestFile, Bytes)>, CatalogError> {
        let Some(first) = first else { return Ok(Vec::new()) };
        let mut encoded = Vec::new();
        for entries in merge::by_days(entries, self.base.default_partition_spec()) {
            if entries.is_empty() {
                continue;
            }
            let suffix = format!("m{}", encoded.len() + 1);
            let draft = self.draft(&suffix, first.partition_spec_id, first.content)?;
            let encode = move || {
                let mut writer = draft.writer()?;
                for entry in entries {
                    add_existing(&mut writer, entry)?;
                }
                draft.finish(writer)
            };
            encoded.push(in_memory("merge manifests", encode).await?);
        }
        Ok(encoded)
    }

    /// Writes the manifest list. Gives the row ids it assigned, first and count, where the table
    /// has row ids.
    pub(super) async fn list(
        &mut self,
        manifests: impl Iterator<Item = ManifestFile>,
        parent: Option<i64>,
    ) -> Result<Option<(u64, u64)>, CatalogError> {
        let location = self.storage.normalize(&self.list_location())?;
        let (id, sequence) = (self.snapshot_id, self.base.next_sequence_number());
        let (version, first_row) = (self.base.format_version(), self.base.next_row_id());
        let manifests: Vec<ManifestFile> = manifests.collect();
        let file = location.to_string();
        let encode = move || {
            let io = FileIO::new_with_memory();
            let output = block_on(io.new_output(&file)?.writer())?;
            let mut writer = match version {
                FormatVersion::V1 => ManifestListWriter::v1(output, id, parent),
                FormatVersion::V2 => ManifestListWriter::v2(output, id, parent, sequence),
                FormatVersion::V3 => {
                    ManifestListWriter::v3(output, id, parent, sequence, Some(first_row))
                }
            };
            writer.add_manifests(manifests.into_iter())?;
            let next_row = writer.next_row_id();
            block_on(writer.close())?;
            Ok((next_row, block_on(io.new_input(&file)?.read())?))
        };
        let (next_row, bytes) = in_memory("encode the manifest list", encode).await?;
        self.put_deferred(location.as_str(), bytes).await?;
        Ok(next_row.map(|next| (first_row, next - first_row)))
    }

    fn draft(
        &self,
        suffix: &str,
        spec_id: i32,
        content: ManifestContentType,
    ) -> Result<ManifestDraft, CatalogError> {
        let spec = self.base.partition_spec_by_id(spec_id).ok_or_else(|| {
            CatalogError::Invalid(format!("the table has no partition spec {spec_id}"))
        })?;
        let location = format!("{}/metadata/{}-{suffix}.avro", self.base.location(), self.unique);
        // Columns of a spec that is not the default one may have been dropped since.
        let has_columns = |schema: &&SchemaRef| {
            spec.fields().iter().all(|field| schema.field_by_id(field.source_id).is_some())
        };
        let current = self.base.current_schema();
        let schema = Some(current).filter(has_columns);
        let newest = || {
            let those = self.base.schemas_iter().filter(has_columns);
            those.max_by_key(|schema| schema.schema_id())
        };
        let schema = schema.or_else(newest);
        Ok(ManifestDraft {
            io: FileIO::new_with_memory(),
            location: self.storage.normalize(&location)?.to_string(),
            snapshot_id: self.snapshot_id,
            schema: Arc::clone(schema.unwrap_or(current)),
            spec: spec.as_ref().clone(),
            content,
            version: self.base.format_version(),
        })
    }

    /// Writes a file, whose name is made durable with that of the metadata file: they are in one
    /// folder.
    async fn put_deferred(&mut self, location: &str, bytes: Bytes) -> Result<(), CatalogError> {
        // Noted before: a write that fails may leave something behind.
        self.written.push(location.to_owned());
        self.storage.put_deferred(location, bytes).await
    }
}

/// A manifest that takes shape in memory.
struct ManifestDraft {
    io: FileIO,
    location: String,
    snapshot_id: i64,
    schema: SchemaRef,
    spec: PartitionSpec,
    content: ManifestContentType,
    version: FormatVersion,
}

impl ManifestDraft {
    fn writer(&self) -> iceberg::Result<ManifestWriter> {
        let builder = ManifestWriterBuilder::new(
            self.io.new_output(&self.location)?,
            Some(self.snapshot_id),
            Arc::clone(&self.schema),
            self.spec.clone(),
        );
        let is_data = self.content == ManifestContentType::Data;
        Ok(match self.version {
            FormatVersion::V1 => builder.build_v1(),
            FormatVersion::V2 if is_data => builder.build_v2_data(),
            FormatVersion::V2 => builder.build_v2_deletes(),
            FormatVersion::V3 if is_data => builder.build_v3_data(),
            FormatVersion::V3 => builder.build_v3_deletes(),
        })
    }

    /// What the manifest list says of it, and its bytes. They are compressed, since what readers and the disk
    /// pay for a table of many files is manifests.
    fn finish(&self, writer: ManifestWriter) -> iceberg::Result<(ManifestFile, Bytes)> {
        let mut manifest = block_on(writer.write_manifest_file())?;
        let bytes = block_on(self.io.new_input(&self.location)?.read())?;
        let bytes = manifest_file::deflated(&bytes)?;
        manifest.manifest_length = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        Ok((manifest, bytes))
    }
}

/// A manifest with its live entries.
async fn load(
    storage: Storage,
    own: Option<Location>,
    manifest: ManifestFile,
) -> (ManifestFile, Result<Vec<ManifestEntry>, CatalogError>) {
    let entries = async {
        if let Some(own) = own {
            own.admit(&manifest.manifest_path)?;
        }
        let bytes = storage.get(&manifest.manifest_path).await?;
        parse(manifest.clone(), bytes).await
    };
    let entries = entries.await;
    (manifest, entries)
}

/// The live entries of a manifest, with what they inherit from the list spelled out.
async fn parse(manifest: ManifestFile, bytes: Bytes) -> Result<Vec<ManifestEntry>, CatalogError> {
    in_memory("read a manifest to merge", move || {
        let (entries, _) = manifest_file::parse(&bytes)?.into_parts();
        let live = entries.into_iter().filter(|entry| entry.is_alive());
        let whole = |entry| {
            let entry = inherited(Arc::unwrap_or_clone(entry), &manifest);
            numbers(&entry).map(|_| entry)
        };
        live.map(whole).collect()
    })
    .await
}

/// The live entry with what it does not say itself, by the specification's rules of inheritance. Iceberg's
/// Java library before 1.1 left the file's number out of entries that it took over.
fn inherited(mut entry: ManifestEntry, manifest: &ManifestFile) -> ManifestEntry {
    let is_new = entry.status() == ManifestStatus::Added || manifest.sequence_number == 0;
    let number = is_new.then_some(manifest.sequence_number);
    entry.snapshot_id = entry.snapshot_id.or(Some(manifest.added_snapshot_id));
    entry.sequence_number = entry.sequence_number.or(number);
    let file_number = entry.file_sequence_number.or(number);
    entry.file_sequence_number = file_number.or(entry.sequence_number);
    entry
}

fn add_existing(writer: &mut ManifestWriter, entry: ManifestEntry) -> iceberg::Result<()> {
    let (snapshot_id, sequence) = numbers(&entry)?;
    let file_sequence = entry.file_sequence_number;
    writer.add_existing_file(entry.data_file, snapshot_id, sequence, file_sequence)
}

/// The snapshot and the sequence number that an entry was added with.
fn numbers(entry: &ManifestEntry) -> iceberg::Result<(i64, i64)> {
    entry.snapshot_id.zip(entry.sequence_number).ok_or_else(|| {
        let message = format!("`{}` has no sequence number in its manifest", entry.file_path());
        iceberg::Error::new(ErrorKind::DataInvalid, message)
    })
}

/// Runs work of the iceberg crate that waits for nothing outside of memory on a blocking thread.
async fn in_memory<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> iceberg::Result<T> + Send + 'static,
) -> Result<T, CatalogError> {
    let done = tokio::task::spawn_blocking(usage::carried(work)).await;
    let ended = |cause| {
        let message = "the iceberg crate panicked, or the process ends";
        Err(iceberg::Error::new(ErrorKind::Unexpected, message).with_source(cause))
    };
    done.unwrap_or_else(ended).map_err(|source| CatalogError::Iceberg { operation, source })
}

#[cfg(test)]
mod tests;
