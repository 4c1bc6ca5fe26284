//! Whole entries of manifests, and manifests of files that are live again.
//!
//! Its one invariant: a file that is live again has the snapshot and the sequence numbers that it was added
//! with, so that the same deletes reach it as before.

use super::{SnapshotWriter, add_existing, in_memory, inherited, parse};
use crate::{error::CatalogError, location::Location, manifest_file, storage::Storage};
use iceberg::spec::{ManifestContentType, ManifestEntry, ManifestFile};
use std::sync::Arc;

/// The entries of a manifest, also of files that it says are gone.
pub(in crate::snapshot) async fn all(
    storage: &Storage,
    own: &Location,
    manifest: &ManifestFile,
) -> Result<Vec<ManifestEntry>, CatalogError> {
    let bytes = storage.get(own.admit(&manifest.manifest_path)?.as_str()).await?;
    let manifest = manifest.clone();
    in_memory("read a manifest", move || {
        let (entries, _) = manifest_file::parse(&bytes)?.into_parts();
        let whole = |entry| inherited(Arc::unwrap_or_clone(entry), &manifest);
        Ok(entries.into_iter().map(whole).collect())
    })
    .await
}

/// The live entries of a manifest.
pub(in crate::snapshot) async fn live(
    storage: &Storage,
    own: &Location,
    manifest: &ManifestFile,
) -> Result<Vec<ManifestEntry>, CatalogError> {
    let bytes = storage.get(own.admit(&manifest.manifest_path)?.as_str()).await?;
    parse(manifest.clone(), bytes).await
}

impl SnapshotWriter<'_> {
    /// Writes a manifest of files that were live before. `at` makes its name its own.
    pub(in crate::snapshot) async fn restored(
        &mut self,
        spec_id: i32,
        content: ManifestContentType,
        entries: Vec<ManifestEntry>,
        at: usize,
    ) -> Result<ManifestFile, CatalogError> {
        let draft = self.draft(&format!("b{at}"), spec_id, content)?;
        let encode = move || {
            let mut writer = draft.writer()?;
            for entry in entries {
                add_existing(&mut writer, entry)?;
            }
            draft.finish(writer)
        };
        let (manifest, bytes) = in_memory("restore files to a manifest", encode).await?;
        self.put_deferred(&manifest.manifest_path, bytes).await?;
        Ok(manifest)
    }
}
