//! An open repository: what it is, who may do what in it, and this client's keys.

use super::base_cache::BaseCache;
use super::blobs::FrameCache;
use super::condemned::CondemnedListing;
use super::damaged::SpoiltPacks;
use super::environment::Environment;
use super::error::RepoError;
use super::frames::OriginCache;
use super::index::{IndexSet, Located, RunContent, RunOutline, decode_run, encode_run, outline_run};
use super::keyring::Keyring;
use super::known::KnownObjects;
use super::logs::MergedLogs;
use super::memory::Closings;
use super::packs::{open_contents, pack_name};
use super::registry::Registry;
use super::session::run_content;
use crate::base::{BlobId, IndexId, PackId, RepositoryId, explain, limits};
use crate::chunker::CutParameters;
use crate::crypto::{SignedMessage, Suite, verify};
use crate::format::config::Config;
use crate::format::pack::{BlobClass, PackTail, TRAILER_BYTES};
use crate::format::trust::{Act, Role};
use crate::repo::index::KnownPack;
use crate::storage::StorageError;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

/// The first generation of names; maintenance opens later ones.
pub const FIRST_GENERATION: u32 = 1;

/// Packs from which nothing is adopted.
#[derive(Default)]
struct Barred {
    /// Not in the store, or cut short.
    lost: HashSet<PackId>,
    /// Named by condemnations.
    condemned: HashSet<PackId>,
    /// A condemnation cannot be read: it might name any.
    everything: bool,
    /// Reported as damaged, as a whole or for some blobs.
    spoilt: SpoiltPacks,
}

/// An open repository. Shared between threads.
pub struct Repository {
    environment: Environment,
    config: Config,
    registry: Registry,
    keyring: Keyring,
    index: IndexSet,
    origins: OriginCache,
    frames: FrameCache,
    base_cache: OnceLock<BaseCache>,
    known: OnceLock<Option<KnownObjects>>,
    pub(super) closings: Mutex<Closings>,
    pub(super) merged_logs: MergedLogs,
    index_loaded: AtomicBool,
    /// True once the packs that no run names were read. Held while that is done, so that whoever
    /// misses something meanwhile waits for the answer.
    unlisted_searched: Mutex<bool>,
    healing: Mutex<()>,
    barred: RwLock<Barred>,
}

impl Repository {
    pub(super) fn assemble(
        environment: Environment,
        config: Config,
        registry: Registry,
        keyring: Keyring,
    ) -> Self {
        let folder =
            environment.cache.as_ref().map(|cache| cache.join(config.repository.to_string()).join("index"));
        Self {
            environment,
            config,
            registry,
            keyring,
            index: IndexSet::new(folder),
            origins: OriginCache::default(),
            frames: FrameCache::default(),
            base_cache: OnceLock::new(),
            known: OnceLock::new(),
            closings: Mutex::default(),
            merged_logs: MergedLogs::default(),
            index_loaded: AtomicBool::new(false),
            unlisted_searched: Mutex::default(),
            healing: Mutex::default(),
            barred: RwLock::default(),
        }
    }

    /// Returns what was passed in from outside.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Returns the configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the repository's id.
    pub fn id(&self) -> &RepositoryId {
        &self.config.repository
    }

    /// Returns the suite in which everything new is sealed.
    pub fn suite(&self) -> Suite {
        self.config.suite
    }

    /// Returns the lengths of content-defined chunks.
    pub fn cut_parameters(&self) -> CutParameters {
        self.config.cut
    }

    /// Returns the length of chunks of database files.
    pub fn page_chunk_bytes(&self) -> u32 {
        self.config.page_chunk_bytes
    }

    /// Returns the registry of authority.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns this client's keys.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Returns the ciphers of origins met so far.
    pub fn origins(&self) -> &OriginCache {
        &self.origins
    }

    /// Returns the frames decoded of late.
    pub fn frame_cache(&self) -> &FrameCache {
        &self.frames
    }

    /// Returns the frames of content that this host keeps, if [`Repository::open_base_cache`] found some.
    pub fn base_cache(&self) -> Option<&BaseCache> {
        self.base_cache.get()
    }

