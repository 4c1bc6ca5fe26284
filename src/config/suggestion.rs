//! The name that was probably meant.

/// How alike a suggestion is at least, of 1.0; below it suggestions of words with a common start
/// are guesses.
const SIMILAR_MIN: f64 = 0.9;

/// The known name that is nearest to a mistyped one, if one is near.
pub(super) fn suggestion(typed: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let near = |name: &String| strsim::jaro_winkler(&typed.to_lowercase(), &name.to_lowercase());
    let scored = known.map(|name| (near(&name), name)).filter(|(score, _)| SIMILAR_MIN <= *score);
    scored.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, name)| name)
}
