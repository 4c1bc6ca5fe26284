//! How fast work is done: pauses in proportion to it, shorter ones the more files have piled up.
//!
//! Its one invariant: files do not pile up for ever, however much ingest suffers. The share grows with
//! them up to all of a processor, and so does what is left of it at the least, up to three quarters of one.

use crate::{
    maintenance::{
        compaction::CompactionError,
        pace::{TIMES_MIN, share_between},
    },
    tasks::ShutdownSignal,
};
use icecore_lake::load::{IngestLoad, LoadReading, WorkMark};
use std::time::Duration;
use tokio::{sync::watch, time::Instant};

/// Longest pause; a piece of work that no pause divides, such as reading the deletes of a step, takes seconds.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Shorter pauses are put together: a timer is no finer.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// Longest pause after a step while a partition has more small files than it should: what came meanwhile may
/// need a larger share.
const BEHIND_PAUSE_MAX: Duration = Duration::from_secs(5);
/// A partition should have at most so many times the small files at which it is merged.
const FILES_TIMES: usize = 2;
/// The most of a processor that work has which ingest suffers from.
const LEAST_MAX: f64 = 0.75;

/// How much of a processor work takes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct CompactionShare {
    /// However much ingest suffers.
    least: f64,
    /// While it does not suffer.
    wanted: f64,
    /// Whether a partition has more small files than it should.
    is_behind: bool,
}

impl CompactionShare {
    /// That of work whose share is `share` while files are as few as they should be. `files` are the small
    /// ones of the partition that has the most, which are merged beyond `files_max`.
    ///
    /// What is wanted grows as they do. The least grows by the square: it is a sixteenth at first, and is to be
    /// as much as what is wanted before files are too many to be read.
    fn of_backlog(share: f64, files: usize, files_max: usize) -> Self {
        let bound = files_max.max(1).saturating_mul(FILES_TIMES);
        let times = (files as f64 / bound as f64).max(1.0);
        let wanted = (share * times).min(1.0);
        let least = (share * TIMES_MIN * times * times).min(LEAST_MAX).min(wanted);
        Self { least, wanted, is_behind: bound < files }
    }

    /// What it is now.
    fn beside(self, reading: LoadReading) -> f64 {
        share_between(self.least, self.wanted, reading)
    }

    /// Longest pause after a step.
    fn pause_max(self) -> Duration {
        if self.is_behind { BEHIND_PAUSE_MAX } else { PAUSE_MAX }
    }
}

/// Work that takes a share of a processor at most, less while ingest suffers from it, and ends when the
/// server stops.
#[derive(Debug)]
pub(super) struct WorkPace {
    /// Its share while files are as few as they should be.
    usual: f64,
    share: CompactionShare,
    load: IngestLoad,
    /// None during a pause.
    mark: Option<WorkMark>,
    /// What is left of earlier pauses.
    pub(super) owed: Duration,
    since: Instant,
    stopping: ShutdownSignal,
    /// How many wait for the work to end: there is no pause while somebody does.
    waiting: watch::Receiver<usize>,
}

impl WorkPace {
    /// Work of this share, above 0 and at most 1.
    pub(super) fn new(
        share: f64,
        load: &IngestLoad,
        stopping: ShutdownSignal,
        waiting: watch::Receiver<usize>,
    ) -> Self {
        let (owed, since, mark) = (Duration::ZERO, Instant::now(), Some(load.work()));
        let (usual, share) = (share, CompactionShare::of_backlog(share, 0, 1));
        Self { usual, share, load: load.clone(), mark, owed, since, stopping, waiting }
    }

    /// Goes on with a table of whose partitions one has so many small files, which are merged beyond
    /// `files_max`. Where these are more than they should be, earlier work is not made up for.
    pub(super) fn meet_backlog(&mut self, files: usize, files_max: usize) {
        self.share = CompactionShare::of_backlog(self.usual, files, files_max);
        if self.share.is_behind {
            self.owed = Duration::ZERO;
        }
    }

