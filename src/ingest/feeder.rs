//! The front of the pipeline: reads sources, cuts them, fills batches.

use super::ahead::{CutAhead, Region};
use super::along::Before;
use super::batch::{Batch, Event, FileEnd, Known, Shared};
use super::digests::DigestAway;
use super::parent::{ParentWalk, ParentWindow};
use crate::base::{Clock, Observer, Phase};
use crate::chunker::{CutParameters, Cutter, GearTable, PageCutter};
use crate::format::tree::{Content, CutKind, TreeEntry};
use crate::repo::{BlobReader, RepoError, Repository};
use crossbeam_channel::{Receiver, Sender, select};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

/// Events after which a batch is handed on even though its bytes are few.
const EVENTS_MAX: usize = 4096;

/// A stream of which so many batches are filled is worth digesting elsewhere and cutting ahead.
const LONG_BATCHES: u64 = 2;

/// What a whole stream turned out to be.
#[derive(Debug, Clone, Copy)]
pub struct StreamEnd {
    /// Length in bytes.
    pub length: u64,
    /// BLAKE3 of all bytes.
    pub digest: [u8; 32],
}

/// Bytes of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchSizes {
    /// A batch that holds so many is handed on.
    pub fill_bytes: usize,
    /// Room for the start of a chunk that the batch before could not decide.
    pub longest_chunk: usize,
}

enum Cut<'a> {
    Content(Cutter<'a>, usize),
    Pages(PageCutter, usize),
}

impl Cut<'_> {
    /// Bytes that always suffice to decide where a chunk ends.
    fn enough(&self) -> usize {
        match self {
            Self::Content(_, most) | Self::Pages(_, most) => *most,
        }
    }

    /// Cuts what begins at `start`, behind a chunk of `before` bytes.
    fn cut(&self, bytes: &[u8], start: usize, before: usize, at_end: bool) -> Option<usize> {
        match self {
            Self::Content(cutter, _) => cutter.cut_after(bytes, start, before, at_end),
            Self::Pages(cutter, _) => cutter.cut(bytes.get(start..).unwrap_or_default(), at_end),
        }
    }
}

/// The feeder's ends of what joins it to the threads behind it.
pub(super) struct Joints {
    /// Buffers that may be filled,
    pub free: Receiver<Vec<u8>>,
    /// and where whoever is last to look at them gives them back.
    pub give_back: Sender<Vec<u8>>,
    /// Batches for the workers.
    pub work: Sender<Batch>,
    /// Has nothing to say, and no other end once the last worker is gone.
    pub workers: Receiver<Infallible>,
    /// Digests long streams.
    pub digest: DigestAway,
    /// Cuts long streams ahead, where there are threads for it.
    pub ahead: Option<CutAhead>,
}

impl Joints {
    /// Waits for a buffer. Workers stop only when one has failed; the pipeline then knows why.
    fn buffer(&self) -> Result<Vec<u8>, RepoError> {
        select! {
            recv(self.free) -> bytes => bytes.map_err(|_| RepoError::Interrupted),
            recv(self.workers) -> _ => Err(RepoError::Interrupted),
        }
    }
}

/// Takes the sources in, one after the other, in the order in which they will stand in the tree.
pub struct Feeder {
    /// The batch that is being filled: how many went before it,
    sequence: u64,
    /// its bytes,
    bytes: Vec<u8>,
    /// how many of them are filled,
    filled: usize,
    /// from which on they are not digested yet, while the digest is away,
    undigested: usize,
    /// its events,
    events: Vec<Event>,
    /// and the parent of the file that was open where it begins.
    begun_in: Option<Arc<ParentWindow>>,
    sizes: BatchSizes,
    joints: Joints,
    table: Arc<GearTable>,
    parameters: CutParameters,
    page_chunk_bytes: u32,
    observer: Arc<dyn Observer>,
    clock: Arc<dyn Clock>,
    /// Reads the recipes of parents.
    reader: BlobReader,
    differences: bool,
    /// The parent of the file that is open.
    parent: Option<ParentWalk>,
    /// How far that file has come.
    offset: u64,
}

