//! Parity: what rots, is cut off or lost in sectors comes back exactly, up to the strength, and never wrong.

use crate::support::world::{Client, Content, content, copy_of, dump, noise};
use crate::support::{Failure, Fault, FaultStore};
use chronolith::base::{Classify, ErrorClass, SnapshotId};
use chronolith::format::trust::Role;
use chronolith::ops::Snapshots;
use chronolith::ops::check::{CheckOptions, CheckReport, Gravity, ReadData, check, check_and_repair};
use chronolith::ops::forget::forget;
use chronolith::ops::marks::{Mark, mark};
use chronolith::ops::parity::{add, drop_all, repair, status};
use chronolith::ops::prune::{PruneOptions, prune};
use chronolith::ops::repair::{PacksOptions, PacksPlan, SnapshotsOptions, SnapshotsPlan};
use chronolith::storage::{MemoryStore, Operation, Store};
use std::sync::Arc;

/// What is done to an object.
type Damage = fn(&mut Vec<u8>);

struct Scene {
    owner: Client,
    content: Content,
    id: SnapshotId,
}

fn scene(percent: u8) -> Scene {
    let owner = Client::init(Arc::new(MemoryStore::new()), 90);
    let content = content([("app.sql", dump(1, 500, 7)), ("noise", noise(5, 600_000))]);
    let id = owner.back_up(&content);
    let added = add(&owner.open(), percent).unwrap();
    assert!(added.made >= 4 && added.damaged.is_empty(), "{added:?}");
    Scene { owner, content, id }
}

fn names(store: &dyn Store, area: &str) -> Vec<String> {
    let mut objects = store.list(area).unwrap();
    objects.sort_by_key(|object| std::cmp::Reverse(object.length));
    objects.into_iter().map(|object| object.name).collect()
}

fn change(store: &dyn Store, name: &str, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = store.get(name, u64::MAX).unwrap();
    change(&mut bytes);
    store.delete(name).unwrap();
    if !bytes.is_empty() {
        store.put(name, &bytes).unwrap();
    }
}

impl Scene {
    fn aside(&self) -> Client {
        self.owner.through(Arc::new(copy_of(self.owner.store.as_ref())))
    }
}

#[test]
fn whatever_is_damaged_within_the_strength_comes_back_exactly() {
    let scene = scene(5);
    let damages: [(&str, Damage); 6] = [
        ("a bit", |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
        }),
        ("a sector", |bytes| {
            let (at, end) = (bytes.len() / 3, bytes.len() / 3 + 500.min(bytes.len() / 3));
            bytes[at..end].fill(0);
        }),
        ("the first byte", |bytes| bytes[0] ^= 1),
        ("the last byte", |bytes| *bytes.last_mut().unwrap() ^= 1),
        ("cut off", |bytes| bytes.truncate(bytes.len() - 1)),
        ("too long", |bytes| bytes.extend_from_slice(&[7; 100])),
    ];
    for area in ["packs/", "index/", "snapshots/"] {
        for (what, damage) in damages {
            let client = scene.aside();
            let store = client.store.clone();
            let name = names(store.as_ref(), area).remove(0);
            let whole = store.get(&name, u64::MAX).unwrap();
            change(store.as_ref(), &name, damage);
            if store.get(&name, u64::MAX).unwrap() == whole {
                continue;
            }
            let dry = repair(&client.open(), true).unwrap();
            assert!(dry.len() == 1 && dry[0].repaired, "{area} {what}: {dry:?}");
            assert_ne!(store.get(&name, u64::MAX).unwrap(), whole);
            let done = repair(&client.open(), false).unwrap();
            assert!(done.len() == 1 && done[0].repaired && done[0].name == name, "{area} {what}: {done:?}");
            assert_eq!(store.get(&name, u64::MAX).unwrap(), whole, "{area} {what}");
            assert!(repair(&client.open(), false).unwrap().is_empty());
            assert_eq!(client.read(scene.id).unwrap(), scene.content);
        }
    }
}

#[test]
fn beyond_its_strength_nothing_is_changed_and_that_is_said() {
    let scene = scene(5);
    let client = scene.aside();
    let name = names(client.store.as_ref(), "packs/").remove(0);
    change(client.store.as_ref(), &name, |bytes| {
        let half = bytes.len() / 2;
        bytes[..half].fill(9);
    });
    let broken = client.store.get(&name, u64::MAX).unwrap();
    let found = repair(&client.open(), false).unwrap();
    assert!(found.len() == 1 && !found[0].repaired, "{found:?}");
    assert_eq!(client.store.get(&name, u64::MAX).unwrap(), broken);
    // A missing pack needs as much parity as it has bytes.
    let strong = self::scene(100);
    let name = names(strong.owner.store.as_ref(), "packs/").remove(0);
    let whole = strong.owner.store.get(&name, u64::MAX).unwrap();
    strong.owner.store.delete(&name).unwrap();
    let found = repair(&strong.owner.open(), false).unwrap();
    assert!(found.len() == 1 && found[0].repaired, "{found:?}");
    assert_eq!(strong.owner.store.get(&name, u64::MAX).unwrap(), whole);
}

