//! Frames of zstd made of matches that the caller has found: one of the three modules with
//! `unsafe` code.
//!
//! Before zstd looks for what a chunk has in common with its base it reads all of the base into its tables,
//! which takes longer than finding it where nearly everything is the same. zstd has a function that leaves
//! the search to the caller and does what comes after it (`ZSTD_compressSequences`), but the bindings give it no
//! safe form. It believes what it is told about the lengths of the input, so [`FrameWriter::write`] looks at
//! every match before it hands them over. The bytes that a match repeats are not looked at, neither there nor here:
//! a wrong one makes a frame that decodes to something else, which whoever makes frames finds out by decoding them.

use std::ptr::NonNull;
use zstd::zstd_safe::zstd_sys::{self, ZSTD_CCtx, ZSTD_Sequence, ZSTD_cParameter};

/// Longest block of a frame, by the format of zstd.
const BLOCK_BYTES: usize = 128 << 10;

/// Shortest match that is written: zstd has room for as many matches of a block as there are of this length.
pub const MATCH_BYTES_LEAST: usize = 4;

/// Logarithm of the longest window that every decoder of zstd takes.
const WINDOW_LOG_MAX: u32 = 27;

/// Level that decides how literals and lengths are coded; matches are not searched for.
const LEVEL: i32 = 3;

/// A stretch of the input that repeats what precedes it, and what stands before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// Bytes between the last match, or the start, and this one.
    pub literals: usize,
    /// How far back the repeated bytes are, the base being what precedes the input.
    pub distance: usize,
    /// How many bytes are repeated, at least [`MATCH_BYTES_LEAST`].
    pub length: usize,
}

/// Why a frame was not written.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Memory is short, or zstd does not do what is asked of it; its number for that.
    Zstd(usize),
    /// The matches are not matches of this input.
    Matches,
}

/// Writes frames of zstd out of matches, reusing one context; one per thread.
pub struct FrameWriter {
    context: NonNull<ZSTD_CCtx>,
    sequences: Vec<ZSTD_Sequence>,
}

// SAFETY: a context belongs to whoever holds it and to no thread; nothing here gives out a second way to it.
unsafe impl Send for FrameWriter {}

impl Drop for FrameWriter {
    fn drop(&mut self) {
        // SAFETY: `new` made it, and nobody else frees it.
        unsafe { zstd_sys::ZSTD_freeCCtx(self.context.as_ptr()) };
    }
}

impl FrameWriter {
    /// Makes a writer; `None` when memory is short or zstd knows no such thing.
    pub fn new() -> Option<Self> {
        // SAFETY: takes nothing, gives a context or null.
        let context = NonNull::new(unsafe { zstd_sys::ZSTD_createCCtx() })?;
        let mut writer = Self { context, sequences: Vec::new() };
        for (parameter, value) in [
            (ZSTD_cParameter::ZSTD_c_compressionLevel, LEVEL),
            // Nothing is searched for, so the tables are as small as they can be.
            (ZSTD_cParameter::ZSTD_c_strategy, 1),
            (ZSTD_cParameter::ZSTD_c_hashLog, 6),
            (ZSTD_cParameter::ZSTD_c_minMatch, 4),
            // Blocks end where it is said here.
            (ZSTD_cParameter::ZSTD_c_experimentalParam11, 1),
            // A distance met again costs next to nothing. 1: always look whether it is one.
            (ZSTD_cParameter::ZSTD_c_experimentalParam19, 1),
        ] {
            writer.set(parameter, value).ok()?;
        }
        Some(writer)
    }

    fn set(&mut self, parameter: ZSTD_cParameter, value: i32) -> Result<(), Refusal> {
        // SAFETY: a context of ours, and two numbers that zstd checks.
        let code = unsafe { zstd_sys::ZSTD_CCtx_setParameter(self.context.as_ptr(), parameter, value) };
        if is_error(code) { Err(Refusal::Zstd(code)) } else { Ok(()) }
    }