impl Feeder {
    pub(super) fn new(
        repository: &Arc<Repository>,
        table: Arc<GearTable>,
        sizes: BatchSizes,
        differences: bool,
        joints: Joints,
    ) -> Result<Self, RepoError> {
        let bytes = joints.free.recv().map_err(|_| RepoError::Interrupted)?;
        let environment = repository.environment();
        Ok(Self {
            sequence: 0,
            bytes,
            filled: 0,
            undigested: 0,
            events: Vec::new(),
            begun_in: None,
            sizes,
            joints,
            table,
            parameters: repository.cut_parameters(),
            page_chunk_bytes: repository.page_chunk_bytes(),
            observer: environment.observer.clone(),
            clock: environment.clock.clone(),
            reader: BlobReader::new(repository)?,
            differences,
            parent: None,
            offset: 0,
        })
    }

    /// Says whether chunks that are new are stored as differences where they resemble what was before.
    pub fn differences(&self) -> bool {
        self.differences
    }

    /// Hands the batch on; the bytes from `from` on, not yet cut, move to the next one.
    fn flush(&mut self, from: usize) -> Result<(), RepoError> {
        let bytes = self.joints.buffer()?;
        let length = self.filled.saturating_sub(from);
        self.go_on_in(bytes, from, 0)?;
        self.filled = length;
        self.undigested = length;
        Ok(())
    }

    /// Hands the batch on; its bytes from `from` on move to a place in those of the next. The caller says how
    /// many of those are filled and digested.
    fn go_on_in(&mut self, mut bytes: Vec<u8>, from: usize, to: usize) -> Result<(), RepoError> {
        let rest = self.bytes.get(from..self.filled).unwrap_or_default();
        if let Some(place) = bytes.get_mut(to..to + rest.len()) {
            place.copy_from_slice(rest);
        }
        let full = std::mem::replace(&mut self.bytes, bytes);
        let full = Shared::new(full, self.joints.give_back.clone());
        if self.joints.digest.is_away() {
            let range = self.undigested..self.filled;
            self.joints.digest.update(&full, range).ok_or(RepoError::Interrupted)?;
        }
        let parent = self.parent.as_ref().map(|walk| walk.window().clone());
        let batch = Batch {
            sequence: self.sequence,
            bytes: full,
            events: std::mem::take(&mut self.events),
            parent: std::mem::replace(&mut self.begun_in, parent),
        };
        self.sequence += 1;
        self.joints.work.send(batch).map_err(|_| RepoError::Interrupted)
    }

    /// Opens a file, whose chunks follow; chunks that are new are stored as differences where they
    /// resemble what the file held before.
    ///
    /// # Errors
    ///
    /// [`RepoError::Interrupted`] when the pipeline has stopped; its result says why.
    pub fn file(&mut self, entry: Box<TreeEntry>, before: Option<&Content>) -> Result<(), RepoError> {
        self.offset = 0;
        self.parent = match before.filter(|_| self.differences) {
            Some(content) => Some(ParentWalk::new(&mut self.reader, content)),
            None => None,
        };
        let parent = self.parent.as_ref().map(|walk| walk.window().clone());
        self.event(Event::File { entry, parent })
    }

    /// Adds an event that has no bytes.
    ///
    /// # Errors
    ///
    /// [`RepoError::Interrupted`] when the pipeline has stopped; its result says why.
    pub fn event(&mut self, event: Event) -> Result<(), RepoError> {
        match event {
            Event::Hole(length) => self.offset = self.offset.saturating_add(length),
            Event::End(_) | Event::Drop => self.parent = None,
            _ => {}
        }
        self.events.push(event);
        if self.events.len() >= EVENTS_MAX { self.flush(self.filled) } else { Ok(()) }
    }

    /// Hands on what is there, however little.
    pub(super) fn finish(mut self) -> Result<u64, RepoError> {
        if !self.events.is_empty() {
            self.flush(self.filled)?;
        }
        Ok(self.sequence)
    }

    /// Reads a stream to its end, cuts it, and feeds its chunks and its [`Event::End`].
    ///
    /// The caller has opened the file with [`Feeder::file`]. A stream has no holes; files that have
    /// some are fed stretch by stretch with [`Feeder::data`].
    ///
    /// # Errors
    ///
    /// What the reader says (the file is then still open and wants [`Event::Drop`]), or
    /// [`RepoError::Interrupted`].
    pub fn stream(&mut self, reader: &mut dyn Read, cut: CutKind) -> Result<StreamEnd, FeedError> {
        let mut digest = blake3::Hasher::new();
        let read = self.clock.now();
        let length = self.data(reader, cut, u64::MAX, &mut digest)?;
        let end = StreamEnd { length, digest: *digest.finalize().as_bytes() };
        self.event(Event::End(FileEnd {
            length: end.length,
            digest: Some(end.digest),
            cut,
            read: Some(read),
        }))?;
        Ok(end)
    }

