//! Which key may sign what, and whose packs are adopted: the table of `format-spec/trust.md` as code.

use super::key::{KeyRecord, Role, Standing};
use super::{Epoch, Trust};
use crate::base::{Classify, ErrorClass, KeyId, ObjectId, PackId};

/// What a signature would bring about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act<'a> {
    /// The configuration.
    Configuration,
    /// A version of the registry. Whether its signer was active before it is the chain's to check.
    Trust,
    /// A key slot that holds the secrets of this identity.
    Slot {
        /// Whose secrets the slot holds.
        identity: KeyId,
    },
    /// A pack of content.
    ContentPack,
    /// A pack of trees and recipes.
    MetadataPack,
    /// A run of the index.
    IndexRun,
    /// A snapshot.
    Snapshot {
        /// Its host.
        host: &'a str,
        /// Its label.
        label: &'a str,
    },
    /// A log pack, which may hold records of others.
    LogPack,
    /// The record of a merge of log packs.
    LogMerge,
    /// The record of a segment, a piece, a gap or a conflict.
    LogRecord {
        /// The stream it belongs to.
        stream: &'a str,
    },
    /// A tag, the end of a tag, a pin or a note.
    Mark {
        /// Host of the snapshot it is about.
        host: &'a str,
        /// Label of the snapshot it is about.
        label: &'a str,
    },
    /// The end of a pin, that a snapshot is forgotten, or that it is not.
    Withdraw,
    /// That something was checked, with its outcome.
    Verified,
    /// That packs were decrypted and hold what they claim.
    Attested,
    /// A live client.
    Session,
    /// Packs that are to be swept.
    Condemned,
    /// Packs that were found bad.
    Damaged,
    /// A listing of closed generations.
    Catalog,
    /// Parity of an object.
    Parity,
}

impl Act<'_> {
    /// Returns the roles whose keys may do it.
    pub const fn roles(&self) -> &'static [Role] {
        use Role::{Maintainer, Owner, Reader, Writer};
        match self {
            Self::Configuration | Self::Trust => &[Owner],
            Self::Snapshot { .. } | Self::LogRecord { .. } => &[Owner, Writer],
            Self::ContentPack
            | Self::MetadataPack
            | Self::IndexRun
            | Self::LogPack
            | Self::Parity
            | Self::Mark { .. } => &[Owner, Maintainer, Writer],
            Self::Withdraw | Self::LogMerge | Self::Condemned | Self::Catalog => &[Owner, Maintainer],
            Self::Attested => &[Owner, Reader],
            Self::Slot { .. } | Self::Verified | Self::Session | Self::Damaged => &Role::ALL,
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Configuration => "the configuration",
            Self::Trust => "the registry of trust",
            Self::Slot { .. } => "a key slot",
            Self::ContentPack => "content packs",
            Self::MetadataPack => "metadata packs",
            Self::IndexRun => "the index",
            Self::Snapshot { .. } => "snapshots",
            Self::LogPack => "log packs",
            Self::LogMerge => "merges of log packs",
            Self::LogRecord { .. } => "log records",
            Self::Mark { .. } => "tags, pins and notes",
            Self::Withdraw => "what forgets or unpins",
            Self::Verified => "verification results",
            Self::Attested => "attestations",
            Self::Session => "sessions",
            Self::Condemned => "condemnations",
            Self::Damaged => "reports of damage",
            Self::Catalog => "catalogues",
            Self::Parity => "parity",
        }
    }
}

/// Why a signature does not count, though it holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The registry does not know the signer.
    #[error("the key {key} is not in the registry")]
    UnknownKey {
        /// The signer.
        key: KeyId,
    },
    /// The key was revoked, and the object is not among those still accepted.
    #[error("the key {key} was revoked")]
    Revoked {
        /// The signer.
        key: KeyId,
    },
    /// The key is out of service.
    #[error("the key {key} was removed")]
    Retired {
        /// The signer.
        key: KeyId,
    },
    /// The role of the key does not go so far.
    #[error("a key with the role {role} may not sign {act}")]
    Role {
        /// The role of the signer.
        role: Role,
        /// What was signed.
        act: &'static str,
    },
    /// The key may do it, but not for this host, label, stream or key.
    #[error("the key {key} may not sign {act} for {place:?}")]
    Scope {
        /// The signer.
        key: KeyId,
        /// What was signed.
        act: &'static str,
        /// For what.
        place: String,
    },
}

impl Classify for Refusal {
    fn class(&self) -> ErrorClass {
        ErrorClass::Forbidden
    }
}

