//! Checks: what is whole is found whole, what is not is named with all that it hurts.

use crate::scratch;
use crate::support::ManualClock;
use crate::support::repository::{
    environment, file, folder, in_memory, key_file, make, noise, reopen, store_tree,
};
use chronolith::base::{SecretBytes, SnapshotId};
use chronolith::format::trust::Role;
use chronolith::format::trust::scope::Scope;
use chronolith::ops::Snapshots;
use chronolith::ops::check::{CheckOptions, CheckReport, Gravity, ReadData, check};
use chronolith::ops::forget::forget;
use chronolith::ops::keys::{NewKey, add};
use chronolith::ops::marks::{Mark, mark};
use chronolith::ops::prune::{PruneOptions, prune};
use chronolith::repo::{Credential, Environment, NewSlot, Repository, open};
use chronolith::storage::{LocalStore, MemoryStore, ObjectInfo, Store};
use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

fn run(repository: &Arc<Repository>, read_data: ReadData) -> CheckReport {
    check(repository, &CheckOptions { read_data, ..CheckOptions::default() }).unwrap()
}

fn packs(store: &MemoryStore) -> Vec<ObjectInfo> {
    let mut packs = store.list("packs/").unwrap();
    packs.sort_by_key(|pack| std::cmp::Reverse(pack.length));
    packs
}

fn overwrite(store: &MemoryStore, name: &str, bytes: &[u8]) {
    store.delete(name).unwrap();
    store.put(name, bytes).unwrap();
}

fn flip(store: &MemoryStore, name: &str, at: impl Fn(usize) -> usize) {
    let mut bytes = store.get(name, u64::MAX).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 1;
    overwrite(store, name, &bytes);
}

#[test]
fn a_whole_repository_is_found_whole() {
    let (store, repository) = in_memory();
    let many = (0..3000).map(|n| file(n.to_string(), noise(n, 50))).collect();
    store_tree(&repository, "a", vec![file("f", noise(1, 2_000_000)), folder("many", many)]);
    store_tree(&repository, "b", vec![file("f", noise(1, 2_000_000)), file("g", "")]);
    for repository in [repository, reopen(store.clone()).unwrap()] {
        let structure = run(&repository, ReadData::None);
        assert!(!structure.is_damaged() && structure.findings.is_empty(), "{structure:?}");
        assert_eq!((structure.counts.snapshots, structure.unchecked.len()), (2, 0));
        let all = run(&repository, ReadData::All);
        assert!(!all.is_damaged() && all.findings.is_empty(), "{all:?}");
        assert_eq!(all.counts.packs_read, all.counts.packs);
        assert!(all.counts.bytes_read > 2_000_000 && all.counts.plain_bytes > 2_150_000);
        assert!(structure.counts.bytes_read < all.counts.bytes_read / 4, "trees and recipes only");
    }
}

