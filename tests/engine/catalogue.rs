//! Catalogues: made by forget and prune, relied on by whoever shows, never by whoever deletes.

use crate::support::world::{Client, content, noise};
use crate::support::{CountingStore, Failure, Fault, FaultStore};
use chronolith::base::{Classify, ErrorClass, ObjectId, SnapshotId, Timestamp};
use chronolith::format::ObjectKind;
use chronolith::format::annotation::{Annotation, AnnotationKind};
use chronolith::format::catalog::CatalogScope;
use chronolith::format::cbor::Extra;
use chronolith::format::sets::IdSet;
use chronolith::format::snapshot::Snapshot;
use chronolith::format::trust::Act;
use chronolith::ops::catalogue::{ROOTS_AT_LEAST, gather, gather_now};
use chronolith::ops::check::{CheckOptions, Gravity, check};
use chronolith::ops::forget::forget;
use chronolith::ops::prune::{PruneOptions, prune};
use chronolith::ops::repair::{SnapshotsOptions, SnapshotsPlan};
use chronolith::ops::undelete::undelete;
use chronolith::ops::{OpsError, Snapshots};
use chronolith::repo::{Repository, Told};
use chronolith::storage::{MemoryStore, Operation, Store};
use std::collections::BTreeSet;
use std::sync::Arc;

/// One backup, and so many more snapshots of the same tree.
fn filled(count: usize) -> (Client, Vec<SnapshotId>) {
    let owner = Client::init(Arc::new(MemoryStore::new()), 77);
    let mut ids = vec![owner.back_up(&content([("a", vec![1; 5000])]))];
    ids.extend(more(&owner, count - 1));
    (owner, ids)
}

fn template(repository: &Repository) -> Snapshot {
    repository.snapshots().unwrap().found.swap_remove(0).snapshot
}

/// Commits snapshots of the tree that is there.
fn more(client: &Client, count: usize) -> Vec<SnapshotId> {
    let repository = client.open();
    let template = template(&repository);
    let number = repository.environment().store.list("snapshots/").unwrap().len() as i64;
    let commit = |n: i64| {
        let started = Timestamp::from_nanoseconds(n);
        repository
            .commit(&Snapshot { started, parent: None, extra: Extra::new(), ..template.clone() })
            .unwrap()
    };
    (0..count as i64).map(|n| commit(number + n)).collect()
}

fn shown(client: &Client) -> BTreeSet<SnapshotId> {
    Snapshots::load(&client.open()).unwrap().iter().map(|view| view.id).collect()
}

fn all(client: &Client) -> BTreeSet<SnapshotId> {
    Snapshots::load_all(&client.open()).unwrap().iter().map(|view| view.id).collect()
}

fn set(ids: &[SnapshotId]) -> BTreeSet<SnapshotId> {
    ids.iter().copied().collect()
}

fn sweep(client: &Client) -> Result<(), OpsError> {
    prune(&client.open(), &PruneOptions::new("test").within(0)).map(drop)
}

fn forgets(client: &Client, ids: &[SnapshotId]) -> Result<(), OpsError> {
    let repository = client.open();
    forget(&repository, &Snapshots::load_all(&repository)?, ids).map(drop)
}

fn names(client: &Client, area: &str) -> Vec<String> {
    client.store.list(area).unwrap().into_iter().map(|object| object.name).collect()
}

fn said(kind: AnnotationKind, id: SnapshotId) -> Annotation {
    Annotation { subjects: IdSet::from_iter([id]), ..Annotation::new(kind, Timestamp::from_nanoseconds(1)) }
}

const MARK: Act<'static> = Act::Mark { host: "db1", label: "app" };

fn damage(client: &Client) -> Vec<String> {
    let report = check(&client.open(), &CheckOptions::default()).unwrap();
    let damage = report.findings.into_iter().filter(|finding| finding.gravity == Gravity::Damage);
    damage.map(|finding| format!("{}: {}", finding.object, finding.what)).collect()
}

