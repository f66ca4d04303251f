//! What is to be done, step by step: the snapshot's tree laid over what stands in the target.
//!
//! This side only reads. It runs ahead of the side that writes by as much as the stream of pieces
//! is deep, so the steps carry all that the writer needs to know; and it serves the preview alike,
//! which takes the steps and writes nothing.

use super::compare::{Comparing, Looked, Share, Stands};
use crate::base::{Observer, Phase};
use crate::format::recipe::{RecipeEntry, RecipeNode, RecipeRoot};
use crate::format::tree::{Content, EntryKind, TreeEntry};
use crate::localfs::{StandingFile, TEMPORARY_PREFIX, TargetFolder};
use crate::ops::listing::Found;
use crate::repo::{BlobReader, Pieces, RepoError, Repository};
use crate::view::{TreeWalk, WalkEvent, Wanted};
use std::collections::{HashMap, VecDeque};
use std::iter::Peekable;
use std::sync::Arc;
use std::vec::IntoIter;

/// One step. A file is `File`, its pieces and holes, `End`.
pub(super) enum Step {
    /// A folder: what follows until its `Leave` lies in it.
    Enter(Arc<TreeEntry>),
    /// The end of the innermost folder; the root of a snapshot has no entry.
    Leave {
        /// The folder.
        entry: Option<Arc<TreeEntry>>,
        /// Unfinished files of earlier restores lie in it and are to go.
        tidy: bool,
    },
    /// Anything without content.
    Other(Box<TreeEntry>),
    /// Another name of a file that came before, by its path below the target.
    Link(Box<TreeEntry>, Arc<[u8]>),
    /// A file begins.
    File(Box<FileStart>),
    /// A piece of the file, whose bytes come with it.
    Piece {
        /// Where it belongs.
        offset: u64,
        /// How long it is.
        length: u32,
    },
    /// Zeros of the file that are not stored.
    Hole {
        /// Where they belong.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// The file is complete.
    End {
        /// Bytes that stand there already.
        same_bytes: u64,
        /// Where its recipe ends early, and why.
        broken: Option<(u64, RepoError)>,
    },
    /// Something that the snapshot does not have is to go.
    Remove(Vec<u8>),
    /// The content of the innermost folder cannot be read, or not from here on.
    Unreadable(RepoError),
}

/// How a file begins.
pub(super) struct FileStart {
    /// The file.
    pub entry: TreeEntry,
    /// Device and inode of the file that it was compared with.
    pub standing: Option<(u64, u64)>,
    /// Parts of it are holes: no space is to be taken for them.
    pub has_holes: bool,
}

/// A folder of the target, as far as it exists.
#[derive(Default)]
struct View {
    folder: Option<TargetFolder>,
    /// What stands there, if what the snapshot does not have is to go.
    names: Option<Peekable<IntoIter<Vec<u8>>>>,
    tidy: bool,
}

impl View {
    fn new(folder: Option<TargetFolder>, delete: bool) -> Self {
        let mut view = Self { folder, names: None, tidy: false };
        if let Some(names) = view.folder.as_ref().filter(|_| delete).and_then(|folder| folder.names().ok()) {
            let (unfinished, names): (Vec<_>, Vec<_>) =
                names.into_iter().partition(|name| name.starts_with(TEMPORARY_PREFIX.as_bytes()));
            view.tidy = !unfinished.is_empty();
            view.names = Some(names.into_iter().peekable());
        }
        view
    }

    /// Returns the next name that stands before `name` (or at all) and not in the snapshot.
    fn superfluous(&mut self, name: Option<&[u8]>) -> Option<Vec<u8>> {
        let names = self.names.as_mut()?;
        names.next_if(|standing| name.is_none_or(|name| standing.as_slice() < name))
    }

