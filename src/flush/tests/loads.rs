//! Commits by age while clients read a table and while none does, and commits for their loads.

use super::*;
use crate::flush::{
    TICK_TABLES_MAX,
    loads::{LOAD_COMMIT_EVERY_MS, LOAD_WAIT_MAX},
    requests::{CommitScope, FlushRequests},
};
use icecore_catalog::snapshot::BEFORE_LOAD_MS;
use tokio::time::Instant;

const INTERVAL_MAX: Duration = Duration::from_secs(300);
const MINUTE_MS: i64 = 60_000;

impl Server {
    /// With a first snapshot of `a.events` that has one row, long ago.
    async fn unread(faults: &str, bytes_max: u64) -> Self {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::manual(START_MS));
        let how = (faults, bytes_max, None);
        let mut server =
            Self::open_as(LogOwnership::first(), folder, clock, INTERVAL_MAX, how).await;
        server.append("a", &sample::events(1, 1, 1, 1));
        server.tick().await.unwrap();
        assert_eq!(server.seqs("a").await, [1], "the first rows of a table wait no longer");
        server.clock.advance_ms(10 * MINUTE_MS);
        server
    }

    /// What a client's load does while the job runs as often as it is woken.
    async fn loads(&mut self, name: &str, table: &str) {
        let (flush, wake) = (self.flush.clone(), Arc::clone(&self.wake));
        let mut load = std::pin::pin!(flush.before_load(name, table));
        loop {
            tokio::select! {
                biased;
                () = &mut load => break,
                () = wake.notified() => {
                    // A failed flush is the test's own.
                    drop(self.job.tick().await);
                }
            }
        }
    }

    /// Whether the events of `ns` are flushed by the next tick.
    fn is_due(&self, ns: &str) -> bool {
        let due = self.job.due(self.clock.now_ms(), &[]);
        due.iter().any(|table| table.backlog.namespace == namespace(ns))
    }

    async fn last_ms(&self, ns: &str) -> i64 {
        self.load(ns, "events").await.metadata.current_snapshot().unwrap().timestamp_ms()
    }
}

#[tokio::test]
async fn nothing_is_committed_before_its_time_while_nobody_reads() {
    let mut server = Server::unread("", 64 << 20).await;
    server.append("a", &sample::events(1, 1, 2, 2));
    for waited_ms in [5_000, 55_000, 160_000] {
        server.clock.advance_ms(waited_ms);
        assert_eq!(server.job.tick().await.unwrap(), Progress::Idle);
    }
    assert_eq!(server.snapshots("a").await, 1);
    server.clock.advance_ms(79_000);
    server.job.tick().await.unwrap();
    assert_eq!(server.seqs("a").await, [1, 2], "the snapshot is there before 5 min are over");
}

#[tokio::test]
async fn so_many_bytes_are_committed_at_once_while_nobody_reads() {
    let mut server = Server::unread("", 10_000).await;
    server.append("a", &sample::events(200, 1, 2, 2));
    server.job.tick().await.unwrap();
    assert_eq!(server.snapshots("a").await, 2);
}

#[tokio::test]
async fn a_load_has_everything_committed_and_the_age_of_commits_grows_from_then_on() {
    let mut server = Server::unread("", 64 << 20).await;
    server.append("a", &sample::events(3, 1, 2, 2));
    server.append("a", &sample::events(3, 1, 5, 3));
    server.append("b", &sample::events(3, 1, 1, 4));
    server.loads("a", "events").await;
    assert_eq!(server.seqs("a").await, (1..=7).collect::<Vec<_>>());
    assert_eq!(server.wal.pending().len(), 1, "what nobody loads waits");

    // The interval of 5 s begins with a second less, and then rows wait for half of the time since the load.
    for wait_ms in [4_000, 4_000, 8_000, 16_000, 32_000, 64_000] {
        let first = server.seqs("a").await.len() + 1;
        server.append("a", &sample::events(1, 1, i64::try_from(first).unwrap(), 9));
        for (advance_ms, count) in [(wait_ms - 100, first - 1), (100, first)] {
            server.clock.advance_ms(advance_ms);
            server.job.tick().await.unwrap();
            assert_eq!(server.seqs("a").await.len(), count, "{wait_ms}");
        }
    }
}

#[tokio::test]
async fn a_snapshot_for_a_load_is_dated_before_it_and_says_up_to_when_it_is_valid() {
    let mut server = Server::unread("", 64 << 20).await;
    server.append("a", &sample::events(1, 1, 2, 2));
    server.clock.advance_ms(10);
    server.loads("a", "events").await;
    let now_ms = server.clock.now_ms();
    assert_eq!(server.last_ms("a").await, now_ms - BEFORE_LOAD_MS);
    let table = server.load("a", "events").await;
    let summary = table.metadata.current_snapshot().unwrap().summary();
    let valid_ms = &summary.additional_properties["icecore.valid-through-ms"];
    assert_eq!(*valid_ms, (now_ms - 1).to_string());
    // Whoever asks for the commit itself gets the time that it is.
    let through = server.append("a", &sample::events(1, 1, 3, 3));
    let (namespace, flush) = (namespace("a"), server.flush.clone());
    let (committed, _) = tokio::join!(flush.commit_now(&namespace, through), server.job.tick());
    committed.unwrap();
    assert_eq!(server.last_ms("a").await, now_ms);
    // The first snapshot of a table too is one that its client reads.
    server.append("new", &sample::events(1, 1, 1, 4));
    server.loads("new", "events").await;
    assert_eq!(server.last_ms("new").await, now_ms - BEFORE_LOAD_MS);
}