#[test]
fn maintenance_makes_them_once_enough_has_gathered_and_a_fresh_client_needs_few_requests() {
    let (owner, mut ids) = filled(ROOTS_AT_LEAST - 1);
    sweep(&owner).unwrap();
    assert_eq!(names(&owner, "catalog/"), [""; 0]);
    ids.extend(more(&owner, 300));
    sweep(&owner).unwrap();
    // [CATALOG-6]: in two copies.
    let made = names(&owner, "catalog/");
    let copies: Vec<String> = made.iter().map(|name| format!("copies/{name}")).collect();
    assert_eq!((made.len(), names(&owner, "copies/catalog/")), (1, copies));
    // [CONCURRENCY-43]: what is new goes under the next generation, and is found.
    let newest = owner.back_up(&content([("a", vec![2; 5000])]));
    assert_eq!(names(&owner, "snapshots/00000002/"), [format!("snapshots/00000002/{newest}")]);
    ids.push(newest);
    let counted = Arc::new(CountingStore::new(owner.store.clone()));
    let fresh = owner.through(counted.clone());
    assert_eq!(shown(&fresh), set(&ids));
    assert!(counted.total() < 20, "{} requests", counted.total());
    // In the order of the commits, and the parent was found in it.
    let snapshots = Snapshots::load(&fresh.open()).unwrap();
    let order: Vec<SnapshotId> = snapshots.iter().map(|view| view.id).collect();
    assert_eq!(order, ids);
    assert!(snapshots.get(&newest).unwrap().snapshot.parent.is_some());
    // [CONCURRENCY-44]: whoever deletes lists all.
    counted.reset();
    Snapshots::load_all(&fresh.open()).unwrap();
    assert_eq!(all(&fresh), set(&ids));
    assert_eq!(damage(&owner), [""; 0]);
}

#[test]
fn numbers_stay_and_decide_the_order_whatever_the_store_says_later() {
    let (owner, mut ids) = filled(40);
    gather_now(&owner.open()).unwrap().unwrap();
    ids.extend(more(&owner, 40));
    gather_now(&owner.open()).unwrap().unwrap();
    // The store of a copy shows other times: those of the last come first.
    let copied = MemoryStore::new();
    for object in owner.store.list("").unwrap().into_iter().rev() {
        copied.put(&object.name, &owner.store.get(&object.name, u64::MAX).unwrap()).unwrap();
    }
    let copy = owner.through(Arc::new(copied));
    for snapshots in [Snapshots::load(&copy.open()).unwrap(), Snapshots::load_all(&copy.open()).unwrap()] {
        let order: Vec<SnapshotId> = snapshots.iter().map(|view| view.id).collect();
        assert_eq!(order, ids, "[CATALOG-2]");
    }
    // What no catalogue lists comes after all that are listed.
    let late = more(&copy, 1);
    assert_eq!(Snapshots::load(&copy.open()).unwrap().iter().next_back().unwrap().id, late[0]);
}

#[test]
fn a_few_of_them_hold_everything_however_often_one_is_made() {
    let (owner, mut ids) = filled(2);
    let mut written = 0;
    for _ in 0..40 {
        ids.extend(more(&owner, 2));
        let before: u64 = owner.store.list("catalog/").unwrap().iter().map(|object| object.length).sum();
        gather_now(&owner.open()).unwrap().unwrap();
        let after: u64 = owner.store.list("catalog/").unwrap().iter().map(|object| object.length).sum();
        written += after - before;
    }
    let memory = owner.open().memory().unwrap();
    assert!(memory.is_whole() && memory.held().len() <= 6, "{}", memory.held().len());
    assert_eq!((memory.entries().count(), shown(&owner)), (ids.len(), set(&ids)));
    let numbers: BTreeSet<u64> = memory.entries().map(|entry| entry.number).collect();
    assert_eq!(numbers, (1..=ids.len() as u64).collect());
    // Each was written down some times, not forty.
    let once: u64 = memory.entries().map(|entry| entry.length).sum();
    assert!(written < 10 * once, "{written} bytes for {once}");
    // Those that were taken over go.
    sweep(&owner).unwrap();
    sweep(&owner).unwrap();
    assert_eq!(names(&owner, "catalog/").len(), memory.held().len());
    assert_eq!(names(&owner, "copies/catalog/").len(), memory.held().len());
    assert_eq!((shown(&owner), damage(&owner)), (set(&ids), vec![]));
}

