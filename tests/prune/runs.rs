//! Index runs and condemnations after a sweep: what names only what is gone goes too, many small runs become
//! one, and a run that comes late revives nothing.

use crate::forge::client_with;
use crate::packs;
use crate::support::world::{Client, Content, content, copy_of, dump, noise};
use crate::support::{Failure, Fault, FaultStore, ManualClock};
use crate::sweep::{Scene, interleaved_at, run};
use chronolith::base::{PackId, SnapshotId};
use chronolith::format::trust::Role;
use chronolith::ops::check::{CheckOptions, ReadData, check};
use chronolith::ops::forget::forget;
use chronolith::ops::prune::{PruneOptions, prune};
use chronolith::ops::{OpsError, Snapshots};
use chronolith::repo::RunContent;
use chronolith::storage::{MemoryStore, Store};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// There are many requests, each of which is one of many alike.
const STEP: usize = 5;

fn small(number: u64) -> Content {
    content([("a", noise(number, 2000))])
}

fn forget_all(owner: &Client, ids: &[SnapshotId]) {
    let repository = owner.open();
    forget(&repository, &Snapshots::load(&repository).unwrap(), ids).unwrap();
}

fn count(store: &dyn Store, area: &str) -> usize {
    store.list(area).unwrap().len()
}

fn is_clean(client: &Client, what: &str) {
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    let report = check(&client.open(), &options).unwrap();
    assert!(!report.is_damaged(), "{what}: {:?}", report.findings);
}

/// Packs that index runs name and that are not there.
fn named_and_gone(client: &Client) -> usize {
    let repository = client.open();
    repository.load_index().unwrap();
    let there: HashSet<PackId> = packs(client.store.as_ref()).into_iter().collect();
    repository.index().packs().keys().filter(|pack| !there.contains(pack)).count()
}

/// Twenty small snapshots, every second of them forgotten.
fn many() -> Scene {
    let store = Arc::new(MemoryStore::new());
    let owner = Client::init(store.clone(), 51);
    let ids: Vec<SnapshotId> = (0..20).map(|number| owner.back_up(&small(number))).collect();
    let forgotten: Vec<SnapshotId> = ids.iter().copied().step_by(2).collect();
    forget_all(&owner, &forgotten);
    Scene { store, owner, old: small(0), kept: small(19), kept_id: ids[19], forgotten_id: ids[0] }
}

#[test]
fn a_run_that_names_only_what_was_deleted_goes_with_it_and_so_does_the_tombstone() {
    let store = Arc::new(MemoryStore::new());
    let owner = Client::init(store.clone(), 52);
    let forgotten = owner.back_up(&content([("old.sql", dump(9, 1500, 40))]));
    let kept = owner.back_up(&small(1));
    forget_all(&owner, &[forgotten]);
    assert_eq!(count(&store, "index/"), 2);
    let report = run(&owner, 0).unwrap();
    assert_eq!((report.deleted_packs, report.deleted_runs, report.merged_runs), (2, 1, 0));
    assert_eq!((count(&store, "index/"), count(&store, "condemned/"), named_and_gone(&owner)), (1, 1, 0));
    // A listing from before the deletion may be about for a while: the tombstone goes with the next prune.
    run(&owner, 0).unwrap();
    run(&owner, 0).unwrap();
    let sessions = owner.open().condemned(&Default::default()).unwrap();
    let packs = sessions.found.values().map(|found| found.condemned.dead.iter().count()).sum::<usize>();
    assert_eq!(packs, 0, "{sessions:?}");
    assert_eq!(owner.read(kept).unwrap(), small(1));
    is_clean(&owner, "after all");
}

#[test]
fn a_tombstone_stays_as_long_as_a_listing_may_be_late() {
    let clock = Arc::new(ManualClock::at_seconds(1_800_000_000));
    let store = Arc::new(MemoryStore::with_clock(clock.clone()));
    let owner = Client::init(store.clone(), 53);
    let forgotten = owner.back_up(&content([("old.sql", dump(9, 1500, 40))]));
    owner.back_up(&small(1));
    forget_all(&owner, &[forgotten]);
    let tombstones = || {
        let found = owner.open().condemned(&Default::default()).unwrap().found;
        found.values().filter(|found| !found.condemned.dead.is_empty()).count()
    };
    run(&owner, 3600).unwrap();
    clock.advance(Duration::from_secs(3600));
    assert_eq!(run(&owner, 3600).unwrap().deleted_packs, 2);
    clock.advance(Duration::from_secs(3599));
    run(&owner, 3600).unwrap();
    assert_eq!(tombstones(), 1);
    clock.advance(Duration::from_secs(1));
    run(&owner, 3600).unwrap();
    assert_eq!(tombstones(), 0);
}

