//! Packs that are needed in parts: sealed frames move to new packs, whoever sealed them, and nothing that
//! anybody needs is lost, whatever somebody else claims to hold.

use crate::forge::{Claim, client_with, entry_of, index_run, pack_under, poison, publish, put, records_of};
use crate::support::world::{Client, Content, content, copy_of, noise, streams};
use crate::support::{Failure, Fault, FaultStore};
use crate::sweep::{Scene, interleaved, run};
use crate::{condemn, packs};
use chronolith::base::{ObjectId, SnapshotId, Timestamp};
use chronolith::codec::Encoding;
use chronolith::format::ObjectKind;
use chronolith::format::cbor::Extra;
use chronolith::format::damaged::{Damaged, DamagedObject, Finding};
use chronolith::format::pack::BlobClass;
use chronolith::format::place::Place;
use chronolith::format::trust::Role;
use chronolith::ops::backup::{BackupOptions, Differences, backup};
use chronolith::ops::check::{CheckOptions, Gravity, ReadData, check};
use chronolith::ops::forget::forget;
use chronolith::ops::prune::{PruneOptions, PruneReport, Unused, prune};
use chronolith::ops::{OpsError, Snapshots};
use chronolith::storage::{MemoryStore, Operation, Store};
use std::sync::Arc;

/// Whatever nobody needs of a pack goes, and frames stay as they are.
fn options() -> PruneOptions {
    let as_they_are = Some(Unused::Share { hundredths: 10_000 });
    PruneOptions {
        max_unused: Unused::Bytes(0),
        max_held: as_they_are,
        ..PruneOptions::new("test").within(0)
    }
}

fn repack(client: &Client) -> Result<PruneReport, OpsError> {
    prune(&client.open(), &options())
}

/// More than a sealed frame holds: some of it lies in frames of its own.
const MUCH: usize = 2_300_000;

/// What was once backed up with something that is still needed. Names say in which order.
fn with_gone(shared: Vec<u8>) -> Content {
    content([("gone", noise(2, MUCH)), ("shared", shared)])
}

fn pack_bytes(store: &dyn Store) -> u64 {
    store.list("packs/").unwrap().iter().map(|pack| pack.length).sum()
}

fn forget_one(owner: &Client, id: SnapshotId) {
    let repository = owner.open();
    forget(&repository, &Snapshots::load(&repository).unwrap(), &[id]).unwrap();
}

/// Two snapshots, the older forgotten, of which the newer has most of its chunks.
fn partly() -> Scene {
    let store = Arc::new(MemoryStore::new());
    let owner = Client::init(store.clone(), 41);
    let old = with_gone(noise(1, 60_000));
    let kept = content([("shared", noise(1, 60_000)), ("new", noise(3, 5_000))]);
    let forgotten_id = owner.back_up(&old);
    let kept_id = owner.back_up(&kept);
    forget_one(&owner, forgotten_id);
    Scene { store, owner, old, kept, kept_id, forgotten_id }
}

#[test]
fn who_reads_no_content_frees_what_nobody_needs_of_a_pack() {
    let scene = partly();
    let maintainer = client_with(&scene.owner, Role::Maintainer, "keeper", "", &[]);
    assert!(!maintainer.open().keyring().reads_content());
    let before = pack_bytes(&scene.store);
    // Within what may be unused nothing is copied; what is left is told.
    let lazy = PruneOptions { max_unused: Unused::Share { hundredths: 10_000 }, dry_run: true, ..options() };
    let lazy = prune(&maintainer.open(), &lazy).unwrap();
    assert_eq!((lazy.repacked_packs, lazy.repack_copy_bytes), (0, 0));
    assert!(lazy.unused_bytes > 2_000_000 && lazy.shared_frame_bytes > 100_000, "{lazy:?}");
    let planned = prune(&maintainer.open(), &PruneOptions { dry_run: true, ..options() }).unwrap();
    assert_eq!(pack_bytes(&scene.store), before);
    let report = repack(&maintainer).unwrap();
    assert_eq!(
        (planned.repacked_packs, planned.repacked_bytes, planned.condemned_packs, planned.kept_bytes),
        (report.repacked_packs, report.repacked_bytes, report.condemned_packs, report.kept_bytes)
    );
    assert_eq!((report.pack_bytes, report.repacked_packs, report.unused_bytes), (before, 1, 0), "{report:?}");
    let after = pack_bytes(&scene.store);
    assert!(after + 2_000_000 < before, "{before} to {after}");
    assert!(after.abs_diff(report.kept_bytes) < 1024, "{after}: {report:?}");
    scene.holds(&scene.owner, "repacked");
    let again = repack(&maintainer).unwrap();
    assert_eq!((again.condemned_packs, again.copied_bytes, again.unused_bytes), (0, 0, 0), "{again:?}");
    // The copies are as good as what they were made from: they are adopted.
    let next = scene.owner.try_back_up(&scene.kept).unwrap();
    assert_eq!(next.summary.new_blobs, 1, "only the root, which holds the time");
    scene.holds(&scene.owner, "after another backup");
}