    fn passed(&mut self, name: &[u8]) {
        if let Some(names) = &mut self.names {
            names.next_if(|standing| standing == name);
        }
    }
}

/// Entries of a recipe that are looked at together.
const SHARE_ENTRIES: usize = 8;
/// Shares that are looked at ahead at most, however little is in them.
const AHEAD_SHARES: usize = 64;
/// Bytes of chunks that are looked at ahead, since those that differ are kept.
const AHEAD_BYTES: u64 = 16 << 20;

/// The file whose recipe is being read.
struct OpenFile {
    pieces: Pieces,
    standing: Option<Arc<StandingFile>>,
    /// Where the next entry of the recipe begins.
    offset: u64,
    /// Entries that were looked at and not yet made steps.
    now: IntoIter<Looked>,
    /// Those behind them: what is being looked at, where it begins, and how long it is.
    ahead: VecDeque<(Share, u64, u64)>,
    ahead_bytes: u64,
    /// The recipe was read to its end, or as far as it can be: why.
    ended: Option<Option<(u64, RepoError)>>,
    same_bytes: u64,
}

/// The first name of a file that has several.
struct FirstName {
    path: Arc<[u8]>,
    content: [u8; 32],
    names_left: u64,
}

enum Tree {
    Walk(Box<TreeWalk>),
    One(Option<Box<TreeEntry>>),
    Done,
}

/// How the steps are made.
pub(super) struct StepOptions {
    /// What the snapshot does not have is to go.
    pub delete: bool,
    /// What stands in the target is read and compared.
    pub compare: bool,
}

/// Makes the steps; an iterator for the stream of pieces.
pub(super) struct Steps {
    observer: Arc<dyn Observer>,
    reader: BlobReader,
    tree: Tree,
    top: Option<Arc<TreeEntry>>,
    views: Vec<View>,
    options: StepOptions,
    file: Option<OpenFile>,
    first_names: HashMap<(u64, u64), FirstName>,
    queue: VecDeque<Wanted<Step>>,
    comparing: Comparing,
}

impl Steps {
    /// Lays what was found in a snapshot over a target; `None` for one that does not exist.
    pub fn new(
        repository: &Arc<Repository>,
        found: &Found,
        target: Option<TargetFolder>,
        options: StepOptions,
    ) -> Result<Self, RepoError> {
        let (tree, top) = match found {
            Found::Folder { entry, content } => {
                let top = entry.as_ref().map(|entry| Arc::new((**entry).clone()));
                (Tree::Walk(Box::new(TreeWalk::new(repository, *content)?)), top)
            }
            Found::Leaf(entry) => (Tree::One(Some(entry.clone())), None),
        };
        Ok(Self {
            observer: repository.environment().observer.clone(),
            reader: BlobReader::new(repository)?,
            tree,
            top,
            views: vec![View::new(target, options.delete)],
            options,
            file: None,
            first_names: HashMap::new(),
            queue: VecDeque::new(),
            comparing: Comparing::new(repository),
        })
    }

    fn mark(&mut self, step: Step) {
        self.queue.push_back(Wanted::mark(step));
    }

    /// Marks for removal what stands in the innermost folder before a name, or up to its end.
    fn remove_before(&mut self, name: Option<&[u8]>) {
        while let Some(superfluous) = self.views.last_mut().and_then(|view| view.superfluous(name)) {
            self.mark(Step::Remove(superfluous));
        }
        if let (Some(name), Some(view)) = (name, self.views.last_mut()) {
            view.passed(name);
        }
    }

    /// Takes the next step of the walk; false at its end.
    fn advance(&mut self) -> bool {
        let (event, path) = match &mut self.tree {
            Tree::Done => return false,
            Tree::One(entry) => match entry.take() {
                Some(entry) => {
                    let path = entry.name.clone();
                    (Some(WalkEvent::Leaf(entry)), path)
                }
                None => (None, Vec::new()),
            },
            Tree::Walk(walk) => {
                let event = walk.next();
                let hard_linked =
                    matches!(&event, Some(WalkEvent::Leaf(entry)) if entry.links.is_some_and(|n| n > 1));
                let path = if hard_linked { walk.path().to_vec() } else { Vec::new() };
                (event, path)
            }
        };
        match event {
            Some(WalkEvent::Enter(entry)) => {
                self.remove_before(Some(&entry.name));
                let below = self
                    .views
                    .last()
                    .filter(|_| self.options.compare || self.options.delete)
                    .and_then(|view| view.folder.as_ref())
                    .and_then(|folder| folder.look_into(&entry.name));
                self.views.push(View::new(below, self.options.delete));
                self.mark(Step::Enter(entry));
            }
            Some(WalkEvent::Leaf(entry)) => {
                self.remove_before(Some(&entry.name));
                self.leaf(*entry, path);
            }
            Some(WalkEvent::Leave(entry)) => self.leave(Some(entry)),
            Some(WalkEvent::Problem(error)) => {
                // What else belongs there is not known, so nothing may go.
                if let Some(view) = self.views.last_mut() {
                    view.names = None;
                }
                self.mark(Step::Unreadable(error));
            }
            None => {
                self.tree = Tree::Done;
                let top = self.top.take();
                self.leave(top);
            }
        }
        true
    }