#[test]
fn parity_that_is_damaged_itself_still_helps() {
    let scene = scene(10);
    let pack = names(scene.owner.store.as_ref(), "packs/").remove(0);
    let id = pack.rsplit('/').next().unwrap();
    let parity = names(scene.owner.store.as_ref(), &format!("parity/{id}/")).remove(0);
    let whole = scene.owner.store.get(&pack, u64::MAX).unwrap();
    let length = scene.owner.store.get(&parity, u64::MAX).unwrap().len();
    for at in [0, 100, 200, length / 2, length - 300, length - 100, length - 1] {
        let client = scene.aside();
        change(client.store.as_ref(), &pack, |bytes| bytes[5000] ^= 1);
        change(client.store.as_ref(), &parity, |bytes| bytes[at] ^= 0xFF);
        let found = repair(&client.open(), false).unwrap();
        assert!(found.iter().any(|object| object.name == pack && object.repaired), "byte {at}: {found:?}");
        assert_eq!(client.store.get(&pack, u64::MAX).unwrap(), whole, "byte {at}");
    }
}

#[test]
fn what_was_reported_is_taken_back_once_it_is_repaired() {
    let scene = scene(5);
    let look = || {
        let options =
            CheckOptions { read_data: ReadData::All, keep_ledger: true, program: "test".to_owned() };
        check(&scene.owner.open(), &options).unwrap()
    };
    let pack = names(scene.owner.store.as_ref(), "packs/").remove(0);
    change(scene.owner.store.as_ref(), &pack, |bytes| bytes[5000] ^= 1);
    let found = look();
    assert!(found.is_damaged() && found.reported == 1);
    assert!(found.findings.iter().any(|finding| finding.what.contains("parity")), "{:?}", found.findings);
    // `repair packs` tries parity before it copies anything.
    let plan = PacksPlan::new(&scene.owner.open(), PacksOptions::default()).unwrap();
    assert!(plan.packs[0].by_parity && !plan.loses_something(), "{:?}", plan.packs);
    let done = plan.run().unwrap();
    assert_eq!((done.by_parity, done.frames), (1, 0));
    let after = look();
    assert!(!after.is_damaged() && after.cancelled == 1 && after.known_damage == 0, "{after:?}");
    assert_eq!(scene.owner.read(scene.id).unwrap(), scene.content);
}

#[test]
fn it_is_added_changed_and_dropped_by_who_may() {
    let scene = scene(5);
    let repository = scene.owner.open();
    let before = status(&repository).unwrap();
    assert_eq!((before.covered, before.covered_bytes, before.idle), (before.objects, before.bytes, 0));
    let again = add(&repository, 5).unwrap();
    assert_eq!((again.made, again.kept), (0, before.objects));
    // What comes later gets its own; another share takes the place of the old.
    scene.owner.back_up(&content([("later", noise(8, 50_000))]));
    assert!(status(&repository).unwrap().covered < status(&repository).unwrap().objects);
    let more = add(&repository, 20).unwrap();
    assert!(more.replaced >= 1, "{more:?}");
    let after = status(&repository).unwrap();
    assert_eq!((after.covered, after.parity_objects), (after.objects, after.objects));
    assert!(after.parity_bytes > before.parity_bytes);
    assert_eq!(add(&repository, 0).unwrap_err().class(), ErrorClass::Usage);
    let writer = crate::keys::with_role(&scene.owner, Role::Writer, "writer");
    let reader = crate::keys::with_role(&scene.owner, Role::Reader, "reader");
    add(&writer.open(), 20).unwrap();
    assert_eq!(add(&reader.open(), 20).unwrap_err().class(), ErrorClass::Forbidden);
    assert_eq!(drop_all(&writer.open(), false).unwrap_err().class(), ErrorClass::Forbidden);
    let (objects, _) = drop_all(&repository, true).unwrap();
    assert_eq!(drop_all(&repository, false).unwrap().0, objects);
    assert_eq!(status(&repository).unwrap().parity_objects, 0);
}