#[test]
fn bounds_are_kept() {
    let store = Arc::new(MemoryStore::new());
    let owner = Client::init(store.clone(), 42);
    // Three packs, of which 2.1 of 4.3 MB, 4.2 of 6.4 and 6.3 of 8.5 are needed.
    let mut olds = Vec::new();
    let mut kept = Content::new();
    for (number, needed) in [100_000, 2_150_000, 4_250_000].into_iter().enumerate() {
        let (part, rest) = (noise(number as u64, needed), noise(number as u64 + 10, 4_250_000));
        let name = format!("part{number}");
        olds.push(owner.back_up(&content([(&name, part.clone()), ("rest", rest)])));
        kept.insert(name.into_bytes(), part);
    }
    let kept_id = owner.back_up(&kept);
    olds.into_iter().for_each(|id| forget_one(&owner, id));
    let plan = |max_unused, max_repack_bytes| {
        let options = PruneOptions { max_unused, max_repack_bytes, dry_run: true, ..options() };
        prune(&owner.open(), &options).unwrap()
    };
    let all = plan(Unused::Bytes(0), None);
    assert_eq!((all.repacked_packs, all.unused_bytes), (3, 0), "{all:?}");
    // What frees most comes first.
    let most = plan(Unused::Bytes(0), Some(5_000_000));
    assert_eq!(most.repacked_packs, 1);
    assert!(most.repack_copy_bytes < 2_500_000 && most.unused_bytes > 4_000_000, "{most:?}");
    assert_eq!(plan(Unused::Bytes(0), Some(4_000_000)).repacked_packs, 0);
    let some = plan(Unused::Bytes(3_000_000), None);
    assert_eq!(some.repacked_packs, 2);
    assert!((1_500_000..=3_000_000).contains(&some.unused_bytes), "{some:?}");
    // 2.2 MB beside 12.6 are about 15 %.
    assert_eq!(plan(Unused::Share { hundredths: 2000 }, None).repacked_packs, 2);
    assert_eq!(plan(Unused::Share { hundredths: 1000 }, None).repacked_packs, 3);
    prune(&owner.open(), &PruneOptions { max_repack_bytes: Some(5_000_000), ..options() }).unwrap();
    assert_eq!(owner.read(kept_id).unwrap(), kept);
    let last = repack(&owner).unwrap();
    assert_eq!((last.repacked_packs, last.unused_bytes), (2, 0), "{last:?}");
    assert_eq!(owner.read(kept_id).unwrap(), kept);
}

#[test]
fn differences_move_with_their_bases() {
    let store = Arc::new(MemoryStore::new());
    let owner = Client::init(store.clone(), 43);
    let first = content([("app", noise(1, 60_000)), ("gone", noise(2, MUCH))]);
    let mut next = content([("app", noise(1, 60_000))]);
    for bytes in next.values_mut() {
        bytes.iter_mut().step_by(997).for_each(|byte| *byte ^= 1);
    }
    let first_id = owner.back_up(&first);
    let mut options = owner.options();
    options.differences = chronolith::ops::backup::Differences::Always;
    let report =
        chronolith::ops::backup::backup(&owner.open(), crate::support::world::streams(&next), &options)
            .unwrap();
    assert!(report.differences > 0, "{report:?}");
    forget_one(&owner, first_id);
    let pruned = repack(&owner).unwrap();
    assert!(pruned.repacked_packs > 0 && pruned.unused_bytes == 0, "{pruned:?}");
    assert!(pruned.base_bytes > 50_000, "the bases are needed for nothing else: {pruned:?}");
    for what in ["repacked", "and again"] {
        assert_eq!(owner.read(report.snapshot.unwrap()).unwrap(), next, "{what}");
        let again = repack(&owner).unwrap();
        assert_eq!((again.condemned_packs, again.base_bytes), (0, pruned.base_bytes), "{what}");
    }
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    assert!(!check(&owner.open(), &options).unwrap().is_damaged());
}

