//! The time, passed in so that tests can set it.

use std::sync::Arc;

/// Milliseconds since 1970.
pub type NowMs = Arc<dyn Fn() -> i64 + Send + Sync>;