#[test]
fn killed_at_every_request_the_object_is_damaged_or_right_and_never_gone() {
    let scene = scene(5);
    let pack = names(scene.owner.store.as_ref(), "packs/").remove(0);
    let whole = scene.owner.store.get(&pack, u64::MAX).unwrap();
    change(scene.owner.store.as_ref(), &pack, |bytes| bytes[5000] ^= 1);
    let broken = scene.owner.store.get(&pack, u64::MAX).unwrap();
    for number in 1.. {
        let store = Arc::new(copy_of(scene.owner.store.as_ref()));
        let fault = Fault::Before(Failure::Fatal);
        let faulty = Arc::new(FaultStore::failing_from(store.clone(), number, fault));
        let client = scene.owner.through(faulty.clone());
        let done = client.try_open().map_err(chronolith::ops::OpsError::from);
        let done = done.and_then(|repository| repair(&repository, false));
        let now = store.get(&pack, u64::MAX).unwrap();
        assert!(now == whole || now == broken, "request {number}");
        if done.is_ok() && !faulty.fired() {
            assert_eq!(now, whole);
            return;
        }
    }
}

fn mending(client: &Client, read_data: ReadData) -> Result<CheckReport, chronolith::ops::OpsError> {
    let options = CheckOptions { read_data, keep_ledger: true, program: "test".to_owned() };
    check_and_repair(&client.open(), &options)
}

#[test]
fn a_check_says_what_parity_could_do_and_does_it_when_told_to() {
    let scene = scene(5);
    let store = scene.owner.store.clone();
    let pack = names(store.as_ref(), "packs/").remove(0);
    let snapshot = names(store.as_ref(), "snapshots/").remove(0);
    let run = names(store.as_ref(), "index/").remove(0);
    let whole: Vec<Vec<u8>> =
        [&pack, &snapshot, &run].iter().map(|name| store.get(name, u64::MAX).unwrap()).collect();
    change(store.as_ref(), &pack, |bytes| bytes[5000] ^= 1);
    change(store.as_ref(), &snapshot, |bytes| bytes[70] ^= 1);
    change(store.as_ref(), &run, |bytes| bytes.truncate(bytes.len() - 3));
    let options = CheckOptions { read_data: ReadData::All, keep_ledger: true, program: "test".to_owned() };
    let said = check(&scene.owner.open(), &options).unwrap();
    assert!(said.is_damaged() && said.mended.is_empty());
    for name in [&pack, &snapshot, &run] {
        let of_it = said.findings.iter().filter(|finding| finding.object == *name);
        let texts: Vec<&str> = of_it.map(|finding| finding.what.as_str()).collect();
        assert!(texts.iter().any(|what| what.contains("check --repair")), "{name}: {texts:?}");
    }
    assert_ne!(store.get(&pack, u64::MAX).unwrap(), whole[0], "a check changes nothing");
    let done = mending(&scene.owner, ReadData::All).unwrap();
    assert!(!done.is_damaged(), "{:?}", done.findings);
    let mut mended: Vec<&str> = done.mended.iter().map(|mended| mended.object.as_str()).collect();
    mended.sort_unstable();
    let mut expected = [pack.as_str(), &snapshot, &run];
    expected.sort_unstable();
    assert_eq!(mended, expected);
    assert!(done.mended.iter().all(|mended| mended.in_place));
    assert_eq!((done.known_damage, done.counts.snapshots), (0, 1));
    assert!(done.cancelled == 1 && done.counts.packs_read >= done.counts.packs, "{done:?}");
    for (name, bytes) in [&pack, &snapshot, &run].into_iter().zip(whole) {
        assert_eq!(store.get(name, u64::MAX).unwrap(), bytes, "{name}");
    }
    assert_eq!(scene.owner.read(scene.id).unwrap(), scene.content);
    let again = mending(&scene.owner, ReadData::All).unwrap();
    assert!(
        !again.is_damaged() && again.mended.is_empty() && again.known_damage == 0,
        "{:?}",
        again.findings
    );
}

#[test]
fn a_check_that_repairs_stays_within_what_parity_can_do() {
    let scene = scene(5);
    let client = scene.aside();
    let pack = names(client.store.as_ref(), "packs/").remove(0);
    let tree = names(client.store.as_ref(), "packs/").pop().unwrap();
    let whole_tree = client.store.get(&tree, u64::MAX).unwrap();
    change(client.store.as_ref(), &pack, |bytes| {
        let half = bytes.len() / 2;
        bytes[..half].fill(9);
    });
    change(client.store.as_ref(), &tree, |bytes| bytes[100] ^= 1);
    let broken = client.store.get(&pack, u64::MAX).unwrap();
    let done = mending(&client, ReadData::All).unwrap();
    assert!(done.is_damaged() && done.hurt.len() == 1, "{:?}", done.findings);
    assert_eq!(client.store.get(&pack, u64::MAX).unwrap(), broken);
    assert_eq!(client.store.get(&tree, u64::MAX).unwrap(), whole_tree);
    let outcome = |name: &str| done.mended.iter().find(|mended| mended.object == name).map(|m| m.in_place);
    assert_eq!((outcome(&pack), outcome(&tree)), (Some(false), Some(true)));
    assert!(done.findings.iter().any(|finding| finding.what.contains("than its parity can bring back")));
    // It was reported for others, though the repair of something else came in between.
    assert_eq!(done.reported, 1);
}

