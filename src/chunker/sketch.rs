//! Similarity sketches: three numbers of a chunk, one of which a similar chunk shares.
//!
//! A chunk is sampled at the positions where a cheap hash of 8 bytes is small, so that an insertion
//! moves the samples along with the content. Each sample is the hash of a longer window. Six linear
//! transforms order the samples in six ways, and the largest value of each is a feature: two chunks that
//! share most of their windows share most features. Two features hashed together make a super-feature,
//! so that one shared row does not make a match. Groups of four, as others use, miss the chunks of which
//! a sixth has changed, and those gain most (`docs/chunk-sizes.md`).
//!
//! Recipes show sketches to keys that may not read content. Therefore the last step is a keyed hash:
//! without the chunker's seed nobody can test whether a chunk is the one that he guesses.

use crate::base::Secret;
use crate::wide::wide;

/// Number under which recipes name the algorithm of this module; 0 stands for no sketch.
pub const SKETCH_ALGORITHM: u8 = 1;

/// Context of the derivation that turns a repository's chunker seed into the key of its sketches.
const SKETCH_CONTEXT: &str = "chronolith v1 similarity sketch";

/// Base of the polynomial over a test window of 8 bytes, modulo 2^16.
const TEST_BASE: u16 = 0x9f4d;
/// Last factor of the test, which moves every byte's influence into the bits that are looked at.
const TEST_FACTOR: u16 = 0xeb5b;
/// Last summand, chosen with the two factors so that a run of one byte, whichever, is never sampled:
/// zeros and blanks fill many pages and say nothing.
const TEST_SUMMAND: u16 = 0xb7a3;
/// A position is sampled when this many high bits of its 16-bit hash are zero: one in 128.
const TEST_BITS: u32 = 7;

/// Length in bytes of the window that is a sample.
const WINDOW_BYTES: usize = 24;
/// Factors of the hash of a sample.
const WINDOW_FACTORS: [u64; 3] = [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9];

/// Features of a chunk, in groups of [`GROUP`].
const FEATURES: usize = 6;
/// Features that make one super-feature.
const GROUP: usize = 2;
/// Fewest samples that a sketch may rest on.
const SAMPLES_LEAST: usize = 4;

/// Positions tested together, a number that lets the compiler use vector instructions throughout.
const BLOCK: usize = 512;

/// Three super-features of a chunk. Two chunks that share one are probably similar.
///
/// A super-feature of zero says nothing and matches nothing: chunks too short or too uniform have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Sketch(pub [u32; 3]);

impl Sketch {
    /// The sketch of content that has none.
    pub const NONE: Self = Self([0; 3]);

    /// Length of a stored sketch.
    pub const BYTES: usize = 12;

    /// Returns the stored form: three little-endian numbers.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (four, feature) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
            *four = feature.to_le_bytes();
        }
        bytes
    }

    /// Reads the stored form; every value is a sketch.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        Self([[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_le_bytes))
    }

    /// Returns the super-features by which similar chunks are looked up, with their place (0 to 2).
    pub fn features(self) -> impl Iterator<Item = (usize, u32)> {
        self.0.into_iter().enumerate().filter(|(_, feature)| *feature != 0)
    }

    /// Counts the super-features that two sketches share: 0 means that nothing suggests similarity.
    pub fn shared(self, other: Self) -> usize {
        self.features().filter(|&(place, feature)| other.0.get(place) == Some(&feature)).count()
    }
}

/// Computes the sketches of one repository.
pub struct Sketcher {
    key: Secret,
}

impl Sketcher {
    /// Derives the sketcher from the repository's chunker seed.
    pub fn derive(seed: &Secret) -> Self {
        Self { key: Secret::new(blake3::derive_key(SKETCH_CONTEXT, seed.expose())) }
    }

    /// Computes the sketch of a chunk, [`Sketch::NONE`] where it has too few distinct places.
    pub fn sketch(&self, chunk: &[u8]) -> Sketch {
        let mut features = Features::default();
        scan(chunk, |window| features.take(sample(window)));
        if features.samples < SAMPLES_LEAST {
            return Sketch::NONE;
        }
        let mut sketch = Sketch::NONE;
        for ((place, group), super_feature) in
            (0_u8..).zip(features.largest.as_chunks::<GROUP>().0).zip(&mut sketch.0)
        {
            let mut hasher = blake3::Hasher::new_keyed(self.key.expose());
            hasher.update(&[place]);
            for feature in group {
                hasher.update(&feature.to_le_bytes());
            }
            let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
            // Zero means "none", so the one hash in 2^32 that is zero gives way.
            *super_feature = u32::from_le_bytes([a, b, c, d]).max(1);
        }
        sketch
    }
}

/// The largest value so far of each linear transform.
#[derive(Default)]
struct Features {
    largest: [u32; FEATURES],
    samples: usize,
}

impl Features {
    fn take(&mut self, sample: u32) {
        for (largest, (factor, summand)) in self.largest.iter_mut().zip(TRANSFORMS) {
            *largest = (*largest).max(sample.wrapping_mul(factor).wrapping_add(summand));
        }
        self.samples += 1;
    }
}

