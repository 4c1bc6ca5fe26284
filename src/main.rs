//! The `icecore` binary: reads the command line and hands over to [`icecore::cli`].

/// The system's allocator takes a third of the time of small requests and commits.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    icecore::cli::run()
}
