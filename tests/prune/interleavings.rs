//! What may come between: wrong clocks, listings that lag behind, differences in opposite directions, prunes that
//! rely on each other's copies.

use crate::support::world::{Client, Content, content, copy_of, noise, streams};
use crate::support::{Failure, Fault, FaultStore, LateListStore, ManualClock};
use crate::sweep::run;
use crate::{condemn, packs};
use chronolith::base::{PackId, SnapshotId};
use chronolith::format::session::SessionPurpose;
use chronolith::ops::Snapshots;
use chronolith::ops::backup::{Differences, backup};
use chronolith::ops::check::{CheckOptions, ReadData, check};
use chronolith::ops::forget::forget;
use chronolith::ops::prune::{PruneOptions, Unused, prune};
use chronolith::repo::Presence;
use chronolith::storage::{MemoryStore, Operation, Store};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

fn forget_all(owner: &Client, ids: &[SnapshotId]) {
    let repository = owner.open();
    forget(&repository, &Snapshots::load(&repository).unwrap(), ids).unwrap();
}

fn repacking() -> PruneOptions {
    let as_they_are = Some(Unused::Share { hundredths: 10_000 });
    PruneOptions {
        max_unused: Unused::Bytes(0),
        max_held: as_they_are,
        ..PruneOptions::new("test").within(0)
    }
}

fn is_clean(client: &Client, what: &str) {
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    let report = check(&client.open(), &options).unwrap();
    assert!(!report.is_damaged(), "{what}: {:?}", report.findings);
}

#[test]
fn clocks_of_hosts_decide_nothing() {
    // [CONCURRENCY-15], [CONDEMNED-3]: only the store's time counts.
    let day = 24 * 3600;
    for (writers, prunes) in [(0, 0), (day, -day), (-day, day), (day, day), (-day, -day)] {
        let what = format!("writer {writers} s, prune {prunes} s");
        let clock = Arc::new(ManualClock::at_seconds(1_800_000_000));
        let store = Arc::new(MemoryStore::with_clock(clock.clone()));
        let owner = Client::init(store.clone(), 71);
        let (old, kept) = (content([("old", noise(1, 9000))]), content([("kept", noise(2, 9000))]));
        let [writer, pruner] = [writers, prunes].map(|shift| {
            let client = Client { clock: Arc::default(), ..owner.clone() };
            client.clock.shift_seconds(shift);
            client
        });
        let forgotten = writer.back_up(&old);
        clock.advance(Duration::from_secs(1));
        let kept_id = writer.back_up(&kept);
        forget_all(&pruner, &[forgotten]);
        clock.advance(Duration::from_secs(1));
        let living =
            Presence::begin(&writer.open(), SessionPurpose::Write, Default::default(), "a writer").unwrap();
        clock.advance(Duration::from_secs(1));
        assert_eq!(run(&pruner, 3600).unwrap().condemned_packs, 2, "{what}");
        clock.advance(Duration::from_secs(3599));
        let report = run(&pruner, 3600).unwrap();
        assert_eq!((report.deleted_packs, report.waiting_seconds), (0, Some(1)), "{what}");
        // It is due, but the writer has renewed: it lives.
        living.renew().unwrap();
        clock.advance(Duration::from_secs(1));
        let report = run(&pruner, 3600).unwrap();
        assert_eq!((report.deleted_packs, report.waiting_for.len()), (0, 1), "{what}");
        // Adopting goes by the store too: what is condemned is stored again.
        let again = writer.try_back_up(&old).unwrap();
        assert!(again.summary.new_blobs > 1, "{what}");
        living.name(&living.unnamed().unwrap()).unwrap();
        assert_eq!(run(&pruner, 3600).unwrap().deleted_packs, 2, "{what}");
        assert!(living.take_lapse(), "{what}: an hour without renewal is a lapse for all");
        assert_eq!(writer.read(kept_id).unwrap(), kept, "{what}");
        assert_eq!(writer.read(again.snapshot.unwrap()).unwrap(), old, "{what}");
        drop(living);
        is_clean(&owner, &what);
    }
}

#[test]
fn a_store_that_lists_late_loses_nothing_where_the_grace_is_longer() {
    // [CONCURRENCY-34]
    let hour = 3600;
    for late in [1, 2, 5, 12, 40] {
        let clock = Arc::new(ManualClock::at_seconds(1_800_000_000));
        let store = Arc::new(MemoryStore::with_clock(clock.clone()));
        let plain = Client::init(store.clone(), 72);
        let lagging: Arc<dyn Store> = Arc::new(LateListStore::new(store.clone(), late));
        let client = plain.through(lagging.clone());
        let settle = || {
            clock.advance(Duration::from_secs(hour));
            (0..=late).for_each(|_| drop(lagging.list("sessions/").unwrap()));
        };
        let mut kept: Vec<(SnapshotId, Content)> = Vec::new();
        for round in 0..4 {
            // Half of it is what the round before had.
            let files = content([("a", noise(round, 5000)), ("b", noise(round + 1, 5000))]);
            let id = client.back_up(&files);
            // Its snapshot, its packs or its index run may not be listed yet.
            prune(
                &client.open(),
                &PruneOptions { max_unused: Unused::Bytes(0), ..PruneOptions::new("t").within(hour) },
            )
            .unwrap_or_else(|error| panic!("{late} lists late, round {round}: {error}"));
            kept.push((id, files));
            if round % 2 == 1 {
                let (gone, _) = kept.remove(0);
                settle();
                forget_all(&client, &[gone]);
            }
            for _ in 0..3 {
                settle();
                run(&client, hour).unwrap();
                for (id, files) in &kept {
                    let read = plain.read(*id);
                    assert!(read.is_ok_and(|read| read == *files), "{late} lists late, round {round}");
                }
            }
        }
        is_clean(&plain, "after all");
    }
}

