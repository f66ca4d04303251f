//! Where each source will stand in the tree.

use super::super::error::OpsError;
use super::super::snapshots::{cut_label, is_label};
use crate::base::Timestamp;
use crate::format::tree::{EntryKind, TreeEntry};
use crate::localfs::{check_component, printable};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Something to back up.
pub enum Source {
    /// Bytes that somebody else produces; the name may hold folders.
    Stream {
        /// Its path in the snapshot.
        name: Vec<u8>,
        /// The bytes.
        reader: Box<dyn Read + Send>,
    },
    /// The standard output of a command.
    Command {
        /// Its path in the snapshot.
        name: Vec<u8>,
        /// What the shell runs.
        command: String,
    },
    /// A file or folder; an absolute path without `.` and `..`, which is also its path in the snapshot.
    Path(PathBuf),
}

/// A folder of the tree-to-be, or a source.
#[derive(Default)]
pub(super) struct Place {
    pub children: BTreeMap<Vec<u8>, Place>,
    pub source: Option<Source>,
    /// Whether the root folder is the source, of which this is one entry: it is treated as a walk over all
    /// of it would treat it.
    pub of_root: bool,
    /// Where a folder on the way to a path lies on this machine.
    path: Option<PathBuf>,
}

/// All sources in their places.
pub(super) struct Plan {
    pub root: Place,
    names: Vec<String>,
    kind: &'static str,
    streams: bool,
}

impl Place {
    /// The entry of a folder that is only on the way to a source.
    pub fn folder_entry(&self, name: &[u8], started: Timestamp) -> TreeEntry {
        let mut entry = TreeEntry::new(name.to_owned(), EntryKind::Directory, 0o755, started);
        if let Some(found) = self.path.as_ref().and_then(|path| std::fs::metadata(path).ok()) {
            entry.mode = found.mode() & 0o7777;
            entry.user_id = Some(found.uid());
            entry.group_id = Some(found.gid());
            let nanoseconds = u32::try_from(found.mtime_nsec()).unwrap_or(0);
            entry.modified = Timestamp::from_parts(found.mtime(), nanoseconds).unwrap_or(started);
        }
        entry
    }

    /// Puts a source at a path; false where another source stands there or above already.
    fn put(&mut self, path: &[Vec<u8>], base: Option<&Path>, source: Source) -> Result<bool, OpsError> {
        let Some((name, rest)) = path.split_first() else { return Ok(false) };
        let here = base.map(|base| base.join(std::ffi::OsStr::from_bytes(name)));
        let child = self.children.entry(name.clone()).or_default();
        if child.source.is_some() {
            return Ok(false);
        }
        if rest.is_empty() {
            // What was below is part of this source now.
            child.children.clear();
            child.source = Some(source);
            return Ok(true);
        }
        child.path.clone_from(&here);
        child.put(rest, here.as_deref(), source)
    }
}

/// Takes the name of a stream apart.
fn stream_path(name: &[u8]) -> Result<Vec<Vec<u8>>, OpsError> {
    let parts: Vec<Vec<u8>> =
        name.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect();
    if parts.is_empty() {
        return Err(OpsError::Usage("a stream needs a name, such as app.sql".to_owned()));
    }
    if let Some(part) = parts.iter().find(|part| check_component(part).is_err()) {
        let (name, part) = (printable(name), printable(part));
        return Err(OpsError::Usage(format!(
            "{name} cannot be the name of a stream: {part:?} is no name of a file"
        )));
    }
    Ok(parts)
}

fn file_path(path: &Path) -> Result<Vec<Vec<u8>>, OpsError> {
    let wrong = || OpsError::Usage(format!("{} is not an absolute path without . and ..", path.display()));
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir => {}
            Component::Normal(part) => parts.push(part.as_bytes().to_vec()),
            _ => return Err(wrong()),
        }
    }
    if path.is_absolute() { Ok(parts) } else { Err(wrong()) }
}

impl Plan {
    pub fn new(sources: Vec<Source>) -> Result<Self, OpsError> {
        let mut plan = Self { root: Place::default(), names: Vec::new(), kind: "files", streams: false };
        // What is named besides the root folder is a source of its own.
        let (roots, sources): (Vec<_>, Vec<_>) = sources
            .into_iter()
            .partition(|source| matches!(source, Source::Path(path) if path.as_path() == Path::new("/")));
        for source in sources.into_iter().chain(roots) {
            let (path, name, base) = match &source {
                Source::Stream { name, .. } => {
                    (plan.kind, plan.streams) = ("stream", true);
                    (stream_path(name)?, printable(name), None)
                }
                Source::Command { name, .. } => {
                    (plan.kind, plan.streams) = ("commands", true);
                    (stream_path(name)?, printable(name), None)
                }
                Source::Path(path) => {
                    if let Err(source) = std::fs::symlink_metadata(path) {
                        return Err(OpsError::Read { name: path.display().to_string(), source });
                    }
                    (file_path(path)?, printable(path.as_os_str().as_bytes()), Some(Path::new("/")))
                }
            };
            let is_path = matches!(source, Source::Path(_));
            if path.is_empty() {
                plan.root_source(source, name)?;
                continue;
            }
            if !plan.root.put(&path, base, source)? && !is_path {
                return Err(OpsError::Usage(format!("two sources want the name {name}")));
            }
            plan.names.push(name);
        }
        if plan.names.is_empty() {
            return Err(OpsError::Usage(
                "there is nothing to back up: name a stream, a command or a path".to_owned(),
            ));
        }
        Ok(plan)
    }

    /// The root folder itself: its entries become places, since streams may stand beside them.
    fn root_source(&mut self, source: Source, name: String) -> Result<(), OpsError> {
        let Source::Path(path) = source else { return Ok(()) };
        let failed = |source| OpsError::Read { name: name.clone(), source };
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().as_bytes().to_vec();
            if self.root.put(std::slice::from_ref(&name), Some(Path::new("/")), Source::Path(entry.path()))?
                && let Some(place) = self.root.children.get_mut(&name)
            {
                place.of_root = true;
            }
        }
        self.names.push(name);
        Ok(())
    }

    pub fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    pub fn kind(&self) -> &'static str {
        self.kind
    }

    pub fn reads_streams(&self) -> bool {
        self.streams
    }

    /// The label of a backup that was given none: what it is a backup of, each source once. What a label cannot
    /// hold is replaced, and then a hash of all names tells it from others that look like it.
    pub fn default_label(&self) -> String {
        let mut names = self.names.clone();
        names.sort();
        names.dedup();
        let whole = names.join(",");
        if is_label(&whole) {
            return whole;
        }
        let label = whole.replace(|c: char| c == ':' || c == '@' || c.is_control(), "_");
        cut_label(&label, &whole)
    }
}
