//! Encoding: the smaller of zstd and the bytes themselves, and differences against a base.

use super::matches::Matcher;
use super::{CodecError, Encoding};
use crate::base::limits;
use crate::sequences::{FrameWriter, window_log};
use std::io;
use zstd::zstd_safe::{self, CCtx, CParameter, Strategy};

/// Compression level of zstd unless the user asks for another.
pub const DEFAULT_LEVEL: i32 = 3;

/// Shortest match that the search with two tables looks for at levels 3 and 4, one more than zstd would.
///
/// Dumps and pages are full of short chance matches in digits that cost more than they save: measured
/// in `docs/chunk-sizes.md`, dumps of numbers come out 7 % smaller and a third faster, others the same.
const MINIMUM_MATCH: u32 = 6;

/// Shortest match of whole frames at the default level, which is searched for in one table instead of
/// two. Where matches are at least this long the second table finds little: dumps and pages come out 1 to
/// 2 % larger, dumps of numbers 1 % smaller, and compression takes an eighth to two fifths less time
/// (`docs/chunk-sizes.md`). Level 4 keeps both tables.
const DEFAULT_MINIMUM_MATCH: u32 = 7;

/// Logarithm of that table's entries: it still fits the second-level cache of one core.
const DEFAULT_TABLE_LOG: u32 = 17;

/// Shortest match of segments of logs, which are full of short ones, and the logarithm of the entries of the one table in
/// which it is searched for. Against the default level as zstd has it, with two tables, segments of pgbench come out 0.7 %
/// smaller in two thirds to four fifths of the time (`docs/chunk-sizes.md`).
const LOG_MINIMUM_MATCH: u32 = 5;
const LOG_TABLE_LOG: u32 = 16;

/// Up to this level, differences that are found quickly are taken as they are. Beyond it, zstd may find more,
/// and the smaller is kept: pages of which rows moved about take a third less from level 6 on.
const QUICK_LEVEL_MAX: i32 = 4;

/// Level of differences that a quick search did not find worth it; see `docs/differences.md`.
const THOROUGH_LEVEL: i32 = 6;

/// Bases beyond this many bytes get larger hash tables: in those of the default level the start of such
/// a base is already forgotten when the search for its matches begins.
const LONG_BASE: usize = 1 << 20;

/// Logarithm of the tables' entries for a long base, enough for the longest blob.
const LONG_BASE_TABLE_LOG: u32 = 20;

/// Compresses frames at one level, reusing one context; one per thread.
pub struct Compressor {
    context: CCtx<'static>,
    level: i32,
    matcher: Matcher,
    /// Made for the first difference that it can write.
    writer: Option<FrameWriter>,
}

impl Compressor {
    /// Makes a compressor; 0 is the default level, and levels beyond what zstd offers are brought into
    /// its range.
    ///
    /// # Errors
    /// [`CodecError::Encode`] when memory is short.
    pub fn new(level: i32) -> Result<Self, CodecError> {
        let level = if level == 0 { DEFAULT_LEVEL } else { level };
        let level = level.clamp(zstd_safe::min_c_level(), zstd_safe::max_c_level());
        let mut context = context(level)?;
        if level == DEFAULT_LEVEL {
            search_one_table(&mut context, DEFAULT_TABLE_LOG, DEFAULT_MINIMUM_MATCH)?;
        }
        Ok(Self::with(context, level))
    }

