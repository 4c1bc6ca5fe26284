//! What the program says of itself, without settings and without a server.

use crate::cli::{CliError, say};
use clap::Subcommand;
use clap_complete::Shell;
use std::path::{Path, PathBuf};

/// What the program says of itself.
#[derive(Debug, Subcommand)]
pub enum AboutCommand {
    /// Print the version
    Version,
    /// Print the script that completes commands in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page
    Man {
        /// Write the pages of all commands to this folder instead
        folder: Option<PathBuf>,
    },
}

/// The version, with the build if it has a name.
#[must_use]
pub fn version(build: Option<&str>) -> String {
    let version = env!("CARGO_PKG_VERSION");
    build.map_or_else(|| version.to_owned(), |build| format!("{version} ({build})"))
}

/// Prints what was asked for; `line` is the command line as clap has it.
///
/// # Errors
/// Nobody reads stdout, or the folder cannot be written.
pub fn run(command: &AboutCommand, mut line: clap::Command) -> Result<(), CliError> {
    let mut text = Vec::new();
    match command {
        AboutCommand::Version => text = line.render_version().into_bytes(),
        AboutCommand::Completions { shell } => {
            clap_complete::generate(*shell, &mut line, "icecore", &mut text);
        }
        AboutCommand::Man { folder: Some(folder) } => return write_pages(line, folder),
        AboutCommand::Man { folder: None } => {
            let page = clap_mangen::Man::new(without_help(line));
            page.render(&mut text).expect("a Vec takes any bytes");
        }
    }
    say(String::from_utf8_lossy(&text).trim_end())
}

fn write_pages(line: clap::Command, folder: &Path) -> Result<(), CliError> {
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(without_help(line), folder));
    let operation = format!("write manual pages to `{}`", folder.display());
    written.map_err(|source| CliError::Io { operation, source })
}

/// The commands without their `help`, which would have a page for each page.
fn without_help(line: clap::Command) -> clap::Command {
    line.disable_help_subcommand(true).mut_subcommands(without_help)
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn a_build_that_has_a_name_says_it_behind_the_version() {
        let plain = env!("CARGO_PKG_VERSION");
        assert_eq!(version(None), plain);
        assert_eq!(version(Some("1a2b3c4")), format!("{plain} (1a2b3c4)"));
    }
}
