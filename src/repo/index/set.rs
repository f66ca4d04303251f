//! All index segments together: what the repository's runs say, ready to be looked up.
//!
//! Segments live in the cache folder and are shared by processes. What is missing there is
//! fetched from the repository, what is damaged is fetched again, what no run stands behind any
//! longer is dropped, and many small segments are merged into few large ones as log-structured
//! trees do. Where no folder can be written, segments live in memory.

use super::numbered::NumberedIndex;
use super::segment::{KnownPack, Located, Segment, SegmentTables, SegmentWriter};
use crate::base::{BlobId, IndexId, KeyId, PackId};
use crate::format::index::IndexRecord;
use crate::format::pack::BlobClass;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Segments of about the same size that may stand side by side before they are merged.
const TIER_WIDTH: usize = 4;
/// Records below which all segments count as the smallest tier.
const TIER_FLOOR: usize = 4096;

/// Stands in place of a run for what was read from the tables of packs that no run names.
const UNLISTED: IndexId = IndexId::new([0; 32]);

/// One index run, opened and verified: records in order of id, and what their numbers mean.
pub struct RunContent {
    /// Records sorted by id and class.
    pub records: Vec<IndexRecord>,
    /// The packs in the order of their numbers.
    pub packs: Vec<Arc<KnownPack>>,
}

/// The segments that answer look-ups.
pub struct IndexSet {
    segments: RwLock<Arc<Vec<Arc<Segment>>>>,
    folder: Option<PathBuf>,
    /// Held by whoever replaces segments; looking up and adding go on meanwhile.
    loading: Mutex<()>,
    /// The runs that this process has written, which a listing made before does not show.
    added: Mutex<HashSet<IndexId>>,
}

fn segment_name(covered: &[IndexId]) -> String {
    let mut covered = covered.to_vec();
    covered.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    covered.iter().for_each(|id| {
        hasher.update(id.as_bytes());
    });
    hasher.finalize().to_hex().as_str()[..32].to_owned()
}

/// Says whether these segments hold all runs of another one already.
fn covered_by(segments: &[Arc<Segment>], segment: &Segment) -> bool {
    segment.covered() != [UNLISTED]
        && segment.covered().iter().all(|run| segments.iter().any(|other| other.covered().contains(run)))
}

fn tier(segment: &Segment) -> u32 {
    (segment.len() / TIER_FLOOR + 1).ilog2() / 2
}

/// Writes a segment of some runs' content, in the folder where that works, else in memory.
fn write_run(folder: Option<&Path>, id: IndexId, run: &RunContent) -> io::Result<Segment> {
    let mut bases: Vec<BlobId> = run.records.iter().filter_map(|record| record.base).collect();
    bases.sort_unstable();
    bases.dedup();
    let tables = SegmentTables { covered: vec![id], packs: run.packs.clone(), bases };
    let write = |folder: Option<&Path>| {
        let mut writer = SegmentWriter::new(folder, &segment_name(&[id]), &tables, run.records.len())?;
        run.records.iter().try_for_each(|record| writer.push(record))?;
        writer.finish()
    };
    match folder.map(|folder| write(Some(folder))) {
        Some(Ok(segment)) => Ok(segment),
        Some(Err(_)) | None => write(None),
    }
}

/// Merges segments record by record; memory is their tables, not their records.
///
/// # Errors
///
/// What the file system says; a damaged block shows as invalid data.
fn merge(folder: &Path, inputs: &[Arc<Segment>]) -> io::Result<Segment> {
    let damaged = |_| io::Error::new(io::ErrorKind::InvalidData, "a segment is damaged");
    let mut tables = SegmentTables::default();
    let mut pack_numbers: HashMap<(PackId, KeyId), u32> = HashMap::new();
    for segment in inputs {
        tables.covered.extend_from_slice(segment.covered());
        for pack in segment.packs() {
            pack_numbers.entry((pack.id, pack.signer)).or_insert_with(|| {
                tables.packs.push(pack.clone());
                (tables.packs.len() - 1) as u32
            });
        }
        tables.bases.extend_from_slice(segment.bases());
    }
    tables.bases.sort_unstable();
    tables.bases.dedup();
    let records = inputs.iter().map(|segment| segment.len()).sum();
    let mut writer = SegmentWriter::new(Some(folder), &segment_name(&tables.covered), &tables, records)?;
    let mut heap = BinaryHeap::new();
    for (number, segment) in inputs.iter().enumerate() {
        if segment.len() > 0 {
            heap.push(Reverse((segment.record(0).map_err(damaged)?.record.id, number, 0)));
        }
    }
    while let Some(Reverse((_, number, at))) = heap.pop() {
        let Some(segment) = inputs.get(number) else { continue };
        let located = segment.record(at).map_err(damaged)?;
        let mut record = located.record;
        record.pack = pack_numbers.get(&(located.pack.id, located.pack.signer)).copied().unwrap_or(u32::MAX);
        writer.push(&record)?;
        if at + 1 < segment.len() {
            heap.push(Reverse((segment.record(at + 1).map_err(damaged)?.record.id, number, at + 1)));
        }
    }
    writer.finish()
}

