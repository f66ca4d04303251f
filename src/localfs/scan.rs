//! The walk over one source: folders before their content, entries sorted by the bytes of their
//! names, everything that could not be read reported and passed over.
//!
//! The walk holds the names of the folders on the way down to where it is, and the innermost of
//! them open; nothing else. A tree can be built from its events bottom-up: what an
//! [`ScanEvent::Enter`] opened is complete at its [`ScanEvent::Leave`].

use super::error::LocalError;
use super::excludes::Excludes;
use super::metadata::{FileKind, Metadata};
use super::owners::Owners;
use super::path::{join, split};
use super::source::{SourceFile, open_entry};
use crate::base::limits::TREE_DEPTH_MAX;
use rustix::fs::{self, OFlags, RawDir};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// What to leave out of a scan.
#[derive(Debug, Clone, Default)]
pub struct ScanOptions {
    /// Patterns for entries to leave out.
    pub excludes: Excludes,
    /// Does not enter other file systems; the folders where they are mounted appear empty.
    pub one_file_system: bool,
    /// Folders, as (device, inode), to leave out wherever they appear: a repository must not be
    /// stored in itself.
    pub skipped: HashSet<(u64, u64)>,
}

/// One step of the walk.
#[derive(Debug)]
pub enum ScanEvent {
    /// A folder; all that follows until its `Leave` lies in it.
    Enter(Entry),
    /// Anything but a folder.
    Leaf(Entry),
    /// The end of the folder that was entered last and not left.
    Leave,
    /// Something that could not be read, in whole or in part.
    Problem(LocalError),
}

/// Most folders that a walk holds open: somebody's deep tree must not use up the handles that the
/// rest of the program needs. Those further up are found again from below when it is their turn.
const OPEN_LEVELS_MAX: usize = 64;

/// An entry of a folder (or the source itself), with what is needed to read it.
///
/// It keeps its folder open: hold few entries at a time.
#[derive(Debug, Clone)]
pub struct Entry {
    path: Vec<u8>,
    metadata: Metadata,
    folder: Arc<Folder>,
    follow: bool,
}

#[derive(Debug)]
struct Folder {
    handle: OwnedFd,
    path: Vec<u8>,
}

/// A folder that is being walked.
struct Level {
    path: Vec<u8>,
    /// `None` once the walk is far below.
    folder: Option<Arc<Folder>>,
    identity: (u64, u64),
    names: Names,
    next: usize,
}

/// The names of a folder in one piece of memory: there may be millions.
#[derive(Default)]
pub(super) struct Names {
    bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

/// Walks one source. An iterator over [`ScanEvent`]s.
pub struct Scan<'a> {
    source: Vec<u8>,
    /// The one entry of the source that is walked, where that is not all of it.
    entry: Option<Vec<u8>>,
    options: &'a ScanOptions,
    owners: &'a Owners,
    levels: Vec<Level>,
    device: Option<u64>,
    /// Events that came up together with one that was returned.
    waiting: Vec<ScanEvent>,
    started: bool,
}

impl Entry {
    /// Returns the path: that of the source as it was given, and what follows below it.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Returns the last component; `.` or `..` for sources that were given so.
    pub fn name(&self) -> &[u8] {
        split(&self.path).1
    }

    /// Returns what is known of the entry.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Looks at the name once more, under which something else may stand by now.
    pub fn again(&self, owners: &Owners) -> Result<Self, LocalError> {
        let folder = self.folder.clone();
        let metadata = Metadata::read(folder.handle.as_fd(), &folder.path, self.name(), self.follow, owners)?;
        Ok(Self { path: self.path.clone(), metadata, folder, follow: self.follow })
    }

    /// Opens a regular file for reading, if it is still the file that was found.
    pub fn open(&self) -> Result<SourceFile, LocalError> {
        let opened = open_entry(self.folder.handle.as_fd(), self.name(), self.follow, OFlags::empty());
        let file = opened.map_err(|errno| match errno {
            // A symbolic link stands there now.
            Errno::LOOP => LocalError::Replaced { path: self.path.clone() },
            errno => LocalError::reading("open", &self.path, errno),
        })?;
        SourceFile::new(File::from(file), self.path.clone(), self.metadata.clone())
    }
}

