//! How fast the service works beside requests: rests in proportion to what work cost, longer ones
//! while ingest suffers from it, shorter ones while nobody sends events.
//!
//! Whether ingest suffers is told by its acknowledgements: those beside work against those without.
//! Its one invariant: work goes on, however busy ingest is, and what rests holds no lock and no
//! transaction.

use crate::{
    maintenance::read_lease::{LEASE_AFTER, ReadLease},
    tasks::{ShutdownSignal, Tasks},
};
use icecore_catalog::{
    catalog::{Catalog, LoadedTable},
    usage::{ResourceUsage, UsageCounter},
};
use icecore_lake::load::{IngestLoad, LoadReading, WorkMark};
use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};
use tokio::time::Instant;

/// The share of a processor, and of a disk, that work has which nobody set a share for.
const SHARE: f64 = 0.5;
/// While nobody sends events work has so many times its share, and at most all of a processor.
const IDLE_TIMES: f64 = 2.0;
/// The least part of its share that it has, however much ingest suffers.
pub(super) const TIMES_MIN: f64 = 1.0 / 16.0;
/// Acknowledgements beside work may take so many times as long as without.
const SLOWER_FREE: f64 = 1.25;
/// A smaller difference is that of any two moments.
const NOISE: Duration = Duration::from_millis(2);
/// Bytes of files that count as a second of work.
const BYTES_PER_SECOND: f64 = 256.0 * 1_048_576.0;
/// Shorter pauses are put together: a timer is no finer.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// Longest single pause; what is owed beyond it comes with the next ones.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Most that is owed.
const OWED_MAX: Duration = Duration::from_secs(60);

/// The share of a processor that work has now whose share is `wanted`, above 0 and at most 1.
#[must_use]
pub fn share_beside(wanted: f64, reading: LoadReading) -> f64 {
    share_between(wanted * TIMES_MIN, wanted, reading)
}

/// The same of work that has at least `least`, however much ingest suffers.
#[must_use]
pub(super) fn share_between(
    least: f64,
    wanted: f64,
    LoadReading { is_idle, quiet, beside }: LoadReading,
) -> f64 {
    if is_idle {
        return (wanted * IDLE_TIMES).min(1.0);
    }
    let (Some(quiet), Some(beside)) = (quiet, beside) else { return wanted };
    if beside <= quiet + NOISE {
        return wanted;
    }
    let slower = beside.as_secs_f64() / quiet.as_secs_f64().max(f64::MIN_POSITIVE);
    let part = SLOWER_FREE / slower;
    // By its square: half of the work that slows acknowledgements down still slows half of them down.
    (wanted * part * part).clamp(least.min(wanted), wanted)
}

/// How fast jobs and checks go that read and write whole tables. Cheap to clone.
#[derive(Clone, Debug)]
pub struct JobPace {
    load: IngestLoad,
    stopping: ShutdownSignal,
    /// Work that takes longer leases what it reads.
    lease_after: Duration,
}

impl JobPace {
    /// Work beside this ingest, which rests no more once `tasks` stop.
    #[must_use]
    pub fn new(load: &IngestLoad, tasks: &Tasks) -> Self {
        Self { load: load.clone(), stopping: tasks.stopping(), lease_after: LEASE_AFTER }
    }

    /// The same, where work leases what it reads once it took so long; from its start with
    /// [`Duration::ZERO`].
    #[must_use]
    pub fn leasing_after(self, lease_after: Duration) -> Self {
        Self { lease_after, ..self }
    }

    /// The lease of a snapshot that work reads, which may take long at this pace.
    pub(super) fn lease<'a>(
        &self,
        catalog: &'a Catalog,
        table: &'a LoadedTable,
        snapshot_id: i64,
    ) -> ReadLease<'a> {
        ReadLease { catalog, table, snapshot_id, after: self.lease_after }
    }

    /// Work that begins now. It rests where what goes on here is measured; nobody knows what it costs
    /// otherwise.
    #[must_use]
    pub fn begin(&self) -> PacedWork {
        let counter = UsageCounter::current();
        let settled = counter.as_ref().map_or(Duration::ZERO, |counter| cost(counter.usage()));
        let mark = Some(self.load.work());
        PacedWork { pace: self.clone(), counter, settled, owed: Duration::ZERO, mark }
    }

    /// Does one piece of work, as [`PacedWork::over`].
    pub async fn over<F: Future>(&self, work: F) -> F::Output {
        self.begin().over(work).await
    }
}

/// Work that goes on, and what it owes.
#[derive(Debug)]
pub struct PacedWork {
    pace: JobPace,
    counter: Option<UsageCounter>,
    /// What it had cost at the last pause.
    settled: Duration,
    owed: Duration,
    /// None during a pause.
    mark: Option<WorkMark>,
}

impl PacedWork {
    /// Does `work`, and rests between its steps. It is not polled meanwhile, so it must hold nothing that
    /// others wait for: it reads and writes files, and no database.
    pub async fn over<F: Future>(&mut self, work: F) -> F::Output {
        let mut work = pin!(work);
        let mut waits = false;
        loop {
            let step = poll_fn(|context| {
                if std::mem::take(&mut waits) {
                    // It was woken and could go on.
                    return Poll::Ready(None);
                }
                let polled = work.as_mut().poll(context);
                waits = polled.is_pending();
                polled.map(Some)
            });
            if let Some(done) = step.await {
                return done;
            }
            self.rest().await;
        }
    }

