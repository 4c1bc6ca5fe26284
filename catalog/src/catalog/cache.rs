//! Parsed metadata by file. A metadata file never changes, so an entry is never stale.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Most entries; each is as large as its table's metadata (some 100 KiB at 500 snapshots).
const ENTRIES_MAX: usize = 1024;

/// `M` is the metadata of tables or of views.
pub(super) struct MetadataCache<M> {
    entries: Mutex<HashMap<String, Arc<M>>>,
}

impl<M> Default for MetadataCache<M> {
    fn default() -> Self {
        Self { entries: Mutex::default() }
    }
}

impl<M> MetadataCache<M> {
    pub(super) fn get(&self, location: &str) -> Option<Arc<M>> {
        self.lock().get(location).cloned()
    }

    /// Adds an entry; a full cache starts anew, which costs one read for each table in use.
    pub(super) fn insert(&self, location: &str, metadata: &Arc<M>) {
        let mut entries = self.lock();
        if ENTRIES_MAX <= entries.len() {
            entries.clear();
        }
        entries.insert(location.to_owned(), Arc::clone(metadata));
    }

    /// Drops what is no longer a table's current metadata.
    pub(super) fn remove(&self, location: &str) {
        self.lock().remove(location);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<M>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
