//! Work that would hold up an async thread.

use icecore_catalog::usage;

/// Runs CPU or file work off the async threads; a panic in it goes on in the caller.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(usage::carried(work)).await {
        Ok(value) => value,
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}
