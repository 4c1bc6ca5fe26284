//! The `icecore` binary: reads the command line and hands over to [`icecore::cli`].

/// The system's allocator takes a third of the time of small requests and commits.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `ICECORE_BUILD`, from the environment of the build, names it. It is read here and not in the library,
/// which is then not compiled anew for each commit.
fn main() -> std::process::ExitCode {
    icecore::cli::run(option_env!("ICECORE_BUILD"))
}
