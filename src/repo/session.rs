//! A writer session: blobs in, packs and index runs out, at last the snapshot that commits them.
//!
//! Write order, and what a crash after each step leaves:
//! 1. packs, each durable before the next step counts it: unreferenced packs;
//! 2. index runs over durable packs only: blobs that the next backup finds and adopts; before each, where the session
//!    vouches for its packs, an annotation that does so: it says nothing to anybody;
//! 3. the snapshot: the backup is there, whole.
//!
//! A session that is broken off writes a run over the packs that are durable, if it still can.
//!
//! Any number of threads hand in frames at once. Memory is bounded: one pack being filled a class,
//! [`PACKS_IN_FLIGHT`] being stored, and the records of at most [`RUN_RECORDS`] blobs plus one pack's.

use super::error::RepoError;
use super::frames::{Base, FrameEncoder, SealedFrame, SessionOrigin};
use super::index::{RunContent, encode_run};
use super::packs::{FinishedPack, PackBuilder, pack_name};
use super::repository::Repository;
use crate::base::{BlobId, IndexId};
use crate::format::index::IndexRecord;
use crate::format::pack::BlobClass;
use crate::format::trust::Act;
use crate::repo::index::KnownPack;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Records that make an index run worth writing while the session goes on.
const RUN_RECORDS: usize = 1 << 17;
/// Bytes of packs that do so too, or the part [`RUN_PART`] of all that the session has stored, whichever is more:
/// of what a session that is killed has stored no more than that has to be stored again, and a long one
/// writes few runs.
const RUN_BYTES: u64 = 256 << 20;
/// See [`RUN_BYTES`].
const RUN_PART: u64 = 8;
/// Packs that may wait for the store at once.
const PACKS_IN_FLIGHT: usize = 1;
/// Threads that store packs: one syncs while the other writes.
const UPLOADERS: usize = 2;
/// Shards of the set of claimed blobs, so that threads seldom wait for each other.
const SHARDS: usize = 64;

/// What a session has stored.
#[derive(Debug, Default)]
pub struct SessionCounts {
    /// Blobs that were new, by class: content, metadata.
    pub new_blobs: [AtomicU64; 2],
    /// Their plain bytes.
    pub new_bytes: [AtomicU64; 2],
    /// Their sealed bytes.
    pub sealed_bytes: [AtomicU64; 2],
    /// Blobs of content that were stored as differences.
    pub differences: AtomicU64,
    /// How long those who made packs waited until the store took them, added up.
    pub waited_nanoseconds: AtomicU64,
    /// Bytes of packs and index runs put into the store.
    pub stored_bytes: AtomicU64,
}

struct Shared {
    repository: Arc<Repository>,
    content: SessionOrigin,
    metadata: SessionOrigin,
    packs: [Mutex<Option<PackBuilder>>; 2],
    claimed: [Vec<Mutex<HashSet<BlobId>>>; 2],
    pending: Mutex<Vec<(Arc<KnownPack>, Vec<crate::format::pack::FrameRecord>)>>,
    buffers: Mutex<Vec<Vec<u8>>>,
    failure: Mutex<Option<RepoError>>,
    counts: SessionCounts,
    /// How packs are attested before a run names them, if they are.
    attests: Option<&'static str>,
}

/// A writer session. Dropping it without [`WriteSession::finish`] leaves packs behind to which no snapshot refers, and
/// an index run by which the next session finds what they hold.
pub struct WriteSession {
    shared: Arc<Shared>,
    queue: Option<Sender<FinishedPack>>,
    uploaders: Vec<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const fn class_number(class: BlobClass) -> usize {
    match class {
        BlobClass::Content => 0,
        BlobClass::Metadata => 1,
    }
}

impl Shared {
    fn shard(&self, class: BlobClass, id: &BlobId) -> &Mutex<HashSet<BlobId>> {
        let [first, ..] = *id.as_bytes();
        &self.claimed[class_number(class)][usize::from(first) % SHARDS]
    }

    fn origin(&self, class: BlobClass) -> &SessionOrigin {
        match class {
            BlobClass::Content => &self.content,
            BlobClass::Metadata => &self.metadata,
        }
    }

    fn fail(&self, error: RepoError) {
        lock(&self.failure).get_or_insert(error);
    }

    fn failed(&self) -> bool {
        lock(&self.failure).is_some()
    }

