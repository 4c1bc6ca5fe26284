//! The `icecore` binary: reads the command line and hands over to [`icecore::cli`].

fn main() -> std::process::ExitCode {
    icecore::cli::run()
}
