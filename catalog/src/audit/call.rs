//! A call that changes something, on its way from its guard through the change to its record.
//!
//! Its one invariant: it has exactly one record. The transaction that makes the change writes it;
//! of a call that changes nothing the recorder does. Both write while they hold the chain's head,
//! and look whether the other was first where that can be.

use super::AuditEntry;
use crate::clock::NowMs;
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use uuid::Uuid;

/// Longest text of a field, in bytes.
const FIELD_BYTES_MAX: usize = 1024;
/// Longest text of what a call is about, in bytes: some hundred tables of one commit, or any names
/// that there may be of a few.
const OBJECT_BYTES_MAX: usize = 64 << 10;
/// The end of a text that was longer.
const CUT: &str = " … (cut)";

/// A call that is under way.
pub struct AuditedCall {
    key: String,
    entry: Mutex<AuditEntry>,
    now: NowMs,
    /// Somebody went to write the record.
    is_tried: AtomicBool,
    /// The record is durable.
    is_written: AtomicBool,
}

impl fmt::Debug for AuditedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditedCall").field("key", &self.key).finish_non_exhaustive()
    }
}

impl AuditedCall {
    /// A call as its guard knows it; time and outcome of `entry` are filled in at its end.
    #[must_use]
    pub fn new(mut entry: AuditEntry, now: NowMs) -> Arc<Self> {
        for field in
            [&mut entry.principal, &mut entry.address, &mut entry.request, &mut entry.action]
        {
            shorten(field, FIELD_BYTES_MAX);
        }
        shorten(&mut entry.object, OBJECT_BYTES_MAX);
        Arc::new(Self {
            key: Uuid::new_v4().to_string(),
            entry: Mutex::new(entry),
            now,
            is_tried: AtomicBool::new(false),
            is_written: AtomicBool::new(false),
        })
    }

    /// Who called.
    #[must_use]
    pub fn principal(&self) -> String {
        self.hold().principal.clone()
    }

    /// Says what the call turns out to be about.
    pub fn about(&self, object: &str) {
        let mut object = object.to_owned();
        shorten(&mut object, OBJECT_BYTES_MAX);
        self.hold().object = object;
    }

    fn hold(&self) -> MutexGuard<'_, AuditEntry> {
        self.entry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of its change.
    pub(crate) fn now(&self) -> NowMs {
        Arc::clone(&self.now)
    }

    /// What its record is told apart by.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// What its record says when it ends now.
    pub(crate) fn entry(&self, outcome: &str) -> AuditEntry {
        let mut entry = self.hold().clone();
        entry.time_ms = (self.now)();
        outcome.clone_into(&mut entry.outcome);
        entry
    }

    /// To be said before the record is written; true when it may be written already.
    pub(crate) fn set_tried(&self) -> bool {
        self.is_tried.swap(true, Ordering::SeqCst)
    }

    pub(crate) fn set_written(&self) {
        self.is_written.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_written(&self) -> bool {
        self.is_written.load(Ordering::SeqCst)
    }
}

/// A text that every database takes: bounded, and without the NUL that PostgreSQL refuses. It says
/// so when it was cut.
fn shorten(text: &mut String, bytes_max: usize) {
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
    }
    if bytes_max < text.len() {
        text.truncate(text.floor_char_boundary(bytes_max - CUT.len()));
        text.push_str(CUT);
    }
}
