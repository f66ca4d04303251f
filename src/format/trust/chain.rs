//! From the versions of the registry in a store to the one that counts.
//!
//! A client starts at what its slot pins and follows signatures: a version counts only if an owner who
//! was active in its predecessor signed it and it takes nothing back. What a client has seen once it
//! insists on, so that a store can't be set back.

use super::key::KeyRecord;
use super::{Standing, Trust};
use crate::base::{Classify, ErrorClass, KeyId, TrustId};
use std::collections::BTreeMap;

/// A version of the registry as found in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its id: the hash of its stored bytes.
    pub id: TrustId,
    /// Its content.
    pub trust: Trust,
    /// The key that its envelope names as signer.
    pub signer: KeyId,
    /// Whether the signature holds under the key of that id, which is in the version's own list
    /// ([`Version::signing_key`]), since no version drops a key.
    pub signature_holds: bool,
}

impl Version {
    /// Returns the public half by which the signature is to be verified.
    pub fn signing_key(trust: &Trust, signer: &KeyId) -> Option<[u8; 32]> {
        trust.key(signer).map(|key| key.signing)
    }
}

/// Why no registry counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Nothing that the slot pins is there.
    #[error("the registry of trust {id} is missing or damaged, and so is every later one that is known")]
    NoStart {
        /// The first version, as the slot names it.
        id: TrustId,
    },
    /// A version that was seen before is gone: the store was set back, or lost it.
    #[error("version {sequence} of the registry of trust, {id}, was there before and is gone")]
    Missing {
        /// Its number.
        sequence: u64,
        /// Its id.
        id: TrustId,
    },
    /// Another version counts in the place of one that was seen before.
    #[error("version {sequence} of the registry of trust was {known} and is now {found}")]
    Diverged {
        /// Its number.
        sequence: u64,
        /// The id that was seen.
        known: TrustId,
        /// The id that counts now.
        found: TrustId,
    },
}

impl Classify for ChainError {
    fn class(&self) -> ErrorClass {
        ErrorClass::Corrupt
    }
}

/// The versions that count, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    versions: Vec<Version>,
    /// Versions that do not count, and why.
    pub refused: Vec<(TrustId, &'static str)>,
    /// Whether versions before the first one at hand are lost; what came later is pinned.
    pub has_gaps: bool,
}

impl Chain {
    /// Finds the versions that count.
    ///
    /// `genesis` is the first version, which the slot pins. `known` are numbers and ids of versions seen
    /// before: the one in the slot, those in the cache.
    pub fn resolve(
        versions: Vec<Version>,
        genesis: TrustId,
        known: &[(u64, TrustId)],
    ) -> Result<Self, ChainError> {
        let mut pool = Pool::new(versions);
        let mut chain = Self { versions: Vec::new(), refused: Vec::new(), has_gaps: false };
        let mut anchors = known.to_vec();
        anchors.push((1, genesis));
        anchors.sort_unstable();
        anchors.dedup();
        for (sequence, id) in anchors {
            match chain.at(sequence) {
                Some(found) if found.id == id => continue,
                Some(found) => return Err(ChainError::Diverged { sequence, known: id, found: found.id }),
                None => {}
            }
            let pinned = pool.take(&id).filter(|version| version.trust.sequence == sequence);
            match pinned.filter(|version| holds(version).is_ok()) {
                Some(version) => chain.restart(version, &mut pool),
                // The first version may be lost if a later one is pinned.
                None if id == genesis => chain.has_gaps = true,
                None => return Err(ChainError::Missing { sequence, id }),
            }
        }
        chain.refused.extend(pool.rest());
        if chain.versions.is_empty() { Err(ChainError::NoStart { id: genesis }) } else { Ok(chain) }
    }

    /// Begins again at a version that is pinned, and goes as far as signatures lead.
    fn restart(&mut self, start: Version, pool: &mut Pool) {
        self.has_gaps |= start.trust.sequence != 1;
        self.versions.push(start);
        while let Some(next) = self.versions.last().and_then(|last| pool.successor(last, &mut self.refused)) {
            self.versions.push(next);
        }
    }

    /// Returns the newest version.
    #[expect(clippy::missing_panics_doc, reason = "a chain is never empty")]
    pub fn head(&self) -> &Version {
        self.versions.last().expect("a chain has a version")
    }