#[test]
fn many_small_runs_become_one_without_what_is_gone() {
    let scene = many();
    assert_eq!(count(&scene.store, "index/"), 20);
    let report = run(&scene.owner, 0).unwrap();
    assert_eq!((report.deleted_packs, report.deleted_runs, report.merged_runs), (20, 10, 0), "{report:?}");
    for number in 20..30 {
        scene.owner.back_up(&small(number));
    }
    let report = run(&scene.owner, 0).unwrap();
    assert_eq!((report.merged_runs, report.deleted_runs), (20, 20), "{report:?}");
    assert_eq!((count(&scene.store, "index/"), named_and_gone(&scene.owner)), (1, 0));
    let ids = scene.owner.snapshots();
    for (id, number) in ids.iter().zip((1..20).step_by(2).chain(20..30)) {
        assert_eq!(scene.owner.read(*id).unwrap(), small(number));
    }
    // Half of what it names goes: it is written anew.
    forget_all(&scene.owner, &ids[..10]);
    let report = run(&scene.owner, 0).unwrap();
    assert_eq!((report.merged_runs, report.deleted_runs, report.deleted_packs), (1, 1, 20), "{report:?}");
    assert_eq!((count(&scene.store, "index/"), named_and_gone(&scene.owner)), (1, 0));
    for (id, number) in ids[10..].iter().zip(20..30) {
        assert_eq!(scene.owner.read(*id).unwrap(), small(number));
    }
    is_clean(&scene.owner, "after all");
    assert_eq!(scene.owner.try_back_up(&small(29)).unwrap().summary.new_blobs, 1, "it is adopted from");
}

#[test]
fn merging_may_be_killed_at_every_request() {
    let mut scene = many();
    run(&scene.owner, 0).unwrap();
    for number in 20..28 {
        scene.kept_id = scene.owner.back_up(&small(number));
    }
    scene.kept = small(27);
    let some = scene.owner.snapshots();
    forget_all(&scene.owner, &some[..6]);
    for number in (1..).step_by(STEP) {
        let store = Arc::new(copy_of(&scene.store));
        let faulty = Arc::new(FaultStore::failing_from(store.clone(), number, Fault::Before(Failure::Fatal)));
        let result = scene.owner.through(faulty.clone()).try_open().map_err(OpsError::from);
        drop(result.and_then(|repository| prune(&repository, &PruneOptions::new("test").within(0))));
        let client = scene.owner.through(store.clone());
        let what = format!("killed at request {number}");
        assert_eq!(client.read(scene.kept_id).unwrap(), scene.kept, "{what}");
        run(&client, 0).unwrap_or_else(|error| panic!("{what}: {error}"));
        scene.holds(&client, &what);
        assert_eq!(named_and_gone(&client), 0, "{what}");
        if !faulty.fired() {
            assert!(number > 60, "a prune has more than {number} requests");
            break;
        }
    }
}

#[test]
fn a_backup_may_come_at_every_request_of_a_merge() {
    let scene = many();
    interleaved_at(
        &scene,
        STEP,
        |client, what| drop(run(client, 0).unwrap_or_else(|error| panic!("{what}: {error}"))),
        |client| _ = client.back_up(&small(0)),
        |client, what| {
            let newest = |client: &Client| client.read(*client.snapshots().last().unwrap()).unwrap();
            let read = newest(client);
            // Beyond the last request there was no backup.
            assert!(read == small(0) || read == scene.kept, "{what}");
            run(client, 0).unwrap();
            assert!(newest(client) == read, "{what}");
            scene.holds(client, what);
        },
    );
}

#[test]
fn several_prunes_may_come_at_every_request_of_a_backup() {
    // The tombstones too are gone, while the writer goes on with what it listed before. [CONCURRENCY-16]
    let scene = many();
    interleaved_at(
        &scene,
        STEP,
        |client, what| {
            client.try_back_up(&scene.old).unwrap_or_else(|error| panic!("{what}: {error}"));
        },
        |client| (0..3).for_each(|_| drop(run(client, 0).unwrap())),
        |client, what| {
            let id = *client.snapshots().last().unwrap();
            run(client, 0).unwrap();
            assert!(client.read(id).unwrap() == scene.old, "{what}");
        },
    );
}

