//! Keeps the snapshot that long work reads until the work has committed what it made of it.
//!
//! Thinning takes snapshots of a busy table minutes after they were made, and what was read of one can be
//! committed only while it is there. Work that takes longer than [`LEASE_AFTER`] leases its snapshot in the
//! metastore, as a load of a client does, and again while it goes on. Short work needs none. Leases end by
//! the catalog's clock, so how long the work takes is measured by it, too.
//!
//! Its one invariant: work that was killed, or that has ended, holds nothing for longer than [`LEASE`].
//! Work whose lease cannot be written goes on without: its commit is refused at worst.

use icecore_catalog::catalog::{Catalog, LoadedTable};
use std::{error::Error, pin::pin, time::Duration};
use tracing::warn;

/// Work that takes no longer leases nothing. The newest 400 snapshots stay by themselves, which is longer at
/// any rate of commits below 40 a second.
pub(super) const LEASE_AFTER: Duration = Duration::from_secs(10);
/// How long a lease lasts.
const LEASE: Duration = Duration::from_secs(90);
/// How often it is written while the work goes on: one that failed is made up before the last one ends.
const LEASE_EVERY: Duration = Duration::from_secs(20);
/// Most leases of one piece of work, those of a day.
const LEASES_MAX: u32 = 4_320;

/// The lease of a snapshot that is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadLease<'a> {
    /// Where the table is.
    pub(super) catalog: &'a Catalog,
    /// The table, as it is read.
    pub(super) table: &'a LoadedTable,
    /// The snapshot.
    pub(super) snapshot_id: i64,
    /// Work that takes longer has a lease.
    pub(super) after: Duration,
}

impl ReadLease<'_> {
    /// Does `work`, beside which the lease is written.
    pub(super) async fn over<F: Future>(self, work: F) -> F::Output {
        let mut first = self.after;
        if first.is_zero() {
            self.write().await;
            first = LEASE_EVERY;
        }
        let mut work = pin!(work);
        // Cancel-safe: the work is polled where it stopped, and a write that has begun goes on by itself.
        tokio::select! {
            done = &mut work => return done,
            () = self.renew(first) => (),
        }
        work.await
    }

    /// Leases the snapshot after `first`, and again and again.
    async fn renew(self, first: Duration) {
        let (began_ms, least_ms) = (self.catalog.now_ms(), whole_ms(first / 2));
        tokio::time::sleep(first).await;
        for _ in 0..LEASES_MAX {
            // By a clock that stands still no lease would end.
            if least_ms <= self.catalog.now_ms().saturating_sub(began_ms) {
                self.write().await;
            }
            tokio::time::sleep(LEASE_EVERY).await;
        }
    }

    async fn write(self) {
        let Self { catalog, table, snapshot_id, .. } = self;
        if let Err(cause) =
            catalog.upkeep().lease_snapshot(table, snapshot_id, whole_ms(LEASE)).await
        {
            let error = &cause as &dyn Error;
            warn!(snapshot_id, error, "a snapshot that is read is not leased");
        }
    }
}

fn whole_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
