//! One bit for every record of the index: what operations over a whole repository remember of its
//! blobs. 16 million records are 2 MiB.

use std::sync::atomic::{AtomicU64, Ordering};

/// A fixed number of bits, all clear at first. Any thread may set them.
pub(super) struct Bits {
    words: Box<[AtomicU64]>,
}

impl Bits {
    /// Makes this many clear bits.
    pub fn new(length: u64) -> Self {
        let words = usize::try_from(length.div_ceil(64)).unwrap_or(usize::MAX);
        Self { words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    fn place(&self, number: u64) -> (Option<&AtomicU64>, u64) {
        let word = usize::try_from(number / 64).ok().and_then(|word| self.words.get(word));
        (word, 1 << (number % 64))
    }

    /// Says whether a bit is set.
    pub fn get(&self, number: u64) -> bool {
        let (word, bit) = self.place(number);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0)
    }

    /// Sets a bit; says whether it was clear before.
    pub fn set(&self, number: u64) -> bool {
        let (word, bit) = self.place(number);
        word.is_some_and(|word| word.fetch_or(bit, Ordering::Relaxed) & bit == 0)
    }

    /// Returns how many bits are set.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// Clears all bits.
    pub fn clear(&self) {
        self.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// Sets every bit that is set in `other`, and in `both` those that were set in each.
    pub fn unite(&self, other: &Self, both: &Self) {
        for ((word, other), both) in self.words.iter().zip(&other.words).zip(&both.words) {
            let other = other.load(Ordering::Relaxed);
            let before = word.fetch_or(other, Ordering::Relaxed);
            both.fetch_or(before & other, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits() {
        let (bits, other, both) = (Bits::new(130), Bits::new(130), Bits::new(130));
        assert!(bits.set(0) && bits.set(129) && !bits.set(129));
        assert!(bits.get(129) && !bits.get(128) && !bits.get(1000));
        other.set(129);
        other.set(64);
        bits.unite(&other, &both);
        assert_eq!((bits.count(), both.count(), both.get(129)), (3, 1, true));
        bits.clear();
        assert_eq!(bits.count(), 0);
        assert!(!bits.set(1 << 40));
    }
}
