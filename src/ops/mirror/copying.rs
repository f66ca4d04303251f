//! Copying objects one by one, by several threads.

use super::{DamagedObject, MirrorOptions, MirrorReport, Place, id_of};
use crate::base::{Observer, Phase, explain, limits};
use crate::ops::OpsError;
use crate::repo::RepoError;
use crate::storage::{ObjectInfo, StorageError, Store};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Longest object: parity may be as long as what it is of.
pub(super) const OBJECT_BYTES_MAX: u64 = 2 * limits::PACK_BYTES_MAX;

/// What became of one object.
#[derive(Default)]
pub(super) struct Fate {
    copied: bool,
    verified: u64,
    present: bool,
    vanished: bool,
    damaged: Vec<(Place, String, bool)>,
}

/// What one side gives for a name.
enum Read {
    Good(Vec<u8>),
    Bad(String),
    Gone,
}

/// Reads an object and compares it with its name.
///
/// # Errors
///
/// When the store does not answer: then nothing is known.
fn read(store: &dyn Store, name: &str) -> Result<Read, OpsError> {
    match store.get(name, OBJECT_BYTES_MAX) {
        Ok(bytes) if id_of(name).is_some_and(|id| blake3::hash(&bytes) == *id.as_bytes()) => {
            Ok(Read::Good(bytes))
        }
        Ok(_) => Ok(Read::Bad("its bytes are not the ones it was named for".to_owned())),
        Err(StorageError::NotFound { .. }) => Ok(Read::Gone),
        Err(error @ (StorageError::Transient { .. } | StorageError::Denied { .. })) => Err(error.into()),
        // What the disk does not give back counts as damaged.
        Err(error) => Ok(Read::Bad(explain(&error))),
    }
}

/// Returns an object of this name if it is what it is named for.
pub(super) fn good(store: &dyn Store, name: &str) -> Result<Option<Vec<u8>>, OpsError> {
    Ok(match read(store, name)? {
        Read::Good(bytes) => Some(bytes),
        Read::Bad(_) | Read::Gone => None,
    })
}

/// Stores verified bytes, over what is damaged where something stands there.
pub(super) fn put_right(store: &dyn Store, name: &str, bytes: &[u8]) -> Result<(), OpsError> {
    match store.put(name, bytes) {
        Ok(_) => Ok(()),
        // Other bytes under this name are damaged ones, since these are not.
        Err(StorageError::Conflict { .. }) => Ok(store.replace(name, bytes)?),
        Err(error) => Err(error.into()),
    }
}

/// What copying needs.
pub(super) struct Copying<'a> {
    pub source: &'a dyn Store,
    pub target: &'a dyn Store,
    pub options: &'a MirrorOptions,
    pub observer: &'a dyn Observer,
    pub there: &'a BTreeMap<String, ObjectInfo>,
}

