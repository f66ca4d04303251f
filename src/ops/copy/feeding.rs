//! From the source's tree into the target's pipeline: one thread reads ahead, one feeds.

use super::reading::{Step, Walk};
use crate::base::BlobId;
use crate::chunker::PageCutter;
use crate::format::tree::{Content, ContentDigest, CutKind};
use crate::ingest::{Event, FeedError, Feeder, FileEnd};
use crate::localfs::printable;
use crate::ops::OpsError;
use crate::ops::backup::{Cursor, hash_zeros};
use crate::repo::{RepoError, Repository, WriteSession};
use crate::view::{Delivered, Piece, StreamOptions, stream};
use crossbeam_channel::{Receiver, bounded};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Pieces that wait to be fed, beyond those that are being read.
const WAITING: usize = 8;

/// Why a snapshot was not copied.
pub(super) enum CopyError {
    /// The source does not hold it whole; others may be.
    Source(OpsError),
    /// Anything else: no other will do better.
    Other(OpsError),
}

impl From<OpsError> for CopyError {
    fn from(error: OpsError) -> Self {
        Self::Other(error)
    }
}

impl From<RepoError> for CopyError {
    fn from(error: RepoError) -> Self {
        Self::Other(error.into())
    }
}

/// Tells apart what is damaged from what did not answer.
fn of_source(error: RepoError) -> CopyError {
    match error {
        // What lies in an epoch that this key was not granted keeps no other snapshot back.
        RepoError::Damaged { .. }
        | RepoError::Missing { .. }
        | RepoError::Untrusted { .. }
        | RepoError::Forbidden { .. } => CopyError::Source(error.into()),
        error => CopyError::Other(error.into()),
    }
}

/// What comes from the source, with its pieces as a stream.
struct Incoming {
    receiver: Receiver<Delivered<Step>>,
    piece: Piece,
    at: usize,
    next: Option<Step>,
    error: Option<RepoError>,
}

impl Incoming {
    /// Returns the next step that is no piece; `None` where there is no more.
    fn step(&mut self) -> Option<Step> {
        match self.next.take() {
            Some(step) => Some(step),
            None => self.receiver.recv().ok().map(|delivered| delivered.tag),
        }
    }
}

impl Read for Incoming {
    /// Reads pieces; a stretch of them ends at whatever else comes.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let rest = self.piece.bytes().get(self.at..).unwrap_or_default();
            if !rest.is_empty() {
                let length = rest.len().min(buffer.len());
                if let (Some(space), Some(bytes)) = (buffer.get_mut(..length), rest.get(..length)) {
                    space.copy_from_slice(bytes);
                }
                self.at += length;
                return Ok(length);
            }
            if self.next.is_some() {
                return Ok(0);
            }
            match self.receiver.recv() {
                Ok(Delivered { tag: Step::Piece, piece: Ok(piece), .. }) => {
                    (self.piece, self.at) = (piece, 0)
                }
                Ok(Delivered { tag: Step::Piece, piece: Err(error), .. }) => {
                    let told = io::Error::other(error.to_string());
                    self.error = Some(error);
                    return Err(told);
                }
                Ok(Delivered { tag, .. }) => self.next = Some(tag),
                Err(_) => return Ok(0),
            }
        }
    }
}

/// Feeds a tree of the source.
pub(super) fn feed(
    source: &Arc<Repository>,
    root: BlobId,
    session: &WriteSession,
    cursor: Option<Cursor>,
    believed: bool,
    feeder: &mut Feeder,
) -> Result<(), CopyError> {
    let walk = Walk::new(source, root, session, cursor, believed)?;
    let (sender, receiver) = bounded(WAITING);
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            stream(source, StreamOptions::default(), walk, |delivered| match sender.send(delivered) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            })
        });
        let mut incoming = Incoming { receiver, piece: Piece::default(), at: 0, next: None, error: None };
        let fed = feed_steps(&mut incoming, session.repository(), feeder);
        // Whoever still reads ahead ends when nobody takes what it sends.
        drop(incoming);
        let lost = |_| RepoError::Internal { doing: "reading the source", why: "a thread ended".to_owned() };
        match (reading.join().map_err(lost)?, fed) {
            (Err(error), _) => Err(CopyError::from(error)),
            (Ok(()), fed) => fed,
        }
    })
}