#[test]
fn who_may_not_write_learns_what_could_be_done_and_changes_nothing() {
    let scene = scene(5);
    let pack = names(scene.owner.store.as_ref(), "packs/").remove(0);
    change(scene.owner.store.as_ref(), &pack, |bytes| bytes[5000] ^= 1);
    let broken = scene.owner.store.get(&pack, u64::MAX).unwrap();
    let reader = crate::keys::with_role(&scene.owner, Role::Reader, "reader");
    assert_eq!(mending(&reader, ReadData::All).unwrap_err().class(), ErrorClass::Forbidden);
    // A store that takes nothing: a warning, the damage, and what could be done.
    let denied = |_, operation, _: &str| {
        let writes = matches!(operation, Operation::Put | Operation::Replace | Operation::Delete);
        writes.then_some(Fault::Before(Failure::Denied))
    };
    let closed = Arc::new(FaultStore::with_plan(scene.owner.store.clone(), denied));
    let client = scene.owner.through(closed);
    let options = CheckOptions { read_data: ReadData::All, keep_ledger: false, program: "test".to_owned() };
    let report = check_and_repair(&client.open(), &options).unwrap();
    assert!(report.is_damaged(), "{:?}", report.findings);
    assert!(report.mended.len() == 1 && !report.mended[0].in_place, "{:?}", report.mended);
    assert!(client.listener.warned().contains("could not be put right"), "{}", client.listener.warned());
    assert!(report.findings.iter().any(|finding| finding.what.contains("brings it back whole")));
    assert_eq!(scene.owner.store.get(&pack, u64::MAX).unwrap(), broken);
}

#[test]
fn parity_that_is_damaged_is_made_anew() {
    for harm in 0..5 {
        let scene = scene(5);
        let store = scene.owner.store.clone();
        for name in names(store.as_ref(), "parity/").into_iter().step_by(2) {
            change(store.as_ref(), &name, |bytes| match harm {
                0 => bytes[300] ^= 1,
                1 => bytes.truncate(bytes.len() / 2),
                2 => bytes.fill(0),
                3 => bytes[..160].fill(0),
                _ => bytes.truncate(1),
            });
        }
        let options =
            CheckOptions { read_data: ReadData::None, keep_ledger: true, program: "test".to_owned() };
        let found = check(&scene.owner.open(), &options).unwrap();
        assert!(
            found.is_damaged() && found.findings.iter().all(|finding| finding.mendable),
            "{harm}: {found:?}"
        );
        let aside = scene.aside();
        let done = mending(&aside, ReadData::None).unwrap();
        assert!(!done.is_damaged() && done.findings.is_empty(), "{harm}: {:?}", done.findings);
        assert!(!done.mended.is_empty() && done.mended.iter().all(|mended| mended.in_place));
        assert_eq!(status(&aside.open()).unwrap().covered, status(&scene.owner.open()).unwrap().covered);
        // By itself, too, and by another key that has parity to write.
        for client in [scene.aside(), crate::keys::with_role(&scene.aside(), Role::Maintainer, "keeper")] {
            let found = repair(&client.open(), false).unwrap();
            assert!(!found.is_empty() && found.iter().all(|object| object.repaired), "{harm}: {found:?}");
            assert!(repair(&client.open(), false).unwrap().is_empty(), "{harm}");
            assert!(!check(&client.open(), &options).unwrap().is_damaged(), "{harm}");
        }
        // What cannot even be told from its head and length is noticed by who adds some.
        if harm != 0 {
            let client = scene.aside();
            let added = add(&client.open(), 5).unwrap();
            assert!(added.made > 0 && added.damaged.is_empty(), "{harm}: {added:?}");
            assert!(!check(&client.open(), &options).unwrap().is_damaged(), "{harm}");
        }
        // And what it is of comes back from it.
        let pack = names(aside.store.as_ref(), "packs/").remove(0);
        let whole = aside.store.get(&pack, u64::MAX).unwrap();
        change(aside.store.as_ref(), &pack, |bytes| bytes[5000] ^= 1);
        assert!(!mending(&aside, ReadData::All).unwrap().is_damaged(), "{harm}");
        assert_eq!(aside.store.get(&pack, u64::MAX).unwrap(), whole);
    }
}

