//! Decorator: several stores that hold the same objects, as one.
//!
//! A write counts once a quorum of the stores has it (all of them, unless fewer are asked for); what a store missed
//! is warned of, and mended later by a mirror run. A read takes the first store that has the object whole: where
//! the name is the hash of the bytes, whole is what has that hash. So:
//!
//! - A part of an object cannot be verified here: whoever finds that it is wrong says so ([`Store::doubt`]), and from then
//!   on it is read where the whole is right.
//! - With a quorum of W of N stores, a listing needs N - W + 1 of them: whatever counted is in one of these.
//! - That an object does not exist is said only when every store says so.
//! - What is not named by its hash (the configuration) is replaced everywhere or the replacement has failed, lest
//!   an old one be read where it was missed.
//! - A deletion has to succeed everywhere: what is left in one place would be listed again.
//! - An object is as old as the oldest of its copies: one that was brought back yesterday was announced, or committed, when
//!   it was first stored. The clocks of the stores have to agree as far as times of grace are to be exact.

use super::{Capabilities, ObjectInfo, Operation, PutOutcome, StorageError, Store, check_name};
use crate::base::{Observer, explain};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One of several stores.
struct Member {
    store: Arc<dyn Store>,
    /// Whether its failure was told.
    told: AtomicBool,
}

/// Several stores as one.
pub struct MirroredStore {
    members: Vec<Member>,
    quorum: usize,
    observer: Arc<dyn Observer>,
    /// Objects of which a damaged copy was read, and the store that has a good one.
    elsewhere: Mutex<HashMap<String, usize>>,
}

/// Longest object that is looked at as a whole: a pack.
const OBJECT_BYTES_MAX: u64 = 512 << 20;

/// Says whether a name ends in the hash of these bytes; `None` for names that end in no hash.
fn is_named_for(name: &str, bytes: &[u8]) -> Option<bool> {
    let id = name.rsplit('/').next().filter(|_| is_hashed(name))?;
    Some(blake3::hash(bytes).to_hex().as_str() == id)
}

