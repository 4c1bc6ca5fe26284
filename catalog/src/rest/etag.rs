//! Names of answers to loads of a table (`ETag`), and the answers that are kept by them.
//!
//! Its one invariant: two answers that differ have different names.

use super::ordered::SnapshotMode;
use crate::catalog::LoadedTable;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Most bytes of answers that are kept for clients that load a table again.
const ANSWERS_BYTES_MAX: usize = 16 << 20;

/// Names the answer. The file's name is in it because a repeated request is answered with the file
/// it made, whatever the version is now, and the version because a file may be registered twice.
pub(super) fn etag(table: &LoadedTable, tag: &str, snapshots: SnapshotMode) -> String {
    let (uuid, version) = (table.metadata.uuid().simple(), table.version);
    let file = xxhash_rust::xxh3::xxh3_64(table.metadata_location.as_bytes());
    let mode = match snapshots {
        SnapshotMode::All => "all",
        SnapshotMode::Refs => "refs",
    };
    format!("\"{uuid}-{version}-{file:016x}-{mode}{tag}\"")
}

/// Whether the client already has the answer of this name.
pub(super) fn has_etag(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag)
}

/// Answers as they were sent last: a client loads a table for every statement, and its metadata is
/// long.
#[derive(Debug, Default)]
pub(super) struct AnswerCache {
    kept: Mutex<CachedAnswers>,
}

#[derive(Debug, Default)]
struct CachedAnswers {
    by_etag: HashMap<String, Bytes>,
    /// The same names, newest last.
    order: VecDeque<String>,
    bytes: usize,
}

impl AnswerCache {
    pub(super) fn get_or_encode(&self, etag: &str, encode: impl FnOnce() -> Bytes) -> Bytes {
        if let Some(body) = self.lock().by_etag.get(etag) {
            return body.clone();
        }
        // Two requests may encode the same table; the lock is not held for that long.
        let body = encode();
        let mut kept = self.lock();
        if kept.by_etag.insert(etag.to_owned(), body.clone()).is_none() {
            kept.order.push_back(etag.to_owned());
            kept.bytes += body.len();
        }
        while ANSWERS_BYTES_MAX < kept.bytes {
            let oldest = kept.order.pop_front();
            let dropped = oldest.and_then(|oldest| kept.by_etag.remove(&oldest));
            kept.bytes -= dropped.map_or(kept.bytes, |body| body.len());
        }
        body
    }

    fn lock(&self) -> MutexGuard<'_, CachedAnswers> {
        // Nothing between the steps of a change can panic.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