/// [CONCURRENCY-22]
#[test]
fn a_writer_whose_generation_was_closed_without_it_puts_its_root_again() {
    let (owner, ids) = filled(3);
    let writer = owner.open();
    let template = template(&writer);
    // The maker has looked already when the writer commits.
    let maker = owner.open();
    let seen = Snapshots::load_all(&maker).unwrap();
    let committed = writer.put_snapshot(&Snapshot { user: "late".to_owned(), ..template }).unwrap();
    gather(&maker, &seen, 1).unwrap();
    let late = SnapshotId::from(committed.id);
    // The maker looks again, and brings it along; where it came to no end of that, readers see it where it is.
    let place = format!("snapshots/00000002/{late}");
    assert_eq!(shown(&owner), set(&[ids.as_slice(), &[late]].concat()));
    owner.store.delete(&place).unwrap();
    assert_eq!(shown(&owner), set(&[ids.as_slice(), &[late]].concat()));
    // The writer puts it there by itself.
    writer.stay_found(&committed).unwrap();
    assert_eq!(shown(&owner), set(&[ids.as_slice(), &[late]].concat()));
    assert!(owner.store.head(&place).is_ok());
    // So does who says something about snapshots: this client knows of the first generation only.
    let pin = owner.open();
    assert_eq!(pin.generation().unwrap(), 2);
    more(&owner, 2);
    gather_now(&owner.open()).unwrap().unwrap();
    pin.annotate(&said(AnnotationKind::Pin, late), MARK).unwrap();
    let pinned = Snapshots::load(&owner.open()).unwrap();
    assert_eq!(pinned.get(&late).unwrap().pinned.len(), 1);
    // One that the catalogue has seen is left where it is.
    let committed =
        writer.put_snapshot(&Snapshot { user: "seen".to_owned(), ..template_of(&owner) }).unwrap();
    gather_now(&owner.open()).unwrap().unwrap();
    let before = names(&owner, "snapshots/");
    writer.stay_found(&committed).unwrap();
    assert_eq!(names(&owner, "snapshots/"), before);
}

fn template_of(client: &Client) -> Snapshot {
    template(&client.open())
}

/// [CATALOG-4]: two at the same moment, each of which has seen something else.
#[test]
fn of_two_that_were_made_at_once_none_is_lost() {
    let (owner, mut ids) = filled(3);
    let first = owner.open();
    let seen = Snapshots::load_all(&first).unwrap();
    ids.extend(more(&owner, 2));
    gather_now(&owner.open()).unwrap().unwrap();
    gather(&first, &seen, 1).unwrap();
    assert_eq!(owner.open().memory().unwrap().held().len(), 2);
    assert_eq!(shown(&owner), set(&ids));
    ids.extend(more(&owner, 6));
    gather_now(&owner.open()).unwrap().unwrap();
    let memory = owner.open().memory().unwrap();
    assert_eq!((memory.held().len(), memory.entries().count()), (1, ids.len()));
    assert_eq!(shown(&owner), set(&ids));
    sweep(&owner).unwrap();
    sweep(&owner).unwrap();
    assert_eq!(names(&owner, "catalog/").len(), 1);
    assert_eq!(shown(&owner), set(&ids));
}

