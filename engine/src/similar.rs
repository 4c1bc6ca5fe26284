//! Patterns of `SIMILAR TO` as regular expressions.
//!
//! DataFusion 54 takes such a pattern for a regular expression as it is, in which `%` and `_` stand for
//! themselves, and finds it anywhere in a text (no release mends it).

/// Signs that stand for themselves in such a pattern and for something else in a regular expression.
const PLAIN: [char; 4] = ['.', '^', '$', '#'];

/// The regular expression that matches the same texts; none where the pattern ends with its escape
/// character or in a bracket.
#[must_use]
pub fn to_regex(pattern: &str, escape: Option<char>) -> Option<String> {
    let mut made = "^(?s:".to_owned();
    let mut letters = pattern.chars();
    let mut in_brackets = false;
    while let Some(letter) = letters.next() {
        match letter {
            letter if Some(letter) == escape => {
                made.push_str(&escaped(letters.next()?));
            }
            '[' if !in_brackets => {
                in_brackets = true;
                made.push('[');
            }
            ']' if in_brackets => {
                in_brackets = false;
                made.push(']');
            }
            // Ranges, negation and classes are written in the same way.
            '^' | '-' | ':' if in_brackets => made.push(letter),
            letter if in_brackets => made.push_str(&escaped(letter)),
            '%' => made.push_str(".*"),
            '_' => made.push('.'),
            letter if PLAIN.contains(&letter) => made.push_str(&escaped(letter)),
            letter => made.push(letter),
        }
    }
    made.push_str(")$");
    (!in_brackets).then_some(made)
}

/// A character that stands for itself.
fn escaped(letter: char) -> String {
    match letter.is_ascii_punctuation() {
        true => format!("\\{letter}"),
        false => letter.to_string(),
    }
}