    /// Reads up to `limit` bytes and feeds their chunks; returns how many there were.
    ///
    /// # Errors
    ///
    /// What the reader says, or [`RepoError::Interrupted`].
    pub fn data(
        &mut self,
        reader: &mut dyn Read,
        cut: CutKind,
        limit: u64,
        digest: &mut blake3::Hasher,
    ) -> Result<u64, FeedError> {
        let fed = self.read_and_cut(reader, cut, limit, digest);
        if self.joints.digest.is_away() {
            let back = self.joints.digest.take_back(digest);
            digest.update(self.bytes.get(self.undigested..self.filled).unwrap_or_default());
            back.ok_or(RepoError::Interrupted)?;
        }
        fed
    }

    /// Does the same; of a long stream the digest may be away afterwards.
    fn read_and_cut(
        &mut self,
        reader: &mut dyn Read,
        cut: CutKind,
        limit: u64,
        digest: &mut blake3::Hasher,
    ) -> Result<u64, FeedError> {
        let table = self.table.clone();
        let cutter = match cut {
            CutKind::Stream | CutKind::Other { .. } => {
                Cut::Content(Cutter::new(&table, self.parameters), self.parameters.maximum() as usize)
            }
            CutKind::Pages { page_bytes: page } => {
                let chunk = self.page_chunk_bytes.next_multiple_of(page.max(1));
                let cutter = PageCutter::new(chunk).map_err(|why| {
                    FeedError::Pipeline(RepoError::Internal { doing: "cutting pages", why: why.to_string() })
                })?;
                Cut::Pages(cutter, chunk as usize)
            }
        };
        let pages = matches!(cutter, Cut::Pages(..));
        let mut length = 0;
        let (mut start, mut before) = (self.filled, 0);
        loop {
            if self.observer.interrupted() {
                return Err(FeedError::Pipeline(RepoError::Interrupted));
            }
            if self.filled >= self.sizes.fill_bytes {
                if length >= LONG_BATCHES * self.sizes.fill_bytes as u64 {
                    if !self.joints.digest.is_away() {
                        self.undigested = self.filled;
                        self.joints.digest.begin(digest).ok_or(RepoError::Interrupted)?;
                    }
                    if let Cut::Content(cutter, _) = &cutter
                        && self.joints.ahead.is_some()
                    {
                        length += self.data_ahead(reader, cutter, &mut start, limit - length)?;
                    }
                }
                self.flush(start)?;
                (start, before) = (0, 0);
            }
            let room = usize::try_from(limit - length).unwrap_or(usize::MAX);
            let Some(space) = self.bytes.get_mut(self.filled..) else {
                return Err(FeedError::Pipeline(RepoError::Interrupted));
            };
            let space_length = space.len().min(room);
            let got = read_some(reader, &mut space[..space_length]).map_err(FeedError::Source)?;
            let at_end = got == 0;
            if !self.joints.digest.is_away()
                && let Some(new) = self.bytes.get(self.filled..self.filled + got)
            {
                digest.update(new);
            }
            self.filled += got;
            length += got as u64;
            self.observer.advance(Phase::Backup, got as u64, 0);
            while start < self.filled && (at_end || self.filled - start >= cutter.enough()) {
                let bytes = self.bytes.get(..self.filled).unwrap_or_default();
                let chunk = cutter.cut(bytes, start, before, at_end);
                let Some(chunk) = chunk.filter(|chunk| *chunk > 0) else { break };
                self.chunk(start..start + chunk, pages, None);
                start += chunk;
                before = chunk;
            }
            if at_end {
                return Ok(length);
            }
        }
    }

    /// Adds a chunk of the batch's bytes.
    fn chunk(&mut self, range: Range<usize>, pages: bool, known: Option<Known>) {
        if let Some(parent) = &mut self.parent {
            parent.advance(&mut self.reader, self.offset);
        }
        let (offset, length) = (self.offset, range.len() as u64);
        self.events.push(Event::Chunk { range, offset, pages, known });
        self.offset = offset.saturating_add(length);
    }

