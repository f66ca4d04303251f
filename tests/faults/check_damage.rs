//! The damage matrix: every kind of object, deleted, cut short, with a bit flipped, or with another
//! object's bytes in its place; and what listing, checking, restoring, repairing and the next backup make of it.
//!
//! Nothing ever comes back wrong: a restore is whole, or says which files are not.

use crate::support::repository::{backup_options, in_memory, noise, reopen};
use crate::support::world::copy_of;
use chronolith::format::annotation::{Annotation, AnnotationKind};
use chronolith::format::trust::Act;
use chronolith::ops::backup::{Source, backup};
use chronolith::ops::check::{CheckOptions, ReadData, check};
use chronolith::ops::repair::{
    IndexOptions, IndexPlan, PacksOptions, PacksPlan, SnapshotsOptions, SnapshotsPlan,
};
use chronolith::ops::restore::{RestoreOptions, RestorePlan};
use chronolith::repo::{FoundSnapshot, Repository};
use chronolith::storage::{MemoryStore, Store};
use std::io::Cursor;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Delete,
    Truncate,
    Flip,
    Swap,
}

use Damage::{Delete, Flip, Swap, Truncate};

/// What becomes of the repository.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// Snapshots that are listed, of two.
    listed: usize,
    /// `check` with all data read finds damage.
    found: bool,
    /// Restores of the listed snapshots that are whole.
    whole: usize,
    /// The backup after the check can be restored wholly.
    next: bool,
}

const fn outcome(listed: usize, found: bool, whole: usize, next: bool) -> Outcome {
    Outcome { listed, found, whole, next }
}

