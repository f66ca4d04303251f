//! The local index against a plain map: merged, reopened, damaged, without a folder.

use chronolith::base::{BlobId, IndexId, KeyId, PackId};
use chronolith::codec::Encoding;
use chronolith::crypto::Suite;
use chronolith::format::index::IndexRecord;
use chronolith::format::pack::{BlobClass, Origin};
use chronolith::repo::{IndexSet, KnownPack, RepoError, RunContent};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn hash(parts: &[u64]) -> [u8; 32] {
    let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_le_bytes()).collect();
    *blake3::hash(&bytes).as_bytes()
}

fn blob(number: u64) -> BlobId {
    BlobId::new(hash(&[1, number]))
}

fn run_id(number: u64) -> IndexId {
    IndexId::new(hash(&[2, number]))
}

/// A run of `count` blobs from `first` on, every third of them a difference, in two packs of a signer.
fn run(number: u64, first: u64, count: u64) -> RunContent {
    let origin = Origin {
        suite: Suite::Aes256Gcm,
        epoch: 1,
        encapsulation: [1; 32],
        salt: [number as u8; 32],
        commitment: [3; 32],
    };
    let packs = (0..2)
        .map(|pack| {
            Arc::new(KnownPack {
                id: PackId::new(hash(&[3, number, pack])),
                length: 1 << 20,
                class: BlobClass::Content,
                signer: KeyId::new(hash(&[4, number % 3])),
                origins: vec![origin; 1 + pack as usize].into(),
            })
        })
        .collect();
    let mut records: Vec<IndexRecord> = (first..first + count)
        .map(|n| {
            let base = (n % 3 == 2).then(|| blob(n / 3));
            IndexRecord {
                id: blob(n),
                class: BlobClass::Content,
                pack: (n % 2) as u32,
                frame_offset: 200 + n as u32,
                sealed_length: 100 + n as u32,
                plain_length: 4096,
                offset: 16,
                length: 1000,
                counter: n << 20,
                origin: (n % 2) as u16,
                encoding: if base.is_some() { Encoding::Difference } else { Encoding::Zstd },
                depth: u8::from(base.is_some()),
                base,
            }
        })
        .collect();
    records.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
    RunContent { records, packs }
}

/// Twenty-three runs of uneven size that overlap, so that some blobs have several copies.
fn runs() -> BTreeMap<IndexId, RunContent> {
    (0..23).map(|n| (run_id(n), run(n, n * 70, 60 + n * n))).collect()
}

fn load(index: &IndexSet, runs: &BTreeMap<IndexId, RunContent>) -> usize {
    let ids: Vec<IndexId> = runs.keys().copied().collect();
    let mut fetched = 0;
    let missing = index
        .load::<RepoError>(&ids, |id| {
            fetched += 1;
            let content = &runs[&id];
            Ok(Some(RunContent { records: content.records.clone(), packs: content.packs.clone() }))
        })
        .unwrap();
    assert!(missing.is_empty());
    fetched
}

