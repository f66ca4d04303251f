//! Cut points: content-defined for streams ([`Cutter`]), fixed for database files ([`PageCutter`]).
//!
//! Both are asked the same way: given what has been read so far from the start of a chunk, how long
//! is that chunk? The answer never depends on how the reads happened to be split.

use super::ChunkerError;
use crate::base::{Secret, limits};
use fastcdc::v2020::{self, Normalization};

/// How strongly lengths are drawn towards the average. Part of the format: it selects the masks.
const NORMALIZATION: Normalization = Normalization::Level1;

/// Bytes behind a chunk that may have a say in where it ends: the scan takes two at a time.
const DECIDING_BYTES: usize = 2;

/// Context of the derivation that turns a repository's chunker seed into its gear table.
const GEAR_CONTEXT: &str = "chronolith v1 gear table";

/// The 256 random numbers of the rolling hash, secret to one repository.
///
/// With a public table anyone could tell from chunk lengths whether a known file is stored.
pub struct GearTable {
    gear: Box<[u64; 256]>,
    /// The same numbers shifted left by one, as the two-bytes-at-a-time scan wants them.
    gear_shifted: Box<[u64; 256]>,
}

impl GearTable {
    /// Derives the table from the repository's chunker seed: 256 little-endian numbers of BLAKE3's output.
    pub fn derive(seed: &Secret) -> Self {
        let mut bytes = [0_u8; 8 * 256];
        blake3::Hasher::new_derive_key(GEAR_CONTEXT).update(seed.expose()).finalize_xof().fill(&mut bytes);
        let mut gear = Box::new([0_u64; 256]);
        for (number, eight) in gear.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *number = u64::from_le_bytes(*eight);
        }
        let gear_shifted = Box::new(gear.map(|number| number << 1));
        Self { gear, gear_shifted }
    }
}

impl Drop for GearTable {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut *self.gear);
        zeroize::Zeroize::zeroize(&mut *self.gear_shifted);
    }
}

/// Shortest, mean and longest chunk of a stream in bytes, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutParameters {
    minimum: u32,
    average: u32,
    maximum: u32,
}

impl CutParameters {
    /// Smallest minimum: below it a chunk costs more in the index than it can save.
    pub const MINIMUM_LEAST: u32 = 64;
    /// Largest average for which masks are defined with room for normalization.
    pub const AVERAGE_MOST: u32 = 4 << 20;

    /// What a new repository cuts streams with; `docs/chunk-sizes.md` says why.
    pub const STREAM: Self = Self { minimum: 32 << 10, average: 128 << 10, maximum: 512 << 10 };

    /// Accepts a set of parameters or says which rule it breaks.
    ///
    /// # Errors
    /// [`ChunkerError::Parameters`] unless all are even, `minimum < average < maximum`, the average is
    /// a power of two and the maximum no longer than the longest blob.
    pub fn new(minimum: u32, average: u32, maximum: u32) -> Result<Self, ChunkerError> {
        let refuse = |why| Err(ChunkerError::Parameters { minimum, average, maximum, why });
        if ![minimum, average, maximum].iter().all(|bytes| bytes.is_multiple_of(2)) {
            return refuse("all three must be even, for the scan takes two bytes at a time");
        }
        if !(minimum < average && average < maximum) {
            return refuse("they must rise from minimum to average to maximum");
        }
        if !average.is_power_of_two() || average > Self::AVERAGE_MOST {
            return refuse("the average must be a power of two of at most 4 MiB");
        }
        if minimum < Self::MINIMUM_LEAST {
            return refuse("the minimum must be at least 64 bytes");
        }
        if u64::from(maximum) > limits::BLOB_BYTES_MAX {
            return refuse("the maximum must not exceed the longest blob");
        }
        Ok(Self { minimum, average, maximum })
    }

    /// Returns the shortest chunk in bytes; only the last one of a stream may be shorter.
    pub fn minimum(&self) -> u32 {
        self.minimum
    }

    /// Returns the length in bytes around which chunks fall.
    pub fn average(&self) -> u32 {
        self.average
    }

