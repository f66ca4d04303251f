//! A thief with a writer's key claims to hold what others have stored, at the worst moments: after the true
//! copies were condemned, under the victim's own origins, by lies of an index run. Nothing true is given up for
//! it, what was properly condemned goes all the same, and nothing is held for ever.

use crate::forge::{Claim, client_with, index_run, pack_of, pack_under, poison, publish, put, records_of};
use crate::support::ManualClock;
use crate::support::world::{Client, Content, content, dump, noise};
use crate::{condemn, delete, hooked, packs};
use chronolith::base::{Classify, DamagedId, ErrorClass, ObjectId, PackId, SnapshotId, Timestamp};
use chronolith::codec::Encoding;
use chronolith::format::ObjectKind;
use chronolith::format::cbor::Extra;
use chronolith::format::damaged::{Damaged, DamagedObject, Finding};
use chronolith::format::pack::BlobClass;
use chronolith::format::place::Place;
use chronolith::format::session::SessionPurpose;
use chronolith::format::trust::Role;
use chronolith::ops::check::{CheckOptions, ReadData, check};
use chronolith::ops::forget::forget;
use chronolith::ops::prune::{PruneOptions, PruneReport, Unused, prune};
use chronolith::ops::undelete::undelete;
use chronolith::ops::{OpsError, Snapshots};
use chronolith::repo::{Located, Presence};
use chronolith::storage::{MemoryStore, Operation, Store};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const DAY: u64 = 24 * 3600;

struct Scene {
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
    owner: Client,
    victim: Client,
    keeper: Client,
    thief: Client,
    wanted: Content,
    id: SnapshotId,
}

/// A victim with one snapshot, and a thief whose packs are adopted from.
fn scene() -> Scene {
    let clock = Arc::new(ManualClock::at_seconds(1_800_000_000));
    let store = Arc::new(MemoryStore::with_clock(clock.clone()));
    let owner = Client::init(store.clone(), 71);
    let victim = client_with(&owner, Role::Writer, "victim", "", &["db1"]);
    let keeper = client_with(&owner, Role::Maintainer, "keeper", "", &[]);
    let thief = client_with(&owner, Role::Writer, "thief", "", &["web"]);
    let wanted = content([("app.sql", dump(1, 700, 9)), ("noise", noise(3, 9000))]);
    let id = victim.back_up(&wanted);
    Scene { clock, store, owner, victim, keeper, thief, wanted, id }
}

fn forged(located: &Located) -> Claim {
    let blob = (located.record.id, located.record.length);
    Claim { blob, encoding: Encoding::Stored, base: None, encoded: noise(98, blob.1 as usize) }
}

/// The same, as if it had been sealed under somebody else's origin.
fn misplaced(located: &Located) -> Claim {
    let encoded = noise(97, located.record.sealed_length as usize);
    Claim { encoding: Encoding::Zstd, encoded, ..forged(located) }
}

impl Scene {
    /// Claims to hold everything that there is; returns the packs.
    fn forge_all(&self) -> Vec<PackId> {
        let before: BTreeSet<PackId> = packs(&self.store).into_iter().collect();
        for class in [BlobClass::Content, BlobClass::Metadata] {
            for located in records_of(&self.thief.open(), class) {
                poison(&self.thief, class, forged(&located));
            }
        }
        packs(&self.store).into_iter().filter(|pack| !before.contains(pack)).collect()
    }

    fn forget(&self, id: SnapshotId) {
        let repository = self.owner.open();
        forget(&repository, &Snapshots::load(&repository).unwrap(), &[id]).unwrap();
    }

    fn prune(&self, client: &Client, grace: u64) -> PruneReport {
        let options = PruneOptions { max_unused: Unused::Bytes(0), ..PruneOptions::new("test") };
        prune(&client.open(), &PruneOptions { grace_seconds: grace, ..options }).unwrap()
    }

