//! What of tables and files need not be looked at or tried again yet.
//!
//! Times are of the clock that is never set. Its one invariant: nothing depends on a note but when something
//! is done. Each kind has a bound; beyond it the oldest go.

use icecore_lake::table::{
    compaction::{FileTotals, choice::DELETE_FILES_MAX},
    schema::TableIdent,
};
use std::{borrow::Borrow, collections::HashMap, hash::Hash};

/// Between two looks at a table without work: each tick of the job has one.
const LOOK_MS: i64 = 14_000;
/// The same of a table to which commits come fast: a little less than the pause of the job then.
const BUSY_LOOK_MS: i64 = 2_000;
/// Commits come fast to a table for so long after a look that found it so.
const BUSY_MS: i64 = 15_000;
/// So long its manifests are not read again however little came: closed days become quiet meanwhile.
const SEEN_MS: i64 = 10 * 60_000;
/// So long a table is left alone after a step that came to nothing; it doubles with each further one.
const PAUSE_MIN_MS: i64 = 60_000;
/// The longest such pause.
const PAUSE_MAX_MS: i64 = 60 * 60_000;
/// So long a table is left alone after a step of which others changed each group meanwhile: the next one is
/// shorter. It doubles with each further one.
const REFUSED_MIN_MS: i64 = 5_000;
/// A step is not made shorter beyond so many that were refused.
const REFUSED_MAX: u32 = 4;
/// So long the job leaves files alone whose rewrite failed, or of which delete files delete nothing; a run
/// by hand tries them once.
const LEFT_MS: i64 = 60 * 60_000;
/// The longest such time: it doubles with each failure of a file that will fail again.
const LEFT_MAX_MS: i64 = 24 * LEFT_MS;
/// So long it is left open what others did to rows after a look at it that failed or took too long, whatever
/// comes meanwhile.
const UNSETTLED_MS: i64 = 10 * 60_000;
/// Most tables that are remembered, some 200 bytes each.
const TABLES_MAX: usize = 100_000;
/// Most files of each kind that are remembered.
const FILES_MAX: usize = 10_000;

/// The notes of a process.
#[derive(Debug)]
pub(super) struct CompactionNotes {
    tables: RecentNotes<TableIdent, TableNote>,
    /// Why tables are left alone, as it was told.
    obstacles: RecentNotes<TableIdent, String>,
    /// Files whose rewrite failed.
    failed: RecentNotes<String, FailureNote>,
    /// Files of which delete files delete nothing, and when that was seen.
    whole: RecentNotes<String, i64>,
    /// What is known of the sums of a table's rows.
    sums: RecentNotes<TableIdent, SumsNote>,
    /// How many steps of a table were refused, less those that were not since then.
    refused: RecentNotes<TableIdent, u32>,
    /// Tables to which commits come fast, and until when that is known.
    busy: RecentNotes<TableIdent, i64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct TableNote {
    /// It is not looked at before.
    after_ms: i64,
    /// What was seen where nothing was to do.
    seen: Option<SeenFiles>,
    /// How many steps in a row came to nothing.
    lost: u32,
}

/// That the rewrite of a file failed.
#[derive(Clone, Copy, Debug)]
struct FailureNote {
    at_ms: i64,
    /// So long it is left alone.
    left_ms: i64,
}

/// What came of a look at what others did to the rows of a table.
#[derive(Clone, Copy, Debug)]
enum SumsNote {
    /// It is known up to this snapshot.
    Settled(i64),
    /// The look failed at this time.
    Failed(i64),
}

/// Files in which nothing was to do.
#[derive(Clone, Copy, Debug)]
struct SeenFiles {
    totals: FileTotals,
    /// As long as fewer snapshots came than this nothing is.
    patience: u64,
    until_ms: i64,
}

impl Default for CompactionNotes {
    fn default() -> Self {
        Self {
            tables: RecentNotes::new(TABLES_MAX),
            obstacles: RecentNotes::new(TABLES_MAX),
            failed: RecentNotes::new(FILES_MAX),
            whole: RecentNotes::new(FILES_MAX),
            sums: RecentNotes::new(TABLES_MAX),
            refused: RecentNotes::new(TABLES_MAX),
            busy: RecentNotes::new(TABLES_MAX),
        }
    }
}

impl CompactionNotes {
    /// Whether a table is not to be looked at yet.
    pub(super) fn is_resting(&self, table: &TableIdent, now_ms: i64) -> bool {
        self.tables.get(table).is_some_and(|note| now_ms < note.after_ms)
    }

