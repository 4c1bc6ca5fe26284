//! Compaction by itself: which table is next, and how soon it is looked at again.
//!
//! All tables are looked at in a round. Those to which commits come fast are looked at again after seconds,
//! in rounds of their own, so that their files do not pile up until the next one of all; so are those of which
//! a step left more to do. Its one invariant: no table waits for a round of others for longer than [`WHOLE_MS`]
//! and one step of each.

use crate::{
    maintenance::compaction::{
        Compaction, CompactionError, CompactionRequest, outcome::CompactionStep, pace::WorkPace,
    },
    tasks::{Job, Progress},
};
use icecore_catalog::error::CatalogError;
use icecore_lake::table::schema::TableIdent;
use tokio::time::Instant;
use tracing::{info, warn};

/// Most steps of one tick, each with one commit.
const TICK_STEPS_MAX: usize = 4;
/// Most tables that a tick looks at; the round goes on with the next tick.
const TICK_TABLES_MAX: usize = 1_024;
/// So long there are rounds of some tables alone, before one of all tables.
const WHOLE_MS: i64 = 15_000;

/// The job that does it now and then, at its share of a processor.
#[derive(Debug)]
pub struct CompactTables {
    compaction: Compaction,
    /// Tables that are still to be looked at in this round.
    round: Vec<TableIdent>,
    /// Tables of which a step left more to do; the others come first.
    again: Vec<TableIdent>,
    /// Tables to which commits come fast.
    busy: Vec<TableIdent>,
    /// When the last round of all tables began, by the clock that is never set.
    whole_ms: Option<i64>,
    /// Whether the disk had no room the last time.
    is_short: bool,
}

impl CompactTables {
    /// The job of `compaction`.
    #[must_use]
    pub fn new(compaction: Compaction) -> Self {
        let (round, again, busy) = (Vec::new(), Vec::new(), Vec::new());
        Self { compaction, round, again, busy, whole_ms: None, is_short: false }
    }

    /// Why the disk has no room, if it has none; what changes is logged once.
    async fn lacks_room(&mut self) -> Result<Option<String>, CatalogError> {
        let reason = self.compaction.lacks_room().await?;
        match (self.is_short, &reason) {
            (false, Some(reason)) => warn!(%reason, "small files are not merged for now"),
            (true, None) => info!("small files are merged again: the disk has room"),
            (false, None) | (true, Some(_)) => (),
        }
        self.is_short = reason.is_some();
        Ok(reason)
    }

    /// Begins a round where none goes on: of all tables, or for a while of those alone of which more is left to
    /// do, or to which commits come fast.
    async fn begin_round(&mut self) -> Result<(), CatalogError> {
        if !self.round.is_empty() {
            return Ok(());
        }
        let has_some = !self.again.is_empty() || !self.busy.is_empty();
        if has_some && !self.is_whole_due() {
            let some = if self.again.is_empty() { &mut self.busy } else { &mut self.again };
            self.round = std::mem::take(some);
            return Ok(());
        }
        let now_ms = self.compaction.0.clock.passed_ms();
        self.round = self.compaction.tables(&CompactionRequest::steady()).await?;
        self.whole_ms = Some(now_ms);
        self.again.clear();
        self.busy.clear();
        Ok(())
    }

    /// Whether a round of all tables begins once this one is over.
    fn is_whole_due(&self) -> bool {
        let now_ms = self.compaction.0.clock.passed_ms();
        self.whole_ms.is_none_or(|began_ms| began_ms.saturating_add(WHOLE_MS) <= now_ms)
    }

    /// The next table. Once the round is over, these are tables of which more is left to do, as long as the
    /// others need not be looked at.
    fn next_table(&mut self) -> Option<TableIdent> {
        if self.round.is_empty() && !self.is_whole_due() {
            self.round.append(&mut self.again);
        }
        self.round.pop()
    }

    /// Whether a table is looked at again before the next round of all: commits to it come fast, and it is
    /// not left alone for another reason.
    fn is_busy(&self, table: &TableIdent, step: &CompactionStep) -> bool {
        let now_ms = self.compaction.0.clock.passed_ms();
        let noted = self.compaction.noted();
        noted.is_busy(table, now_ms) && (step.is_tried || noted.is_resting(table, now_ms))
    }

    /// A step of the next table of the round; none when the server stops.
    async fn step(
        &mut self,
        table: TableIdent,
        pace: WorkPace,
    ) -> Option<(WorkPace, Result<CompactionStep, CompactionError>)> {
        let request = CompactionRequest::steady();
        let apart = self.compaction.step_apart(table.clone(), request, i64::MIN, pace).await;
        let (pace, step) = apart.ok()?;
        match &step {
            Err(CompactionError::Stopped) => return None,
            Ok(step) if step.is_more => self.again.push(table),
            Ok(step) if self.is_busy(&table, step) => self.busy.push(table),
            Ok(_) | Err(_) => (),
        }
        Some((pace, step))
    }
}

impl Job for CompactTables {
    const NAME: &'static str = "compact";
    type Error = CompactionError;

    /// Looks at each table once in a round, and goes on with a round until it has tried a few steps or seen
    /// many tables. A table that fails does not hold up the others, and the tick reports the first failure.
    async fn tick(&mut self) -> Result<Progress, CompactionError> {
        if let Some(reason) = self.lacks_room().await? {
            return Ok(Progress::Skipped(reason));
        }
        self.begin_round().await?;
        let mut pace = self.compaction.pace(self.compaction.0.options.cpu_share);
        let (mut steps, mut is_changed, mut seen, mut first) = (0, false, 0, None);
        while steps < TICK_STEPS_MAX
            && seen < TICK_TABLES_MAX
            && let Some(table) = self.next_table()
        {
            let now_ms = self.compaction.0.clock.passed_ms();
            if self.compaction.noted().is_resting(&table, now_ms) {
                continue;
            }
            seen += 1;
            let Some((rested, step)) = self.step(table, pace).await else {
                return Ok(Progress::Done);
            };
            pace = rested;
            match step {
                Ok(step) => {
                    steps += usize::from(step.is_tried);
                    is_changed |= 0 < step.files.before;
                }
                Err(cause) if self.compaction.ends_all(&cause) => return Err(cause),
                Err(cause) => {
                    // It may have written before it failed.
                    steps += 1;
                    first = first.or(Some(cause));
                }
            }
            match pace.rest(Instant::now() + pace.pause_max()).await {
                Err(CompactionError::Stopped) => return Ok(Progress::Done),
                rested => rested?,
            }
        }
        let is_more = is_changed && !(self.round.is_empty() && self.again.is_empty());
        match first {
            Some(cause) => Err(cause),
            None if !is_more && !self.busy.is_empty() => {
                Ok(Progress::Soon { did_something: 0 < steps })
            }
            None => Ok(Progress::of(0 < steps, is_more)),
        }
    }
}
