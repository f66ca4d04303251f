//! Ordered parallel reading.
//!
//! A planner (the caller's iterator, on a thread of its own) groups pieces that lie in neighbouring
//! frames of one pack into jobs; workers fetch a job with one read, decode its frames once and
//! check every blob; the caller receives the pieces in the order in which they were wanted. The
//! number of jobs in flight is fixed, which bounds memory whatever is read.

use crate::base::BlobId;
use crate::format::pack::BlobClass;
use crate::repo::{BlobReader, FramePlace, Located, RepoError, Repository};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// Sealed bytes that one job fetches at most, unless a single frame is longer.
const JOB_SEALED_BYTES: u64 = 2 << 20;
/// Plain bytes of the frames of one job at most, unless a single frame is longer.
const JOB_PLAIN_BYTES: u64 = 4 << 20;
/// Plain bytes that all jobs in flight may hold together.
const FLIGHT_BYTES: u64 = 64 << 20;
/// Pieces and marks of one job at most: what the caller keeps in their tags is memory too.
const JOB_REQUESTS: usize = 512;
/// Workers at most.
const WORKERS_MAX: usize = 12;

/// A piece that the caller wants, with a tag that comes back with it; or only a mark between pieces.
#[derive(Debug, Clone)]
pub struct Wanted<T> {
    /// Whatever the caller needs to know where the piece belongs.
    pub tag: T,
    /// The blob and its length; `None` for a mark, which comes back in its place with no bytes.
    pub blob: Option<(BlobId, u32)>,
}

impl<T> Wanted<T> {
    /// Wants the bytes of a blob.
    pub fn piece(tag: T, id: BlobId, length: u32) -> Self {
        Self { tag, blob: Some((id, length)) }
    }

    /// Marks a place in the order of pieces.
    pub fn mark(tag: T) -> Self {
        Self { tag, blob: None }
    }
}

/// The bytes of a piece, within the plain bytes of its frame.
#[derive(Debug, Clone, Default)]
pub struct Piece {
    frame: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Piece {
    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8] {
        self.frame.get(self.range.clone()).unwrap_or_default()
    }
}

/// A piece that has come, or the reason why it cannot.
pub struct Delivered<T> {
    /// The tag it was wanted with.
    pub tag: T,
    /// Its bytes, verified against its id.
    pub piece: Result<Piece, RepoError>,
}

/// How to read.
#[derive(Debug, Clone, Copy, Default)]
pub struct StreamOptions {
    /// Workers; 0 takes one a core.
    pub workers: usize,
}

struct Request<T> {
    wanted: Wanted<T>,
    /// The copy to read first; `None` where the index knows none.
    copy: Option<Located>,
}

struct Job<T> {
    sequence: u64,
    requests: Vec<Request<T>>,
}

/// Collects requests into jobs whose frames follow each other in one pack.
struct Planner<T> {
    requests: Vec<Request<T>>,
    /// Pack and frame of the last piece; `None` before the first, whatever marks there are.
    last: Option<FramePlace>,
    sealed: Range<u64>,
    plain: u64,
    sequence: u64,
}

impl<T> Planner<T> {
    fn fits(&self, request: &Request<T>) -> bool {
        if self.requests.len() >= JOB_REQUESTS {
            return false;
        }
        let Some(copy) = &request.copy else {
            // What the index does not know is looked for by a job of its own, which may take long.
            return request.wanted.blob.is_none();
        };
        let Some((pack, frame)) = self.last else { return true };
        if pack != copy.pack.id {
            return false;
        }
        let start = u64::from(copy.record.frame_offset);
        let same = frame == copy.record.frame_offset;
        let next = start == self.sealed.end;
        let end = start + u64::from(copy.record.sealed_length);
        same || (next
            && end - self.sealed.start <= JOB_SEALED_BYTES
            && self.plain + u64::from(copy.record.plain_length) <= JOB_PLAIN_BYTES)
    }

