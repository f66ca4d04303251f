//! Puts outcomes back in order and builds recipes and trees from them, bottom-up.

use super::batch::{Event, FileEnd, Outcome, Processed};
use super::metadata::MetadataWriter;
use crate::base::BlobId;
use crate::chunker::SKETCH_ALGORITHM;
use crate::format::FormatError;
use crate::format::recipe::{RecipeBuilder, RecipeEntry};
use crate::format::tree::{Content, ContentDigest, EntryKind, TreeBuilder, TreeEntry};
use crate::repo::{RepoError, WriteSession};
use std::collections::BTreeMap;

/// What stands in the tree that was built.
#[derive(Debug, Clone, Copy, Default)]
pub struct TreeCounts {
    /// Regular files and streams.
    pub files: u64,
    /// Folders.
    pub directories: u64,
    /// Links, pipes, sockets, devices.
    pub others: u64,
    /// Bytes of all files and streams.
    pub bytes: u64,
}

/// An error on the way into the repository: of the layer itself, or of an encoder.
#[derive(Debug)]
pub(super) struct Failure(pub RepoError);

impl From<RepoError> for Failure {
    fn from(error: RepoError) -> Self {
        Self(error)
    }
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Self {
        Self(RepoError::damaged("a tree being written")(error))
    }
}

struct OpenFolder {
    entry: Option<Box<TreeEntry>>,
    builder: TreeBuilder,
    /// Entries that come in any order, by name, until the folder closes.
    waiting: Option<BTreeMap<Vec<u8>, Box<TreeEntry>>>,
}

impl OpenFolder {
    fn new(entry: Option<Box<TreeEntry>>) -> Self {
        Self { entry, builder: TreeBuilder::new(), waiting: None }
    }
}

struct OpenFile {
    entry: Box<TreeEntry>,
    recipe: RecipeBuilder,
}

/// The single thread that sees everything in order.
pub(super) struct Assembler<'a> {
    metadata: MetadataWriter<'a>,
    waiting: BTreeMap<u64, Vec<Outcome>>,
    next: u64,
    folders: Vec<OpenFolder>,
    file: Option<OpenFile>,
    counts: TreeCounts,
    /// The file, where there is to be one and no tree.
    lone: Option<Option<Box<TreeEntry>>>,
}

/// What was built.
pub(super) enum Built {
    /// A tree, by its root.
    Tree(BlobId, TreeCounts),
    /// One file.
    File(Box<TreeEntry>),
}

fn out_of_order(what: &str) -> Failure {
    Failure(RepoError::Internal { doing: "building a tree", why: format!("{what} came out of order") })
}

impl<'a> Assembler<'a> {
    pub fn new(session: &'a WriteSession) -> Result<Self, RepoError> {
        Ok(Self {
            metadata: MetadataWriter::new(session)?,
            waiting: BTreeMap::new(),
            next: 0,
            folders: vec![OpenFolder::new(None)],
            file: None,
            counts: TreeCounts::default(),
            lone: None,
        })
    }

    /// Builds the content of one file, and no tree around it.
    pub fn of_one_file(session: &'a WriteSession) -> Result<Self, RepoError> {
        Ok(Self { lone: Some(None), ..Self::new(session)? })
    }

