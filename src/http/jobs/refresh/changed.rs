//! The job `refresh` by itself: at intervals it looks at each namespace for collections with new changes.
//!
//! Its one invariant: a table that did not follow is tried again at the next look.

use super::{
    FoundCollections, IS_ERASING, NamespaceError, RefreshCollections, RefreshError, SeenEvents,
    beyond,
    pace::{LookTimes, RefreshRules, TableRests},
};
use crate::{
    maintenance::REFRESH,
    owner::LogOwnership,
    sql::writes::WriteFailure,
    tasks::{Job, Progress},
};
use icecore_catalog::error::with_causes;
use icecore_engine::error::SqlError;
use icecore_lake::collection::table_name;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    error::Error,
};
use tokio::time::Instant;
use tracing::warn;

/// After so many events all tables are looked at, also those that nothing changed: whoever reads one looks through the
/// events behind it.
const EVENTS_BEHIND_MAX: u64 = 1_000_000;

/// What became of a namespace when it was looked at last.
#[derive(Clone, Debug, Default)]
struct NamespaceRound {
    times: LookTimes,
    /// What it had then.
    seen: Option<SeenEvents>,
    /// Changes up to this event are in all tables but those that failed.
    after: u64,
    /// The last event when all tables were looked at.
    all_seq: u64,
    /// Collections whose tables did not follow: each look tries them again.
    failed: BTreeSet<String>,
    /// Tables that are not refreshed again yet.
    rests: TableRests,
}

/// The job that refreshes tables of collections with new changes.
#[derive(Debug)]
pub struct RefreshChanged {
    tables: RefreshCollections,
    owner: LogOwnership,
    rules: RefreshRules,
    started: Instant,
    /// One for each namespace that is there.
    rounds: HashMap<Vec<String>, NamespaceRound>,
}

/// What a look at a namespace came to.
#[derive(Default)]
struct LookEnd {
    is_changed: bool,
    failed: Vec<String>,
}

impl RefreshChanged {
    /// The job of `tables`, on the server that takes the events.
    #[must_use]
    pub fn new(tables: RefreshCollections, owner: &LogOwnership, rules: RefreshRules) -> Self {
        let (owner, started) = (owner.clone(), Instant::now());
        Self { tables, owner, rules, started, rounds: HashMap::new() }
    }

    /// Whether events come to a namespace, of which one since its last look is of a collection: else there is nothing
    /// that whoever reads a collection has to fold.
    fn has_tail(&self, levels: &[String], round: &NamespaceRound, busy: &HashSet<String>) -> bool {
        let [name] = levels else { return false };
        let changes = round.seen.as_ref().map(|seen| seen.changes);
        busy.contains(name) && changes != Some(self.tables.ingest.change_count(name))
    }

    /// Whether a namespace is looked at now, which is noted.
    async fn is_due(&self, levels: &[String], times: &mut LookTimes, has_tail: bool) -> bool {
        // A look tells why a table does not load.
        let last_seq = match has_tail {
            true => self.tables.last_seq(levels).await.ok().flatten(),
            false => None,
        };
        let now = Instant::now();
        let is_long = last_seq.is_some_and(|last| times.has_long_tail(last, now));
        let is_due = is_long || times.is_time(self.rules, self.started, now);
        if is_due {
            times.begin(now, last_seq);
        }
        is_due
    }

