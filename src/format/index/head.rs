//! What an index run opens with.

use super::{INDEX_HEAD_BOUND_BYTES, INDEX_HEAD_BYTES};
use crate::base::{KeyId, RepositoryId, limits};
use crate::crypto::{SIGNATURE_BYTES, Suite, TAG_BYTES};
use crate::format::bytes::{Fields, at_most, ensure, version_one};
use crate::format::error::FormatError;
use crate::format::kind::{MAGIC, ObjectKind};
use crate::format::words::suite_from;

/// The number by which the directory is sealed, where blocks have 0, 1, 2 ...
pub const DIRECTORY_NUMBER: u64 = u64::MAX;

/// The first [`INDEX_HEAD_BYTES`] of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexHead {
    /// The cipher of blocks and directory.
    pub suite: Suite,
    /// The epoch of the metadata key.
    pub epoch: u32,
    /// The key that signed the run.
    pub signer: KeyId,
    /// Random bytes that make the run's key.
    pub salt: [u8; 32],
    /// Commits to the run's key.
    pub commitment: [u8; 32],
    /// How many records all blocks hold.
    pub record_count: u64,
    /// Where the sealed directory begins, from the start of the run.
    pub directory_offset: u64,
    /// Length of the sealed directory, tag included.
    pub directory_stored_length: u32,
    /// Length of the plain directory.
    pub directory_plain_length: u32,
    /// How many blocks there are.
    pub block_count: u32,
}

impl IndexHead {
    /// Appends the head.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bound());
        out.extend_from_slice(&self.record_count.to_le_bytes());
        out.extend_from_slice(&self.directory_offset.to_le_bytes());
        out.extend_from_slice(&self.directory_stored_length.to_le_bytes());
        out.extend_from_slice(&self.directory_plain_length.to_le_bytes());
        out.extend_from_slice(&self.block_count.to_le_bytes());
        out.extend_from_slice(&[0; 20]);
    }

    /// Returns the first [`INDEX_HEAD_BOUND_BYTES`] of the head. They depend on nothing that is known
    /// only once all blocks are written, so blocks can be sealed one by one.
    fn bound(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(INDEX_HEAD_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[ObjectKind::IndexRun as u8, 1, self.suite.number(), 0]);
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(self.signer.as_bytes());
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&self.commitment);
        debug_assert_eq!(bytes.len(), INDEX_HEAD_BOUND_BYTES);
        bytes
    }

    /// Returns what the seals of blocks and directory are bound to besides the run's key.
    pub fn associated_data(&self, repository: &RepositoryId) -> Vec<u8> {
        [repository.as_bytes().as_slice(), &self.bound()].concat()
    }

    /// Reads the head from the first [`INDEX_HEAD_BYTES`] of a run of the given length; what follows
    /// them is not looked at.
    pub fn decode(bytes: &[u8], run_length: u64) -> Result<Self, FormatError> {
        let mut fields = Fields::new(bytes.get(..INDEX_HEAD_BYTES).ok_or(FormatError::Truncated)?);
        fields.magic(MAGIC)?;
        let kind = fields.u8()?;
        version_one(fields.u8()?, "index version")?;
        ensure(kind == ObjectKind::IndexRun as u8, "index kind", "this object is no index run")?;
        let suite = suite_from(fields.u8()?)?;
        fields.zeros(1, "index head")?;
        let epoch = fields.u32()?;
        fields.zeros(4, "index head")?;
        let head = Self {
            suite,
            epoch,
            signer: fields.key_id()?,
            salt: fields.array()?,
            commitment: fields.array()?,
            record_count: fields.u64()?,
            directory_offset: fields.u64()?,
            directory_stored_length: fields.u32()?,
            directory_plain_length: fields.u32()?,
            block_count: fields.u32()?,
        };
        fields.zeros(20, "index head")?;
        head.check(run_length)?;
        Ok(head)
    }

    fn check(&self, run_length: u64) -> Result<(), FormatError> {
        ensure(self.epoch > 0, "index epoch", "epochs count from 1")?;
        at_most("index run length", run_length, limits::INDEX_RUN_BYTES_MAX)?;
        at_most("index records", self.record_count, limits::INDEX_RECORDS_MAX)?;
        at_most("index blocks", u64::from(self.block_count), limits::INDEX_BLOCKS_MAX)?;
        let blocks = u64::from(self.block_count);
        ensure(
            blocks <= self.record_count && self.record_count <= blocks * limits::INDEX_BLOCK_RECORDS_MAX,
            "index blocks",
            "their number does not fit that of the records",
        )?;
        let (plain, stored) = (self.directory_plain_length, self.directory_stored_length);
        at_most("index directory length", u64::from(plain), limits::INDEX_DIRECTORY_BYTES_MAX)?;
        at_most("index directory length", u64::from(stored), limits::INDEX_DIRECTORY_BYTES_MAX)?;
        ensure(stored as usize > TAG_BYTES, "index directory length", "no room for the tag and a byte")?;
        ensure(
            self.directory_offset >= INDEX_HEAD_BYTES as u64,
            "index directory offset",
            "lies in the head",
        )?;
        let end = self.directory_offset.checked_add(u64::from(stored) + SIGNATURE_BYTES as u64);
        if end.is_some_and(|end| end > run_length) {
            return Err(FormatError::Truncated);
        }
        ensure(end == Some(run_length), "index run length", "is not what the head says")
    }
}