impl IndexSet {
    /// Makes an empty set whose segments live in `folder`.
    pub fn new(folder: Option<PathBuf>) -> Self {
        let folder = folder.filter(|folder| std::fs::create_dir_all(folder).is_ok());
        Self { segments: RwLock::default(), folder, loading: Mutex::default(), added: Mutex::default() }
    }

    fn current(&self) -> Arc<Vec<Arc<Segment>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts segments in the place of those that were there `before`; what was added since then stays.
    fn replace(&self, before: &[Arc<Segment>], mut segments: Vec<Arc<Segment>>) {
        let mut held = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        for segment in held.iter() {
            let new = !before.iter().any(|other| Arc::ptr_eq(other, segment));
            if new && !covered_by(&segments, segment) {
                segments.push(segment.clone());
            }
        }
        *held = Arc::new(segments);
    }

    /// Adds a segment; several threads may do so at once, and none is lost.
    fn push(&self, segment: Arc<Segment>) {
        let mut held = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        // Its file may have been found by whoever loaded meanwhile.
        if !covered_by(&held, &segment) {
            let mut segments = held.as_ref().clone();
            segments.push(segment);
            *held = Arc::new(segments);
        }
    }

    /// Makes the set hold the given runs: keeps what the cache has of them, fetches the rest. What this
    /// process has added itself stays, whether the given runs were listed before or after that.
    ///
    /// `fetch` returns `None` for a run that is gone, damaged or not to be believed; such a run is
    /// left out and named in the result.
    ///
    /// # Errors
    ///
    /// What `fetch` says of the store itself.
    pub fn load<E: From<io::Error>>(
        &self,
        runs: &[IndexId],
        mut fetch: impl FnMut(IndexId) -> Result<Option<RunContent>, E>,
    ) -> Result<Vec<IndexId>, E> {
        let _one = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current();
        let mut wanted = self.added.lock().unwrap_or_else(PoisonError::into_inner).clone();
        wanted.extend(runs);
        let (unlisted, mut candidates): (Vec<_>, Vec<_>) =
            before.iter().cloned().partition(|segment| segment.covered() == [UNLISTED]);
        let known: HashSet<PathBuf> =
            candidates.iter().filter_map(|segment| segment.path().map(Path::to_owned)).collect();
        for path in self.cached_files() {
            if known.contains(&path) {
                continue;
            }
            match Segment::open(&path) {
                Some(segment) => candidates.push(Arc::new(segment)),
                None => drop(std::fs::remove_file(&path)),
            }
        }
        candidates.sort_by_key(|segment| Reverse(segment.covered().len()));
        let mut covered = HashSet::new();
        let mut kept = Vec::new();
        for segment in candidates {
            let useful = !segment.damaged()
                && segment.covered().iter().all(|run| wanted.contains(run) && !covered.contains(run));
            if useful {
                covered.extend(segment.covered().iter().copied());
                kept.push(segment);
            } else if let Some(path) = segment.path() {
                drop(std::fs::remove_file(path));
            }
        }
        let mut missing = Vec::new();
        for run in runs.iter().filter(|run| !covered.contains(run)) {
            match fetch(*run)? {
                Some(content) => {
                    kept.push(Arc::new(write_run(self.folder.as_deref(), *run, &content)?));
                }
                None => missing.push(*run),
            }
        }
        // What no run stands behind is never merged with what one does.
        let mut segments = self.compacted(kept);
        segments.extend(unlisted);
        self.replace(&before, segments);
        Ok(missing)
    }

    fn cached_files(&self) -> Vec<PathBuf> {
        let Some(entries) = self.folder.as_ref().and_then(|folder| std::fs::read_dir(folder).ok()) else {
            return Vec::new();
        };
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
            .collect();
        files.sort();
        files
    }

    /// Merges tiers that have grown too wide. A merge that fails costs look-ups time, no more.
    fn compacted(&self, mut segments: Vec<Arc<Segment>>) -> Vec<Arc<Segment>> {
        let Some(folder) = self.folder.as_deref() else { return segments };
        loop {
            let mut tiers: HashMap<u32, usize> = HashMap::new();
            segments.iter().for_each(|segment| *tiers.entry(tier(segment)).or_default() += 1);
            let Some(wide) = tiers.iter().filter(|(_, count)| **count >= TIER_WIDTH).map(|(t, _)| *t).min()
            else {
                return segments;
            };
            let (inputs, rest): (Vec<_>, Vec<_>) = segments.into_iter().partition(|s| tier(s) <= wide);
            match merge(folder, &inputs) {
                Ok(merged) => {
                    for path in inputs.iter().filter_map(|segment| segment.path()) {
                        drop(std::fs::remove_file(path));
                    }
                    segments = rest;
                    segments.push(Arc::new(merged));
                }
                Err(_) => return rest.into_iter().chain(inputs).collect(),
            }
        }
    }

