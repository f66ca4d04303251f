//! The bytes of a segment, every blob and the whole verified.

use super::find::{FoundLog, fetch_log_front};
use super::frames::Frames;
use super::merged::is_merged;
use super::pieces::{joined, joined_length};
use crate::base::{BlobId, KeyId, limits};
use crate::crypto::Sealer;
use crate::format::FormatError;
use crate::format::kind::ObjectKind;
use crate::format::log::{
    LogContent, LogDigest, LogPackFront, LogPackTail, LogPackView, LogRecord, contents_associated_data,
};
use crate::format::pack::{BlobClass, FrameRecord, Origin, TRAILER_BYTES};
use crate::format::trust::Act;
use crate::repo::error::RepoError;
use crate::repo::frames::{FrameDecoder, FrameKey, check_blobs};
use crate::repo::packs::unseal_contents;
use crate::repo::repository::Repository;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// Threads that decode one segment.
pub(super) const THREADS: usize = 2;

/// A log pack read whole: name, signature, records and table of contents hold.
pub struct OpenedLog {
    object: String,
    pub(super) bytes: Vec<u8>,
    /// Who put it together.
    pub signer: KeyId,
    /// Its records, with those who signed them.
    pub records: Vec<(LogRecord, KeyId)>,
    pub(super) frames: Frames,
    origins: Vec<Origin>,
}

/// A decoded blob: its frame's bytes, and where in them it lies.
type Decoded = (Arc<Vec<u8>>, Range<usize>);

/// How far the pieces of a segment are wanted.
#[derive(Clone, Copy)]
enum Wanted {
    /// Up to the end of the whole, whose digest one of them names.
    Whole,
    /// As far as they join.
    Joined,
}

/// What a record stands for, verified, in pieces as they were decoded.
pub(super) struct Decoding(Vec<Decoded>);

impl Decoding {
    /// Returns the pieces in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter_map(|(frame, range)| frame.get(range.clone()))
    }

    /// Adds what comes next; what lies right behind the last piece becomes part of it.
    fn add(&mut self, (frame, range): &Decoded) {
        match self.0.last_mut() {
            Some((last, end)) if Arc::ptr_eq(last, frame) && end.end == range.start => end.end = range.end,
            _ => self.0.push((frame.clone(), range.clone())),
        }
    }

    fn digest(&self) -> LogDigest {
        let (mut length, mut hasher) = (0, blake3::Hasher::new());
        for piece in self.pieces() {
            length += piece.len() as u64;
            hasher.update(piece);
        }
        LogDigest { length, blake3: *hasher.finalize().as_bytes() }
    }

    fn whole(&self) -> Vec<u8> {
        self.pieces().collect::<Vec<_>>().concat()
    }
}

impl Repository {
    /// Reads a log pack whole and checks name, signature and table of contents, but opens no frame.
    ///
    /// # Errors
    ///
    /// When any of it does not hold, or the store fails.
    pub fn open_log(&self, log: &FoundLog) -> Result<OpenedLog, RepoError> {
        let object = log.object.as_str();
        let bytes = self.environment().store.get(object, limits::PACK_BYTES_MAX)?;
        if blake3::hash(&bytes).as_bytes() != log.id.as_bytes() {
            let why = "its bytes are not the ones it was named for";
            return Err(RepoError::damaged(object)(FormatError::Invalid { what: "log pack", why }));
        }
        let (signer, origins, records, frames) = {
            let view = LogPackView::parse(&bytes).map_err(RepoError::damaged(object))?;
            let signer = view.front.signer;
            let kind = ObjectKind::LogPack.number();
            self.verify_signature(object, Act::LogPack, kind, &signer, view.signed, &view.signature)?;
            let bound = contents_associated_data(self.id(), view.trailer.contents_plain_length);
            let plain = unseal_contents(object, self.keyring(), &view.trailer, &bound, view.contents_sealed)?;
            let contents = view.contents(&plain).map_err(RepoError::damaged(object))?;
            // Of a merged one each record counts or not by itself: that was asked when it was found.
            let merged = is_merged(object);
            let records = view.front.records.iter().map(|record| match merged {
                true => self.open_log_record(object, record),
                false => self.read_log_record(object, record),
            });
            let records = records.collect::<Result<Vec<_>, _>>()?;
            (signer, view.front.origins, records, contents.frames)
        };
        let opened = OpenedLog {
            object: object.to_owned(),
            bytes,
            signer,
            records,
            frames: Frames::new(frames),
            origins,
        };
        opened.check_chunks()?;
        Ok(opened)
    }