    /// Whether so little came to a table since nothing was to do that nothing is.
    pub(super) fn is_as_seen(
        &mut self,
        table: &TableIdent,
        totals: FileTotals,
        now_ms: i64,
    ) -> bool {
        let Some(mut note) = self.tables.get(table).copied() else { return false };
        let is_as_seen = note.seen.is_some_and(|seen| {
            now_ms < seen.until_ms && !has_grown(&seen.totals, &totals, seen.patience)
        });
        if is_as_seen {
            note.after_ms = now_ms.saturating_add(self.look_ms(table, now_ms));
            self.tables.put(table.clone(), note);
        }
        is_as_seen
    }

    /// Nothing is to do in a table.
    pub(super) fn see(
        &mut self,
        table: &TableIdent,
        totals: FileTotals,
        patience: usize,
        now_ms: i64,
    ) {
        let (patience, until_ms) = (patience as u64, now_ms.saturating_add(SEEN_MS));
        let seen = Some(SeenFiles { totals, patience, until_ms });
        let after_ms = now_ms.saturating_add(self.look_ms(table, now_ms));
        self.tables.put(table.clone(), TableNote { after_ms, seen, lost: 0 });
    }

    /// Commits come fast to a table.
    pub(super) fn note_busy(&mut self, table: &TableIdent, now_ms: i64) {
        self.busy.put(table.clone(), now_ms.saturating_add(BUSY_MS));
    }

    /// Whether they came fast not long ago.
    pub(super) fn is_busy(&self, table: &TableIdent, now_ms: i64) -> bool {
        self.busy.get(table).is_some_and(|until_ms| now_ms < *until_ms)
    }

    fn look_ms(&self, table: &TableIdent, now_ms: i64) -> i64 {
        if self.is_busy(table, now_ms) { BUSY_LOOK_MS } else { LOOK_MS }
    }

    /// Whether it is to be found out what others did up to the newest snapshot without a sum of its rows.
    pub(super) fn is_unsettled(&self, table: &TableIdent, basis: i64, now_ms: i64) -> bool {
        self.sums.get(table).is_none_or(|note| match note {
            SumsNote::Settled(known) => *known != basis,
            SumsNote::Failed(at_ms) => at_ms.saturating_add(UNSETTLED_MS) <= now_ms,
        })
    }

    /// It was found out, or nobody can tell any more.
    pub(super) fn settle(&mut self, table: &TableIdent, basis: i64) {
        self.sums.put(table.clone(), SumsNote::Settled(basis));
    }

    /// It was not found out this time.
    pub(super) fn fail_to_settle(&mut self, table: &TableIdent, now_ms: i64) {
        self.sums.put(table.clone(), SumsNote::Failed(now_ms));
    }

    /// Whether nobody was told yet why a table is left alone.
    pub(super) fn is_news(&mut self, table: &TableIdent, obstacle: &str) -> bool {
        let is_news = self.obstacles.get(table).is_none_or(|told| told != obstacle);
        if is_news {
            self.obstacles.put(table.clone(), obstacle.to_owned());
        }
        is_news
    }

    /// A step wrote and committed something.
    pub(super) fn gain(&mut self, table: &TableIdent) {
        self.tables.remove(table);
    }

    /// A step came to nothing.
    pub(super) fn lose(&mut self, table: &TableIdent, now_ms: i64) {
        self.pause(table, PAUSE_MIN_MS, now_ms);
    }

    /// How many times the work of a step is halved, because others change the table meanwhile.
    pub(super) fn refused(&self, table: &TableIdent) -> u32 {
        self.refused.get(table).copied().unwrap_or(0)
    }

    /// Others changed groups of a step meanwhile, and each of them where `is_whole`.
    pub(super) fn refuse(&mut self, table: &TableIdent, is_whole: bool, now_ms: i64) {
        let refused = self.refused(table).saturating_add(1).min(REFUSED_MAX);
        self.refused.put(table.clone(), refused);
        if is_whole {
            self.pause(table, REFUSED_MIN_MS, now_ms);
        }
    }

    /// A step was committed as a whole.
    pub(super) fn accept(&mut self, table: &TableIdent) {
        match self.refused(table) {
            0 => (),
            1 => self.refused.remove(table),
            refused => self.refused.put(table.clone(), refused - 1),
        }
    }

