//! Several stores as one: what counts is in a quorum, what is read is whole, nothing is missing because one is away.

use crate::joined;
use crate::support::world::{Client, Content, content, copy_of, dump, noise, read_snapshot, snapshots};
use crate::support::{Failure, Fault, FaultStore};
use chronolith::base::{Classify, ErrorClass, Quiet};
use chronolith::ops::check::{CheckOptions, ReadData, check};
use chronolith::ops::forget::forget;
use chronolith::ops::mirror::{MirrorOptions, mirror};
use chronolith::ops::prune::{PruneOptions, prune};
use chronolith::ops::{OpsError, Snapshots};
use chronolith::storage::{AbsentStore, MemoryStore, MirroredStore, Operation, StorageError, Store};
use std::sync::Arc;

const LIMIT: u64 = 1 << 20;

fn pair() -> (Arc<MemoryStore>, Arc<MemoryStore>) {
    (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()))
}

fn both(a: &Arc<MemoryStore>, b: &Arc<MemoryStore>) -> MirroredStore {
    joined(vec![a.clone(), b.clone()], None)
}

fn away() -> Arc<AbsentStore> {
    Arc::new(AbsentStore { place: "away".to_owned(), why: "it is not mounted".to_owned() })
}

fn hashed(bytes: &[u8]) -> String {
    format!("packs/aa/{}", blake3::hash(bytes).to_hex())
}

#[test]
fn a_read_takes_the_first_copy_that_is_whole() {
    let (a, b) = pair();
    let store = both(&a, &b);
    let bytes = noise(1, 1000);
    let name = hashed(&bytes);
    store.put(&name, &bytes).unwrap();
    let damages: [fn(&mut Vec<u8>); 3] =
        [|bytes| bytes[500] ^= 1, |bytes| bytes.truncate(10), |bytes| bytes.resize(5000, 0)];
    for damage in damages {
        let mut bad = bytes.clone();
        damage(&mut bad);
        a.replace(&name, &bad).unwrap();
        assert_eq!(store.get(&name, 1000).unwrap(), bytes);
        assert_eq!(store.head(&name).unwrap().length, bad.len().max(1000) as u64);
    }
    a.replace(&name, &bytes[..10]).unwrap();
    let mut out = Vec::new();
    store.get_range(&name, 5, 100, &mut out).unwrap();
    assert_eq!(out, bytes[5..105]);
    a.delete(&name).unwrap();
    assert_eq!(store.get(&name, 1000).unwrap(), bytes);
    assert_eq!(store.list("").unwrap().len(), 1);
    // Where no copy is whole the damaged one is given: whoever reads it will see.
    b.replace(&name, &bytes[..10]).unwrap();
    assert_eq!(store.get(&name, 1000).unwrap(), bytes[..10]);
}

/// A part of an object cannot be verified: whoever finds it wrong says so.
#[test]
fn what_is_doubted_is_read_where_it_is_whole() {
    let (a, b) = pair();
    let store = both(&a, &b);
    let bytes = noise(1, 1000);
    let name = hashed(&bytes);
    store.put(&name, &bytes).unwrap();
    assert!(!store.doubt(&name), "the first copy is whole");
    let store = both(&a, &b);
    a.replace(&name, &noise(2, 1000)).unwrap();
    let read = || {
        let mut out = Vec::new();
        store.get_range(&name, 0, 1000, &mut out).unwrap();
        out
    };
    assert_ne!(read(), bytes);
    assert!(store.doubt(&name));
    assert_eq!(read(), bytes);
    assert!(!store.doubt(&name), "there is none better");
    b.delete(&name).unwrap();
    assert_eq!(read(), noise(2, 1000), "what is gone there is read here again");
    assert!(!store.doubt("chronolith"));
}

#[test]
fn nothing_is_missing_because_a_store_is_away() {
    let here = Arc::new(MemoryStore::new());
    here.put("packs/x", b"1").unwrap();
    for stores in [vec![away() as Arc<dyn Store>, here.clone()], vec![here.clone(), away()]] {
        let store = joined(stores.clone(), None);
        assert_eq!(store.get("packs/x", LIMIT).unwrap(), b"1");
        assert_eq!(store.head("packs/x").unwrap().length, 1);
        assert_eq!(store.get("packs/y", LIMIT).unwrap_err().class(), ErrorClass::Fatal);
        assert_eq!(store.head("packs/y").unwrap_err().class(), ErrorClass::Fatal);
        // Every write reached both, so that either has all: but nothing can be written or deleted.
        assert_eq!(store.list("").unwrap().len(), 1);
        assert!(store.put("packs/z", b"1").is_err());
        here.delete("packs/z").unwrap();
        assert!(store.delete("packs/x").is_err());
        // With a quorum of one the other may have more.
        let store = joined(stores, Some(1));
        assert!(store.list("").is_err());
        store.put("packs/w", b"1").unwrap();
        here.delete("packs/w").unwrap();
        here.put("packs/x", b"1").unwrap();
    }
}

