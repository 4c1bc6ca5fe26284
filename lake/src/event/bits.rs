//! A set of small numbers, a bit each.

/// Numbers below `64 * WORDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BitSet<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> BitSet<WORDS> {
    pub(crate) const NONE: Self = Self([0; WORDS]);

    /// These numbers.
    pub(crate) const fn of(numbers: &[usize]) -> Self {
        let mut bits = Self::NONE;
        let mut at = 0;
        while at < numbers.len() {
            bits.0[numbers[at] / 64] |= 1 << (numbers[at] % 64);
            at += 1;
        }
        bits
    }

    #[inline]
    pub(crate) fn has(&self, number: usize) -> bool {
        self.0[number / 64] >> (number % 64) & 1 == 1
    }

    #[inline]
    pub(crate) fn add(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    #[inline]
    pub(crate) fn remove(&mut self, number: usize) {
        self.0[number / 64] &= !(1 << (number % 64));
    }

    /// Takes all others out.
    pub(crate) fn keep_only(&mut self, number: usize) {
        let had = self.has(number);
        *self = Self::NONE;
        if had {
            self.add(number);
        }
    }

    /// Whether both have a number.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(one, other)| one & other != 0)
    }

    /// Its numbers below `end`, the lowest first, as they are now.
    #[inline]
    pub(crate) fn below(self, end: usize) -> impl Iterator<Item = usize> {
        self.0
            .into_iter()
            .enumerate()
            .flat_map(|(word, bits)| {
                std::iter::successors(Some(bits), |left| Some(left & left.wrapping_sub(1)))
                    .take_while(|left| *left != 0)
                    .map(move |left| 64 * word + left.trailing_zeros() as usize)
            })
            .take_while(move |number| *number < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_and_go_in_every_word() {
        let mut bits = BitSet::<3>::of(&[0, 63, 64, 130, 191]);
        assert_eq!(bits.below(192).collect::<Vec<_>>(), [0, 63, 64, 130, 191]);
        assert_eq!(bits.below(64).collect::<Vec<_>>(), [0, 63]);
        assert!(bits.has(130) && !bits.has(66) && !bits.has(129));
        bits.remove(130);
        bits.add(129);
        assert_eq!(bits.below(191).collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert!(bits.meets(&BitSet::of(&[129])) && !bits.meets(&BitSet::of(&[130])));
        bits.keep_only(64);
        assert_eq!(bits, BitSet::of(&[64]));
        bits.keep_only(65);
        assert_eq!(bits, BitSet::NONE);
        assert_eq!(BitSet::<3>::NONE.below(192).count(), 0);
    }
}
