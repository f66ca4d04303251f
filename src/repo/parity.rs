//! Parity objects: made of stored bytes, and used to bring stored bytes back. No key is needed for either; the
//! hash that an object is named for says whether what came back is right.

use super::error::RepoError;
use super::repository::Repository;
use crate::base::{ObjectId, limits};
use crate::codec::{from_parity, parity_of};
use crate::crypto::SIGNATURE_BYTES;
use crate::crypto::SignedMessage;
use crate::format::ObjectKind;
use crate::format::parity::{PARITY_HEAD_BYTES, ParityHead, SHARD_HASH_BYTES, encode};
use crate::format::trust::Act;
use crate::storage::StorageError;

/// Data shards that an object is cut into at most: each is what one damaged place costs.
const DATA_SHARDS: u64 = 1024;
/// A shard is a multiple of what disks lose at once.
const SECTOR_BYTES: u64 = 4096;
/// Objects up to this length are one shard: their parity is a copy.
const COPIED_BYTES: u64 = 16 << 10;

/// Numbers of a parity object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParityShape {
    /// Length of a shard.
    pub shard_bytes: u32,
    /// How many shards may be lost.
    pub parity_shards: u32,
}

impl ParityShape {
    /// Chooses the numbers for an object of this length: this share of it may be lost, at least one place.
    pub fn of(bytes: u64, percent: u8) -> Self {
        let unit = if bytes <= COPIED_BYTES { 64 } else { SECTOR_BYTES };
        let wanted = if bytes <= COPIED_BYTES { bytes } else { bytes.div_ceil(DATA_SHARDS) };
        let shard_bytes = wanted.max(1).next_multiple_of(unit);
        let data = bytes.div_ceil(shard_bytes).max(1);
        let parity = (data * u64::from(percent)).div_ceil(100).max(1);
        Self {
            shard_bytes: u32::try_from(shard_bytes).unwrap_or(u32::MAX),
            parity_shards: u32::try_from(parity).unwrap_or(u32::MAX),
        }
    }
}

/// What a parity object says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParityOutline {
    /// What kind of object it is of.
    pub kind: ObjectKind,
    /// The object.
    pub subject: ObjectId,
    /// The numbers of its shards.
    pub shape: ParityShape,
    /// How long it is itself.
    pub object_bytes: u64,
}

fn wrong(doing: &'static str) -> impl FnOnce(crate::codec::CodecError) -> RepoError {
    move |why| RepoError::Internal { doing, why: why.to_string() }
}

fn hash_of(shard: &[u8]) -> [u8; SHARD_HASH_BYTES] {
    let hash = blake3::hash(shard);
    hash.as_bytes().first_chunk::<SHARD_HASH_BYTES>().copied().unwrap_or_default()
}

/// Cuts bytes into shards, the last one filled up with zeros.
fn shards(bytes: &[u8], shard_bytes: usize) -> impl Iterator<Item = std::borrow::Cow<'_, [u8]>> {
    bytes.chunks(shard_bytes.max(1)).map(move |shard| match shard.len() == shard_bytes {
        true => shard.into(),
        false => {
            let mut last = shard.to_vec();
            last.resize(shard_bytes, 0);
            last.into()
        }
    })
}

/// What can still be used of a parity object, which may be damaged itself ([PARITY-2]).
struct Usable<'a> {
    head: ParityHead,
    table: Vec<[u8; SHARD_HASH_BYTES]>,
    parity: Vec<(usize, &'a [u8])>,
}

fn usable(bytes: &[u8]) -> Option<Usable<'_>> {
    let front = bytes.first_chunk::<PARITY_HEAD_BYTES>();
    let signed = bytes.len().checked_sub(SIGNATURE_BYTES).and_then(|end| bytes.get(..end));
    let back = signed.and_then(|signed| signed.last_chunk::<PARITY_HEAD_BYTES>());
    let head = [front, back].into_iter().flatten().find_map(|head| ParityHead::decode(head).ok())?;
    let table_bytes = usize::try_from(head.table_bytes()).ok()?;
    let length = usize::try_from(head.object_bytes()).ok()?;
    let shard_bytes = head.shard_bytes as usize;
    let first = bytes.get(PARITY_HEAD_BYTES..PARITY_HEAD_BYTES.checked_add(table_bytes)?);
    let again = length.checked_sub(SIGNATURE_BYTES + PARITY_HEAD_BYTES).and_then(|end| {
        let start = end.checked_sub(table_bytes)?;
        bytes.get(start..end)
    });
    let holds = |table: &&[u8]| *blake3::hash(table).as_bytes() == head.table_hash;
    let table = [first, again].into_iter().flatten().find(holds)?;
    let (table, _) = table.as_chunks::<SHARD_HASH_BYTES>();
    let table = table.to_vec();
    let data_shards = usize::try_from(head.data_shards()).ok()?;
    let start = PARITY_HEAD_BYTES.checked_add(table_bytes)?;
    let mut parity = Vec::new();
    for number in 0..head.parity_shards as usize {
        let at = start.checked_add(number.checked_mul(shard_bytes)?)?;
        let Some(shard) = bytes.get(at..at.checked_add(shard_bytes)?) else { break };
        if table.get(data_shards + number) == Some(&hash_of(shard)) {
            parity.push((number, shard));
        }
    }
    Some(Usable { head, table, parity })
}

