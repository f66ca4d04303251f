//! Checksums of pages, verified while the pages pass.
//!
//! The sum is that of `src/include/storage/checksum_impl.h`: FNV-1a in 32 lanes over the page with its
//! checksum field zeroed, mixed with the number of the block, which counts from the start of the relation
//! across its segments. A page that was never written is all zeros and has no sum.

use crate::ops::backup::{PageInspector, ReadAgain};
use std::collections::BTreeMap;

/// Sums computed in parallel.
const LANES: usize = 32;
const PRIME: u32 = 16_777_619;
/// Where the checksum stands in a page, after its LSN.
const CHECKSUM_AT: usize = 8;
/// Where the end of free space stands: 0 means that the page was never initialised.
const UPPER_AT: usize = 14;
/// How often a page that does not hold is read again: a write takes no time, compared with a read.
const READ_AGAIN_MAX: usize = 5;

const BASES: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

fn mix(sum: u32, value: u32) -> u32 {
    let mixed = sum ^ value;
    mixed.wrapping_mul(PRIME) ^ (mixed >> 17)
}

/// Computes the checksum of a page, whatever stands in its checksum field.
pub fn page_checksum(page: &[u8], block: u32) -> u16 {
    let mut sums = BASES;
    for (row, bytes) in page.chunks_exact(4 * LANES).enumerate() {
        for (lane, (sum, word)) in sums.iter_mut().zip(bytes.chunks_exact(4)).enumerate() {
            let mut value = word.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
            if row == 0 && lane == CHECKSUM_AT / 4 {
                // The field itself counts as zero; the flags beside it count.
                value &= 0xFFFF_0000;
            }
            *sum = mix(*sum, value);
        }
    }
    for _ in 0..2 {
        for sum in &mut sums {
            *sum = mix(*sum, 0);
        }
    }
    let folded = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
    // Never zero, so that a missing sum shows.
    ((folded % 65_535) + 1) as u16
}

/// Says whether a page holds: its checksum is right, or it is one that was never written (B10).
pub fn page_holds(page: &[u8], block: u32) -> bool {
    let field = |at: usize| page.get(at..at + 2).map_or([0; 2], |bytes| [bytes[0], bytes[1]]);
    if field(UPPER_AT) == [0; 2] {
        return page.iter().all(|byte| *byte == 0);
    }
    u16::from_le_bytes(field(CHECKSUM_AT)) == page_checksum(page, block)
}

/// Blocks of one file that do not hold, as they are written down: `3,7-9`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BadPages {
    ranges: Vec<(u64, u64)>,
}

impl BadPages {
    /// Adds a block behind all others.
    pub fn push(&mut self, block: u64) {
        match self.ranges.last_mut() {
            Some((_, last)) if block == *last + 1 => *last = block,
            _ => self.ranges.push((block, block)),
        }
    }

    /// Returns how many there are.
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| last.saturating_sub(*first).saturating_add(1)).sum()
    }

    /// Reads the text of them; what cannot be read is left out.
    pub fn parse(text: &str) -> Self {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        Self { ranges: text.split(',').filter_map(range).collect() }
    }
}

impl std::fmt::Display for BadPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// Verifies the pages of files, one file after the other, and gathers what does not hold.
#[derive(Debug)]
pub struct PageVerifier {
    page_bytes: usize,
    file: String,
    first_block: u64,
    /// Blocks by file, counted from the start of the relation.
    pub bad: BTreeMap<String, BadPages>,
    /// Pages that were looked at.
    pub pages: u64,
}

impl PageVerifier {
    /// Begins; pages have this length.
    pub fn new(page_bytes: u32) -> Self {
        let page_bytes = page_bytes as usize;
        Self { page_bytes, file: String::new(), first_block: 0, bad: BTreeMap::new(), pages: 0 }
    }

    /// Goes to a file, whose first page is this block of its relation.
    pub fn enter(&mut self, file: String, first_block: u64) {
        (self.file, self.first_block) = (file, first_block);
    }
}

impl PageInspector for PageVerifier {
    fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    fn inspect(&mut self, offset: u64, bytes: &mut [u8], again: ReadAgain<'_>) {
        let length = self.page_bytes as u64;
        let first = self.first_block + offset / length;
        for (block, page) in (first..).zip(bytes.chunks_exact_mut(self.page_bytes)) {
            self.pages += 1;
            // Numbers of blocks have 32 bits; a file that goes beyond is none of the server's.
            let Ok(number) = u32::try_from(block) else { return };
            let at = offset + (block - first) * length;
            if !page_holds(page, number) && !settle(page, number, at, again) {
                self.bad.entry(self.file.clone()).or_default().push(block);
            }
        }
    }
}

