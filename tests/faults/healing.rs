//! What was found bad is reported, and made good: by the next backup where a source still has it.

use crate::support::world::{Client, Content, Listener, content, copy_of, dump, noise};
use crate::support::{Failure, Fault, FaultStore};
use chronolith::base::SnapshotId;
use chronolith::format::pack::BlobClass;
use chronolith::ops::Snapshots;
use chronolith::ops::backup::backup;
use chronolith::ops::check::{CheckOptions, CheckReport, Gravity, ReadData, check};
use chronolith::ops::prune::{PruneOptions, PruneReport, prune};
use chronolith::ops::verify::verify;
use chronolith::storage::{MemoryStore, Operation, Store};
use std::sync::Arc;

struct Scene {
    store: Arc<MemoryStore>,
    owner: Client,
    content: Content,
    first: SnapshotId,
}

/// One content pack of several frames.
fn scene() -> Scene {
    scene_of(5_000_000)
}

fn scene_of(noise_bytes: usize) -> Scene {
    let store = Arc::new(MemoryStore::new());
    let owner = Client::init(store.clone(), 77);
    let content = content([("app.sql", dump(1, 4000, 7)), ("noise", noise(5, noise_bytes))]);
    let first = owner.back_up(&content);
    Scene { store, owner, content, first }
}

/// Names of packs of a kind (3 content, 4 metadata), oldest first.
fn packs(store: &MemoryStore, kind: u8) -> Vec<String> {
    let mut objects = store.list("packs/").unwrap();
    objects.sort_by_key(|object| object.modified);
    let names = objects.into_iter().map(|object| object.name);
    names.filter(|name| store.get(name, u64::MAX).unwrap()[4] == kind).collect()
}

fn flip(store: &MemoryStore, name: &str, at: usize) {
    let mut bytes = store.get(name, u64::MAX).unwrap();
    bytes[at] ^= 1;
    store.delete(name).unwrap();
    store.put(name, &bytes).unwrap();
}

fn look(client: &Client, read_data: ReadData) -> CheckReport {
    let options = CheckOptions { read_data, keep_ledger: true, program: "test".to_owned() };
    check(&client.open(), &options).unwrap()
}

fn pruned(client: &Client) -> PruneReport {
    let options = PruneOptions { grace_seconds: 0, ..PruneOptions::new("test") };
    prune(&client.open(), &options).unwrap()
}

fn reports(store: &MemoryStore) -> usize {
    store.list("damaged/").unwrap().len()
}

impl Scene {
    fn reads(&self, id: SnapshotId) -> bool {
        match self.owner.read(id) {
            Ok(read) => {
                assert_eq!(read, self.content);
                true
            }
            Err(_) => false,
        }
    }
}

#[test]
fn who_may_not_write_learns_what_is_wrong_all_the_same() {
    let scene = scene();
    let pack = packs(&scene.store, 3).remove(0);
    flip(&scene.store, &pack, 1000);
    let refuses =
        |_, operation, _: &str| (operation == Operation::Put).then_some(Fault::Before(Failure::Denied));
    let store = Arc::new(FaultStore::with_plan(copy_of(&*scene.store), refuses));
    let client = scene.owner.with_listener(Listener::default()).through(store.clone());
    let found = look(&client, ReadData::All);
    assert!(found.is_damaged() && found.hurt.len() == 1, "{found:?}");
    assert!(found.findings.iter().any(|finding| finding.object == pack), "{found:?}");
    let warned = client.listener.warned();
    assert!(warned.contains("could not be noted") && warned.contains("could not be reported"), "{warned}");

    let repository = client.open();
    let snapshots = Snapshots::load(&repository).unwrap();
    let verified = verify(&repository, snapshots.get(&scene.first).unwrap(), "test", true).unwrap();
    assert!(!verified.passed());
    assert!(client.listener.warned().contains("what was found could not be noted"));
    assert!(store.fired());
}

