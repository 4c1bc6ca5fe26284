//! Work that goes on without whoever asked for it, and ends by itself: a change that was begun, a queue
//! that is worked off. The process may end in the middle of it.

use tokio::task::JoinHandle;
use tracing::Instrument;

/// Runs `work` under a name, which its lines in the log carry.
#[expect(
    clippy::disallowed_methods,
    reason = "the catalog knows no service whose `tasks` could stop what ends by itself"
)]
pub(crate) fn run<T: Send + 'static>(
    name: &'static str,
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    tokio::spawn(work.instrument(tracing::info_span!("task", name)))
}
