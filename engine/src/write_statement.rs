//! Statements that write a table: `CREATE [OR REPLACE] TABLE … AS` and `INSERT INTO`.
//!
//! Only what stands before the query is read here. The query is checked and run as any other, so nothing
//! of a statement that writes reaches the planner.

use crate::{error::SqlError, grammar::Grammar, guard::SQL_BYTES_MAX};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

/// Most columns that `PARTITIONED BY` names.
const PARTITION_COLUMNS_MAX: usize = 8;
/// What a query begins with, beside a bracket.
const QUERY_STARTS: [&str; 4] = ["select", "with", "values", "from"];

/// A statement that writes a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteStatement {
    /// The namespace that is written before the table's name.
    pub namespace: Option<String>,
    /// The table: in lower case unless it is quoted, as in queries.
    pub table: String,
    /// What becomes of it.
    pub kind: WriteKind,
    /// The query whose rows are written. Blanks stand for what was before it, so that places in errors
    /// are those of the statement.
    pub query: String,
}

/// What a statement does to its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// Makes it.
    Create {
        /// Whether a table that is there already is no error.
        if_not_exists: bool,
        /// Whether a table that is there gets these columns and rows instead of its own.
        replaces: bool,
        /// What its files are apart by, in order.
        partition_by: Vec<PartitionColumn>,
    },
    /// Adds rows.
    Insert {
        /// The columns that the query's are for, in order; none for all of the table's.
        columns: Option<Vec<ColumnName>>,
    },
}

impl WriteKind {
    /// How the statement begins.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Create { .. } => "CREATE TABLE",
            Self::Insert { .. } => "INSERT INTO",
        }
    }
}

/// A column by which the files of a table are apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionColumn {
    /// Its name.
    pub column: ColumnName,
    /// Whether it is its day that counts, and not the value.
    pub is_by_day: bool,
}

/// The name of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnName {
    /// As it is written.
    pub text: String,
    /// Whether it has to be exactly this.
    pub is_quoted: bool,
}

impl ColumnName {
    /// Which of `names` it means: the same, or without quotes the only one that differs by case.
    #[must_use]
    pub fn find<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Option<usize> {
        if let Some(same) = names.clone().position(|name| name == self.text) {
            return Some(same);
        }
        let folded = self.text.to_lowercase();
        let mut like = names.enumerate().filter(|(_, name)| name.to_lowercase() == folded);
        match (like.next(), like.next()) {
            (Some((at, _)), None) if !self.is_quoted => Some(at),
            _ => None,
        }
    }
}

/// The statement, if it is one that writes a table; none for every other, which [`crate::guard`] looks at.
///
/// # Errors
/// [`SqlError::Invalid`] says what such a statement cannot have.
pub fn take(sql: &str) -> Result<Option<WriteStatement>, SqlError> {
    if SQL_BYTES_MAX < sql.len() || !may_write(sql) {
        return Ok(None);
    }
    let grammar = Grammar::default();
    let Ok(mut tokens) = Tokenizer::new(&grammar, sql).tokenize_with_location() else {
        return Ok(None);
    };
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_)));
    let mut head = StatementHead { sql, tokens: &tokens, at: 0 };
    if head.takes_word("insert") {
        return head.insert().map(Some);
    }
    if !head.takes_word("create") {
        return Ok(None);
    }
    let replaces = head.takes_word("or");
    if replaces && !head.takes_word("replace") || !head.takes_word("table") {
        return Ok(None);
    }
    head.create(replaces).map(Some)
}

/// Whether a statement may be one that writes, by its first word: nearly all are told by it, and need no look at
/// their tokens.
fn may_write(sql: &str) -> bool {
    let word = sql.trim_start().split(|letter: char| !letter.is_ascii_alphabetic()).next();
    // Before a comment there is none.
    word.is_none_or(|word| {
        word.is_empty() || ["insert", "create"].iter().any(|it| word.eq_ignore_ascii_case(it))
    })
}

/// What stands before the query.
struct StatementHead<'a> {
    sql: &'a str,
    /// Without blanks.
    tokens: &'a [TokenWithSpan],
    at: usize,
}

