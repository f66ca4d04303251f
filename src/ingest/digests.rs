//! The digest of a long stream, by a thread of its own.
//!
//! A digest goes through a stream from its start, as the cutter does; together they would be all that bounds a stream
//! of which nothing is new. So the feeder leaves the bytes of a long stream in their batches, and this thread
//! digests those while workers look at them.

use super::batch::Shared;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::ops::Range;
use std::sync::Arc;

enum Job {
    /// A digest begins, or goes on.
    Begin(Box<blake3::Hasher>),
    /// Its next bytes.
    Update(Arc<Shared>, Range<usize>),
    /// It is wanted back.
    Return,
}

/// The thread waits here for bytes.
pub(super) struct DigestThread {
    jobs: Receiver<Job>,
    finished: Sender<Box<blake3::Hasher>>,
}

impl DigestThread {
    /// Digests until the feeder is gone.
    pub fn run(&self) {
        let mut hasher = Box::default();
        for job in &self.jobs {
            match job {
                Job::Begin(begun) => hasher = begun,
                Job::Update(bytes, range) => {
                    hasher.update(bytes.get(range).unwrap_or_default());
                }
                Job::Return => {
                    // The feeder has stopped if nobody takes it.
                    let _ = self.finished.send(std::mem::take(&mut hasher));
                }
            }
        }
    }
}

/// The feeder's end.
pub(super) struct DigestAway {
    jobs: Sender<Job>,
    finished: Receiver<Box<blake3::Hasher>>,
    /// Whether the thread has the digest.
    is_away: bool,
}

impl DigestAway {
    /// Makes both ends; so many batches may wait.
    pub fn new(batches: usize) -> (Self, DigestThread) {
        let (jobs, waiting) = bounded(batches);
        let (finished, taken) = bounded(1);
        (Self { jobs, finished: taken, is_away: false }, DigestThread { jobs: waiting, finished })
    }

    /// Says whether the thread has the digest.
    pub fn is_away(&self) -> bool {
        self.is_away
    }

    /// Gives the digest to the thread; `None` if that is gone.
    pub fn begin(&mut self, digest: &mut blake3::Hasher) -> Option<()> {
        self.is_away = true;
        self.jobs.send(Job::Begin(Box::new(std::mem::take(digest)))).ok()
    }

    /// Has the thread go on with these bytes; `None` if it is gone.
    pub fn update(&self, bytes: &Arc<Shared>, range: Range<usize>) -> Option<()> {
        self.jobs.send(Job::Update(bytes.clone(), range)).ok()
    }

    /// Takes the digest back when the thread has come to the end of what it was given; `None` if it is gone.
    pub fn take_back(&mut self, digest: &mut blake3::Hasher) -> Option<()> {
        self.is_away = false;
        self.jobs.send(Job::Return).ok()?;
        *digest = *self.finished.recv().ok()?;
        Some(())
    }
}