#[tokio::test]
async fn a_second_load_within_a_second_commits_nothing() {
    let mut server = Server::unread("", 64 << 20).await;
    for (seq, advance_ms, snapshots) in
        [(2, 0, 2), (3, 0, 2), (4, LOAD_COMMIT_EVERY_MS - 1, 2), (5, 1, 3), (6, 10, 3)]
    {
        server.clock.advance_ms(advance_ms);
        server.append("a", &sample::events(1, 1, seq, 2));
        server.loads("a", "events").await;
        assert_eq!(server.snapshots("a").await, snapshots, "{seq}");
    }
    assert_eq!(server.seqs("a").await, (1..=5).collect::<Vec<_>>());
    // One of another table has nothing to do with it.
    server.dead_letters("a", &sample::dead_letters(2, 1), 1);
    server.loads("a", "dead_letters").await;
    assert_eq!(server.scan("a", "dead_letters", None).await.num_rows(), 2);
    assert_eq!(server.snapshots("a").await, 3);
}

#[tokio::test]
async fn two_loads_at_once_wait_for_one_commit() {
    let mut server = Server::unread("", 64 << 20).await;
    server.append("a", &sample::events(1, 1, 2, 2));
    let flush = server.flush.clone();
    let job = async {
        // Both have asked by then.
        tokio::task::yield_now().await;
        server.job.tick().await
    };
    let (first, second) = (flush.before_load("a", "events"), flush.before_load("a", "events"));
    let ((), (), ticked) = tokio::join!(first, second, job);
    assert_eq!(ticked.unwrap(), Progress::Done);
    assert_eq!(server.snapshots("a").await, 2);
}

#[tokio::test]
async fn a_load_of_what_does_not_wait_waits_for_nothing() {
    let mut server = Server::unread("", 64 << 20).await;
    server.append("a", &sample::events(1, 1, 2, 2));
    for (name, table) in [("a", "dead_letters"), ("a", "mine"), ("b", "events"), ("A", "events")] {
        let load = std::pin::pin!(server.flush.before_load(name, table));
        assert!(futures::poll!(load).is_ready(), "{name}.{table}");
    }
    assert_eq!(server.job.tick().await.unwrap(), Progress::Idle);
}

#[tokio::test]
async fn a_load_waits_no_longer_than_its_bound_for_a_commit() {
    let mut server = Server::unread("", 64 << 20).await;
    server.append("a", &sample::events(1, 1, 2, 2));
    let begun = Instant::now();
    // The job does not come to it.
    server.flush.before_load("a", "events").await;
    let waited = begun.elapsed();
    assert!(LOAD_WAIT_MAX <= waited, "{waited:?}");
    assert_eq!(server.job.tick().await.unwrap(), Progress::Idle, "nobody waits any more");
    assert_eq!(server.snapshots("a").await, 1);
}

#[tokio::test]
async fn a_load_is_answered_with_what_is_there_while_its_commit_takes_long() {
    let mut server = Server::unread("flush.before_commit=delay:4000@1", 64 << 20).await;
    server.append("a", &sample::events(1, 1, 2, 2));
    let (catalog, flush) = (server.catalog.clone(), server.flush.clone());
    let snapshots = async || {
        let table = catalog.tables().load(&schema::ident(&namespace("a"), "events")).await;
        table.unwrap().metadata.snapshots().len()
    };
    let (wake, mut job, runtime) = (server.wake, server.job, tokio::runtime::Handle::current());
    // On a thread of its own: the failpoint holds the one that it is on.
    let ticked = tokio::task::spawn_blocking(move || {
        runtime.block_on(async {
            wake.notified().await;
            job.tick().await
        })
    });
    flush.before_load("a", "events").await;
    assert_eq!(snapshots().await, 1);
    assert_eq!(ticked.await.unwrap().unwrap(), Progress::Done);
    assert_eq!(snapshots().await, 2);
}

#[tokio::test]
async fn a_commit_that_fails_lets_the_load_go_on_and_is_not_tried_for_each() {
    let mut server = Server::unread("flush.before_write=error@1*9", 64 << 20).await;
    server.append("a", &sample::events(1, 1, 2, 2));
    let begun = Instant::now();
    server.loads("a", "events").await;
    let files = server.data_files();
    // The table is paused, and no load changes that.
    server.clock.advance_ms(200);
    server.loads("a", "events").await;
    assert!(begun.elapsed() < LOAD_WAIT_MAX);
    assert_eq!((server.snapshots("a").await, server.data_files()), (1, files));
    assert_eq!(server.wal.failing().len(), 1);
    // By hand it is tried at once.
    let through = *server.wal.durable().borrow();
    let (namespace, flush) = (namespace("a"), server.flush.clone());
    let (told, _) = tokio::join!(flush.commit_now(&namespace, through), server.job.tick());
    told.unwrap_err();
}