    /// Pauses for all that is owed, [`OWED_MAX`] at most: for work that could not rest in its middle.
    pub async fn settle(&mut self) {
        for _ in 0..OWED_MAX.as_secs().div_ceil(PAUSE_MAX.as_secs()) {
            self.rest().await;
            if self.owed < PAUSE_MIN {
                break;
            }
        }
    }

    /// Pauses for what was done since the last pause.
    pub async fn rest(&mut self) {
        let Some(counter) = &self.counter else { return };
        let spent = cost(counter.usage());
        let work = spent.saturating_sub(self.settled);
        self.settled = spent;
        let share = share_beside(SHARE, self.pace.load.reading());
        self.owed = (self.owed + work.mul_f64((1.0 - share) / share)).min(OWED_MAX);
        if self.owed < PAUSE_MIN || self.pace.stopping.is_asked() {
            return;
        }
        self.mark = None;
        let began = Instant::now();
        // Cancel-safe: none of these has a state of its own.
        tokio::select! {
            () = tokio::time::sleep(self.owed.min(PAUSE_MAX)) => (),
            () = self.pace.stopping.asked() => (),
        }
        self.owed = self.owed.saturating_sub(began.elapsed());
        self.mark = Some(self.pace.load.work());
    }
}

/// The time for which work kept a processor or a disk busy.
fn cost(usage: ResourceUsage) -> Duration {
    let bytes = usage.bytes_read.saturating_add(usage.bytes_written);
    usage.cpu + Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use icecore_catalog::storage::{S3Options, Storage};

    fn check(wanted: f64, quiet_ms: u64, beside_ms: u64, expected: f64) {
        let time = |ms: u64| (0 < ms).then(|| Duration::from_millis(ms));
        let (quiet, beside) = (time(quiet_ms), time(beside_ms));
        let share = share_beside(wanted, LoadReading { is_idle: false, quiet, beside });
        let what = format!("{wanted} of {quiet_ms} ms, {beside_ms} ms beside it: {share}");
        assert!((share - expected).abs() < 1e-3, "{what}");
    }

    #[test]
    fn work_has_less_the_more_ingest_suffers_and_more_while_nobody_sends() {
        let idle = LoadReading { is_idle: true, ..LoadReading::default() };
        assert_eq!([0.1, 0.25, 0.5, 1.0].map(|it| share_beside(it, idle)), [0.2, 0.5, 1.0, 1.0]);
        // Nothing is known of one or the other.
        check(0.25, 0, 0, 0.25);
        check(0.25, 10, 0, 0.25);
        check(0.25, 0, 10, 0.25);
        // As fast as without it, faster, or a little slower.
        check(0.25, 10, 10, 0.25);
        check(0.25, 10, 5, 0.25);
        check(0.25, 100, 120, 0.25);
        check(0.25, 1, 3, 0.25);
        // Twice, four times, and a hundred times as slow.
        check(0.25, 10, 20, 0.25 * 0.390_6);
        check(0.25, 10, 40, 0.25 * 0.097_65);
        check(0.25, 10, 1_000, 0.25 / 16.0);
        check(1.0, 10, 1_000, 1.0 / 16.0);
    }

    #[tokio::test]
    async fn what_was_read_is_paid_for_by_pauses_where_it_is_measured() {
        let (load, tasks) = (IngestLoad::default(), Tasks::default());
        let pace = JobPace::new(&load, &tasks);
        let folder = tempfile::tempdir().unwrap();
        let warehouse = format!("file://{}/w", folder.path().display());
        let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
        let file = format!("{warehouse}/x");
        // A sixty-fourth of a second of a disk.
        storage.put(&file, vec![0_u8; 4 << 20].into()).await.unwrap();
        let read = async || {
            // Somebody sends events.
            load.note_ack(Duration::from_millis(1));
            let began = Instant::now();
            let mut work = pace.begin();
            let bytes = work.over(Box::pin(storage.get(&file))).await.unwrap().len();
            assert_eq!(bytes, 4 << 20);
            work.rest().await;
            (began.elapsed(), work.owed)
        };
        assert_eq!(read().await.1, Duration::ZERO, "nobody measures it");
        let (took, _) = UsageCounter::default().measure(read()).await;
        // Half of the time is work.
        assert!(Duration::from_millis(15) <= took, "{took:?}");
        let all = async {
            let mut work = pace.begin();
            work.owed = PAUSE_MAX + 2 * PAUSE_MIN;
            work.settle().await;
            work.owed
        };
        assert!(UsageCounter::default().measure(all).await < PAUSE_MIN, "more than one pause");
        tasks.stop(Duration::ZERO).await;
        let (_, owed) = UsageCounter::default().measure(read()).await;
        assert!(Duration::from_millis(15) <= owed, "nothing rests any more: {owed:?}");
    }
}
