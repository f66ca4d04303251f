//! The directory of a run: its packs with their origins, and where each block begins.

use super::{INDEX_HEAD_BYTES, INDEX_RECORD_BYTES, IndexHead, IndexRecord};
use crate::base::{BlobId, PackId, limits};
use crate::crypto::TAG_BYTES;
use crate::format::bytes::{Fields, at_most, ensure, invalid};
use crate::format::error::FormatError;
use crate::format::pack::{BlobClass, ORIGIN_BYTES, Origin};
use std::collections::HashSet;

/// Length of one pack's entry, and of one block's.
const ENTRY_BYTES: u64 = 48;
/// Length of the counts before the entries.
const COUNTS_BYTES: u64 = 16;

/// A pack that records of the run name by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackEntry {
    /// The pack.
    pub id: PackId,
    /// Its length in bytes.
    pub length: u32,
    /// Content or metadata.
    pub class: BlobClass,
    /// Its origins, so that a frame can be opened without reading the pack's head.
    pub origins: Vec<Origin>,
}

/// Where a block lies and what it begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockEntry {
    /// Id of the first record.
    pub first: BlobId,
    /// Where the sealed block begins, from the start of the run.
    pub offset: u64,
    /// Length of the sealed block, tag included.
    pub stored_length: u32,
    /// How many records it holds.
    pub record_count: u16,
    /// How many ids of bases follow the records.
    pub base_count: u16,
}

impl BlockEntry {
    /// Returns the length of the plain block.
    pub fn plain_length(&self) -> usize {
        usize::from(self.record_count) * INDEX_RECORD_BYTES + usize::from(self.base_count) * BlobId::LENGTH
    }
}

/// The packs and blocks of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory {
    /// The packs; a record's pack number counts here.
    pub packs: Vec<PackEntry>,
    /// The blocks in the order in which they lie, which is that of the ids.
    pub blocks: Vec<BlockEntry>,
}

