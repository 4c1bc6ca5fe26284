//! Documents that erased events made: by them an erasure finds the rows of collections' tables that it takes out, as
//! such a row has no column that tells of the subject.
//!
//! Keys are kept as hashes, as they may be personal. Its one invariant: what was added is found again. A document that
//! has the hash of another one is found as well: its row is missing from the table until the next refresh.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Most keys that are kept, of all collections together; all rows of a collection go where it has the next one.
const KEYS_MAX: usize = 10_000;
/// Most collections that are kept; all rows of every collection's table go where there is another one.
const COLLECTIONS_MAX: usize = 1_000;

/// The documents whose changes an erasure takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasedDocuments {
    /// Hashes of keys by collection; none for every key.
    collections: BTreeMap<String, Option<BTreeSet<u64>>>,
    /// Whether it is every document of every collection.
    has_all: bool,
}

impl ErasedDocuments {
    /// Adds a document.
    pub fn add(&mut self, collection: &str, key: &str) {
        self.add_hash(collection, xxh3_64(key.as_bytes()));
    }

    fn add_hash(&mut self, collection: &str, hash: u64) {
        if self.has_hash(collection, hash) {
            return;
        }
        let count: usize = self.collections.values().flatten().map(BTreeSet::len).sum();
        if count < KEYS_MAX {
            if let Some(keys) = self.of_collection(collection) {
                keys.get_or_insert_default().insert(hash);
            }
        } else {
            self.add_all(collection);
        }
    }

    /// Adds every document of a collection.
    fn add_all(&mut self, collection: &str) {
        if let Some(keys) = self.of_collection(collection) {
            *keys = None;
        }
    }

    /// The keys of a collection, which is added; nothing where every collection is meant.
    fn of_collection(&mut self, collection: &str) -> Option<&mut Option<BTreeSet<u64>>> {
        if !self.collections.contains_key(collection) && COLLECTIONS_MAX <= self.collections.len() {
            (self.has_all, self.collections) = (true, BTreeMap::new());
        }
        if self.has_all {
            return None;
        }
        let new = || Some(BTreeSet::new());
        Some(self.collections.entry(collection.to_owned()).or_insert_with(new))
    }

    /// Adds those of another one; whether there are more now.
    pub fn merge(&mut self, other: &Self) -> bool {
        if *other == Self::default() {
            return false;
        }
        let before = self.clone();
        if other.has_all {
            (self.has_all, self.collections) = (true, BTreeMap::new());
        }
        for (collection, keys) in &other.collections {
            match keys {
                None => self.add_all(collection),
                Some(keys) => keys.iter().for_each(|hash| self.add_hash(collection, *hash)),
            }
        }
        *self != before
    }

    /// Whether a document is among them.
    #[must_use]
    pub fn has(&self, collection: &str, key: &str) -> bool {
        self.has_hash(collection, xxh3_64(key.as_bytes()))
    }

    fn has_hash(&self, collection: &str, hash: u64) -> bool {
        let is_of =
            |keys: &Option<BTreeSet<u64>>| keys.as_ref().is_none_or(|it| it.contains(&hash));
        self.has_all || self.collections.get(collection).is_some_and(is_of)
    }

    /// Whether a collection has some of them.
    #[must_use]
    pub fn has_some_of(&self, collection: &str) -> bool {
        self.has_all || self.collections.contains_key(collection)
    }

    /// What tells two states of a collection's documents among them; 0 where it has none.
    #[must_use]
    pub fn fingerprint(&self, collection: &str) -> u64 {
        if !self.has_some_of(collection) {
            return 0;
        }
        match self.collections.get(collection) {
            None | Some(None) => u64::MAX,
            Some(Some(keys)) => {
                keys.iter().fold(1, |seed, hash| xxh3_64_with_seed(&hash.to_le_bytes(), seed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_that_were_added_are_found_and_others_are_not() {
        let mut documents = ErasedDocuments::default();
        documents.add("users", "7");
        assert!(documents.has("users", "7") && documents.has_some_of("users"));
        assert!(!documents.has("users", "8") && !documents.has("orders", "7"));
        let text = serde_json::to_string(&documents).unwrap();
        assert!(!text.contains("\"7\""), "{text}");
        let read: ErasedDocuments = serde_json::from_str(&text).unwrap();
        assert_eq!(read, documents);
        assert!(!documents.clone().merge(&read));
        let mut more = ErasedDocuments::default();
        more.add("users", "8");
        assert!(documents.merge(&more) && documents.has("users", "8"));
    }

    #[test]
    fn more_keys_than_are_kept_mean_all_of_their_collection() {
        let mut documents = ErasedDocuments::default();
        documents.add("orders", "1");
        for key in 0..KEYS_MAX {
            documents.add("users", &key.to_string());
        }
        assert!(documents.has("users", "any"));
        assert!(documents.has("orders", "1") && !documents.has("orders", "2"));
    }

    #[test]
    fn more_collections_than_are_kept_mean_all() {
        let mut documents = ErasedDocuments::default();
        for collection in 0..=COLLECTIONS_MAX {
            documents.add(&collection.to_string(), "1");
        }
        assert!(documents.has("any", "2"));
        let mut other = ErasedDocuments::default();
        assert!(other.merge(&documents) && other.has_some_of("any"));
        assert!(!other.merge(&documents));
    }
}
