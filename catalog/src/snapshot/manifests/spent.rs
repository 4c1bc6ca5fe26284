//! Files that go: what a manifest says of them, and one manifest for several whose files all go, since a
//! reader opens each manifest of a snapshot, also those that list no live file.

use super::{SnapshotWriter, in_memory, numbers, parse};
use crate::{error::CatalogError, retention};
use bytes::Bytes;
use iceberg::{
    ErrorKind,
    spec::{
        DataContentType, DataFile, DataFileBuilder, Datum, FormatVersion, ManifestEntry,
        ManifestFile, ManifestWriter, PrimitiveType, Type,
    },
};
use std::collections::HashMap;

/// The column with the numbers of rows, in tables of the service.
const SEQ: &str = "seq";

impl SnapshotWriter<'_> {
    /// Whether files of several manifests may become one. In version 3 entries take their row ids from the
    /// manifest that they are in.
    pub(in crate::snapshot) fn joins_deleted(&self) -> bool {
        self.base.format_version() == FormatVersion::V2
    }

    /// The field id of the column whose bounds stay known of files that go: with them a check tells which numbers
    /// went, once the snapshot before is gone. They are of no person.
    pub(super) fn seq_column(&self) -> Option<i32> {
        let field = self.base.current_schema().field_by_name(SEQ)?;
        let is_number = matches!(&*field.field_type, Type::Primitive(PrimitiveType::Long));
        (is_number && retention::is_managed(self.base)).then_some(field.id)
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
        let seq = self.seq_column();
        let encode = move || {
            let mut writer = draft.writer()?;
            for entry in entries {
                delete_existing(&mut writer, entry, seq)?;
            }
            draft.finish(writer)
        };
        let (manifest, bytes) = in_memory("join deleted files", encode).await?;
        self.put_deferred(&manifest.manifest_path, bytes).await?;
        Ok(Some(manifest))
    }
}

/// Writes the entry of a file that goes, with the bounds of the column `seq` alone.
pub(super) fn delete_existing(
    writer: &mut ManifestWriter,
    entry: ManifestEntry,
    seq: Option<i32>,
) -> iceberg::Result<()> {
    let (_, sequence) = numbers(&entry)?;
    let file_sequence = entry.file_sequence_number;
    writer.add_delete_file(without_metrics(entry.data_file, seq)?, sequence, file_sequence)
}

/// The file without what is said of its columns but for the bounds of one. It is some half of a kilobyte a file,
/// which readers of a snapshot parse and no reader goes by once the file is gone; parts of rows that are erased are
/// in it, too.
/// A delete file may say only in its bounds which file it is about, and keeps them.
fn without_metrics(file: DataFile, kept: Option<i32>) -> iceberg::Result<DataFile> {
    if file.content_type() != DataContentType::Data {
        return Ok(file);
    }
    let bounds = |all: &HashMap<i32, Datum>| -> HashMap<i32, Datum> {
        let known = kept.and_then(|id| Some((id, all.get(&id)?.clone())));
        known.into_iter().collect()
    };
    let mut bare = DataFileBuilder::default();
    bare.content(file.content_type())
        .file_path(file.file_path().to_owned())
        .file_format(file.file_format())
        .partition(file.partition().clone())
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .lower_bounds(bounds(file.lower_bounds()))
        .upper_bounds(bounds(file.upper_bounds()))
        .key_metadata(file.key_metadata().map(<[u8]>::to_vec))
        .first_row_id(file.first_row_id());
    if let Some(order) = file.sort_order_id() {
        bare.sort_order_id(order);
    }
    bare.build().map_err(|cause| iceberg::Error::new(ErrorKind::DataInvalid, cause.to_string()))
}