fn sources() -> [(&'static str, Vec<u8>); 2] {
    [("one", noise(1, 300_000)), ("two", noise(2, 200_000))]
}

fn store_snapshot(repository: &Arc<Repository>, label: &str) {
    let content = sources().into_iter().find(|(name, _)| *name == label).unwrap().1;
    let stream = Source::Stream { name: label.into(), reader: Box::new(Cursor::new(content)) };
    backup(repository, vec![stream], &backup_options(label)).unwrap();
}

fn furnish() -> Arc<MemoryStore> {
    let (store, repository) = in_memory();
    for (label, _) in sources() {
        store_snapshot(&repository, label);
    }
    let snapshot = repository.snapshots().unwrap().found.remove(0);
    let mut note = Annotation::new(AnnotationKind::Note, repository.environment().clock.now());
    note.subjects = [snapshot.id].into_iter().collect();
    note.value = Some("a note".to_owned());
    let act = Act::Mark { host: &snapshot.snapshot.host, label: &snapshot.snapshot.label };
    repository.annotate(&note, act).unwrap();
    store
}

/// The object that is damaged, and one of the same kind (or, where there is none, another).
fn pick(store: &MemoryStore, kind: &str) -> (String, String) {
    let all = store.list("").unwrap();
    let mut packs: Vec<_> = all.iter().filter(|object| object.name.starts_with("packs/")).collect();
    packs.sort_by_key(|pack| std::cmp::Reverse(pack.length));
    // The two longest hold content, in the order of their lengths: those of `one` and of `two`.
    let (content, metadata) = packs.split_at(2);
    let named = |prefix: &str| -> Vec<String> {
        let names = all.iter().map(|object| object.name.clone());
        names.filter(|name| name.starts_with(prefix)).collect()
    };
    let mut names = match kind {
        "content pack" => content.iter().map(|pack| pack.name.clone()).collect(),
        "metadata pack" => metadata.iter().map(|pack| pack.name.clone()).collect(),
        prefix => named(prefix),
    };
    let first = names.remove(0);
    let other = names.into_iter().next().unwrap_or_else(|| named("snapshots/").remove(0));
    (first, other)
}

fn apply(store: &MemoryStore, damage: Damage, name: &str, other: &str) {
    let mut bytes = store.get(name, u64::MAX).unwrap();
    store.delete(name).unwrap();
    match damage {
        Delete => return,
        Truncate => bytes.truncate(bytes.len() / 2),
        Flip => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        Swap => bytes = store.get(other, u64::MAX).unwrap(),
    }
    store.put(name, &bytes).unwrap();
}

/// Restores a snapshot; whatever comes must be what was backed up.
fn is_whole(repository: &Arc<Repository>, found: &FoundSnapshot) -> bool {
    let target = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = RestoreOptions { no_sync: true, ..RestoreOptions::default() };
    let plan = match RestorePlan::new(repository, &found.snapshot.root, &[], target.path(), options) {
        Ok(plan) => plan,
        Err(_) => return false,
    };
    let report = plan.run().unwrap();
    let label = &found.snapshot.label;
    let content = sources().into_iter().find(|(name, _)| name == label).unwrap().1;
    match std::fs::read(target.path().join(label)) {
        Ok(bytes) => assert!(bytes == content, "a file came back wrong"),
        Err(_) => assert!(!report.complete(), "a file is missing and nobody says so"),
    }
    report.complete()
}

fn look(store: &Arc<MemoryStore>) -> Outcome {
    let repository = reopen(store.clone()).unwrap();
    let snapshots = repository.snapshots().unwrap().found;
    let whole = snapshots.iter().filter(|found| is_whole(&repository, found)).count();
    let options = CheckOptions { read_data: ReadData::All, keep_ledger: true, program: "test".to_owned() };
    let report = check(&reopen(store.clone()).unwrap(), &options).unwrap();
    // What cannot be restored is what the check names.
    assert_eq!(report.hurt.len(), snapshots.len() - whole, "{report:?}");
    repaired(store, &snapshots, whole);
    let before: Vec<_> = snapshots.iter().map(|found| found.id).collect();
    let repository = reopen(store.clone()).unwrap();
    store_snapshot(&repository, "one");
    let repository = reopen(store.clone()).unwrap();
    let newest = repository.snapshots().unwrap().found.into_iter().find(|found| !before.contains(&found.id));
    Outcome {
        listed: snapshots.len(),
        found: report.is_damaged(),
        whole,
        next: is_whole(&repository, &newest.unwrap()),
    }
}

/// Repairs everything in a copy of the store: nothing is worse, and what is hurt has a copy that can be restored.
fn repaired(store: &Arc<MemoryStore>, snapshots: &[FoundSnapshot], whole: usize) {
    let aside = Arc::new(copy_of(store.as_ref()));
    let open = || reopen(aside.clone()).unwrap();
    IndexPlan::new(&open(), IndexOptions::default()).unwrap().run().unwrap();
    PacksPlan::new(&open(), PacksOptions::default()).unwrap().run().unwrap();
    let plan = SnapshotsPlan::run(&open(), SnapshotsOptions::default(), true).unwrap();
    let repository = open();
    let still = snapshots.iter().filter(|found| is_whole(&repository, found)).count();
    assert!(still >= whole, "{still} of {whole} are whole after the repair");
    assert_eq!(plan.hurt.len(), snapshots.len() - still);
    // Packs of trees take all names with them.
    let copies = plan.hurt.iter().filter(|hurt| hurt.repairable).count();
    assert_eq!(plan.repaired.len(), copies);
    for copy in &plan.repaired {
        let found = repository.snapshots().unwrap().found.into_iter().find(|found| found.id == copy.id);
        let target = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let options = RestoreOptions { no_sync: true, ..RestoreOptions::default() };
        let root = found.unwrap().snapshot.root;
        let report =
            RestorePlan::new(&repository, &root, &[], target.path(), options).unwrap().run().unwrap();
        assert!(report.complete(), "{report:?}");
    }
}

fn matrix(kind: &str, expected: [(Damage, Outcome); 4]) {
    for (damage, expected) in expected {
        let store = furnish();
        let (name, other) = pick(&store, kind);
        apply(&store, damage, &name, &other);
        assert_eq!(look(&store), expected, "{kind}: {damage:?} of {name}");
    }
}

/// What is there twice hurts nobody while one copy is whole.
fn nothing_is_lost(kind: &str) {
    matrix(kind, [Delete, Truncate, Flip, Swap].map(|damage| (damage, outcome(2, true, 2, true))));
}

#[test]
fn configuration() {
    nothing_is_lost("chronolith");
    nothing_is_lost("copies/chronolith");
}

#[test]
fn registry_of_trust() {
    nothing_is_lost("trust/");
    nothing_is_lost("copies/trust/");
}

#[test]
fn key_slots() {
    nothing_is_lost("keys/");
    nothing_is_lost("copies/keys/");
}

#[test]
fn index_runs() {
    // The packs say the same: a run that is gone is no damage, one that is wrong is.
    let delete = (Delete, outcome(2, false, 2, true));
    let others = |damage| (damage, outcome(2, true, 2, true));
    matrix("index/", [delete, others(Truncate), others(Flip), others(Swap)]);
}

#[test]
fn snapshots() {
    // That one was deleted nobody can know without the catalogue.
    let delete = (Delete, outcome(1, false, 1, true));
    let others = |damage| (damage, outcome(1, true, 1, true));
    matrix("snapshots/", [delete, others(Truncate), others(Flip), others(Swap)]);
}

#[test]
fn annotations() {
    let delete = (Delete, outcome(2, false, 2, true));
    let others = |damage| (damage, outcome(2, true, 2, true));
    matrix("annotations/", [delete, others(Truncate), others(Flip), others(Swap)]);
}

#[test]
fn content_packs() {
    // What is missing or has another length, the next backup stores again; a bit that is flipped
    // only shows when the pack is read, and is reported then.
    let seen = |damage| (damage, outcome(2, true, 1, true));
    matrix("content pack", [seen(Delete), seen(Truncate), seen(Flip), seen(Swap)]);
}

#[test]
fn metadata_packs() {
    // Trees and recipes of one snapshot; the other does not need them.
    let seen = |damage| (damage, outcome(2, true, 1, true));
    matrix("metadata pack", [seen(Delete), seen(Truncate), seen(Flip), seen(Swap)]);
}