/// Brings an object back from what is left of it and a parity object; `None` where that does not suffice.
fn bring_back(subject: &ObjectId, left: &[u8], parity: &[u8]) -> Result<Option<Vec<u8>>, RepoError> {
    let Some(usable) = usable(parity).filter(|usable| usable.head.subject == *subject) else {
        return Ok(None);
    };
    let head = &usable.head;
    let (Ok(length), Ok(count)) = (usize::try_from(head.subject_bytes), usize::try_from(head.data_shards()))
    else {
        return Ok(None);
    };
    if length as u64 > limits::PACK_BYTES_MAX {
        return Ok(None);
    }
    let shard_bytes = head.shard_bytes as usize;
    let left = left.get(..length.min(left.len())).unwrap_or_default();
    let pieces: Vec<_> = shards(left, shard_bytes).collect();
    let good: Vec<(usize, &[u8])> = pieces
        .iter()
        .enumerate()
        .filter(|(number, shard)| usable.table.get(*number) == Some(&hash_of(shard)))
        .map(|(number, shard)| (number, shard.as_ref()))
        .collect();
    if good.len() + usable.parity.len() < count {
        return Ok(None);
    }
    let mut whole = vec![0; count * shard_bytes];
    let mut fill = |number: usize, shard: &[u8]| {
        if let Some(place) = whole.get_mut(number * shard_bytes..(number + 1) * shard_bytes) {
            place.copy_from_slice(shard);
        }
    };
    good.iter().for_each(|(number, shard)| fill(*number, shard));
    if good.len() < count {
        let parity_shards = head.parity_shards as usize;
        let restored = from_parity(count, parity_shards, shard_bytes, good.iter().copied(), usable.parity)
            .map_err(wrong("repairing from parity"))?;
        restored.iter().for_each(|(number, shard)| fill(*number, shard));
    }
    whole.truncate(length);
    Ok((blake3::hash(&whole) == *subject.as_bytes()).then_some(whole))
}

impl Repository {
    /// Puts parity of an object whose bytes are right; returns its name and length. Durable on return. What stands
    /// under that name and is not what it should be is replaced.
    ///
    /// # Errors
    ///
    /// When this key may not put any, or the store fails.
    pub fn put_parity(
        &self,
        kind: ObjectKind,
        subject: &ObjectId,
        bytes: &[u8],
        shape: ParityShape,
    ) -> Result<(String, u64), RepoError> {
        let own = &self.keyring().identity;
        self.registry().may_sign(&own.key, Act::Parity)?;
        let shard_bytes = shape.shard_bytes as usize;
        let parity =
            parity_of(bytes, shard_bytes, shape.parity_shards as usize).map_err(wrong("computing parity"))?;
        let mut table: Vec<_> = shards(bytes, shard_bytes).map(|shard| hash_of(&shard)).collect();
        table.extend(parity.chunks(shard_bytes.max(1)).map(hash_of));
        let head = ParityHead {
            subject_kind: kind,
            subject: *subject,
            subject_bytes: bytes.len() as u64,
            shard_bytes: shape.shard_bytes,
            parity_shards: shape.parity_shards,
            signer: own.key,
            table_hash: [0; 32],
        };
        let mut object = encode(head, &table, &parity).map_err(RepoError::damaged("parity being written"))?;
        let message = SignedMessage::new(self.id(), ObjectKind::Parity.number(), &object);
        let signature = own.signing.sign(&message);
        object.extend_from_slice(&signature);
        let name = format!("parity/{subject}/{}", blake3::hash(&object));
        match self.environment().store.put(&name, &object) {
            Err(StorageError::Conflict { .. }) => self.environment().store.replace(&name, &object)?,
            put => drop(put?),
        }
        Ok((name, object.len() as u64))
    }

    /// Says of what object some parity is, and the numbers of its shards, as far as damage has left that; `None` where it
    /// does not say.
    pub fn parity_outline(bytes: &[u8]) -> Option<ParityOutline> {
        let front = bytes.first_chunk::<PARITY_HEAD_BYTES>();
        let signed = bytes.len().checked_sub(SIGNATURE_BYTES).and_then(|end| bytes.get(..end));
        let back = signed.and_then(|signed| signed.last_chunk::<PARITY_HEAD_BYTES>());
        let head = [front, back].into_iter().flatten().find_map(|head| ParityHead::decode(head).ok())?;
        let shape = ParityShape { shard_bytes: head.shard_bytes, parity_shards: head.parity_shards };
        let (kind, subject, object_bytes) = (head.subject_kind, head.subject, head.object_bytes());
        Some(ParityOutline { kind, subject, shape, object_bytes })
    }

    /// Reads the same from the head of a parity object in the store; `None` where it does not say.
    ///
    /// # Errors
    ///
    /// When the store does not answer.
    pub fn read_parity_outline(&self, name: &str) -> Result<Option<ParityOutline>, RepoError> {
        let mut head = Vec::new();
        match self.environment().store.get_range(name, 0, PARITY_HEAD_BYTES, &mut head) {
            Ok(()) => Ok(Self::parity_outline(&head)),
            Err(error @ StorageError::Transient { .. }) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }

    /// Brings the right bytes of an object back from its parity and what is left of it; `None` where there is no
    /// parity, or it does not suffice.
    ///
    /// # Errors
    ///
    /// When the store does not answer.
    pub fn from_parity(&self, subject: &ObjectId, left: &[u8]) -> Result<Option<Vec<u8>>, RepoError> {
        let store = &self.environment().store;
        for object in store.list(&format!("parity/{subject}/"))? {
            let bytes = match store.get(&object.name, 2 * limits::PACK_BYTES_MAX) {
                Ok(bytes) => bytes,
                Err(error @ StorageError::Transient { .. }) => return Err(error.into()),
                Err(_) => continue,
            };
            if let Some(whole) = bring_back(subject, left, &bytes)? {
                return Ok(Some(whole));
            }
        }
        Ok(None)
    }
}