impl Copying<'_> {
    /// Copies objects, several at once and in no order; returns how many were gone from the source.
    ///
    /// # Errors
    ///
    /// The first that came up; what is being copied is finished.
    pub fn run<'o>(
        &self,
        objects: impl Iterator<Item = &'o ObjectInfo> + Send,
        report: &mut MirrorReport,
    ) -> Result<u64, OpsError> {
        let queue = Mutex::new(objects);
        let result = Mutex::new((report, None, 0));
        let work = || {
            loop {
                // A statement of its own, so that the queue is free while the object is copied.
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(object) = next else { return };
                if result.lock().unwrap_or_else(PoisonError::into_inner).1.is_some() {
                    return;
                }
                let fate = match self.observer.interrupted() {
                    true => Err(RepoError::Interrupted.into()),
                    false => self.one(object),
                };
                let mut held = result.lock().unwrap_or_else(PoisonError::into_inner);
                match fate {
                    Ok(fate) => {
                        held.2 += u64::from(fate.vanished);
                        self.note(object, fate, held.0);
                    }
                    Err(error) => drop(held.1.get_or_insert(error)),
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.options.workers.max(1) {
                scope.spawn(work);
            }
            work();
        });
        let (_, error, vanished) = result.into_inner().unwrap_or_else(PoisonError::into_inner);
        match error {
            Some(error) => Err(error),
            None => Ok(vanished),
        }
    }

    fn note(&self, object: &ObjectInfo, fate: Fate, report: &mut MirrorReport) {
        let copied_bytes = if fate.copied { object.length } else { 0 };
        self.observer.advance(Phase::Copy, object.length, copied_bytes);
        report.copied += u64::from(fate.copied);
        report.copied_bytes += copied_bytes;
        report.present += u64::from(fate.present);
        report.verified += fate.verified;
        report.vanished += u64::from(fate.vanished);
        report.damaged.extend(fate.damaged.into_iter().map(|(place, why, healed)| DamagedObject {
            name: object.name.clone(),
            place,
            why,
            healed,
        }));
    }

    /// Brings one object to the target, and puts right what is damaged on either side as far as that is wished.
    fn one(&self, object: &ObjectInfo) -> Result<Fate, OpsError> {
        let name = object.name.as_str();
        self.observer.item(name);
        let there = self.there.get(name);
        let same_length = there.is_some_and(|there| there.length == object.length);
        let reads_target = there.is_some() && (self.options.verify || self.options.heal);
        let mut fate = Fate { present: there.is_some(), ..Fate::default() };
        if same_length && !reads_target {
            return Ok(fate);
        }
        if there.is_none() && self.options.dry_run && !self.options.heal {
            fate.copied = true;
            return Ok(fate);
        }
        let at_target = if reads_target { Some(read(self.target, name)?) } else { None };
        if matches!(at_target, Some(Read::Good(_))) && !self.options.heal {
            fate.verified += 1;
            return Ok(fate);
        }
        match (read(self.source, name)?, at_target) {
            (Read::Good(bytes), at_target) => {
                let why = match (at_target, there) {
                    (Some(Read::Good(_)), _) => {
                        fate.verified += 2;
                        return Ok(fate);
                    }
                    (Some(Read::Bad(why)), _) => Some(why),
                    (None, Some(there)) => {
                        Some(format!("it has {} bytes instead of {}", there.length, bytes.len()))
                    }
                    (Some(Read::Gone) | None, _) => None,
                };
                if !self.options.dry_run {
                    put_right(self.target, name, &bytes)?;
                }
                fate.copied = true;
                fate.present = false;
                fate.damaged.extend(why.map(|why| (Place::Target, why, true)));
            }
            (Read::Bad(why), at_target) => {
                let at_target = match at_target {
                    // It was not read, since it did not look the same.
                    None if there.is_some() => Some(read(self.target, name)?),
                    at_target => at_target,
                };
                self.damaged_at_source(name, why, at_target, &mut fate)?;
            }
            (Read::Gone, _) => fate.vanished = true,
        }
        Ok(fate)
    }

    fn damaged_at_source(
        &self,
        name: &str,
        why: String,
        at_target: Option<Read>,
        fate: &mut Fate,
    ) -> Result<(), OpsError> {
        match at_target {
            Some(Read::Good(bytes)) => {
                fate.verified += 1;
                if self.options.heal {
                    if !self.options.dry_run {
                        put_right(self.source, name, &bytes)?;
                    }
                    fate.damaged.push((Place::Source, why, true));
                } else {
                    let why = format!("{why}; it is whole at the target");
                    fate.damaged.push((Place::Source, why, false));
                }
            }
            Some(Read::Bad(target_why)) => {
                fate.damaged.push((Place::Source, why, false));
                fate.damaged.push((Place::Target, target_why, false));
            }
            Some(Read::Gone) | None => fate.damaged.push((Place::Source, why, false)),
        }
        Ok(())
    }
}