fn feed_steps(incoming: &mut Incoming, target: &Repository, feeder: &mut Feeder) -> Result<(), CopyError> {
    let broken = || RepoError::Internal { doing: "copying a tree", why: "it came out of order".to_owned() };
    let mut path: Vec<Vec<u8>> = Vec::new();
    loop {
        match incoming.step() {
            Some(Step::Folder(folder)) => {
                path.push(folder.name.clone());
                feeder.event(Event::Folder(folder))?;
            }
            Some(Step::Close) => {
                path.pop();
                feeder.event(Event::Close)?;
            }
            Some(Step::Leaf(entry)) => feeder.event(Event::Node(entry))?,
            Some(Step::File { entry, cut, before }) => {
                path.push(entry.name.clone());
                feeder.file(entry, before.as_deref())?;
                file(incoming, feeder, cut_for(target, cut), &path.join(&b'/'))?;
                path.pop();
            }
            Some(Step::Failed(error)) => return Err(of_source(error)),
            Some(Step::Done) => return Ok(()),
            Some(Step::Piece | Step::Hole(_) | Step::End(_)) | None => return Err(broken().into()),
        }
    }
}

/// Feeds the content of a file, and compares it with what the original says of it.
fn file(incoming: &mut Incoming, feeder: &mut Feeder, cut: CutKind, path: &[u8]) -> Result<(), CopyError> {
    let mut digest = blake3::Hasher::new();
    loop {
        feeder.data(incoming, cut, u64::MAX, &mut digest).map_err(|error| match error {
            FeedError::Source(source) => match incoming.error.take() {
                Some(error) => of_source(error),
                None => CopyError::Other(OpsError::Read { name: printable(path), source }),
            },
            FeedError::Pipeline(error) => error.into(),
        })?;
        match incoming.step() {
            Some(Step::Hole(length)) => {
                hash_zeros(&mut digest, length);
                feeder.event(Event::Hole(length))?;
            }
            Some(Step::End(content)) => {
                let end = end(&content, &digest, cut, path)?;
                return Ok(feeder.event(Event::End(end))?);
            }
            Some(Step::Failed(error)) => return Err(of_source(error)),
            _ => {
                let why = "a file has no end".to_owned();
                return Err(RepoError::Internal { doing: "copying a file", why }.into());
            }
        }
    }
}

/// Returns how a file is cut at the target: as it was, where the target can do that.
fn cut_for(target: &Repository, cut: CutKind) -> CutKind {
    match cut {
        CutKind::Pages { page_bytes } => {
            let chunk = target.page_chunk_bytes().checked_next_multiple_of(page_bytes);
            match chunk.is_some_and(|chunk| PageCutter::new(chunk).is_ok()) {
                true => cut,
                false => CutKind::Stream,
            }
        }
        CutKind::Stream | CutKind::Other { .. } => CutKind::Stream,
    }
}

/// Compares what was fed with what the original says, and says the same of the copy.
fn end(content: &Content, digest: &blake3::Hasher, cut: CutKind, path: &[u8]) -> Result<FileEnd, CopyError> {
    let differs = |why: String| CopyError::Source(OpsError::Differs { what: printable(path), why });
    let (length, found) = (digest.count(), *digest.finalize().as_bytes());
    if length != content.length {
        return Err(differs(format!("it has {length} bytes instead of {}", content.length)));
    }
    let digest = match &content.digest {
        Some(ContentDigest::Blake3(expected)) if *expected != found => {
            return Err(differs("its digest is another one".to_owned()));
        }
        // Of a file of which something was lost nobody knows the digest, and nobody is to think so.
        None => None,
        Some(_) => Some(found),
    };
    Ok(FileEnd { length, digest, cut, read: content.read })
}
