//! Which log owns the events: what the catalog's fence stands for, and who may raise it.
//!
//! The fence's holder is a log, its epoch the last start of that log, and a mark says up to which
//! position of the log and up to which `seq` a table has its rows. Every commit of events is made
//! under the fence, so the invariant of the catalog is ours: positions of another log are never
//! taken for this one's.

use icecore_catalog::{
    error::CatalogError,
    metastore::{
        Metastore,
        fence::{Fence, FenceRaise},
    },
};
use uuid::Uuid;

/// How far above every `seq` in a table a new log begins: what the log before it gave out and no
/// table has is not known. A log of the default bound of bytes that held so many rows would have
/// two bytes for each; a `seq` below 2^53 lasts for two million new logs.
const SEQ_MARGIN: u64 = 1 << 32;

/// The log that events are taken into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOwner {
    /// Which log.
    pub log: Uuid,
    /// Watermarks of this epoch and later ones are of that log.
    pub since: u64,
    /// The epoch of its last start, which alone may move watermarks.
    pub epoch: u64,
    /// Every `seq` that it gives is above this one, in each namespace.
    pub seq_after: u64,
}

/// What a log brings along that asks to be the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerClaim {
    /// It never had a record, so no table has anything of it. It becomes the owner where there is
    /// none.
    New,
    /// It has been there before: where no owner is known yet, the tables' watermarks are taken for
    /// its own.
    Known,
    /// It never had a record, and an operator says that it shall be the owner.
    TakeOver,
}

impl From<Fence> for LogOwner {
    fn from(Fence { holder, since, epoch, base }: Fence) -> Self {
        Self { log: holder, since, epoch, seq_after: base }
    }
}

impl LogOwner {
    /// The log that events are taken into; none before the first start.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn of(metastore: &Metastore) -> Result<Option<Self>, CatalogError> {
        Ok(metastore.fence().await?.map(Self::from))
    }

    /// Begins a life of `log` and gives the owner: this log, under a new epoch, when it was or now
    /// becomes the owner; otherwise the other log, and nothing has changed. Durable on return.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn claim(
        metastore: &Metastore,
        log: Uuid,
        claim: OwnerClaim,
    ) -> Result<Self, CatalogError> {
        metastore.raise_fence(|before| next(before, log, claim)).await.map(Self::from)
    }
}

fn next(before: FenceRaise, log: Uuid, claim: OwnerClaim) -> Fence {
    let FenceRaise { held, epoch, last_seq } = before;
    match (held, claim) {
        (Some(held), _) if held.holder == log => Fence { epoch, ..held },
        (Some(held), OwnerClaim::New | OwnerClaim::Known) => held,
        (None, OwnerClaim::Known) => Fence { holder: log, since: 0, epoch, base: 0 },
        (None, _) if last_seq == 0 => Fence { holder: log, since: epoch, epoch, base: 0 },
        // A log that was there before may have given out what it never committed.
        (None, OwnerClaim::New) | (_, OwnerClaim::TakeOver) => {
            let given = last_seq.max(held.map_or(0, |held| held.base));
            Fence { holder: log, since: epoch, epoch, base: given.saturating_add(SEQ_MARGIN) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    fn fence(holder: Uuid, since: u64, epoch: u64, base: u64) -> Fence {
        Fence { holder, since, epoch, base }
    }

    #[track_caller]
    fn check(held: Option<Fence>, last_seq: u64, claim: OwnerClaim, expected: Fence) {
        assert_eq!(next(FenceRaise { held, epoch: 9, last_seq }, LOG, claim), expected);
    }

    #[test]
    fn the_first_log_owns_the_events_and_stays_the_owner() {
        check(None, 0, OwnerClaim::New, fence(LOG, 9, 9, 0));
        let (mine, others) = (fence(LOG, 3, 8, 5), fence(OTHER, 3, 8, 5));
        for claim in [OwnerClaim::New, OwnerClaim::Known] {
            check(Some(mine), 70, claim, fence(LOG, 3, 9, 5));
            check(Some(others), 70, claim, others);
        }
        check(Some(mine), 70, OwnerClaim::TakeOver, fence(LOG, 3, 9, 5));
    }

    #[test]
    fn who_takes_over_begins_above_everything() {
        let others = |base| Some(fence(OTHER, 3, 8, base));
        check(others(0), 10, OwnerClaim::TakeOver, fence(LOG, 9, 9, 10 + SEQ_MARGIN));
        // An owner that came to nothing may have given out what no table has.
        check(others(SEQ_MARGIN), 10, OwnerClaim::TakeOver, fence(LOG, 9, 9, 2 * SEQ_MARGIN));
        check(None, 0, OwnerClaim::TakeOver, fence(LOG, 9, 9, 0));
    }

    #[test]
    fn tables_of_before_there_were_owners_belong_to_the_log_that_was_there() {
        check(None, 10, OwnerClaim::Known, fence(LOG, 0, 9, 0));
        check(None, 10, OwnerClaim::New, fence(LOG, 9, 9, 10 + SEQ_MARGIN));
    }
}