    /// Opens the base cache, which takes at most so many bytes: from here on new content is kept in it, and
    /// content is read from it before the store is asked.
    ///
    /// # Errors
    ///
    /// A sentence that says why there is none; everything works without it.
    pub fn open_base_cache(&self, bound_bytes: u64) -> Result<&BaseCache, String> {
        if let Some(cache) = self.base_cache.get() {
            return Ok(cache);
        }
        if bound_bytes == 0 {
            return Err("its size is 0".to_owned());
        }
        let Some(folder) = &self.environment.cache else {
            return Err("there is no cache folder".to_owned());
        };
        let folder = folder.join(self.config.repository.to_string());
        let file = self.cache_file("bases");
        let cache = BaseCache::open(&folder, &file, self.id(), &self.keyring.identity.seed, bound_bytes)?;
        Ok(self.base_cache.get_or_init(|| cache))
    }

    /// Names a file of this key in the client's own folder.
    fn cache_file(&self, what: &str) -> String {
        let key = self.keyring.identity.key.to_string();
        format!("{what}-{}.sqlite", key.get(..16).unwrap_or(&key))
    }

    /// Returns the small objects that this client has opened before, where it keeps any.
    pub(super) fn known_objects(&self) -> Option<&KnownObjects> {
        let open = || {
            let folder = self.environment.cache.as_ref()?.join(self.config.repository.to_string());
            // Without it everything is fetched again, no more.
            KnownObjects::open(&folder, &self.cache_file("known"), self.id(), &self.keyring.identity.seed)
        };
        self.known.get_or_init(open).as_ref()
    }

    /// Returns what this client has opened before, where looking there is quicker than reading a few short objects anew:
    /// on a disk of this machine that takes less time than opening a database for it does.
    pub(super) fn known_for_few(&self) -> Option<&KnownObjects> {
        let is_worth = self.known.get().is_some() || self.environment.store.capabilities().distant;
        is_worth.then(|| self.known_objects()).flatten()
    }

    /// Returns the name of an index run in the store.
    pub fn index_name(&self, id: &IndexId) -> String {
        format!("index/{FIRST_GENERATION:08x}/{id}")
    }

    /// Refuses unless this key's role may write backups.
    ///
    /// # Errors
    ///
    /// [`RepoError::Forbidden`], or [`RepoError::TooNew`] where a feature allows reading only.
    pub fn require_writer(&self) -> Result<(), RepoError> {
        let role = self.keyring.identity.role;
        if !matches!(role, Role::Owner | Role::Writer) {
            return Err(RepoError::Forbidden { role: role.name(), action: "write backups".to_owned() });
        }
        self.registry.require_active(&self.keyring.identity.key)?;
        super::open::check_features(&self.config, true)?;
        self.keyring.chunker_seed().map(|_| ())
    }

    /// Returns the index; [`Repository::load_index`] must have been called.
    pub fn index(&self) -> &IndexSet {
        &self.index
    }

    /// Says whether a pack that this client may adopt from holds the blob.
    pub fn adoptable(&self, class: BlobClass, id: &BlobId) -> bool {
        let barred = self.barred.read().unwrap_or_else(PoisonError::into_inner);
        self.has_usable(class, id, u8::MAX, &barred)
    }

    /// Returns the copy of least depth that a new difference may be built on, from a pack that this client
    /// may adopt from.
    pub fn base(&self, id: &BlobId) -> Option<Located> {
        let barred = self.barred.read().unwrap_or_else(PoisonError::into_inner);
        let usable = |pack: &KnownPack| self.is_usable(pack, id, &barred);
        let copies = self.index.find_listed(BlobClass::Content, id, usable);
        let copies = copies.into_iter().filter(|copy| self.has_usable_base(copy, &barred));
        copies.min_by_key(|copy| copy.record.depth)
    }

    /// Says whether a copy of a blob can be relied on whose depth is below a bound.
    fn has_usable(&self, class: BlobClass, id: &BlobId, below: u8, barred: &Barred) -> bool {
        self.index.holds_listed(class, id, |copy| {
            copy.record.depth < below
                && self.is_usable(&copy.pack, id, barred)
                && self.has_usable_base(copy, barred)
        })
    }

    /// [CONCURRENCY-17]: says whether the bases of a copy can be relied on too, down to one without.
    fn has_usable_base(&self, copy: &Located, barred: &Barred) -> bool {
        let record = &copy.record;
        record.base.is_none_or(|base| self.has_usable(record.class, &base, record.depth, barred))
    }

