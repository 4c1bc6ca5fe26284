//! The place in a statement that an error is about, for a person to see.

use crate::cli::{CliError, client::ClientError, sql::text::printable_lines};

/// How much of a long line is shown on either side of the place.
const SHOWN_MAX: usize = 60;

/// The error with the statement's line under it and a mark below the place, where it names one. What it
/// quotes of the data is no command to the terminal.
pub(super) fn pointed(problem: CliError, sql: &str) -> CliError {
    match problem {
        CliError::Client(ClientError::Refused { status, text, place }) => {
            let place = place.or_else(|| place_of_name(&text, sql).filter(|_| status == 400));
            let shown = place.and_then(|place| shown(sql, place));
            let shown = shown.map_or_else(String::new, |shown| format!("\n{shown}"));
            let text = printable_lines(&text) + &shown;
            ClientError::Refused { status, text, place: None }.into()
        }
        CliError::Client(ClientError::Failed(text)) => {
            ClientError::Failed(printable_lines(&text)).into()
        }
        problem => problem,
    }
}

/// Where the statement has the first name that the text quotes: only where it has it once, as any other
/// mark would be a guess.
fn place_of_name(text: &str, sql: &str) -> Option<(usize, usize)> {
    let name = text.split('`').nth(1).filter(|name| !name.is_empty())?.to_ascii_lowercase();
    let lower = sql.to_ascii_lowercase();
    let is_inner = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut found = lower.match_indices(&name).filter(|(at, _)| {
        let (before, behind) = (&lower[..*at], &lower[at + name.len()..]);
        !before.ends_with(is_inner) && !behind.starts_with(is_inner)
    });
    let ((at, _), None) = (found.next()?, found.next()) else { return None };
    let before = &sql[..at];
    let line = before.rsplit('\n').next().unwrap_or_default();
    Some((before.matches('\n').count() + 1, line.chars().count() + 1))
}

/// Line and mark. Tabs are shown as spaces, so that the mark is where it belongs.
fn shown(sql: &str, (line, column): (usize, usize)) -> Option<String> {
    let line = sql.split('\n').nth(line.checked_sub(1)?)?.trim_end();
    let place = column.checked_sub(1)?;
    let from = place.saturating_sub(SHOWN_MAX);
    let letters = line.chars().skip(from).take(SHOWN_MAX * 2);
    let text: String = letters.map(|letter| if letter == '\t' { ' ' } else { letter }).collect();
    let before = if from == 0 { "" } else { "…" };
    let after = if from + SHOWN_MAX * 2 < line.chars().count() { "…" } else { "" };
    let indent = " ".repeat(before.chars().count() + place - from);
    Some(format!("  {before}{text}{after}\n  {indent}^"))
}

#[cfg(test)]
mod tests;