    /// Appends a frame to `out` that decodes to `plain`, given a base of `base_length` bytes, if the `matches` are
    /// right. What follows the last of them are literals.
    ///
    /// # Errors
    /// [`Refusal::Matches`] when they do not fit into `plain`, reach beyond the start of the base or are too
    /// short; [`Refusal::Zstd`] when memory is short.
    pub fn write(
        &mut self,
        base_length: usize,
        plain: &[u8],
        matches: &[Match],
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        self.sequences.clear();
        blocks(base_length, plain.len(), matches, &mut self.sequences).ok_or(Refusal::Matches)?;
        let window = window_log(base_length.saturating_add(plain.len())).cast_signed();
        // SAFETY: a context of ours. The last frame left it in the midst of a session, in which nothing may be set.
        unsafe {
            let session = zstd_sys::ZSTD_ResetDirective::ZSTD_reset_session_only;
            zstd_sys::ZSTD_CCtx_reset(self.context.as_ptr(), session)
        };
        self.set(ZSTD_cParameter::ZSTD_c_windowLog, window)?;
        let from = out.len();
        out.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        let space = out.spare_capacity_mut();
        // SAFETY: the pointers and lengths are those of slices that live through the call and do not overlap; zstd only
        // writes into the space. The context is ours and nobody else uses it meanwhile. zstd trusts the sequences to
        // end in blocks of at most 128 KiB and to add up to the length of the input: `blocks` made them so or refused.
        let written = unsafe {
            zstd_sys::ZSTD_compressSequences(
                self.context.as_ptr(),
                space.as_mut_ptr().cast(),
                space.len(),
                self.sequences.as_ptr(),
                self.sequences.len(),
                plain.as_ptr().cast(),
                plain.len(),
            )
        };
        if is_error(written) {
            return Err(Refusal::Zstd(written));
        }
        // SAFETY: so many bytes behind the old length were written, and there is room for them.
        unsafe { out.set_len(from + written) };
        Ok(())
    }
}

/// The least window that spans `bytes`, as a logarithm, within what zstd offers everywhere.
pub fn window_log(bytes: usize) -> u32 {
    bytes.max(1 << 10).checked_next_power_of_two().map_or(WINDOW_LOG_MAX, usize::ilog2).min(WINDOW_LOG_MAX)
}

fn is_error(code: usize) -> bool {
    // SAFETY: a number in, a number out.
    unsafe { zstd_sys::ZSTD_isError(code) != 0 }
}

/// Lays matches out in blocks, each closed by its last literals, as zstd takes them; `None` if they are not
/// matches of an input of `length` bytes behind a base of `base_length`.
fn blocks(base_length: usize, length: usize, matches: &[Match], out: &mut Vec<ZSTD_Sequence>) -> Option<()> {
    let mut layout = Layout { out, room: BLOCK_BYTES };
    let mut at = 0_usize;
    for found in matches {
        let start = at.checked_add(found.literals)?;
        at = start.checked_add(found.length).filter(|end| *end <= length)?;
        let reach = base_length.checked_add(start)?;
        if found.length < MATCH_BYTES_LEAST || found.distance == 0 || found.distance > reach {
            return None;
        }
        layout.take(found)?;
    }
    layout.close(length.checked_sub(at)?)
}

/// Sequences laid out so far, and what still fits into the block that is open.
struct Layout<'a> {
    out: &'a mut Vec<ZSTD_Sequence>,
    room: usize,
}

