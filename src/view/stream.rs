//! Ordered parallel reading.
//!
//! A planner (the caller's iterator, on a thread of its own) groups pieces into jobs; workers fetch
//! neighbouring frames of a pack with one read, decode frames once and check every blob; the caller receives the pieces in the order in which they were wanted. The
//! number of jobs in flight is fixed, which bounds memory whatever is read.

use crate::base::{BlobId, PackId};
use crate::format::pack::BlobClass;
pub use crate::repo::Blob as Piece;
use crate::repo::{BlobReader, FramePlace, Located, RepoError, Repository, pack_name};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// Sealed bytes that one job fetches at most, unless a single frame is longer.
const JOB_SEALED_BYTES: u64 = 2 << 20;
/// Plain bytes of the frames of one job at most, unless a single frame is longer.
const JOB_PLAIN_BYTES: u64 = 4 << 20;
/// Plain bytes that all jobs in flight may hold together.
const FLIGHT_BYTES: u64 = 64 << 20;
/// Places in packs that one job reads at.
const JOB_SPANS: usize = 64;
/// Pieces and marks of one job at most: what the caller keeps in their tags is memory too.
const JOB_REQUESTS: usize = 512;
/// Workers at most.
const WORKERS_MAX: usize = 12;

/// A blob whose bytes the caller has already, instead of one that it wants.
///
/// What is stored as a difference against it is decoded from these bytes: neither it nor what it is a
/// difference against itself has to be read.
#[derive(Clone)]
pub struct AtHand {
    /// The id of the bytes.
    pub id: BlobId,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for AtHand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes are somebody's data.
        f.debug_struct("AtHand").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A piece that the caller wants, with a tag that comes back with it; or only a mark between pieces.
#[derive(Debug, Clone)]
pub struct Wanted<T> {
    /// Whatever the caller needs to know where the piece belongs.
    pub tag: T,
    /// The blob and its length; `None` for a mark, which comes back in its place with no bytes.
    pub blob: Option<(BlobId, u32)>,
    /// What the caller has in its place; it comes back with the piece.
    pub at_hand: Option<AtHand>,
}

impl<T> Wanted<T> {
    /// Wants the bytes of a blob.
    pub fn piece(tag: T, id: BlobId, length: u32) -> Self {
        Self { tag, blob: Some((id, length)), at_hand: None }
    }

    /// Wants the bytes of a blob, and has another one that it may be a difference against.
    pub fn piece_instead_of(tag: T, id: BlobId, length: u32, at_hand: Option<AtHand>) -> Self {
        Self { tag, blob: Some((id, length)), at_hand }
    }