#[test]
fn a_run_that_a_suspended_process_puts_late_revives_nothing() {
    // [CONCURRENCY-19]: it merged runs, slept through condemnation, sweep and the end of the tombstones.
    let clock = Arc::new(ManualClock::at_seconds(1_800_000_000));
    let store = Arc::new(MemoryStore::with_clock(clock.clone()));
    let owner = Client::init(store.clone(), 54);
    let forgotten = owner.back_up(&small(1));
    let kept = owner.back_up(&small(2));
    let sleeper = owner.open();
    sleeper.load_index().unwrap();
    let mut merged = RunContent { records: Vec::new(), packs: Vec::new() };
    sleeper.index().for_each(|located| {
        let known = merged.packs.iter().position(|pack| pack.id == located.pack.id);
        let number = known.unwrap_or_else(|| {
            merged.packs.push(located.pack.clone());
            merged.packs.len() - 1
        });
        merged.records.push(located.record);
        merged.records.last_mut().unwrap().pack = number as u32;
    });
    merged.records.sort_by(|a, b| a.order().cmp(&b.order()));
    forget_all(&owner, &[forgotten]);
    (0..3).for_each(|_| drop(run(&owner, 0).unwrap()));
    assert_eq!(named_and_gone(&owner), 0);
    sleeper.put_run(&merged).unwrap();
    assert_eq!(named_and_gone(&owner), 2);
    let again = owner.try_back_up(&small(1)).unwrap();
    assert!(again.summary.new_blobs > 1, "nothing is adopted from what is gone");
    assert_eq!(owner.read(again.snapshot.unwrap()).unwrap(), small(1));
    run(&owner, 0).unwrap();
    assert_eq!(owner.read(kept).unwrap(), small(2));
    // After a week nobody waits any more for packs that do not come.
    clock.advance(Duration::from_secs(7 * 24 * 3600));
    (0..2).for_each(|_| drop(run(&owner, 0).unwrap()));
    assert_eq!(named_and_gone(&owner), 0);
    assert_eq!(owner.read(kept).unwrap(), small(2));
    is_clean(&owner, "after all");
}

#[test]
fn tombstones_that_anothers_runs_still_name_become_one() {
    let store = Arc::new(MemoryStore::new());
    let owner = Client::init(store.clone(), 55);
    let writer = client_with(&owner, Role::Writer, "writer", "", &["db1"]);
    let keeper = client_with(&owner, Role::Maintainer, "keeper", "", &[]);
    let mut kept = Vec::new();
    for number in 0..12 {
        // The content stays, the tree of the first goes: the run of both stays, since only the writer could
        // write it anew.
        let first = writer.back_up(&small(number));
        kept.push(writer.back_up(&small(number)));
        forget_all(&owner, &[first]);
        run(&keeper, 0).unwrap();
    }
    run(&keeper, 0).unwrap();
    let found = owner.open().condemned(&Default::default()).unwrap().found;
    assert!(found.len() <= 9, "{}", found.len());
    let absorbing = found.values().find(|found| !found.condemned.absorbs.is_empty()).unwrap();
    assert!(absorbing.condemned.tombstones.iter().count() >= 8);
    // All of them are still dead names, and nothing is missing to anybody.
    let gone = named_and_gone(&owner);
    assert_eq!(gone, 12);
    for (number, id) in kept.iter().enumerate() {
        assert_eq!(owner.read(*id).unwrap(), small(number as u64));
    }
    is_clean(&owner, "with tombstones");
    assert!(!owner.listener.warned().contains("missing"), "{}", owner.listener.warned());
    // Once nothing is needed of those runs they go, and the tombstones with them.
    let last = kept.pop().unwrap();
    forget_all(&owner, &kept);
    (0..4).for_each(|_| drop(run(&keeper, 0).unwrap()));
    assert_eq!(named_and_gone(&owner), 1);
    assert_eq!(owner.read(last).unwrap(), small(11));
    let found = owner.open().condemned(&Default::default()).unwrap().found;
    let tombstones: usize = found.values().map(|found| found.condemned.tombstones.iter().count()).sum();
    let dead: usize = found.values().map(|found| found.condemned.dead.iter().count()).sum();
    assert!(tombstones + dead <= 3, "{found:?}");
}
