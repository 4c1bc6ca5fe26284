//! Values that are kept up to a number of bytes. Those that nobody asked for the longest go first.
//!
//! It is for what never changes under its key, such as what was read of immutable files. Its one
//! invariant: what is kept has, by its own account, no more bytes than it may.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap},
    fmt,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// About what an entry takes beside its key and value. So there is an end to small ones, too.
const ENTRY_BYTES: usize = 192;

/// Kept values by key. Values should be cheap to clone.
pub struct ByteCache<K, V> {
    kept: Mutex<KeptValues<K, V>>,
    bytes_max: usize,
}

struct KeptValues<K, V> {
    by_key: HashMap<K, KeptValue<V>>,
    /// Each key by the number of its last use.
    by_use: BTreeMap<u64, K>,
    uses: u64,
    bytes: usize,
}

struct KeptValue<V> {
    value: V,
    bytes: usize,
    last_use: u64,
}

impl<K, V> fmt::Debug for ByteCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteCache").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

impl<K: Clone + Eq + Hash, V: Clone> ByteCache<K, V> {
    /// Keeps at most so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let kept =
            KeptValues { by_key: HashMap::new(), by_use: BTreeMap::new(), uses: 0, bytes: 0 };
        Self { kept: Mutex::new(kept), bytes_max }
    }

    /// The value of a key, which is now the last that goes.
    #[must_use]
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let mut guard = self.lock();
        let kept = &mut *guard;
        let found = kept.by_key.get_mut(key)?;
        kept.uses += 1;
        if let Some(key) = kept.by_use.remove(&found.last_use) {
            kept.by_use.insert(kept.uses, key);
        }
        found.last_use = kept.uses;
        Some(found.value.clone())
    }

    /// Keeps a value that takes about so many bytes with its key; one that alone has too many is not kept.
    pub fn insert(&self, key: K, value: V, bytes: usize) {
        let bytes = bytes.saturating_add(ENTRY_BYTES);
        let mut guard = self.lock();
        let kept = &mut *guard;
        kept.remove(&key);
        if self.bytes_max < bytes {
            return;
        }
        while self.bytes_max - bytes < kept.bytes {
            let Some((_, oldest)) = kept.by_use.pop_first() else { break };
            kept.remove(&oldest);
        }
        kept.uses += 1;
        kept.bytes += bytes;
        kept.by_use.insert(kept.uses, key.clone());
        kept.by_key.insert(key, KeptValue { value, bytes, last_use: kept.uses });
    }

    /// The bytes that are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    // A panic elsewhere leaves nothing half done that is not mended by a later removal.
    fn lock(&self) -> MutexGuard<'_, KeptValues<K, V>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, V> KeptValues<K, V> {
    fn remove(&mut self, key: &K) {
        if let Some(gone) = self.by_key.remove(key) {
            self.by_use.remove(&gone.last_use);
            self.bytes -= gone.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a value so that its entry takes this many times what an empty one does.
    fn times(count: usize) -> usize {
        (count - 1) * ENTRY_BYTES
    }

    #[test]
    fn what_nobody_asked_for_the_longest_goes_first() {
        let cache: ByteCache<String, u8> = ByteCache::new(10 * ENTRY_BYTES);
        for (key, value) in [("a", 1), ("b", 2), ("c", 3)] {
            cache.insert(key.to_owned(), value, times(3));
        }
        assert_eq!(cache.get("a"), Some(1));
        cache.insert("d".to_owned(), 4, times(3));
        let kept = ["a", "b", "c", "d"].map(|key| cache.get(key));
        assert_eq!(kept, [Some(1), None, Some(3), Some(4)]);
        assert_eq!(cache.bytes(), 9 * ENTRY_BYTES);
        // More than one has to go.
        cache.insert("e".to_owned(), 5, times(7));
        assert_eq!(["a", "c", "d", "e"].map(|key| cache.get(key)), [None, None, Some(4), Some(5)]);
        assert_eq!(cache.bytes(), 10 * ENTRY_BYTES);
    }

    #[test]
    fn a_value_takes_the_place_of_the_last_of_its_key() {
        let cache: ByteCache<u8, u8> = ByteCache::new(10 * ENTRY_BYTES);
        cache.insert(1, 1, times(10));
        cache.insert(1, 2, times(4));
        assert_eq!((cache.get(&1), cache.bytes()), (Some(2), 4 * ENTRY_BYTES));
        // What alone is too much takes nothing from the others, and is not kept.
        cache.insert(2, 3, times(11));
        assert_eq!((cache.get(&1), cache.get(&2)), (Some(2), None));
        cache.insert(1, 4, times(11));
        assert_eq!((cache.get(&1), cache.bytes()), (None, 0));
    }

    #[test]
    fn there_is_an_end_to_values_that_take_nothing() {
        let cache: ByteCache<u8, u8> = ByteCache::new(3 * ENTRY_BYTES);
        for key in 0..100_u8 {
            cache.insert(key, key, 0);
        }
        assert_eq!((0..100_u8).filter(|key| cache.get(key).is_some()).count(), 3);
    }
}
