//! What a pack ends with: where the table of contents lies and how to open it, and the signature.

use super::contents::plain_bounds;
use super::head::{check_origin_count, frames_offset};
use super::{BlobClass, ORIGIN_BYTES, TRAILER_BYTES};
use crate::base::{KeyId, RepositoryId, limits};
use crate::crypto::{SIGNATURE_BYTES, Suite, TAG_BYTES};
use crate::format::bytes::{Fields, at_most, ensure, version_one};
use crate::format::error::FormatError;
use crate::format::words::suite_from;

const TRAILER_MAGIC: [u8; 3] = *b"TRL";

/// The last [`TRAILER_BYTES`] of a pack, without the signature at their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackTrailer {
    /// Where the sealed table of contents begins, from the start of the pack.
    pub contents_offset: u32,
    /// Length of the plain table; sealed it is [`TAG_BYTES`] longer.
    pub contents_plain_length: u32,
    /// The epoch of the metadata key that opens the table.
    pub epoch: u32,
    /// The cipher of the table.
    pub suite: Suite,
    /// Content or metadata, as in the head.
    pub class: BlobClass,
    /// How many origins there are, as in the head.
    pub origin_count: u16,
    /// How many frames the table describes.
    pub frame_count: u32,
    /// How many blobs the table describes.
    pub blob_count: u32,
    /// Random bytes that make the table's key.
    pub salt: [u8; 32],
    /// Commits to the table's key.
    pub commitment: [u8; 32],
    /// The key that signed the pack, as in the head.
    pub signer: KeyId,
}

impl PackTrailer {
    /// Appends the trailer up to the signature, which the caller makes over all bytes before it and
    /// appends.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.contents_offset.to_le_bytes());
        out.extend_from_slice(&self.contents_sealed_length().to_le_bytes());
        out.extend_from_slice(&self.contents_plain_length.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&[self.suite.number(), self.class.pack_kind()]);
        out.extend_from_slice(&self.origin_count.to_le_bytes());
        out.extend_from_slice(&self.frame_count.to_le_bytes());
        out.extend_from_slice(&self.blob_count.to_le_bytes());
        out.extend_from_slice(&TRAILER_MAGIC);
        out.push(1);
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.commitment);
        out.extend_from_slice(self.signer.as_bytes());
    }

    /// Reads the trailer and the signature from the last [`TRAILER_BYTES`] of a pack of the given
    /// length; everything that it says about places is checked against that length.
    pub fn decode(bytes: &[u8], pack_length: u64) -> Result<(Self, [u8; SIGNATURE_BYTES]), FormatError> {
        at_most("pack length", pack_length, limits::PACK_BYTES_MAX)?;
        let mut fields = Fields::new(bytes);
        let contents_offset = fields.u32()?;
        let sealed_length = fields.u32()?;
        let contents_plain_length = fields.u32()?;
        let epoch = fields.u32()?;
        let suite = fields.u8()?;
        let kind = fields.u8()?;
        let origin_count = fields.u16()?;
        let frame_count = fields.u32()?;
        let blob_count = fields.u32()?;
        if fields.array::<3>()? != TRAILER_MAGIC {
            return Err(FormatError::BadMagic);
        }
        version_one(fields.u8()?, "pack version")?;
        let salt = fields.array()?;
        let commitment = fields.array()?;
        let signer = fields.key_id()?;
        let signature = fields.array()?;
        fields.end("pack trailer")?;
        let trailer = Self {
            contents_offset,
            contents_plain_length,
            epoch,
            suite: suite_from(suite)?,
            class: BlobClass::from_pack_kind(kind)?,
            origin_count,
            frame_count,
            blob_count,
            salt,
            commitment,
            signer,
        };
        trailer.check(sealed_length, pack_length)?;
        Ok((trailer, signature))
    }

    fn check(&self, sealed_length: u32, pack_length: u64) -> Result<(), FormatError> {
        ensure(self.epoch > 0, "pack trailer epoch", "epochs count from 1")?;
        check_origin_count(self.origin_count)?;
        ensure(self.frame_count > 0, "pack frames", "there is none")?;
        at_most("pack frames", u64::from(self.frame_count), limits::PACK_FRAMES_MAX)?;
        at_most("pack blobs", u64::from(self.blob_count), limits::PACK_BLOBS_MAX)?;
        ensure(self.blob_count >= self.frame_count, "pack blobs", "fewer than frames")?;
        let (least, greatest) = plain_bounds(self.frame_count, self.blob_count);
        let plain = u64::from(self.contents_plain_length);
        ensure((least..=greatest).contains(&plain), "table of contents length", "does not fit the counts")?;
        ensure(
            u64::from(sealed_length) == plain + TAG_BYTES as u64,
            "table of contents length",
            "sealed and plain do not differ by the tag",
        )?;
        ensure(
            u64::from(self.contents_offset) > self.frames_offset(),
            "table of contents offset",
            "lies before the frames",
        )?;
        let end = u64::from(self.contents_offset) + self.tail_length();
        ensure(end == pack_length, "pack length", "is not what the trailer says")
    }

    /// Returns the length of the sealed table of contents.
    pub fn contents_sealed_length(&self) -> u32 {
        self.contents_plain_length.saturating_add(TAG_BYTES as u32)
    }

    /// Returns where the first frame begins.
    pub fn frames_offset(&self) -> u64 {
        frames_offset(self.origin_count)
    }

    /// Returns how many bytes from the table of contents to the end of the pack: what must be
    /// fetched to describe it.
    pub fn tail_length(&self) -> u64 {
        u64::from(self.contents_plain_length)
            + TAG_BYTES as u64
            + u64::from(self.origin_count) * ORIGIN_BYTES as u64
            + TRAILER_BYTES as u64
    }
}

/// What the seal of a table of contents is bound to besides its key, which is used once.
pub fn contents_associated_data(
    repository: &RepositoryId,
    class: BlobClass,
    contents_plain_length: u32,
) -> Vec<u8> {
    let mut data = Vec::with_capacity(37);
    data.extend_from_slice(repository.as_bytes());
    data.push(class.pack_kind());
    data.extend_from_slice(&contents_plain_length.to_le_bytes());
    data
}