fn deserted(client: &Client, write: bool) -> Vec<String> {
    let options = SnapshotsOptions { program: "test".to_owned(), ..SnapshotsOptions::default() };
    let mut plan = SnapshotsPlan::run(&client.open(), options, write).unwrap();
    plan.from_parity.sort();
    plan.from_parity
}

fn look(client: &Client) -> CheckReport {
    let options = CheckOptions { read_data: ReadData::All, keep_ledger: false, program: "test".to_owned() };
    check(&client.open(), &options).unwrap()
}

/// A prune takes the parity of what it deletes along, so what is left of others tells of them.
#[test]
fn what_was_deleted_by_hand_comes_back_from_its_parity() {
    let scene = scene(10);
    let repository = scene.owner.open();
    let tag = Mark::Tag { key: "kept".to_owned(), value: None };
    let put = mark(&repository, &Snapshots::load(&repository).unwrap(), &[scene.id], &[tag]).unwrap();
    add(&repository, 10).unwrap();
    let store = scene.owner.store.clone();
    for area in ["snapshots/", "annotations/"] {
        names(store.as_ref(), area).iter().for_each(|name| store.delete(name).unwrap());
    }
    let expected = [format!("annotation {}", put[0]), format!("snapshot {}", scene.id)];
    let told = |gravity| {
        let findings = look(&scene.owner).findings.into_iter();
        findings.filter(|found| found.gravity == gravity).map(|found| found.object).collect::<Vec<_>>()
    };
    assert_eq!(told(Gravity::Damage), expected);
    let mut found: Vec<_> = repair(&repository, false).unwrap();
    assert!(found.iter().all(|object| !object.repaired));
    found.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(found.into_iter().map(|object| object.name).collect::<Vec<_>>(), expected);
    assert_eq!(deserted(&scene.owner, false), expected);
    assert!(store.list("snapshots/").unwrap().is_empty(), "it only looked");
    // As long as what it needs is there. A prune that has seen neither takes that away.
    let later = scene.aside();
    for _ in 0..2 {
        prune(&later.open(), &PruneOptions::new("test").within(0)).unwrap();
    }
    assert!(deserted(&later, true).is_empty());
    let report = look(&later);
    assert!(!report.is_damaged(), "{:?}", report.findings);
    assert!(
        report.findings.iter().any(|found| found.object == expected[1] && found.gravity == Gravity::Warning)
    );
    // Announced for deletion is not gone: it is copied.
    let waiting = scene.aside();
    prune(&waiting.open(), &PruneOptions::new("test")).unwrap();
    for client in [&scene.owner, &waiting] {
        assert_eq!(deserted(client, true), expected);
        assert_eq!(client.read(scene.id).unwrap(), scene.content);
        let snapshots = Snapshots::load(&client.open()).unwrap();
        assert!(snapshots.get(&scene.id).unwrap().tags.contains_key("kept"));
        let report = look(client);
        assert!(!report.is_damaged(), "{:?}", report.findings);
        assert!(deserted(client, true).is_empty());
        for _ in 0..2 {
            prune(&client.open(), &PruneOptions::new("test").within(0)).unwrap();
            assert_eq!(client.read(scene.id).unwrap(), scene.content);
        }
    }
}

/// A sweep that is killed may leave parity behind.
#[test]
fn what_was_forgotten_and_swept_does_not_come_back_from_parity() {
    let scene = scene(10);
    scene.owner.back_up(&scene.content);
    add(&scene.owner.open(), 10).unwrap();
    let store = scene.owner.store.clone();
    let parity: Vec<(String, Vec<u8>)> = names(store.as_ref(), "parity/")
        .into_iter()
        .map(|name| (name.clone(), store.get(&name, u64::MAX).unwrap()))
        .collect();
    let repository = scene.owner.open();
    forget(&repository, &Snapshots::load_all(&repository).unwrap(), &[scene.id]).unwrap();
    for _ in 0..2 {
        prune(&scene.owner.open(), &PruneOptions::new("test").within(0)).unwrap();
        for (name, bytes) in &parity {
            if store.head(name).is_err() {
                store.put(name, bytes).unwrap();
            }
        }
        let report = look(&scene.owner);
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        assert!(deserted(&scene.owner, true).is_empty());
        assert!(repair(&scene.owner.open(), false).unwrap().is_empty());
    }
}
