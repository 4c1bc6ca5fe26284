//! How many scans are planned at once, and for how long.
//!
//! Its one invariant: whoever plans has a permit, and it is back as soon as the planning has ended,
//! is given up or is too slow.

use super::RestError;
use crate::scan::{Deadline, ScanError};
use axum::http::StatusCode;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

/// Scans planned at once: each may hold the descriptions of some thousand files.
const PLANS_AT_ONCE: usize = 16;
/// Longest wait for others to end.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Longest planning; clients give up after about as long.
const PLANNING_MAX: Duration = Duration::from_secs(30);

/// The permits to plan. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::rest) struct PlanningLimits {
    permits: Arc<Semaphore>,
    wait_max: Duration,
    planning_max: Duration,
}

impl Default for PlanningLimits {
    fn default() -> Self {
        let permits = Arc::new(Semaphore::new(PLANS_AT_ONCE));
        Self { permits, wait_max: WAIT_MAX, planning_max: PLANNING_MAX }
    }
}

impl PlanningLimits {
    /// For scans that are all too slow.
    #[cfg(test)]
    pub(in crate::rest) fn without_time() -> Self {
        Self { planning_max: Duration::ZERO, ..Self::default() }
    }

    /// Plans when there is a permit, and up to the deadline that `plan` is given. What waits for
    /// the store is ended by the clock, what computes has to look at the deadline.
    pub(super) async fn run<T, F>(&self, plan: impl FnOnce(Deadline) -> F) -> Result<T, RestError>
    where
        F: Future<Output = Result<T, RestError>>,
    {
        let permit =
            timeout(self.wait_max, self.permits.acquire()).await.map_err(|_| too_many())?;
        let _permit = permit.expect("the semaphore is never closed");
        let end = Instant::now() + self.planning_max;
        let planned = timeout_at(end, plan(Deadline::at(end))).await;
        planned.unwrap_or_else(|_| Err(ScanError::TooSlow.into()))
    }
}

fn too_many() -> RestError {
    let message = "too many scans are being planned: try again, or plan in the client";
    RestError::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::poll;
    use std::{future::pending, pin::pin};

    fn limits(wait_max: Duration, planning_max: Duration) -> PlanningLimits {
        PlanningLimits { permits: Arc::new(Semaphore::new(1)), wait_max, planning_max }
    }

    #[tokio::test]
    async fn a_permit_comes_back_however_planning_ends() {
        let fast = limits(WAIT_MAX, PLANNING_MAX);
        let free = || fast.permits.available_permits();
        let done = fast.run(async |deadline| deadline.check().map_err(RestError::from)).await;
        assert_eq!((done.is_ok(), free()), (true, 1));
        {
            let mut gone = pin!(fast.run(|_| pending::<Result<(), RestError>>()));
            assert!(poll!(&mut gone).is_pending());
            assert_eq!(free(), 0);
        }
        assert_eq!(free(), 1, "its client is gone");

        let slow = limits(WAIT_MAX, Duration::ZERO);
        let waits = slow.run(|_| pending::<Result<(), RestError>>()).await.unwrap_err();
        assert_eq!(waits.status(), StatusCode::SERVICE_UNAVAILABLE);
        // One that computes finds out by itself.
        let computes = slow.run(async |deadline| Ok(deadline.check()?)).await.unwrap_err();
        assert_eq!(computes.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(slow.permits.available_permits(), 1);
    }

    #[tokio::test]
    async fn who_finds_no_permit_for_long_is_told_so() {
        let limits = limits(Duration::ZERO, PLANNING_MAX);
        let held = limits.permits.acquire().await.unwrap();
        let refused = limits.run(async |_| Ok(())).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        drop(held);
        limits.run(async |_| Ok(())).await.unwrap();
    }
}
