//! Failpoints: named places in durable code where a test makes the process stop, fail or wait.
//!
//! Without a script every check is one load of an `Option` that is `None`. Names in use are listed
//! in [`POINTS`], so that a test can visit all of them.

use std::{
    collections::HashMap,
    sync::{Arc, Barrier, Mutex, PoisonError},
    time::Duration,
};

/// Every failpoint: those an event passes, in their order, those of a query, of a statement that
/// writes, of a refresh, of a restore of documents and of a branch, and then those of each job and of the repairs,
/// in the order in which they are passed.
pub const POINTS: &[&str] = &[
    "wal.before_write",
    "wal.after_write",
    "wal.after_sync",
    "wal.after_publish",
    "flush.before_write",
    "flush.after_columns",
    "flush.after_data_file",
    "flush.before_commit",
    "flush.lost_answer",
    "flush.after_commit",
    "flush.before_trim",
    "wal.after_trim",
    "sql.after_list",
    "write.before_commit",
    "write.lost_answer",
    "refresh.after_set_aside",
    "refresh.before_branch",
    "refresh.before_documents",
    "restore.before_tag",
    "restore.after_tag",
    "restore.before_append",
    "merge.before_append",
    "changes.before_batch",
    "changes.after_batch",
    "branch.before_commit",
    "branch.lost_answer",
    "branch.before_drop",
    "branch.after_drop",
    "compact.before_write",
    "compact.after_data_file",
    "compact.before_commit",
    "compact.lost_answer",
    "compact.after_commit",
    "orphans.before_mark",
    "orphans.after_mark",
    "orphans.after_queue",
    "erase.before_write",
    "erase.before_commit",
    "erase.after_commit",
    "erase.after_removal",
    "erase.after_deletion",
    "erase.before_done",
    "retention.before_commit",
    "retention.after_commit",
    "expire.before_removal",
    "expire.after_removal",
    "thin.before_removal",
    "thin.after_removal",
    "obsolete.after_trash",
    "obsolete.after_deletion",
    "names.before_list",
    "names.after_list",
    "repair.before_marks",
    "repair.before_rebuild",
    "repair.after_rebuild",
    "repair.before_note",
    "repair.before_move",
    "repair.after_move",
];

/// What happens at a failpoint.
#[derive(Clone, Debug)]
pub enum FailpointAction {
    /// The process ends at once, as by `kill -9`.
    Abort,
    /// The step fails with an IO error.
    Error,
    /// The step takes this long.
    Delay(Duration),
    /// The step waits here twice: to be met, and to be let go on.
    Meet(Arc<Barrier>),
}

/// The script of a test: which point does what at which visit. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Failpoints(Option<Arc<Mutex<HashMap<String, PlannedFault>>>>);

#[derive(Debug)]
struct PlannedFault {
    skip: u32,
    times: u32,
    fault: FailpointAction,
}

impl Failpoints {
    /// Reads `point=abort|error|delay:MS[@SKIP][*TIMES]`, separated by `;`.
    ///
    /// `SKIP` visits pass before the fault starts (default 0), and it happens `TIMES` times
    /// (default 1).
    ///
    /// # Errors
    /// A text that names the part which does not parse.
    pub fn parse(script: &str) -> Result<Self, String> {
        let mut planned = HashMap::new();
        for part in script.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (point, plan) = parse_part(part).ok_or_else(|| {
                format!(
                    "`{part}` is not point=abort|error|delay:MS[@SKIP][*TIMES] with a known point"
                )
            })?;
            planned.insert(point, plan);
        }
        let script = if planned.is_empty() { None } else { Some(Arc::new(Mutex::new(planned))) };
        Ok(Self(script))
    }

    /// A script whose only fault is a meeting at the first visit of `point`, and the barrier to
    /// come to, twice: what is done in between happens while the step stands at `point`.
    #[must_use]
    pub fn meeting(point: &'static str) -> (Self, Arc<Barrier>) {
        Self::meetings(point, 1)
    }

    /// The same at the first `times` visits of `point`, with two comings to the barrier for each.
    #[must_use]
    pub fn meetings(point: &'static str, times: u32) -> (Self, Arc<Barrier>) {
        let barrier = Arc::new(Barrier::new(2));
        let fault = FailpointAction::Meet(Arc::clone(&barrier));
        let planned = PlannedFault { skip: 0, times, fault };
        let script = HashMap::from([(point.to_owned(), planned)]);
        (Self(Some(Arc::new(Mutex::new(script)))), barrier)
    }

    /// Marks a place. Blocks for a delay or a meeting, and never comes back from an abort.
    ///
    /// # Errors
    /// The planned error, which the caller treats as the step's own IO error.
    pub fn hit(&self, point: &'static str) -> std::io::Result<()> {
        let Some(script) = &self.0 else { return Ok(()) };
        let fault = {
            let mut planned = script.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(plan) = planned.get_mut(point) else { return Ok(()) };
            if 0 < plan.skip {
                plan.skip -= 1;
                return Ok(());
            }
            if plan.times == 0 {
                return Ok(());
            }
            plan.times -= 1;
            plan.fault.clone()
        };
        match fault {
            FailpointAction::Abort => std::process::abort(),
            FailpointAction::Error => Err(std::io::Error::other(format!("failpoint {point}"))),
            FailpointAction::Delay(pause) => {
                std::thread::sleep(pause);
                Ok(())
            }
            FailpointAction::Meet(barrier) => {
                barrier.wait();
                barrier.wait();
                Ok(())
            }
        }
    }
}

fn parse_part(part: &str) -> Option<(String, PlannedFault)> {
    let (point, rest) = part.split_once('=')?;
    let (rest, times) = match rest.split_once('*') {
        Some((rest, times)) => (rest, times.parse().ok()?),
        None => (rest, 1),
    };
    let (rest, skip) = match rest.split_once('@') {
        Some((rest, skip)) => (rest, skip.parse().ok()?),
        None => (rest, 0),
    };
    let fault = match rest.split_once(':') {
        Some(("delay", ms)) => FailpointAction::Delay(Duration::from_millis(ms.parse().ok()?)),
        None if rest == "abort" => FailpointAction::Abort,
        None if rest == "error" => FailpointAction::Error,
        _ => return None,
    };
    POINTS.contains(&point).then(|| (point.to_owned(), PlannedFault { skip, times, fault }))
}