/// [CONCURRENCY-45], [ANNOTATION-6]: what is forgotten and deleted is recorded, and then nothing else of it stays.
#[test]
fn ends_are_recorded_so_that_annotations_about_what_is_gone_may_go() {
    let (owner, ids) = filled(70);
    gather_now(&owner.open()).unwrap().unwrap();
    let repository = owner.open();
    let note = Annotation { value: Some("n".to_owned()), ..said(AnnotationKind::Note, ids[3]) };
    repository.annotate(&note, MARK).unwrap();
    let pin = repository.annotate(&said(AnnotationKind::Pin, ids[4]), MARK).unwrap();
    let unpin = Annotation { cancels: Some(pin), ..Annotation::new(AnnotationKind::Unpin, note.created) };
    repository.annotate(&unpin, Act::Withdraw).unwrap();
    let kept = repository.annotate(&said(AnnotationKind::Pin, ids[69]), MARK).unwrap();
    gather_now(&repository).unwrap().unwrap();
    forgets(&owner, &ids[..60]).unwrap();
    for _ in 0..6 {
        sweep(&owner).unwrap();
    }
    assert_eq!((shown(&owner), all(&owner)), (set(&ids[60..]), set(&ids[60..])));
    assert_eq!(names(&owner, "snapshots/").len(), 10);
    let left = names(&owner, "annotations/");
    assert!(left.len() == 1 && left[0].ends_with(&kept.to_string()), "{left:?}");
    let memory = owner.open().memory().unwrap();
    let snapshots = memory.entries().filter(|entry| entry.place.kind() == ObjectKind::Snapshot);
    assert_eq!((memory.ends().count(), snapshots.count()), (60, 10));
    // Nobody misses them, and what comes back after its end is no root.
    forgets(&owner, &ids[60..61]).unwrap();
    assert_eq!(damage(&owner), [""; 0]);
    let old = owner.open().read_catalogue(memory.newest().map(|(id, _)| id).as_ref().unwrap());
    assert!(old.unwrap().1.ends.len() <= 60);
    assert_eq!(shown(&owner), set(&ids[61..]));
}

/// Who pins what is gone already keeps nothing, and keeps nobody from anything.
#[test]
fn what_was_swept_has_ended_at_once_and_a_pin_that_comes_too_late_stops_nobody() {
    let (owner, ids) = filled(ROOTS_AT_LEAST + 4);
    let (gone, kept) = ids.split_at(3);
    gather_now(&owner.open()).unwrap().unwrap();
    forgets(&owner, gone).unwrap();
    let with_forgotten = |client: &Client| -> BTreeSet<SnapshotId> {
        let snapshots = Snapshots::load(&client.open()).unwrap();
        snapshots.with_forgotten().iter().map(|view| view.id).collect()
    };
    assert_eq!(with_forgotten(&owner), set(&ids), "they are still there");
    sweep(&owner).unwrap();
    assert_eq!(with_forgotten(&owner), set(kept));
    let writer = owner.open();
    let told: Vec<bool> = gone
        .iter()
        .map(|id| matches!(writer.memory().unwrap().told(&ObjectId::from(*id)), Some(Told::Ended(_))))
        .collect();
    assert_eq!(told, [true; 3], "few as they are, their ends are recorded");
    writer.annotate(&said(AnnotationKind::Pin, gone[0]), MARK).unwrap();
    let next = kept[0];
    forgets(&owner, &[next]).unwrap();
    sweep(&owner).unwrap();
    assert_eq!((with_forgotten(&owner), damage(&owner)), (set(&kept[1..]), Vec::new()));
    // A sweep that is killed before it records them: lists do not show what is gone, and the next prune records it.
    forgets(&owner, &[kept[1]]).unwrap();
    let name = names(&owner, "snapshots/").into_iter().find(|name| name.ends_with(&kept[1].to_string()));
    owner.store.delete(&name.unwrap()).unwrap();
    assert_eq!(with_forgotten(&owner), set(&kept[2..]));
    sweep(&owner).unwrap();
    assert_eq!((with_forgotten(&owner), damage(&owner)), (set(&kept[2..]), Vec::new()));
}

