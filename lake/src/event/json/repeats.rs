//! Of several members with one name the last one counts.

use super::{JsonKind, JsonMember};
use std::{borrow::Cow, collections::HashSet};

/// Most members whose names are compared one with another.
const COMPARED_MAX: usize = 64;

/// The members that count, in their order: of each name the last.
#[inline]
pub(crate) fn last_of_each<'m, 'a>(members: &'m [JsonMember<'a>]) -> Cow<'m, [JsonMember<'a>]> {
    if !may_repeat(members) {
        return Cow::Borrowed(members);
    }
    let mut seen = HashSet::with_capacity(members.len());
    let is_new = |member: &&JsonMember<'a>| seen.insert(member.name.text().unwrap_or_default());
    let mut last: Vec<JsonMember<'a>> = members.iter().rev().filter(is_new).copied().collect();
    last.reverse();
    Cow::Owned(last)
}

/// Whether two members may have one name; mostly told by a bit for each name.
#[inline]
fn may_repeat(members: &[JsonMember<'_>]) -> bool {
    if COMPARED_MAX < members.len() {
        return true;
    }
    let (mut seen, mut taken, mut is_escaped) = (0_u64, 0, false);
    for member in members {
        let bit = 1 << place(member.name.raw);
        taken |= seen & bit;
        seen |= bit;
        is_escaped |= member.name.kind == JsonKind::Escaped;
    }
    is_escaped || (taken != 0 && have_one_name(members))
}

fn have_one_name(members: &[JsonMember<'_>]) -> bool {
    members
        .iter()
        .enumerate()
        .any(|(at, member)| members[..at].iter().any(|other| other.name.raw == member.name.raw))
}

/// The place of a name, with its quotes, among 64 bits.
#[inline]
fn place(name: &str) -> u32 {
    let [_, first, .., last, _] = *name.as_bytes() else { return 0 };
    let signs = u32::from_le_bytes([name.len().to_le_bytes()[0], first, last, 0]);
    // The top six bits of a product depend on all of its bits (Knuth's multiplicative hash).
    signs.wrapping_mul(0x9e37_79b1) >> 26
}