    /// Reads on to the end or the limit, and has others cut what was read. Returns how much that was; what
    /// is left uncut begins at `start`.
    fn data_ahead(
        &mut self,
        reader: &mut dyn Read,
        cutter: &Cutter<'_>,
        start: &mut usize,
        limit: u64,
    ) -> Result<u64, FeedError> {
        let depth = self.joints.ahead.as_ref().map_or(0, |ahead| ahead.depth);
        let mut under_way: VecDeque<Receiver<Region>> = VecDeque::new();
        // Where in its file what is read here begins.
        let begun = self.offset.saturating_add(self.filled.saturating_sub(*start) as u64);
        let mut length = 0;
        let mut ended: Option<io::Result<()>> = None;
        loop {
            if self.observer.interrupted() {
                return Err(FeedError::Pipeline(RepoError::Interrupted));
            }
            if ended.is_none() && under_way.len() < depth {
                // Those under way hold buffers too: whoever waits for one while there are some joins first.
                let bytes = match under_way.is_empty() {
                    true => Some(self.joints.buffer()?),
                    false => self.joints.free.try_recv().ok(),
                };
                if let Some(bytes) = bytes {
                    let (mut region, end) = self.region(reader, bytes, limit - length);
                    let offset = begun.saturating_add(length);
                    region.before = self.parent.as_ref().and_then(|walk| Before::new(walk.window(), offset));
                    length += region.range.len() as u64;
                    ended = end;
                    let answer = self.joints.ahead.as_ref().and_then(|ahead| ahead.begin(region));
                    under_way.push_back(answer.ok_or(RepoError::Interrupted)?);
                    continue;
                }
            }
            let Some(next) = under_way.pop_front() else {
                return match ended {
                    Some(Err(error)) => Err(FeedError::Source(error)),
                    Some(Ok(())) => Ok(length),
                    None => Err(FeedError::Pipeline(RepoError::Interrupted)),
                };
            };
            let region = next.recv().map_err(|_| RepoError::Interrupted)?;
            // What is left of the batch before stands right before the region.
            let rest = self.filled.saturating_sub(*start);
            let at = region.range.start.saturating_sub(rest);
            self.go_on_in(region.bytes, *start, at)?;
            self.filled = region.range.end;
            self.undigested = region.range.start;
            let bytes = self.bytes.get(..self.filled).unwrap_or_default();
            let mut chunks = Vec::with_capacity(region.cuts.len() + 1);
            cutter.join(bytes, at, region.range.start, &region.cuts, |end, number| {
                let known = number.and_then(|number| region.known.get(number).copied().flatten());
                chunks.push((end, known));
            });
            *start = at;
            for (end, known) in chunks {
                self.chunk(*start..end, false, known);
                *start = end;
            }
        }
    }

    /// Fills a buffer behind the place for what is left of the one before; says why it is the last.
    fn region(
        &self,
        reader: &mut dyn Read,
        mut bytes: Vec<u8>,
        limit: u64,
    ) -> (Region, Option<io::Result<()>>) {
        let from = self.sizes.longest_chunk;
        let wanted = self.sizes.fill_bytes.min(usize::try_from(limit).unwrap_or(usize::MAX));
        let space = bytes.get_mut(from..from + wanted).unwrap_or_default();
        let (got, result) = read_whole(reader, space);
        self.observer.advance(Phase::Backup, got as u64, 0);
        let is_last = got < wanted || got as u64 == limit || result.is_err();
        (Region::new(bytes, from..from + got), is_last.then_some(result))
    }
}

/// Reads until `space` is full or there is no more; returns how much that was.
fn read_whole(reader: &mut dyn Read, space: &mut [u8]) -> (usize, io::Result<()>) {
    let mut filled = 0;
    while let Some(rest) = space.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read_some(reader, rest) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) => return (filled, Err(error)),
        }
    }
    (filled, Ok(()))
}

/// Reads once, whatever was interrupted is tried again; 0 is the end.
fn read_some(reader: &mut dyn Read, space: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(space) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Why feeding stopped: the source, or the pipeline behind it.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The source could not be read.
    #[error("the source cannot be read")]
    Source(#[source] io::Error),
    /// The pipeline has stopped.
    #[error(transparent)]
    Pipeline(#[from] RepoError),
}