    /// Longest pause after a step.
    pub(super) fn pause_max(&self) -> Duration {
        self.share.pause_max()
    }

    /// Notes what was done since the last pause: the next one is longer.
    pub(super) fn note(&mut self) {
        let now = Instant::now();
        let share = self.share.beside(self.load.reading());
        let owed = self.owed + (now - self.since).mul_f64((1.0 - share).max(0.0) / share);
        (self.owed, self.since) = (owed.min(PAUSE_MAX), now);
    }

    /// Leaves out the time since then, which was spent waiting for others.
    pub(super) fn leave_out(&mut self) {
        self.since = Instant::now();
    }

    /// Pauses for what was done since the last pause, but not beyond `until`: the next one is longer then.
    pub(super) async fn rest(&mut self, until: Instant) -> Result<(), CompactionError> {
        if self.stopping.is_asked() {
            return Err(CompactionError::Stopped);
        }
        self.note();
        let now = self.since;
        let pause = self.owed.min(until.saturating_duration_since(now));
        let is_awaited = 0 < *self.waiting.borrow();
        if is_awaited || pause < PAUSE_MIN {
            return Ok(());
        }
        self.mark = None;
        // Cancel-safe: none of these has a state of its own.
        tokio::select! {
            () = tokio::time::sleep(pause) => (),
            () = awaited(&mut self.waiting) => (),
            () = self.stopping.asked() => return Err(CompactionError::Stopped),
        }
        self.since = Instant::now();
        self.owed = self.owed.saturating_sub(self.since - now);
        self.mark = Some(self.load.work());
        Ok(())
    }
}