    /// Returns the version with a number, where it is at hand.
    pub fn at(&self, sequence: u64) -> Option<&Version> {
        self.versions.iter().find(|version| version.trust.sequence == sequence)
    }

    /// Returns the versions that count, oldest first.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }
}

/// The versions not yet placed, by the predecessor they name.
struct Pool {
    by_predecessor: BTreeMap<Option<TrustId>, Vec<Version>>,
}

impl Pool {
    fn new(versions: Vec<Version>) -> Self {
        let mut by_predecessor = BTreeMap::<_, Vec<_>>::new();
        for version in versions {
            by_predecessor.entry(version.trust.predecessor).or_default().push(version);
        }
        // Where several follow one, the lowest id counts: the last in this order.
        for rivals in by_predecessor.values_mut() {
            rivals.sort_unstable_by_key(|version| std::cmp::Reverse(version.id));
            rivals.dedup_by_key(|version| version.id);
        }
        Self { by_predecessor }
    }

    fn take(&mut self, id: &TrustId) -> Option<Version> {
        self.by_predecessor.values_mut().find_map(|rivals| {
            let at = rivals.iter().position(|version| version.id == *id)?;
            Some(rivals.remove(at))
        })
    }

    fn successor(&mut self, last: &Version, refused: &mut Vec<(TrustId, &'static str)>) -> Option<Version> {
        let mut rivals = self.by_predecessor.remove(&Some(last.id))?;
        while let Some(version) = rivals.pop() {
            match follows(last, &version) {
                Ok(()) => {
                    refused.extend(rivals.iter().map(|rival| (rival.id, "another version took its place")));
                    return Some(version);
                }
                Err(why) => refused.push((version.id, why)),
            }
        }
        None
    }

    fn rest(self) -> impl Iterator<Item = (TrustId, &'static str)> {
        self.by_predecessor
            .into_values()
            .flatten()
            .map(|version| (version.id, "no version that counts leads to it"))
    }
}

/// Checks a version by itself.
fn holds(version: &Version) -> Result<(), &'static str> {
    let signer = version.trust.key(&version.signer).ok_or("its signer is not listed")?;
    if !version.signature_holds {
        return Err("its signature does not hold");
    }
    if version.trust.sequence == 1 && !signer.is_active_owner() {
        return Err("it is not signed by an owner whom it names");
    }
    Ok(())
}

/// Checks that a version may follow another: signed by an owner who was active, taking nothing back.
fn follows(last: &Version, next: &Version) -> Result<(), &'static str> {
    holds(next)?;
    if !last.trust.key(&next.signer).is_some_and(KeyRecord::is_active_owner) {
        return Err("its signer was no active owner");
    }
    let (last, next) = (&last.trust, &next.trust);
    if last.sequence.checked_add(1) != Some(next.sequence) {
        return Err("its number does not follow");
    }
    if next.least_revision < last.least_revision {
        return Err("it lets an older configuration be believed");
    }
    for key in &last.keys {
        let now = next.key(&key.id).ok_or("it drops a key")?;
        keeps_key(key, now)?;
    }
    let revoked_now = next.keys.iter().filter(|key| key.standing() == Standing::Revoked).all(|key| {
        let before = last.key(&key.id).and_then(|key| key.revoked.as_ref());
        let expected = before.map_or(next.sequence, |revocation| revocation.sequence);
        key.revoked.as_ref().is_some_and(|revocation| revocation.sequence == expected)
    });
    if !revoked_now {
        return Err("a revocation names another version");
    }
    for epoch in &last.epochs {
        let now = next.epoch(epoch.number).ok_or("it drops an epoch")?;
        let same = (epoch.content, epoch.created, epoch.suite) == (now.content, now.created, now.suite);
        if !same {
            return Err("it changes an epoch");
        }
        if epoch.closed && !now.closed {
            return Err("it opens a closed epoch");
        }
    }
    Ok(())
}

fn keeps_key(key: &KeyRecord, now: &KeyRecord) -> Result<(), &'static str> {
    if (key.exchange, key.role, key.created) != (now.exchange, now.role, now.created) {
        return Err("it changes a key");
    }
    if (key.revoked.is_some() && now.revoked.is_none()) || (key.removed && !now.removed) {
        return Err("it takes a revocation or removal back");
    }
    Ok(())
}