#[test]
fn what_a_check_finds_bad_the_next_backup_stores_again() {
    let scene = scene();
    let pack = packs(&scene.store, 3).remove(0);
    flip(&scene.store, &pack, 1000);
    assert!(!scene.reads(scene.first));
    // Nobody knows yet: the next backup relies on it.
    let blind = scene.owner.back_up(&scene.content);
    assert!(!scene.reads(blind));
    let found = look(&scene.owner, ReadData::All);
    assert!(found.is_damaged());
    assert_eq!((found.reported, found.hurt.len(), reports(&scene.store)), (1, 2, 1), "{found:?}");
    let before = packs(&scene.store, 3).len();
    let healing = scene.owner.back_up(&scene.content);
    assert_eq!(packs(&scene.store, 3).len(), before + 1, "it was stored again");
    let all = [scene.first, blind, healing];
    assert!(all.iter().all(|id| scene.reads(*id)), "every snapshot that needs it is whole again");
    // What is stored again is what was bad, not the whole pack.
    let again = scene.store.get(&packs(&scene.store, 3)[before], u64::MAX).unwrap().len();
    let whole = scene.store.get(&pack, u64::MAX).unwrap().len();
    assert!(again < whole * 2 / 3, "{again} of {whole} bytes");
    // The pack is still bad, and that is said; but nothing is lost, and nothing is said twice.
    for read_data in [ReadData::None, ReadData::All] {
        let after = look(&scene.owner, read_data);
        assert!(!after.is_damaged(), "{after:?}");
        assert_eq!((after.known_damage, after.reported, after.cancelled), (1, 0, 0));
        let told: Vec<_> = after.findings.iter().filter(|finding| finding.object == pack).collect();
        assert!(!told.is_empty() && told.iter().all(|finding| finding.gravity == Gravity::Warning));
    }
    assert_eq!(reports(&scene.store), 1);
    // A prune neither stops nor takes the bad copy for a good one.
    for _ in 0..3 {
        pruned(&scene.owner);
        assert!(all.iter().all(|id| scene.reads(*id)), "after a prune");
    }
}

#[test]
fn recipes_that_are_bad_are_stored_again_too() {
    let scene = scene();
    let pack = packs(&scene.store, 4).remove(0);
    flip(&scene.store, &pack, 1000);
    let blind = scene.owner.back_up(&scene.content);
    assert!(!scene.reads(scene.first) && !scene.reads(blind), "both need the same recipe");
    let found = look(&scene.owner, ReadData::None);
    assert_eq!((found.reported, found.hurt.len()), (1, 2), "{found:?}");
    let healing = scene.owner.back_up(&scene.content);
    assert!(scene.reads(blind) && scene.reads(healing));
    // The tree of the first is of its own time: nobody can store that again.
    let after = look(&scene.owner, ReadData::All);
    assert_eq!(after.hurt.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [scene.first]);
}

#[test]
fn a_pack_that_is_bad_as_a_whole_goes_once_everything_is_stored_again() {
    let scene = scene();
    let pack = packs(&scene.store, 3).remove(0);
    let length = scene.store.get(&pack, u64::MAX).unwrap().len();
    // In the signature: no frame is bad, and yet nobody can tell what else is.
    flip(&scene.store, &pack, length - 5);
    let found = look(&scene.owner, ReadData::All);
    assert_eq!((found.is_damaged(), found.reported, found.hurt.len()), (true, 1, 0), "{found:?}");
    // Before anybody stores it again it is the only copy, and stays.
    assert_eq!(pruned(&scene.owner).condemned_packs, 0);
    let healing = scene.owner.back_up(&scene.content);
    assert_eq!(pruned(&scene.owner).deleted_packs, 1);
    assert!(!packs(&scene.store, 3).contains(&pack));
    assert!(scene.reads(scene.first) && scene.reads(healing));
    let after = look(&scene.owner, ReadData::All);
    assert!(!after.is_damaged() && after.known_damage == 0, "{after:?}");
    // What it was reported for is gone, and then the report.
    pruned(&scene.owner);
    assert_eq!(reports(&scene.store), 0);
}

#[test]
fn a_pack_that_comes_back_whole_is_relied_on_again() {
    let scene = scene();
    let pack = packs(&scene.store, 3).remove(0);
    flip(&scene.store, &pack, 1000);
    assert_eq!(look(&scene.owner, ReadData::All).reported, 1);
    flip(&scene.store, &pack, 1000);
    // Until somebody has looked, it counts as bad.
    let report = scene.owner.try_back_up(&scene.content).unwrap();
    assert!(report.summary.new_bytes > 1000);
    // Even a check that reads no other content reads what was reported.
    let after = look(&scene.owner, ReadData::None);
    assert_eq!((after.is_damaged(), after.cancelled, after.known_damage), (false, 1, 0), "{after:?}");
    let again = look(&scene.owner, ReadData::All);
    assert_eq!((again.reported, again.cancelled), (0, 0));
    let none = scene.owner.try_back_up(&scene.content).unwrap();
    assert!(none.summary.new_bytes < 1000, "trees only: {none:?}");
    // First the report goes, then what took it back.
    pruned(&scene.owner);
    assert_eq!(reports(&scene.store), 1);
    pruned(&scene.owner);
    assert_eq!(reports(&scene.store), 0);
}

