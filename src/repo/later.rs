//! Epochs that begin while a client works: it goes on sealing in its own, and reads what others seal in the new one.
//!
//! Without that, new keys would end every backup that is running: a condemnation of the new epoch could not be read,
//! and might list anything.

use super::environment::Environment;
use super::error::RepoError;
use super::keyring::{EpochKeys, Identity};
use super::open::{lasting_secrets_agree, open_grants};
use super::registry::Registry;
use super::seen::Seen;
use crate::base::{RepositoryId, TrustId};
use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

/// How often the registry is read for an epoch that there is not.
const QUESTIONS_MAX: u32 = 16;

/// An epoch that was learned, and the place for the next.
struct Link {
    keys: EpochKeys,
    next: OnceLock<Box<Link>>,
}

/// What is known of later epochs.
pub(super) struct Later {
    environment: Environment,
    repository: RepositoryId,
    /// The version of the registry that the repository was opened with.
    known: (u64, TrustId),
    /// The newest epoch by then.
    newest: u32,
    first: OnceLock<Box<Link>>,
    /// How often epochs were asked for that there were not: whoever may write can name any.
    absent: Mutex<BTreeMap<u32, u32>>,
}

impl Later {
    /// Learns what comes after what this version of the registry has.
    pub(super) fn new(environment: &Environment, repository: RepositoryId, registry: &Registry) -> Self {
        let newest = registry.trust().current_epoch().map_or(0, |epoch| epoch.number);
        let (first, absent) = Default::default();
        Self { environment: environment.clone(), repository, known: registry.head(), newest, first, absent }
    }

    fn find(&self, number: u32) -> Option<&EpochKeys> {
        let mut link = self.first.get();
        while let Some(found) = link {
            if found.keys.number == number {
                return Some(&found.keys);
            }
            link = found.next.get();
        }
        None
    }

    fn add(&self, keys: EpochKeys) {
        let mut end = &self.first;
        while let Some(link) = end.get() {
            end = &link.next;
        }
        // One thread at a time comes here.
        let _ = end.set(Box::new(Link { keys, next: OnceLock::new() }));
    }

    /// Returns the keys of an epoch that began since the repository was opened, reading the registry where that is not
    /// known yet; `None` where there is no such epoch, or this key was not granted it.
    ///
    /// # Errors
    ///
    /// When the registry cannot be read, or a grant does not hold.
    pub(super) fn epoch(&self, number: u32, identity: &Identity) -> Result<Option<&EpochKeys>, RepoError> {
        if number <= self.newest {
            return Ok(None);
        }
        if let Some(keys) = self.find(number) {
            return Ok(Some(keys));
        }
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = absent.get(&number).copied().unwrap_or(0);
        if self.find(number).is_none() && asked < QUESTIONS_MAX {
            let seen = Seen::default();
            let known = [self.known];
            let registry =
                Registry::load(&self.environment, &self.repository, identity.genesis, &known, &seen)?;
            let granted = open_grants(&self.repository, &registry, &identity.exchange, &identity.key)?;
            lasting_secrets_agree(&granted)?;
            for bundle in granted {
                let Some(epoch) = registry.trust().epoch(bundle.epoch) else { continue };
                if bundle.epoch > self.newest && self.find(bundle.epoch).is_none() {
                    self.add(EpochKeys::new(bundle.epoch, bundle.metadata, epoch, bundle.content));
                }
            }
            if self.find(number).is_none() {
                absent.insert(number, asked + 1);
            }
        }
        drop(absent);
        Ok(self.find(number))
    }
}