impl Directory {
    /// Appends the plain directory.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), FormatError> {
        let origins: usize = self.packs.iter().map(|pack| pack.origins.len()).sum();
        let counts = [self.packs.len(), origins, self.blocks.len(), 0];
        check_counts(counts.map(|count| count as u64))?;
        for count in counts {
            out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        }
        let mut first_origin = 0_u32;
        for pack in &self.packs {
            let origin_count = u16::try_from(pack.origins.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(pack.id.as_bytes());
            out.extend_from_slice(&pack.length.to_le_bytes());
            out.extend_from_slice(&[pack.class.pack_kind(), 0]);
            out.extend_from_slice(&origin_count.to_le_bytes());
            out.extend_from_slice(&first_origin.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            first_origin += u32::from(origin_count);
        }
        self.packs.iter().flat_map(|pack| &pack.origins).for_each(|origin| origin.encode(out));
        for block in &self.blocks {
            out.extend_from_slice(block.first.as_bytes());
            out.extend_from_slice(&block.offset.to_le_bytes());
            out.extend_from_slice(&block.stored_length.to_le_bytes());
            out.extend_from_slice(&block.record_count.to_le_bytes());
            out.extend_from_slice(&block.base_count.to_le_bytes());
        }
        Ok(())
    }

    /// Reads a plain directory and checks it against the head of its run: blocks that fill the run
    /// from the head to the directory without a gap, and as many records as the head says.
    pub fn decode(bytes: &[u8], head: &IndexHead) -> Result<Self, FormatError> {
        let mut fields = Fields::new(bytes);
        let counts = [fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?].map(u64::from);
        check_counts(counts)?;
        let [pack_count, origin_count, block_count, _] = counts;
        let length =
            COUNTS_BYTES + (pack_count + block_count) * ENTRY_BYTES + origin_count * ORIGIN_BYTES as u64;
        if length > bytes.len() as u64 {
            return Err(FormatError::Truncated);
        }
        // From here on the counts are bounded by the bytes at hand.
        let (packs, used) = decode_packs(&mut fields, pack_count, origin_count)?;
        ensure(used == origin_count, "index origins", "do not all belong to a pack")?;
        ensure(block_count == u64::from(head.block_count), "index blocks", "their number is not the head's")?;
        let blocks = decode_blocks(&mut fields, block_count, head)?;
        fields.end("index directory")?;
        let directory = Self { packs, blocks };
        let distinct: HashSet<_> = directory.packs.iter().map(|pack| pack.id).collect();
        ensure(distinct.len() == directory.packs.len(), "index packs", "one is listed twice")?;
        Ok(directory)
    }

    /// Returns the block that holds the copies of a blob, if any does, by its number.
    pub fn block_of(&self, id: &BlobId) -> Option<usize> {
        self.blocks.partition_point(|block| block.first <= *id).checked_sub(1)
    }

    /// Returns the block that follows another in the order of ids.
    pub(super) fn block_after(&self, entry: &BlockEntry) -> Option<&BlockEntry> {
        self.blocks.get(self.blocks.partition_point(|block| block.first <= entry.first))
    }

    /// Checks what a record says about its pack.
    pub fn check_record(&self, record: &IndexRecord) -> Result<(), FormatError> {
        let pack = self
            .packs
            .get(record.pack as usize)
            .ok_or_else(|| invalid("index record pack", "the run has no such pack"))?;
        ensure(pack.class == record.class, "index record class", "is not that of its pack")?;
        ensure(
            usize::from(record.origin) < pack.origins.len(),
            "index record origin",
            "its pack has no such origin",
        )?;
        ensure(record.frame_end() <= u64::from(pack.length), "index record frame", "ends behind its pack")
    }
}

fn check_counts([packs, origins, blocks, zero]: [u64; 4]) -> Result<(), FormatError> {
    at_most("index packs", packs, limits::INDEX_PACKS_MAX)?;
    at_most("index origins", origins, limits::INDEX_ORIGINS_MAX)?;
    at_most("index blocks", blocks, limits::INDEX_BLOCKS_MAX)?;
    ensure(zero == 0, "index directory", "reserved bytes are not zero")
}

fn decode_packs(
    fields: &mut Fields<'_>,
    pack_count: u64,
    origin_count: u64,
) -> Result<(Vec<PackEntry>, u64), FormatError> {
    let mut shapes = Vec::with_capacity(pack_count as usize);
    let mut next_origin = 0_u64;
    for _ in 0..pack_count {
        let id = PackId::new(fields.array()?);
        let length = fields.u32()?;
        let class = BlobClass::from_pack_kind(fields.u8()?)?;
        fields.zeros(1, "index pack")?;
        let count = fields.u16()?;
        let first_origin = fields.u32()?;
        fields.zeros(4, "index pack")?;
        at_most("pack length", u64::from(length), limits::PACK_BYTES_MAX)?;
        ensure(u64::from(first_origin) == next_origin, "index origins", "are not in the order of the packs")?;
        ensure(count > 0, "pack origins", "there is none")?;
        at_most("pack origins", u64::from(count), limits::PACK_ORIGINS_MAX)?;
        next_origin += u64::from(count);
        ensure(next_origin <= origin_count, "index origins", "are fewer than the packs name")?;
        shapes.push((id, length, class, count));
    }
    let mut packs = Vec::with_capacity(shapes.len());
    for (id, length, class, count) in shapes {
        let bytes = fields.take(usize::from(count) * ORIGIN_BYTES)?;
        packs.push(PackEntry { id, length, class, origins: Origin::decode_all(bytes, count, class)? });
    }
    Ok((packs, next_origin))
}

fn decode_blocks(
    fields: &mut Fields<'_>,
    block_count: u64,
    head: &IndexHead,
) -> Result<Vec<BlockEntry>, FormatError> {
    let mut blocks: Vec<BlockEntry> = Vec::with_capacity(block_count as usize);
    let mut next = INDEX_HEAD_BYTES as u64;
    let mut records = 0;
    for _ in 0..block_count {
        let block = BlockEntry {
            first: BlobId::new(fields.array()?),
            offset: fields.u64()?,
            stored_length: fields.u32()?,
            record_count: fields.u16()?,
            base_count: fields.u16()?,
        };
        check_block(&block)?;
        ensure(block.offset == next, "index block offset", "is not where the one before it ends")?;
        next += u64::from(block.stored_length);
        records += u64::from(block.record_count);
        let ordered = blocks.last().is_none_or(|previous| previous.first < block.first);
        ensure(ordered, "index blocks", "are not in strict order")?;
        blocks.push(block);
    }
    ensure(next == head.directory_offset, "index blocks", "do not end where the directory begins")?;
    ensure(records == head.record_count, "index records", "their number is not the head's")?;
    Ok(blocks)
}

fn check_block(block: &BlockEntry) -> Result<(), FormatError> {
    ensure(block.record_count > 0, "index block", "is empty")?;
    at_most("index block records", u64::from(block.record_count), limits::INDEX_BLOCK_RECORDS_MAX)?;
    ensure(block.base_count <= block.record_count, "index block bases", "are more than records")?;
    ensure(block.stored_length as usize > TAG_BYTES, "index block length", "no room for the tag and a byte")?;
    at_most("index block length", u64::from(block.stored_length), limits::INDEX_BLOCK_STORED_BYTES_MAX)
}
