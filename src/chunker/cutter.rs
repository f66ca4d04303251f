//! Cut points: content-defined for streams ([`Cutter`]), fixed for database files ([`PageCutter`]).
//!
//! Both are asked the same way: given what has been read so far from the start of a chunk, how long
//! is that chunk? The answer never depends on how the reads happened to be split.

use super::ChunkerError;
use crate::base::{Secret, limits};
use fastcdc::v2020::{self, Normalization};

/// How strongly lengths are drawn towards the average. Part of the format: it selects the masks.
const NORMALIZATION: Normalization = Normalization::Level1;

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
