//! Random scripts of operations against the model.

use crate::support::world::{Client, Content, copy_of, noise};
use chronolith::base::SnapshotId;
use chronolith::storage::{MemoryStore, Store};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

#[derive(Debug, Clone)]
enum Step {
    /// Writes a stream: name, seed of its bytes, length.
    Write(u8, u64, usize),
    /// Puts bytes into the middle of a stream.
    Edit(u8, u64, usize),
    Remove(u8),
    BackUp,
    /// Reads the snapshot of this number back, counted from the newest.
    Restore(usize),
    /// Whatever lies in the client's cache is deleted, cut short or flipped.
    LoseCache,
    CutCache(u16),
    FlipCache(u16),
    /// An index run is deleted from the store.
    LoseIndex(u8),
    /// The other client takes over, with a cache of its own or none.
    ChangeClient(u8),
    /// A client stops with its packs stored and no snapshot.
    Abandon(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..4, any::<u64>(), 0usize..40_000).prop_map(|(name, seed, length)| Step::Write(name, seed, length)),
        3 => (0u8..4, any::<u64>(), 0usize..3000).prop_map(|(name, seed, length)| Step::Edit(name, seed, length)),
        1 => (0u8..4).prop_map(Step::Remove),
        5 => Just(Step::BackUp),
        3 => (0usize..5).prop_map(Step::Restore),
        1 => Just(Step::LoseCache),
        1 => any::<u16>().prop_map(Step::CutCache),
        1 => any::<u16>().prop_map(Step::FlipCache),
        1 => any::<u8>().prop_map(Step::LoseIndex),
        2 => (0u8..3).prop_map(Step::ChangeClient),
        1 => any::<u64>().prop_map(Step::Abandon),
    ]
}

/// Does something to every file of a cache.
fn each_file(folder: &Path, change: &dyn Fn(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { each_file(&path, change) } else { change(&path) }
    }
}

fn change_bytes(path: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    if !bytes.is_empty() {
        change(&mut bytes);
        // By a new file: whoever has the old one mapped keeps it.
        fs::remove_file(path).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn run(steps: &[Step], template: &Client) {
    let caches = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let base = template.through(Arc::new(copy_of(&template.store)));
    let clients = [base.with_cache(caches[0].path()), base.with_cache(caches[1].path()), base.clone()];
    let mut client = &clients[0];
    let mut current: Content = BTreeMap::new();
    let mut model: Vec<(SnapshotId, Content)> = Vec::new();
    for step in steps {
        match step {
            Step::Write(name, seed, length) => {
                current.insert(vec![b'a' + name], noise(*seed, *length));
            }
            Step::Edit(name, seed, length) => {
                let bytes = current.entry(vec![b'a' + name]).or_default();
                let middle = bytes.len() / 2;
                bytes.splice(middle..middle, noise(*seed, *length));
            }
            Step::Remove(name) => drop(current.remove(&vec![b'a' + name])),
            Step::BackUp if current.is_empty() => assert!(client.try_back_up(&current).is_err()),
            Step::BackUp => model.push((client.back_up(&current), current.clone())),
            Step::Restore(back) => {
                if let Some((id, content)) = model.iter().rev().nth(*back) {
                    assert!(client.read(*id).unwrap() == *content);
                }
            }
            Step::LoseCache => caches.iter().for_each(|cache| {
                each_file(cache.path(), &|path| fs::remove_file(path).unwrap());
            }),
            Step::CutCache(at) => caches.iter().for_each(|cache| {
                each_file(cache.path(), &|path| {
                    change_bytes(path, |bytes| bytes.truncate(usize::from(*at) % bytes.len()));
                });
            }),
            Step::FlipCache(at) => caches.iter().for_each(|cache| {
                each_file(cache.path(), &|path| {
                    change_bytes(path, |bytes| {
                        let at = usize::from(*at) % bytes.len();
                        bytes[at] ^= 0x10;
                    });
                });
            }),
            Step::LoseIndex(number) => {
                let runs = base.store.list("index/").unwrap();
                if !runs.is_empty() {
                    base.store.delete(&runs[usize::from(*number) % runs.len()].name).unwrap();
                }
            }
            Step::ChangeClient(number) => client = &clients[usize::from(*number)],
            Step::Abandon(seed) => {
                let content = BTreeMap::from([(b"a".to_vec(), noise(*seed, 20_000))]);
                let id = client.back_up(&content);
                base.store.delete(&format!("snapshots/00000001/{id}")).unwrap();
            }
        }
    }
    let mut listed = client.snapshots();
    listed.sort();
    let mut expected: Vec<_> = model.iter().map(|(id, _)| *id).collect();
    expected.sort();
    assert_eq!(listed, expected);
    for (id, content) in &model {
        assert!(clients[2].read(*id).unwrap() == *content);
    }
}

proptest! {
    // A failure prints its seed and its shrunk script.
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn scripts(steps in prop::collection::vec(step(), 1..25)) {
        let template = Client::init(Arc::new(MemoryStore::new()), 41);
        run(&steps, &template);
    }
}
