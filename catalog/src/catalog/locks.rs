//! Commits to one table queue in this process instead of racing each other to the metastore.
//!
//! The locks only save work: what keeps commits apart is the metastore's swap.

use iceberg::TableIdent;
use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
};
use tokio::sync::{Mutex, MutexGuard};

/// More tables than this share locks, which costs them some waiting and nothing else.
const STRIPES: u64 = 1024;

pub(super) struct TableLocks {
    stripes: Vec<Mutex<()>>,
    /// How often somebody came to wait.
    #[cfg(test)]
    pub(super) asked: std::sync::atomic::AtomicUsize,
}

impl TableLocks {
    pub(super) fn new() -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(),
            #[cfg(test)]
            asked: Default::default(),
        }
    }

    /// Waits, in order of arrival, until nobody else commits to these tables.
    pub(super) async fn lock(
        &self,
        tables: impl Iterator<Item = &TableIdent>,
    ) -> Vec<MutexGuard<'_, ()>> {
        #[cfg(test)]
        self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        // Everybody takes them in the same order, so nobody waits in a circle.
        let stripes: BTreeSet<usize> = tables.map(stripe).collect();
        let mut guards = Vec::with_capacity(stripes.len());
        for stripe in stripes {
            guards.push(self.stripes[stripe].lock().await);
        }
        guards
    }
}

fn stripe(table: &TableIdent) -> usize {
    let mut hasher = DefaultHasher::new();
    table.hash(&mut hasher);
    usize::try_from(hasher.finish() % STRIPES).expect("the number of stripes is small")
}
