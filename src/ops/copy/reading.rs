//! Reading a tree of the source in order: entries as marks, pieces of files between them.

use crate::base::BlobId;
use crate::format::pack::BlobClass;
use crate::format::recipe::RecipeEntry;
use crate::format::tree::{Content, ContentDigest, CutKind, EntryKind, TreeEntry};
use crate::ops::backup::Cursor;
use crate::repo::{Pieces, RepoError, Repository, WriteSession};
use crate::view::{TreeWalk, WalkEvent, Wanted};
use std::sync::Arc;

/// What comes in the order of the tree.
pub(super) enum Step {
    /// A folder begins.
    Folder(Box<TreeEntry>),
    /// The innermost folder ends.
    Close,
    /// Something that has no content, or whose content the target has already.
    Leaf(Box<TreeEntry>),
    /// A file begins.
    File {
        /// The file.
        entry: Box<TreeEntry>,
        /// How it was cut.
        cut: CutKind,
        /// What stood in its place before, and may resemble it.
        before: Option<Box<Content>>,
    },
    /// A piece of it.
    Piece,
    /// A hole in it.
    Hole(u64),
    /// It is complete; this is what the original says of it.
    End(Box<Content>),
    /// The tree cannot be read on from here.
    Failed(RepoError),
    /// The tree has ended.
    Done,
}

/// Walks a tree of the source, in step with one of the target that it may resemble.
pub(super) struct Walk<'a> {
    walk: TreeWalk,
    session: &'a WriteSession,
    cursor: Option<Cursor>,
    /// Whether the tree of the target is believed about what its files hold.
    believed: bool,
    open: Option<(Pieces, Content)>,
    done: bool,
}

impl<'a> Walk<'a> {
    /// Begins at the top.
    ///
    /// # Errors
    ///
    /// When memory is short.
    pub fn new(
        source: &Arc<Repository>,
        root: BlobId,
        session: &'a WriteSession,
        cursor: Option<Cursor>,
        believed: bool,
    ) -> Result<Self, RepoError> {
        let walk = TreeWalk::new(source, root)?;
        Ok(Self { walk, session, cursor, believed, open: None, done: false })
    }

    fn piece(&mut self) -> Option<Wanted<Step>> {
        let (pieces, _) = self.open.as_mut()?;
        Some(match pieces.next(self.walk.reader()) {
            Ok(Some(RecipeEntry::Chunk { id, length, .. })) => Wanted::piece(Step::Piece, id, length),
            Ok(Some(RecipeEntry::Hole { length })) => Wanted::mark(Step::Hole(length)),
            Ok(None) => {
                let (_, content) = self.open.take()?;
                Wanted::mark(Step::End(Box::new(content)))
            }
            Err(error) => self.fail(error),
        })
    }

    fn fail(&mut self, error: RepoError) -> Wanted<Step> {
        self.done = true;
        self.open = None;
        Wanted::mark(Step::Failed(error))
    }

    fn leaf(&mut self, mut entry: Box<TreeEntry>) -> Wanted<Step> {
        let before = self.cursor.as_mut().and_then(|cursor| cursor.find(&entry.name));
        let before = before.filter(|before| before.kind == EntryKind::File).and_then(|before| before.content);
        let Some(content) = entry.content.take() else { return Wanted::mark(Step::Leaf(entry)) };
        if let Some(held) = before.as_ref().and_then(|before| self.held(&content, before)) {
            entry.content = Some(held);
            return Wanted::mark(Step::Leaf(entry));
        }
        match Pieces::open(self.walk.reader(), &content) {
            Ok(pieces) => {
                let cut = content.cut;
                self.open = Some((pieces, content));
                Wanted::mark(Step::File { entry, cut, before: before.map(Box::new) })
            }
            Err(error) => self.fail(error),
        }
    }

    /// Returns the content as the target holds it, where the digests of both say that it is the same and every piece of it
    /// is there.
    fn held(&mut self, content: &Content, before: &Content) -> Option<Content> {
        let digest = |content: &Content| match content.digest {
            Some(ContentDigest::Blake3(digest)) => Some(digest),
            _ => None,
        };
        let same = content.length == before.length && digest(content)? == digest(before)?;
        if !self.believed || !same {
            return None;
        }
        let cursor = self.cursor.as_mut()?;
        let mut pieces = Pieces::open(&mut cursor.reader, before).ok()?;
        while let Some(piece) = pieces.next(&mut cursor.reader).ok()? {
            if let RecipeEntry::Chunk { id, .. } = piece
                && !self.session.knows(BlobClass::Content, &id)
            {
                return None;
            }
        }
        Some(Content { read: content.read, ..before.clone() })
    }
}

impl Iterator for Walk<'_> {
    type Item = Wanted<Step>;

    fn next(&mut self) -> Option<Wanted<Step>> {
        if self.done {
            return None;
        }
        if let Some(piece) = self.piece() {
            return Some(piece);
        }
        Some(match self.walk.next() {
            Some(WalkEvent::Enter(folder)) => {
                if let Some(cursor) = &mut self.cursor {
                    cursor.enter(&folder.name);
                }
                let folder = TreeEntry { subtree: None, ..TreeEntry::clone(&folder) };
                Wanted::mark(Step::Folder(Box::new(folder)))
            }
            Some(WalkEvent::Leave(_)) => {
                if let Some(cursor) = &mut self.cursor {
                    cursor.leave();
                }
                Wanted::mark(Step::Close)
            }
            Some(WalkEvent::Leaf(entry)) => self.leaf(entry),
            Some(WalkEvent::Problem(error)) => self.fail(error),
            None => {
                self.done = true;
                Wanted::mark(Step::Done)
            }
        })
    }
}
