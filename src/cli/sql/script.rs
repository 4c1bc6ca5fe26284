//! Text with several statements, cut at the semicolons between them.
//!
//! A semicolon inside of a string, a quoted name, a dollar-quoted text or a comment ends nothing.

/// The statements of a text, and what stands behind the last semicolon.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SqlScript {
    /// Complete statements, without their semicolons; those without a word in them are left out.
    pub(super) statements: Vec<String>,
    /// The start of a statement that is not ended; empty where there is none.
    pub(super) rest: String,
}

/// Where the reader of a text stands.
#[derive(Clone, Copy)]
enum ScriptState {
    Statement,
    /// Quoted by this character, which is doubled inside.
    Quotes(char),
    LineComment,
    /// Block comments nest, as in the standard.
    BlockComment(u32),
}

/// Cuts a text.
pub(super) fn split(text: &str) -> SqlScript {
    let mut statements = Vec::new();
    let (mut start, mut within, mut has_words) = (0, ScriptState::Statement, false);
    let mut characters = text.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        let next = characters.peek().map(|(_, next)| *next);
        match (within, c) {
            (ScriptState::Statement, ';') => {
                if has_words {
                    statements.push(text[start..at].trim().to_owned());
                }
                (start, has_words) = (at + 1, false);
            }
            (ScriptState::Statement, '\'' | '"' | '`') => {
                (within, has_words) = (ScriptState::Quotes(c), true)
            }
            (ScriptState::Statement, '-') if next == Some('-') => within = ScriptState::LineComment,
            (ScriptState::Statement, '/') if next == Some('*') => {
                characters.next();
                within = ScriptState::BlockComment(1);
            }
            (ScriptState::Statement, '$') => {
                has_words = true;
                if let Some(length) = dollar_quoted(&text[at..]) {
                    while characters.next_if(|(other, _)| *other < at + length).is_some() {}
                }
            }
            (ScriptState::Statement, c) => has_words |= !c.is_whitespace(),
            // A doubled quote opens the text again at once.
            (ScriptState::Quotes(quote), c) if c == quote => within = ScriptState::Statement,
            (ScriptState::LineComment, '\n') => within = ScriptState::Statement,
            (ScriptState::BlockComment(depth), '*') if next == Some('/') => {
                characters.next();
                within = match depth {
                    1 => ScriptState::Statement,
                    more => ScriptState::BlockComment(more - 1),
                };
            }
            (ScriptState::BlockComment(depth), '/') if next == Some('*') => {
                characters.next();
                within = ScriptState::BlockComment(depth + 1);
            }
            (
                ScriptState::Quotes(_) | ScriptState::LineComment | ScriptState::BlockComment(_),
                _,
            ) => (),
        }
    }
    let is_open = matches!(within, ScriptState::Quotes(_) | ScriptState::BlockComment(_));
    let rest = match (has_words, is_open) {
        // Blanks at its end may belong to what is open.
        (_, true) => text[start..].trim_start(),
        (true, false) => text[start..].trim(),
        (false, false) => "",
    };
    SqlScript { statements, rest: rest.to_owned() }
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
            assert_eq!(split(text), SqlScript { statements, rest: rest.to_owned() }, "{text}");
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
        check(" select 'open  \n", &[], "select 'open  \n");
        check("select 1; /* open", &["select 1"], "/* open");
        check("select 4-2; select 4/2;", &["select 4-2", "select 4/2"], "");
        check("sélect 'é;é'; ü", &["sélect 'é;é'"], "ü");
    }
}
