//! Mirrors: the same objects elsewhere, never a damaged one, whole snapshots at every moment.

use crate::support::world::{Client, Content, content, copy_of, dump, noise};
use crate::support::{Failure, Fault, FaultStore};
use chronolith::base::{Quiet, SnapshotId};
use chronolith::ops::catalogue::ROOTS_AT_LEAST;
use chronolith::ops::check::{CheckOptions, ReadData, check};
use chronolith::ops::forget::forget;
use chronolith::ops::marks::{Mark, mark};
use chronolith::ops::mirror::{
    Followed, MirrorOptions, MirrorReport, Place, follow_sweep, lost_at_source, mirror, put_back,
};
use chronolith::ops::prune::{PruneOptions, prune};
use chronolith::ops::{OpsError, Snapshots};
use chronolith::storage::{MemoryStore, Operation, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

struct Scene {
    owner: Client,
    contents: Vec<(SnapshotId, Content)>,
}

/// Two snapshots, the second of which changes a little of the first, and adds what the first has not.
fn scene() -> Scene {
    let owner = Client::init(Arc::new(MemoryStore::new()), 31);
    let versions = [
        content([("app.sql", dump(1, 400, 50)), ("noise", noise(1, 30_000))]),
        content([("app.sql", dump(2, 400, 50)), ("other", noise(2, 30_000))]),
    ];
    let contents = versions.into_iter().map(|content| (owner.back_up(&content), content)).collect();
    Scene { owner, contents }
}

impl Scene {
    /// The same client, whose repository is somewhere else.
    fn at(&self, store: Arc<dyn Store>) -> Client {
        self.owner.through(store)
    }

    fn aside(&self) -> Client {
        self.at(Arc::new(copy_of(self.owner.store.as_ref())))
    }

    /// Every snapshot that is there reads as it was backed up.
    fn holds(&self, client: &Client, at_least: usize, what: &str) {
        let there = client.snapshots();
        assert!(there.len() >= at_least, "{what}: {} snapshots", there.len());
        for id in there {
            let (_, content) = self.contents.iter().find(|(known, _)| *known == id).unwrap();
            assert!(client.read(id).unwrap() == *content, "{what}");
        }
    }
}

fn options() -> MirrorOptions {
    MirrorOptions { workers: 2, ..MirrorOptions::default() }
}

fn run(source: &dyn Store, target: &dyn Store, options: MirrorOptions) -> Result<MirrorReport, OpsError> {
    mirror(source, target, &options, &Quiet)
}

fn copy(source: &dyn Store, target: &dyn Store) -> MirrorReport {
    run(source, target, options()).unwrap()
}

fn heal(source: &dyn Store, target: &dyn Store) -> MirrorReport {
    run(source, target, MirrorOptions { heal: true, ..options() }).unwrap()
}

fn objects(store: &dyn Store) -> BTreeMap<String, Vec<u8>> {
    let names = store.list("").unwrap().into_iter().map(|object| object.name);
    names.map(|name| (name.clone(), store.get(&name, u64::MAX).unwrap())).collect()
}

fn change(store: &dyn Store, name: &str, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = store.get(name, u64::MAX).unwrap();
    change(&mut bytes);
    store.replace(name, &bytes).unwrap();
}

fn flip(store: &dyn Store, name: &str) {
    change(store, name, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
}

#[test]
fn a_mirror_is_the_repository_and_costs_nothing_twice() {
    let scene = scene();
    let (source, target) = (scene.owner.store.clone(), Arc::new(MemoryStore::new()));
    let dry = run(source.as_ref(), target.as_ref(), MirrorOptions { dry_run: true, ..options() }).unwrap();
    assert!(target.list("").unwrap().is_empty(), "a dry run writes nothing");
    let report = copy(source.as_ref(), target.as_ref());
    assert_eq!((dry.copied, dry.copied_bytes), (report.copied, report.copied_bytes));
    assert!(!report.is_incomplete() && report.present == 0);
    assert!(objects(source.as_ref()) == objects(target.as_ref()));
    scene.holds(&scene.at(target.clone()), 2, "a mirror");

    let again = copy(source.as_ref(), target.as_ref());
    assert_eq!((again.copied, again.present), (0, report.copied));
    source.put("notes/of.people", b"no object").unwrap();
    let third = scene.owner.back_up(&content([("third", noise(7, 9000))]));
    let more = copy(source.as_ref(), target.as_ref());
    assert!(more.foreign == 1 && more.copied > 0 && more.copied < report.copied, "{more:?}");
    assert!(target.head("notes/of.people").is_err(), "what is no object is left out");
    assert!(scene.at(target).snapshots().contains(&third));
}

/// [CONCURRENCY-5]: whatever request fails, a snapshot at the mirror has all that it needs; and the next run goes on.
#[test]
fn killed_at_every_request_a_mirror_holds_whole_snapshots_and_goes_on() {
    let scene = scene();
    let whole = objects(scene.owner.store.as_ref());
    for workers in [1, 3] {
        for number in 1.. {
            let target = Arc::new(MemoryStore::new());
            let failing = FaultStore::failing_from(target.clone(), number, Fault::Before(Failure::Fatal));
            let options = MirrorOptions { workers, ..MirrorOptions::default() };
            let result = run(scene.owner.store.as_ref(), &failing, options);
            assert_eq!(result.is_err(), failing.fired());
            let client = scene.at(target.clone());
            if client.try_open().is_ok() {
                scene.holds(&client, 0, &format!("request {number}"));
            }
            copy(scene.owner.store.as_ref(), target.as_ref());
            assert!(objects(target.as_ref()) == whole, "request {number}");
            if !failing.fired() {
                break;
            }
        }
    }
}

/// A source that fails at any request is no reason to write anything wrong.
#[test]
fn a_failing_source_leaves_nothing_wrong_behind() {
    let scene = scene();
    let whole = objects(scene.owner.store.as_ref());
    for fault in [Fault::Before(Failure::Transient), Fault::Torn, Fault::Flip] {
        for number in 1.. {
            let target = MemoryStore::new();
            let failing = FaultStore::failing_at(scene.owner.store.clone(), number, fault);
            let result = run(&failing, &target, options());
            let there = objects(&target);
            assert!(there.iter().all(|(name, bytes)| whole.get(name) == Some(bytes)), "{fault:?} {number}");
            if result.is_ok_and(|report| !report.is_incomplete()) {
                assert!(there == whole, "{fault:?} {number}");
            }
            if !failing.fired() {
                break;
            }
        }
    }
}

#[test]
fn what_is_damaged_at_the_source_is_named_and_not_copied() {
    let scene = scene();
    for name in objects(scene.owner.store.as_ref()).into_keys() {
        let client = scene.aside();
        flip(client.store.as_ref(), &name);
        let target = MemoryStore::new();
        let report = copy(client.store.as_ref(), &target);
        let named: Vec<_> =
            report.damaged.iter().map(|object| (object.name.as_str(), object.place)).collect();
        let there = objects(&target);
        let whole = objects(scene.owner.store.as_ref());
        assert_eq!(named, [(name.as_str(), Place::Source)], "{name}");
        // The other copy of the configuration serves for both places.
        assert_eq!(there.contains_key(&name), name.ends_with("chronolith"), "{name}");
        assert!(there.iter().all(|(name, bytes)| whole[name] == *bytes), "{name}");
        assert!(report.is_incomplete(), "{name}");
    }
}

/// Each object of either side, damaged in each way, comes back from the other.
#[test]
fn each_side_heals_the_other() {
    let scene = scene();
    let whole = objects(scene.owner.store.as_ref());
    type Damage = fn(&dyn Store, &str);
    let damages: [Damage; 4] = [
        flip,
        |store, name| change(store, name, |bytes| bytes.truncate(bytes.len() - 1)),
        |store, name| change(store, name, |bytes| bytes.push(0)),
        |store, name| change(store, name, |bytes| bytes.fill(0)),
    ];
    for name in whole.keys() {
        for damage in damages {
            for place in [Place::Source, Place::Target] {
                let (source, target) = (copy_of(scene.owner.store.as_ref()), MemoryStore::new());
                copy(&source, &target);
                damage(if place == Place::Source { &source } else { &target }, name);
                let dry = MirrorOptions { heal: true, dry_run: true, ..options() };
                let seen = run(&source, &target, dry).unwrap();
                let report = heal(&source, &target);
                assert_eq!(seen.damaged, report.damaged);
                let found: Vec<_> = report.damaged.iter().map(|d| (&d.name, d.place, d.healed)).collect();
                assert_eq!(found, [(name, place, true)]);
                assert!(objects(&source) == whole && objects(&target) == whole, "{name} {place:?}");
            }
        }
    }
}

#[test]
fn what_is_damaged_on_both_sides_is_touched_on_neither() {
    let scene = scene();
    let (source, target) = (copy_of(scene.owner.store.as_ref()), MemoryStore::new());
    copy(&source, &target);
    let pack = source.list("packs/").unwrap().remove(0).name;
    flip(&source, &pack);
    change(&target, &pack, |bytes| bytes[0] ^= 1);
    let before = (objects(&source), objects(&target));
    let report = heal(&source, &target);
    assert!(report.damaged.len() == 2 && report.is_incomplete(), "{report:?}");
    assert!((objects(&source), objects(&target)) == before);
}

/// Without --verify a flipped bit at the target is not looked for; with it, it is found and put right.
#[test]
fn a_target_that_rots_is_put_right_by_verify() {
    let scene = scene();
    let (source, target) = (scene.owner.store.as_ref(), MemoryStore::new());
    copy(source, &target);
    let name = target.list("packs/").unwrap().remove(0).name;
    flip(&target, &name);
    let report = run(source, &target, MirrorOptions { verify: true, ..options() }).unwrap();
    assert!(report.damaged.len() == 1 && report.copied == 1 && report.verified > 5, "{report:?}");
    assert!(objects(source) == objects(&target));
    change(&target, &name, |bytes| bytes.truncate(10));
    assert_eq!(copy(source, &target).copied, 1, "another length shows in the listing");
    assert!(objects(source) == objects(&target));
}

#[test]
fn what_is_no_mirror_of_this_one_is_refused() {
    let scene = scene();
    let source = scene.owner.store.as_ref();
    let other = Client::init(Arc::new(MemoryStore::new()), 77);
    let before = objects(other.store.as_ref());
    let error = run(source, other.store.as_ref(), options()).unwrap_err();
    assert!(
        matches!(error, OpsError::Usage(_)) && error.to_string().contains("another repository"),
        "{error}"
    );
    assert!(objects(other.store.as_ref()) == before);
    let folder = MemoryStore::new();
    folder.put("photos/1.jpg", b"holiday").unwrap();
    let error = run(source, &folder, options()).unwrap_err();
    assert!(error.to_string().contains("something else"), "{error}");
    let error = run(&MemoryStore::new(), &MemoryStore::new(), options()).unwrap_err();
    assert!(error.to_string().contains("no repository"), "{error}");
}

/// [CONCURRENCY-4], [CONFIG-11]: a newer revision of the configuration is never replaced by an older one.
#[test]
fn an_older_configuration_never_replaces_a_newer_one() {
    let scene = scene();
    let old = scene.aside();
    let (target, source) = (MemoryStore::new(), scene.owner.store.as_ref());
    copy(source, &target);
    assert_eq!(scene.owner.open().sign_configuration().unwrap(), 2);
    let report = copy(source, &target);
    assert!(report.copied == 2 && !report.is_incomplete(), "{report:?}");
    assert!(objects(source) == objects(&target));
    let error = run(old.store.as_ref(), &target, options()).unwrap_err();
    assert!(matches!(error, OpsError::Stopped { .. }), "{error}");
    assert!(error.to_string().contains("revision"), "{error}");
    assert!(objects(source) == objects(&target));
    // One copy that is old is put right, and where both are gone the mirror has them.
    let first = objects(old.store.as_ref())["chronolith"].clone();
    source.replace("chronolith", &first).unwrap();
    let report = heal(source, &target);
    assert_eq!(report.damaged.iter().filter(|object| object.healed).count(), 1, "{report:?}");
    for name in ["chronolith", "copies/chronolith"] {
        flip(source, name);
    }
    assert!(run(source, &target, options()).is_err());
    assert_eq!(heal(source, &target).damaged.len(), 2);
    assert!(objects(source) == objects(&target));
}

fn sweep(client: &Client) {
    for _ in 0..2 {
        prune(&client.open(), &PruneOptions { grace_seconds: 0, ..PruneOptions::new("test") }).unwrap();
    }
}

fn let_go(client: &Client, id: SnapshotId) {
    let_go_all(client, &[id]);
}

fn let_go_all(client: &Client, ids: &[SnapshotId]) {
    let repository = client.open();
    forget(&repository, &Snapshots::load(&repository).unwrap(), ids).unwrap();
}

fn follow(client: &Client, target: &dyn Store) -> Result<Followed, OpsError> {
    let report = copy(client.store.as_ref(), target);
    follow_sweep(&client.open(), target, &report, false)
}

fn is_sound(client: &Client) {
    let all = CheckOptions { read_data: ReadData::All, keep_ledger: false, program: "test".to_owned() };
    let report = check(&client.open(), &all).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
}

#[test]
fn what_a_sweep_deleted_is_deleted_at_the_mirror_too() {
    let scene = scene();
    let (client, target) = (scene.aside(), Arc::new(MemoryStore::new()));
    copy(client.store.as_ref(), target.as_ref());
    assert_eq!(follow(&client, target.as_ref()).unwrap().deleted, 0);
    let (old, kept) = (scene.contents[0].0, scene.contents[1].0);
    let_go(&client, old);
    sweep(&client);
    let report = copy(client.store.as_ref(), target.as_ref());
    assert!(!report.only_at_target.is_empty());
    let mirrored = scene.at(target.clone());
    assert_eq!(mirrored.read(kept).unwrap(), scene.contents[1].1);
    let dry = follow_sweep(&client.open(), target.as_ref(), &report, true).unwrap();
    let followed = follow_sweep(&client.open(), target.as_ref(), &report, false).unwrap();
    assert!(followed == dry && followed.deleted > 2, "{followed:?}");
    let (there, here) = (objects(target.as_ref()), objects(client.store.as_ref()));
    // The sessions of this test's own look at the source are younger.
    let same = |name: &&String| !name.starts_with("sessions/");
    assert!(there.keys().filter(same).eq(here.keys().filter(same)));
    assert_eq!(mirrored.snapshots(), [kept]);
    is_sound(&mirrored);
    assert_eq!(
        lost_at_source(&client.open(), target.as_ref(), &copy(client.store.as_ref(), target.as_ref()))
            .unwrap(),
        Vec::<String>::new()
    );
}

/// What the source lost is no reason to lose it at the mirror, nor anything else: and it comes back.
#[test]
fn nothing_is_deleted_after_a_source_that_lost_something_and_what_it_lost_comes_back() {
    let scene = scene();
    for area in ["packs/", "snapshots/", "trust/", "keys/", "annotations/", "logs/"] {
        let (client, target) = (scene.aside(), Arc::new(MemoryStore::new()));
        crate::logs::push_some(&client);
        let third = client.back_up(&content([("third", noise(9, 9000))]));
        copy(client.store.as_ref(), target.as_ref());
        let_go(&client, third);
        let repository = client.open();
        let kept = scene.contents[0].0;
        let pin =
            mark(&repository, &Snapshots::load(&repository).unwrap(), &[kept], &[Mark::Pin { reason: None }]);
        let wanted = match area {
            "snapshots/" => kept.to_string(),
            "annotations/" => pin.unwrap()[0].to_string(),
            _ => String::new(),
        };
        copy(client.store.as_ref(), target.as_ref());
        sweep(&client);
        // What is needed, beside what was deleted on purpose.
        let names: Vec<String> = client.store.list(area).unwrap().into_iter().map(|o| o.name).collect();
        let lost = names.iter().find(|name| name.contains(&wanted));
        let lost = lost.unwrap_or_else(|| panic!("nothing in {area}"));
        client.store.delete(lost).unwrap();
        let before = objects(target.as_ref());
        let report = copy(client.store.as_ref(), target.as_ref());
        let error = follow_sweep(&client.open(), target.as_ref(), &report, false).unwrap_err();
        assert!(matches!(&error, OpsError::Stopped { .. }), "{area}: {error}");
        assert!(error.to_string().contains("nothing was deleted"), "{area}: {error}");
        let after = objects(target.as_ref());
        assert!(before.iter().all(|(name, bytes)| after[name] == *bytes), "{area}");

        let found = lost_at_source(&client.open(), target.as_ref(), &report).unwrap();
        assert_eq!(found, [lost.as_str()], "{area}");
        assert!(put_back(client.store.as_ref(), target.as_ref(), &found).unwrap().is_empty());
        is_sound(&client);
        assert!(follow(&client, target.as_ref()).unwrap().deleted > 0, "{area}");
        is_sound(&scene.at(target));
    }
}

/// A source that was set back to an earlier day lacks snapshots that nobody has forgotten.
#[test]
fn nothing_is_deleted_after_a_source_that_was_set_back() {
    let scene = scene();
    let target = MemoryStore::new();
    let yesterday = scene.aside();
    scene.owner.back_up(&content([("third", noise(9, 9000))]));
    copy(scene.owner.store.as_ref(), &target);
    let before = objects(&target);
    let error = follow(&yesterday, &target).unwrap_err();
    assert!(matches!(error, OpsError::Stopped { .. }), "{error}");
    assert!(objects(&target) == before);
}

/// A sweep that overtakes the copying is followed by what took the place of what it deleted.
#[test]
fn a_sweep_meanwhile_leaves_no_snapshot_without_what_it_needs() {
    let scene = scene();
    for number in 1..200 {
        let client = scene.aside();
        let_go(&client, scene.contents[0].0);
        let swept = Arc::new(AtomicBool::new(false));
        let (hand, seen) = (client.clone(), swept.clone());
        let hooked = FaultStore::with_plan(client.store.clone(), move |at, _, _| {
            if at == number {
                // What is needed of packs that are needed in parts moves to others, and those go.
                let thorough = chronolith::ops::prune::Unused::Bytes(0);
                let options =
                    PruneOptions { grace_seconds: 0, max_unused: thorough, ..PruneOptions::new("test") };
                prune(&hand.open(), &options).unwrap();
                prune(&hand.open(), &options).unwrap();
                seen.store(true, Ordering::SeqCst);
            }
            None
        });
        let target = Arc::new(MemoryStore::new());
        let report = run(&hooked, target.as_ref(), MirrorOptions { workers: 1, ..options() }).unwrap();
        assert!(!report.is_incomplete(), "request {number}: {report:?}");
        let mirrored = scene.at(target);
        assert_eq!(mirrored.read(scene.contents[1].0).unwrap(), scene.contents[1].1, "request {number}");
        if !swept.load(Ordering::SeqCst) {
            assert!(number > 10 && hooked.log().iter().any(|(operation, _)| *operation == Operation::Get));
            return;
        }
    }
    panic!("the source was asked without end");
}

/// A mirror that saw neither the announcements nor the condemnations of many sweeps: what is on record at the source is
/// enough to follow it.
#[test]
fn a_mirror_that_slept_through_many_sweeps_follows_them() {
    let (client, target) = (scene().aside(), Arc::new(MemoryStore::new()));
    let all = |client: &Client| client.snapshots();
    let sorted = |client: &Client| client.snapshots().into_iter().collect::<BTreeSet<_>>();
    let mut number = 0;
    for round in 0..3 {
        for _ in 0..ROOTS_AT_LEAST {
            number += 1;
            client.back_up(&content([("app.sql", dump(number, 40, 50))]));
        }
        let ids = all(&client);
        let repository = client.open();
        let snapshots = Snapshots::load(&repository).unwrap();
        mark(&repository, &snapshots, &ids[..2], &[Mark::Note { text: "in between".to_owned() }]).unwrap();
        sweep(&client);
        if round == 1 {
            copy(client.store.as_ref(), target.as_ref());
        }
        let_go_all(&client, &ids[..ids.len() - 2]);
        sweep(&client);
        sweep(&client);
        sweep(&client);
    }
    let followed = follow(&client, target.as_ref()).unwrap();
    assert!(followed.deleted > 2, "{followed:?}");
    let areas = ["snapshots/", "annotations/", "catalog/", "packs/"];
    for area in areas {
        let names = |store: &dyn Store| -> Vec<String> {
            store.list(area).unwrap().into_iter().map(|object| object.name).collect()
        };
        assert_eq!(names(target.as_ref()), names(client.store.as_ref()), "{area}");
    }
    let mirrored = client.through(target.clone());
    assert_eq!(sorted(&mirrored), sorted(&client));
    is_sound(&mirrored);
}
