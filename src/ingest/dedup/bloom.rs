//! A Bloom filter over ids that are hashes already: one cache line a look-up.
//!
//! It never denies an id that was added.

/// Bits a key. With [`BITS_SET`] bits in one 512-bit line about 1 in 150 absent ids passes.
const BITS_PER_ID: u64 = 12;
/// Bits that each id sets within its line.
const BITS_SET: u32 = 6;
const LINE_WORDS: usize = 8;

#[derive(Debug)]
pub(super) struct BloomFilter {
    words: Vec<u64>,
}

impl BloomFilter {
    /// An empty filter for up to `ids` ids.
    pub(super) fn with_capacity(ids: u64) -> Self {
        let lines = (ids * BITS_PER_ID).div_ceil(512).max(1);
        let lines = usize::try_from(lines).expect("an id index is smaller than the address space");
        Self { words: vec![0; lines * LINE_WORDS] }
    }

    pub(super) fn add(&mut self, id: u128) {
        let line = self.line_of(id);
        for bit in bits_of(id) {
            self.words[line + (bit / 64)] |= 1 << (bit % 64);
        }
    }

    /// False when `id` was certainly never added.
    pub(super) fn may_hold(&self, id: u128) -> bool {
        let line = self.line_of(id);
        bits_of(id).all(|bit| self.words[line + (bit / 64)] & (1 << (bit % 64)) != 0)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The filter that [`BloomFilter::to_bytes`] wrote; none when the length cannot be one.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        let whole = rest.is_empty() && !words.is_empty() && words.len() % LINE_WORDS == 0;
        whole.then(|| Self { words: words.iter().map(|word| u64::from_le_bytes(*word)).collect() })
    }

    /// First word of the id's line, chosen by the id's upper half.
    fn line_of(&self, id: u128) -> usize {
        let lines = (self.words.len() / LINE_WORDS) as u128;
        let line = ((id >> 64) * lines) >> 64;
        usize::try_from(line).expect("a line lies within the filter") * LINE_WORDS
    }
}

/// Places within the line, from the id's lower half.
fn bits_of(id: u128) -> impl Iterator<Item = usize> {
    (0..BITS_SET).map(move |n| ((id >> (9 * n)) & 511) as usize)
}