#[test]
fn nothing_is_stored_as_a_difference_against_what_is_bad() {
    let scene = scene_of(120_000);
    let pack = packs(&scene.store, 3).remove(0);
    let mut next = scene.content.clone();
    next.get_mut("noise".as_bytes()).unwrap().iter_mut().step_by(3001).for_each(|byte| *byte ^= 1);
    let mut options = scene.owner.options();
    options.differences = chronolith::ops::backup::Differences::Always;
    let store_next = |client: &Client| {
        let sources = crate::support::world::streams(&next);
        backup(&client.open(), sources, &options).unwrap()
    };
    // Every frame of the pack is bad, so no chunk of the parent can be a base.
    let mut bytes = scene.store.get(&pack, u64::MAX).unwrap();
    let end = bytes.len() - 30_000;
    bytes[200..end].fill(7);
    scene.store.delete(&pack).unwrap();
    scene.store.put(&pack, &bytes).unwrap();
    assert!(look(&scene.owner, ReadData::All).is_damaged());
    let report = store_next(&scene.owner);
    let id = report.snapshot.unwrap();
    assert_eq!(scene.owner.read(id).unwrap(), next);
    let repository = scene.owner.open();
    repository.load_index().unwrap();
    repository.index().for_each(|copy| {
        let spoilt = |base| {
            let copies = repository.index().find(BlobClass::Content, base, false, |_| true);
            copies.iter().all(|copy| pack.ends_with(&copy.pack.id.to_string()))
        };
        let based_on_bad = copy.record.base.as_ref().is_some_and(spoilt);
        let own = pack.ends_with(&copy.pack.id.to_string());
        assert!(own || !based_on_bad, "{:?}", copy.record);
    });
}

#[test]
fn a_difference_whose_base_is_bad_is_whole_again_once_the_base_is() {
    let scene = scene_of(120_000);
    let mut next = scene.content.clone();
    next.get_mut("noise".as_bytes()).unwrap().iter_mut().step_by(3001).for_each(|byte| *byte ^= 1);
    let mut options = scene.owner.options();
    options.differences = chronolith::ops::backup::Differences::Always;
    let sources = crate::support::world::streams(&next);
    let second = backup(&scene.owner.open(), sources, &options).unwrap();
    assert!(second.differences > 5);
    let pack = packs(&scene.store, 3).remove(0);
    let mut bytes = scene.store.get(&pack, u64::MAX).unwrap();
    let end = bytes.len() - 30_000;
    bytes[200..end].fill(7);
    scene.store.delete(&pack).unwrap();
    scene.store.put(&pack, &bytes).unwrap();
    let found = look(&scene.owner, ReadData::All);
    assert_eq!(found.reported, 1, "only the pack that is bad, not those that need it: {found:?}");
    assert_eq!(found.hurt.len(), 2);
    // Nobody reads the differences again, and they are known to be lost with what they rest on.
    let known = look(&scene.owner, ReadData::None);
    assert_eq!((known.hurt.len(), known.reported), (2, 0), "{known:?}");
    // Nor does it take a record of the base to know that it is gone.
    let aside = Arc::new(copy_of(scene.store.as_ref()));
    aside.delete(&pack).unwrap();
    for run in aside.list("index/").unwrap() {
        aside.delete(&run.name).unwrap();
    }
    assert_eq!(look(&scene.owner.through(aside), ReadData::None).hurt.len(), 2);
    // Only the first version is still somewhere.
    let healing = scene.owner.back_up(&scene.content);
    assert!(scene.reads(scene.first) && scene.reads(healing));
    assert_eq!(scene.owner.read(second.snapshot.unwrap()).unwrap(), next);
    assert!(!look(&scene.owner, ReadData::All).is_damaged());
    for _ in 0..2 {
        pruned(&scene.owner);
        assert!(scene.reads(scene.first) && scene.reads(healing));
        assert_eq!(scene.owner.read(second.snapshot.unwrap()).unwrap(), next);
    }
}

#[test]
fn a_pack_that_lies_unread_is_not_reported_by_a_check_of_the_structure() {
    let scene = scene();
    let pack = packs(&scene.store, 3).remove(0);
    flip(&scene.store, &pack, 1000);
    let found = look(&scene.owner, ReadData::None);
    assert!(!found.is_damaged() && reports(&scene.store) == 0);
    // What a listing shows to everybody needs no report either.
    scene.store.delete(&pack).unwrap();
    let found = look(&scene.owner, ReadData::All);
    assert!(found.is_damaged() && reports(&scene.store) == 0);
    let healing = scene.owner.back_up(&scene.content);
    assert!(scene.reads(scene.first) && scene.reads(healing));
}