#[test]
fn of_three_stores_with_a_quorum_of_two_one_may_be_away() {
    for absent in 0..3 {
        let stores: Vec<Arc<dyn Store>> = (0..3)
            .map(|number| match number == absent {
                true => away() as Arc<dyn Store>,
                false => Arc::new(MemoryStore::new()),
            })
            .collect();
        let store = joined(stores, Some(2));
        let bytes = noise(1, 100);
        store.put(&hashed(&bytes), &bytes).unwrap();
        assert_eq!(store.list("").unwrap().len(), 1);
        // What is not named by its hash would be read from the one that missed it.
        assert!(store.replace("chronolith", b"2").is_err());
        assert!(store.delete(&hashed(&bytes)).is_err(), "what is left in one place would come back");
    }
    for wrong in [0, 4] {
        let stores: Vec<Arc<dyn Store>> = vec![away(), away(), away()];
        let refused = MirroredStore::new(stores, Some(wrong), Arc::new(Quiet));
        assert!(matches!(refused.err(), Some(StorageError::Invalid { .. })));
    }
}

#[test]
fn an_object_is_as_old_as_its_oldest_copy_and_promises_are_the_weakest() {
    let (a, b) = pair();
    b.put("packs/x", b"1").unwrap();
    a.put("packs/other", b"1").unwrap();
    a.put("packs/x", b"1").unwrap();
    let store = both(&a, &b);
    let oldest = b.head("packs/x").unwrap().modified;
    assert_ne!(oldest, a.head("packs/x").unwrap().modified);
    assert_eq!(store.head("packs/x").unwrap().modified, oldest);
    assert!(!store.capabilities().exclusive_put && store.capabilities().retry);
    assert!(store.location().contains(" and "));
}

struct Scene {
    owner: Client,
    first: Content,
    second: Content,
}

/// A repository that is in two places already.
fn scene() -> (Scene, Arc<MemoryStore>, Arc<MemoryStore>) {
    let (a, b) = pair();
    let owner = Client::init(Arc::new(both(&a, &b)), 61);
    let first = content([("app.sql", dump(1, 300, 50)), ("noise", noise(1, 20_000))]);
    let second = content([("app.sql", dump(2, 300, 50))]);
    owner.back_up(&first);
    assert_eq!(a.list("").unwrap().len(), b.list("").unwrap().len());
    (Scene { owner, first, second }, a, b)
}

fn is_sound(client: &Client) {
    let all = CheckOptions { read_data: ReadData::All, keep_ledger: false, program: "test".to_owned() };
    let report = check(&client.open(), &all).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
}

/// One of two stores fails at one request.
struct Failing {
    quorum: usize,
    fault: Fault,
    failing_first: bool,
    number: u64,
}

impl Failing {
    /// Backs up, and looks what is there, in both stores and after a mirror run in each; says whether there was such
    /// a request.
    fn loses_nothing(&self, scene: &Scene, whole: &[Arc<MemoryStore>; 2]) -> bool {
        let Self { quorum, fault, failing_first, number } = *self;
        let what = format!("{fault:?} {number} quorum {quorum} first {failing_first}");
        let [a, b] = whole.each_ref().map(|store| Arc::new(copy_of(store.as_ref())));
        let failing = Arc::new(FaultStore::failing_at(a.clone(), number, fault));
        let mut stores: Vec<Arc<dyn Store>> = vec![failing.clone(), b.clone()];
        if !failing_first {
            stores.reverse();
        }
        let client = scene.owner.through(Arc::new(joined(stores, Some(quorum))));
        let committed = client.try_back_up(&scene.second);
        let sound = scene.owner.through(Arc::new(both(&a, &b))).open();
        let first = snapshots(&sound)[0];
        assert_eq!(read_snapshot(&sound, first).unwrap(), scene.first, "{what}");
        let second = committed.ok().map(|report| report.snapshot.unwrap());
        if let Some(id) = second {
            assert_eq!(read_snapshot(&sound, id).unwrap(), scene.second, "{what}");
        }
        let heal = MirrorOptions { heal: true, workers: 1, ..MirrorOptions::default() };
        for (from, to) in [(&a, &b), (&b, &a)] {
            let report = mirror(from.as_ref(), to.as_ref(), &heal, &Quiet).unwrap();
            assert!(!report.is_incomplete(), "{what}: {report:?}");
        }
        // Both hold the same, so that what one gives back the other does.
        let objects = |store: &MemoryStore| -> Vec<(String, Vec<u8>)> {
            let names = store.list("").unwrap().into_iter().map(|object| object.name);
            names.map(|name| (name.clone(), store.get(&name, u64::MAX).unwrap())).collect()
        };
        assert!(objects(&a) == objects(&b), "{what}");
        let alone = scene.owner.through(a).open();
        assert_eq!(read_snapshot(&alone, first).unwrap(), scene.first, "{what}");
        if let Some(id) = second {
            assert_eq!(read_snapshot(&alone, id).unwrap(), scene.second, "{what}");
        }
        failing.fired()
    }
}