    /// Makes a compressor for segments of logs, at the default level.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn for_logs() -> Result<Self, CodecError> {
        let mut context = context(DEFAULT_LEVEL)?;
        search_one_table(&mut context, LOG_TABLE_LOG, LOG_MINIMUM_MATCH)?;
        Ok(Self::with(context, DEFAULT_LEVEL))
    }

    fn with(context: CCtx<'static>, level: i32) -> Self {
        Self { context, level, matcher: Matcher::default(), writer: None }
    }

    /// Returns the level.
    pub fn level(&self) -> i32 {
        self.level
    }

    /// Appends the encoded form of `plain` to `out` and says which encoding it is: zstd where it
    /// saves at least one byte in 64, else the bytes as they are, which decode for free.
    ///
    /// # Errors
    /// [`CodecError::TooLong`] beyond what a frame may hold; [`CodecError::Encode`] when memory is short.
    pub fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<Encoding, CodecError> {
        check_length(plain)?;
        let from = out.len();
        append(&mut self.context, plain, out)?;
        let saved = plain.len().saturating_sub(out.len() - from);
        if saved > plain.len() / 64 {
            return Ok(Encoding::Zstd);
        }
        out.truncate(from);
        out.extend_from_slice(plain);
        Ok(Encoding::Stored)
    }

    /// Appends `plain` to `out` as a difference against `base`, however large that turns out.
    ///
    /// # Errors
    /// As [`Self::compress`].
    pub fn difference(&mut self, base: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        let from = out.len();
        let quick = self.quick_difference(base, plain, out)?;
        if quick && self.level <= QUICK_LEVEL_MAX {
            return Ok(());
        }
        let between = out.len();
        difference(self.level, base, plain, out)?;
        if quick && out.len() - between >= between - from {
            out.truncate(between);
        } else {
            out.drain(from..between);
        }
        Ok(())
    }

    /// Appends `plain` as a difference against a base that is nearly the same, in a quarter to a half of the
    /// time that zstd takes; returns whether that was done.
    fn quick_difference(&mut self, base: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<bool, CodecError> {
        check_length(plain)?;
        check_length(base)?;
        let Some(matches) = self.matcher.find(base, plain) else { return Ok(false) };
        if self.writer.is_none() {
            self.writer = FrameWriter::new();
        }
        // Where this cannot write, zstd itself still may.
        let written = self.writer.as_mut().map(|writer| writer.write(base.len(), plain, matches, out));
        Ok(matches!(written, Some(Ok(()))))
    }

    /// Does the same at level 6 or more: it finds what moved about within a chunk, at a third of
    /// the speed.
    ///
    /// # Errors
    /// As [`Self::compress`].
    pub fn thorough_difference(
        &mut self,
        base: &[u8],
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        difference(self.level.max(THOROUGH_LEVEL), base, plain, out)
    }

    /// Appends `plain` to `out`, compressed with a dictionary as `zstd --train` makes them.
    ///
    /// # Errors
    /// As [`Self::compress`].
    pub fn with_dictionary(
        &mut self,
        dictionary: &[u8],
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        check_length(plain)?;
        check_length(dictionary)?;
        let mut context = context(self.level)?;
        context.load_dictionary(dictionary).map_err(encode_error)?;
        append(&mut context, plain, out)
    }
}

/// Appends `plain` as a difference against `base`.
fn difference(level: i32, base: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    check_length(plain)?;
    check_length(base)?;
    // The context borrows the prefix for its own lifetime, hence one of its own for every difference.
    let mut context = context(level)?;
    context
        .set_parameter(CParameter::WindowLog(window_log(base.len() + plain.len())))
        .map_err(encode_error)?;
    if base.len() > LONG_BASE {
        context.set_parameter(CParameter::HashLog(LONG_BASE_TABLE_LOG)).map_err(encode_error)?;
        context.set_parameter(CParameter::ChainLog(LONG_BASE_TABLE_LOG)).map_err(encode_error)?;
    }
    context.ref_prefix(base).map_err(encode_error)?;
    append(&mut context, plain, out)
}

fn context(level: i32) -> Result<CCtx<'static>, CodecError> {
    let mut context =
        CCtx::try_create().ok_or_else(|| CodecError::Encode(io::Error::from(io::ErrorKind::OutOfMemory)))?;
    context.set_parameter(CParameter::CompressionLevel(level)).map_err(encode_error)?;
    if matches!(level, 3 | 4) {
        context.set_parameter(CParameter::MinMatch(MINIMUM_MATCH)).map_err(encode_error)?;
    }
    // Frames are sealed and blobs checked against their ids: a checksum would be a third opinion.
    context.set_parameter(CParameter::ChecksumFlag(false)).map_err(encode_error)?;
    Ok(context)
}

/// Has matches of at least so many bytes searched for in one table.
fn search_one_table(context: &mut CCtx<'_>, table_log: u32, minimum_match: u32) -> Result<(), CodecError> {
    for parameter in [
        CParameter::Strategy(Strategy::ZSTD_fast),
        CParameter::HashLog(table_log),
        CParameter::MinMatch(minimum_match),
    ] {
        context.set_parameter(parameter).map_err(encode_error)?;
    }
    Ok(())
}

/// Compresses `plain` as one frame behind what `out` holds.
fn append(context: &mut CCtx<'_>, plain: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    let from = out.len();
    let bound = zstd_safe::compress_bound(plain.len());
    if from == 0 {
        out.reserve(bound);
        context.compress2(out, plain).map_err(encode_error)?;
        return Ok(());
    }
    out.resize(from + bound, 0);
    let written =
        out.get_mut(from..).map_or(Ok(0), |tail| context.compress2(tail, plain)).map_err(encode_error)?;
    out.truncate(from + written);
    Ok(())
}

fn check_length(plain: &[u8]) -> Result<(), CodecError> {
    let (length, limit) = (plain.len(), limits::FRAME_PLAIN_BYTES_MAX);
    if length as u64 > limit { Err(CodecError::TooLong { length, limit }) } else { Ok(()) }
}

fn encode_error(code: usize) -> CodecError {
    CodecError::Encode(io::Error::other(zstd_safe::get_error_name(code)))
}
