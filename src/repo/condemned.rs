//! Condemnations and sessions as this client finds them (`format-spec/concurrency.md`).

use super::error::RepoError;
use super::repository::Repository;
use super::sealed::Author;
use crate::base::{CondemnedId, KeyId, ObjectId, SessionId, Timestamp, explain, limits};
use crate::format::ObjectKind;
use crate::format::condemned::Condemned;
use crate::format::session::Session;
use crate::format::trust::{Act, KeyRecord, Standing};
use crate::storage::StorageError;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A condemnation that counts.
#[derive(Debug, Clone)]
pub struct FoundCondemned {
    /// Its content.
    pub condemned: Arc<Condemned>,
    /// When the store received it, where the store says so.
    pub stored: Option<Timestamp>,
}

/// A listing of condemnations.
#[derive(Debug, Clone, Default)]
pub struct CondemnedListing {
    /// Those that count.
    pub found: BTreeMap<CondemnedId, FoundCondemned>,
    /// Ids of those that could not be read, and why: what they list is not known.
    pub unreadable: BTreeMap<CondemnedId, String>,
}

/// The newest renewal of a session.
#[derive(Debug, Clone)]
pub struct FoundSession {
    /// The id of the renewal.
    pub renewal: SessionId,
    /// Its content.
    pub session: Session,
    /// When the store received the oldest renewal that is there, where it says so.
    pub began: Option<Timestamp>,
    /// All renewals that are there.
    pub renewals: Vec<SessionId>,
}

/// When objects were stored that may be sessions, and why they cannot be read.
pub type UnreadableSessions = Vec<(Option<Timestamp>, RepoError)>;

/// Sessions by their signers and random bytes.
pub type Sessions = BTreeMap<(KeyId, [u8; 32]), FoundSession>;