/// Reads a page again until it holds; true if it does then, or if it changed: what is being written is
/// repaired by the log, which holds a full image of every page written during a backup (B9, B10).
fn settle(page: &mut [u8], number: u32, at: u64, again: ReadAgain<'_>) -> bool {
    let mut read = vec![0; page.len()];
    let mut changed = false;
    for _ in 0..READ_AGAIN_MAX {
        match again(at, &mut read) {
            Ok(count) if count == page.len() => {}
            // The file became shorter, which the log knows of.
            _ => return true,
        }
        changed |= read != *page;
        page.copy_from_slice(&read);
        if page_holds(page, number) {
            return true;
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::localfs::LocalError;

    fn page(block: u32, seed: u8) -> Vec<u8> {
        let mut page: Vec<u8> =
            (0..8192_u32).map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed)).collect();
        page[UPPER_AT] = 0x40;
        let sum = page_checksum(&page, block);
        page[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum.to_le_bytes());
        page
    }

    fn never(_: u64, _: &mut [u8]) -> Result<usize, LocalError> {
        panic!("nothing is to be read again");
    }

    fn found(verifier: &PageVerifier) -> Vec<(String, String)> {
        verifier.bad.iter().map(|(file, bad)| (file.clone(), bad.to_string())).collect()
    }

    #[test]
    fn a_sum_depends_on_every_byte_and_on_the_block() {
        let whole = page(7, 1);
        assert!(page_holds(&whole, 7) && !page_holds(&whole, 8));
        for at in (0..8192).step_by(61) {
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            assert!(!page_holds(&flipped, 7), "byte {at}");
        }
    }

    /// B10: pages of zeros are no bad pages; a page that claims to be new and is not, is one.
    #[test]
    fn a_new_page_is_all_zeros() {
        let mut verifier = PageVerifier::new(8192);
        verifier.inspect(0, &mut vec![0; 3 * 8192], &mut never);
        assert!(verifier.bad.is_empty());
        let mut odd = vec![0; 8192];
        odd[5000] = 1;
        assert!(!page_holds(&odd, 0));
    }

    /// B10: block numbers count from the start of the relation across its segments.
    #[test]
    fn blocks_count_across_segments() {
        let mut bytes: Vec<u8> = (131_072..131_076).flat_map(|block| page(block, 3)).collect();
        let mut verifier = PageVerifier::new(8192);
        verifier.enter("base/1/2.1".to_owned(), 131_072);
        verifier.inspect(0, &mut bytes, &mut never);
        assert_eq!((verifier.pages, verifier.bad.len()), (4, 0));
        let broken = |at: usize| at * 8192 + 100;
        bytes[broken(1)] ^= 1;
        bytes[broken(2)] ^= 1;
        let disk = bytes.clone();
        verifier.inspect(0, &mut bytes, &mut |offset, page| {
            page.copy_from_slice(&disk[offset as usize..offset as usize + 8192]);
            Ok(8192)
        });
        assert_eq!(found(&verifier), [("base/1/2.1".to_owned(), "131073-131074".to_owned())]);
    }

    /// B10: a page that was read while it was written is read again, and what came then is kept.
    #[test]
    fn a_torn_page_is_read_again() {
        let (old, new) = (page(5, 1), page(5, 2));
        let mut torn = [&old[..4096], &new[4096..]].concat();
        let mut verifier = PageVerifier::new(8192);
        verifier.inspect(5 * 8192, &mut torn, &mut |offset, page| {
            assert_eq!(offset, 5 * 8192);
            page.copy_from_slice(&new);
            Ok(8192)
        });
        assert!(verifier.bad.is_empty() && torn == new);
        // One that changes at every look is the log's to repair.
        let mut looks = 0;
        verifier.inspect(5 * 8192, &mut torn[..].to_vec(), &mut never);
        torn[9] ^= 1;
        verifier.inspect(5 * 8192, &mut torn, &mut |_, page| {
            looks += 1;
            page.fill(looks);
            Ok(8192)
        });
        assert!(verifier.bad.is_empty() && looks == READ_AGAIN_MAX as u8);
        // One at the end of a file that became shorter is gone.
        verifier.inspect(5 * 8192, &mut torn, &mut |_, _| Ok(0));
        assert!(verifier.bad.is_empty());
    }

    #[test]
    fn lists_of_blocks_are_short_and_read_back() {
        let mut bad = BadPages::default();
        for block in [3, 7, 8, 9, 12] {
            bad.push(block);
        }
        assert_eq!((bad.to_string().as_str(), bad.count()), ("3,7-9,12", 5));
        assert_eq!(BadPages::parse("3,7-9,12"), bad);
        assert_eq!(BadPages::parse("x,-,1-").count(), 0);
    }
}
