//! Packs: are they there, do they hold what the index says, and with the data read, does every
//! blob decode to what its id says. All cores; memory a few MiB each.

use super::damage::{self, Damage};
use super::logs::Checked;
use super::report::{CheckCounts, Findings, Gravity};
use super::selection::METHOD_CONTENT;
use crate::base::{BlobId, PackId, Phase, Timestamp, explain};
use crate::format::annotation::{Annotation, AnnotationKind, Outcome};
use crate::format::damaged::{DamagedObject, Finding};
use crate::format::pack::{BlobClass, FrameRecord};
use crate::format::trust::Act;
use crate::ops::OpsError;
use crate::ops::bits::Bits;
use crate::repo::{
    CondemnedListing, FrameState, KnownPack, Located, Memory, NumberedIndex, PackScanner, RepoError,
    Repository, ScannedPack, pack_name,
};
use crossbeam_channel::bounded;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Threads at most: each holds a window of a pack and a frame.
const WORKERS_MAX: usize = 8;
/// Packs that one annotation of the ledger names at most.
const LEDGER_PACKS: usize = 100_000;

/// What is the matter with a pack as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It is not in the store.
    Missing,
    /// It has this length, not the one that the index says.
    Length(u64),
    /// What it says of itself cannot be read; its frames may be good.
    Opaque,
    /// This key may not look into it, and nothing is known against it.
    Closed,
}

/// What is known of a blob, all copies of it taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// None can be read.
    Lost,
    /// All that may be whole lie in packs that are not what they were, and this key cannot open them.
    Doubtful,
    /// One can be read, as far as was looked.
    Whole,
}

/// One pack to look at.
struct Task {
    id: PackId,
    length: u64,
    class: BlobClass,
    read: bool,
}

/// Blobs that are remembered of one pack whose table does not have them.
const STRANGERS_MAX: usize = 50_000;

