//! Patterns of `to_char` and `strftime`.
//!
//! A pattern with `%` is one of `strftime`; any other is one of PostgreSQL. A letter that means nothing
//! is refused: it would stand in every answer as it is.

use chrono::{
    Datelike, NaiveDateTime, Timelike,
    format::{Item, StrftimeItems},
};
use datafusion::{common::exec_err, error::DataFusionError};
use std::fmt::Write;

/// A pattern that was read.
#[derive(Debug)]
pub struct TimeFormat(Vec<FormatPiece>);

#[derive(Debug)]
enum FormatPiece {
    /// What `chrono` writes for this, cut and filled to nothing.
    Strftime(String),
    /// A name in some case, filled with spaces to this many letters.
    Name { strftime: &'static str, case: LetterCase, width: usize },
    /// Something that only PostgreSQL has.
    Field(TimeField),
    /// As it is.
    Text(String),
}

#[derive(Clone, Copy, Debug)]
enum LetterCase {
    AsIs,
    Upper,
    Lower,
}

#[derive(Clone, Copy, Debug)]
enum TimeField {
    WeekOfYear,
    Quarter,
    DayOfWeek,
    SecondOfDay,
}

/// PostgreSQL's words that `strftime` has too, the longest of each beginning first.
const WORDS: &[(&str, &str)] = &[
    ("IYYY", "%G"),
    ("YYYY", "%Y"),
    ("YY", "%y"),
    ("HH24", "%H"),
    ("HH12", "%I"),
    ("HH", "%I"),
    ("DDD", "%j"),
    ("DD", "%d"),
    ("MM", "%m"),
    ("MI", "%M"),
    ("MS", "%3f"),
    ("US", "%6f"),
    ("SS", "%S"),
    ("IW", "%V"),
    ("ID", "%u"),
    ("AM", "%p"),
    ("PM", "%p"),
    ("am", "%P"),
    ("pm", "%P"),
    ("OF", "+00"),
    ("TZ", "UTC"),
];

/// Names, with how many letters the longest has.
const NAMES: &[(&str, &str, LetterCase, usize)] = &[
    ("Month", "%B", LetterCase::AsIs, 9),
    ("MONTH", "%B", LetterCase::Upper, 9),
    ("month", "%B", LetterCase::Lower, 9),
    ("Mon", "%b", LetterCase::AsIs, 0),
    ("MON", "%b", LetterCase::Upper, 0),
    ("mon", "%b", LetterCase::Lower, 0),
    ("Day", "%A", LetterCase::AsIs, 9),
    ("DAY", "%A", LetterCase::Upper, 9),
    ("day", "%A", LetterCase::Lower, 9),
    ("Dy", "%a", LetterCase::AsIs, 0),
    ("DY", "%a", LetterCase::Upper, 0),
    ("dy", "%a", LetterCase::Lower, 0),
];

/// The rest of PostgreSQL's words.
const FIELDS: &[(&str, TimeField)] = &[
    ("SSSSS", TimeField::SecondOfDay),
    ("SSSS", TimeField::SecondOfDay),
    ("WW", TimeField::WeekOfYear),
    ("Q", TimeField::Quarter),
    ("D", TimeField::DayOfWeek),
];

impl TimeFormat {
    /// A pattern of `to_char`.
    ///
    /// # Errors
    /// It has a letter that means nothing.
    pub fn of_to_char(pattern: &str) -> Result<Self, DataFusionError> {
        if pattern.contains('%') {
            check_strftime(pattern)?;
            return Ok(Self(vec![FormatPiece::Strftime(pattern.to_owned())]));
        }
        let mut pieces = Vec::new();
        let mut rest = pattern;
        let mut fills = true;
        while let Some(first) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix('"') {
                let Some((text, after)) = after.split_once('"') else {
                    return exec_err!("to_char's pattern `{pattern}` has an unclosed quote");
                };
                pieces.push(FormatPiece::Text(text.to_owned()));
                rest = after;
            } else if let Some(after) = rest.strip_prefix("FM") {
                (fills, rest) = (false, after);
                continue;
            } else if !first.is_ascii_alphabetic() {
                pieces.push(FormatPiece::Text(first.to_string()));
                rest = &rest[first.len_utf8()..];
            } else {
                let Some((piece, after)) = word(rest, fills) else {
                    return exec_err!(
                        "to_char does not know `{rest}` in its pattern `{pattern}`; put text in double quotes, or write a strftime pattern such as %Y-%m-%d"
                    );
                };
                pieces.push(piece);
                rest = after;
            }
            fills = true;
        }
        Ok(Self(pieces))
    }

