//! The envelope: what every structured object wears; see `format-spec/envelope.md`.
//!
//! A fixed header, a payload, a signature over both. This module does layout only: it neither opens nor
//! verifies, which needs keys.

use super::FormatError;
use super::bytes::{Fields, at_most, version_one};
use super::kind::{MAGIC, ObjectKind};
use super::words::suite_from;
use crate::base::{KeyId, RepositoryId};
use crate::crypto::{SIGNATURE_BYTES, Suite, TAG_BYTES};

/// Length of the header.
pub const HEADER_BYTES: usize = 128;
const VERSION: u8 = 1;
const WHAT: &str = "envelope";
const TAG: u64 = TAG_BYTES as u64;

/// How the payload was shortened before it was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As it is.
    #[default]
    None,
    /// One zstd frame, shorter than the payload.
    Zstd,
}

/// How a payload is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealing {
    /// The cipher.
    pub suite: Suite,
    /// The epoch whose metadata key the key is derived from, from 1.
    pub epoch: u32,
    /// The salt of the derivation, never used twice.
    pub salt: [u8; 32],
    /// The commitment to the derived key.
    pub commitment: [u8; 32],
}

/// The header of an object: what it is, who signed it, how its payload is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The kind of object.
    pub kind: ObjectKind,
    /// How the payload was compressed.
    pub compression: Compression,
    /// How the payload is sealed; `None` for kinds that are read without a key.
    pub sealing: Option<Sealing>,
    /// The key that signed the object.
    pub signer: KeyId,
    /// Length of the payload once opened and decompressed.
    pub plain_length: u64,
}

/// An envelope taken apart. Nothing is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// The header's content.
    pub envelope: Envelope,
    /// The header's bytes.
    pub header: &'a [u8; HEADER_BYTES],
    /// The payload as stored: sealed, compressed or both.
    pub payload: &'a [u8],
    /// Everything that the signature covers.
    pub signed: &'a [u8],
    /// The signature.
    pub signature: &'a [u8; SIGNATURE_BYTES],
}

impl Envelope {
    /// Takes an object apart, and refuses what no writer makes.
    pub fn parse(stored: &[u8]) -> Result<Parsed<'_>, FormatError> {
        let (header, rest) = stored.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| short(stored))?;
        let (envelope, stored_length) = Self::decode_header(header)?;
        let stored_length = usize::try_from(stored_length).map_err(|_| FormatError::Truncated)?;
        let (payload, rest) = rest.split_at_checked(stored_length).ok_or(FormatError::Truncated)?;
        let (signature, rest) = rest.split_first_chunk::<SIGNATURE_BYTES>().ok_or(FormatError::Truncated)?;
        if !rest.is_empty() {
            return invalid("bytes follow its end");
        }
        let signed = stored.get(..HEADER_BYTES + stored_length).ok_or(FormatError::Truncated)?;
        Ok(Parsed { envelope, header, payload, signed, signature })
    }

    /// Reads a header by itself; also returns the length of the stored payload.
    pub fn decode_header(header: &[u8; HEADER_BYTES]) -> Result<(Self, u64), FormatError> {
        let mut fields = Fields::new(header);
        fields.magic(MAGIC)?;
        let [kind, version, suite, compression] = fields.array()?;
        version_one(version, "version of an envelope")?;
        let kind = ObjectKind::try_from(kind)?;
        let Some(plain_length_max) = kind.payload_bytes_max() else {
            return invalid("this kind of object has a layout of its own");
        };
        let compression = match compression {
            0 => Compression::None,
            1 => Compression::Zstd,
            _ => return Err(FormatError::Unsupported { what: "compression of an envelope" }),
        };
        let epoch = fields.u32()?;
        fields.zeros(4, WHAT)?;
        let signer = fields.key_id()?;
        let (salt, commitment) = (fields.array()?, fields.array()?);
        let (stored_length, plain_length) = (fields.u64()?, fields.u64()?);

        let sealing = match suite {
            0 if epoch == 0 && salt == [0; 32] && commitment == [0; 32] => None,
            0 => return invalid("a payload that is not sealed has no epoch, salt or commitment"),
            _ => {
                let suite = suite_from(suite)?;
                if epoch == 0 {
                    return invalid("a sealed payload belongs to an epoch");
                }
                Some(Sealing { suite, epoch, salt, commitment })
            }
        };
        if sealing.is_some() != kind.sealed_in_envelope() {
            return invalid("the payload is sealed where it must not be, or not where it must");
        }
        at_most(WHAT, plain_length, plain_length_max)?;
        let envelope = Self { kind, compression, sealing, signer, plain_length };
        envelope.check_lengths(stored_length)?;
        Ok((envelope, stored_length))
    }

    /// Refuses lengths that no writer makes: a payload is never empty, and compressed only where that
    /// shortens it.
    fn check_lengths(&self, stored_length: u64) -> Result<(), FormatError> {
        let Some(compressed_length) = stored_length.checked_sub(self.overhead()) else {
            return invalid("the payload is too short to be sealed");
        };
        let fits = match self.compression {
            Compression::None => compressed_length == self.plain_length,
            Compression::Zstd => compressed_length < self.plain_length && compressed_length > 0,
        };
        if self.plain_length == 0 {
            return invalid("the payload is empty");
        }
        if self.compression == Compression::Zstd && self.sealing.is_none() {
            return invalid("a payload that is not sealed is not compressed");
        }
        if fits { Ok(()) } else { invalid("the lengths of the payload contradict each other") }
    }

    fn overhead(&self) -> u64 {
        if self.sealing.is_some() { TAG } else { 0 }
    }

    /// Starts the object: header, then the payload (compressed where the header says so, not yet sealed).
    ///
    /// Where it is to be sealed, the caller then seals from [`HEADER_BYTES`] on, with
    /// [`associated_data`] of the header; last it appends the signature over all of that.
    pub fn begin(&self, payload: &[u8]) -> Vec<u8> {
        let stored_length = payload.len() as u64 + self.overhead();
        let mut object = Vec::with_capacity(HEADER_BYTES + payload.len() + TAG_BYTES + SIGNATURE_BYTES);
        object.extend_from_slice(&self.encode_header(stored_length));
        object.extend_from_slice(payload);
        object
    }

    /// Encodes the header for a stored payload of this length, the tag included.
    pub fn encode_header(&self, stored_length: u64) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[0..4].copy_from_slice(&MAGIC);
        header[4] = self.kind.number();
        header[5] = VERSION;
        header[7] = match self.compression {
            Compression::None => 0,
            Compression::Zstd => 1,
        };
        header[16..48].copy_from_slice(self.signer.as_bytes());
        if let Some(sealing) = &self.sealing {
            header[6] = sealing.suite.number();
            header[8..12].copy_from_slice(&sealing.epoch.to_le_bytes());
            header[48..80].copy_from_slice(&sealing.salt);
            header[80..112].copy_from_slice(&sealing.commitment);
        }
        header[112..120].copy_from_slice(&stored_length.to_le_bytes());
        header[120..128].copy_from_slice(&self.plain_length.to_le_bytes());
        header
    }
}