    /// Adds a run that this process has just written to the repository.
    ///
    /// # Errors
    ///
    /// A run whose records are out of order.
    pub fn add(&self, id: IndexId, run: &RunContent) -> io::Result<()> {
        // First, so that no loading that finds its file takes it for one of the past.
        self.added.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        let segment = Arc::new(write_run(self.folder.as_deref(), id, run)?);
        self.push(segment);
        Ok(())
    }

    /// Adds records that no run of the repository holds (read from packs), for this process alone.
    ///
    /// # Errors
    ///
    /// Records out of order.
    pub fn add_unlisted(&self, run: &RunContent) -> io::Result<()> {
        let segment = Arc::new(write_run(None, UNLISTED, run)?);
        self.push(segment);
        Ok(())
    }

    /// Returns every copy of a blob that `accept` takes, up to the first where `first_only` is set.
    ///
    /// A damaged segment is passed over and remembered ([`IndexSet::damaged`]).
    pub fn find(
        &self,
        class: BlobClass,
        id: &BlobId,
        first_only: bool,
        accept: impl Fn(&KnownPack) -> bool,
    ) -> Vec<Located> {
        let mut copies = Vec::new();
        for segment in self.current().iter() {
            // A damaged block answers nothing; the segment is marked and healed by who needs it.
            let _ = segment.find(class, id, |located| {
                if accept(&located.pack) {
                    copies.push(located);
                }
                !first_only || copies.is_empty()
            });
            if first_only && !copies.is_empty() {
                break;
            }
        }
        copies
    }

    /// Returns every acceptable copy of a blob that a run of the repository names, without those that
    /// were only read from the tables of packs.
    pub fn find_listed(
        &self,
        class: BlobClass,
        id: &BlobId,
        accept: impl Fn(&KnownPack) -> bool,
    ) -> Vec<Located> {
        let mut copies = Vec::new();
        for segment in self.current().iter().filter(|segment| segment.covered() != [UNLISTED]) {
            // A damaged block answers nothing: what it knows is stored again.
            let _ = segment.find(class, id, |located| {
                if accept(&located.pack) {
                    copies.push(located);
                }
                true
            });
        }
        copies
    }

    /// Says whether a run of the repository names an acceptable copy of a blob.
    ///
    /// What was only read from the tables of packs does not count: their signatures were not verified.
    pub fn holds_listed(&self, class: BlobClass, id: &BlobId, accept: impl Fn(&Located) -> bool) -> bool {
        let mut holds = false;
        for segment in self.current().iter().filter(|segment| segment.covered() != [UNLISTED]) {
            // A damaged block answers nothing: what it knows is stored again.
            let _ = segment.find(class, id, |located| {
                holds = accept(&located);
                !holds
            });
            if holds {
                break;
            }
        }
        holds
    }

    /// Says whether a segment turned out damaged since it was opened.
    pub fn damaged(&self) -> bool {
        self.current().iter().any(|segment| segment.damaged())
    }

    /// Drops damaged segments so that the next [`IndexSet::load`] fetches their runs again.
    pub fn drop_damaged(&self) {
        let _one = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current();
        let (bad, good): (Vec<_>, Vec<_>) = before.iter().cloned().partition(|segment| segment.damaged());
        for path in bad.iter().filter_map(|segment| segment.path()) {
            drop(std::fs::remove_file(path));
        }
        self.replace(&before, good);
    }

    /// Returns the records as they stand now, numbered.
    pub fn numbered(&self) -> NumberedIndex {
        NumberedIndex::new(self.current())
    }

    /// Calls `visit` with every record of every segment.
    pub fn for_each(&self, mut visit: impl FnMut(Located)) {
        for segment in self.current().iter() {
            for number in 0..segment.len() {
                if let Ok(located) = segment.record(number) {
                    visit(located);
                }
            }
        }
    }

    /// Returns every pack that any record names, once.
    pub fn packs(&self) -> HashMap<PackId, Arc<KnownPack>> {
        self.current()
            .iter()
            .flat_map(|segment| segment.packs().to_vec())
            .map(|pack| (pack.id, pack))
            .collect()
    }

    /// Returns the packs that runs of several signers describe, with all of those: one may have signed it.
    pub fn disputed(&self) -> HashMap<PackId, HashSet<KeyId>> {
        let mut signers: HashMap<PackId, HashSet<KeyId>> = HashMap::new();
        for segment in self.current().iter() {
            for pack in segment.packs() {
                signers.entry(pack.id).or_default().insert(pack.signer);
            }
        }
        signers.retain(|_, signers| signers.len() > 1);
        signers
    }

    /// Returns how many records the set holds, copies counted each.
    pub fn len(&self) -> usize {
        self.current().iter().map(|segment| segment.len()).sum()
    }

    /// Says whether the set holds no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many segments a look-up may have to ask.
    pub fn segment_count(&self) -> usize {
        self.current().len()
    }
}
