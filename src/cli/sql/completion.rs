//! What Tab offers at the prompt: keywords, tables and columns of the namespace, commands.

use crate::cli::{
    CliError,
    client::ServerClient,
    sql::{ask, meta_command, text::printable},
};
use rustyline::{
    Context, Helper, completion::Completer, highlight::Highlighter, hint::Hinter,
    validate::Validator,
};
use serde::Deserialize;
use std::time::Duration;

/// Longest that the prompt waits for the names of tables and columns.
const NAMES_WAIT_MAX: Duration = Duration::from_secs(3);
/// Names that completion knows; the others have to be typed.
const NAMES_MAX: usize = 20_000;

/// Words of statements, without those that nobody would complete.
const KEYWORDS: &[&str] = &[
    "ALL",
    "AND",
    "ANY",
    "ASC",
    "BETWEEN",
    "CASE",
    "CAST",
    "CROSS",
    "CURRENT",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "EXTRACT",
    "FALSE",
    "FILTER",
    "FIRST",
    "FOLLOWING",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "ILIKE",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "JOIN",
    "LAST",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PRECEDING",
    "RIGHT",
    "ROWS",
    "SELECT",
    "SHOW",
    "SUMMARIZE",
    "TABLES",
    "THEN",
    "TIMESTAMP",
    "TRUE",
    "TRY_CAST",
    "UNBOUNDED",
    "UNION",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
];

/// Keywords that a table follows.
const BEFORE_TABLES: &[&str] = &["FROM", "JOIN", "DESCRIBE", "SUMMARIZE"];

/// A table and its columns.
#[derive(Debug, PartialEq, Eq)]
struct TableNames {
    schema: String,
    name: String,
    columns: Vec<String>,
}

/// What the prompt completes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PromptNames {
    /// In the order of schema and name.
    tables: Vec<TableNames>,
    /// The lines of the statement before the one that is typed.
    pub(super) earlier: String,
}

/// The rows of the query for names.
#[derive(Deserialize)]
struct NameRows {
    rows: Vec<(String, String, String)>,
}

impl PromptNames {
    /// The names that a namespace has now; no names when the server takes too long to list them.
    ///
    /// # Errors
    /// [`CliError::Client`], such as for a namespace that does not exist.
    pub(super) async fn of(client: &ServerClient, namespace: &str) -> Result<Self, CliError> {
        let sql = format!(
            "SELECT table_schema, table_name, column_name FROM information_schema.columns \
             WHERE table_schema <> 'information_schema' \
             ORDER BY table_schema, table_name, ordinal_position LIMIT {NAMES_MAX}"
        );
        let asked = Box::pin(ask(client, namespace, &sql, None, "application/json"));
        let Ok(answer) = tokio::time::timeout(NAMES_WAIT_MAX, asked).await else {
            return Ok(Self::default());
        };
        // An answer in another form has no names; the next statement says what is wrong with it.
        let rows = serde_json::from_slice(&answer?).map_or(Vec::new(), |it: NameRows| it.rows);
        Ok(Self::with(rows))
    }

    fn with(rows: Vec<(String, String, String)>) -> Self {
        let mut tables: Vec<TableNames> = Vec::new();
        // A name that a terminal cannot show as it is can be neither offered nor typed.
        let is_shown = |name: &String| printable(name) == *name;
        for (schema, name, column) in rows {
            if ![&schema, &name, &column].into_iter().all(is_shown) {
                continue;
            }
            match tables.last_mut() {
                Some(table) if table.schema == schema && table.name == name => {
                    table.columns.push(column);
                }
                _ => tables.push(TableNames { schema, name, columns: vec![column] }),
            }
        }
        Self { tables, earlier: String::new() }
    }

