//! Leases: of several processes one at a time does what the lease is for.
//!
//! No two machines' times of day are compared. A holder counts from the moment before it asked,
//! and by its own clock stops when the time is over; another process takes the lease once it has
//! seen the row unchanged for longer than that, by *its* own clock. So a wrong time of day, or one
//! that jumps, moves nothing.
//!
//! A process that is stopped and goes on later may believe for a moment that it still holds a lease.
//! So a lease only saves work. What must not be written twice is written under its [`LeaseFence`], which
//! is checked in the transaction that writes. Its one invariant: the epoch of a lease grows each
//! time it is acquired, so no two acquisitions pass one fence.

use super::{Store, StoreError, failed};
use icecore_catalog::metastore::database::RowLock;
use sqlx::{Any, AssertSqlSafe, Transaction};
use std::{sync::Arc, time::Duration};

pub(super) const STEP: &str = r#"
CREATE TABLE service_leases (
    name TEXT PRIMARY KEY,
    holder TEXT,
    epoch BIGINT NOT NULL CHECK (epoch >= 0),
    renewal BIGINT NOT NULL CHECK (renewal >= 0),
    length_ms BIGINT NOT NULL CHECK (length_ms > 0)
);
"#;

/// A holder renews once this part of its time is over, and then has as much again to succeed.
const RENEW_PART: i64 = 2;
/// Others wait longer than the holder counts, by this part of it: clocks do not tick alike.
const DRIFT_PART: i64 = 10;

/// What was acquired: a write that names it is refused once another process acquired the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseFence {
    /// The lease.
    pub lease: Arc<str>,
    /// Its epoch.
    pub epoch: i64,
}

/// A process's seat at a lease, which it holds or waits for.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    name: Arc<str>,
    length_ms: i64,
    held: Option<HeldLease>,
    /// Another holder's row, and since when it is unchanged.
    seen: Option<(LeaseRow, i64)>,
    /// Whether this process never held it: then a row in its name is of an earlier life.
    is_new: bool,
}

/// Times are of this process's clock.
#[derive(Clone, Copy, Debug)]
struct HeldLease {
    epoch: i64,
    renewed_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct LeaseRow {
    holder: Option<String>,
    epoch: i64,
    renewal: i64,
    length_ms: i64,
}

impl Store {
    /// A seat at the lease `name`, which lasts `length` from each renewal.
    #[must_use]
    pub fn lease(&self, name: &str, length: Duration) -> Lease {
        Lease {
            store: self.clone(),
            name: name.into(),
            length_ms: i64::try_from(length.as_millis()).unwrap_or(i64::MAX / 2),
            held: None,
            seen: None,
            is_new: true,
        }
    }

    /// Begins a transaction that may write what depends on a lease: nobody acquires the lease
    /// before it ends.
    ///
    /// # Errors
    /// [`StoreError::Fenced`]; [`StoreError::Database`].
    pub async fn begin_under(
        &self,
        fence: &LeaseFence,
    ) -> Result<Transaction<'static, Any>, StoreError> {
        let mut tx = self.database.begin().await.map_err(failed("begin"))?;
        let lock = RowLock::Share.clause(&tx);
        let query = format!("SELECT epoch FROM service_leases WHERE name = $1{lock}");
        let epoch: Option<i64> = sqlx::query_scalar(AssertSqlSafe(query))
            .bind(&*fence.lease)
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed("check a lease"))?;
        match epoch == Some(fence.epoch) {
            true => Ok(tx),
            false => Err(StoreError::Fenced(Arc::clone(&fence.lease))),
        }
    }
}

impl Lease {
    /// Acquires the lease or renews it when it is time; none while another process has it.
    ///
    /// # Errors
    /// [`StoreError::Database`] when it is not held. A renewal that fails is tried again by the
    /// next call, and the lease is held until its time is over.
    pub async fn hold(&mut self) -> Result<Option<LeaseFence>, StoreError> {
        if self.fence().is_none() {
            self.held = None;
            return self.acquire().await;
        }
        if !self.is_due() {
            return Ok(self.fence());
        }
        match self.renew().await {
            Ok(()) => Ok(self.fence()),
            Err(cause) => self.fence().map(Some).ok_or(cause),
        }
    }

    /// What this process holds, by its own clock.
    #[must_use]
    pub fn fence(&self) -> Option<LeaseFence> {
        let held = self.held?;
        let is_over = self.length_ms <= self.now_ms() - held.renewed_ms;
        (!is_over).then(|| LeaseFence { lease: Arc::clone(&self.name), epoch: held.epoch })
    }