impl Repository {
    /// Lists all condemnations, reading those that `before` does not hold.
    ///
    /// One that nobody who may has signed is none; one that cannot be read is named in the result.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn condemned(&self, before: &CondemnedListing) -> Result<CondemnedListing, RepoError> {
        let mut listing = CondemnedListing::default();
        for object in self.environment().store.list("condemned/")? {
            let Some(Ok(id)) = object.name.rsplit('/').next().map(str::parse::<ObjectId>) else { continue };
            let key = CondemnedId::from(id);
            if let Some(known) = before.found.get(&key) {
                listing.found.insert(key, known.clone());
                continue;
            }
            // What was read wrong once may be read right the second time.
            let read = self.read_condemned(&object.name, id).or_else(|error| match error {
                RepoError::Damaged { .. } => self.read_condemned(&object.name, id),
                error => Err(error),
            });
            match read {
                Ok(condemned) => {
                    let stored = object.modified;
                    let found = FoundCondemned { condemned: Arc::new(condemned), stored };
                    listing.found.insert(key, found);
                }
                Err(RepoError::Storage(StorageError::NotFound { .. })) => {}
                Err(error @ RepoError::Storage(_)) => return Err(error),
                Err(error @ RepoError::Untrusted { .. }) => {
                    self.environment().observer.warn(&explain(&error));
                }
                // [CONCURRENCY-54]: what somebody put who may not condemn is none, readable or not.
                Err(error) => match self.author_of(&object.name, ObjectKind::Condemned)? {
                    Author::Key(signer) if self.registry().may_condemn(&signer) => {
                        listing.unreadable.insert(key, explain(&error));
                    }
                    Author::Unknown => {
                        listing.unreadable.insert(key, explain(&error));
                    }
                    _ => self.environment().observer.warn(&explain(&error)),
                },
            }
        }
        Ok(listing)
    }

    fn read_condemned(&self, name: &str, id: ObjectId) -> Result<Condemned, RepoError> {
        let bytes = self.environment().store.get(name, limits::LISTING_BYTES_MAX * 2)?;
        let (signer, payload) = self.open_object(name, id, ObjectKind::Condemned, &bytes)?;
        self.registry().believe(name, &signer, Act::Condemned, &id)?;
        Condemned::decode(&payload).map_err(RepoError::damaged(name))
    }

    /// Lists all sessions of keys that are not revoked, ended ones too.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read, or a session cannot be read: it might rely on anything.
    pub fn sessions(&self) -> Result<Sessions, RepoError> {
        let (sessions, mut unreadable) = self.sessions_as_far_as_readable()?;
        match unreadable.pop() {
            Some((_, error)) => Err(error),
            None => Ok(sessions),
        }
    }

    /// Does the same, and returns the objects whose bytes are not those that they were named for, or that this
    /// client cannot open though others can, instead of failing: each might be somebody's newest renewal.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn sessions_as_far_as_readable(&self) -> Result<(Sessions, UnreadableSessions), RepoError> {
        let mut sessions = Sessions::new();
        let mut unreadable = Vec::new();
        for object in self.environment().store.list("sessions/")? {
            let Some(Ok(id)) = object.name.rsplit('/').next().map(str::parse::<ObjectId>) else { continue };
            let read = self.read_session(&object.name, id).or_else(|error| match error {
                RepoError::Damaged { .. } => self.read_session(&object.name, id),
                error => Err(error),
            });
            let (signer, session) = match read {
                Ok(read) => read,
                Err(RepoError::Storage(StorageError::NotFound { .. })) => continue,
                // [SESSION-5]: reported and not waited for.
                Err(error @ RepoError::Untrusted { .. }) => {
                    self.environment().observer.warn(&explain(&error));
                    continue;
                }
                Err(
                    error @ (RepoError::Damaged { .. } | RepoError::Forbidden { .. } | RepoError::TooNew(_)),
                ) => {
                    let is_damaged = matches!(error, RepoError::Damaged { .. });
                    match self.author_of(&object.name, ObjectKind::Session)? {
                        Author::Unknown => unreadable.push((object.modified, error)),
                        // Others can read it: it is a session of whoever holds that key.
                        Author::Key(signer) if !is_damaged && self.is_active(&signer) => {
                            unreadable.push((object.modified, error));
                        }
                        // It says nothing, and never did; or nobody waits for its signer.
                        _ => self.environment().observer.warn(&explain(&error)),
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            let renewal = SessionId::from(id);
            let entry = sessions.entry((signer, session.session)).or_insert_with(|| FoundSession {
                renewal,
                session: session.clone(),
                began: object.modified,
                renewals: Vec::new(),
            });
            entry.renewals.push(renewal);
            entry.began = match (entry.began, object.modified) {
                (Some(before), Some(now)) => Some(before.min(now)),
                _ => None,
            };
            // [SESSION-2]: of several with one sequence the one with the lower id.
            let newer = session.sequence > entry.session.sequence
                || session.sequence == entry.session.sequence && renewal < entry.renewal;
            if newer {
                (entry.renewal, entry.session) = (renewal, session);
            }
        }
        Ok((sessions, unreadable))
    }

    fn is_active(&self, signer: &KeyId) -> bool {
        self.registry().trust().key(signer).is_some_and(|key| key.standing() == Standing::Active)
    }

    fn read_session(&self, name: &str, id: ObjectId) -> Result<(KeyId, Session), RepoError> {
        let bytes = self.environment().store.get(name, limits::STRUCTURED_BYTES_MAX * 2)?;
        let (signer, payload) = self.open_object(name, id, ObjectKind::Session, &bytes)?;
        let standing = self.registry().trust().key(&signer).map(KeyRecord::standing);
        if !matches!(standing, Some(Standing::Active | Standing::Retired)) {
            let why = format!("it is a session of the key {}, which does not count", signer.short());
            return Err(RepoError::Untrusted { object: name.to_owned(), why });
        }
        self.registry().believe(name, &signer, Act::Session, &id)?;
        let mut session = Session::decode(&payload).map_err(RepoError::damaged(name))?;
        // [SESSION-5]: whoever left in peace has ended all sessions.
        session.ended |= standing == Some(Standing::Retired);
        Ok((signer, session))
    }
}

impl CondemnedListing {
    /// Returns the ids of all that were listed, those that could not be read included.
    pub fn ids(&self) -> BTreeSet<CondemnedId> {
        self.found.keys().chain(self.unreadable.keys()).copied().collect()
    }
}
