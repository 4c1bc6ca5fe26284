//! Memory of queries that is granted by another process.
//!
//! The queries of all processes share one bound, and one process keeps it. The others ask it for more,
//! in steps, and give all back when their query ends.

use datafusion::{
    common::resources_datafusion_err,
    error::DataFusionError,
    execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation},
};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Memory is asked for in multiples of this many bytes: asking takes about as long as reading a page.
const GRANT_BYTES: usize = 4 << 20;

/// Sorts, which put their rows on disk instead, have so many quarters of the memory together: functions and merges,
/// which do not, need the rest meanwhile.
const SORT_QUARTERS: usize = 3;
/// What DataFusion calls the memory of a sort begins so.
const SORT: &str = "ExternalSorter[";

/// Asks for more bytes, and says whether they were granted. It may wait for the answer.
pub type MemoryRequest = Box<dyn Fn(usize) -> bool + Send + Sync>;

/// A pool that asks another process before it grows. Cheap to clone.
#[derive(Clone)]
pub struct GrantedMemory {
    inner: Arc<GrantedInner>,
}

struct GrantedInner {
    ask: MemoryRequest,
    bytes_max: usize,
    state: Mutex<GrantState>,
}

#[derive(Debug, Default)]
struct GrantState {
    used: usize,
    granted: usize,
    /// Sorts that run.
    sorts: usize,
}

impl fmt::Debug for GrantedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes_max = self.inner.bytes_max;
        f.debug_struct("GrantedMemory").field("bytes_max", &bytes_max).finish_non_exhaustive()
    }
}

impl GrantedMemory {
    /// A pool without any memory yet; no more than `bytes_max` is asked for.
    #[must_use]
    pub fn new(bytes_max: usize, ask: MemoryRequest) -> Self {
        Self { inner: Arc::new(GrantedInner { ask, bytes_max, state: Mutex::default() }) }
    }

    /// Forgets what was granted: a query ended, and its memory is others' again.
    pub fn give_back(&self) {
        self.state().granted = 0;
    }

    // Whole numbers go in and out, so a panic elsewhere leaves nothing half done.
    fn state(&self) -> MutexGuard<'_, GrantState> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What one of the sorts that run may have: one that took all would leave another none to begin with.
    fn sort_bytes_max(&self) -> usize {
        self.inner.bytes_max / 4 * SORT_QUARTERS / self.state().sorts.max(1)
    }

    /// Has `additional` bytes in use, if there is room.
    fn take(&self, additional: usize) -> bool {
        let GrantedInner { ask, bytes_max, .. } = self.inner.as_ref();
        let mut state = self.state();
        let used = state.used.saturating_add(additional);
        if *bytes_max < used {
            return false;
        }
        let lacking = used.saturating_sub(state.granted);
        if 0 < lacking {
            // The last step is as small as the rest. The lock is held meanwhile: who comes next would ask
            // for the same bytes.
            let room = bytes_max.saturating_sub(state.granted);
            let step = lacking.next_multiple_of(GRANT_BYTES).min(room.max(lacking));
            let granted = match ask(step) {
                true => step,
                // Others may have left less than a step.
                false if lacking < step && ask(lacking) => lacking,
                false => return false,
            };
            state.granted += granted;
        }
        state.used = used;
        true
    }
}

impl fmt::Display for GrantedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "granted({} bytes used of {})", self.state().used, self.inner.bytes_max)
    }
}

impl MemoryPool for GrantedMemory {
    fn name(&self) -> &'static str {
        "granted"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.state().sorts += usize::from(is_sort(consumer));
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        let mut state = self.state();
        state.sorts = state.sorts.saturating_sub(usize::from(is_sort(consumer)));
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        let mut state = self.state();
        state.used = state.used.saturating_add(additional);
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        let mut state = self.state();
        state.used = state.used.saturating_sub(shrink);
    }

    fn try_grow(
        &self,
        reservation: &MemoryReservation,
        additional: usize,
    ) -> Result<(), DataFusionError> {
        let is_within = !is_sort(reservation.consumer())
            || reservation.size().saturating_add(additional) <= self.sort_bytes_max();
        if is_within && self.take(additional) {
            return Ok(());
        }
        Err(resources_datafusion_err!(
            "Failed to allocate additional {additional} bytes for {} with {} bytes already allocated: all queries together may use {} bytes (sql.memory_bytes_max)",
            reservation.consumer().name(),
            reservation.size(),
            self.inner.bytes_max
        ))
    }

    fn reserved(&self) -> usize {
        self.state().used
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.inner.bytes_max)
    }
}

fn is_sort(consumer: &MemoryConsumer) -> bool {
    consumer.name().starts_with(SORT)
}

#[cfg(test)]
mod tests {
    use super::{GRANT_BYTES, GrantedMemory};
    use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool};
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    /// A pool of a process that may have `free` bytes in all, and how many it was granted.
    fn pool(bytes_max: usize, free: usize) -> (GrantedMemory, Arc<AtomicUsize>) {
        let granted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&granted);
        let ask = move |bytes: usize| {
            let all = count.load(Ordering::Relaxed) + bytes;
            if all <= free {
                count.store(all, Ordering::Relaxed);
            }
            all <= free
        };
        (GrantedMemory::new(bytes_max, Box::new(ask)), granted)
    }

    #[test]
    fn memory_is_asked_for_in_steps_and_no_more_than_there_is() {
        let (pool, granted) = pool(10 * GRANT_BYTES, 2 * GRANT_BYTES + 10);
        assert!(pool.take(1) && pool.take(GRANT_BYTES - 1));
        assert_eq!(granted.load(Ordering::Relaxed), GRANT_BYTES);
        assert!(pool.take(1));
        assert_eq!(granted.load(Ordering::Relaxed), 2 * GRANT_BYTES);
        // Less than a step is left, and it is enough.
        assert!(pool.take(GRANT_BYTES + 9));
        assert!(!pool.take(1));
    }

    #[test]
    fn sorts_share_and_leave_room_for_what_has_no_disk() {
        let (granted, _) = pool(8 * GRANT_BYTES, usize::MAX);
        let all: Arc<dyn MemoryPool> = Arc::new(granted);
        let sort = MemoryConsumer::new("ExternalSorter[0]").with_can_spill(true).register(&all);
        sort.try_grow(6 * GRANT_BYTES).unwrap();
        sort.try_grow(1).unwrap_err();
        sort.shrink(5 * GRANT_BYTES);
        let other = MemoryConsumer::new("ExternalSorter[1]").with_can_spill(true).register(&all);
        other.try_grow(3 * GRANT_BYTES).unwrap();
        other.try_grow(1).unwrap_err();
        let function = MemoryConsumer::new("function").register(&all);
        function.try_grow(4 * GRANT_BYTES).unwrap();
        drop(other);
        sort.try_grow(3 * GRANT_BYTES).unwrap();
    }

    #[test]
    fn a_query_after_another_asks_anew() {
        let (pool, granted) = pool(GRANT_BYTES, usize::MAX);
        assert!(pool.take(GRANT_BYTES) && !pool.take(1));
        pool.state().used = 0;
        pool.give_back();
        assert!(pool.take(1));
        assert_eq!(granted.load(Ordering::Relaxed), 2 * GRANT_BYTES);
    }
}
