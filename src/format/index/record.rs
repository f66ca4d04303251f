//! One copy of one blob: which pack, which frame, which bytes of it.

use super::INDEX_RECORD_BYTES;
use crate::base::BlobId;
use crate::codec::Encoding;
use crate::format::bytes::{Fields, ensure, invalid};
use crate::format::error::FormatError;
use crate::format::pack::{BlobClass, HEAD_BYTES, ORIGIN_BYTES, check_depth, check_lengths};
use crate::format::words::encoding_from;

/// The number that stands for "no base".
const NO_BASE: u32 = u32::MAX;

/// Where one copy of a blob lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexRecord {
    /// The blob.
    pub id: BlobId,
    /// Content or metadata: the class of the pack.
    pub class: BlobClass,
    /// Number of the pack in the run's directory.
    pub pack: u32,
    /// Where the frame begins in the pack.
    pub frame_offset: u32,
    /// Length of the sealed bytes, tag included.
    pub sealed_length: u32,
    /// Length of the frame's decoded bytes.
    pub plain_length: u32,
    /// Where the blob begins in the frame's decoded bytes.
    pub offset: u32,
    /// Length of the blob.
    pub length: u32,
    /// Counts the frames of one origin; makes the nonce.
    pub counter: u64,
    /// Number of the origin within the pack.
    pub origin: u16,
    /// How the frame was made smaller.
    pub encoding: Encoding,
    /// How many bases must be decoded before the frame, at most.
    pub depth: u8,
    /// The blob that the frame decodes against.
    pub base: Option<BlobId>,
}

/// The order of records in a run: by id and class; of several copies the one nearest to standing
/// alone comes first.
pub type RecordOrder<'a> = (&'a BlobId, BlobClass, u8, u32, u32, u32);

impl IndexRecord {
    /// Returns what records are sorted by.
    pub fn order(&self) -> RecordOrder<'_> {
        (&self.id, self.class, self.depth, self.pack, self.frame_offset, self.offset)
    }

    /// Returns the offset of the first byte after the frame.
    pub fn frame_end(&self) -> u64 {
        u64::from(self.frame_offset) + u64::from(self.sealed_length)
    }

    /// Encodes the record; the base is written as its number in the block.
    pub(super) fn encode(&self, base: Option<u32>) -> [u8; INDEX_RECORD_BYTES] {
        let mut bytes = [0; INDEX_RECORD_BYTES];
        let words =
            [self.pack, self.frame_offset, self.sealed_length, self.plain_length, self.offset, self.length];
        let (id, rest) = bytes.split_at_mut(BlobId::LENGTH);
        id.copy_from_slice(self.id.as_bytes());
        let (numbers, rest) = rest.split_at_mut(24);
        for (place, word) in numbers.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let (counter, rest) = rest.split_at_mut(8);
        counter.copy_from_slice(&self.counter.to_le_bytes());
        let (number, rest) = rest.split_at_mut(4);
        number.copy_from_slice(&base.unwrap_or(NO_BASE).to_le_bytes());
        let (origin, small) = rest.split_at_mut(2);
        origin.copy_from_slice(&self.origin.to_le_bytes());
        small.copy_from_slice(&[u8::from(self.encoding) | class_code(self.class) << 4, self.depth]);
        bytes
    }

    /// Decodes one record; `bases` are the block's, 32 bytes each.
    pub(super) fn decode(bytes: &[u8], bases: &[[u8; 32]]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(bytes);
        let id = BlobId::new(fields.array()?);
        let pack = fields.u32()?;
        let frame_offset = fields.u32()?;
        let sealed_length = fields.u32()?;
        let plain_length = fields.u32()?;
        let offset = fields.u32()?;
        let length = fields.u32()?;
        let counter = fields.u64()?;
        let base = match fields.u32()? {
            NO_BASE => None,
            number => Some(base_at(bases, number)?),
        };
        let origin = fields.u16()?;
        let kinds = fields.u8()?;
        let (encoding, class) = (encoding_from(kinds & 0xF)?, class_from(kinds >> 4)?);
        let depth = fields.u8()?;
        fields.end("index record")?;
        let record = Self {
            id,
            class,
            pack,
            frame_offset,
            sealed_length,
            plain_length,
            offset,
            length,
            counter,
            origin,
            encoding,
            depth,
            base,
        };
        record.check()?;
        Ok(record)
    }

    /// Checks what can be said of a record without its run.
    pub fn check(&self) -> Result<(), FormatError> {
        check_lengths(self.encoding, self.plain_length, self.sealed_length)?;
        check_depth(self.encoding, self.base.is_some(), self.depth)?;
        ensure(
            self.frame_offset as usize >= HEAD_BYTES + ORIGIN_BYTES,
            "index record frame",
            "lies in the head of its pack",
        )?;
        ensure(self.length > 0, "index record length", "no blob is empty")?;
        ensure(
            u64::from(self.offset) + u64::from(self.length) <= u64::from(self.plain_length),
            "index record blob",
            "does not lie inside its frame",
        )
    }
}

fn class_code(class: BlobClass) -> u8 {
    match class {
        BlobClass::Content => 0,
        BlobClass::Metadata => 1,
    }
}

fn class_from(code: u8) -> Result<BlobClass, FormatError> {
    match code {
        0 => Ok(BlobClass::Content),
        1 => Ok(BlobClass::Metadata),
        _ => Err(invalid("index record class", "is neither content nor metadata")),
    }
}

fn base_at(bases: &[[u8; 32]], number: u32) -> Result<BlobId, FormatError> {
    let base = usize::try_from(number).ok().and_then(|number| bases.get(number));
    base.copied().map(BlobId::new).ok_or_else(|| invalid("index record base", "the block has no such base"))
}
