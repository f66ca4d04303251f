//! Damage to what was said about snapshots: whatever is wrong with an annotation, `check` names it, it
//! has no effect, all others keep theirs, and listing, restoring and backing up go on.

use crate::support::repository::{backup_options, in_memory, noise, reopen};
use crate::support::world::copy_of;
use crate::support::{Failure, Fault, FaultStore};
use chronolith::base::{AnnotationId, Classify, ErrorClass, SnapshotId};
use chronolith::format::annotation::{Annotation, AnnotationKind, Outcome};
use chronolith::format::trust::Act;
use chronolith::ops::Snapshots;
use chronolith::ops::backup::{Source, backup};
use chronolith::ops::check::{CheckOptions, Gravity, ReadData, check};
use chronolith::ops::restore::{RestoreOptions, RestorePlan};
use chronolith::repo::Repository;
use chronolith::storage::{MemoryStore, Operation, Store};
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

const LABELS: [&str; 2] = ["one", "two"];
const KINDS: [AnnotationKind; 5] = [
    AnnotationKind::Tag,
    AnnotationKind::Pin,
    AnnotationKind::Note,
    AnnotationKind::Forgotten,
    AnnotationKind::Verified,
];

fn bytes_of(label: &str) -> Vec<u8> {
    noise(label.len() as u64 + u64::from(label.as_bytes()[0]), 40_000)
}

fn store_snapshot(repository: &Arc<Repository>, label: &str) -> SnapshotId {
    let reader = Box::new(Cursor::new(bytes_of(label)));
    let stream = Source::Stream { name: label.into(), reader };
    backup(repository, vec![stream], &backup_options(label)).unwrap().snapshot.unwrap()
}

fn name_of(id: AnnotationId) -> String {
    format!("annotations/00000001/{id}")
}

/// A repository with a tag, a pin and a note on one snapshot; another one that is forgotten; and an
/// entry of the ledger. Returns the names of these objects in the order of [`KINDS`].
fn furnish() -> (Arc<MemoryStore>, Vec<String>) {
    let (store, repository) = in_memory();
    let ids = LABELS.map(|label| store_snapshot(&repository, label));
    repository.load_index().unwrap();
    let names = KINDS.map(|kind| {
        let mut annotation = Annotation::new(kind, repository.environment().clock.now());
        let about = |id: SnapshotId| [id].into_iter().collect();
        let act = Act::Mark { host: "host", label: "one" };
        let act = match kind {
            AnnotationKind::Forgotten => {
                annotation.subjects = about(ids[1]);
                Act::Withdraw
            }
            AnnotationKind::Verified => {
                annotation.packs = repository.index().packs().into_keys().collect();
                annotation.method = Some("content".to_owned());
                annotation.outcome = Some(Outcome::Passed);
                Act::Verified
            }
            _ => {
                annotation.subjects = about(ids[0]);
                annotation.value = Some("why".to_owned());
                annotation.key = (kind == AnnotationKind::Tag).then(|| "release".to_owned());
                act
            }
        };
        name_of(repository.annotate(&annotation, act).unwrap())
    });
    (store, names.to_vec())
}

/// Everything but the annotation of this kind has the effect that it should have; that one has none.
fn all_but(repository: &Arc<Repository>, lost: Option<AnnotationKind>, what: &str) -> Snapshots {
    let snapshots = Snapshots::load(repository).unwrap();
    let has = |kind| lost != Some(kind);
    let one = snapshots.resolve("one").unwrap();
    assert_eq!(one.tags.contains_key("release"), has(AnnotationKind::Tag), "{what}");
    assert_eq!(one.pinned.len(), usize::from(has(AnnotationKind::Pin)), "{what}");
    assert_eq!(one.notes.len(), usize::from(has(AnnotationKind::Note)), "{what}");
    let two = snapshots.resolve("two");
    assert_eq!(two.is_err(), has(AnnotationKind::Forgotten), "{what}");
    assert_eq!(snapshots.iter().count(), 1 + usize::from(!has(AnnotationKind::Forgotten)), "{what}");
    snapshots
}

fn restores(repository: &Arc<Repository>, snapshots: &Snapshots, what: &str) {
    for view in snapshots.with_forgotten() {
        let target = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let options = RestoreOptions { no_sync: true, ..RestoreOptions::default() };
        let plan = RestorePlan::new(repository, &view.snapshot.root, &[], target.path(), options).unwrap();
        assert!(plan.run().unwrap().complete(), "{what}");
        let label = &view.snapshot.label;
        assert!(std::fs::read(target.path().join(label)).unwrap() == bytes_of(label), "{what}");
    }
}