/// Every copy that the runs name, and nothing else, is found with all its fields.
fn assert_same(index: &IndexSet, runs: &BTreeMap<IndexId, RunContent>) {
    let mut expected: BTreeMap<BlobId, Vec<(PackId, IndexRecord)>> = BTreeMap::new();
    for content in runs.values() {
        for record in &content.records {
            let pack = &content.packs[record.pack as usize];
            expected.entry(record.id).or_default().push((pack.id, *record));
        }
    }
    assert_eq!(index.len(), expected.values().map(Vec::len).sum::<usize>());
    for (id, copies) in &expected {
        let mut found: Vec<(PackId, IndexRecord)> = index
            .find(BlobClass::Content, id, false, |_| true)
            .into_iter()
            .map(|copy| {
                assert_eq!(copy.pack.origins.len(), 1 + usize::from(copy.record.origin));
                (copy.pack.id, IndexRecord { pack: 0, ..copy.record })
            })
            .collect();
        let mut copies: Vec<_> =
            copies.iter().map(|(pack, record)| (*pack, IndexRecord { pack: 0, ..*record })).collect();
        found.sort_by_key(|copy| copy.0);
        copies.sort_by_key(|copy| copy.0);
        assert_eq!(found, copies);
        assert!(index.find(BlobClass::Metadata, id, false, |_| true).is_empty());
    }
    for unknown in 0..500 {
        let id = BlobId::new(hash(&[9, unknown]));
        assert!(index.find(BlobClass::Content, &id, false, |_| true).is_empty());
    }
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn finds_what_the_runs_say_however_it_came_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let runs = runs();
    let fresh = IndexSet::new(Some(folder.path().to_owned()));
    assert_eq!(load(&fresh, &runs), 23);
    assert!(fresh.segment_count() < 8, "{} segments were not merged", fresh.segment_count());
    assert_same(&fresh, &runs);
    let reopened = IndexSet::new(Some(folder.path().to_owned()));
    assert_eq!(load(&reopened, &runs), 0, "the cache holds all of it");
    assert_same(&reopened, &runs);
    let without = IndexSet::new(None);
    assert_eq!(load(&without, &runs), 23);
    assert_same(&without, &runs);
    let impossible = IndexSet::new(Some(PathBuf::from("/proc/no/such/folder")));
    load(&impossible, &runs);
    assert_same(&impossible, &runs);
}

#[test]
fn follows_the_repository_when_runs_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut runs = runs();
    load(&IndexSet::new(Some(folder.path().to_owned())), &runs);
    runs.remove(&run_id(4));
    runs.insert(run_id(99), run(99, 5000, 10));
    let index = IndexSet::new(Some(folder.path().to_owned()));
    load(&index, &runs);
    assert_same(&index, &runs);
    index.add(run_id(100), &run(100, 6000, 10)).unwrap();
    runs.insert(run_id(100), run(100, 6000, 10));
    assert_same(&index, &runs);
}

/// Loads as [`load`] does, but only the runs of these numbers; `meanwhile` happens at the first fetch.
fn load_while(
    index: &IndexSet,
    runs: &BTreeMap<IndexId, RunContent>,
    listed: &[u64],
    mut meanwhile: impl FnMut(&IndexSet),
) {
    let ids: Vec<IndexId> = listed.iter().map(|number| run_id(*number)).collect();
    index
        .load::<RepoError>(&ids, |id| {
            meanwhile(index);
            let content = &runs[&id];
            Ok(Some(RunContent { records: content.records.clone(), packs: content.packs.clone() }))
        })
        .unwrap();
}

#[test]
fn what_this_process_added_outlasts_a_loading_that_did_not_list_it() {
    let folder = tempfile::tempdir().unwrap();
    for folder in [Some(folder.path().to_owned()), None] {
        let mut runs: BTreeMap<IndexId, RunContent> =
            (0..9).map(|number| (run_id(number), run(number, number * 50, 40))).collect();
        let index = IndexSet::new(folder.clone());
        // Added before, while a run is fetched, and afterwards; none of it was listed.
        index.add(run_id(50), &run(50, 5000, 20)).unwrap();
        let mut added = 60;
        load_while(&index, &runs, &[0, 1, 2, 3, 4, 5, 6, 7], |index| {
            index.add(run_id(added), &run(added, added * 100, 20)).unwrap();
            added += 1;
        });
        assert_eq!(added, 68, "nothing was added while it loaded");
        index.add(run_id(51), &run(51, 5100, 20)).unwrap();
        runs.remove(&run_id(8));
        runs.extend((50..52).map(|number| (run_id(number), run(number, 5000 + (number - 50) * 100, 20))));
        runs.extend((60..68).map(|number| (run_id(number), run(number, number * 100, 20))));
        assert_same(&index, &runs);
        // Loaded again, with some of it listed by now, each is there once.
        load_while(&index, &runs, &[0, 1, 2, 3, 4, 5, 6, 7, 50, 60, 61], |_| panic!("all of it is here"));
        assert_same(&index, &runs);
        // Another process, which has not written them, holds what was listed.
        let Some(folder) = folder else { continue };
        let other = IndexSet::new(Some(folder));
        load_while(&other, &runs, &[0, 1, 2], |_| {});
        runs.retain(|id, _| (0..3).any(|number| run_id(number) == *id));
        assert_same(&other, &runs);
    }
}