    fn store(&self, pack: FinishedPack) -> Result<(), RepoError> {
        let environment = self.repository.environment();
        environment.store.put(&pack_name(&pack.id), &pack.bytes)?;
        self.counts.stored_bytes.fetch_add(pack.bytes.len() as u64, Ordering::Relaxed);
        let known = Arc::new(KnownPack {
            id: pack.id,
            length: super::frames::length_u32(pack.bytes.len())?,
            class: pack.class,
            signer: self.repository.keyring().identity.key,
            origins: pack.origins.into(),
        });
        let mut pending = lock(&self.pending);
        pending.push((known, pack.frames));
        lock(&self.buffers).push(pack.bytes);
        let records: usize =
            pending.iter().flat_map(|(_, frames)| frames).map(|frame| frame.blobs.len()).sum();
        let bytes: u64 = pending.iter().map(|(pack, _)| u64::from(pack.length)).sum();
        let many = RUN_BYTES.max(self.counts.stored_bytes.load(Ordering::Relaxed) / RUN_PART);
        let due = (records >= RUN_RECORDS || bytes >= many).then(|| std::mem::take(&mut *pending));
        drop(pending);
        due.map_or(Ok(()), |packs| self.write_run(packs))
    }

    /// Writes an index run over durable packs; only then are their blobs no longer counted as claimed,
    /// since the index now knows them.
    fn write_run(
        &self,
        packs: Vec<(Arc<KnownPack>, Vec<crate::format::pack::FrameRecord>)>,
    ) -> Result<(), RepoError> {
        let content = run_content(&packs)?;
        if let Some(method) = self.attests {
            // [CONCURRENCY-57]: what a run names without that would be one more copy that nobody may do without.
            self.repository.attest(content.packs.iter().map(|pack| pack.id), method)?;
        }
        let run = encode_run(&self.repository, &content)?;
        let id = IndexId::new(*blake3::hash(&run).as_bytes());
        let environment = self.repository.environment();
        environment.store.put(&self.repository.index_name(&id), &run)?;
        self.counts.stored_bytes.fetch_add(run.len() as u64, Ordering::Relaxed);
        self.repository.index().add(id, &content).map_err(|source| RepoError::Local {
            doing: "keep an index run in",
            path: "the cache".to_owned(),
            source,
        })?;
        for record in &content.records {
            lock(self.shard(record.class, &record.id)).remove(&record.id);
        }
        Ok(())
    }
}

/// Makes the content of an index run from packs and their frames.
pub(super) fn run_content(
    packs: &[(Arc<KnownPack>, Vec<crate::format::pack::FrameRecord>)],
) -> Result<RunContent, RepoError> {
    let mut content = RunContent { records: Vec::new(), packs: Vec::new() };
    for (number, (pack, frames)) in packs.iter().enumerate() {
        content.packs.push(pack.clone());
        for frame in frames {
            let mut offset = 0;
            for (id, length) in &frame.blobs {
                content.records.push(IndexRecord {
                    id: *id,
                    pack: super::frames::length_u32(number)?,
                    frame_offset: frame.offset,
                    sealed_length: frame.sealed_length,
                    plain_length: frame.plain_length,
                    offset,
                    length: *length,
                    counter: frame.counter,
                    base: frame.base,
                    origin: frame.origin,
                    encoding: frame.encoding,
                    class: pack.class,
                    depth: frame.depth,
                });
                offset += length;
            }
        }
    }
    content.records.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
    Ok(content)
}

fn upload(shared: &Shared, queue: &Receiver<FinishedPack>) {
    for pack in queue {
        if shared.failed() {
            continue;
        }
        if let Err(error) = shared.store(pack) {
            shared.fail(error);
        }
    }
}

impl WriteSession {
    /// Begins a session: loads the index and looks which packs are still there and whole.
    ///
    /// # Errors
    ///
    /// When this key's role may not write, or threads cannot be had.
    pub fn begin(repository: &Arc<Repository>) -> Result<Self, RepoError> {
        Self::begin_with(repository, None)
    }

    /// Begins a session of an owner that vouches for what it stores: it has read every blob and compared it with its
    /// id ([CONCURRENCY-57]). `method` says for people how.
    ///
    /// # Errors
    ///
    /// As [`WriteSession::begin`]; when this key's role may not attest.
    pub fn begin_attesting(repository: &Arc<Repository>, method: &'static str) -> Result<Self, RepoError> {
        repository.registry().may_sign(&repository.keyring().identity.key, Act::Attested)?;
        Self::begin_with(repository, Some(method))
    }

