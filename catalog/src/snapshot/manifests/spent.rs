//! Files that go: what a manifest says of them, and one manifest for several whose files all go, since a
//! reader opens each manifest of a snapshot, also those that list no live file.

use super::{SnapshotWriter, in_memory, numbers, parse};
use crate::error::CatalogError;
use bytes::Bytes;
use iceberg::{
    ErrorKind,
    spec::{
        DataContentType, DataFile, DataFileBuilder, FormatVersion, ManifestEntry, ManifestFile,
        ManifestWriter,
    },
};

impl SnapshotWriter<'_> {
    /// Whether files of several manifests may become one. In version 3 entries take their row ids from the
    /// manifest that they are in.
    pub(in crate::snapshot) fn joins_deleted(&self) -> bool {
        self.base.format_version() == FormatVersion::V2
    }

    /// Writes one manifest with the live files of several, whose bytes may be at hand, as deleted; none for no
    /// manifests. They are of one kind and spec. `at` makes its name its own.
    pub(in crate::snapshot) async fn deleted(
        &mut self,
        manifests: Vec<(ManifestFile, Option<Bytes>)>,
        at: usize,
    ) -> Result<Option<ManifestFile>, CatalogError> {
        let Some((first, _)) = manifests.first() else { return Ok(None) };
        let draft = self.draft(&format!("g{at}"), first.partition_spec_id, first.content)?;
        let own = self.storage.normalize(self.base.location())?;
        let mut entries = Vec::new();
        for (manifest, bytes) in manifests {
            own.admit(&manifest.manifest_path)?;
            let bytes = match bytes {
                Some(bytes) => bytes,
                None => self.storage.get(&manifest.manifest_path).await?,
            };
            entries.extend(parse(manifest, bytes).await?);
        }
        let encode = move || {
            let mut writer = draft.writer()?;
            for entry in entries {
                delete_existing(&mut writer, entry)?;
            }
            draft.finish(writer)
        };
        let (manifest, bytes) = in_memory("join deleted files", encode).await?;
        self.put_deferred(&manifest.manifest_path, bytes).await?;
        Ok(Some(manifest))
    }
}

/// Writes the entry of a file that goes.
pub(super) fn delete_existing(
    writer: &mut ManifestWriter,
    entry: ManifestEntry,
) -> iceberg::Result<()> {
    let (_, sequence) = numbers(&entry)?;
    let file_sequence = entry.file_sequence_number;
    writer.add_delete_file(without_metrics(entry.data_file)?, sequence, file_sequence)
}

/// The file without what is said of its columns. It is some half of a kilobyte a file, which readers of a
/// snapshot parse and no reader goes by once the file is gone; parts of rows that are erased are in it, too.
/// A delete file may say only in its bounds which file it is about, and keeps them.
fn without_metrics(file: DataFile) -> iceberg::Result<DataFile> {
    if file.content_type() != DataContentType::Data {
        return Ok(file);
    }
    let mut bare = DataFileBuilder::default();
    bare.content(file.content_type())
        .file_path(file.file_path().to_owned())
        .file_format(file.file_format())
        .partition(file.partition().clone())
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .key_metadata(file.key_metadata().map(<[u8]>::to_vec))
        .first_row_id(file.first_row_id());
    if let Some(order) = file.sort_order_id() {
        bare.sort_order_id(order);
    }
    bare.build().map_err(|cause| iceberg::Error::new(ErrorKind::DataInvalid, cause.to_string()))
}
