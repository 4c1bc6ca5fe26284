//! What is shown of texts that may have a password.

/// What stands for a text that is not shown.
pub(super) const HIDDEN: &str = "(hidden)";

/// A URL without those who sign in with it and without its parameters; nothing of a text whose password
/// may be anywhere.
pub(crate) fn without_credentials(url: &str) -> String {
    let marks = ['@', '=', '?', '#', '%'];
    let Some((scheme, rest)) = url.split_once("://") else {
        let (place, path) = url.split_once('/').unwrap_or((url, ""));
        let is_plain = !url.contains(marks) && !path.contains(':') && is_place(place);
        return if is_plain { url } else { HIDDEN }.to_owned();
    };
    let (before, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let shown = after_sign_in(before);
    let place = shown.split('/').next().unwrap_or_default();
    // A password that is not escaped may have these itself.
    if scheme.contains(marks)
        || scheme.contains(':')
        || parameters.contains('@')
        || before.contains('#')
        || shown.contains("%40")
        || !is_place(place)
    {
        return HIDDEN.to_owned();
    }
    format!("{scheme}://{shown}")
}

/// What follows a name and its password.
pub(super) fn after_sign_in(text: &str) -> &str {
    text.rsplit('@').next().unwrap_or_default()
}

/// Whether the path of a file begins with a name and its password, as a URL of a server does.
pub(super) fn has_sign_in(path: &str) -> bool {
    let name = path.split_once('@').map(|(name, _)| name);
    name.is_some_and(|name| !name.starts_with('/') && name.contains(':'))
}

/// Whether this is a host, or one with its port, and not a name with its password.
fn is_place(text: &str) -> bool {
    // The colons of an IPv6 address are in brackets.
    let after = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let text = after.map_or(text, |(_, after)| after);
    text.split_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok())
}

/// The beginning of a text that can be the key of a setting: what follows may be a secret.
pub(crate) fn beginning_of_key(text: &str) -> String {
    let is_of_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match text.find(|c: char| !is_of_key(c)) {
        Some(end) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
