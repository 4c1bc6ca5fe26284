//! What a commit of rows from the log says of numbers without a row: those between the commit before it and its
//! own first row, and those among its own rows.
//!
//! Its one invariant: numbers that no reason is given for are lost. A reason is only given where something other
//! than the commit knows it, such as the log.

/// Entry of a snapshot summary: the numbers without a row up to the last one of the snapshot, each range with its
/// reason, as in `11-15=given-up,21-22=not-logged`; `none` where there are none. Snapshots of earlier versions do
/// not have it, and say nothing of such numbers.
pub const UNUSED_SEQ: &str = "icecore.unused-seq";
/// So far above all others a log begins that takes over.
pub const TAKE_OVER_MARGIN: u64 = 1 << 32;
/// Most ranges of an entry; a commit with more says nothing.
pub const RANGES_MAX: usize = 100;
const NONE: &str = "none";

/// Why no row has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnusedReason {
    /// The log took over, and all of its numbers are above.
    TakenOver,
    /// It is written down that the rows are lost.
    GivenUp,
    /// The log has everything that it ever had there, and no row with the number.
    NotLogged,
    /// The table began with later numbers. An earlier table of its name may have had these.
    BeforeTable,
}

/// Numbers that no row has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnusedNumbers {
    /// The first one.
    pub first: u64,
    /// The last one, not below the first.
    pub last: u64,
    /// Why.
    pub reason: UnusedReason,
}

impl UnusedReason {
    const ALL: [Self; 4] = [Self::TakenOver, Self::GivenUp, Self::NotLogged, Self::BeforeTable];

    fn word(self) -> &'static str {
        match self {
            Self::TakenOver => "taken-over",
            Self::GivenUp => "given-up",
            Self::NotLogged => "not-logged",
            Self::BeforeTable => "before-table",
        }
    }
}

/// The value of [`UNUSED_SEQ`].
#[must_use]
pub fn to_entry(unused: &[UnusedNumbers]) -> String {
    if unused.is_empty() {
        return NONE.to_owned();
    }
    let part = |it: &UnusedNumbers| format!("{}-{}={}", it.first, it.last, it.reason.word());
    unused.iter().map(part).collect::<Vec<_>>().join(",")
}

/// What a value of [`UNUSED_SEQ`] says. A part that does not read gives no reason.
#[must_use]
pub fn of_entry(text: &str) -> Vec<UnusedNumbers> {
    let part = |part: &str| {
        let (range, word) = part.split_once('=')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
        let reason = UnusedReason::ALL.into_iter().find(|reason| reason.word() == word)?;
        (first <= last).then_some(UnusedNumbers { first, last, reason })
    };
    text.split(',').filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_back_as_it_was_written() {
        let of = |first, last, reason| UnusedNumbers { first, last, reason };
        let all = [
            of(1, 4, UnusedReason::BeforeTable),
            of(11, 15, UnusedReason::GivenUp),
            of(21, 21, UnusedReason::NotLogged),
            of(31, 90, UnusedReason::TakenOver),
        ];
        let text = "1-4=before-table,11-15=given-up,21-21=not-logged,31-90=taken-over";
        assert_eq!(to_entry(&all), text);
        assert_eq!(of_entry(&to_entry(&all)), all);
        assert_eq!((to_entry(&[]).as_str(), of_entry("none")), ("none", Vec::new()));
        // Nobody is believed who says something else.
        let odd = of_entry("5-4=given-up,7=given-up,8-9=wished,x-9=given-up,,11-15=given-up");
        assert_eq!(odd, [of(11, 15, UnusedReason::GivenUp)]);
    }
}
