//! A script: statements with a `;` between them.

/// The statements of `text` without their `;`, empty ones left out. A `;` in a text, a name or a
/// comment ends none.
pub(super) fn statements(text: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let (mut start, mut at) = (0, 0);
    let mut has_code = false;
    while at < text.len() {
        let rest = &text[at..];
        let length = match rest.as_bytes()[0] {
            b';' => {
                if has_code {
                    statements.push(text[start..at].trim());
                }
                (start, has_code) = (at + 1, false);
                1
            }
            quote @ (b'\'' | b'"') => {
                has_code = true;
                // A doubled quote is the end of one piece and the start of the next.
                rest[1..].find(char::from(quote)).map_or(rest.len(), |end| end + 2)
            }
            b'-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => comment(rest),
            byte => {
                has_code |= !byte.is_ascii_whitespace();
                rest.chars().next().map_or(1, char::len_utf8)
            }
        };
        at += length;
    }
    if has_code {
        statements.push(text[start..].trim());
    }
    statements
}

/// The length of a comment, which may have others in it.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests;