    /// Refreshes what changed in a namespace since its last round.
    async fn look(
        &self,
        levels: &[String],
        round: &mut NamespaceRound,
    ) -> Result<LookEnd, NamespaceError> {
        let mut end = LookEnd::default();
        let Some(seen) = self.tables.seen(levels).await? else { return Ok(end) };
        let is_new = round.seen.as_ref() != Some(&seen);
        let mut again = round.failed.clone();
        again.extend(self.tables.sql.pending_values(levels));
        if !is_new && again.is_empty() {
            return Ok(end);
        }
        if seen.erasures.is_none() {
            end.failed.push(IS_ERASING.to_owned());
            return Ok(end);
        }
        if again.is_empty() && has_no_changes(&seen, round) {
            // The next question begins where the last one ended.
            round.seen = Some(seen);
            return Ok(end);
        }
        let found = if is_new {
            // What was taken out may be of any collection. After a start nothing is known of any: what changed behind
            // the tables alone would leave out one whose first refresh the server did not live to see.
            let known = round.seen.as_ref().map(|known| &known.erasures);
            let is_of_all = known != Some(&seen.erasures) || is_far_behind(&seen, round);
            let found = self.tables.collections(levels, round.after, again, is_of_all).await?;
            if is_of_all {
                round.all_seq = found.seq;
            }
            found
        } else {
            FoundCollections { names: again, beyond: None, seq: round.after, cause: None }
        };
        let mut failed = BTreeSet::new();
        round.rests.end(Instant::now());
        for collection in found.names {
            if round.rests.has(&collection) {
                failed.insert(collection);
                continue;
            }
            let began = Instant::now();
            let done = self.tables.refresh(levels, &collection, seen.erasures.clone()).await;
            round.rests.begin(&collection, (began, Instant::now()), self.rules);
            match done {
                Ok(done) => {
                    end.is_changed |= done.is_changed;
                    self.tables.sql.end_pending_values(levels, &collection);
                }
                // Its events are gone.
                Err(WriteFailure::Query(SqlError::NotFound(_))) => {
                    self.tables.sql.end_pending_values(levels, &collection);
                }
                Err(cause) => {
                    let table = table_name(&collection);
                    warn!(table, error = &cause as &dyn Error, "a collection is not refreshed");
                    end.failed.push(format!("{table}: {}", with_causes(&cause)));
                    failed.insert(collection);
                }
            }
        }
        round.failed = failed;
        if let Some(cause) = found.cause {
            end.failed.push(with_causes(&cause));
        } else {
            (round.seen, round.after) = (Some(seen), found.seq);
        }
        end.failed.extend(found.beyond.map(|first| beyond(&first)));
        Ok(end)
    }
}

/// Whether no event that came since the last look is of a collection, so that no event has to be read to know that the
/// tables have all changes. With many namespaces these questions cost more than to take the events.
fn has_no_changes(seen: &SeenEvents, round: &NamespaceRound) -> bool {
    let is_same = round
        .seen
        .as_ref()
        .is_some_and(|before| (before.changes, &before.erasures) == (seen.changes, &seen.erasures));
    is_same && !is_far_behind(seen, round)
}

/// Whether so many events came since all tables were looked at that they are looked at again.
fn is_far_behind(seen: &SeenEvents, round: &NamespaceRound) -> bool {
    let behind = seen.last_seq.map_or(0, |last| last.saturating_sub(round.all_seq));
    EVENTS_BEHIND_MAX <= behind
}

impl Job for RefreshChanged {
    const NAME: &'static str = REFRESH;
    type Error = RefreshError;

    /// Looks at every namespace whose time has come.
    async fn tick(&mut self) -> Result<Progress, RefreshError> {
        if let Err(cause) = self.owner.check() {
            // Others do not see what is in the log alone.
            return Ok(Progress::Skipped(cause.to_string()));
        }
        let (mut is_changed, mut failed) = (false, Vec::new());
        let (mut rounds, busy) = (HashMap::new(), self.tables.busy());
        for levels in self.tables.namespaces().await? {
            let mut round = self.rounds.get(&levels).cloned().unwrap_or_default();
            let has_tail = self.has_tail(&levels, &round, &busy);
            if self.is_due(&levels, &mut round.times, has_tail).await {
                let name = levels.join(".");
                match Box::pin(self.look(&levels, &mut round)).await {
                    Ok(end) => {
                        is_changed |= end.is_changed;
                        failed.extend(end.failed.into_iter().map(|why| format!("{name}: {why}")));
                    }
                    Err(cause) => {
                        warn!(name, error = &cause as &dyn Error, "a namespace is not refreshed");
                        failed.push(format!("{name}: {}", with_causes(&cause)));
                    }
                }
                round.times.end(Instant::now(), self.rules);
            }
            rounds.insert(levels, round);
        }
        self.rounds = rounds;
        if is_changed || failed.is_empty() {
            return Ok(Progress::of(is_changed, false));
        }
        Ok(Progress::Skipped(failed.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(last_seq: u64, changes: u64) -> SeenEvents {
        let erasures = Some("0/none".to_owned());
        SeenEvents { last_seq: Some(last_seq), position: None, changes, erasures }
    }

    #[test]
    fn events_of_no_collection_are_no_changes_until_there_are_very_many() {
        let mut round = NamespaceRound::default();
        assert!(!has_no_changes(&seen(5, 0), &round), "nothing is known after a start");
        round.seen = Some(seen(5, 0));
        assert!(has_no_changes(&seen(9, 0), &round));
        assert!(!has_no_changes(&seen(9, 1), &round));
        let erased = SeenEvents { erasures: Some("1/other".to_owned()), ..seen(9, 0) };
        assert!(!has_no_changes(&erased, &round));
        assert!(!has_no_changes(&seen(EVENTS_BEHIND_MAX, 0), &round));
        round.all_seq = 1;
        assert!(has_no_changes(&seen(EVENTS_BEHIND_MAX, 0), &round));
    }
}