    /// The snapshot is whole, whoever prunes how often.
    fn survives(&self, id: SnapshotId, gone: &[PackId], what: &str) {
        for round in 0..4 {
            self.clock.advance(Duration::from_secs(DAY));
            self.prune(&self.keeper, 0);
            assert_eq!(self.owner.read(id).unwrap(), self.wanted, "{what}, round {round}");
        }
        let left = packs(&self.store);
        assert!(gone.iter().all(|pack| !left.contains(pack)), "{what}: what was condemned is gone");
        let again = self.prune(&self.keeper, 0);
        assert_eq!((again.copied_bytes, again.condemned_packs), (0, 0), "{what}: it comes to rest");
    }

    fn report(&self, client: &Client, pack: PackId) -> DamagedId {
        let damaged = Damaged {
            created: Timestamp::from_nanoseconds(1),
            objects: vec![DamagedObject {
                place: Place::new(ObjectKind::ContentPack, "", ObjectId::from(pack)).unwrap(),
                finding: Finding::Undecodable,
                blobs: std::iter::empty().collect(),
                expected_bytes: None,
                found_bytes: None,
                detail: None,
                extra: Extra::new(),
            }],
            method: "test".to_owned(),
            program: "test".to_owned(),
            cancels: std::iter::empty().collect(),
            extra: Extra::new(),
        };
        client.open().report_damage(&damaged).unwrap()
    }
}

#[test]
fn undelete_brings_back_true_copies_whatever_was_forged_since() {
    // [CONCURRENCY-38], [CONCURRENCY-47]
    let scene = scene();
    let condemned = packs(&scene.store);
    scene.forget(scene.id);
    assert_eq!(scene.prune(&scene.keeper, DAY).condemned_packs, condemned.len() as u64);
    scene.forge_all();
    undelete(&scene.owner.open(), &[scene.id], "test").unwrap();
    // As a sweep would that had listed roots before.
    delete(&scene.store, &condemned);
    assert_eq!(scene.owner.read(scene.id).unwrap(), scene.wanted);
    scene.survives(scene.id, &condemned, "undeleted");
}

#[test]
fn a_sweep_rescues_true_copies_beside_forged_ones() {
    // [CONCURRENCY-29], [CONCURRENCY-32]
    let scene = scene();
    let condemned = packs(&scene.store);
    condemn(&scene.owner, &condemned);
    let forged = scene.forge_all();
    scene.survives(scene.id, &condemned, "swept");
    assert!(forged.iter().all(|pack| packs(&scene.store).contains(pack)), "nobody knows which are true");
}

#[test]
fn a_writer_rescues_what_it_adopted_beside_forged_copies() {
    // [CONCURRENCY-20], [CONCURRENCY-21]
    for moment in ["snapshots/", "index/"] {
        let scene = Arc::new(scene());
        let condemned = packs(&scene.store);
        scene.forget(scene.id);
        let (done, inner) = (AtomicBool::new(false), scene.clone());
        let store = hooked(&scene.store, move |operation, name| {
            if operation == Operation::Put && name.starts_with(moment) && !done.swap(true, Ordering::SeqCst) {
                inner.prune(&inner.keeper, DAY);
                inner.forge_all();
            }
        });
        // The store's time tells what a session can have put itself.
        scene.clock.advance(Duration::from_secs(1));
        let id = scene.victim.through(store).back_up(&scene.wanted);
        delete(&scene.store, &condemned);
        assert_eq!(scene.owner.read(id).unwrap(), scene.wanted, "{moment}");
        scene.survives(id, &condemned, moment);
    }
}

#[test]
fn what_its_writer_stored_anew_is_not_copied_out_of_what_goes() {
    let scene = scene();
    let condemned = packs(&scene.store);
    scene.forget(scene.id);
    scene.prune(&scene.keeper, DAY);
    let id = scene.victim.back_up(&scene.wanted);
    assert_eq!(packs(&scene.store).len(), 2 * condemned.len(), "nothing of it was adopted");
    scene.clock.advance(Duration::from_secs(DAY));
    let swept = scene.prune(&scene.keeper, 0);
    assert_eq!((swept.copied_bytes, swept.deleted_packs), (0, condemned.len() as u64), "{swept:?}");
    scene.survives(id, &condemned, "stored anew");
}