    fn is_usable(&self, pack: &KnownPack, blob: &BlobId, barred: &Barred) -> bool {
        // [TRUST-17]: what is sealed now must be readable by all who read the newest epoch.
        let open = || pack.origins.iter().all(|origin| self.registry.trust().may_build_on(origin.epoch));
        let own = &self.keyring.identity.key;
        !barred.everything
            && !barred.lost.contains(&pack.id)
            && !barred.condemned.contains(&pack.id)
            && !barred.spoilt.names(&pack.id, blob)
            && open()
            && self.registry.adopts(own, &pack.signer, &pack.id)
    }

    /// From here on nothing is adopted from packs that these condemnations name ([CONCURRENCY-16]).
    pub(super) fn bar(&self, listing: &CondemnedListing) {
        let condemned = listing.found.values().map(|found| &found.condemned);
        let packs = condemned.flat_map(|condemned| {
            let sets = [&condemned.dead, &condemned.superfluous, &condemned.tombstones];
            sets.into_iter().flat_map(|set| set.iter().copied())
        });
        let mut barred = self.barred.write().unwrap_or_else(PoisonError::into_inner);
        // For good: once all is deleted the condemnation goes too, and what was seen before must not be
        // adopted then.
        barred.condemned.extend(packs);
        barred.everything = !listing.unreadable.is_empty();
    }

    /// From here on nothing is adopted that cannot be had from these packs ([CONCURRENCY-16]).
    pub(super) fn bar_spoilt(&self, spoilt: SpoiltPacks) {
        self.barred.write().unwrap_or_else(PoisonError::into_inner).spoilt = spoilt;
    }

    /// Looks which packs that the index names are gone from the store or have another length: nothing
    /// is adopted from those, so the next backup stores again what they held.
    ///
    /// The index must have been loaded before: a pack is there before a run names it.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed.
    pub fn find_lost_packs(&self) -> Result<usize, RepoError> {
        let lengths = self.pack_lengths()?;
        let lost: HashSet<PackId> = self
            .index
            .packs()
            .into_values()
            .filter(|pack| lengths.get(&pack.id) != Some(&u64::from(pack.length)))
            .map(|pack| pack.id)
            .collect();
        // What was condemned and is gone was pruned.
        let is_pruned = {
            let barred = self.barred.read().unwrap_or_else(PoisonError::into_inner);
            lost.iter().filter(|pack| barred.condemned.contains(pack)).count()
        };
        let count = lost.len() - is_pruned;
        if count > 0 {
            self.environment.observer.warn(&format!(
                "packs that are missing or cut short: {count}; what they held is stored again where a source \
                 still has it; `check` names the snapshots that are hurt"
            ));
        }
        self.barred.write().unwrap_or_else(PoisonError::into_inner).lost = lost;
        Ok(count)
    }