    fn leave(&mut self, entry: Option<Arc<TreeEntry>>) {
        self.remove_before(None);
        let tidy = self.views.pop().is_some_and(|view| view.tidy);
        self.mark(Step::Leave { entry, tidy });
    }

    fn leaf(&mut self, entry: TreeEntry, path: Vec<u8>) {
        if entry.kind != EntryKind::File {
            return self.mark(Step::Other(Box::new(entry)));
        }
        if let Some(first) = self.first_name(&entry, path) {
            return self.mark(Step::Link(Box::new(entry), first));
        }
        self.file(entry);
    }

    /// Returns the path under which the same file came before, if it did.
    fn first_name(&mut self, entry: &TreeEntry, path: Vec<u8>) -> Option<Arc<[u8]>> {
        let (device, inode) = (entry.device?, entry.inode?);
        let links = entry.links.filter(|links| *links > 1)?;
        let identity = (device, inode);
        let content = fingerprint(entry.content.as_ref()?);
        let Some(first) = self.first_names.get_mut(&identity) else {
            let first = FirstName { path: path.into(), content, names_left: links - 1 };
            self.first_names.insert(identity, first);
            return None;
        };
        // Two files with one number were never one file if their content differs.
        if first.content != content {
            return None;
        }
        first.names_left -= 1;
        let path = first.path.clone();
        if first.names_left == 0 {
            self.first_names.remove(&identity);
        }
        Some(path)
    }

    fn file(&mut self, entry: TreeEntry) {
        let folder = self.views.last().and_then(|view| view.folder.as_ref());
        let standing = folder
            .filter(|_| self.options.compare)
            .and_then(|folder| folder.standing_file(&entry.name).ok().flatten());
        let start = |entry, has_holes| {
            let standing = standing.as_ref().map(StandingFile::identity);
            Step::File(Box::new(FileStart { entry, standing, has_holes }))
        };
        let opened = match &entry.content {
            Some(content) => has_holes(&mut self.reader, content)
                .and_then(|holes| Ok((holes, Pieces::open(&mut self.reader, content)?))),
            // The format has no file without content.
            None => return,
        };
        match opened {
            Ok((has_holes, pieces)) => {
                let start = start(entry, has_holes);
                self.mark(start);
                self.file = Some(OpenFile {
                    pieces,
                    standing: standing.map(Arc::new),
                    offset: 0,
                    now: Vec::new().into_iter(),
                    ahead: VecDeque::new(),
                    ahead_bytes: 0,
                    ended: None,
                    same_bytes: 0,
                });
            }
            Err(error) => {
                let start = start(entry, false);
                self.mark(start);
                self.mark(Step::End { same_bytes: 0, broken: Some((0, error)) });
            }
        }
    }

    /// Takes the next piece of the file at hand that has to be written, or its end.
    fn piece(&mut self, file: &mut OpenFile) -> Option<Wanted<Step>> {
        loop {
            let Some(Looked { offset, entry, found }) = file.now.next() else {
                self.look_ahead(file);
                let Some((share, from, bytes)) = file.ahead.pop_front() else {
                    let broken = file.ended.take().flatten();
                    return Some(Wanted::mark(Step::End { same_bytes: file.same_bytes, broken }));
                };
                file.ahead_bytes -= bytes;
                match share.wait() {
                    Ok(entries) => file.now = entries.into_iter(),
                    Err(error) => {
                        file.ahead.clear();
                        file.ended = Some(Some((from, error)));
                    }
                }
                continue;
            };
            match (entry, found) {
                (RecipeEntry::Hole { length }, _) => {
                    return Some(Wanted::mark(Step::Hole { offset, length }));
                }
                (RecipeEntry::Chunk { id, length, .. }, Stands::Nothing) => {
                    return Some(Wanted::piece(Step::Piece { offset, length }, id, length));
                }
                (RecipeEntry::Chunk { id, length, .. }, Stands::Other(other)) => {
                    let step = Step::Piece { offset, length };
                    return Some(Wanted::piece_instead_of(step, id, length, Some(other)));
                }
                (RecipeEntry::Chunk { length, .. }, Stands::Same) => {
                    file.same_bytes += u64::from(length);
                    self.observer.advance(Phase::Restore, u64::from(length), 0);
                    if self.observer.interrupted() {
                        return None;
                    }
                }
            }
        }
    }