impl Level {
    /// Opens this folder by a name in another, if it is still the same.
    fn open(&self, from: &Folder, name: &[u8]) -> Result<Arc<Folder>, LocalError> {
        let path = self.path.clone();
        let handle = open_entry(from.handle.as_fd(), name, false, OFlags::DIRECTORY)
            .map_err(|errno| LocalError::reading("open", &path, errno))?;
        let stat = fs::fstat(&handle).map_err(|errno| LocalError::reading("open", &path, errno))?;
        if (stat.st_dev, stat.st_ino) != self.identity {
            return Err(LocalError::Replaced { path });
        }
        Ok(Arc::new(Folder { handle, path }))
    }
}

impl Names {
    pub(super) fn read(folder: &OwnedFd) -> Result<Self, Errno> {
        let mut names = Self::default();
        let mut buffer = Vec::with_capacity(1 << 15);
        let mut entries = RawDir::new(folder, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let start = names.bytes.len();
                names.bytes.extend_from_slice(name);
                names.ranges.push(start..names.bytes.len());
            }
        }
        let Self { bytes, ranges } = &mut names;
        ranges.sort_unstable_by_key(|range| bytes.get(range.clone()));
        // A name that is removed and made again while a folder is listed may be listed twice.
        ranges.dedup_by(|a, b| bytes.get(a.clone()) == bytes.get(b.clone()));
        Ok(names)
    }

    pub(super) fn to_vec(&self) -> Vec<Vec<u8>> {
        (0..self.ranges.len()).filter_map(|number| self.get(number).map(<[u8]>::to_vec)).collect()
    }

    fn get(&self, number: usize) -> Option<&[u8]> {
        self.bytes.get(self.ranges.get(number)?.clone())
    }
}

impl<'a> Scan<'a> {
    /// Begins a walk at a path. If that is a symbolic link it is followed, since nobody means to
    /// keep the link alone; links below it are not.
    pub fn new(source: &[u8], options: &'a ScanOptions, owners: &'a Owners) -> Self {
        // Slashes at the end are no part of a name.
        let length = source.iter().rposition(|byte| *byte != b'/').map_or(1, |last| last + 1);
        Self {
            source: source.get(..length).unwrap_or(source).to_owned(),
            entry: None,
            options,
            owners,
            levels: Vec::new(),
            device: None,
            waiting: Vec::new(),
            started: false,
        }
    }

    /// Begins a walk at one entry of a source that is a folder, as a walk over all of it would come to it: links
    /// are not followed, and what is left out there is left out here.
    pub fn of_entry(source: &[u8], entry: &[u8], options: &'a ScanOptions, owners: &'a Owners) -> Self {
        Self { entry: Some(entry.to_owned()), ..Self::new(source, options, owners) }
    }

    /// Returns the path of the source, without slashes at its end.
    pub fn source(&self) -> &[u8] {
        &self.source
    }

