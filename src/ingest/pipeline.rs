//! The threads of the write path and the channels between them.

use super::ahead::{CutAhead, threads_for};
use super::along::Along;
use super::assembler::{Assembler, Built, Failure, TreeCounts};
use super::batch::{Batch, Processed};
use super::digests::DigestAway;
use super::effort::{Controller, Effort};
use super::feeder::{BatchSizes, Feeder, Joints};
use super::worker::Worker;
use crate::base::BlobId;
use crate::chunker::{Cutter, GearTable};
use crate::format::pack::BlobClass;
use crate::format::tree::TreeEntry;
use crate::repo::{RepoError, WriteSession};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

/// Memory for batches, whatever the number of cores.
const BATCH_MEMORY_BYTES: usize = 48 << 20;
/// A batch is no longer than this: a few frames, that stay in the cache of one core.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Workers at most: each holds compression contexts of some MiB.
const WORKERS_MAX: usize = 12;

/// How to ingest.
#[derive(Debug, Clone, Copy)]
pub struct IngestOptions {
    /// How hard content is compressed.
    pub effort: Effort,
    /// Plain bytes of neighbouring new chunks that share a frame.
    pub frame_bytes: usize,
    /// Stores new chunks as differences against what their files held before, where that pays and
    /// they can be read: from the base cache if it is open, else from the repository.
    pub differences: bool,
    /// Workers; 0 takes one a core.
    pub workers: usize,
}

/// What came of it; a snapshot may refer to the root once the session is finished.
#[derive(Debug, Clone, Copy)]
pub struct Ingested {
    /// The root of the tree.
    pub root: BlobId,
    /// What stands in it.
    pub counts: TreeCounts,
}

struct Stop<'a>(&'a Mutex<Option<RepoError>>);

impl Stop<'_> {
    fn is_set(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Remembers the first error that means something; [`RepoError::Interrupted`] only says that
    /// another thread has stopped.
    fn set(&self, error: RepoError) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*held {
            None | Some(RepoError::Interrupted) => *held = Some(error),
            Some(_) => {}
        }
    }
}

/// Runs the pipeline while `feed` fills it, and returns the root of the tree that was fed.
///
/// # Errors
///
/// What `feed` returned, or what stopped the pipeline under it. Nothing refers to what was stored.
pub fn ingest<E: From<RepoError>>(
    session: &WriteSession,
    options: &IngestOptions,
    feed: impl FnOnce(&mut Feeder) -> Result<(), E>,
) -> Result<Ingested, E> {
    match run(session, options, Assembler::new(session)?, feed)? {
        Built::Tree(root, counts) => Ok(Ingested { root, counts }),
        Built::File(_) => Err(not_as_asked().into()),
    }
}

/// Runs a pipeline of its own for one file, which `feed` feeds, and returns its entry with its content.
/// So several streams are taken in beside each other; whoever feeds the tree then feeds them as nodes.
///
/// # Errors
///
/// As [`ingest`].
pub fn ingest_file<E: From<RepoError>>(
    session: &WriteSession,
    options: &IngestOptions,
    feed: impl FnOnce(&mut Feeder) -> Result<(), E>,
) -> Result<Box<TreeEntry>, E> {
    match run(session, options, Assembler::of_one_file(session)?, feed)? {
        Built::File(entry) => Ok(entry),
        Built::Tree(..) => Err(not_as_asked().into()),
    }
}

fn not_as_asked() -> RepoError {
    RepoError::Internal { doing: "building a tree", why: "something else was built".to_owned() }
}

