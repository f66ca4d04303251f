//! Decoding: total on hostile bytes, never more memory than the length that was announced.

use super::{CodecError, Encoding};
use crate::base::limits;
use std::io;
use zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective, WriteBuf};

/// First bytes of a zstd frame; legacy and skippable frames begin otherwise and are refused.
const FRAME_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// zstd knows no smaller window (ZSTD_WINDOWLOG_ABSOLUTEMIN).
const WINDOW_LOG_LEAST: u32 = 10;

/// First bytes of what `zstd --train` makes.
const DICTIONARY_MAGIC: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];

/// Plain bytes that are handed on at once by [`Decompressor::decode_in_windows`]: they stay in a processor's cache.
const WINDOW_BYTES: usize = 256 << 10;

/// Decodes frames, reusing one context; one per thread.
pub struct Decompressor {
    context: DCtx<'static>,
    window: Vec<u8>,
}

impl Decompressor {
    /// Makes a decompressor.
    ///
    /// # Errors
    /// [`CodecError::Decode`] when memory is short.
    pub fn new() -> Result<Self, CodecError> {
        Ok(Self { context: context()?, window: Vec::new() })
    }

    /// Decodes what needs no base and hands the plain bytes on, piece by piece and in order, so that the whole is never
    /// in memory. It was all of it, and no more than `plain_length`, only when this returns.
    ///
    /// # Errors
    /// As [`Self::decode`], and what `each` says, which ends it.
    pub fn decode_in_windows<Failure: From<CodecError>>(
        &mut self,
        encoding: Encoding,
        stored: &[u8],
        plain_length: usize,
        each: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let limit = limits::FRAME_PLAIN_BYTES_MAX;
        if plain_length as u64 > limit {
            return Err(CodecError::TooLong { length: plain_length, limit }.into());
        }
        let wrong_length = |found: usize| CodecError::Length { found, announced: plain_length };
        match encoding {
            Encoding::Stored if stored.len() == plain_length => {
                stored.chunks(WINDOW_BYTES).try_for_each(each)
            }
            Encoding::Stored => Err(wrong_length(stored.len()).into()),
            Encoding::Zstd => {
                check_frame(stored, plain_length)?;
                self.context.reset(ResetDirective::SessionOnly).map_err(decode_error)?;
                // A frame that claims to look further back than its own length would take more memory than that.
                let window_log = plain_length.next_power_of_two().trailing_zeros().max(WINDOW_LOG_LEAST);
                self.context.set_parameter(DParameter::WindowLogMax(window_log)).map_err(decode_error)?;
                self.window.resize(WINDOW_BYTES, 0);
                let (mut input, mut found) = (InBuffer::around(stored), 0);
                loop {
                    let mut output = OutBuffer::around(self.window.as_mut_slice());
                    let left =
                        self.context.decompress_stream(&mut output, &mut input).map_err(decode_error)?;
                    let length = output.pos();
                    found += length;
                    if found > plain_length {
                        return Err(wrong_length(found).into());
                    }
                    each(self.window.get(..length).unwrap_or_default())?;
                    match left {
                        0 if found == plain_length && input.pos() == stored.len() => return Ok(()),
                        0 => return Err(wrong_length(found).into()),
                        _ if length == 0 => return Err(CodecError::NotAFrame.into()),
                        _ => {}
                    }
                }
            }
            encoding => Err(CodecError::Base { encoding, given: false }.into()),
        }
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
            (Encoding::Zstd, None) => frame(&mut self.context, &[], stored, plain_length, out),
            // A base that begins like a trained dictionary would be taken for one; it needs a context of
            // its own, as every base would if contexts did not take raw ones by the call.
            (Encoding::Difference, Some(base)) if base.starts_with(&DICTIONARY_MAGIC) => {
                context().and_then(|mut context| {
                    context.ref_prefix(base).map_err(decode_error)?;
                    frame(&mut context, &[], stored, plain_length, out)
                })
            }
            (Encoding::Difference, Some(base)) => frame(&mut self.context, base, stored, plain_length, out),
            (Encoding::Dictionary, Some(dictionary)) => context().and_then(|mut context| {
                context.load_dictionary(dictionary).map_err(decode_error)?;
                frame(&mut context, &[], stored, plain_length, out)
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

/// Decodes one whole frame, against a base unless that is empty, behind what `out` holds, and returns how many bytes came out.
fn frame(
    context: &mut DCtx<'_>,
    base: &[u8],
    stored: &[u8],
    plain_length: usize,
    out: &mut Vec<u8>,
) -> Result<usize, CodecError> {
    check_frame(stored, plain_length)?;
    let from = out.len();
    if from == 0 {
        // Into spare capacity, which saves clearing it first.
        out.reserve_exact(plain_length);
        return decompress(context, out, base, stored);
    }
    out.resize(from + plain_length, 0);
    out.get_mut(from..).map_or(Ok(0), |tail| decompress(context, tail, base, stored))
}

/// Says whether bytes are one frame, which does not announce another length.
fn check_frame(stored: &[u8], plain_length: usize) -> Result<(), CodecError> {
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
    Ok(())
}

fn decompress<B: WriteBuf + ?Sized>(
    context: &mut DCtx<'_>,
    out: &mut B,
    base: &[u8],
    stored: &[u8],
) -> Result<usize, CodecError> {
    let result = match base {
        [] => context.decompress(out, stored),
        base => context.decompress_using_dict(out, stored, base),
    };
    result.map_err(decode_error)
}

fn decode_error(code: usize) -> CodecError {
    CodecError::Decode(io::Error::other(zstd_safe::get_error_name(code)))
}

#[cfg(test)]
mod tests {
    use super::super::Compressor;
    use super::*;
    use proptest::prelude::*;

    fn text(rows: u32, changed: u32) -> Vec<u8> {
        (0..rows)
            .flat_map(|row| format!("{row}\tname of {}\t{}\n", row / 3, (row ^ changed) * 977).into_bytes())
            .collect()
    }

    fn decode(
        encoding: Encoding,
        base: Option<&[u8]>,
        stored: &[u8],
        length: usize,
    ) -> Result<Vec<u8>, CodecError> {
        let mut out = b"before".to_vec();
        let result = Decompressor::new().unwrap().decode(encoding, base, stored, length, &mut out);
        assert!(out.starts_with(b"before"));
        match result {
            Ok(()) => Ok(out.split_off(6)),
            Err(error) => {
                assert_eq!(out, b"before", "an error leaves nothing behind");
                Err(error)
            }
        }
    }

    /// Both ways of decoding agree, also on what is wrong.
    fn windows(encoding: Encoding, stored: &[u8], length: usize, whole: &Result<Vec<u8>, CodecError>) {
        let mut plain = Vec::new();
        let mut each = |piece: &[u8]| {
            plain.extend_from_slice(piece);
            Ok(())
        };
        let mut decompressor = Decompressor::new().unwrap();
        // What was decoded before leaves nothing behind.
        let _ = decompressor.decode_in_windows(encoding, &stored[..stored.len() / 2], length, &mut |_| {
            Ok::<(), CodecError>(())
        });
        match (decompressor.decode_in_windows::<CodecError>(encoding, stored, length, &mut each), whole) {
            (Ok(()), Ok(whole)) => assert!(plain == *whole),
            (Err(_), Err(_)) => {}
            (windows, whole) => panic!("in windows {windows:?}, as a whole {whole:?}"),
        }
    }

    #[test]
    fn windows_of_long_frames() {
        let plain = text(300_000, 0);
        let plain = &plain[..plain.len().min(8 << 20)];
        assert!(plain.len() > 20 * WINDOW_BYTES);
        for level in [1, 3, 19] {
            let mut stored = Vec::new();
            let encoding = Compressor::new(level).unwrap().compress(plain, &mut stored).unwrap();
            windows(encoding, &stored, plain.len(), &Ok(plain.to_vec()));
            windows(Encoding::Stored, plain, plain.len(), &Ok(plain.to_vec()));
            let mut decompressor = Decompressor::new().unwrap();
            let mut count = 0;
            let stopped = decompressor.decode_in_windows(encoding, &stored, plain.len(), &mut |_| {
                count += 1;
                if count == 3 { Err(CodecError::NotAFrame) } else { Ok(()) }
            });
            assert!(matches!(stopped, Err(CodecError::NotAFrame)) && count == 3);
        }
    }

    #[test]
    fn text_shrinks_and_noise_is_stored() {
        let mut compressor = Compressor::new(3).unwrap();
        let plain = text(5000, 0);
        let mut out = Vec::new();
        assert_eq!(compressor.compress(&plain, &mut out).unwrap(), Encoding::Zstd);
        assert!(out.len() * 3 < plain.len());
        assert_eq!(decode(Encoding::Zstd, None, &out, plain.len()).unwrap(), plain);
        let mut noise = vec![0; 100_000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let mut out = b"head".to_vec();
        assert_eq!(compressor.compress(&noise, &mut out).unwrap(), Encoding::Stored);
        assert_eq!(out, [b"head".as_slice(), &noise].concat());
        assert_eq!(decode(Encoding::Stored, None, &noise, noise.len()).unwrap(), noise);
        let mut out = Vec::new();
        assert_eq!(compressor.compress(&[], &mut out).unwrap(), Encoding::Stored);
        assert!(out.is_empty());
        assert!(decode(Encoding::Stored, None, &[], 0).unwrap().is_empty());
    }

    #[test]
    fn a_difference_holds_what_changed() {
        let mut compressor = Compressor::new(3).unwrap();
        let (base, mut plain) = (text(8000, 0), text(8000, 0));
        plain[100_000..100_009].copy_from_slice(b"something");
        let mut out = Vec::new();
        compressor.difference(&base, &plain, &mut out).unwrap();
        assert!(out.len() < 200, "{} bytes", out.len());
        assert_eq!(decode(Encoding::Difference, Some(&base), &out, plain.len()).unwrap(), plain);
        // Against another base something else comes out, or nothing: the blob id is checked above.
        let other = vec![b'x'; base.len()];
        assert!(decode(Encoding::Difference, Some(&other), &out, plain.len()).ok() != Some(plain.clone()));
        // A base that looks like a dictionary of zstd is still only a prefix.
        let odd = [&[0x37, 0xa4, 0x30, 0xec], base.as_slice()].concat();
        let mut out = Vec::new();
        compressor.difference(&odd, &plain, &mut out).unwrap();
        assert_eq!(decode(Encoding::Difference, Some(&odd), &out, plain.len()).unwrap(), plain);
    }

    #[test]
    fn the_window_of_a_difference_spans_the_longest_base() {
        let mut base = vec![0; 8 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut base);
        let mut out = Vec::new();
        // zstd refuses to refer to a prefix that is the very memory it compresses.
        let plain = base.clone();
        Compressor::new(3).unwrap().difference(&base, &plain, &mut out).unwrap();
        assert!(out.len() < 100_000, "{} bytes", out.len());
        assert_eq!(decode(Encoding::Difference, Some(&base), &out, base.len()).unwrap(), base);
    }

    #[test]
    fn dictionaries_raw_and_trained() {
        let mut compressor = Compressor::new(3).unwrap();
        let plain = text(300, 5);
        let samples: Vec<Vec<u8>> = (100..300).map(|n| text(300, n)).collect();
        let trained = zstd::dict::from_samples(&samples, 8 << 10).unwrap();
        for dictionary in [text(200, 5), trained] {
            let (mut alone, mut out) = (Vec::new(), Vec::new());
            compressor.compress(&plain, &mut alone).unwrap();
            compressor.with_dictionary(&dictionary, &plain, &mut out).unwrap();
            assert!(out.len() < alone.len(), "{} against {}", out.len(), alone.len());
            assert_eq!(decode(Encoding::Dictionary, Some(&dictionary), &out, plain.len()).unwrap(), plain);
        }
    }

    #[test]
    fn what_was_not_announced_is_refused() {
        let plain = text(1000, 0);
        let mut frame = Vec::new();
        Compressor::new(3).unwrap().compress(&plain, &mut frame).unwrap();
        for length in [0, plain.len() - 1, plain.len() + 1] {
            let error = decode(Encoding::Zstd, None, &frame, length).unwrap_err();
            assert!(matches!(error, CodecError::Length { found, .. } if found == plain.len()), "{error}");
            assert!(matches!(decode(Encoding::Stored, None, &plain, length), Err(CodecError::Length { .. })));
        }
        let error = decode(Encoding::Zstd, None, &frame, (8 << 20) + 1).unwrap_err();
        assert!(matches!(error, CodecError::TooLong { .. }), "{error}");
        let twice = [frame.as_slice(), &frame].concat();
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0], frame.as_slice()].concat();
        for other in [&twice, &skippable, &[frame.as_slice(), b"x"].concat(), &Vec::new(), &plain] {
            let error = decode(Encoding::Zstd, None, other, plain.len()).unwrap_err();
            assert!(matches!(error, CodecError::NotAFrame), "{error}");
        }
        for cut in [1, 4, 9, frame.len() / 2, frame.len() - 1] {
            decode(Encoding::Zstd, None, &frame[..cut], plain.len()).unwrap_err();
        }
    }

    /// A frame that doesn't announce its length may not decode to more than the reader was told.
    #[test]
    fn a_frame_without_its_length_is_bounded_too() {
        let plain = vec![b'x'; 1 << 20];
        let mut context = zstd_safe::CCtx::create();
        context.set_parameter(zstd_safe::CParameter::ContentSizeFlag(false)).unwrap();
        let mut frame = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
        context.compress2(&mut frame, &plain).unwrap();
        assert_eq!(decode(Encoding::Zstd, None, &frame, plain.len()).unwrap(), plain);
        let mut out = Vec::new();
        let result = Decompressor::new().unwrap().decode(Encoding::Zstd, None, &frame, 1000, &mut out);
        assert!(matches!(result, Err(CodecError::Decode(_))), "{result:?}");
        assert!(out.is_empty() && out.capacity() < 4096);
    }

    #[test]
    fn a_base_is_given_exactly_where_one_is_needed() {
        for (encoding, base) in [
            (Encoding::Stored, Some(b"base".as_slice())),
            (Encoding::Zstd, Some(b"base")),
            (Encoding::Difference, None),
            (Encoding::Dictionary, None),
        ] {
            assert_eq!(encoding.needs_base(), base.is_none());
            let error = decode(encoding, base, b"", 0).unwrap_err();
            assert!(matches!(error, CodecError::Base { .. }), "{error}");
        }
    }

    #[test]
    fn encodings_have_their_numbers() {
        for number in 0..=3_u8 {
            assert_eq!(u8::from(Encoding::try_from(number).unwrap()), number);
        }
        assert!(matches!(Encoding::try_from(4), Err(CodecError::UnknownEncoding { number: 4 })));
    }

    proptest! {
        #[test]
        fn every_level_reads_back(plain in proptest::collection::vec(0_u8..4, 0..5000), level in -7..=22, base in proptest::collection::vec(0_u8..4, 0..5000)) {
            let mut compressor = Compressor::new(level).unwrap();
            let mut out = Vec::new();
            let encoding = compressor.compress(&plain, &mut out).unwrap();
            prop_assert_eq!(&decode(encoding, None, &out, plain.len()).unwrap(), &plain);
            windows(encoding, &out, plain.len(), &Ok(plain.clone()));
            let mut out = b"head".to_vec();
            compressor.difference(&base, &plain, &mut out).unwrap();
            prop_assert_eq!(&decode(Encoding::Difference, Some(&base), &out[4..], plain.len()).unwrap(), &plain);
        }

        #[test]
        fn hostile_bytes_are_survived(mut stored in proptest::collection::vec(any::<u8>(), 0..300), length in 0_usize..100_000, framed: bool) {
            if framed {
                stored.splice(0..0, FRAME_MAGIC);
            }
            windows(Encoding::Zstd, &stored, length, &decode(Encoding::Zstd, None, &stored, length));
            for (encoding, base) in [(Encoding::Zstd, None), (Encoding::Difference, Some(b"base".as_slice())), (Encoding::Dictionary, Some(b"base"))] {
                if let Ok(plain) = decode(encoding, base, &stored, length) {
                    prop_assert_eq!(plain.len(), length);
                }
            }
        }

        #[test]
        fn damaged_frames_are_survived(at in 0_usize..2000, bit in 0_u8..8) {
            let plain = text(300, 0);
            let mut frame = Vec::new();
            Compressor::new(3).unwrap().compress(&plain, &mut frame).unwrap();
            let at = at % frame.len();
            frame[at] ^= 1 << bit;
            windows(Encoding::Zstd, &frame, plain.len(), &decode(Encoding::Zstd, None, &frame, plain.len()));
            if let Ok(found) = decode(Encoding::Zstd, None, &frame, plain.len()) {
                prop_assert_eq!(found.len(), plain.len());
            }
        }
    }
}
