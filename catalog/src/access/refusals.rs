//! How often calls were refused in the last minute, so that a flood of them is a few records.
//!
//! Its one invariant: whatever is sent, a minute leaves a bounded number of records of calls that
//! nobody was identified for, and a bounded number of each caller's refused calls.

use super::lock;
use crate::audit::AuditEntry;
use std::{collections::HashMap, sync::Mutex};

/// How long calls are counted together.
pub(super) const WINDOW_MS: i64 = 60_000;
/// Refused calls of one caller within [`WINDOW_MS`] that have a record each.
const ALONE_MAX: u64 = 20;
/// Callers that are told apart.
const CALLERS_MAX: usize = 256;
/// Addresses of calls without a valid token that are told apart. Whoever has many addresses can
/// make that many records a minute.
const ADDRESSES_MAX: usize = 32;
/// Who sent a call without a valid token.
const UNKNOWN: &str = "unknown";
/// The address of all that are not told apart.
const OTHERS: &str = "others";

/// Counts of refused calls.
#[derive(Debug, Default)]
pub(super) struct RefusalCounter(Mutex<RefusalCounts>);

#[derive(Debug, Default)]
struct RefusalCounts {
    /// When the first of these was counted.
    since_ms: Option<i64>,
    /// By who called.
    callers: HashMap<String, u64>,
    /// By address, of calls without a valid token.
    addresses: HashMap<String, u64>,
}

impl RefusalCounter {
    /// Counts a refused call of a known caller; true when it is to have a record of its own.
    pub(super) fn is_alone(&self, principal: &str, now_ms: i64) -> bool {
        let mut counts = lock(&self.0);
        counts.since_ms.get_or_insert(now_ms);
        let count = count(&mut counts.callers, principal, CALLERS_MAX);
        count.is_some_and(|count| count <= ALONE_MAX)
    }

    /// Counts a call without a valid token.
    pub(super) fn unknown(&self, address: &str, now_ms: i64) {
        let mut counts = lock(&self.0);
        counts.since_ms.get_or_insert(now_ms);
        count(&mut counts.addresses, address, ADDRESSES_MAX);
    }

    /// The entries that tell of what was counted up to `now_ms` and is in no other record, once
    /// the window is over.
    pub(super) fn take(&self, now_ms: i64) -> Vec<AuditEntry> {
        let mut counts = lock(&self.0);
        if counts.since_ms.is_none_or(|since_ms| now_ms < since_ms + WINDOW_MS) {
            return Vec::new();
        }
        let RefusalCounts { callers, addresses, .. } = std::mem::take(&mut *counts);
        let callers = callers.into_iter().filter_map(|(principal, count)| {
            let alone = if principal == OTHERS { 0 } else { ALONE_MAX };
            let count = count.checked_sub(alone).filter(|count| 0 < *count)?;
            Some(entry(principal, String::new(), count))
        });
        let unknown = addresses.into_iter();
        let unknown = unknown.map(|(address, count)| entry(UNKNOWN.to_owned(), address, count));
        callers.chain(unknown).collect()
    }
}

/// The count of `key` with this one; none when it is not told apart.
fn count(counts: &mut HashMap<String, u64>, key: &str, keys_max: usize) -> Option<u64> {
    let is_known = counts.contains_key(key) || counts.len() < keys_max;
    let count = counts.entry(if is_known { key } else { OTHERS }.to_owned()).or_insert(0);
    *count += 1;
    is_known.then_some(*count)
}

fn entry(principal: String, address: String, count: u64) -> AuditEntry {
    let (action, object) = ("refused calls".to_owned(), count.to_string());
    AuditEntry { principal, address, action, object, ..AuditEntry::default() }
}
