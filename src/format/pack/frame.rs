//! What stands before each sealed frame, and what its seal is bound to.

use super::{BlobClass, FRAME_HEADER_BYTES};
use crate::base::{BlobId, RepositoryId, limits};
use crate::codec::Encoding;
use crate::crypto::TAG_BYTES;
use crate::format::bytes::{Fields, at_most, ensure};
use crate::format::error::FormatError;
use crate::format::words::encoding_from;

const FRAME_MAGIC: [u8; 4] = *b"FRAM";

/// The header before each sealed frame: enough to open the frame without the table of contents,
/// but for the base of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Number of the origin within this pack, from 0.
    pub origin: u16,
    /// How the plain bytes were made smaller.
    pub encoding: Encoding,
    /// Counts the frames of one origin; makes the nonce, so it never repeats under one origin.
    pub counter: u64,
    /// Length of the decoded bytes.
    pub plain_length: u32,
    /// Length of the sealed bytes that follow, tag included.
    pub sealed_length: u32,
}

impl FrameHeader {
    /// Appends the header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&FRAME_MAGIC);
        out.extend_from_slice(&self.origin.to_le_bytes());
        out.extend_from_slice(&[u8::from(self.encoding), 0]);
        out.extend_from_slice(&self.counter.to_le_bytes());
        out.extend_from_slice(&self.plain_length.to_le_bytes());
        out.extend_from_slice(&self.sealed_length.to_le_bytes());
    }

    /// Reads the header from the first [`FRAME_HEADER_BYTES`]; what follows them is not looked at.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(bytes.get(..FRAME_HEADER_BYTES).ok_or(FormatError::Truncated)?);
        fields.magic(FRAME_MAGIC)?;
        let origin = fields.u16()?;
        let encoding = encoding_from(fields.u8()?)?;
        fields.zeros(1, "frame header")?;
        let counter = fields.u64()?;
        let plain_length = fields.u32()?;
        let sealed_length = fields.u32()?;
        check_lengths(encoding, plain_length, sealed_length)?;
        Ok(Self { origin, encoding, counter, plain_length, sealed_length })
    }
}

/// Checks the lengths of a frame, wherever they are written down.
pub(in crate::format) fn check_lengths(
    encoding: Encoding,
    plain_length: u32,
    sealed_length: u32,
) -> Result<(), FormatError> {
    let (plain, sealed) = (u64::from(plain_length), u64::from(sealed_length));
    ensure(plain > 0, "frame plain length", "no frame is empty")?;
    at_most("frame plain length", plain, limits::FRAME_PLAIN_BYTES_MAX)?;
    ensure(sealed > TAG_BYTES as u64, "frame sealed length", "no room for the tag and a byte")?;
    at_most("frame sealed length", sealed + FRAME_HEADER_BYTES as u64, limits::FRAME_SEALED_BYTES_MAX)?;
    ensure(
        encoding != Encoding::Stored || sealed == plain + TAG_BYTES as u64,
        "frame sealed length",
        "a stored frame is as long as its content and the tag",
    )
}

/// Checks that encoding, base and depth agree, wherever they are written down.
///
/// A frame with a base has a depth from 1 and decodes only through a copy of the base of a smaller
/// depth, so that following bases ends whatever hostile or unlucky writers did.
pub(in crate::format) fn check_depth(
    encoding: Encoding,
    has_base: bool,
    depth: u8,
) -> Result<(), FormatError> {
    ensure(encoding.needs_base() == has_base, "frame base", "does not fit the encoding")?;
    ensure(has_base == (depth > 0), "frame depth", "is 0 for frames without a base and only for them")?;
    at_most("frame depth", u64::from(depth), u64::from(limits::DEPTH_MAX))
}

/// Returns the nonce of a frame: unique under its origin's key because the counter is.
pub fn frame_nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    let (_, low) = nonce.split_at_mut(4);
    low.copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// What a frame's seal is bound to besides its key: repository, class, encoding, counter, length
/// and base; neither the pack nor the place in it, so that sealed frames can move.
pub struct FrameAssociatedData {
    bytes: [u8; 78],
    length: usize,
}

impl FrameAssociatedData {
    /// Puts the bound values together.
    pub fn new(
        repository: &RepositoryId,
        class: BlobClass,
        header: &FrameHeader,
        base: Option<&BlobId>,
    ) -> Self {
        let mut bytes = [0; 78];
        let mut length = 0;
        let mut put = |part: &[u8]| {
            if let Some(place) = bytes.get_mut(length..length + part.len()) {
                place.copy_from_slice(part);
                length += part.len();
            }
        };
        put(repository.as_bytes());
        put(&[class.pack_kind(), u8::from(header.encoding)]);
        put(&header.counter.to_le_bytes());
        put(&header.plain_length.to_le_bytes());
        if let Some(base) = base {
            put(base.as_bytes());
        }
        Self { bytes, length }
    }
}

impl AsRef<[u8]> for FrameAssociatedData {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&self.bytes)
    }
}