impl Trust {
    /// Says whether role and scope of a key go so far, and how far the key itself is believed.
    pub fn permits(&self, signer: &KeyId, act: Act<'_>) -> Result<Standing, Refusal> {
        let key = self.key(signer).ok_or(Refusal::UnknownKey { key: *signer })?;
        if !act.roles().contains(&key.role) {
            return Err(Refusal::Role { role: key.role, act: act.name() });
        }
        match out_of_scope(key, act) {
            Some(place) => Err(Refusal::Scope { key: *signer, act: act.name(), place }),
            None => Ok(key.standing()),
        }
    }

    /// Says whether a stored object counts for what it says. Its signature was verified before.
    ///
    /// `catalogued` says whether the catalogue that a revocation names lists the object.
    pub fn believes(
        &self,
        signer: &KeyId,
        act: Act<'_>,
        object: &ObjectId,
        catalogued: bool,
    ) -> Result<(), Refusal> {
        match self.permits(signer, act)? {
            Standing::Active => Ok(()),
            Standing::Retired => Ok(()),
            Standing::Revoked if self.accepts(signer, object, catalogued) => Ok(()),
            Standing::Revoked => Err(Refusal::Revoked { key: *signer }),
        }
    }

    /// Says whether a key may sign such a thing now; stricter than [`Trust::believes`], which is about
    /// what was signed once.
    pub fn may_sign(&self, signer: &KeyId, act: Act<'_>) -> Result<(), Refusal> {
        match self.permits(signer, act)? {
            Standing::Active => Ok(()),
            Standing::Retired => Err(Refusal::Retired { key: *signer }),
            Standing::Revoked => Err(Refusal::Revoked { key: *signer }),
        }
    }

    /// Says whether a key may add snapshots of this host and label.
    pub fn may_write(&self, key: &KeyId, host: &str, label: &str) -> Result<(), Refusal> {
        self.may_sign(key, Act::Snapshot { host, label })
    }

    /// Says whether a writer may rely on chunks in a pack, or name bases in it.
    ///
    /// It can't decrypt them to see what they are, so it believes keys of its own trust domain, or a
    /// reader's attestation of that pack. `catalogued` is as in [`Trust::believes`].
    pub fn may_adopt(
        &self,
        own: &KeyId,
        signer: &KeyId,
        pack: &PackId,
        catalogued: bool,
        attested: bool,
    ) -> bool {
        let (Some(own), Ok(standing)) = (self.key(own), self.permits(signer, Act::ContentPack)) else {
            return false;
        };
        let same_domain = self.key(signer).is_some_and(|key| key.domain == own.domain);
        let believed =
            standing != Standing::Revoked || self.accepts(signer, &ObjectId::from(*pack), catalogued);
        attested || (same_domain && believed)
    }

    /// Says whether blobs sealed in an epoch may be adopted or be bases: it is not closed, and every key
    /// that will read what is sealed now can read it too.
    pub fn may_build_on(&self, epoch: u32) -> bool {
        let (Some(epoch), Some(current)) = (self.epoch(epoch), self.current_epoch()) else { return false };
        !epoch.closed
            && current.grants.iter().all(|grant| !self.reads(grant.key) || granted(epoch, grant.key))
    }

    fn reads(&self, key: KeyId) -> bool {
        self.key(&key).is_some_and(|key| {
            matches!(key.role, Role::Owner | Role::Reader) && key.standing() == Standing::Active
        })
    }

    fn accepts(&self, signer: &KeyId, object: &ObjectId, catalogued: bool) -> bool {
        let revocation = self.key(signer).and_then(|key| key.revoked.as_ref());
        revocation.is_some_and(|r| r.accepts(object) || (r.catalog.is_some() && catalogued))
    }
}

fn granted(epoch: &Epoch, key: KeyId) -> bool {
    epoch.grant(&key).is_some()
}

/// Returns for what a key may not act, where its scope forbids it. Owners act everywhere.
fn out_of_scope(key: &KeyRecord, act: Act<'_>) -> Option<String> {
    let (within, place) = match (key.role, act) {
        (Role::Owner, _) => return None,
        (_, Act::Slot { identity }) => (identity == key.id, identity.to_string()),
        (Role::Writer, Act::Snapshot { host, label } | Act::Mark { host, label }) => {
            (key.scope.covers_snapshot(host, label), format!("{host}:{label}"))
        }
        (Role::Writer, Act::LogRecord { stream }) => (key.scope.covers_stream(stream), stream.to_owned()),
        _ => return None,
    };
    if within { None } else { Some(place) }
}