/// Says whether a name ends in a hash.
fn is_hashed(name: &str) -> bool {
    let id = name.rsplit('/').next().unwrap_or_default();
    id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Takes the worst of what several stores said: that something is missing only where nothing else was said.
fn worst(errors: Vec<StorageError>, operation: Operation, name: &str) -> StorageError {
    let mut missing = None;
    for error in errors {
        match error {
            error @ StorageError::NotFound { .. } => drop(missing.get_or_insert(error)),
            error => return error,
        }
    }
    missing.unwrap_or_else(|| StorageError::NotFound { operation, name: name.to_owned() })
}

impl MirroredStore {
    /// Joins stores; reads ask them in this order. Without a quorum every write has to succeed in all of them.
    ///
    /// # Errors
    ///
    /// [`StorageError::Invalid`] without stores, or for a quorum that they cannot make.
    pub fn new(
        stores: Vec<Arc<dyn Store>>,
        quorum: Option<usize>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StorageError> {
        let quorum = quorum.unwrap_or(stores.len());
        if quorum == 0 || quorum > stores.len() {
            return Err(StorageError::Invalid {
                operation: Operation::Open,
                name: "several stores".to_owned(),
                why: "the quorum has to be between one and the number of stores",
            });
        }
        let member = |store| Member { store, told: AtomicBool::new(false) };
        let members = stores.into_iter().map(member).collect();
        Ok(Self { members, quorum, observer, elsewhere: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks all stores at once; the answers come in their order.
    fn ask_all<T: Send>(
        &self,
        request: impl Fn(&dyn Store) -> Result<T, StorageError> + Sync,
    ) -> Vec<Result<T, StorageError>> {
        let Some((first, others)) = self.members.split_first() else { return Vec::new() };
        std::thread::scope(|scope| {
            let request = &request;
            let others: Vec<_> =
                others.iter().map(|member| scope.spawn(move || request(member.store.as_ref()))).collect();
            let mut answers = vec![request(first.store.as_ref())];
            for other in others {
                // A store that panics takes its caller with it, as it would alone.
                answers.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            answers
        })
    }

    /// Says once of each store that the others go on without it.
    fn tell(&self, number: usize, error: &StorageError) {
        let Some(member) = self.members.get(number) else { return };
        if !member.told.swap(true, Ordering::Relaxed) {
            self.observer.warn(&format!(
                "{} failed, and the others go on without it ({}): `chronolith mirror` brings it up to date",
                member.store.location(),
                explain(error)
            ));
        }
    }

    /// Counts the stores in which a write has succeeded.
    fn count<T>(&self, answers: Vec<Result<T, StorageError>>, needed: usize) -> Result<Vec<T>, StorageError> {
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for (number, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(value) => done.push(value),
                Err(error) => failed.push((number, error)),
            }
        }
        if done.len() >= needed {
            failed.iter().for_each(|(number, error)| self.tell(*number, error));
            return Ok(done);
        }
        match failed.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(done),
        }
    }

    /// Asks one store after the other, until one has a good answer.
    fn first<T>(
        &self,
        operation: Operation,
        name: &str,
        mut request: impl FnMut(&dyn Store) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let mut errors = Vec::new();
        for member in &self.members {
            match request(member.store.as_ref()) {
                Ok(value) => return Ok(value),
                Err(error @ StorageError::Invalid { .. }) => return Err(error),
                Err(error) => errors.push(error),
            }
        }
        Err(worst(errors, operation, name))
    }

    /// Stores an object that is not named by its hash: one store after the other, so that of several writers one wins.
    fn put_in_turn(&self, name: &str, bytes: &[u8]) -> Vec<Result<PutOutcome, StorageError>> {
        let mut answers = Vec::new();
        for member in &self.members {
            let answer = member.store.put(name, bytes);
            let lost = matches!(&answer, Err(StorageError::Conflict { .. }));
            let none_yet = answers.iter().all(Result::is_err);
            answers.push(answer);
            if lost && none_yet {
                break;
            }
        }
        answers
    }
}

impl Store for MirroredStore {
    /// The outcome is that of the first store which took it.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<PutOutcome, StorageError> {
        super::names::check_object(Operation::Put, name, bytes)?;
        let answers = match is_named_for(name, bytes) {
            Some(true) => self.ask_all(|store| store.put(name, bytes)),
            _ => self.put_in_turn(name, bytes),
        };
        let outcomes = self.count(answers, self.quorum)?;
        Ok(outcomes.into_iter().next().unwrap_or(PutOutcome::Existed))
    }

    fn expect_put(&self, folder: &str) {
        self.ask_all(|store| {
            store.expect_put(folder);
            Ok(())
        });
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        super::names::check_object(Operation::Replace, name, bytes)?;
        let needed = match is_named_for(name, bytes) {
            Some(true) => self.quorum,
            _ => self.members.len(),
        };
        self.count(self.ask_all(|store| store.replace(name, bytes)), needed).map(drop)
    }

    /// Bytes that are not those of their name are returned only where no store has better ones.
    fn get(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        let mut damaged = None;
        let good = self.first(Operation::Get, name, |store| {
            let bytes = store.get(name, limit_bytes)?;
            if is_named_for(name, &bytes) == Some(false) {
                damaged.get_or_insert(bytes);
                // Never seen: some bytes are better than none.
                return Err(StorageError::Conflict { operation: Operation::Get, name: name.to_owned() });
            }
            Ok(bytes)
        });
        match (good, damaged) {
            (Err(_), Some(damaged)) => Ok(damaged),
            (good, _) => good,
        }
    }

    fn get_range(
        &self,
        name: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        let known = self.lock().get(name).copied();
        if let Some(member) = known.and_then(|number| self.members.get(number))
            && member.store.get_range(name, offset, length, out).is_ok()
        {
            return Ok(());
        }
        self.first(Operation::GetRange, name, |store| store.get_range(name, offset, length, out))
    }

    fn head(&self, name: &str) -> Result<ObjectInfo, StorageError> {
        check_name(Operation::Head, name)?;
        let (mut found, mut errors) = (None, Vec::new());
        for answer in self.ask_all(|store| store.head(name)) {
            match answer {
                Ok(info) => found = Some(merge(found, info)),
                Err(error) => errors.push(error),
            }
        }
        found.ok_or_else(|| worst(errors, Operation::Head, name))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        let needed = self.members.len() - self.quorum + 1;
        let mut objects: BTreeMap<String, ObjectInfo> = BTreeMap::new();
        let listings = self.count(self.ask_all(|store| store.list(prefix)), needed).map_err(|error| match error {
            StorageError::Fatal { operation, name, source } => {
                let count = self.members.len();
                let source = format!(
                    "{}; {needed} of {count} places are needed to list what may be in any of them (one of them alone, \
                     named by -r, shows what it has)",
                    explain(source.as_ref())
                );
                StorageError::Fatal { operation, name, source: source.into() }
            }
            error => error,
        });
        for listing in listings? {
            for info in listing {
                let merged = merge(objects.remove(&info.name), info);
                objects.insert(merged.name.clone(), merged);
            }
        }
        Ok(objects.into_values().collect())
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        check_name(Operation::Delete, name)?;
        self.count(self.ask_all(|store| store.delete(name)), self.members.len()).map(drop)
    }

    fn doubt(&self, name: &str) -> bool {
        if !is_hashed(name) || self.lock().contains_key(name) {
            return false;
        }
        let is_good = |member: &Member| {
            let bytes = member.store.get(name, OBJECT_BYTES_MAX);
            bytes.is_ok_and(|bytes| is_named_for(name, &bytes) == Some(true))
        };
        // Where none is whole the usual order is as good as any, and nobody looks again.
        let number = self.members.iter().position(is_good).unwrap_or(0);
        self.lock().insert(name.to_owned(), number);
        if number > 0 {
            let place = self.members.get(number).map(|member| member.store.location()).unwrap_or_default();
            self.observer.warn(&format!(
                "{name} is damaged in one place and read from {place}: `chronolith mirror --heal` mends it"
            ));
        }
        number > 0
    }

    fn unfinished(&self) -> Result<Vec<ObjectInfo>, StorageError> {
        let needed = self.members.len() - self.quorum + 1;
        let mut all = self.count(self.ask_all(|store| store.unfinished()), needed)?.concat();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    fn clean(&self) -> Result<usize, StorageError> {
        let needed = self.members.len() - self.quorum + 1;
        Ok(self.count(self.ask_all(|store| store.clean()), needed)?.into_iter().sum())
    }

    fn keep_reserve(&self) {
        self.members.iter().for_each(|member| member.store.keep_reserve());
    }

    fn draw_on_reserve(&self, may: bool) {
        self.members.iter().for_each(|member| member.store.draw_on_reserve(may));
    }

    /// What all of them promise. Which store decides between two creators may change, so that nobody is promised to be
    /// the one.
    fn capabilities(&self) -> Capabilities {
        let all = |has: fn(&Capabilities) -> bool| {
            self.members.iter().all(|member| has(&member.store.capabilities()))
        };
        Capabilities {
            exclusive_put: false,
            consistent_list: all(|of| of.consistent_list),
            modified_times: all(|of| of.modified_times),
            retry: all(|of| of.retry),
            distant: !all(|of| !of.distant),
        }
    }

    fn location(&self) -> String {
        let places: Vec<String> = self.members.iter().map(|member| member.store.location()).collect();
        places.join(" and ")
    }
}

/// Brings together what two stores say of one object: what was cut short is the shorter one, and the older of the
/// two was stored first.
fn merge(one: Option<ObjectInfo>, other: ObjectInfo) -> ObjectInfo {
    let Some(one) = one else { return other };
    ObjectInfo {
        length: one.length.max(other.length),
        modified: match (one.modified, other.modified) {
            (Some(one), Some(other)) => Some(one.min(other)),
            _ => None,
        },
        name: one.name,
    }
}

/// A store that is not there: a disk that is not mounted. Every request fails.
pub struct AbsentStore {
    /// Where it should be.
    pub place: String,
    /// Why it is not there.
    pub why: String,
}

impl AbsentStore {
    fn failed<T>(&self, operation: Operation, name: &str) -> Result<T, StorageError> {
        let source = format!("{} is not there: {}", self.place, self.why).into();
        Err(StorageError::Fatal { operation, name: name.to_owned(), source })
    }
}

impl Store for AbsentStore {
    fn put(&self, name: &str, _bytes: &[u8]) -> Result<PutOutcome, StorageError> {
        self.failed(Operation::Put, name)
    }
    fn replace(&self, name: &str, _bytes: &[u8]) -> Result<(), StorageError> {
        self.failed(Operation::Replace, name)
    }
    fn get(&self, name: &str, _limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        self.failed(Operation::Get, name)
    }
    fn get_range(
        &self,
        name: &str,
        _offset: u64,
        _length: usize,
        _out: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        self.failed(Operation::GetRange, name)
    }
    fn head(&self, name: &str) -> Result<ObjectInfo, StorageError> {
        self.failed(Operation::Head, name)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        self.failed(Operation::List, prefix)
    }
    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.failed(Operation::Delete, name)
    }
    /// What is not there breaks no promise of those that are.
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            exclusive_put: true,
            consistent_list: true,
            modified_times: true,
            retry: true,
            distant: false,
        }
    }
    fn location(&self) -> String {
        self.place.clone()
    }
}
