//! What is shown of texts that may have a password.

/// What stands for a text that is not shown.
pub(super) const HIDDEN: &str = "(hidden)";

/// A URL without those who sign in with it and without its parameters; nothing of a text whose password
/// may be anywhere.
pub(super) fn without_credentials(url: &str) -> String {
    let marks = ['@', '=', '?'];
    let Some((scheme, rest)) = url.split_once("://") else {
        return if url.contains(marks) { HIDDEN } else { url }.to_owned();
    };
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    // A password that is not escaped may have these itself.
    if scheme.contains(marks) || scheme.contains(':') || parameters.contains('@') {
        return HIDDEN.to_owned();
    }
    let place = place.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{place}")
}
