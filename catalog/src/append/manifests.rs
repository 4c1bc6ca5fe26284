//! Reads and writes manifests and manifest lists, and merges small manifests.
//!
//! Delete manifests and manifests of other partition specs are carried over untouched. A merge
//! keeps for each file the snapshot and the sequence numbers it was added with.

use crate::{error::CatalogError, location::Location, storage::Storage};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::{
    io::FileIO,
    spec::{
        DataFile, FormatVersion, Manifest, ManifestContentType, ManifestFile, ManifestList,
        ManifestListWriter, ManifestWriter, ManifestWriterBuilder, Snapshot, TableMetadata,
    },
};
use std::sync::Arc;
use uuid::Uuid;

/// Small data manifests of the default spec at which they are merged.
pub(super) const MERGE_AT: usize = 100;

/// Most bytes that are merged into one manifest: what a scan planner reads at a time.
pub(super) const MERGED_BYTES_MAX: u64 = 8 << 20;

/// Manifests up to this size are always worth merging; a larger one only with as many bytes of
/// smaller ones, so that a file's entry is rewritten a logarithmic number of times.
const ALWAYS_MERGED_BYTES: u64 = 64 << 10;

/// Manifests that are read at a time.
const READS_AT_ONCE: usize = 8;

/// No sequence number of its own: an added file takes its snapshot's.
const INHERITED: i64 = -1;

/// The manifests of a snapshot.
pub(super) async fn read_list(
    storage: &Storage,
    base: &TableMetadata,
    snapshot: &Snapshot,
) -> Result<Vec<ManifestFile>, CatalogError> {
    let list = storage.normalize(base.location())?.admit(snapshot.manifest_list())?;
    let bytes = storage.get(list.as_str()).await?;
    let list = ManifestList::parse_with_version(&bytes, base.format_version())
        .map_err(failed("parse the manifest list"))?;
    Ok(list.consume_entries().into_iter().collect())
}

/// A parent's manifests after merging.
#[derive(Debug)]
pub(super) struct Merged {
    /// Taken over as they are.
    pub(super) kept: Vec<ManifestFile>,
    /// The new manifest that stands for the others.
    pub(super) merged: Option<ManifestFile>,
    /// How many others.
    pub(super) replaced: usize,
}

