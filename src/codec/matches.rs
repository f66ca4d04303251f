//! What a chunk has in common with a base that is nearly the same, found faster than zstd finds it.
//!
//! zstd enters every third byte of the base into two tables and looks every position of the chunk up in them.
//! Where nearly all of the chunk stands in the base it is enough to go on comparing: at the distance of the
//! last match, which is where everything is until something was inserted; and only where that fails, in a table of
//! windows of the base, few and long, so that a window seldom stands in two places. Measured in
//! `docs/differences.md`.

use crate::sequences::Match;

/// Length in bytes of the windows by which a place in the base is found.
const WINDOW_BYTES: usize = 16;

/// Every so many bytes of the base a window is entered. What is common and at least a window and this long is
/// found; its start is then looked for backwards.
const STEP_BYTES: usize = 8;

/// So many bytes that are equal at the distance of the last match are a match: such a one costs a byte or two.
const SAME_DISTANCE_BYTES: u32 = 5;

/// A chunk of which more than one byte in as many stands nowhere in the base is left to zstd, which finds
/// shorter matches and those within the chunk.
const LITERALS_PART: usize = 32;

/// So is one with more matches than one in as many bytes.
const MATCHES_PART: usize = 128;

/// While nothing is found, steps grow by one every so many bytes (a power of two: this is its logarithm).
const PATIENCE_LOG: u32 = 7;

/// Fewest entries of the table, as a logarithm.
const TABLE_LOG_LEAST: u32 = 8;

/// Odd factors that spread a window over the table: the golden ratio, and a prime of xxHash.
const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f];

/// Finds matches, reusing its table; one per thread.
#[derive(Default)]
pub(super) struct Matcher {
    table: Vec<u32>,
    matches: Vec<Match>,
}

impl Matcher {
    /// Finds what `plain` repeats of `base`; `None` if that is not nearly all of it.
    pub fn find(&mut self, base: &[u8], plain: &[u8]) -> Option<&[Match]> {
        self.matches.clear();
        let (literals_most, matches_most) = (plain.len() / LITERALS_PART, plain.len() / MATCHES_PART + 1);
        let mut table = None;
        // How much further on the last match stands in the base than in the chunk, wrapping below zero.
        let mut ahead = 0_usize;
        let (mut at, mut anchor, mut literals) = (0, 0, 0);
        while let Some(word) = word(plain, at) {
            let same = at.wrapping_add(ahead);
            let place = if starts_alike(base, same, word) {
                Some(same)
            } else {
                let log = *table.get_or_insert_with(|| enter(base, &mut self.table));
                look_up(base, &self.table, log, plain, at)
            };
            let Some(place) = place else {
                if literals + at - anchor > literals_most {
                    return None;
                }
                at += 1 + ((at - anchor) >> PATIENCE_LOG);
                continue;
            };
            let back = common_end(base.get(..place)?, plain.get(anchor..at)?);
            let forward = common_start(base.get(place..)?, plain.get(at..)?);
            let before = at - back - anchor;
            let start = anchor + before;
            ahead = place.wrapping_sub(at);
            literals += before;
            if self.matches.len() == matches_most {
                return None;
            }
            // The base is what precedes the chunk, so it is the whole of it less what the match is further on.
            let distance = base.len().wrapping_sub(ahead);
            self.matches.push(Match { literals: before, distance, length: back + forward });
            at = start + back + forward;
            anchor = at;
        }
        (literals + plain.len() - anchor <= literals_most).then_some(&self.matches)
    }
}

/// Enters the windows of a base; returns the logarithm of the table's length.
fn enter(base: &[u8], table: &mut Vec<u32>) -> u32 {
    let log = (base.len() / STEP_BYTES).max(1).next_power_of_two().ilog2().max(TABLE_LOG_LEAST);
    table.clear();
    table.resize(1 << log, 0);
    for (number, window) in (1_u32..).zip(base.windows(WINDOW_BYTES).step_by(STEP_BYTES)) {
        if let Some(window) = window.first_chunk()
            && let Some(entry) = table.get_mut(slot(window, log))
        {
            *entry = number;
        }
    }
    log
}

/// Returns where in the base the window of `plain` at `at` stands, if it is found.
fn look_up(base: &[u8], table: &[u32], log: u32, plain: &[u8], at: usize) -> Option<usize> {
    let window = plain.get(at..)?.first_chunk::<WINDOW_BYTES>()?;
    let number = usize::try_from(*table.get(slot(window, log))?).ok()?.checked_sub(1)?;
    let place = number * STEP_BYTES;
    (base.get(place..)?.first_chunk() == Some(window)).then_some(place)
}

#[expect(clippy::as_conversions, reason = "the logarithm of a table bounds what is left of the hash")]
fn slot(window: &[u8; WINDOW_BYTES], log: u32) -> usize {
    let [a, b, c, d, e, f, g, h, rest @ ..] = *window;
    let (first, second) = (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes(rest));
    let hash = (first.wrapping_mul(FACTORS[0]) ^ second).wrapping_mul(FACTORS[1]);
    (hash >> (64 - log)) as usize
}

