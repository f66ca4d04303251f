//! Presence: the session objects by which this client says that it relies on what others stored.
//!
//! Write order ([CONCURRENCY-10] to [CONCURRENCY-14]), and what a crash after each step leaves:
//! 1. the first renewal, before condemnations are listed: a session that lapses;
//! 2. renewals, each after a listing of condemnations; they name only what the session does not rely on;
//! 3. the last renewal, which says that it has ended; where the store has no room for it, all renewals are deleted
//!    instead, the newest last: a session that lapses, or none.
//!
//! A thread renews while the work goes on. A renewal that fails is tried again; whether the session
//! may have lapsed meanwhile is reckoned by the store's times, not by this host's.

use super::condemned::CondemnedListing;
use super::error::RepoError;
use super::repository::Repository;
use crate::base::{CondemnedId, ObjectId, SessionId, SnapshotId, Timestamp, explain};
use crate::format::ObjectKind;
use crate::format::cbor::Extra;
use crate::format::session::{Session, SessionPurpose};
use crate::format::sets::IdSet;
use crate::format::trust::Act;
use crate::storage::StorageError;
use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The next renewal comes within this time.
const PROMISE_SECONDS: u64 = 300;
/// Renewals come this often, so that one may fail and the promise is still kept.
const RENEW_EVERY: Duration = Duration::from_secs(PROMISE_SECONDS / 3);
/// A session may lapse when nothing was heard of it for this long, by the store's time.
const LAPSE_NANOSECONDS: i64 = 3 * PROMISE_SECONDS as i64 * 1_000_000_000;

struct State {
    session: [u8; 32],
    started: Timestamp,
    sequence: u64,
    last: Option<SessionId>,
    /// All renewals.
    put: Vec<SessionId>,
    /// When the store received the newest renewal.
    stored: Option<Timestamp>,
    seen: BTreeSet<CondemnedId>,
    listing: CondemnedListing,
    /// Whether the session may have lapsed, and nobody has looked since.
    lapsed: bool,
    ended: bool,
}

struct Shared {
    repository: Arc<Repository>,
    purpose: SessionPurpose,
    snapshots: IdSet<SnapshotId>,
    streams: Vec<String>,
    program: String,
    state: Mutex<State>,
    stop: (Mutex<bool>, Condvar),
}

/// A session of this client. Dropping it ends it.
pub struct Presence {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Puts the next renewal.
    fn put(&self, state: &mut State, ended: bool) -> Result<(), RepoError> {
        let now = self.repository.environment().clock.now();
        let session = Session {
            session: state.session,
            sequence: state.sequence + 1,
            predecessor: state.last,
            purpose: self.purpose,
            started: state.started,
            renewed: now,
            host: String::new(),
            program: self.program.clone(),
            promise_seconds: PROMISE_SECONDS,
            // A condemnation that is gone needs no naming any more.
            seen: state.seen.iter().copied().collect(),
            snapshots: self.snapshots.clone(),
            streams: self.streams.clone(),
            ended,
            extra: Extra::new(),
        };
        let payload = session.encode().map_err(RepoError::damaged("the session being written"))?;
        let id: ObjectId =
            self.repository.put_object("sessions", ObjectKind::Session, Act::Session, &payload)?;
        let store = &self.repository.environment().store;
        let stored = if ended { None } else { store.head(&format!("sessions/{id}"))?.modified };
        let lapse = match (state.stored, stored) {
            (Some(before), Some(now)) => {
                now.nanoseconds().saturating_sub(before.nanoseconds()) >= LAPSE_NANOSECONDS
            }
            // Without the store's times nothing can be ruled out.
            _ => state.last.is_some() && !ended,
        };
        state.lapsed |= lapse;
        state.sequence += 1;
        state.last = Some(SessionId::from(id));
        state.put.push(SessionId::from(id));
        if !ended {
            state.stored = stored;
        }
        Ok(())
    }

    /// Lists condemnations; from here on nothing is adopted from what they list.
    fn list(&self, state: &mut State) -> Result<(), RepoError> {
        state.listing = self.repository.condemned(&state.listing)?;
        let listed = state.listing.ids();
        state.seen.retain(|id| listed.contains(id));
        self.repository.bar(&state.listing);
        Ok(())
    }

    fn renew(&self) -> Result<(), RepoError> {
        let mut state = lock(&self.state);
        if state.ended {
            return Ok(());
        }
        self.list(&mut state)?;
        self.put(&mut state, false)
    }

    fn keep_renewing(&self) {
        let (stopped, wake) = &self.stop;
        let mut held = lock(stopped);
        while !*held {
            let (again, waited) =
                wake.wait_timeout(held, RENEW_EVERY).unwrap_or_else(PoisonError::into_inner);
            held = again;
            if *held || !waited.timed_out() {
                continue;
            }
            drop(held);
            if let Err(error) = self.renew() {
                let why = explain(&error);
                self.repository.environment().observer.warn(&format!("cannot renew the session: {why}"));
            }
            held = lock(stopped);
        }
    }
}