    fn pause(&mut self, table: &TableIdent, least_ms: i64, now_ms: i64) {
        let lost = self.tables.get(table).map_or(0, |note| note.lost);
        let pause_ms = least_ms.saturating_mul(1 << lost.min(16)).min(PAUSE_MAX_MS);
        let note = TableNote { after_ms: now_ms + pause_ms, seen: None, lost: lost + 1 };
        self.tables.put(table.clone(), note);
    }

    /// Whether the rewrite of a file failed not long ago, and not before `since_ms`.
    pub(super) fn is_failed(&self, file: &str, since_ms: i64, now_ms: i64) -> bool {
        self.failed.get(file).is_some_and(|note| {
            now_ms < note.at_ms.saturating_add(note.left_ms) && since_ms <= note.at_ms
        })
    }

    /// Whether nothing of a file was found to be deleted not long ago, and not before `since_ms`.
    pub(super) fn is_whole(&self, file: &str, since_ms: i64, now_ms: i64) -> bool {
        self.whole
            .get(file)
            .is_some_and(|at| now_ms < at.saturating_add(LEFT_MS) && since_ms <= *at)
    }

    /// Delete files delete nothing of these.
    pub(super) fn find_whole(&mut self, files: impl IntoIterator<Item = String>, now_ms: i64) {
        files.into_iter().for_each(|file| self.whole.put(file, now_ms));
    }

    /// The rewrite of these files failed, and is known to fail again or not.
    pub(super) fn fail(
        &mut self,
        files: impl IntoIterator<Item = String>,
        is_lasting: bool,
        now_ms: i64,
    ) {
        for file in files {
            let before = self.failed.get(&file).filter(|_| is_lasting);
            let left_ms = before.map_or(LEFT_MS, |note| (2 * note.left_ms).min(LEFT_MAX_MS));
            self.failed.put(file, FailureNote { at_ms: now_ms, left_ms });
        }
    }
}

/// Whether so much came that there may be something to do. A snapshot of the service has a small file for a
/// partition at most; what clients commit beyond that is found when the note is over.
fn has_grown(before: &FileTotals, now: &FileTotals, patience: u64) -> bool {
    if before.snapshot_id == now.snapshot_id {
        return false;
    }
    let deletes = before.deletes.zip(now.deletes);
    let deletes = deletes.map_or(u64::MAX, |(before, now)| now.saturating_sub(before));
    patience <= now.sequence.saturating_sub(before.sequence).unsigned_abs()
        || DELETE_FILES_MAX as u64 <= deletes
}

/// Notes by what they are about, the newest ones.
#[derive(Debug)]
struct RecentNotes<K, V> {
    /// Each with its number, by which later ones are known.
    notes: HashMap<K, (u64, V)>,
    numbers: u64,
    most: usize,
}

impl<K: Eq + Hash, V> RecentNotes<K, V> {
    fn new(most: usize) -> Self {
        Self { notes: HashMap::new(), numbers: 0, most }
    }

    fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.notes.get(key).map(|(_, note)| note)
    }

    fn remove(&mut self, key: &K) {
        self.notes.remove(key);
    }

