//! What a pack opens with: whose it is, and the origins from which frame keys follow.

use super::{BlobClass, HEAD_BYTES, ORIGIN_BYTES};
use crate::base::{KeyId, limits};
use crate::crypto::Suite;
use crate::format::bytes::{Fields, at_most, ensure, is_zero, version_one};
use crate::format::error::FormatError;
use crate::format::kind::MAGIC;
use crate::format::words::suite_from;

/// The first [`HEAD_BYTES`] of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackHead {
    /// Content or metadata.
    pub class: BlobClass,
    /// How many origins follow, at least one.
    pub origin_count: u16,
    /// The key that signed the pack.
    pub signer: KeyId,
}

impl PackHead {
    /// Appends the head.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[self.class.pack_kind(), 1]);
        out.extend_from_slice(&self.origin_count.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(self.signer.as_bytes());
        out.extend_from_slice(&[0; 16]);
    }

    /// Reads the head from the first [`HEAD_BYTES`] of a pack; what follows them is not looked at.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(bytes.get(..HEAD_BYTES).ok_or(FormatError::Truncated)?);
        fields.magic(MAGIC)?;
        let kind = fields.u8()?;
        version_one(fields.u8()?, "pack version")?;
        let class = BlobClass::from_pack_kind(kind)?;
        let origin_count = fields.u16()?;
        check_origin_count(origin_count)?;
        fields.zeros(8, "pack head")?;
        let signer = fields.key_id()?;
        fields.zeros(16, "pack head")?;
        Ok(Self { class, origin_count, signer })
    }

    /// Returns where the first frame begins: after the head and the origins.
    pub fn frames_offset(&self) -> u64 {
        frames_offset(self.origin_count)
    }
}

pub(super) fn frames_offset(origin_count: u16) -> u64 {
    HEAD_BYTES as u64 + u64::from(origin_count) * ORIGIN_BYTES as u64
}

pub(super) fn check_origin_count(count: u16) -> Result<(), FormatError> {
    ensure(count > 0, "pack origins", "there is none")?;
    at_most("pack origins", u64::from(count), limits::PACK_ORIGINS_MAX)
}

/// Where sealed frames come from: all that a reader needs, with its own secret, to derive their key.
///
/// A frame that is copied into another pack takes its origin with it, so that who repacks need not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The cipher.
    pub suite: Suite,
    /// The epoch of the key, counted from 1.
    pub epoch: u32,
    /// HPKE encapsulation to the epoch's content public key; zero in metadata packs.
    pub encapsulation: [u8; 32],
    /// Random bytes that make the key of this origin's frames.
    pub salt: [u8; 32],
    /// Commits to the derived key, so that no frame opens under two.
    pub commitment: [u8; 32],
}

impl Origin {
    /// Appends the origin.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.suite.number(), 0, 0, 0]);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.encapsulation);
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.commitment);
    }

    /// Reads one origin of a pack of the given class from exactly [`ORIGIN_BYTES`].
    pub fn decode(bytes: &[u8], class: BlobClass) -> Result<Self, FormatError> {
        let mut fields = Fields::new(bytes);
        let suite = fields.u8()?;
        fields.zeros(3, "origin")?;
        let epoch = fields.u32()?;
        let encapsulation = fields.array()?;
        let salt = fields.array()?;
        let commitment = fields.array()?;
        fields.end("origin")?;
        let suite = suite_from(suite)?;
        ensure(epoch > 0, "origin epoch", "epochs count from 1")?;
        ensure(
            class == BlobClass::Content || is_zero(&encapsulation),
            "origin encapsulation",
            "must be zero in a metadata pack",
        )?;
        Ok(Self { suite, epoch, encapsulation, salt, commitment })
    }

    /// Reads the given number of origins from exactly their bytes.
    pub fn decode_all(bytes: &[u8], count: u16, class: BlobClass) -> Result<Vec<Self>, FormatError> {
        check_origin_count(count)?;
        let mut fields = Fields::new(bytes);
        let origins = (0..count)
            .map(|_| Self::decode(fields.take(ORIGIN_BYTES)?, class))
            .collect::<Result<Vec<_>, _>>()?;
        fields.end("pack origins")?;
        Ok(origins)
    }
}