/// Returns what the seal of a payload also covers: the repository and the header.
pub fn associated_data(repository: &RepositoryId, header: &[u8; HEADER_BYTES]) -> Vec<u8> {
    [repository.as_bytes().as_slice(), header].concat()
}

/// Says of too few bytes whether they are the beginning of an object.
fn short(stored: &[u8]) -> FormatError {
    if stored.iter().zip(&MAGIC).all(|(found, magic)| found == magic) {
        FormatError::Truncated
    } else {
        FormatError::BadMagic
    }
}

fn invalid<T>(why: &'static str) -> Result<T, FormatError> {
    Err(FormatError::Invalid { what: WHAT, why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed() -> Envelope {
        Envelope {
            kind: ObjectKind::Snapshot,
            compression: Compression::None,
            sealing: Some(Sealing { suite: Suite::Aes256Gcm, epoch: 3, salt: [4; 32], commitment: [5; 32] }),
            signer: KeyId::new([6; 32]),
            plain_length: 7,
        }
    }

    fn object(envelope: &Envelope) -> Vec<u8> {
        let mut object = envelope.begin(b"payload");
        if envelope.sealing.is_some() {
            object.extend_from_slice(&[8; TAG_BYTES]);
        }
        object.extend_from_slice(&[9; SIGNATURE_BYTES]);
        object
    }

    #[test]
    fn apart_and_together() {
        let plain = Envelope { kind: ObjectKind::Trust, sealing: None, ..sealed() };
        for envelope in [sealed(), plain] {
            let object = object(&envelope);
            let parsed = Envelope::parse(&object).unwrap();
            assert_eq!(parsed.envelope, envelope);
            assert_eq!(&parsed.payload[..7], b"payload");
            assert_eq!(parsed.signature, &[9; SIGNATURE_BYTES]);
            assert_eq!([parsed.signed, parsed.signature].concat(), object);
            assert_eq!(ObjectKind::of(&object), Ok(envelope.kind));
            for length in 0..object.len() {
                assert_eq!(Envelope::parse(&object[..length]), Err(FormatError::Truncated), "{length}");
            }
            let longer = [&object[..], &[0]].concat();
            assert!(matches!(Envelope::parse(&longer), Err(FormatError::Invalid { .. })));
        }
    }

    #[test]
    fn what_no_writer_makes_is_refused() {
        let refused = |at: usize, bytes: &[u8]| {
            let mut object = object(&sealed());
            object[at..at + bytes.len()].copy_from_slice(bytes);
            Envelope::parse(&object).unwrap_err()
        };
        assert_eq!(refused(0, b"chrn"), FormatError::BadMagic);
        for (at, newer) in [(4, 15), (4, 0), (5, 2), (5, 0), (6, 3), (7, 2)] {
            assert!(matches!(refused(at, &[newer]), FormatError::Unsupported { .. }), "{at} {newer}");
        }
        for (at, bytes) in [
            (4, &[ObjectKind::Trust as u8][..]),   // sealed, but never is
            (4, &[ObjectKind::ContentPack as u8]), // not in an envelope
            (6, &[0]),                             // not sealed, but always is
            (7, &[1]),                             // compressed, but not shorter
            (8, &[0, 0, 0, 0]),                    // no epoch
            (12, &[0, 0, 0, 1]),                   // reserved bytes
            (112, &15u64.to_le_bytes()),           // shorter than a tag
            (112, &22u64.to_le_bytes()),           // lengths that contradict each other
            (120, &[0; 8]),
        ] {
            assert!(matches!(refused(at, bytes), FormatError::Invalid { .. }), "{at} {bytes:?}");
        }
        assert!(matches!(refused(120, &u64::MAX.to_le_bytes()), FormatError::TooLarge { .. }));
    }

    proptest! {
        #[test]
        fn parsing_is_total_and_faithful(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), real: bool) {
            if real && bytes.len() > HEADER_BYTES {
                bytes[..6].copy_from_slice(b"CHRN\x06\x01");
                bytes[6] %= 3;
                bytes[7] %= 2;
            }
            if let Ok(parsed) = Envelope::parse(&bytes) {
                prop_assert_eq!(&parsed.envelope.encode_header(parsed.payload.len() as u64), parsed.header);
            }
        }
    }
}