#[test]
fn what_was_deleted_behind_everybodys_back_stops_deletion_and_is_put_back() {
    let (owner, ids) = filled(40);
    let repository = owner.open();
    let pin = repository.annotate(&said(AnnotationKind::Pin, ids[1]), MARK).unwrap();
    sweep(&owner).unwrap();
    assert_eq!(names(&owner, "catalog/").len(), 1);
    for (name, id) in [
        (format!("snapshots/00000001/{}", ids[7]), ids[7].to_string()),
        (format!("annotations/00000001/{pin}"), pin.to_string()),
    ] {
        let bytes = owner.store.get(&name, u64::MAX).unwrap();
        owner.store.delete(&name).unwrap();
        // A root or pin that is gone without a record of its end.
        for error in [forgets(&owner, &ids[20..21]).unwrap_err(), sweep(&owner).unwrap_err()] {
            assert!(error.to_string().contains(&id), "{error}");
            assert_eq!(error.class(), ErrorClass::Corrupt);
        }
        assert!(damage(&owner).iter().any(|line| line.contains(&name)), "{:?}", damage(&owner));
        // Whoever shows and restores still has it; a dry run of the repair says what it would do.
        let view = Snapshots::load(&owner.open()).unwrap();
        assert_eq!(view.iter().count(), 40);
        assert_eq!(view.get(&ids[1]).unwrap().pinned.len(), 1);
        let options = || SnapshotsOptions { program: "test".to_owned(), ..SnapshotsOptions::default() };
        let plan = SnapshotsPlan::run(&owner.open(), options(), false).unwrap();
        assert_eq!(plan.put_back, [name.as_str()]);
        assert!(all(&owner).len() < 40 || id == pin.to_string());
        let plan = SnapshotsPlan::run(&owner.open(), options(), true).unwrap();
        assert_eq!(plan.put_back, [name.as_str()]);
        assert_eq!(all(&owner).len(), 40);
        let back = names(&owner, "").into_iter().find(|name| name.ends_with(&id)).unwrap();
        assert_eq!(owner.store.get(&back, u64::MAX).unwrap(), bytes);
        sweep(&owner).unwrap();
        assert_eq!(damage(&owner), [""; 0]);
    }
    assert_eq!(owner.read(ids[7]).unwrap(), content([("a", vec![1; 5000])]));
}

/// [CATALOG-6]: who takes a root away with all that remembers it is noticed by whoever was there before.
#[test]
fn what_was_deleted_together_with_the_catalogues_is_missed_by_who_has_seen_them() {
    let (plain, ids) = filled(40);
    let folder = crate::scratch();
    let owner = plain.with_cache(folder.path());
    sweep(&owner).unwrap();
    let catalogue = names(&owner, "catalog/").swap_remove(0);
    let root = format!("snapshots/00000001/{}", ids[7]);
    let take = |name: &str| {
        let bytes = owner.store.get(name, u64::MAX).unwrap();
        owner.store.delete(name).unwrap();
        (name.to_owned(), bytes)
    };
    // The catalogue alone: nothing is lost, and it is made anew.
    for copy in [catalogue.clone(), format!("copies/{catalogue}")] {
        owner.store.delete(&copy).unwrap();
    }
    assert!(damage(&owner).iter().any(|line| line.starts_with(&catalogue)), "{:?}", damage(&owner));
    sweep(&owner).unwrap();
    assert_eq!(damage(&owner), [""; 0]);
    // With a root that it lists.
    let catalogue = names(&owner, "catalog/").swap_remove(0);
    let taken = [take(&root), take(&catalogue), take(&format!("copies/{catalogue}"))];
    for error in [forgets(&owner, &ids[20..21]).unwrap_err(), sweep(&owner).unwrap_err()] {
        let told = error.to_string();
        assert!(told.contains(&ids[7].to_string()) && told.contains("before"), "{told}");
        assert_eq!(error.class(), ErrorClass::Corrupt);
    }
    let found = damage(&owner);
    assert!(found.iter().any(|line| line.starts_with(&root)), "{found:?}");
    assert!(found.iter().any(|line| line.starts_with(&catalogue)), "{found:?}");
    // Brought back, all is well; and who set it back on purpose says so by removing the cache.
    for (name, bytes) in &taken {
        owner.store.put(name, bytes).unwrap();
    }
    assert_eq!(damage(&owner), [""; 0]);
    forgets(&owner, &ids[20..21]).unwrap();
    let taken =
        names(&owner, "catalog/").into_iter().flat_map(|name| [name.clone(), format!("copies/{name}")]);
    for name in taken.chain([root]) {
        owner.store.delete(&name).unwrap();
    }
    assert!(matches!(sweep(&owner), Err(OpsError::Stopped { .. })));
    std::fs::remove_dir_all(folder.path().join(owner.open().id().to_string())).unwrap();
    sweep(&owner).unwrap();
    assert_eq!(damage(&owner), [""; 0]);
}