/// Factor (odd, so that no two samples become one) and summand of each transform: pairs of numbers
/// of SplitMix64 started at zero, their upper halves.
const TRANSFORMS: [(u32, u32); FEATURES] = {
    let mut transforms = [(0, 0); FEATURES];
    let mut state = 0;
    let mut at = 0;
    while at < FEATURES {
        let (first, second);
        (state, first) = split_mix(state);
        (state, second) = split_mix(state);
        transforms[at] = (first | 1, second);
        at += 1;
    }
    transforms
};

#[expect(clippy::as_conversions, reason = "the upper half of 64 bits is 32 bits")]
const fn split_mix(state: u64) -> (u64, u32) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, ((mixed ^ (mixed >> 31)) >> 32) as u32)
}

/// Hashes one sample: three 8-byte words, each multiplied in and folded.
#[inline]
#[expect(clippy::as_conversions, reason = "the upper half of 64 bits is 32 bits")]
fn sample(window: &[u8; WINDOW_BYTES]) -> u32 {
    let mut hash = 0_u64;
    for (word, factor) in window.as_chunks::<8>().0.iter().zip(WINDOW_FACTORS) {
        hash = (hash ^ (hash >> 32)).wrapping_add(u64::from_le_bytes(*word)).wrapping_mul(factor);
    }
    (hash >> 32) as u32
}

/// Bytes of a block with all that its last window needs.
const BLOCK_WHOLE: usize = BLOCK + WINDOW_BYTES;

/// Calls `take` with the window at each sampled position, in order.
fn scan(chunk: &[u8], mut take: impl FnMut(&[u8; WINDOW_BYTES])) {
    let mut marker = Marker::new();
    let mut at = 0;
    while let Some(block) = chunk.get(at..).and_then(|rest| rest.first_chunk::<BLOCK_WHOLE>()) {
        wide(|| marker.mark(block));
        marker.visit(block, BLOCK, &mut take);
        at += BLOCK;
    }
    // The rest, padded with zeros that no counted position sees.
    let rest = chunk.get(at..).unwrap_or_default();
    let mut block = [0_u8; BLOCK_WHOLE];
    if let Some(start) = block.get_mut(..rest.len()) {
        start.copy_from_slice(rest);
    }
    marker.mark(&block);
    marker.visit(&block, (rest.len() + 1).saturating_sub(WINDOW_BYTES), &mut take);
}

/// Tests all positions of a block at once.
///
/// The polynomial over 8 bytes is built by doubling (2, 4, then 8 bytes), each step over the whole
/// block: no position waits for its neighbour, so that the compiler turns the loops into vector code.
struct Marker {
    two: [u16; BLOCK + 8],
    four: [u16; BLOCK + 4],
    marks: [u8; BLOCK],
}

impl Marker {
    fn new() -> Self {
        Self { two: [0; BLOCK + 8], four: [0; BLOCK + 4], marks: [0; BLOCK] }
    }

    #[inline(always)]
    fn mark(&mut self, block: &[u8; BLOCK_WHOLE]) {
        const BASE_2: u16 = TEST_BASE.wrapping_mul(TEST_BASE);
        const BASE_4: u16 = BASE_2.wrapping_mul(BASE_2);
        for ((sum, first), second) in self.two.iter_mut().zip(block).zip(&block[1..]) {
            *sum = u16::from(*first).wrapping_mul(TEST_BASE).wrapping_add(u16::from(*second));
        }
        for ((sum, first), second) in self.four.iter_mut().zip(&self.two).zip(&self.two[2..]) {
            *sum = first.wrapping_mul(BASE_2).wrapping_add(*second);
        }
        for ((mark, first), second) in self.marks.iter_mut().zip(&self.four).zip(&self.four[4..]) {
            let hash = first.wrapping_mul(BASE_4).wrapping_add(*second);
            let hash = hash.wrapping_mul(TEST_FACTOR).wrapping_add(TEST_SUMMAND);
            *mark = u8::from(hash >> (16 - TEST_BITS) == 0);
        }
    }

