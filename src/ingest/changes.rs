//! How many times a namespace got changes of documents: whoever follows changes need not read events to
//! know that none of those that came is one.

use icecore_schemas::names::Namespace;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// By the catalog's name of the namespace, since the start. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct ChangeCounts(Arc<Mutex<HashMap<String, u64>>>);

impl ChangeCounts {
    /// The count of a namespace.
    pub(super) fn of(&self, name: &str) -> u64 {
        self.lock().get(name).copied().unwrap_or(0)
    }

    /// Counts a group with changes of these namespaces.
    pub(super) fn note<'n>(&self, namespaces: impl Iterator<Item = &'n Namespace>) {
        for namespace in namespaces {
            *self.lock().entry(namespace.name().to_owned()).or_default() += 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        // Each change is one of a whole number, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
