//! The memory that the queries of all workers share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// How much there is. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct MemoryBudget {
    bytes_max: usize,
    granted: Arc<AtomicUsize>,
}

/// What one query has of it, given back when this is dropped.
#[derive(Debug)]
pub(super) struct MemoryShare {
    budget: MemoryBudget,
    bytes: usize,
}

impl MemoryBudget {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, granted: Arc::default() }
    }

    /// A share without any bytes yet.
    pub(super) fn share(&self) -> MemoryShare {
        MemoryShare { budget: self.clone(), bytes: 0 }
    }
}

impl MemoryShare {
    /// Grants the query more, if there is as much.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let MemoryBudget { bytes_max, granted } = &self.budget;
        let more = |all: usize| all.checked_add(bytes).filter(|all| all <= bytes_max);
        let is_granted = granted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if is_granted {
            self.bytes += bytes;
        }
        is_granted
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.budget.granted.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryBudget;

    #[test]
    fn queries_have_no_more_than_there_is_and_give_it_back() {
        let budget = MemoryBudget::new(100);
        let (mut one, mut other) = (budget.share(), budget.share());
        assert!(one.grow(60) && !other.grow(41) && other.grow(40) && !one.grow(1));
        assert!(!one.grow(usize::MAX));
        drop(one);
        assert!(other.grow(60) && !other.grow(1));
    }
}