    /// Returns the longest chunk in bytes, which is also what a reader must hold to decide.
    pub fn maximum(&self) -> u32 {
        self.maximum
    }
}

/// Finds content-defined cut points: the same bytes are cut at the same places wherever they stand.
pub struct Cutter<'a> {
    table: &'a GearTable,
    minimum: usize,
    average: usize,
    maximum: usize,
    mask_strict: u64,
    mask_relaxed: u64,
}

impl<'a> Cutter<'a> {
    /// Makes a cutter; it keeps no state between chunks.
    pub fn new(table: &'a GearTable, parameters: CutParameters) -> Self {
        let [minimum, average, maximum] =
            [parameters.minimum, parameters.average, parameters.maximum].map(|bytes| bytes as usize);
        let (mask_strict, mask_relaxed) = v2020::select_masks(average, NORMALIZATION);
        Self { table, minimum, average, maximum, mask_strict, mask_relaxed }
    }

    /// Returns the length of the chunk that `buffer` begins with, or `None` if more bytes could change it.
    ///
    /// `at_end` says that nothing follows `buffer`. A buffer of at least the maximum always gets an
    /// answer; an empty one never does. The answer lies between 1 and the length of the buffer.
    pub fn cut(&self, buffer: &[u8], at_end: bool) -> Option<usize> {
        let (_, length) = v2020::cut_gear(
            buffer,
            self.minimum,
            self.average,
            self.maximum,
            self.mask_strict,
            self.mask_relaxed,
            self.mask_strict << 1,
            self.mask_relaxed << 1,
            self.table.gear.as_slice(),
            self.table.gear_shifted.as_slice(),
        );
        // A true cut point lies before the last byte; the whole buffer means that none was found.
        let decided = length < buffer.len() || at_end || buffer.len() >= self.maximum;
        (decided && length > 0).then_some(length)
    }

    /// Does the same for what follows a chunk of `before` bytes that ends at `start`. Where the bytes are those of that chunk
    /// once more, and behind them those that decided where it ends, so is the answer, without a scan: long
    /// stretches of zeros and other repetitions cost no more than a comparison.
    pub fn cut_after(&self, buffer: &[u8], start: usize, before: usize, at_end: bool) -> Option<usize> {
        let next = buffer.get(start..).unwrap_or_default();
        let again = before > 0
            && start.checked_sub(before).is_some_and(|from| {
                let chunk = buffer.get(from..start + DECIDING_BYTES);
                chunk.is_some_and(|chunk| next.get(..chunk.len()) == Some(chunk))
            });
        if again { Some(before) } else { self.cut(next, at_end) }
    }

    /// Cuts a region of a long stream before it is known where the first chunk in it begins: as if one
    /// began with it. Returns where it was taken to begin, and then where chunks end that no further bytes
    /// could change.
    ///
    /// Wherever the true cuts of the stream meet one of these, all that follow are true too, and after a
    /// few chunks they usually do: [`Cutter::join`].
    pub fn cut_ahead(&self, region: &[u8]) -> Vec<usize> {
        let mut cuts = Vec::with_capacity(2 * region.len() / self.average.max(1) + 1);
        cuts.push(0);
        let (mut at, mut before) = (0, 0);
        while let Some(length) = self.cut_after(region, at, before, false) {
            at += length;
            before = length;
            cuts.push(at);
        }
        cuts
    }

    /// Cuts `buffer` from `start`, where a chunk truly begins, with what was found ahead in the region from
    /// `from` to the end: a place, and where chunks end if one begins there. Calls `found` with the end of each
    /// chunk that no further bytes could change, and with its number among those found ahead if it is
    /// the chunk that was found there. The outcome is that of cutting one after the other, wherever the
    /// first place was.
    pub fn join(
        &self,
        buffer: &[u8],
        start: usize,
        from: usize,
        ahead: &[usize],
        mut found: impl FnMut(usize, Option<usize>),
    ) {
        let (mut at, mut before) = (start, 0);
        loop {
            let met = at.checked_sub(from).and_then(|within| ahead.binary_search(&within).ok());
            if let Some(met) = met {
                let further = ahead.iter().enumerate().skip(met + 1);
                further.for_each(|(number, end)| found(from + end, Some(number)));
                return;
            }
            let Some(length) = self.cut_after(buffer, at, before, false) else { return };
            at += length;
            before = length;
            found(at, None);
        }
    }
}

