//! The form of a bookmark that a change gets whose sender gave it none.
//!
//! Four groups of hexadecimal digits, 8-8-8-32: the `seq` in the first two, so that the order of the
//! texts is the order of the changes, then zeros, then what the event is known by.

/// Digits of the last group.
const ID_DIGITS: usize = 32;

/// The bookmark of the change with this `seq` and key.
#[must_use]
pub fn minted(seq: u64, id: u128) -> String {
    format!("{}{id:032x}", start(seq))
}

/// Whether the change with this `seq` got this bookmark here.
#[must_use]
pub fn is_minted(bookmark: &str, seq: u64) -> bool {
    bookmark.starts_with(&start(seq))
}

/// The `seq` of the change that got this bookmark here; none for one that a sender gave it.
#[must_use]
pub fn minted_seq(bookmark: &str) -> Option<u64> {
    let (high, rest) = bookmark.split_once('-')?;
    let low = rest.split('-').next()?;
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    let seq = number(high)?.checked_mul(1 << 32)?.checked_add(number(low)?)?;
    // It is one if it is written as it would be.
    let id = bookmark.strip_prefix(&start(seq))?;
    let is_id = id.len() == ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then_some(seq)
}

/// The bookmark of the moment right after this `seq`, whether an event has that number or not. It sorts behind
/// every change up to there and before all later ones. No change is known by that id, so none has this bookmark.
#[must_use]
pub fn of_moment(seq: u64) -> String {
    minted(seq, u128::MAX)
}

/// The `seq` before the moment that this bookmark is of; none for a bookmark of a change.
#[must_use]
pub fn moment_seq(bookmark: &str) -> Option<u64> {
    minted_seq(bookmark).filter(|seq| bookmark == of_moment(*seq))
}

fn start(seq: u64) -> String {
    format!("{:08x}-{:08x}-{:08x}-", seq >> 32, seq & 0xffff_ffff, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bookmarks_sort_like_the_changes() {
        let seqs = [1, 9, 10, 255, 256, u64::from(u32::MAX), 1 << 32, u64::MAX];
        let made: Vec<String> = seqs.iter().rev().map(|seq| minted(*seq, u128::MAX - 5)).collect();
        let mut sorted = made.clone();
        sorted.sort();
        sorted.reverse();
        assert_eq!(made, sorted);
        assert_eq!(minted(17, 10), "00000000-00000011-00000000-0000000000000000000000000000000a");
        assert!(seqs.iter().all(|seq| minted_seq(&minted(*seq, 7)) == Some(*seq)));
        for other in ["", "b-1", "11-11-00000000-0a", "0000000g-00000011-00000000-"] {
            assert_eq!(minted_seq(other), None, "{other}");
        }
        assert!(is_minted(&minted(17, 10), 17) && !is_minted(&minted(18, 10), 17));
    }

    #[test]
    fn a_moment_sorts_between_the_changes_around_it() {
        assert_eq!(moment_seq(&of_moment(17)), Some(17));
        assert_eq!(moment_seq(&minted(17, 1)), None);
        assert!(minted(17, u128::MAX - 5) < of_moment(17) && of_moment(17) < minted(18, 0));
    }
}