    /// Marks a place in the order of pieces.
    pub fn mark(tag: T) -> Self {
        Self { tag, blob: None, at_hand: None }
    }
}

/// A piece that has come, or the reason why it cannot.
pub struct Delivered<T> {
    /// The tag it was wanted with.
    pub tag: T,
    /// Its bytes, verified against its id.
    pub piece: Result<Piece, RepoError>,
    /// What the caller had in its place.
    pub at_hand: Option<AtHand>,
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

impl<T> Request<T> {
    /// Bytes that the request holds while it waits.
    fn held(&self) -> u64 {
        self.wanted.at_hand.as_ref().map_or(0, |at_hand| at_hand.bytes.len() as u64)
    }
}

/// Frames that follow each other in one pack and are fetched with one read.
struct Span {
    pack: PackId,
    bytes: Range<u64>,
}

impl Span {
    /// Copies the sealed bytes of a frame out of the span, which is fetched as a whole the first time
    /// that a frame of it is not at hand already.
    fn cut(
        &self,
        repository: &Repository,
        fetched: &mut Vec<u8>,
        copy: &Located,
        sealed: &mut Vec<u8>,
    ) -> Result<(), RepoError> {
        let length = usize::try_from(self.bytes.end - self.bytes.start).unwrap_or(usize::MAX);
        if fetched.is_empty() {
            let store = &repository.environment().store;
            store.get_range(&pack_name(&self.pack), self.bytes.start, length, fetched)?;
        }
        let frame = frame_bytes(copy);
        let place = |at: u64| usize::try_from(at.checked_sub(self.bytes.start)?).ok();
        let range = place(frame.start).zip(place(frame.end)).map(|(start, end)| start..end);
        let frame = range.and_then(|range| fetched.get(range)).ok_or_else(|| RepoError::Internal {
            doing: "taking frames apart",
            why: "a frame does not lie in its span".to_owned(),
        })?;
        sealed.extend_from_slice(frame);
        Ok(())
    }
}

struct Job<T> {
    sequence: u64,
    spans: Vec<Span>,
    /// Each with the number of the span that holds its frame.
    requests: Vec<(Request<T>, usize)>,
}

/// Collects requests into jobs. A stream of which something changed takes turns between the packs of
/// several backups, so a job reads in several places.
struct Planner<T> {
    spans: Vec<Span>,
    requests: Vec<(Request<T>, usize)>,
    sealed: u64,
    plain: u64,
    sequence: u64,
}

/// Where a request goes in the job that is being collected.
enum Room {
    /// Its frame is in this span already.
    Within(usize),
    /// It lengthens this span.
    After(usize),
    /// It begins a span.
    New,
}

fn frame_bytes(copy: &Located) -> Range<u64> {
    let start = u64::from(copy.record.frame_offset);
    start..start + u64::from(copy.record.sealed_length)
}

impl<T> Planner<T> {
    /// Says where in the present job a copy goes; `None` if the job has no room for it.
    fn room(&self, copy: &Located) -> Option<Room> {
        let frame = frame_bytes(copy);
        for (number, span) in
            self.spans.iter().enumerate().rev().filter(|(_, span)| span.pack == copy.pack.id)
        {
            if span.bytes.start <= frame.start && frame.end <= span.bytes.end {
                return Some(Room::Within(number));
            }
            if span.bytes.end == frame.start {
                return self.takes(copy).then_some(Room::After(number));
            }
        }
        let room = self.spans.is_empty() || (self.spans.len() < JOB_SPANS && self.takes(copy));
        room.then_some(Room::New)
    }

    fn takes(&self, copy: &Located) -> bool {
        self.sealed + u64::from(copy.record.sealed_length) <= JOB_SEALED_BYTES
            && self.plain + u64::from(copy.record.plain_length) <= JOB_PLAIN_BYTES
    }

    fn fits(&self, request: &Request<T>) -> bool {
        self.requests.len() < JOB_REQUESTS
            && (self.requests.is_empty() || self.plain + request.held() <= JOB_PLAIN_BYTES)
            && match &request.copy {
                Some(copy) => self.room(copy).is_some(),
                // What the index does not know is looked for by a job of its own, which may take long.
                None => request.wanted.blob.is_none(),
            }
    }

    fn add(&mut self, request: Request<T>) {
        self.plain += request.held();
        let Some(copy) = &request.copy else {
            self.requests.push((request, 0));
            return;
        };
        let frame = frame_bytes(copy);
        let room = self.room(copy).unwrap_or(Room::New);
        if !matches!(room, Room::Within(_)) {
            self.sealed += u64::from(copy.record.sealed_length);
            self.plain += u64::from(copy.record.plain_length);
        }
        let number = match room {
            Room::Within(number) => number,
            Room::After(number) => {
                if let Some(span) = self.spans.get_mut(number) {
                    span.bytes.end = frame.end;
                }
                number
            }
            Room::New => {
                self.spans.push(Span { pack: copy.pack.id, bytes: frame });
                self.spans.len() - 1
            }
        };
        self.requests.push((request, number));
    }

