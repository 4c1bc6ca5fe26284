//! Text with several statements, cut at the semicolons between them.
//!
//! A semicolon inside of a string, a quoted name, a dollar-quoted text or a comment ends nothing.

/// The statements of a text, and what stands behind the last semicolon.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Script {
    /// Complete statements, without their semicolons; those without a word in them are left out.
    pub(super) statements: Vec<String>,
    /// The start of a statement that is not ended; empty where there is none.
    pub(super) rest: String,
}

/// Where the reader of a text stands.
#[derive(Clone, Copy)]
enum Within {
    Statement,
    /// Quoted by this character, which is doubled inside.
    Quotes(char),
    LineComment,
    /// Block comments nest, as in the standard.
    BlockComment(u32),
}

/// Cuts a text.
pub(super) fn split(text: &str) -> Script {
    let mut statements = Vec::new();
    let (mut start, mut within, mut has_words) = (0, Within::Statement, false);
    let mut characters = text.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        let next = characters.peek().map(|(_, next)| *next);
        match (within, c) {
            (Within::Statement, ';') => {
                if has_words {
                    statements.push(text[start..at].trim().to_owned());
                }
                (start, has_words) = (at + 1, false);
            }
            (Within::Statement, '\'' | '"' | '`') => {
                (within, has_words) = (Within::Quotes(c), true)
            }
            (Within::Statement, '-') if next == Some('-') => within = Within::LineComment,
            (Within::Statement, '/') if next == Some('*') => {
                characters.next();
                within = Within::BlockComment(1);
            }
            (Within::Statement, '$') => {
                has_words = true;
                if let Some(length) = dollar_quoted(&text[at..]) {
                    while characters.next_if(|(other, _)| *other < at + length).is_some() {}
                }
            }
            (Within::Statement, c) => has_words |= !c.is_whitespace(),
            // A doubled quote opens the text again at once.
            (Within::Quotes(quote), c) if c == quote => within = Within::Statement,
            (Within::LineComment, '\n') => within = Within::Statement,
            (Within::BlockComment(depth), '*') if next == Some('/') => {
                characters.next();
                within = match depth {
                    1 => Within::Statement,
                    more => Within::BlockComment(more - 1),
                };
            }
            (Within::BlockComment(depth), '/') if next == Some('*') => {
                characters.next();
                within = Within::BlockComment(depth + 1);
            }
            (Within::Quotes(_) | Within::LineComment | Within::BlockComment(_), _) => (),
        }
    }
    let is_open = matches!(within, Within::Quotes(_) | Within::BlockComment(_));
    let rest = if has_words || is_open { text[start..].trim() } else { "" };
    Script { statements, rest: rest.to_owned() }
}

/// The length of a dollar-quoted text (`$$…$$`, `$tag$…$tag$`) at the start of `text`.
fn dollar_quoted(text: &str) -> Option<usize> {
    let tag_end = 1 + text[1..].find('$')?;
    let tag = &text[..=tag_end];
    let is_tag = tag[1..tag_end].chars().all(|c| c.is_alphanumeric() || c == '_')
        && !tag[1..].starts_with(|c: char| c.is_ascii_digit());
    if !is_tag {
        return None;
    }
    // One that is not ended takes all that follows.
    let end = text[tag.len()..].find(tag).map_or(text.len(), |end| tag.len() + end + tag.len());
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_the_semicolons_between_statements() {
        let check = |text: &str, statements: &[&str], rest: &str| {
            let statements = statements.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(split(text), Script { statements, rest: rest.to_owned() }, "{text}");
        };
        check("select 1; select 2;", &["select 1", "select 2"], "");
        check("select 3", &[], "select 3");
        check("select 3\n", &[], "select 3");
        check(" ; ;; \n", &[], "");
        check("select ';' ; select \";\"", &["select ';'"], "select \";\"");
        check("select 'it''s; fine'; x", &["select 'it''s; fine'"], "x");
        check("select 1 -- a; b\n; select 2;", &["select 1 -- a; b", "select 2"], "");
        check("-- only; this\n", &[], "");
        check("/* a; /* b; */ c; */ select 1;", &["/* a; /* b; */ c; */ select 1"], "");
        check(
            "select $$a;b$$; select $q$ $$;$$ $q$;",
            &["select $$a;b$$", "select $q$ $$;$$ $q$"],
            "",
        );
        check("select $1; select $2", &["select $1"], "select $2");
        check("select 'open; x", &[], "select 'open; x");
        check("select 1; /* open", &["select 1"], "/* open");
        check("select 4-2; select 4/2;", &["select 4-2", "select 4/2"], "");
        check("sélect 'é;é'; ü", &["sélect 'é;é'"], "ü");
    }
}