    fn put(&mut self, key: K, note: V) {
        if self.most <= self.notes.len() && !self.notes.contains_key(&key) {
            let mut numbers: Vec<u64> = self.notes.values().map(|(number, _)| *number).collect();
            let middle = *numbers.select_nth_unstable(self.most / 2).1;
            self.notes.retain(|_, (number, _)| middle < *number);
        }
        self.numbers += 1;
        self.notes.insert(key, (self.numbers, note));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTALS: FileTotals =
        FileTotals { snapshot_id: 1, sequence: 7, data: Some(100), deletes: Some(0) };

    fn table() -> TableIdent {
        TableIdent::from_strs(["a", "events"]).unwrap()
    }

    #[test]
    fn the_oldest_notes_go_and_not_all() {
        let mut notes = RecentNotes::new(4);
        for (number, key) in ["a", "b", "c", "d", "a", "e"].into_iter().enumerate() {
            notes.put(key, number);
        }
        let kept = ["a", "b", "c", "d", "e"].map(|key| notes.get(key).copied());
        assert_eq!(kept, [Some(4), None, None, None, Some(5)]);
    }

    #[test]
    fn a_table_is_read_again_only_when_enough_came() {
        let (mut notes, table) = (CompactionNotes::default(), table());
        notes.see(&table, TOTALS, 10, 0);
        assert!(notes.is_resting(&table, LOOK_MS - 1) && !notes.is_resting(&table, LOOK_MS));
        let mut is_as_seen = |sequence, deletes, now_ms| {
            let totals = FileTotals { snapshot_id: 2, sequence, deletes, ..TOTALS };
            notes.is_as_seen(&table, totals, now_ms)
        };
        assert!(is_as_seen(16, Some(3), LOOK_MS));
        assert!(!is_as_seen(17, Some(0), LOOK_MS), "enough snapshots");
        assert!(!is_as_seen(8, Some(4), LOOK_MS), "enough delete files");
        assert!(!is_as_seen(8, None, LOOK_MS), "nobody knows");
        assert!(!is_as_seen(8, Some(0), SEEN_MS), "days are over");
    }

    #[test]
    fn a_table_to_which_commits_come_fast_is_looked_at_again_after_seconds() {
        let (mut notes, table) = (CompactionNotes::default(), table());
        notes.note_busy(&table, 0);
        notes.see(&table, TOTALS, 10, 1);
        assert!(!notes.is_resting(&table, 1 + BUSY_LOOK_MS) && notes.is_busy(&table, BUSY_MS - 1));
        assert!(notes.is_as_seen(&table, TOTALS, BUSY_MS));
        assert!(!notes.is_busy(&table, BUSY_MS), "no look found it so since then");
        assert!(notes.is_resting(&table, BUSY_MS + LOOK_MS - 1));
    }

    #[test]
    fn a_file_that_will_fail_again_is_tried_more_and_more_rarely() {
        let mut notes = CompactionNotes::default();
        let mut now_ms = 0;
        for (is_lasting, hours) in
            [1, 2, 4, 8, 16, 24, 24].map(|hours| (true, hours)).into_iter().chain([(false, 1)])
        {
            notes.fail(["a".to_owned()], is_lasting, now_ms);
            let over_ms = now_ms + hours * LEFT_MS;
            assert!(notes.is_failed("a", 0, over_ms - 1), "{hours}");
            assert!(!notes.is_failed("a", 0, over_ms), "{hours}");
            now_ms = over_ms;
        }
    }

    #[test]
    fn what_others_did_is_looked_for_once_and_later_where_that_failed() {
        let (mut notes, table) = (CompactionNotes::default(), table());
        assert!(notes.is_unsettled(&table, 7, 0));
        notes.fail_to_settle(&table, 1);
        assert!(!notes.is_unsettled(&table, 7, UNSETTLED_MS));
        assert!(!notes.is_unsettled(&table, 8, UNSETTLED_MS), "a new one is no faster");
        assert!(notes.is_unsettled(&table, 7, UNSETTLED_MS + 1));
        notes.settle(&table, 8);
        assert!(!notes.is_unsettled(&table, 8, i64::MAX));
        assert!(notes.is_unsettled(&table, 9, 0));
    }

    #[test]
    fn a_table_that_others_change_gets_shorter_steps_until_they_are_committed() {
        let (mut notes, table) = (CompactionNotes::default(), table());
        let mut now_ms = 0;
        for (refused, pause_ms) in [(1, 5_000), (2, 10_000), (3, 20_000), (4, 40_000), (4, 80_000)]
        {
            notes.refuse(&table, true, now_ms);
            assert_eq!(notes.refused(&table), refused);
            assert!(notes.is_resting(&table, now_ms + pause_ms - 1), "{pause_ms}");
            now_ms += pause_ms;
            assert!(!notes.is_resting(&table, now_ms), "{pause_ms}");
        }
        notes.gain(&table);
        for left in [3, 2, 1, 0, 0] {
            notes.accept(&table);
            assert_eq!(notes.refused(&table), left);
        }
        notes.refuse(&table, false, now_ms);
        assert!(!notes.is_resting(&table, now_ms), "a part of it was committed");
    }

    #[test]
    fn a_table_that_always_loses_is_tried_more_and_more_rarely() {
        let (mut notes, table) = (CompactionNotes::default(), table());
        let mut now_ms = 0;
        let pauses = [1, 2, 4, 8, 16, 32, 60, 60].map(|minutes| minutes * 60_000);
        for pause_ms in pauses {
            notes.lose(&table, now_ms);
            assert!(notes.is_resting(&table, now_ms + pause_ms - 1), "{pause_ms}");
            now_ms += pause_ms;
            assert!(!notes.is_resting(&table, now_ms), "{pause_ms}");
        }
        notes.gain(&table);
        notes.lose(&table, now_ms);
        assert!(!notes.is_resting(&table, now_ms + PAUSE_MIN_MS));
    }
}