    /// Reads on in the recipe, and has somebody look which of these chunks stand there already.
    fn look_ahead(&mut self, file: &mut OpenFile) {
        while file.ended.is_none()
            && (file.ahead.is_empty() || file.ahead_bytes < AHEAD_BYTES)
            && file.ahead.len() < AHEAD_SHARES
        {
            let most = if file.standing.is_some() { SHARE_ENTRIES } else { 1 };
            let (from, mut entries, mut bytes) = (file.offset, Vec::new(), 0);
            while entries.len() < most && file.ended.is_none() {
                let offset = file.offset;
                match file.pieces.next(&mut self.reader) {
                    Ok(Some(entry)) => {
                        let length = match &entry {
                            RecipeEntry::Chunk { length, .. } => u64::from(*length),
                            RecipeEntry::Hole { length } => *length,
                        };
                        bytes += if matches!(entry, RecipeEntry::Chunk { .. }) { length } else { 0 };
                        file.offset = offset.saturating_add(length);
                        entries.push(Looked { offset, entry, found: Stands::Nothing });
                    }
                    Ok(None) => file.ended = Some(None),
                    Err(error) => file.ended = Some(Some((offset, error))),
                }
            }
            if entries.is_empty() {
                return;
            }
            let share = match &file.standing {
                Some(standing) => self.comparing.look(standing, entries),
                None => Share::Done(entries),
            };
            file.ahead_bytes += bytes;
            file.ahead.push_back((share, from, bytes));
            if file.standing.is_none() {
                return;
            }
        }
    }
}

impl Iterator for Steps {
    type Item = Wanted<Step>;

    fn next(&mut self) -> Option<Wanted<Step>> {
        loop {
            if let Some(step) = self.queue.pop_front() {
                return Some(step);
            }
            if self.observer.interrupted() {
                return None;
            }
            if let Some(mut file) = self.file.take() {
                let step = self.piece(&mut file)?;
                if !matches!(step.tag, Step::End { .. }) {
                    self.file = Some(file);
                }
                return Some(step);
            }
            if !self.advance() {
                return None;
            }
        }
    }
}

/// Tells contents apart in 32 bytes, however long their recipes are.
fn fingerprint(content: &Content) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&content.length.to_le_bytes());
    match &content.recipe {
        RecipeRoot::Node(id) => {
            hasher.update(id.as_bytes());
        }
        RecipeRoot::Inline(RecipeNode::Leaf { entries, .. }) => {
            for entry in entries {
                let (id, length) = match entry {
                    RecipeEntry::Chunk { id, length, .. } => (*id.as_bytes(), u64::from(*length)),
                    RecipeEntry::Hole { length } => ([0; 32], *length),
                };
                hasher.update(&id).update(&length.to_le_bytes());
            }
        }
        RecipeRoot::Inline(RecipeNode::Branch { children, .. }) => {
            for child in children {
                hasher.update(child.id.as_bytes());
            }
        }
    }
    *hasher.finalize().as_bytes()
}

/// Says whether a file has holes: long recipes are read through for it, a node a gibibyte or so.
fn has_holes(reader: &mut BlobReader, content: &Content) -> Result<bool, RepoError> {
    if let RecipeRoot::Inline(RecipeNode::Leaf { entries, .. }) = &content.recipe {
        return Ok(entries.iter().any(|entry| matches!(entry, RecipeEntry::Hole { .. })));
    }
    let mut pieces = Pieces::open(reader, content)?;
    // A recipe that ends early shows when it is read in earnest.
    while let Ok(Some(entry)) = pieces.next(reader) {
        if matches!(entry, RecipeEntry::Hole { .. }) {
            return Ok(true);
        }
    }
    Ok(false)
}