    fn take(&mut self) -> Option<Job<T>> {
        if self.requests.is_empty() {
            return None;
        }
        let job = Job {
            sequence: self.sequence,
            spans: std::mem::take(&mut self.spans),
            requests: std::mem::take(&mut self.requests),
        };
        self.sequence += 1;
        (self.sealed, self.plain) = (0, 0);
        Some(job)
    }
}

/// Says whether a copy is a difference against what is at hand, so that it takes least to read.
fn is_at_hand<T>(wanted: &Wanted<T>, copy: &Located) -> bool {
    let at_hand = wanted.at_hand.as_ref().map(|at_hand| at_hand.id);
    at_hand.is_some() && copy.record.base == at_hand
}

fn run_planner<T>(
    repository: &Repository,
    wanted: impl Iterator<Item = Wanted<T>>,
    jobs: &Sender<Job<T>>,
    tokens: &Receiver<()>,
) {
    let mut planner = Planner { spans: Vec::new(), requests: Vec::new(), sealed: 0, plain: 0, sequence: 0 };
    let send = |job: Option<Job<T>>| match job {
        // Either end is gone only when the caller has had enough.
        Some(job) => tokens.recv().is_ok() && jobs.send(job).is_ok(),
        None => true,
    };
    for wanted in wanted {
        let copy = wanted.blob.and_then(|(id, _)| {
            let copies = repository.index().find(BlobClass::Content, &id, false, |_| true);
            copies.into_iter().min_by_key(|copy| (!is_at_hand(&wanted, copy), copy.record.depth))
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
    /// The bytes of a job's spans, each empty until it is wanted.
    fetched: Vec<Vec<u8>>,
}

/// The frames of a job that are decoded: those that its planner counted, each once.
type Decoded = HashMap<FramePlace, Arc<Vec<u8>>>;

impl Worker {
    fn work<T>(&mut self, job: Job<T>) -> Vec<Delivered<T>> {
        // Not kept from job to job: each would grow to the longest span that ever stood in its place.
        self.fetched.clear();
        self.fetched.resize_with(job.spans.len(), Vec::new);
        let spans = job.spans;
        let mut decoded = Decoded::new();
        job.requests
            .into_iter()
            .map(|(request, span)| {
                let piece = match request.wanted.blob {
                    None => Ok(Piece::default()),
                    Some((id, length)) => match self.fast(&request, &spans, span, &mut decoded) {
                        Some(piece) => Ok(piece),
                        None => self.slow(&id, length),
                    },
                };
                Delivered { tag: request.wanted.tag, piece, at_hand: request.wanted.at_hand }
            })
            .collect()
    }

    fn decode(
        &mut self,
        copy: &Located,
        span: &Span,
        number: usize,
        base: Option<&[u8]>,
    ) -> Option<Arc<Vec<u8>>> {
        let Self { reader, fetched } = self;
        let (repository, fetched) = (reader.repository().clone(), fetched.get_mut(number)?);
        let fetch = |sealed: &mut Vec<u8>| span.cut(&repository, fetched, copy, sealed);
        match base {
            Some(base) => reader.frame_on(copy, base, fetch).map(Arc::new).ok(),
            None => reader.frame_from(copy, fetch).ok(),
        }
    }

    /// Reads from the copy that was planned; `None` for whatever does not hold.
    fn fast<T>(
        &mut self,
        request: &Request<T>,
        spans: &[Span],
        number: usize,
        decoded: &mut Decoded,
    ) -> Option<Piece> {
        let copy = request.copy.as_ref()?;
        let (id, length) = request.wanted.blob?;
        let place = (copy.pack.id, copy.record.frame_offset);
        let frame = match decoded.get(&place) {
            Some(frame) => frame.clone(),
            None => {
                let base = request.wanted.at_hand.as_ref().filter(|_| is_at_hand(&request.wanted, copy));
                let base = base.map(|at_hand| at_hand.bytes.as_slice());
                let plain = self.decode(copy, spans.get(number)?, number, base)?;
                decoded.insert(place, plain.clone());
                plain
            }
        };
        let piece = Piece::new(frame, copy.record.offset, copy.record.length)?;
        let keyring = self.reader.repository().keyring();
        let genuine =
            length == copy.record.length && keyring.blob_id(BlobClass::Content, piece.bytes()).ok()? == id;
        genuine.then_some(piece)
    }

    /// Tries every copy there is, and says why when none serves.
    fn slow(&mut self, id: &BlobId, length: u32) -> Result<Piece, RepoError> {
        let piece = self.reader.read(BlobClass::Content, "chunk", id)?;
        let found = piece.bytes().len();
        if found != length as usize {
            return Err(RepoError::Missing {
                what: "chunk",
                id: *id,
                reasons: vec![format!("it has {found} bytes, the recipe says {length}")],
            });
        }
        Ok(piece)
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
        .map(|_| Ok(Worker { reader: BlobReader::new(repository)?, fetched: Vec::new() }))
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
