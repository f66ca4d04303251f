//! A whole log pack: after the front, frames, table of contents, origins and trailer as in a content pack.

use super::front::{LogPackFront, LogPackHead};
use crate::base::RepositoryId;
use crate::crypto::SIGNATURE_BYTES;
use crate::format::FormatError;
use crate::format::bytes::ensure;
use crate::format::kind::ObjectKind;
use crate::format::pack::{BlobClass, FrameRecord, Origin, PackTrailer, TRAILER_BYTES, TableOfContents};
use std::collections::HashMap;

/// Where a trailer holds the object's kind.
const KIND_AT: usize = 17;
const WHAT: &str = "log pack";

/// Appends the trailer of a log pack up to the signature: a content pack's, but for the kind.
pub fn encode_trailer(trailer: &PackTrailer, out: &mut Vec<u8>) {
    let start = out.len();
    PackTrailer { class: BlobClass::Content, ..*trailer }.encode(out);
    if let Some(kind) = out.get_mut(start + KIND_AT) {
        *kind = ObjectKind::LogPack.number();
    }
}

/// Reads a trailer and the signature at its end, as those of a content pack once the kind is checked.
fn decode_trailer(
    mut bytes: [u8; TRAILER_BYTES],
    pack_length: u64,
) -> Result<(PackTrailer, [u8; SIGNATURE_BYTES]), FormatError> {
    if let Some(kind) = bytes.get_mut(KIND_AT) {
        ensure(*kind == ObjectKind::LogPack.number(), "log pack trailer", "is of another kind")?;
        *kind = BlobClass::Content.pack_kind();
    }
    PackTrailer::decode(&bytes, pack_length)
}

/// What the seal of a log pack's table of contents is bound to besides its key, which is used once.
pub fn contents_associated_data(repository: &RepositoryId, contents_plain_length: u32) -> Vec<u8> {
    let kind = [ObjectKind::LogPack.number()];
    [repository.as_bytes().as_slice(), &kind, &contents_plain_length.to_le_bytes()].concat()
}

fn read_contents(
    plain: &[u8],
    trailer: &PackTrailer,
    frames_offset: u64,
) -> Result<TableOfContents, FormatError> {
    let contents = TableOfContents::decode_from(plain, trailer, frames_offset)?;
    let mut depths = HashMap::new();
    for frame in &contents.frames {
        for (id, _) in &frame.blobs {
            let least = depths.entry(*id).or_insert(frame.depth);
            *least = frame.depth.min(*least);
        }
    }
    for frame in &contents.frames {
        let Some(base) = frame.base else { continue };
        let based = depths.get(&base).is_some_and(|depth| *depth < frame.depth);
        ensure(based, WHAT, "a base is not in the same log pack with a smaller depth")?;
    }
    Ok(contents)
}

/// The end of a log pack: what describes its frames, without them.
#[derive(Debug)]
pub struct LogPackTail<'a> {
    /// The trailer.
    pub trailer: PackTrailer,
    /// The origins, from their second copy.
    pub origins: Vec<Origin>,
    /// The sealed table of contents, tag included.
    pub contents_sealed: &'a [u8],
}

impl<'a> LogPackTail<'a> {
    /// Returns how long the tail is, from the last [`TRAILER_BYTES`] of a log pack of the given length.
    pub fn length(trailer: &[u8], pack_length: u64) -> Result<u64, FormatError> {
        let trailer = trailer.last_chunk::<TRAILER_BYTES>().ok_or(FormatError::Truncated)?;
        Ok(decode_trailer(*trailer, pack_length)?.0.tail_length())
    }

    /// Takes the tail apart, of which [`LogPackTail::length`] bytes must be there.
    pub fn parse(tail: &'a [u8], pack_length: u64) -> Result<Self, FormatError> {
        let (described, trailer) = tail.split_last_chunk::<TRAILER_BYTES>().ok_or(FormatError::Truncated)?;
        let (trailer, _) = decode_trailer(*trailer, pack_length)?;
        let (contents_sealed, origins) = described
            .split_at_checked(trailer.contents_sealed_length() as usize)
            .ok_or(FormatError::Truncated)?;
        let origins = Origin::decode_all(origins, trailer.origin_count, trailer.class)?;
        Ok(Self { trailer, origins, contents_sealed })
    }

    /// Compares with the front, and reads the opened table of contents.
    pub fn contents(&self, front: &LogPackFront<'_>, plain: &[u8]) -> Result<TableOfContents, FormatError> {
        ensure(
            front.signer == self.trailer.signer && front.origins == self.origins,
            WHAT,
            "its front and its trailer differ",
        )?;
        read_contents(plain, &self.trailer, front.frames_offset())
    }
}

/// A whole log pack in memory.
#[derive(Debug)]
pub struct LogPackView<'a> {
    /// Signer, origins and records.
    pub front: LogPackFront<'a>,
    /// The trailer.
    pub trailer: PackTrailer,
    /// The sealed table of contents, tag included.
    pub contents_sealed: &'a [u8],
    /// Everything that the signature covers.
    pub signed: &'a [u8],
    /// The signature.
    pub signature: [u8; SIGNATURE_BYTES],
    frames_offset: u64,
    bytes: &'a [u8],
}

impl<'a> LogPackView<'a> {
    /// Takes a log pack apart; refuses it when front and tail disagree.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let head = LogPackHead::decode(bytes)?;
        let front = LogPackFront::parse(bytes)?;
        let (before, trailer) = bytes.split_last_chunk::<TRAILER_BYTES>().ok_or(FormatError::Truncated)?;
        let (trailer, signature) = decode_trailer(*trailer, bytes.len() as u64)?;
        let frames_offset = head.frames_offset();
        ensure(
            (head.origin_count, head.signer) == (trailer.origin_count, trailer.signer),
            "log pack trailer",
            "does not agree with the head",
        )?;
        ensure(u64::from(trailer.contents_offset) > frames_offset, WHAT, "it has no frames")?;
        let contents_at = usize::try_from(trailer.contents_offset).map_err(|_| FormatError::Truncated)?;
        let (contents_sealed, origins) = before
            .get(contents_at..)
            .and_then(|tail| tail.split_at_checked(trailer.contents_sealed_length() as usize))
            .ok_or(FormatError::Truncated)?;
        let origins = Origin::decode_all(origins, trailer.origin_count, trailer.class)?;
        ensure(origins == front.origins, "log pack origins", "the two copies differ")?;
        let signed_length = bytes.len().checked_sub(SIGNATURE_BYTES).ok_or(FormatError::Truncated)?;
        let signed = bytes.get(..signed_length).ok_or(FormatError::Truncated)?;
        Ok(Self { front, trailer, contents_sealed, signed, signature, frames_offset, bytes })
    }

    /// Reads the opened table of contents, and checks that its frames need no other object.
    pub fn contents(&self, plain: &[u8]) -> Result<TableOfContents, FormatError> {
        read_contents(plain, &self.trailer, self.frames_offset)
    }

    /// Returns the sealed bytes of a frame that the table of contents describes.
    pub fn frame(&self, record: &FrameRecord) -> Result<&'a [u8], FormatError> {
        let start = usize::try_from(record.offset).map_err(|_| FormatError::Truncated)?;
        let end = usize::try_from(record.end()).map_err(|_| FormatError::Truncated)?;
        self.bytes.get(start..end).ok_or(FormatError::Truncated)
    }
}
