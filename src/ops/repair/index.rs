//! Runs of the index from packs alone.
//!
//! A pack describes itself. Whatever no readable run describes as the pack does is described anew: packs of this
//! key in runs, since a run speaks only of its signer's packs ([INDEX-9]); packs of others, if that is
//! wished, by copying their frames into packs of this key.
//!
//! Write order, and what a crash after each step leaves:
//! 1. copies of others' packs, with their index run: they are found from then on;
//! 2. runs over packs of this key: the same;
//! 3. runs that are damaged are deleted, once everything that lies in the store is described.

use crate::base::{IndexId, KeyId, ObjectId, PackId, explain, limits};
use crate::format::pack::FrameRecord;
use crate::format::session::SessionPurpose;
use crate::format::sets::IdSet;
use crate::format::trust::{Act, Role};
use crate::ops::OpsError;
use crate::ops::check::agrees;
use crate::repo::{
    CondemnedListing, DescribedPack, FrameCopier, KnownPack, NumberedIndex, Presence, RepoError, Repository,
};
use crate::storage::StorageError;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Records after which a run is put.
const RUN_RECORDS: usize = 1 << 17;

/// How to repair the index.
#[derive(Debug, Clone, Default)]
pub struct IndexOptions {
    /// Copies packs of other keys whose description is lost into packs of this key.
    pub copy: bool,
    /// Name and version of the program.
    pub program: String,
}

/// What is to become of a pack that the index does not describe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexFate {
    /// A new run describes it.
    Describe,
    /// Its frames are copied into packs of this key.
    Copy,
    /// Only this key can describe it.
    Foreign(KeyId),
    /// It does not say what it holds, and why.
    Unreadable(String),
}

/// A pack that the index does not describe, or not as the pack does itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedPack {
    /// The pack.
    pub id: PackId,
    /// Its bytes.
    pub bytes: u64,
    /// Blobs in it that the index does not know there.
    pub blobs: u64,
    /// What is to become of it.
    pub fate: IndexFate,
}

/// What would be done.
pub struct IndexPlan {
    repository: Arc<Repository>,
    options: IndexOptions,
    /// Runs that cannot be used, by name, and why.
    pub runs: Vec<(String, String)>,
    /// Of those, the ones that are no longer what they are named for.
    broken: Vec<String>,
    /// Packs of which something is to be said.
    pub packs: Vec<PlannedPack>,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexRepaired {
    /// Packs that new runs describe.
    pub described: u64,
    /// Packs that were copied.
    pub copied: u64,
    /// Bytes put into the store.
    pub stored_bytes: u64,
    /// Damaged runs that were deleted.
    pub deleted_runs: u64,
}

/// Counts the blobs of a pack that the index does not know to be there. What others stored may be known
/// elsewhere instead, where it was copied.
fn unknown(
    index: &NumberedIndex,
    pack: &KnownPack,
    frames: &[FrameRecord],
    lengths: &HashMap<PackId, u64>,
    own: &KeyId,
) -> u64 {
    let mut unknown = 0;
    for frame in frames {
        let mut offset = 0_u32;
        for (id, length) in &frame.blobs {
            let mut known = false;
            index.copies(pack.class, id, |_, copy| {
                let same = copy.pack.id == pack.id && copy.pack.signer == pack.signer;
                let whole = lengths.get(&copy.pack.id) == Some(&u64::from(copy.pack.length));
                let copied = pack.signer != *own && copy.pack.signer == *own && whole;
                known |= copied || same && agrees(&copy, frame, offset, *length);
            });
            unknown += u64::from(!known);
            offset = offset.saturating_add(*length);
        }
    }
    unknown
}

impl IndexPlan {
    /// Compares what packs say of themselves with what the index says of them.
    ///
    /// # Errors
    ///
    /// [`RepoError::Forbidden`] for a key that may not write the index; when the store cannot be listed.
    pub fn new(repository: &Arc<Repository>, options: IndexOptions) -> Result<Self, OpsError> {
        let own = repository.keyring().identity.key;
        repository.registry().may_sign(&own, Act::IndexRun)?;
        let mut plan = Self {
            repository: repository.clone(),
            options,
            runs: Vec::new(),
            broken: Vec::new(),
            packs: Vec::new(),
        };
        // The cache may hold what a damaged run once said: other clients do not have it.
        let unusable = plan.look_at_runs()?;
        repository.refresh_index_without(&unusable)?;
        let condemned = repository.condemned(&CondemnedListing::default())?;
        let lengths = repository.pack_lengths()?;
        let index = repository.index().numbered();
        let mut packs: Vec<(PackId, u64)> = lengths.iter().map(|(id, bytes)| (*id, *bytes)).collect();
        packs.sort_unstable();
        for (id, bytes) in packs {
            if repository.environment().observer.interrupted() {
                return Err(RepoError::Interrupted.into());
            }
            // What is about to be deleted needs no description.
            if condemned.found.values().any(|found| found.condemned.names(&id)) {
                continue;
            }
            let (blobs, fate) = match repository.describe_pack(&id, bytes) {
                Ok((pack, frames)) => match unknown(&index, &pack, &frames, &lengths, &own) {
                    0 => continue,
                    blobs => (blobs, plan.fate(&pack)),
                },
                Err(error @ RepoError::Storage(StorageError::Transient { .. })) => return Err(error.into()),
                Err(RepoError::Storage(StorageError::NotFound { .. })) => continue,
                Err(error) => (0, IndexFate::Unreadable(explain(&error))),
            };
            plan.packs.push(PlannedPack { id, bytes, blobs, fate });
        }
        Ok(plan)
    }

