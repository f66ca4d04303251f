//! One key of the registry: its public halves, its role, and where it may write.

use super::scope::Scope;
use crate::base::limits::{NAME_BYTES_MAX, TRUST_ACCEPTED_MAX};
use crate::base::{CatalogId, KeyId, ObjectId, Timestamp};
use crate::crypto::ContentPublicKey;
use crate::crypto::derive::key_id;
use crate::format::FormatError;
use crate::format::bytes::ensure;
use crate::format::cbor::{Extra, Field, Reader, Writer, required};
use std::fmt;
use std::str::FromStr;

/// What a key is for. Fixed for the life of the key: another role is another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// Everything; signs the registry.
    Owner = 1,
    /// Forgets, prunes, repairs the index; cannot read content.
    Maintainer = 2,
    /// Adds; reads no content.
    Writer = 3,
    /// Restores and attests; adds nothing.
    Reader = 4,
    /// Lists and checks the structure.
    Auditor = 5,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [Self::Owner, Self::Maintainer, Self::Writer, Self::Reader, Self::Auditor];

    /// Returns the number that stands for the role in stored objects.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Returns the word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Maintainer => "maintainer",
            Self::Writer => "writer",
            Self::Reader => "reader",
            Self::Auditor => "auditor",
        }
    }

    /// Reads a role from an object; an unknown one is a newer program's.
    pub(in crate::format) fn decode(value: Reader<'_, '_>) -> Result<Self, FormatError> {
        let number = value.unsigned()?;
        Self::ALL
            .into_iter()
            .find(|role| u64::from(role.number()) == number)
            .ok_or(FormatError::Unsupported { what: "role" })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = FormatError;

    fn from_str(name: &str) -> Result<Self, FormatError> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == name)
            .ok_or(FormatError::Unsupported { what: "role" })
    }
}

/// That a key is not believed any more, and what of it still is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revocation {
    /// When it was revoked.
    pub at: Timestamp,
    /// The version of the registry that said so first.
    pub sequence: u64,
    /// A catalogue that lists objects of the key which are still accepted.
    pub catalog: Option<CatalogId>,
    /// Single objects of the key which are still accepted, ascending.
    pub accepted: Vec<ObjectId>,
    /// Fields that this program does not know.
    pub extra: Extra,
}

impl Revocation {
    fn encode(&self, place: Writer<'_>) {
        place.map(&self.extra, |map| {
            map.at(0).signed(self.at.nanoseconds());
            map.at(1).unsigned(self.sequence);
            map.optional(2, self.catalog, |place, id| place.bytes(id.as_bytes()));
            map.list(3, &self.accepted, |place, id| place.bytes(id.as_bytes()));
        });
    }

    fn decode(value: Reader<'_, '_>) -> Result<Self, FormatError> {
        let (mut at, mut sequence, mut catalog, mut accepted) = (None, None, None, None);
        let extra = value.map(|number, value| {
            match number {
                0 => at = Some(value.timestamp()?),
                1 => sequence = Some(value.unsigned()?),
                2 => catalog = Some(CatalogId::new(value.fixed()?)),
                3 => accepted = Some(value.array(TRUST_ACCEPTED_MAX, |id| id.fixed().map(ObjectId::new))?),
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        let ascending =
            accepted.iter().all(|ids| !ids.is_empty() && ids.is_sorted_by(|a: &ObjectId, b| a < b));
        ensure(ascending, "revocation", "the accepted objects are not in ascending order")?;
        Ok(Self {
            at: required(at, "time of a revocation")?,
            sequence: required(sequence, "sequence of a revocation")?,
            catalog,
            accepted: accepted.unwrap_or_default(),
            extra,
        })
    }

    /// Says whether an object of the key is listed as still accepted. The catalogue, where there is one,
    /// is the caller's to look into.
    pub fn accepts(&self, object: &ObjectId) -> bool {
        self.accepted.binary_search(object).is_ok()
    }
}

/// How far a key is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Fully.
    Active,
    /// For what it signed; it gets no secrets of later epochs and signs no registry.
    Retired,
    /// For nothing but what its revocation accepts.
    Revoked,
}

/// A key and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// The id: the hash of the public signing key.
    pub id: KeyId,
    /// The public half that verifies its signatures.
    pub signing: [u8; 32],
    /// The public half to which grants are wrapped.
    pub exchange: ContentPublicKey,
    /// What it is for.
    pub role: Role,
    /// A name for people.
    pub name: String,
    /// The trust domain; the empty one is the domain of all keys that were given none.
    pub domain: String,
    /// Where it may write.
    pub scope: Scope,
    /// When it was added.
    pub created: Timestamp,
    /// That it is not believed any more.
    pub revoked: Option<Revocation>,
    /// That it was taken out of service in good order.
    pub removed: bool,
    /// Fields that this program does not know.
    pub extra: Extra,
}

impl KeyRecord {
    /// Makes the entry of a new key that may write anywhere its role lets it.
    pub fn new(
        signing: [u8; 32],
        exchange: ContentPublicKey,
        role: Role,
        name: &str,
        created: Timestamp,
    ) -> Self {
        Self {
            id: key_id(&signing),
            signing,
            exchange,
            role,
            name: name.to_owned(),
            domain: String::new(),
            scope: Scope::default(),
            created,
            revoked: None,
            removed: false,
            extra: Extra::new(),
        }
    }