    /// Checks the structure of a log pack by its front and its tail, without its frames: that both agree, that
    /// the table of contents opens, that what its records name is in it, and that the object has the length
    /// that its trailer says. `found` are its records.
    ///
    /// # Errors
    ///
    /// When any of it does not hold, or the store fails.
    pub fn check_log_structure(&self, found: &[&FoundLog]) -> Result<(), RepoError> {
        let Some(log) = found.first() else { return Ok(()) };
        let object = log.object.as_str();
        let store = &self.environment().store;
        let short = || RepoError::damaged(object)(FormatError::Truncated);
        let front = fetch_log_front(self.environment().store.as_ref(), object, log.length)?;
        let front = LogPackFront::parse(&front).map_err(RepoError::damaged(object))?;
        // What is known of records may be what was so before the object rotted.
        front.records.iter().try_for_each(|record| self.open_log_record(object, record).map(drop))?;
        let mut trailer = Vec::new();
        let trailer_at = log.length.checked_sub(TRAILER_BYTES as u64).ok_or_else(short)?;
        store.get_range(object, trailer_at, TRAILER_BYTES, &mut trailer)?;
        let length = LogPackTail::length(&trailer, log.length).map_err(RepoError::damaged(object))?;
        let (mut tail, at) = (Vec::new(), log.length.checked_sub(length).ok_or_else(short)?);
        store.get_range(object, at, usize::try_from(length).map_err(|_| short())?, &mut tail)?;
        let tail = LogPackTail::parse(&tail, log.length).map_err(RepoError::damaged(object))?;
        let bound = contents_associated_data(self.id(), tail.trailer.contents_plain_length);
        let plain = unseal_contents(object, self.keyring(), &tail.trailer, &bound, tail.contents_sealed)?;
        let contents = tail.contents(&front, &plain).map_err(RepoError::damaged(object))?;
        match holds_all(&Frames::new(contents.frames), found.iter().map(|found| &found.record)) {
            true => Ok(()),
            false => Err(RepoError::damaged(object)(FormatError::Invalid {
                what: "log pack",
                why: "its record names a blob that it does not hold",
            })),
        }
    }

    /// Reads the bytes that a record stands for: a segment, or a piece of one.
    ///
    /// # Errors
    ///
    /// When they are damaged, this key may not read content, or the store fails.
    pub fn read_log(&self, log: &FoundLog) -> Result<Vec<u8>, RepoError> {
        Ok(self.decode_log(log)?.0.whole())
    }

    /// Decodes what a record stands for; returns its digest too, which was verified.
    fn decode_log(&self, log: &FoundLog) -> Result<(Decoding, LogDigest), RepoError> {
        match &log.record.content {
            Some(content) if !content.chunks.is_empty() => {
                let decoding = match is_merged(&log.object) {
                    true => self.read_merged(log, content),
                    false => self.open_log(log)?.read(self, content),
                };
                Ok((decoding?, content.digest))
            }
            _ => Err(RepoError::Usage(format!("{} is archived without its bytes", log.record.name))),
        }
    }

    /// Reads a segment from whichever of these is whole, what counts first: a log pack of it, or pieces
    /// that join ([LOG-PACK-6]). `sink` receives the bytes in order, each piece verified; the whole is
    /// verified when this returns. Returns the digest that it was found to have.
    ///
    /// # Errors
    ///
    /// What was wrong with the first that could not be read; when pieces are missing, that they are.
    pub fn read_segment(
        &self,
        found: &[FoundLog],
        sink: &mut dyn FnMut(&[u8]) -> Result<(), RepoError>,
    ) -> Result<LogDigest, RepoError> {
        let mut problem = None;
        for log in found.iter().filter(|log| log.record.piece_offset.is_none()) {
            match self.decode_log(log) {
                Ok((decoding, digest)) => {
                    decoding.pieces().try_for_each(&mut *sink)?;
                    return Ok(digest);
                }
                Err(error) => drop(problem.get_or_insert(error)),
            }
        }
        self.read_pieces(found, Wanted::Whole, sink).map_err(|error| problem.unwrap_or(error))
    }

    /// Reads the beginning of a segment that is not there as a whole, as far as its pieces join; returns its
    /// length. `sink` receives the bytes in order, each piece verified.
    ///
    /// # Errors
    ///
    /// When a piece cannot be read and no other way leads as far, or the other way differs from what `sink` has
    /// received.
    pub fn read_joined(
        &self,
        found: &[FoundLog],
        sink: &mut dyn FnMut(&[u8]) -> Result<(), RepoError>,
    ) -> Result<u64, RepoError> {
        Ok(self.read_pieces(found, Wanted::Joined, sink)?.length)
    }

