//! Decoding: total on hostile bytes, never more memory than the length that was announced.

use super::{CodecError, Encoding};
use crate::base::limits;
use std::io;
use zstd::zstd_safe::{self, DCtx};

/// First bytes of a zstd frame; legacy and skippable frames begin otherwise and are refused.
const FRAME_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Decodes frames, reusing one context; one per thread.
pub struct Decompressor {
    context: DCtx<'static>,
}

impl Decompressor {
    /// Makes a decompressor.
    ///
    /// # Errors
    /// [`CodecError::Decode`] when memory is short.
    pub fn new() -> Result<Self, CodecError> {
        Ok(Self { context: context()? })
    }

    /// Appends the plain bytes of `stored` to `out`: exactly `plain_length` of them, or an error and
    /// `out` as it was.
    ///
    /// # Errors
    /// [`CodecError::TooLong`] before anything is allocated, [`CodecError::Base`] where a base is
    /// missing or not wanted, [`CodecError::NotAFrame`], [`CodecError::Decode`] or
    /// [`CodecError::Length`] for bytes that are not what was announced.
    pub fn decode(
        &mut self,
        encoding: Encoding,
        base: Option<&[u8]>,
        stored: &[u8],
        plain_length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let limit = limits::FRAME_PLAIN_BYTES_MAX;
        if plain_length as u64 > limit {
            return Err(CodecError::TooLong { length: plain_length, limit });
        }
        let from = out.len();
        let result = match (encoding, base) {
            (Encoding::Stored, None) => {
                if stored.len() == plain_length {
                    out.extend_from_slice(stored);
                }
                Ok(stored.len())
            }
            (Encoding::Zstd, None) => frame(&mut self.context, stored, plain_length, out),
            (Encoding::Difference, Some(base)) => context().and_then(|mut context| {
                context.ref_prefix(base).map_err(decode_error)?;
                frame(&mut context, stored, plain_length, out)
            }),
            (Encoding::Dictionary, Some(dictionary)) => context().and_then(|mut context| {
                context.load_dictionary(dictionary).map_err(decode_error)?;
                frame(&mut context, stored, plain_length, out)
            }),
            (encoding, base) => Err(CodecError::Base { encoding, given: base.is_some() }),
        };
        let result = match result {
            Ok(found) if found == plain_length => Ok(()),
            Ok(found) => Err(CodecError::Length { found, announced: plain_length }),
            Err(error) => Err(error),
        };
        if result.is_err() {
            out.truncate(from);
        }
        result
    }
}

fn context() -> Result<DCtx<'static>, CodecError> {
    DCtx::try_create().ok_or_else(|| CodecError::Decode(io::Error::from(io::ErrorKind::OutOfMemory)))
}

/// Decodes one whole frame behind what `out` holds and returns how many bytes came out.
fn frame(
    context: &mut DCtx<'_>,
    stored: &[u8],
    plain_length: usize,
    out: &mut Vec<u8>,
) -> Result<usize, CodecError> {
    // Without these two checks zstd would also take several frames, skippable ones and old formats.
    if !stored.starts_with(&FRAME_MAGIC) {
        return Err(CodecError::NotAFrame);
    }
    if zstd_safe::find_frame_compressed_size(stored).map_err(decode_error)? != stored.len() {
        return Err(CodecError::NotAFrame);
    }
    if let Ok(Some(content)) = zstd_safe::get_frame_content_size(stored)
        && content != plain_length as u64
    {
        let found = usize::try_from(content).unwrap_or(usize::MAX);
        return Err(CodecError::Length { found, announced: plain_length });
    }
    let from = out.len();
    if from == 0 {
        // Into spare capacity, which saves clearing it first.
        out.reserve_exact(plain_length);
        return context.decompress(out, stored).map_err(decode_error);
    }
    out.resize(from + plain_length, 0);
    out.get_mut(from..).map_or(Ok(0), |tail| context.decompress(tail, stored)).map_err(decode_error)
}

fn decode_error(code: usize) -> CodecError {
    CodecError::Decode(io::Error::other(zstd_safe::get_error_name(code)))
}