/// Whatever request of one store fails, in whatever way: what was committed is there, in a quorum, and a mirror run makes both
/// stores the same again.
#[test]
fn one_store_failing_at_each_request_loses_nothing() {
    let faults = [
        Fault::Before(Failure::Fatal),
        Fault::Before(Failure::Transient),
        Fault::After(Failure::NoSpace),
        Fault::Torn,
        Fault::Flip,
    ];
    let (scene, a, b) = scene();
    let whole = [a, b];
    let fails = |quorum: usize| {
        for fault in faults {
            for failing_first in [true, false] {
                let mut numbers = (1..).step_by(5);
                while let Some(number) = numbers.next()
                    && (Failing { quorum, fault, failing_first, number }).loses_nothing(&scene, &whole)
                {
                }
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| fails(1));
        fails(2);
    });
}

/// Everything of one store damaged, or gone, restores all the same.
#[test]
fn each_object_damaged_in_one_place_restores() {
    let (scene, a, b) = scene();
    let id = scene.owner.snapshots()[0];
    for object in a.list("").unwrap() {
        if object.name.ends_with("chronolith") {
            continue;
        }
        for damaged_first in [true, false] {
            for gone in [true, false] {
                let hurt = Arc::new(copy_of(a.as_ref()));
                match gone {
                    true => hurt.delete(&object.name).unwrap(),
                    false => {
                        let mut bytes = hurt.get(&object.name, u64::MAX).unwrap();
                        let middle = bytes.len() / 2;
                        bytes[middle] ^= 1;
                        hurt.replace(&object.name, &bytes).unwrap();
                    }
                }
                let mut stores: Vec<Arc<dyn Store>> = vec![hurt, b.clone()];
                if !damaged_first {
                    stores.reverse();
                }
                let client = scene.owner.through(Arc::new(joined(stores, None)));
                assert_eq!(client.read(id).unwrap(), scene.first, "{} gone {gone}", object.name);
            }
        }
    }
}

/// Forgetting and pruning with one store away: nothing goes anywhere, and with both there it goes in both.
#[test]
fn what_is_pruned_is_deleted_in_all_places_or_the_prune_has_failed() {
    let (scene, a, b) = scene();
    let old = scene.owner.snapshots()[0];
    let id = scene.owner.back_up(&scene.second);
    let repository = scene.owner.open();
    forget(&repository, &Snapshots::load(&repository).unwrap(), &[old]).unwrap();
    let run = |client: &Client| -> Result<(), OpsError> {
        for _ in 0..2 {
            prune(&client.try_open()?, &PruneOptions { grace_seconds: 0, ..PruneOptions::new("test") })?;
        }
        Ok(())
    };
    let failing = FaultStore::with_plan(b.clone(), |_, operation, _| {
        (operation == Operation::Delete).then_some(Fault::Before(Failure::Denied))
    });
    let hindered = scene.owner.through(Arc::new(joined(vec![a.clone(), Arc::new(failing)], Some(1))));
    assert!(run(&hindered).is_err());
    assert_eq!(scene.owner.read(id).unwrap(), scene.second);
    run(&scene.owner).unwrap();
    for store in [a, b] {
        let alone = scene.owner.through(store);
        assert_eq!(alone.snapshots(), [id]);
        assert_eq!(alone.read(id).unwrap(), scene.second);
        is_sound(&alone);
    }
}
