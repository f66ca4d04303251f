//! Parity of one stored object: layout only, the code itself is computed elsewhere.
//!
//! Table and head stand twice, and every shard has a hash, so that parity which is damaged itself still
//! repairs. Normative: `format-spec/parity.md`.

use super::bytes::{Fields, at_most, ensure, invalid, version_one};
use super::kind::{MAGIC, ObjectKind};
use super::{FormatError, words};
use crate::base::{KeyId, ObjectId, limits};
use crate::crypto::SIGNATURE_BYTES;

/// Length of a parity object's head.
pub const PARITY_HEAD_BYTES: usize = 160;
/// Length of a shard's hash in the table.
pub const SHARD_HASH_BYTES: usize = 16;
/// A shard is as long as a multiple of this.
pub const SHARD_UNIT_BYTES: u32 = 64;

const WHAT: &str = "parity";
/// The Reed-Solomon code of `format-spec/parity.md`, section "Algorithm 1".
const ALGORITHM: u8 = 1;
/// Elements of the code's field: no more shards fit.
const FIELD: u64 = 1 << 16;
const HASHED_HEAD_BYTES: usize = 128;

/// The first [`PARITY_HEAD_BYTES`] of a parity object, and, before its signature, its last ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParityHead {
    /// What kind of object the subject is.
    pub subject_kind: ObjectKind,
    /// The subject.
    pub subject: ObjectId,
    /// Length of the subject.
    pub subject_bytes: u64,
    /// Length of a shard: the subject is cut into pieces of this length, the last one filled with zeros.
    pub shard_bytes: u32,
    /// How many parity shards there are.
    pub parity_shards: u32,
    /// The key that signed the parity object.
    pub signer: KeyId,
    /// BLAKE3 of the table.
    pub table_hash: [u8; 32],
}

impl ParityHead {
    /// Returns how many shards the subject has.
    pub fn data_shards(&self) -> u64 {
        self.subject_bytes.div_ceil(u64::from(self.shard_bytes.max(1)))
    }

    /// Returns the length of the table: a hash for each shard of data and parity.
    pub fn table_bytes(&self) -> u64 {
        (self.data_shards() + u64::from(self.parity_shards)) * SHARD_HASH_BYTES as u64
    }

    /// Returns the length of the whole parity object.
    pub fn object_bytes(&self) -> u64 {
        let described = PARITY_HEAD_BYTES as u64 + self.table_bytes();
        2 * described + u64::from(self.parity_shards) * u64::from(self.shard_bytes) + SIGNATURE_BYTES as u64
    }