/// Looks at packs.
pub(super) struct Packs<'a> {
    pub repository: &'a Arc<Repository>,
    pub index: &'a NumberedIndex,
    pub findings: &'a Findings,
    /// Records whose pack's table says the same.
    confirmed: Bits,
    /// Records whose copy cannot be read, or nobody can rely on.
    pub bad: Bits,
    /// Of those, the ones that may be whole all the same: their pack is not what it was, and this key cannot open them.
    doubtful: Bits,
    states: Mutex<HashMap<PackId, State>>,
    /// Packs that are gone and that a snapshot needs, as far as trees were walked.
    missed: Mutex<HashSet<PackId>>,
    damage: Mutex<Damage>,
    /// Packs on which nobody relies any more.
    given_up: HashSet<PackId>,
    /// Something was deleted here before, so that a base may have gone together with the index runs that named it.
    swept: bool,
    /// Packs that a look before found bad: that they were reported then makes them no old news.
    again: HashSet<PackId>,
    verified: Mutex<Vec<PackId>>,
    packs_read: AtomicU64,
    bytes_read: AtomicU64,
    plain_bytes: AtomicU64,
    closed: AtomicU64,
    failure: Mutex<Option<RepoError>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Packs<'a> {
    pub fn new(
        repository: &'a Arc<Repository>,
        index: &'a NumberedIndex,
        findings: &'a Findings,
        damage: Damage,
        condemned: &CondemnedListing,
        memory: &Memory,
        again: &HashSet<PackId>,
    ) -> Self {
        let sets = condemned.found.values().flat_map(|found| {
            let condemned = &found.condemned;
            [&condemned.dead, &condemned.superfluous, &condemned.tombstones]
        });
        let given_up = sets.flat_map(|set| set.iter().copied()).collect();
        Self {
            damage: Mutex::new(damage),
            given_up,
            swept: memory.newest().is_some() || !condemned.found.is_empty(),
            again: again.clone(),
            repository,
            index,
            findings,
            confirmed: Bits::new(index.len()),
            bad: Bits::new(index.len()),
            doubtful: Bits::new(index.len()),
            states: Mutex::default(),
            missed: Mutex::default(),
            verified: Mutex::default(),
            packs_read: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            plain_bytes: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            failure: Mutex::new(None),
        }
    }

    /// Compares what the index names with what the store lists, and returns the packs to look into. What was not known
    /// `before` packs that no run names were looked for may have come after the listing.
    pub fn compare(
        &self,
        listed: &BTreeMap<PackId, u64>,
        known: &HashMap<PackId, Arc<KnownPack>>,
        before: &HashMap<PackId, Arc<KnownPack>>,
    ) -> Vec<(PackId, u64, BlobClass)> {
        let mut present = Vec::new();
        for (id, pack) in known {
            let expected = u64::from(pack.length);
            let (state, what) = match listed.get(id) {
                None => (State::Missing, "it is missing".to_owned()),
                Some(length) if *length != expected => {
                    let what = format!("it has {length} bytes instead of {expected}");
                    (State::Length(*length), what)
                }
                Some(length) => {
                    present.push((*id, *length, pack.class));
                    continue;
                }
            };
            lock(&self.states).insert(*id, state);
            // One that is gone is missed only by what needs it, and that is found by the walk over trees.
            if state != State::Missing {
                let gravity = if self.given_up.contains(id) { Gravity::Warning } else { Gravity::Damage };
                self.findings.add(gravity, pack_name(id), what);
            } else if !self.given_up.contains(id) && before.contains_key(id) {
                self.findings.suspect(pack_name(id), what);
            }
        }
        present
    }

    /// Returns the packs that are gone and that were missed since this was asked last.
    pub fn take_missed(&self) -> HashSet<PackId> {
        std::mem::take(&mut *lock(&self.missed))
    }

    /// Looks into packs with all cores: those of `read` whole, in their order, as long as `budget`
    /// lasts; of the others only what they say of themselves.
    pub fn look(
        &self,
        class: BlobClass,
        read: Vec<(PackId, u64)>,
        others: Vec<(PackId, u64)>,
        budget: Option<Duration>,
    ) -> Result<(), OpsError> {
        let observer = &self.repository.environment().observer;
        observer.begin(Phase::Check, Some(read.iter().map(|(_, length)| length).sum()));
        let deadline = budget.map(|budget| self.after(budget));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = cores.clamp(1, WORKERS_MAX);
        let mut team =
            (0..workers).map(|_| PackScanner::new(self.repository)).collect::<Result<Vec<_>, _>>()?;
        let (tasks, to_do) = bounded::<Task>(workers);
        std::thread::scope(|scope| {
            for mut scanner in team.drain(..) {
                let to_do = to_do.clone();
                scope.spawn(move || {
                    for task in to_do {
                        if let Err(error) = self.task(&mut scanner, &task) {
                            lock(&self.failure).get_or_insert(error);
                        }
                    }
                });
            }
            drop(to_do);
            // Owned here, so that the workers end when the last task has been sent.
            let tasks = tasks;
            let stopped = || observer.interrupted() || lock(&self.failure).is_some();
            for (id, length) in read {
                // What the time does not suffice for is still looked at from outside.
                let read =
                    deadline.is_none_or(|deadline| self.repository.environment().clock.now() < deadline);
                if stopped() || tasks.send(Task { id, length, class, read }).is_err() {
                    return;
                }
            }
            for (id, length) in others {
                if stopped() || tasks.send(Task { id, length, class, read: false }).is_err() {
                    return;
                }
            }
        });
        self.repository.environment().observer.end(Phase::Check);
        match lock(&self.failure).take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    fn after(&self, budget: Duration) -> Timestamp {
        let now = self.repository.environment().clock.now().nanoseconds();
        let budget = i64::try_from(budget.as_nanos()).unwrap_or(i64::MAX);
        Timestamp::from_nanoseconds(now.saturating_add(budget))
    }

    fn task(&self, scanner: &mut PackScanner, task: &Task) -> Result<(), RepoError> {
        let name = pack_name(&task.id);
        let observer = &self.repository.environment().observer;
        let looked = if task.read {
            let mut scan =
                || scanner.scan(&task.id, task.length, |bytes| observer.advance(Phase::Check, bytes, 0));
            // What was read wrong once may be read right the second time.
            let scanned = match scan() {
                Ok(scanned) if !is_bad(&scanned) => Ok(scanned),
                Err(error @ RepoError::Interrupted) => Err(error),
                _ => scan(),
            };
            scanned.and_then(|scanned| self.scanned(&name, scanned, task.length))
        } else {
            self.repository.describe_pack(&task.id, task.length).map(|(pack, frames)| {
                for frame in &frames {
                    self.confirm(&name, &pack, frame, Fate::Whole);
                }
            })
        };
        match looked {
            Ok(()) => Ok(()),
            Err(error @ RepoError::Interrupted) => Err(error),
            Err(RepoError::Forbidden { .. }) => {
                self.closed.fetch_add(1, Ordering::Relaxed);
                lock(&self.states).insert(task.id, State::Closed);
                Ok(())
            }
            Err(error) => {
                let gravity = self.note(&task.id, damage::of_error(task.class, &task.id, &error)?);
                self.findings.add(gravity, name, explain(&error));
                lock(&self.states).insert(task.id, State::Opaque);
                Ok(())
            }
        }
    }

    /// Notes what is to be reported of a pack; says how bad it is: what was reported already, or is about
    /// to be deleted, is nothing new.
    fn note(&self, pack: &PackId, entry: Option<DamagedObject>) -> Gravity {
        let known = |entry| lock(&self.damage).add(entry);
        let is_known = entry.is_some_and(known) && !self.again.contains(pack);
        match self.given_up.contains(pack) || is_known {
            true => Gravity::Warning,
            false => Gravity::Damage,
        }
    }

    /// Returns what is known of damaged packs, once all have been looked at.
    pub fn take_damage(&self) -> Damage {
        std::mem::take(&mut *lock(&self.damage))
    }

    fn scanned(&self, name: &str, scanned: ScannedPack, length: u64) -> Result<(), RepoError> {
        self.packs_read.fetch_add(1, Ordering::Relaxed);
        self.bytes_read.fetch_add(length, Ordering::Relaxed);
        let gravity = self.note(&scanned.pack.id, damage::of_scan(&scanned, length)?);
        for problem in &scanned.problems {
            self.findings.add(gravity, name, problem.to_string());
        }
        let mut missing = 0;
        let mut closed = false;
        for (frame, state) in &scanned.frames {
            match state {
                FrameState::Good => {
                    self.plain_bytes.fetch_add(u64::from(frame.plain_length), Ordering::Relaxed);
                }
                FrameState::Bad(why) | FrameState::Baseless(why) => {
                    // A base that was there and went, after a backup that broke off or half of a sweep, is
                    // missed by nobody; or it is, and the walk over trees says by whom.
                    let idle = scanned.problems.is_empty()
                        && matches!(state, FrameState::Baseless(_))
                        && self.base_went(scanned.pack.class, frame);
                    let what = format!("its frame at byte {} cannot be read: {why}", frame.offset);
                    self.findings.add(if idle { Gravity::Warning } else { gravity }, name, what);
                }
                FrameState::Closed => closed = true,
            }
            let fate = match state {
                FrameState::Good => Fate::Whole,
                FrameState::Bad(_) | FrameState::Baseless(_) => Fate::Lost,
                // Any of them may be what is wrong with the pack.
                FrameState::Closed if !scanned.problems.is_empty() => Fate::Doubtful,
                FrameState::Closed => Fate::Whole,
            };
            missing += self.confirm(name, &scanned.pack, frame, fate);
        }
        if scanned.problems.is_empty() {
            lock(&self.damage).is_sound(scanned.pack.id, scanned.verified());
        }
        self.closed.fetch_add(u64::from(closed), Ordering::Relaxed);
        if scanned.verified() && missing == 0 {
            lock(&self.verified).push(scanned.pack.id);
        }
        Ok(())
    }

    /// Says whether the base of a frame was there, as far as can be told, in packs that are gone. One that lies in a
    /// pack which is there was claimed by whoever made the frame; so was one that nobody ever stored, but that is
    /// certain only where nothing was ever deleted: a sweep takes the index runs of what it deletes with it, and
    /// afterwards a pack of differences may come late. No backup adopts a difference without its base.
    fn base_went(&self, class: BlobClass, frame: &FrameRecord) -> bool {
        let Some(base) = frame.base else { return false };
        let (mut known, mut there) = (false, false);
        let states = lock(&self.states);
        self.index.copies(class, &base, |_, copy| {
            known = true;
            there |= states.get(&copy.pack.id) != Some(&State::Missing);
        });
        (known || self.swept) && !there
    }

    /// Finds the records that say of a frame what its pack's table says; returns how many of its blobs
    /// the index does not know to be there.
    fn confirm(&self, name: &str, pack: &KnownPack, frame: &FrameRecord, fate: Fate) -> u64 {
        let (mut offset, mut missing) = (0_u32, 0);
        for (id, length) in &frame.blobs {
            let mut known = false;
            self.index.copies(pack.class, id, |number, copy| {
                if copy.pack.id == pack.id && agrees(&copy, frame, offset, *length) {
                    known = true;
                    self.confirmed.set(number);
                    self.mark(number, fate);
                }
            });
            missing += u64::from(!known);
            offset = offset.saturating_add(*length);
        }
        if missing > 0 {
            let what = format!("{missing} blobs of its frame at byte {} are not in the index", frame.offset);
            self.findings.add(Gravity::Damage, name, what);
        }
        missing
    }

    fn mark(&self, number: u64, fate: Fate) {
        if fate != Fate::Whole {
            self.bad.set(number);
        }
        if fate == Fate::Doubtful {
            self.doubtful.set(number);
        }
    }

    /// Goes through the index once more, where anything is amiss: records of packs that are gone, cut
    /// short or opaque, and records that their pack's table does not bear out. What lies in packs that are there and
    /// not as they should be is read, whatever else is: what snapshots need of it is lost, or is not.
    pub fn settle(&self, read_data: bool) -> Result<(), OpsError> {
        if self.confirmed.count() == self.index.len() {
            return self.settle_differences();
        }
        let states = lock(&self.states).clone();
        let mut scanner = PackScanner::new(self.repository)?;
        let mut strangers: BTreeMap<PackId, (BlobClass, u64, Vec<BlobId>)> = BTreeMap::new();
        let mut failure = None;
        self.index.for_each(|number, copy| {
            if failure.is_some() || self.confirmed.get(number) {
                return;
            }
            let mut holds = || {
                holds(&mut scanner, &copy).unwrap_or_else(|error| {
                    failure = Some(error);
                    Fate::Doubtful
                })
            };
            let end = u64::from(copy.record.frame_offset) + u64::from(copy.record.sealed_length);
            let fate = match states.get(&copy.pack.id) {
                Some(State::Missing) => Fate::Lost,
                Some(State::Length(length)) if end > *length => Fate::Lost,
                Some(State::Length(_) | State::Opaque) => holds(),
                Some(State::Closed) if read_data && holds() == Fate::Lost => Fate::Lost,
                Some(State::Closed) => Fate::Whole,
                None => {
                    let record = &copy.record;
                    let (_, count, blobs) =
                        strangers.entry(copy.pack.id).or_insert((record.class, 0, Vec::new()));
                    *count += 1;
                    if blobs.len() < STRANGERS_MAX {
                        blobs.push(record.id);
                    }
                    Fate::Lost
                }
            };
            self.mark(number, fate);
        });
        if let Some(error) = failure {
            return Err(error.into());
        }
        for (id, (class, count, blobs)) in strangers {
            let what =
                format!("the index names {count} blobs in it that its table of contents does not have");
            let entry = damage::entry(class, &id, Finding::Undecodable, blobs, None)?;
            let gravity = self.note(&id, Some(entry));
            self.findings.add(gravity, pack_name(&id), what);
        }
        self.settle_differences()
    }

    /// A difference is lost with the last copy of its base, wherever it lies itself.
    fn settle_differences(&self) -> Result<(), OpsError> {
        // Each round reaches what rests on what the round before has reached.
        loop {
            let before = self.bad.count();
            self.index.for_each(|number, copy| {
                let base = copy.record.base.filter(|_| !self.bad.get(number));
                if let Some(base) = base {
                    self.mark(number, self.fate_below(copy.record.class, &base, copy.record.depth));
                }
            });
            if self.repository.environment().observer.interrupted() {
                return Err(RepoError::Interrupted.into());
            }
            if self.bad.count() == before {
                return Ok(());
            }
        }
    }

    /// Says what is known of the copies of a base on which a difference of this depth may rest.
    fn fate_below(&self, class: BlobClass, base: &BlobId, depth: u8) -> Fate {
        let mut fate = Fate::Lost;
        self.index.copies(class, base, |number, copy| {
            if copy.record.depth < depth {
                fate = fate.max(self.fate_of(number));
            }
        });
        fate
    }

    fn fate_of(&self, number: u64) -> Fate {
        match (self.bad.get(number), self.doubtful.get(number)) {
            (false, _) => Fate::Whole,
            (true, true) => Fate::Doubtful,
            (true, false) => Fate::Lost,
        }
    }

    /// Says what could not be looked at.
    pub fn unchecked(&self, sentences: &mut Vec<String>) {
        let closed = self.closed.load(Ordering::Relaxed);
        if closed > 0 {
            let role = self.repository.keyring().identity.role.name();
            sentences
                .push(format!("the content of {closed} packs: a key with the role {role} cannot decrypt it"));
        }
    }

    /// Counts what was read, of logs too.
    pub fn counts(&self, logs: &Checked) -> CheckCounts {
        CheckCounts {
            packs_read: self.packs_read.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed) + logs.bytes_read,
            plain_bytes: self.plain_bytes.load(Ordering::Relaxed),
            logs_read: logs.read,
            ..CheckCounts::default()
        }
    }

    /// Notes which packs were read and found right, so that the next check can read others first.
    pub fn keep_ledger(&self, program: &str) -> Result<(), OpsError> {
        let verified = std::mem::take(&mut *lock(&self.verified));
        for packs in verified.chunks(LEDGER_PACKS) {
            let now = self.repository.environment().clock.now();
            let mut annotation = Annotation::new(AnnotationKind::Verified, now);
            annotation.packs = packs.iter().copied().collect();
            annotation.method = Some(METHOD_CONTENT.to_owned());
            annotation.outcome = Some(Outcome::Passed);
            annotation.facts = [("program".to_owned(), program.to_owned())].into();
            self.repository.annotate(&annotation, Act::Verified)?;
        }
        Ok(())
    }

    /// Returns the names of the packs that should hold a blob, or what it rests on, for people.
    pub fn culprits(&self, class: BlobClass, id: &BlobId) -> Vec<String> {
        let mut names = Vec::new();
        self.each_culprit(class, id, &mut |pack| names.push(pack_name(pack)));
        if names.is_empty() {
            names.push(format!("blob {id}, which no pack holds"));
        }
        names
    }

    /// Visits the packs for whose sake a blob cannot be had: those of its copies, and of a difference those of its base
    /// as well, if that is what is lost.
    fn each_culprit(&self, class: BlobClass, id: &BlobId, visit: &mut impl FnMut(&PackId)) {
        let mut next = vec![(*id, u8::MAX)];
        while let Some((id, below)) = next.pop() {
            self.index.copies(class, &id, |number, copy| {
                if copy.record.depth >= below || !self.bad.get(number) && below != u8::MAX {
                    return;
                }
                visit(&copy.pack.id);
                let depth = copy.record.depth;
                next.extend(copy.record.base.filter(|_| self.bad.get(number)).map(|base| (base, depth)));
            });
        }
    }

    /// Says what is known of a blob; of one that is not whole it is noted which packs that are gone should hold it.
    pub fn fate(&self, class: BlobClass, id: &BlobId, length: Option<u32>) -> Fate {
        let mut fate = Fate::Lost;
        self.index.copies(class, id, |number, copy| {
            if length.is_none_or(|length| copy.record.length == length) {
                fate = fate.max(self.fate_of(number));
            }
        });
        if fate != Fate::Whole {
            self.miss(class, id);
        }
        fate
    }

    /// Notes which packs that are gone a blob is missed in.
    pub fn miss(&self, class: BlobClass, id: &BlobId) {
        let (states, mut missed) = (lock(&self.states), lock(&self.missed));
        self.each_culprit(class, id, &mut |pack| {
            if states.get(pack) == Some(&State::Missing) {
                missed.insert(*pack);
            }
        });
    }
}