/// Cuts a database file into chunks of one fixed length, so that a page never straddles two.
///
/// Pages are rewritten in place: what stands at an offset resembles what stood there before, and
/// content-defined cuts would only move with every changed page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageCutter {
    chunk_bytes: u32,
}

impl PageCutter {
    /// Least length of a chunk: the largest page of any supported database.
    pub const CHUNK_BYTES_LEAST: u32 = 64 << 10;

    /// What a new repository cuts database files with; `docs/chunk-sizes.md` says why.
    pub const STANDARD: Self = Self { chunk_bytes: 128 << 10 };

    /// Accepts a length in bytes for the chunks of database files.
    ///
    /// # Errors
    /// [`ChunkerError::Pages`] unless it is a power of two, so that every page size divides it, from
    /// [`Self::CHUNK_BYTES_LEAST`] up to the longest blob.
    pub fn new(chunk_bytes: u32) -> Result<Self, ChunkerError> {
        let refuse = |why| Err(ChunkerError::Pages { bytes: chunk_bytes, why });
        if !chunk_bytes.is_power_of_two() {
            return refuse("it must be a power of two");
        }
        if chunk_bytes < Self::CHUNK_BYTES_LEAST {
            return refuse("it must be at least 64 KiB");
        }
        if u64::from(chunk_bytes) > limits::BLOB_BYTES_MAX {
            return refuse("it must not exceed the longest blob");
        }
        Ok(Self { chunk_bytes })
    }