/// Says whether the base, at `place`, starts with the first bytes of `word`.
fn starts_alike(base: &[u8], place: usize, plain: u64) -> bool {
    word(base, place).is_some_and(|base| (base ^ plain) << (64 - 8 * SAME_DISTANCE_BYTES) == 0)
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|eight| u64::from_le_bytes(*eight))
}

/// Length of what both start with.
fn common_start(a: &[u8], b: &[u8]) -> usize {
    let wide = a.as_chunks::<32>().0.iter().zip(b.as_chunks::<32>().0);
    let from = 32 * wide.take_while(|(a, b)| a == b).count();
    let rest = a.get(from..).unwrap_or_default().iter().zip(b.get(from..).unwrap_or_default());
    from + rest.take_while(|(a, b)| a == b).count()
}

/// Length of what both end with.
fn common_end(a: &[u8], b: &[u8]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequences::FrameWriter;

    fn noise(seed: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    /// What the matches say that `plain` is.
    fn played(base: &[u8], plain: &[u8], matches: &[Match]) -> Vec<u8> {
        let mut whole = base.to_vec();
        for found in matches {
            let at = whole.len() - base.len();
            whole.extend_from_slice(&plain[at..at + found.literals]);
            for _ in 0..found.length {
                whole.push(whole[whole.len() - found.distance]);
            }
        }
        let rest = &plain[whole.len() - base.len()..];
        whole.extend_from_slice(rest);
        whole.split_off(base.len())
    }

    /// Finds, plays back, and returns matches and literals.
    fn found(base: &[u8], plain: &[u8]) -> Option<(usize, usize)> {
        let mut matcher = Matcher::default();
        let matches = matcher.find(base, plain)?;
        assert!(played(base, plain, matches) == plain);
        let mut frame = Vec::new();
        FrameWriter::new().unwrap().write(base.len(), plain, matches, &mut frame).unwrap();
        let mut back = Vec::new();
        let mut decompressor = crate::codec::Decompressor::new().unwrap();
        let encoding = crate::codec::Encoding::Difference;
        decompressor.decode(encoding, Some(base), &frame, plain.len(), &mut back).unwrap();
        assert!(back == plain);
        Some((matches.len(), plain.len() - matches.iter().map(|found| found.length).sum::<usize>()))
    }

    #[test]
    fn edits_cost_what_they_change() {
        let base = noise(1, 300_000);
        assert_eq!(found(&base, &base), Some((1, 0)));
        // Something else in its place.
        let mut plain = base.clone();
        plain[1_000..1_010].copy_from_slice(b"0123456789");
        assert_eq!(found(&base, &plain), Some((2, 10)));
        // Inserted, at the start, within and at the end.
        for at in [0, 1, 150_000, 299_999, 300_000] {
            let plain = [&base[..at], b"0123456789", &base[at..]].concat();
            let (matches, literals) = found(&base, &plain).unwrap();
            assert!(matches <= 2 && (10..=18).contains(&literals), "{at}: {matches} {literals}");
        }
        // Left out, likewise.
        for (from, to) in [(0, 10), (150_000, 150_777), (299_000, 300_000)] {
            let plain = [&base[..from], &base[to..]].concat();
            let (matches, literals) = found(&base, &plain).unwrap();
            assert!(matches <= 2 && literals <= 8, "{from}: {matches} {literals}");
        }
        // Moved about.
        let plain = [&base[200_000..], &base[..100_000], &base[100_000..200_000]].concat();
        let (matches, literals) = found(&base, &plain).unwrap();
        assert!(matches <= 4 && literals <= 8, "{matches} {literals}");
    }

    #[test]
    fn what_is_not_nearly_the_same_is_left_to_others() {
        let base = noise(1, 100_000);
        assert_eq!(found(&base, &noise(2, 100_000)), None);
        let plain = [&base[..50_000], &noise(2, 10_000), &base[50_000..]].concat();
        assert_eq!(found(&base, &plain), None);
        // Many short matches: every fortieth byte is another, within the part that may be literals.
        let mut plain = base.clone();
        plain.iter_mut().step_by(40).for_each(|byte| *byte = !*byte);
        assert_eq!(found(&base, &plain), None);
        assert_eq!(found(b"", &base), None);
    }

    #[test]
    fn short_and_uniform_bytes_are_no_trouble() {
        for length in [0, 1, 7, 8, 15, 16, 17, 31, 100] {
            let base = noise(1, length);
            let _ = found(&base, &base);
            let _ = found(&base, &noise(2, length));
            let _ = found(&base, b"");
        }
        let zeros = vec![0; 200_000];
        assert_eq!(found(&zeros, &zeros), Some((1, 0)));
        let (_, literals) = found(&zeros[..100], &zeros).map_or((0, 0), |found| found);
        assert!(literals <= zeros.len() / LITERALS_PART);
        let plain = [&zeros[..70_000], b"something", &zeros[..50_000]].concat();
        assert!(found(&zeros, &plain).unwrap().1 <= 16);
    }
}