#[test]
fn what_no_run_names_outlasts_a_loading_and_is_never_taken_for_listed() {
    let folder = tempfile::tempdir().unwrap();
    let index = IndexSet::new(Some(folder.path().to_owned()));
    let runs = runs();
    index.add_unlisted(&run(77, 9000, 30)).unwrap();
    // So many that they are merged.
    assert_eq!(load(&index, &runs), 23);
    let (known, unlisted) = (blob(100), blob(9010));
    for _ in 0..2 {
        assert_eq!(index.find(BlobClass::Content, &unlisted, false, |_| true).len(), 1);
        assert!(!index.holds_listed(BlobClass::Content, &unlisted, |_| true));
        assert!(index.find_listed(BlobClass::Content, &unlisted, |_| true).is_empty());
        assert!(index.holds_listed(BlobClass::Content, &known, |_| true));
        index.drop_damaged();
        assert_eq!(load(&index, &runs), 0);
    }
    // It is for this process alone.
    let other = IndexSet::new(Some(folder.path().to_owned()));
    assert_eq!(load(&other, &runs), 0);
    assert_same(&other, &runs);
}

#[test]
fn threads_that_add_while_others_load_and_heal_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let index = IndexSet::new(Some(folder.path().to_owned()));
    let runs: BTreeMap<IndexId, RunContent> =
        (0..8).map(|number| (run_id(number), run(number, number * 50, 40))).collect();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let index = &index;
            scope.spawn(move || {
                for number in 0..20 {
                    let number = 1000 + thread * 100 + number;
                    index.add(run_id(number), &run(number, number * 30, 20)).unwrap();
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..20 {
                    load_while(&index, &runs, &[0, 1, 2, 3, 4, 5, 6, 7], |_| {});
                    index.drop_damaged();
                }
            });
        }
    });
    let mut all = runs;
    for thread in 0..3 {
        let numbers = (0..20).map(|number| 1000 + thread * 100 + number);
        all.extend(numbers.map(|number| (run_id(number), run(number, number * 30, 20))));
    }
    assert_same(&index, &all);
}

#[test]
fn only_copies_that_the_caller_accepts_are_found() {
    let index = IndexSet::new(None);
    let runs = runs();
    load(&index, &runs);
    let signer = KeyId::new(hash(&[4, 1]));
    for number in 0..1500 {
        for copy in index.find(BlobClass::Content, &blob(number), false, |pack| pack.signer == signer) {
            assert_eq!(copy.pack.signer, signer);
        }
        let first = index.find(BlobClass::Content, &blob(number), true, |_| true);
        assert!(first.len() <= 1);
    }
}

#[test]
fn any_damage_to_the_cache_is_noticed_and_healed() {
    let folder = tempfile::tempdir().unwrap();
    let runs: BTreeMap<IndexId, RunContent> = [(run_id(1), run(1, 0, 120))].into();
    load(&IndexSet::new(Some(folder.path().to_owned())), &runs);
    let [path] = &segments(folder.path())[..] else { panic!("one segment was expected") };
    let good = fs::read(path).unwrap();
    let cuts = [0, 1, 127, 128, 4095, 4096, good.len() - 1];
    let damaged = cuts
        .into_iter()
        .map(|length| good[..length].to_vec())
        .chain((0..good.len()).step_by(7).map(|at| {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            bytes
        }))
        .chain([[good.as_slice(), b"more"].concat()]);
    for bytes in damaged {
        fs::remove_file(path).unwrap();
        fs::write(path, &bytes).unwrap();
        let index = IndexSet::new(Some(folder.path().to_owned()));
        load(&index, &runs);
        for number in 0..120 {
            for copy in index.find(BlobClass::Content, &blob(number), false, |_| true) {
                assert_eq!(copy.record.counter, number << 20, "damage was believed");
            }
        }
        if index.damaged() {
            index.drop_damaged();
            assert_eq!(load(&index, &runs), 1);
        }
        assert_same(&index, &runs);
    }
}
