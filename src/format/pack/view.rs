//! A pack as a whole, or its tail, with every part where it must be.

use super::{FrameRecord, HEAD_BYTES, Origin, PackHead, PackTrailer, TRAILER_BYTES};
use crate::crypto::SIGNATURE_BYTES;
use crate::format::bytes::ensure;
use crate::format::error::FormatError;

/// The end of a pack: what describes it, without the frames.
#[derive(Debug)]
pub struct PackTail<'a> {
    /// The trailer.
    pub trailer: PackTrailer,
    /// The origins, from their second copy.
    pub origins: Vec<Origin>,
    /// The sealed table of contents, tag included.
    pub contents_sealed: &'a [u8],
    /// The signature over every byte of the pack before it.
    pub signature: [u8; SIGNATURE_BYTES],
}

impl<'a> PackTail<'a> {
    /// Reads the tail from the last bytes of a pack of the given length. When these are too few,
    /// the error is [`FormatError::Truncated`]; [`PackTail::length`] says how many are needed.
    pub fn parse(last_bytes: &'a [u8], pack_length: u64) -> Result<Self, FormatError> {
        let trailer_at = last_bytes.len().checked_sub(TRAILER_BYTES).ok_or(FormatError::Truncated)?;
        let (before, trailer) = last_bytes.split_at_checked(trailer_at).ok_or(FormatError::Truncated)?;
        let (trailer, signature) = PackTrailer::decode(trailer, pack_length)?;
        let described = trailer.tail_length() - TRAILER_BYTES as u64;
        let described = usize::try_from(described).map_err(|_| FormatError::Truncated)?;
        let start = before.len().checked_sub(described).ok_or(FormatError::Truncated)?;
        let described = before.get(start..).ok_or(FormatError::Truncated)?;
        let (contents_sealed, origins) = described
            .split_at_checked(trailer.contents_sealed_length() as usize)
            .ok_or(FormatError::Truncated)?;
        let origins = Origin::decode_all(origins, trailer.origin_count, trailer.class)?;
        Ok(Self { trailer, origins, contents_sealed, signature })
    }

    /// Returns how long the tail of a pack is, from its last [`TRAILER_BYTES`].
    pub fn length(trailer: &[u8], pack_length: u64) -> Result<u64, FormatError> {
        Ok(PackTrailer::decode(trailer, pack_length)?.0.tail_length())
    }
}

/// A whole pack in memory.
#[derive(Debug)]
pub struct PackView<'a> {
    /// The head.
    pub head: PackHead,
    /// The origins, of which both copies are the same.
    pub origins: Vec<Origin>,
    /// The trailer.
    pub trailer: PackTrailer,
    /// The sealed table of contents, tag included.
    pub contents_sealed: &'a [u8],
    /// Everything that the signature covers.
    pub signed: &'a [u8],
    /// The signature.
    pub signature: [u8; SIGNATURE_BYTES],
    bytes: &'a [u8],
}

impl<'a> PackView<'a> {
    /// Takes a pack apart; refuses it when head and trailer, or the copies of the origins, disagree.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let head = PackHead::decode(bytes)?;
        let tail = PackTail::parse(bytes, bytes.len() as u64)?;
        let trailer = tail.trailer;
        ensure(
            (head.class, head.origin_count, head.signer)
                == (trailer.class, trailer.origin_count, trailer.signer),
            "pack trailer",
            "does not agree with the head",
        )?;
        let frames = usize::try_from(head.frames_offset()).map_err(|_| FormatError::Truncated)?;
        let origins = bytes.get(HEAD_BYTES..frames).ok_or(FormatError::Truncated)?;
        let origins = Origin::decode_all(origins, head.origin_count, head.class)?;
        ensure(origins == tail.origins, "pack origins", "the two copies differ")?;
        let signed_length = bytes.len().checked_sub(SIGNATURE_BYTES).ok_or(FormatError::Truncated)?;
        let signed = bytes.get(..signed_length).ok_or(FormatError::Truncated)?;
        Ok(Self {
            head,
            origins,
            trailer,
            contents_sealed: tail.contents_sealed,
            signed,
            signature: tail.signature,
            bytes,
        })
    }

    /// Returns the sealed bytes of a frame that the table of contents describes.
    pub fn frame(&self, record: &FrameRecord) -> Result<&'a [u8], FormatError> {
        let start = record.offset as usize;
        let end = usize::try_from(record.end()).map_err(|_| FormatError::Truncated)?;
        self.bytes.get(start..end).ok_or(FormatError::Truncated)
    }
}