impl StatementHead<'_> {
    /// Behind `CREATE [OR REPLACE] TABLE`.
    fn create(mut self, replaces: bool) -> Result<WriteStatement, SqlError> {
        let if_not_exists = self.takes_word("if");
        if if_not_exists && replaces {
            return Err(invalid(
                "a table is replaced or left alone where it is there: leave OR REPLACE or IF NOT EXISTS out",
            ));
        }
        if if_not_exists && !(self.takes_word("not") && self.takes_word("exists")) {
            return Err(invalid("write CREATE TABLE IF NOT EXISTS name AS SELECT …"));
        }
        let (namespace, table) = self.table()?;
        if self.token(0) == Some(&Token::LParen) && !self.is_query(1) {
            return Err(invalid(
                "CREATE TABLE takes its columns from its query: leave the list out, and name them there with AS",
            ));
        }
        if self.takes_word("using") && !self.takes_word("iceberg") {
            return Err(invalid("tables are of Iceberg: leave USING out"));
        }
        let partition_by = match self.takes_word("partitioned") {
            true => self.partition_columns()?,
            false => Vec::new(),
        };
        if !self.takes_word("as") {
            return Err(invalid(
                "CREATE TABLE needs AS and a query: CREATE TABLE name AS SELECT …",
            ));
        }
        let kind = WriteKind::Create { if_not_exists, replaces, partition_by };
        Ok(WriteStatement { namespace, table, kind, query: self.query()? })
    }

    /// Behind `INSERT`.
    fn insert(mut self) -> Result<WriteStatement, SqlError> {
        if !self.takes_word("into") {
            return Err(invalid("only INSERT INTO name SELECT … or VALUES … is available"));
        }
        if self.is_word(0, "table") && matches!(self.token(1), Some(Token::Word(_))) {
            self.at += 1;
        }
        let (namespace, table) = self.table()?;
        let columns = match self.token(0) == Some(&Token::LParen) && !self.is_query(1) {
            true => Some(self.column_list()?),
            false => None,
        };
        let kind = WriteKind::Insert { columns };
        Ok(WriteStatement { namespace, table, kind, query: self.query()? })
    }

    /// A table's name, and the namespace before it.
    fn table(&mut self) -> Result<(Option<String>, String), SqlError> {
        let folded = |name: ColumnName| match name.is_quoted {
            true => name.text,
            false => name.text.to_lowercase(),
        };
        let mut parts = vec![folded(self.name("a table")?)];
        while self.takes(&Token::Period) {
            parts.push(folded(self.name("a table")?));
        }
        let table = parts.pop().unwrap_or_default();
        Ok(((!parts.is_empty()).then(|| parts.join(".")), table))
    }

    fn name(&mut self, what: &str) -> Result<ColumnName, SqlError> {
        let Some(Token::Word(word)) = self.token(0) else {
            return Err(invalid(format!("the name of {what} is missing{}", self.place())));
        };
        let name = ColumnName { text: word.value.clone(), is_quoted: word.quote_style.is_some() };
        self.at += 1;
        Ok(name)
    }

    /// Columns in brackets.
    fn column_list(&mut self) -> Result<Vec<ColumnName>, SqlError> {
        let mut columns = Vec::new();
        self.expect(&Token::LParen)?;
        loop {
            columns.push(self.name("a column")?);
            if !self.takes(&Token::Comma) {
                break;
            }
        }
        self.expect(&Token::RParen)?;
        Ok(columns)
    }

    /// Behind `PARTITIONED`.
    fn partition_columns(&mut self) -> Result<Vec<PartitionColumn>, SqlError> {
        if !self.takes_word("by") {
            return Err(invalid("write PARTITIONED BY (column, day(column))"));
        }
        let mut columns = Vec::new();
        self.expect(&Token::LParen)?;
        loop {
            let name = self.name("a column")?;
            let column = match self.takes(&Token::LParen) {
                false => PartitionColumn { column: name, is_by_day: false },
                true if ["day", "days"].contains(&name.text.to_lowercase().as_str()) => {
                    let column = self.name("a column")?;
                    self.expect(&Token::RParen)?;
                    PartitionColumn { column, is_by_day: true }
                }
                true => {
                    return Err(invalid(format!(
                        "PARTITIONED BY takes columns of text and day(…) of times, not `{}`",
                        name.text
                    )));
                }
            };
            columns.push(column);
            if PARTITION_COLUMNS_MAX < columns.len() {
                let text = format!("PARTITIONED BY has more than {PARTITION_COLUMNS_MAX} columns");
                return Err(invalid(text));
            }
            if !self.takes(&Token::Comma) {
                break;
            }
        }
        self.expect(&Token::RParen)?;
        Ok(columns)
    }

    /// The rest of the statement.
    fn query(&self) -> Result<String, SqlError> {
        if !self.is_query(0) {
            return Err(invalid(format!(
                "SELECT, WITH, VALUES or FROM is missing{}: rows that are written come from a query",
                self.place()
            )));
        }
        let start =
            self.tokens.get(self.at).map_or(self.sql.len(), |it| offset(self.sql, it.span.start));
        let (head, query) = self.sql.split_at(start);
        let blanks = head.chars().map(|letter| if letter == '\n' { '\n' } else { ' ' });
        Ok(blanks.chain(query.chars()).collect())
    }

    /// Whether a query begins so many tokens further on, in brackets or not.
    fn is_query(&self, ahead: usize) -> bool {
        let mut ahead = ahead;
        while self.token(ahead) == Some(&Token::LParen) {
            ahead += 1;
        }
        QUERY_STARTS.iter().any(|word| self.is_word(ahead, word))
    }

    fn token(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead).map(|located| &located.token)
    }

    fn is_word(&self, ahead: usize, wanted: &str) -> bool {
        match self.token(ahead) {
            Some(Token::Word(word)) => {
                word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted)
            }
            _ => false,
        }
    }

    fn takes_word(&mut self, wanted: &str) -> bool {
        let is_there = self.is_word(0, wanted);
        self.at += usize::from(is_there);
        is_there
    }

    fn takes(&mut self, wanted: &Token) -> bool {
        let is_there = self.token(0) == Some(wanted);
        self.at += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, wanted: &Token) -> Result<(), SqlError> {
        if self.takes(wanted) {
            return Ok(());
        }
        Err(invalid(format!("`{wanted}` is missing{}", self.place())))
    }

    /// Where the head is read, for an error.
    fn place(&self) -> String {
        match self.tokens.get(self.at) {
            Some(TokenWithSpan { token, span }) => {
                format!(
                    " before `{token}` at line {}, column {}",
                    span.start.line, span.start.column
                )
            }
            None => " at the end".to_owned(),
        }
    }
}

fn invalid(text: impl Into<String>) -> SqlError {
    SqlError::Invalid(text.into())
}

/// The byte at a place.
fn offset(sql: &str, place: Location) -> usize {
    let count = |number: u64| usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
    let line = match count(place.line) {
        0 => 0,
        before => sql.match_indices('\n').nth(before - 1).map_or(sql.len(), |(at, _)| at + 1),
    };
    let mut letters = sql[line..].char_indices();
    letters.nth(count(place.column)).map_or(sql.len(), |(at, _)| line + at)
}

#[cfg(test)]
mod tests;