    /// Brings the index in step with the repository's runs. Costs one listing when the cache has all of them.
    ///
    /// Runs that are damaged or not to be believed are left out with a warning: reading falls back
    /// on the packs' own tables.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn load_index(&self) -> Result<(), RepoError> {
        if self.index_loaded.load(Ordering::Acquire) {
            return Ok(());
        }
        if let Some(cache) = &self.environment.cache {
            let folder = cache.join(self.config.repository.to_string());
            super::cache::remove_stale(&folder, self.environment.clock.now());
        }
        self.reload_index(&BTreeSet::new())?;
        self.index_loaded.store(true, Ordering::Release);
        Ok(())
    }

    /// Brings the index in step with the repository as it is now, whatever was loaded before; returns the
    /// runs that could not be used.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn refresh_index(&self) -> Result<Vec<IndexId>, RepoError> {
        self.refresh_index_without(&BTreeSet::new())
    }

    /// Does the same, and takes nothing from these runs, even where the cache has their content.
    ///
    /// # Errors
    ///
    /// As [`Repository::refresh_index`].
    pub fn refresh_index_without(&self, runs: &BTreeSet<IndexId>) -> Result<Vec<IndexId>, RepoError> {
        let mut searched = self.unlisted_searched.lock().unwrap_or_else(PoisonError::into_inner);
        let unread = self.reload_index(runs)?;
        self.index_loaded.store(true, Ordering::Release);
        *searched = false;
        Ok(unread)
    }

    /// Lists all packs with their lengths.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed.
    pub fn pack_lengths(&self) -> Result<HashMap<PackId, u64>, RepoError> {
        let mut lengths = HashMap::new();
        for object in self.environment.store.list("packs/")? {
            if let Some(id) = object.name.rsplit('/').next().and_then(|id| id.parse::<PackId>().ok()) {
                lengths.insert(id, object.length);
            }
        }
        Ok(lengths)
    }

    fn reload_index(&self, without: &BTreeSet<IndexId>) -> Result<Vec<IndexId>, RepoError> {
        let names: BTreeMap<IndexId, String> = self
            .environment
            .store
            .list("index/")?
            .into_iter()
            .filter_map(|object| Some((object.name.rsplit('/').next()?.parse().ok()?, object.name)))
            .collect();
        let runs: Vec<IndexId> = names.keys().filter(|id| !without.contains(id)).copied().collect();
        let fetch = |id| names.get(&id).map_or(Ok(None), |name| self.fetch_run(id, name));
        self.index.load(&runs, fetch)
    }

    fn fetch_run(&self, id: IndexId, name: &str) -> Result<Option<RunContent>, RepoError> {
        let bytes = match self.environment.store.get(name, limits::INDEX_RUN_BYTES_MAX) {
            Ok(bytes) => bytes,
            // Merged and removed since it was listed: the merged run was listed too, or comes next time.
            Err(StorageError::NotFound { .. }) => return Ok(None),
            Err(error @ StorageError::Transient { .. }) => return Err(error.into()),
            // One object that cannot be read must not keep anybody from all the others.
            Err(error) => return Ok(self.leave_out(&error.into())),
        };
        match self.open_run(&id, &bytes) {
            Ok(content) => Ok(Some(content)),
            // Sealed in an epoch that this key was not granted, or that does not exist.
            Err(error @ RepoError::Forbidden { .. }) => {
                let why = explain(&error);
                self.environment.observer.warn(&format!("{name} is passed over: {why}"));
                Ok(None)
            }
            Err(error @ (RepoError::Damaged { .. } | RepoError::Untrusted { .. } | RepoError::TooNew(_))) => {
                Ok(self.leave_out(&error))
            }
            Err(error) => Err(error),
        }
    }

    fn leave_out(&self, error: &RepoError) -> Option<RunContent> {
        self.environment
            .observer
            .warn(&format!("{}; its packs will be read instead where something is missing", explain(error)));
        None
    }

    /// Puts an index run over durable packs of this client and takes it into the index; returns its length.
    ///
    /// # Errors
    ///
    /// When this key may not write runs, or the store or the cache fails.
    pub fn put_run(&self, content: &RunContent) -> Result<u64, RepoError> {
        let run = encode_run(self, content)?;
        let id = IndexId::new(*blake3::hash(&run).as_bytes());
        self.environment.store.put(&self.index_name(&id), &run)?;
        self.index.add(id, content).map_err(|source| RepoError::Local {
            doing: "keep an index run in",
            path: "the cache".to_owned(),
            source,
        })?;
        Ok(run.len() as u64)
    }

    /// Reads what an index run says of itself, without its records. Who signed it is not verified.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is damaged, or its epoch was not granted to this key.
    pub fn outline_run(&self, name: &str, length: u64) -> Result<RunOutline, RepoError> {
        outline_run(self, name, length)
    }

    /// Opens an index run, strictly: name, signature, seals and every record are checked.
    ///
    /// # Errors
    ///
    /// When any of it does not hold, or its epoch was not granted to this key.
    pub fn open_run(&self, id: &IndexId, bytes: &[u8]) -> Result<RunContent, RepoError> {
        decode_run(self, id, bytes, |key| self.registry.public_key(key, Act::IndexRun))
    }

    /// Opens a structured object of any kind whose payload is sealed: name, kind, signature and seal
    /// are checked; whether its signer may say such a thing is for the caller to ask.
    ///
    /// # Errors
    ///
    /// When any of it does not hold, or its epoch was not granted to this key. What nobody can open is
    /// [`RepoError::Damaged`].
    pub fn open_object(
        &self,
        name: &str,
        id: crate::base::ObjectId,
        kind: crate::format::ObjectKind,
        bytes: &[u8],
    ) -> Result<(crate::base::KeyId, Vec<u8>), RepoError> {
        let signer = |key: &_| self.registry.any_key(key);
        super::sealed::open(name, id, kind, &self.config.repository, &self.keyring, bytes, signer)
            .map(|opened| (opened.signer, opened.payload))
            .map_err(|error| self.judge(name, bytes, error))
    }

    /// Fetches again what a damaged cache could not answer; false when there was nothing to heal.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn heal_index(&self) -> Result<bool, RepoError> {
        // Whoever comes while another thread heals waits, and finds what it was looking for.
        let _one = self.healing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.index.damaged() {
            return Ok(false);
        }
        self.index.drop_damaged();
        self.reload_index(&BTreeSet::new())?;
        Ok(true)
    }

    /// Reads the tables of contents of packs that no index run names; once, and only when something
    /// could not be found. False when there were none.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn index_unlisted_packs(&self) -> Result<bool, RepoError> {
        let mut searched = self.unlisted_searched.lock().unwrap_or_else(PoisonError::into_inner);
        if *searched {
            return Ok(false);
        }
        let known: HashSet<PackId> = self.index.packs().into_keys().collect();
        let mut packs = Vec::new();
        for object in self.environment.store.list("packs/")? {
            let Some(id) = object.name.rsplit('/').next().and_then(|id| id.parse::<PackId>().ok()) else {
                continue;
            };
            if known.contains(&id) {
                continue;
            }
            match self.describe_pack(&id, object.length) {
                Ok(described) => packs.push(described),
                Err(
                    error @ (RepoError::Storage(StorageError::Transient { .. }) | RepoError::Interrupted),
                ) => {
                    return Err(error);
                }
                Err(error) => self.environment.observer.warn(&explain(&error)),
            }
        }
        if packs.is_empty() {
            *searched = true;
            return Ok(false);
        }
        let content = run_content(&packs)?;
        self.index.add_unlisted(&content).map_err(|source| RepoError::Local {
            doing: "index",
            path: "packs".to_owned(),
            source,
        })?;
        *searched = true;
        Ok(true)
    }

    /// Reads what a pack says of itself, without its frames: signer and table of contents.
    ///
    /// The signature covers the whole pack and is not checked here; blobs are identified when they
    /// are read.
    ///
    /// # Errors
    ///
    /// When the pack's tail is damaged or its signer may not write packs.
    pub fn describe_pack(
        &self,
        id: &PackId,
        length: u64,
    ) -> Result<(Arc<KnownPack>, Vec<crate::format::pack::FrameRecord>), RepoError> {
        let name = pack_name(id);
        let damaged = || RepoError::damaged(name.as_str());
        let store = &self.environment.store;
        let short = || damaged()(crate::format::FormatError::Truncated);
        let mut trailer = Vec::new();
        let trailer_at = length.checked_sub(TRAILER_BYTES as u64).ok_or_else(short)?;
        store.get_range(&name, trailer_at, TRAILER_BYTES, &mut trailer)?;
        let tail_length = PackTail::length(&trailer, length).map_err(damaged())?;
        let mut tail = Vec::new();
        let tail_at = length.checked_sub(tail_length).ok_or_else(short)?;
        store.get_range(&name, tail_at, usize::try_from(tail_length).map_err(|_| short())?, &mut tail)?;
        let tail = PackTail::parse(&tail, length).map_err(damaged())?;
        let signer = tail.trailer.signer;
        if self.registry.public_key(&signer, Act::MetadataPack).is_none() {
            return Err(RepoError::Untrusted {
                object: name,
                why: "its signer may not write packs".to_owned(),
            });
        }
        let contents = open_contents(&name, self.id(), &self.keyring, &tail.trailer, tail.contents_sealed)?;
        let known = KnownPack {
            id: *id,
            length: u32::try_from(length).map_err(|_| short())?,
            class: tail.trailer.class,
            signer,
            origins: tail.origins.into(),
        };
        Ok((Arc::new(known), contents.frames))
    }

    /// Checks a signature made by a key of the registry over bytes of a kind without an envelope.
    ///
    /// # Errors
    ///
    /// When the key is unknown, may not do this, or the signature does not hold.
    pub fn verify_signature(
        &self,
        object: &str,
        act: Act,
        kind: u8,
        signer: &crate::base::KeyId,
        signed: &[u8],
        signature: &[u8; 64],
    ) -> Result<(), RepoError> {
        let untrusted = |why: &str| RepoError::Untrusted { object: object.to_owned(), why: why.to_owned() };
        let public =
            self.registry.public_key(signer, act).ok_or_else(|| untrusted("its signer may not sign it"))?;
        verify(&public, &SignedMessage::new(self.id(), kind, signed), signature)
            .map_err(|_| untrusted("its signature does not hold"))
    }
}

impl From<std::io::Error> for RepoError {
    fn from(source: std::io::Error) -> Self {
        Self::Local { doing: "use", path: "the cache".to_owned(), source }
    }
}