/// What every command makes of a repository in which one annotation is lost.
fn goes_on(store: Arc<dyn Store>, kind: AnnotationKind, name: &str, named: bool, what: &str) {
    let open = || reopen(store.clone()).unwrap();
    let repository = open();
    let snapshots = all_but(&repository, Some(kind), what);
    let refused: Vec<&str> = snapshots.refused.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(refused, if named { vec![name] } else { vec![] }, "{what}");
    restores(&repository, &snapshots, what);
    // Every way to check names it, also the one that reads the ledger.
    let budget = ReadData::OldestFirst { budget: Some(Duration::from_secs(60)) };
    for read_data in [ReadData::None, ReadData::All, budget] {
        let report = check(&open(), &CheckOptions { read_data, ..CheckOptions::default() }).unwrap();
        let damaged: Vec<&str> = report
            .findings
            .iter()
            .filter(|finding| finding.gravity == Gravity::Damage)
            .map(|finding| finding.object.as_str())
            .collect();
        assert_eq!(damaged, refused, "{what}: {report:?}");
        assert_eq!((report.is_damaged(), report.hurt.len()), (named, 0), "{what}");
    }
    let options = CheckOptions { read_data: ReadData::All, keep_ledger: true, ..CheckOptions::default() };
    check(&open(), &options).unwrap();
    let next = store_snapshot(&open(), "one");
    let repository = open();
    let snapshots = Snapshots::load(&repository).unwrap();
    let next = snapshots.get(&next).unwrap();
    assert!(next.snapshot.parent.is_some() && !next.forgotten, "{what}");
    restores(&repository, &snapshots, what);
}

#[test]
fn an_annotation_that_is_damaged_is_named_and_hides_nothing_else() {
    let (store, _) = furnish();
    all_but(&reopen(store).unwrap(), None, "nothing is lost");
    for (number, kind) in KINDS.into_iter().enumerate() {
        for damage in ["delete", "truncate", "cut to a byte", "flip", "swap", "swap with a snapshot"] {
            let (store, names) = furnish();
            let name = &names[number];
            let what = format!("{kind:?}: {damage}");
            let mut bytes = store.get(name, u64::MAX).unwrap();
            store.delete(name).unwrap();
            match damage {
                "truncate" => bytes.truncate(bytes.len() / 2),
                "cut to a byte" => bytes.truncate(1),
                "flip" => {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                }
                "swap" => bytes = store.get(&names[(number + 1) % names.len()], u64::MAX).unwrap(),
                "swap with a snapshot" => {
                    let snapshot = store.list("snapshots/").unwrap().remove(0).name;
                    bytes = store.get(&snapshot, u64::MAX).unwrap();
                }
                _ => {}
            }
            // That one is gone nobody can know without a catalogue.
            let deleted = damage == "delete";
            if !deleted {
                store.put(name, &bytes).unwrap();
            }
            goes_on(store, kind, name, !deleted, &what);
        }
    }
}

#[test]
fn two_annotations_in_each_others_place_are_both_named() {
    let (store, names) = furnish();
    let bytes: Vec<Vec<u8>> = names[..2].iter().map(|name| store.get(name, u64::MAX).unwrap()).collect();
    for (name, bytes) in names[..2].iter().zip(bytes.iter().rev()) {
        store.delete(name).unwrap();
        store.put(name, bytes).unwrap();
    }
    let report = check(&reopen(store).unwrap(), &CheckOptions::default()).unwrap();
    for name in &names[..2] {
        assert!(report.findings.iter().any(|finding| finding.object == *name), "{name}: {report:?}");
    }
    assert_eq!(report.damaged, 2);
}

#[test]
fn an_annotation_that_the_disk_does_not_give_back_is_as_a_damaged_one() {
    for failure in [Failure::Fatal, Failure::Denied] {
        for (number, kind) in KINDS.into_iter().enumerate() {
            let (store, names) = furnish();
            let bad = names[number].clone();
            let store = FaultStore::with_plan(copy_of(store.as_ref()), move |_, operation, name| {
                (operation == Operation::Get && name == bad).then_some(Fault::Before(failure))
            });
            goes_on(Arc::new(store), kind, &names[number], true, &format!("{kind:?}: {failure:?}"));
        }
    }
    // A store that is out of reach for a moment says nothing about what it holds.
    let (store, names) = furnish();
    let store = FaultStore::with_plan(copy_of(store.as_ref()), move |_, operation, name| {
        (operation == Operation::Get && name == names[0]).then_some(Fault::Before(Failure::Transient))
    });
    let error = Snapshots::load(&reopen(Arc::new(store)).unwrap()).map(drop).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
}

#[test]
fn a_snapshot_that_the_disk_does_not_give_back_hides_no_other() {
    let (store, _) = furnish();
    let snapshots = Snapshots::load(&reopen(store.clone()).unwrap()).unwrap();
    let lost = snapshots.resolve("one").unwrap().id;
    let name = format!("snapshots/00000001/{lost}");
    let bad = name.clone();
    let store = FaultStore::with_plan(copy_of(store.as_ref()), move |_, operation, name| {
        (operation == Operation::Get && name == bad).then_some(Fault::Before(Failure::Fatal))
    });
    let repository = reopen(Arc::new(store)).unwrap();
    let snapshots = Snapshots::load(&repository).unwrap();
    assert_eq!(snapshots.with_forgotten().len(), 1);
    assert_eq!(snapshots.refused.iter().map(|(name, _)| name).collect::<Vec<_>>(), [&name]);
    restores(&repository, &snapshots, "the other one");
    let report = check(&repository, &CheckOptions::default()).unwrap();
    assert!(
        report.findings.iter().any(|finding| finding.object == name && finding.gravity == Gravity::Damage)
    );
    let next = store_snapshot(&repository, "one");
    assert!(Snapshots::load(&repository).unwrap().get(&next).is_some());
}
