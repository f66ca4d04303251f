//! Several streams taken beside each other: each in a lane of its own, their entries then in order.

use super::super::error::OpsError;
use super::engine::Taking;
use super::stream_entry;
use crate::base::{Observer, Phase};
use crate::format::tree::{Content, CutKind, TreeEntry};
use crate::ingest::{Event, FeedError, IngestOptions, ingest_file};
use crate::localfs::printable;
use crate::repo::{RepoError, WriteSession};
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A stream that is to be taken.
#[derive(Debug, Clone)]
pub struct StreamPlan {
    /// Its name in the folder.
    pub name: Vec<u8>,
    /// Its mode.
    pub mode: u32,
    /// How much there will be of it: what takes longest begins first.
    pub weight: u64,
}

/// An observer that wants to stop also when another lane has failed.
struct Together {
    inner: Arc<dyn Observer>,
    failed: Arc<AtomicBool>,
}

impl Observer for Together {
    fn begin(&self, phase: Phase, total_bytes: Option<u64>) {
        self.inner.begin(phase, total_bytes);
    }
    fn advance(&self, phase: Phase, bytes: u64, new_bytes: u64) {
        self.inner.advance(phase, bytes, new_bytes);
    }
    fn end(&self, phase: Phase) {
        self.inner.end(phase);
    }
    fn item(&self, name: &str) {
        self.inner.item(name);
    }
    fn note(&self, text: &str) {
        self.inner.note(text);
    }
    fn warn(&self, text: &str) {
        self.inner.warn(text);
    }
    fn interrupted(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.inner.interrupted()
    }
}

/// Where one of several streams goes.
pub struct Lane<'a> {
    session: &'a WriteSession,
    ingest: IngestOptions,
    entry: TreeEntry,
    before: Option<Content>,
    observer: Arc<dyn Observer>,
    taken: Option<Box<TreeEntry>>,
}

impl Lane<'_> {
    /// Returns an observer that wants to stop also when another stream has failed.
    pub fn observer(&self) -> Arc<dyn Observer> {
        self.observer.clone()
    }

    /// Takes the stream, to its end; returns its length.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or the pipeline has stopped.
    pub fn take(&mut self, reader: &mut dyn Read) -> Result<u64, OpsError> {
        let name = self.entry.name.clone();
        let mut length = 0;
        let taken = ingest_file(self.session, &self.ingest, |feeder| {
            feeder.file(Box::new(self.entry.clone()), self.before.as_ref())?;
            let end = feeder.stream(reader, CutKind::Stream).map_err(|error| match error {
                FeedError::Source(source) => OpsError::Read { name: printable(&name), source },
                FeedError::Pipeline(error) => error.into(),
            })?;
            length = end.length;
            Ok::<_, OpsError>(())
        })?;
        self.taken = Some(taken);
        Ok(length)
    }
}

impl Taking<'_> {
    /// Takes several streams, whose names ascend, into the present folder, up to `jobs` at a time. `run` is
    /// called for each, by its number, on one of several threads, and takes it with [`Lane::take`]. Returns
    /// what `run` returned, in the order of the streams.
    ///
    /// # Errors
    ///
    /// The first that `run` returned: what else is under way then is told to stop.
    pub fn streams<T: Send, E: From<OpsError> + Send>(
        &mut self,
        plans: &[StreamPlan],
        jobs: usize,
        run: impl Fn(usize, &mut Lane<'_>) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, E> {
        let jobs = jobs.clamp(1, plans.len().max(1));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = if self.ingest.workers == 0 { cores } else { self.ingest.workers };
        let ingest = IngestOptions { workers: (workers / jobs).max(1), ..self.ingest };
        let failed = Arc::new(AtomicBool::new(false));
        let inner = self.files.session.repository().environment().observer.clone();
        let observer: Arc<dyn Observer> = Arc::new(Together { inner, failed: failed.clone() });
        let mut lanes = Vec::with_capacity(plans.len());
        for (number, plan) in plans.iter().enumerate() {
            let before = self.files.before(&plan.name);
            let entry = TreeEntry { mode: plan.mode, ..stream_entry(&plan.name, self.started) };
            let session = self.files.session;
            let observer = observer.clone();
            lanes.push((number, Lane { session, ingest, entry, before, observer, taken: None }));
        }
        lanes.sort_by_key(|(number, _)| std::cmp::Reverse(plans.get(*number).map_or(0, |plan| plan.weight)));
        let lanes: Vec<_> = lanes.into_iter().map(|lane| Mutex::new(Some(lane))).collect();
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<(usize, Box<TreeEntry>, T)>> = Mutex::new(Vec::new());
        let first: Mutex<Option<E>> = Mutex::new(None);
        let work = || {
            while !failed.load(Ordering::Relaxed) {
                let waiting = lanes.get(next.fetch_add(1, Ordering::Relaxed));
                let lane =
                    waiting.and_then(|lane| lane.lock().unwrap_or_else(PoisonError::into_inner).take());
                let Some((number, mut lane)) = lane else { return };
                let result = run(number, &mut lane).and_then(|value| {
                    let missing = || {
                        OpsError::Repo(RepoError::Internal {
                            doing: "taking several streams",
                            why: format!("{} was not taken", printable(&lane.entry.name)),
                        })
                    };
                    Ok((number, lane.taken.take().ok_or_else(missing)?, value))
                });
                match result {
                    Ok(taken) => done.lock().unwrap_or_else(PoisonError::into_inner).push(taken),
                    Err(error) => {
                        // Those that stop because of this one come later.
                        first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        failed.store(true, Ordering::Relaxed);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..jobs {
                scope.spawn(work);
            }
            work();
        });
        if let Some(error) = first.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(number, ..)| *number);
        let mut values = Vec::with_capacity(done.len());
        for (_, entry, value) in done {
            self.feeder.event(Event::Node(entry)).map_err(OpsError::from)?;
            values.push(value);
        }
        Ok(values)
    }
}