    /// Reads every run from the store; returns those that cannot be used.
    fn look_at_runs(&mut self) -> Result<BTreeSet<IndexId>, OpsError> {
        let store = &self.repository.environment().store;
        let mut unusable = BTreeSet::new();
        for object in store.list("index/")? {
            let Some(Ok(id)) = object.name.rsplit('/').next().map(str::parse::<ObjectId>) else { continue };
            if self.repository.environment().observer.interrupted() {
                return Err(RepoError::Interrupted.into());
            }
            let (why, broken) = match store.get(&object.name, limits::INDEX_RUN_BYTES_MAX) {
                Ok(bytes) => match self.repository.open_run(&id.into(), &bytes) {
                    Ok(_) => continue,
                    Err(error) => (explain(&error), blake3::hash(&bytes) != *id.as_bytes()),
                },
                Err(StorageError::NotFound { .. }) => continue,
                Err(error @ StorageError::Transient { .. }) => return Err(error.into()),
                Err(error) => (explain(&error), false),
            };
            if broken {
                self.broken.push(object.name.clone());
            }
            unusable.insert(id.into());
            self.runs.push((object.name, why));
        }
        Ok(unusable)
    }

    fn fate(&self, pack: &KnownPack) -> IndexFate {
        let (registry, own) = (self.repository.registry(), self.repository.keyring().identity.key);
        match () {
            () if pack.signer == own => IndexFate::Describe,
            () if self.options.copy && registry.adopts(&own, &pack.signer, &pack.id) => IndexFate::Copy,
            () => IndexFate::Foreign(pack.signer),
        }
    }

    /// Says whether something will be left undone.
    pub fn leaves_something(&self) -> bool {
        self.packs.iter().any(|pack| matches!(pack.fate, IndexFate::Foreign(_) | IndexFate::Unreadable(_)))
    }

    /// Says whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.packs.is_empty()
    }

    /// Does it. Packs that turn out not to be what they are named for are put down as unreadable.
    ///
    /// # Errors
    ///
    /// When the store fails: what was written by then is right, and the rest is done by the next run.
    pub fn run(&mut self) -> Result<IndexRepaired, OpsError> {
        let repository = self.repository.clone();
        let mut done = IndexRepaired::default();
        let presence =
            Presence::begin(&repository, SessionPurpose::Maintain, IdSet::default(), &self.options.program)?;
        // The plan was made before ([CONCURRENCY-10]).
        let listing = presence.listing();
        let mut described: Vec<DescribedPack> = Vec::new();
        let mut copier: Option<FrameCopier> = None;
        for pack in &mut self.packs {
            if repository.environment().observer.interrupted() {
                return Err(RepoError::Interrupted.into());
            }
            let copied = pack.fate == IndexFate::Copy;
            let goes = listing.found.values().any(|found| found.condemned.names(&pack.id));
            if goes || !copied && pack.fate != IndexFate::Describe {
                continue;
            }
            // Its table may have been changed together with what seals it: only the whole is believed.
            let (known, frames) = match repository.read_pack(&pack.id) {
                Ok(read) => read,
                Err(error @ RepoError::Storage(StorageError::Transient { .. })) => return Err(error.into()),
                Err(error) => {
                    pack.fate = IndexFate::Unreadable(explain(&error));
                    continue;
                }
            };
            if copied {
                let copier = match &mut copier {
                    Some(copier) => copier,
                    None => copier.insert(FrameCopier::new(&repository)?),
                };
                let offsets = frames.iter().map(|frame| frame.offset).collect();
                let not_copied = copier.copy(&pack.id, &known.signer, &offsets)?;
                if let Some(error) = not_copied.unreadable {
                    pack.fate = IndexFate::Unreadable(explain(&error));
                    continue;
                }
                if !not_copied.contested.is_empty() {
                    let why = "another pack holds something else that claims to be the same frame";
                    pack.fate = IndexFate::Unreadable(why.to_owned());
                }
                done.copied += 1;
                continue;
            }
            described.push((known, frames));
            done.described += 1;
            let records: usize =
                described.iter().flat_map(|(_, frames)| frames).map(|frame| frame.blobs.len()).sum();
            if records >= RUN_RECORDS {
                repository.put_index_run(&std::mem::take(&mut described))?;
            }
        }
        if let Some(copier) = copier {
            done.stored_bytes += copier.finish()?.stored_bytes;
        }
        if !described.is_empty() {
            repository.put_index_run(&described)?;
        }
        let role = repository.keyring().identity.role;
        if !self.leaves_something() && matches!(role, Role::Owner | Role::Maintainer) {
            for name in &self.broken {
                repository.environment().store.delete(name)?;
                done.deleted_runs += 1;
            }
        }
        Ok(done)
    }
}