    fn begin_with(repository: &Arc<Repository>, attests: Option<&'static str>) -> Result<Self, RepoError> {
        repository.require_writer()?;
        repository.load_index()?;
        repository.find_lost_packs()?;
        repository.find_spoilt_packs()?;
        let environment = repository.environment();
        environment.store.keep_reserve();
        let draw = |class| {
            SessionOrigin::draw(
                class,
                repository.suite(),
                repository.id(),
                repository.keyring(),
                environment.entropy.as_ref(),
            )
        };
        let (content, metadata) = (draw(BlobClass::Content)?, draw(BlobClass::Metadata)?);
        repository.origins().remember(&content);
        let shards = || (0..SHARDS).map(|_| Mutex::default()).collect();
        let shared = Arc::new(Shared {
            repository: repository.clone(),
            content,
            metadata,
            packs: [Mutex::new(None), Mutex::new(None)],
            claimed: [shards(), shards()],
            pending: Mutex::default(),
            buffers: Mutex::default(),
            failure: Mutex::new(None),
            counts: SessionCounts::default(),
            attests,
        });
        let (queue, packs) = bounded(PACKS_IN_FLIGHT);
        let mut uploaders = Vec::with_capacity(UPLOADERS);
        for _ in 0..UPLOADERS {
            let (shared, packs) = (shared.clone(), packs.clone());
            let thread = std::thread::Builder::new()
                .name("chronolith-store".to_owned())
                .spawn(move || upload(&shared, &packs))
                .map_err(|source| RepoError::Local {
                    doing: "start a thread for",
                    path: "storing packs".to_owned(),
                    source,
                })?;
            uploaders.push(thread);
        }
        Ok(Self { shared, queue: Some(queue), uploaders })
    }

    /// Returns the repository.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.shared.repository
    }

    /// Returns what has been stored so far.
    pub fn counts(&self) -> &SessionCounts {
        &self.shared.counts
    }

    /// Claims a blob: true means that nobody has it and the caller must now store it.
    ///
    /// A blob counts as known when a pack that this client may adopt from holds it, or when this
    /// session stores it already.
    pub fn claim(&self, class: BlobClass, id: &BlobId) -> bool {
        let mut shard = lock(self.shared.shard(class, id));
        if shard.contains(id) || self.shared.repository.adoptable(class, id) {
            return false;
        }
        shard.insert(*id)
    }

    /// Says whether a blob is known already, without claiming it.
    pub fn knows(&self, class: BlobClass, id: &BlobId) -> bool {
        lock(self.shared.shard(class, id)).contains(id) || self.shared.repository.adoptable(class, id)
    }

    /// Compresses, seals, verifies and stores the claimed blobs whose bytes follow each other in `plain`.
    ///
    /// # Errors
    ///
    /// When sealing or an earlier upload failed.
    pub fn store_frame(
        &self,
        encoder: &mut FrameEncoder,
        class: BlobClass,
        plain: &[u8],
        blobs: Vec<(BlobId, u32)>,
    ) -> Result<(), RepoError> {
        let repository = &self.shared.repository;
        let ids = repository.keyring().id_key(class)?;
        let count = blobs.len() as u64;
        let frame = encoder.seal(self.shared.origin(class), repository.id(), ids, plain, blobs)?;
        self.count(class, count, plain.len(), frame.bytes.len());
        self.keep(class, &frame);
        self.push(class, frame)
    }

    /// Keeps new content where the next backup may find its bases.
    fn keep(&self, class: BlobClass, frame: &SealedFrame<'_>) {
        if let (BlobClass::Content, Some(cache)) = (class, self.shared.repository.base_cache()) {
            cache.put(&self.shared.content.origin.commitment, frame.record.counter, frame.encoded);
        }
    }

    /// Stores one claimed blob of content as a difference; says no, and stores nothing, where that takes
    /// more than `encoded_max` bytes.
    ///
    /// The base comes from [`Repository::base`], which makes sure that every reader finds it.
    ///
    /// # Errors
    ///
    /// When sealing or an earlier upload failed.
    pub fn store_difference(
        &self,
        encoder: &mut FrameEncoder,
        plain: &[u8],
        blob: BlobId,
        base: &Base<'_>,
        encoded_max: usize,
    ) -> Result<bool, RepoError> {
        let class = BlobClass::Content;
        let repository = &self.shared.repository;
        let ids = repository.keyring().id_key(class)?;
        let origin = self.shared.origin(class);
        let sealed = encoder.seal_difference(origin, repository.id(), ids, plain, blob, base, encoded_max)?;
        let Some(frame) = sealed else { return Ok(false) };
        self.count(class, 1, plain.len(), frame.bytes.len());
        self.shared.counts.differences.fetch_add(1, Ordering::Relaxed);
        self.keep(class, &frame);
        self.push(class, frame)?;
        Ok(true)
    }

