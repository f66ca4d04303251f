//! Which chunks of a file stand in the target already: looked at by all cores, ahead of whoever asks.

use crate::direct::DirectReader;
use crate::format::pack::BlobClass;
use crate::format::recipe::RecipeEntry;
use crate::localfs::StandingFile;
use crate::repo::{Keyring, RepoError, Repository};
use crate::view::AtHand;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::num::NonZero;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Files shorter than this are looked at by whoever asks: passing them on would take longer.
const ALONE_BYTES: u64 = 1 << 20;
/// Bytes of neighbouring chunks that are read at once, at most.
const TOGETHER_BYTES: u64 = 1 << 20;
/// Threads at most.
const THREADS_MAX: usize = 8;

/// An entry of a recipe, and what stands in its place.
pub(super) struct Looked {
    /// Where it belongs.
    pub offset: u64,
    /// The entry.
    pub entry: RecipeEntry,
    /// What stands there.
    pub found: Stands,
}

/// What stands where a chunk belongs.
pub(super) enum Stands {
    /// Nothing, or not all of its length; or it was not looked.
    Nothing,
    /// The chunk itself.
    Same,
    /// Something else of the same length.
    Other(AtHand),
}

/// Neighbouring entries that are looked at together.
pub(super) enum Share {
    /// They have been.
    Done(Vec<Looked>),
    /// Somebody does it.
    Coming(Receiver<Vec<Looked>>),
}

impl Share {
    /// Waits until they have been looked at.
    pub fn wait(self) -> Result<Vec<Looked>, RepoError> {
        match self {
            Self::Done(entries) => Ok(entries),
            Self::Coming(entries) => entries.recv().map_err(|_| RepoError::Internal {
                doing: "comparing with what stands in the target",
                why: "a thread has ended early".to_owned(),
            }),
        }
    }
}

struct Task {
    standing: Arc<StandingFile>,
    entries: Vec<Looked>,
    done: Sender<Vec<Looked>>,
}

/// Threads that compare. They begin with the first file that is worth it, and end with this.
pub(super) struct Comparing {
    repository: Arc<Repository>,
    /// For what is looked at by whoever asks.
    reader: DirectReader,
    tasks: Option<Sender<Task>>,
    team: Vec<JoinHandle<()>>,
}

impl Comparing {
    /// Compares with the chunks of a repository.
    pub fn new(repository: &Arc<Repository>) -> Self {
        Self {
            repository: repository.clone(),
            reader: DirectReader::default(),
            tasks: None,
            team: Vec::new(),
        }
    }

    /// Looks what stands in a file in the place of these entries, at once or soon.
    pub fn look(&mut self, standing: &Arc<StandingFile>, mut entries: Vec<Looked>) -> Share {
        if standing.length() >= ALONE_BYTES
            && let Some(tasks) = self.tasks()
        {
            let (done, coming) = bounded(1);
            match tasks.send(Task { standing: standing.clone(), entries, done }) {
                Ok(()) => return Share::Coming(coming),
                // Nobody is there any more.
                Err(back) => entries = back.into_inner().entries,
            }
        }
        look_at(standing, self.repository.keyring(), &mut entries, &mut self.reader);
        Share::Done(entries)
    }

    fn tasks(&mut self) -> Option<&Sender<Task>> {
        if self.tasks.is_none() {
            let (tasks, to_do) = unbounded::<Task>();
            let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
            for _ in 0..cores.min(THREADS_MAX) {
                let (to_do, repository) = (to_do.clone(), self.repository.clone());
                let work = move || {
                    let mut reader = DirectReader::default();
                    for mut task in to_do {
                        look_at(&task.standing, repository.keyring(), &mut task.entries, &mut reader);
                        // Whoever asked may have had enough.
                        let _ = task.done.send(task.entries);
                    }
                };
                self.team.extend(std::thread::Builder::new().spawn(work));
            }
            self.tasks = (!self.team.is_empty()).then_some(tasks);
        }
        self.tasks.as_ref()
    }
}

impl Drop for Comparing {
    fn drop(&mut self) {
        self.tasks = None;
        for thread in self.team.drain(..) {
            // A panic was noticed by whoever waited for what it did.
            let _ = thread.join();
        }
    }
}

fn look_at(
    standing: &StandingFile,
    keyring: &Keyring,
    mut entries: &mut [Looked],
    reader: &mut DirectReader,
) {
    while !entries.is_empty() {
        let (together, rest) = entries.split_at_mut(neighbours(entries));
        look_together(standing, keyring, together, reader);
        entries = rest;
    }
}

/// Returns how many of the first entries are read at once: chunks that follow on one another.
fn neighbours(entries: &[Looked]) -> usize {
    let mut bytes = 0;
    let fits = |looked: &&Looked| {
        bytes += looked.entry.length();
        matches!(looked.entry, RecipeEntry::Chunk { .. }) && bytes <= TOGETHER_BYTES
    };
    entries.iter().take_while(fits).count().max(1)
}

/// Says what the bytes of a file are where these neighbours belong: they are read once.
fn look_together(
    standing: &StandingFile,
    keyring: &Keyring,
    entries: &mut [Looked],
    reader: &mut DirectReader,
) {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
    let begin = first.offset;
    let end = last.offset.saturating_add(last.entry.length()).min(standing.length());
    let length = end.checked_sub(begin).and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    if length == 0 {
        return;
    }
    // What cannot be read is written anew.
    let Ok(mut bytes) = standing.read_once(begin, length, reader) else { return };
    for looked in entries {
        let RecipeEntry::Chunk { id, length, .. } = &looked.entry else { return };
        let Some((chunk, rest)) = bytes.split_at_checked(*length as usize) else { return };
        bytes = rest;
        looked.found = match keyring.blob_id(BlobClass::Content, chunk) {
            Ok(found) if found == *id => Stands::Same,
            Ok(found) => Stands::Other(AtHand { id: found, bytes: chunk.to_vec() }),
            Err(_) => Stands::Nothing,
        };
    }
}
