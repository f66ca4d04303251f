//! What a log pack opens with: head, origins, records. One short read of an object shows what it archives.

use crate::base::{KeyId, limits};
use crate::format::bytes::{Fields, at_most, ensure, version_one};
use crate::format::envelope::Envelope;
use crate::format::kind::{MAGIC, ObjectKind};
use crate::format::pack::{BlobClass, ORIGIN_BYTES, Origin};
use crate::format::{FormatError, pack};

/// Length of a log pack's head.
pub const LOG_HEAD_BYTES: usize = 64;
const WHAT: &str = "log pack";
const LENGTH_BYTES: u64 = 4;

/// The first [`LOG_HEAD_BYTES`] of a log pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPackHead {
    /// How many origins follow, at least one.
    pub origin_count: u16,
    /// How many records follow the origins, at least one.
    pub record_count: u32,
    /// Length of all records, each with the four bytes before it.
    pub records_length: u32,
    /// The key that signed the log pack.
    pub signer: KeyId,
}

impl LogPackHead {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[ObjectKind::LogPack.number(), 1]);
        out.extend_from_slice(&self.origin_count.to_le_bytes());
        out.extend_from_slice(&self.record_count.to_le_bytes());
        out.extend_from_slice(&self.records_length.to_le_bytes());
        out.extend_from_slice(self.signer.as_bytes());
        out.extend_from_slice(&[0; 16]);
    }

    /// Reads the head from the first bytes of a log pack; what follows it is not looked at.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(bytes.get(..LOG_HEAD_BYTES).ok_or(FormatError::Truncated)?);
        fields.magic(MAGIC)?;
        ensure(fields.u8()? == ObjectKind::LogPack.number(), WHAT, "this object is no log pack")?;
        version_one(fields.u8()?, "log pack version")?;
        let origin_count = fields.u16()?;
        let record_count = fields.u32()?;
        let records_length = fields.u32()?;
        let signer = fields.key_id()?;
        fields.zeros(16, "log pack head")?;
        let head = Self { origin_count, record_count, records_length, signer };
        head.check()?;
        Ok(head)
    }

    fn check(&self) -> Result<(), FormatError> {
        ensure(self.origin_count > 0, WHAT, "it has no origin")?;
        at_most("pack origins", u64::from(self.origin_count), limits::PACK_ORIGINS_MAX)?;
        ensure(self.record_count > 0, WHAT, "it has no record")?;
        at_most("log pack records", u64::from(self.record_count), limits::LOG_PACK_RECORDS_MAX)?;
        at_most("log pack records", u64::from(self.records_length), limits::PACK_BYTES_MAX)
    }

    /// Returns where the first frame begins: how many bytes must be fetched for head, origins and records.
    pub fn frames_offset(&self) -> u64 {
        LOG_HEAD_BYTES as u64
            + u64::from(self.origin_count) * ORIGIN_BYTES as u64
            + u64::from(self.records_length)
    }
}

/// Head, origins and records of a log pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPackFront<'a> {
    /// The key that signed the log pack.
    pub signer: KeyId,
    /// The origins of its frames.
    pub origins: Vec<Origin>,
    /// Its records, each an envelope with a signature of its own; in a merged one the merge's comes first.
    pub records: Vec<&'a [u8]>,
}

impl<'a> LogPackFront<'a> {
    /// Appends the front and returns where the first frame begins.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<u64, FormatError> {
        let too_many = |value: usize| FormatError::TooLarge {
            what: "log pack",
            value: value as u64,
            limit: limits::PACK_BYTES_MAX,
        };
        let mut records_length = 0_u64;
        for record in &self.records {
            check_record(record)?;
            records_length += LENGTH_BYTES + record.len() as u64;
        }
        let count = |count: usize| u32::try_from(count).map_err(|_| too_many(count));
        let head = LogPackHead {
            origin_count: self.origins.len().try_into().map_err(|_| too_many(self.origins.len()))?,
            record_count: count(self.records.len())?,
            records_length: u32::try_from(records_length).map_err(|_| too_many(self.records.len()))?,
            signer: self.signer,
        };
        head.check()?;
        head.encode(out);
        self.origins.iter().for_each(|origin| origin.encode(out));
        for record in &self.records {
            out.extend_from_slice(&count(record.len())?.to_le_bytes());
            out.extend_from_slice(record);
        }
        Ok(head.frames_offset())
    }

    /// Returns where the first frame begins.
    pub fn frames_offset(&self) -> u64 {
        let records: u64 = self.records.iter().map(|record| LENGTH_BYTES + record.len() as u64).sum();
        LOG_HEAD_BYTES as u64 + (self.origins.len() * ORIGIN_BYTES) as u64 + records
    }

    /// Reads the front from the first bytes of a log pack. When these are too few, the error is
    /// [`FormatError::Truncated`]; [`LogPackHead::frames_offset`] says how many are needed.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let head = LogPackHead::decode(bytes)?;
        let mut fields = Fields::new(bytes);
        fields.take(LOG_HEAD_BYTES)?;
        let origins = fields.take(usize::from(head.origin_count) * ORIGIN_BYTES)?;
        let origins = pack::Origin::decode_all(origins, head.origin_count, BlobClass::Content)?;
        let length = usize::try_from(head.records_length).map_err(|_| FormatError::Truncated)?;
        let mut fields = Fields::new(fields.take(length)?);
        let mut records = Vec::new();
        for _ in 0..head.record_count {
            let inside = |_| FormatError::Invalid { what: WHAT, why: "its records overflow their place" };
            let length =
                usize::try_from(fields.u32().map_err(inside)?).map_err(|_| FormatError::Truncated)?;
            let record = fields.take(length).map_err(inside)?;
            check_record(record)?;
            records.push(record);
        }
        fields.end("log pack records")?;
        Ok(Self { signer: head.signer, origins, records })
    }
}

/// Checks that the bytes are the envelope of a record.
fn check_record(record: &[u8]) -> Result<(), FormatError> {
    at_most("log record", record.len() as u64, limits::LOG_RECORD_BYTES_MAX)?;
    // A record that is cut short inside a whole pack is a broken rule, not a short object.
    let parsed = Envelope::parse(record).map_err(|error| match error {
        FormatError::Truncated | FormatError::BadMagic => {
            FormatError::Invalid { what: WHAT, why: "a record is no envelope" }
        }
        error => error,
    })?;
    ensure(parsed.envelope.kind == ObjectKind::LogRecord, WHAT, "a record is of another kind")
}
