//! Which chunks of a file stand in the target already: looked at by all cores, ahead of whoever asks.

use crate::base::BlobId;
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
    tasks: Option<Sender<Task>>,
    team: Vec<JoinHandle<()>>,
}

impl Comparing {
    /// Compares with the chunks of a repository.
    pub fn new(repository: &Arc<Repository>) -> Self {
        Self { repository: repository.clone(), tasks: None, team: Vec::new() }
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
        look_at(standing, self.repository.keyring(), &mut entries, &mut Vec::new());
        Share::Done(entries)
    }

    fn tasks(&mut self) -> Option<&Sender<Task>> {
        if self.tasks.is_none() {
            let (tasks, to_do) = unbounded::<Task>();
            let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
            for _ in 0..cores.min(THREADS_MAX) {
                let (to_do, repository) = (to_do.clone(), self.repository.clone());
                let work = move || {
                    let mut buffer = Vec::new();
                    for mut task in to_do {
                        look_at(&task.standing, repository.keyring(), &mut task.entries, &mut buffer);
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

fn look_at(standing: &StandingFile, keyring: &Keyring, entries: &mut [Looked], buffer: &mut Vec<u8>) {
    for looked in entries {
        if let RecipeEntry::Chunk { id, length, .. } = &looked.entry {
            looked.found = look(standing, looked.offset, id, *length, keyring, buffer);
        }
    }
}

/// Says what these bytes of a file are; the buffer is given away with them, where they are not the chunk.
fn look(
    standing: &StandingFile,
    offset: u64,
    id: &BlobId,
    length: u32,
    keyring: &Keyring,
    buffer: &mut Vec<u8>,
) -> Stands {
    if offset.saturating_add(u64::from(length)) > standing.length() {
        return Stands::Nothing;
    }
    let read = standing.read_into(offset, length as usize, buffer);
    if read.is_err() || buffer.len() != length as usize {
        return Stands::Nothing;
    }
    match keyring.blob_id(BlobClass::Content, buffer) {
        Ok(found) if found == *id => Stands::Same,
        Ok(found) => Stands::Other(AtHand { id: found, bytes: std::mem::take(buffer) }),
        Err(_) => Stands::Nothing,
    }
}
