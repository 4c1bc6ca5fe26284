//! One manifest for several whose files all go: a reader opens each manifest of a snapshot, also those that
//! list no live file.

use super::{SnapshotWriter, delete_existing, in_memory, parse};
use crate::error::CatalogError;
use bytes::Bytes;
use iceberg::spec::{FormatVersion, ManifestFile};

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
