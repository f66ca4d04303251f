//! A whole tree scanned and restored, as the program does it without a repository in between.

use crate::raw;
use chronolith::localfs::{
    Entry, FileKind, LocalError, Metadata, Owners, RestoreOptions, Scan, ScanEvent, ScanOptions, TargetFolder,
};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

#[derive(Default)]
pub struct Copied {
    pub problems: Vec<LocalError>,
    /// Files of which anything was written.
    pub written: usize,
}

pub fn copy(source: &Path, target: &Path) -> Copied {
    copy_with(source, target, RestoreOptions::default(), false)
}

/// Restores `source` into `target`, reading what is there first; with `delete`, removes the rest.
pub fn copy_with(source: &Path, target: &Path, options: RestoreOptions, delete: bool) -> Copied {
    let mut copied = Copied::default();
    let mut folders: Vec<(TargetFolder, Metadata, Vec<Vec<u8>>)> = Vec::new();
    let mut first_names: HashMap<(u64, u64), (TargetFolder, Vec<u8>)> = HashMap::new();
    let (scan_options, owners) = (ScanOptions::default(), Owners::load());
    let root = TargetFolder::open(raw(target), options).unwrap();
    for event in Scan::new(raw(source), &scan_options, &owners) {
        if let (ScanEvent::Enter(entry) | ScanEvent::Leaf(entry), Some((_, _, names))) =
            (&event, folders.last_mut())
        {
            names.push(entry.name().to_vec());
        }
        match event {
            ScanEvent::Enter(entry) => {
                let folder = match folders.last() {
                    None => root.clone(),
                    Some((parent, ..)) => parent.enter(entry.name()).unwrap(),
                };
                folders.push((folder, entry.metadata().clone(), Vec::new()));
            }
            ScanEvent::Leave => {
                let (folder, metadata, names) = folders.pop().unwrap();
                for extra in folder.names().unwrap() {
                    if delete && !names.contains(&extra) {
                        folder.remove(&extra).unwrap();
                    }
                }
                copied.problems.extend(folder.finish(&metadata).unwrap());
            }
            ScanEvent::Leaf(entry) => {
                let folder = &folders.last().unwrap().0;
                let metadata = entry.metadata();
                let identity = (metadata.device, metadata.inode);
                if metadata.kind != FileKind::File {
                    copied.problems.extend(folder.create_special(entry.name(), metadata).unwrap());
                } else if let Some((first, name)) = first_names.get(&identity) {
                    folder.link(entry.name(), first, name).unwrap();
                } else {
                    copy_file(&entry, folder, &mut copied);
                    first_names.insert(identity, (folder.clone(), entry.name().to_vec()));
                }
            }
            ScanEvent::Problem(error) => copied.problems.push(error),
        }
    }
    root.sync().unwrap();
    copied
}

fn copy_file(entry: &Entry, folder: &TargetFolder, copied: &mut Copied) {
    let metadata = entry.metadata();
    let source = entry.open().unwrap();
    let writer = folder.create_file(entry.name(), metadata.size, metadata.may_have_holes()).unwrap();
    let (mut wanted, mut found) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut at = 0;
    while at < metadata.size {
        let data = source.next_data(at).unwrap().unwrap_or(metadata.size..metadata.size);
        writer.hole(at, data.start - at).unwrap();
        at = data.start;
        while at < data.end {
            let piece = usize::try_from(data.end - at).unwrap().min(wanted.len());
            let read = source.read_at(at, &mut wanted[..piece]).unwrap();
            let there = writer.read_at(at, &mut found[..piece]).unwrap();
            if wanted[..read] != found[..there] {
                writer.write_at(at, &wanted[..read]).unwrap();
            }
            at += read as u64;
        }
    }
    source.check_unchanged().unwrap();
    copied.written += usize::from(writer.was_written());
    copied.problems.extend(writer.finish(metadata).unwrap());
}

/// All that a restore must bring back, by path below the folder.
pub fn describe(root: &Path) -> BTreeMap<Vec<u8>, (Metadata, Option<blake3::Hash>)> {
    let mut tree = BTreeMap::new();
    for event in Scan::new(raw(root), &ScanOptions::default(), &Owners::load()) {
        let (ScanEvent::Enter(entry) | ScanEvent::Leaf(entry)) = event else { continue };
        let path = entry.path().strip_prefix(raw(root)).unwrap();
        let path = path.strip_prefix(b"/").unwrap_or(path).to_vec();
        let found = entry.metadata().clone();
        let content = (found.kind == FileKind::File).then(|| {
            let file = std::fs::read(std::ffi::OsStr::from_bytes(entry.path())).unwrap();
            blake3::hash(&file)
        });
        // What no restore can choose, or what reading changes.
        let metadata = Metadata {
            changed: Default::default(),
            accessed: Default::default(),
            device: 0,
            inode: 0,
            allocated: 0,
            size: if found.kind == FileKind::Directory { 0 } else { found.size },
            ..found
        };
        tree.insert(path, (metadata, content));
    }
    tree
}
