//! What the manifests of a table say, entry by entry, for readers who want to look at the table itself.
//!
//! Nothing is cached: such a reader reads each manifest once, and wants entries that planning leaves out.
//! Its one invariant is that of [`super::manifests`]: no location outside of the table's own is read.

use super::{ManifestSource, ScanError, manifests};
use crate::manifest_file;
use iceberg::spec::{Manifest, ManifestFile};

impl ManifestSource<'_> {
    /// All manifests that a snapshot lists, also those without live files.
    ///
    /// # Errors
    /// [`ScanError::NoSuchSnapshot`], [`ScanError::Unsupported`] for encrypted tables,
    /// [`ScanError::Damaged`], [`ScanError::Catalog`], [`ScanError::TooSlow`].
    pub async fn listed(&self, snapshot_id: i64) -> Result<Vec<ManifestFile>, ScanError> {
        self.until.check()?;
        let Some(snapshot) = self.metadata.snapshot_by_id(snapshot_id) else {
            return Err(ScanError::NoSuchSnapshot(snapshot_id));
        };
        self.check_is_plain(snapshot_id)?;
        let own = self.storage.normalize(self.metadata.location())?;
        let location = own.admit(snapshot.manifest_list())?;
        let location = location.as_str();
        let bytes = manifests::stored(self.storage, location).await?;
        let list = manifest_file::parse_list(&bytes, self.metadata.format_version())
            .map_err(manifests::damaged(location))?;
        Ok(list.consume_entries().into_iter().collect())
    }

    /// A manifest with all of its entries, also of files that are gone.
    ///
    /// # Errors
    /// [`ScanError::Damaged`], [`ScanError::Catalog`], [`ScanError::TooSlow`].
    pub async fn manifest(&self, manifest: &ManifestFile) -> Result<Manifest, ScanError> {
        let own = self.storage.normalize(self.metadata.location())?;
        let location = own.admit(&manifest.manifest_path)?;
        let location = location.as_str();
        let bytes = manifests::stored(self.storage, location).await?;
        // Parsing takes a moment and does not yield.
        self.until.check()?;
        manifest_file::parse(&bytes).map_err(manifests::damaged(location))
    }
}