    /// Where the word begins that `before` ends with, and the words that it may become.
    fn candidates(&self, before: &str) -> (usize, Vec<String>) {
        let start = before
            .char_indices()
            .rev()
            .take_while(|(_, letter)| letter.is_alphanumeric() || *letter == '_')
            .last()
            .map_or(before.len(), |(at, _)| at);
        let (line, word) = before.split_at(start);
        if let Some(blanks) = line.strip_suffix('\\').filter(|rest| rest.trim().is_empty()) {
            let start = blanks.len();
            let typed = format!("\\{word}");
            let fitting = meta_command::NAMES.iter().filter(|name| name.starts_with(&typed));
            return (start, fitting.map(|name| (*name).to_owned()).collect());
        }
        // In a text there is nothing to complete.
        if !line.matches('\'').count().is_multiple_of(2) {
            return (start, Vec::new());
        }
        let mut words = self.words_behind(line, word);
        words.retain(|name| begins_with(name.trim_start_matches('"'), word));
        words.sort_unstable();
        words.dedup();
        (start, words)
    }

    /// The words that may stand behind `line`, whatever has been typed of them.
    fn words_behind(&self, line: &str, word: &str) -> Vec<String> {
        if let Some(qualified) = line.strip_suffix('.') {
            return self.names_in(last_word(qualified));
        }
        let previous = last_word(line.trim_end());
        let previous_is_command = line.trim_start().starts_with("\\d ");
        if previous_is_command || BEFORE_TABLES.iter().any(|it| it.eq_ignore_ascii_case(previous)) {
            return self.tables.iter().map(|table| quoted(&table.name)).collect();
        }
        let statement = format!("{} {line}", self.earlier);
        let named = self.tables.iter().filter(|table| has_word(&statement, &table.name));
        let mut named: Vec<&TableNames> = named.collect();
        // Before the tables are typed, any column may be meant.
        if named.is_empty() && !word.is_empty() {
            named = self.tables.iter().collect();
        }
        let columns = named.into_iter().flat_map(|table| &table.columns);
        let columns: Vec<String> = columns.map(|name| quoted(name)).collect();
        if word.is_empty() {
            return columns;
        }
        let is_lower = word.chars().all(|letter| !letter.is_uppercase());
        let keyword = |word: &&str| if is_lower { word.to_lowercase() } else { (*word).to_owned() };
        let tables = self.tables.iter().map(|table| quoted(&table.name));
        columns.into_iter().chain(tables).chain(KEYWORDS.iter().map(keyword)).collect()
    }

    /// The columns of a table, or the tables of a schema.
    fn names_in(&self, name: &str) -> Vec<String> {
        let of_table = self.tables.iter().filter(|table| table.name.eq_ignore_ascii_case(name));
        let columns: Vec<String> =
            of_table.flat_map(|table| &table.columns).map(|name| quoted(name)).collect();
        if !columns.is_empty() {
            return columns;
        }
        let of_schema = self.tables.iter().filter(|table| table.schema.eq_ignore_ascii_case(name));
        of_schema.map(|table| quoted(&table.name)).collect()
    }
}

/// The word that a text ends with.
fn last_word(text: &str) -> &str {
    let is_end = |letter: char| !(letter.is_alphanumeric() || letter == '_');
    text.rsplit(is_end).next().unwrap_or_default()
}

/// Whether a name stands in a statement as a word.
fn has_word(statement: &str, name: &str) -> bool {
    let is_end = |letter: char| !(letter.is_alphanumeric() || letter == '_');
    statement.split(is_end).any(|word| !word.is_empty() && word.eq_ignore_ascii_case(name))
}

fn begins_with(name: &str, typed: &str) -> bool {
    let mut letters = name.chars().flat_map(char::to_lowercase);
    typed.chars().flat_map(char::to_lowercase).all(|letter| letters.next() == Some(letter))
}

/// A name as it is written in a statement.
fn quoted(name: &str) -> String {
    let is_plain = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        && !name.starts_with(|letter: char| letter.is_ascii_digit());
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

impl Completer for PromptNames {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.candidates(&line[..pos]))
    }
}

impl Hinter for PromptNames {
    type Hint = String;
}

impl Highlighter for PromptNames {}

impl Validator for PromptNames {}

impl Helper for PromptNames {}

#[cfg(test)]
mod tests;
