//! Frames: sealed bytes and nothing else, so that a store without keys does not see where one ends;
//! what its seal is bound to, and the rules for what tables say of it.

use super::BlobClass;
use crate::base::{BlobId, RepositoryId, limits};
use crate::codec::Encoding;
use crate::crypto::TAG_BYTES;
use crate::format::bytes::{at_most, ensure};
use crate::format::error::FormatError;

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
    at_most("frame sealed length", sealed, limits::FRAME_SEALED_BYTES_MAX)?;
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
        encoding: Encoding,
        counter: u64,
        plain_length: u32,
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
        put(&[class.pack_kind(), u8::from(encoding)]);
        put(&counter.to_le_bytes());
        put(&plain_length.to_le_bytes());
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