impl Layout<'_> {
    /// Adds a match, in pieces where it crosses the ends of blocks.
    fn take(&mut self, found: &Match) -> Option<()> {
        let (mut literals, mut left) = (found.literals, found.length);
        while left > 0 {
            // A block that ends in literals, or where no match has room any more.
            if literals.saturating_add(MATCH_BYTES_LEAST) > self.room {
                let last = literals.min(self.room);
                self.end(last)?;
                literals -= last;
                continue;
            }
            let mut now = left.min(self.room - literals);
            if (1..MATCH_BYTES_LEAST).contains(&(left - now)) {
                // What is left for the next block would be too short for a match.
                now = now.saturating_sub(MATCH_BYTES_LEAST);
            }
            if now < MATCH_BYTES_LEAST {
                self.end(literals)?;
                literals = 0;
                continue;
            }
            self.out.push(sequence(literals, now, found.distance)?);
            self.room -= literals + now;
            (literals, left) = (0, left - now);
        }
        Some(())
    }

    /// Ends the input with its last literals.
    fn close(&mut self, mut literals: usize) -> Option<()> {
        while literals > self.room {
            let last = self.room;
            self.end(last)?;
            literals -= last;
        }
        self.end(literals)
    }

    /// Ends a block with its last literals.
    fn end(&mut self, literals: usize) -> Option<()> {
        self.out.push(sequence(literals, 0, 0)?);
        self.room = BLOCK_BYTES;
        Some(())
    }
}

fn sequence(literals: usize, length: usize, distance: usize) -> Option<ZSTD_Sequence> {
    Some(ZSTD_Sequence {
        offset: distance.try_into().ok()?,
        litLength: literals.try_into().ok()?,
        matchLength: length.try_into().ok()?,
        rep: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use zstd::zstd_safe::DCtx;

    fn decoded(base: &[u8], frame: &[u8], length: usize) -> Vec<u8> {
        let mut context = DCtx::create();
        context.ref_prefix(base).unwrap();
        let mut plain = Vec::with_capacity(length);
        context.decompress(&mut plain, frame).map_err(zstd::zstd_safe::get_error_name).unwrap();
        plain
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn matches_of_any_length_and_place_come_back() {
        let mut writer = FrameWriter::new().unwrap();
        let base = noise(400_000);
        let other: Vec<u8> = noise(300_000).iter().map(|byte| !byte).collect();
        // Around the ends of blocks, of matches and of literals alike.
        for literals in
            [0, 1, 5, BLOCK_BYTES - 5, BLOCK_BYTES - 3, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1]
        {
            for length in
                [4, 5, 7, 100, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, BLOCK_BYTES + 3, 300_000]
            {
                for tail in [0, 1, 7, BLOCK_BYTES] {
                    let plain = [&other[..literals], &base[3..3 + length], &other[..tail]].concat();
                    let found = Match { literals, distance: base.len() + literals - 3, length };
                    let mut frame = b"before".to_vec();
                    writer.write(base.len(), &plain, &[found], &mut frame).unwrap();
                    assert_eq!(frame[..6], *b"before");
                    assert!(decoded(&base, &frame[6..], plain.len()) == plain, "{literals} {length} {tail}");
                    assert!(
                        frame.len() < literals + tail + 200,
                        "{literals} {length} {tail}: {}",
                        frame.len()
                    );
                }
            }
        }
    }

    #[test]
    fn matches_may_overlap_themselves_and_frames_be_empty() {
        let mut writer = FrameWriter::new().unwrap();
        let plain = b"ab".repeat(100_000);
        let mut frame = Vec::new();
        let found = Match { literals: 2, distance: 2, length: plain.len() - 2 };
        writer.write(0, &plain, &[found], &mut frame).unwrap();
        assert!(decoded(b"", &frame, plain.len()) == plain);
        frame.clear();
        writer.write(0, b"", &[], &mut frame).unwrap();
        assert_eq!(decoded(b"", &frame, 0), b"");
    }

    #[test]
    fn what_is_no_match_of_the_input_is_refused() {
        let mut writer = FrameWriter::new().unwrap();
        let plain = [7; 100];
        for (literals, distance, length) in [
            (0, 10, 101),
            (97, 10, 4),
            (usize::MAX, 10, 4),
            (10, 10, usize::MAX),
            (10, 0, 20),
            (10, 1_011, 20),
            (10, usize::MAX, 20),
            (10, 10, 3),
        ] {
            let mut out = vec![1];
            let written = writer.write(1_000, &plain, &[Match { literals, distance, length }], &mut out);
            assert_eq!((written, out), (Err(Refusal::Matches), vec![1]), "{literals} {distance} {length}");
        }
    }
}