#[tokio::test]
async fn rows_that_keep_many_segments_are_due_without_anybody_who_reads() {
    let mut server = Server::unread("", 64 << 20).await;
    server.append("a", &sample::events(1, 1, 2, 2));
    server.clock.advance_ms(5_000);
    assert!(!server.is_due("a"));
    // Each record of another table takes a good part of a segment of 4 MiB.
    let rows = sample::events(2_000, 1, 1, 3);
    for n in 0..20 {
        server.writer.append(&[event_record("b", &rows, 1 + 2_000 * n)]).unwrap();
    }
    assert!(server.is_due("a"));
}

#[tokio::test]
async fn rows_that_hold_up_a_purge_of_the_log_are_due_without_anybody_who_reads() {
    let mut server = Server::unread("", 64 << 20).await;
    server.append("a", &sample::events(1, 1, 2, 2));
    server.clock.advance_ms(5_000);
    assert!(!server.is_due("a"));
    let last = *server.wal.durable().borrow();
    assert!(!server.wal.purge(last));
    while server.writer.purge().unwrap() {
        std::thread::yield_now();
    }
    assert!(server.is_due("a"));
}

#[tokio::test]
async fn what_is_much_to_read_from_the_log_is_due_without_anybody_who_reads() {
    let mut server = Server::unread("", 64 << 20).await;
    let rows = sample::events(2_000, 1, 1, 3);
    let mut first = 2;
    let mut append = |server: &mut Server| {
        server.writer.append(&[event_record("a", &rows, first)]).unwrap();
        first += 2_000;
        server.wal.pending()[0].bytes
    };
    assert!(append(&mut server) < 8 << 20);
    server.clock.advance_ms(5_000);
    assert!(!server.is_due("a"));
    while append(&mut server) < 8 << 20 {}
    assert!(server.wal.pending()[0].segments_since < 8);
    assert!(server.is_due("a"));
}

#[tokio::test]
async fn loads_of_many_tables_do_not_keep_older_rows_waiting() {
    let mut server = Server::start().await;
    server.append("old", &sample::events(1, 1, 1, 1));
    server.clock.advance_ms(10_000);
    let loaded: Vec<String> = (0..100).map(|n| format!("n{n}")).collect();
    let rows = sample::events(1, 1, 1, 2);
    let records: Vec<LogRecord> = loaded.iter().map(|ns| event_record(ns, &rows, 1)).collect();
    server.writer.append(&records).unwrap();
    let now_ms = server.clock.now_ms();
    let scope = |ns: &String| CommitScope::Loaded(RecordKind::Events, namespace(ns), now_ms);
    let wanted: Vec<CommitScope> = loaded.iter().map(scope).collect();
    let due = server.job.due(now_ms, &wanted);
    assert_eq!(due.len(), 101);
    let place = due.iter().position(|table| table.backlog.namespace == namespace("old"));
    assert!(place.is_some_and(|place| 0 < place && place < TICK_TABLES_MAX), "{place:?}");
}

#[tokio::test]
async fn many_loads_take_no_place_of_who_asks_for_a_commit() {
    let requests = FlushRequests::new(Arc::default());
    let load = |asked_ms| CommitScope::Loaded(RecordKind::Events, namespace("a"), asked_ms);
    let mut loads: Vec<_> =
        (0..=1024).map(|asked_ms| Box::pin(requests.wait(load(asked_ms), 1))).collect();
    for load in &mut loads {
        assert!(futures::poll!(load).is_pending());
        // A task that never yields is refused free places after a while.
        tokio::task::yield_now().await;
    }
    let by_hand = CommitScope::Namespace(namespace("b"));
    let mut commit = std::pin::pin!(requests.wait(by_hand.clone(), 1));
    assert!(futures::poll!(commit.as_mut()).is_pending());
    let wanted = requests.wanted(|_, _| false);
    assert!(wanted.contains(&by_hand) && wanted.len() < 1024, "{}", wanted.len());
}

#[tokio::test]
async fn a_server_that_takes_no_events_commits_nothing_for_a_load() {
    let mut server = Server::unread("", 64 << 20).await;
    server.append("a", &sample::events(1, 1, 2, 2));
    server.flush.owner.refuse("test", "this is a test".to_owned());
    let flush = server.flush.clone();
    let load = std::pin::pin!(flush.before_load("a", "events"));
    assert!(futures::poll!(load).is_ready());
    assert_eq!(server.job.tick().await.unwrap(), Progress::Idle);
    assert_eq!(server.snapshots("a").await, 1);
}