#[test]
fn what_another_writer_stored_anew_is_copied_once() {
    let scene = scene();
    let condemned = packs(&scene.store);
    scene.forget(scene.id);
    scene.prune(&scene.keeper, DAY);
    let id = client_with(&scene.owner, Role::Writer, "other", "", &["db1"]).back_up(&scene.wanted);
    scene.clock.advance(Duration::from_secs(DAY));
    let swept = scene.prune(&scene.keeper, 0);
    assert!(swept.copied_bytes > 0 && swept.deleted_packs == condemned.len() as u64, "{swept:?}");
    scene.survives(id, &condemned, "stored by another");
}

#[test]
fn where_nobody_is_a_writer_one_word_is_as_good_as_another() {
    let store = Arc::new(MemoryStore::new());
    let owner = Client::init(store.clone(), 72);
    let wanted = content([("noise", noise(3, 9000))]);
    let old = owner.back_up(&wanted);
    let repository = owner.open();
    forget(&repository, &Snapshots::load(&repository).unwrap(), &[old]).unwrap();
    condemn(&owner, &packs(&store));
    let id = owner.back_up(&wanted);
    let swept = prune(&owner.open(), &PruneOptions::new("test").within(0)).unwrap();
    assert_eq!((swept.copied_bytes, swept.deleted_packs), (0, 2), "{swept:?}");
    assert_eq!(owner.read(id).unwrap(), wanted);
}

#[test]
fn a_false_report_of_what_goes_destroys_nothing() {
    // [DAMAGED-9]
    let scene = scene();
    let auditor = client_with(&scene.owner, Role::Auditor, "auditor", "", &[]);
    let condemned = packs(&scene.store);
    let content = records_of(&scene.owner.open(), BlobClass::Content)[0].pack.id;
    condemn(&scene.owner, &condemned);
    scene.forge_all();
    let report = scene.report(&auditor, content);
    for _ in 0..3 {
        assert!(scene.prune(&scene.keeper, 0).held_packs > 0);
        assert_eq!(scene.owner.read(scene.id).unwrap(), scene.wanted);
    }
    assert!(packs(&scene.store).contains(&content));
    let back = Damaged {
        created: Timestamp::from_nanoseconds(2),
        objects: Vec::new(),
        method: "test".to_owned(),
        program: "test".to_owned(),
        cancels: [report].into_iter().collect(),
        extra: Extra::new(),
    };
    scene.keeper.open().report_damage(&back).unwrap();
    scene.survives(scene.id, &condemned, "the report was taken back");
}

#[test]
fn frames_under_anothers_origin_with_counters_of_their_own_stand_in_for_nothing() {
    // [CONCURRENCY-47]: copies of both rest on the word of keys that are believed, and on two frames.
    let scene = scene();
    let mut goes = packs(&scene.store);
    for located in records_of(&scene.thief.open(), BlobClass::Content) {
        let origin = located.pack.origins[usize::from(located.record.origin)];
        let counter = located.record.counter + 1_000_000;
        let pack = pack_under(&scene.thief.open(), BlobClass::Content, origin, counter, misplaced(&located));
        goes.push(pack.1.id);
        publish(&scene.thief, pack);
    }
    condemn(&scene.owner, &goes);
    let swept = scene.prune(&scene.keeper, 0);
    assert_eq!((swept.held_packs, swept.deleted_packs), (0, goes.len() as u64), "{swept:?}");
    scene.survives(scene.id, &goes, "all in packs of the maintainer");
    // And again, among those.
    let copies = packs(&scene.store);
    condemn(&scene.owner, &copies);
    scene.survives(scene.id, &copies, "copied again");
}