fn run<E: From<RepoError>>(
    session: &WriteSession,
    options: &IngestOptions,
    assembler: Assembler<'_>,
    feed: impl FnOnce(&mut Feeder) -> Result<(), E>,
) -> Result<Built, E> {
    let repository = session.repository();
    let parameters = repository.cut_parameters();
    let table = Arc::new(GearTable::derive(repository.keyring().chunker_seed()?));
    let ids = repository.keyring().id_key(BlobClass::Content)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = if options.workers == 0 { cores } else { options.workers }.clamp(1, WORKERS_MAX);
    let cutters = threads_for(workers);
    let (ahead, to_cut) = CutAhead::new(cutters);
    let ahead = (cutters > 0).then_some(ahead);
    // One at each worker and one that waits for it; two, or those being cut ahead, at the feeder.
    let batches = 2 * workers + ahead.as_ref().map_or(2, |ahead| ahead.depth);
    let longest = parameters.maximum().max(repository.page_chunk_bytes()) as usize;
    let batch_bytes = (BATCH_MEMORY_BYTES / batches).clamp(longest, BATCH_BYTES_MAX);
    let (give_back, free) = bounded(batches);
    for _ in 0..batches {
        // The channel has room for all of them and its other end is held here.
        let _ = give_back.send(vec![0; batch_bytes + longest]);
    }
    let (work, to_process) = bounded::<Batch>(batches);
    let (done, to_assemble) = bounded::<Processed>(batches);
    let (digest, to_digest) = DigestAway::new(batches);
    let (at_work, workers_at_work) = bounded::<Infallible>(0);
    let failure = Mutex::new(None);
    let stop = Stop(&failure);
    let controller = Controller::new(options.effort, workers);
    let mut encoders = (0..workers)
        .map(|_| Worker::new(session, &controller, options.frame_bytes))
        .collect::<Result<Vec<_>, _>>()?;
    let (ended, counted) = bounded(1);
    let mut feeder = Feeder::new(
        repository,
        table.clone(),
        BatchSizes { fill_bytes: batch_bytes, longest_chunk: longest },
        options.differences,
        Joints { free, give_back, work, workers: workers_at_work, digest, ahead },
    )?;
    let (fed, assembled) = std::thread::scope(|scope| {
        for worker in encoders.drain(..) {
            let (to_process, done, at_work) = (to_process.clone(), done.clone(), at_work.clone());
            let stop = &stop;
            scope.spawn(move || {
                run_worker(worker, &to_process, &done, stop);
                drop(at_work);
            });
        }
        scope.spawn(move || to_digest.run());
        for _ in 0..cutters {
            let (to_cut, table) = (&to_cut, &table);
            scope.spawn(move || {
                let cutter = Cutter::new(table, parameters);
                to_cut.run(&cutter, &Along::new(&cutter, parameters, ids));
            });
        }
        drop((to_process, done, at_work));
        let assembling = {
            let stop = &stop;
            scope.spawn(move || run_assembler(assembler, &to_assemble, &counted, stop))
        };
        let fed = feed(&mut feeder).and_then(|()| feeder.finish().map_err(E::from));
        let fed = fed.map(|batches| {
            // The assembler waits for this number; if it is gone it has said why.
            let _ = ended.send(batches);
        });
        drop(ended);
        (fed, assembling.join())
    });
    let failed = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    match (fed, failed, assembled) {
        // What the source or its caller said comes first, unless it is only an echo of the pipeline's end.
        (_, Some(error), _) if !matches!(error, RepoError::Interrupted) => Err(error.into()),
        (Err(error), ..) => Err(error),
        (Ok(()), None, Ok(Some(built))) => Ok(built),
        (Ok(()), Some(error), _) => Err(error.into()),
        (Ok(()), None, _) => Err(session.check().err().unwrap_or(RepoError::Interrupted).into()),
    }
}

fn run_worker(
    mut worker: Worker<'_>,
    to_process: &Receiver<Batch>,
    done: &Sender<Processed>,
    stop: &Stop<'_>,
) {
    for batch in to_process {
        if stop.is_set() {
            return;
        }
        match worker.process(batch) {
            Ok(processed) => {
                // The other end is gone only when the pipeline has stopped.
                if done.send(processed).is_err() {
                    return;
                }
            }
            Err(error) => {
                stop.set(error);
                return;
            }
        }
    }
}

fn run_assembler(
    mut assembler: Assembler<'_>,
    to_assemble: &Receiver<Processed>,
    counted: &Receiver<u64>,
    stop: &Stop<'_>,
) -> Option<Built> {
    let assembled = to_assemble.iter().try_for_each(|processed| assembler.take(processed)).and_then(|()| {
        match counted.recv() {
            Ok(batches) => assembler.finish(batches).map(Some),
            Err(_) => Ok(None),
        }
    });
    assembled.unwrap_or_else(|Failure(error)| {
        stop.set(error);
        None
    })
}