    /// Returns how far the key is believed.
    pub fn standing(&self) -> Standing {
        match (&self.revoked, self.removed) {
            (Some(_), _) => Standing::Revoked,
            (None, true) => Standing::Retired,
            (None, false) => Standing::Active,
        }
    }

    /// Says whether the key may sign the next version of the registry.
    pub fn is_active_owner(&self) -> bool {
        self.role == Role::Owner && self.standing() == Standing::Active
    }

    pub(super) fn encode(&self, place: Writer<'_>) {
        place.map(&self.extra, |map| {
            map.at(0).bytes(self.id.as_bytes());
            map.at(1).bytes(&self.signing);
            map.at(2).bytes(&self.exchange.0);
            map.at(3).unsigned(self.role.number().into());
            map.at(4).text(&self.name);
            map.at(5).text(&self.domain);
            map.list(6, &self.scope.hosts, |place, pattern| place.text(pattern));
            map.list(7, &self.scope.labels, |place, pattern| place.text(pattern));
            map.list(8, &self.scope.streams, |place, pattern| place.text(pattern));
            map.at(9).signed(self.created.nanoseconds());
            map.optional(10, self.revoked.as_ref(), |place, revoked| revoked.encode(place));
            map.optional(11, self.removed.then_some(true), |place, yes| place.boolean(yes));
        });
    }

    pub(super) fn decode(value: Reader<'_, '_>) -> Result<Self, FormatError> {
        let (mut id, mut signing, mut exchange, mut role, mut name, mut domain) =
            (None, None, None, None, None, None);
        let mut scope = Scope::default();
        let (mut created, mut revoked, mut removed) = (None, None, false);
        let extra = value.map(|number, value| {
            match number {
                0 => id = Some(KeyId::new(value.fixed()?)),
                1 => signing = Some(value.fixed()?),
                2 => exchange = Some(ContentPublicKey(value.fixed()?)),
                3 => role = Some(Role::decode(value)?),
                4 => name = Some(value.text(NAME_BYTES_MAX)?.to_owned()),
                5 => domain = Some(value.text(NAME_BYTES_MAX)?.to_owned()),
                6 => scope.hosts = Scope::decode_patterns(value)?,
                7 => scope.labels = Scope::decode_patterns(value)?,
                8 => scope.streams = Scope::decode_patterns(value)?,
                9 => created = Some(value.timestamp()?),
                10 => revoked = Some(Revocation::decode(value)?),
                11 => {
                    removed = value.boolean()?;
                    ensure(removed, "key", "what is not the case is left out")?;
                }
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        let (id, signing) = (required(id, "id of a key")?, required(signing, "public half of a key")?);
        ensure(id == key_id(&signing), "key", "its id is not the hash of its public half")?;
        Ok(Self {
            id,
            signing,
            exchange: required(exchange, "exchange half of a key")?,
            role: required(role, "role of a key")?,
            name: required(name, "name of a key")?,
            domain: required(domain, "domain of a key")?,
            scope,
            created: required(created, "time of a key")?,
            revoked,
            removed,
            extra,
        })
    }
}