    /// Calls `take` for the marked positions before `end`.
    #[inline]
    fn visit(&self, block: &[u8; BLOCK_WHOLE], end: usize, take: &mut impl FnMut(&[u8; WINDOW_BYTES])) {
        for (number, eight) in self.marks.as_chunks::<8>().0.iter().enumerate() {
            let mut left = u64::from_le_bytes(*eight);
            while left != 0 {
                let at = number * 8 + left.trailing_zeros() as usize / 8;
                left &= left - 1;
                if at < end
                    && let Some(window) = block.get(at..).and_then(|rest| rest.first_chunk())
                {
                    take(window);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketcher() -> Sketcher {
        Sketcher::derive(&Secret::new([7; 32]))
    }

    /// A table as a dump writes it, reproducible: `rows` rows from row `first` on.
    fn dump(first: u64, rows: u64, version: impl Fn(u64) -> u64) -> Vec<u8> {
        let mut text = Vec::new();
        for row in first..first + rows {
            let [a, b, c] = [0_u64, 1, 2].map(|column| {
                let seed = [row, version(row), column].map(u64::to_le_bytes).concat();
                let [a, b, c, d, ..] = *blake3::hash(&seed).as_bytes();
                u32::from_le_bytes([a, b, c, d])
            });
            let line = format!(
                "{row}\t{}\tuser{:05}@example.org\t{}.{:02}\tactive\n",
                row * 7,
                a % 99_999,
                b % 10_000,
                c % 100
            );
            text.extend_from_slice(line.as_bytes());
        }
        text
    }

    const TEST_BYTES: usize = 8;

    /// The position of every sample, slowly and after the definition.
    fn positions(chunk: &[u8]) -> Vec<usize> {
        let hash = |window: &[u8]| {
            let polynomial = window
                .iter()
                .fold(0_u16, |sum, byte| sum.wrapping_mul(TEST_BASE).wrapping_add(u16::from(*byte)));
            polynomial.wrapping_mul(TEST_FACTOR).wrapping_add(TEST_SUMMAND)
        };
        (0..(chunk.len() + 1).saturating_sub(WINDOW_BYTES))
            .filter(|&at| hash(&chunk[at..at + TEST_BYTES]) >> (16 - TEST_BITS) == 0)
            .collect()
    }

    #[test]
    fn golden_sketches() {
        let sketcher = sketcher();
        assert_eq!(sketcher.sketch(&dump(0, 3000, |_| 0)), Sketch([1891083763, 674170923, 2005148127]));
        assert_eq!(sketcher.sketch(&dump(5, 40, |_| 0)), Sketch([2865172265, 3366464394, 143424118]));
        assert_eq!(sketcher.sketch(b"too short to say anything about it"), Sketch::NONE);
        assert_eq!(sketcher.sketch(&[]), Sketch::NONE);
    }

    #[test]
    fn constant_runs_are_never_sampled() {
        for byte in 0..=255_u8 {
            scan(&[byte; 4096], |_| panic!("a run of {byte} is sampled"));
            assert_eq!(sketcher().sketch(&[byte; 4096]), Sketch::NONE);
        }
    }

    #[test]
    fn one_position_in_128_is_sampled() {
        let text = dump(0, 20_000, |_| 0);
        let one_in = text.len() / positions(&text).len();
        assert!((100..160).contains(&one_in), "one in {one_in}");
    }

    #[test]
    fn most_chunks_with_a_hundredth_of_their_rows_changed_are_found_and_strangers_are_not() {
        let sketcher = sketcher();
        let (rows, chunks) = (2500, 60);
        let old: Vec<_> = (0..chunks).map(|n| sketcher.sketch(&dump(n * rows, rows, |_| 0))).collect();
        let changed = |row: u64| u64::from(row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57 == 0);
        let (mut found, mut strangers) = (0, 0);
        for n in 0..chunks {
            let new = sketcher.sketch(&dump(n * rows, rows, changed));
            for (m, old) in (0..chunks).zip(&old) {
                match (n == m, new.shared(*old) > 0) {
                    (true, true) => found += 1,
                    (false, true) => strangers += 1,
                    _ => {}
                }
            }
        }
        assert!(found >= chunks - 2, "{found} of {chunks} found");
        assert_eq!(strangers, 0);
    }

    #[test]
    fn the_seed_keys_the_sketch() {
        let chunk = dump(0, 1000, |_| 0);
        let other = Sketcher::derive(&Secret::new([8; 32])).sketch(&chunk);
        assert_eq!(sketcher().sketch(&chunk).shared(other), 0);
    }

    #[test]
    fn absent_features_match_nothing() {
        assert_eq!(Sketch::NONE.shared(Sketch::NONE), 0);
        assert_eq!(Sketch([1, 0, 3]).shared(Sketch([1, 0, 3])), 2);
        assert_eq!(Sketch([1, 2, 3]).shared(Sketch([3, 1, 2])), 0, "each has its place");
    }

    proptest::proptest! {
        #[test]
        fn the_fast_scan_is_the_definition(
            from in 0_u64..1000,
            cut in 0_usize..3000,
            noise in proptest::collection::vec(proptest::num::u8::ANY, 0..1500),
        ) {
            let mut chunk = dump(from, 40, |_| 0);
            chunk.truncate(cut);
            chunk.extend(&noise);
            let mut taken = Vec::new();
            scan(&chunk, |window| taken.push(*window));
            let slow: Vec<[u8; WINDOW_BYTES]> =
                positions(&chunk).iter().map(|at| *chunk[*at..].first_chunk().unwrap()).collect();
            proptest::prop_assert_eq!(taken, slow);
        }

        #[test]
        fn stored_form_reads_back(features: [u32; 3]) {
            proptest::prop_assert_eq!(Sketch::from_bytes(Sketch(features).to_bytes()), Sketch(features));
        }
    }
}
