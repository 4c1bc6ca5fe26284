//! `min_seq`: a query that waits until it sees an event that its sender knows of.

use crate::sql::SqlInner;
use icecore_engine::{error::SqlError, references::WantedTables, view::View};
use icecore_schemas::service_table::EVENTS_TABLE;
use std::time::Duration;
use tokio::time::Instant;

/// Longest a query waits for its `min_seq`.
const SEQ_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often it looks meanwhile.
const SEQ_WAIT_STEP: Duration = Duration::from_millis(50);

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
        loop {
            let (view, _pin) = self.sources().view(levels, &wanted, None).await?;
            match check(&view, min_seq) {
                Err(_) if Instant::now() + SEQ_WAIT_STEP < patience => {
                    tokio::time::sleep(SEQ_WAIT_STEP).await;
                }
                reached => return reached,
            }
        }
    }
}

/// Whether a view has the event of this `seq`.
pub(super) fn check(view: &View, min_seq: u64) -> Result<(), SqlError> {
    let last_seq = view.table(EVENTS_TABLE).map_or(0, |events| events.last_seq);
    if last_seq < min_seq {
        return Err(SqlError::NotYet(format!(
            "min_seq {min_seq} is not readable yet: the query sees events up to {last_seq}; try again"
        )));
    }
    Ok(())
}