/// An undelete that vanishes would let its snapshot be deleted.
#[test]
fn a_vanished_undelete_stops_deletion_too() {
    let (owner, ids) = filled(40);
    forgets(&owner, &ids[..1]).unwrap();
    undelete(&owner.open(), &ids[..1], "test").unwrap();
    let back = names(&owner, "annotations/");
    gather_now(&owner.open()).unwrap().unwrap();
    for name in back {
        let bytes = owner.store.get(&name, u64::MAX).unwrap();
        owner.store.delete(&name).unwrap();
        assert!(sweep(&owner).unwrap_err().to_string().contains(&name));
        owner.store.put(&name, &bytes).unwrap();
    }
    sweep(&owner).unwrap();
    assert_eq!(all(&owner), set(&ids));
}

/// A forgetting that the store hides for a while must not come back without what took it back.
#[test]
fn what_takes_back_a_forgetting_outlives_it() {
    let (owner, ids) = filled(40);
    forgets(&owner, &ids[..1]).unwrap();
    let forgetting = names(&owner, "annotations/").swap_remove(0);
    let cancels = forgetting.rsplit('/').next().unwrap().parse().unwrap();
    let back = Annotation {
        cancels: Some(cancels),
        ..Annotation::new(AnnotationKind::Undeleted, Timestamp::from_nanoseconds(1))
    };
    owner.open().annotate(&back, Act::Withdraw).unwrap();
    let hidden = owner.store.get(&forgetting, u64::MAX).unwrap();
    owner.store.delete(&forgetting).unwrap();
    for _ in 0..3 {
        sweep(&owner).unwrap();
    }
    owner.store.put(&forgetting, &hidden).unwrap();
    sweep(&owner).unwrap();
    assert_eq!((all(&owner), shown(&owner)), (set(&ids), set(&ids)));
}

/// [CATALOG-6]
#[test]
fn one_damaged_copy_is_read_from_the_other_and_without_both_the_objects_are_read() {
    let (owner, ids) = filled(40);
    sweep(&owner).unwrap();
    let name = names(&owner, "catalog/").swap_remove(0);
    let whole = owner.store.get(&name, u64::MAX).unwrap();
    for area in ["", "copies/"] {
        let copy = format!("{area}{name}");
        let mut bytes = whole.clone();
        bytes[whole.len() / 2] ^= 1;
        owner.store.replace(&copy, &bytes).unwrap();
        assert_eq!(shown(&owner), set(&ids));
        sweep(&owner).unwrap();
        assert!(damage(&owner).iter().any(|line| line.starts_with(&copy)));
        owner.store.delete(&copy).unwrap();
        assert_eq!(shown(&owner), set(&ids));
        assert!(damage(&owner).iter().any(|line| line.starts_with(&copy)));
        // The next that deletes makes it whole.
        sweep(&owner).unwrap();
        assert_eq!(owner.store.get(&copy, u64::MAX).unwrap(), whole);
    }
    // Both damaged: shown all the same, and nothing is deleted, since they might remember more.
    for area in ["", "copies/"] {
        owner.store.replace(&format!("{area}{name}"), &whole[..whole.len() - 1]).unwrap();
    }
    assert_eq!(shown(&owner), set(&ids));
    assert!(sweep(&owner).unwrap_err().to_string().contains(&name));
    // Both gone.
    for area in ["", "copies/"] {
        owner.store.delete(&format!("{area}{name}")).unwrap();
    }
    assert_eq!(shown(&owner), set(&ids));
    sweep(&owner).unwrap();
    assert_eq!(names(&owner, "catalog/").len(), 1);
    assert_eq!((shown(&owner), damage(&owner)), (set(&ids), vec![]));
}