/// Says whether a pack is not as it should be, as far as this key can tell.
fn is_bad(scanned: &ScannedPack) -> bool {
    let broken = |state: &FrameState| matches!(state, FrameState::Bad(_) | FrameState::Baseless(_));
    !scanned.problems.is_empty() || scanned.frames.iter().any(|(_, state)| broken(state))
}

/// Says whether a record of the index says of a blob what its pack's table says.
pub(in crate::ops) fn agrees(copy: &Located, frame: &FrameRecord, offset: u32, length: u32) -> bool {
    let record = &copy.record;
    (record.frame_offset, record.sealed_length, record.plain_length)
        == (frame.offset, frame.sealed_length, frame.plain_length)
        && (record.offset, record.length) == (offset, length)
        && (record.counter, record.origin, record.encoding, record.depth, record.base)
            == (frame.counter, frame.origin, frame.encoding, frame.depth, frame.base)
}

/// Reads one copy of a blob, whatever its pack says of itself. What this key cannot look at is not known to be lost.
fn holds(scanner: &mut PackScanner, copy: &Located) -> Result<Fate, RepoError> {
    if scanner.reader().repository().environment().observer.interrupted() {
        return Err(RepoError::Interrupted);
    }
    match scanner.reader().read_copy(copy) {
        Ok(_) => Ok(Fate::Whole),
        Err(RepoError::Forbidden { .. }) => Ok(Fate::Doubtful),
        Err(error) if error.is_unanswered() => Err(error),
        Err(error @ RepoError::Interrupted) => Err(error),
        Err(_) => Ok(Fate::Lost),
    }
}