/// What two writers make who do not see each other: both have X and Y, the one Y as what differs from X, the other
/// X as what differs from Y.
fn opposite() -> (Arc<MemoryStore>, Client, [(SnapshotId, Content); 4]) {
    let base = Arc::new(MemoryStore::new());
    let owner = Client::init(base.clone(), 73);
    let x = content([("app", noise(1, 40_000))]);
    let mut y = x.clone();
    for bytes in y.values_mut() {
        bytes.iter_mut().step_by(997).for_each(|byte| *byte ^= 1);
    }
    let made = Arc::new(copy_of(&base));
    let mut snapshots = Vec::new();
    for (host, [first, second]) in [("one", [&x, &y]), ("two", [&y, &x])] {
        let alone = Arc::new(copy_of(&base));
        let writer = owner.through(alone.clone()).on_host(host);
        snapshots.push((writer.back_up(first), first.clone()));
        let options =
            chronolith::ops::backup::BackupOptions { differences: Differences::Always, ..writer.options() };
        let report = backup(&writer.open(), streams(second), &options).unwrap();
        assert!(report.differences > 0, "{report:?}");
        snapshots.push((report.snapshot.unwrap(), second.clone()));
        for object in alone.list("").unwrap() {
            made.put(&object.name, &alone.get(&object.name, u64::MAX).unwrap()).unwrap();
        }
    }
    let owner = owner.through(made.clone());
    (made, owner, snapshots.try_into().unwrap())
}

#[test]
fn differences_in_opposite_directions_keep_something_to_stand_on() {
    // [CONCURRENCY-25]
    for forgotten in [[0, 2], [0, 3], [1, 2], [1, 3], [0, 1], [2, 3]] {
        let (_, owner, snapshots) = opposite();
        let ids: Vec<SnapshotId> = forgotten.iter().map(|number| snapshots[*number].0).collect();
        forget_all(&owner, &ids);
        for round in 0..3 {
            let report = prune(&owner.open(), &repacking()).unwrap();
            assert!(round == 0 || report.condemned_packs == 0, "{forgotten:?}, {round}: {report:?}");
            for (id, files) in snapshots.iter().filter(|(id, _)| !ids.contains(id)) {
                let read = owner.read(*id);
                assert!(read.is_ok_and(|read| read == *files), "{forgotten:?}, round {round}");
            }
        }
        is_clean(&owner, "after all");
    }
}

#[test]
fn neither_of_two_prunes_relies_on_what_the_other_condemned() {
    // [CONCURRENCY-29]: both have copied what is needed of one pack, and each condemns the other's copy.
    let store = Arc::new(MemoryStore::new());
    let owner = Client::init(store.clone(), 74);
    let old = content([("gone", noise(1, 2_300_000)), ("shared", noise(2, 60_000))]);
    let kept = content([("new", noise(3, 5000)), ("shared", noise(2, 60_000))]);
    let forgotten = owner.back_up(&old);
    let kept_id = owner.back_up(&kept);
    forget_all(&owner, &[forgotten]);
    let before: BTreeSet<PackId> = packs(store.as_ref()).into_iter().collect();
    let base = copy_of(store.as_ref());
    let copies: Vec<PackId> = (0..2)
        .map(|_| {
            let alone = Arc::new(copy_of(&base));
            let dies = |_, operation, name: &str| {
                (operation == Operation::Put && name.starts_with("condemned/"))
                    .then_some(Fault::Before(Failure::Fatal))
            };
            let killed = owner.through(Arc::new(FaultStore::with_plan(alone.clone(), dies)));
            prune(&killed.open(), &repacking()).unwrap_err();
            for object in alone.list("").unwrap() {
                store.put(&object.name, &alone.get(&object.name, u64::MAX).unwrap()).unwrap();
            }
            let now = packs(alone.as_ref()).into_iter();
            let new: Vec<PackId> = now.filter(|pack| !before.contains(pack)).collect();
            assert_eq!(new.len(), 1);
            new[0]
        })
        .collect();
    let original: Vec<PackId> = before.into_iter().collect();
    for copy in &copies {
        condemn(&owner, &[original.as_slice(), &[*copy]].concat());
    }
    let report = run(&owner, 0).unwrap();
    assert!(report.copied_bytes > 60_000 && report.deleted_packs >= 4, "{report:?}");
    assert_eq!(owner.read(kept_id).unwrap(), kept);
    run(&owner, 0).unwrap();
    assert_eq!(owner.read(kept_id).unwrap(), kept);
    is_clean(&owner, "after all");
}