    /// Takes what a worker made of a batch, in whatever order batches come.
    pub fn take(&mut self, processed: Processed) -> Result<(), Failure> {
        self.waiting.insert(processed.sequence, processed.outcomes);
        while let Some(outcomes) = self.waiting.remove(&self.next) {
            self.next += 1;
            for outcome in outcomes {
                self.step(outcome)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, outcome: Outcome) -> Result<(), Failure> {
        match outcome {
            Outcome::Chunk { id, length, sketch } => self.piece(RecipeEntry::Chunk { id, length, sketch }),
            Outcome::Event(Event::Hole(length)) => self.piece(RecipeEntry::Hole { length }),
            Outcome::Event(event) => self.event(event),
        }
    }

    fn piece(&mut self, entry: RecipeEntry) -> Result<(), Failure> {
        let metadata = &mut self.metadata;
        let file = self.file.as_mut().ok_or_else(|| out_of_order("a chunk"))?;
        file.recipe.push(entry, |node| metadata.put(node).map_err(Failure))
    }

    fn event(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Chunk { .. } | Event::Hole(_) => Err(out_of_order("a chunk")),
            Event::Folder(entry) => {
                self.folders.push(OpenFolder::new(Some(entry)));
                Ok(())
            }
            Event::AnyOrder => {
                let folder = self.folders.last_mut().ok_or_else(|| out_of_order("an order"))?;
                folder.waiting.get_or_insert_default();
                Ok(())
            }
            Event::Close => {
                let mut folder = self.folders.pop().ok_or_else(|| out_of_order("the end of a folder"))?;
                let entry = folder.entry.take().ok_or_else(|| out_of_order("the end of a folder"));
                let mut entry = entry?;
                entry.subtree = Some(self.close(folder)?);
                self.add(entry)
            }
            Event::File { entry, .. } => {
                let recipe = RecipeBuilder::new(SKETCH_ALGORITHM);
                self.file = Some(OpenFile { entry, recipe });
                Ok(())
            }
            Event::End(end) => self.end(&end),
            Event::Drop => {
                self.file = None;
                Ok(())
            }
            Event::Node(entry) => self.add(entry),
        }
    }

    fn end(&mut self, end: &FileEnd) -> Result<(), Failure> {
        let file = self.file.take().ok_or_else(|| out_of_order("the end of a file"))?;
        let metadata = &mut self.metadata;
        let recipe = file.recipe.finish(|node| metadata.put(node).map_err(Failure))?;
        if recipe.plain_bytes != end.length {
            return Err(out_of_order("chunks of another length than the file's"));
        }
        let mut entry = file.entry;
        entry.size = Some(end.length);
        entry.content = Some(Content {
            length: end.length,
            digest: end.digest.map(ContentDigest::Blake3),
            recipe: recipe.root,
            cut: end.cut,
            read: end.read,
            extra: Vec::new(),
        });
        self.add(entry)
    }

    fn add(&mut self, entry: Box<TreeEntry>) -> Result<(), Failure> {
        match entry.kind {
            EntryKind::File => self.counts.files += 1,
            EntryKind::Directory => self.counts.directories += 1,
            _ => self.counts.others += 1,
        }
        if let Some(lone) = &mut self.lone {
            return match lone.replace(entry) {
                None => Ok(()),
                Some(_) => Err(out_of_order("a second file")),
            };
        }
        self.counts.bytes += entry.content.as_ref().map_or(0, |content| content.length);
        let metadata = &mut self.metadata;
        let folder = self.folders.last_mut().ok_or_else(|| out_of_order("an entry"))?;
        match &mut folder.waiting {
            None => folder.builder.push(&entry, |node| metadata.put(node).map_err(Failure)),
            Some(waiting) => match waiting.insert(entry.name.clone(), entry) {
                None => Ok(()),
                Some(_) => Err(out_of_order("a name for the second time")),
            },
        }
    }

    fn close(&mut self, folder: OpenFolder) -> Result<BlobId, Failure> {
        let metadata = &mut self.metadata;
        let mut builder = folder.builder;
        for entry in folder.waiting.unwrap_or_default().into_values() {
            builder.push(&entry, |node| metadata.put(node).map_err(Failure))?;
        }
        builder.finish(|node| metadata.put(node).map_err(Failure))
    }

    /// Closes the root once every batch has come.
    pub fn finish(mut self, batches: u64) -> Result<Built, Failure> {
        if self.next != batches || self.file.is_some() || self.folders.len() != 1 {
            return Err(out_of_order("the end"));
        }
        if let Some(lone) = self.lone {
            self.metadata.flush()?;
            return lone.map(Built::File).ok_or_else(|| out_of_order("the end"));
        }
        let root = self.folders.pop().ok_or_else(|| out_of_order("the end"))?;
        let id = self.close(root)?;
        self.metadata.flush()?;
        Ok(Built::Tree(id, self.counts))
    }
}
