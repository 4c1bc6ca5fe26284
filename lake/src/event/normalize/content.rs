//! What an event says, as a number: whether an event that is sent again says the same.
//!
//! It is made of the text, because it is made of every event. What it calls another content may still
//! say the same in other words: `same` compares those.

use crate::event::json::{JsonMember, last_of_each};
use xxhash_rust::xxh3::xxh3_64;

/// Members that may differ between two sends of one event: the batch, notes on sending.
pub(crate) const NOT_CONTENT: [&str; 5] =
    ["\"_meta\"", "\"meta\"", "\"retries\"", "\"batchId\"", "\"batch_id\""];

/// The sum of the hashes of the members that count, so that their order does not matter.
pub(super) fn content(members: &[JsonMember<'_>]) -> u64 {
    let mut sum = 0_u64;
    for member in last_of_each(members).iter() {
        if NOT_CONTENT.contains(&member.name.raw) {
            continue;
        }
        // Without white space the member's text is the name, a colon and the value.
        let compact = member.text.len() == member.name.raw.len() + 1 + member.value.raw.len();
        let hash = if compact {
            xxh3_64(member.text.as_bytes())
        } else {
            xxh3_64(format!("{}:{}", member.name.raw, member.value.raw).as_bytes())
        };
        sum = sum.wrapping_add(hash);
    }
    sum.max(1)
}