#[test]
fn a_run_that_lies_about_a_pack_holds_nothing() {
    // [CONCURRENCY-48]
    let scene = scene();
    let condemned = packs(&scene.store);
    let thief = scene.thief.open();
    for located in records_of(&thief, BlobClass::Content) {
        // A pack of the thief that holds nothing of the kind, whatever its run says; and one that is none.
        let claim = Claim {
            blob: (chronolith::base::BlobId::new([7; 32]), 2000),
            encoding: Encoding::Stored,
            base: None,
            encoded: noise(5, 2000),
        };
        let (bytes, mut entry, _) = pack_of(&thief, BlobClass::Content, claim);
        let mut garbage = bytes.clone();
        let end = garbage.len();
        garbage[end - 300..].fill(7);
        entry.origins = located.pack.origins.to_vec();
        for bytes in [bytes, garbage] {
            entry.id = PackId::new(*blake3::hash(&bytes).as_bytes());
            scene.store.put(&chronolith::repo::pack_name(&entry.id), &bytes).unwrap();
            let mut record = located.record;
            record.pack = 0;
            (record.encoding, record.sealed_length) = (Encoding::Zstd, 1000);
            let run = index_run(&thief, vec![entry.clone()], vec![record], None);
            put(&scene.thief, "index/00000001", &run);
        }
    }
    condemn(&scene.owner, &condemned);
    let swept = scene.prune(&scene.keeper, 0);
    assert_eq!(swept.held_packs, 0, "{swept:?}");
    scene.survives(scene.id, &condemned, "lies");
}

/// The victim's packs were condemned, and frames of the thief claim to be those.
fn contested() -> (Scene, Vec<PackId>) {
    let scene = scene();
    let condemned = packs(&scene.store);
    condemn(&scene.owner, &condemned);
    for located in records_of(&scene.thief.open(), BlobClass::Content) {
        let origin = located.pack.origins[usize::from(located.record.origin)];
        let claim = misplaced(&located);
        let counter = located.record.counter;
        let pack = pack_under(&scene.thief.open(), BlobClass::Content, origin, counter, claim);
        publish(&scene.thief, pack);
    }
    (scene, condemned)
}

#[test]
fn who_reads_content_sees_which_frame_is_forged() {
    let (scene, condemned) = contested();
    let swept = scene.prune(&scene.owner, 0);
    assert_eq!((swept.held_packs, swept.deleted_packs), (0, condemned.len() as u64), "{swept:?}");
    scene.survives(scene.id, &condemned, "judged by the owner");
    // The forged ones are no better for being copied.
    let forged = packs(&scene.store);
    condemn(&scene.owner, &forged);
    assert_eq!(scene.prune(&scene.owner, 0).held_packs, 0);
    assert!(scene.owner.listener.warned().contains("is not what the key"));
    scene.survives(scene.id, &forged, "all condemned");
}

#[test]
fn what_is_contested_is_held_until_a_reader_has_reported_the_forged_frame() {
    // [CONCURRENCY-48]
    let (scene, condemned) = contested();
    assert!(scene.prune(&scene.keeper, 0).held_packs > 0);
    assert_eq!(scene.owner.read(scene.id).unwrap(), scene.wanted);
    let options = CheckOptions { read_data: ReadData::All, keep_ledger: true, program: "test".to_owned() };
    let reader = client_with(&scene.owner, Role::Reader, "reader", "", &[]);
    check(&reader.open(), &options).unwrap();
    scene.survives(scene.id, &condemned, "reported");
}

#[test]
fn undelete_says_when_it_cannot_tell_what_is_true() {
    let (scene, _) = contested();
    scene.forget(scene.id);
    match undelete(&scene.keeper.open(), &[scene.id], "test") {
        Err(error @ OpsError::Stopped { .. }) => {
            assert!(error.to_string().contains("claims to be its frame"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(scene.owner.snapshots().contains(&scene.id), "snapshots are listed whether forgotten or not");
    undelete(&scene.owner.open(), &[scene.id], "test").unwrap();
    assert_eq!(scene.owner.read(scene.id).unwrap(), scene.wanted);
}

#[test]
fn a_prune_does_not_pass_over_sessions_of_keys_that_were_added_since() {
    // [CONCURRENCY-33]
    let scene = scene();
    let keeper = scene.keeper.open();
    let late = client_with(&scene.owner, Role::Writer, "late", "", &["late"]);
    let session = Presence::begin(&late.open(), SessionPurpose::Write, Default::default(), "late").unwrap();
    match prune(&keeper, &PruneOptions::new("test")) {
        // Nothing is wrong: it may be tried again.
        Err(error @ OpsError::Overtaken(_)) => {
            assert!(error.to_string().contains("keys"), "{error}");
            assert_eq!(error.class(), ErrorClass::Transient);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.prune(&scene.keeper, 0).held_packs, 0);
    drop(session);
}
