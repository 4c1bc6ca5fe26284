//! What a piece of work costs: the processor time of the threads that do it, and the bytes of files
//! that it reads and writes.
//!
//! A counter goes with the work through every await, and [`carried`] takes it along to threads that may
//! be blocked. Work that is handed to a task of its own, such as a commit that waits in a table's queue
//! together with others, is not counted unless the task measures it, too.
//!
//! Its one invariant: each second of a thread is counted once, by the counter of the work that it did.

use rustix::time::{ClockId, clock_gettime};
use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

tokio::task_local! {
    /// The counter of the work that goes on, if it is measured.
    static CURRENT: UsageCounter;
}

/// What was counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceUsage {
    /// Processor time of all threads together.
    pub cpu: Duration,
    /// Bytes of the warehouse's files that were read.
    pub bytes_read: u64,
    /// Bytes of the warehouse's files that were written.
    pub bytes_written: u64,
}

/// Counts what some work costs. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct UsageCounter(Arc<UsageCounts>);

#[derive(Debug, Default)]
struct UsageCounts {
    cpu_ns: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

impl UsageCounter {
    /// The counter of the work that goes on here; none where nobody measures it.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// What was counted so far.
    #[must_use]
    pub fn usage(&self) -> ResourceUsage {
        let counts = &self.0;
        ResourceUsage {
            cpu: Duration::from_nanos(counts.cpu_ns.load(Ordering::Relaxed)),
            bytes_read: counts.bytes_read.load(Ordering::Relaxed),
            bytes_written: counts.bytes_written.load(Ordering::Relaxed),
        }
    }

    /// Counts what `work` costs from now on. It must not be measured by a counter already: its time
    /// would count twice.
    pub async fn measure<F: Future>(&self, work: F) -> F::Output {
        let mut work = Box::pin(CURRENT.scope(self.clone(), work));
        poll_fn(|context| self.time(|| work.as_mut().poll(context))).await
    }

    /// Counts the time that this thread takes for `work`.
    fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = thread_time();
        let done = work();
        let took = thread_time().saturating_sub(before);
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0.cpu_ns.fetch_add(took_ns, Ordering::Relaxed);
        done
    }
}

/// `work` for another thread, where it is counted as here.
pub fn carried<T: 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl FnOnce() -> T + Send + 'static {
    let counter = UsageCounter::current();
    move || match counter {
        Some(counter) => {
            let scope = counter.clone();
            counter.time(move || CURRENT.sync_scope(scope, work))
        }
        None => work(),
    }
}

/// Counts bytes that were read of a file.
pub(crate) fn count_read(bytes: usize) {
    count(bytes, |counts| &counts.bytes_read);
}

/// Counts bytes that were written to a file.
pub(crate) fn count_written(bytes: usize) {
    count(bytes, |counts| &counts.bytes_written);
}

fn count(bytes: usize, of: impl FnOnce(&UsageCounts) -> &AtomicU64) {
    // Outside of measured work there is no counter, and nothing to count.
    let _ = CURRENT
        .try_with(|counter| of(counter.0.as_ref()).fetch_add(bytes as u64, Ordering::Relaxed));
}

/// The processor time of this thread since it began.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::spawn_blocking;

    /// Turns until this thread has taken so much time of a processor, however busy the machine is.
    fn spin(time: Duration) {
        let until = thread_time() + time;
        while thread_time() < until {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn time_is_counted_on_the_threads_that_do_the_work_and_once() {
        const PART: Duration = Duration::from_millis(20);
        let (counter, other) = (UsageCounter::default(), UsageCounter::default());
        let work = async {
            spin(PART);
            tokio::task::yield_now().await;
            spawn_blocking(carried(|| {
                spin(PART);
                count_read(5);
                count_written(7);
            }))
            .await
            .unwrap();
            // Not carried, so nobody's.
            spawn_blocking(|| spin(10 * PART)).await.unwrap();
        };
        counter.measure(work).await;
        spin(10 * PART);
        count_read(100);
        let ResourceUsage { cpu, bytes_read, bytes_written } = counter.usage();
        assert!(2 * PART <= cpu && cpu < 10 * PART, "{cpu:?}");
        assert_eq!((bytes_read, bytes_written), (5, 7));
        assert_eq!(other.usage(), ResourceUsage::default());
        assert!(UsageCounter::current().is_none());
    }
}