/// Writes one snapshot's files, under names that no other attempt uses.
pub(super) struct Writer<'a> {
    io: FileIO,
    base: &'a TableMetadata,
    snapshot_id: i64,
    unique: Uuid,
    written: Vec<String>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(storage: &Storage, base: &'a TableMetadata, snapshot_id: i64) -> Self {
        let unique = Uuid::new_v4();
        Self { io: storage.file_io(), base, snapshot_id, unique, written: Vec::new() }
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

    /// Writes one manifest with the added files; none when there are none.
    pub(super) async fn add(
        &mut self,
        files: &[DataFile],
    ) -> Result<Option<ManifestFile>, CatalogError> {
        if files.is_empty() {
            return Ok(None);
        }
        let mut writer = self.manifest("m0")?;
        for file in files {
            writer.add_file(file.clone(), INHERITED).map_err(failed("add a data file"))?;
        }
        writer.write_manifest_file().await.map(Some).map_err(failed("write the manifest"))
    }

    /// Merges the small ones of `manifests` once there are [`MERGE_AT`] of them.
    pub(super) async fn merge(
        &mut self,
        manifests: Vec<ManifestFile>,
    ) -> Result<Merged, CatalogError> {
        let mut merge = to_merge(&manifests, self.base).into_iter().peekable();
        if merge.peek().is_none() {
            return Ok(Merged { kept: manifests, merged: None, replaced: 0 });
        }
        let mut replaced = Vec::new();
        let mut kept = Vec::new();
        for (index, manifest) in manifests.into_iter().enumerate() {
            if merge.next_if_eq(&index).is_some() {
                replaced.push(manifest);
            } else {
                kept.push(manifest);
            }
        }
        let merged = self.rewrite(&replaced).await?;
        Ok(Merged { kept, merged, replaced: replaced.len() })
    }

    /// Writes one manifest with the live files of `manifests`; none when they have none.
    async fn rewrite(
        &mut self,
        manifests: &[ManifestFile],
    ) -> Result<Option<ManifestFile>, CatalogError> {
        if let Some(own) = Location::parse(self.base.location()) {
            for manifest in manifests {
                own.admit(&manifest.manifest_path)?;
            }
        }
        let io = &self.io;
        // Owned, because a borrowing closure would keep callers' futures from being `Send`.
        let loaded: Vec<Manifest> = stream::iter(manifests.to_vec())
            .map(|manifest| {
                let io = io.clone();
                async move { manifest.load_manifest(&io).await }
            })
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await
            .map_err(failed("read a manifest to merge"))?;
        let mut entries = loaded
            .into_iter()
            .flat_map(|manifest| manifest.into_parts().0)
            .filter(|entry| entry.is_alive())
            .peekable();
        if entries.peek().is_none() {
            return Ok(None);
        }
        let mut writer = self.manifest("m1")?;
        for entry in entries {
            let entry = Arc::unwrap_or_clone(entry);
            let (Some(snapshot_id), Some(sequence)) = (entry.snapshot_id, entry.sequence_number)
            else {
                return Err(CatalogError::Invalid(format!(
                    "`{}` has no sequence number in its manifest",
                    entry.file_path()
                )));
            };
            writer
                .add_existing_file(
                    entry.data_file,
                    snapshot_id,
                    sequence,
                    entry.file_sequence_number,
                )
                .map_err(failed("merge manifests"))?;
        }
        writer.write_manifest_file().await.map(Some).map_err(failed("write the merged manifest"))
    }

    /// Writes the manifest list. Gives the row ids it assigned, first and count, where the table
    /// has row ids.
    pub(super) async fn list(
        &mut self,
        manifests: impl Iterator<Item = ManifestFile>,
        parent: Option<i64>,
    ) -> Result<Option<(u64, u64)>, CatalogError> {
        let location = self.list_location();
        self.written.push(location.clone());
        let output = self.io.new_output(location).map_err(failed("open the manifest list"))?;
        let output = output.writer().await.map_err(failed("open the manifest list"))?;
        let (id, sequence) = (self.snapshot_id, self.base.next_sequence_number());
        let first_row = self.base.next_row_id();
        let mut writer = match self.base.format_version() {
            FormatVersion::V1 => ManifestListWriter::v1(output, id, parent),
            FormatVersion::V2 => ManifestListWriter::v2(output, id, parent, sequence),
            FormatVersion::V3 => {
                ManifestListWriter::v3(output, id, parent, sequence, Some(first_row))
            }
        };
        writer.add_manifests(manifests).map_err(failed("list the manifests"))?;
        let next_row = writer.next_row_id();
        writer.close().await.map_err(failed("write the manifest list"))?;
        Ok(next_row.map(|next| (first_row, next - first_row)))
    }

    fn manifest(&mut self, suffix: &str) -> Result<ManifestWriter, CatalogError> {
        let location = format!("{}/metadata/{}-{suffix}.avro", self.base.location(), self.unique);
        self.written.push(location.clone());
        let output = self.io.new_output(location).map_err(failed("open the manifest"))?;
        let builder = ManifestWriterBuilder::new(
            output,
            Some(self.snapshot_id),
            Arc::clone(self.base.current_schema()),
            self.base.default_partition_spec().as_ref().clone(),
        );
        Ok(match self.base.format_version() {
            FormatVersion::V1 => builder.build_v1(),
            FormatVersion::V2 => builder.build_v2_data(),
            FormatVersion::V3 => builder.build_v3_data(),
        })
    }
}

/// Which of `manifests` to merge into one, in order; fewer than two are not worth it.
fn to_merge(manifests: &[ManifestFile], base: &TableMetadata) -> Vec<usize> {
    // Entries of version 3 take their row ids from the manifest they are in; the reader does not
    // spell those out, so a merge would give old rows new ids.
    if base.format_version() != FormatVersion::V2 {
        return Vec::new();
    }
    let mut small: Vec<(u64, usize)> = manifests
        .iter()
        .enumerate()
        .filter(|(_, m)| {
            m.content == ManifestContentType::Data
                && m.partition_spec_id == base.default_partition_spec_id()
                && m.key_metadata.is_none()
        })
        .map(|(index, m)| (u64::try_from(m.manifest_length).unwrap_or(u64::MAX), index))
        .filter(|(length, _)| *length < MERGED_BYTES_MAX / 2)
        .collect();
    if small.len() < MERGE_AT {
        return Vec::new();
    }
    small.sort_unstable();
    let mut bytes = 0;
    let mut chosen: Vec<usize> = small
        .into_iter()
        .take_while(|(length, _)| {
            let fits = bytes + length <= MERGED_BYTES_MAX;
            let worth = *length <= bytes.max(ALWAYS_MERGED_BYTES);
            bytes += length;
            fits && worth
        })
        .map(|(_, index)| index)
        .collect();
    if chosen.len() < 2 {
        return Vec::new();
    }
    chosen.sort_unstable();
    chosen
}

fn failed(operation: &'static str) -> impl FnOnce(iceberg::Error) -> CatalogError {
    move |source| CatalogError::Iceberg { operation, source }
}