/// Bytes, and what changed in them a little.
fn two_versions() -> [Content; 2] {
    let first = content([("app", noise(1, 60_000))]);
    let mut next = first.clone();
    for bytes in next.values_mut() {
        bytes.iter_mut().step_by(997).for_each(|byte| *byte ^= 1);
    }
    [first, next]
}

/// Backs up what is stored as differences.
fn back_up_differences(client: &Client, content: &Content) -> SnapshotId {
    let always = BackupOptions { differences: Differences::Always, ..client.options() };
    let report = backup(&client.open(), streams(content), &always).unwrap();
    assert!(report.differences > 0, "{report:?}");
    report.snapshot.unwrap()
}

/// A sweep that broke off, and an upload that was suspended: a pack of differences is there, its bases are
/// swept, and nobody needs either ([CONCURRENCY-36]).
#[test]
fn differences_that_nobody_needs_may_outlive_their_bases() {
    let store = Arc::new(MemoryStore::new());
    let owner = Client::init(store.clone(), 44);
    let [first, next] = two_versions();
    let first_id = owner.back_up(&first);
    let before = packs(&store);
    let next_id = back_up_differences(&owner, &next);
    let look = |what: &str| {
        let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
        let report = check(&owner.open(), &options).unwrap();
        let told = report.findings.iter().any(|finding| finding.what.contains("cannot be read"));
        assert!(!report.is_damaged() && told, "{what}: {report:?}");
    };
    let whole = Arc::new(copy_of(&store));
    let aside = owner.through(whole.clone());
    for id in [first_id, next_id] {
        forget_one(&owner, id);
    }
    prune(&owner.open(), &PruneOptions::new("test")).unwrap();
    for object in store.list("snapshots/").unwrap() {
        store.delete(&object.name).unwrap();
    }
    crate::delete(store.as_ref(), &before);
    look("half swept");
    // What was never committed: the snapshots are gone, and no condemnation says of the rest that it goes.
    forget_one(&aside, first_id);
    for object in whole.list("snapshots/").unwrap() {
        whole.delete(&object.name).unwrap();
    }
    crate::delete(whole.as_ref(), &before);
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    let report = check(&aside.open(), &options).unwrap();
    let of_frames = |finding: &&chronolith::ops::check::Finding| finding.what.contains("its frame at byte");
    assert!(report.findings.iter().filter(of_frames).count() > 0);
    let grave = |finding: &chronolith::ops::check::Finding| finding.gravity == Gravity::Damage;
    assert!(!report.findings.iter().filter(of_frames).any(grave), "{:?}", report.findings);
}

/// The same where the sweep was over when the pack of differences came, and no index run names its bases any more.
#[test]
fn differences_that_come_when_their_bases_are_swept_are_no_damage() {
    let store = Arc::new(MemoryStore::new());
    let owner = Client::init(store.clone(), 45);
    let [first, next] = two_versions();
    let first_id = owner.back_up(&first);
    let before = packs(&store);
    let other = Arc::new(copy_of(&store));
    back_up_differences(&owner.through(other.clone()), &next);
    forget_one(&owner, first_id);
    // Catalogues are made of what gathers over months; here it is made at once.
    chronolith::ops::catalogue::gather_now(&owner.open()).unwrap().unwrap();
    prune(&owner.open(), &options()).unwrap();
    assert!(packs(&store).iter().all(|name| !before.contains(name)), "the bases are swept");
    for object in other.list("packs/").unwrap() {
        if !before.iter().any(|id| object.name.ends_with(&id.to_string())) {
            store.put(&object.name, &other.get(&object.name, u64::MAX).unwrap()).unwrap();
        }
    }
    let all = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    let report = check(&owner.open(), &all).unwrap();
    let of_frames = report.findings.iter().filter(|finding| finding.what.contains("its frame at byte"));
    assert!(of_frames.count() > 0 && !report.is_damaged(), "{report:?}");
    // Nobody builds on what cannot be read, and the next prune takes it.
    let again = owner.back_up(&next);
    assert_eq!(owner.read(again).unwrap(), next);
    assert!(!check(&owner.open(), &all).unwrap().is_damaged());
}