    fn add(&mut self, request: Request<T>) {
        if let Some(copy) = &request.copy {
            let start = u64::from(copy.record.frame_offset);
            let end = start + u64::from(copy.record.sealed_length);
            if self.last.is_none() {
                self.sealed = start..end;
                self.plain = u64::from(copy.record.plain_length);
            } else if end > self.sealed.end {
                self.sealed.end = end;
                self.plain += u64::from(copy.record.plain_length);
            }
            self.last = Some((copy.pack.id, copy.record.frame_offset));
        }
        self.requests.push(request);
    }

    fn take(&mut self) -> Option<Job<T>> {
        if self.requests.is_empty() {
            return None;
        }
        let job = Job { sequence: self.sequence, requests: std::mem::take(&mut self.requests) };
        self.sequence += 1;
        (self.last, self.sealed, self.plain) = (None, 0..0, 0);
        Some(job)
    }
}

fn run_planner<T>(
    repository: &Repository,
    wanted: impl Iterator<Item = Wanted<T>>,
    jobs: &Sender<Job<T>>,
    tokens: &Receiver<()>,
) {
    let mut planner = Planner { requests: Vec::new(), last: None, sealed: 0..0, plain: 0, sequence: 0 };
    let send = |job: Option<Job<T>>| match job {
        // Either end is gone only when the caller has had enough.
        Some(job) => tokens.recv().is_ok() && jobs.send(job).is_ok(),
        None => true,
    };
    for wanted in wanted {
        let copy = wanted.blob.and_then(|(id, _)| {
            let copies = repository.index().find(BlobClass::Content, &id, false, |_| true);
            copies.into_iter().min_by_key(|copy| copy.record.depth)
        });
        let request = Request { wanted, copy };
        if !planner.fits(&request) && !send(planner.take()) {
            return;
        }
        planner.add(request);
    }
    send(planner.take());
}

struct Worker {
    reader: BlobReader,
    fetched: Vec<u8>,
    sealed: Vec<u8>,
}

impl Worker {
    fn work<T>(&mut self, job: Job<T>) -> Vec<Delivered<T>> {
        let span =
            job.requests.iter().filter_map(|request| request.copy.as_ref()).fold(None, |span, copy| {
                let start = u64::from(copy.record.frame_offset);
                let end = start + u64::from(copy.record.sealed_length);
                Some(span.map_or(start..end, |span: Range<u64>| span.start.min(start)..span.end.max(end)))
            });
        self.fetched.clear();
        let span = span.unwrap_or(0..0);
        let mut frame: Option<(u32, Arc<Vec<u8>>)> = None;
        job.requests
            .into_iter()
            .map(|request| {
                let piece = match request.wanted.blob {
                    None => Ok(Piece::default()),
                    Some((id, length)) => match self.fast(&request, &span, &mut frame) {
                        Some(piece) => Ok(piece),
                        None => self.slow(&id, length),
                    },
                };
                Delivered { tag: request.wanted.tag, piece }
            })
            .collect()
    }

    /// Fetches the whole span of a job, once and only when a frame of it is not at hand already.
    fn fetch(&mut self, copy: &Located, span: &Range<u64>) -> Option<()> {
        if self.fetched.is_empty() {
            let name = crate::repo::pack_name(&copy.pack.id);
            let length = usize::try_from(span.end - span.start).ok()?;
            let store = &self.reader.repository().environment().store;
            store.get_range(&name, span.start, length, &mut self.fetched).ok()?;
        }
        Some(())
    }

    fn decode(&mut self, copy: &Located, span: &Range<u64>) -> Option<Arc<Vec<u8>>> {
        let record = &copy.record;
        let place = (copy.pack.id, record.frame_offset);
        let repository = self.reader.repository().clone();
        if let Some(plain) = repository.frame_cache().get(&place) {
            return Some(plain);
        }
        self.fetch(copy, span)?;
        let at = usize::try_from(u64::from(record.frame_offset).checked_sub(span.start)?).ok()?;
        let mut sealed = std::mem::take(&mut self.sealed);
        sealed.clear();
        sealed.extend_from_slice(self.fetched.get(at..at.checked_add(record.sealed_length as usize)?)?);
        let plain = self.reader.open_fetched(copy, &mut sealed);
        self.sealed = sealed;
        let plain = Arc::new(plain.ok()?);
        repository.frame_cache().put(place, plain.clone());
        Some(plain)
    }

