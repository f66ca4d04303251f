//! Restores over what stands there: it serves as far as it is right, and nothing else of it stays.

use crate::scratch;
use crate::support::repository::{backup_path, in_memory, names, noise, reopen};
use chronolith::base::BlobId;
use chronolith::format::pack::BlobClass;
use chronolith::ops::Snapshots;
use chronolith::ops::restore::{RestoreOptions, RestorePlan, RestoreReport};
use chronolith::repo::{Repository, pack_name};
use chronolith::storage::{MemoryStore, Store};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PAGE_BYTES: usize = 8192;
const PAGES: usize = 100;

/// A page of a PostgreSQL relation, as far as it is recognised; its log position says when it was changed.
fn page(number: usize, changed: u64) -> Vec<u8> {
    let mut page = noise(number as u64, PAGE_BYTES);
    page[..8].copy_from_slice(&changed.to_le_bytes());
    for (at, value) in [(10, 0), (12, 28), (14, 200), (16, PAGE_BYTES as u16), (18, PAGE_BYTES as u16 | 4)] {
        page[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    page
}

/// Version 1 changes the head of a few pages of version 0.
fn relation(version: u64) -> Vec<u8> {
    (0..PAGES).flat_map(|number| page(number, if number % 17 == 3 { version } else { 0 })).collect()
}

/// A relation in two versions, each in a snapshot of its own.
struct World {
    store: Arc<MemoryStore>,
    repository: Arc<Repository>,
    source: tempfile::TempDir,
    roots: Vec<BlobId>,
}

impl World {
    fn new(versions: &[Vec<u8>]) -> Self {
        let (store, repository) = in_memory();
        let source = scratch();
        let mut roots = Vec::new();
        for content in versions {
            fs::write(source.path().join("relation"), content).unwrap();
            let id = backup_path(&repository, source.path()).snapshot.unwrap();
            let snapshots = Snapshots::load(&repository).unwrap();
            roots.push(snapshots.resolve(&id.to_string()).unwrap().snapshot.root);
        }
        Self { store, repository, source, roots }
    }

    fn restore(&self, version: usize, target: &Path) -> RestoreReport {
        let options = RestoreOptions { verify: true, delete: true, ..RestoreOptions::default() };
        let path = names(self.source.path().to_str().unwrap());
        let root = &self.roots[version];
        RestorePlan::new(&self.repository, root, &path, target, options).unwrap().run().unwrap()
    }

    /// Removes all content that stands for itself, and leaves the differences against it.
    fn lose_bases(&mut self) {
        self.repository.load_index().unwrap();
        let (mut alone, mut differences) = (BTreeSet::new(), BTreeSet::new());
        self.repository.index().for_each(|copy| {
            if copy.record.class == BlobClass::Content {
                let packs = if copy.record.base.is_some() { &mut differences } else { &mut alone };
                packs.insert(pack_name(&copy.pack.id));
            }
        });
        assert!(!differences.is_empty() && differences.is_disjoint(&alone));
        for pack in alone {
            self.store.delete(&pack).unwrap();
        }
        self.repository = reopen(self.store.clone()).unwrap();
    }
}

#[test]
fn what_stands_there_serves_as_the_base_of_what_is_wanted() {
    let mut world = World::new(&[relation(0), relation(1)]);
    let target = scratch();
    assert!(world.restore(0, target.path()).complete());
    world.lose_bases();
    let report = world.restore(1, target.path());
    assert!(report.complete(), "{:?}", report.problems);
    assert!(fs::read(target.path().join("relation")).unwrap() == relation(1));
    assert!(report.same_bytes > 0 && report.written_bytes > 0, "{report:?}");
    // Without it they cannot be read.
    let empty = scratch();
    assert!(!world.restore(1, empty.path()).complete());
}

/// One byte of the base makes it another one, and the bases in the repository serve.
#[test]
fn a_base_that_was_changed_where_it_stands_is_not_taken_for_one() {
    let mut world = World::new(&[relation(0), relation(1)]);
    let target = scratch();
    let spoil = || {
        let file = File::options().write(true).open(target.path().join("relation")).unwrap();
        for number in (0..PAGES).filter(|number| number % 17 == 3) {
            file.write_all_at(b"!", (number * PAGE_BYTES + 5000) as u64).unwrap();
        }
    };
    world.restore(0, target.path());
    spoil();
    assert!(world.restore(1, target.path()).complete());
    assert!(fs::read(target.path().join("relation")).unwrap() == relation(1));
    world.restore(0, target.path());
    spoil();
    world.lose_bases();
    let report = world.restore(1, target.path());
    assert!(!report.complete() && report.verified_files == 0, "{report:?}");
}

#[test]
fn whatever_stands_there_becomes_what_was_backed_up() {
    let world = World::new(&[relation(0), relation(1)]);
    let (old, new) = (relation(0), relation(1));
    let length = new.len();
    let outside = scratch();
    let victim = outside.path().join("victim");
    let other = |seed| noise(seed, length);
    let rewrite = |path: &Path, bytes: &[u8], at: usize| {
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(bytes, at as u64).unwrap();
    };
    let cut = |path: &Path, length: usize| {
        File::options().write(true).open(path).unwrap().set_len(length as u64).unwrap();
    };
    type Spoil<'a> = Box<dyn Fn(&Path) + 'a>;
    let ways: Vec<(&str, Spoil)> = vec![
        ("as it was", Box::new(|_| {})),
        ("longer", Box::new(|path| rewrite(path, &other(5), length - 100))),
        ("longer, with a hole", Box::new(|path| cut(path, 3 * length))),
        ("shorter", Box::new(|path| cut(path, length - 3 * PAGE_BYTES - 77))),
        ("shorter than a block", Box::new(|path| cut(path, 100))),
        ("empty", Box::new(|path| cut(path, 0))),
        ("a hole", Box::new(|path| [0, length].iter().for_each(|length| cut(path, *length)))),
        ("torn", Box::new(|path| rewrite(path, &new[..length / 2 + 1234], 0))),
        ("torn pages", Box::new(|path| rewrite(path, &new[3 * PAGE_BYTES..][..4096], 3 * PAGE_BYTES))),
        ("something else", Box::new(|path| rewrite(path, &other(6), 0))),
        ("its pages elsewhere", Box::new(|path| rewrite(path, &old[PAGE_BYTES..], 0))),
        ("one byte at the start", Box::new(|path| rewrite(path, b"!", 0))),
        ("one byte at the end", Box::new(|path| rewrite(path, b"!", length - 1))),
        ("bytes around a block's edge", Box::new(|path| rewrite(path, b"!!", 3 * PAGE_BYTES + 4095))),
        ("gone", Box::new(|path| fs::remove_file(path).unwrap())),
        ("of two names", Box::new(|path| fs::hard_link(path, &victim).unwrap())),
        (
            "a link",
            Box::new(|path| {
                fs::rename(path, &victim).unwrap();
                symlink(&victim, path).unwrap();
            }),
        ),
        (
            "a folder",
            Box::new(|path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
                fs::write(path.join("in it"), "x").unwrap();
            }),
        ),
    ];
    for (way, spoil) in ways {
        let target = scratch();
        let relation: PathBuf = target.path().join("relation");
        world.restore(0, target.path());
        spoil(&relation);
        let report = world.restore(1, target.path());
        assert!(report.complete() && report.verified_files == 1, "{way}: {report:?}");
        assert!(fs::read(&relation).unwrap() == new, "{way}");
        if victim.exists() {
            assert!(fs::read(&victim).unwrap() == old, "{way}");
            fs::remove_file(&victim).unwrap();
        }
        let found = fs::symlink_metadata(&relation).unwrap();
        assert!(found.is_file() && found.nlink() == 1, "{way}");
        let again = world.restore(1, target.path());
        assert_eq!((again.written_bytes, again.unchanged_files), (0, 1), "{way}");
        // And back again.
        assert!(world.restore(0, target.path()).complete(), "{way}");
        assert!(fs::read(&relation).unwrap() == old, "{way}");
    }
}

/// Blocks of a piece that are right already are left alone: holes among them stay holes.
#[test]
fn only_the_blocks_that_differ_are_written() {
    let long = |version: u64| [page(0, version), vec![0; 4 << 20], page(1, version)].concat();
    let world = World::new(&[long(0), long(1)]);
    let target = scratch();
    let relation = target.path().join("relation");
    world.restore(0, target.path());
    let file = File::create(&relation).unwrap();
    file.set_len(long(0).len() as u64).unwrap();
    file.write_all_at(&page(0, 0), 0).unwrap();
    file.write_all_at(&page(1, 0), (long(0).len() - PAGE_BYTES) as u64).unwrap();
    drop(file);
    let report = world.restore(1, target.path());
    assert!(report.complete() && report.written_bytes > 2 * PAGE_BYTES as u64, "{report:?}");
    assert!(fs::read(&relation).unwrap() == long(1));
    assert!(fs::metadata(&relation).unwrap().blocks() * 512 <= 4 * PAGE_BYTES as u64);
}