    fn count(&self, class: BlobClass, blobs: u64, plain: usize, sealed: usize) {
        let (counts, number) = (&self.shared.counts, class_number(class));
        counts.new_blobs[number].fetch_add(blobs, Ordering::Relaxed);
        counts.new_bytes[number].fetch_add(plain as u64, Ordering::Relaxed);
        counts.sealed_bytes[number].fetch_add(sealed as u64, Ordering::Relaxed);
    }

    fn push(&self, class: BlobClass, frame: SealedFrame<'_>) -> Result<(), RepoError> {
        let mut slot = lock(&self.shared.packs[class_number(class)]);
        let full = match slot.as_ref() {
            Some(pack) if pack.is_full_for(frame.bytes.len()) => slot.take(),
            _ => None,
        };
        let pack = slot.get_or_insert_with(|| {
            let buffer = lock(&self.shared.buffers).pop().unwrap_or_default();
            let keyring = self.shared.repository.keyring();
            PackBuilder::new(self.shared.origin(class), class, keyring, buffer)
        });
        pack.push(frame)?;
        drop(slot);
        full.map_or(Ok(()), |pack| self.dispatch(pack))
    }

    fn dispatch(&self, pack: PackBuilder) -> Result<(), RepoError> {
        self.check()?;
        let repository = &self.shared.repository;
        let entropy = repository.environment().entropy.as_ref();
        let finished = pack.finish(repository.suite(), repository.id(), repository.keyring(), entropy)?;
        let clock = &repository.environment().clock;
        let began = clock.now().nanoseconds();
        let sent = self.queue.as_ref().map(|queue| queue.send(finished));
        let waited = u64::try_from(clock.now().nanoseconds().saturating_sub(began)).unwrap_or(0);
        self.shared.counts.waited_nanoseconds.fetch_add(waited, Ordering::Relaxed);
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(self.take_failure()),
        }
    }

    fn take_failure(&self) -> RepoError {
        lock(&self.shared.failure).take().unwrap_or(RepoError::Interrupted)
    }

    /// Returns the error of an earlier upload, if there was one.
    ///
    /// # Errors
    ///
    /// That error, once.
    pub fn check(&self) -> Result<(), RepoError> {
        let mut failure = lock(&self.shared.failure);
        match failure.take() {
            Some(error) => {
                // Later calls must fail too: nothing may be committed after a lost pack.
                *failure = Some(RepoError::Interrupted);
                Err(error)
            }
            None => Ok(()),
        }
    }

    /// Stores what is still in memory; afterwards everything handed in is durable and indexed.
    ///
    /// # Errors
    ///
    /// When anything could not be stored; then no snapshot may be committed.
    pub fn finish(mut self) -> Result<Finished, RepoError> {
        for slot in &self.shared.packs {
            let pack = lock(slot).take();
            if let Some(pack) = pack.filter(|pack| !pack.is_empty()) {
                self.dispatch(pack)?;
            }
        }
        self.join();
        self.check()?;
        let pending = std::mem::take(&mut *lock(&self.shared.pending));
        if !pending.is_empty() {
            self.shared.write_run(pending)?;
        }
        Ok(Finished { shared: self.shared.clone() })
    }

    fn join(&mut self) {
        drop(self.queue.take());
        for uploader in self.uploaders.drain(..) {
            if uploader.join().is_err() {
                self.shared.fail(RepoError::Internal {
                    doing: "storing packs",
                    why: "a thread ended unexpectedly".to_owned(),
                });
            }
        }
    }
}

impl Drop for WriteSession {
    fn drop(&mut self) {
        if self.queue.is_some() {
            self.shared.fail(RepoError::Interrupted);
            self.join();
            let pending = std::mem::take(&mut *lock(&self.shared.pending));
            if !pending.is_empty() {
                // Whoever broke off has his error already; without the run the next one stores this again.
                let _ = self.shared.write_run(pending);
            }
        }
    }
}

/// A session whose packs and index are durable: a snapshot may now refer to them.
pub struct Finished {
    shared: Arc<Shared>,
}

impl Finished {
    /// Returns what the session stored.
    pub fn counts(&self) -> &SessionCounts {
        &self.shared.counts
    }

    /// Returns the repository.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.shared.repository
    }
}