    /// Returns the length of every chunk but the last.
    pub fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    /// Returns the length of the chunk that `buffer` begins with; see [`Cutter::cut`].
    pub fn cut(&self, buffer: &[u8], at_end: bool) -> Option<usize> {
        let whole = self.chunk_bytes as usize;
        match buffer.len() {
            length if length >= whole => Some(whole),
            0 => None,
            length => at_end.then_some(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes that anyone can make again: BLAKE3 of nothing, under a context, as long as wanted.
    fn noise(context: &str, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new_derive_key(context).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn table() -> GearTable {
        GearTable::derive(&Secret::new([7; 32]))
    }

    fn lengths(cutter: &Cutter<'_>, mut data: &[u8]) -> Vec<usize> {
        let mut lengths = vec![];
        while let Some(length) = cutter.cut(data, true) {
            lengths.push(length);
            data = &data[length..];
        }
        lengths
    }

    /// The definition, slowly: the rolling hash starts at the minimum, a chunk ends before the first byte
    /// behind which the masked hash is zero, and the mask changes at the average.
    fn defined(table: &GearTable, parameters: CutParameters, data: &[u8]) -> usize {
        let [minimum, average, maximum] =
            [parameters.minimum, parameters.average, parameters.maximum].map(|bytes| bytes as usize);
        let (strict, relaxed) = match parameters.average {
            1024 => (0x0000_d900_0353_0000, 0x0000_0190_0035_3000),
            131_072 => (0x0000_d907_0753_7000, 0x0000_d903_0353_7000),
            other => panic!("no masks for {other}"),
        };
        // A last byte without a partner is never looked at.
        let end = data.len().min(maximum) & !1;
        let mut hash = 0_u64;
        for (at, byte) in data.iter().enumerate().take(end).skip(minimum) {
            hash = (hash << 1).wrapping_add(table.gear[usize::from(*byte)]);
            // Within a buffer shorter than the average the strict mask holds to its end.
            if hash & (if at < average { strict } else { relaxed }) == 0 {
                return at;
            }
        }
        data.len().min(maximum)
    }

    #[test]
    fn golden_table() {
        let table = table();
        assert_eq!(
            table.gear[..4],
            [0xde5b_8f28_12e8_577b, 0xd6ba_fdb4_3cb7_6369, 0x4400_91d4_8c67_d246, 0x4f8a_baf2_c5f7_00d9]
        );
        assert_eq!(table.gear_shifted[9], table.gear[9] << 1);
    }

    #[test]
    fn golden_cuts() {
        let table = table();
        let data = noise("chronolith test noise", 2 << 20);
        let cutter = Cutter::new(&table, CutParameters::STREAM);
        assert_eq!(
            lengths(&cutter, &data),
            [218780, 202148, 177567, 183454, 100094, 247191, 110286, 356097, 141734, 219470, 85685, 54646]
        );
        assert_eq!(lengths(&cutter, &data)[0], defined(&table, CutParameters::STREAM, &data));
        let small = CutParameters::new(64, 256, 1024).unwrap();
        assert_eq!(
            lengths(&Cutter::new(&table, small), &data[..3000]),
            [89, 414, 292, 332, 425, 278, 579, 284, 307]
        );
        // Nothing to find: always the maximum, then the rest.
        assert_eq!(lengths(&cutter, &vec![0; (1 << 20) + 5]), [512 << 10, 512 << 10, 5]);
    }

    #[test]
    fn another_seed_cuts_elsewhere() {
        let data = noise("chronolith test noise", 2 << 20);
        let other = GearTable::derive(&Secret::new([8; 32]));
        let (table, parameters) = (table(), CutParameters::STREAM);
        assert_ne!(
            lengths(&Cutter::new(&table, parameters), &data),
            lengths(&Cutter::new(&other, parameters), &data)
        );
    }

    #[test]
    fn cuts_find_their_places_again_after_an_insertion() {
        let table = table();
        let cutter = Cutter::new(&table, CutParameters::new(1 << 10, 4 << 10, 16 << 10).unwrap());
        let old = noise("chronolith test noise", 1 << 20);
        let mut new = old.clone();
        new.splice(500_000..500_000, *b"forty bytes more");
        let ends = |data: &[u8]| {
            let mut at = 0;
            lengths(&cutter, data)
                .iter()
                .map(|length| {
                    at += length;
                    data.len() - at
                })
                .collect::<Vec<_>>()
        };
        let (old, new) = (ends(&old), ends(&new));
        let common = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
        assert!(
            common * 10 > old.len() * 4,
            "{common} of {} cuts after the insertion are where they were",
            old.len()
        );
    }

    #[test]
    fn parameters_are_checked() {
        let why = |minimum, average, maximum| match CutParameters::new(minimum, average, maximum) {
            Err(ChunkerError::Parameters { why, .. }) => why,
            other => panic!("{minimum}/{average}/{maximum}: {other:?}"),
        };
        assert!(why(1001, 4096, 8192).contains("even"));
        assert!(why(4096, 4096, 8192).contains("rise"));
        assert!(why(1024, 8192, 8192).contains("rise"));
        assert!(why(1024, 5000, 8192).contains("power of two"));
        assert!(why(62, 4096, 8192).contains("64 bytes"));
        assert!(why(1024, 4096, (8 << 20) + 2).contains("longest blob"));
        assert!(why(1024, 8 << 20, (8 << 20) + 2).contains("4 MiB"));
        let standard = CutParameters::STREAM;
        assert_eq!(
            CutParameters::new(standard.minimum(), standard.average(), standard.maximum()),
            Ok(standard)
        );
        assert_eq!(PageCutter::new(PageCutter::STANDARD.chunk_bytes()), Ok(PageCutter::STANDARD));
        for bytes in [0, 4096, 100_000, 16 << 20] {
            assert!(PageCutter::new(bytes).is_err(), "{bytes}");
        }
    }

    #[test]
    fn pages_are_cut_at_fixed_places() {
        let cutter = PageCutter::new(65536).unwrap();
        assert_eq!(cutter.cut(&[], true), None);
        assert_eq!(cutter.cut(&[0; 65535], false), None);
        assert_eq!(cutter.cut(&[0; 65535], true), Some(65535));
        assert_eq!(cutter.cut(&[0; 65536], false), Some(65536));
        assert_eq!(cutter.cut(&[0; 200_000], true), Some(65536));
    }

    proptest! {
        /// However a stream is divided into regions that are cut ahead, the chunks are those of the whole.
        #[test]
        fn regions_cut_ahead_join_into_the_same_chunks(
            stretches in proptest::collection::vec((0_u8..4, 1_usize..30_000), 1..8),
            regions in proptest::collection::vec(1_usize..40_000, 1..12),
        ) {
            let table = table();
            let cutter = Cutter::new(&table, CutParameters::new(256, 1024, 8192).unwrap());
            let mut data = vec![];
            for (kind, length) in stretches {
                match kind {
                    0 => data.extend(std::iter::repeat_n(0, length)),
                    1 => data.extend((0..length).map(|at| (at % 7) as u8)),
                    _ => data.extend(noise("chronolith test regions", length)),
                }
            }
            let (mut start, mut from, mut found) = (0, 0, vec![]);
            for region in regions.iter().cycle() {
                let to = (from + region).min(data.len());
                let ahead = cutter.cut_ahead(&data[from..to]);
                cutter.join(&data[..to], start, from, &ahead, |end, _| found.push(end));
                start = found.last().copied().unwrap_or(0);
                prop_assert!(to - start < 8192, "only what may still change is left");
                from = to;
                if to == data.len() {
                    break;
                }
            }
            while let Some(length) = cutter.cut(&data[start..], true) {
                start += length;
                found.push(start);
            }
            let mut whole = lengths(&cutter, &data);
            whole.iter_mut().fold(0, |at, length| { *length += at; *length });
            prop_assert_eq!(found, whole);
        }

        /// What repeats itself, with any period and however often, is cut as if nobody had noticed.
        #[test]
        fn repetitions_are_cut_where_a_scan_would_cut_them(
            stretches in proptest::collection::vec((1_usize..6000, 1_usize..9, 0_u64..5), 1..8),
            reads in proptest::collection::vec(1_usize..9000, 1..40),
        ) {
            let table = table();
            let cutter = Cutter::new(&table, CutParameters::new(64, 256, 1024).unwrap());
            let mut data = vec![];
            for (period, times, seed) in stretches {
                let block = if seed == 0 { vec![0; period] } else { noise(&format!("block {seed}"), period) };
                (0..times).for_each(|_| data.extend(&block));
            }
            let (mut start, mut before, mut end, mut found) = (0, 0, 0, vec![]);
            for read in reads.iter().cycle() {
                end = (end + read).min(data.len());
                while let Some(cut) = cutter.cut_after(&data[..end], start, before, end == data.len()) {
                    found.push(cut);
                    start += cut;
                    before = cut;
                }
                if end == data.len() {
                    break;
                }
            }
            prop_assert_eq!(found, lengths(&cutter, &data));
        }

        /// Whatever is read at a time, the chunks are those of the whole.
        #[test]
        fn cuts_do_not_depend_on_the_reads(
            length in 0_usize..60_000,
            reads in proptest::collection::vec(1_usize..9000, 1..40),
            plain: bool,
        ) {
            let table = table();
            let parameters = CutParameters::new(256, 1024, 8192).unwrap();
            let cutter = Cutter::new(&table, parameters);
            let data = if plain { vec![b'x'; length] } else { noise("chronolith test reads", length) };
            let whole = lengths(&cutter, &data);
            prop_assert_eq!(whole.iter().sum::<usize>(), length);
            let mut rest = data.as_slice();
            for cut in &whole {
                prop_assert_eq!(*cut, defined(&table, parameters, rest));
                rest = &rest[*cut..];
            }
            let (mut start, mut end, mut found) = (0, 0, vec![]);
            for read in reads.iter().cycle() {
                end = (end + read).min(length);
                while let Some(cut) = cutter.cut(&data[start..end], end == length) {
                    found.push(cut);
                    start += cut;
                }
                if end == length {
                    break;
                }
                prop_assert!(end - start < 8192, "a whole maximum always gets an answer");
            }
            prop_assert_eq!(found, whole);
        }
    }
}