#[test]
fn a_part_that_is_gone_is_noticed_and_made_again() {
    let (owner, mut ids) = filled(60);
    gather_now(&owner.open()).unwrap().unwrap();
    let part = names(&owner, "catalog/").swap_remove(0);
    ids.extend(more(&owner, 3));
    gather_now(&owner.open()).unwrap().unwrap();
    assert_eq!(owner.open().memory().unwrap().held().len(), 2);
    for area in ["", "copies/"] {
        owner.store.delete(&format!("{area}{part}")).unwrap();
    }
    assert_eq!(shown(&owner), set(&ids));
    assert!(damage(&owner).iter().any(|line| line.starts_with(&part)), "{:?}", damage(&owner));
    // It says so, and what is there is written down anew.
    sweep(&owner).unwrap();
    assert!(owner.listener.warned().contains("what it remembered"), "{}", owner.listener.warned());
    let memory = owner.open().memory().unwrap();
    assert!(memory.is_whole() && memory.entries().count() == ids.len());
    assert_eq!((shown(&owner), damage(&owner)), (set(&ids), vec![]));
}

#[test]
fn killed_at_any_request_the_maker_hides_nothing() {
    let (owner, ids) = filled(40);
    forgets(&owner, &ids[..5]).unwrap();
    let left = set(&ids[5..]);
    let mut kills = 0;
    for number in 1.. {
        let store =
            Arc::new(FaultStore::failing_from(owner.store.clone(), number, Fault::Before(Failure::Fatal)));
        let victim = owner.through(store.clone());
        let made = victim.try_open().map_err(OpsError::from).and_then(|repository| gather_now(&repository));
        assert_eq!(shown(&owner), left, "killed at request {number}");
        if !store.fired() {
            made.unwrap();
            break;
        }
        kills += 1;
    }
    assert!(kills > 10, "{kills}");
    sweep(&owner).unwrap();
    assert_eq!((shown(&owner), damage(&owner)), (left, vec![]));
}

/// Longer than anything else that is sealed in one piece, and long enough to be cut into two.
#[test]
fn much_is_written_down_in_several_parts() {
    let (owner, ids) = filled(2);
    let repository = owner.open();
    for number in 0..850_u32 {
        let value = noise(number.into(), 31_000).iter().map(|byte| format!("{byte:02x}")).collect();
        let note = Annotation { value: Some(value), ..said(AnnotationKind::Note, ids[0]) };
        repository.annotate(&note, MARK).unwrap();
    }
    gather_now(&repository).unwrap().unwrap();
    let memory = owner.open().memory().unwrap();
    assert!(memory.is_whole() && memory.held().len() == 2, "{}", memory.held().len());
    let snapshots = Snapshots::load(&owner.open()).unwrap();
    assert_eq!(snapshots.get(&ids[0]).unwrap().notes.len(), 850);
    assert_eq!(damage(&owner), [""; 0]);
}

/// The cache of a client costs and saves requests, and changes nothing else.
#[test]
fn a_warm_client_asks_for_listings_only() {
    let (owner, mut ids) = filled(50);
    let folder = crate::scratch();
    let counted = Arc::new(CountingStore::new(owner.store.clone()));
    let warm = owner.through(counted.clone()).with_cache(folder.path());
    let requests = |ids: &[SnapshotId]| {
        let repository = warm.open();
        counted.reset();
        let found: BTreeSet<SnapshotId> =
            Snapshots::load(&repository).unwrap().iter().map(|view| view.id).collect();
        assert_eq!(found, set(ids));
        (counted.count(Operation::Get), counted.total())
    };
    // Without a catalogue, and with one.
    assert_eq!(requests(&ids).0, 50);
    assert_eq!(requests(&ids), (0, 4));
    gather_now(&owner.open()).unwrap().unwrap();
    ids.extend(more(&owner, 3));
    assert_eq!(requests(&ids).0, 4);
    // Whether anything lies beyond the generation that the catalogue leaves open is looked for too, and in the last one
    // that it closed what it does not list.
    assert_eq!(requests(&ids), (0, 8));
    // What is damaged in it is fetched again.
    let file = std::fs::read_dir(folder.path().join(warm.open().id().to_string()))
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("known-"))
        .unwrap();
    let bytes = std::fs::read(&file).unwrap();
    for damaged in [bytes[..bytes.len() / 2].to_vec(), vec![7; 5000], Vec::new()] {
        std::fs::write(&file, damaged).unwrap();
        requests(&ids);
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(requests(&ids).0, 4);
    // Whether anything lies beyond the generation that the catalogue leaves open is looked for too, and in the last one
    // that it closed what it does not list.
    assert_eq!(requests(&ids), (0, 8));
    // Nothing in it can be read without the key.
    let text = std::fs::read(&file).unwrap();
    assert!(!text.windows(7).any(|window| window == b"app" || window == b"root\0db"));
}