    /// A pattern of `strftime`, as DuckDB has it: `%f` are microseconds.
    ///
    /// # Errors
    /// It has a letter that means nothing.
    pub fn of_strftime(pattern: &str) -> Result<Self, DataFusionError> {
        let pattern = pattern.replace("%f", "%6f").replace("%g", "%3f");
        check_strftime(&pattern)?;
        Ok(Self(vec![FormatPiece::Strftime(pattern)]))
    }

    /// The text of a time.
    ///
    /// # Errors
    /// The pattern needs something that a time without zone has not.
    pub fn write(&self, time: NaiveDateTime) -> Result<String, DataFusionError> {
        let mut text = String::new();
        for piece in &self.0 {
            let done = match piece {
                FormatPiece::Strftime(pattern) => {
                    write!(text, "{}", time.and_utc().format(pattern))
                }
                FormatPiece::Text(plain) => {
                    text.push_str(plain);
                    Ok(())
                }
                FormatPiece::Name { strftime, case, width } => {
                    let name = time.format(strftime).to_string();
                    let name = match case {
                        LetterCase::AsIs => name,
                        LetterCase::Upper => name.to_uppercase(),
                        LetterCase::Lower => name.to_lowercase(),
                    };
                    write!(text, "{name:<width$}")
                }
                FormatPiece::Field(field) => write_field(&mut text, *field, time),
            };
            if done.is_err() {
                return exec_err!("the pattern needs a part that this time does not have");
            }
        }
        Ok(text)
    }
}

fn write_field(text: &mut String, field: TimeField, time: NaiveDateTime) -> std::fmt::Result {
    match field {
        TimeField::WeekOfYear => write!(text, "{:02}", time.ordinal0() / 7 + 1),
        TimeField::Quarter => write!(text, "{}", time.month0() / 3 + 1),
        TimeField::DayOfWeek => write!(text, "{}", time.weekday().number_from_sunday()),
        TimeField::SecondOfDay => write!(text, "{}", time.num_seconds_from_midnight()),
    }
}

fn check_strftime(pattern: &str) -> Result<(), DataFusionError> {
    if StrftimeItems::new(pattern).any(|item| matches!(item, Item::Error)) {
        return exec_err!("`{pattern}` is not a strftime pattern such as %Y-%m-%d");
    }
    Ok(())
}

/// The word that a pattern begins with, and what follows.
fn word(rest: &str, fills: bool) -> Option<(FormatPiece, &str)> {
    let bare = |strftime: &str| {
        if fills { strftime.to_owned() } else { strftime.replace('%', "%-") }
    };
    // `SSSS` begins like `SS`, `DAY` like `D`: fields and names that are longer come first.
    let fields = FIELDS.iter().map(|(word, field)| (*word, FormatPiece::Field(*field)));
    let names = NAMES.iter().map(|(word, strftime, case, width)| {
        let width = if fills { *width } else { 0 };
        (*word, FormatPiece::Name { strftime, case: *case, width })
    });
    let words = WORDS.iter().map(|(word, strftime)| {
        let is_plain = strftime.contains('f') || !strftime.contains('%');
        let pattern = if is_plain { (*strftime).to_owned() } else { bare(strftime) };
        (*word, FormatPiece::Strftime(pattern))
    });
    let longest = fields.chain(names).chain(words).filter(|(word, _)| rest.starts_with(word));
    let (word, piece) = longest.max_by_key(|(word, _)| word.len())?;
    Some((piece, &rest[word.len()..]))
}