    /// Encodes the head, its own hash included.
    pub fn encode(&self) -> Result<[u8; PARITY_HEAD_BYTES], FormatError> {
        self.check()?;
        let data_shards = u32::try_from(self.data_shards()).map_err(|_| invalid(WHAT, "too many shards"))?;
        let mut head = Vec::with_capacity(PARITY_HEAD_BYTES);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&[ObjectKind::Parity.number(), 1, ALGORITHM, self.subject_kind.number()]);
        head.extend_from_slice(&self.shard_bytes.to_le_bytes());
        head.extend_from_slice(&data_shards.to_le_bytes());
        head.extend_from_slice(self.signer.as_bytes());
        head.extend_from_slice(self.subject.as_bytes());
        head.extend_from_slice(&self.subject_bytes.to_le_bytes());
        head.extend_from_slice(&self.parity_shards.to_le_bytes());
        head.extend_from_slice(&[0; 4]);
        head.extend_from_slice(&self.table_hash);
        let hash = blake3::hash(&head);
        head.extend_from_slice(hash.as_bytes());
        head.try_into().map_err(|_| invalid(WHAT, "its head has another length"))
    }

    /// Reads a head, from the front of an object or from its end; its hash must hold.
    pub fn decode(bytes: &[u8; PARITY_HEAD_BYTES]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(bytes);
        fields.magic(MAGIC)?;
        let [kind, version, algorithm, subject_kind] = fields.array()?;
        ensure(kind == ObjectKind::Parity.number(), WHAT, "this object is no parity")?;
        version_one(version, "version of a parity object")?;
        if algorithm != ALGORITHM {
            return Err(FormatError::Unsupported { what: "parity algorithm" });
        }
        let shard_bytes = fields.u32()?;
        let data_shards = fields.u32()?;
        let signer = fields.key_id()?;
        let subject = ObjectId::new(fields.array()?);
        let subject_bytes = fields.u64()?;
        let parity_shards = fields.u32()?;
        fields.zeros(4, WHAT)?;
        let table_hash = fields.array()?;
        let hash: [u8; 32] = fields.array()?;
        fields.end(WHAT)?;
        let hashed = bytes.first_chunk::<HASHED_HEAD_BYTES>().ok_or(FormatError::Truncated)?;
        ensure(hash == *blake3::hash(hashed).as_bytes(), WHAT, "the hash of its head does not hold")?;
        let subject_kind = words::kind_from(subject_kind.into())?;
        let head =
            Self { subject_kind, subject, subject_bytes, shard_bytes, parity_shards, signer, table_hash };
        head.check()?;
        let counted = u64::from(data_shards) == head.data_shards();
        ensure(counted, WHAT, "its data shards are not as many as the subject has")?;
        Ok(head)
    }

    fn check(&self) -> Result<(), FormatError> {
        let whole = self.shard_bytes > 0 && self.shard_bytes.is_multiple_of(SHARD_UNIT_BYTES);
        ensure(whole, WHAT, "a shard is no multiple of 64 bytes")?;
        at_most("length of a shard", u64::from(self.shard_bytes), limits::PARITY_SHARD_BYTES_MAX)?;
        ensure(self.subject_kind != ObjectKind::Parity, WHAT, "parity of parity")?;
        ensure(self.subject_bytes > 0, WHAT, "its subject is empty")?;
        let (data, parity) = (self.data_shards(), u64::from(self.parity_shards));
        at_most("data shards", data, limits::PARITY_SHARDS_MAX)?;
        at_most("parity shards", parity, limits::PARITY_SHARDS_MAX)?;
        ensure(parity > 0, WHAT, "it has no parity shards")?;
        ensure(parity <= data.next_power_of_two(), WHAT, "more parity than its algorithm permits")?;
        let block = parity.next_power_of_two();
        let points = block + data.next_multiple_of(block);
        ensure(points <= FIELD, WHAT, "more shards than its algorithm permits")
    }
}

/// A whole, undamaged parity object in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParityView<'a> {
    /// The head.
    pub head: ParityHead,
    /// First bytes of the hashes of all shards, data before parity.
    pub table: &'a [[u8; SHARD_HASH_BYTES]],
    /// The parity shards, one after the other.
    pub shards: &'a [u8],
    /// Everything that the signature covers.
    pub signed: &'a [u8],
    /// The signature.
    pub signature: &'a [u8; SIGNATURE_BYTES],
}

impl<'a> ParityView<'a> {
    /// Takes a parity object apart. Of a damaged one, read each part by itself: [`ParityHead::decode`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let first = bytes.first_chunk::<PARITY_HEAD_BYTES>().ok_or(FormatError::Truncated)?;
        let head = ParityHead::decode(first)?;
        let length = usize::try_from(head.object_bytes()).map_err(|_| FormatError::Truncated)?;
        if bytes.len() < length {
            return Err(FormatError::Truncated);
        }
        let mut fields = Fields::new(bytes);
        fields.take(PARITY_HEAD_BYTES)?;
        let table_length = usize::try_from(head.table_bytes()).map_err(|_| FormatError::Truncated)?;
        let table = fields.take(table_length)?;
        let shards_length = u64::from(head.parity_shards) * u64::from(head.shard_bytes);
        let shards = fields.take(usize::try_from(shards_length).map_err(|_| FormatError::Truncated)?)?;
        let again = (fields.take(table_length)?, fields.take(PARITY_HEAD_BYTES)?);
        fields.take(SIGNATURE_BYTES)?;
        fields.end(WHAT)?;
        ensure(again == (table, first.as_slice()), WHAT, "the two copies of head and table differ")?;
        ensure(head.table_hash == *blake3::hash(table).as_bytes(), WHAT, "the table's hash does not hold")?;
        let (signed, signature) =
            bytes.split_last_chunk::<SIGNATURE_BYTES>().ok_or(FormatError::Truncated)?;
        let (table, _) = table.as_chunks::<SHARD_HASH_BYTES>();
        Ok(Self { head, table, shards, signed, signature })
    }

    /// Says whether a shard is the one that the table describes: data shards first, then parity.
    pub fn is_good(&self, number: usize, shard: &[u8]) -> bool {
        let hash = blake3::hash(shard);
        let start = hash.as_bytes().first_chunk::<SHARD_HASH_BYTES>();
        start.is_some() && self.table.get(number) == start
    }
}