impl Presence {
    /// Begins a session: puts its first renewal, then lists condemnations. Since the session relies on
    /// nothing yet, it names all that it finds.
    ///
    /// `snapshots` are those that it reads: they stay while it lives.
    ///
    /// # Errors
    ///
    /// When the store fails, or this key is out of service.
    pub fn begin(
        repository: &Arc<Repository>,
        purpose: SessionPurpose,
        snapshots: IdSet<SnapshotId>,
        program: &str,
    ) -> Result<Self, RepoError> {
        Self::begin_reading(repository, purpose, snapshots, Vec::new(), program)
    }

    /// Does the same for a session that reads these log streams too: what is archived of them stays while it
    /// lives ([CONCURRENCY-13]).
    ///
    /// # Errors
    ///
    /// As [`Presence::begin`].
    pub fn begin_reading(
        repository: &Arc<Repository>,
        purpose: SessionPurpose,
        snapshots: IdSet<SnapshotId>,
        mut streams: Vec<String>,
        program: &str,
    ) -> Result<Self, RepoError> {
        streams.sort_unstable();
        streams.dedup();
        let environment = repository.environment();
        let state = State {
            session: environment.entropy.draw(),
            started: environment.clock.now(),
            sequence: 0,
            last: None,
            put: Vec::new(),
            stored: None,
            seen: BTreeSet::new(),
            listing: CondemnedListing::default(),
            lapsed: false,
            ended: false,
        };
        let shared = Arc::new(Shared {
            repository: repository.clone(),
            purpose,
            snapshots,
            streams,
            program: program.to_owned(),
            state: Mutex::new(state),
            stop: Default::default(),
        });
        {
            let mut state = lock(&shared.state);
            shared.put(&mut state, false)?;
            shared.list(&mut state)?;
            state.seen = state.listing.ids();
            if !state.seen.is_empty() {
                shared.put(&mut state, false)?;
            }
        }
        let renewing = shared.clone();
        let thread = std::thread::Builder::new()
            .name("chronolith-session".to_owned())
            .spawn(move || renewing.keep_renewing())
            .map_err(|source| RepoError::Local {
                doing: "start a thread for",
                path: "the session".to_owned(),
                source,
            })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Returns the random bytes that identify the session, together with this key.
    pub fn id(&self) -> [u8; 32] {
        lock(&self.shared.state).session
    }

    /// Returns the store's time of the newest renewal: the present, for whoever has just renewed.
    pub fn store_time(&self) -> Option<Timestamp> {
        lock(&self.shared.state).stored
    }

    /// Returns the condemnations as they were listed last.
    pub fn listing(&self) -> CondemnedListing {
        lock(&self.shared.state).listing.clone()
    }

    /// Lists condemnations again; returns those that the session has not named.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn unnamed(&self) -> Result<BTreeSet<CondemnedId>, RepoError> {
        let mut state = lock(&self.shared.state);
        self.shared.list(&mut state)?;
        Ok(state.listing.ids().difference(&state.seen).copied().collect())
    }

    /// Returns the condemnations that the session has named: it relies on nothing that they list.
    pub fn named(&self) -> BTreeSet<CondemnedId> {
        lock(&self.shared.state).seen.clone()
    }

    /// Says that the session relies on nothing that these condemnations list. Only after the deed.
    ///
    /// # Errors
    ///
    /// When the renewal cannot be put.
    pub fn name(&self, ids: &BTreeSet<CondemnedId>) -> Result<(), RepoError> {
        let mut state = lock(&self.shared.state);
        state.seen.extend(ids);
        self.shared.put(&mut state, false)
    }

    /// Renews now.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub fn renew(&self) -> Result<(), RepoError> {
        self.shared.renew()
    }

    /// Says whether the session may have lapsed since this was asked last, as far as the newest renewal
    /// shows: then everything that it relies on has to be looked at again ([CONCURRENCY-23]).
    pub fn take_lapse(&self) -> bool {
        std::mem::take(&mut lock(&self.shared.state).lapsed)
    }

    fn stop(&mut self) {
        *lock(&self.shared.stop.0) = true;
        self.shared.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.stop();
        let mut state = lock(&self.shared.state);
        state.ended = true;
        // A session that was not ended lapses: it costs a sweeper time, no more. But who needs room waits for the sweeper.
        if let Err(RepoError::Storage(StorageError::NoSpace { .. })) = self.shared.put(&mut state, true) {
            let store = &self.shared.repository.environment().store;
            let mut renewals = state.put.iter().map(|id| format!("sessions/{id}"));
            let _ = renewals.try_for_each(|name| store.delete(&name));
        }
    }
}
