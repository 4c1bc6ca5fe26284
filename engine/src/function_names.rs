//! Names of functions, for whoever mistypes one.

use crate::{
    allowed::{AGGREGATE, SCALAR, WINDOW},
    dialect,
};

/// How alike a name is at least that is suggested, of 1.0.
const SIMILAR_MIN: f64 = 0.85;

/// The function that is most like `name`, if one is like it.
#[must_use]
pub fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    let all = [SCALAR, AGGREGATE, WINDOW, dialect::AGGREGATES, dialect::SCALARS];
    let scored =
        all.into_iter().flatten().map(|known| (strsim::jaro_winkler(&name, known), *known));
    let near = scored.filter(|(score, _)| SIMILAR_MIN <= *score);
    near.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, known)| known)
}
