//! What was made of metadata files, by file. A metadata file never changes, so an entry is never
//! stale.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Most entries.
const ENTRIES_MAX: usize = 1024;
/// Most bytes of the files of all entries; what is made of them takes some two times as many.
const WEIGHT_MAX: usize = 128 << 20;
/// Most bytes of one file: what is made of a longer one is not kept.
const ENTRY_WEIGHT_MAX: usize = WEIGHT_MAX / 2;

/// `M` is what is kept: the metadata of tables or of views, or what is carried along with it.
pub(super) struct MetadataCache<M> {
    entries: Mutex<CacheEntries<M>>,
}

/// Each with its weight.
struct CacheEntries<M> {
    by_location: HashMap<String, (Arc<M>, usize)>,
    weight: usize,
}

impl<M> Default for MetadataCache<M> {
    fn default() -> Self {
        Self { entries: Mutex::new(CacheEntries { by_location: HashMap::new(), weight: 0 }) }
    }
}

impl<M> MetadataCache<M> {
    pub(super) fn get(&self, location: &str) -> Option<Arc<M>> {
        self.lock().by_location.get(location).map(|(kept, _)| Arc::clone(kept))
    }

    /// The length of the file that an entry was made of.
    pub(super) fn weight(&self, location: &str) -> Option<usize> {
        self.lock().by_location.get(location).map(|(_, weight)| *weight)
    }

    /// Adds an entry whose file has `weight` bytes; a full cache starts anew, which costs one read
    /// for each table in use.
    pub(super) fn insert(&self, location: &str, metadata: &Arc<M>, weight: usize) {
        let mut entries = self.lock();
        entries.remove(location);
        if ENTRY_WEIGHT_MAX < weight {
            return;
        }
        let full = ENTRIES_MAX <= entries.by_location.len() || WEIGHT_MAX < entries.weight + weight;
        if full {
            entries.by_location.clear();
            entries.weight = 0;
        }
        entries.weight += weight;
        entries.by_location.insert(location.to_owned(), (Arc::clone(metadata), weight));
    }

    /// Drops what is no longer a table's current metadata.
    pub(super) fn remove(&self, location: &str) {
        self.lock().remove(location);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, CacheEntries<M>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M> CacheEntries<M> {
    fn remove(&mut self, location: &str) {
        if let Some((_, weight)) = self.by_location.remove(location) {
            self.weight -= weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_bounded_by_entries_and_by_what_they_weigh() {
        let cache = MetadataCache::default();
        for number in 0..=ENTRIES_MAX {
            cache.insert(&number.to_string(), &Arc::new(number), 0);
        }
        assert_eq!(cache.get("0"), None);
        assert_eq!(cache.lock().by_location.len(), 1);
        for _ in 0..3 {
            cache.insert("same", &Arc::new(1), ENTRY_WEIGHT_MAX);
        }
        cache.insert("other", &Arc::new(3), ENTRY_WEIGHT_MAX);
        assert_eq!(cache.lock().by_location.len(), 3);
        assert_eq!(cache.lock().weight, WEIGHT_MAX);
        cache.insert("heavy", &Arc::new(2), 1);
        assert_eq!((cache.get("same"), cache.get("heavy")), (None, Some(Arc::new(2))));
        // What is too heavy takes nothing from the others, and an older entry of its name goes.
        cache.insert("huge", &Arc::new(4), ENTRY_WEIGHT_MAX + 1);
        assert_eq!((cache.get("huge"), cache.weight("heavy")), (None, Some(1)));
        cache.insert("heavy", &Arc::new(4), ENTRY_WEIGHT_MAX + 1);
        assert_eq!((cache.get("heavy"), cache.lock().weight), (None, 0));
    }
}