    /// Reads from the copy that was planned; `None` for whatever does not hold.
    fn fast<T>(
        &mut self,
        request: &Request<T>,
        span: &Range<u64>,
        current: &mut Option<(u32, Arc<Vec<u8>>)>,
    ) -> Option<Piece> {
        let copy = request.copy.as_ref()?;
        let (id, length) = request.wanted.blob?;
        let record = &copy.record;
        let frame = match current {
            Some((offset, frame)) if *offset == record.frame_offset => frame.clone(),
            _ => {
                let plain = self.decode(copy, span)?;
                *current = Some((record.frame_offset, plain.clone()));
                plain
            }
        };
        let from = record.offset as usize;
        let range = from..from.checked_add(record.length as usize)?;
        let blob = frame.get(range.clone())?;
        let keyring = self.reader.repository().keyring();
        let genuine = length == record.length && keyring.blob_id(BlobClass::Content, blob).ok()? == id;
        genuine.then_some(Piece { frame, range })
    }

    /// Tries every copy there is, and says why when none serves.
    fn slow(&mut self, id: &BlobId, length: u32) -> Result<Piece, RepoError> {
        let plain = self.reader.read(BlobClass::Content, "chunk", id)?;
        if plain.len() != length as usize {
            return Err(RepoError::Missing {
                what: "chunk",
                id: *id,
                reasons: vec![format!("it has {} bytes, the recipe says {length}", plain.len())],
            });
        }
        let range = 0..plain.len();
        Ok(Piece { frame: Arc::new(plain), range })
    }
}

/// Reads pieces with all cores and hands them to `deliver` in the order of `wanted`.
///
/// A piece that cannot be read comes as an error in its place; what follows still comes. `deliver`
/// ends the stream by breaking.
///
/// # Errors
///
/// When this key may not read content or threads and memory are short.
pub fn stream<T: Send>(
    repository: &Arc<Repository>,
    options: StreamOptions,
    wanted: impl Iterator<Item = Wanted<T>> + Send,
    mut deliver: impl FnMut(Delivered<T>) -> ControlFlow<()>,
) -> Result<(), RepoError> {
    let epoch = repository.keyring().current()?.number;
    if !repository.keyring().reads_content() {
        repository.keyring().content_secret(epoch)?;
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = if options.workers == 0 { cores } else { options.workers }.clamp(1, WORKERS_MAX);
    let in_flight = (2 * workers + 2).min((FLIGHT_BYTES / JOB_PLAIN_BYTES) as usize).max(workers + 1);
    let (jobs, to_do) = bounded::<Job<T>>(in_flight);
    let (done, finished) = bounded::<(u64, Vec<Delivered<T>>)>(in_flight);
    let (token, tokens) = bounded::<()>(in_flight);
    for _ in 0..in_flight {
        // The channel has room for all of them and its other end is held here.
        let _ = token.send(());
    }
    let mut team = (0..workers)
        .map(|_| Ok(Worker { reader: BlobReader::new(repository)?, fetched: Vec::new(), sealed: Vec::new() }))
        .collect::<Result<Vec<_>, RepoError>>()?;
    std::thread::scope(|scope| {
        scope.spawn(move || run_planner(repository, wanted, &jobs, &tokens));
        for mut worker in team.drain(..) {
            let (to_do, done) = (to_do.clone(), done.clone());
            scope.spawn(move || {
                for job in to_do {
                    let sequence = job.sequence;
                    if done.send((sequence, worker.work(job))).is_err() {
                        return;
                    }
                }
            });
        }
        drop((to_do, done));
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        // Ends early when `deliver` breaks; dropping both ends then stops the planner and the workers.
        let _ = finished.iter().try_for_each(|(sequence, pieces)| {
            waiting.insert(sequence, pieces);
            while let Some(pieces) = waiting.remove(&next) {
                next += 1;
                pieces.into_iter().try_for_each(&mut deliver)?;
                // The planner may have ended already.
                let _ = token.send(());
            }
            ControlFlow::Continue(())
        });
        drop((token, finished));
    });
    Ok(())
}