    /// Reads pieces in order: up to the end of the whole where that is wanted, else as far as they join.
    fn read_pieces(
        &self,
        found: &[FoundLog],
        wanted: Wanted,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), RepoError>,
    ) -> Result<LogDigest, RepoError> {
        let name = found.first().map_or("the segment", |log| log.record.name.as_str());
        let missing =
            |at: u64| RepoError::Usage(format!("{name} is not whole: no piece of it begins at {at}"));
        let whole = match wanted {
            Wanted::Whole => Some(found.iter().find_map(|log| log.record.whole).ok_or_else(|| missing(0))?),
            Wanted::Joined => None,
        };
        let end = whole.map_or_else(|| joined_length(found), |whole| whole.length);
        let mut usable: Vec<&FoundLog> = found.iter().collect();
        let broken = || {
            let why = "its pieces do not make the whole";
            RepoError::damaged(name)(FormatError::Invalid { what: "log segment", why })
        };
        let (mut at, mut hasher, mut problem) = (0, blake3::Hasher::new(), None);
        // How far the sink is served, and the digest of what the present way says stands before that.
        let (mut served, mut again) = (0_u64, blake3::Hasher::new());
        while at < end {
            let Some(log) = joined(usable.iter().copied(), at).first().copied() else {
                // The way ends here. Another from the beginning may lead as far, around what cannot be read.
                if joined_length(usable.iter().copied()) < end {
                    return Err(problem.unwrap_or_else(|| missing(at)));
                }
                (at, again) = (0, blake3::Hasher::new());
                continue;
            };
            match self.read_log(log) {
                Ok(bytes) => {
                    let known =
                        usize::try_from(served.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
                    let (before, fresh) = bytes.split_at(known);
                    again.update(before);
                    at += bytes.len() as u64;
                    if at >= served && again.finalize() != hasher.finalize() {
                        return Err(broken());
                    }
                    if !fresh.is_empty() {
                        again.update(fresh);
                        hasher.update(fresh);
                        sink(fresh)?;
                        served = at;
                    }
                }
                Err(error) => {
                    problem.get_or_insert(error);
                    usable.retain(|other| other.object != log.object);
                }
            }
        }
        let read = LogDigest { length: at, blake3: *hasher.finalize().as_bytes() };
        let is_right = at == end && whole.is_none_or(|whole| read == whole);
        if is_right { Ok(read) } else { Err(broken()) }
    }
}

impl OpenedLog {
    /// Frames of a log pack by themselves, whose offsets are those in `bytes`.
    pub(super) fn of_frames(
        object: &str,
        bytes: Vec<u8>,
        signer: KeyId,
        frames: Vec<FrameRecord>,
        origins: Vec<Origin>,
    ) -> Self {
        let frames = Frames::new(frames);
        Self { object: object.to_owned(), bytes, signer, records: Vec::new(), frames, origins }
    }

    /// Returns what its table of contents says of its frames, in the order in which they lie.
    pub fn frames(&self) -> &[FrameRecord] {
        self.frames.all()
    }

    /// Returns the origins of its frames.
    pub(super) fn origins(&self) -> &[Origin] {
        &self.origins
    }

    pub(super) fn broken(&self, why: &'static str) -> RepoError {
        RepoError::damaged(self.object.as_str())(FormatError::Invalid { what: "log pack", why })
    }

    /// [LOG-PACK-4]: every blob that a record names is in the table of contents with the same length.
    fn check_chunks(&self) -> Result<(), RepoError> {
        match holds_all(&self.frames, self.records.iter().map(|(record, _)| record)) {
            true => Ok(()),
            false => Err(self.broken("a record names a blob that it does not hold")),
        }
    }

    /// Decodes and verifies all that the records stand for.
    ///
    /// # Errors
    ///
    /// When a frame, a blob or a digest is not what it must be, or this key may not read content.
    pub fn verify(&self, repository: &Repository) -> Result<(), RepoError> {
        let contents = self.records.iter().filter_map(|(record, _)| record.content.as_ref());
        for content in contents.filter(|content| !content.chunks.is_empty()) {
            self.read(repository, content)?;
        }
        Ok(())
    }

    /// Returns the bytes of one record.
    ///
    /// # Errors
    ///
    /// As [`OpenedLog::verify`].
    pub(super) fn read(&self, repository: &Repository, content: &LogContent) -> Result<Decoding, RepoError> {
        let mut problem = None;
        for way in self.frames.ways(content) {
            match self.read_from(repository, content, &way) {
                Ok(decoding) => return Ok(decoding),
                Err(error) => drop(problem.get_or_insert(error)),
            }
        }
        Err(problem.unwrap_or_else(|| self.broken("a record names a blob that it does not hold")))
    }

    fn read_from(
        &self,
        repository: &Repository,
        content: &LogContent,
        frames: &[&FrameRecord],
    ) -> Result<Decoding, RepoError> {
        let blobs = self.decode(repository, frames)?;
        let mut decoding = Decoding(Vec::new());
        for chunk in &content.chunks {
            let blob = blobs.get(&chunk.id).ok_or_else(|| self.broken("a chunk is missing"))?;
            decoding.add(blob);
        }
        match decoding.digest() == content.digest {
            true => Ok(decoding),
            false => Err(self.broken("the segment does not have the digest that its record names")),
        }
    }