async fn awaited(waiting: &mut watch::Receiver<usize>) {
    // The sender lives as long as compaction; without it nobody waits.
    drop(waiting.wait_for(|waiting| 0 < *waiting).await);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Tasks;

    const FILES_MAX: usize = 16;
    const SHARE: f64 = 0.25;
    /// Acknowledgements take a hundred times as long beside work.
    const SUFFERING: LoadReading = LoadReading {
        is_idle: false,
        quiet: Some(Duration::from_millis(5)),
        beside: Some(Duration::from_millis(500)),
    };

    #[test]
    fn the_share_grows_with_the_files_of_a_partition_and_so_does_the_least_of_it() {
        let check = |files, least: f64, wanted: f64| {
            let share = CompactionShare::of_backlog(SHARE, files, FILES_MAX);
            let found = [share.least, share.wanted];
            let is_near = |(found, expected): (f64, f64)| (found - expected).abs() < 1e-9;
            assert!(found.into_iter().zip([least, wanted]).all(is_near), "{files}: {share:?}");
            assert_eq!(share.is_behind, 32 < files);
            assert!((share.beside(SUFFERING) - least).abs() < 1e-9, "{files}");
        };
        check(0, SHARE / 16.0, SHARE);
        check(32, SHARE / 16.0, SHARE);
        check(64, SHARE / 4.0, 2.0 * SHARE);
        check(128, SHARE, 1.0);
        check(256, 0.75, 1.0);
        check(100_000, 0.75, 1.0);
    }

    /// What a partition has of small files where each commit adds one to each of some partitions.
    #[derive(Debug)]
    struct CommitFlow {
        commits_per_s: f64,
        partitions: f64,
        /// A small file that is merged takes so long.
        file_s: f64,
    }

    impl CommitFlow {
        /// A step takes so long beside that: manifests, a commit.
        const STEP_S: f64 = 0.25;
        /// Seconds until the first look, after the last one before the commits came.
        const FIRST_LOOK_S: f64 = 30.0;
        /// Those between two looks at a table to which commits come fast.
        const LOOK_S: f64 = 3.0;

        /// The most files of a partition until the job has looked at them first, and the most after two
        /// minutes of ten.
        fn most(&self, acks: LoadReading) -> (f64, f64) {
            let mut seconds = Self::FIRST_LOOK_S;
            let mut files = self.commits_per_s * seconds;
            let (mut first, mut later) = (files, 0.0_f64);
            while seconds < 600.0 {
                // A step takes at most so many files of a partition.
                let merged = files.min(512.0);
                let share = CompactionShare::of_backlog(SHARE, files as usize, FILES_MAX);
                let work = Self::STEP_S + merged * self.partitions * self.file_s;
                let part = share.beside(acks);
                let pause = (work * (1.0 - part) / part).min(share.pause_max().as_secs_f64());
                let is_more = merged < files;
                let gone = work + pause + if is_more { 0.0 } else { Self::LOOK_S };
                files += 1.0 - merged + self.commits_per_s * gone;
                seconds += gone;
                first = first.max(files);
                if 120.0 < seconds {
                    later = later.max(files);
                }
            }
            (first, later)
        }
    }

    #[test]
    fn files_of_a_partition_stay_bounded_whatever_acknowledgements_say() {
        let fine = LoadReading { beside: Some(Duration::from_millis(5)), ..SUFFERING };
        let flows = [(5.0, 1.0), (5.0, 20.0), (28.0, 5.0), (100.0, 1.0)];
        // Files of a few rows take 2 ms where nothing else goes on, and twice that beside commits and clients.
        let all = flows.into_iter().flat_map(|flow| [0.002, 0.004].map(|file_s| (flow, file_s)));
        for ((commits_per_s, partitions), file_s) in all {
            for acks in [fine, SUFFERING] {
                let flow = CommitFlow { commits_per_s, partitions, file_s };
                let (first, later) = flow.most(acks);
                let what = format!("{flow:?}, {acks:?}: {first} {later}");
                // What `docs/maintenance.md` says.
                assert!(first <= 32.0 + 45.0 * commits_per_s, "{what}");
                assert!(later <= f64::max(160.0, 32.0 + 16.0 * commits_per_s), "{what}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_owed_is_forgiven_where_files_have_piled_up() {
        let (_waits, waiting) = watch::channel(0);
        let stopping = Tasks::default().stopping();
        let mut pace = WorkPace::new(SHARE, &IngestLoad::default(), stopping, waiting);
        pace.owed = PAUSE_MAX;
        pace.meet_backlog(32, FILES_MAX);
        assert_eq!((pace.owed, pace.pause_max()), (PAUSE_MAX, PAUSE_MAX));
        pace.meet_backlog(33, FILES_MAX);
        assert_eq!((pace.owed, pace.pause_max()), (Duration::ZERO, BEHIND_PAUSE_MAX));
    }

    #[tokio::test]
    async fn waiting_for_others_is_no_work() {
        let (_waits, waiting) = watch::channel(0);
        let mut pace =
            WorkPace::new(0.25, &IngestLoad::default(), Tasks::default().stopping(), waiting);
        pace.since = Instant::now() - Duration::from_secs(1);
        pace.note();
        // Without ingest the share is twice as large.
        let owed = pace.owed;
        assert!(Duration::from_secs(1) <= owed);
        pace.since = Instant::now() - Duration::from_secs(30);
        pace.leave_out();
        pace.note();
        assert!(pace.owed < owed + Duration::from_secs(15), "{:?}", pace.owed);
    }

    /// Were one of these to pause, it would take a minute.
    #[tokio::test]
    async fn no_pause_keeps_a_step_from_its_commit_or_somebody_waiting() {
        let (waits, waiting) = watch::channel(0);
        let mut pace =
            WorkPace::new(0.25, &IngestLoad::default(), Tasks::default().stopping(), waiting);
        let started = Instant::now();
        pace.owed = PAUSE_MAX;
        pace.rest(started).await.unwrap();
        assert_eq!(pace.owed, PAUSE_MAX, "it is made up later");
        waits.send_replace(1);
        pace.rest(started + PAUSE_MAX).await.unwrap();
        assert_eq!(pace.owed, PAUSE_MAX);
        assert!(started.elapsed() < PAUSE_MAX);
    }
}