#[test]
fn a_repacking_prune_may_be_killed_at_every_request() {
    let scene = partly();
    for number in 1.. {
        let store = Arc::new(copy_of(&scene.store));
        let faulty = Arc::new(FaultStore::failing_from(store.clone(), number, Fault::Before(Failure::Fatal)));
        let result = scene.owner.through(faulty.clone()).try_open().map_err(OpsError::from);
        drop(result.and_then(|repository| prune(&repository, &options())));
        let client = scene.owner.through(store.clone());
        let what = format!("killed at request {number}");
        assert_eq!(client.read(scene.kept_id).unwrap(), scene.kept, "{what}");
        let id = client.back_up(&scene.old);
        assert_eq!(client.read(id).unwrap(), scene.old, "{what}");
        repack(&client).unwrap_or_else(|error| panic!("{what}: {error}"));
        let last = repack(&client).unwrap();
        assert_eq!((last.unused_bytes, last.repacked_packs), (0, 0), "{what}: it comes to rest");
        assert_eq!(client.read(id).unwrap(), scene.old, "{what}");
        assert_eq!(client.read(scene.kept_id).unwrap(), scene.kept, "{what}");
        if !faulty.fired() {
            assert!(number > 30, "a prune has more than {number} requests");
            break;
        }
    }
}

#[test]
fn a_backup_may_come_at_every_request_of_a_repacking_prune() {
    let scene = partly();
    let old = scene.old.clone();
    interleaved(
        &scene,
        |client, what| drop(repack(client).unwrap_or_else(|error| panic!("{what}: {error}"))),
        move |client| _ = client.back_up(&old),
        |client, what| {
            for _ in 0..2 {
                for id in client.snapshots().into_iter().filter(|id| *id != scene.forgotten_id) {
                    let read = client.read(id).unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert!(read == scene.kept || read == scene.old, "{what}");
                }
                repack(client).unwrap();
            }
        },
    );
}

#[test]
fn two_repacking_prunes_do_not_rely_on_what_the_other_deletes() {
    let scene = partly();
    interleaved(
        &scene,
        |client, what| drop(repack(client).unwrap_or_else(|error| panic!("{what}: {error}"))),
        |client| drop(repack(client).unwrap()),
        |client, what| {
            scene.holds(client, what);
            repack(client).unwrap();
            let last = repack(client).unwrap();
            assert_eq!((last.unused_bytes, last.condemned_packs), (0, 0), "{what}");
            scene.holds(client, what);
        },
    );
}

/// A victim whose packs are needed in parts, and a thief of the same domain.
struct Domain {
    scene: Scene,
    maintainer: Client,
    thief: Client,
}

fn domain() -> Domain {
    let store = Arc::new(MemoryStore::new());
    let owner = Client::init(store.clone(), 44);
    let victim = client_with(&owner, Role::Writer, "victim", "", &["db1"]);
    let thief = client_with(&owner, Role::Writer, "thief", "", &["web"]);
    let maintainer = client_with(&owner, Role::Maintainer, "keeper", "", &[]);
    let old = with_gone(noise(1, 60_000));
    let kept = content([("shared", noise(1, 60_000)), ("new", noise(3, 5_000))]);
    let forgotten_id = victim.back_up(&old);
    let kept_id = victim.back_up(&kept);
    forget_one(&owner, forgotten_id);
    Domain { scene: Scene { store, owner, old, kept, kept_id, forgotten_id }, maintainer, thief }
}

