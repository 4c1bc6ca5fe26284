//! Commands of the prompt that are no SQL: a backslash and a word, as `psql` has them.

/// What `\?` shows.
pub(super) const HELP: &str = r"Statements end with `;` and may have several lines. Ctrl-C cancels the one that runs, or empties the input.
  \d            tables of the namespace; \dt is the same
  \d TABLE      columns of a table
  \ns           namespaces
  \ns NAME      goes on in another namespace
  \x            rows as blocks of lines, or as a table again
  \timing       shows or hides the time of statements
  \q            ends; so do `exit`, `quit` and Ctrl-D
Tab completes keywords, tables and columns. What begins with a blank is not kept in the history.";

/// The commands, for completion.
pub(super) const NAMES: &[&str] = &["\\?", "\\d", "\\dt", "\\ns", "\\q", "\\timing", "\\x"];

/// A command of the prompt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MetaCommand {
    /// Ends the prompt.
    Quit,
    /// Shows the commands.
    Help,
    /// Blocks of lines, or a table again.
    Expanded,
    /// Shows or hides times.
    Timing,
    /// Lists tables.
    Tables,
    /// Lists the columns of a table, named as in SQL.
    Columns(String),
    /// Lists namespaces.
    Namespaces,
    /// Goes on in this namespace.
    Namespace(String),
}

/// The command that a line is; none where it is the beginning of a statement.
///
/// # Errors
/// The text says what to type.
pub(super) fn parse(line: &str) -> Result<Option<MetaCommand>, String> {
    let line = line.trim().trim_end_matches(';').trim_end();
    let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let argument = argument.trim();
    let alone = |command| match argument {
        "" => Ok(Some(command)),
        _ => Err(format!("`{name}` takes nothing behind it; \\? shows the commands")),
    };
    match (name, argument) {
        ("exit" | "quit" | "\\q", "") => Ok(Some(MetaCommand::Quit)),
        ("help" | "?", "") => Ok(Some(MetaCommand::Help)),
        ("\\?" | "\\h", _) => Ok(Some(MetaCommand::Help)),
        ("\\q", _) => alone(MetaCommand::Quit),
        ("\\x", _) => alone(MetaCommand::Expanded),
        ("\\timing", _) => alone(MetaCommand::Timing),
        ("\\dt", _) => alone(MetaCommand::Tables),
        ("\\d", "") => Ok(Some(MetaCommand::Tables)),
        ("\\d", table) => Ok(Some(MetaCommand::Columns(table.to_owned()))),
        ("\\ns", "") => Ok(Some(MetaCommand::Namespaces)),
        ("\\ns", namespace) => Ok(Some(MetaCommand::Namespace(namespace.to_owned()))),
        (name, _) if name.starts_with('\\') => {
            Err(format!("`{name}` is no command of this prompt; \\? shows the commands"))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_command_or_the_beginning_of_a_statement() {
        let check = |line: &str, expected: Option<MetaCommand>| {
            assert_eq!(parse(line), Ok(expected), "{line}");
        };
        check("\\d", Some(MetaCommand::Tables));
        check(" \\dt ; ", Some(MetaCommand::Tables));
        check("\\d  \"odd name\";", Some(MetaCommand::Columns("\"odd name\"".to_owned())));
        check("\\x", Some(MetaCommand::Expanded));
        check("\\timing", Some(MetaCommand::Timing));
        check("\\ns", Some(MetaCommand::Namespaces));
        check("\\ns shop.example", Some(MetaCommand::Namespace("shop.example".to_owned())));
        for line in ["\\q", "exit", "quit;", " exit "] {
            check(line, Some(MetaCommand::Quit));
        }
        for line in ["\\?", "help", "?", "\\h select"] {
            check(line, Some(MetaCommand::Help));
        }
        for line in ["", "select 1", "exit 1", "helpers", "-- \\d"] {
            check(line, None);
        }
        assert!(parse("\\nothing x").unwrap_err().contains("`\\nothing` is no command"));
        assert!(parse("\\x on").unwrap_err().contains("takes nothing behind it"));
    }

    #[test]
    fn the_help_and_completion_have_every_command() {
        for name in NAMES.iter().filter(|name| **name != "\\?") {
            assert!(HELP.contains(name), "{name}");
            assert!(matches!(parse(name), Ok(Some(_))), "{name}");
        }
    }
}