    fn start(&mut self) -> Result<Option<ScanEvent>, LocalError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let failed = |errno| LocalError::system("open", &self.source, errno);
        let open = |folder: &[u8]| {
            let handle = fs::open(folder, flags, fs::Mode::empty()).map_err(failed)?;
            Ok::<_, LocalError>(Folder { handle, path: folder.to_owned() })
        };
        if let Some(name) = &self.entry {
            let (folder, name) = (open(&self.source)?, name.clone());
            self.device = Some(fs::fstat(&folder.handle).map_err(failed)?.st_dev);
            return Ok(self.look(Arc::new(folder), &name));
        }
        let (folder, name) = split(&self.source);
        let folder = open(folder)?;
        let metadata = Metadata::read(folder.handle.as_fd(), &folder.path, name, true, self.owners).map_err(
            |error| match error {
                LocalError::Vanished { path } => LocalError::system("open", &path, Errno::NOENT),
                error => error,
            },
        )?;
        self.device = Some(metadata.device);
        let entry = Entry { path: self.source.clone(), metadata, folder: Arc::new(folder), follow: true };
        Ok(Some(self.visit(entry)))
    }

    /// Looks at one name of the innermost folder; `None` if it is left out.
    fn look(&mut self, folder: Arc<Folder>, name: &[u8]) -> Option<ScanEvent> {
        let path = join(&folder.path, name);
        let metadata = match Metadata::read(folder.handle.as_fd(), &folder.path, name, false, self.owners) {
            Ok(metadata) => metadata,
            // Whatever it was, it would have been left out.
            Err(_) if self.excluded(&path, name, false) => return None,
            Err(error) => return Some(ScanEvent::Problem(error)),
        };
        let is_folder = metadata.kind == FileKind::Directory;
        let elsewhere = self.options.one_file_system && self.device != Some(metadata.device);
        if self.excluded(&path, name, is_folder)
            || self.options.skipped.contains(&(metadata.device, metadata.inode))
            || (elsewhere && !is_folder)
        {
            return None;
        }
        Some(self.visit(Entry { path, metadata, folder, follow: false }))
    }

    fn excluded(&self, path: &[u8], name: &[u8], is_folder: bool) -> bool {
        let below = path.get(self.source.len()..).unwrap_or(path);
        let below = below.iter().position(|byte| *byte != b'/').and_then(|start| below.get(start..));
        self.options.excludes.matches(path, below.unwrap_or(name), name, is_folder)
    }

    fn visit(&mut self, entry: Entry) -> ScanEvent {
        if entry.metadata.kind != FileKind::Directory {
            return ScanEvent::Leaf(entry);
        }
        match self.enter(&entry) {
            Ok(level) => {
                self.levels.push(level);
                // The source itself stays open.
                let far_up = self.levels.len().checked_sub(OPEN_LEVELS_MAX + 1).filter(|number| *number > 0);
                if let Some(level) = far_up.and_then(|number| self.levels.get_mut(number)) {
                    level.folder = None;
                }
            }
            Err(error) => self.waiting.extend([ScanEvent::Leave, ScanEvent::Problem(error)]),
        }
        ScanEvent::Enter(entry)
    }

    fn enter(&self, entry: &Entry) -> Result<Level, LocalError> {
        let identity = (entry.metadata.device, entry.metadata.inode);
        let path = entry.path.clone();
        if self.levels.len() >= TREE_DEPTH_MAX {
            return Err(LocalError::TooDeep { path });
        }
        if self.levels.iter().any(|level| level.identity == identity) {
            return Err(LocalError::Loop { path });
        }
        let handle = open_entry(entry.folder.handle.as_fd(), entry.name(), entry.follow, OFlags::DIRECTORY)
            .map_err(|errno| match errno {
            Errno::LOOP | Errno::NOTDIR => LocalError::Replaced { path: path.clone() },
            errno => LocalError::reading("open", &path, errno),
        })?;
        let failed = |errno| LocalError::reading("list", &path, errno);
        let stat = fs::fstat(&handle).map_err(failed)?;
        if (stat.st_dev, stat.st_ino) != identity {
            return Err(LocalError::Replaced { path });
        }
        let mounted = self.options.one_file_system && self.device != Some(identity.0);
        let names = if mounted { Names::default() } else { Names::read(&handle).map_err(failed)? };
        let folder = Some(Arc::new(Folder { handle, path: path.clone() }));
        Ok(Level { path, folder, identity, names, next: 0 })
    }

    /// Leaves the innermost folder, and opens the one above it again if it was closed.
    fn leave(&mut self) -> Option<ScanEvent> {
        let left = self.levels.pop()?;
        if self.levels.last().is_some_and(|level| level.folder.is_none()) {
            let reopened = self.reopen(&left);
            if let Some(level) = self.levels.last_mut() {
                match reopened {
                    Ok(folder) => level.folder = Some(folder),
                    Err(error) => {
                        level.names = Names::default();
                        self.waiting.push(ScanEvent::Problem(error));
                    }
                }
            }
        }
        Some(ScanEvent::Leave)
    }

    /// Opens the innermost folder again: from the one just left in it, or, where that was moved
    /// away meanwhile, from the source down.
    fn reopen(&self, left: &Level) -> Result<Arc<Folder>, LocalError> {
        let mut levels = self.levels.iter();
        if let (Some(below), Some(level)) = (&left.folder, self.levels.last())
            && let Ok(folder) = level.open(below, b"..")
        {
            return Ok(folder);
        }
        let source = levels.next().and_then(|level| level.folder.clone());
        let mut folder = source.ok_or_else(|| LocalError::Vanished { path: self.source.clone() })?;
        for level in levels {
            folder = level.open(&folder, split(&level.path).1)?;
        }
        Ok(folder)
    }
}

impl Iterator for Scan<'_> {
    type Item = ScanEvent;

    fn next(&mut self) -> Option<ScanEvent> {
        if let Some(event) = self.waiting.pop() {
            return Some(event);
        }
        if !self.started {
            self.started = true;
            return self.start().unwrap_or_else(|error| Some(ScanEvent::Problem(error)));
        }
        loop {
            let level = self.levels.last_mut()?;
            let (name, folder) = (level.names.get(level.next).map(<[u8]>::to_vec), level.folder.clone());
            let (Some(name), Some(folder)) = (name, folder) else {
                return self.leave();
            };
            level.next += 1;
            if let Some(event) = self.look(folder, &name) {
                return Some(event);
            }
        }
    }
}
