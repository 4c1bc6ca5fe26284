//! `min_seq`: a query that waits until it sees an event that its sender knows of.

use crate::sql::{SqlInner, points::QueryPoints};
use icecore_engine::{error::SqlError, references::WantedTables, view::View};
use icecore_schemas::service_table::EVENTS_TABLE;
use std::time::Duration;
use tokio::time::Instant;

/// Longest a query waits for its `min_seq`.
const SEQ_WAIT_MAX: Duration = Duration::from_secs(5);
/// Most queries that wait so at a time: each look asks the metastore and the log.
pub(super) const SEQ_WAITS_MAX: usize = 64;
/// How soon it looks again; each time twice as late as before, up to the longest.
const SEQ_WAIT_STEP: Duration = Duration::from_millis(50);
const SEQ_WAIT_STEP_MAX: Duration = Duration::from_millis(400);

impl SqlInner {
    /// Returns once a query sees the event of this `seq`.
    pub(super) async fn wait_for(
        &self,
        levels: &[String],
        min_seq: u64,
        deadline: Instant,
    ) -> Result<(), SqlError> {
        let patience = deadline.min(Instant::now() + SEQ_WAIT_MAX);
        let wanted = WantedTables::Named(vec![EVENTS_TABLE.to_owned()]);
        let now = QueryPoints::default();
        let (mut waits, mut step) = (None, SEQ_WAIT_STEP);
        loop {
            // The log keeps nothing for who only waits, so its pin goes at once.
            let reached = match self.sources().view(levels, &wanted, &now).await {
                Ok((view, _pin)) => check(&view, min_seq),
                // Its first events may be in the log of the server that takes them.
                Err(SqlError::NoNamespace(_)) if self.owner.check_owner().is_err() => {
                    Err(not_yet(min_seq, 0))
                }
                Err(cause) => return Err(cause),
            };
            if reached.is_ok() || patience <= Instant::now() + step {
                return reached;
            }
            if waits.is_none() {
                let busy = |_| {
                    let text = "queries already wait for their min_seq; try again";
                    SqlError::Busy(format!("{SEQ_WAITS_MAX} {text}"))
                };
                waits = Some(self.seq_waits.try_acquire().map_err(busy)?);
            }
            tokio::time::sleep(step).await;
            step = (step * 2).min(SEQ_WAIT_STEP_MAX);
        }
    }
}

/// Whether a view has the event of this `seq`.
pub(super) fn check(view: &View, min_seq: u64) -> Result<(), SqlError> {
    let last_seq = view.table(EVENTS_TABLE).map_or(0, |events| events.last_seq);
    if last_seq < min_seq { Err(not_yet(min_seq, last_seq)) } else { Ok(()) }
}

fn not_yet(min_seq: u64, last_seq: u64) -> SqlError {
    SqlError::NotYet(format!(
        "min_seq {min_seq} is not readable yet: the query sees events up to {last_seq}; try again"
    ))
}
