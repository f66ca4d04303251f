//! What a running cluster's files are, told to the engine's walk over them.

use crate::localfs::{FileKind, LocalError, Metadata, printable};
use crate::ops::backup::{FileRules, PageInspector, Treatment};
use crate::postgres::layout::{Fork, Place, RelationFile, is_temporary, place};
use crate::postgres::pages::{BadPages, PageVerifier};
use std::collections::{BTreeMap, HashSet};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Folders of which only the folder is kept, also where it is a link.
const EMPTIED: [&[u8]; 7] = [
    b"pg_replslot",
    b"pg_dynshmem",
    b"pg_notify",
    b"pg_serial",
    b"pg_snapshots",
    b"pg_stat_tmp",
    b"pg_subtrans",
];

/// The rules of one backup; they gather what is learnt on the way.
pub(super) struct ClusterRules {
    root: PathBuf,
    /// Where the folder that is walked stands in the snapshot.
    prefix: String,
    in_tablespace: bool,
    page_bytes: u32,
    segment_blocks: u32,
    verifier: PageVerifier,
    verifies: bool,
    parent_bad: BTreeMap<String, BadPages>,
    /// The numbers that have an init fork in a folder: all else of them is reset at every start.
    unlogged: (Vec<u8>, HashSet<u32>),
    /// Bytes by number of the database.
    pub sizes: BTreeMap<u32, u64>,
    /// What was left out, for people.
    pub notes: Vec<String>,
}

impl ClusterRules {
    pub fn new(
        page_bytes: u32,
        segment_blocks: u32,
        verifies: bool,
        parent_bad: BTreeMap<String, BadPages>,
    ) -> Self {
        Self {
            root: PathBuf::new(),
            prefix: String::new(),
            in_tablespace: false,
            page_bytes,
            segment_blocks,
            verifier: PageVerifier::new(page_bytes),
            verifies,
            parent_bad,
            unlogged: (Vec::new(), HashSet::new()),
            sizes: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    /// Goes to a folder that will be walked.
    pub fn enter(&mut self, root: PathBuf, prefix: String, in_tablespace: bool) {
        (self.root, self.prefix, self.in_tablespace) = (root, prefix, in_tablespace);
        self.unlogged = (b"/".to_vec(), HashSet::new());
    }

    /// Returns the pages that did not hold.
    pub fn into_bad_pages(self) -> BTreeMap<String, BadPages> {
        self.verifier.bad
    }

    /// Names a file as it stands in the snapshot.
    fn name(&self, below: &[u8]) -> String {
        format!("{}/{}", self.prefix, String::from_utf8_lossy(below))
    }

    fn relation(&self, below: &[u8]) -> Option<RelationFile> {
        match place(below, self.in_tablespace) {
            Place::Shared(name) | Place::Database(_, name) => RelationFile::parse(name),
            _ => None,
        }
    }

    fn is_unlogged(&mut self, below: &[u8], number: u32) -> bool {
        let length = below.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let folder = below.get(..length).unwrap_or_default();
        if self.unlogged.0 != folder {
            let path = self.root.join(std::ffi::OsStr::from_bytes(folder));
            // A folder that is gone has nothing to be left out.
            let names = std::fs::read_dir(path).into_iter().flatten().flatten();
            let numbers = names.filter_map(|entry| {
                let file = RelationFile::parse(&entry.file_name().into_vec())?;
                (file.fork == Fork::Init).then_some(file.number)
            });
            self.unlogged = (folder.to_vec(), numbers.collect());
        }
        self.unlogged.1.contains(&number)
    }

    fn treat_link(&mut self, below: &[u8], found: &Metadata) -> Treatment {
        if EMPTIED.contains(&below) {
            return Treatment::EmptyFolder;
        }
        match place(below, self.in_tablespace) {
            Place::TablespaceLink(_) => Treatment::LeaveOut,
            Place::LogFolder => Treatment::EmptyFolder,
            _ => {
                let target = printable(found.target.as_deref().unwrap_or_default());
                let link = self.name(below);
                self.notes
                    .push(format!("{link} is a link to {target}: the link is kept, not what it leads to"));
                Treatment::Take
            }
        }
    }
}

impl FileRules for ClusterRules {
    fn treat(&mut self, below: &[u8], found: &Metadata) -> Treatment {
        match found.kind {
            FileKind::File => {}
            FileKind::Symlink => return self.treat_link(below, found),
            _ => return Treatment::LeaveOut,
        }
        let Place::Database(database, name) = place(below, self.in_tablespace) else {
            return Treatment::Take;
        };
        let file = RelationFile::parse(name);
        let resets = file.is_some_and(|file| file.fork != Fork::Init && self.is_unlogged(below, file.number));
        if is_temporary(name) || resets {
            return Treatment::LeaveOut;
        }
        let size = self.sizes.entry(database).or_default();
        *size = size.saturating_add(found.size);
        Treatment::Take
    }

    fn page_bytes(&mut self, below: &[u8]) -> Option<u32> {
        self.relation(below).map(|_| self.page_bytes)
    }

    fn inspector(&mut self, below: &[u8]) -> Option<&mut dyn PageInspector> {
        let file = self.relation(below).filter(|_| self.verifies)?;
        let first = u64::from(file.segment).saturating_mul(u64::from(self.segment_blocks));
        let name = self.name(below);
        self.verifier.enter(name, first);
        Some(&mut self.verifier)
    }

    fn unchanged(&mut self, below: &[u8]) {
        let name = self.name(below);
        if let Some(bad) = self.parent_bad.get(&name) {
            self.verifier.bad.insert(name, bad.clone());
        }
    }

    fn excuses(&self, error: &LocalError) -> bool {
        // B5: what the server does to its files while they are read is in the log.
        matches!(
            error,
            LocalError::Vanished { .. } | LocalError::Changed { .. } | LocalError::Replaced { .. }
        )
    }
}
