//! One worker: everything that is done to a batch while its bytes are in the cache.

use super::bases::{Bases, Unknown};
use super::batch::{Batch, Event, Outcome, Processed};
use super::effort::Controller;
use crate::base::{BlobId, Phase};
use crate::chunker::{Sketch, Sketcher};
use crate::format::pack::BlobClass;
use crate::repo::{FrameEncoder, RepoError, WriteSession};
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Turns batches into sealed frames and outcomes; one per thread.
pub(super) struct Worker<'a> {
    session: &'a WriteSession,
    encoder: FrameEncoder,
    controller: &'a Controller,
    bases: Bases<'a>,
    sketcher: Sketcher,
    frame_bytes: usize,
    gathered: Vec<u8>,
}

impl<'a> Worker<'a> {
    pub fn new(
        session: &'a WriteSession,
        controller: &'a Controller,
        frame_bytes: usize,
    ) -> Result<Self, RepoError> {
        Ok(Self {
            session,
            encoder: FrameEncoder::new(controller.first())?,
            controller,
            bases: Bases::new(session)?,
            sketcher: Sketcher::derive(session.repository().keyring().chunker_seed()?),
            frame_bytes,
            gathered: Vec::new(),
        })
    }

    /// Identifies the chunks of a batch, stores those that nobody has, and returns what became of
    /// everything.
    pub fn process(&mut self, batch: Batch) -> Result<Processed, RepoError> {
        let ids = self.session.repository().keyring().id_key(BlobClass::Content)?;
        let mut outcomes = Vec::with_capacity(batch.events.len());
        let mut frame = Frame::default();
        let mut new_bytes = 0;
        let mut before: Option<(&[u8], BlobId, Sketch)> = None;
        self.bases.enter(batch.parent);
        for event in batch.events {
            let Event::Chunk { range, offset, pages, known } = event else {
                let mut event = event;
                if let Event::File { parent, .. } = &mut event {
                    // Nobody behind needs the window, and it is large.
                    self.bases.enter(parent.take());
                }
                outcomes.push(Outcome::Event(event));
                continue;
            };
            let bytes = batch.bytes.get(range.clone()).unwrap_or_default();
            let length = bytes.len() as u32;
            // One that repeats its neighbour needs no other name.
            let (id, sketch) = match before {
                Some((same, id, sketch)) if same == bytes => (id, sketch),
                _ => {
                    let id = known.map_or_else(|| ids.blob_id(bytes), |known| known.id);
                    let noted = known.map(|known| known.sketch).filter(|sketch| *sketch != Sketch::NONE);
                    let noted = noted.or_else(|| self.bases.sketch_of(&id, offset));
                    (id, noted.unwrap_or_else(|| self.sketcher.sketch(bytes)))
                }
            };
            before = Some((bytes, id, sketch));
            if self.session.claim(BlobClass::Content, &id) {
                new_bytes += u64::from(length);
                let chunk = Unknown { id, bytes, sketch, offset, pages };
                if !self.bases.store(&mut self.encoder, &chunk)? {
                    frame.add(id, range);
                }
                if frame.length >= self.frame_bytes {
                    self.store(&batch.bytes, std::mem::take(&mut frame))?;
                }
            } else {
                self.bases.known(&id, sketch, offset);
            }
            outcomes.push(Outcome::Chunk { id, length, sketch });
        }
        self.store(&batch.bytes, frame)?;
        self.session.repository().environment().observer.advance(Phase::Backup, 0, new_bytes);
        Ok(Processed { sequence: batch.sequence, outcomes })
    }

    /// Stores the chunks gathered for one frame; where they are neighbours nothing is copied.
    fn store(&mut self, bytes: &[u8], frame: Frame) -> Result<(), RepoError> {
        let (Some(first), Some(last)) = (frame.ranges.first(), frame.ranges.last()) else { return Ok(()) };
        let span = first.start..last.end;
        let blobs = frame.blobs;
        let plain = if span.len() == frame.length {
            bytes.get(span).unwrap_or_default()
        } else {
            self.gathered.clear();
            for range in frame.ranges {
                self.gathered.extend_from_slice(bytes.get(range).unwrap_or_default());
            }
            &self.gathered
        };
        let now = self.session.repository().environment().clock.now();
        let waited = self.session.counts().waited_nanoseconds.load(Ordering::Relaxed);
        self.encoder.set_level(self.controller.level(now, waited))?;
        self.session.store_frame(&mut self.encoder, BlobClass::Content, plain, blobs)
    }
}

/// Chunks that will share a frame.
#[derive(Default)]
struct Frame {
    blobs: Vec<(BlobId, u32)>,
    ranges: Vec<Range<usize>>,
    length: usize,
}

impl Frame {
    fn add(&mut self, id: BlobId, range: Range<usize>) {
        self.blobs.push((id, range.len() as u32));
        self.length += range.len();
        self.ranges.push(range);
    }
}