/// Puts a parity object together, up to the signature that the caller appends.
///
/// `shards` are all parity shards; `table` has the hash of every shard, data before parity. The head's hash
/// of the table is filled in.
pub fn encode(
    mut head: ParityHead,
    table: &[[u8; SHARD_HASH_BYTES]],
    shards: &[u8],
) -> Result<Vec<u8>, FormatError> {
    let table = table.as_flattened();
    head.table_hash = *blake3::hash(table).as_bytes();
    let encoded = head.encode()?;
    let shards_length = u64::from(head.parity_shards) * u64::from(head.shard_bytes);
    let whole = table.len() as u64 == head.table_bytes() && shards.len() as u64 == shards_length;
    ensure(whole, WHAT, "table or shards have another length than the head says")?;
    Ok([&encoded, table, shards, table, &encoded].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> ParityHead {
        ParityHead {
            subject_kind: ObjectKind::ContentPack,
            subject: ObjectId::new([1; 32]),
            subject_bytes: 300,
            shard_bytes: 64,
            parity_shards: 2,
            signer: KeyId::new([2; 32]),
            table_hash: [0; 32],
        }
    }

    fn object() -> Vec<u8> {
        let shards = [3; 128];
        let mut hash = [0; SHARD_HASH_BYTES];
        hash.copy_from_slice(&blake3::hash(&shards[..64]).as_bytes()[..SHARD_HASH_BYTES]);
        let mut object = encode(head(), &[hash; 7], &shards).unwrap();
        object.extend_from_slice(&[4; SIGNATURE_BYTES]);
        object
    }

    #[test]
    fn apart_and_together() {
        let object = object();
        assert_eq!(ObjectKind::of(&object), Ok(ObjectKind::Parity));
        let view = ParityView::parse(&object).unwrap();
        assert_eq!(view.head.data_shards(), 5);
        assert_eq!(view.head.object_bytes(), object.len() as u64);
        assert!(view.is_good(6, &[3; 64]) && !view.is_good(6, &[5; 64]) && !view.is_good(7, &[3; 64]));
        let mut again = encode(view.head, view.table, view.shards).unwrap();
        again.extend_from_slice(view.signature);
        assert_eq!(again, object);
        for length in 0..object.len() {
            assert_eq!(ParityView::parse(&object[..length]), Err(FormatError::Truncated), "{length}");
        }
        assert!(ParityView::parse(&[&object[..], &[0]].concat()).is_err());
    }

    #[test]
    fn every_flipped_bit_outside_of_shards_and_signature_is_noticed() {
        let object = object();
        let described = PARITY_HEAD_BYTES + 7 * SHARD_HASH_BYTES;
        let end = object.len() - SIGNATURE_BYTES;
        for at in (0..described).chain(end - described..end) {
            let mut broken = object.clone();
            broken[at] ^= 0x10;
            assert!(ParityView::parse(&broken).is_err(), "{at}");
        }
    }

    #[test]
    fn heads_that_break_a_rule_are_refused() {
        let broken = [
            ParityHead { shard_bytes: 0, ..head() },
            ParityHead { shard_bytes: 65, ..head() },
            ParityHead { shard_bytes: 1 << 25, ..head() },
            ParityHead { subject_bytes: 0, ..head() },
            ParityHead { subject_bytes: u64::MAX, ..head() },
            ParityHead { parity_shards: 0, ..head() },
            ParityHead { parity_shards: 9, ..head() },
            ParityHead { parity_shards: u32::MAX, ..head() },
            ParityHead { subject_kind: ObjectKind::Parity, ..head() },
        ];
        for head in broken {
            assert!(head.encode().is_err(), "{head:?}");
        }
        let most = ParityHead { subject_bytes: 64 * 32768, parity_shards: 32768, ..head() };
        assert!(most.encode().is_ok());
    }
}
