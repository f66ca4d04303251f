//! The table of contents: every frame of a pack and the blobs in it, in the order in which they lie.

use super::PackTrailer;
use super::frame::{check_depth, check_lengths};
use crate::base::{BlobId, limits};
use crate::codec::Encoding;
use crate::format::bytes::{Fields, at_most, ensure};
use crate::format::error::FormatError;
use crate::format::words::encoding_from;
use std::collections::HashSet;

/// Length of a frame's record without base and blobs.
const RECORD_BYTES: u64 = 28;
/// Length of one blob's entry.
const BLOB_BYTES: u64 = 36;
/// Length of the count before the records.
const COUNT_BYTES: u64 = 4;

/// One frame as the table of contents describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameRecord {
    /// Where the sealed bytes begin, from the start of the pack.
    pub offset: u32,
    /// Length of the sealed bytes, tag included.
    pub sealed_length: u32,
    /// Length of the decoded bytes.
    pub plain_length: u32,
    /// How the plain bytes were made smaller.
    pub encoding: Encoding,
    /// How many bases must be decoded before this frame, at most.
    pub depth: u8,
    /// Number of the origin within this pack, from 0.
    pub origin: u16,
    /// Counts the frames of one origin; makes the nonce, so it never repeats under one origin.
    pub counter: u64,
    /// The blob that a difference or dictionary frame decodes against.
    pub base: Option<BlobId>,
    /// The blobs whose bytes, one after the other, are the decoded bytes; with their lengths.
    pub blobs: Vec<(BlobId, u32)>,
}

impl FrameRecord {
    /// Returns the offset of the first byte after the sealed frame.
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.sealed_length)
    }

    fn check(&self) -> Result<(), FormatError> {
        check_lengths(self.encoding, self.plain_length, self.sealed_length)?;
        check_depth(self.encoding, self.base.is_some(), self.depth)?;
        ensure(!self.blobs.is_empty(), "frame blobs", "there is none")?;
        at_most("frame blobs", self.blobs.len() as u64, limits::FRAME_BLOBS_MAX)?;
        let mut sum = 0_u64;
        for (_, length) in &self.blobs {
            ensure(*length > 0, "blob length", "no blob is empty")?;
            sum += u64::from(*length);
        }
        ensure(sum == u64::from(self.plain_length), "blob lengths", "do not sum to the frame's plain length")
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), FormatError> {
        self.check()?;
        let count = u16::try_from(self.blobs.len()).map_err(|_| too_many_blobs(self.blobs.len()))?;
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.sealed_length.to_le_bytes());
        out.extend_from_slice(&self.plain_length.to_le_bytes());
        out.extend_from_slice(&[u8::from(self.encoding), self.depth]);
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&self.origin.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.counter.to_le_bytes());
        if let Some(base) = &self.base {
            out.extend_from_slice(base.as_bytes());
        }
        for (id, length) in &self.blobs {
            out.extend_from_slice(id.as_bytes());
            out.extend_from_slice(&length.to_le_bytes());
        }
        Ok(())
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Self, FormatError> {
        let offset = fields.u32()?;
        let sealed_length = fields.u32()?;
        let plain_length = fields.u32()?;
        let encoding = encoding_from(fields.u8()?)?;
        let depth = fields.u8()?;
        let count = fields.u16()?;
        at_most("frame blobs", u64::from(count), limits::FRAME_BLOBS_MAX)?;
        let origin = fields.u16()?;
        fields.zeros(2, "frame record")?;
        let counter = fields.u64()?;
        let base = if encoding.needs_base() { Some(BlobId::new(fields.array()?)) } else { None };
        let mut blobs = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            blobs.push((BlobId::new(fields.array()?), fields.u32()?));
        }
        let record =
            Self { offset, sealed_length, plain_length, encoding, depth, origin, counter, base, blobs };
        record.check()?;
        Ok(record)
    }
}

fn too_many_blobs(count: usize) -> FormatError {
    FormatError::TooLarge { what: "frame blobs", value: count as u64, limit: limits::FRAME_BLOBS_MAX }
}

/// All frames of a pack, without gaps between the origins and the table itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableOfContents {
    /// The frames in the order of their offsets.
    pub frames: Vec<FrameRecord>,
}

impl TableOfContents {
    /// Appends the plain table of contents; refuses a frame that no reader would accept.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), FormatError> {
        at_most("pack frames", self.frames.len() as u64, limits::PACK_FRAMES_MAX)?;
        at_most("pack blobs", self.blob_count(), limits::PACK_BLOBS_MAX)?;
        let count = u32::try_from(self.frames.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        self.frames.iter().try_for_each(|frame| frame.encode(out))
    }

    /// Reads a plain table of contents and checks it against the trailer of its pack: the same
    /// counts, and frames that fill the pack from the origins to the table without a gap.
    pub fn decode(bytes: &[u8], trailer: &PackTrailer) -> Result<Self, FormatError> {
        Self::decode_from(bytes, trailer, trailer.frames_offset())
    }

    /// Reads the table of a pack whose frames begin at another place than right after the origins.
    pub(in crate::format) fn decode_from(
        bytes: &[u8],
        trailer: &PackTrailer,
        frames_offset: u64,
    ) -> Result<Self, FormatError> {
        let mut fields = Fields::new(bytes);
        let count = fields.u32()?;
        ensure(count == trailer.frame_count, "pack frames", "their number is not the trailer's")?;
        at_most("pack frames", u64::from(count), limits::PACK_FRAMES_MAX)?;
        // A record is never shorter than RECORD_BYTES and one blob: the bytes at hand bound the memory.
        let room = bytes.len() as u64 / (RECORD_BYTES + BLOB_BYTES);
        let mut frames = Vec::with_capacity(u64::from(count).min(room) as usize);
        let mut seen = HashSet::with_capacity(frames.capacity());
        let mut blobs = 0;
        let mut next = frames_offset;
        for _ in 0..count {
            let frame = FrameRecord::decode(&mut fields)?;
            ensure(frame.origin < trailer.origin_count, "frame origin", "the pack has no such origin")?;
            ensure(seen.insert((frame.origin, frame.counter)), "frame counter", "repeats under one origin")?;
            ensure(u64::from(frame.offset) == next, "frame offset", "is not where the one before it ends")?;
            next = frame.end();
            blobs += frame.blobs.len() as u64;
            frames.push(frame);
        }
        fields.end("table of contents")?;
        ensure(
            next == u64::from(trailer.contents_offset),
            "pack frames",
            "do not end where the table begins",
        )?;
        ensure(blobs == u64::from(trailer.blob_count), "pack blobs", "their number is not the trailer's")?;
        Ok(Self { frames })
    }

    /// Returns how many blobs all frames hold.
    pub fn blob_count(&self) -> u64 {
        self.frames.iter().map(|frame| frame.blobs.len() as u64).sum()
    }
}

/// Returns the least and the greatest length that a table with these counts can have.
pub(super) fn plain_bounds(frame_count: u32, blob_count: u32) -> (u64, u64) {
    let least = COUNT_BYTES + u64::from(frame_count) * RECORD_BYTES + u64::from(blob_count) * BLOB_BYTES;
    (least, least + u64::from(frame_count) * BlobId::LENGTH as u64)
}
