//! SHA-256.

use ring::digest::{SHA256, digest};

/// The SHA-256 of `bytes`, in hex digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}
