//! The plain form of a block: records of fixed size, then the ids of their bases. It is searched
//! where it lies (in a mapped file as well), without decoding more than the records that match.

use super::{BlockEntry, Directory, INDEX_BLOCK_RECORDS, INDEX_RECORD_BYTES, IndexRecord};
use crate::base::{BlobId, limits};
use crate::format::bytes::{at_most, ensure, invalid};
use crate::format::error::FormatError;
use crate::format::pack::BlobClass;

/// A plain block: of the right length, its records not yet looked at.
#[derive(Debug, Clone, Copy)]
pub struct IndexBlock<'a> {
    records: &'a [[u8; INDEX_RECORD_BYTES]],
    bases: &'a [[u8; 32]],
}

impl<'a> IndexBlock<'a> {
    /// Takes a plain block with these counts.
    pub fn new(bytes: &'a [u8], record_count: u16, base_count: u16) -> Result<Self, FormatError> {
        check_counts(usize::from(record_count), usize::from(base_count))?;
        let length = usize::from(record_count) * INDEX_RECORD_BYTES;
        let (records, bases) = bytes.split_at_checked(length).ok_or(FormatError::Truncated)?;
        let (records, _) = records.as_chunks();
        let (bases, rest) = bases.as_chunks();
        let enough = bases.len() >= usize::from(base_count);
        if !enough {
            return Err(FormatError::Truncated);
        }
        ensure(
            rest.is_empty() && bases.len() == usize::from(base_count),
            "index block",
            "bytes follow its end",
        )?;
        Ok(Self { records, bases })
    }

    /// Takes the block that an entry of the directory describes.
    pub fn of(bytes: &'a [u8], entry: &BlockEntry) -> Result<Self, FormatError> {
        Self::new(bytes, entry.record_count, entry.base_count)
    }

    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Says whether there is no record; no block of a run is empty.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Decodes the record with this number; `None` behind the last.
    pub fn record(&self, number: usize) -> Option<Result<IndexRecord, FormatError>> {
        self.records.get(number).map(|record| IndexRecord::decode(record, self.bases))
    }

    /// Decodes the records one after the other.
    pub fn records(&self) -> impl Iterator<Item = Result<IndexRecord, FormatError>> + use<'a> {
        let bases = self.bases;
        self.records.iter().map(move |record| IndexRecord::decode(record, bases))
    }

    /// Finds the copies of a blob in this block, the one nearest to standing alone first.
    pub fn find(
        &self,
        id: &BlobId,
        class: BlobClass,
    ) -> impl Iterator<Item = Result<IndexRecord, FormatError>> + use<'a> {
        let id = *id;
        let bases = self.bases;
        let first = self.lower_bound(&id);
        self.records
            .iter()
            .skip(first)
            .take_while(move |record| record.starts_with(id.as_bytes()))
            .map(move |record| IndexRecord::decode(record, bases))
            .filter(move |record| record.as_ref().map_or(true, |record| record.class == class))
    }

    /// Returns the number of the first record whose id is not below the given one.
    pub fn lower_bound(&self, id: &BlobId) -> usize {
        let below =
            |record: &[u8; INDEX_RECORD_BYTES]| record.get(..BlobId::LENGTH) < Some(id.as_bytes().as_slice());
        self.records.partition_point(below)
    }

    /// Decodes every record and checks all that a reader must: their order, that they begin with the
    /// id in the directory and end before that of the next block, that packs exist and frames lie inside
    /// them, that bases are in strict order and every one is used.
    pub fn decode_all(
        &self,
        entry: &BlockEntry,
        directory: &Directory,
    ) -> Result<Vec<IndexRecord>, FormatError> {
        let mut records: Vec<IndexRecord> = Vec::with_capacity(self.records.len());
        ensure(self.bases.is_sorted_by(|a, b| a < b), "index block bases", "are not in strict order")?;
        for record in self.records() {
            let record = record?;
            directory.check_record(&record)?;
            if let Some(previous) = records.last() {
                ensure(previous.order() < record.order(), "index records", "are not in strict order")?;
            }
            records.push(record);
        }
        let mut named: Vec<_> = records.iter().filter_map(|record| record.base).collect();
        named.sort_unstable();
        named.dedup();
        ensure(named.len() == self.bases.len(), "index block bases", "are not all used")?;
        let (first, last) = (records.first().map(|record| record.id), records.last().map(|record| record.id));
        let apart = directory.block_after(entry).is_none_or(|next| last < Some(next.first));
        ensure(apart, "index block", "does not end before the next one begins")?;
        ensure(first == Some(entry.first), "index block", "does not begin with the id in the directory")?;
        Ok(records)
    }
}

fn check_counts(records: usize, bases: usize) -> Result<(), FormatError> {
    ensure(records > 0, "index block", "is empty")?;
    at_most("index block records", records as u64, limits::INDEX_BLOCK_RECORDS_MAX)?;
    ensure(bases <= records, "index block bases", "are more than records")
}

/// Encodes sorted records as the plain form of one block; returns the count of bases.
///
/// Refuses records that no reader would accept, and those out of order.
pub fn encode_block(records: &[IndexRecord], out: &mut Vec<u8>) -> Result<u16, FormatError> {
    check_counts(records.len(), 0)?;
    let mut bases: Vec<BlobId> = records.iter().filter_map(|record| record.base).collect();
    bases.sort_unstable();
    bases.dedup();
    let mut previous: Option<&IndexRecord> = None;
    out.reserve(records.len() * INDEX_RECORD_BYTES);
    for record in records {
        record.check()?;
        let ordered = previous.is_none_or(|previous| previous.order() < record.order());
        ensure(ordered, "index records", "are not in strict order")?;
        // There are no more bases than records, so their numbers fit.
        let number = record.base.and_then(|base| bases.binary_search(&base).ok()).map(|number| number as u32);
        out.extend_from_slice(&record.encode(number));
        previous = Some(record);
    }
    bases.iter().for_each(|base| out.extend_from_slice(base.as_bytes()));
    u16::try_from(bases.len()).map_err(|_| invalid("index block bases", "are more than records"))
}

/// Cuts sorted records into blocks of about [`INDEX_BLOCK_RECORDS`]; copies of one blob stay
/// together, so that one block answers a look-up.
pub fn split_blocks(records: &[IndexRecord]) -> impl Iterator<Item = &[IndexRecord]> {
    let mut rest = records;
    std::iter::from_fn(move || {
        let mut end = rest.len().min(INDEX_BLOCK_RECORDS);
        while let (Some(last), Some(next)) = (end.checked_sub(1).and_then(|n| rest.get(n)), rest.get(end)) {
            if last.id != next.id {
                break;
            }
            end += 1;
        }
        let (block, others) = rest.split_at_checked(end)?;
        rest = others;
        (!block.is_empty()).then_some(block)
    })
}
