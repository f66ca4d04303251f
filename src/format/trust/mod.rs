//! The registry of authority: who may do what, and with which keys; see `format-spec/trust.md`.
//!
//! Every version holds the whole state, names its predecessor, and is signed by an owner who was active
//! in that predecessor. It is not sealed: it holds public halves, and secrets only wrapped.
//!
//! - [`key`]: one entry for each key, with its role
//! - [`epoch`]: content keys over time, with the grants that hand their secrets out
//! - [`scope`]: the hosts, labels and streams a key may write
//! - [`permission`]: which key may sign what, and whose packs are adopted
//! - [`chain`]: from the versions in a store to the one that counts

pub mod chain;
pub mod epoch;
pub mod key;
pub mod permission;
pub mod scope;

pub use chain::{Chain, ChainError, Version};
pub use epoch::{Epoch, Grant};
pub use key::{KeyRecord, Revocation, Role, Standing};
pub use permission::{Act, Refusal};

use super::FormatError;
use super::bytes::ensure;
use super::cbor::{Extra, Field, decode_map, encode_map, required};
use crate::base::limits::{TRUST_EPOCHS_MAX, TRUST_KEYS_MAX};
use crate::base::{KeyId, Timestamp, TrustId};

const WHAT: &str = "trust";

/// One version of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Number of the version, from 1.
    pub sequence: u64,
    /// The version before; none for the first.
    pub predecessor: Option<TrustId>,
    /// When it was made, by its maker's clock.
    pub created: Timestamp,
    /// The least revision of the configuration that may still be believed.
    pub least_revision: u64,
    /// All keys there ever were, ascending by id.
    pub keys: Vec<KeyRecord>,
    /// All epochs, numbered from 1 without gaps; the last one is the current one.
    pub epochs: Vec<Epoch>,
    /// Fields that this program does not know.
    pub extra: Extra,
}

impl Trust {
    /// Encodes the payload of the object's envelope.
    pub fn encode(&self) -> Vec<u8> {
        encode_map(&self.extra, |map| {
            map.at(0).unsigned(self.sequence);
            map.optional(1, self.predecessor, |place, id| place.bytes(id.as_bytes()));
            map.at(2).signed(self.created.nanoseconds());
            map.at(3).unsigned(self.least_revision);
            map.at(4).array(&self.keys, |place, key| key.encode(place));
            map.at(5).array(&self.epochs, |place, epoch| epoch.encode(place));
        })
    }

    /// Decodes the payload of the object's envelope; what contradicts itself is refused.
    pub fn decode(payload: &[u8]) -> Result<Self, FormatError> {
        let (mut sequence, mut predecessor, mut created) = (None, None, None);
        let (mut least_revision, mut keys, mut epochs) = (None, None, None);
        let extra = decode_map(WHAT, payload, |number, value| {
            match number {
                0 => sequence = Some(value.unsigned()?),
                1 => predecessor = Some(TrustId::new(value.fixed()?)),
                2 => created = Some(value.timestamp()?),
                3 => least_revision = Some(value.unsigned()?),
                4 => keys = Some(value.array(TRUST_KEYS_MAX, KeyRecord::decode)?),
                5 => epochs = Some(value.array(TRUST_EPOCHS_MAX, Epoch::decode)?),
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        let trust = Self {
            sequence: required(sequence, "sequence of a trust")?,
            predecessor,
            created: required(created, "time of a trust")?,
            least_revision: required(least_revision, "least revision of a trust")?,
            keys: required(keys, "keys of a trust")?,
            epochs: required(epochs, "epochs of a trust")?,
            extra,
        };
        trust.check()?;
        Ok(trust)
    }

    fn check(&self) -> Result<(), FormatError> {
        ensure(
            self.sequence >= 1 && (self.sequence == 1) == self.predecessor.is_none(),
            WHAT,
            "only the first version, number 1, has no predecessor",
        )?;
        let ascending = self.keys.windows(2).all(|pair| matches!(pair, [a, b] if a.id < b.id));
        ensure(ascending, WHAT, "the keys are not in ascending order")?;
        ensure(self.keys.iter().any(KeyRecord::is_active_owner), WHAT, "no owner is left")?;
        let numbered = self.epochs.iter().zip(1..).all(|(epoch, number)| epoch.number == number);
        ensure(numbered, WHAT, "the epochs are not numbered from 1")?;
        let open = self.epochs.last().is_some_and(|epoch| !epoch.closed);
        ensure(open, WHAT, "the last epoch is not open")?;
        let known = self.epochs.iter().flat_map(|epoch| &epoch.grants).all(|g| self.key(&g.key).is_some());
        ensure(known, WHAT, "a grant is for a key that is not listed")
    }

    /// Finds a key.
    pub fn key(&self, id: &KeyId) -> Option<&KeyRecord> {
        let at = self.keys.binary_search_by(|key| key.id.cmp(id)).ok()?;
        self.keys.get(at)
    }

    /// Finds an epoch by its number.
    pub fn epoch(&self, number: u32) -> Option<&Epoch> {
        let at = usize::try_from(number.checked_sub(1)?).ok()?;
        self.epochs.get(at)
    }

    /// Returns the epoch in which new objects are sealed.
    pub fn current_epoch(&self) -> Option<&Epoch> {
        self.epochs.last()
    }

    /// Finds the grant of an epoch's secrets to a key.
    pub fn grant(&self, epoch: u32, key: &KeyId) -> Option<&Grant> {
        self.epoch(epoch)?.grant(key)
    }
}

#[cfg(test)]
mod tests;