    /// How long until it has to be renewed; none when it is not held.
    #[must_use]
    pub fn renew_in(&self) -> Option<Duration> {
        let left_ms = self.held?.renewed_ms + self.length_ms / RENEW_PART - self.now_ms();
        Some(Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)))
    }

    /// Lets another process have it at once.
    ///
    /// # Errors
    /// [`StoreError::Database`]; others then wait until it has run out.
    pub async fn release(&mut self) -> Result<(), StoreError> {
        let Some(held) = self.held.take() else { return Ok(()) };
        sqlx::query(
            "UPDATE service_leases SET holder = NULL, renewal = renewal + 1
             WHERE name = $1 AND epoch = $2",
        )
        .bind(&*self.name)
        .bind(held.epoch)
        .execute(self.store.database.writer())
        .await
        .map(|_| ())
        .map_err(failed("release a lease"))
    }

    async fn acquire(&mut self) -> Result<Option<LeaseFence>, StoreError> {
        // Before the question: the time that the answer takes is not counted twice.
        let now_ms = self.now_ms();
        let epoch = match self.read().await? {
            None => self.insert().await?,
            Some(row) if self.is_free(&row, now_ms) => self.take(&row).await?,
            Some(_) => None,
        };
        self.held = epoch.map(|epoch| HeldLease { epoch, renewed_ms: now_ms });
        if self.held.is_some() {
            (self.seen, self.is_new) = (None, false);
        }
        Ok(self.fence())
    }

    /// Whether nobody holds the lease any more, as far as this process has watched its row.
    fn is_free(&mut self, row: &LeaseRow, now_ms: i64) -> bool {
        let of_earlier_life = self.is_new && row.holder.as_deref() == Some(&*self.store.server);
        if row.holder.is_none() || of_earlier_life {
            return true;
        }
        match &self.seen {
            Some((seen, since_ms)) if seen == row => {
                row.length_ms + row.length_ms / DRIFT_PART < now_ms - since_ms
            }
            _ => {
                // The row may have changed at any time since the question, so the count begins now.
                self.seen = Some((row.clone(), self.now_ms()));
                false
            }
        }
    }

    async fn read(&self) -> Result<Option<LeaseRow>, StoreError> {
        let row: Option<(Option<String>, i64, i64, i64)> = sqlx::query_as(
            "SELECT holder, epoch, renewal, length_ms FROM service_leases WHERE name = $1",
        )
        .bind(&*self.name)
        .fetch_optional(self.store.database.writer())
        .await
        .map_err(failed("read a lease"))?;
        Ok(row.map(|(holder, epoch, renewal, length_ms)| LeaseRow {
            holder,
            epoch,
            renewal,
            length_ms,
        }))
    }

    /// The first epoch, unless another process was faster.
    async fn insert(&self) -> Result<Option<i64>, StoreError> {
        let made = sqlx::query(
            "INSERT INTO service_leases VALUES ($1, $2, 1, 0, $3) ON CONFLICT DO NOTHING",
        )
        .bind(&*self.name)
        .bind(&*self.store.server)
        .bind(self.length_ms)
        .execute(self.store.database.writer())
        .await
        .map_err(failed("acquire a lease"))?;
        Ok((made.rows_affected() == 1).then_some(1))
    }

    /// The next epoch, unless the row is not what was read any more.
    async fn take(&self, row: &LeaseRow) -> Result<Option<i64>, StoreError> {
        let taken = sqlx::query(
            "UPDATE service_leases
             SET holder = $1, epoch = epoch + 1, renewal = renewal + 1, length_ms = $2
             WHERE name = $3 AND epoch = $4 AND renewal = $5",
        )
        .bind(&*self.store.server)
        .bind(self.length_ms)
        .bind(&*self.name)
        .bind(row.epoch)
        .bind(row.renewal)
        .execute(self.store.database.writer())
        .await
        .map_err(failed("acquire a lease"))?;
        Ok((taken.rows_affected() == 1).then_some(row.epoch + 1))
    }

    /// Begins its time anew, unless another process acquired it.
    async fn renew(&mut self) -> Result<(), StoreError> {
        let Some(held) = self.held else { return Ok(()) };
        let now_ms = self.now_ms();
        let renewed = sqlx::query(
            "UPDATE service_leases SET renewal = renewal + 1
             WHERE name = $1 AND epoch = $2 AND holder IS NOT NULL",
        )
        .bind(&*self.name)
        .bind(held.epoch)
        .execute(self.store.database.writer())
        .await
        .map_err(failed("renew a lease"))?;
        let is_held = renewed.rows_affected() == 1;
        self.held = is_held.then_some(HeldLease { renewed_ms: now_ms, ..held });
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.renew_in().is_some_and(|left| left.is_zero())
    }

    fn now_ms(&self) -> i64 {
        self.store.clock.passed_ms()
    }
}