/// Whoever forgets and prunes every night does not read of it in every check.
#[test]
fn what_was_forgotten_is_not_told_of() {
    let (store, repository) = in_memory();
    let (first, _) = store_tree(&repository, "a", vec![file("f", noise(1, 200_000))]);
    let note = Mark::Tag { key: "nightly".to_owned(), value: None };
    mark(&repository, &Snapshots::load(&repository).unwrap(), &[first], &[note]).unwrap();
    store_tree(&repository, "a", vec![file("f", noise(2, 200_000))]);
    let snapshots = Snapshots::load_all(&repository).unwrap();
    forget(&repository, &snapshots, &[first]).unwrap();
    assert!(run(&repository, ReadData::All).findings.is_empty());
    for _ in 0..2 {
        prune(&repository, &PruneOptions::new("test").within(0)).unwrap();
        let repository = reopen(store.clone()).unwrap();
        let report = run(&repository, ReadData::All);
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
}

#[test]
fn a_flipped_bit_is_named_with_every_path_that_it_hurts() {
    let (store, repository) = in_memory();
    let (shared, own) = (noise(1, 400_000), noise(2, 300_000));
    let (first, _) = store_tree(&repository, "a", vec![folder("d", vec![file("shared", &shared)])]);
    let (second, _) = store_tree(&repository, "b", vec![file("copy", &shared), file("own", &own)]);
    let (third, _) = store_tree(&repository, "c", vec![file("own", &own)]);
    let pack = packs(&store).remove(0);
    flip(&store, &pack.name, |_| 20_000);
    let repository = reopen(store).unwrap();
    assert!(!run(&repository, ReadData::None).is_damaged(), "nothing was read");
    let report = run(&repository, ReadData::All);
    assert!(report.is_damaged());
    assert!(report.findings.iter().all(|finding| finding.object == pack.name), "{:?}", report.findings);
    let hurt: Vec<(SnapshotId, String)> = report
        .affected
        .iter()
        .map(|affected| (affected.snapshot, String::from_utf8(affected.path.clone()).unwrap()))
        .collect();
    assert_eq!(
        BTreeSet::from_iter(hurt),
        BTreeSet::from([(first, "d/shared".to_owned()), (second, "copy".to_owned())])
    );
    for affected in &report.affected {
        assert_eq!(affected.because, [pack.name.as_str()]);
        let lost: u64 = affected.ranges.iter().map(|range| range.end - range.start).sum();
        assert!((1000..=64 << 10).contains(&lost), "{affected:?}: a frame, not the file");
    }
    assert!(!report.hurt.iter().any(|(id, _)| *id == third));
}

#[test]
fn a_copy_elsewhere_keeps_everything_readable() {
    let (store, repository) = in_memory();
    let bytes = noise(1, 200_000);
    store_tree(&repository, "a", vec![file("f", &bytes)]);
    let lost = packs(&store).remove(0);
    let kept = store.get(&lost.name, u64::MAX).unwrap();
    store.delete(&lost.name).unwrap();
    // The next backup stores the content again, and then the lost pack comes back, damaged.
    let again = reopen(store.clone()).unwrap();
    again.load_index().unwrap();
    again.find_lost_packs().unwrap();
    store_tree(&again, "b", vec![file("f", &bytes)]);
    store.put(&lost.name, &kept).unwrap();
    flip(&store, &lost.name, |_| 20_000);
    let report = run(&reopen(store).unwrap(), ReadData::All);
    assert!(report.damaged > 0);
    assert!(report.hurt.is_empty() && report.affected.is_empty(), "{report:?}");
}

#[test]
fn lost_index_runs_are_told_and_hurt_nothing() {
    let (store, repository) = in_memory();
    store_tree(&repository, "a", vec![file("f", noise(1, 100_000))]);
    let run_name = store.list("index/").unwrap().remove(0).name;
    let whole = store.get(&run_name, u64::MAX).unwrap();
    store.delete(&run_name).unwrap();
    let report = run(&reopen(store.clone()).unwrap(), ReadData::All);
    assert!(!report.is_damaged(), "{report:?}");
    assert_eq!(report.findings.len(), packs(&store).len());
    assert!(report.findings.iter().all(|finding| finding.gravity == Gravity::Note));
    store.put(&run_name, &whole).unwrap();
    flip(&store, &run_name, |length| length / 2);
    let report = run(&reopen(store).unwrap(), ReadData::All);
    assert!(report.damaged == 1 && report.hurt.is_empty(), "{report:?}");
    assert_eq!(report.findings[0].object, run_name);
}

#[test]
fn what_does_not_belong_there_is_told() {
    let home = scratch();
    let place = home.path().join("r");
    let repository = make(Arc::new(LocalStore::create(&place).unwrap()));
    store_tree(&repository, "a", vec![file("f", "1")]);
    fs::write(place.join("packs/stray"), "x").unwrap();
    fs::write(place.join("notes.txt"), "x").unwrap();
    fs::create_dir_all(place.join("tmp")).unwrap();
    fs::write(place.join("tmp/half"), "x").unwrap();
    let report = run(&repository, ReadData::None);
    assert!(!report.is_damaged());
    let told: Vec<&str> = report.findings.iter().map(|finding| finding.object.as_str()).collect();
    assert_eq!(told, ["notes.txt", "packs/stray", "tmp/half"]);
}

/// Opens the repository with a key of another role.
fn as_role(repository: &Arc<Repository>, store: Arc<MemoryStore>, role: Role) -> Arc<Repository> {
    let secret = || SecretBytes::new(vec![role as u8 + 100; 32]);
    let new = NewKey { role, name: format!("{role:?}"), domain: String::new(), scope: Scope::default() };
    add(repository, &new, &NewSlot::KeyFile(&secret())).unwrap();
    open(environment(store), &Credential::KeyFile(secret())).unwrap()
}

#[test]
fn keys_that_cannot_read_content_check_the_rest_and_say_so() {
    let (store, repository) = in_memory();
    store_tree(&repository, "a", vec![file("f", noise(1, 200_000))]);
    let pack = packs(&store).remove(0);
    for role in [Role::Writer, Role::Auditor, Role::Maintainer, Role::Reader] {
        let limited = as_role(&reopen(store.clone()).unwrap(), store.clone(), role);
        let report = run(&limited, ReadData::All);
        assert!(!report.is_damaged(), "{role:?}: {report:?}");
        assert_eq!(report.unchecked.len(), usize::from(role != Role::Reader), "{role:?}: {report:?}");
        // Its name and signature show damage to whoever holds no content key.
        flip(&store, &pack.name, |_| 20_000);
        let report = run(&limited, ReadData::All);
        assert!(report.findings.iter().any(|f| f.gravity == Gravity::Damage && f.object == pack.name));
        flip(&store, &pack.name, |_| 20_000);
    }
}

#[test]
fn the_ledger_makes_every_pack_come_round() {
    let (store, repository) = in_memory();
    for number in 0..6 {
        store_tree(&repository, &format!("l{number}"), vec![file("f", noise(number, 40_000))]);
    }
    let content = packs(&store).iter().filter(|pack| pack.length > 30_000).count() as u64;
    let keep = |repository: &Arc<Repository>, read_data| {
        check(repository, &CheckOptions { read_data, keep_ledger: true, program: "t".to_owned() }).unwrap()
    };
    let metadata = run(&repository, ReadData::None).counts.packs_read;
    // No time at all: nothing is begun.
    let none = keep(&repository, ReadData::OldestFirst { budget: Some(Duration::ZERO) });
    assert_eq!(none.counts.packs_read, metadata);
    let mut read = 0;
    for number in 1..=3 {
        read += keep(&repository, ReadData::Part { number, of: 3 }).counts.packs_read - metadata;
    }
    assert_eq!(read, content);
    assert!(!store.list("annotations/").unwrap().is_empty());
    let all = keep(&repository, ReadData::OldestFirst { budget: None });
    assert_eq!(all.counts.packs_read - metadata, content);
    assert!(!all.is_damaged() && all.findings.is_empty(), "{all:?}");
}

#[test]
fn a_check_writes_nothing_unless_it_keeps_the_ledger() {
    let (store, repository) = in_memory();
    store_tree(&repository, "a", vec![file("f", noise(1, 100_000))]);
    let before = store.list("").unwrap();
    run(&repository, ReadData::All);
    assert_eq!(store.list("").unwrap(), before);
    let clock = Arc::new(ManualClock::at_seconds(5));
    let other = open(Environment { clock, ..environment(store) }, &Credential::KeyFile(key_file())).unwrap();
    assert!(!run(&other, ReadData::OldestFirst { budget: None }).is_damaged());
}