    /// Decodes frames, of which those that others are differences against are some.
    fn decode(
        &self,
        repository: &Repository,
        chosen: &[&FrameRecord],
    ) -> Result<HashMap<BlobId, Decoded>, RepoError> {
        let mut levels: BTreeMap<u8, Vec<&FrameRecord>> = BTreeMap::new();
        for frame in chosen {
            levels.entry(frame.depth).or_default().push(frame);
        }
        let mut blobs: HashMap<BlobId, Decoded> = HashMap::new();
        // A base has a smaller depth, so it is there when it is needed.
        for frames in levels.into_values() {
            let decode_some = |first: usize| -> Result<Vec<Vec<u8>>, RepoError> {
                let mut decoder = FrameDecoder::new()?;
                let some = frames.iter().skip(first).step_by(THREADS);
                some.map(|frame| self.decode_frame(repository, &mut decoder, frame, &blobs)).collect()
            };
            let decoded = std::thread::scope(|scope| {
                let others: Vec<_> = (1..THREADS.min(frames.len()))
                    .map(|first| (first, scope.spawn(move || decode_some(first))))
                    .collect();
                let mut decoded: Vec<(usize, Vec<u8>)> = numbered(0, decode_some(0)?);
                for (first, other) in others {
                    let plain = other.join().map_err(|_| RepoError::Internal {
                        doing: "reading a segment",
                        why: "a thread panicked".to_owned(),
                    })??;
                    decoded.extend(numbered(first, plain));
                }
                Ok::<_, RepoError>(decoded)
            })?;
            for (number, plain) in decoded {
                let Some(frame) = frames.get(number) else { continue };
                let (plain, mut at) = (Arc::new(plain), 0);
                for (id, length) in &frame.blobs {
                    let end = at + *length as usize;
                    blobs.insert(*id, (plain.clone(), at..end));
                    at = end;
                }
            }
        }
        Ok(blobs)
    }

    fn decode_frame(
        &self,
        repository: &Repository,
        decoder: &mut FrameDecoder,
        frame: &FrameRecord,
        blobs: &HashMap<BlobId, Decoded>,
    ) -> Result<Vec<u8>, RepoError> {
        let sealer = self.sealer(repository, frame)?;
        let base = match frame.base {
            None => None,
            Some(id) => {
                let base = blobs.get(&id).and_then(|(frame, range)| frame.get(range.clone()));
                Some(base.ok_or_else(|| self.broken("a base is missing"))?)
            }
        };
        let mut plain = Vec::new();
        decoder
            .open(&sealer, repository.id(), &key_of(frame), base, self.sealed(frame)?, &mut plain)
            .map_err(|_| self.broken("a frame does not open"))?;
        let ids = repository.keyring().id_key(BlobClass::Content)?;
        check_blobs(ids, &plain, &frame.blobs).map_err(|_| self.broken("a blob is not what its id says"))?;
        Ok(plain)
    }

    /// Returns a frame's sealed bytes.
    pub(super) fn sealed(&self, frame: &FrameRecord) -> Result<&[u8], RepoError> {
        let (start, end) = (frame.offset as usize, usize::try_from(frame.end()).unwrap_or(usize::MAX));
        self.bytes.get(start..end).ok_or_else(|| self.broken("a frame is cut short"))
    }

    pub(super) fn sealer(
        &self,
        repository: &Repository,
        frame: &FrameRecord,
    ) -> Result<Arc<Sealer>, RepoError> {
        let origin = self.origins.get(usize::from(frame.origin));
        let origin = origin.ok_or_else(|| self.broken("a frame's origin does not exist"))?;
        repository.origins().open(BlobClass::Content, origin, repository.id(), repository.keyring())
    }
}

pub(super) fn key_of(frame: &FrameRecord) -> FrameKey {
    FrameKey {
        class: BlobClass::Content,
        encoding: frame.encoding,
        counter: frame.counter,
        plain_length: frame.plain_length,
        base: frame.base,
    }
}

/// Says whether all blobs that records name are in these frames, with the same lengths.
fn holds_all<'a>(frames: &Frames, records: impl IntoIterator<Item = &'a LogRecord>) -> bool {
    records.into_iter().filter_map(|record| record.content.as_ref()).all(|content| frames.hold(content))
}

/// Gives back the numbers of frames that were taken in turn.
fn numbered(first: usize, decoded: Vec<Vec<u8>>) -> Vec<(usize, Vec<u8>)> {
    decoded.into_iter().enumerate().map(|(turn, plain)| (first + turn * THREADS, plain)).collect()
}
