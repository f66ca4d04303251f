//! What a running cluster's files are, told to the engine's walk over them.

use crate::localfs::{FileKind, LocalError, Metadata, printable};
use crate::ops::backup::{FileRules, PageInspector, Treatment};
use crate::postgres::layout::{Fork, Place, RelationFile, is_temporary, place};
use crate::postgres::pages::{BadPages, PageVerifier};
use std::collections::{BTreeMap, HashSet};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

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

/// Folders that hold what is the server's alone. A link in them would lead a copy on this host into the files
/// of the original, which it would change.
const OWN: [&str; 9] = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_logical",
    "pg_multixact",
    "pg_stat",
    "pg_tblspc",
    "pg_twophase",
    "pg_xact",
];

/// Says whether a path below a data directory is one of those folders or lies in one.
fn is_own(below: &[u8]) -> bool {
    let first = below.split(|byte| *byte == b'/').next().unwrap_or_default();
    OWN.iter().any(|folder| folder.as_bytes() == first)
}

/// Finds such a link before anything is read, where it is one of these folders or lies right in one.
pub(super) fn linked(data_directory: &Path) -> Option<PathBuf> {
    OWN.iter().find_map(|name| {
        let folder = data_directory.join(name);
        if std::fs::symlink_metadata(&folder).is_ok_and(|found| found.is_symlink()) {
            return Some(folder);
        }
        // The links there are those to tablespaces.
        let entries = std::fs::read_dir(&folder).ok().filter(|_| *name != "pg_tblspc")?;
        let mut entries = entries.flatten();
        let link = entries.find(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
        link.map(|entry| entry.path())
    })
}

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
    /// A link where there must be none.
    pub link: Option<PathBuf>,
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
            link: None,
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
            _ if self.in_tablespace || is_own(below) => {
                self.link = Some(self.root.join(std::ffi::OsStr::from_bytes(below)));
                Treatment::LeaveOut
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn rules(parent_bad: &[(&str, &str)]) -> ClusterRules {
        let bad = parent_bad.iter().map(|(file, blocks)| ((*file).to_owned(), BadPages::parse(blocks)));
        let mut rules = ClusterRules::new(8192, 131_072, true, bad.collect());
        rules.enter(PathBuf::from("/nowhere"), "data".to_owned(), false);
        rules
    }

    /// B10: an unchanged file keeps its parent's list; one that is read again has a list of its own.
    #[test]
    fn an_unchanged_file_keeps_its_list() {
        let mut rules = rules(&[("data/base/5/16385", "3,7-9"), ("data/base/5/16386", "1")]);
        rules.unchanged(b"base/5/16385");
        rules.unchanged(b"base/5/16390");
        let bad = rules.into_bad_pages();
        let found: Vec<(String, String)> =
            bad.into_iter().map(|(f, blocks)| (f, blocks.to_string())).collect();
        assert_eq!(found, [("data/base/5/16385".to_owned(), "3,7-9".to_owned())]);
    }

    /// B5: files that vanish, shrink or are replaced are the server's doing; what the disk says is not.
    #[test]
    fn what_the_server_does_is_excused_and_what_the_disk_says_is_not() {
        let rules = rules(&[]);
        let path = || b"/data/base/5/16385".to_vec();
        assert!(rules.excuses(&LocalError::Vanished { path: path() }));
        assert!(rules.excuses(&LocalError::Changed { path: path(), what: "its length" }));
        assert!(rules.excuses(&LocalError::Replaced { path: path() }));
        for code in [rustix::io::Errno::IO, rustix::io::Errno::ACCESS].map(rustix::io::Errno::raw_os_error) {
            let source = io::Error::from_raw_os_error(code);
            assert!(!rules.excuses(&LocalError::System { operation: "read", path: path(), source }));
        }
    }

    /// B7: a link among what is the server's alone is noticed, above and far below; others are not meant.
    #[test]
    fn links_into_the_servers_own_files_are_noticed() {
        for below in ["base", "base/16401", "base/5/16385", "pg_xact", "pg_multixact/members/0000"] {
            assert!(is_own(below.as_bytes()), "{below}");
        }
        for below in ["log", "postgresql.conf", "basement", "pg_wal", "pg_log/today", "mine/base"] {
            assert!(!is_own(below.as_bytes()), "{below}");
        }
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        std::fs::create_dir_all(data.join("pg_tblspc")).unwrap();
        std::fs::create_dir_all(data.join("base")).unwrap();
        std::os::unix::fs::symlink("/srv", data.join("pg_tblspc/16400")).unwrap();
        std::os::unix::fs::symlink("/srv", data.join("log")).unwrap();
        assert_eq!(linked(data), None);
        std::os::unix::fs::symlink("/srv", data.join("base/16401")).unwrap();
        assert_eq!(linked(data), Some(data.join("base/16401")));
    }

    /// B10: only files of relations are looked at, and a later part counts on from the first.
    #[test]
    fn only_relations_have_pages() {
        let mut rules = rules(&[]);
        for file in ["base/5/16385", "base/5/16385_vm", "global/1262.2"] {
            assert!(rules.inspector(file.as_bytes()).is_some(), "{file}");
            assert_eq!(rules.page_bytes(file.as_bytes()), Some(8192));
        }
        for file in
            ["base/5/PG_VERSION", "global/pg_filenode.map", "pg_xact/0000", "16385", "postgresql.conf"]
        {
            assert!(rules.inspector(file.as_bytes()).is_none(), "{file}");
            assert_eq!(rules.page_bytes(file.as_bytes()), None);
        }
    }
}