/// [CATALOG-1]: what the catalogue says of an object counts only as far as the object's own signature does.
#[test]
fn an_original_that_does_not_hold_is_read_from_the_store() {
    let (owner, ids) = filled(4);
    let repository = owner.open();
    gather_now(&repository).unwrap().unwrap();
    let (id, _) = repository.memory().unwrap().newest().unwrap();
    let (_, mut catalogue) = repository.read_catalogue(&id).unwrap();
    let [first, second] = [catalogue.entries[0].original.clone(), catalogue.entries[1].original.clone()];
    catalogue.entries[0].original = second;
    let last = catalogue.entries[2].original.len() - 1;
    catalogue.entries[2].original[last] ^= 1;
    let payload = catalogue.encode().unwrap();
    let forged = repository.put_object("catalog", ObjectKind::Catalog, Act::Catalog, &payload).unwrap();
    for area in ["", "copies/"] {
        owner.store.delete(&format!("{area}catalog/{id}")).unwrap();
    }
    assert_eq!(shown(&owner), set(&ids));
    // And where the store has it no more, it is not shown.
    let place = catalogue.entries[0].place.to_string();
    owner.store.delete(&place).unwrap();
    assert_eq!(shown(&owner).len(), 3);
    owner.store.put(&place, &first).unwrap();
    assert_eq!(shown(&owner), set(&ids));
    assert!(owner.store.head(&format!("catalog/{forged}")).is_ok());
}

#[test]
fn scopes_close_generations_one_after_the_other() {
    let (owner, _) = filled(3);
    let closed = |client: &Client| {
        let memory = client.open().memory().unwrap();
        let mut scopes: Vec<CatalogScope> = memory.held().values().map(|held| held.scope().clone()).collect();
        scopes.sort();
        (scopes, memory.generation())
    };
    assert_eq!(closed(&owner), (vec![], 1));
    gather_now(&owner.open()).unwrap().unwrap();
    assert_eq!(closed(&owner), (vec![CatalogScope::Roots { first: 1, last: 1 }], 2));
    // Nothing new: none is made.
    assert_eq!(gather_now(&owner.open()).unwrap(), None);
    more(&owner, 2);
    gather_now(&owner.open()).unwrap().unwrap();
    assert_eq!(closed(&owner), (vec![CatalogScope::Roots { first: 1, last: 2 }], 3));
    let ids: Vec<ObjectId> = owner.open().memory().unwrap().entries().map(|entry| entry.place.id()).collect();
    assert_eq!(ids.len(), 5);
}

/// [CATALOG-6]: what was made since a catalogue that is lost is shown all the same, and what is rotten where it lies
/// comes out of the catalogue that holds it.
#[test]
fn a_lost_catalogue_hides_nothing_that_came_after_it() {
    let (owner, mut ids) = filled(40);
    gather_now(&owner.open()).unwrap().unwrap();
    let old = names(&owner, "catalog/");
    ids.extend(more(&owner, 2));
    gather_now(&owner.open()).unwrap().unwrap();
    ids.extend(more(&owner, 1));
    for name in names(&owner, "catalog/").iter().filter(|name| !old.contains(name)) {
        owner.store.delete(name).unwrap();
        owner.store.delete(&format!("copies/{name}")).unwrap();
    }
    assert_eq!(names(&owner, "catalog/"), old);
    assert_eq!(shown(&owner), set(&ids));
    owner.store.replace(&format!("snapshots/00000001/{}", ids[3]), b"rotten").unwrap();
    assert_eq!(all(&owner), set(&ids));
    sweep(&owner).unwrap();
    assert_eq!(all(&owner), set(&ids));
}
