//! Epochs: the content key, and the grants by which the epoch's secrets reach the keys.

use crate::base::limits::{TRUST_GRANT_BYTES_MAX, TRUST_KEYS_MAX};
use crate::base::{KeyId, Timestamp};
use crate::crypto::{ContentPublicKey, Suite};
use crate::format::FormatError;
use crate::format::bytes::ensure;
use crate::format::cbor::{Extra, Field, Reader, Writer, required};
use crate::format::words::suite_from;

/// The secrets of an epoch for one key, wrapped to its exchange half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The key that can open it.
    pub key: KeyId,
    /// The wrapped bundle (`crate::format::grant`).
    pub wrapped: Vec<u8>,
    /// Fields that this program does not know.
    pub extra: Extra,
}

impl Grant {
    fn encode(&self, place: Writer<'_>) {
        place.map(&self.extra, |map| {
            map.at(0).bytes(self.key.as_bytes());
            map.at(1).bytes(&self.wrapped);
        });
    }

    fn decode(value: Reader<'_, '_>) -> Result<Self, FormatError> {
        let (mut key, mut wrapped) = (None, None);
        let extra = value.map(|number, value| {
            match number {
                0 => key = Some(KeyId::new(value.fixed()?)),
                1 => wrapped = Some(value.bytes(TRUST_GRANT_BYTES_MAX)?.to_vec()),
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        Ok(Self {
            key: required(key, "key of a grant")?,
            wrapped: required(wrapped, "wrapped part of a grant")?,
            extra,
        })
    }
}

/// A span of time under one metadata key and one content key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// Its number, from 1.
    pub number: u32,
    /// The public half to which content is sealed.
    pub content: ContentPublicKey,
    /// When it began.
    pub created: Timestamp,
    /// The cipher in which its objects are sealed by default.
    pub suite: Suite,
    /// Its secrets, once for each key that has them; ascending by key.
    pub grants: Vec<Grant>,
    /// That its secrets are in the wrong hands: nothing is sealed in it and nothing adopted from it any more.
    pub closed: bool,
    /// Fields that this program does not know.
    pub extra: Extra,
}

impl Epoch {
    /// Finds the grant to a key.
    pub fn grant(&self, key: &KeyId) -> Option<&Grant> {
        let at = self.grants.binary_search_by(|grant| grant.key.cmp(key)).ok()?;
        self.grants.get(at)
    }

    pub(super) fn encode(&self, place: Writer<'_>) {
        place.map(&self.extra, |map| {
            map.at(0).unsigned(self.number.into());
            map.at(1).bytes(&self.content.0);
            map.at(2).signed(self.created.nanoseconds());
            map.at(3).unsigned(self.suite.number().into());
            map.at(4).array(&self.grants, |place, grant| grant.encode(place));
            map.optional(5, self.closed.then_some(true), |place, yes| place.boolean(yes));
        });
    }

    pub(super) fn decode(value: Reader<'_, '_>) -> Result<Self, FormatError> {
        let (mut epoch, mut content, mut created, mut suite, mut grants) = (None, None, None, None, None);
        let mut closed = false;
        let extra = value.map(|number, value| {
            match number {
                0 => epoch = Some(value.small()?),
                1 => content = Some(ContentPublicKey(value.fixed()?)),
                2 => created = Some(value.timestamp()?),
                3 => suite = Some(suite_from(value.small()?)?),
                4 => grants = Some(value.array(TRUST_KEYS_MAX, Grant::decode)?),
                5 => {
                    closed = value.boolean()?;
                    ensure(closed, "epoch", "what is not the case is left out")?;
                }
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        let grants = required(grants, "grants of an epoch")?;
        let ascending = grants.is_sorted_by(|a: &Grant, b| a.key < b.key);
        ensure(ascending, "epoch", "the grants are not in ascending order")?;
        Ok(Self {
            number: required(epoch, "number of an epoch")?,
            content: required(content, "content key of an epoch")?,
            created: required(created, "time of an epoch")?,
            suite: required(suite, "suite of an epoch")?,
            grants,
            closed,
            extra,
        })
    }
}