impl Domain {
    /// Whatever the thief has put, the victim's snapshot is whole after some prunes.
    fn survives(&self, what: &str) -> PruneReport {
        let report = repack(&self.maintainer).unwrap_or_else(|error| panic!("{what}: {error}"));
        for _ in 0..3 {
            assert_eq!(self.scene.owner.read(self.scene.kept_id).unwrap(), self.scene.kept, "{what}");
            repack(&self.maintainer).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        report
    }
}

#[test]
fn a_poisoned_copy_never_stands_in_for_a_true_one() {
    let domain = domain();
    for located in records_of(&domain.scene.owner.open(), BlobClass::Content).into_iter().step_by(15) {
        let (id, length) = (located.record.id, located.record.length);
        let encoded = noise(99, length as usize);
        let claim = Claim { blob: (id, length), encoding: Encoding::Stored, base: None, encoded };
        poison(&domain.thief, BlobClass::Content, claim);
    }
    let report = domain.survives("poisoned copies");
    assert_eq!((report.repacked_packs, report.unused_bytes, report.held_packs), (1, 0, 0), "{report:?}");
    // Not even where the true copies are gathered in packs of the maintainer already.
    forget_one(&domain.scene.owner, domain.scene.kept_id);
    let id = domain.scene.owner.back_up(&content([("shared", noise(1, 60_000)), ("x", noise(4, 9_000))]));
    domain.maintainer.listener.warnings.lock().unwrap().clear();
    for _ in 0..3 {
        repack(&domain.maintainer).unwrap();
        assert_eq!(domain.scene.owner.read(id).unwrap()[&b"shared"[..]], noise(1, 60_000));
    }
}

#[test]
fn a_frame_that_claims_to_be_anothers_is_found_out_and_nothing_of_both_goes() {
    let domain = domain();
    let mut frames = std::collections::BTreeMap::new();
    for located in records_of(&domain.scene.owner.open(), BlobClass::Content) {
        frames.entry((located.pack.id, located.record.frame_offset)).or_insert(located);
    }
    for located in frames.values() {
        let record = &located.record;
        let claim = Claim {
            blob: (record.id, record.length),
            encoding: Encoding::Zstd,
            base: None,
            encoded: noise(98, record.sealed_length as usize),
        };
        let origin = located.pack.origins[usize::from(record.origin)];
        let forged = pack_under(&domain.thief.open(), BlobClass::Content, origin, record.counter, claim);
        publish(&domain.thief, forged);
    }
    let largest = domain.scene.store.list("packs/").unwrap().into_iter().max_by_key(|pack| pack.length);
    let victims: Vec<_> = frames.keys().map(|(pack, _)| *pack).collect();
    let report = domain.survives("a forged origin");
    assert!(report.held_packs > 0, "{report:?}");
    assert!(domain.maintainer.listener.warned().contains("claims to be its frame"));
    assert!(victims.iter().any(|pack| packs(&domain.scene.store).contains(pack)), "{largest:?}");
}

#[test]
fn lies_of_an_index_run_stop_no_prune() {
    let domain = domain();
    let repository = domain.thief.open();
    for located in records_of(&domain.scene.owner.open(), BlobClass::Content).into_iter().step_by(15) {
        // Elsewhere in the victim's own pack, which the thief did not sign.
        let mut record = located.record;
        record.pack = 0;
        record.frame_offset += 1;
        let run = index_run(&repository, vec![entry_of(&located)], vec![record], None);
        put(&domain.thief, "index/00000001", &run);
    }
    let report = domain.survives("lies about the victim's pack");
    assert!(report.repacked_packs > 0, "{report:?}");
}

#[test]
fn a_pack_that_cannot_be_read_stays_and_the_others_are_repacked() {
    let scene = partly();
    let name = scene
        .store
        .list("packs/")
        .unwrap()
        .into_iter()
        .max_by_key(|pack| pack.length)
        .map(|pack| pack.name)
        .unwrap();
    let whole = scene.store.get(&name, u64::MAX).unwrap();
    let mut rotten = whole.clone();
    let at = rotten.len() / 2;
    rotten[at] ^= 1;
    scene.store.replace(&name, &rotten).unwrap();
    let report = repack(&scene.owner).unwrap();
    assert_eq!(report.held_packs, 1, "{report:?}");
    assert!(scene.owner.listener.warned().contains(&name));
    scene.store.replace(&name, &whole).unwrap();
    scene.holds(&scene.owner, "what was rotten is whole again");
    assert_eq!(repack(&scene.owner).unwrap().held_packs, 0);
    scene.holds(&scene.owner, "and repacked");
    run(&scene.owner, 0).unwrap();
}

#[test]
fn what_cannot_be_read_is_not_given_up_for_what_claims_to_be_the_same() {
    // The victim's smallest pack of content, and for each of its blobs a forged copy.
    let besieged = || {
        let domain = domain();
        let mut packs: std::collections::BTreeMap<_, Vec<_>> = std::collections::BTreeMap::new();
        for located in records_of(&domain.scene.owner.open(), BlobClass::Content) {
            packs.entry(located.pack.id).or_default().push(located);
        }
        let held = packs.into_values().min_by_key(Vec::len).unwrap();
        for located in &held {
            let (id, length) = (located.record.id, located.record.length);
            let encoded = noise(97, length as usize);
            let claim = Claim { blob: (id, length), encoding: Encoding::Stored, base: None, encoded };
            poison(&domain.thief, BlobClass::Content, claim);
        }
        (domain, held.into_iter().next().unwrap())
    };
    // Two describe it, and it does not say which of them is right.
    let (domain, located) = besieged();
    let mut record = located.record;
    record.pack = 0;
    let run = index_run(&domain.thief.open(), vec![entry_of(&located)], vec![record], None);
    put(&domain.thief, "index/00000001", &run);
    let name = chronolith::repo::pack_name(&located.pack.id);
    let mut rotten = domain.scene.store.get(&name, u64::MAX).unwrap();
    let end = rotten.len();
    rotten[end - 192..].fill(0);
    domain.scene.store.replace(&name, &rotten).unwrap();
    domain.survives("a pack that does not tell who made it");
    // And where it was condemned before.
    condemn(&domain.scene.owner, &[located.pack.id]);
    domain.survives("the same, condemned");
    assert!(packs(&domain.scene.store).contains(&located.pack.id));
    // It was reported, and the store does not hand it out.
    let (domain, located) = besieged();
    let auditor = client_with(&domain.scene.owner, Role::Auditor, "auditor", "", &[]);
    let damaged = Damaged {
        created: Timestamp::from_nanoseconds(1),
        objects: vec![DamagedObject {
            place: Place::new(ObjectKind::ContentPack, "", ObjectId::from(located.pack.id)).unwrap(),
            finding: Finding::Unreadable,
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
    auditor.open().report_damage(&damaged).unwrap();
    let name = chronolith::repo::pack_name(&located.pack.id);
    let store = FaultStore::with_plan(domain.scene.store.clone(), move |_, operation, object| {
        (operation == Operation::Get && object == name).then_some(Fault::Before(Failure::Fatal))
    });
    let maintainer = domain.maintainer.through(Arc::new(store));
    for _ in 0..3 {
        repack(&maintainer).unwrap();
    }
    domain.survives("a pack that could not be read for some time");
}

/// Backups of little, often: what each leaves is put together, and stays what it was.
#[test]
fn many_small_packs_become_few() {
    let owner = Client::init(Arc::new(MemoryStore::new()), 47);
    let backed_up: Vec<_> = (0..40)
        .map(|number| {
            let content = content([("app.bin", noise(number, 3_000))]);
            (owner.back_up(&content), content)
        })
        .collect();
    let count = || packs(owner.store.as_ref()).len();
    assert_eq!(count(), 80);
    let none = PruneOptions { max_repack_bytes: Some(0), ..options() };
    prune(&owner.open(), &none).unwrap();
    assert_eq!(count(), 80, "nothing may be repacked");
    let planned = prune(&owner.open(), &PruneOptions { dry_run: true, ..options() }).unwrap();
    assert_eq!((planned.repacked_packs, count()), (80, 80));
    let done = repack(&owner).unwrap();
    assert_eq!((done.repacked_packs, count()), (80, 2));
    for (id, content) in &backed_up {
        assert!(owner.read(*id).unwrap() == *content);
    }
    let all = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    assert!(!check(&owner.open(), &all).unwrap().is_damaged());
    // A few more are left as they are: what was put together is not written anew for each.
    for number in 100..110 {
        owner.back_up(&content([("app.bin", noise(number, 3_000))]));
    }
    assert_eq!((repack(&owner).unwrap().repacked_packs, count()), (0, 22));
}
